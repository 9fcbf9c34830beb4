//! The API of [Todo-Backend](https://todobackend.com) over [`TodoService`](todo_core::TodoService): a host with its own
//! routes, fields and rules, which uses tasks, owners, stores and tokens of `todo-core`.
//!
//! ```sh
//! cargo run -p todobackend                        # with a SQLite file and one list for all
//! curl --json '{"title": "Buy milk", "order": 1}' localhost:8000
//! curl localhost:8000
//! ```
//!
//! `cargo run -p todobackend -- --help` lists the flags: another address, PostgreSQL, bearer tokens, a public URL.
//!
//! | request | operation | response |
//! | --- | --- | --- |
//! | GET `/` | lists all todos by `order`, todos without one last, older before newer | 200, a JSON array |
//! | POST `/` | creates a todo from `title`, `completed?`, `order?` | 201, the todo, `Location` |
//! | DELETE `/` | deletes all todos | 204 |
//! | GET, PATCH, DELETE at the `url` of a todo | reads, changes, deletes the todo | 200, 200, 204 |
//!
//! A todo is `{title, completed, order, url}`, where `order` is an integer or `null`. PATCH changes the members in its
//! body; `"order": null` removes the order. `url` in a body is ignored, because clients send back what they received.
//! Errors are those of the library (RFC 9457). Unknown members are rejected, so that misspelled ones are noticed.
//!
//! # Users
//!
//! Todo-Backend has no users, so by default all callers share one list, and pages of all origins may call the service
//! (CORS). With `--bearer`, each user has a list and callers need a token. The difference is one value: [`SingleUser`]
//! is an [`Authenticator`], like the verifier of tokens. CORS still allows all origins, because browsers do not send
//! tokens by themselves, unlike cookies.
//!
//! # The URL of a todo
//!
//! The URL is absolute, but a service behind a proxy does not know its public name. With `--base-url`, all URLs start
//! with that. Without it, they start with `http://` and the `Host` of the request, which is right for clients that
//! connect directly. A forged `Host` affects only the client that sends it. `X-Forwarded-*` headers are ignored,
//! because any client can send them if no proxy overwrites them.

mod input;
mod todos;

