//! The content of the log.

use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use serde_json::Value;
use testkit::http::Client;

use crate::{
    Framework,
    metrics::Metrics,
    program::{PATIENCE, SECRET, Setup, free_address, until},
};

const TITLE: &str = "a surprise for Bob";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const DESCRIPTION: &str = "behind the third door";

pub(crate) async fn every_line_is_json_without_content_or_credentials(framework: Framework) {
    let setup = Setup::with_secret(framework).set("LOG_FORMAT", "json").set("LOG_LEVEL", "trace");
    let mut server = setup.serve(&[]);
    let claims = serde_json::json!({
        "sub": "ann",
        "exp": testkit::tokens::now() + 600,
        "email": "ann@mail.example",
        "name": "Ann of the claims",
    });
    let token = testkit::tokens::secret_token(SECRET.as_bytes(), &claims);
    let expired =
        testkit::tokens::secret_token(SECRET.as_bytes(), &serde_json::json!({"sub": "claimed-name", "exp": 1}));
    let client = Client::new(server.address);
    let send = async |method: &str, path: &str, token: &str, body: String| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header("cookie", "session=a-cookie-of-somebody")
            .header("content-type", "application/json")
            .header("x-request-id", "asked-for-by-the-test")
            .header("traceparent", TRACEPARENT)
            .header("tracestate", "vendor=a-state-of-somebody")
            .body(Bytes::from(body));
        client.send(request.expect("a request")).await.status().as_u16()
    };
    let body = format!(r#"{{"title":"{TITLE}","description":"{DESCRIPTION}"}}"#);
    assert_eq!(send("POST", "/api/tasks", &token, body.clone()).await, 201);
    assert_eq!(send("GET", "/api/tasks?limit=1&cursor=a-query-of-somebody", &token, String::new()).await, 422);
    assert_eq!(send("POST", "/api/tasks", &expired, body.clone()).await, 401);
    assert_eq!(send("POST", "/api/tasks", &token, format!("{body}{body}")).await, 400);
    assert_eq!(send("GET", "/health", &token, String::new()).await, 200);
    server.program.terminate();
    server.program.end();

    let log = server.program.log.whole();
    let signature = |token: &str| token.rsplit('.').next().map(str::to_owned).expect("a signature");
    let claims = |token: &str| token.split('.').nth(1).map(str::to_owned).expect("claims");
    for secret in [
        SECRET,
        TITLE,
        DESCRIPTION,
        "a-query-of-somebody",
        "a-cookie-of-somebody",
        "a-state-of-somebody",
        "claimed-name",
        "mail.example",
        "of the claims",
        &signature(&token),
        &claims(&token),
        &signature(&expired),
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "it contains {secret:?}");
    }
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let responses: Vec<_> = lines.iter().filter(|line| line["message"] == "response").collect();
    assert_eq!(responses.len(), 5, "{log}");
    let statuses: Vec<_> = responses.iter().map(|line| line["status"].as_u64().expect("a status")).collect();
    assert_eq!(statuses, [201, 422, 401, 400, 200]);
    assert_eq!((&responses[0]["method"], &responses[0]["path"]), (&"POST".into(), &"/api/tasks".into()));
    assert_eq!(responses[1]["path"], "/api/tasks");
    assert_eq!(responses[2]["code"], "token_expired");
    assert!(responses.iter().all(|line| line["duration_ms"].is_number()), "{responses:?}");
    assert!(responses.iter().all(|line| line["spans"][0]["id"] == "asked-for-by-the-test"), "{responses:?}");
    assert!(responses.iter().all(|line| line["spans"][0]["trace_id"] == TRACE), "{responses:?}");
}

