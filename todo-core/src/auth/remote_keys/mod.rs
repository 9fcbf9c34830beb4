//! Public keys that are fetched from the issuer and kept up to date.

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::task::JoinHandle;

use super::{
    error::{AuthError, InvalidSource},
    key::Algorithm,
};
use crate::clock::{Clock, SystemClock};

mod cache;
mod fetch;

pub use cache::JwksStatus;
pub(super) use cache::{CurrentKeys, Snapshot};
use cache::{KeyCache, MAX_PAUSE, Settings};
pub use fetch::FetchError;
use fetch::{Access, Fetcher, Headers};

/// The key set of an issuer, fetched over HTTP and kept up to date, for example from Better Auth.
///
/// With the default settings:
///
/// - **Age.** While the issuer responds, the keys that verify a token are at most 60 seconds old. A key that was
///   removed is therefore rejected within a minute. The first request after 30 seconds fetches the keys again.
/// - **New keys.** A token with an unknown `kid` causes a fetch at once, because Better Auth creates a key when it
///   signs the first token with it. All requests that need the key wait for the same fetch.
/// - **Rate.** Fetches start at least 10 seconds apart, however many tokens with random `kid`s arrive. In between, a
///   token with an unknown `kid` is rejected with 503 and `Retry-After`, because its key may be new. A `kid` that was
///   missing in a set which was fetched after the first token with it had arrived is rejected with 401, until a newer
///   set contains it. The last thousand of such `kid`s are remembered.
/// - **Task.** A fetch runs in a tokio task of its own, which ends within the timeout. A client that disconnects does
///   not interrupt the fetch that its token has caused.
/// - **Outages.** If the issuer does not respond, the last keys are used for one hour. After that, and before the first
///   successful fetch, requests are rejected with 503. A host can start without the issuer.
/// - **Changes.** New keys replace the old ones completely, even if the new set is empty.
/// - **HTTP.** Requests are conditional if the issuer sends an `ETag` or `Last-Modified`. `Retry-After` and
///   `X-Retry-After` of a failed response are honoured. Redirects are not followed, and a proxy is used only if it is
///   [set](RemoteJwksBuilder::proxy). A document of more than 1 MiB is rejected, and a fetch takes at most 5 seconds.
/// - **TLS.** The root certificates are those of the platform, and those that
///   [`add_root_certificates`](RemoteJwksBuilder::add_root_certificates) adds. (On Linux, the platform's are found as
///   OpenSSL finds them: the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` replace them.)
/// - **Log.** A failed fetch is a warning that names the URL without credentials, the status, where a redirect leads,
///   and the innermost cause.
///
/// Clones share the keys.
///
/// ```
/// use todo_core::auth::{JwtVerifier, KeySource, RemoteJwks};
///
/// let keys = RemoteJwks::builder("http://localhost:3000/api/auth/jwks").build()?;
/// let verifier = JwtVerifier::builder()
///     .source(KeySource::remote(keys).issuers(["https://app.example.com"]).audiences(["https://app.example.com"]))
///     .build()?;
/// # Ok::<(), todo_core::auth::InvalidSource>(())
/// ```
#[derive(Clone)]
pub struct RemoteJwks(Arc<KeyCache>);

/// Builds a [`RemoteJwks`].
#[derive(Debug)]
pub struct RemoteJwksBuilder {
    url: String,
    access: Access,
    settings: Settings,
    clock: Arc<dyn Clock>,
}

impl RemoteJwksBuilder {
    /// Allows `http://` to another machine, for an issuer in the same trusted network.
    ///
    /// Anyone who can change responses on the way can replace the keys and sign tokens for every user.
    #[must_use]
    pub fn allow_insecure_http(mut self) -> Self {
        self.access.allow_insecure_http = true;
        self
    }

