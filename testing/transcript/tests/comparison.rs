//! The comparison notices what differs, and names it: one app is served as it is, and once more with its answers changed.

use std::future::ready;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header::CONTENT_LENGTH},
    middleware::map_response,
    response::Response,
};
use todo_transcript::{apps, cases, compare::differences, wire::replay};
use tokio::runtime::Runtime;

/// What the comparison says of axum with this change to one answer.
fn changed(change: fn(&mut Response)) -> Vec<String> {
    let cases: Vec<_> = cases::all().into_iter().filter(|case| case.name.starts_with("GET /auth/session: ")).collect();
    Runtime::new().expect("a runtime").block_on(async {
        let axum = replay("axum", |listener| apps::serve_axum(listener, apps::axum()), &cases).await;
        let app = apps::axum().layer(map_response(move |mut response: Response| {
            // One answer of all: the other 429 tells of a quota.
            if response.status() == StatusCode::TOO_MANY_REQUESTS && !response.headers().contains_key("ratelimit") {
                change(&mut response);
            }
            ready(response)
        }));
        let other = replay("changed", |listener| apps::serve_axum(listener, app), &cases).await;
        differences(&cases, &axum, &other).iter().map(ToString::to_string).collect()
    })
}

#[test]
fn no_change_is_no_difference() {
    assert_eq!(changed(|_| ()), [""; 0]);
}

#[test]
fn a_changed_header_is_named_with_its_request() {
    let found = changed(|response| {
        response.headers_mut().insert("retry-after", HeaderValue::from_static("8"));
    });
    let report = format!(
        r#"request 5, «GET /auth/session: too many requests»: the header `retry-after` of changed differs
    axum    says ["7"]
    changed says ["8"]
    request "GET /api/v1/auth/session HTTP/1.1\r\nhost: todo.example\r\nauthorization: Bearer {}\r\n\r\n""#,
        apps::token("hasty")
    );
    assert_eq!(found, [report]);
}

/// A change, and the parts of the answer that it shows in.
type Change = (fn(&mut Response), &'static [&'static str]);

#[test]
fn whatever_is_changed_is_noticed() {
    let changes: [Change; 8] = [
        (|response| *response.status_mut() = StatusCode::FORBIDDEN, &["status line"]),
        (|response| insert(response, "x-new", "x"), &["header `x-new`"]),
        (|response| insert(response, "cache-control", "No-Store"), &["header `cache-control`"]),
        (|response| drop(response.headers_mut().remove("cache-control")), &["header `cache-control`"]),
        (
            |response| {
                response.headers_mut().append("cache-control", HeaderValue::from_static("no-store"));
            },
            &["header `cache-control`"],
        ),
        (
            |response| {
                let kept = response.headers_mut().remove("cache-control").expect("it is there");
                response.headers_mut().insert("cache-control", kept);
            },
            &["order of headers"],
        ),
        (
            |response| {
                let length = response.headers()[CONTENT_LENGTH].to_str().ok().and_then(|length| length.parse().ok());
                let length = length.expect("a number");
                *response.body_mut() = Body::from(" ".repeat(length));
            },
            &["body"],
        ),
        (|response| insert(response, "connection", "close"), &["header `connection`", "connection afterwards"]),
    ];
    for (change, expected) in changes {
        let found = changed(change);
        let parts: Vec<_> = found.iter().map(|difference| headline(difference)).collect();
        assert_eq!(parts, expected, "{}", found.join("\n"));
    }
}

fn insert(response: &mut Response, name: &'static str, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// What is said to differ.
fn headline(difference: &str) -> &str {
    let line = difference.lines().next().and_then(|line| line.strip_suffix(" of changed differs"));
    line.and_then(|line| line.split_once("\u{bb}: the ")).expect("the form of a report").1
}
