//! Logs, time limits and readiness of the API: what is logged, and that no secrets are.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use todo_core::{
    Error, Limit, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, TodoService, UserId,
    api::{ApiError, PROBES, RESOURCES, ResponseBody, StreamBody, TodoApi, find_resource},
    auth::{AuthError, Authenticator, Identity, JwtVerifier, Refusal, RejectionLog},
    clock::{SystemClock, Timestamp},
    store::{
        BulkResult, Changes, Creation, Insertion, MemoryStore, Outcome, Precondition, Read, Revision, StoreError,
        SyncPoint, TaskChange, TaskStore, Transfer,
    },
};
use tracing_subscriber::fmt::MakeWriter;

const SECRET: &str = "a secret of thirty-two bytes or more";

/// A store whose calls never return, or fail with a cause.
#[derive(Debug)]
enum Broken {
    Hangs,
    Fails,
    AcceptsNoWrites,
}

impl Broken {
    async fn result<T>(&self) -> Result<T, StoreError> {
        match self {
            Self::Hangs => std::future::pending().await,
            Self::Fails => Err(StoreError::Backend("relation \"todo.tasks\" does not exist".into())),
            Self::AcceptsNoWrites => Err(StoreError::NotWritable("could not extend file: No space left".into())),
        }
    }
}

#[async_trait]
impl TaskStore for Broken {
    async fn insert(&self, _: &UserId, _: &[Task], _: &Creation) -> Result<Insertion, StoreError> {
        self.result().await
    }

    async fn get(&self, _: &UserId, _: TaskId) -> Result<Option<Task>, StoreError> {
        self.result().await
    }

    async fn list(&self, _: &UserId, _: &TaskQuery, _: Option<Revision>) -> Result<Read<Page>, StoreError> {
        self.result().await
    }

    async fn count(&self, _: &UserId, _: &TaskFilter, _: Option<Revision>) -> Result<Read<u64>, StoreError> {
        self.result().await
    }

    async fn summary(&self, _: &UserId, _: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        self.result().await
    }

    async fn update(
        &self,
        _: &UserId,
        _: TaskId,
        _: &TaskChange,
        _: &Precondition,
        _: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        self.result().await
    }

    async fn update_matching(
        &self,
        _: &UserId,
        _: &TaskFilter,
        _: &TaskChange,
        _: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        self.result().await
    }

    async fn reposition(
        &self,
        _: &UserId,
        _: &[(TaskId, Position)],
        _: (TaskId, i64),
        _: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        self.result().await
    }

    async fn delete(&self, _: &UserId, _: TaskId, _: &Precondition) -> Result<Outcome<()>, StoreError> {
        self.result().await
    }

    async fn delete_matching(&self, _: &UserId, _: &TaskFilter) -> Result<u64, StoreError> {
        self.result().await
    }

    async fn erase(&self, _: &UserId) -> Result<u64, StoreError> {
        self.result().await
    }

    async fn transfer(&self, _: &UserId, _: &UserId) -> Result<Transfer, StoreError> {
        self.result().await
    }

    async fn changes(&self, _: &UserId, _: Option<SyncPoint>, _: Limit) -> Result<Option<Changes>, StoreError> {
        self.result().await
    }

    async fn revisions(&self, _: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        self.result().await
    }

    async fn purge(&self, _: &UserId, _: Timestamp, _: Limit) -> Result<u64, StoreError> {
        self.result().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if let Self::AcceptsNoWrites = self { Ok(()) } else { self.result().await }
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn api(store: impl TaskStore + 'static) -> TodoApi {
    TodoApi::new(TodoService::new(store), JwtVerifier::hs256(SECRET).unwrap())
}

fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let claims = json!({
        "sub": "ann",
        "exp": testkit::tokens::now() + 60,
        "email": "ann@example.com",
        "name": "Ann of the claims",
    });
    let token = testkit::tokens::secret_token(SECRET.as_bytes(), &claims);
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

async fn respond(api: &TodoApi, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let resource = find_resource(RESOURCES, request.uri().path()).unwrap();
    whole(api.respond(resource, request).await)
}

fn whole(response: Response<ResponseBody>) -> Response<Bytes> {
    response.map(|body| body.into_bytes().unwrap())
}

/// Returns what is logged while this runs, at all levels.
fn logged(run: impl AsyncFnOnce()) -> String {
    // Otherwise a test without a subscriber could switch the events of this crate off for all threads: tracing asks only
    // the thread that comes across an event first, as long as there is only one subscriber.
    static EVERYWHERE: std::sync::Once = std::sync::Once::new();
    EVERYWHERE.call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).expect("no other"));
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::NEW)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run());
    });
    let log = log.0.lock().unwrap().clone();
    String::from_utf8(log).unwrap()
}

