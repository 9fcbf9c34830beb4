//! Sources of time, ids and random pauses.
//!
//! The service and the stores take them as values, so that tests can control them. [`SystemClock`], [`UuidV7`] and
//! [`Jitter::shared`] are the defaults.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;
use uuid::{ContextV7, Uuid};

use crate::task::TaskId;
pub use crate::timestamp::{InvalidTimestamp, Timestamp};

/// A source of the current time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time. It may go backwards, as system clocks do.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the system time")]
    fn now(&self) -> Timestamp {
        OffsetDateTime::now_utc().into()
    }
}

/// A clock for tests, which changes only when it is set.
///
/// ```
/// use std::time::Duration;
/// use todo_core::clock::{Clock, FixedClock, Timestamp};
///
/// let clock = FixedClock::at(Timestamp::from_unix_seconds(1_000));
/// clock.set(clock.now().plus(Duration::from_secs(60)));
/// assert_eq!(clock.now().unix_seconds(), 1_060);
/// ```
#[derive(Debug)]
pub struct FixedClock(Mutex<Timestamp>);

impl FixedClock {
    /// Creates a clock with this time.
    #[must_use]
    pub const fn at(moment: Timestamp) -> Self {
        Self(Mutex::new(moment))
    }

    /// Sets the time, forwards or backwards.
    pub fn set(&self, moment: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clock + ?Sized> Clock for Arc<T> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// A source of ids for new tasks.
pub trait IdGenerator: fmt::Debug + Send + Sync {
    /// Returns a new id. It must be unique, and greater than all earlier ids of this generator, because lists are
    /// ordered by id.
    fn next(&self, now: Timestamp) -> TaskId;
}

/// Generates UUIDs of version 7 (RFC 9562), which are ordered by time.
///
/// The ids of a generator grow even if the clock stands still or goes backwards. The ids of several processes are
/// ordered by the clocks of the processes.
#[derive(Clone)]
pub struct UuidV7(Arc<Mutex<ContextV7>>);

impl UuidV7 {
    /// Returns the generator of this process. All services share it by default, so that their ids are in one order.
    #[must_use]
    pub fn shared() -> Self {
        static SHARED: LazyLock<UuidV7> = LazyLock::new(UuidV7::new);
        SHARED.clone()
    }

    /// Creates a separate generator, for tests that set the clock.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "callers choose between `new` and `shared`")]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(ContextV7::new())))
    }
}

impl fmt::Debug for UuidV7 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UuidV7")
    }
}

impl IdGenerator for UuidV7 {
    fn next(&self, now: Timestamp) -> TaskId {
        // Ids cannot encode times before 1970.
        let micros = now.unix_micros().max(0).unsigned_abs();
        let (seconds, nanos) = (micros / 1_000_000, (micros % 1_000_000) * 1000);
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timestamp = uuid::Timestamp::from_unix(&*context, seconds, u32::try_from(nanos).unwrap_or(0));
        TaskId::from(Uuid::new_v7(timestamp))
    }
}

/// Randomizes pauses, so that clients that failed at the same time do not retry at the same time.
///
/// The pauses are predictable from earlier ones, so they must not be used for secrets.
///
/// ```
/// use std::time::Duration;
/// use todo_core::clock::Jitter;
///
/// let pause = Jitter::seeded(7).spread(Duration::from_millis(100));
/// assert!(pause >= Duration::from_millis(50) && pause <= Duration::from_millis(100));
/// assert_eq!(pause, Jitter::seeded(7).spread(Duration::from_millis(100)));
/// ```
#[derive(Clone, Debug)]
pub struct Jitter(Arc<AtomicU64>);

impl Jitter {
    /// Returns the source of this process, which all stores share by default. Each process has another random seed.
    #[must_use]
    pub fn shared() -> Self {
        static SHARED: LazyLock<Jitter> = LazyLock::new(|| {
            let mut seed = [0; 8];
            // Without randomness, processes may retry at the same time. Nothing else depends on it.
            let _ = aws_lc_rs::rand::fill(&mut seed);
            Jitter::seeded(u64::from_ne_bytes(seed))
        });
        SHARED.clone()
    }

    /// Creates a source with this seed, for tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// Returns a pause between half of `longest` and `longest`.
    #[must_use]
    pub fn spread(&self, longest: Duration) -> Duration {
        // SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let half = longest / 2;
        let part = (half.as_nanos() * u128::from(mixed)) >> u64::BITS;
        half + Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_between_half_and_all_of_the_longest() {
        let jitter = Jitter::seeded(1);
        let longest = Duration::from_secs(1);
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            tenths[usize::try_from(jitter.spread(longest).as_millis() / 100).expect("a pause").min(9)] += 1;
        }
        assert_eq!(tenths[..5], [0; 5]);
        assert!(tenths[5..].iter().all(|count| (1800..2200).contains(count)), "{tenths:?}");
        assert_eq!(jitter.spread(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn ids_grow_even_if_the_clock_goes_backwards() {
        let ids = UuidV7::new();
        let moments = [5_000, 5_000, 4_000, 1, 5_001, 0, 9_000];
        let made: Vec<_> = moments
            .into_iter()
            .cycle()
            .take(10_000)
            .map(|millis| ids.next(Timestamp::from_unix_micros(millis * 1000)))
            .collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert!(made.iter().all(|id| id.as_uuid().get_version_num() == 7));
    }

    #[test]
    fn ids_grow_across_threads() {
        let ids = UuidV7::new();
        let now = Timestamp::from_unix_seconds(1_763_712_000);
        let made = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..1000).map(|_| ids.next(now)).collect::<Vec<_>>())).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert!(made.iter().all(|ids| ids.is_sorted_by(|a, b| a < b)));
        let all: std::collections::BTreeSet<_> = made.iter().flatten().collect();
        assert_eq!(all.len(), 8000);
    }
}
