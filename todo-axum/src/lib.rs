//! Mounts the todo API into an axum [`Router`].
//!
//! ```
//! # use todo_core::{TodoService, auth::JwtVerifier, api::TodoApi, store::MemoryStore};
//! # let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
//! # let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
//! let app: axum::Router = axum::Router::new().nest("/api/v1", todo_axum::router(api));
//! ```
//!
//! The router responds to unsupported methods (405) and to paths that almost match, such as those with a trailing slash
//! or an empty segment (404). Your fallback handles all other paths.
//!
//! Your own handlers get the caller by extracting [`CurrentUser`].
//!
//! # Body limits
//!
//! [`TodoApi::with_body_limit`] sets the maximum body size. A lower limit of a layer around the router, such as
//! `tower_http::limit::RequestBodyLimitLayer`, also leads to 413. axum's `DefaultBodyLimit` has no effect on the
//! router.

use axum::{
    Router,
    body::Body,
    extract::{FromRef, FromRequestParts, Request},
    http::request::Parts,
    response::Response,
    routing::any,
};
use todo_core::{
    api::{PROBES, RESOURCES, Resource, TodoApi},
    auth::Identity,
};

/// Returns a router with the paths of the API, for any state of the host. Nest it under a prefix, or merge it at the
/// root.
///
/// # Beside a catch-all route
///
/// At the root, axum allows no route such as `/{*page}` beside this router, since paths of the API begin with a
/// parameter: [`Router::merge`] panics with `Invalid route` and the name of one of them, such as `/{user_id}/tasks`. Use
/// [`Router::fallback`] instead. Under a prefix, both work.
///
/// ```
/// # use axum::Router;
/// # use todo_core::{TodoService, auth::JwtVerifier, api::TodoApi, store::MemoryStore};
/// # let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
/// # let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
/// async fn page() -> &'static str {
///     "a page of the host"
/// }
///
/// let app: Router = Router::new().merge(todo_axum::router(api)).fallback(page);
/// ```
pub fn router<S: Clone + Send + Sync + 'static>(api: TodoApi) -> Router<S> {
    routes(api, RESOURCES)
}

/// Returns a router with the health probes `/health` and `/health/ready`, for the root of a server.
pub fn probes<S: Clone + Send + Sync + 'static>(api: TodoApi) -> Router<S> {
    routes(api, PROBES)
}

/// Returns a router with the documentation, for the root of a server: the OpenAPI document at `/openapi.json` and a
/// page that shows it at `/docs`.
///
/// [`TodoApi::with_mount`] sets the prefix of the API in the document.
#[cfg(feature = "openapi")]
pub fn docs<S: Clone + Send + Sync + 'static>(api: TodoApi) -> Router<S> {
    routes(api, todo_core::api::DOCS)
}

#[expect(clippy::needless_pass_by_value, reason = "the router takes ownership of the API")]
fn routes<S: Clone + Send + Sync + 'static>(api: TodoApi, resources: &'static [Resource]) -> Router<S> {
    resources.iter().fold(Router::new(), |router, resource| {
        let api = api.clone();
        let respond = async move |request: Request| api.respond(resource, request).await.map(Body::new);
        // axum matches exactly, so paths that almost match need routes of their own to get the API's 404.
        resource
            .near_misses()
            .fold(router, |router, path| router.route(&path, any(respond.clone())))
            .route(resource.path, any(respond))
    })
}

/// Extracts the authenticated caller in a host's own handlers.
///
/// A request without a valid credential is rejected with the same response as by the API. The state of the host must
/// contain the [`TodoApi`] and implement [`FromRef`] for it, which axum derives with its feature `macros`.
///
/// ```
/// use axum::{Router, extract::FromRef, routing::get};
/// use todo_axum::CurrentUser;
/// use todo_core::api::TodoApi;
///
/// #[derive(Clone, FromRef)]
/// struct AppState {
///     todo: TodoApi,
/// }
///
/// async fn greet(CurrentUser(identity): CurrentUser) -> String {
///     format!("Hello {}", identity.user_id)
/// }
///
/// let app: Router<AppState> = Router::new().route("/greeting", get(greet));
/// ```
///
/// A value that your authenticator has [attached](Identity::with_value) needs no second query:
///
/// ```
/// use axum::http::StatusCode;
/// use todo_axum::CurrentUser;
///
/// struct Account {
///     plan: String,
/// }
///
/// async fn plan(CurrentUser(identity): CurrentUser) -> Result<String, StatusCode> {
///     let account = identity.value::<Account>().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
///     Ok(account.plan.clone())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct CurrentUser(pub Identity);

impl<S: Send + Sync> FromRequestParts<S> for CurrentUser
where
    TodoApi: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Response> {
        let api = TodoApi::from_ref(state);
        api.authenticate(head).await.map(Self).map_err(|error| api.problem(error).map(Body::from))
    }
}

// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
