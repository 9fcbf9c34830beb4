//! Public keys that are fetched from the issuer and kept up to date.
//!
//! A request reads a snapshot without any lock. Whoever finds that the snapshot will not do starts a fetch, and others
//! who need it too drive the same fetch on: it belongs to nobody, so a caller who goes away does not end it. No task
//! runs in the background unless the host asks for one.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use reqwest::{
    StatusCode, Url,
    header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER},
    redirect,
};
use tokio::task::JoinHandle;

use super::{InvalidJwks, InvalidSource, JwkSet};
use crate::clock::{Clock, SystemClock, Timestamp};

/// The largest document that is read.
const MAX_BYTES: usize = 1024 * 1024;

/// The key set of an issuer, fetched over HTTP: the JWKS endpoint of Better Auth and its like.
///
/// What it promises, with the defaults:
///
/// - While it is used, the set is never older than 60 seconds as long as the issuer answers; so a key that was removed
///   stops counting within a minute. After 30 seconds whoever comes first fetches it anew.
/// - A token with an unknown `kid` causes a fetch at once, since Better Auth signs with a new key before it shows it to
///   anybody. All who wait share that fetch.
/// - There is at most one fetch in 10 seconds, however many strangers send tokens with random `kid`s. Who comes with an
///   unknown `kid` in between is told 503 and when to come back, for it may be the new key.
/// - If the issuer does not answer, the last good set counts for another hour; after that, and before the first set,
///   the answer is 503. A host need not wait for the issuer at its own start.
/// - A new set replaces the old one wholly, an empty set too. Conditional requests are used if the issuer offers them,
///   and `429` with `Retry-After` or `X-Retry-After` is honoured. Redirects are not followed, proxies of the environment
///   are not used, a document over 1 MiB is not read, and a fetch ends after 5 seconds.
///
/// Clones are the same set.
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
pub struct RemoteJwks(Arc<Inner>);

struct Inner {
    url: Url,
    client: reqwest::Client,
    headers: Headers,
    clock: Arc<dyn Clock>,
    settings: Settings,
    snapshot: ArcSwap<Snapshot>,
    flights: Mutex<Flights>,
}

/// The fetches, one at a time.
struct Flights {
    current: Option<Flight>,
    /// How many there were.
    count: u64,
    /// How many of them failed.
    failures: u64,
    /// When the next may begin.
    next: Timestamp,
    /// Whether the last failed, so that nobody is made to wait for the next.
    failing: bool,
    /// What the last answer offered for conditional requests (RFC 9110, section 13).
    conditions: HeaderMap,
}

/// What a request gets to see of the keys.
pub(super) struct Look {
    pub(super) snapshot: Arc<Snapshot>,
    /// Whether the fetch began after the request came: a key that is not there does not exist.
    pub(super) conclusive: bool,
}

/// A fetch that whoever needs it drives on.
#[derive(Clone)]
struct Flight {
    /// Whether it began for this caller.
    own: bool,
    number: u64,
    began: Timestamp,
    answer: Shared<BoxFuture<'static, Answer>>,
}

type Answer = Result<Arc<Fetched>, Arc<Failed>>;

enum Fetched {
    NotModified,
    Document { text: String, keys: JwkSet, conditions: HeaderMap },
}

struct Failed {
    error: FetchError,
    retry_after: Option<Duration>,
}

/// What the host adds to each fetch.
struct Headers(Box<dyn Fn() -> HeaderMap + Send + Sync>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    refresh_after: Duration,
    max_age: Duration,
    max_stale: Duration,
    pause: Duration,
}

/// The keys as they were at one fetch.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) keys: JwkSet,
    /// Grows with each set that differs, so that what was verified by an older one can be told.
    pub(super) generation: u64,
    /// The document, to see whether another is the same.
    document: String,
    fetched_at: Option<Timestamp>,
}

/// What is known of a fetched key set at one moment, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwksStatus {
    /// How long ago the fetch of the last good set began; `None` before the first.
    pub age: Option<Duration>,
    /// Whether tokens can be judged by it: it was fetched, and is not too old.
    pub usable: bool,
    /// How many keys it holds.
    pub keys: usize,
    /// How many fetches began since this was made.
    pub fetches: u64,
    /// How many of them failed.
    pub failures: u64,
}

