//! CORS: which websites may call the API, and what their scripts can read.

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION, CONTENT_TYPE, ORIGIN,
        VARY,
    },
};
use testkit::http::Client;

use crate::{
    Framework,
    program::{SECRET, Server, Setup},
};

const ALLOWED: &str = "https://app.example.com";
const FOREIGN: &str = "https://evil.example";

fn server(framework: Framework) -> Server {
    Setup::with_secret(framework).set("ALLOWED_ORIGINS", ALLOWED).serve(&[])
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

/// The entries of a header that is a list, in lower case.
fn entries(headers: &HeaderMap, name: http::HeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().expect("text").split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .collect()
}

pub(crate) async fn a_preflight_needs_no_token(framework: Framework) {
    let server = server(framework);
    for path in ["/api/tasks", "/api/v1/ann/tasks/7", "/api/nothing"] {
        let response = preflight(&server, path, ALLOWED).await;
        assert!(response.status().is_success(), "{path}: {response:?}");
        let headers = response.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], ALLOWED);
        assert!(headers.contains_key(ACCESS_CONTROL_MAX_AGE));
        assert!(entries(headers, VARY).contains(&"origin".to_owned()));
        assert!(!headers.contains_key("access-control-allow-credentials"), "scripts send tokens, not cookies");
        let methods = entries(headers, ACCESS_CONTROL_ALLOW_METHODS);
        assert_eq!(methods, ["get", "head", "post", "put", "patch", "delete"]);
        let allowed = entries(headers, ACCESS_CONTROL_ALLOW_HEADERS);
        let usual = "authorization content-type if-match if-none-match if-unmodified-since idempotency-key last-event-id x-request-id";
        for name in usual.split(' ').chain(["traceparent", "tracestate", "baggage", "sentry-trace"]) {
            assert!(allowed.contains(&name.to_owned()), "{name}: {allowed:?}");
        }
        assert_eq!(allowed.len(), 12, "{allowed:?}");
    }
}

pub(crate) async fn a_foreign_website_is_not_allowed(framework: Framework) {
    let server = server(framework);
    for origin in [FOREIGN, "null", "https://app.example.com.evil.example", "http://app.example.com", "*"] {
        let preflight = preflight(&server, "/api/tasks", origin).await;
        let request = send(&server, Request::get("/api/tasks").header(ORIGIN, origin), Bytes::new()).await;
        for response in [preflight, request] {
            assert!(!response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{origin}: {response:?}");
            // Otherwise a cache could return this response for the allowed origin.
            assert!(entries(response.headers(), VARY).contains(&"origin".to_owned()));
        }
    }
}

pub(crate) async fn scripts_can_read_responses_including_errors(framework: Framework) {
    let server = server(framework);
    let token = format!("Bearer {}", testkit::tokens::user_token(SECRET.as_bytes(), "ann"));
    let request = |method: Method, path: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header(ORIGIN, ALLOWED)
            .header(AUTHORIZATION, &token)
            .header(CONTENT_TYPE, "application/json")
    };
    let anonymous = Request::get("/api/tasks").header(ORIGIN, ALLOWED);
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
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], ALLOWED, "{status}");
        assert!(entries(headers, VARY).contains(&"origin".to_owned()), "{status}");
        let exposed = entries(headers, ACCESS_CONTROL_EXPOSE_HEADERS);
        for name in ["link", "location", "www-authenticate", "retry-after", "etag", "x-request-id"] {
            assert!(exposed.contains(&name.to_owned()), "{status}: {exposed:?}");
        }
        if status >= 400 {
            assert_eq!(headers[CONTENT_TYPE], "application/problem+json", "{status}");
        }
    }
}

pub(crate) async fn options_without_a_preflight_is_an_ordinary_request(framework: Framework) {
    let server = server(framework);
    for request in [
        Request::options("/api/tasks"),
        Request::options("/api/tasks").header(ORIGIN, ALLOWED),
        Request::options("/api/tasks").header(ACCESS_CONTROL_REQUEST_METHOD, "GET"),
    ] {
        let response = send(&server, request, Bytes::new()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()[ALLOW]),
            (204, &"GET, HEAD, POST, PATCH, DELETE, OPTIONS".parse().expect("a value"))
        );
    }
}

pub(crate) async fn settings_allow_further_headers_and_cookies(framework: Framework) {
    let setup = Setup::with_secret(framework).set("ALLOWED_ORIGINS", ALLOWED).set("ALLOWED_HEADERS", "X-Tenant, x-b3");
    let server = setup.set("ALLOW_CREDENTIALS", "on").serve(&[]);
    let response = preflight(&server, "/api/tasks", ALLOWED).await;
    let allowed = entries(response.headers(), ACCESS_CONTROL_ALLOW_HEADERS);
    assert!(allowed.contains(&"x-tenant".to_owned()) && allowed.contains(&"x-b3".to_owned()), "{allowed:?}");
    for origin in [ALLOWED, FOREIGN] {
        let request = Request::get("/api/tasks").header(ORIGIN, origin);
        let response = send(&server, request, Bytes::new()).await;
        let allows = response.headers().get(ACCESS_CONTROL_ALLOW_CREDENTIALS).is_some_and(|value| value == "true");
        assert_eq!(allows && response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), origin == ALLOWED);
    }
}

#[tokio::test]
async fn a_foreign_website_is_logged_once() {
    let server = Setup::with_secret(Framework::ANY).set("ALLOWED_ORIGINS", ALLOWED).serve(&[]);
    for _ in 0..3 {
        for origin in [FOREIGN, ALLOWED] {
            send(&server, Request::get("/api/tasks").header(ORIGIN, origin), Bytes::new()).await;
        }
    }
    let (_, log) = server.stop();
    assert_eq!(log.matches("ALLOWED_ORIGINS").count(), 1, "{log}");
    assert!(log.contains(FOREIGN) && !log.contains(ALLOWED), "{log}");
}

#[tokio::test]
async fn the_website_of_the_example_is_allowed_by_default() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    for origin in ["http://localhost:3000", "http://127.0.0.1:3000"] {
        let response = preflight(&server, "/api/tasks", origin).await;
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], origin);
    }
}
