//! Body limits that a host puts around the route, lower than the limit of the API.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited, combinators::BoxBody};
use poem::{Endpoint, EndpointExt as _, Request, Route, listener::TcpAcceptor, middleware::SizeLimit};
use testkit::{
    bodies::{Framing, create_task},
    http::{Server, raw},
};
use todo_core::{conformance::api::api, store::MemoryStore};

const HOST_LIMIT: usize = 100;
const BELOW: usize = 20;
const ABOVE: usize = 150;

fn route() -> Route {
    todo_poem::mount(Route::new(), "/api/v1", api(MemoryStore::new()))
}

async fn serve(app: impl Endpoint + 'static) -> Server {
    Server::start(async |listener| {
        let acceptor = TcpAcceptor::from_tokio(listener).expect("a listener of tokio");
        poem::Server::new_with_acceptor(acceptor).run(app).await.expect("the listener accepts");
    })
    .await
}

/// poem's own limit looks at `content-length` alone, and rejects every request without one, before the API sees it.
#[tokio::test]
async fn size_limit_rejects_requests_without_a_length() {
    let server = serve(route().with(SizeLimit::new(HOST_LIMIT))).await;
    for (length, framing, status) in [
        (ABOVE, Framing::Length, 413),
        (BELOW, Framing::Length, 201),
        (ABOVE, Framing::Chunks, 411),
        (BELOW, Framing::Chunks, 411),
    ] {
        let response = create_task(server.address(), length, framing).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{framing:?}: {response}");
        assert!(!response.contains("payload_too_large"), "the response is poem's: {response}");
    }
    let response = raw(server.address(), b"GET /api/v1/tasks HTTP/1.1\r\nhost: todo.example\r\n\r\n").await;
    assert!(response.starts_with(b"HTTP/1.1 411 "), "{}", String::from_utf8_lossy(&response));
}

/// The errors of poem's bodies are `io::Error`s, so the error of the limit is inside one.
#[tokio::test]
async fn a_chunked_body_over_a_limit_of_a_middleware_is_rejected_with_413() {
    let app = route().before(async |mut request: Request| {
        let body: BoxBody<Bytes, io::Error> = request.take_body().into();
        request.set_body(BoxBody::new(Limited::new(body, HOST_LIMIT).map_err(io::Error::other)));
        Ok(request)
    });
    let server = serve(app).await;
    let response = create_task(server.address(), ABOVE, Framing::Chunks).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.contains(r#""code":"payload_too_large""#), "{response}");
    let response = create_task(server.address(), BELOW, Framing::Chunks).await;
    assert!(response.starts_with("HTTP/1.1 201 "), "{response}");
}
