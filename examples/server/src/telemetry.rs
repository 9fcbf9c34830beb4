//! Logs and traces: one log line for each request, without its content.
//!
//! Logs go to standard error, since standard output is for the output of commands; [`crate::log_writer`] writes them, so
//! that no request waits for their reader. Headers, queries, bodies and claims
//! are never logged, at any level. For this reason other crates log at most warnings. What a client can put into a line
//! is short: its `x-request-id`, of at most 64 characters, and its trace id. [`crate::log_budget`] bounds the number of
//! lines.

use std::{
    convert::Infallible,
    error::Error,
    io::{self, IsTerminal as _},
    net::SocketAddr,
    panic,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use todo_core::api::ApiError;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Level, Span, level_filters::LevelFilter};
use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

#[cfg(feature = "otel")]
use crate::otel;
use crate::{
    app::{App, Body, X_REQUEST_ID},
    connection::Unreadable,
    failure::{Failure, error_chain, shortened},
    log_budget::{self, Line, LogBudget, WithinBudget},
    log_writer,
    metrics::requests::{self, KnownMethod, Route},
    settings::Log,
    trace::{Current, Parent},
};

/// The installed logging and tracing.
#[must_use]
#[derive(Debug)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otel")]
    exporter: otel::Exporter,
}

impl Telemetry {
    /// Sends the spans that have not been sent yet.
    #[cfg_attr(not(feature = "otel"), expect(clippy::unused_async, reason = "only the exporter has to be awaited"))]
    pub(crate) async fn finish(self) {
        #[cfg(feature = "otel")]
        self.exporter.finish().await;
    }
}

/// Starts to log, and to export traces if the environment asks for it. Panics are logged in the same format.
pub(crate) fn install(log: Log) -> Result<Telemetry, Failure> {
    let targets = Targets::new()
        .with_default(log.level.min(LevelFilter::WARN))
        .with_target("todo_core", log.level)
        .with_target("todo_server", log.level)
        // It logs unknown parameters of a URL, and such a parameter may be a password.
        .with_target("sqlx_postgres::options", LevelFilter::OFF);
    #[cfg(feature = "otel")]
    let targets = targets.with_target(otel::TARGET, LevelFilter::OFF);
    let writer =
        log_writer::start().map_err(|error| Failure::fatal(format!("cannot start the thread of the log: {error}")))?;
    let lines = fmt::layer().with_writer(writer);
    let lines = if log.json {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        lines.with_ansi(io::stderr().is_terminal() && !no_color).boxed()
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(WithinBudget::new(targets, log.level)));
    #[cfg(feature = "otel")]
    let exporter = otel::Exporter::from_environment().map_err(Failure::fatal)?;
    #[cfg(feature = "otel")]
    match exporter.layer() {
        // Not `with(Option)`: a layer that is `None` enables every span.
        Some(traces) => registry.with(traces).init(),
        None => registry.init(),
    }
    #[cfg(not(feature = "otel"))]
    registry.init();
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panicked: {}", shortened(panic.payload_as_str().unwrap_or("(no text)")));
    }));
    Ok(Telemetry {
        #[cfg(feature = "otel")]
        exporter,
    })
}

/// Responds to a request, logs and counts it, and puts its `x-request-id` on the response.
pub(crate) async fn observe<B>(
    app: App<B>,
    mut request: Request<B>,
    lines: LogBudget,
) -> Result<Response<Body>, Infallible> {
    let id = request_id(request.headers());
    request.headers_mut().insert(X_REQUEST_ID, id.clone());
    let mut observed = ObservedRequest::new(&request, lines.clone());
    let parent = Parent::from_headers(request.headers());
    let trace = Current::unrecorded(parent, request.headers());
    #[cfg(feature = "otel")]
    let (exported, trace) = observed.begin_export(parent, request.headers()).unwrap_or((Span::none(), trace));
    #[cfg(not(feature = "otel"))]
    let exported = Span::none();
    // At the level of errors, so that log lines of every level are within the span.
    let span = tracing::error_span!(
        parent: &exported,
        "request",
        id = %id.to_str().unwrap_or_default(),
        trace_id = %trace.trace
    );
    #[cfg(feature = "otel")]
    let ending = exported.clone();
    let responding = trace.scope(async move {
        let Ok(mut response) = app.oneshot(request).await;
        response.headers_mut().insert(X_REQUEST_ID, id);
        #[cfg(feature = "otel")]
        otel::end(&ending, response.status());
        observed.responded(&response);
        Ok(response)
    });
    lines.scope(responding.instrument(span).instrument(exported)).await
}

