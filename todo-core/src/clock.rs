//! Time, identifiers and chance, as values that are passed in: nothing in this crate asks the system behind its caller's
//! back.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::{ContextV7, Uuid};

use crate::TaskId;

/// A moment in UTC with microseconds, which is what every store keeps.
///
/// Written as RFC 3339 with six digits and `Z`, so that texts sort as times do. The range is the years 0 to 9999;
/// moments outside are brought to its ends.
///
/// ```
/// use todo_core::clock::Timestamp;
///
/// let moment = Timestamp::from_unix_micros(1_763_712_000_000_001);
/// assert_eq!(moment.to_string(), "2025-11-21T08:00:00.000001Z");
/// assert_eq!(moment.to_string().parse(), Ok(moment));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text is no RFC 3339 time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an RFC 3339 time")]
pub struct InvalidTimestamp;

impl Timestamp {
    const MIN: i64 = -62_167_219_200_000_000; // 0000-01-01T00:00:00Z
    const MAX: i64 = 253_402_300_799_999_999; // 9999-12-31T23:59:59.999999Z

    /// The moment that many microseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN, Self::MAX))
    }

    /// The moment that many seconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_micros(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The moment `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::from_unix_micros(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The moment `by` earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::from_unix_micros(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// A time as text, for pages of tasks with two each: `write!` with seven numbers would be most of what a page costs.
pub(crate) struct TimestampText([u8; 27]);

impl TimestampText {
    pub(crate) fn as_str(&self) -> &str {
        // ASCII throughout, so this never takes the default.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Timestamp {
    pub(crate) fn text(self) -> TimestampText {
        /// Writes a number that fills these digits.
        fn digits(text: &mut [u8], mut number: i64) {
            for digit in text.iter_mut().rev() {
                *digit = b"0123456789"[usize::try_from(number % 10).unwrap_or(0)];
                number /= 10;
            }
        }
        let (day, micros) = (self.0.div_euclid(86_400_000_000), self.0.rem_euclid(86_400_000_000));
        let (year, month, day_of_month) = date(day);
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (range, number) in [
            (0..4, year),
            (5..7, month),
            (8..10, day_of_month),
            (11..13, seconds / 3600),
            (14..16, seconds / 60 % 60),
            (17..19, seconds % 60),
            (20..26, micros),
        ] {
            digits(&mut text[range], number);
        }
        TimestampText(text)
    }
}

/// Year, month and day of the month of a day since 1970-01-01, in the Gregorian calendar. Eras of 400 years begin on the
/// first of March, so that the leap day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_month)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl std::str::FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        OffsetDateTime::parse(text, &Rfc3339).map(Self::from).map_err(|_| InvalidTimestamp)
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(moment: OffsetDateTime) -> Self {
        Self::from_unix_micros(i64::try_from(moment.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX))
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(moment: Timestamp) -> Self {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment.0) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Says what time it is.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present moment. It may go backwards, as system clocks do; whoever minds has to say so.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
    fn now(&self) -> Timestamp {
        OffsetDateTime::now_utc().into()
    }
}

/// A clock that stands still until it is set, for tests.
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
    /// A clock that shows `moment`.
    #[must_use]
    pub const fn at(moment: Timestamp) -> Self {
        Self(Mutex::new(moment))
    }

    /// Moves the hand, forwards or backwards.
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

/// Makes the identifiers of new tasks.
pub trait IdGenerator: fmt::Debug + Send + Sync {
    /// An identifier that was never given out before, greater than all that this generator gave out so far: "newest
    /// first" is the order of identifiers.
    fn next(&self, now: Timestamp) -> TaskId;
}

/// UUID version 7 (RFC 9562): time-ordered, and monotonic even if the clock stands still or goes backwards.
///
/// Several processes that write for one owner order their tasks by their own clocks.
#[derive(Clone)]
pub struct UuidV7(Arc<Mutex<ContextV7>>);

impl UuidV7 {
    /// The one that all services of this process share unless they are told otherwise, so that they do not overtake
    /// one another.
    #[must_use]
    pub fn shared() -> Self {
        static SHARED: LazyLock<UuidV7> = LazyLock::new(UuidV7::new);
        SHARED.clone()
    }

    /// One of its own, for tests that set the clock.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "which of the two is meant should be said")]
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
        // Identifiers hold no moment before 1970.
        let micros = now.unix_micros().max(0).unsigned_abs();
        let (seconds, nanos) = (micros / 1_000_000, (micros % 1_000_000) * 1000);
        let context = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timestamp = uuid::Timestamp::from_unix(&*context, seconds, u32::try_from(nanos).unwrap_or(0));
        TaskId::from(Uuid::new_v7(timestamp))
    }
}

/// Spreads pauses, so that those who failed together do not come back together.
///
/// It is not for secrets: who knows some of its pauses can tell the next.
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
    /// The one that all stores of this process share unless they are told otherwise; no two processes have the same.
    #[must_use]
    pub fn shared() -> Self {
        static SHARED: LazyLock<Jitter> = LazyLock::new(|| {
            let mut seed = [0; 8];
            // Without randomness processes may come back together, and nothing else.
            let _ = aws_lc_rs::rand::fill(&mut seed);
            Jitter::seeded(u64::from_ne_bytes(seed))
        });
        SHARED.clone()
    }

    /// One that spreads as this number says, for tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// A pause of at least half of this one and at most all of it.
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
    fn pauses_are_spread_over_their_second_half() {
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
    fn times_are_written_with_six_digits_and_read_back() {
        for micros in [0, 1, -1, 1_000_000, Timestamp::MIN, Timestamp::MAX, 1_763_712_000_120_000] {
            let moment = Timestamp::from_unix_micros(micros);
            assert_eq!(moment.to_string().len(), "2025-11-21T08:00:00.000000Z".len());
            assert_eq!(moment.to_string().parse(), Ok(moment), "{moment}");
        }
        assert_eq!(Timestamp::from_unix_micros(i64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!("2025-11-21T10:00:00+02:00".parse(), Ok(Timestamp::from_unix_seconds(1_763_712_000)));
    }

    #[test]
    fn the_calendar_is_the_gregorian() {
        // Every day of 10,000 years, and the ends of days.
        let first = Timestamp::MIN / 86_400_000_000;
        for day in first..=Timestamp::MAX / 86_400_000_000 {
            let moment = Timestamp::from_unix_micros(day * 86_400_000_000 + day.rem_euclid(86_400) * 1_000_000);
            let other = OffsetDateTime::from(moment);
            let expected = format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.000000Z",
                other.year(),
                u8::from(other.month()),
                other.day(),
                other.hour(),
                other.minute(),
                other.second()
            );
            assert_eq!(moment.to_string(), expected);
        }
    }

    #[test]
    fn identifiers_grow_even_if_the_clock_goes_backwards() {
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
    fn identifiers_grow_across_threads() {
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
