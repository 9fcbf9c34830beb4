use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{sleep, timeout},
};

use super::*;

/// The server's end of a connection, the client's end, and the requests.
fn connection() -> (TimedStream<DuplexStream>, DuplexStream, Arc<Activity>) {
    let (server, client) = duplex(64);
    let activity = Arc::new(Activity::default());
    (TimedStream::new(server, activity.clone()), client, activity)
}

/// Reads until the stream fails, while the client sends a byte at this interval. Returns the time until the failure.
async fn time_to_failure(
    server: &mut TimedStream<DuplexStream>,
    client: &mut DuplexStream,
    interval: Duration,
) -> Duration {
    let began = Instant::now();
    let sending = async {
        loop {
            sleep(interval).await;
            client.write_all(b"x").await.expect("a pipe");
        }
    };
    let reading = async {
        let mut bytes = [0; 8];
        loop {
            match server.read(&mut bytes).await {
                Ok(count) => assert!(count > 0, "the client does not close"),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::select! {
        error = reading => error,
        () = sending => unreachable!("an endless loop"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    began.elapsed()
}

const NEVER: Duration = Duration::from_hours(1);
const NOW_AND_THEN: Duration = Duration::from_secs(3);

/// Timers have a resolution of a millisecond.
#[track_caller]
fn assert_about(duration: Duration, expected: Duration) {
    let tolerance = Duration::from_millis(5);
    assert!(duration >= expected && duration <= expected + tolerance, "{duration:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_must_send_a_whole_head_in_time() {
    for interval in [NEVER, NOW_AND_THEN] {
        let (mut server, mut client, _) = connection();
        assert_about(time_to_failure(&mut server, &mut client, interval).await, HEAD_TIMEOUT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_has_no_time_limit_here() {
    let (mut server, mut client, activity) = connection();
    let _active = activity.begin(Version::HTTP_11);
    let failure = time_to_failure(&mut server, &mut client, NOW_AND_THEN);
    assert!(timeout(NEVER, failure).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_be_idle_between_requests() {
    let (mut server, mut client, activity) = connection();
    drop(activity.begin(Version::HTTP_11));
    assert_about(time_to_failure(&mut server, &mut client, NEVER).await, IDLE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn each_request_restarts_the_idle_timeout() {
    let (mut server, mut client, activity) = connection();
    let mut bytes = [0; 8];
    // No read is pending while a request is active, as with requests that are received whole.
    for _ in 0..3 {
        client.write_all(b"GET").await.expect("a pipe");
        assert_eq!(server.read(&mut bytes).await.expect("bytes"), 3);
        drop(activity.begin(Version::HTTP_11));
        let read = timeout(IDLE_TIMEOUT / 2, server.read(&mut bytes)).await;
        assert!(read.is_err(), "still open");
    }
    assert_about(time_to_failure(&mut server, &mut client, NEVER).await, IDLE_TIMEOUT.div_f32(2.0));
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_later_head_begins_with_its_first_byte() {
    let (mut server, mut client, activity) = connection();
    drop(activity.begin(Version::HTTP_11));
    let first_byte = Duration::from_secs(3);
    let failure = time_to_failure(&mut server, &mut client, NOW_AND_THEN).await;
    assert_about(failure, first_byte + HEAD_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn frames_without_a_request_do_not_restart_the_idle_timeout() {
    let (mut server, mut client, activity) = connection();
    drop(activity.begin(Version::HTTP_2));
    assert_about(time_to_failure(&mut server, &mut client, NOW_AND_THEN).await, IDLE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_client_stops_reading_is_closed() {
    let (mut server, mut client, activity) = connection();
    let _active = activity.begin(Version::HTTP_11);
    let began = Instant::now();
    let reading = async {
        let mut bytes = [0; 64];
        // A slow client is not closed.
        for _ in 0..2 {
            sleep(WRITE_STALL_TIMEOUT / 2).await;
            client.read_exact(&mut bytes).await.expect("bytes");
        }
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        written = server.write_all(&[0; 200]) => written.expect_err("not read"),
        () = reading => unreachable!("it is pending"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_about(began.elapsed(), WRITE_STALL_TIMEOUT * 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_client_reads_byte_by_byte_is_closed_too() {
    let (mut server, mut client, activity) = connection();
    let _active = activity.begin(Version::HTTP_11);
    let began = Instant::now();
    let reading = async {
        loop {
            sleep(WRITE_STALL_TIMEOUT / 3).await;
            client.read_u8().await.expect("a byte");
        }
    };
    let error = tokio::select! {
        written = server.write_all(&[0; 200]) => written.expect_err("not read"),
        () = reading => unreachable!("an endless loop"),
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_about(began.elapsed(), WRITE_TIMEOUT);

    // Many responses in a row, each read in time, may take longer.
    let (mut server, mut client, activity) = connection();
    let _active = activity.begin(Version::HTTP_11);
    for _ in 0..10 {
        let reading = async {
            sleep(WRITE_STALL_TIMEOUT / 2).await;
            client.read_exact(&mut [0; 100]).await.expect("bytes");
        };
        let (written, ()) = tokio::join!(server.write_all(&[0; 100]), reading);
        written.expect("read");
        server.flush().await.expect("flushed");
    }
}

#[tokio::test(start_paused = true)]
async fn near_the_connection_limit_the_idle_timeout_is_short() {
    let limit = ConnectionLimit::new(2);
    let limited = || {
        let (server, client) = duplex(64);
        let activity = Arc::new(Activity { limit: Some(limit.clone()), ..Activity::default() });
        (TimedStream::new(server, activity.clone()), client, activity)
    };
    let (mut server, mut client, activity) = limited();
    drop(activity.begin(Version::HTTP_11));
    let _first = limit.acquire().await.occupy();
    let read = timeout(IDLE_TIMEOUT / 2, server.read(&mut [0; 8])).await;
    assert!(read.is_err(), "a slot is free");
    let began = Instant::now();
    let _second = limit.acquire().await.occupy();
    time_to_failure(&mut server, &mut client, NEVER).await;
    assert!(began.elapsed() <= SHORT_IDLE_TIMEOUT, "{:?}", began.elapsed());

    // But not too short for a request that follows soon.
    let (mut server, mut client, activity) = limited();
    sleep(Duration::from_secs(5)).await;
    drop(activity.begin(Version::HTTP_11));
    let elapsed = time_to_failure(&mut server, &mut client, NEVER).await;
    assert!(elapsed >= SHORT_IDLE_TIMEOUT && elapsed <= 2 * SHORT_IDLE_TIMEOUT, "{elapsed:?}");
}