/// Why a key set could not be fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No answer, or a broken one.
    #[error("the key server cannot be reached")]
    Unreachable(#[source] Arc<reqwest::Error>),
    /// An answer that is no success; redirects are not followed.
    #[error("the key server answers {0}")]
    Status(u16),
    /// More than 1 MiB.
    #[error("the key set is larger than 1 MiB")]
    TooLarge,
    /// Something else than a key set.
    #[error("the key server's answer {0}")]
    Document(#[from] InvalidJwks),
    /// The last fetch was a moment ago.
    #[error("the last fetch was less than {0:?} ago")]
    Paused(Duration),
    /// There was no answer for too long, or never one.
    #[error("the key set is too old or was never fetched")]
    Stale,
}

/// Builds a [`RemoteJwks`].
#[derive(Debug)]
pub struct RemoteJwksBuilder {
    url: String,
    insecure: bool,
    timeout: Duration,
    headers: Headers,
    settings: Settings,
    clock: Arc<dyn Clock>,
}

impl RemoteJwksBuilder {
    /// Allows `http://` to a host that is not this machine: for an issuer in the same trusted network. Whoever can
    /// answer in its place can sign for anybody.
    #[must_use]
    pub fn allow_insecure_http(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// How long a fetch may take. Default: 5 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends these headers too: the key that a key server asks for, or the trace that the fetch belongs to.
    ///
    /// They are asked for anew before each fetch, by the caller who begins it and within its task and span; those who
    /// only wait for that fetch are not asked. Of a name that is in here and among our own (`if-none-match`,
    /// `if-modified-since`), ours is sent. They reach no log of ours; what is secret should be
    /// [marked so](http::HeaderValue::set_sensitive) all the same. Default: none.
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
        self.headers = Headers(Box::new(headers));
        self
    }

    /// How old a set may be while the issuer answers. Default: 60 seconds. From half of it on, whoever comes first
    /// fetches it anew.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.settings.max_age = max_age;
        self.settings.refresh_after = max_age / 2;
        self
    }

    /// How old a set may be while the issuer does not answer. Default: 1 hour.
    #[must_use]
    pub fn max_stale(mut self, max_stale: Duration) -> Self {
        self.settings.max_stale = max_stale;
        self
    }

    /// How long after the beginning of a fetch the next may begin, at most 5 minutes. Default: 10 seconds.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.settings.pause = pause.min(MAX_PAUSE);
        self
    }

    /// The clock by which sets age. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The key set, not yet fetched.
    ///
    /// # Errors
    ///
    /// [`InvalidSource::Url`]: the URL is none, or is `http://` to another machine without leave.
    pub fn build(self) -> Result<RemoteJwks, InvalidSource> {
        let url = Url::parse(&self.url).map_err(|_| InvalidSource::Url)?;
        let allowed = match url.scheme() {
            "https" => true,
            "http" => self.insecure || is_loopback(&url),
            _ => false,
        };
        if !allowed || !url.has_host() {
            return Err(InvalidSource::Url);
        }
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            // One in the environment would see, and could answer, what is meant to stay on this machine.
            .no_proxy()
            .timeout(self.timeout)
            .user_agent(concat!("todo-core/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| InvalidSource::Client)?;
        Ok(RemoteJwks(Arc::new(Inner {
            url,
            client,
            headers: self.headers,
            clock: self.clock,
            settings: self.settings,
            snapshot: ArcSwap::default(),
            flights: Mutex::new(Flights {
                current: None,
                count: 0,
                failures: 0,
                next: Timestamp::from_unix_micros(i64::MIN),
                failing: false,
                conditions: HeaderMap::new(),
            }),
        })))
    }
}

/// Whether nobody outside this machine can answer.
fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|host| host.is_loopback()),
        None => false,
    }
}

impl RemoteJwks {
    /// Begins a key set that is fetched from this URL: `https://`, or `http://` to this machine.
    #[must_use]
    pub fn builder(url: impl Into<String>) -> RemoteJwksBuilder {
        RemoteJwksBuilder {
            url: url.into(),
            insecure: false,
            timeout: Duration::from_secs(5),
            headers: Headers(Box::new(HeaderMap::new)),
            settings: Settings {
                refresh_after: Duration::from_secs(30),
                max_age: Duration::from_mins(1),
                max_stale: Duration::from_hours(1),
                pause: Duration::from_secs(10),
            },
            clock: Arc::new(SystemClock),
        }
    }

