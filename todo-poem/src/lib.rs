//! Mounts the todo API into a poem [`Route`].
//!
//! ```
//! # use todo_core::{TodoService, auth::JwtVerifier, api::TodoApi, store::MemoryStore};
//! # let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
//! # let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
//! let app = todo_poem::mount(poem::Route::new(), "/api/v1", api);
//! ```
//!
//! The paths bring their own 405s and error bodies, and answer 404 where a path is only nearly one of them (a trailing
//! slash, an empty segment). All other paths are left to your route.
//!
//! Your own handlers learn who is asking by taking a [`CurrentUser`].

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use poem::{Endpoint, FromRequest, Request, RequestBody, Response, Route, endpoint::make, web::Data};
use todo_core::{
    api::{PROBES, RESOURCES, Resource, TodoApi, problem},
    auth::Identity,
};

/// Adds every path of the API to a route, below a prefix: `/api/v1`, or nothing for the root.
///
/// This is not `nest`, because that answers a path which is no UTF-8 once decoded with an error of its own.
///
/// # Panics
///
/// As [`Route::at`] does: the prefix does not begin with a slash, or the route has one of the paths already.
#[must_use]
pub fn mount(route: Route, prefix: &str, api: TodoApi) -> Route {
    add(route, prefix, api, RESOURCES)
}

/// Adds the health probes, `/health` and `/health/ready`, to the route of a server.
///
/// # Panics
///
/// As [`Route::at`] does: the route has one of the paths already.
#[must_use]
pub fn probes(route: Route, api: TodoApi) -> Route {
    add(route, "", api, PROBES)
}

/// Adds the documentation to the route of a server: the OpenAPI document at `/openapi.json`, and a page that shows it at
/// `/docs`. Where the API is mounted is said by [`TodoApi::with_mount`].
///
/// # Panics
///
/// As [`Route::at`] does: the route has one of the paths already.
#[cfg(feature = "openapi")]
#[must_use]
pub fn docs(route: Route, api: TodoApi) -> Route {
    add(route, "", api, todo_core::api::DOCS)
}

#[expect(clippy::needless_pass_by_value, reason = "a route owns what it serves")]
fn add(route: Route, prefix: &str, api: TodoApi, resources: &'static [Resource]) -> Route {
    resources.iter().fold(route, |route, resource| {
        // poem lets a parameter match nothing, and cannot be told of an empty segment otherwise.
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

/// An answer of the core as one of poem, for a host that answers with [`problem`] itself.
///
/// ```
/// use todo_core::api::{ApiError, problem};
///
/// let response = todo_poem::response(problem(ApiError::NotFound));
/// assert_eq!(response.status(), 404);
/// ```
#[must_use]
pub fn response(response: http::Response<Bytes>) -> Response {
    response.map(|body| Full::new(body).map_err(std::io::Error::other)).into()
}

/// poem writes `{id}` as `:id`.
fn template(prefix: &str, path: &str) -> String {
    format!("{prefix}{}", path.replace('{', ":").replace('}', ""))
}

/// Who is asking, for the host's own handlers. Whoever is not known gets the same 401 as from the API.
///
/// The [`TodoApi`] must be among the request's data, by [`poem::EndpointExt::data`].
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
#[derive(Clone, Debug)]
pub struct CurrentUser(pub Identity);

impl<'a> FromRequest<'a> for CurrentUser {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        // poem's own error, for a host that forgot `.data(api)`.
        let Data(api) = Data::<&TodoApi>::from_request_without_body(request).await?;
        let mut head = http::Request::new(()).into_parts().0;
        head.method = request.method().clone();
        head.uri = request.original_uri().clone();
        head.headers = request.headers().clone();
        match api.authenticate(&head).await {
            Ok(identity) => Ok(Self(identity)),
            Err(error) => Err(poem::Error::from_response(response(problem(error)))),
        }
    }
}

// Tests the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
