//! The manual order of tasks: keys between which there is always another key.
//!
//! The scheme is that of the npm package `fractional-indexing` (David Greenspan, "Implementing Fractional Indexing"), so
//! that clients can make keys themselves: an integer whose first character says its sign and length, and digits after
//! it, all in base 62, compared byte by byte.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::invalid_value::InvalidValue;
use crate::timestamp::Timestamp;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The integer that the package reserves, so that there is always a smaller key.
const SMALLEST_INTEGER: &str = "A00000000000000000000000000";

/// The place of a task in the manual order of its owner: a key of the npm package `fractional-indexing`, at most 100
/// characters. Keys are compared byte by byte; tasks with equal keys are in the order of their ids.
///
/// ```
/// use todo_core::Position;
///
/// let (first, last): (Position, Position) = ("a0".parse()?, "a1".parse()?);
/// let between = Position::between(Some(&first), Some(&last)).expect("there is always a key between two others");
/// assert!(first < between && between < last);
/// assert!("rubbish!".parse::<Position>().is_err());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Position(String);

impl Position {
    /// The maximum number of characters.
    pub const MAX_CHARS: usize = 100;

    /// Reads a key.
    ///
    /// # Errors
    ///
    /// The text is not a key, or too long.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidValue> {
        let text = text.into();
        let is_key = text.len() <= Self::MAX_CHARS
            && text.bytes().all(|byte| digit(byte).is_some())
            && text != SMALLEST_INTEGER
            && integer_length(&text).is_some_and(|length| text.len() >= length && !text[length..].ends_with('0'));
        if is_key { Ok(Self(text)) } else { Err(InvalidValue::NotPosition { max: Self::MAX_CHARS }) }
    }

    /// Returns the place after those of all tasks that were created before: `i` and nine digits of the microseconds
    /// since 1970.
    #[must_use]
    pub fn at(created_at: Timestamp) -> Self {
        let mut rest = created_at.unix_micros().max(0).unsigned_abs().min(62_u64.pow(9) - 1);
        let mut key = *b"i000000000";
        for place in key[1..].iter_mut().rev() {
            *place = DIGITS[usize::try_from(rest % 62).unwrap_or(0)];
            rest /= 62;
        }
        Self(key.iter().copied().map(char::from).collect())
    }

    /// Returns a key between two others, or before or after one, or any. `None` if `low` is not less than `high`, or if
    /// the key would be longer than [`MAX_CHARS`](Self::MAX_CHARS).
    #[must_use]
    pub fn between(low: Option<&Self>, high: Option<&Self>) -> Option<Self> {
        if low.zip(high).is_some_and(|(low, high)| low >= high) {
            return None;
        }
        let key = key_between(low.map(Self::as_str), high.map(Self::as_str))?;
        (key.len() <= Self::MAX_CHARS).then_some(Self(key))
    }

    /// Returns this many keys between two others, in ascending order and evenly spread. `None` as for
    /// [`between`](Self::between).
    #[must_use]
    pub fn many_between(low: Option<&Self>, high: Option<&Self>, count: usize) -> Option<Vec<Self>> {
        let mut keys = Vec::with_capacity(count);
        match (low, high) {
            _ if count == 0 => {}
            (_, None) => {
                for _ in 0..count {
                    keys.push(Self::between(keys.last().or(low), None)?);
                }
            }
            (None, Some(_)) => {
                for _ in 0..count {
                    keys.push(Self::between(None, keys.last().or(high))?);
                }
                keys.reverse();
            }
            (Some(_), Some(_)) => {
                let middle = Self::between(low, high)?;
                keys.extend(Self::many_between(low, Some(&middle), count / 2)?);
                let after = Self::many_between(Some(&middle), high, count - count / 2 - 1)?;
                keys.push(middle);
                keys.extend(after);
            }
        }
        Some(keys)
    }

    /// Returns the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Position {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl TryFrom<String> for Position {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

fn digit(byte: u8) -> Option<usize> {
    DIGITS.iter().position(|digit| *digit == byte)
}

/// The length of the integer at the start of a key, with its first character: 2 for `a` and `Z`, up to 27 for `z` and
/// `A`.
fn integer_length(key: &str) -> Option<usize> {
    match key.bytes().next()? {
        first @ b'a'..=b'z' => Some(usize::from(first - b'a') + 2),
        first @ b'A'..=b'Z' => Some(usize::from(b'Z' - first) + 2),
        _ => None,
    }
}

