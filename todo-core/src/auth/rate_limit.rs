//! A rate limiter within one process.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use governor::{clock, middleware::StateInformationMiddleware, nanos::Nanos, state::StateStore};
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::{
    authenticator::Identity,
    gate::{Gate, GateError, Verdict},
    quota::Quota,
};

/// The default number of users to remember. At about 100 bytes each, they take about 10 MiB.
const MAX_USERS: usize = 100_000;

/// A number of requests in a time: `100/10s`.
///
/// ```
/// use std::time::Duration;
/// use todo_core::auth::Rate;
///
/// let rate: Rate = "100/10s".parse()?;
/// assert_eq!(rate, Rate::new(100, Duration::from_secs(10))?);
/// assert_eq!(rate.to_string(), "100/10s");
/// assert!("0/10s".parse::<Rate>().is_err());
/// # Ok::<(), todo_core::auth::InvalidRate>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    window: Duration,
}

/// A string or a pair of numbers is not a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number of requests and a time of 1 second to 24 hours, for example 100/10s, 1000/5m or 10000/1h")]
pub struct InvalidRate;

impl Rate {
    /// Returns a rate of `count` requests in a window.
    ///
    /// # Errors
    ///
    /// If the count is 0, the window is shorter than a second or longer than a day, or there is more than one request
    /// in a microsecond.
    pub fn new(count: u32, window: Duration) -> Result<Self, InvalidRate> {
        let count = NonZeroU32::new(count).ok_or(InvalidRate)?;
        let times = Duration::from_secs(1)..=Duration::from_hours(24);
        if !times.contains(&window) || window / count.get() < Duration::from_micros(1) {
            return Err(InvalidRate);
        }
        Ok(Self { count, window })
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (count, time) = text.split_once('/').ok_or(InvalidRate)?;
        let unit = time.chars().next_back().ok_or(InvalidRate)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(InvalidRate),
        };
        let time = time.trim_end_matches(unit);
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| InvalidRate);
        // "10/s" means 10 in one second.
        let time = if time.trim().is_empty() { 1 } else { number(time)? };
        Self::new(number(count)?, Duration::from_secs(u64::from(time) * seconds))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}s", self.count, self.window.as_secs())
    }
}

/// A [`Gate`] that limits the request rate of each user.
///
/// Requests above the [`Rate`] are rejected with 429 `rate_limited` and `Retry-After`. All responses contain the
/// remaining [`Quota`].
///
/// Each user has a bucket of as many requests as the rate allows. A request takes one out of the bucket, and the bucket
/// is refilled evenly over the window of the rate (the generic cell rate algorithm). A user with a full bucket can send
/// all of its requests at once, so a window contains at most twice the rate.
///
/// The limiter counts within this process: several servers count separately, and a restart fills all buckets. To limit
/// the rate across servers, write a [`Gate`] on a shared store, for example Redis, that returns [`Verdict::Quota`]. The
/// limiter remembers 100,000 users. If there are more, it forgets users without recent requests, who then start with a
/// full bucket. Clones share their buckets.
///
/// ```
/// use todo_core::{TodoService, auth::{JwtVerifier, RateLimiter}, api::TodoApi, store::MemoryStore};
///
/// let verifier = JwtVerifier::hs256("a secret of thirty-two bytes or more").unwrap();
/// let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier)
///     .with_gate(RateLimiter::new("100/10s".parse()?));
/// # Ok::<(), todo_core::auth::InvalidRate>(())
/// ```
#[derive(Clone)]
pub struct RateLimiter(Arc<Inner>);

struct Inner {
    rate: Rate,
    hasher: RandomState,
    buckets: Arc<Cache<u64, Arc<AtomicU64>>>,
    limiter: governor::RateLimiter<u64, Buckets, Uptime, StateInformationMiddleware>,
}

impl RateLimiter {
    /// Returns a limiter with this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::with_max_users(rate, MAX_USERS)
    }

    /// Returns a limiter with this rate that remembers at most `max_users` users.
    #[must_use]
    pub fn with_max_users(rate: Rate, max_users: usize) -> Self {
        let period = rate.window / rate.count.get();
        let quota = governor::Quota::with_period(period)
            .unwrap_or_else(|| unreachable!("a rate has at most one request in a microsecond"))
            .allow_burst(rate.count);
        let clock = Uptime(Instant::now());
        let buckets = Arc::new(Cache::new(max_users));
        let limiter = governor::RateLimiter::new(quota, Buckets(Arc::clone(&buckets)), clock);
        Self(Arc::new(Inner { rate, hasher: RandomState::new(), buckets, limiter }))
    }

    /// Returns the number of users that are remembered now.
    #[must_use]
    pub fn users(&self) -> usize {
        self.0.buckets.len()
    }
}

