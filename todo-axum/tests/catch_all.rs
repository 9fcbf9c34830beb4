//! A route of the host for all other paths.

use axum::{
    Router,
    body::Bytes,
    http::{Request, StatusCode},
    routing::get,
};
use testkit::http::Server;
use todo_core::{conformance::api::api, store::MemoryStore};

async fn page() -> &'static str {
    "a page of the host"
}

fn router() -> Router {
    todo_axum::router(api(MemoryStore::new()))
}

/// The status and the body of each path.
async fn responses<const N: usize>(app: Router, paths: [&str; N]) -> [(StatusCode, String); N] {
    let server = Server::start(async |listener| axum::serve(listener, app).await.expect("the listener accepts")).await;
    let client = server.client();
    let mut responses = Vec::new();
    for path in paths {
        let response = client.send(Request::get(path).body(Bytes::new()).expect("a request")).await;
        responses.push((response.status(), String::from_utf8_lossy(response.body()).into_owned()));
    }
    responses.try_into().expect("a response to each")
}

fn is_the_apis((status, body): &(StatusCode, String)) -> bool {
    *status == StatusCode::UNAUTHORIZED && body.contains(r#""code":"unauthenticated""#)
}

fn is_the_hosts((status, body): &(StatusCode, String)) -> bool {
    *status == StatusCode::OK && body == "a page of the host"
}

#[tokio::test]
async fn beside_the_prefix_of_the_api_it_may_be_a_route() {
    for app in [
        Router::new().route("/{*page}", get(page)).nest("/api/v1", router()),
        Router::new().nest("/api/v1", router()).route("/{*page}", get(page)),
    ] {
        let [tasks, of_user, about] = responses(app, ["/api/v1/tasks", "/api/v1/ann/tasks", "/about/us"]).await;
        assert!(
            is_the_apis(&tasks) && is_the_apis(&of_user) && is_the_hosts(&about),
            "{tasks:?} {of_user:?} {about:?}"
        );
    }
}

#[tokio::test]
async fn at_the_root_it_is_the_fallback() {
    for app in [Router::new().fallback(page).merge(router()), Router::new().merge(router()).fallback(page)] {
        let [tasks, of_user, about] = responses(app, ["/tasks", "/ann/tasks", "/about/us"]).await;
        assert!(
            is_the_apis(&tasks) && is_the_apis(&of_user) && is_the_hosts(&about),
            "{tasks:?} {of_user:?} {about:?}"
        );
    }
}

/// The documentation of [`todo_axum::router`] says so. If a later axum allows it, the documentation has to change.
#[test]
#[should_panic(expected = "Invalid route \"/")]
fn at_the_root_a_route_panics() {
    drop(Router::<()>::new().route("/{*page}", get(page)).merge(router()));
}
