//! When a task is due: a day, a time on the clock, or a moment.

use std::{fmt, str::FromStr};

use jiff::{
    Unit,
    civil::{Date, DateTime, Time},
    fmt::temporal::{Pieces, PiecesOffset},
    tz::{OffsetConflict, TimeZone, TimeZoneDatabase},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::invalid_value::InvalidValue;
use crate::timestamp::Timestamp;

/// When a task is due, in one of four forms. What was meant survives: a day stays a day, and a time in a time zone stays
/// at that time on the clock, also when the rules of the zone change.
///
/// | form | example | kind |
/// | --- | --- | --- |
/// | a date | `2026-12-01` | [`DueKind::Date`] |
/// | a local date and time, wherever one is | `2026-12-01T17:00` | [`DueKind::Local`] |
/// | a date and time in a time zone | `2026-12-01T17:00[Europe/Berlin]` | [`DueKind::Zoned`] |
/// | a moment | `2026-12-01T16:00Z`, `2026-12-01T17:00+01:00` | [`DueKind::Instant`] |
///
/// The grammar is that of Temporal (RFC 9557 without other annotations than the zone). A time in a zone may have an
/// offset, which must fit the zone. Without it, a time that does not exist is moved forward by the length of the gap,
/// and of a time that exists twice the first is meant (`compatible` of Temporal). The years are 1 to 9999; moments end
/// at 9999-12-30T22:00Z. Time zones are the names of IANA, from the copy of the database that is compiled in.
///
/// The text of a `Due` has seconds, a moment is in `Z`, and a time in a zone has its offset:
///
/// ```
/// use todo_core::Due;
///
/// let due: Due = "2026-12-01T17:00[europe/berlin]".parse()?;
/// assert_eq!(due.to_string(), "2026-12-01T17:00:00+01:00[Europe/Berlin]");
/// assert!("2026-12-01T17:00+05:00[Europe/Berlin]".parse::<Due>().is_err());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug)]
pub struct Due {
    /// As stores keep it: like the text, but a time in a zone has an offset only if the time exists twice.
    stored: Box<str>,
    sort_key: Timestamp,
}

/// What a [`Due`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DueKind {
    /// A day, in whatever time zone one is.
    Date,
    /// A time on the clock, in whatever time zone one is.
    Local,
    /// A time on the clock in a certain time zone.
    Zoned,
    /// A moment.
    Instant,
}

/// The name of a time zone (IANA), such as `Europe/Berlin`. The default is `UTC`.
///
/// ```
/// use todo_core::ZoneName;
///
/// assert_eq!(ZoneName::new("europe/berlin")?.as_str(), "Europe/Berlin");
/// assert!(ZoneName::new("../etc/passwd").is_err());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneName(TimeZone);

impl ZoneName {
    /// Finds the zone. Upper and lower case are not distinguished.
    ///
    /// # Errors
    ///
    /// No zone has this name.
    pub fn new(name: &str) -> Result<Self, InvalidValue> {
        zone(name).map(Self).ok_or(InvalidValue::NotTimeZone)
    }

    /// Returns the name as IANA writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

impl Default for ZoneName {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl FromStr for ZoneName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

/// Finds a time zone in the copy of the database that is compiled in, also if the host uses that of the system.
fn zone(name: &str) -> Option<TimeZone> {
    static BUNDLED: std::sync::LazyLock<TimeZoneDatabase> = std::sync::LazyLock::new(TimeZoneDatabase::bundled);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte);
    if name.len() > 64 || !name.bytes().all(is_name) {
        return None;
    }
    BUNDLED.get(name).ok().filter(|zone| zone.iana_name().is_some())
}

impl Due {
    /// The maximum length of the text in bytes. The longest valid texts have about 70.
    const MAX_BYTES: usize = 120;

