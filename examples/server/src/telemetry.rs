//! Logs: one line for each request, with its name and without what it holds.
//!
//! Logs go to the standard error, so that the standard output is what somebody asked for. Headers, queries, bodies and
//! claims are never logged, at no level; that is also why what other crates have to say is cut at warnings.

use std::{
    convert::Infallible,
    io::{self, IsTerminal as _},
    panic,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use todo_core::api::ApiError;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Span, level_filters::LevelFilter};
use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    app::{App, Body, X_REQUEST_ID},
    failure::Failure,
    metrics::requests::{self, Route},
    otel,
    settings::Log,
    trace::{Current, Parent},
    untaken::Untaken,
};

/// What was installed.
#[must_use]
#[derive(Debug)]
pub(crate) struct Telemetry {
    exporter: otel::Exporter,
}

impl Telemetry {
    /// Sends what has not been sent yet.
    pub(crate) async fn finish(self) {
        self.exporter.finish().await;
    }
}

/// Begins to log, and to trace if that is asked for. Panics are logged too, in the same form as the rest.
pub(crate) fn install(log: Log) -> Result<Telemetry, Failure> {
    let ours = Targets::new()
        .with_default(log.level.min(LevelFilter::WARN))
        .with_target("todo_core", log.level)
        .with_target("todo_server", log.level)
        // It repeats what it does not know of a URL, which may be a password by another name.
        .with_target("sqlx_postgres::options", LevelFilter::OFF)
        .with_target(otel::TARGET, LevelFilter::OFF);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = if log.json {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        lines.with_ansi(io::stderr().is_terminal() && !plain).boxed()
    };
    let exporter = otel::Exporter::of_environment().map_err(Failure::fatal)?;
    let registry = tracing_subscriber::registry().with(lines.with_filter(ours));
    // Not as an `Option`: a layer that is none takes part in everything.
    match exporter.layer() {
        Some(traces) => registry.with(traces).init(),
        None => registry.init(),
    }
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic: {}", panic.payload_as_str().unwrap_or("of no text"));
    }));
    Ok(Telemetry { exporter })
}

/// Answers a request and logs that it was, under its name. What its connection does not take counts.
pub(crate) async fn observe<B>(
    app: App<B>,
    mut request: Request<B>,
    untaken: Untaken,
) -> Result<Response<Body>, Infallible> {
    let multiplexed = request.version() == Version::HTTP_2;
    let id = request_id(request.headers());
    request.headers_mut().insert(X_REQUEST_ID, id.clone());
    let mut answer = Answer::to(&request);
    let parent = Parent::of(request.headers());
    let recorded = otel::begin(parent, request.headers(), answer.method.as_str(), answer.route.template());
    let (recorded, trace) = recorded.unwrap_or_else(|| (Span::none(), Current::unrecorded(parent, request.headers())));
    // An error, so that it is there for whatever else is logged.
    let span = tracing::error_span!(
        parent: &recorded,
        "request",
        id = %id.to_str().unwrap_or_default(),
        trace_id = %trace.trace
    );
    let ending = recorded.clone();
    let answering = trace.scope(async move {
        let Ok(mut response) = app.oneshot(request).await;
        if multiplexed {
            response = untaken.hold(response);
        }
        response.headers_mut().insert(X_REQUEST_ID, id);
        otel::end(&ending, response.status());
        answer.is(&response);
        Ok(response)
    });
    answering.instrument(span).instrument(recorded).await
}

/// The name that the caller gave to the request, if it is harmless, else a new one.
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

/// Different in each process, and counted within.
fn new_request_id() -> HeaderValue {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| {
        let mut bytes = [0; 8];
        // Without randomness identifiers repeat after a restart, and nothing else.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::try_from(format!("{process:016x}-{count:x}")).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// A line in the log, once the answer is there, or is given up because the caller has gone or the server ends.
struct Answer {
    method: Method,
    route: Route,
    began: Instant,
    given: bool,
}

impl Answer {
    fn to<B>(request: &Request<B>) -> Self {
        requests::begun();
        Self {
            method: request.method().clone(),
            route: Route::of(request.uri().path()),
            began: Instant::now(),
            given: false,
        }
    }

    fn milliseconds(&self) -> f64 {
        (self.began.elapsed().as_secs_f64() * 1_000_000.0).round() / 1000.0
    }

    fn is(&mut self, response: &Response<Body>) {
        self.given = true;
        let error = response.extensions().get::<Arc<ApiError>>();
        requests::answered(self.route, &self.method, response.status(), self.began.elapsed());
        if let Some(ApiError::Auth(refusal)) = error.map(|error| &**error) {
            requests::refused(refusal);
        }
        let (method, path, duration_ms) = (self.method.as_str(), self.route.template(), self.milliseconds());
        let status = response.status().as_u16();
        let code = error.map(|error| error.code());
        // Probes come every few seconds and are worth a line only when they fail.
        if path.starts_with("/health") && response.status().is_success() {
            tracing::debug!(target: "todo_server::http", method, path, status, duration_ms, "answered");
        } else {
            tracing::info!(target: "todo_server::http", method, path, status, code, duration_ms, "answered");
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        requests::ended();
        if !self.given {
            requests::abandoned(self.route, &self.method);
            let (method, path, duration_ms) = (self.method.as_str(), self.route.template(), self.milliseconds());
            tracing::info!(target: "todo_server::http", method, path, duration_ms, "not answered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_if_it_is_harmless() {
        let named = |names: &[&str]| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(name.as_bytes()).expect("a value"));
            }
            request_id(&headers)
        };
        let longest = "x".repeat(64);
        for kept in ["a", "0194f0b2-7a5e-7c3e-8d5f-3a1b2c3d4e5f", "{\"a\":1}", &longest] {
            assert_eq!(named(&[kept]), kept);
        }
        for replaced in [&["a b"][..], &["\u{fc}"], &[""], &["a", "a"], &[&"x".repeat(65)], &[]] {
            let id = named(replaced);
            assert!(id.len() >= 18 && !replaced.contains(&id.to_str().expect("text")), "{id:?}");
        }
        assert_ne!(named(&[]), named(&[]));
    }
}
