use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use super::{Task, id::TaskId, invalid_value::InvalidValue};

/// The maximum number of tasks in a page: 1 to 200, by default 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit(u16);

impl Limit {
    /// The smallest limit.
    pub const MIN: u16 = 1;
    /// The greatest limit.
    pub const MAX: u16 = 200;

    /// Creates a limit.
    ///
    /// # Errors
    ///
    /// The number is less than [`MIN`](Self::MIN) or greater than [`MAX`](Self::MAX).
    pub const fn new(limit: u16) -> Result<Self, InvalidValue> {
        if limit < Self::MIN || limit > Self::MAX {
            return Err(InvalidValue::OutOfRange { min: Self::MIN, max: Self::MAX });
        }
        Ok(Self(limit))
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Limit {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let out_of_range = InvalidValue::OutOfRange { min: Self::MIN, max: Self::MAX };
        // `u16::from_str` also accepts "+5".
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(out_of_range);
        }
        text.parse().map_err(|_| out_of_range).and_then(Self::new)
    }
}

/// A position in a user's list of tasks, where a page starts.
///
/// A cursor is only a position and reveals nothing about a user. Used with another user, it lists that user's tasks
/// from the same position. Its text is opaque.
///
/// ```
/// use todo_core::Cursor;
///
/// let cursor: Cursor = "AZqj8FwAcACAAAAAAAAAAQ".parse()?;
/// assert_eq!(cursor.to_string(), "AZqj8FwAcACAAAAAAAAAAQ");
/// assert!("not a cursor".parse::<Cursor>().is_err());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(TaskId);

impl Cursor {
    /// Returns the position right after a task, which need not exist any more.
    #[must_use]
    pub const fn after(id: TaskId) -> Self {
        Self(id)
    }

    /// Returns the task before the position.
    #[must_use]
    pub const fn task_id(self) -> TaskId {
        self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_uuid().as_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidValue::NotCursor)?;
        let id = Uuid::from_slice(&bytes).map_err(|_| InvalidValue::NotCursor)?;
        Ok(Self(TaskId::from(id)))
    }
}

/// Which tasks of a user to list. The default is the first page of all tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskQuery {
    /// The maximum number of tasks.
    pub limit: Limit,
    /// Where the page starts. `None` starts at the newest task.
    pub cursor: Option<Cursor>,
    /// Lists only tasks that are done (`true`) or open (`false`).
    pub completed: Option<bool>,
}

impl TaskQuery {
    /// Returns the greatest id that the page may contain, or `None` if the page is empty.
    ///
    /// Stores select by `id <= newest()`, for the first page and for all others.
    #[must_use]
    pub fn newest(&self) -> Option<TaskId> {
        match self.cursor {
            None => Some(TaskId::from(Uuid::max())),
            Some(Cursor(id)) => {
                id.as_uuid().as_u128().checked_sub(1).map(|before| TaskId::from(Uuid::from_u128(before)))
            }
        }
    }
}

/// A page of a user's tasks, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page starts. `None` on the last page.
    pub next: Option<Cursor>,
}

impl Page {
    /// Creates a page of at most `limit` tasks, for a store that reads `limit + 1` tasks to find out whether there is a
    /// next page.
    #[must_use]
    pub fn from_one_more(mut tasks: Vec<Task>, limit: Limit) -> Self {
        let limit = usize::from(limit.get());
        let more = tasks.len() > limit;
        tasks.truncate(limit);
        let next = tasks.last().filter(|_| more).map(|task| Cursor::after(task.id));
        Self { tasks, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_decimal_digits() {
        for wrong in ["", "0", "201", "+5", "-1", "1e2", " 5", "99999999999999999999", "५"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong:?}");
        }
        assert_eq!("200".parse(), Limit::new(200));
        assert_eq!("007".parse(), Limit::new(7));
    }

    #[test]
    fn cursors_are_exactly_sixteen_bytes() {
        let cursor = Cursor::after(TaskId::from(Uuid::from_u128(42)));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for wrong in ["", "AAAA", "AZqj8FwAcACAAAAAAAAAAQ==", "AZqj8FwAcACAAAAAAAAAAR", "AZqj8FwAcACAAAAAAAAA+/"] {
            assert_eq!(wrong.parse::<Cursor>(), Err(InvalidValue::NotCursor), "{wrong:?}");
        }
    }

    #[test]
    fn a_page_after_the_smallest_id_is_empty() {
        let query = TaskQuery { cursor: Some(Cursor::after(TaskId::from(Uuid::nil()))), ..TaskQuery::default() };
        assert_eq!(query.newest(), None);
    }
}