    /// Reads a text in one of the four forms.
    ///
    /// # Errors
    ///
    /// The text has another form, or names a date, a time or a time zone that does not exist.
    pub fn new(text: &str) -> Result<Self, InvalidValue> {
        let (date, time, rest) = Self::parts(text)?;
        let (stored, sort_key) = match (time, rest) {
            (None, Rest::Nothing) => (date.to_string(), key_of_civil(date.at(0, 0, 0, 0))),
            (None, _) => return Err(InvalidValue::NotDue),
            (Some(time), Rest::Nothing) => {
                let moment = date.to_datetime(time);
                (moment.to_string(), key_of_civil(moment))
            }
            (Some(time), Rest::Offset(offset)) => {
                let moment = offset.to_timestamp(date.to_datetime(time)).map_err(|_| InvalidValue::NotDue)?;
                if TimeZone::UTC.to_datetime(moment).year() < 1 {
                    return Err(InvalidValue::NotDue);
                }
                (moment.to_string(), key_of(moment))
            }
            (Some(time), Rest::Zone(zone, offset)) => {
                let wall = date.to_datetime(time);
                let resolved = match offset {
                    None => zone.to_ambiguous_zoned_datetime(wall),
                    Some(offset) => OffsetConflict::Reject
                        .resolve_with(wall, offset, zone, is_written_as)
                        .map_err(|_| InvalidValue::WrongOffset)?,
                };
                let zoned = resolved.compatible().map_err(|_| InvalidValue::NotDue)?;
                if offset.is_some() && zoned.datetime() != wall {
                    return Err(InvalidValue::WrongOffset);
                }
                (stored_zoned(&zoned), key_of(zoned.timestamp()))
            }
        };
        Ok(Self { stored: stored.into(), sort_key })
    }

    /// Splits a text into its parts, which exist, and need not fit each other.
    fn parts(text: &str) -> Result<(Date, Option<Time>, Rest), InvalidValue> {
        // Annotations other than a zone, which the parser skips.
        let has_other_annotations = text.matches('[').count() > 1 || text.contains(['=', '!']);
        if text.len() > Self::MAX_BYTES || has_other_annotations || has_leap_second(text) {
            return Err(InvalidValue::NotDue);
        }
        let pieces = Pieces::parse(text).map_err(|_| InvalidValue::NotDue)?;
        if pieces.date().year() < 1 {
            return Err(InvalidValue::NotDue);
        }
        // The parser reads offsets of more than a day, which neither RFC 3339 nor Temporal has.
        if pieces.to_numeric_offset().is_some_and(|offset| offset.seconds().abs() >= 86_400) {
            return Err(InvalidValue::NotDue);
        }
        let rest = match (pieces.offset(), pieces.time_zone_annotation()) {
            (None, None) => Rest::Nothing,
            (Some(offset), None) => Rest::Offset(offset.to_numeric_offset()),
            (Some(PiecesOffset::Zulu), Some(_)) => return Err(InvalidValue::NotDue),
            (offset, Some(_)) => {
                let name = text.split_once('[').and_then(|(_, name)| name.strip_suffix(']'));
                let zone = name.and_then(zone).ok_or(InvalidValue::NotTimeZone)?;
                Rest::Zone(zone, offset.map(|offset| offset.to_numeric_offset()))
            }
        };
        Ok((pieces.date(), pieces.time(), rest))
    }

    /// What is meant.
    #[must_use]
    pub fn kind(&self) -> DueKind {
        match self.stored.as_bytes().last() {
            Some(b'Z') => DueKind::Instant,
            Some(b']') => DueKind::Zoned,
            _ if self.stored.contains('T') => DueKind::Local,
            _ => DueKind::Date,
        }
    }

    /// Returns the time by which tasks are sorted. A date counts as its first moment and a local time as itself, both in
    /// UTC. For a time in a zone it is the moment according to the rules of the zone at the last write.
    #[must_use]
    pub const fn sort_key(&self) -> Timestamp {
        self.sort_key
    }

    /// Returns the text that a store keeps, together with the [`sort_key`](Self::sort_key).
    #[must_use]
    pub fn stored_text(&self) -> &str {
        &self.stored
    }

    /// Makes a value from what a store has kept. A time zone that is not known any more does no harm.
    #[must_use]
    pub fn from_stored(text: impl Into<Box<str>>, sort_key: Timestamp) -> Self {
        Self { stored: text.into(), sort_key }
    }

