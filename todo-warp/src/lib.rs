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
//! All answers are replies, never rejections: no `recover` of yours changes them. The filter answers 404 where a path
//! is only nearly one of its own (a trailing slash, an empty segment); all other paths it leaves, with the body
//! untouched, to your other filters.
//!
//! Your own handlers learn who is asking by [`current_user`].

use std::future::ready;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use todo_core::{
    api::{PROBES, RESOURCES, Resource, StreamBody, TodoApi, find_resource, problem},
    auth::Identity,
};
use warp::{
    Filter, Rejection,
    filters::BoxedFilter,
    path::{FullPath, Tail},
};

/// Every path of the API; put any path before it.
#[must_use]
pub fn filter(api: TodoApi) -> BoxedFilter<(Response<Bytes>,)> {
    matching(api, RESOURCES)
}

/// The health probes, `/health` and `/health/ready`, for the root of a server.
#[must_use]
pub fn probes(api: TodoApi) -> BoxedFilter<(Response<Bytes>,)> {
    matching(api, PROBES)
}

/// The documentation for the root of a server: the OpenAPI document at `/openapi.json`, and a page that shows it at
/// `/docs`. Where the API is mounted is said by [`TodoApi::with_mount`].
#[cfg(feature = "openapi")]
#[must_use]
pub fn docs(api: TodoApi) -> BoxedFilter<(Response<Bytes>,)> {
    matching(api, todo_core::api::DOCS)
}

fn matching(api: TodoApi, resources: &'static [Resource]) -> BoxedFilter<(Response<Bytes>,)> {
    // Nothing is left of the path, so it is not ours. To ask for the tail then is a panic in warp 0.4.3 if there is no
    // path at all (`CONNECT todo.example:443`): https://github.com/seanmonstar/warp/issues/1166.
    let tail = warp::path::end().map(|| None).or(warp::path::tail().map(Some)).unify();
    // By the path alone, before the body is taken: a filter after us may want it.
    let resource = tail.and_then(move |tail: Option<Tail>| {
        let resource = tail.and_then(|tail| find_resource(resources, &format!("/{}", tail.as_str())));
        ready(resource.ok_or_else(warp::reject::not_found))
    });
    resource
        .and(head())
        .and(warp::body::stream())
        .then(move |resource, head: Request<()>, body| {
            let api = api.clone();
            async move { api.respond(resource, head.map(|()| StreamBody::new(body))).await }
        })
        .boxed()
}

/// The head of the request, put together again: warp shows it in pieces.
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

/// Who is asking, for the host's own handlers; or the answer for whoever is not known, which is the same 401 as from
/// the API. Both are replies, so a handler maps the one and passes on the other.
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
#[must_use]
pub fn current_user(api: TodoApi) -> BoxedFilter<(CurrentUser,)> {
    head()
        .then(move |head: Request<()>| {
            let api = api.clone();
            async move { api.authenticate(&head.into_parts().0).await.map_err(problem) }
        })
        .boxed()
}

/// What [`current_user`] gives to a handler.
pub type CurrentUser = Result<Identity, Response<Bytes>>;

// Tests the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
