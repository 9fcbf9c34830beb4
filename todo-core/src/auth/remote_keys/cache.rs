//! Keeps the last key set, and decides when it is fetched again.
//!
//! A request reads a snapshot of the keys without a lock. A request that needs newer keys starts a fetch. Other
//! requests that need it wait for the same fetch.
//!
//! A fetch runs in a task of its own, which ends within the timeout. It belongs to no request: if the request that
//! started the fetch is dropped, the fetch goes on and stores the keys. Otherwise a client that disconnects would leave
//! a fetch behind that nobody drives. Its timeout would expire, and the next refresh would fail because of it.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use quick_cache::sync::Cache;
use reqwest::header::HeaderMap;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};
use tracing::Instrument as _;

use super::fetch::{Failed, FetchEnd, FetchError, FetchResult, Fetched, Fetcher};
use crate::{
    auth::{
        error::{AuthError, Refusal},
        key::Algorithm,
        key_set::JwkSet,
    },
    clock::{Clock, Timestamp},
};

/// The maximum of [`Settings::pause`] and of a `Retry-After` of the key server.
pub(super) const MAX_PAUSE: Duration = Duration::from_mins(5);

/// For how long after its timeout a fetch may still report its end. After that it is lost: the runtime of its task was
/// shut down or is not driven.
const GRACE: Duration = Duration::from_secs(1);

/// The number of missing keys that are remembered, in a few KiB.
const MISSING_KEYS: usize = 1000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// The age from which one request fetches the keys again.
    pub(super) refresh_after: Duration,
    /// The age from which all requests wait for the fetch.
    pub(super) max_age: Duration,
    /// The age from which the keys are not used any more.
    pub(super) max_stale: Duration,
    /// The minimum time between the starts of two fetches.
    pub(super) pause: Duration,
}

/// The keys of one fetch.
#[derive(Debug, Default)]
pub(in crate::auth) struct Snapshot {
    pub(in crate::auth) keys: JwkSet,
    /// Increases when the keys change, so that tokens which were verified with older keys are verified again.
    pub(in crate::auth) generation: u64,
    /// The number of the fetch.
    number: u64,
    /// The document, to recognize an unchanged one.
    document: String,
    /// When the fetch started, or `None` before the first fetch.
    fetched_at: Option<Timestamp>,
}

/// The keys for one request.
pub(in crate::auth) struct CurrentKeys {
    pub(in crate::auth) snapshot: Arc<Snapshot>,
    /// Whether the fetch started after the request arrived. Then a key that is missing does not exist.
    pub(in crate::auth) is_fresh: bool,
}

/// The state of a fetched key set, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwksStatus {
    /// The time since the start of the last successful fetch, or `None` before the first one.
    pub age: Option<Duration>,
    /// Whether the keys are used: they have been fetched and are not too old.
    pub usable: bool,
    /// The number of keys.
    pub keys: usize,
    /// The number of fetches.
    pub fetches: u64,
    /// The number of failed fetches.
    pub failures: u64,
}

/// The state of the fetches. There is at most one fetch at a time.
struct FetchState {
    current: Option<CurrentFetch>,
    /// The number of fetches so far.
    count: u64,
    /// The number of failed fetches.
    failures: u64,
    /// When the next fetch is allowed.
    next: Timestamp,
    /// Why the last fetch failed, if it did. Then requests use the old keys instead of waiting for the next fetch.
    failure: Option<FetchError>,
    /// The headers of the next, conditional request.
    conditions: HeaderMap,
}

#[derive(Clone)]
struct CurrentFetch {
    number: u64,
    started_at: Timestamp,
    /// When the fetch is lost.
    deadline: Instant,
    end: FetchEnd,
}

/// A fetch to wait for, and whether this caller started it.
struct JoinedFetch {
    fetch: CurrentFetch,
    is_own: bool,
}