    /// The text with the offset that the rules of the zone have now.
    fn zoned_text(&self) -> Option<String> {
        let (wall, name) = self.stored.strip_suffix(']')?.split_once('[')?;
        let (pieces, zone) = (Pieces::parse(wall).ok()?, zone(name)?);
        let wall = pieces.date().to_datetime(pieces.time()?);
        // If the rules have changed, an offset that does not fit any more does not matter.
        let zoned = match pieces.to_numeric_offset() {
            None => zone.to_ambiguous_zoned_datetime(wall),
            Some(offset) => OffsetConflict::PreferOffset.resolve_with(wall, offset, zone, is_written_as).ok()?,
        };
        Some(zoned.compatible().ok()?.to_string())
    }
}

/// What follows the date and the time.
enum Rest {
    Nothing,
    Offset(jiff::tz::Offset),
    Zone(TimeZone, Option<jiff::tz::Offset>),
}

/// Whether the seconds are 60, which the parser reads as 59.
fn has_leap_second(text: &str) -> bool {
    let Some((_, time)) = text.split_once(['T', 't', ' ']) else { return false };
    let time = time.split(['Z', 'z', '+', '-', '[', '.', ',']).next().unwrap_or_default();
    time.bytes().filter(u8::is_ascii_digit).skip(4).eq(*b"60")
}

fn stored_zoned(zoned: &jiff::ZonedDateTime) -> String {
    let (wall, zone) = (zoned.datetime(), zoned.time_zone());
    let name = zone.iana_name().unwrap_or("UTC");
    if zone.to_ambiguous_timestamp(wall).is_ambiguous() {
        format!("{wall}{}[{name}]", Offset(zoned.offset()))
    } else {
        format!("{wall}[{name}]")
    }
}

/// An offset as text. Offsets with seconds, of times before standard time, are rounded to minutes (RFC 9557).
struct Offset(jiff::tz::Offset);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.seconds();
        let minutes = (seconds.abs() + 30) / 60;
        let sign = if seconds < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// Whether an offset of a zone is written like this. One with seconds may be written in minutes, as [`Offset`] does.
fn is_written_as(written: jiff::tz::Offset, offset: jiff::tz::Offset) -> bool {
    written == offset || offset.round(Unit::Minute).is_ok_and(|rounded| rounded == written)
}

/// The time on the clock as if it were in UTC.
fn key_of_civil(wall: DateTime) -> Timestamp {
    let unix_epoch = Date::constant(1970, 1, 1);
    let days = i64::from(unix_epoch.until(wall.date()).map_or(0, |span| span.get_days()));
    let time = wall.time();
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    let micros = i64::from(time.subsec_nanosecond()) / 1000;
    Timestamp::from_unix_micros((days * 86_400 + seconds) * 1_000_000 + micros)
}

fn key_of(moment: jiff::Timestamp) -> Timestamp {
    Timestamp::from_unix_micros(moment.as_nanosecond().div_euclid(1000).try_into().unwrap_or(i64::MAX))
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.stored == other.stored
    }
}

impl Eq for Due {}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            DueKind::Zoned => f.write_str(&self.zoned_text().unwrap_or_else(|| self.stored.to_string())),
            DueKind::Date | DueKind::Local | DueKind::Instant => f.write_str(&self.stored),
        }
    }
}

