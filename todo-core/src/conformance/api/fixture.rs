//! The API that the suite tests.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    Page, Task, TaskId, TaskQuery, TodoService, UserId,
    api::TodoApi,
    auth::{Gate, GateError, Identity, JwtVerifier, KeySource, Quota, Verdict},
    clock::{Clock as _, SystemClock, Timestamp},
    store::{SetupError, StoreError, TaskChange, TaskStore, Transfer},
};

const SECRET: &str = "the shared secret of the suite for adapters";
/// The secret of tokens that need a scope.
const SCOPED_SECRET: &str = "another secret of the suite for adapters";

/// Creates the API that the suite tests: over this store, with the users, tokens and faults that the cases use.
pub fn api(store: impl TaskStore + 'static) -> TodoApi {
    let scoped = KeySource::secrets([SCOPED_SECRET]).unwrap().required_scope("todo:read todo:write");
    let verifier = JwtVerifier::builder().source(KeySource::secrets([SECRET]).unwrap()).source(scoped);
    let verifier = verifier.build().unwrap();
    TodoApi::new(TodoService::new(FailingFor(store)), verifier).with_gate(TestGate)
}

/// Returns a token of this user, valid for an hour.
#[must_use]
pub fn token(user: &str) -> String {
    sign(&json!({"sub": user, "iat": now(), "exp": now() + 3600}))
}

pub(super) fn now() -> i64 {
    SystemClock.now().unix_seconds()
}

pub(super) fn sign(claims: &Value) -> String {
    sign_with(SECRET, claims)
}

/// A token that needs the scopes `todo:read` and `todo:write`.
pub(super) fn sign_scoped(claims: &Value) -> String {
    sign_with(SCOPED_SECRET, claims)
}

fn sign_with(secret: &str, claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

/// A gate that rejects some users.
#[derive(Debug)]
struct TestGate;

#[async_trait]
impl Gate for TestGate {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        Ok(match identity.user_id.as_str() {
            "disabled" => Verdict::Deny,
            "signed-out" if identity.issued_before(Timestamp::from_unix_seconds(now() + 60)) => Verdict::Deny,
            "rate-limited" => Verdict::RateLimited { retry_after: Duration::from_millis(2500) },
            "with-quota" => Verdict::Quota(quota(7)),
            "over-quota" => Verdict::Quota(quota(0).refused(Duration::from_millis(1200))),
            _ => Verdict::Allow,
        })
    }
}

/// A quota of ten requests per minute, of which this many are left.
fn quota(remaining: u32) -> Quota {
    let reset = Duration::from_secs(6) * (10 - remaining);
    Quota::new(10, Duration::from_mins(1)).remaining(remaining, reset.saturating_sub(Duration::from_millis(1)))
}

/// A store that fails for some users.
#[derive(Debug)]
struct FailingFor<S>(S);

impl<S> FailingFor<S> {
    fn fault(owner: &UserId) -> Result<(), StoreError> {
        let cause = || "the secret cause".into();
        match owner.as_str() {
            "store-unavailable" => Err(StoreError::Unavailable(cause())),
            "store-interrupted" => Err(StoreError::Interrupted(cause())),
            "store-timeout" => Err(StoreError::Timeout(cause())),
            "store-setup" => Err(SetupError::new("the secret cause").into()),
            "store-failure" => Err(StoreError::Backend(cause())),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl<S: TaskStore> TaskStore for FailingFor<S> {
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        Self::fault(owner)?;
        self.0.insert(owner, task).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        Self::fault(owner)?;
        self.0.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        Self::fault(owner)?;
        if owner.as_str() == "store-stalled" {
            std::future::pending::<()>().await;
        }
        self.0.list(owner, query).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        Self::fault(owner)?;
        self.0.update(owner, id, change, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        Self::fault(owner)?;
        self.0.delete(owner, id).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        Self::fault(owner)?;
        self.0.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        Self::fault(owner)?;
        self.0.transfer(owner, to).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}
