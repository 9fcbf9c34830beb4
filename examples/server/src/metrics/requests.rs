//! Counts requests and their durations, in a table of atomics with a cell for each route, method and status.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use todo_core::{
    api::{DOCS, PROBES, RESOURCES, Resource, find_resource},
    auth::AuthError,
};

use super::text::Text;
use crate::{connection::Unreadable, log_budget, log_writer};

/// The resources at each mount. A mount comes before a shorter mount that is its prefix.
static MOUNTS: [(&str, &[Resource]); 4] = [("/api/v1", RESOURCES), ("/api", RESOURCES), ("", PROBES), ("", DOCS)];

const ROUTES: usize = 2 * RESOURCES.len() + PROBES.len() + DOCS.len() + 1;

/// The path templates of all routes, in the order of [`MOUNTS`], and "unknown" for all other paths.
static TEMPLATES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let templates =
        MOUNTS.iter().flat_map(|(mount, resources)| resources.iter().map(move |one| format!("{mount}{}", one.path)));
    templates.chain(["unknown".to_owned()]).collect()
});

/// The route of a request. Logs and metrics show its template instead of the path, which contains user ids and
/// arbitrary text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route(usize);

impl Route {
    pub(crate) fn of(path: &str) -> Self {
        let mut first = 0;
        for (mount, resources) in &MOUNTS {
            if let Some(path) = path.strip_prefix(mount)
                && let Some(found) = find_resource(resources, path)
                && let Some(position) = resources.iter().position(|resource| std::ptr::eq(resource, found))
            {
                return Self(first + position);
            }
            first += resources.len();
        }
        Self(ROUTES - 1)
    }

    /// Whether requests to it need a token.
    pub(crate) fn needs_token(self) -> bool {
        // The first two mounts.
        self.0 < 2 * RESOURCES.len()
    }

    pub(crate) fn template(self) -> &'static str {
        TEMPLATES.get(self.0).map_or("unknown", String::as_str)
    }
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];

/// The method of a request, or "other". Logs, traces and metrics show it instead of the method, which may be thousands
/// of characters of arbitrary text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownMethod(usize);

impl KnownMethod {
    pub(crate) const OPTIONS: Self = Self(METHODS.len() - 2);

    pub(crate) fn of(method: &Method) -> Self {
        let others = METHODS.len() - 1;
        Self(METHODS[..others].iter().position(|name| *name == method.as_str()).unwrap_or(others))
    }

    pub(crate) fn name(self) -> &'static str {
        METHODS.get(self.0).copied().unwrap_or("other")
    }
}

/// "other" is for all other statuses.
const STATUSES: [&str; 25] = [
    "200", "201", "204", "304", "400", "401", "403", "404", "405", "406", "408", "409", "410", "412", "413", "414",
    "415", "422", "428", "429", "431", "500", "501", "503", "other",
];

