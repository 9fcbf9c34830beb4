//! Clients that try to exhaust memory, time or connections.
//!
//! Meanwhile other clients are served, the memory of the server stays within bounds, and afterwards everything is
//! freed.

use std::time::Duration;

use testkit::tokens::user_token;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    Framework,
    metrics::Metrics,
    program::{PATIENCE, SECRET, Server, Setup},
};

pub(crate) const MIB: u64 = 1024 * 1024;

pub(crate) async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("a connection")
}

fn serve() -> Server {
    Setup::with_secret(Framework::ANY).set("METRICS_PORT", "0").serve(&[])
}

/// Another client can create and list tasks.
pub(crate) async fn others_are_served(server: &Server) {
    timeout(PATIENCE, server.user("other").use_tasks()).await.expect("responses");
}

/// The resident memory of the server in bytes.
async fn memory(server: &Server) -> u64 {
    Metrics::of(server).await.count("process_resident_memory_bytes")
}

async fn assert_memory_below(server: &Server, limit: u64) {
    if cfg!(target_os = "linux") {
        let bytes = memory(server).await;
        assert!(bytes < limit, "{} MiB", bytes / MIB);
    }
}

/// Waits until all connections and requests have ended.
pub(crate) async fn assert_all_is_freed(server: &Server) {
    let freed = async {
        loop {
            let metrics = Metrics::of(server).await;
            let (open, files) = (metrics.count("todo_connections"), metrics.count("process_open_fds"));
            if open == 0 && files < 64 && metrics.count("http_requests_in_flight") == 0 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, freed).await.expect("all is freed");
    others_are_served(server).await;
}

/// Raises the limit of open files of this process to at least `count`.
pub(crate) fn allow_open_files(count: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).expect("the limit can be raised to its maximum");
    }
    let current = getrlimit(Resource::Nofile).current;
    assert!(
        current.is_none_or(|current| current >= count),
        "this test opens {count} files and the limit is {current:?}; raise it with: ulimit -Hn"
    );
}

/// Sends the same bytes again and again without reading, until the server accepts no more. Returns how many bytes it
/// has accepted, and the connection if it is still open.
async fn flood(mut stream: TcpStream, bytes: &[u8], at_most: u64) -> (u64, Option<TcpStream>) {
    let mut sent = 0;
    while sent < at_most {
        match timeout(Duration::from_secs(2), stream.write_all(bytes)).await {
            Ok(Ok(())) => sent += bytes.len() as u64,
            Ok(Err(_)) => return (sent, None),
            Err(_) => return (sent, Some(stream)),
        }
    }
    (sent, Some(stream))
}

