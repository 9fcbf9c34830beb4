//! Bodies that the server does not need: the client can send them to their end, and sees the response.
//!
//! `scripts/check-uploads` does the same with real clients.

use std::time::Duration;

use socket2::SockRef;
use testkit::tokens::user_token;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    Framework,
    floods::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, connect,
        field, frame, http_2, others_are_served,
    },
    program::{PATIENCE, SECRET, Setup},
};

type Early = (u16, &'static str, &'static str, Vec<(&'static str, String)>);

/// Requests with a response before their body is read: status, method, path and headers. Most are rejected.
fn early() -> Vec<Early> {
    let signed = |content_type: &str| {
        let token = user_token(SECRET.as_bytes(), "ann");
        vec![("authorization", format!("Bearer {token}")), ("content-type", content_type.to_owned())]
    };
    let json = "application/json";
    vec![
        (401, "POST", "/api/tasks", vec![("content-type", json.to_owned())]),
        (403, "POST", "/api/bob/tasks", signed(json)),
        (404, "POST", "/nowhere", vec![]),
        (405, "PUT", "/api/tasks", signed(json)),
        (413, "POST", "/api/tasks", signed(json)),
        (415, "POST", "/api/tasks", signed("text/plain")),
        (431, "POST", "/api/tasks", vec![("x", "x".repeat(70_000))]),
        (200, "GET", "/health", vec![]),
        (422, "DELETE", "/api/tasks/0194f0b2-7a5e-7c3e-8d5f-3a1b2c3d4e5f?x=1", signed(json)),
    ]
}

async fn read_response(stream: &mut TcpStream) -> String {
    let mut response = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        loop {
            let count = stream.read(&mut piece).await.expect("no reset");
            response.extend_from_slice(&piece[..count]);
            let text = String::from_utf8_lossy(&response).to_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                assert!(count > 0, "the connection ends in the head {text:?}");
                continue;
            };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if count == 0 || length.is_some_and(|length: usize| body.len() >= length) {
                return text;
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("a response")
}

fn head((_, method, path, headers): &Early, framing: &str) -> String {
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}{framing}\r\n\r\n")
}

pub(crate) async fn over_http_1_a_body_that_is_not_needed_is_read_to_its_end(framework: Framework) {
    let server = Setup::with_secret(framework).serve(&[]);
    for request in early() {
        for size in [70_000, 5_000_000] {
            for is_chunked in [false, true] {
                let mut stream = connect(&server).await;
                SockRef::from(&stream).set_send_buffer_size(4096).expect("a socket");
                let framing = if is_chunked {
                    "transfer-encoding: chunked".to_owned()
                } else {
                    format!("content-length: {size}")
                };
                stream.write_all(head(&request, &framing).as_bytes()).await.expect("a connection");
                // A client that reads nothing before it has written everything.
                let piece = [b'x'; 10_000];
                for _ in 0..size / piece.len() {
                    let chunk = if is_chunked { [&b"2710\r\n"[..], &piece, b"\r\n"].concat() } else { piece.to_vec() };
                    let written = timeout(PATIENCE, stream.write_all(&chunk)).await.expect("it is read");
                    written.unwrap_or_else(|error| panic!("{} with {size} bytes: {error}", request.0));
                }
                if is_chunked {
                    stream.write_all(b"0\r\n\r\n").await.expect("a connection");
                }
                let response = read_response(&mut stream).await;
                assert!(response.starts_with(&format!("http/1.1 {} ", request.0)), "{response}");
                assert!(!response.contains("connection: close"), "{response}");
                // The connection can be used further.
                stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a connection");
                assert!(read_response(&mut stream).await.starts_with("http/1.1 200 "));
            }
        }
    }
    others_are_served(&server).await;
}

/// The frames that a server sends.
struct Frames {
    stream: TcpStream,
    windows: [i64; 2],
    /// The kinds of the frames of stream 1.
    seen: Vec<u8>,
    has_ended: bool,
}

impl Frames {
    /// Reads a frame. Returns its kind.
    async fn next(&mut self) -> (u8, u8) {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut head)).await.expect("a frame");
        read.expect("the connection is open");
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.expect("a frame");
        let stream = u32::from_be_bytes(stream);
        let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(bytes.try_into().expect("four bytes")));
        match kind {
            WINDOW_UPDATE => self.windows[usize::from(stream == 1)] += number(&payload),
            SETTINGS if flags & 1 == 0 => {
                // SETTINGS_INITIAL_WINDOW_SIZE
                let window =
                    payload.chunks(6).find(|setting| setting[..2] == [0, 4]).map(|setting| number(&setting[2..]));
                self.windows[1] += window.unwrap_or(65_535) - 65_535;
                self.stream.write_all(&frame(SETTINGS, 1, 0, &[])).await.expect("a connection");
            }
            _ => {}
        }
        if stream == 1 {
            self.seen.push(kind);
            self.has_ended |= matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
        }
        (kind, flags)
    }
}

