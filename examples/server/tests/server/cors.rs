//! What browsers let the scripts of which website do and see.

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION, CONTENT_TYPE, ORIGIN, VARY,
    },
};
use testkit::http::Client;

use crate::program::{Place, SECRET, Server};

const OURS: &str = "https://app.example.com";
const FOREIGN: &str = "https://evil.example";

fn server() -> Server {
    Place::with_secret().set("ALLOWED_ORIGINS", OURS).serve(&[])
}

async fn send(server: &Server, request: http::request::Builder, body: Bytes) -> Response<Bytes> {
    Client::new(server.address).send(request.body(body).expect("a request")).await
}

async fn preflight(server: &Server, path: &str, origin: &str) -> Response<Bytes> {
    let request = Request::options(path)
        .header(ORIGIN, origin)
        .header(ACCESS_CONTROL_REQUEST_METHOD, "PATCH")
        .header(ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type,x-request-id");
    send(server, request, Bytes::new()).await
}

/// The words of a header that is a list, in lower case.
fn words(headers: &HeaderMap, name: http::HeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().expect("text").split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .collect()
}

#[tokio::test]
async fn a_preflight_is_answered_before_the_token() {
    let server = server();
    for path in ["/api/tasks", "/api/v1/ann/tasks/7", "/api/nothing"] {
        let response = preflight(&server, path, OURS).await;
        assert!(response.status().is_success(), "{path}: {response:?}");
        let headers = response.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], OURS);
        assert!(headers.contains_key(ACCESS_CONTROL_MAX_AGE));
        assert!(words(headers, VARY).contains(&"origin".to_owned()));
        assert!(!headers.contains_key("access-control-allow-credentials"), "tokens are sent by scripts");
        let methods = words(headers, ACCESS_CONTROL_ALLOW_METHODS);
        assert_eq!(methods, ["get", "head", "post", "put", "patch", "delete"]);
        let allowed = words(headers, ACCESS_CONTROL_ALLOW_HEADERS);
        for name in ["authorization", "content-type", "x-request-id"] {
            assert!(allowed.contains(&name.to_owned()), "{name}: {allowed:?}");
        }
    }
}

#[tokio::test]
async fn a_foreign_website_is_allowed_nothing() {
    let server = server();
    for origin in [FOREIGN, "null", "https://app.example.com.evil.example", "http://app.example.com", "*"] {
        let asked = preflight(&server, "/api/tasks", origin).await;
        let done = send(&server, Request::get("/api/tasks").header(ORIGIN, origin), Bytes::new()).await;
        for response in [asked, done] {
            assert!(!response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{origin}: {response:?}");
            // Or a cache would give this answer to the right one.
            assert!(words(response.headers(), VARY).contains(&"origin".to_owned()));
        }
    }
}

#[tokio::test]
async fn answers_can_be_read_also_if_they_are_errors() {
    let server = server();
    let token = format!("Bearer {}", testkit::tokens::user_token(SECRET.as_bytes(), "ann"));
    let request = |method: Method, path: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header(ORIGIN, OURS)
            .header(AUTHORIZATION, &token)
            .header(CONTENT_TYPE, "application/json")
    };
    let anonymous = Request::get("/api/tasks").header(ORIGIN, OURS);
    let large = Bytes::from(vec![b' '; 70_000]);
    let title = Bytes::from_static(br#"{"title":"Buy milk"}"#);
    for (status, request, body) in [
        (200, request(Method::GET, "/api/tasks"), Bytes::new()),
        (201, request(Method::POST, "/api/tasks"), title),
        (401, anonymous, Bytes::new()),
        (403, request(Method::GET, "/api/bob/tasks"), Bytes::new()),
        (404, request(Method::GET, "/api/nothing"), Bytes::new()),
        (404, request(Method::GET, "/"), Bytes::new()),
        (405, request(Method::PUT, "/api/tasks"), Bytes::new()),
        (413, request(Method::POST, "/api/tasks"), large),
        (422, request(Method::POST, "/api/tasks"), Bytes::from_static(b"{}")),
    ] {
        let response = send(&server, request, body).await;
        assert_eq!(response.status(), status, "{response:?}");
        let headers = response.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], OURS, "{status}");
        assert!(words(headers, VARY).contains(&"origin".to_owned()), "{status}");
        let exposed = words(headers, ACCESS_CONTROL_EXPOSE_HEADERS);
        for name in ["link", "location", "www-authenticate", "retry-after", "etag", "x-request-id"] {
            assert!(exposed.contains(&name.to_owned()), "{status}: {exposed:?}");
        }
        if status >= 400 {
            assert_eq!(headers[CONTENT_TYPE], "application/problem+json", "{status}");
        }
    }
}

#[tokio::test]
async fn options_without_a_preflight_is_a_request_like_any_other() {
    let server = server();
    for request in [
        Request::options("/api/tasks"),
        Request::options("/api/tasks").header(ORIGIN, OURS),
        Request::options("/api/tasks").header(ACCESS_CONTROL_REQUEST_METHOD, "GET"),
    ] {
        let response = send(&server, request, Bytes::new()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()[ALLOW]),
            (204, &"GET, HEAD, POST, OPTIONS".parse().expect("a value"))
        );
    }
}

#[tokio::test]
async fn the_website_of_the_example_may_without_being_named() {
    let server = Place::with_secret().serve(&[]);
    for origin in ["http://localhost:3000", "http://127.0.0.1:3000"] {
        let response = preflight(&server, "/api/tasks", origin).await;
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], origin);
    }
}
