//! The size and the number of the log lines that a client can cause.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use testkit::tokens::{base64url, user_token};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    Framework,
    floods::{END_HEADERS, END_STREAM, HEADERS, PING, WINDOW_UPDATE, frame, http_2, text},
    metrics::Metrics,
    program::{PATIENCE, SECRET, Server, Setup, until},
};

/// The text that clients put everywhere.
const LONG: usize = 4000;

fn long() -> String {
    "x".repeat(LONG)
}

/// Requests of HTTP/1.1, each with a long text in another place, and what the place is.
fn requests_with_long_texts() -> Vec<(String, String)> {
    let token = user_token(SECRET.as_bytes(), "ann");
    let long = long();
    let mut requests = Vec::new();
    let mut ask = |place: &str, method: &str, target: &str, headers: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        requests.push((place.to_owned(), request));
    };
    for target in ["/api/tasks", "/nothing", "/health", "/docs"] {
        ask("method", &long, target, "", "");
    }
    for target in ["/{}", "/api/tasks/{}", "/api/{}/tasks", "/api/v1/{}/tasks/{}", "/docs/{}", "/health/{}"] {
        ask("path", "GET", &target.replace("{}", &long[..2000]), "", "");
    }
    let bearer = format!("authorization: Bearer {token}\r\n");
    for query in ["{}", "cursor={}", "limit={}", "{}=1", "completed={}"] {
        ask("query", "GET", &format!("/api/tasks?{}", query.replace("{}", &long)), &bearer, "");
    }
    for header in [
        "host: {}",
        "user-agent: {}",
        "x-request-id: {}",
        "traceparent: {}",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a={}",
        "traceparent: cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{}",
        "baggage: a={}",
        "forwarded: for={}",
        "x-forwarded-for: {}",
        "x-forwarded-host: {}",
        "x-real-ip: {}",
        "via: 1.1 {}",
        "origin: https://{}",
        "referer: {}",
        "cookie: a={}",
        "authorization: Bearer {}",
        "authorization: Bearer a.{}.c",
        "authorization: Basic {}",
        "authorization: {}",
        "content-type: application/{}",
        "content-encoding: {}",
        "accept: {}",
        "if-none-match: \"{}\"",
        "range: {}",
        "x-http-method-override: {}",
        "access-control-request-method: {}",
        "access-control-request-headers: {}",
        "expect: {}",
        "upgrade: {}",
        "{}: a",
    ] {
        let header = header.replace("{}", &long);
        for method in ["GET", "OPTIONS"] {
            ask(header.split(&long).next().unwrap_or_default(), method, "/api/tasks", &format!("{header}\r\n"), "");
        }
    }
    for header in [r#"{"alg":"{}"}"#, r#"{"alg":"HS256","kid":"{}"}"#, r#"{"alg":"HS256","typ":"{}"}"#, r#"{"{}":1}"#] {
        let header = base64url(header.replace("{}", &long));
        ask("token", "GET", "/api/tasks", &format!("authorization: Bearer {header}.e30.c2ln\r\n"), "");
    }
    let json = format!("{bearer}content-type: application/json\r\n");
    for body in
        [r#"{"title":"{}"}"#, r#"{"{}":1}"#, r#"{"title":{}}"#, "{}", r#""{}""#, r#"{"title":"a","completed":"{}"}"#]
    {
        ask("body", "POST", "/api/tasks", &json, &body.replace("{}", &long));
    }
    requests
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("a connection")
}

pub(crate) async fn what_a_client_sends_is_short_in_the_log(framework: Framework) {
    for (level, lines_each) in [("info", 1), ("trace", 5)] {
        let setup = Setup::with_secret(framework).set("LOG_FORMAT", "json").set("LOG_LEVEL", level);
        let server = setup.serve(&[]);
        let requests = requests_with_long_texts();
        for (place, request) in &requests {
            let mut stream = connect(&server).await;
            stream.write_all(request.as_bytes()).await.expect("a connection");
            let mut response = Vec::new();
            // The server may reset the connection after its response.
            let _ = timeout(PATIENCE, stream.read_to_end(&mut response)).await.expect("an end");
            assert!(response.starts_with(b"HTTP/1.1 "), "{place}: {}", response.escape_ascii());
        }
        let log = server.stop().1;
        let long_lines: Vec<_> = log.lines().filter(|line| line.len() > 800 || line.contains(&long()[..300])).collect();
        assert!(long_lines.is_empty(), "{level}: {} long lines, {} bytes in all", long_lines.len(), log.len());
        let count = log.lines().count();
        // In a minute, 20 lines say why tokens were rejected.
        let most = lines_each * requests.len() + 20 + 10;
        assert!(count <= most, "{level}: {count} lines for {} requests", requests.len());
    }
}

/// Sends the frames in pieces, each when the responses to the piece before have arrived or after a pause. Returns how
/// many bytes it has sent.
async fn send(stream: TcpStream, frames: &[Vec<u8>], pause: Duration) -> u64 {
    let (mut reader, mut writer) = stream.into_split();
    let (responded, mut responses) = tokio::sync::watch::channel(0);
    let reading = tokio::spawn(async move {
        let mut head = [0; 9];
        while reader.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            if reader.read_exact(&mut payload).await.is_err() {
                return;
            }
            if head[3] == HEADERS {
                responded.send_modify(|count| *count += 1);
            }
        }
    });
    // All responses fit into this window.
    writer.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])).await.expect("a connection");
    let (mut sent, mut requests) = (0, 0);
    for piece in frames.chunks(50) {
        let bytes = piece.concat();
        if writer.write_all(&bytes).await.is_err() {
            break;
        }
        sent += bytes.len() as u64;
        requests += piece.len();
        // At most 200 requests may be open.
        let _ = timeout(pause, responses.wait_for(|count| *count >= requests)).await;
    }
    sleep(Duration::from_millis(500)).await;
    drop(writer);
    let _ = timeout(PATIENCE, reading).await;
    sent
}