/// Upper bounds of the buckets, in microseconds.
const BOUNDS: [u32; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// The requests of one route and method.
struct Series {
    statuses: [AtomicU64; STATUSES.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    abandoned: AtomicU64,
}

impl Series {
    const fn new() -> Self {
        Self {
            statuses: [const { AtomicU64::new(0) }; STATUSES.len()],
            buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            micros: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
        }
    }
}

static SERIES: [[Series; METHODS.len()]; ROUTES] = [const { [const { Series::new() }; METHODS.len()] }; ROUTES];
static IN_FLIGHT: AtomicI64 = AtomicI64::new(0);
/// In the order of [`AuthError::REASONS`].
static REJECTIONS: [AtomicU64; AuthError::REASONS.len()] = [const { AtomicU64::new(0) }; AuthError::REASONS.len()];
/// In the order of [`Unreadable::ALL`].
static UNREADABLE: [AtomicU64; Unreadable::ALL.len()] = [const { AtomicU64::new(0) }; Unreadable::ALL.len()];

fn series(route: Route, method: KnownMethod) -> &'static Series {
    &SERIES[route.0][method.0]
}

/// Counts a request in flight.
pub(crate) fn begun() {
    IN_FLIGHT.fetch_add(1, Relaxed);
}

/// Counts the end of a request, with or without a response.
pub(crate) fn ended() {
    IN_FLIGHT.fetch_sub(1, Relaxed);
}

/// Counts a response.
pub(crate) fn responded(route: Route, method: KnownMethod, status: StatusCode, duration: Duration) {
    let series = series(route, method);
    let others = STATUSES.len() - 1;
    let status = STATUSES[..others].iter().position(|name| *name == status.as_str()).unwrap_or(others);
    series.statuses[status].fetch_add(1, Relaxed);
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let bucket = BOUNDS.iter().position(|bound| micros <= u64::from(*bound)).unwrap_or(BOUNDS.len());
    series.buckets[bucket].fetch_add(1, Relaxed);
    series.micros.fetch_add(micros, Relaxed);
}

/// Counts a request without a response, because the client disconnected or the server stopped.
pub(crate) fn abandoned(route: Route, method: KnownMethod) {
    series(route, method).abandoned.fetch_add(1, Relaxed);
}

/// Counts a request that the authenticator or the rate limit has rejected.
pub(crate) fn rejected(error: &AuthError) {
    if let Some(reason) = AuthError::REASONS.iter().position(|reason| *reason == error.reason()) {
        REJECTIONS[reason].fetch_add(1, Relaxed);
    }
}

/// Counts a request that could not be read.
pub(crate) fn unreadable(reason: Unreadable) {
    UNREADABLE[reason as usize].fetch_add(1, Relaxed);
}

/// The counters of every route and method, with their labels.
fn all() -> impl Iterator<Item = ([(&'static str, &'static str); 2], &'static Series)> {
    SERIES.iter().enumerate().flat_map(|(route, methods)| {
        let route = Route(route).template();
        METHODS.iter().zip(methods).map(move |(method, series)| ([("route", route), ("method", method)], series))
    })
}

pub(super) fn render(text: &mut Text) {
    let name = "http_requests_total";
    text.family(name, "counter", "Requests with a response, by path template, method and status.");
    for ([route, method], series) in all() {
        for (status, count) in STATUSES.iter().zip(&series.statuses) {
            let count = count.load(Relaxed);
            if count > 0 {
                text.sample(name, &[route, method, ("status", status)], count);
            }
        }
    }
    let name = "http_request_duration_seconds";
    text.family(name, "histogram", "Time from the head of a request to the head of its response.");
    let bounds = BOUNDS.map(|micros| f64::from(micros) / 1e6);
    for (labels, series) in all() {
        let counts = series.buckets.each_ref().map(|bucket| bucket.load(Relaxed));
        if counts.iter().any(|count| *count > 0) {
            let sum = Duration::from_micros(series.micros.load(Relaxed)).as_secs_f64();
            text.histogram(name, &labels, &bounds, &counts, sum);
        }
    }
    let name = "http_requests_abandoned_total";
    text.family(name, "counter", "Requests without a response, because the client disconnected.");
    for (labels, series) in all() {
        let count = series.abandoned.load(Relaxed);
        if count > 0 {
            text.sample(name, &labels, count);
        }
    }
    let name = "http_requests_in_flight";
    text.family(name, "gauge", "Requests without a response yet.");
    text.sample(name, &[], IN_FLIGHT.load(Relaxed));
    let name = "todo_auth_refusals_total";
    text.family(name, "counter", "Requests rejected by the authenticator or the rate limit, by reason.");
    for (reason, count) in AuthError::REASONS.iter().zip(&REJECTIONS) {
        text.sample(name, &[("reason", reason)], count.load(Relaxed));
    }
    let name = "todo_unreadable_requests_total";
    text.family(name, "counter", "Requests that could not be read as HTTP, by reason.");
    for (reason, count) in Unreadable::ALL.iter().zip(&UNREADABLE) {
        text.sample(name, &[("reason", reason.name())], count.load(Relaxed));
    }
    let name = "todo_log_lines_left_out_total";
    text.family(name, "counter", "Log lines left out because their connection had caused too many.");
    text.sample(name, &[], log_budget::left_out());
    let name = "todo_log_lines_dropped_total";
    text.family(name, "counter", "Log lines dropped because standard error was not read in time.");
    text.sample(name, &[], log_writer::dropped());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_the_template_of_its_route() {
        for (path, template) in [
            ("/api/tasks", "/api/tasks"),
            ("/api/v1/tasks", "/api/v1/tasks"),
            ("/api/ann/tasks/7", "/api/{user_id}/tasks/{id}"),
            ("/api/v1/ann/tasks/7/complete", "/api/v1/{user_id}/tasks/{id}/complete"),
            ("/api/v1/auth/session", "/api/v1/auth/session"),
            ("/health", "/health"),
            ("/health/ready", "/health/ready"),
            ("/tasks", "unknown"),
            ("/api/v2/a/b/c/d", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(Route::of(path).template(), template, "{path}");
        }
        assert_eq!(TEMPLATES.len(), ROUTES);
    }

    #[test]
    fn unknown_paths_methods_and_statuses_add_no_series() {
        let before = all().count();
        let (path, method) = ("/metrics-test/that/is/unknown", Method::from_bytes(b"BREW").expect("a method"));
        let method = KnownMethod::of(&method);
        assert_eq!((method.name(), KnownMethod::OPTIONS.name()), ("other", "OPTIONS"));
        assert!(!Route::of(path).needs_token() && !Route::of("/health").needs_token());
        assert!(Route::of("/api/tasks").needs_token() && Route::of("/api/v1/ann/tasks/7").needs_token());
        responded(Route::of(path), method, StatusCode::IM_A_TEAPOT, Duration::from_mins(3));
        let mut text = Text::default();
        render(&mut text);
        let text = text.into_string();
        let labels = r#"route="unknown",method="other""#;
        for line in [
            format!(r#"http_requests_total{{{labels},status="other"}} 1"#),
            format!(r#"http_request_duration_seconds_bucket{{{labels},le="10"}} 0"#),
            format!(r#"http_request_duration_seconds_bucket{{{labels},le="+Inf"}} 1"#),
            format!("http_request_duration_seconds_sum{{{labels}}} 180"),
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
        assert_eq!(all().count(), before);
    }
}
