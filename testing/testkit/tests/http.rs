//! Requests are sent exactly as given, and responses are returned exactly as received.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use testkit::http::{Client, Server, listener, raw};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Responds to each request with its target, the number of its connection and its `host`.
async fn mirror() -> Server {
    Server::start(async |listener: TcpListener| {
        for connection_number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = service_fn(move |request: Request<Incoming>| async move {
                let host = request.headers()["host"].clone();
                Response::builder()
                    .header("x-connection", connection_number)
                    .header("x-host", host)
                    .body(Full::new(Bytes::from(request.uri().to_string())))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    })
    .await
}

/// Reads one request up to these bytes, then writes the response.
async fn parrot(
    until: &'static str,
    answer: &'static str,
    closes: bool,
) -> (Server, tokio::sync::oneshot::Receiver<String>) {
    let (tell, told) = tokio::sync::oneshot::channel();
    let server = Server::start(|listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).ends_with(until) {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the client closes first");
        }
        // Not every test reads it.
        let _ = tell.send(String::from_utf8(request).unwrap());
        // In two parts, as in a network.
        let (first, second) = answer.split_at(answer.len() / 2);
        for part in [first, second] {
            stream.write_all(part.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !closes {
            std::future::pending::<()>().await;
        }
    })
    .await;
    (server, told)
}

fn get(target: &str) -> Request<Bytes> {
    Request::get(target).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn target_is_sent_byte_for_byte() {
    let server = mirror().await;
    for target in ["/", "//tasks//", "/a%2Fb/%7e/../.", "/auth0|1/tasks/?q=%C3%A4&&x=", "http://elsewhere/tasks?a=b"] {
        let response = server.client().send(get(target)).await;
        assert_eq!(response.body(), target);
    }
}

#[tokio::test]
async fn host_is_the_address_unless_it_is_given() {
    let server = mirror().await;
    let response = server.client().send(get("/")).await;
    assert_eq!(response.headers()["x-host"], server.address().to_string());
    let given = Request::get("/").header("host", "todo.example").body(Bytes::new()).unwrap();
    assert_eq!(server.client().send(given).await.headers()["x-host"], "todo.example");
}

#[tokio::test]
async fn only_headers_that_http_requires_are_added() {
    let (server, told) =
        parrot("{}", "HTTP/1.1 201 Created\r\nlocation: tasks/1\r\ncontent-length: 0\r\n\r\n", false).await;
    let request = Request::post("/tasks").header("x-odd", " a  b").body(Bytes::from("{}")).unwrap();
    let response = server.client().send(request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["location"], "tasks/1");
    let mut lines: Vec<String> = told.await.unwrap().lines().map(ToOwned::to_owned).collect();
    assert_eq!(lines.remove(0), "POST /tasks HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(lines, ["", "content-length: 2", &format!("host: {}", server.address()), "x-odd:  a  b", "{}"]);
}

#[tokio::test]
async fn only_a_client_that_keeps_connections_keeps_one() {
    let server = mirror().await;
    let numbers = async |client: &Client| {
        let mut numbers = Vec::new();
        for _ in 0..3 {
            numbers.push(client.send(get("/")).await.headers()["x-connection"].to_str().unwrap().to_owned());
        }
        numbers
    };
    assert_eq!(numbers(&server.client()).await, ["0", "1", "2"]);
    assert_eq!(numbers(&Client::keeping_alive(server.address())).await, ["3", "3", "3"]);
}

#[tokio::test]
async fn a_dropped_server_does_not_listen() {
    let server = mirror().await;
    let address = server.address();
    drop(server);
    // The task ends when it is polled next.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn raw_response_ends_where_its_head_says() {
    for (request, answer) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"),
        (
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;x=y\r\nbo\r\n\r\n2\r\n0\r\n\r\n0\r\nx-trailer: 1\r\n\r\n",
        ),
        ("PUT / HTTP/1.1\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
    ] {
        let (server, told) = parrot("\r\n\r\n", answer, false).await;
        assert_eq!(String::from_utf8(raw(server.address(), request.as_bytes()).await).unwrap(), answer);
        assert_eq!(told.await.unwrap(), request);
    }
}

#[tokio::test]
async fn raw_response_without_a_length_ends_with_the_connection() {
    for answer in ["HTTP/1.1 200 OK\r\n\r\neverything", "no HTTP at all", ""] {
        let (server, _) = parrot("nonsense", answer, true).await;
        assert_eq!(raw(server.address(), b"nonsense").await, answer.as_bytes());
    }
}

#[tokio::test]
async fn raw_works_with_a_real_server() {
    let server = mirror().await;
    let host = server.address();
    let request = format!("GET http://{host}/tasks//1 HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let response = String::from_utf8(raw(host, request.as_bytes()).await).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with(&format!("\r\n\r\nhttp://{host}/tasks//1")), "{response}");
}

#[tokio::test]
async fn every_listener_has_a_port_of_its_own() {
    let ((_a, first), (_b, second)) = tokio::join!(listener(), listener());
    assert!(first.ip().is_loopback());
    assert_ne!(first, second);
}
