use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{sleep, timeout},
};

use super::*;

/// Our end of a connection, the other end, and its requests.
fn connection() -> (Limited<DuplexStream>, DuplexStream, Arc<Activity>) {
    let (ours, theirs) = duplex(64);
    let activity = Arc::new(Activity::default());
    (Limited::new(ours, activity.clone()), theirs, activity)
}

/// Reads until the connection breaks off, while the other side sends a byte now and then. Answers after how long.
async fn broken_off_after(ours: &mut Limited<DuplexStream>, theirs: &mut DuplexStream, every: Duration) -> Duration {
    let began = Instant::now();
    let sending = async {
        loop {
            sleep(every).await;
            theirs.write_all(b"x").await.expect("a pipe");
        }
    };
    let reading = async {
        let mut bytes = [0; 8];
        loop {
            match ours.read(&mut bytes).await {
                Ok(count) => assert!(count > 0, "nobody closes"),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::select! {
        error = reading => error,
        () = sending => unreachable!("it sends for ever"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    began.elapsed()
}

const NEVER: Duration = Duration::from_hours(1);
const NOW_AND_THEN: Duration = Duration::from_secs(3);

/// A timer is good to a millisecond.
#[track_caller]
fn assert_about(duration: Duration, expected: Duration) {
    let tolerance = Duration::from_millis(5);
    assert!(duration >= expected && duration <= expected + tolerance, "{duration:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_must_send_a_whole_head_in_time() {
    for every in [NEVER, NOW_AND_THEN] {
        let (mut ours, mut theirs, _) = connection();
        assert_about(broken_off_after(&mut ours, &mut theirs, every).await, HEAD);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_its_time() {
    let (mut ours, mut theirs, activity) = connection();
    let _busy = activity.begin(http::Version::HTTP_11);
    let broken = broken_off_after(&mut ours, &mut theirs, NOW_AND_THEN);
    assert!(timeout(NEVER, broken).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_rest_between_requests() {
    let (mut ours, mut theirs, activity) = connection();
    drop(activity.begin(http::Version::HTTP_11));
    assert_about(broken_off_after(&mut ours, &mut theirs, NEVER).await, REST);
}

#[tokio::test(start_paused = true)]
async fn each_request_begins_a_new_rest() {
    let (mut ours, mut theirs, activity) = connection();
    let mut bytes = [0; 8];
    // No read ever waits while a request is being answered, as with requests that come at once.
    for _ in 0..3 {
        theirs.write_all(b"GET").await.expect("a pipe");
        assert_eq!(ours.read(&mut bytes).await.expect("bytes"), 3);
        drop(activity.begin(http::Version::HTTP_11));
        let rest = timeout(REST / 2, ours.read(&mut bytes)).await;
        assert!(rest.is_err(), "still open");
    }
    assert_about(broken_off_after(&mut ours, &mut theirs, NEVER).await, REST.div_f32(2.0));
}

#[tokio::test(start_paused = true)]
async fn a_later_head_has_its_limit_from_its_first_byte_on() {
    let (mut ours, mut theirs, activity) = connection();
    drop(activity.begin(http::Version::HTTP_11));
    let first_byte = Duration::from_secs(3);
    let broken = broken_off_after(&mut ours, &mut theirs, NOW_AND_THEN).await;
    assert_about(broken, first_byte + HEAD);
}

#[tokio::test(start_paused = true)]
async fn frames_without_a_request_do_not_end_a_rest() {
    let (mut ours, mut theirs, activity) = connection();
    drop(activity.begin(http::Version::HTTP_2));
    assert_about(broken_off_after(&mut ours, &mut theirs, NOW_AND_THEN).await, REST);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_is_given_up() {
    let (mut ours, mut theirs, activity) = connection();
    let _busy = activity.begin(http::Version::HTTP_11);
    let answer = [0; 200];
    let began = Instant::now();
    let taking = async {
        let mut bytes = [0; 64];
        // Slow is not too slow.
        for _ in 0..2 {
            sleep(STALL / 2).await;
            theirs.read_exact(&mut bytes).await.expect("bytes");
        }
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        written = ours.write_all(&answer) => written.expect_err("not taken"),
        () = taking => unreachable!("it waits for ever"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_about(began.elapsed(), STALL * 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_taken_byte_by_byte_is_given_up_too() {
    let (mut ours, mut theirs, activity) = connection();
    let _busy = activity.begin(http::Version::HTTP_11);
    let began = Instant::now();
    let taking = async {
        loop {
            sleep(STALL / 3).await;
            theirs.read_u8().await.expect("a byte");
        }
    };
    let error = tokio::select! {
        written = ours.write_all(&[0; 200]) => written.expect_err("not taken"),
        () = taking => unreachable!("it takes for ever"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_about(began.elapsed(), TAKING);

    // One answer after the other, all of them taken in time, may go on for ever.
    let (mut ours, mut theirs, activity) = connection();
    let _busy = activity.begin(http::Version::HTTP_11);
    for _ in 0..10 {
        let taking = async {
            sleep(STALL / 2).await;
            theirs.read_exact(&mut [0; 100]).await.expect("bytes");
        };
        let (written, ()) = tokio::join!(ours.write_all(&[0; 100]), taking);
        written.expect("taken");
        ours.flush().await.expect("flushed");
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_crowd_a_rest_is_short() {
    let crowd = Crowd::of_at_most(2);
    let (ours, mut theirs) = duplex(64);
    let activity = Arc::new(Activity::among(crowd.clone()));
    let mut ours = Limited::new(ours, activity.clone());
    drop(activity.begin(http::Version::HTTP_11));
    let _first = crowd.place().await.taken_in(&crowd);
    let rest = timeout(REST / 2, ours.read(&mut [0; 8])).await;
    assert!(rest.is_err(), "there is room for another");
    let began = Instant::now();
    let _second = crowd.place().await.taken_in(&crowd);
    broken_off_after(&mut ours, &mut theirs, NEVER).await;
    assert!(began.elapsed() <= CROWDED_REST, "{:?}", began.elapsed());

    // But not too short for a request that follows at once.
    let (ours, mut theirs) = duplex(64);
    let activity = Arc::new(Activity::among(crowd));
    let mut ours = Limited::new(ours, activity.clone());
    sleep(Duration::from_secs(5)).await;
    drop(activity.begin(http::Version::HTTP_11));
    let lasted = broken_off_after(&mut ours, &mut theirs, NEVER).await;
    assert!(lasted >= CROWDED_REST && lasted <= 2 * CROWDED_REST, "{lasted:?}");
}

/// What the fuzzer has kept, once more on stable Rust.
#[cfg(feature = "axum")]
#[test]
fn bytes_that_were_found_once_are_answered_whole_and_in_order() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/fuzz/seeds/wire");
    let seeds: Vec<_> = std::fs::read_dir(seeds).expect("seeds").map(|seed| seed.expect("a file").path()).collect();
    assert!(!seeds.is_empty());
    for path in seeds {
        let data = std::fs::read(&path).expect("a file");
        let outcome = std::panic::catch_unwind(|| crate::wire::check(&data));
        assert!(outcome.is_ok(), "{}", path.display());
    }
}