/// The last key set of one URL.
pub(super) struct KeyCache {
    pub(super) fetcher: Fetcher,
    pub(super) settings: Settings,
    clock: Arc<dyn Clock>,
    snapshot: ArcSwap<Snapshot>,
    state: Mutex<FetchState>,
    /// Keys that tokens have named and that were not in the set: by the hash of `kid` and algorithm, the number of the
    /// last fetch that had started when the first such token arrived. A set of a later fetch would contain the key if it
    /// existed.
    missing: Cache<u64, u64>,
    hasher: RandomState,
}

/// There are no usable keys.
#[derive(Debug, thiserror::Error)]
#[error("there are no usable keys of {url}")]
struct NoKeys {
    url: String,
    source: FetchError,
}

impl KeyCache {
    pub(super) fn new(fetcher: Fetcher, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            fetcher,
            settings,
            clock,
            snapshot: ArcSwap::default(),
            state: Mutex::new(FetchState {
                current: None,
                count: 0,
                failures: 0,
                next: Timestamp::from_unix_micros(i64::MIN),
                failure: None,
                conditions: HeaderMap::new(),
            }),
            missing: Cache::new(MISSING_KEYS),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn status(&self) -> JwksStatus {
        let snapshot = self.snapshot.load();
        let age = self.age(&snapshot);
        let (fetches, failures) = {
            let state = self.state();
            (state.count, state.failures)
        };
        let usable = age.is_some_and(|age| age < self.settings.max_stale);
        JwksStatus { age, usable, keys: snapshot.keys.len(), fetches, failures }
    }

    /// Fetches the keys, unless the previous fetch was too recent.
    pub(super) async fn refresh(self: &Arc<Self>) -> Result<(), FetchError> {
        self.complete_fetch().await.map(|_| ())
    }

    /// Returns the keys to verify a token with. Fetches them first if they are old.
    pub(super) async fn current(self: &Arc<Self>) -> Result<CurrentKeys, AuthError> {
        let snapshot = self.snapshot.load_full();
        let age = self.age(&snapshot);
        if age.is_some_and(|age| age < self.settings.refresh_after) {
            return Ok(CurrentKeys { snapshot, is_fresh: false });
        }
        let mut is_fresh = false;
        let should_wait = {
            let state = self.state();
            // All requests wait for the fetch if there are no keys or the keys are older than `max_age`, except that no
            // request waits for an issuer that did not respond the last time. Otherwise the request that starts the
            // fetch waits, and the others use the keys that are there.
            let all_wait = age.is_none_or(|age| age >= self.settings.max_age && state.failure.is_none());
            all_wait || state.current.as_ref().is_none_or(|current| self.is_lost(current))
        };
        if should_wait {
            // An error has been logged. Whether the old keys can be used is decided below.
            is_fresh = matches!(self.complete_fetch().await, Ok(true));
        }
        let snapshot = self.snapshot.load_full();
        if self.age(&snapshot).is_some_and(|age| age < self.settings.max_stale) {
            Ok(CurrentKeys { snapshot, is_fresh })
        } else {
            Err(self.unavailable())
        }
    }

    /// The last keys, which may be too old.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Returns keys that contain the key of a token, which is not in the keys that were seen. `is_fresh` says that these
    /// were fetched after the token arrived.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownKey`], if the key is missing in a set whose fetch started after the first token with this key
    /// arrived. [`AuthError::KeyMayBeNew`], if there is no such set yet and no fetch is allowed now, or the fetch fails.
    pub(super) async fn find_newer(
        self: &Arc<Self>,
        seen: &Snapshot,
        is_fresh: bool,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Snapshot>, AuthError> {
        let key = self.hasher.hash_one((kid, algorithm));
        if is_fresh {
            self.missing.insert(key, seen.number.saturating_sub(1));
            return Err(AuthError::Invalid(Refusal::UnknownKey));
        }
        let arrived = self.missing.get(&key).unwrap_or_else(|| {
            let arrived = self.state().count;
            self.missing.insert(key, arrived);
            arrived
        });
        // Unless another request has fetched the keys in the meantime. An error has been logged, or is that the previous
        // fetch was too recent.
        if self.snapshot.load().number == seen.number {
            let _ = self.complete_fetch().await;
        }
        let snapshot = self.snapshot.load_full();
        if snapshot.keys.find(kid, algorithm).is_some() {
            Ok(snapshot)
        } else if snapshot.number > arrived {
            Err(AuthError::Invalid(Refusal::UnknownKey))
        } else {
            Err(AuthError::KeyMayBeNew { retry_after: self.retry_after(&self.state()) })
        }
    }

    fn unavailable(&self) -> AuthError {
        let state = self.state();
        let source = state.failure.clone().unwrap_or(FetchError::Stale);
        AuthError::Unavailable {
            retry_after: self.retry_after(&state),
            source: Box::new(NoKeys { url: self.fetcher.shown_url(), source }),
        }
    }

    fn retry_after(&self, state: &FetchState) -> Duration {
        let wait = self.time_to_next(state);
        if wait.is_zero() { Duration::from_secs(1) } else { wait }
    }

    /// `None` if there are no keys yet. If the clock has gone backwards, the keys count as old and are fetched.
    fn age(&self, snapshot: &Snapshot) -> Option<Duration> {
        let age = self.clock.now().unix_micros() - snapshot.fetched_at?.unix_micros();
        Some(u64::try_from(age).map_or(self.settings.max_age, Duration::from_micros))
    }

    fn state(&self) -> MutexGuard<'_, FetchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time until the next fetch is allowed. A time longer than the longest pause means that the clock has gone
    /// backwards.
    fn time_to_next(&self, state: &FetchState) -> Duration {
        let wait = state.next.unix_micros().saturating_sub(self.clock.now().unix_micros());
        let wait = Duration::from_micros(u64::try_from(wait).unwrap_or(0));
        if wait <= MAX_PAUSE { wait } else { Duration::ZERO }
    }

    /// Waits for the current fetch, or for a new one. Returns whether this call started it.
    async fn complete_fetch(self: &Arc<Self>) -> Result<bool, FetchError> {
        // A lost fetch is not the fault of this call, which therefore starts another one.
        for _ in 0..2 {
            let joined = self.fetch()?;
            let end = timeout_at(joined.fetch.deadline, joined.fetch.end.clone()).await.ok().flatten();
            match end {
                Some(Ok(_)) => return Ok(joined.is_own),
                Some(Err(failed)) => return Err(failed.error.clone()),
                None => self.forget_lost(&mut self.state(), &joined.fetch),
            }
        }
        Err(FetchError::Lost)
    }

    /// The current fetch, or a new one.
    fn fetch(self: &Arc<Self>) -> Result<JoinedFetch, FetchError> {
        if let Some(current) = self.current_fetch(&mut self.state()) {
            return current;
        }
        // Called without the lock, because the host may ask for the status in it, or panic.
        let headers = self.fetcher.headers();
        let runtime = Handle::current();
        let mut state = self.state();
        if let Some(current) = self.current_fetch(&mut state) {
            return current;
        }
        let started_at = self.clock.now();
        state.next = started_at.plus(self.settings.pause);
        state.count += 1;
        let number = state.count;
        let fetching = self.fetcher.fetch(headers, state.conditions.clone());
        let cache = Arc::downgrade(self);
        let task = async move {
            let result = fetching.await;
            if let Some(cache) = cache.upgrade() {
                cache.end(number, started_at, &result);
            }
            result
        };
        // In the span of the request, so that a log line about a failed fetch belongs to the request.
        let end = runtime.spawn(task.in_current_span()).map(|ended| match ended {
            Ok(result) => Some(result),
            Err(error) if error.is_cancelled() => None,
            Err(_) => Some(Err(Arc::new(Failed { error: FetchError::Lost, retry_after: None }))),
        });
        let deadline = Instant::now() + self.fetcher.timeout + GRACE;
        let fetch = CurrentFetch { number, started_at, deadline, end: end.boxed().shared() };
        state.current = Some(fetch.clone());
        Ok(JoinedFetch { fetch, is_own: true })
    }

    /// The current fetch, or an error if none is allowed now. `None` if a new fetch can start.
    fn current_fetch(&self, state: &mut FetchState) -> Option<Result<JoinedFetch, FetchError>> {
        if let Some(current) = state.current.clone() {
            if !self.is_lost(&current) {
                return Some(Ok(JoinedFetch { fetch: current, is_own: false }));
            }
            self.forget_lost(state, &current);
        }
        let wait = self.time_to_next(state);
        (!wait.is_zero()).then_some(Err(FetchError::Paused(wait)))
    }

    /// Whether a fetch should have ended by now, by either clock. A fetch that has ended is no longer the current one,
    /// unless its task panicked.
    fn is_lost(&self, fetch: &CurrentFetch) -> bool {
        let latest = fetch.started_at.plus(self.fetcher.timeout + GRACE);
        self.clock.now() >= latest || Instant::now() >= fetch.deadline || fetch.end.peek().is_some()
    }

    /// Makes way for another fetch, at once unless the task panicked.
    fn forget_lost(&self, state: &mut FetchState, fetch: &CurrentFetch) {
        if state.current.as_ref().is_some_and(|current| current.number == fetch.number) {
            state.current = None;
            state.failures += 1;
            if !matches!(fetch.end.peek(), Some(Some(_))) {
                state.next = self.clock.now();
            }
            self.warn(&FetchError::Lost);
        }
    }

    fn warn(&self, error: &FetchError) {
        let (url, proxy) = (self.fetcher.shown_url(), self.fetcher.proxy.as_deref());
        tracing::warn!(target: "todo_core::auth", url, proxy, "the key set cannot be fetched: {error}");
    }

    /// Stores the result of a fetch, unless the fetch counts as lost.
    fn end(&self, number: u64, started_at: Timestamp, result: &FetchResult) {
        let mut state = self.state();
        if state.current.as_ref().is_none_or(|current| current.number != number) {
            return;
        }
        state.current = None;
        state.failure = result.as_ref().err().map(|failed| failed.error.clone());
        match result {
            Ok(fetched) => self.store(&mut state, number, started_at, fetched),
            Err(failed) => {
                state.failures += 1;
                self.warn(&failed.error);
                if let Some(after) = failed.retry_after {
                    state.next = started_at.plus(after.clamp(self.settings.pause, MAX_PAUSE));
                }
            }
        }
    }

    fn store(&self, state: &mut FetchState, number: u64, started_at: Timestamp, fetched: &Fetched) {
        let old = self.snapshot.load();
        let (document, keys) = match fetched {
            // A 304 to a request that was not conditional.
            Fetched::NotModified if old.fetched_at.is_none() => return,
            Fetched::NotModified => (&old.document, &old.keys),
            Fetched::Document { text, keys, conditions } => {
                state.conditions.clone_from(conditions);
                (text, keys)
            }
        };
        // A token that was verified with a removed key must be verified again.
        let is_same = old.fetched_at.is_some() && old.document == *document;
        let generation = if is_same { old.generation } else { old.generation + 1 };
        if !is_same {
            let (url, proxy) = (self.fetcher.shown_url(), self.fetcher.proxy.as_deref());
            let (count, left_out) = (keys.len(), keys.left_out());
            if keys.is_empty() {
                tracing::warn!(
                    target: "todo_core::auth",
                    url,
                    proxy,
                    left_out,
                    "the key set has no usable key, so every token of its issuer is rejected"
                );
            } else {
                tracing::info!(target: "todo_core::auth", url, proxy, keys = count, left_out, "the key set has changed");
            }
        }
        let (keys, document, fetched_at) = (keys.clone(), document.clone(), Some(started_at));
        self.snapshot.store(Arc::new(Snapshot { keys, generation, number, document, fetched_at }));
    }
}
