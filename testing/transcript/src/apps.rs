//! The same app in each framework: the API under `/api` and `/api/v1`, the probes and the documentation at the root,
//! the probes of failing stores, and a host with routes of its own.
//!
//! The host's responses are compared too, because each adapter must leave the same paths to the host. The host marks
//! its 404 with a header, so that it differs from the API's.

use std::{
    future::pending,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Response};
use testkit::tokens;
use todo_core::{
    Limit, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, TodoService, UserId,
    api::{ApiError, TodoApi, problem},
    auth::{Gate, GateError, Identity, JwtVerifier, KeySource, Quota, TokenCookie, Verdict},
    clock::{FixedClock, IdGenerator, Timestamp},
    store::{
        BulkResult, Changes, Creation, Insertion, MemoryStore, Outcome, Precondition, Read, Revision, StoreError,
        SyncPoint, TaskChange, TaskStore, Transfer,
    },
};
use tokio::net::TcpListener;
use uuid::Uuid;

const SECRET: &[u8] = b"the shared secret of the transcript";

/// The secret of tokens that need a scope.
const SCOPED_SECRET: &[u8] = b"another shared secret of the transcript";

/// The time of all requests.
const NOW: i64 = 1_763_712_000;

/// The cookie that may contain a token. It is accepted for writes from pages of `https://todo.example`.
pub const COOKIE: &str = "__Secure-session";

/// The mounts of the probes of failing stores, and how each store fails.
pub const FAULTY_STORES: [(&str, Fault); 3] =
    [("/unavailable-store", Fault::Unavailable), ("/slow-store", Fault::Timeout), ("/failing-store", Fault::Backend)];

/// The mount of the same API, which requires preconditions.
pub const STRICT: &str = "/strict";

/// How a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store cannot be reached.
    Unavailable,
    /// The store did not respond in time.
    Timeout,
    /// The store failed in another way.
    Backend,
}

impl Fault {
    fn error(self) -> StoreError {
        match self {
            Self::Unavailable => StoreError::Unavailable("unreachable".into()),
            Self::Timeout => StoreError::Timeout("slow".into()),
            Self::Backend => StoreError::Backend("failed".into()),
        }
    }
}

/// Returns a token of this user, valid for an hour.
#[must_use]
pub fn token(user: &str) -> String {
    token_until(user, NOW + 3600)
}

/// Returns an expired token of this user.
#[must_use]
pub fn expired_token(user: &str) -> String {
    token_until(user, NOW - 3600)
}

/// Returns a token of this user without the scope that tokens with its secret need.
#[must_use]
pub fn token_without_scope(user: &str) -> String {
    tokens::hs256(SCOPED_SECRET, tokens::HS256_HEADER, &claims(user, NOW + 3600))
}

/// Returns a token of this user signed with an unknown secret.
#[must_use]
pub fn foreign_token(user: &str) -> String {
    tokens::hs256(b"a secret that the API does not know", tokens::HS256_HEADER, &claims(user, NOW + 3600))
}

fn token_until(user: &str, end: i64) -> String {
    tokens::hs256(SECRET, tokens::HS256_HEADER, &claims(user, end))
}

