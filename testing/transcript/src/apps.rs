//! The same service in each framework: the API under `/api` and `/api/v1`, probes and documentation at the root, the
//! probes of stores that do not work, and a host with routes of its own.
//!
//! The host's answers are in the transcript too, because it must be the same paths that are left to it. Its answer to
//! an unknown path is marked, so that it cannot be taken for ours.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Response};
use testkit::tokens;
use todo_core::{
    Page, Task, TaskId, TaskQuery, TodoService, UserId,
    api::{ApiError, TodoApi, problem},
    auth::{Gate, GateError, Identity, JwtVerifier, KeySource, Quota, TokenCookie, Verdict},
    clock::{FixedClock, IdGenerator, Timestamp},
    store::{MemoryStore, StoreError, TaskChange, TaskStore},
};
use tokio::net::TcpListener;
use uuid::Uuid;

const SECRET: &[u8] = b"the shared secret of the transcript";

/// The moment at which all of it happens.
const NOW: i64 = 1_763_712_000;

/// The cookie that may hold a token. It counts for writes from pages of `https://todo.example`.
pub const COOKIE: &str = "__Secure-session";

/// Where the probes of stores that do not work are, and what such a store says.
pub const FAULTY_STORES: [(&str, Fault); 3] =
    [("/storeless", Fault::Away), ("/slow-store", Fault::Slow), ("/broken-store", Fault::Broken)];

/// What a store says that does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be reached.
    Away,
    /// It has not answered in time.
    Slow,
    /// It has failed.
    Broken,
}

impl Fault {
    fn error(self) -> StoreError {
        match self {
            Self::Away => StoreError::Unavailable("away".into()),
            Self::Slow => StoreError::Timeout("slow".into()),
            Self::Broken => StoreError::Backend("broken".into()),
        }
    }
}

/// A token of this user, good for an hour.
#[must_use]
pub fn token(user: &str) -> String {
    token_until(user, NOW + 3600)
}

/// A token of this user that is too old.
#[must_use]
pub fn expired_token(user: &str) -> String {
    token_until(user, NOW - 3600)
}

/// A token of this user that somebody else has signed.
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

/// The id that is given out after so many others.
#[must_use]
pub fn task_id(number: u64) -> TaskId {
    Uuid::from_u128(0x019a_a562_d400_7000_8000_0000_0000_0000 + u128::from(number)).into()
}

/// The API over an empty store.
fn api() -> TodoApi {
    api_over(Store::default())
}

/// The API over a store that does not work.
fn api_without_store(fault: Fault) -> TodoApi {
    api_over(Store { fault: Some(fault), ..Store::default() })
}

fn api_over(store: Store) -> TodoApi {
    let secrets = KeySource::secrets([SECRET]).expect("long enough");
    let cookie = TokenCookie::new("session", ["https://todo.example"]);
    let verifier = JwtVerifier::builder().source(secrets).cookie(cookie).clock(clock());
    let verifier = verifier.build().expect("a source of keys");
    let service = TodoService::new(store).with_clock(clock()).with_ids(Counter::default());
    TodoApi::new(service, verifier).with_gate(Doorkeeper).with_timeout(Duration::from_secs(2))
}

fn clock() -> FixedClock {
    FixedClock::at(Timestamp::from_unix_seconds(NOW))
}

/// Serves in axum.
///
/// # Panics
///
/// If the listener fails.
pub async fn serve_axum(listener: TcpListener, app: axum::Router) {
    axum::serve(listener, app).await.expect("the listener accepts");
}

/// The app in axum.
pub fn axum() -> axum::Router {
    use axum::{Router, body::Body, extract::Request, routing::get};

    let api = api();
    let app = Router::new()
        .nest("/api", todo_axum::router(api.clone()))
        .nest("/api/v1", todo_axum::router(api.clone()))
        .merge(todo_axum::probes(api.clone()))
        .merge(todo_axum::docs(api.clone()));
    FAULTY_STORES
        .into_iter()
        .fold(app, |app, (path, fault)| app.nest(path, todo_axum::probes(api_without_store(fault))))
        .route("/host", get(async || "the host's"))
        .route("/host/me", get(async |todo_axum::CurrentUser(user): todo_axum::CurrentUser| greeting(&user)))
        .fallback(async |_: Request| nothing_here().map(Body::from))
        .with_state(api)
}

