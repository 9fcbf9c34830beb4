//! The API in one of the web frameworks, with what the host adds around it: CORS, and an answer where there was a
//! panic.

use std::{any::Any, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response,
    header::{
        ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LINK, LOCATION,
        ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};
use http_body_util::Full;
use hyper::body::Incoming;
use todo_core::api::{ApiError, TodoApi, problem};
use tower::{BoxError, Layer as _, Service, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};

/// The name of a request, in both directions.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The body of a response, of whatever framework.
pub(crate) type Body = tower_http::body::UnsyncBoxBody<Bytes, BoxError>;

/// What answers the requests of all connections.
pub(crate) type App<B = Incoming> = BoxCloneSyncService<Request<B>, Response<Body>, Infallible>;

/// A web framework. To add one: a variant, its name below, a feature of this crate, and a function that mounts the API
/// (two, for builds with and without the feature).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framework {
    Axum,
    Poem,
    Warp,
}

impl Framework {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Axum => "axum",
            Self::Poem => "poem",
            Self::Warp => "warp",
        }
    }

    /// The framework of this name, or why there is none.
    pub(crate) fn from_name(name: &str) -> Result<Self, String> {
        let (framework, is_built) = match name {
            "axum" => (Self::Axum, cfg!(feature = "axum")),
            "poem" => (Self::Poem, cfg!(feature = "poem")),
            "warp" => (Self::Warp, cfg!(feature = "warp")),
            _ => return Err(format!("{} is none of: axum, poem, warp", crate::settings::shown(name))),
        };
        if is_built {
            Ok(framework)
        } else {
            Err(format!("{name} is not in this build; build it with `--features {name}`"))
        }
    }
}

/// Where the API is; it is at `/api` as well.
pub(crate) const MOUNT: &str = "/api/v1";

/// The API at `/api` and `/api/v1`, probes and documentation at the root, and a 404 like that of the API everywhere else.
pub(crate) fn app(framework: Framework, api: TodoApi, origins: &[HeaderValue]) -> App {
    let api = api.with_mount(MOUNT);
    match framework {
        Framework::Axum => layered(axum(api), origins),
        Framework::Poem => layered(poem(api), origins),
        Framework::Warp => layered(warp(api), origins),
    }
}

#[cfg(feature = "axum")]
fn axum(api: TodoApi) -> axum::Router {
    axum::Router::new()
        .nest("/api", todo_axum::router(api.clone()))
        .nest(MOUNT, todo_axum::router(api.clone()))
        .merge(todo_axum::probes(api.clone()))
        .merge(todo_axum::docs(api))
        .fallback(async || problem(ApiError::NotFound).map(axum::body::Body::from))
}

#[cfg(not(feature = "axum"))]
fn axum(_: TodoApi) -> impl Framed {
    service_fn(not_built)
}

#[cfg(feature = "poem")]
fn poem(api: TodoApi) -> impl Framed {
    use poem::{
        Endpoint as _, Route,
        error::NotFoundError,
        web::{LocalAddr, RemoteAddr},
    };

    let route = todo_poem::mount(Route::new(), MOUNT, api.clone());
    let route = todo_poem::probes(todo_poem::mount(route, "/api", api.clone()), api.clone());
    let route = todo_poem::docs(route, api);
    let route = std::sync::Arc::new(route);
    service_fn(move |request: Request<Incoming>| {
        let route = route.clone();
        async move {
            // Neither address matters to the API.
            let request = (request, LocalAddr::default(), RemoteAddr::default(), http::uri::Scheme::HTTP);
            let response = match route.call(poem::Request::from(request)).await {
                Ok(response) => response,
                // Not a route for the rest: CONNECT has no path at all.
                Err(error) if error.is::<NotFoundError>() => todo_poem::response(problem(ApiError::NotFound)),
                Err(error) => error.into_response(),
            };
            Ok::<_, Infallible>(Response::from(response))
        }
    })
}

#[cfg(not(feature = "poem"))]
fn poem(_: TodoApi) -> impl Framed {
    service_fn(not_built)
}

#[cfg(feature = "warp")]
fn warp(api: TodoApi) -> impl Framed {
    use warp::Filter as _;

    let app = warp::path!("api" / "v1" / ..)
        .and(todo_warp::filter(api.clone()))
        .or(warp::path!("api" / ..).and(todo_warp::filter(api.clone())))
        .unify()
        .or(todo_warp::probes(api.clone()))
        .unify()
        .or(todo_warp::docs(api))
        .unify()
        .or(warp::any().map(|| problem(ApiError::NotFound)))
        .unify()
        .boxed();
    warp::service(app)
}

