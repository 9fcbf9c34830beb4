//! The wire: [`TodoApi`] answers requests for the paths in [`RESOURCES`] and [`PROBES`] (and `DOCS`, with the feature
//! `openapi`), without knowing any web framework.
//!
//! # Writing an adapter
//!
//! Register each path of [`RESOURCES`] with the framework, for all methods, and hand what matches to
//! [`TodoApi::respond`]. That is all; status, headers and body are then the same in every framework. The suite in
//! `todo_core::conformance` (feature `conformance`) checks it.
//!
//! ```
//! use bytes::{Buf, Bytes};
//! use http::Request;
//! use http_body_util::Full;
//! use todo_core::{TodoService, auth::JwtVerifier, api::{RESOURCES, TodoApi}, store::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more")?;
//! let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
//!
//! let request = Request::get("/api/v1/tasks").body(Full::<Bytes>::default())?;
//! let response = api.respond(&RESOURCES[0], request).await;
//! assert_eq!(response.status(), 401);
//! # Ok(())
//! # }
//! ```
//!
//! # Order of checks
//!
//! Path (404), method (405), credential (401), the path's user (403), content type (415), size (413), JSON (400),
//! fields (422), and only then the store. Whoever has no credential learns nothing of anybody's data.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, LINK, LOCATION},
    request::Parts,
};
use http_body::{Body, Frame};
use serde::Serialize;
use tracing::Instrument as _;

use crate::{
    Error, FieldErrors, Page, Task, TaskQuery, TodoService, UserTasks,
    auth::{Authenticator, Gate, Gates, Identity, Quota},
    clock::Timestamp,
};

#[cfg(feature = "openapi")]
mod docs;
mod input;
#[cfg(feature = "openapi")]
pub mod openapi;
mod problem;
mod ready;
mod render;
mod routes;

use input::{Members, Query};
pub use problem::problem;
use problem::{empty, json, with_json};
#[cfg(feature = "openapi")]
pub use routes::DOCS;
use routes::Parameters;
pub use routes::{Operation, PROBES, RESOURCES, Resource, find_resource};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The API over HTTP: a service, and who may use it. It is cheap to clone, and clones are the same API.
///
/// It must be polled within a tokio runtime whose timer is enabled.
#[derive(Clone, Debug)]
pub struct TodoApi {
    service: TodoService,
    authenticator: Arc<dyn Authenticator>,
    gates: Gates,
    body_limit: usize,
    timeout: Duration,
    #[cfg(feature = "openapi")]
    docs: Arc<docs::Docs>,
}

impl TodoApi {
    /// The API over this service, for callers whom this authenticator knows.
    pub fn new(service: TodoService, authenticator: impl Authenticator + 'static) -> Self {
        Self {
            service,
            authenticator: Arc::new(authenticator),
            gates: Gates::default(),
            body_limit: 64 * 1024,
            timeout: Duration::from_secs(10),
            #[cfg(feature = "openapi")]
            docs: Arc::new(docs::Docs::new("/api/v1")),
        }
    }

    /// Adds a gate, which is asked about each request of an authenticated caller after the gates before it.
    #[must_use]
    pub fn with_gate(mut self, gate: impl Gate + 'static) -> Self {
        self.gates = self.gates.with(gate);
        self
    }

    /// Takes bodies of at most so many bytes; more is 413. Default: 64 KiB.
    #[must_use]
    pub fn with_body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Gives a request so long, from its head to its answer; more is 503 `timeout`. Default: 10 seconds.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Says where the API is mounted, for its document (see [`openapi::document`]). Default: `/api/v1`.
    #[cfg(feature = "openapi")]
    #[must_use]
    pub fn with_mount(mut self, mount: &str) -> Self {
        self.docs = Arc::new(docs::Docs::new(mount));
        self
    }

    /// The service behind the API.
    #[must_use]
    pub fn service(&self) -> &TodoService {
        &self.service
    }

    /// Who is asking: the authenticator's answer, and the gate's. Every request passes here, and so do the host's own
    /// handlers that ask an adapter for the identity.
    ///
    /// # Errors
    ///
    /// [`Error::Auth`].
    pub async fn authenticate(&self, head: &Parts) -> Result<Identity, Error> {
        Ok(self.admit(head).await?.0)
    }

    /// Who is asking, and what is left of the caller's quota, if there is one.
    async fn admit(&self, head: &Parts) -> Result<(Identity, Option<Quota>), Error> {
        // Not through the `Arc`, whose implementation would allocate a second future.
        let identity = (*self.authenticator).authenticate(head).await?;
        let quota = self.gates.check(&identity).await?;
        Ok((identity, quota))
    }

