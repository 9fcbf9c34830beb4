//! The wire of [Todo-Backend](https://todobackend.com) over [`TodoService`](todo_core::TodoService): a host that has
//! routes, fields and rules of its own, and takes tasks, owners, stores and tokens from `todo-core`.
//!
//! ```sh
//! cargo run -p todobackend                        # a SQLite file, one list for everybody
//! curl --json '{"title": "Buy milk", "order": 1}' localhost:8000
//! curl localhost:8000
//! ```
//!
//! `cargo run -p todobackend -- --help` lists the flags: another address, PostgreSQL, bearer tokens, a public URL.
//!
//! | request | does | answer |
//! | --- | --- | --- |
//! | GET `/` | all todos: by `order`, those without one last, older before newer | 200, a JSON array |
//! | POST `/` | adds one, from `title`, `completed?`, `order?` | 201, the todo, `Location` |
//! | DELETE `/` | deletes all | 204 |
//! | GET, PATCH, DELETE at a todo's `url` | reads, changes, deletes it | 200, 200, 204 |
//!
//! A todo is `{title, completed, order, url}`; `order` is an integer or `null`. A PATCH changes what it names; with
//! `"order": null` it takes the order away. `url` in a body is ignored, since clients send back what they got. Errors
//! are those of the library (RFC 9457); an unknown member is one, so that a slip of the pen does not go unnoticed.
//!
//! # Who may do what
//!
//! Todo-Backend knows no users, so by default everybody shares one list, and any page may call (CORS is open). With
//! `--bearer` a token says whose list is meant. One trait makes the difference: [`Everybody`] is an [`Authenticator`]
//! like the verifier of tokens. CORS stays open: a token, unlike a cookie, is sent by nobody who does not have it.
//!
//! # The URL of a todo
//!
//! It must be absolute, and a service behind a proxy does not know its own name. With `--base-url` it is that, whatever
//! a request says. Without, it is `http://` and the `Host` of the request: right for whoever talks to the service
//! directly, and no worse for being forged, since it goes to nobody else. `X-Forwarded-*` are never believed: without
//! a proxy that overwrites them, anybody writes them.

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

/// The whole service: these todos, for those whom the authenticator lets in. `base_url` is where the public finds it;
/// without, it is where each request says that it goes.
pub fn app(todos: Todos, authenticator: impl Authenticator + 'static, base_url: Option<&str>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        // Not `Any`: that is `*`, which does not include `Authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([LOCATION, RETRY_AFTER, WWW_AUTHENTICATE]);
    let no_such_method = |allow| async move || Refused(ApiError::MethodNotAllowed { allow });
    Router::new()
        .route("/", get(list).post(add).delete(clear).fallback(no_such_method("GET, HEAD, POST, DELETE, OPTIONS")))
        .route(
            "/{id}",
            get(read).patch(change).delete(remove).fallback(no_such_method("GET, HEAD, PATCH, DELETE, OPTIONS")),
        )
        .fallback(async || Refused(ApiError::NotFound))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(cors)
        .with_state(Backend {
            todos,
            authenticator: Arc::new(authenticator),
            base_url: base_url.map(|url| url.trim_end_matches('/').into()),
        })
}

/// Lets everybody in, all as this user.
#[derive(Clone, Debug)]
pub struct Everybody(pub UserId);

#[async_trait::async_trait]
impl Authenticator for Everybody {
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

async fn list(caller: Caller, State(backend): State<Backend>) -> Result<Response, Refused> {
    let todos = backend.todos.list(&caller.owner).await?;
    let shown: Vec<_> = todos.iter().map(|todo| caller.show(todo)).collect();
    Ok(Json(shown).into_response())
}

async fn add(caller: Caller, State(backend): State<Backend>, members: Members) -> Result<Response, Refused> {
    let (task, order) = members.new_todo()?;
    let todo = backend.todos.add(&caller.owner, task, order).await?;
    let shown = caller.show(&todo);
    Ok((StatusCode::CREATED, [(LOCATION, shown.url.clone())], Json(shown)).into_response())
}

async fn clear(caller: Caller, State(backend): State<Backend>) -> Result<StatusCode, Refused> {
    backend.todos.clear(&caller.owner).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn read(caller: Caller, Id(id): Id, State(backend): State<Backend>) -> Result<Response, Refused> {
    let todo = backend.todos.get(&caller.owner, id).await?;
    Ok(Json(caller.show(&todo)).into_response())
}

async fn change(
    caller: Caller,
    Id(id): Id,
    State(backend): State<Backend>,
    members: Members,
) -> Result<Response, Refused> {
    let (patch, order) = members.patch()?;
    let todo = backend.todos.change(&caller.owner, id, patch, order).await?;
    Ok(Json(caller.show(&todo)).into_response())
}

async fn remove(caller: Caller, Id(id): Id, State(backend): State<Backend>) -> Result<StatusCode, Refused> {
    backend.todos.remove(&caller.owner, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who is asking, and under which URL they find us.
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
            Err(error) => return Err(Refused(error.into()).into_response()),
        };
        let base_url = match &backend.base_url {
            Some(url) => url.clone(),
            None => match host(head) {
                Some(host) => format!("http://{host}").into(),
                None => {
                    return Err(
                        (StatusCode::BAD_REQUEST, "Send one Host, with the name of this service.\n").into_response()
                    );
                }
            },
        };
        Ok(Self { owner: identity.user_id, base_url })
    }
}

/// The host that a request is addressed to, with its port.
fn host(head: &Parts) -> Option<Authority> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        (None, _) => None,
        _ => return None,
    };
    // A request to a proxy names the host in its target, which counts more (RFC 9112, section 3.2.2).
    head.uri.authority().cloned().or(host).filter(|host| !host.as_str().contains('@'))
}

/// Which todo is meant. What is no UUID is a URL that we never gave out.
struct Id(TaskId);

impl FromRequestParts<Backend> for Id {
    type Rejection = Refused;

    async fn from_request_parts(head: &mut Parts, backend: &Backend) -> Result<Self, Refused> {
        let id = Path::<String>::from_request_parts(head, backend).await.ok();
        id.and_then(|Path(id)| id.parse().ok()).map(Self).ok_or(Refused(Error::TaskNotFound.into()))
    }
}

/// A request that was not done, and the answer to it.
struct Refused(ApiError);

impl<E: Into<ApiError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(error) = self;
        if error.status().is_server_error() {
            tracing::error!(%error, cause = error.source(), "a request failed");
        }
        problem(error).map(Body::from)
    }
}