#[cfg(not(feature = "warp"))]
fn warp(_: TodoApi) -> impl Framed {
    service_fn(not_built)
}

/// What every framework is from outside.
trait Framed:
    Service<Request<Incoming>, Response = Response<Self::Answer>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    type Answer: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> Framed for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Answer = B;
}

/// Stands where a framework would, in a build without it, whose settings refuse to name it.
#[cfg(not(all(feature = "axum", feature = "poem", feature = "warp")))]
async fn not_built(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(problem(ApiError::Internal("the framework is not in this build")).map(Full::new))
}

/// Puts CORS and the answer to a panic around an app.
fn layered<S, B, R>(app: S, origins: &[HeaderValue]) -> App<R>
where
    R: Send + 'static,
    S: Service<Request<R>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // Shared, because the layer of CORS has lists of headers, and each connection and request has its clone of all this.
    let app = Arc::new(CatchPanicLayer::custom(after_panic).layer(app));
    let with_cors = Arc::new(cors(origins).layer((*app).clone()));
    BoxCloneSyncService::new(service_fn(move |request: Request<R>| {
        // CORS is about scripts in browsers, which send `Origin`. (That this makes answers differ need not be told to
        // caches by `Vary`: ours are not to be stored.) And the layer takes every OPTIONS for a preflight.
        let asks_itself =
            !request.headers().contains_key(ORIGIN) || (request.method() == Method::OPTIONS && !is_preflight(&request));
        let chosen = if asks_itself { Ok((*app).clone()) } else { Err((*with_cors).clone()) };
        async move {
            match chosen {
                Ok(app) => app.oneshot(request).await,
                Err(with_cors) => with_cors.oneshot(request).await,
            }
        }
    }))
}

/// Whether a browser asks beforehand what a script may do (Fetch standard, "CORS-preflight request").
fn is_preflight<R>(request: &Request<R>) -> bool {
    request.headers().contains_key(ORIGIN) && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    CorsLayer::new()
        // A list, also if it has one entry: a foreign origin is told nothing.
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, X_REQUEST_ID])
        .expose_headers([
            LINK,
            LOCATION,
            WWW_AUTHENTICATE,
            RETRY_AFTER,
            ETAG,
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
            X_REQUEST_ID,
        ])
        .max_age(Duration::from_hours(1))
}

/// The panic itself is in the log already, by the hook of [`crate::telemetry`].
fn after_panic(_: Box<dyn Any + Send>) -> Response<Full<Bytes>> {
    problem(ApiError::Internal("a request panicked")).map(Full::new)
}

#[cfg(test)]
mod tests {
    use http::{
        StatusCode,
        header::{ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW},
    };
    use http_body_util::BodyExt as _;

    use super::*;

    const OURS: HeaderValue = HeaderValue::from_static("https://app.example.com");

    async fn call(app: App<()>, request: http::request::Builder) -> Response<Body> {
        let Ok(response) = app.oneshot(request.body(()).expect("a request")).await;
        response
    }

    fn app_that(answer: impl Fn() -> Response<Full<Bytes>> + Clone + Send + Sync + 'static) -> App<()> {
        let app = service_fn(move |_: Request<()>| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer()) }
        });
        layered(app, &[OURS])
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_scripts_may_read() {
        let app = app_that(|| panic!("the title was secret"));
        let response = call(app, Request::get("/").header(ORIGIN, OURS)).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], OURS);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(r#""code":"internal""#) && !body.contains("secret"), "{body}");
    }

    #[tokio::test]
    async fn only_a_preflight_is_answered_in_the_place_of_the_app() {
        let answer = || {
            let mut response = Response::new(Full::default());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            response
        };
        let options = || Request::options("/").header(ORIGIN, OURS);
        let plain = call(app_that(answer), options()).await;
        assert_eq!(plain.headers()[ALLOW], "GET");
        let preflight = call(app_that(answer), options().header(ACCESS_CONTROL_REQUEST_METHOD, "PUT")).await;
        assert!(preflight.headers().contains_key(ACCESS_CONTROL_ALLOW_METHODS));
        assert!(!preflight.headers().contains_key(ALLOW));
    }
}
