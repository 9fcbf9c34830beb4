use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A time in UTC with microsecond precision, which every store keeps.
///
/// It is displayed as RFC 3339 with six decimals and `Z`, so that texts sort like times. The range is the years 0 to
/// 9999. Times outside it are clamped.
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

/// The error for a text that is not an RFC 3339 time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an RFC 3339 time")]
pub struct InvalidTimestamp;

impl Timestamp {
    const MIN: i64 = -62_167_219_200_000_000; // 0000-01-01T00:00:00Z
    const MAX: i64 = 253_402_300_799_999_999; // 9999-12-31T23:59:59.999999Z

    /// Creates a time from microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN, Self::MAX))
    }

    /// Creates a time from seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_micros(seconds.saturating_mul(1_000_000))
    }

    /// Returns the microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Returns the seconds since 1970-01-01T00:00:00Z, rounded down.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Returns the time that is `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::from_unix_micros(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Returns the time that is `by` earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::from_unix_micros(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// A time as text. Formatting the two times of each task with `write!` would take most of the time of a page.
pub(crate) struct TimestampText([u8; 27]);

impl TimestampText {
    pub(crate) fn as_str(&self) -> &str {
        // The text is ASCII, so the default is never used.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Timestamp {
    pub(crate) fn text(self) -> TimestampText {
        /// Writes a number with leading zeros.
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

/// Returns year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from the first of March, so that the leap day is the last day of its year (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_displayed_with_six_decimals_and_parsed() {
        for micros in [0, 1, -1, 1_000_000, Timestamp::MIN, Timestamp::MAX, 1_763_712_000_120_000] {
            let moment = Timestamp::from_unix_micros(micros);
            assert_eq!(moment.to_string().len(), "2025-11-21T08:00:00.000000Z".len());
            assert_eq!(moment.to_string().parse(), Ok(moment), "{moment}");
        }
        assert_eq!(Timestamp::from_unix_micros(i64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!("2025-11-21T10:00:00+02:00".parse(), Ok(Timestamp::from_unix_seconds(1_763_712_000)));
    }

    #[test]
    fn dates_are_those_of_the_gregorian_calendar() {
        // Every day of 10,000 years, each at another second of the day.
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
}
