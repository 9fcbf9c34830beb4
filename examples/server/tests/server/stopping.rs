//! The end of a server, and of connections that do not get on.

use std::{io::Read as _, net::TcpStream as BlockingStream, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::program::{Place, SECRET, Server, until};

const PATIENCE: Duration = Duration::from_mins(1);
const BODY: &str = r#"{"title":"Buy milk"}"#;

/// The head of a request whose body is to come, and that asks to be told when the server wants it.
fn head() -> String {
    let token = testkit::tokens::user_token(SECRET.as_bytes(), "ann");
    format!(
        "POST /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        BODY.len()
    )
}

/// A connection whose request the server has begun to answer.
async fn request_in_flight(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    stream.write_all(head().as_bytes()).await.expect("a connection");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    end.expect("the connection is closed").expect("it is closed in order");
    String::from_utf8(bytes).expect("UTF-8")
}

fn refuses_connections(server: &Server) -> bool {
    std::net::TcpStream::connect(server.address).is_err()
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_the_rest_is_closed() {
    let mut server = Place::with_secret().serve(&[]);
    let mut busy = request_in_flight(&server).await;
    let mut idle = TcpStream::connect(server.address).await.expect("a connection");
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a connection");
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.expect("an answer");

    server.program.terminate();
    until("nobody is let in", || refuses_connections(&server).then_some(()));
    // Whoever only rests is not waited for.
    assert!(rest(&mut idle).await.ends_with(r#"{"status":"ok"}"#));
    assert!(server.program.is_running());

    busy.write_all(BODY.as_bytes()).await.expect("a connection");
    let answer = rest(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(server.program.end().code(), Some(0));
}

#[tokio::test]
async fn a_request_that_does_not_end_is_not_waited_for_for_ever() {
    let mut server = Place::with_secret().set("REQUEST_TIMEOUT_SECONDS", "1").serve(&[]);
    let mut stalled = request_in_flight(&server).await;
    server.program.terminate();
    // Its time is over before ours is.
    let answer = rest(&mut stalled).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"timeout\""), "{answer}");
    assert_eq!(server.program.end().code(), Some(0));
}

#[tokio::test]
async fn who_asks_twice_means_at_once() {
    let mut server = Place::with_secret().set("REQUEST_TIMEOUT_SECONDS", "300").serve(&[]);
    let _stalled = request_in_flight(&server).await;
    server.program.interrupt();
    until("it is stopping", || server.program.log.so_far().contains("stopping").then_some(()));
    assert!(server.program.is_running());
    server.program.interrupt();
    assert_eq!(server.program.end().code(), Some(0));
    let log = server.program.log.whole();
    assert!(log.contains("stopped at once"), "{log}");
    // What was given up is in the log as well as what was done.
    assert!(log.contains("not answered method=\"POST\" path=\"/api/tasks\""), "{log}");
}

/// A stop while the database is still being waited for.
#[test]
fn a_server_that_is_starting_stops_too() {
    let place = Place::with_secret().set("DATABASE_URL", "postgres://todo@127.0.0.1:1/todo");
    let mut program = place.spawn(&[]);
    until("it tries", || program.log.so_far().contains("trying again").then_some(()));
    program.terminate();
    assert_eq!(program.end().code(), Some(0));
}

#[tokio::test]
async fn half_a_head_is_waited_for_ten_seconds() {
    let server = Place::with_secret().serve(&[]);
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
        let mut answer = Vec::new();
        tokio::select! {
            end = timeout(PATIENCE, reader.read_to_end(&mut answer)) => { let _ = end.expect("it is closed"); }
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

/// Gateways keep connections for a minute or so, and would send requests into one that is just being closed.
#[tokio::test]
async fn a_connection_may_rest_for_longer_than_a_head_may_take() {
    let server = Place::with_secret().serve(&[]);
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    for pause in [0, 12] {
        sleep(Duration::from_secs(pause)).await;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a connection");
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).await.expect("an answer");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "{:?}", &answer[..length]);
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Place::with_secret().serve(&[]);
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(100_000));
    let answer = testkit::http::raw(server.address, head.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    // A token of the size that is looked at does fit.
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", "x".repeat(16 * 1024));
    let answer = testkit::http::raw(server.address, head.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn http_2_is_spoken_too() {
    let server = Place::with_secret().serve(&[]);
    let mut stream = BlockingStream::connect(server.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a connection");
    // The preface and empty settings; the answer begins with the settings of the server: their frame is of type 4.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    std::io::Write::write_all(&mut stream, hello).expect("a connection");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).expect("a frame");
    assert_eq!(frame[3], 4);
}
