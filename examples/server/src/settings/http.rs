//! The settings of HTTP.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use todo_core::{api::TodoApi, auth::Rate};
use url::Url;

use super::{
    Sources,
    parse::{choice, list, within},
    quoted,
};
use crate::{
    app::Framework,
    connection::DEFAULT_MIB,
    cors::Cors,
    serve::{Stop, StopSignals},
};

#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) framework: Framework,
    pub(crate) cors: Cors,
    pub(crate) body_limit: usize,
    pub(crate) timeout: Duration,
    pub(crate) max_connections: usize,
    /// The budget for the memory that connections hold, in MiB.
    pub(crate) connection_memory: usize,
    /// The rate limit of each user, if there is one.
    pub(crate) rate_limit: Option<Rate>,
    /// Whether changes of single tasks need a precondition.
    pub(crate) require_preconditions: bool,
    /// The memory for rendered responses, in MiB.
    pub(crate) cache: usize,
    /// How long connections are accepted after a stop signal.
    pub(crate) shutdown_delay: Duration,
}

impl Http {
    /// Returns `None` if a mistake was added to `sources`.
    pub(crate) fn read(sources: &mut Sources) -> Option<Self> {
        let framework = match sources.get("FRAMEWORK") {
            Some(_) => sources.read("FRAMEWORK", Framework::from_name),
            None => match Framework::from_name("axum") {
                Ok(framework) => Some(framework),
                Err(problem) => {
                    sources.reject("FRAMEWORK", problem);
                    None
                }
            },
        };
        let origins = sources.read("ALLOWED_ORIGINS", origins).unwrap_or_else(|| {
            ["http://localhost:3000", "http://127.0.0.1:3000"].map(HeaderValue::from_static).to_vec()
        });
        let headers = sources.read("ALLOWED_HEADERS", header_names).unwrap_or_default();
        let credentials = choice(sources, "ALLOW_CREDENTIALS", [("off", false), ("on", true)]);
        let body_limit = sources.read("BODY_LIMIT", within(1024..=16 * 1024 * 1024));
        let timeout = sources.read("REQUEST_TIMEOUT_SECONDS", within(1..=300));
        let max_connections = sources.read("MAX_CONNECTIONS", within(1..=1_000_000));
        let connection_memory = sources.read("CONNECTION_MEMORY_MIB", within(1..=1_048_576));
        let rate_limit = sources.read("RATE_LIMIT", rate_limit).flatten();
        let require_preconditions = choice(sources, "REQUIRE_PRECONDITIONS", [("off", false), ("on", true)]);
        let cache = sources.read("CACHE_MEGABYTES", within(0..=65_536));
        let shutdown_delay = sources.read("SHUTDOWN_DELAY_SECONDS", within(0..=3600));
        Some(Self {
            framework: framework?,
            cors: Cors { origins, headers, credentials },
            body_limit: body_limit.unwrap_or(64 * 1024),
            timeout: Duration::from_secs(timeout.unwrap_or(10)),
            max_connections: max_connections.unwrap_or(10_000),
            connection_memory: connection_memory.unwrap_or(DEFAULT_MIB),
            rate_limit,
            require_preconditions,
            cache: cache.unwrap_or(16),
            shutdown_delay: Duration::from_secs(shutdown_delay.unwrap_or(0)),
        })
    }

    /// How to stop. Open requests have the time limit of a request, and 5 seconds for the client to read the response.
    pub(crate) fn stop(&self, signals: StopSignals, api: TodoApi) -> Stop {
        Stop { signals, api, delay: self.shutdown_delay, grace: self.timeout + Duration::from_secs(5) }
    }
}

pub(super) fn origins(text: &str) -> Result<Vec<HeaderValue>, String> {
    let (mut origins, mut problems) = (Vec::new(), Vec::new());
    for text in list(text)? {
        match origin(&text) {
            Ok(origin) => origins.push(origin),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(origins) } else { Err(problems.join("; ")) }
}

/// A website, as browsers write it in the header `Origin`.
fn origin(text: &str) -> Result<HeaderValue, String> {
    if text == "*" {
        return Err("\"*\" would let the scripts of every website call the API; list the allowed origins".to_owned());
    }
    if text.contains('*') {
        return Err(format!("{} is a pattern; list the origins one by one", quoted(text)));
    }
    let example = "is not an origin, such as https://app.example.com";
    let host = Url::parse(text).ok().filter(Url::has_host);
    let Some(url) = host else {
        return Err(format!("{} {example}", quoted(text)));
    };
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let canonical = format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default());
    if text != canonical {
        return Err(format!("{} {example}: did you mean {canonical}?", quoted(text)));
    }
    HeaderValue::try_from(canonical).map_err(|_| format!("{} {example}", quoted(text)))
}

fn header_names(text: &str) -> Result<Vec<HeaderName>, String> {
    let name = |text: String| {
        HeaderName::try_from(&text).map_err(|_| format!("{} is not the name of a header", quoted(&text)))
    };
    list(text)?.into_iter().map(name).collect()
}

fn rate_limit(text: &str) -> Result<Option<Rate>, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| format!("{} is neither off nor a rate: {error}", quoted(text)))
}
