//! Body limits that a host puts around the router, lower than the limit of the API.

use axum::{Router, extract::DefaultBodyLimit};
use testkit::{
    bodies::{Framing, create_task},
    http::Server,
};
use todo_core::{conformance::api::api, store::MemoryStore};
use tower_http::limit::RequestBodyLimitLayer;

const HOST_LIMIT: usize = 100;
const BELOW: usize = 20;
const ABOVE: usize = 150;

async fn serve(limited: impl FnOnce(Router) -> Router) -> Server {
    let app = limited(Router::new().nest("/api/v1", todo_axum::router(api(MemoryStore::new()))));
    Server::start(async |listener| axum::serve(listener, app).await.expect("the listener accepts")).await
}

#[tokio::test]
async fn a_chunked_body_over_the_hosts_limit_is_rejected_with_413() {
    let server = serve(|router| router.layer(RequestBodyLimitLayer::new(HOST_LIMIT))).await;
    let response = create_task(server.address(), ABOVE, Framing::Chunks).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(response.contains(r#""code":"payload_too_large""#), "{response}");
    let response = create_task(server.address(), BELOW, Framing::Chunks).await;
    assert!(response.starts_with("HTTP/1.1 201 "), "{response}");
}

#[tokio::test]
async fn a_declared_length_over_the_hosts_limit_is_rejected_by_the_host() {
    let server = serve(|router| router.layer(RequestBodyLimitLayer::new(HOST_LIMIT))).await;
    let response = create_task(server.address(), ABOVE, Framing::Length).await;
    assert!(response.starts_with("HTTP/1.1 413 ") && !response.contains("payload_too_large"), "{response}");
    let response = create_task(server.address(), BELOW, Framing::Length).await;
    assert!(response.starts_with("HTTP/1.1 201 "), "{response}");
}

/// axum's own limit applies to its extractors of bodies, and the router uses none of them.
#[tokio::test]
async fn the_default_body_limit_of_axum_does_not_apply() {
    let server = serve(|router| router.layer(DefaultBodyLimit::max(HOST_LIMIT))).await;
    for framing in [Framing::Length, Framing::Chunks] {
        let response = create_task(server.address(), ABOVE, framing).await;
        assert!(response.starts_with("HTTP/1.1 201 "), "{response}");
    }
}