impl FromStr for Due {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl Serialize for Due {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Due {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The tasks that are due at a moment or later, of both families: those with a moment, and those that have one only in
/// the time zone of the reader.
///
/// In a time zone whose clocks are set forward, the times in the gap come after later times on the clock (they are moved
/// forward), so a moment is not one time on the clock: there is a second range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueBound {
    /// Moments from this one on.
    pub instant: Timestamp,
    /// Dates and local times from this time on, as their sort keys.
    pub local: Timestamp,
    /// Also dates and local times in this range, whose end does not belong to it. It is empty if both are equal.
    pub gap: (Timestamp, Timestamp),
}

impl DueBound {
    /// Returns the bound that a value means when dates and local times are read in this time zone.
    #[must_use]
    pub fn new(due: &Due, zone: &ZoneName) -> Self {
        let zone = &zone.0;
        let instant = match due.kind() {
            DueKind::Instant | DueKind::Zoned => due.sort_key,
            DueKind::Date | DueKind::Local => civil(&due.stored)
                .and_then(|wall| zone.to_ambiguous_timestamp(wall).compatible().ok())
                .map_or(due.sort_key, key_of),
        };
        let exact = jiff::Timestamp::from_microsecond(instant.unix_micros()).unwrap_or(jiff::Timestamp::MAX);
        let local = key_of_civil(zone.to_datetime(exact));
        let mut bound = Self { instant, local, gap: (local, local) };
        let nanosecond = jiff::SignedDuration::from_nanos(1);
        let Some(change) = exact.checked_add(nanosecond).ok().and_then(|after| zone.preceding(after).next()) else {
            return bound;
        };
        let moved = change.timestamp();
        let before = moved.checked_sub(nanosecond).map_or(change.offset(), |before| zone.to_offset(before));
        let seconds = |offset: jiff::tz::Offset| i64::from(offset.seconds()) * 1_000_000;
        let (before, after, moved) = (seconds(before), seconds(change.offset()), key_of(moved).unix_micros());
        let clock = |micros: i64, offset: i64| Timestamp::from_unix_micros(micros + offset);
        if instant.unix_micros() < moved + (after - before).abs() {
            if after > before {
                bound.gap = (clock(instant.unix_micros(), before), clock(moved, after));
            } else {
                // The second time that the clock shows this time. Of tasks at such a time, the first is meant.
                bound.local = clock(moved, before);
                bound.gap = (bound.local, bound.local);
            }
        }
        bound
    }

    /// Whether a task that is due then is due at the bound or later.
    #[must_use]
    pub fn includes(&self, due: &Due) -> bool {
        let key = due.sort_key;
        match due.kind() {
            DueKind::Instant | DueKind::Zoned => key >= self.instant,
            DueKind::Date | DueKind::Local => key >= self.local || (self.gap.0..self.gap.1).contains(&key),
        }
    }

    /// The smallest sort key that the bound can include, for the search in an index.
    #[must_use]
    pub fn first_key(&self) -> Timestamp {
        self.instant.min(self.local).min(self.gap.0)
    }

