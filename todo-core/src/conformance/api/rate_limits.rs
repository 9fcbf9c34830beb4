//! Rate limits and quotas.

use std::{future::poll_fn, task::Poll};

use super::{
    App,
    client::{UNKNOWN_ID, client, path},
};

/// `Retry-After` is rounded up to whole seconds.
pub async fn a_rate_limited_request_has_retry_after(app: &dyn App) {
    let reply = client(app, "rate-limited").get("/tasks").await;
    reply.problem(429, "Too Many Requests", "rate_limited", "Too many requests. Retry later.");
    assert_eq!(reply.header("retry-after"), "3");
}

/// A user has at most 4 calls in the store, and 64 that wait. One more is 429 at once, and other users notice nothing.
pub async fn too_many_requests_of_a_user_at_the_same_time_are_rate_limited(app: &dyn App) {
    let busy = client(app, "store-stalled");
    let mut calls: Vec<_> = (0..69).map(|_| Box::pin(busy.get("/tasks"))).collect();
    let first = poll_fn(|context| {
        let replies = calls.iter_mut().map(|call| call.as_mut().poll(context));
        replies.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    });
    let rejected = first.await;
    rejected.problem(429, "Too Many Requests", "rate_limited", "Too many requests. Retry later.");
    assert_eq!(rejected.header("retry-after"), "1");
    client(app, "ann").get("/tasks").await.ok(200);
}

/// Every response after authentication has the caller's quota.
pub async fn responses_have_the_callers_quota(app: &dyn App) {
    let with_quota = client(app, "with-quota");
    let task = with_quota.create("Quota").await;
    let unknown = format!("/tasks/{UNKNOWN_ID}");
    for (method, path, status) in [
        ("GET", "/tasks", 200),
        ("HEAD", "/tasks", 200),
        ("GET", "/auth/session", 200),
        ("PATCH", &*format!("{}/complete", path(&task)), 200),
        ("DELETE", &*path(&task), 204),
        ("GET", &*unknown, 404),
        ("GET", "/tasks?limit=0", 422),
        ("GET", "/ann/tasks", 403),
        ("POST", "/tasks", 415),
    ] {
        let body: &[u8] = if method == "POST" { b"title" } else { b"" };
        let reply = with_quota.request(method, &format!("/api/v1{path}"), &[], body).await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("ratelimit-policy"), r#""user";q=10;w=60"#, "{method} {path}");
        assert_eq!(reply.header("ratelimit"), r#""user";r=7;t=18"#, "{method} {path}");
    }
    for (method, path) in [("BREW", "/tasks"), ("OPTIONS", "/tasks"), ("GET", "/tasks/")] {
        let reply = with_quota.bare(method, path).await;
        assert!(!reply.headers.contains_key("ratelimit"), "{method} {path}");
    }
    assert!(!client(app, "ann").get("/tasks").await.headers.contains_key("ratelimit"));
}

/// Reads and writes are limited alike.
pub async fn requests_over_the_quota_are_rate_limited(app: &dyn App) {
    let over_quota = client(app, "over-quota");
    for (method, path) in [("GET", "/tasks"), ("POST", "/tasks"), ("GET", "/ann/tasks"), ("GET", "/auth/session")] {
        let reply = over_quota.bare(method, path).await;
        reply.problem(429, "Too Many Requests", "rate_limited", "Too many requests. Retry later.");
        assert_eq!(reply.header("retry-after"), "2", "rounded up");
        assert_eq!(reply.header("ratelimit-policy"), r#""user";q=10;w=60"#);
        assert_eq!(reply.header("ratelimit"), r#""user";r=0;t=60"#);
    }
}