    /// Fetches the set, unless that was done a moment ago: for a host that drives the refresh itself, say from a timer
    /// of its own, every 30 seconds.
    ///
    /// # Errors
    ///
    /// See [`FetchError`]; the last good set stays.
    pub async fn refresh(&self) -> Result<(), FetchError> {
        self.land(self.flight()?).await
    }

    /// Starts a task that refreshes the set as long as the handle lives, so that no request ever waits for a fetch but
    /// for a new key.
    ///
    /// It must be called within a tokio runtime.
    pub fn spawn_refresh(&self) -> RefreshTask {
        let keys = self.clone();
        RefreshTask(vec![tokio::spawn(async move {
            loop {
                // An error is in the log already, and the next turn comes.
                let _ = keys.refresh().await;
                tokio::time::sleep(keys.0.settings.refresh_after.max(Duration::from_millis(100))).await;
            }
        })])
    }

    /// What is known of the set now. It waits for nothing and fetches nothing.
    #[must_use]
    pub fn status(&self) -> JwksStatus {
        let snapshot = self.0.snapshot.load();
        let age = self.age(&snapshot);
        let (fetches, failures) = {
            let flights = self.flights();
            (flights.count, flights.failures)
        };
        let usable = age.is_some_and(|age| age < self.0.settings.max_stale);
        JwksStatus { age, usable, keys: snapshot.keys.len(), fetches, failures }
    }

    /// The snapshot to judge a token by.
    pub(super) async fn current(&self) -> Result<Look, Unavailable> {
        let snapshot = self.0.snapshot.load_full();
        let age = self.age(&snapshot);
        if age.is_some_and(|age| age < self.0.settings.refresh_after) {
            return Ok(Look { snapshot, conclusive: false });
        }
        let mut conclusive = false;
        let wanted = {
            let flights = self.flights();
            // Without a set, or with one that is too old, all wait for the one fetch; but not for an issuer that did
            // not answer the last time. Else one waits, and the others go on with what there is.
            let all_wait = age.is_none_or(|age| age >= self.0.settings.max_age && !flights.failing);
            all_wait || flights.current.as_ref().is_none_or(|flight| flight.answer.strong_count() == Some(1))
        };
        if wanted && let Ok(flight) = self.flight() {
            let own = flight.own;
            // An error is in the log already; whether the old set will do is decided below.
            conclusive = self.land(flight).await.is_ok() && own;
        }
        let snapshot = self.0.snapshot.load_full();
        if self.age(&snapshot).is_some_and(|age| age < self.0.settings.max_stale) {
            Ok(Look { snapshot, conclusive })
        } else {
            Err(self.unavailable(FetchError::Stale))
        }
    }

    /// A newer snapshot than this one, in which a key was not found.
    pub(super) async fn newer(&self, seen: &Snapshot) -> Result<Look, Unavailable> {
        let snapshot = self.0.snapshot.load_full();
        // Somebody else has fetched since.
        if snapshot.fetched_at != seen.fetched_at {
            return Ok(Look { snapshot, conclusive: false });
        }
        let flight = self.flight().map_err(|error| self.unavailable(error))?;
        let conclusive = flight.own;
        self.land(flight).await.map_err(|error| self.unavailable(error))?;
        Ok(Look { snapshot: self.0.snapshot.load_full(), conclusive })
    }

    /// The answer for a key that is not there, when that is not conclusive.
    pub(super) fn paused(&self) -> Unavailable {
        let wait = self.wait(&self.flights());
        self.unavailable(FetchError::Paused(wait))
    }

    fn unavailable(&self, error: FetchError) -> Unavailable {
        let wait = self.wait(&self.flights());
        Unavailable { retry_after: if wait.is_zero() { Duration::from_secs(1) } else { wait }, error }
    }

