//! Mounts the todo API into an axum [`Router`].
//!
//! ```
//! # use todo_core::{TodoService, auth::JwtVerifier, api::TodoApi, store::MemoryStore};
//! # let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
//! # let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
//! let app: axum::Router = axum::Router::new().nest("/api/v1", todo_axum::router(api));
//! ```
//!
//! The router brings its own 405s and error bodies, and answers 404 where a path is only nearly one of its own (a
//! trailing slash, an empty segment). All other paths are left to your fallback.
//!
//! Your own handlers learn who is asking by taking a [`CurrentUser`].

use axum::{
    Router,
    body::Body,
    extract::{FromRef, FromRequestParts, Request},
    http::request::Parts,
    response::Response,
    routing::any,
};
use todo_core::{
    api::{PROBES, RESOURCES, Resource, TodoApi, problem},
    auth::Identity,
};

/// Every path of the API, for any host state; nest it under any prefix, or merge it at the root.
pub fn router<S: Clone + Send + Sync + 'static>(api: TodoApi) -> Router<S> {
    routes(api, RESOURCES)
}

/// The health probes, `/health` and `/health/ready`, for the root of a server.
pub fn probes<S: Clone + Send + Sync + 'static>(api: TodoApi) -> Router<S> {
    routes(api, PROBES)
}

/// The documentation for the root of a server: the OpenAPI document at `/openapi.json`, and a page that shows it at
/// `/docs`. Where the API is mounted is said by [`TodoApi::with_mount`].
#[cfg(feature = "openapi")]
pub fn docs<S: Clone + Send + Sync + 'static>(api: TodoApi) -> Router<S> {
    routes(api, todo_core::api::DOCS)
}

#[expect(clippy::needless_pass_by_value, reason = "a router owns what it serves")]
fn routes<S: Clone + Send + Sync + 'static>(api: TodoApi, resources: &'static [Resource]) -> Router<S> {
    resources.iter().fold(Router::new(), |router, resource| {
        let api = api.clone();
        let answer = async move |request: Request| api.respond(resource, request).await.map(Body::from);
        // axum matches to the letter, so what is only nearly our path needs routes of its own to be answered by us.
        resource
            .near_misses()
            .fold(router, |router, path| router.route(&path, any(answer.clone())))
            .route(resource.path, any(answer))
    })
}

/// Who is asking, for the host's own handlers. Whoever is not known gets the same 401 as from the API.
///
/// The host's state must give the [`TodoApi`], by [`FromRef`]; axum derives that with its feature `macros`.
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
#[derive(Clone, Debug)]
pub struct CurrentUser(pub Identity);

impl<S: Send + Sync> FromRequestParts<S> for CurrentUser
where
    TodoApi: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Response> {
        let api = TodoApi::from_ref(state);
        api.authenticate(head).await.map(Self).map_err(|error| problem(error).map(Body::from))
    }
}

// Tests the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
