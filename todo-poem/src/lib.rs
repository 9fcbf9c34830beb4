//! Mounts the todo API into a poem [`Route`].
//!
//! ```
//! # use todo_core::{TodoService, auth::JwtVerifier, api::TodoApi, store::MemoryStore};
//! # let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
//! # let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
//! let app = todo_poem::mount(poem::Route::new(), "/api/v1", api);
//! ```
//!
//! The mounted paths respond to unsupported methods (405) and to paths that almost match, such as those with a trailing
//! slash or an empty segment (404). Your route handles all other paths.
//!
//! Your own handlers get the caller by extracting [`CurrentUser`].
//!
//! # Body limits
//!
//! [`TodoApi::with_body_limit`] sets the maximum body size. Do not put poem's `SizeLimit` around the mounted paths: it
//! rejects every request without a `content-length`, including GET, with 411.

use http_body_util::BodyExt as _;
use poem::{Endpoint, FromRequest, Request, RequestBody, Response, Route, endpoint::make, web::Data};
use todo_core::{
    api::{PROBES, RESOURCES, Resource, ResponseBody, TodoApi},
    auth::Identity,
};

/// Adds the paths of the API to a route, below a prefix such as `/api/v1`, or an empty prefix for the root.
///
/// It does not use [`Route::nest`], which responds with an error of its own to paths that are not UTF-8 when decoded.
///
/// # Panics
///
/// Like [`Route::at`], if the prefix does not start with a slash or if the route already has one of the paths.
#[must_use]
pub fn mount(route: Route, prefix: &str, api: TodoApi) -> Route {
    add(route, prefix, api, RESOURCES)
}

/// Adds the health probes `/health` and `/health/ready` to the root route of a server.
///
/// # Panics
///
/// Like [`Route::at`], if the route already has one of the paths.
#[must_use]
pub fn probes(route: Route, api: TodoApi) -> Route {
    add(route, "", api, PROBES)
}

/// Adds the documentation to the root route of a server: the OpenAPI document at `/openapi.json` and a page that shows
/// it at `/docs`.
///
/// [`TodoApi::with_mount`] sets the prefix of the API in the document.
///
/// # Panics
///
/// Like [`Route::at`], if the route already has one of the paths.
#[cfg(feature = "openapi")]
#[must_use]
pub fn docs(route: Route, api: TodoApi) -> Route {
    add(route, "", api, todo_core::api::DOCS)
}

#[expect(clippy::needless_pass_by_value, reason = "the route takes ownership of the API")]
fn add(route: Route, prefix: &str, api: TodoApi, resources: &'static [Resource]) -> Route {
    resources.iter().fold(route, |route, resource| {
        // In poem a parameter also matches an empty segment, and a path with an empty segment cannot be registered.
        let paths = resource.near_misses().filter(|path| !path.contains("//")).chain([resource.path.to_owned()]);
        paths.fold(route, |route, path| route.at(template(prefix, &path), endpoint(api.clone(), resource)))
    })
}

fn endpoint(api: TodoApi, resource: &'static Resource) -> impl Endpoint<Output = Response> + 'static {
    make(move |request: Request| {
        let api = api.clone();
        async move {
            let request: http::Request<_> = request.into();
            response(api.respond(resource, request).await)
        }
    })
}

/// Converts a response of the core to one of poem, for a host that calls [`problem`](todo_core::api::problem) itself.
///
/// ```
/// use todo_core::api::{ApiError, problem};
///
/// let response = todo_poem::response(problem(ApiError::NotFound));
/// assert_eq!(response.status(), 404);
/// ```
#[must_use]
pub fn response(response: http::Response<impl Into<ResponseBody>>) -> Response {
    response.map(|body| body.into().map_err(std::io::Error::other)).into()
}

/// Converts a path template to poem's syntax, which is `:id` for `{id}`.
fn template(prefix: &str, path: &str) -> String {
    format!("{prefix}{}", path.replace('{', ":").replace('}', ""))
}

/// Extracts the authenticated caller in a host's own handlers.
///
/// A request without a valid credential is rejected with the same response as by the API. The [`TodoApi`] must be among
/// the request's data, see [`poem::EndpointExt::data`].
///
/// ```
/// use poem::{EndpointExt, Route, get, handler};
/// use todo_poem::CurrentUser;
/// # use todo_core::{TodoService, auth::JwtVerifier, api::TodoApi, store::MemoryStore};
///
/// #[handler]
/// fn greet(CurrentUser(identity): CurrentUser) -> String {
///     format!("Hello {}", identity.user_id)
/// }
/// # let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
/// # let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
///
/// let app = Route::new().at("/greeting", get(greet)).data(api);
/// ```
///
/// A value that your authenticator has [attached](Identity::with_value) needs no second query:
///
/// ```
/// use poem::{handler, http::StatusCode};
/// use todo_poem::CurrentUser;
///
/// struct Account {
///     plan: String,
/// }
///
/// #[handler]
/// fn plan(CurrentUser(identity): CurrentUser) -> poem::Result<String> {
///     let account = identity.value::<Account>().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
///     Ok(account.plan.clone())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct CurrentUser(pub Identity);

impl<'a> FromRequest<'a> for CurrentUser {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        // Fails with an error of poem if the host forgot `.data(api)`.
        let Data(api) = Data::<&TodoApi>::from_request_without_body(request).await?;
        let mut head = http::Request::new(()).into_parts().0;
        head.method = request.method().clone();
        head.uri = request.original_uri().clone();
        head.headers = request.headers().clone();
        match api.authenticate(&head).await {
            Ok(identity) => Ok(Self(identity)),
            Err(error) => Err(poem::Error::from_response(response(api.problem(error)))),
        }
    }
}

// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