    /// `None` if there is no set yet. A clock that went backwards makes a set old, so that it is fetched.
    fn age(&self, snapshot: &Snapshot) -> Option<Duration> {
        let age = self.0.clock.now().unix_micros() - snapshot.fetched_at?.unix_micros();
        Some(u64::try_from(age).map_or(self.0.settings.max_age, Duration::from_micros))
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.0.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long until the next fetch may begin. If it seems longer than a pause can be, the clock has gone backwards.
    fn wait(&self, flights: &Flights) -> Duration {
        let wait = flights.next.unix_micros().saturating_sub(self.0.clock.now().unix_micros());
        let wait = Duration::from_micros(u64::try_from(wait).unwrap_or(0));
        if wait <= MAX_PAUSE { wait } else { Duration::ZERO }
    }

    /// The fetch that is under way, or why there may be none now; nothing if a new one may begin.
    fn under_way(&self, flights: &Flights) -> Option<Result<Flight, FetchError>> {
        if let Some(flight) = &flights.current {
            return Some(Ok(flight.clone()));
        }
        let wait = self.wait(flights);
        (!wait.is_zero()).then_some(Err(FetchError::Paused(wait)))
    }

    /// The fetch that is under way, or a new one.
    fn flight(&self) -> Result<Flight, FetchError> {
        if let Some(flight) = self.under_way(&self.flights()) {
            return flight;
        }
        // Nothing is locked meanwhile: the host may well look at us.
        let headers = (self.0.headers.0)();
        let mut flights = self.flights();
        if let Some(flight) = self.under_way(&flights) {
            return flight;
        }
        let began = self.0.clock.now();
        flights.next = began.plus(self.0.settings.pause);
        flights.count += 1;
        let request = self.0.client.get(self.0.url.clone()).headers(headers).headers(flights.conditions.clone());
        let flight = Flight { own: false, number: flights.count, began, answer: fetch(request).boxed().shared() };
        flights.current = Some(flight.clone());
        Ok(Flight { own: true, ..flight })
    }

    /// Drives a fetch to its end. Whoever is there first puts its result in place.
    async fn land(&self, flight: Flight) -> Result<(), FetchError> {
        let answer = flight.answer.await;
        let mut flights = self.flights();
        if flights.current.as_ref().is_some_and(|current| current.number == flight.number) {
            flights.current = None;
            flights.failing = answer.is_err();
            match &answer {
                Ok(fetched) => self.replace(&mut flights, flight.began, fetched),
                Err(failed) => {
                    flights.failures += 1;
                    tracing::warn!(target: "todo_core::auth", error = %failed.error, "the key set could not be fetched");
                    if let Some(after) = failed.retry_after {
                        flights.next = flight.began.plus(after.clamp(self.0.settings.pause, MAX_PAUSE));
                    }
                }
            }
        }
        answer.map(|_| ()).map_err(|failed| failed.error.clone())
    }

    fn replace(&self, flights: &mut Flights, began: Timestamp, fetched: &Fetched) {
        let old = self.0.snapshot.load();
        let (document, keys) = match fetched {
            // An answer to a question that was not asked.
            Fetched::NotModified if old.fetched_at.is_none() => return,
            Fetched::NotModified => (&old.document, &old.keys),
            Fetched::Document { text, keys, conditions } => {
                flights.conditions.clone_from(conditions);
                (text, keys)
            }
        };
        // What was verified by a key that is gone must not count any longer.
        let same = old.fetched_at.is_some() && old.document == *document;
        let generation = if same { old.generation } else { old.generation + 1 };
        if !same {
            tracing::info!(
                target: "todo_core::auth",
                keys = keys.len(),
                left_out = keys.left_out(),
                "the key set is another"
            );
        }
        let (keys, document) = (keys.clone(), document.clone());
        self.0.snapshot.store(Arc::new(Snapshot { keys, generation, document, fetched_at: Some(began) }));
    }
}

async fn fetch(request: reqwest::RequestBuilder) -> Answer {
    let failed = |error| Arc::new(Failed { error, retry_after: None });
    let unreachable = |error: reqwest::Error| {
        // Without the URL, which may hold what is not for a log.
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

/// The longest that a key server can make us wait.
const MAX_PAUSE: Duration = Duration::from_mins(5);

fn conditions(headers: &HeaderMap) -> HeaderMap {
    let mut conditions = HeaderMap::new();
    for (offered, condition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) = headers.get(offered) {
            conditions.insert(condition, value.clone());
        }
    }
    conditions
}

/// Better Auth says `X-Retry-After`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    [RETRY_AFTER, HeaderName::from_static("x-retry-after")]
        .iter()
        .find_map(|name| headers.get(name)?.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs)
}

/// The keys cannot be had now.
pub(super) struct Unavailable {
    pub(super) retry_after: Duration,
    pub(super) error: FetchError,
}

impl fmt::Debug for RemoteJwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJwks")
            .field("url", &self.0.url.as_str())
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

/// Tasks that keep key sets up to date. They stop when this is dropped.
#[derive(Debug, Default)]
#[must_use = "the tasks stop when this is dropped"]
pub struct RefreshTask(pub(super) Vec<JoinHandle<()>>);

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