#[async_trait]
impl Gate for RateLimiter {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        let Inner { rate, hasher, limiter, .. } = &*self.0;
        let quota = Quota::new(rate.count.get(), rate.window);
        // The hash has a random key, so that users cannot choose ids whose hashes collide.
        let user = hasher.hash_one(identity.user_id.as_str());
        Ok(Verdict::Quota(match limiter.check_key(&user) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let spent = rate.count.get().saturating_sub(remaining);
                quota.remaining(remaining, rate.window / rate.count.get() * spent)
            }
            Err(refused) => {
                let wait = refused.wait_time_from(clock::Clock::now(limiter.clock()));
                quota.remaining(0, rate.window).refused(wait)
            }
        }))
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("rate", &self.0.rate).finish_non_exhaustive()
    }
}

/// The time since the limiter was created, by the clock of tokio, which tests can pause.
#[derive(Clone, Copy, Debug)]
struct Uptime(Instant);

impl clock::Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The buckets by hash of the user id: the time at which each is full again, in nanoseconds of uptime. Their number is
/// limited by the capacity of the cache.
struct Buckets(Arc<Cache<u64, Arc<AtomicU64>>>);

impl StateStore for Buckets {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, user: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let bucket = match self.0.get(user) {
            Some(bucket) => bucket,
            None => match self.0.get_or_insert_with(user, || Ok::<_, std::convert::Infallible>(Arc::default())) {
                Ok(bucket) => bucket,
            },
        };
        let mut before = bucket.load(Ordering::Acquire);
        loop {
            // 0 is a new bucket.
            let (outcome, after) = measure((before > 0).then(|| Nanos::from(before)))?;
            let after = after.as_u64();
            match bucket.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(now) => before = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::UserId;

    fn limiter(rate: &str) -> RateLimiter {
        RateLimiter::new(rate.parse().expect("the rate is valid"))
    }

    async fn ask(limiter: &RateLimiter, user: &str) -> Quota {
        let identity = Identity::new(UserId::new(user).expect("the id is valid"));
        match limiter.judge(&identity).await {
            Ok(Verdict::Quota(quota)) => quota,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_empty_the_bucket_and_time_refills_it() {
        let limiter = limiter("4/8s");
        for (remaining, reset) in [(3, 2), (2, 4), (1, 6), (0, 8)] {
            let quota = ask(&limiter, "ann").await;
            assert_eq!((quota.limit, quota.window), (4, Duration::from_secs(8)));
            assert_eq!((quota.remaining, quota.reset.as_secs(), quota.retry_after), (remaining, reset, None));
        }
        let refused = ask(&limiter, "ann").await;
        assert_eq!((refused.remaining, refused.retry_after), (0, Some(Duration::from_secs(2))));
        // A rejected request takes nothing out of the bucket.
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(ask(&limiter, "ann").await.retry_after, Some(Duration::from_millis(1500)));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(ask(&limiter, "ann").await.retry_after, None);
        assert!(ask(&limiter, "ann").await.retry_after.is_some());
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(ask(&limiter, "ann").await.remaining, 3, "a bucket does not overflow");
    }

    #[tokio::test(start_paused = true)]
    async fn users_have_separate_buckets() {
        let limiter = limiter("1/1m");
        let clone = limiter.clone();
        for user in ["ann", "bob", "a", "b"] {
            assert_eq!(ask(&limiter, user).await.retry_after, None, "{user}");
            assert!(ask(&clone, user).await.retry_after.is_some(), "{user}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_requests_are_limited_like_sequential_ones() {
        let limiter = limiter("50/24h");
        let calls = (0..200).map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move { ask(&limiter, "ann").await.retry_after.is_none() })
        });
        let mut accepted = BTreeMap::new();
        for call in calls.collect::<Vec<_>>() {
            *accepted.entry(call.await.expect("no panic")).or_insert(0) += 1;
        }
        assert_eq!(accepted, [(true, 50), (false, 150)].into());
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_buckets_is_limited() {
        let rate = "1/1m".parse().expect("the rate is valid");
        let limiter = RateLimiter::with_max_users(rate, 100);
        for user in 0..10_000 {
            ask(&limiter, &format!("user {user}")).await;
            // A user that keeps sending requests is not forgotten.
            if user > 0 {
                assert!(ask(&limiter, "ann").await.retry_after.is_some() || user < 2, "{user}");
            } else {
                ask(&limiter, "ann").await;
            }
        }
        let remembered = limiter.users();
        assert!(remembered <= 100, "{remembered}");
    }

    #[test]
    fn rates_are_parsed_and_displayed() {
        for (text, shown) in [("100/10s", "100/10s"), ("1/s", "1/1s"), ("10 / 2 m", "10/120s"), ("7/24h", "7/86400s")] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for wrong in ["", "100", "100/", "/10s", "0/1s", "1/0s", "-1/s", "1/25h", "1/10", "1/1d", "9000000/1s", "1/sec"]
        {
            assert_eq!(wrong.parse::<Rate>(), Err(InvalidRate), "{wrong}");
        }
    }
}
