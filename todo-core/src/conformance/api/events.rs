//! The stream of events.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    App,
    client::{Client, client},
    fixture::{now, sign},
};

/// A stream has the changes that are made while it is open, and ends in good order when its token expires.
pub async fn events_are_streamed_until_the_token_expires(app: &dyn App) {
    let ann = client(app, "ann");
    let before = ann.create("Before").await;
    // Accepted for another 3 seconds, since the verifier allows for clocks that differ by 30.
    let token = sign(&json!({"sub": "ann", "exp": now() - 27}));
    let short = Client { app, authorization: Some(format!("Bearer {token}")) };
    let write = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        ann.create("During").await
    };
    let (reply, during) = tokio::join!(short.get("/tasks/events"), write);
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "text/event-stream"));
    assert_eq!((reply.header("cache-control"), reply.header("x-accel-buffering")), ("no-store", "no"));
    assert!(!reply.headers.contains_key("content-length"));
    let text = std::str::from_utf8(&reply.body).unwrap();
    let (mut changes, mut last) = (Vec::new(), String::new());
    for block in text.strip_prefix("retry: 3000\n").expect(text).strip_suffix("\n\n").expect(text).split("\n\n") {
        let (id, data) = block.strip_prefix("event: changes\nid: ").expect(text).split_once("\ndata: ").expect(text);
        let page: Value = serde_json::from_str(data).unwrap();
        assert_eq!(page["next"], id);
        changes.extend(page["changes"].as_array().unwrap().iter().cloned());
        id.clone_into(&mut last);
    }
    assert_eq!(changes, [json!({"task": before}), json!({"task": during})]);
    // The list of changes goes on where the stream has ended.
    let page = ann.get(&format!("/tasks/changes?since={last}")).await.ok(200);
    assert_eq!(page, json!({"changes": [], "next": last, "more": false}));
}

/// What is wrong with a request is known before the stream begins. HEAD has the headers of the stream.
pub async fn requests_for_events_are_checked_before_the_stream_begins(app: &dyn App) {
    let (ann, bob) = (client(app, "ann"), client(app, "bob"));
    ann.create("Of Ann").await;
    let head = ann.bare("HEAD", "/ann/tasks/events").await;
    assert_eq!((head.status.as_u16(), head.header("content-type"), head.body.len()), (200, "text/event-stream", 0));
    assert!(!head.headers.contains_key("content-length"), "the stream has no length");
    let token = ann.get("/tasks/changes").await.ok(200)["next"].as_str().unwrap().to_owned();
    let wrong = "must be a token from an earlier response";
    ann.get("/tasks/events?since=x&limit=1")
        .await
        .validation_failed(&[("limit", &["is unknown"]), ("since", &[wrong])]);
    let with_id = async |client: &Client<'_>, id: &str| {
        client.request("GET", "/api/v1/tasks/events", &[("last-event-id", id)], b"").await
    };
    with_id(&ann, "x").await.validation_failed(&[("Last-Event-ID", &[wrong])]);
    let reply = with_id(&bob, &token).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (410, "application/problem+json"));
    bob.get("/ann/tasks/events").await.forbidden();
    client(app, "disabled").get("/tasks/events").await.problem(
        401,
        "Unauthorized",
        "token_revoked",
        "The token has been revoked.",
    );
}