    /// Answers a request that the framework has matched to a resource.
    ///
    /// The path may still begin with the mount. If it is not one that the resource means (a trailing slash, an empty
    /// segment), the answer is 404 `not_found`. An error rides in the extensions of the response as `Arc<Error>`.
    pub async fn respond<B>(&self, resource: &'static Resource, request: Request<B>) -> Response<Bytes>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let span = tracing::info_span!(
            target: "todo_core::api",
            "todo",
            path = resource.path,
            method = request.method().as_str(),
            operation = resource.operation(request.method()).map(Operation::name),
        );
        async move {
            let head_only = request.method() == Method::HEAD;
            let mut quota = None;
            let mut response = match self.answer(resource, request, &mut quota).await {
                Ok(response) => response,
                Err(error) => {
                    report(&error);
                    problem(error)
                }
            };
            if let Some(quota) = quota {
                quota.tell(response.headers_mut());
            }
            if head_only {
                response.body_mut().clear();
            }
            response
        }
        .instrument(span)
        .await
    }

    async fn answer<B>(
        &self,
        resource: &'static Resource,
        request: Request<B>,
        quota: &mut Option<Quota>,
    ) -> Result<Response<Bytes>, Error>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let parameters = resource.parameters(head.uri.path()).ok_or(Error::NotFound)?;
        if head.method == Method::OPTIONS {
            let mut response = empty(StatusCode::NO_CONTENT);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(resource.allow));
            return Ok(response);
        }
        let Some(operation) = resource.operation(&head.method) else {
            return Err(Error::MethodNotAllowed { allow: resource.allow });
        };
        match tokio::time::timeout(self.timeout, self.perform(resource, operation, &head, parameters, body, quota))
            .await
        {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { limit: self.timeout }),
        }
    }

    async fn perform<B>(
        &self,
        #[cfg_attr(not(feature = "openapi"), expect(unused_variables, reason = "the document has several paths"))]
        resource: &'static Resource,
        operation: Operation,
        head: &Parts,
        parameters: Parameters<'_>,
        body: B,
        quota: &mut Option<Quota>,
    ) -> Result<Response<Bytes>, Error>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        match operation {
            Operation::Health => return Ok(ok(&Status { status: "ok" })),
            Operation::Ready => {
                ready::check(&self.service, &*self.authenticator, self.timeout).await?;
                return Ok(ok(&Readiness::READY));
            }
            #[cfg(feature = "openapi")]
            Operation::GetDocument => return self.docs.answer(resource, &head.headers),
            _ => {}
        }
        let identity;
        (identity, *quota) = self.admit(head).await?;
        if !parameters.user.is(&identity.user_id) {
            return Err(Error::Forbidden);
        }
        let body = match operation {
            Operation::CreateTask | Operation::ReplaceTask | Operation::PatchTask | Operation::CompleteTask => {
                let merge_patch = head.method == Method::PATCH;
                input::read_body(&head.headers, body, self.body_limit, merge_patch).await?
            }
            // What comes with the others has no meaning (RFC 9110, section 9.3), so it is not read.
            _ => Vec::new(),
        };
        let call = Call {
            tasks: self.service.for_user(identity.user_id.clone()),
            id: parameters.id.as_deref(),
            query: Query::parse(head.uri.query()),
        };
        match operation {
            Operation::ListTasks => call.list().await,
            Operation::CreateTask => call.create(&body).await,
            Operation::GetTask => call.get().await,
            Operation::ReplaceTask => call.replace(&body).await,
            Operation::PatchTask => call.patch(&body).await,
            Operation::DeleteTask => call.delete().await,
            Operation::CompleteTask => call.complete(&body).await,
            Operation::GetSession => call.session(&identity),
            Operation::Health | Operation::Ready => Err(Error::Internal("a probe was answered before")),
            #[cfg(feature = "openapi")]
            Operation::GetDocument => Err(Error::Internal("a document was answered before")),
        }
    }
}

/// A body from a stream of its pieces, for the adapters of frameworks that show bodies as streams.
pub struct StreamBody<S>(Pin<Box<S>>);

impl<S> StreamBody<S> {
    /// The body that consists of these pieces.
    pub fn new(stream: S) -> Self {
        Self(Box::pin(stream))
    }
}

impl<S, D, E> Body for StreamBody<S>
where
    S: Stream<Item = Result<D, E>>,
    D: Buf,
{
    type Data = D;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<D>, E>>> {
        self.0.as_mut().poll_next(context).map_ok(Frame::data)
    }
}

impl<S> fmt::Debug for StreamBody<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamBody")
    }
}

/// One call of one user: what the head of the request says, for an operation to check together with the body.
struct Call<'a> {
    tasks: UserTasks<'a>,
    id: Option<&'a str>,
    query: Query<'a>,
}