#[test]
fn the_span_has_the_path_template_and_the_operation() {
    let log = logged(async || {
        let api = api(MemoryStore::new());
        respond(&api, request("GET", "/ann/tasks/019aa3f0-5c00-7000-8000-000000000000?x=1", "")).await;
        respond(&api, request("PUT", "/tasks", "")).await;
    });
    assert!(log.contains("todo_core::api"), "{log}");
    assert!(
        log.contains(r#"todo{path="/{user_id}/tasks/{id}" method="GET" operation="get_task"}"#),
        "the template, not the path: {log}"
    );
    assert!(log.contains(r#"todo{path="/tasks" method="PUT"}"#), "{log}");
    assert!(log.contains(r#"code="validation_failed""#) && log.contains(r#"code="method_not_allowed""#), "{log}");
}

#[test]
fn causes_of_server_errors_are_logged_and_not_sent() {
    let log = logged(async || {
        let response = respond(&api(Broken::Fails), request("GET", "/tasks", "")).await;
        assert!(!String::from_utf8_lossy(response.body()).contains("relation"));
    });
    assert!(log.contains("ERROR") && log.contains(r#"relation \"todo.tasks\" does not exist"#), "{log}");
}

#[test]
fn secrets_are_not_logged() {
    let log = logged(async || {
        let api = api(MemoryStore::new());
        let body = r#"{"title":"The title of mine","description":"The description of mine"}"#;
        assert_eq!(respond(&api, request("POST", "/tasks", body)).await.status(), 201);
        assert_eq!(respond(&api, request("POST", "/tasks", r#"{"The unknown of mine":1}"#)).await.status(), 422);
        assert_eq!(respond(&api, request("GET", "/auth/session", "")).await.status(), 200);
        let mut bad = request("GET", "/tasks", "");
        bad.headers_mut().insert("authorization", "Bearer The.token.ofmine".parse().unwrap());
        assert_eq!(respond(&api, bad).await.status(), 401);
    });
    assert!(log.contains("operation=\"create_task\"") && log.contains("the token is malformed"), "{log}");
    for secret in ["of mine", "ofmine", "eyJ", SECRET, "ann@example.com", "of the claims"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn responses_carry_the_error_in_their_extensions() {
    let api = api(Broken::Fails);
    let response = respond(&api, request("GET", "/tasks", "")).await;
    let error = response.extensions().get::<Arc<ApiError>>().expect("an error");
    assert!(matches!(**error, ApiError::Service(Error::Store(StoreError::Backend(_)))));
    let response = respond(&api, request("GET", "/tasks?limit=0", "")).await;
    assert_eq!(response.extensions().get::<Arc<ApiError>>().unwrap().code(), "validation_failed");
    let response = respond(&api, request("GET", "/auth/session", "")).await;
    assert!(response.extensions().get::<Arc<ApiError>>().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_time_limit_times_out() {
    let api = api(Broken::Hangs).with_timeout(Duration::from_secs(7));
    let start = tokio::time::Instant::now();
    let response = respond(&api, request("GET", "/tasks", "")).await;
    assert_eq!(start.elapsed(), Duration::from_secs(7));
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(String::from_utf8_lossy(response.body()).contains(r#""code":"timeout""#));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_times_out() {
    let api = api(MemoryStore::new());
    let (head, _) = request("POST", "/tasks", "").into_parts();
    let body = StreamBody::new(futures_util::stream::pending::<Result<Bytes, io::Error>>());
    let response = whole(api.respond(&RESOURCES[0], Request::from_parts(head, body)).await);
    assert_eq!(response.status(), 408);
    assert!(String::from_utf8_lossy(response.body()).contains(r#""code":"request_timeout""#));
}

#[tokio::test]
async fn a_body_without_a_length_is_limited_while_it_is_read() {
    let api = api(MemoryStore::new()).with_body_limit(1000);
    let (head, _) = request("POST", "/tasks", "").into_parts();
    let taken = Arc::new(Mutex::new(0));
    let counter = taken.clone();
    // An endless body.
    let pieces = futures_util::stream::repeat_with(move || {
        *counter.lock().unwrap() += 1;
        Ok::<_, io::Error>(Bytes::from_static(&[b' '; 100]))
    });
    let response = whole(api.respond(&RESOURCES[0], Request::from_parts(head, StreamBody::new(pieces))).await);
    assert_eq!(response.status(), 413);
    assert_eq!(*taken.lock().unwrap(), 11);
}

/// An authenticator that rejects every caller with this error.
#[derive(Debug)]
struct Rejecting(fn() -> AuthError);

#[async_trait]
impl Authenticator for Rejecting {
    async fn authenticate(&self, _: &http::request::Parts) -> Result<Identity, AuthError> {
        Err((self.0)())
    }
}

fn rejecting(error: fn() -> AuthError) -> TodoApi {
    TodoApi::new(TodoService::new(MemoryStore::new()), Rejecting(error))
        .with_rejection_log(RejectionLog::new(SystemClock))
}

/// Anyone can name a key that does not exist.
#[test]
fn a_key_that_may_be_new_is_503_but_no_error_in_the_log() {
    let log = logged(async || {
        let api = rejecting(|| AuthError::KeyMayBeNew { retry_after: Duration::from_millis(6_500) });
        let response = respond(&api, request("GET", "/tasks", "")).await;
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"7".parse().unwrap()));
        assert!(String::from_utf8_lossy(response.body()).contains(r#""code":"unavailable""#));
    });
    assert!(log.contains("request rejected") && !log.contains("ERROR") && !log.contains("WARN"), "{log}");
    let log = logged(async || {
        let unreachable = || AuthError::Unavailable {
            retry_after: Duration::from_secs(1),
            source: "no keys of https://a.example".into(),
        };
        assert_eq!(respond(&rejecting(unreachable), request("GET", "/tasks", "")).await.status(), 503);
    });
    assert!(log.contains("ERROR") && log.contains("no keys of https://a.example"), "{log}");
}

#[test]
fn the_reason_of_the_hosts_authenticator_is_logged_at_most_five_times_a_minute() {
    let log = logged(async || {
        let api = rejecting(|| AuthError::Invalid(Refusal::Other("the session was moved to another device")));
        for _ in 0..20 {
            let response = respond(&api, request("GET", "/tasks", "")).await;
            assert_eq!(response.status(), 401);
            assert!(!String::from_utf8_lossy(response.body()).contains("another device"));
        }
    });
    let lines = log.lines().filter(|line| line.contains("the session was moved to another device"));
    let lines: Vec<_> = lines.collect();
    assert!(lines.iter().all(|line| line.contains("INFO") && line.contains(r#"reason="other""#)), "{log}");
    assert_eq!(lines.len(), 5, "{log}");
}

#[test]
fn a_path_with_another_user_than_the_token_is_logged_without_either() {
    let log = logged(async || {
        let api = api(MemoryStore::new()).with_rejection_log(RejectionLog::new(SystemClock));
        assert_eq!(respond(&api, request("GET", "/bob-of-the-path/tasks", "")).await.status(), 403);
    });
    let line = log.lines().find(|line| line.contains("the path names another user")).expect(&log);
    assert!(line.contains("INFO") && line.contains(r#"reason="other_user""#), "{line}");
    assert!(!log.contains("bob-of-the-path") && !log.contains("\"ann\""), "{log}");
}

/// An authenticator that accepts no caller and is not ready.
#[derive(Debug)]
struct NotReady;

#[async_trait]
impl Authenticator for NotReady {
    async fn authenticate(&self, _: &http::request::Parts) -> Result<Identity, AuthError> {
        Err(AuthError::Missing)
    }

    async fn ready(&self) -> Result<(), AuthError> {
        Err(AuthError::Unavailable { retry_after: Duration::ZERO, source: "the key is lost".into() })
    }
}

async fn probe(api: &TodoApi) -> (u16, String) {
    let request = Request::get("/health/ready").body(Full::<Bytes>::default()).unwrap();
    let response = whole(api.respond(find_resource(PROBES, "/health/ready").unwrap(), request).await);
    if response.status() == 503 {
        assert_eq!(response.headers()["retry-after"], "1");
        let error = response.extensions().get::<Arc<ApiError>>().expect("an error");
        assert!(matches!(**error, ApiError::NotReady { .. }));
    }
    (response.status().as_u16(), String::from_utf8(response.into_body().into()).unwrap())
}

fn not_ready(failed: &str) -> (u16, String) {
    let body = format!(
        r#"{{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"The service is not ready.","code":"unavailable","failed":[{failed}]}}"#
    );
    (503, body)
}

#[test]
fn a_probe_names_the_failed_parts_and_logs_the_causes() {
    let log = logged(async || {
        let without_keys = |store: Broken| TodoApi::new(TodoService::new(store), NotReady);
        assert_eq!(probe(&api(Broken::Fails)).await, not_ready(r#""store""#));
        assert_eq!(probe(&without_keys(Broken::Fails)).await, not_ready(r#""store","keys""#));
        let only_store = TodoApi::new(TodoService::new(MemoryStore::new()), NotReady);
        assert_eq!(probe(&only_store).await, not_ready(r#""keys""#));
        let ready = r#"{"status":"ready","store":"ok","keys":"ok","writes":"ok"}"#;
        assert_eq!(probe(&api(MemoryStore::new())).await, (200, ready.to_owned()));
    });
    assert!(log.contains(r#"relation \"todo.tasks\" does not exist"#) && log.contains("the key is lost"), "{log}");
}

#[test]
fn a_store_that_accepts_no_writes_is_ready_and_the_probe_says_it() {
    let log = logged(async || {
        let api = api(Broken::AcceptsNoWrites);
        let ready =
            |writes: &str| (200, format!(r#"{{"status":"ready","store":"ok","keys":"ok","writes":"{writes}"}}"#));
        assert_eq!(probe(&api).await, ready("ok"), "nothing was written yet");
        for _ in 0..2 {
            let response =
                whole(api.respond(&RESOURCES[0], request("POST", "/tasks", r#"{"title":"Buy milk"}"#)).await);
            assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
            let body = String::from_utf8_lossy(response.body());
            assert!(body.contains("The service accepts no writes at present."), "{body}");
            assert_eq!(probe(&api).await, ready("failing"));
        }
    });
    assert_eq!(log.matches("the database accepts no writes; reads go on").count(), 1, "{log}");
    assert!(log.contains("No space left"), "{log}");
}

#[test]
fn a_server_that_stops_is_not_ready_and_nothing_else_changes() {
    let log = logged(async || {
        let api = api(MemoryStore::new());
        api.clone().begin_stop();
        assert_eq!(probe(&api).await, not_ready(r#""server""#));
        let response = whole(api.respond(&RESOURCES[0], request("POST", "/tasks", r#"{"title":"Buy milk"}"#)).await);
        assert_eq!(response.status(), 201);
    });
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_part_fails_the_probe_after_two_seconds() {
    let start = tokio::time::Instant::now();
    assert_eq!(probe(&api(Broken::Hangs)).await, not_ready(r#""store""#));
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

/// If the request timed out first, the response could not name the failed part.
#[tokio::test(start_paused = true)]
async fn a_probe_with_a_short_time_limit_names_the_failed_part() {
    let api = api(Broken::Hangs).with_timeout(Duration::from_secs(1));
    assert_eq!(probe(&api).await, not_ready(r#""store""#));
}