    /// Sets the time limit of a fetch. Default: 5 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.access.timeout = timeout;
        self
    }

    /// Adds headers to each fetch, for example an API key or a trace context.
    ///
    /// The function is called once for each fetch, in the task and span of the request that starts the fetch. The
    /// headers `if-none-match` and `if-modified-since` are replaced by those of the conditional request. The headers
    /// are not logged; still, [mark secret values as sensitive](http::HeaderValue::set_sensitive). Default: none.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderName, HeaderValue};
    /// use todo_core::auth::RemoteJwks;
    ///
    /// let mut key = HeaderValue::from_static("the-key-of-this-service");
    /// key.set_sensitive(true);
    /// let keys = RemoteJwks::builder("https://keys.example.com/jwks")
    ///     .headers(move || HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), key.clone())]))
    ///     .build()?;
    /// # Ok::<(), todo_core::auth::InvalidSource>(())
    /// ```
    #[must_use]
    pub fn headers(mut self, headers: impl Fn() -> HeaderMap + Send + Sync + 'static) -> Self {
        self.access.headers = Headers(Box::new(headers));
        self
    }

    /// Fetches the keys through this HTTP proxy: `http://proxy.internal:3128`, also `http://user:password@..` or
    /// `https://..`. For an `https://` key set, the proxy only forwards encrypted data (CONNECT). Default: no proxy, also
    /// if the environment names one.
    ///
    /// ```
    /// use todo_core::auth::RemoteJwks;
    ///
    /// let keys = RemoteJwks::builder("https://app.example.com/api/auth/jwks").proxy("http://proxy.internal:3128").build()?;
    /// # Ok::<(), todo_core::auth::InvalidSource>(())
    /// ```
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.access.proxy = Some(url.into());
        self
    }

    /// Trusts these root certificates, in PEM format, in addition to those of the platform: for a key server whose
    /// certificate is of a private authority.
    #[must_use]
    pub fn add_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.access.roots.push(pem.into());
        self
    }

    /// Sets the maximum age of the keys while the issuer responds. The first request after half of this time fetches
    /// the keys again. Default: 60 seconds.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.settings.max_age = max_age;
        self.settings.refresh_after = max_age / 2;
        self
    }

    /// Sets the maximum age of the keys while the issuer does not respond. Default: 1 hour.
    #[must_use]
    pub fn max_stale(mut self, max_stale: Duration) -> Self {
        self.settings.max_stale = max_stale;
        self
    }

    /// Sets the minimum time between the starts of two fetches, at most 5 minutes. Default: 10 seconds.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.settings.pause = pause.min(MAX_PAUSE);
        self
    }

    /// Sets the clock for the age of the keys. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns the key set. The keys are fetched when they are first needed.
    ///
    /// # Errors
    ///
    /// [`InvalidSource::Url`], if the URL is invalid, or is `http://` to another machine without
    /// [`allow_insecure_http`](Self::allow_insecure_http). [`InvalidSource::Proxy`] and
    /// [`InvalidSource::RootCertificates`], if these are invalid. [`InvalidSource::Client`], if the HTTP client cannot be
    /// created.
    pub fn build(self) -> Result<RemoteJwks, InvalidSource> {
        let fetcher = Fetcher::new(&self.url, self.access)?;
        Ok(RemoteJwks(Arc::new(KeyCache::new(fetcher, self.settings, self.clock))))
    }
}

impl RemoteJwks {
    /// Starts building a key set that is fetched from this URL: `https://`, or `http://` to this machine.
    #[must_use]
    pub fn builder(url: impl Into<String>) -> RemoteJwksBuilder {
        RemoteJwksBuilder {
            url: url.into(),
            access: Access {
                allow_insecure_http: false,
                timeout: Duration::from_secs(5),
                headers: Headers(Box::new(HeaderMap::new)),
                proxy: None,
                roots: Vec::new(),
            },
            settings: Settings {
                refresh_after: Duration::from_secs(30),
                max_age: Duration::from_mins(1),
                max_stale: Duration::from_hours(1),
                pause: Duration::from_secs(10),
            },
            clock: Arc::new(SystemClock),
        }
    }

    /// Fetches the keys, unless the previous fetch was less than [`pause`](RemoteJwksBuilder::pause) ago. For a host
    /// that refreshes the keys itself, for example every 30 seconds.
    ///
    /// # Errors
    ///
    /// See [`FetchError`]. The last keys stay in use.
    pub async fn refresh(&self) -> Result<(), FetchError> {
        self.0.refresh().await
    }

    /// Starts a task that refreshes the keys until the returned handle is dropped. With it, a request only waits for a
    /// fetch if its token has an unknown `kid`.
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    pub fn spawn_refresh(&self) -> RefreshTask {
        let keys = self.clone();
        RefreshTask(vec![tokio::spawn(async move {
            loop {
                // An error has been logged, and the next fetch follows.
                let _ = keys.refresh().await;
                tokio::time::sleep(keys.0.settings.refresh_after.max(Duration::from_millis(100))).await;
            }
        })])
    }

    /// Returns the state of the key set, for metrics. This does not fetch the keys.
    #[must_use]
    pub fn status(&self) -> JwksStatus {
        self.0.status()
    }

    /// Returns the keys to verify a token with. Fetches them first if they are old.
    pub(super) async fn current(&self) -> Result<CurrentKeys, AuthError> {
        self.0.current().await
    }

    /// Returns keys that contain the key of a token. See [`KeyCache::find_newer`].
    pub(super) async fn find_newer(
        &self,
        seen: &Snapshot,
        is_fresh: bool,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Snapshot>, AuthError> {
        self.0.find_newer(seen, is_fresh, kid, algorithm).await
    }

    /// The last keys, for the log.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot()
    }

    /// The URL for the log.
    pub(super) fn shown_url(&self) -> String {
        self.0.fetcher.shown_url()
    }
}

impl fmt::Debug for RemoteJwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJwks")
            .field("url", &self.shown_url())
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

/// Tasks that refresh key sets. They stop when this is dropped.
#[derive(Debug, Default)]
#[must_use = "the tasks stop when this is dropped"]
pub struct RefreshTask(Vec<JoinHandle<()>>);

impl RefreshTask {
    pub(super) fn join(mut self, mut other: Self) -> Self {
        self.0.append(&mut other.0);
        self
    }
}

impl Drop for RefreshTask {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
