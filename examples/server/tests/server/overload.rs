//! Requests and connections beyond the limits of the server.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sqlx::{Connection as _, Executor as _, PgConnection};
use testkit::http::Client;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    Framework,
    metrics::Metrics,
    program::{PATIENCE, SECRET, Server, Setup, User},
};

const PING: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("a connection")
}

/// Sends a small request and reads the response.
async fn ping(stream: &mut TcpStream) {
    stream.write_all(PING).await.expect("a connection");
    let mut response = Vec::new();
    while !response.ends_with(br#"{"status":"ok"}"#) {
        assert!(
            stream.read_buf(&mut response).await.expect("a response") > 0,
            "{}",
            String::from_utf8_lossy(&response)
        );
    }
    assert!(response.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&response));
}

/// Another client gets a response.
async fn others_are_served(server: &Server) {
    let list = timeout(PATIENCE, async { server.user("other").send(Method::GET, "/api/tasks", "").await });
    assert_eq!(list.await.expect("a response").status(), 200);
}

pub(crate) async fn a_user_over_the_rate_limit_gets_429_and_others_do_not(framework: Framework) {
    let server = Setup::with_secret(framework).set("RATE_LIMIT", "5/24h").serve(&[]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let header = |response: &http::Response<bytes::Bytes>, name: &str| {
        response.headers()[name].to_str().expect("text").to_owned()
    };
    for (number, method) in [Method::POST, Method::GET, Method::POST, Method::GET, Method::PUT].iter().enumerate() {
        let response = ann.send(method.clone(), "/api/tasks", r#"{"title":"Buy milk"}"#).await;
        if *method == Method::PUT {
            // A request with an unknown method does not count.
            assert_eq!(response.status(), 405);
            assert!(!response.headers().contains_key("ratelimit"));
            continue;
        }
        assert!(response.status().is_success(), "{response:?}");
        assert_eq!(header(&response, "ratelimit-policy"), r#""user";q=5;w=86400"#);
        assert!(header(&response, "ratelimit").starts_with(&format!("\"user\";r={};t=", 4 - number)), "{response:?}");
    }
    // The last allowed request, and one more.
    assert_eq!(ann.send(Method::GET, "/api/v1/ann/tasks", "").await.status(), 200);
    let rejected = ann.send(Method::GET, "/api/auth/session", "").await;
    assert_eq!(User::json(&rejected, 429)["code"], "rate_limited");
    assert!(header(&rejected, "ratelimit").starts_with(r#""user";r=0;"#));
    let seconds: u32 = header(&rejected, "retry-after").parse().expect("a number");
    // A fifth of a day.
    assert!((17_000..=17_280).contains(&seconds), "{seconds}");
    assert_eq!(bob.send(Method::GET, "/api/tasks", "").await.status(), 200);
    assert_eq!(ann.send(Method::GET, "/health/ready", "").await.status(), 200);
}

#[tokio::test]
async fn without_a_rate_limit_responses_have_no_rate_limit_headers() {
    for setting in ["", "off"] {
        let server = Setup::with_secret(Framework::ANY).set("RATE_LIMIT", setting).serve(&[]);
        let ann = server.user("ann");
        for _ in 0..200 {
            let response = ann.send(Method::GET, "/api/tasks", "").await;
            assert_eq!(response.status(), 200);
            assert!(!response.headers().contains_key("ratelimit"));
        }
    }
}

#[tokio::test]
async fn past_the_limit_connections_wait_for_a_free_slot() {
    let server = Setup::with_secret(Framework::ANY).set("MAX_CONNECTIONS", "3").set("METRICS_PORT", "0").serve(&[]);
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&server).await;
        ping(&mut stream).await;
        idle.push(stream);
    }
    let metrics = Metrics::of(&server).await;
    assert_eq!((metrics.count("todo_connections"), metrics.count("todo_connections_max")), (3, 3));
    let mut late = connect(&server).await;
    assert!(timeout(Duration::from_millis(300), ping(&mut late)).await.is_err(), "no slot is free");
    // The request has been sent, so the response arrives without another one.
    drop(idle.pop());
    let mut response = [0; 15];
    timeout(PATIENCE, late.read_exact(&mut response)).await.expect("a free slot").expect("a response");
    assert_eq!(&response, b"HTTP/1.1 200 OK");

    // All slots are in use by idle connections. The server closes one, long before its usual idle timeout.
    let mut later = connect(&server).await;
    timeout(Duration::from_secs(40), ping(&mut later)).await.expect("an idle connection was closed");
    let mut closed = 0;
    for stream in idle.iter_mut().chain([&mut late]) {
        let end = timeout(Duration::from_secs(1), stream.read_to_end(&mut Vec::new())).await;
        closed += usize::from(end.is_ok());
    }
    assert!(closed >= 1, "{closed}");
    let log = server.stop().1;
    assert_eq!(log.matches("the connection limit is reached").count(), 1, "{log}");
}

#[tokio::test]
async fn silent_connections_block_no_others() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(connect(&server).await);
    }
    others_are_served(&server).await;
    drop(silent);
}

pub(crate) async fn a_slow_body_is_408_after_the_request_timeout(framework: Framework) {
    let server = Setup::with_secret(framework).set("REQUEST_TIMEOUT_SECONDS", "1").serve(&[]);
    let token = testkit::tokens::user_token(SECRET.as_bytes(), "ann");
    for length in ["content-length: 60000", "transfer-encoding: chunked"] {
        let mut stream = connect(&server).await;
        let head = format!(
            "POST /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\n{length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("a connection");
        let (mut reader, mut writer) = stream.split();
        let piece: &[u8] = if length.ends_with("chunked") { b"1\r\n \r\n" } else { b" " };
        let sending = async {
            while writer.write_all(piece).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut response = Vec::new();
        tokio::select! {
            end = timeout(PATIENCE, reader.read_to_end(&mut response)) => { let _ = end.expect("it is closed"); }
            () = sending => {}
        }
        let response = String::from_utf8_lossy(&response);
        assert!(
            response.starts_with("HTTP/1.1 408 ") && response.contains(r#""code":"request_timeout""#),
            "{length}: {response}"
        );
    }
    others_are_served(&server).await;
}

#[tokio::test]
async fn too_many_headers_are_rejected() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    for (count, status) in [(90, "200"), (101, "431"), (5000, "431")] {
        let headers = (0..count).map(|number| format!("x-{number}: x\r\n")).collect::<Vec<_>>().concat();
        let head = format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let response = testkit::http::raw(server.address, head.as_bytes()).await;
        let response = String::from_utf8_lossy(&response);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{count}: {response}");
    }
    others_are_served(&server).await;
}

/// A client of HTTP/2 without limits of its own.
async fn http_2(server: &Server) -> http2::SendRequest<Empty<Bytes>> {
    let stream = TokioIo::new(connect(server).await);
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.max_header_list_size(1024 * 1024);
    let (sender, driver) = client.handshake(stream).await.expect("a connection");
    tokio::spawn(driver);
    sender
}

fn get(server: &Server, path: &str) -> http::request::Builder {
    Request::get(format!("http://{}{path}", server.address))
}

#[tokio::test]
async fn too_many_headers_of_http_2_are_rejected() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let mut sender = http_2(&server).await;
    let small = sender.send_request(get(&server, "/health").body(Empty::new()).expect("a request"));
    assert_eq!(small.await.expect("a response").status(), 200);
    let large = (0..700)
        .fold(get(&server, "/health"), |request, number| request.header(format!("x-{number}"), "x".repeat(100)));
    let response = sender.send_request(large.body(Empty::new()).expect("a request")).await;
    // h2 rejects some lists with a response, and others by closing the stream.
    assert!(response.is_err() || response.is_ok_and(|response| response.status() == 431));
    others_are_served(&server).await;
}

/// "Rapid reset": a client that cancels each request as soon as it is sent.
pub(crate) async fn cancelled_requests_of_http_2_leave_nothing_in_flight(framework: Framework) {
    let server = Setup::with_secret(framework).set("METRICS_PORT", "0").serve(&[]);
    for _ in 0..4 {
        let mut sender = http_2(&server).await;
        for _ in 0..2000 {
            let request = get(&server, "/health/ready").body(Empty::new()).expect("a request");
            let response = sender.send_request(request);
            let mut response = std::pin::pin!(response);
            let _ = futures_util::poll!(&mut response);
            tokio::task::yield_now().await;
        }
        if let Ok(()) = sender.ready().await {
            let request = get(&server, "/health").body(Empty::new()).expect("a request");
            if let Ok(response) = sender.send_request(request).await {
                assert!(response.into_body().collect().await.is_ok());
            }
        }
    }
    others_are_served(&server).await;
    while Metrics::of(&server).await.count("http_requests_in_flight") > 0 {}
}

pub(crate) async fn pipelined_requests_are_all_answered(framework: Framework) {
    const COUNT: usize = 20_000;
    let server = Setup::with_secret(framework).set("METRICS_PORT", "0").serve(&[]);
    let (mut reader, mut writer) = connect(&server).await.into_split();
    let writing = tokio::spawn(async move {
        for _ in 0..COUNT / 100 {
            writer.write_all(&PING.repeat(100)).await.expect("a connection");
        }
        writer
    });
    others_are_served(&server).await;
    let mut responses = Vec::new();
    let all = async {
        while String::from_utf8_lossy(&responses).matches("HTTP/1.1 200 OK").count() < COUNT {
            // Counting after every read would be slow.
            let enough = responses.len() + 1024 * 1024;
            while responses.len() < enough {
                match timeout(Duration::from_secs(1), reader.read_buf(&mut responses)).await {
                    Ok(read) => assert!(read.expect("responses") > 0, "it is open"),
                    Err(_) => break,
                }
            }
        }
    };
    timeout(PATIENCE, all).await.expect("all responses");
    drop(writing.await);
}

/// A client that sends requests and reads no response.
#[tokio::test]
async fn a_client_that_reads_no_responses_is_no_longer_read_from() {
    let server = Setup::with_secret(Framework::ANY).set("METRICS_PORT", "0").serve(&[]);
    let mut flood = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&server).await;
        flood.push(tokio::spawn(async move {
            let requests = PING.repeat(1000);
            let mut sent = 0_usize;
            // Until the server accepts nothing for a while.
            while let Ok(Ok(())) = timeout(Duration::from_secs(2), stream.write_all(&requests)).await {
                sent += requests.len();
                assert!(sent < 256 * 1024 * 1024, "it is accepted without end");
            }
            stream
        }));
    }
    for stream in flood {
        drop(stream.await.expect("it is not accepted without end"));
    }
    others_are_served(&server).await;
    if cfg!(target_os = "linux") {
        let bytes = Metrics::of(&server).await.count("process_resident_memory_bytes");
        assert!(bytes < 150_000_000, "{bytes}");
    }
}