fn key_between(low: Option<&str>, high: Option<&str>) -> Option<String> {
    let parts = |key: &str| integer_length(key).map(|length| (key[..length].to_owned(), key[length..].to_owned()));
    match (low, high) {
        (None, None) => Some("a0".to_owned()),
        (None, Some(high)) => {
            let (integer, fraction) = parts(high)?;
            if integer == SMALLEST_INTEGER {
                return Some(integer + &midpoint("", Some(&fraction)));
            }
            if integer.len() < high.len() {
                return Some(integer);
            }
            decremented(&integer)
        }
        (Some(low), None) => {
            let (integer, fraction) = parts(low)?;
            Some(incremented(&integer).unwrap_or_else(|| integer + &midpoint(&fraction, None)))
        }
        (Some(low), Some(high)) => {
            let ((low_integer, low_fraction), (high_integer, high_fraction)) = (parts(low)?, parts(high)?);
            if low_integer == high_integer {
                return Some(low_integer + &midpoint(&low_fraction, Some(&high_fraction)));
            }
            match incremented(&low_integer) {
                Some(next) if *next < *high => Some(next),
                _ => Some(low_integer + &midpoint(&low_fraction, None)),
            }
        }
    }
}

/// The digits of a fraction between two others, of which the second may be 1. The digits of neither end in 0.
fn midpoint(low: &str, high: Option<&str>) -> String {
    if let Some(high) = high {
        let (low, high) = (low.as_bytes(), high.as_bytes());
        // The digits that both begin with; a fraction ends in endless zeros.
        let common = (0..high.len()).take_while(|at| low.get(*at).unwrap_or(&b'0') == &high[*at]).count();
        if common > 0 {
            let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
            return text(&high[..common])
                + &midpoint(&text(low.get(common..).unwrap_or_default()), Some(&text(&high[common..])));
        }
    }
    let first = |fraction: &str| fraction.bytes().next().and_then(digit);
    let low_digit = first(low).unwrap_or(0);
    let high_digit = high.map_or(Some(DIGITS.len()), first).unwrap_or(DIGITS.len());
    if high_digit - low_digit > 1 {
        // Halfway, rounded up.
        return char::from(DIGITS[(low_digit + high_digit).div_ceil(2)]).to_string();
    }
    if let Some(high) = high.filter(|high| high.len() > 1) {
        return high[..1].to_owned();
    }
    char::from(DIGITS[low_digit]).to_string() + &midpoint(low.get(1..).unwrap_or_default(), None)
}

/// The next integer, or `None` after the greatest.
fn incremented(integer: &str) -> Option<String> {
    step(integer, 61, 0, |first| match first {
        b'Z' => Some((b'a', 1)),
        b'z' => None,
        first => Some((first + 1, if first >= b'a' { 2 } else { 0 })),
    })
}

/// The integer before, or `None` before the smallest.
fn decremented(integer: &str) -> Option<String> {
    step(integer, 0, 61, |first| match first {
        b'a' => Some((b'Z', 1)),
        b'A' => None,
        first => Some((first - 1, if first < b'a' { 2 } else { 0 })),
    })
}

