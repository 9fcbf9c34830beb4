//! The API in one of the web frameworks, with the middleware around it: CORS, and a 500 after a panic.

use std::{any::Any, convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderName, Method, Request, Response,
    header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN},
};
use http_body_util::{BodyExt as _, Full};
use todo_core::api::{ApiError, TodoApi, problem};
use tower::{BoxError, Layer as _, Service, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    connection::{MAX_HEAD, MAX_HEADERS, RequestBody, has_large_head},
    cors::{Cors, ForeignOrigins},
};

/// Identifies a request in the log; in requests and responses.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The body of a response of any framework.
pub(crate) type Body = tower_http::body::UnsyncBoxBody<Bytes, BoxError>;

/// The service that responds to the requests of all connections.
pub(crate) type App<B = RequestBody> = BoxCloneSyncService<Request<B>, Response<Body>, Infallible>;

/// A web framework of this build. To add one: a variant with its cargo feature, its name in [`Self::NAMES`] and
/// [`Self::name`], and a function that mounts the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framework {
    #[cfg(feature = "axum")]
    Axum,
    #[cfg(feature = "poem")]
    Poem,
    #[cfg(feature = "warp")]
    Warp,
}

#[cfg(not(any(feature = "axum", feature = "poem", feature = "warp")))]
compile_error!("todo-server needs a web framework: enable at least one of its features axum, poem and warp");

impl Framework {
    /// The names of all frameworks, also of those that are not in this build. Each is also the name of its feature.
    const NAMES: [&str; 3] = ["axum", "poem", "warp"];

    /// The frameworks of this build.
    const ALL: &[Self] = &[
        #[cfg(feature = "axum")]
        Self::Axum,
        #[cfg(feature = "poem")]
        Self::Poem,
        #[cfg(feature = "warp")]
        Self::Warp,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "axum")]
            Self::Axum => "axum",
            #[cfg(feature = "poem")]
            Self::Poem => "poem",
            #[cfg(feature = "warp")]
            Self::Warp => "warp",
        }
    }

    /// The framework of this name. The error says why there is none.
    pub(crate) fn from_name(name: &str) -> Result<Self, String> {
        if let Some(framework) = Self::ALL.iter().find(|framework| framework.name() == name) {
            return Ok(*framework);
        }
        if Self::NAMES.contains(&name) {
            Err(format!("{name} is not in this build; build todo-server with `--features {name}`"))
        } else {
            Err(format!("{} is not one of: {}", crate::settings::quoted(name), Self::NAMES.join(", ")))
        }
    }
}

/// Where the API is mounted. It is mounted at `/api` as well.
pub(crate) const MOUNT: &str = "/api/v1";

/// The API at `/api` and `/api/v1`, probes and documentation at the root. All other paths are a 404 in the format of
/// the API.
pub(crate) fn app(framework: Framework, api: TodoApi, cors: &Cors) -> App {
    let api = api.with_mount(MOUNT);
    match framework {
        #[cfg(feature = "axum")]
        Framework::Axum => axum(api, cors),
        #[cfg(feature = "poem")]
        Framework::Poem => poem(api, cors),
        #[cfg(feature = "warp")]
        Framework::Warp => warp(api, cors),
    }
}

#[cfg(feature = "axum")]
fn axum(api: TodoApi, cors: &Cors) -> App {
    let router = axum::Router::new()
        .nest("/api", todo_axum::router(api.clone()))
        .nest(MOUNT, todo_axum::router(api.clone()))
        .merge(todo_axum::probes(api.clone()))
        .merge(todo_axum::docs(api))
        .fallback(async || problem(ApiError::NotFound).map(axum::body::Body::from));
    with_middleware(router, cors)
}

#[cfg(feature = "poem")]
fn poem(api: TodoApi, cors: &Cors) -> App {
    use http_body_util::combinators::BoxBody;
    use poem::{
        Endpoint as _, RequestParts, Route,
        error::NotFoundError,
        web::{LocalAddr, RemoteAddr},
    };

    let route = todo_poem::mount(Route::new(), MOUNT, api.clone());
    let route = todo_poem::probes(todo_poem::mount(route, "/api", api.clone()), api.clone());
    let route = Arc::new(todo_poem::docs(route, api));
    let service = service_fn(move |request: Request<RequestBody>| {
        let route = route.clone();
        async move {
            let (head, body) = request.into_parts();
            // The API does not use the addresses.
            let head = (head, LocalAddr::default(), RemoteAddr::default(), http::uri::Scheme::HTTP);
            let body = BoxBody::new(body.map_err(std::io::Error::other));
            let request = poem::Request::from_parts(RequestParts::from(head), body.into());
            let response = match route.call(request).await {
                Ok(response) => response,
                // Not a fallback route, since a CONNECT request has no path that poem could route.
                Err(error) if error.is::<NotFoundError>() => todo_poem::response(problem(ApiError::NotFound)),
                Err(error) => error.into_response(),
            };
            Ok::<_, Infallible>(Response::from(response))
        }
    });
    with_middleware(service, cors)
}

