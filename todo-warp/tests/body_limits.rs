//! Body limits that a host puts around the filter, lower than the limit of the API.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use testkit::{
    bodies::{Framing, create_task},
    http::{Server, raw},
};
use todo_core::{
    conformance::api::{api, token},
    store::MemoryStore,
};
use tower::{Layer as _, ServiceExt as _};
use tower_http::limit::RequestBodyLimitLayer;
use warp::Filter as _;

const HOST_LIMIT: usize = 100;
const BELOW: usize = 20;
const ABOVE: usize = 150;

/// warp's own limit looks at `content-length` alone, and rejects every request without one, before the API sees it.
#[tokio::test]
async fn content_length_limit_rejects_requests_without_a_length() {
    let app = warp::path!("api" / "v1" / ..)
        .and(warp::body::content_length_limit(HOST_LIMIT as u64))
        .and(todo_warp::filter(api(MemoryStore::new())));
    let server = Server::start(async |listener| warp::serve(app).incoming(listener).run().await).await;
    for (length, framing, status) in [
        (ABOVE, Framing::Length, 413),
        (BELOW, Framing::Length, 201),
        (ABOVE, Framing::Chunks, 411),
        (BELOW, Framing::Chunks, 411),
    ] {
        let response = create_task(server.address(), length, framing).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{framing:?}: {response}");
        assert!(!response.contains("payload_too_large"), "the response is warp's: {response}");
    }
    let response = raw(server.address(), b"GET /api/v1/tasks HTTP/1.1\r\nhost: todo.example\r\n\r\n").await;
    assert!(response.starts_with(b"HTTP/1.1 411 "), "{}", String::from_utf8_lossy(&response));
}

#[tokio::test]
async fn a_body_without_a_length_over_a_limit_around_warp_is_rejected_with_413() {
    let app = warp::path!("api" / "v1" / ..).and(todo_warp::filter(api(MemoryStore::new())));
    let app = RequestBodyLimitLayer::new(HOST_LIMIT).layer(warp::service(app));
    for (length, status) in [(ABOVE, 413), (BELOW, 201)] {
        let body = Full::<Bytes>::from(format!(r#"{{"title":"{}"}}"#, "x".repeat(length)));
        let request = Request::post("/api/v1/tasks")
            .header("authorization", format!("Bearer {}", token("ann")))
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        let response = app.clone().oneshot(request).await.expect("a response");
        assert_eq!(response.status(), status);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert_eq!(body.contains(r#""code":"payload_too_large""#), status == 413, "{body}");
    }
}
