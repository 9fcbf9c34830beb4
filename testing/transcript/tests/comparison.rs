//! The comparison finds and reports differences between an app and the same app with changed responses.

use std::future::ready;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header::CONTENT_LENGTH},
    middleware::map_response,
    response::Response,
};
use todo_transcript::{apps, cases, compare::differences, wire::replay};
use tokio::runtime::Runtime;

/// Returns the differences after this change of one response.
fn changed(change: fn(&mut Response)) -> Vec<String> {
    let cases: Vec<_> = cases::all().into_iter().filter(|case| case.name.starts_with("GET /auth/session: ")).collect();
    Runtime::new().expect("a runtime").block_on(async {
        let axum = replay("axum", |listener| apps::serve_axum(listener, apps::axum()), &cases).await;
        let app = apps::axum().layer(map_response(move |mut response: Response| {
            // Only one response: the other 429 has a quota.
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
fn equal_responses_have_no_differences() {
    assert_eq!(changed(|_| ()), [""; 0]);
}

#[test]
fn a_difference_is_reported_with_its_request() {
    let found = changed(|response| {
        response.headers_mut().insert("retry-after", HeaderValue::from_static("8"));
    });
    let report = format!(
        r#"request 7, «GET /auth/session: too many requests»: the header `retry-after` of changed differs
    axum    says ["7"]
    changed says ["8"]
    request "GET /api/v1/auth/session HTTP/1.1\r\nhost: todo.example\r\nauthorization: Bearer {}\r\n\r\n""#,
        apps::token("rate-limited")
    );
    assert_eq!(found, [report]);
}

/// A change of a response, and the parts that differ.
type Change = (fn(&mut Response), &'static [&'static str]);

#[test]
fn changes_of_all_parts_are_found() {
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
                let kept = response.headers_mut().remove("cache-control").expect("the header exists");
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

/// The part that a report names.
fn headline(difference: &str) -> &str {
    let line = difference.lines().next().and_then(|line| line.strip_suffix(" of changed differs"));
    line.and_then(|line| line.split_once("\u{bb}: the ")).expect("the form of a report").1
}
