use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use super::{
    id::TaskId,
    invalid_value::InvalidValue,
    sort::{Sort, SortKey},
};
use crate::timestamp::Timestamp;

/// A position in a list of a user's tasks, where a page starts.
///
/// A cursor belongs to a sort and a filter, and names the last task of the page before by its id and the value that is
/// sorted by. So no task that stays in its place is skipped or repeated when others change. Its text is opaque. Used
/// with another user, it lists that user's tasks from the same position, and reveals nothing about a user who did not
/// give it away.
///
/// ```
/// use todo_core::Cursor;
///
/// let cursor: Cursor = "AAAAAAABmqPwXABwAIAAAAAAAAABAA".parse()?;
/// assert_eq!(cursor.to_string(), "AAAAAAABmqPwXABwAIAAAAAAAAABAA");
/// assert!("not a cursor".parse::<Cursor>().is_err());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    sort: Sort,
    filter: u32,
    key: SortKey,
    id: TaskId,
}

impl Cursor {
    /// The maximum number of bytes of the text: a title in lower case may have 600 characters of two bytes.
    const MAX_BYTES: usize = 4096;

    pub(crate) const fn new(sort: Sort, filter: u32, key: SortKey, id: TaskId) -> Self {
        Self { sort, filter, key, id }
    }

    /// Returns the position right after a task, which need not exist any more, in the list of all tasks with the newest
    /// first.
    #[must_use]
    pub const fn after(id: TaskId) -> Self {
        Self::new(Sort::NewestFirst, 0, SortKey::None, id)
    }

    pub(super) fn is_of(&self, sort: Sort, filter: u32) -> bool {
        self.sort == sort && self.filter == filter
    }

    /// Returns the value by which the task before the position is sorted.
    #[must_use]
    pub const fn key(&self) -> &SortKey {
        &self.key
    }

    /// Returns the task before the position. It need not exist any more.
    #[must_use]
    pub const fn task_id(&self) -> TaskId {
        self.id
    }

    fn bytes(&self) -> Vec<u8> {
        let number = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        let mut bytes = vec![u8::try_from(number).unwrap_or(u8::MAX)];
        bytes.extend(self.filter.to_be_bytes());
        bytes.extend(self.id.as_uuid().as_bytes());
        match &self.key {
            SortKey::None => bytes.push(0),
            SortKey::Time(time) => {
                bytes.push(1);
                bytes.extend(time.unix_micros().to_be_bytes());
            }
            SortKey::Number(number) => {
                bytes.push(2);
                bytes.extend(number.to_be_bytes());
            }
            SortKey::Text(text) => {
                bytes.push(3);
                bytes.extend(text.bytes());
            }
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (sort, rest) = bytes.split_first()?;
        let (filter, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (kind, value) = rest.split_first()?;
        let sort = *Sort::ALL.get(usize::from(*sort))?;
        let key = match (kind, value) {
            (0, []) => SortKey::None,
            (1, time) => SortKey::Time(Timestamp::from_unix_micros(i64::from_be_bytes(time.try_into().ok()?))),
            (2, number) => SortKey::Number(i16::from_be_bytes(number.try_into().ok()?)),
            // PostgreSQL cannot store NUL.
            (3, text) => SortKey::Text(str::from_utf8(text).ok().filter(|text| !text.contains('\0'))?.into()),
            _ => return None,
        };
        let fits = match sort {
            Sort::NewestFirst | Sort::OldestFirst => matches!(key, SortKey::None),
            Sort::Due | Sort::DueDescending => matches!(key, SortKey::None | SortKey::Time(_)),
            Sort::Updated | Sort::UpdatedDescending => matches!(key, SortKey::Time(_)),
            Sort::Priority => matches!(key, SortKey::None | SortKey::Number(_)),
            Sort::Title | Sort::Position | Sort::PositionDescending => matches!(key, SortKey::Text(_)),
        };
        let id = TaskId::from(Uuid::from_bytes(*id));
        let cursor = Self { sort, filter: u32::from_be_bytes(*filter), key, id };
        // A time outside the range would have another text than the one that was read.
        (fits && cursor.bytes() == bytes).then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.bytes()))
    }
}

impl FromStr for Cursor {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidValue::NotCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidValue::NotCursor)?;
        Self::read(&bytes).ok_or(InvalidValue::NotCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let id = TaskId::from(Uuid::from_u128(42));
        for (sort, key) in [
            (Sort::NewestFirst, SortKey::None),
            (Sort::Due, SortKey::None),
            (Sort::DueDescending, SortKey::Time(Timestamp::from_unix_micros(-1))),
            (Sort::Priority, SortKey::Number(4)),
            (Sort::Title, SortKey::Text("\u{e4}".into())),
            (Sort::Position, SortKey::Text("a0".into())),
        ] {
            let cursor = Cursor::new(sort, 7, key, id);
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        let wrong_key = Cursor::new(Sort::Title, 0, SortKey::Number(1), id).to_string();
        let nul = Cursor::new(Sort::Title, 0, SortKey::Text("\0".into()), id).to_string();
        let out_of_range = URL_SAFE_NO_PAD.encode([&[2, 0, 0, 0, 0][..], &[0; 16], &[1], &[0x7f; 8]].concat());
        let long = "A".repeat(5000);
        for wrong in [
            "",
            "AAAA",
            "AAAAAAABmqPwXABwAIAAAAAAAAABAA==",
            "AAAAAAABmqPwXABwAIAAAAAAAAABAB",
            "_AAAAAABmqPwXABwAIAAAAAAAAABAA",
        ]
        .into_iter()
        .chain([&*wrong_key, &*nul, &*out_of_range, &*long])
        {
            assert_eq!(wrong.parse::<Cursor>(), Err(InvalidValue::NotCursor), "{wrong:?}");
        }
    }
}