/// Logs and counts a request that could not be read, so that it has no response of the API.
pub(crate) fn unreadable(reason: Unreadable, peer: SocketAddr, error: &(dyn Error + 'static), lines: &LogBudget) {
    requests::unreadable(reason);
    if lines.allows(Level::INFO, Line::Other) {
        let (text, reason, error) = (reason.explanation(), reason.name(), error_chain(error));
        tracing::info!(target: log_budget::TARGET, reason, %peer, error, "{text}");
    }
}

/// The `x-request-id` of the request if it is at most 64 visible ASCII characters, otherwise a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(X_REQUEST_ID).iter();
    if let (Some(id), None) = (given.next(), given.next())
        && (1..=64).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return id.clone();
    }
    new_request_id()
}

/// A random number for the process, and a counter.
fn new_request_id() -> HeaderValue {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| {
        let mut bytes = [0; 8];
        // Without randomness ids may repeat after a restart. Nothing else depends on them.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::try_from(format!("{process:016x}-{count:x}")).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// A request that is logged and counted when it has a response, or when it is dropped without one because the client
/// disconnected or the server stopped.
struct ObservedRequest {
    method: KnownMethod,
    route: Route,
    lines: LogBudget,
    began: Instant,
    has_response: bool,
}

impl ObservedRequest {
    fn new<B>(request: &Request<B>, lines: LogBudget) -> Self {
        requests::begun();
        Self {
            method: KnownMethod::of(request.method()),
            route: Route::of(request.uri().path()),
            lines,
            began: Instant::now(),
            has_response: false,
        }
    }

    /// The exported span and its trace; `None` if the request is not exported.
    #[cfg(feature = "otel")]
    fn begin_export(&self, parent: Option<Parent>, headers: &HeaderMap) -> Option<(Span, Current)> {
        otel::begin(parent, headers, self.method.name(), self.route.template())
    }

    fn milliseconds(&self) -> f64 {
        (self.began.elapsed().as_secs_f64() * 1_000_000.0).round() / 1000.0
    }

    fn responded(&mut self, response: &Response<Body>) {
        self.has_response = true;
        let error = response.extensions().get::<Arc<ApiError>>();
        requests::responded(self.route, self.method, response.status(), self.began.elapsed());
        if let Some(ApiError::Auth(rejection)) = error.map(|error| &**error) {
            requests::rejected(rejection);
        }
        let (method, path, duration_ms) = (self.method.name(), self.route.template(), self.milliseconds());
        let succeeded = response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED;
        let status = response.status().as_u16();
        let code = error.map(|error| error.code());
        // Without a token there is no success, except for OPTIONS.
        let is_signed_in = self.route.needs_token() && self.method != KnownMethod::OPTIONS;
        let line = if succeeded && is_signed_in { Line::Served } else { Line::Other };
        // Probes arrive every few seconds; only their failures are worth a line.
        if path.starts_with("/health") && succeeded {
            if self.lines.allows(Level::DEBUG, line) {
                tracing::debug!(target: log_budget::TARGET, method, path, status, duration_ms, "response");
            }
        } else if self.lines.allows(Level::INFO, line) {
            tracing::info!(target: log_budget::TARGET, method, path, status, code, duration_ms, "response");
        }
    }
}

impl Drop for ObservedRequest {
    fn drop(&mut self) {
        requests::ended();
        if !self.has_response {
            requests::abandoned(self.route, self.method);
            if self.lines.allows(Level::INFO, Line::Other) {
                let (method, path, duration_ms) = (self.method.name(), self.route.template(), self.milliseconds());
                tracing::info!(target: log_budget::TARGET, method, path, duration_ms, "no response");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_request_id_is_kept_and_others_are_replaced() {
        let id_for = |given: &[&str]| {
            let mut headers = HeaderMap::new();
            for id in given {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).expect("a value"));
            }
            request_id(&headers)
        };
        let longest = "x".repeat(64);
        for kept in ["a", "0194f0b2-7a5e-7c3e-8d5f-3a1b2c3d4e5f", "{\"a\":1}", &longest] {
            assert_eq!(id_for(&[kept]), kept);
        }
        for replaced in [&["a b"][..], &["\u{fc}"], &[""], &["a", "a"], &[&"x".repeat(65)], &[]] {
            let id = id_for(replaced);
            assert!(id.len() >= 18 && !replaced.contains(&id.to_str().expect("text")), "{id:?}");
        }
        assert_ne!(id_for(&[]), id_for(&[]));
    }
}