#[tokio::test]
async fn thousands_of_idle_or_slow_connections_need_little_memory_and_block_no_others() {
    const COUNT: usize = 5000;
    allow_open_files(COUNT as u64 + 200);
    let server = serve();
    others_are_served(&server).await;
    let before = memory(&server).await;
    let mut streams = Vec::new();
    for number in 0..COUNT {
        let mut stream = connect(&server).await;
        // A third sends nothing, a third sends an incomplete head, and a third is idle after a response.
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET /api/tasks HTTP/1.1\r\nhost: x\r\nx: ").await.expect("a connection"),
            _ => {
                stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a connection");
                let mut response = [0; 12];
                stream.read_exact(&mut response).await.expect("a response");
                assert_eq!(&response, b"HTTP/1.1 200");
            }
        }
        streams.push(stream);
    }
    others_are_served(&server).await;
    assert!(Metrics::of(&server).await.count("todo_connections") > 1000, "most are open");
    if cfg!(target_os = "linux") {
        let each = memory(&server).await.saturating_sub(before) / COUNT as u64;
        assert!(each < 32 * 1024, "{each} bytes per connection");
    }
    // Slow heads have the same time limit.
    let slow_heads = async {
        let mut open: Vec<_> = (0..COUNT).filter(|number| number % 3 == 1).collect();
        while !open.is_empty() {
            let mut still = Vec::new();
            for number in open {
                let mut byte = [0];
                let stream = &mut streams[number];
                if stream.write_all(b"x").await.is_ok()
                    && stream.try_read(&mut byte).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
                {
                    still.push(number);
                }
            }
            open = still;
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(PATIENCE, slow_heads).await.expect("slow heads are closed");
    others_are_served(&server).await;
    drop(streams);
    assert_all_is_freed(&server).await;
}

#[tokio::test]
async fn short_connections_leave_nothing_behind() {
    let server = serve();
    others_are_served(&server).await;
    let token = user_token(SECRET.as_bytes(), "ann");
    let head = format!("GET /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    for number in 0..10_000 {
        let mut stream = connect(&server).await;
        match number % 4 {
            0 => {}
            1 => stream.write_all(&head.as_bytes()[..40]).await.expect("a connection"),
            2 => stream.write_all(head.as_bytes()).await.expect("a connection"),
            // Reset, not closed.
            _ => stream.set_zero_linger().expect("a connection"),
        }
        if number % 1000 == 0 {
            others_are_served(&server).await;
        }
    }
    assert_all_is_freed(&server).await;
    assert_memory_below(&server, 150 * MIB).await;
}

#[tokio::test]
async fn an_endless_head_or_body_is_cut_off() {
    let server = serve();
    let token = user_token(SECRET.as_bytes(), "ann");
    let post = format!(
        "POST /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let line = "x".repeat(16 * 1024);
    for (beginning, repeated) in [
        // An endless target, an endless header, endless headers, endless empty lines before a request.
        ("GET /".to_owned(), line.clone()),
        ("GET / HTTP/1.1\r\nhost: x\r\nx: ".to_owned(), line.clone()),
        ("GET / HTTP/1.1\r\nhost: x\r\n".to_owned(), "x: y\r\n".repeat(1000)),
        (String::new(), "\r\n".repeat(8000)),
        // An endless body, an endless chunk extension, endless chunks of a byte, endless trailers.
        (post.clone(), format!("4000\r\n{line}\r\n")),
        (format!("{post}1;x="), line.clone()),
        (post.clone(), "1\r\n \r\n".repeat(1000)),
        (format!("{post}0\r\n"), "x: y\r\n".repeat(1000)),
    ] {
        let mut stream = connect(&server).await;
        stream.write_all(beginning.as_bytes()).await.expect("a connection");
        let flooding = flood(stream, repeated.as_bytes(), 64 * MIB);
        let (sent, stream) = timeout(PATIENCE, flooding).await.expect("an end");
        // The socket buffers of both sides hold a few MiB, and 32 MiB of a body are read after its rejection.
        let limit = if beginning.starts_with("POST") { 48 * MIB } else { 16 * MIB };
        assert!(sent < limit, "{beginning:?} {:?}.. is accepted without end", &repeated[..6]);
        drop(stream);
        others_are_served(&server).await;
    }
    assert_all_is_freed(&server).await;
    assert_memory_below(&server, 150 * MIB).await;
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A text without compression (RFC 7541, section 5.2).
pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = text.len();
    let mut coded = match u8::try_from(length) {
        Ok(short @ 0..127) => vec![short],
        // A length of more than seven bits: the rest follows, seven bits at a time.
        _ => {
            let (mut coded, mut rest) = (vec![127], length - 127);
            while rest >= 128 {
                coded.push(u8::try_from(rest % 128).expect("seven bits") | 128);
                rest /= 128;
            }
            coded.push(u8::try_from(rest).expect("seven bits"));
            coded
        }
    };
    coded.extend_from_slice(text.as_bytes());
    coded
}

/// A header field without compression (RFC 7541, section 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

pub(crate) fn get(path: &str, token: &str) -> Vec<u8> {
    let token = format!("Bearer {token}");
    [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "x"), ("authorization", &token)]
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

/// A connection of HTTP/2, with these settings.
pub(crate) async fn http_2(server: &Server, settings: &[u8]) -> TcpStream {
    let mut stream = connect(server).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("a connection");
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.expect("a connection");
    stream
}

#[tokio::test]
async fn endless_frames_of_http_2_block_no_others() {
    let server = serve();
    let token = user_token(SECRET.as_bytes(), "ann");
    let head = get("/health", &token);
    let begun = frame(HEADERS, 0, 1, &head);
    let filler = field("x", &"x".repeat(16_000));
    for (what, beginning, repeated) in [
        ("an endless head", begun.clone(), frame(CONTINUATION, 0, 1, &filler)),
        ("an endless head of empty frames", begun, frame(CONTINUATION, 0, 1, &[])),
        ("pings", Vec::new(), frame(PING, 0, 0, &[7; 8]).repeat(1000)),
        ("settings", Vec::new(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(1000)),
        ("resets of unknown streams", Vec::new(), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]).repeat(1000)),
        ("window updates", Vec::new(), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(1000)),
        ("priorities", Vec::new(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(1000)),
        ("empty data frames", frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, 0, 1, &[]).repeat(1000)),
    ] {
        let mut stream = http_2(&server, &[]).await;
        stream.write_all(&beginning).await.expect("a connection");
        let flooding = tokio::spawn(async move { flood(stream, &repeated, 32 * MIB).await.0 });
        others_are_served(&server).await;
        let sent = timeout(PATIENCE, flooding).await.expect("an end").expect("no panic");
        if what.starts_with("an endless head") || what.starts_with("resets") {
            assert!(sent < 16 * MIB, "{what}: {} MiB are accepted", sent / MIB);
        }
    }
    assert_all_is_freed(&server).await;
    assert_memory_below(&server, 150 * MIB).await;
}