pub(crate) async fn over_http_2_a_body_that_is_not_needed_is_read_to_its_end(framework: Framework) {
    let server = Setup::with_secret(framework).serve(&[]);
    for (status, method, path, headers) in early() {
        for size in [70_000_i64, 5_000_000] {
            let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")];
            let pseudo = pseudo.map(|(name, value)| (name, value.to_owned()));
            let length = [("content-length", size.to_string())];
            let fields = pseudo.iter().chain(&headers).chain(&length);
            let block: Vec<u8> = fields.flat_map(|(name, value)| field(name, value)).collect();
            let mut stream = http_2(&server, &[]).await;
            let pieces: Vec<_> = block.chunks(16_384).collect();
            for (number, piece) in pieces.iter().enumerate() {
                let kind = if number == 0 { HEADERS } else { CONTINUATION };
                let flags = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
                stream.write_all(&frame(kind, flags, 1, piece)).await.expect("a connection");
            }
            let mut frames = Frames { stream, windows: [65_535; 2], seen: Vec::new(), has_ended: false };
            // The settings of the server.
            assert_eq!(frames.next().await.0, SETTINGS);
            let mut left = size;
            while left > 0 {
                let piece = left.min(16_384).min(frames.windows[0]).min(frames.windows[1]);
                if piece <= 0 {
                    frames.next().await;
                    continue;
                }
                left -= piece;
                frames.windows = frames.windows.map(|window| window - piece);
                let content = vec![b'x'; usize::try_from(piece).expect("a size")];
                let data = frame(DATA, if left == 0 { END_STREAM } else { 0 }, 1, &content);
                frames.stream.write_all(&data).await.expect("a connection");
            }
            // The whole response, and then whatever the server sends because of the end of the body.
            while !frames.has_ended {
                frames.next().await;
            }
            frames.stream.write_all(&frame(PING, 0, 0, b"the end.")).await.expect("a connection");
            while frames.next().await != (PING, 1) {}
            assert!(frames.seen.contains(&HEADERS));
            assert!(!frames.seen.contains(&RST_STREAM), "{status} with {size} bytes: {:?}", frames.seen);
        }
    }
    others_are_served(&server).await;
}

/// Sends pieces until the connection is closed. Returns the number of bytes.
async fn send_until_closed(stream: &mut TcpStream, piece: &[u8], pause: Duration) -> usize {
    let mut sent = 0;
    while timeout(PATIENCE, stream.write_all(piece)).await.expect("it is read or closed").is_ok() {
        sent += piece.len();
        assert!(sent < 64 * 1024 * 1024, "there is no limit");
        tokio::time::sleep(pause).await;
    }
    sent
}

#[tokio::test]
async fn no_more_than_32_mib_are_read_after_a_response() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let mut stream = connect(&server).await;
    let request = &early()[0];
    stream.write_all(head(request, "content-length: 100000000").as_bytes()).await.expect("a connection");
    let response = read_response(&mut stream).await;
    assert!(response.starts_with("http/1.1 401 ") && response.contains("connection: close"), "{response}");
    let sent = send_until_closed(&mut stream, &vec![b'x'; 65_536], Duration::ZERO).await;
    assert!(sent >= 32 * 1024 * 1024, "{sent}");
    others_are_served(&server).await;
}

#[tokio::test]
async fn no_longer_than_ten_seconds_is_read_after_a_response() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let mut stream = connect(&server).await;
    stream.write_all(head(&early()[0], "content-length: 100000").as_bytes()).await.expect("a connection");
    assert!(read_response(&mut stream).await.starts_with("http/1.1 401 "));
    let begun = Instant::now();
    send_until_closed(&mut stream, b"x", Duration::from_millis(200)).await;
    let elapsed = begun.elapsed();
    assert!(elapsed > Duration::from_secs(9) && elapsed < Duration::from_secs(20), "{elapsed:?}");
    others_are_served(&server).await;
}

/// A client that asks first, and is rejected, sends no body: what it sends next is no body either, so the connection is
/// closed.
#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_not_asked_for_a_body_that_is_not_needed() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    for request in early() {
        let mut stream = connect(&server).await;
        let framing = "content-length: 5000000\r\nexpect: 100-continue";
        stream.write_all(head(&request, framing).as_bytes()).await.expect("a connection");
        let response = read_response(&mut stream).await;
        assert!(response.starts_with(&format!("http/1.1 {} ", request.0)), "{response}");
        assert!(response.contains("connection: close"), "{response}");
        // A client that does not wait is heard out, too.
        let piece = vec![b'x'; 100_000];
        for _ in 0..50 {
            timeout(PATIENCE, stream.write_all(&piece)).await.expect("it is read").expect("no reset");
        }
        assert_eq!(stream.read(&mut [0; 10]).await.expect("no reset"), 0, "it is closed at the end of the body");
    }
}

/// Stalled uploads are within the limits of connections, and a stop does not wait for them for long.
#[tokio::test]
async fn a_stop_ends_with_bodies_that_are_not_needed() {
    let mut server = Setup::with_secret(Framework::ANY).set("REQUEST_TIMEOUT_SECONDS", "1").serve(&[]);
    let mut stream = connect(&server).await;
    stream.write_all(head(&early()[0], "content-length: 100000").as_bytes()).await.expect("a connection");
    assert!(read_response(&mut stream).await.starts_with("http/1.1 401 "));
    let begun = Instant::now();
    server.program.terminate();
    assert_eq!(server.program.end().code(), Some(0));
    // The time limit of a request and 5 seconds.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