#[cfg(feature = "warp")]
fn warp(api: TodoApi, cors: &Cors) -> App {
    use warp::{Filter as _, Reply as _};

    let filter = warp::path!("api" / "v1" / ..)
        .and(todo_warp::filter(api.clone()))
        .or(warp::path!("api" / ..).and(todo_warp::filter(api.clone())))
        .unify()
        .or(todo_warp::probes(api.clone()))
        .unify()
        .or(todo_warp::docs(api))
        .unify()
        .or(warp::any().map(|| problem(ApiError::NotFound).into_response()))
        .unify()
        .boxed();
    with_middleware(warp::service(filter), cors)
}

/// Adds CORS and the response to a panic.
fn with_middleware<S, B, R>(app: S, cors: &Cors) -> App<R>
where
    R: Send + 'static,
    S: Service<Request<R>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // Shared, since the CORS layer owns lists of headers, and each connection and request clones all of this.
    let app = Arc::new(with_head_limit(CatchPanicLayer::custom(respond_to_panic).layer(app)));
    let with_cors = Arc::new(cors.layer().layer((*app).clone()));
    let (allowed, foreign) = (cors.origins.clone(), ForeignOrigins::default());
    BoxCloneSyncService::new(service_fn(move |request: Request<R>| {
        // CORS concerns scripts in browsers, which send `Origin`. (`Vary` need not tell caches of the difference, since
        // no response may be stored.) The layer would treat every OPTIONS request as a preflight.
        let skips_cors =
            !request.headers().contains_key(ORIGIN) || (request.method() == Method::OPTIONS && !is_preflight(&request));
        if let Some(origin) = request.headers().get(ORIGIN) {
            foreign.note(origin, &allowed);
        }
        let chosen = if skips_cors { Ok((*app).clone()) } else { Err((*with_cors).clone()) };
        async move {
            match chosen {
                Ok(app) => app.oneshot(request).await,
                Err(with_cors) => with_cors.oneshot(request).await,
            }
        }
    }))
}

/// Responds to requests with too large a head. hyper's own response would have no body and no headers.
fn with_head_limit<S, R>(
    app: S,
) -> impl Service<Request<R>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
where
    R: Send + 'static,
    S: Service<Request<R>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
{
    service_fn(move |request: Request<R>| {
        let too_large =
            has_large_head(&request).then_some(ApiError::HeadTooLarge { bytes: MAX_HEAD, headers: MAX_HEADERS });
        let app = app.clone();
        async move {
            match too_large {
                Some(error) => Ok(problem(error).map(|body| Body::new(Full::new(body).map_err(BoxError::from)))),
                None => app.oneshot(request).await,
            }
        }
    })
}

/// Whether this is a CORS preflight request (Fetch standard, "CORS-preflight request").
fn is_preflight<R>(request: &Request<R>) -> bool {
    request.headers().contains_key(ORIGIN) && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The panic hook of [`crate::telemetry`] has logged the panic.
fn respond_to_panic(_: Box<dyn Any + Send>) -> Response<Full<Bytes>> {
    problem(ApiError::Internal("a request panicked")).map(Full::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{
        HeaderValue, StatusCode,
        header::{ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_TYPE},
    };

    const ALLOWED_ORIGIN: HeaderValue = HeaderValue::from_static("https://app.example.com");

    async fn call(app: App<()>, request: http::request::Builder) -> Response<Body> {
        let Ok(response) = app.oneshot(request.body(()).expect("a request")).await;
        response
    }

    fn app_that(respond: impl Fn() -> Response<Full<Bytes>> + Clone + Send + Sync + 'static) -> App<()> {
        let app = service_fn(move |_: Request<()>| {
            let respond = respond.clone();
            async move { Ok::<_, Infallible>(respond()) }
        });
        with_middleware(app, &Cors { origins: vec![ALLOWED_ORIGIN], ..Cors::default() })
    }

    #[tokio::test]
    async fn a_panic_is_a_500_problem_with_cors_headers() {
        let app = app_that(|| panic!("the title was secret"));
        let response = call(app, Request::get("/").header(ORIGIN, ALLOWED_ORIGIN)).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], ALLOWED_ORIGIN);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(r#""code":"internal""#) && !body.contains("secret"), "{body}");
    }

    #[tokio::test]
    async fn of_options_requests_the_cors_layer_responds_only_to_preflights() {
        let respond = || {
            let mut response = Response::new(Full::default());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            response
        };
        let options = || Request::options("/").header(ORIGIN, ALLOWED_ORIGIN);
        let plain = call(app_that(respond), options()).await;
        assert_eq!(plain.headers()[ALLOW], "GET");
        let preflight = call(app_that(respond), options().header(ACCESS_CONTROL_REQUEST_METHOD, "PUT")).await;
        assert!(preflight.headers().contains_key(ACCESS_CONTROL_ALLOW_METHODS));
        assert!(!preflight.headers().contains_key(ALLOW));
    }

    #[test]
    fn an_unknown_framework_is_rejected_with_the_known_names() {
        for framework in Framework::ALL {
            assert_eq!(Framework::from_name(framework.name()), Ok(*framework));
        }
        assert_eq!(Framework::from_name("rocket"), Err("\"rocket\" is not one of: axum, poem, warp".to_owned()));
        for name in Framework::NAMES {
            if let Err(problem) = Framework::from_name(name) {
                assert!(problem.contains(&format!("--features {name}")), "{problem}");
            }
        }
    }
}
