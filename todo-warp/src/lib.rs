//! Mounts the todo API as a warp [`Filter`].
//!
//! ```
//! use warp::Filter as _;
//! # use todo_core::{TodoService, auth::JwtVerifier, api::TodoApi, store::MemoryStore};
//! # let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
//! # let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
//! let app = warp::path!("api" / "v1" / ..).and(todo_warp::filter(api));
//! ```
//!
//! All responses are replies and not rejections, so your `recover` does not change them. The filter responds to paths
//! that almost match, such as those with a trailing slash or an empty segment, with 404. It rejects all other paths
//! without reading the body, so that your other filters can handle them.
//!
//! Your own handlers get the caller from [`current_user`].
//!
//! # Body limits
//!
//! [`TodoApi::with_body_limit`] sets the maximum body size. Do not put `warp::body::content_length_limit` before the
//! filter: it rejects every request without a `content-length`, including GET, with 411.

use std::future::ready;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use todo_core::{
    api::{PROBES, RESOURCES, Resource, ResponseBody, StreamBody, TodoApi, find_resource},
    auth::Identity,
};
use warp::{
    Filter, Rejection, Reply as _,
    filters::BoxedFilter,
    path::{FullPath, Tail},
};

/// Returns a filter for the paths of the API. Put a path filter with any prefix before it, and a filter of yours for all
/// other paths after it: `todo_warp::filter(api).or(page)`.
#[must_use]
pub fn filter(api: TodoApi) -> BoxedFilter<(warp::reply::Response,)> {
    matching(api, RESOURCES)
}

/// Returns a filter for the health probes `/health` and `/health/ready`, for the root of a server.
#[must_use]
pub fn probes(api: TodoApi) -> BoxedFilter<(warp::reply::Response,)> {
    matching(api, PROBES)
}

/// Returns a filter for the documentation, for the root of a server: the OpenAPI document at `/openapi.json` and a page
/// that shows it at `/docs`.
///
/// [`TodoApi::with_mount`] sets the prefix of the API in the document.
#[cfg(feature = "openapi")]
#[must_use]
pub fn docs(api: TodoApi) -> BoxedFilter<(warp::reply::Response,)> {
    matching(api, todo_core::api::DOCS)
}

fn matching(api: TodoApi, resources: &'static [Resource]) -> BoxedFilter<(warp::reply::Response,)> {
    // `path::tail` panics in warp 0.4.3 if the request has no path (`CONNECT todo.example:443`), so it is not called at
    // the end of the path: https://github.com/seanmonstar/warp/issues/1166.
    let tail = warp::path::end().map(|| None).or(warp::path::tail().map(Some)).unify();
    // Rejects by the path before it takes the body, because a later filter may need the body.
    let resource = tail.and_then(move |tail: Option<Tail>| {
        let resource = tail.and_then(|tail| find_resource(resources, &format!("/{}", tail.as_str())));
        ready(resource.ok_or_else(warp::reject::not_found))
    });
    resource
        .and(head())
        .and(warp::body::stream())
        .then(move |resource, head: Request<()>, body| {
            let api = api.clone();
            async move { reply(api.respond(resource, head.map(|()| StreamBody::new(body))).await) }
        })
        .boxed()
}

/// Converts a response of the core to one of warp.
fn reply(response: Response<ResponseBody>) -> warp::reply::Response {
    let (head, body) = response.into_parts();
    let reply = match body.into_bytes() {
        Ok(bytes) => Response::new(bytes).into_response(),
        Err(stream) => warp::reply::stream(stream).into_response(),
    };
    Response::from_parts(head, reply.into_body())
}

/// Rebuilds the head of the request, which warp exposes in parts.
fn head() -> impl Filter<Extract = (Request<()>,), Error = Rejection> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method().and(warp::path::full()).and(query).and(warp::header::headers_cloned()).and_then(
        async |method: Method, path: FullPath, query: String, headers: HeaderMap| {
            let mut request = Request::new(());
            let uri = if query.is_empty() { path.as_str().to_owned() } else { format!("{}?{query}", path.as_str()) };
            *request.uri_mut() = uri.try_into().map_err(|_| warp::reject::not_found())?;
            (*request.method_mut(), *request.headers_mut()) = (method, headers);
            Ok::<_, Rejection>(request)
        },
    )
}

/// Returns a filter that authenticates the caller for a host's own handlers.
///
/// It extracts the caller, or the response to a request without a valid credential, which is the same as the API's. A
/// handler maps the first and returns the second.
///
/// ```
/// use warp::Filter as _;
/// # use todo_core::{TodoService, auth::JwtVerifier, api::TodoApi, store::MemoryStore};
/// # let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
/// # let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
/// let greeting = warp::path!("greeting")
///     .and(todo_warp::current_user(api))
///     .map(|user: todo_warp::CurrentUser| user.map(|identity| format!("Hello {}", identity.user_id)));
/// ```
///
/// A value that your authenticator has [attached](Identity::with_value) needs no second query:
///
/// ```
/// use todo_warp::CurrentUser;
///
/// struct Account {
///     plan: String,
/// }
///
/// /// For `.and(todo_warp::current_user(api)).map(plan)`.
/// fn plan(user: CurrentUser) -> impl warp::Reply {
///     user.map(|identity| identity.value::<Account>().map_or("none", |account| &account.plan).to_owned())
/// }
/// ```
#[must_use]
pub fn current_user(api: TodoApi) -> BoxedFilter<(CurrentUser,)> {
    head()
        .then(move |head: Request<()>| {
            let api = api.clone();
            async move { api.authenticate(&head.into_parts().0).await.map_err(|error| api.problem(error)) }
        })
        .boxed()
}

/// The caller, or the response to a request without a valid credential. [`current_user`] extracts it.
pub type CurrentUser = Result<Identity, Response<Bytes>>;

// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
