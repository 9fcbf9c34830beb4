//! Failures of the store.

use serde_json::json;

use super::{
    App,
    client::{ON_A_TASK, Reply, UNKNOWN_ID, client},
};

/// Sends each operation for a user whose store fails, and checks the responses.
async fn with_failing_store(app: &dyn App, user: &str, check: impl Fn(&Reply)) {
    let client = client(app, user);
    check(&client.get("/tasks").await);
    check(&client.send("POST", "/tasks", &json!({"title": "x"})).await);
    for (method, end, body) in ON_A_TASK {
        check(&client.send_text(method, &format!("/tasks/{UNKNOWN_ID}{end}"), body).await);
    }
    // Validation comes first and does not call the store.
    assert_eq!(client.get("/tasks?limit=0").await.status, 422);
    client.get("/auth/session").await.ok(200);
}

/// 503 `unavailable` with `Retry-After`.
pub async fn an_unavailable_store_is_unavailable(app: &dyn App) {
    with_failing_store(app, "store-unavailable", |reply| {
        let detail = "The service is unavailable. Retry later.";
        reply.problem(503, "Service Unavailable", "unavailable", detail);
        assert_eq!(reply.header("retry-after"), "1");
    })
    .await;
}

/// 503 `unavailable` with `Retry-After`. The text says that the write may have happened.
pub async fn an_interrupted_write_may_have_happened(app: &dyn App) {
    with_failing_store(app, "store-interrupted", |reply| {
        let detail = "The service is unavailable. The write may have happened.";
        reply.problem(503, "Service Unavailable", "unavailable", detail);
        assert_eq!(reply.header("retry-after"), "1");
    })
    .await;
}

/// 503 `timeout` with `Retry-After`.
pub async fn a_slow_store_times_out(app: &dyn App) {
    with_failing_store(app, "store-timeout", |reply| {
        reply.problem(503, "Service Unavailable", "timeout", "The request timed out. Retry later.");
        assert_eq!(reply.header("retry-after"), "1");
    })
    .await;
}

/// 500 `internal` without the cause.
pub async fn a_failed_store_does_not_reveal_the_cause(app: &dyn App) {
    for user in ["store-failure", "store-setup"] {
        with_failing_store(app, user, |reply| {
            reply.problem(500, "Internal Server Error", "internal", "Internal server error.");
        })
        .await;
    }
}
