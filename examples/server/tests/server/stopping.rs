//! Stopping the server, and the time limits of connections.

use std::time::Duration;

use bytes::Bytes;
use http::{
    Request, Version,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    Framework,
    program::{PATIENCE, SECRET, Server, Setup, until},
};

const BODY: &str = r#"{"title":"Buy milk"}"#;

/// The head of a request that sends its body only after `100 Continue`.
fn head() -> String {
    let token = testkit::tokens::user_token(SECRET.as_bytes(), "ann");
    format!(
        "POST /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        BODY.len()
    )
}

/// A connection with an open request, whose body the server waits for.
async fn open_request(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    stream.write_all(head().as_bytes()).await.expect("a connection");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("an interim response");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    end.expect("the connection is closed").expect("without an error");
    String::from_utf8(bytes).expect("UTF-8")
}

fn accepts_connections(server: &Server) -> bool {
    std::net::TcpStream::connect(server.address).is_ok()
}

pub(crate) async fn open_requests_are_finished_and_idle_connections_closed(framework: Framework) {
    let mut server = Setup::with_secret(framework).serve(&[]);
    let mut busy = open_request(&server).await;
    let mut idle = TcpStream::connect(server.address).await.expect("a connection");
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a connection");
    let mut response = [0; 15];
    idle.read_exact(&mut response).await.expect("a response");

    server.program.terminate();
    until("it accepts no connections", || (!accepts_connections(&server)).then_some(()));
    // The idle connection is closed while the other request is open.
    assert!(read_to_end(&mut idle).await.ends_with(r#"{"status":"ok"}"#));
    assert!(server.program.is_running());

    busy.write_all(BODY.as_bytes()).await.expect("a connection");
    let response = read_to_end(&mut busy).await;
    assert!(response.starts_with("HTTP/1.1 201 Created\r\n"), "{response}");
    assert!(response.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{response}");
    assert_eq!(server.program.end().code(), Some(0));
}

pub(crate) async fn a_stop_waits_no_longer_than_the_request_timeout(framework: Framework) {
    let mut server = Setup::with_secret(framework).set("REQUEST_TIMEOUT_SECONDS", "1").serve(&[]);
    let mut stalled = open_request(&server).await;
    server.program.terminate();
    // The request ends before the grace period of the stop.
    let response = read_to_end(&mut stalled).await;
    assert!(response.starts_with("HTTP/1.1 408 ") && response.contains("\"request_timeout\""), "{response}");
    assert_eq!(server.program.end().code(), Some(0));
}

pub(crate) async fn a_second_signal_stops_at_once(framework: Framework) {
    let mut server = Setup::with_secret(framework).set("REQUEST_TIMEOUT_SECONDS", "300").serve(&[]);
    let _stalled = open_request(&server).await;
    server.program.interrupt();
    until("it is stopping", || server.program.log.so_far().contains("stopping").then_some(()));
    assert!(server.program.is_running());
    server.program.interrupt();
    assert_eq!(server.program.end().code(), Some(0));
    let log = server.program.log.whole();
    assert!(log.contains("stopped at once"), "{log}");
    // The unfinished request is logged.
    assert!(log.contains("no response method=\"POST\" path=\"/api/tasks\""), "{log}");
}

/// The status of the readiness probe.
async fn readiness(server: &Server) -> (u16, String) {
    let response = server.user("probe").send(http::Method::GET, "/health/ready", "").await;
    (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
}

pub(crate) async fn until_its_delay_has_passed_a_stopping_server_is_not_ready_and_serves(framework: Framework) {
    let mut server = Setup::with_secret(framework).set("SHUTDOWN_DELAY_SECONDS", "3").serve(&[]);
    assert_eq!(readiness(&server).await.0, 200);
    let begun = Instant::now();
    server.program.terminate();
    until("it is stopping", || server.program.log.so_far().contains("no longer ready").then_some(()));
    let (status, body) = readiness(&server).await;
    assert!(status == 503 && body.contains(r#""failed":["server"]"#), "{status} {body}");
    // New connections are accepted, and requests served, on both versions of the probe.
    while begun.elapsed() < Duration::from_millis(2500) {
        server.user("ann").use_tasks().await;
        assert_eq!(server.user("ann").send(http::Method::GET, "/health", "").await.status(), 200);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.program.end().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(3) && begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let log = server.program.log.whole();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[tokio::test]
async fn a_second_signal_cuts_the_delay_short_and_a_hang_up_stops_too() {
    let mut server = Setup::with_secret(Framework::ANY).set("SHUTDOWN_DELAY_SECONDS", "300").serve(&[]);
    let mut open = open_request(&server).await;
    server.program.hang_up();
    until("it is stopping", || server.program.log.so_far().contains("no longer ready").then_some(()));
    assert!(accepts_connections(&server) && server.program.is_running());
    server.program.terminate();
    until("it accepts no connections", || (!accepts_connections(&server)).then_some(()));
    // This signal ends the delay, and not the open request. Another one would.
    open.write_all(BODY.as_bytes()).await.expect("a connection");
    let response = read_to_end(&mut open).await;
    assert!(response.starts_with("HTTP/1.1 201 "), "{response}");
    assert_eq!(server.program.end().code(), Some(0));
}

/// A stop while the server retries to reach the database.
#[test]
fn a_server_that_is_starting_can_be_stopped() {
    let setup = Setup::with_secret(Framework::ANY).set("DATABASE_URL", "postgres://todo@127.0.0.1:1/todo");
    let mut program = setup.spawn(&[]);
    until("it retries", || program.log.so_far().contains("retrying").then_some(()));
    program.terminate();
    assert_eq!(program.end().code(), Some(0));
}

#[tokio::test]
async fn an_incomplete_head_is_closed_after_ten_seconds() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let began = Instant::now();
    let stalled = async |bytes: &[u8], drip: bool| {
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(bytes).await.expect("a connection");
        let (mut reader, mut writer) = stream.split();
        let dripping = async {
            while drip && writer.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut response = Vec::new();
        tokio::select! {
            end = timeout(PATIENCE, reader.read_to_end(&mut response)) => { let _ = end.expect("it is closed"); }
            () = dripping => {}
        }
        began.elapsed()
    };
    let half = b"GET /health HTTP/1.1\r\nhost: x\r\nx-half: ";
    let preface = b"PRI * HTTP/2.0\r\n\r\n";
    let (silent, half, dripping, preface) =
        tokio::join!(stalled(b"", false), stalled(half, false), stalled(half, true), stalled(preface, false));
    for elapsed in [silent, half, dripping, preface] {
        assert!(elapsed >= Duration::from_secs(9) && elapsed < Duration::from_secs(30), "{elapsed:?}");
    }
}

/// Proxies keep idle connections for about a minute, and must not send a request into one that is being closed.
#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    for pause in [0, 12] {
        sleep(Duration::from_secs(pause)).await;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a connection");
        let mut response = [0; 1024];
        let length = stream.read(&mut response).await.expect("a response");
        assert!(response[..length].starts_with(b"HTTP/1.1 200 "), "{:?}", &response[..length]);
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_rejected() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(100_000));
    let response = testkit::http::raw(server.address, head.as_bytes()).await;
    assert!(response.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&response));
    // A token of the maximum size fits.
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", "x".repeat(16 * 1024));
    let response = testkit::http::raw(server.address, head.as_bytes()).await;
    assert!(response.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&response));
}

pub(crate) async fn http_2_works(framework: Framework) {
    let server = Setup::with_secret(framework).serve(&[]);
    let stream = TcpStream::connect(server.address).await.expect("a connection");
    let client = http2::Builder::new(TokioExecutor::new());
    let (mut sender, driver) = client.handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(driver);
    let token = testkit::tokens::user_token(SECRET.as_bytes(), "ann");
    let request = Request::post(format!("http://{}/api/tasks", server.address))
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(BODY.as_bytes())))
        .expect("a request");
    let response = timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("a response");
    assert_eq!((response.status().as_u16(), response.version()), (201, Version::HTTP_2));
    assert_eq!(server.user("ann").all_ids().await.len(), 1);
}