/// Counts the digits of an integer one up or down. If all of them are `last`, they become `next`, and the first
/// character and the number of digits change: by 0 for one digit less, by 1 for as many, by 2 for one more.
fn step(integer: &str, last: usize, next: usize, carry: impl Fn(u8) -> Option<(u8, usize)>) -> Option<String> {
    let mut bytes = integer.as_bytes().to_vec();
    for place in (1..bytes.len()).rev() {
        let digit = digit(bytes[place])?;
        if digit != last {
            bytes[place] = DIGITS[if next == 0 { digit + 1 } else { digit - 1 }];
            return Some(bytes.into_iter().map(char::from).collect());
        }
        bytes[place] = DIGITS[next];
    }
    let (first, change) = carry(bytes[0])?;
    bytes[0] = first;
    match change {
        0 => drop(bytes.pop()),
        1 => {}
        _ => bytes.push(DIGITS[next]),
    }
    Some(bytes.into_iter().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Position {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The examples of the package's own tests.
    #[test]
    fn keys_are_those_of_the_package() {
        for (low, high, expected) in [
            (None, None, "a0"),
            (None, Some("a0"), "Zz"),
            (None, Some("Zz"), "Zy"),
            (Some("a0"), None, "a1"),
            (Some("a1"), None, "a2"),
            (Some("a0"), Some("a1"), "a0V"),
            (Some("a1"), Some("a2"), "a1V"),
            (Some("a0V"), Some("a1"), "a0l"),
            (Some("Zz"), Some("a0"), "ZzV"),
            (Some("Zz"), Some("a1"), "a0"),
            (None, Some("Y00"), "Xzzz"),
            (Some("bzz"), None, "c000"),
            (Some("a0"), Some("a0V"), "a0G"),
            (Some("a0"), Some("a0G"), "a08"),
            (Some("b125"), Some("b129"), "b127"),
            (Some("a0"), Some("a1V"), "a1"),
            (Some("Zz"), Some("a01"), "a0"),
            (None, Some("a0V"), "a0"),
            (None, Some("b999"), "b99"),
            (None, Some("A000000000000000000000000001"), "A000000000000000000000000000V"),
            (Some("zzzzzzzzzzzzzzzzzzzzzzzzzzy"), None, "zzzzzzzzzzzzzzzzzzzzzzzzzzz"),
            (Some("zzzzzzzzzzzzzzzzzzzzzzzzzzz"), None, "zzzzzzzzzzzzzzzzzzzzzzzzzzzV"),
        ] {
            let (low, high) = (low.map(key), high.map(key));
            let between = Position::between(low.as_ref(), high.as_ref()).expect("a key");
            assert_eq!(between.as_str(), expected, "{low:?} {high:?}");
        }
        assert_eq!(Position::between(Some(&key("a1")), Some(&key("a0"))), None);
        assert_eq!(Position::between(Some(&key("a0")), Some(&key("a0"))), None);
    }

    #[test]
    fn several_keys_are_those_of_the_package() {
        for (low, high, expected) in
            [(None, None, "a0 a1 a2 a3 a4"), (Some("a4"), None, "a5 a6 a7 a8 a9"), (None, Some("a0"), "Zv Zw Zx Zy Zz")]
        {
            let (low, high) = (low.map(key), high.map(key));
            let keys = Position::many_between(low.as_ref(), high.as_ref(), 5).expect("keys");
            assert_eq!(keys.iter().map(Position::as_str).collect::<Vec<_>>().join(" "), expected);
        }
        let keys = Position::many_between(Some(&key("a0")), Some(&key("a2")), 20).expect("keys");
        let expected = "a04 a08 a0G a0K a0O a0V a0Z a0d a0l a0t a1 a14 a18 a1G a1O a1V a1Z a1d a1l a1t";
        assert_eq!(keys.iter().map(Position::as_str).collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn other_texts_are_no_keys() {
        let long = "a0".to_owned() + &"V".repeat(99);
        for wrong in
            ["", "a", "0", "a00", "a0V0", "a0-", "ä0", "b1", "a0\0", " a0", SMALLEST_INTEGER, "Zz0", "!", &long]
        {
            assert!(Position::new(wrong).is_err(), "{wrong:?}");
        }
        assert!(Position::new("a0".to_owned() + &"V".repeat(98)).is_ok());
    }

    #[test]
    fn keys_of_times_sort_like_the_times() {
        let at = |micros| Position::at(Timestamp::from_unix_micros(micros));
        assert_eq!(at(0).as_str(), "i000000000");
        assert_eq!(at(61).as_str(), "i00000000z");
        assert_eq!(at(62).as_str(), "i000000010");
        assert!(at(1_763_712_000_000_000) < at(1_763_712_000_000_001));
        assert_eq!(at(i64::MAX), at(62_i64.pow(9) - 1));
        for micros in [-1, 0, 1_763_712_000_000_000, i64::MAX] {
            assert!(Position::new(at(micros).as_str()).is_ok());
        }
        assert!(Position::between(Some(&at(5)), Some(&at(6))).is_some());
    }

    proptest! {
        #[test]
        fn a_key_between_two_others_is_between_them(choices in proptest::collection::vec(any::<prop::sample::Index>(), 1..60)) {
            let mut keys: Vec<Position> = Vec::new();
            for choice in choices {
                let at = choice.index(keys.len() + 1);
                let (low, high) = (at.checked_sub(1).map(|before| keys[before].clone()), keys.get(at).cloned());
                let between = Position::between(low.as_ref(), high.as_ref()).expect("a key");
                prop_assert!(Position::new(between.as_str()).is_ok(), "{between}");
                prop_assert!(low.as_ref().is_none_or(|low| *low < between) && high.as_ref().is_none_or(|high| between < *high));
                keys.insert(at, between);
            }
        }
    }
}
