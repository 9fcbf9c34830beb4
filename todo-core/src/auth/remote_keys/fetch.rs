//! Fetches a key set over HTTP.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, Shared};
use reqwest::{
    Certificate, Proxy, StatusCode, Url,
    header::{
        CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
        RETRY_AFTER,
    },
    redirect,
};

use crate::auth::{
    error::InvalidSource,
    key_set::{InvalidJwks, JwkSet},
    rejection_log::{innermost, shown},
};

/// The maximum size of a document.
const MAX_BYTES: usize = 1024 * 1024;

/// Why a key set cannot be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The key server did not respond, or the response was broken.
    #[error("the key server cannot be reached: {cause}")]
    Unreachable {
        /// The innermost cause, such as a refused connection or an unknown certificate authority.
        cause: String,
    },
    /// The response has another status than 200.
    #[error("the key server responded with status {0}")]
    Status(u16),
    /// The response is a redirect. Redirects are not followed, since keys must come from the given address.
    #[error("the key server responded with status {status}, a redirect to {location}, which is not followed")]
    Redirect {
        /// The status.
        status: u16,
        /// Where it leads, without credentials and query.
        location: String,
    },
    /// The document is larger than 1 MiB.
    #[error("the key set is larger than 1 MiB")]
    TooLarge,
    /// The document is not a valid key set.
    #[error("the response of the key server {problem}; its content type is {content_type}")]
    Document {
        /// What is wrong with the document.
        problem: InvalidJwks,
        /// The content type of the response.
        content_type: String,
    },
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

/// How key sets are fetched.
pub(super) struct Access {
    pub(super) allow_insecure_http: bool,
    pub(super) timeout: Duration,
    pub(super) headers: Headers,
    pub(super) proxy: Option<String>,
    /// Certificates in PEM format.
    pub(super) roots: Vec<Vec<u8>>,
}

/// Without the proxy, whose URL may contain a password.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("allow_insecure_http", &self.allow_insecure_http)
            .field("timeout", &self.timeout)
            .field("has_proxy", &self.proxy.is_some())
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// The client for one key set.
pub(super) struct Fetcher {
    pub(super) url: Url,
    pub(super) timeout: Duration,
    /// The proxy, without credentials.
    pub(super) proxy: Option<String>,
    client: reqwest::Client,
    headers: Headers,
}

impl Fetcher {
    pub(super) fn new(url: &str, access: Access) -> Result<Self, InvalidSource> {
        let Access { allow_insecure_http, timeout, headers, proxy, roots } = access;
        let url = Url::parse(url).map_err(|_| InvalidSource::Url)?;
        let is_allowed = match url.scheme() {
            "https" => true,
            "http" => allow_insecure_http || is_loopback(&url),
            _ => false,
        };
        if !is_allowed || !url.has_host() {
            return Err(InvalidSource::Url);
        }
        let mut client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            // A proxy from the environment could replace the keys of an issuer on this machine.
            .no_proxy()
            .timeout(timeout)
            .user_agent(concat!("todo-core/", env!("CARGO_PKG_VERSION")));
        let mut shown_proxy = None;
        if let Some(proxy) = proxy {
            let address = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
            let parsed = Url::parse(&address).ok().filter(Url::has_host);
            let parsed = parsed.filter(|url| ["http", "https"].contains(&url.scheme())).ok_or(InvalidSource::Proxy)?;
            shown_proxy = Some(shown_url(&parsed));
            client = client.proxy(Proxy::all(address).map_err(|_| InvalidSource::Proxy)?);
        }
        let has_roots = !roots.is_empty();
        for pem in roots {
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| InvalidSource::RootCertificates)?;
            if certificates.is_empty() {
                return Err(InvalidSource::RootCertificates);
            }
            client = client.tls_certs_merge(certificates);
        }
        // With certificates of the host, it does not matter if the platform has none.
        let failed = |error| {
            if has_roots { InvalidSource::RootCertificates } else { InvalidSource::Client { cause: innermost(&error) } }
        };
        let client = client.build().map_err(failed)?;
        Ok(Self { url, timeout, proxy: shown_proxy, client, headers })
    }

    /// The URL for the log.
    pub(super) fn shown_url(&self) -> String {
        shown_url(&self.url)
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
        fetch(self.client.get(self.url.clone()).headers(headers).headers(conditions), self.url.clone())
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

/// A URL for the log: without credentials, query and fragment, which may be secret.
fn shown_url(url: &Url) -> String {
    let mut url = url.clone();
    // This fails only for URLs that cannot have any.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    shown(url.as_str())
}

async fn fetch(request: reqwest::RequestBuilder, url: Url) -> FetchResult {
    let failed = |error| Arc::new(Failed { error, retry_after: None });
    let unreachable = |error: reqwest::Error| {
        // The URL may contain a secret, so it is kept out of logs.
        failed(FetchError::Unreachable { cause: innermost(&error.without_url()) })
    };
    let mut response = request.send().await.map_err(unreachable)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(Arc::new(Fetched::NotModified)),
        status => {
            let headers = response.headers();
            let location = headers.get(LOCATION).filter(|_| status.is_redirection());
            let location = location.and_then(|location| url.join(location.to_str().ok()?).ok());
            let error = match location {
                Some(location) => FetchError::Redirect { status: status.as_u16(), location: shown_url(&location) },
                None => FetchError::Status(status.as_u16()),
            };
            return Err(Arc::new(Failed { error, retry_after: retry_after(headers) }));
        }
    }
    let conditions = conditions(response.headers());
    let content_type = response.headers().get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let content_type = content_type.map_or_else(|| "(none)".to_owned(), |value| shown(&value));
    let invalid = |problem| failed(FetchError::Document { problem, content_type: content_type.clone() });
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if document.len() + chunk.len() > MAX_BYTES {
            return Err(failed(FetchError::TooLarge));
        }
        document.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(document).map_err(|_| invalid(InvalidJwks::NotJwks))?;
    let keys = JwkSet::from_json(&text).map_err(&invalid)?;
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
