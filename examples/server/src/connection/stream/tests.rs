use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{sleep, timeout},
};

use super::{
    super::memory::{Hold, MemoryBudget},
    *,
};

/// The server's end of a connection, the client's end, and the requests.
fn connection() -> (TimedStream<DuplexStream>, DuplexStream, Arc<Activity>) {
    limited_connection(None)
}

fn limited_connection(limit: Option<ConnectionLimit>) -> (TimedStream<DuplexStream>, DuplexStream, Arc<Activity>) {
    let (server, client) = duplex(64);
    let account = MemoryBudget::default().open_account();
    let activity = Arc::new(Activity::new(limit, account.account().clone(), Beginning::default()));
    (TimedStream::new(server, activity.clone(), account), client, activity)
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
    let limited = || limited_connection(Some(limit.clone()));
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

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_read_closes_the_connection_whatever_else_happens() {
    let (mut server, mut client, activity) = connection();
    drop(activity.begin(Version::HTTP_2));
    let began = Instant::now();
    let _unread = Hold::of_response(activity.account(), 1);
    let requests = async {
        loop {
            sleep(Duration::from_secs(50)).await;
            let active = activity.begin(Version::HTTP_2);
            drop((Hold::of_response(activity.account(), 1), active));
        }
    };
    tokio::select! {
        _ = time_to_failure(&mut server, &mut client, NOW_AND_THEN) => {}
        () = requests => unreachable!("an endless loop"),
    }
    assert_about(began.elapsed(), WRITE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_once_the_last_response_is_read() {
    let (mut server, mut client, activity) = connection();
    drop(activity.begin(Version::HTTP_2));
    let began = Instant::now();
    let unread = Hold::of_response(activity.account(), 1);
    let reading = Duration::from_secs(100);
    let read = timeout(reading, server.read(&mut [0; 8])).await;
    assert!(read.is_err(), "a slow client is not closed after the idle timeout");
    drop(unread);
    // hyper flushes what it has written.
    server.flush().await.expect("it is open");
    time_to_failure(&mut server, &mut client, NOW_AND_THEN).await;
    assert_about(began.elapsed(), reading + IDLE_TIMEOUT);
}

/// The last part of a response of HTTP/1.1 is in the write buffer, and has no longer time than the response.
#[tokio::test(start_paused = true)]
async fn the_write_buffer_is_as_old_as_its_response() {
    let (mut server, mut client, activity) = connection();
    let response = Hold::of_response(activity.account(), 1);
    let began = Instant::now();
    sleep(WRITE_TIMEOUT / 2).await;
    response.moves_to_the_write_buffer();
    drop(response);
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
}

#[tokio::test(start_paused = true)]
async fn the_buffers_of_hyper_count_with_the_size_to_which_they_have_grown() {
    let (mut server, mut client, activity) = connection();
    let account = activity.account();
    for (size, held) in [(200, 0), (SMALL_WRITE, 0), (25_000, 25_000), (100, 25_000), (30_000, 30_000)] {
        let bytes = vec![7; size];
        let mut received = vec![0; size];
        let (written, read) = tokio::join!(server.write_all(&bytes), client.read_exact(&mut received));
        assert!(written.is_ok() && read.is_ok());
        server.flush().await.expect("it is open");
        assert_eq!(account.held(), held);
    }
    let mut receive = async |count: usize| {
        for _ in 0..count / 64 {
            client.write_all(&[b'x'; 64]).await.expect("a pipe");
            server.read_exact(&mut [0; 64]).await.expect("bytes");
        }
        account.held() - 30_000
    };
    assert_eq!(receive(SMALL_HEAD).await, 0, "most heads are short");
    assert_eq!(receive(64).await, SMALL_HEAD + 64);
    drop(activity.begin(Version::HTTP_11));
    assert_eq!(receive(SMALL_HEAD).await, SMALL_HEAD + 64);
    assert_eq!(receive(2 * MAX_BUFFER).await, MAX_BUFFER);
    drop(server);
    assert_eq!(account.held(), 0);
}

/// Of a body, hyper keeps only what it has read last.
#[tokio::test(start_paused = true)]
async fn a_long_body_needs_a_buffer_of_the_size_of_its_pieces() {
    let (mut server, mut client, activity) = connection();
    let account = activity.account();
    let _request = activity.begin(Version::HTTP_11);
    let mut piece = vec![0; SMALL_HEAD];
    for _ in 0..10_000 {
        client.write_all(&[b'x'; 64]).await.expect("a pipe");
        assert_eq!(server.read(&mut piece).await.expect("bytes"), 64);
    }
    assert_eq!(account.held(), 2 * SMALL_HEAD);
}

#[tokio::test(start_paused = true)]
async fn a_long_head_of_http_2_counts_until_its_request_begins() {
    let (mut server, mut client, activity) = connection();
    let account = activity.account();
    let mut receive = async |count: usize| {
        for _ in 0..count / 64 {
            client.write_all(&[b'x'; 64]).await.expect("a pipe");
            server.read_exact(&mut [0; 64]).await.expect("bytes");
        }
        account.held()
    };
    let first = activity.begin(Version::HTTP_2);
    assert_eq!(receive(SMALL_HEAD).await, 0);
    assert_eq!(receive(64).await, 2 * (SMALL_HEAD + 64));
    assert_eq!(receive(2 * MAX_BUFFER).await, 2 * MAX_BUFFER);
    let second = activity.begin(Version::HTTP_2);
    assert_eq!(receive(64).await, 0);
    receive(2 * SMALL_HEAD).await;
    drop((first, second));
    assert_eq!(receive(64).await, 0, "it is idle");
    receive(2 * SMALL_HEAD).await;
    drop(server);
    assert_eq!(account.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_holds_too_much_is_closed_at_once() {
    let (mut server, mut client, activity) = connection();
    let account = activity.account();
    let _request = activity.begin(Version::HTTP_2);
    let failure = async {
        let mut byte = [0];
        tokio::join!(server.read(&mut byte), async { drop(Hold::of_response(account, 1 << 40)) }).0
    };
    let error = failure.await.expect_err("it is closed");
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    // Also if there is something to read or to write.
    client.write_all(b"x").await.expect("a pipe");
    assert!(server.read(&mut [0]).await.is_err() && server.flush().await.is_err());
}
