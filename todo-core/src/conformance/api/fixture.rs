//! The API that the suite tests.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    Limit, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, TodoService, UserId,
    api::TodoApi,
    auth::{Gate, GateError, Identity, JwtVerifier, KeySource, Quota, Verdict},
    clock::{Clock as _, SystemClock, Timestamp},
    store::{
        BulkResult, Changes, Creation, Insertion, Outcome, Precondition, Read, Revision, SetupError, StoreError,
        SyncPoint, TaskChange, TaskStore, Transfer,
    },
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
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        Self::fault(owner)?;
        self.0.insert(owner, tasks, creation).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        Self::fault(owner)?;
        self.0.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        Self::fault(owner)?;
        if owner.as_str() == "store-stalled" {
            std::future::pending::<()>().await;
        }
        self.0.list(owner, query, known).await
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        Self::fault(owner)?;
        self.0.count(owner, filter, known).await
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        Self::fault(owner)?;
        self.0.summary(owner, known).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        Self::fault(owner)?;
        self.0.update(owner, id, change, precondition, now).await
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        Self::fault(owner)?;
        self.0.update_matching(owner, filter, change, now).await
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        Self::fault(owner)?;
        self.0.reposition(owner, positions, moved, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError> {
        Self::fault(owner)?;
        self.0.delete(owner, id, precondition).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        Self::fault(owner)?;
        self.0.delete_matching(owner, filter).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        Self::fault(owner)?;
        self.0.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        Self::fault(owner)?;
        self.0.transfer(owner, to).await
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        Self::fault(owner)?;
        self.0.changes(owner, since, limit).await
    }

    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        self.0.revisions(owners).await
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        Self::fault(owner)?;
        self.0.purge(owner, before, limit).await
    }

    fn refresh(&self, owner: &UserId) {
        self.0.refresh(owner);
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}
