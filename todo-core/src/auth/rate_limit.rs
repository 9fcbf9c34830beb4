//! A limit of rates within one process.

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

use super::{AuthError, Gate, Identity, Quota, Verdict};

/// How many users are remembered, if nothing else is said. At about 100 bytes each this is some 10 MiB.
const MAX_USERS: usize = 100_000;

/// So many requests in so much time: `100/10s`.
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

/// A text or a pair of numbers is no [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a count and a time, such as 100/10s (also m and h), from one request on, and in at most a day")]
pub struct InvalidRate;

impl Rate {
    /// So many requests in this time.
    ///
    /// # Errors
    ///
    /// The count is 0, the time is under a second or over a day, or one request would take less than a microsecond of
    /// it.
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
        // "10/s" is ten in one.
        let time = if time.trim().is_empty() { 1 } else { number(time)? };
        Self::new(number(count)?, Duration::from_secs(u64::from(time) * seconds))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}s", self.count, self.window.as_secs())
    }
}

/// A [`Gate`] that lets each user ask so often and no more; who asks more often is answered 429 `rate_limited` with
/// `Retry-After`. Every answer tells what is left (see [`Quota`]).
///
/// Each user has a bucket of as many requests as the [`Rate`] has; each request takes one out, and they come back
/// evenly over the time of the rate (the generic cell rate algorithm). So a user who has rested may ask that often at
/// once, and within any time at most twice that often.
///
/// It counts within this process: behind several servers each counts for itself, and a restart forgets. For one count
/// over all of them, write a [`Gate`] over what they share (Redis, say) and answer [`Verdict::Quota`]. It remembers
/// 100,000 users; if there are more at once, those who have not come for long are forgotten, and begin with a full
/// bucket. Clones count together.
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
    /// A limit to this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self::with_max_users(rate, MAX_USERS)
    }

    /// A limit to this rate that remembers so many users.
    #[must_use]
    pub fn with_max_users(rate: Rate, max_users: usize) -> Self {
        let period = rate.window / rate.count.get();
        let quota = governor::Quota::with_period(period)
            .unwrap_or_else(|| unreachable!("a rate is at most one in a microsecond"))
            .allow_burst(rate.count);
        let clock = Uptime(Instant::now());
        let buckets = Arc::new(Cache::new(max_users));
        let limiter = governor::RateLimiter::new(quota, Buckets(Arc::clone(&buckets)), clock);
        Self(Arc::new(Inner { rate, hasher: RandomState::new(), buckets, limiter }))
    }

    /// How many users are remembered now.
    #[must_use]
    pub fn users(&self) -> usize {
        self.0.buckets.len()
    }
}

#[async_trait]
impl Gate for RateLimiter {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, AuthError> {
        let Inner { rate, hasher, limiter, .. } = &*self.0;
        let quota = Quota::new(rate.count.get(), rate.window);
        // Nobody can choose an id that falls together with another's: the hash is keyed, by a key of this process.
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

/// Time since the limiter was made. By tokio's clock, which is the system's, and which tests may hold.
#[derive(Clone, Copy, Debug)]
struct Uptime(Instant);

impl clock::Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The users' buckets, by a hash of their ids: when each would be full again, in nanoseconds of uptime. There are never
/// more than the cache holds.
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
            // 0 is a bucket that nobody has taken from.
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
        RateLimiter::new(rate.parse().expect("a rate"))
    }

    async fn ask(limiter: &RateLimiter, user: &str) -> Quota {
        let identity = Identity::new(UserId::new(user).expect("an id"));
        match limiter.judge(&identity).await {
            Ok(Verdict::Quota(quota)) => quota,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_is_emptied_by_requests_and_filled_by_time() {
        let limiter = limiter("4/8s");
        for (remaining, reset) in [(3, 2), (2, 4), (1, 6), (0, 8)] {
            let quota = ask(&limiter, "ann").await;
            assert_eq!((quota.limit, quota.window), (4, Duration::from_secs(8)));
            assert_eq!((quota.remaining, quota.reset.as_secs(), quota.retry_after), (remaining, reset, None));
        }
        let refused = ask(&limiter, "ann").await;
        assert_eq!((refused.remaining, refused.retry_after), (0, Some(Duration::from_secs(2))));
        // To be refused costs nothing.
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(ask(&limiter, "ann").await.retry_after, Some(Duration::from_millis(1500)));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(ask(&limiter, "ann").await.retry_after, None);
        assert!(ask(&limiter, "ann").await.retry_after.is_some());
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(ask(&limiter, "ann").await.remaining, 3, "full is full");
    }

    #[tokio::test(start_paused = true)]
    async fn users_do_not_pay_for_one_another() {
        let limiter = limiter("1/1m");
        let clone = limiter.clone();
        for user in ["ann", "bob", "a", "b"] {
            assert_eq!(ask(&limiter, user).await.retry_after, None, "{user}");
            assert!(ask(&clone, user).await.retry_after.is_some(), "{user}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn at_once_as_many_are_let_in_as_one_after_the_other() {
        let limiter = limiter("50/24h");
        let calls = (0..200).map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move { ask(&limiter, "ann").await.retry_after.is_none() })
        });
        let mut answers = BTreeMap::new();
        for call in calls.collect::<Vec<_>>() {
            *answers.entry(call.await.expect("no panic")).or_insert(0) += 1;
        }
        assert_eq!(answers, [(true, 50), (false, 150)].into());
    }

    #[tokio::test(start_paused = true)]
    async fn no_number_of_users_makes_it_grow_without_end() {
        let rate = "1/1m".parse().expect("a rate");
        let limiter = RateLimiter::with_max_users(rate, 100);
        for user in 0..10_000 {
            ask(&limiter, &format!("user {user}")).await;
            // Somebody who keeps coming is not forgotten for that.
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
    fn a_rate_is_a_count_and_a_time() {
        for (text, shown) in [("100/10s", "100/10s"), ("1/s", "1/1s"), ("10 / 2 m", "10/120s"), ("7/24h", "7/86400s")] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for wrong in ["", "100", "100/", "/10s", "0/1s", "1/0s", "-1/s", "1/25h", "1/10", "1/1d", "9000000/1s", "1/sec"]
        {
            assert_eq!(wrong.parse::<Rate>(), Err(InvalidRate), "{wrong}");
        }
    }
}