/// Serves in warp.
pub async fn serve_warp(listener: TcpListener) {
    use warp::{Filter as _, Reply as _};

    let api = api();
    let [away, slow, broken] = FAULTY_STORES
        .map(|(path, fault)| warp::path(&path[1..]).and(todo_warp::probes(api_without_store(fault))).boxed());
    let faulty = away.or(slow).unify().or(broken).unify();
    let app = warp::path!("api" / "v1" / ..)
        .and(todo_warp::filter(api.clone()))
        .or(warp::path!("api" / ..).and(todo_warp::filter(api.clone())))
        .or(faulty)
        .or(todo_warp::probes(api.clone()))
        .or(todo_warp::docs(api.clone()))
        .or(warp::path!("host").and(warp::get()).map(|| "the host's".to_owned()))
        .or(warp::path!("host" / "me").and(warp::get()).and(todo_warp::current_user(api)).map(
            |user: todo_warp::CurrentUser| match user {
                Ok(user) => greeting(&user).into_response(),
                Err(refusal) => refusal.into_response(),
            },
        ))
        .or(warp::any().map(nothing_here))
        .boxed();
    warp::serve(app).incoming(listener).run().await;
}

/// Serves in poem.
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
        .fold(app, |app, (path, fault)| app.nest(path, todo_poem::probes(Route::new(), api_without_store(fault))));
    let app = todo_poem::mount(app, "/api", api.clone());
    let app = todo_poem::mount(app, "/api/v1", api.clone());
    let app = todo_poem::docs(todo_poem::probes(app, api.clone()), api.clone())
        .data(api)
        .catch_error(async |_: NotFoundError| todo_poem::response(nothing_here()));
    let acceptor = TcpAcceptor::from_tokio(listener).expect("a listener of tokio");
    Server::new_with_acceptor(acceptor).run(app).await.expect("the listener accepts");
}

/// The host's answer to a path that is nobody's.
fn nothing_here() -> Response<Bytes> {
    let mut response = problem(ApiError::NotFound);
    response.headers_mut().insert("x-answered-by", HeaderValue::from_static("the host"));
    response
}

fn greeting(user: &Identity) -> String {
    format!("Hello {}", user.user_id)
}

/// Ids that are the same in every run.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl IdGenerator for Counter {
    fn next(&self, _: Timestamp) -> TaskId {
        task_id(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Users whom the gate does not let in.
#[derive(Debug)]
struct Doorkeeper;

#[async_trait]
impl Gate for Doorkeeper {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        Ok(match identity.user_id.as_str() {
            "disabled" => Verdict::Deny,
            "hasty" => Verdict::RateLimited { retry_after: Duration::from_secs(7) },
            "metered" => Verdict::Quota(Quota::new(9, Duration::from_mins(1)).remaining(5, Duration::from_secs(26))),
            "spent" => Verdict::Quota(Quota::new(9, Duration::from_mins(1)).refused(Duration::from_secs(7))),
            "unheard" => return Err(GateError::new("away").retry_after(Duration::from_secs(3))),
            "forgotten" => std::future::pending().await,
            _ => Verdict::Allow,
        })
    }
}

/// A store that does not work for some users, or not at all.
#[derive(Debug, Default)]
struct Store {
    tasks: MemoryStore,
    fault: Option<Fault>,
}

fn fault(owner: &UserId) -> Result<(), StoreError> {
    match owner.as_str() {
        "store-away" => Err(Fault::Away.error()),
        "store-slow" => Err(Fault::Slow.error()),
        "store-broken" => Err(Fault::Broken.error()),
        _ => Ok(()),
    }
}

#[async_trait]
impl TaskStore for Store {
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        fault(owner)?;
        self.tasks.insert(owner, task).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        fault(owner)?;
        self.tasks.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        fault(owner)?;
        self.tasks.list(owner, query).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        fault(owner)?;
        self.tasks.update(owner, id, change, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        fault(owner)?;
        self.tasks.delete(owner, id).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        fault(owner)?;
        self.tasks.erase(owner).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match self.fault {
            Some(fault) => Err(fault.error()),
            None => self.tasks.ping().await,
        }
    }
}