/// Both connections to the database are blocked, and two calls wait.
async fn a_call_past_the_queue_limit_is_rejected(coalesce: &str, waiting: &str, rejections: &str) {
    let database = testkit::postgres::empty_database().await;
    let server = Setup::with_secret(Framework::ANY)
        .set("DATABASE_URL", database.url())
        .set("DATABASE_MAX_CONNECTIONS", "2")
        .set("DATABASE_MAX_WAITING", "2")
        .set("COALESCE", coalesce)
        .set("METRICS_PORT", "0")
        .serve(&[]);
    others_are_served(&server).await;
    let mut admin = PgConnection::connect(database.url()).await.expect("the database");
    let mut lock = admin.begin().await.expect("a transaction");
    lock.execute(r#"lock table "todo"."tasks" in access exclusive mode"#).await.expect("a lock");
    let address = server.address;
    let waiting_calls: Vec<_> = (0..4)
        .map(|number| {
            let token = testkit::tokens::user_token(SECRET.as_bytes(), &format!("user {number}"));
            tokio::spawn(async move { User::new(address, &token).send(Method::GET, "/api/tasks", "").await })
        })
        .collect();
    while Metrics::of(&server).await.count(waiting) < 2 {}
    let rejected = server.user("bob").send(Method::GET, "/api/tasks", "").await;
    assert!(waiting_calls.iter().all(|call| !call.is_finished()), "the earlier calls still wait");
    assert_eq!(User::json(&rejected, 503)["code"], "unavailable");
    assert_eq!(rejected.headers()["retry-after"], "1");
    assert_eq!(Metrics::of(&server).await.count(rejections), 1);
    let alive = Request::get("/health").body(Bytes::new()).expect("a request");
    assert_eq!(Client::new(server.address).send(alive).await.status(), 200);
    lock.rollback().await.expect("a rollback");
    for call in waiting_calls {
        assert_eq!(call.await.expect("no panic").status(), 200);
    }
    drop((server, admin));
    database.close().await;
}

#[tokio::test]
async fn calls_past_the_queue_of_the_pool_are_rejected_at_once() {
    let [waiting, rejected] =
        ["todo_store_waiting", "todo_store_refused_total"].map(|name| format!(r#"{name}{{pool="postgres"}}"#));
    a_call_past_the_queue_limit_is_rejected("off", &waiting, &rejected).await;
}

#[tokio::test]
async fn calls_past_the_queue_of_the_batches_are_rejected_at_once() {
    a_call_past_the_queue_limit_is_rejected("on", "todo_coalescing_waiting", "todo_coalescing_refused_total").await;
}
