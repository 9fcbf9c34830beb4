//! Requests that are rejected before the API sees them: the client gets what can be given, and the operator sees it.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    Framework,
    floods::{DATA, END_HEADERS, HEADERS, connect, frame, http_2, others_are_served, text},
    metrics::Metrics,
    program::{Server, Setup, until},
};

fn serve(framework: Framework) -> Server {
    Setup::with_secret(framework)
        .set("METRICS_PORT", "0")
        .set("LOG_FORMAT", "json")
        .set("ALLOWED_ORIGINS", "https://app.example.com")
        .serve(&[])
}

/// The parsed lines of the log with this value of a field.
fn lines(server: &Server, field: &str, value: &str) -> Vec<Value> {
    let log = server.program.log.so_far();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.filter(|line| line[field] == value).collect()
}

/// A longer head and more headers than allowed, as far as hyper reads them.
pub(crate) async fn a_large_head_is_431_with_all_that_a_response_has(framework: Framework) {
    let server = serve(framework);
    let many = (0..100).map(|number| format!("x-{number}: x\r\n")).collect::<Vec<_>>().concat();
    let target = "x".repeat(65_000);
    for (number, (line, headers)) in [
        ("GET /api/tasks", format!("authorization: Bearer {}\r\n", "x".repeat(80_000))),
        ("GET /api/tasks", format!("cookie: {}\r\n", "x".repeat(240_000))),
        ("POST /api/tasks", many),
        (&format!("GET /api/tasks?{target}"), format!("cookie: {}\r\n", "x".repeat(1000))),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("request-{number}");
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\norigin: https://app.example.com\r\nx-request-id: {id}\r\n{headers}\r\n"
        );
        let response = testkit::http::raw(server.address, head.as_bytes()).await;
        let response = String::from_utf8(response).expect("UTF-8").to_ascii_lowercase();
        assert!(response.starts_with("http/1.1 431 "), "{response}");
        for part in [
            "content-type: application/problem+json\r\n",
            "access-control-allow-origin: https://app.example.com\r\n",
            &format!("x-request-id: {id}\r\n"),
            r#""code":"head_too_large""#,
            "must have at most 100 headers and 65536 bytes",
        ] {
            assert!(response.contains(part), "{part} in {response}");
        }
        let line = until("a line", || {
            lines(&server, "code", "head_too_large").into_iter().find(|line| line.to_string().contains(&id))
        });
        assert_eq!((&line["status"], &line["path"]), (&431.into(), &"/api/tasks".into()), "{line}");
    }
    let metrics = Metrics::of(&server).await;
    assert_eq!(metrics.count(r#"http_requests_total{route="/api/tasks",method="GET",status="431"}"#), 3);
    others_are_served(&server).await;
}

#[tokio::test]
async fn what_hyper_rejects_is_logged_and_counted_by_reason() {
    let server = serve(Framework::ANY);
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}", "x".repeat(300_000));
    let many = (0..500).map(|number| format!("x-{number}: x\r\n")).collect::<Vec<_>>().concat();
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    // The longest target of the crate `http`.
    let target = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(65_534));
    let cases: [(&str, &str, &[u8]); 10] = [
        ("head_too_large", "HTTP/1.1 431 ", long.as_bytes()),
        ("head_too_large", "HTTP/1.1 431 ", many.as_bytes()),
        ("head_too_large", "HTTP/1.1 414 ", target.as_bytes()),
        ("malformed_head", "HTTP/1.1 400 ", b"GET  /health\r\n\r\n"),
        ("malformed_head", "HTTP/1.1 400 ", b"GET /health HTTP/1.1\r\nhost x\r\n\r\n"),
        ("malformed_head", "HTTP/1.1 400 ", b"POST /api/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n"),
        // A client that expects https:// here, and proxies that announce the address of their client.
        ("tls", "HTTP/1.1 400 ", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh\r\n\r\n"),
        (
            "proxy_protocol",
            "HTTP/1.1 400 ",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        ),
        (
            "proxy_protocol",
            "HTTP/1.1 400 ",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\xdc\x04\x01\xbb",
        ),
        ("http2", "", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n"),
    ];
    let mut expected = std::collections::BTreeMap::<_, usize>::new();
    for (reason, status, bytes) in cases {
        let mut stream = connect(&server).await;
        let (mut reader, mut writer) = stream.split();
        let mut response = Vec::new();
        // A server that has rejected the beginning does not read the rest.
        let _ = tokio::join!(writer.write_all(bytes), reader.read_to_end(&mut response));
        assert!(response.is_empty() || response.starts_with(status.as_bytes()), "{reason}: {response:?}");
        *expected.entry(reason).or_default() += 1;
        let count = expected[reason];
        let found = until("a line", || Some(lines(&server, "reason", reason)).filter(|found| found.len() == count));
        let line = found.last().expect("a line");
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
        assert_eq!(line["level"], "INFO", "{line}");
    }
    let metrics = Metrics::of(&server).await;
    for (reason, count) in expected {
        let series = format!("todo_unreadable_requests_total{{reason=\"{reason}\"}}");
        assert_eq!(metrics.count(&series), count as u64, "{reason}");
    }
    // Nothing is counted for a client that sends nothing, or that disconnects.
    drop(connect(&server).await);
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a connection");
    stream.set_zero_linger().expect("a socket");
    drop(stream);
    let mut stream = http_2(&server, &[]).await;
    let block = [vec![0x82, 0x86, 0x84, 0x41], text("x")].concat();
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &block)).await.expect("a connection");
    stream.write_all(&frame(DATA, 0, 1, b"half")).await.expect("a connection");
    stream.set_zero_linger().expect("a socket");
    drop(stream);
    others_are_served(&server).await;
    let after = Metrics::of(&server).await;
    for reason in ["head_too_large", "malformed_head", "slow_head", "tls", "proxy_protocol", "http2"] {
        let series = format!("todo_unreadable_requests_total{{reason=\"{reason}\"}}");
        assert_eq!(after.count(&series), metrics.count(&series), "{reason}");
    }
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_logged_and_a_silent_connection_is_not() {
    let server = serve(Framework::ANY);
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: ").await.expect("a connection");
    let mut silent = connect(&server).await;
    let mut bytes = Vec::new();
    slow.read_to_end(&mut bytes).await.expect("it is closed");
    silent.read_to_end(&mut bytes).await.expect("it is closed");
    until("a line", || (lines(&server, "reason", "slow_head").len() == 1).then_some(()));
    assert_eq!(Metrics::of(&server).await.count(r#"todo_unreadable_requests_total{reason="slow_head"}"#), 1);
}
