//! The recipes of CORS: what a browser sees in each framework.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use testkit::{http::Server, tokens};
use todo_core::{TodoService, api::TodoApi, auth::JwtVerifier, store::MemoryStore};

const SECRET: &str = "only-for-tests-only-for-tests-only-for-tests";
const APP: &str = "https://app.example.com";

fn todo() -> TodoApi {
    TodoApi::new(TodoService::new(MemoryStore::new()), JwtVerifier::hs256(SECRET).unwrap())
}

async fn send(server: &Server, method: Method, headers: &[(&str, &str)], body: &'static str) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri("/api/v1/tasks");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.client().send(request.body(Bytes::from_static(body.as_bytes())).unwrap()).await
}

/// The members of a header that is a list, in lower case.
fn list(response: &Response<Bytes>, name: &str) -> BTreeSet<String> {
    let values = response.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
    values.flat_map(|value| value.split(',')).map(|member| member.trim().to_lowercase()).collect()
}

fn set(members: &[&str]) -> BTreeSet<String> {
    members.iter().map(ToString::to_string).collect()
}

async fn a_browser_may_call(server: Server) {
    let preflight = |origin| {
        [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ]
    };
    let allowed = send(&server, Method::OPTIONS, &preflight(APP), "").await;
    assert!(allowed.status().is_success(), "{}", allowed.status());
    assert_eq!(list(&allowed, "access-control-allow-origin"), set(&[APP]));
    assert_eq!(list(&allowed, "access-control-allow-methods"), set(&["get", "post", "put", "patch", "delete"]));
    assert_eq!(list(&allowed, "access-control-allow-headers"), set(&["authorization", "content-type"]));
    assert_eq!(list(&allowed, "access-control-max-age"), set(&["3600"]));
    assert_eq!(list(&allowed, "access-control-allow-credentials"), set(&[]));

    let authorization = format!("Bearer {}", tokens::user_token(SECRET.as_bytes(), "ann"));
    let headers = [("origin", APP), ("authorization", &authorization), ("content-type", "application/json")];
    let created = send(&server, Method::POST, &headers, r#"{"title":"Buy milk"}"#).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(list(&created, "access-control-allow-origin"), set(&[APP]));
    let exposed = ["link", "location", "retry-after", "www-authenticate", "ratelimit", "ratelimit-policy"];
    assert_eq!(list(&created, "access-control-expose-headers"), set(&exposed));

    // An error can be read too.
    let refused = send(&server, Method::GET, &[("origin", APP)], "").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(list(&refused, "access-control-allow-origin"), set(&[APP]));

    for origin in ["https://evil.example", "http://app.example.com", "null"] {
        for response in [
            send(&server, Method::OPTIONS, &preflight(origin), "").await,
            send(&server, Method::GET, &[("origin", origin)], "").await,
        ] {
            assert_ne!(list(&response, "access-control-allow-origin"), set(&[origin]));
            assert_ne!(list(&response, "access-control-allow-origin"), set(&["*"]));
        }
    }

    // Other clients than browsers send no `Origin`.
    let other = send(&server, Method::GET, &[("authorization", &authorization)], "").await;
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn in_axum() {
    let app = recipes::cors_axum::app(todo());
    a_browser_may_call(Server::start(async |listener| axum::serve(listener, app).await.unwrap()).await).await;
}

#[tokio::test]
async fn in_warp() {
    let app = recipes::cors_warp::app(todo());
    a_browser_may_call(Server::start(|listener| warp::serve(app).incoming(listener).run()).await).await;
}

#[tokio::test]
async fn in_poem() {
    let app = recipes::cors_poem::app(todo());
    let server = Server::start(async |listener| {
        let listener = poem::listener::TcpAcceptor::from_tokio(listener).unwrap();
        poem::Server::new_with_acceptor(listener).run(app).await.unwrap();
    });
    a_browser_may_call(server.await).await;
}
