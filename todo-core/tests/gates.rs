//! Tests how several gates of one [`TodoApi`] work together.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::Full;
use todo_core::{
    TodoService, UserId,
    api::{RESOURCES, TodoApi},
    auth::{AuthError, Authenticator, Gate, GateError, Identity, Quota, Verdict},
    clock::Timestamp,
    store::MemoryStore,
};

/// Every caller is Ann, with a credential that was issued at 1000 seconds.
#[derive(Debug)]
struct Ann;

#[async_trait]
impl Authenticator for Ann {
    async fn authenticate(&self, _: &Parts) -> Result<Identity, AuthError> {
        let mut identity = Identity::new(UserId::new("ann").unwrap());
        identity.issued_at = Some(Timestamp::from_unix_seconds(1000));
        Ok(identity)
    }
}

#[derive(Debug)]
struct Remaining(u32);

#[async_trait]
impl Gate for Remaining {
    async fn judge(&self, _: &Identity) -> Result<Verdict, GateError> {
        Ok(Verdict::Quota(Quota::new(10, Duration::from_mins(1)).remaining(self.0, Duration::from_secs(6))))
    }
}

#[derive(Debug)]
struct SignedOutAt(i64);

#[async_trait]
impl Gate for SignedOutAt {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        let is_revoked = identity.issued_before(Timestamp::from_unix_seconds(self.0));
        Ok(if is_revoked { Verdict::Deny } else { Verdict::Allow })
    }
}

fn api() -> TodoApi {
    TodoApi::new(TodoService::new(MemoryStore::new()), Ann)
}

async fn respond(api: &TodoApi) -> Response<Bytes> {
    let response = api.respond(&RESOURCES[0], Request::get("/tasks").body(Full::<Bytes>::default()).unwrap()).await;
    response.map(|body| body.into_bytes().unwrap())
}

#[tokio::test]
async fn the_client_sees_the_quota_of_one_gate_if_another_one_allows_the_request() {
    for api in [
        api().with_gate(Remaining(7)).with_gate(SignedOutAt(999)),
        api().with_gate(SignedOutAt(999)).with_gate(Remaining(7)),
    ] {
        let response = respond(&api).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["ratelimit"], r#""user";r=7;t=6"#);
    }
}

#[tokio::test]
async fn the_client_sees_the_quota_with_the_fewest_remaining_requests() {
    for api in
        [api().with_gate(Remaining(7)).with_gate(Remaining(2)), api().with_gate(Remaining(2)).with_gate(Remaining(7))]
    {
        assert_eq!(respond(&api).await.headers()["ratelimit"], r#""user";r=2;t=6"#);
    }
}

/// Counts how often it is asked.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

#[async_trait]
impl Gate for Counting {
    async fn judge(&self, _: &Identity) -> Result<Verdict, GateError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Verdict::Allow)
    }
}

#[tokio::test]
async fn a_rejected_request_is_not_passed_to_the_next_gate() {
    let counting = Arc::new(Counting::default());
    let rejecting = api().with_gate(counting.clone()).with_gate(SignedOutAt(1001)).with_gate(counting.clone());
    assert_eq!(respond(&rejecting).await.status(), 401);
    assert_eq!(counting.0.load(Ordering::Relaxed), 1);
}

#[derive(Debug)]
struct Undecided;

#[async_trait]
impl Gate for Undecided {
    async fn judge(&self, _: &Identity) -> Result<Verdict, GateError> {
        Err(GateError::new("the database cannot be reached").retry_after(Duration::from_secs(7)))
    }
}

#[tokio::test]
async fn a_gate_that_cannot_decide_is_503_and_its_cause_is_only_for_the_log() {
    let response = respond(&api().with_gate(Undecided)).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "7");
    assert!(!String::from_utf8_lossy(response.body()).contains("database"));
    let error: &dyn Error = response.extensions().get::<Arc<todo_core::api::ApiError>>().unwrap();
    assert_eq!(error.source().unwrap().to_string(), "the database cannot be reached");
}
