//! More than the server can or will do: it says so, and goes on for everybody else.

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
    metrics::Metrics,
    program::{Caller, Place, SECRET, Server},
};

const PATIENCE: Duration = Duration::from_mins(1);
const PING: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("a connection")
}

/// Sends a small request and reads its answer.
async fn ping(stream: &mut TcpStream) {
    stream.write_all(PING).await.expect("a connection");
    let mut answer = Vec::new();
    while !answer.ends_with(br#"{"status":"ok"}"#) {
        assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

/// Somebody else gets an answer, whatever goes on.
async fn others_are_served(server: &Server) {
    let list = timeout(PATIENCE, async { server.caller("other").send(Method::GET, "/api/tasks", "").await });
    assert_eq!(list.await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_others_are_not() {
    let server = Place::with_secret().set("RATE_LIMIT", "5/24h").serve(&[]);
    let (ann, bob) = (server.caller("ann"), server.caller("bob"));
    let told = |response: &http::Response<bytes::Bytes>, name: &str| {
        response.headers()[name].to_str().expect("text").to_owned()
    };
    for (number, method) in [Method::POST, Method::GET, Method::POST, Method::GET, Method::DELETE].iter().enumerate() {
        let response = ann.send(method.clone(), "/api/tasks", r#"{"title":"Buy milk"}"#).await;
        if *method == Method::DELETE {
            // A method that is not there costs nothing.
            assert_eq!(response.status(), 405);
            assert!(!response.headers().contains_key("ratelimit"));
            continue;
        }
        assert!(response.status().is_success(), "{response:?}");
        assert_eq!(told(&response, "ratelimit-policy"), r#""user";q=5;w=86400"#);
        assert!(told(&response, "ratelimit").starts_with(&format!("\"user\";r={};t=", 4 - number)), "{response:?}");
    }
    // The last one, and one too many.
    assert_eq!(ann.send(Method::GET, "/api/v1/ann/tasks", "").await.status(), 200);
    let refused = ann.send(Method::GET, "/api/auth/session", "").await;
    assert_eq!(Caller::json(&refused, 429)["code"], "rate_limited");
    assert!(told(&refused, "ratelimit").starts_with(r#""user";r=0;"#));
    let seconds: u32 = told(&refused, "retry-after").parse().expect("a number");
    // A fifth of a day.
    assert!((17_000..=17_280).contains(&seconds), "{seconds}");
    assert_eq!(bob.send(Method::GET, "/api/tasks", "").await.status(), 200);
    assert_eq!(ann.send(Method::GET, "/health/ready", "").await.status(), 200);
}

#[tokio::test]
async fn without_a_limit_nobody_hears_of_one() {
    for setting in ["", "off"] {
        let server = Place::with_secret().set("RATE_LIMIT", setting).serve(&[]);
        let ann = server.caller("ann");
        for _ in 0..200 {
            let response = ann.send(Method::GET, "/api/tasks", "").await;
            assert_eq!(response.status(), 200);
            assert!(!response.headers().contains_key("ratelimit"));
        }
    }
}

#[tokio::test]
async fn past_the_limit_connections_wait_until_there_is_room() {
    let server = Place::with_secret().set("MAX_CONNECTIONS", "3").set("METRICS_PORT", "0").serve(&[]);
    let mut resting = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&server).await;
        ping(&mut stream).await;
        resting.push(stream);
    }
    let metrics = Metrics::of(&server).await;
    assert_eq!((metrics.count("todo_connections"), metrics.count("todo_connections_max")), (3, 3));
    let mut late = connect(&server).await;
    assert!(timeout(Duration::from_millis(300), ping(&mut late)).await.is_err(), "there is no room");
    // It has asked already, so that one answer more will come.
    drop(resting.pop());
    let mut answer = [0; 15];
    timeout(PATIENCE, late.read_exact(&mut answer)).await.expect("there is room").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");

    // Nobody leaves of himself: whoever rests has to go, long before he would have to otherwise.
    let mut later = connect(&server).await;
    timeout(Duration::from_secs(40), ping(&mut later)).await.expect("somebody had to go");
    let mut closed = 0;
    for stream in resting.iter_mut().chain([&mut late]) {
        let end = timeout(Duration::from_secs(1), stream.read_to_end(&mut Vec::new())).await;
        closed += usize::from(end.is_ok());
    }
    assert!(closed >= 1, "{closed}");
    let log = server.stop().1;
    assert_eq!(log.matches("as many connections as there may be").count(), 1, "{log}");
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let server = Place::with_secret().serve(&[]);
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(connect(&server).await);
    }
    others_are_served(&server).await;
    drop(silent);
}

#[tokio::test]
async fn a_body_that_trickles_is_answered_when_its_time_is_over() {
    let server = Place::with_secret().set("REQUEST_TIMEOUT_SECONDS", "1").serve(&[]);
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
        let trickling = async {
            while writer.write_all(piece).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = Vec::new();
        tokio::select! {
            end = timeout(PATIENCE, reader.read_to_end(&mut answer)) => { let _ = end.expect("it is closed"); }
            () = trickling => {}
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(r#""code":"timeout""#), "{length}: {answer}");
    }
    others_are_served(&server).await;
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let server = Place::with_secret().serve(&[]);
    for (count, status) in [(90, "200"), (101, "431"), (5000, "431")] {
        let headers = (0..count).map(|number| format!("x-{number}: x\r\n")).collect::<Vec<_>>().concat();
        let head = format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let answer = testkit::http::raw(server.address, head.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{count}: {answer}");
    }
    others_are_served(&server).await;
}

/// A client of HTTP/2, which sends whatever it is told to.
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
async fn over_http_2_too_many_headers_are_refused_too() {
    let server = Place::with_secret().serve(&[]);
    let mut sender = http_2(&server).await;
    let small = sender.send_request(get(&server, "/health").body(Empty::new()).expect("a request"));
    assert_eq!(small.await.expect("an answer").status(), 200);
    let large = (0..700)
        .fold(get(&server, "/health"), |request, number| request.header(format!("x-{number}"), "x".repeat(100)));
    let answer = sender.send_request(large.body(Empty::new()).expect("a request")).await;
    // Some lists are refused by an answer, others by the end of the stream.
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 431));
    others_are_served(&server).await;
}

/// "Rapid reset": requests that are taken back as soon as they are made cost the caller nothing.
#[tokio::test]
async fn requests_that_are_taken_back_at_once_are_not_worked_through() {
    let server = Place::with_secret().set("METRICS_PORT", "0").serve(&[]);
    for _ in 0..4 {
        let mut sender = http_2(&server).await;
        for _ in 0..2000 {
            let request = get(&server, "/health/ready").body(Empty::new()).expect("a request");
            let answer = sender.send_request(request);
            let mut answer = std::pin::pin!(answer);
            let _ = futures_util::poll!(&mut answer);
            tokio::task::yield_now().await;
        }
        if let Ok(()) = sender.ready().await {
            let request = get(&server, "/health").body(Empty::new()).expect("a request");
            if let Ok(answer) = sender.send_request(request).await {
                assert!(answer.into_body().collect().await.is_ok());
            }
        }
    }
    others_are_served(&server).await;
    while Metrics::of(&server).await.count("http_requests_in_flight") > 0 {}
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_a_row_and_others_in_between() {
    const COUNT: usize = 20_000;
    let server = Place::with_secret().set("METRICS_PORT", "0").serve(&[]);
    let (mut reader, mut writer) = connect(&server).await.into_split();
    let writing = tokio::spawn(async move {
        for _ in 0..COUNT / 100 {
            writer.write_all(&PING.repeat(100)).await.expect("a connection");
        }
        writer
    });
    others_are_served(&server).await;
    let mut answers = Vec::new();
    let all = async {
        while String::from_utf8_lossy(&answers).matches("HTTP/1.1 200 OK").count() < COUNT {
            // Not after every few bytes.
            let enough = answers.len() + 1024 * 1024;
            while answers.len() < enough {
                match timeout(Duration::from_secs(1), reader.read_buf(&mut answers)).await {
                    Ok(read) => assert!(read.expect("answers") > 0, "it is open"),
                    Err(_) => break,
                }
            }
        }
    };
    timeout(PATIENCE, all).await.expect("all answers");
    drop(writing.await);
}

/// Whoever asks and asks, and takes no answer, is not listened to for long.
#[tokio::test]
async fn answers_that_nobody_takes_do_not_pile_up() {
    let server = Place::with_secret().set("METRICS_PORT", "0").serve(&[]);
    let mut flood = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&server).await;
        flood.push(tokio::spawn(async move {
            let requests = PING.repeat(1000);
            let mut sent = 0_usize;
            // Until nothing is taken for a while.
            while let Ok(Ok(())) = timeout(Duration::from_secs(2), stream.write_all(&requests)).await {
                sent += requests.len();
                assert!(sent < 256 * 1024 * 1024, "it is taken without end");
            }
            stream
        }));
    }
    for stream in flood {
        drop(stream.await.expect("it is not taken without end"));
    }
    others_are_served(&server).await;
    if cfg!(target_os = "linux") {
        let bytes = Metrics::of(&server).await.count("process_resident_memory_bytes");
        assert!(bytes < 150_000_000, "{bytes}");
    }
}

/// Two connections to the database, of which none comes back, and two calls that wait.
async fn who_comes_too_late_is_refused(coalesce: &str, waiting: &str, refusals: &str) {
    let database = testkit::postgres::empty_database().await;
    let server = Place::with_secret()
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
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let token = testkit::tokens::user_token(SECRET.as_bytes(), "ann");
            tokio::spawn(async move { Caller::new(address, &token).send(Method::GET, "/api/tasks", "").await })
        })
        .collect();
    while Metrics::of(&server).await.count(waiting) < 2 {}
    let refused = server.caller("bob").send(Method::GET, "/api/tasks", "").await;
    assert!(stuck.iter().all(|call| !call.is_finished()), "those before are still waiting");
    assert_eq!(Caller::json(&refused, 503)["code"], "unavailable");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(Metrics::of(&server).await.count(refusals), 1);
    let alive = Request::get("/health").body(Bytes::new()).expect("a request");
    assert_eq!(Client::new(server.address).send(alive).await.status(), 200);
    lock.rollback().await.expect("the end of it");
    for call in stuck {
        assert_eq!(call.await.expect("no panic").status(), 200);
    }
    drop((server, admin));
    database.close().await;
}

#[tokio::test]
async fn calls_that_would_wait_too_long_for_a_connection_are_refused_at_once() {
    let [waiting, refused] =
        ["todo_store_waiting", "todo_store_refused_total"].map(|name| format!(r#"{name}{{pool="postgres"}}"#));
    who_comes_too_late_is_refused("off", &waiting, &refused).await;
}

#[tokio::test]
async fn calls_that_would_wait_too_long_for_a_statement_are_refused_at_once() {
    who_comes_too_late_is_refused("on", "todo_coalescing_waiting", "todo_coalescing_refused_total").await;
}
