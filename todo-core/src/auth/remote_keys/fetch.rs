//! Fetches a key set over HTTP.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, Shared};
use reqwest::{
    StatusCode, Url,
    header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER},
    redirect,
};

use crate::auth::{
    error::InvalidSource,
    key_set::{InvalidJwks, JwkSet},
};

/// The maximum size of a document.
const MAX_BYTES: usize = 1024 * 1024;

/// Why a key set cannot be fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The key server did not respond, or the response was broken.
    #[error("the key server cannot be reached")]
    Unreachable(#[source] Arc<reqwest::Error>),
    /// The response has another status than 200. Redirects are not followed.
    #[error("the key server responded with status {0}")]
    Status(u16),
    /// The document is larger than 1 MiB.
    #[error("the key set is larger than 1 MiB")]
    TooLarge,
    /// The document is not a valid key set.
    #[error("the response of the key server {0}")]
    Document(#[from] InvalidJwks),
    /// The previous fetch was too recent.
    #[error("the next fetch is allowed in {0:?}")]
    Paused(Duration),
    /// The fetch did not end, because the tokio runtime in which it started was shut down or is not driven.
    #[error("the fetch of the key set did not end")]
    Lost,
    /// No fetch succeeded within the allowed time, or ever.
    #[error("the key set is too old or was never fetched")]
    Stale,
}

pub(super) type FetchResult = Result<Arc<Fetched>, Arc<Failed>>;

/// The end of a fetch, which runs in a task of its own. `None` if the task did not end: its runtime was shut down.
pub(super) type FetchEnd = Shared<BoxFuture<'static, Option<FetchResult>>>;

pub(super) enum Fetched {
    NotModified,
    Document {
        text: String,
        keys: JwkSet,
        /// The headers for the next, conditional request (RFC 9110, section 13).
        conditions: HeaderMap,
    },
}

pub(super) struct Failed {
    pub(super) error: FetchError,
    pub(super) retry_after: Option<Duration>,
}

/// The headers that the host adds to each fetch.
pub(super) struct Headers(pub(super) Box<dyn Fn() -> HeaderMap + Send + Sync>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

/// The client for one key set.
pub(super) struct Fetcher {
    pub(super) url: Url,
    pub(super) timeout: Duration,
    client: reqwest::Client,
    headers: Headers,
}

impl Fetcher {
    pub(super) fn new(
        url: &str,
        allow_insecure_http: bool,
        timeout: Duration,
        headers: Headers,
    ) -> Result<Self, InvalidSource> {
        let url = Url::parse(url).map_err(|_| InvalidSource::Url)?;
        let is_allowed = match url.scheme() {
            "https" => true,
            "http" => allow_insecure_http || is_loopback(&url),
            _ => false,
        };
        if !is_allowed || !url.has_host() {
            return Err(InvalidSource::Url);
        }
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            // A proxy from the environment could replace the keys of an issuer on this machine.
            .no_proxy()
            .timeout(timeout)
            .user_agent(concat!("todo-core/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| InvalidSource::Client)?;
        Ok(Self { url, timeout, client, headers })
    }

    /// Returns the headers of the host for a new fetch.
    pub(super) fn headers(&self) -> HeaderMap {
        (self.headers.0)()
    }

    /// Returns a new fetch. It starts when it is polled, and ends within the timeout.
    pub(super) fn fetch(
        &self,
        headers: HeaderMap,
        conditions: HeaderMap,
    ) -> impl Future<Output = FetchResult> + Send + use<> {
        fetch(self.client.get(self.url.clone()).headers(headers).headers(conditions))
    }
}

/// Whether the URL is on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|host| host.is_loopback()),
        None => false,
    }
}

async fn fetch(request: reqwest::RequestBuilder) -> FetchResult {
    let failed = |error| Arc::new(Failed { error, retry_after: None });
    let unreachable = |error: reqwest::Error| {
        // The URL may contain a secret, so it is kept out of logs.
        failed(FetchError::Unreachable(Arc::new(error.without_url())))
    };
    let mut response = request.send().await.map_err(unreachable)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(Arc::new(Fetched::NotModified)),
        status => {
            let retry_after = retry_after(response.headers());
            return Err(Arc::new(Failed { error: FetchError::Status(status.as_u16()), retry_after }));
        }
    }
    let conditions = conditions(response.headers());
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if document.len() + chunk.len() > MAX_BYTES {
            return Err(failed(FetchError::TooLarge));
        }
        document.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(document).map_err(|_| failed(InvalidJwks::NotJwks.into()))?;
    let keys = JwkSet::from_json(&text).map_err(|error| failed(error.into()))?;
    Ok(Arc::new(Fetched::Document { text, keys, conditions }))
}

fn conditions(headers: &HeaderMap) -> HeaderMap {
    let mut conditions = HeaderMap::new();
    for (offered, condition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) = headers.get(offered) {
            conditions.insert(condition, value.clone());
        }
    }
    conditions
}

/// Better Auth sends `X-Retry-After`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    [RETRY_AFTER, HeaderName::from_static("x-retry-after")]
        .iter()
        .find_map(|name| headers.get(name)?.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs)
}