/// W3C Trace Context: a valid parent is continued, an invalid one is ignored.
pub(crate) async fn a_request_continues_the_trace_of_its_client_or_begins_a_new_one(framework: Framework) {
    let server = Setup::with_secret(framework).set("LOG_FORMAT", "json").serve(&[]);
    let parents = [
        Some(TRACEPARENT.to_owned()),
        Some(TRACEPARENT.replace("00-", "cc-") + "-later"),
        Some(TRACEPARENT.to_uppercase()),
        Some(format!("00-{}-b7ad6b7169203331-01", "0".repeat(32))),
        Some("the trace of somebody".to_owned()),
        None,
    ];
    for parent in &parents {
        let request =
            parent.iter().fold(Request::get("/api/tasks"), |request, parent| request.header("traceparent", parent));
        let response = Client::new(server.address).send(request.body(Bytes::new()).expect("a request")).await;
        assert_eq!(response.status(), 401);
        // It is a header of requests only.
        assert!(!response.headers().contains_key("traceparent"), "{response:?}");
    }
    let log = server.stop().1;
    let responses = log.lines().filter(|line| line.contains("\"response\""));
    let traces: Vec<_> = responses
        .map(|line| serde_json::from_str::<Value>(line).expect(line)["spans"][0]["trace_id"].clone())
        .map(|trace| trace.as_str().expect("an id").to_owned())
        .collect();
    assert_eq!((traces.len(), &*traces[0], &*traces[1]), (6, TRACE, TRACE), "{log}");
    for (number, trace) in traces.iter().enumerate().skip(2) {
        assert!(trace.len() == 32 && trace.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{trace}");
        assert!(!traces[..number].contains(trace) && trace.bytes().any(|byte| byte != b'0'), "{traces:?}");
    }
    assert!(!log.contains("somebody"), "{log}");
}

#[tokio::test]
async fn a_valid_request_id_is_kept_and_an_invalid_one_is_replaced() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let client = Client::new(server.address);
    let id_for = async |given: Option<&[u8]>| {
        let mut request = Request::get("/health").body(Bytes::new()).expect("a request");
        if let Some(id) = given {
            let id = http::HeaderValue::from_bytes(id).expect("a value");
            request.headers_mut().insert("x-request-id", id);
        }
        let response = client.send(request).await;
        response.headers()["x-request-id"].as_bytes().to_vec()
    };
    assert_eq!(id_for(Some(b"0194f0b2-7a5e-7c3e")).await, b"0194f0b2-7a5e-7c3e");
    for invalid in [&[b'x'; 65][..], b"two words", b"\xff", b""] {
        let replaced = id_for(Some(invalid)).await;
        assert!(replaced != invalid && (16..=64).contains(&replaced.len()), "{replaced:?}");
    }
    assert_ne!(id_for(None).await, id_for(None).await);
}

#[tokio::test]
async fn probes_are_logged_at_debug_and_other_requests_at_info() {
    let expected = [
        ("info", "/nothing", "unknown", true),
        ("info", "/api/the-user/tasks/the-id", "/api/{user_id}/tasks/{id}", true),
        ("info", "/api/v1/tasks", "/api/v1/tasks", true),
        ("info", "/health", "/health", false),
        ("debug", "/health", "/health", true),
    ];
    for (level, path, template, is_logged) in expected {
        let server = Setup::with_secret(Framework::ANY).set("LOG_LEVEL", level).serve(&[]);
        let request = Request::get(path).body(Bytes::new()).expect("a request");
        Client::new(server.address).send(request).await;
        let (code, log) = server.stop();
        assert_eq!(code, Some(0));
        assert_eq!(log.contains(&format!("path=\"{template}\"")), is_logged, "{level}: {log}");
        assert!(!log.contains("the-user") && !log.contains("the-id"), "{log}");
    }
}

pub(crate) async fn a_request_without_a_response_is_logged(framework: Framework) {
    let server = Setup::with_secret(framework).serve(&[]);
    let head = format!(
        "POST /api/tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\
         authorization: Bearer {}\r\n\r\n{{",
        testkit::tokens::user_token(SECRET.as_bytes(), "ann")
    );
    let mut stream = std::net::TcpStream::connect(server.address).expect("a connection");
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("a connection");
    drop(stream);
    until("a line", || {
        let log = server.program.log.so_far();
        log.lines().any(|line| line.contains("method=\"POST\"")).then_some(())
    });
}

/// A terminal that was stopped, a collector of logs that hangs: a pipe takes only some hundred lines.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    const REQUESTS: usize = 1000;
    let metrics = free_address();
    let mut server = Setup::with_secret(Framework::ANY).set("METRICS_PORT", &metrics.port().to_string()).serve_unread();
    for round in 0..REQUESTS / 100 {
        let client = Client::keeping_alive(server.address);
        for number in 0..100 {
            let id = format!("request-{round}-{number}");
            let request = Request::get("/api/tasks").header("x-request-id", id).body(Bytes::new()).expect("a request");
            let status = tokio::time::timeout(PATIENCE, client.send(request)).await.expect("a response").status();
            assert_eq!(status, 401);
        }
    }
    assert_eq!(Metrics::at(metrics).await.count("todo_log_lines_dropped_total"), 0);
    // A reader that comes late gets every line.
    let log = server.read_until(&format!("request-{}-99 ", REQUESTS / 100 - 1));
    assert_eq!(log.matches("response method=\"GET\"").count(), REQUESTS);
    // And again nobody reads.
    for _ in 0..5 {
        let client = Client::keeping_alive(server.address);
        for _ in 0..100 {
            let request = Request::get("/api/tasks").body(Bytes::new()).expect("a request");
            assert_eq!(client.send(request).await.status(), 401);
        }
    }
    let begun = std::time::Instant::now();
    assert_eq!(server.stop().0, Some(0));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}