fn claims(user: &str, end: i64) -> String {
    format!(r#"{{"sub":"{user}","iat":{NOW},"exp":{end}}}"#)
}

/// Returns the id that is generated after this many others.
#[must_use]
pub fn task_id(number: u64) -> TaskId {
    Uuid::from_u128(0x019a_a562_d400_7000_8000_0000_0000_0000 + u128::from(number)).into()
}

/// The API over an empty store.
fn api() -> TodoApi {
    api_over(Store::new())
}

/// The API over a failing store.
fn api_with_fault(fault: Fault) -> TodoApi {
    api_over(Store { fault: Some(fault), ..Store::new() })
}

fn api_over(store: Store) -> TodoApi {
    let secrets = KeySource::secrets([SECRET]).expect("long enough");
    let cookie = TokenCookie::new("session", ["https://todo.example"]);
    let scoped = KeySource::secrets([SCOPED_SECRET]).expect("long enough").required_scope("todo");
    let verifier = JwtVerifier::builder().source(secrets).source(scoped).cookie(cookie).clock(clock());
    let verifier = verifier.build().expect("a source of keys");
    let service = TodoService::new(store).with_clock(clock()).with_ids(Counter::default());
    keep_busy(&service);
    TodoApi::new(service, verifier).with_gate(TestGate).with_timeout(Duration::from_secs(2))
}

/// Makes as many calls of the user `busy` as the service accepts at once: 4 in the store, and 64 that wait.
fn keep_busy(service: &TodoService) {
    let limit = Limit::new(1).expect("a limit");
    for _ in 0..68 {
        let service = service.clone();
        let mut call = Box::pin(async move {
            let user = UserId::new("busy").expect("a valid id");
            // Short, since a user may have only one long list in the store.
            let _ = service.for_user(user).list(&TaskQuery::new().limit(limit)).await;
        });
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        tokio::spawn(async move {
            // Not polled again, so that it does not time out.
            let _call = call;
            pending::<()>().await;
        });
    }
}

fn clock() -> FixedClock {
    FixedClock::at(Timestamp::from_unix_seconds(NOW))
}

/// Serves an app with axum.
///
/// # Panics
///
/// If the listener fails.
pub async fn serve_axum(listener: TcpListener, app: axum::Router) {
    axum::serve(listener, app).await.expect("the listener accepts");
}

/// Returns the app of axum.
pub fn axum() -> axum::Router {
    use axum::{Router, body::Body, extract::Request, routing::get};

    let api = api();
    let app = Router::new()
        .nest("/api", todo_axum::router(api.clone()))
        .nest("/api/v1", todo_axum::router(api.clone()))
        .nest(STRICT, todo_axum::router(api.clone().require_preconditions()))
        .merge(todo_axum::probes(api.clone()))
        .merge(todo_axum::docs(api.clone()));
    FAULTY_STORES
        .into_iter()
        .fold(app, |app, (path, fault)| app.nest(path, todo_axum::probes(api_with_fault(fault))))
        .route("/host", get(async || "the host's"))
        .route("/host/me", get(async |todo_axum::CurrentUser(user): todo_axum::CurrentUser| greeting(&user)))
        .fallback(async |_: Request| unknown_path().map(Body::from))
        .with_state(api)
}

/// Serves the app of warp.
pub async fn serve_warp(listener: TcpListener) {
    use warp::{Filter as _, Reply as _};

    let api = api();
    let [unavailable, slow, failing] =
        FAULTY_STORES.map(|(path, fault)| warp::path(&path[1..]).and(todo_warp::probes(api_with_fault(fault))).boxed());
    let faulty = unavailable.or(slow).unify().or(failing).unify();
    let app = warp::path!("api" / "v1" / ..)
        .and(todo_warp::filter(api.clone()))
        .or(warp::path!("api" / ..).and(todo_warp::filter(api.clone())))
        .or(warp::path(&STRICT[1..]).and(todo_warp::filter(api.clone().require_preconditions())))
        .or(faulty)
        .or(todo_warp::probes(api.clone()))
        .or(todo_warp::docs(api.clone()))
        .or(warp::path!("host").and(warp::get()).map(|| "the host's".to_owned()))
        .or(warp::path!("host" / "me").and(warp::get()).and(todo_warp::current_user(api)).map(
            |user: todo_warp::CurrentUser| match user {
                Ok(user) => greeting(&user).into_response(),
                Err(response) => response.into_response(),
            },
        ))
        .or(warp::any().map(unknown_path))
        .boxed();
    warp::serve(app).incoming(listener).run().await;
}

/// Serves the app of poem.
///
/// # Panics
///
/// If the listener fails.
pub async fn serve_poem(listener: TcpListener) {
    use poem::{
        EndpointExt as _, Route, Server, endpoint::make_sync, error::NotFoundError, get, handler, listener::TcpAcceptor,
    };

    #[handler]
    fn me(todo_poem::CurrentUser(user): todo_poem::CurrentUser) -> String {
        greeting(&user)
    }

    let api = api();
    let app = Route::new().at("/host", get(make_sync(|_| "the host's"))).at("/host/me", get(me));
    let app = FAULTY_STORES
        .into_iter()
        .fold(app, |app, (path, fault)| app.nest(path, todo_poem::probes(Route::new(), api_with_fault(fault))));
    let app = todo_poem::mount(app, "/api", api.clone());
    let app = todo_poem::mount(app, "/api/v1", api.clone());
    let app = todo_poem::mount(app, STRICT, api.clone().require_preconditions());
    let app = todo_poem::docs(todo_poem::probes(app, api.clone()), api.clone())
        .data(api)
        .catch_error(async |_: NotFoundError| todo_poem::response(unknown_path()));
    let acceptor = TcpAcceptor::from_tokio(listener).expect("a listener of tokio");
    Server::new_with_acceptor(acceptor).run(app).await.expect("the listener accepts");
}

/// The host's response to an unknown path.
fn unknown_path() -> Response<Bytes> {
    let mut response = problem(ApiError::NotFound);
    response.headers_mut().insert("x-response-of", HeaderValue::from_static("the host"));
    response
}

fn greeting(user: &Identity) -> String {
    format!("Hello {}", user.user_id)
}

/// An id generator that generates the same ids in every run.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl IdGenerator for Counter {
    fn next(&self, _: Timestamp) -> TaskId {
        task_id(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A gate that rejects some users.
#[derive(Debug)]
struct TestGate;

#[async_trait]
impl Gate for TestGate {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        Ok(match identity.user_id.as_str() {
            "disabled" => Verdict::Deny,
            "rate-limited" => Verdict::RateLimited { retry_after: Duration::from_secs(7) },
            "with-quota" => Verdict::Quota(Quota::new(9, Duration::from_mins(1)).remaining(5, Duration::from_secs(26))),
            "over-quota" => Verdict::Quota(Quota::new(9, Duration::from_mins(1)).refused(Duration::from_secs(7))),
            "gate-unavailable" => return Err(GateError::new("unreachable").retry_after(Duration::from_secs(3))),
            "gate-hangs" => pending().await,
            _ => Verdict::Allow,
        })
    }
}

/// A store that fails for some users, or always.
#[derive(Debug)]
struct Store {
    tasks: MemoryStore,
    fault: Option<Fault>,
}

impl Store {
    /// Revisions, and the tokens made of them, are the same in every run.
    fn new() -> Self {
        Self { tasks: MemoryStore::with_clock(clock()), fault: None }
    }
}

fn fault(owner: &UserId) -> Result<(), StoreError> {
    match owner.as_str() {
        "store-unavailable" => Err(Fault::Unavailable.error()),
        "store-timeout" => Err(Fault::Timeout.error()),
        "store-failure" => Err(Fault::Backend.error()),
        _ => Ok(()),
    }
}

#[async_trait]
impl TaskStore for Store {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        fault(owner)?;
        if owner.as_str() == "has-all-tasks" {
            return Ok(Insertion::QuotaExceeded);
        }
        self.tasks.insert(owner, tasks, creation).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        fault(owner)?;
        self.tasks.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        fault(owner)?;
        if owner.as_str() == "busy" {
            pending::<()>().await;
        }
        self.tasks.list(owner, query, known).await
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        fault(owner)?;
        self.tasks.count(owner, filter, known).await
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        fault(owner)?;
        self.tasks.summary(owner, known).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        fault(owner)?;
        self.tasks.update(owner, id, change, precondition, now).await
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        fault(owner)?;
        self.tasks.update_matching(owner, filter, change, now).await
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        fault(owner)?;
        self.tasks.reposition(owner, positions, moved, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError> {
        fault(owner)?;
        self.tasks.delete(owner, id, precondition).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        fault(owner)?;
        self.tasks.delete_matching(owner, filter).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        fault(owner)?;
        self.tasks.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        fault(owner).and_then(|()| fault(to))?;
        self.tasks.transfer(owner, to).await
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        fault(owner)?;
        self.tasks.changes(owner, since, limit).await
    }

    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        self.tasks.revisions(owners).await
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        fault(owner)?;
        self.tasks.purge(owner, before, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match self.fault {
            Some(fault) => Err(fault.error()),
            None => self.tasks.ping().await,
        }
    }
}