impl Call<'_> {
    async fn list(mut self) -> Result<Response<Bytes>, Error> {
        let mut errors = FieldErrors::default();
        let query = self.query.task_query(&mut errors);
        self.query.refuse_rest(&mut errors);
        errors.check()?;
        let page = self.tasks.list(&query).await?;
        let mut response = with_json(StatusCode::OK, "application/json", render::tasks(&page.tasks));
        if let Some(link) = next_link(&query, &page) {
            response.headers_mut().insert(LINK, link);
        }
        Ok(response)
    }

    async fn create(self, body: &[u8]) -> Result<Response<Bytes>, Error> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let new = members.new_task(&mut errors);
        members.refuse_rest(&mut errors);
        self.query.refuse_rest(&mut errors);
        let task = self.tasks.create(errors.check_and(new)?).await?;
        let mut response = with_json(StatusCode::CREATED, "application/json", render::task(&task));
        // Relative, so that it survives any mount and any proxy that cuts a prefix off.
        if let Ok(location) = HeaderValue::try_from(format!("tasks/{}", task.id)) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    async fn get(self) -> Result<Response<Bytes>, Error> {
        let mut errors = FieldErrors::default();
        let id = input::task_id(self.id, &mut errors);
        self.query.refuse_rest(&mut errors);
        Ok(one(&self.tasks.get(errors.check_and(id)?).await?))
    }

    async fn replace(self, body: &[u8]) -> Result<Response<Bytes>, Error> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (id, replacement) = (input::task_id(self.id, &mut errors), members.replacement(&mut errors));
        members.refuse_rest(&mut errors);
        self.query.refuse_rest(&mut errors);
        let (id, replacement) = errors.check_and(id.zip(replacement))?;
        Ok(one(&self.tasks.replace(id, replacement).await?))
    }

    async fn patch(self, body: &[u8]) -> Result<Response<Bytes>, Error> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (id, patch) = (input::task_id(self.id, &mut errors), members.patch(&mut errors));
        members.refuse_rest(&mut errors);
        self.query.refuse_rest(&mut errors);
        let id = errors.check_and(id)?;
        Ok(one(&self.tasks.patch(id, patch).await?))
    }

    async fn delete(self) -> Result<Response<Bytes>, Error> {
        let mut errors = FieldErrors::default();
        let id = input::task_id(self.id, &mut errors);
        self.query.refuse_rest(&mut errors);
        self.tasks.delete(errors.check_and(id)?).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn complete(self, body: &[u8]) -> Result<Response<Bytes>, Error> {
        let mut members = Members::parse_or_empty(body)?;
        let mut errors = FieldErrors::default();
        let (id, completed) = (input::task_id(self.id, &mut errors), members.completion(&mut errors));
        members.refuse_rest(&mut errors);
        self.query.refuse_rest(&mut errors);
        let id = errors.check_and(id)?;
        Ok(one(&match completed {
            None => self.tasks.toggle(id).await?,
            Some(completed) => self.tasks.set_completed(id, completed).await?,
        }))
    }

    fn session(self, identity: &Identity) -> Result<Response<Bytes>, Error> {
        let mut errors = FieldErrors::default();
        self.query.refuse_rest(&mut errors);
        errors.check()?;
        Ok(ok(&Session {
            user: User {
                id: identity.user_id.as_str(),
                email: identity.email.as_deref(),
                name: identity.name.as_deref(),
            },
            expires_at: identity.expires_at,
        }))
    }
}

/// How the server is.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct Status {
    status: &'static str,
}

/// That the server is ready, part by part.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct Readiness {
    status: &'static str,
    /// Where the tasks are.
    store: &'static str,
    /// What tokens are checked by.
    keys: &'static str,
}

impl Readiness {
    const READY: Self = Self { status: "ready", store: "ok", keys: "ok" };
}

/// Who the token says the caller is.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct Session<'a> {
    user: User<'a>,
    /// When the token ends, where that is known.
    #[cfg_attr(feature = "openapi", schema(required))]
    expires_at: Option<Timestamp>,
}

/// A user, as the token describes them.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
struct User<'a> {
    #[cfg_attr(feature = "openapi", schema(value_type = crate::UserId))]
    id: &'a str,
    /// Users choose it themselves, so it proves nothing. It is absent if the token has none.
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    /// Users choose it themselves, so it proves nothing. It is absent if the token has none.
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// The answer that is one task.
fn one(task: &Task) -> Response<Bytes> {
    with_json(StatusCode::OK, "application/json", render::task(task))
}

fn ok(body: &impl Serialize) -> Response<Bytes> {
    json(StatusCode::OK, "application/json", body)
}

/// The next page as a relative reference of a query alone, which survives any mount (RFC 8288).
fn next_link(query: &TaskQuery, page: &Page) -> Option<HeaderValue> {
    let cursor = page.next?;
    let mut link = format!("<?cursor={cursor}&limit={}", query.limit.get());
    if let Some(completed) = query.completed {
        link.push_str(if completed { "&completed=true" } else { "&completed=false" });
    }
    link.push_str(">; rel=\"next\"");
    HeaderValue::try_from(link).ok()
}

/// Tells the host's log. Our faults with all their causes; the caller's in a few words.
fn report(error: &Error) {
    if error.status().is_server_error() {
        let causes = causes(error);
        tracing::error!(target: "todo_core::api", code = error.code(), %error, causes, "a request failed");
    } else {
        tracing::debug!(target: "todo_core::api", code = error.code(), "a request was refused");
    }
}

/// What is behind an error.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut causes = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push_str(if causes.is_empty() { "" } else { ": " });
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    causes
}