fn serve(level: &str) -> Server {
    let setup = Setup::with_secret(Framework::ANY).set("METRICS_PORT", "0").set("LOG_FORMAT", "json");
    setup.set("LOG_LEVEL", level).serve_on_known_port()
}

/// Requests of a few bytes, since the header table of the connection has the rest.
#[tokio::test]
async fn few_bytes_of_http_2_cause_few_bytes_of_log() {
    const REQUESTS: u32 = 5000;
    // A new entry of the header table (RFC 7541, section 6.2.1) with the name of entry 2, `:method`. `/` and `http` are
    // entries 4 and 6 of the static table.
    let long_method = [&[0x42][..], &text(&"X".repeat(3900)), &[0x84, 0x86]].concat();
    let from_table = [0xbe, 0x84, 0x86];
    let request = |number: u32, head: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, head);
    let methods: Vec<_> =
        (0..REQUESTS).map(|number| request(number, if number == 0 { &long_method } else { &from_table })).collect();
    // Entry 2 of the static table is `GET`.
    let known_methods: Vec<_> = (0..REQUESTS).map(|number| request(number, &[0x82, 0x84, 0x86])).collect();
    // Requests that are reset at once, so that they get no response.
    let reset = |number| [request(number, &[0x82, 0x84, 0x86]), frame(3, 0, 2 * number + 1, &[0, 0, 0, 8])].concat();
    let resets: Vec<_> = (0..REQUESTS).map(reset).collect();
    // Acknowledgements of pings that were never sent, about which the library warns.
    let pings: Vec<_> = (0..4 * REQUESTS).map(|number| frame(PING, 1, 0, &u64::from(number).to_be_bytes())).collect();
    let mut report = String::new();
    let (until_served, moment) = (Duration::from_secs(5), Duration::from_millis(3));
    for (what, level, frames, pause) in [
        ("long methods", "info", methods, until_served),
        ("known methods", "info", known_methods, until_served),
        ("resets", "info", resets, moment),
        ("acknowledgements of pings", "warn", pings, moment),
    ] {
        let server = serve(level);
        let begun = Instant::now();
        let sent = send(http_2(&server, &[]).await, &frames, pause).await;
        let metrics = if pause == until_served { Some(Metrics::of(&server).await) } else { None };
        let (code, log) = server.stop();
        // The budget is 200 lines at once and 20 a second. The server itself writes fewer than 100 lines, and a line has
        // fewer than 500 bytes.
        let allowed = 300 + 20 * usize::try_from(begun.elapsed().as_secs()).expect("a short time");
        assert!(code == Some(0) && !log.contains("panicked"), "{what}: {code:?}: {log}");
        // The library closes a connection with many resets.
        let total: usize = frames.iter().map(Vec::len).sum();
        assert!(sent == total as u64 || what == "resets", "{what}: the connection was closed after {sent} bytes");
        let (lines, logged) = (log.lines().count(), log.len() as u64);
        let _ = writeln!(report, "{what}: {sent} bytes sent, {logged} bytes and {lines} lines logged");
        if logged > 500 * allowed as u64 || lines > allowed {
            let _ = writeln!(report, "{what}: TOO MUCH");
        }
        if let Some(metrics) = metrics {
            let left_out = metrics.count("todo_log_lines_left_out_total");
            assert!(left_out > 1000, "{what}: {left_out} lines were left out");
            assert!(log.contains("log lines of a closed connection were left out"), "{log}");
        }
    }
    assert!(!report.contains("TOO MUCH"), "{report}");
}

/// The error that closes a connection of HTTP/2 contains what the client has sent as its reason.
#[tokio::test]
async fn the_reason_of_a_client_that_closes_a_connection_is_short_in_the_log() {
    let server = serve("debug");
    let reason = [&[0, 0, 0, 0, 0, 0, 0, 1][..], &[b'x'; 16_000]].concat();
    let sent = send(http_2(&server, &[]).await, &[frame(7, 0, 0, &reason)], Duration::ZERO).await;
    let line = until("a line", || {
        let log = server.program.log.so_far();
        log.lines().find(|line| line.contains("connection closed with an error")).map(str::to_owned)
    });
    assert!(line.len() < 1000, "{sent} bytes sent, {} bytes logged", line.len());
}

/// Proxies send the requests of many users over one connection.
#[tokio::test]
async fn every_request_of_honest_traffic_is_logged() {
    let server = serve("info");
    let token = user_token(SECRET.as_bytes(), "ann");
    let list = format!("GET /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    let rejected = "GET /api/tasks HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut stream = connect(&server).await;
    let mut sent = 0;
    for number in 0..3000 {
        let request = if number % 20 == 0 { rejected } else { &list };
        stream.write_all(request.as_bytes()).await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a response"));
        }
        let head = String::from_utf8(head).expect("text");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).await.expect("a body");
        sent += 1;
    }
    drop(stream);
    let log = server.stop().1;
    let logged = log.lines().filter(|line| line.contains(r#""message":"response""#)).count();
    assert_eq!(logged, sent);
    assert!(!log.contains("left out"), "{log}");
}