    /// The smallest sort key from which on everything is included, for the search in an index.
    #[must_use]
    pub fn last_key(&self) -> Timestamp {
        self.instant.max(self.local)
    }
}

/// The date and time of a stored date or local time.
fn civil(stored: &str) -> Option<DateTime> {
    let pieces = Pieces::parse(stored).ok()?;
    Some(pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due(text: &str) -> Due {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_form_has_one_text() {
        for (text, output, stored, kind) in [
            ("2026-12-01", "2026-12-01", "2026-12-01", DueKind::Date),
            ("2024-02-29", "2024-02-29", "2024-02-29", DueKind::Date),
            ("20261201", "2026-12-01", "2026-12-01", DueKind::Date),
            ("0001-01-01", "0001-01-01", "0001-01-01", DueKind::Date),
            ("9999-12-31", "9999-12-31", "9999-12-31", DueKind::Date),
            ("2026-12-01T17:00", "2026-12-01T17:00:00", "2026-12-01T17:00:00", DueKind::Local),
            ("2026-12-01 17:00:05.25", "2026-12-01T17:00:05.25", "2026-12-01T17:00:05.25", DueKind::Local),
            (
                "9999-12-31T23:59:59.999999999",
                "9999-12-31T23:59:59.999999999",
                "9999-12-31T23:59:59.999999999",
                DueKind::Local,
            ),
            ("2026-12-01T16:00Z", "2026-12-01T16:00:00Z", "2026-12-01T16:00:00Z", DueKind::Instant),
            ("2026-12-01T17:00+01:00", "2026-12-01T16:00:00Z", "2026-12-01T16:00:00Z", DueKind::Instant),
            ("2026-12-01T16:00:00-00:00", "2026-12-01T16:00:00Z", "2026-12-01T16:00:00Z", DueKind::Instant),
            (
                "2026-12-01T17:00[Europe/Berlin]",
                "2026-12-01T17:00:00+01:00[Europe/Berlin]",
                "2026-12-01T17:00:00[Europe/Berlin]",
                DueKind::Zoned,
            ),
            (
                "2026-12-01T17:00+01:00[europe/berlin]",
                "2026-12-01T17:00:00+01:00[Europe/Berlin]",
                "2026-12-01T17:00:00[Europe/Berlin]",
                DueKind::Zoned,
            ),
            // The clock is set forward: this time does not exist.
            (
                "2026-03-29T02:30[Europe/Berlin]",
                "2026-03-29T03:30:00+02:00[Europe/Berlin]",
                "2026-03-29T03:30:00[Europe/Berlin]",
                DueKind::Zoned,
            ),
            // The clock is set back: this time exists twice.
            (
                "2026-10-25T02:30[Europe/Berlin]",
                "2026-10-25T02:30:00+02:00[Europe/Berlin]",
                "2026-10-25T02:30:00+02:00[Europe/Berlin]",
                DueKind::Zoned,
            ),
            (
                "2026-10-25T02:30+01:00[Europe/Berlin]",
                "2026-10-25T02:30:00+01:00[Europe/Berlin]",
                "2026-10-25T02:30:00+01:00[Europe/Berlin]",
                DueKind::Zoned,
            ),
            // Before there was standard time, the offset had seconds: 25 minutes and 21 seconds.
            (
                "1880-08-01T12:00[Europe/Dublin]",
                "1880-08-01T12:00:00-00:25[Europe/Dublin]",
                "1880-08-01T12:00:00[Europe/Dublin]",
                DueKind::Zoned,
            ),
            (
                "1880-08-01T12:00-00:25:21[Europe/Dublin]",
                "1880-08-01T12:00:00-00:25[Europe/Dublin]",
                "1880-08-01T12:00:00[Europe/Dublin]",
                DueKind::Zoned,
            ),
            // The clock was set back from an offset with seconds.
            (
                "1883-11-18T12:01-04:56[America/New_York]",
                "1883-11-18T12:01:00-04:56[America/New_York]",
                "1883-11-18T12:01:00-04:56[America/New_York]",
                DueKind::Zoned,
            ),
            ("2026-12-01T17:00[UTC]", "2026-12-01T17:00:00+00:00[UTC]", "2026-12-01T17:00:00[UTC]", DueKind::Zoned),
        ] {
            let value = due(text);
            assert_eq!((&*value.to_string(), value.stored_text(), value.kind()), (output, stored, kind), "{text}");
            assert_eq!(due(output), value, "the text is read as the same value");
            let read = Due::from_stored(stored, value.sort_key());
            assert_eq!((read.to_string(), read.kind()), (output.to_owned(), kind));
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for wrong in [
            "",
            "tomorrow",
            "2026-13-01",
            "2026-02-29",
            "2026-12-01T",
            "2026-12-01T24:00",
            "2026-12-01T17:00:60",
            "2026-12-01T170060",
            "2026-12-01T17:00:60.5Z",
            "0000-01-01",
            "-000001-01-01",
            "10000-01-01",
            "+010000-01-01",
            "2026-12-01[Europe/Berlin]",
            "2026-12-01Z",
            "2026-12-01T16:00Z[Europe/Berlin]",
            "2026-12-01T16:00Z[UTC]",
            "2026-12-01T17:00+24:00",
            "2026-12-01T17:00-25:30",
            "2026-12-01T17:00+05:00[Europe/Berlin]",
            "2026-03-29T02:30+01:00[Europe/Berlin]",
            "1880-08-01T12:00-00:25:20[Europe/Dublin]",
            "1880-08-01T12:00-00:26[Europe/Dublin]",
            "2026-12-01T17:00[Mars/Olympus]",
            "2026-12-01T17:00[../etc/passwd]",
            "2026-12-01T17:00[Europe/Berlin\0]",
            "2026-12-01T17:00[+01:00]",
            "2026-12-01T17:00[!Europe/Berlin]",
            "2026-12-01T17:00[Europe/Berlin][u-ca=hebrew]",
            "2026-12-01T17:00[u-ca=hebrew]",
            "17:00",
            "2026-12",
            "2026-W49-2",
            " 2026-12-01",
            "2026-12-01 ",
            "9999-12-31T23:59Z",
            "9999-12-31T23:59[Europe/Berlin]",
            "0001-01-01T00:00+23:00",
        ] {
            assert!(wrong.parse::<Due>().is_err(), "{wrong:?} is {:?}", wrong.parse::<Due>());
        }
    }

    #[test]
    fn a_zone_that_is_not_known_any_more_does_no_harm() {
        let read = Due::from_stored("2026-12-01T17:00:00[Atlantis/Capital]", Timestamp::from_unix_seconds(1));
        assert_eq!(
            (read.to_string(), read.kind()),
            ("2026-12-01T17:00:00[Atlantis/Capital]".to_owned(), DueKind::Zoned)
        );
    }

    #[test]
    fn keys_sort_dates_and_local_times_as_if_in_utc() {
        assert_eq!(due("2026-12-01").sort_key(), due("2026-12-01T00:00Z").sort_key());
        assert_eq!(due("2026-12-01T17:00:05.25").sort_key(), due("2026-12-01T17:00:05.25Z").sort_key());
        assert_eq!(due("2026-12-01T17:00[Europe/Berlin]").sort_key(), due("2026-12-01T16:00Z").sort_key());
        assert_eq!(due("9999-12-31").sort_key().to_string(), "9999-12-31T00:00:00.000000Z");
        assert_eq!(due("0001-01-01").sort_key().to_string(), "0001-01-01T00:00:00.000000Z");
    }

    /// What the bound has to say, computed from each task.
    fn is_at_or_after(task: &Due, bound: &Due, zone: &ZoneName) -> bool {
        let moment = |due: &Due| match due.kind() {
            DueKind::Instant | DueKind::Zoned => due.sort_key(),
            DueKind::Date | DueKind::Local => {
                let wall = civil(due.stored_text()).expect("a time");
                key_of(zone.0.to_ambiguous_timestamp(wall).compatible().expect("a moment"))
            }
        };
        moment(task) >= moment(bound)
    }

    fn any_due() -> impl Strategy<Value = Due> {
        // Around the days on which clocks are set in Berlin, New York and on Lord Howe Island (by half an hour).
        let day = proptest::sample::select(vec![
            "2026-03-08",
            "2026-03-29",
            "2026-04-05",
            "2026-10-04",
            "2026-10-25",
            "2026-11-01",
        ]);
        let zone = proptest::sample::select(vec!["", "", "Z", "[Europe/Berlin]", "[America/New_York]", "+05:00"]);
        (day, 0..24, 0..12, zone).prop_map(|(day, hour, minute, zone)| match (hour, zone) {
            (0, "") => due(day),
            _ => due(&format!("{day}T{hour:02}:{:02}{zone}", minute * 5)),
        })
    }

    proptest! {
        #[test]
        fn a_bound_includes_what_is_due_then_or_later(
            tasks in proptest::collection::vec(any_due(), 50),
            bound in any_due(),
            zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        ) {
            let zone = ZoneName::new(zone).expect("a zone");
            let range = DueBound::new(&bound, &zone);
            for task in &tasks {
                let included = range.includes(task);
                prop_assert_eq!(included, is_at_or_after(task, &bound, &zone), "{} from {} in {}: {:?}", task, bound, zone.as_str(), range);
                prop_assert!(!included || task.sort_key() >= range.first_key());
                prop_assert!(included || task.sort_key() < range.last_key());
            }
        }

        #[test]
        fn any_text_is_read_or_rejected(text in "[-0-9TZ:+.\\[\\]A-Za-z/]{0,40}") {
            if let Ok(value) = text.parse::<Due>() {
                prop_assert_eq!(due(&value.to_string()), value);
            }
        }
    }
}