use std::{error::Error as _, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequestParts, Path, State},
    http::{
        Method, StatusCode,
        header::{HOST, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
        request::Parts,
        uri::Authority,
    },
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use todo_core::{
    Error, TaskId, UserId,
    api::{ApiError, problem},
    auth::{AuthError, Authenticator, Identity},
};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

use input::{BODY_LIMIT, Members};
use todos::Todo;
pub use todos::Todos;

/// Returns the service over these todos, for the callers that the authenticator accepts.
///
/// `base_url` is the public URL of the service. Without it, the URLs of todos contain the `Host` of the request.
pub fn app(todos: Todos, authenticator: impl Authenticator + 'static, base_url: Option<&str>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        // Not `Any`, which is `*` and does not include `Authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([LOCATION, RETRY_AFTER, WWW_AUTHENTICATE]);
    let no_such_method = |allow| async move |method| Failure(ApiError::MethodNotAllowed { allow, method });
    Router::new()
        .route("/", get(list).post(add).delete(clear).fallback(no_such_method("GET, HEAD, POST, DELETE, OPTIONS")))
        .route(
            "/{id}",
            get(read).patch(change).delete(remove).fallback(no_such_method("GET, HEAD, PATCH, DELETE, OPTIONS")),
        )
        .fallback(async || Failure(ApiError::NotFound))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(cors)
        .with_state(Backend {
            todos,
            authenticator: Arc::new(authenticator),
            base_url: base_url.map(|url| url.trim_end_matches('/').into()),
        })
}

/// Accepts all callers as this user.
#[derive(Clone, Debug)]
pub struct SingleUser(pub UserId);

#[async_trait::async_trait]
impl Authenticator for SingleUser {
    async fn authenticate(&self, _: &Parts) -> Result<Identity, AuthError> {
        Ok(Identity::new(self.0.clone()))
    }
}

#[derive(Clone)]
struct Backend {
    todos: Todos,
    authenticator: Arc<dyn Authenticator>,
    base_url: Option<Arc<str>>,
}

async fn list(caller: Caller, State(backend): State<Backend>) -> Result<Response, Failure> {
    let todos = backend.todos.list(&caller.owner).await?;
    let shown: Vec<_> = todos.iter().map(|todo| caller.show(todo)).collect();
    Ok(Json(shown).into_response())
}

async fn add(caller: Caller, State(backend): State<Backend>, members: Members) -> Result<Response, Failure> {
    let (task, order) = members.new_todo()?;
    let todo = backend.todos.add(&caller.owner, task, order).await?;
    let shown = caller.show(&todo);
    Ok((StatusCode::CREATED, [(LOCATION, shown.url.clone())], Json(shown)).into_response())
}

async fn clear(caller: Caller, State(backend): State<Backend>) -> Result<StatusCode, Failure> {
    backend.todos.clear(&caller.owner).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read(caller: Caller, Id(id): Id, State(backend): State<Backend>) -> Result<Response, Failure> {
    let todo = backend.todos.get(&caller.owner, id).await?;
    Ok(Json(caller.show(&todo)).into_response())
}

async fn change(
    caller: Caller,
    Id(id): Id,
    State(backend): State<Backend>,
    members: Members,
) -> Result<Response, Failure> {
    let (patch, order) = members.patch()?;
    let todo = backend.todos.change(&caller.owner, id, patch, order).await?;
    Ok(Json(caller.show(&todo)).into_response())
}

async fn remove(caller: Caller, Id(id): Id, State(backend): State<Backend>) -> Result<StatusCode, Failure> {
    backend.todos.remove(&caller.owner, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller, and the base URL for the response.
struct Caller {
    owner: UserId,
    base_url: Arc<str>,
}

impl Caller {
    fn show<'a>(&self, todo: &'a Todo) -> Shown<'a> {
        Shown {
            title: todo.task.title.as_str(),
            completed: todo.task.completed,
            order: todo.order,
            url: format!("{}/{}", self.base_url, todo.task.id),
        }
    }
}

/// A todo as clients see it.
#[derive(Serialize)]
struct Shown<'a> {
    title: &'a str,
    completed: bool,
    order: Option<i64>,
    url: String,
}

impl FromRequestParts<Backend> for Caller {
    type Rejection = Response;

    async fn from_request_parts(head: &mut Parts, backend: &Backend) -> Result<Self, Response> {
        let identity = match backend.authenticator.authenticate(head).await {
            Ok(identity) => identity,
            Err(error) => return Err(Failure(error.into()).into_response()),
        };
        let base_url = match &backend.base_url {
            Some(url) => url.clone(),
            None => match host(head) {
                Some(host) => format!("http://{host}").into(),
                None => {
                    return Err((StatusCode::BAD_REQUEST, "Send one Host header with the name of this service.\n")
                        .into_response());
                }
            },
        };
        Ok(Self { owner: identity.user_id, base_url })
    }
}

/// Returns the host of a request, with its port.
fn host(head: &Parts) -> Option<Authority> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        (None, _) => None,
        _ => return None,
    };
    // The host in an absolute target, as sent to a proxy, takes precedence (RFC 9112, section 3.2.2).
    head.uri.authority().cloned().or(host).filter(|host| !host.as_str().contains('@'))
}

/// The id of a todo. A path segment that is not a UUID is not found, because no URL contains it.
struct Id(TaskId);

impl FromRequestParts<Backend> for Id {
    type Rejection = Failure;

    async fn from_request_parts(head: &mut Parts, backend: &Backend) -> Result<Self, Failure> {
        let id = Path::<String>::from_request_parts(head, backend).await.ok();
        id.and_then(|Path(id)| id.parse().ok()).map(Self).ok_or(Failure(Error::TaskNotFound.into()))
    }
}

/// A failed request.
struct Failure(ApiError);

impl<E: Into<ApiError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(error) = self;
        if error.is_failure() {
            tracing::error!(%error, cause = error.source(), "request failed");
        }
        problem(error).map(Body::from)
    }
}
