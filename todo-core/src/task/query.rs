use std::str::FromStr;

use uuid::Uuid;

use super::{Task, cursor::Cursor, filter::TaskFilter, id::TaskId, invalid_value::InvalidValue, sort::Sort};

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

/// Which tasks of a user to list, and in which order. The default is the first page of all tasks, newest first.
///
/// ```
/// use todo_core::{Limit, ListName, Sort, TaskFilter, TaskQuery};
///
/// let query = TaskQuery::new()
///     .filter(TaskFilter::new().completed(false).list(ListName::new("Home")?))
///     .sort(Sort::Due)
///     .limit(Limit::new(20)?);
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskQuery {
    /// Which tasks.
    pub filter: TaskFilter,
    /// In which order.
    pub sort: Sort,
    /// The maximum number of tasks.
    pub limit: Limit,
    /// Where the page starts. `None` starts at the first task.
    pub cursor: Option<Cursor>,
}

impl TaskQuery {
    /// Returns the first page of all tasks, newest first.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lists only these tasks.
    #[must_use]
    pub fn filter(mut self, filter: TaskFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Lists only tasks that are done (`true`) or open (`false`).
    #[must_use]
    pub fn completed(mut self, completed: impl Into<Option<bool>>) -> Self {
        self.filter.completed = completed.into();
        self
    }

    /// Lists in this order.
    #[must_use]
    pub fn sort(mut self, sort: Sort) -> Self {
        self.sort = sort;
        self
    }

    /// Lists at most so many tasks.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    /// Starts where an earlier page ended ([`Page::next`](Page::next)).
    #[must_use]
    pub fn cursor(mut self, cursor: impl Into<Option<Cursor>>) -> Self {
        self.cursor = cursor.into();
        self
    }

    /// Whether this is a page of the newest tasks with no other filter than the completion, which stores read in a
    /// quicker way.
    #[must_use]
    pub fn is_simple(&self) -> bool {
        self.sort == Sort::NewestFirst && self.filter.is_simple()
    }

    /// Returns the cursor after a task of this list.
    #[must_use]
    pub fn cursor_after(&self, task: &Task) -> Cursor {
        Cursor::new(self.sort, self.filter.digest(), self.sort.key(task), task.id)
    }

    /// Whether a cursor is one of this list.
    #[must_use]
    pub fn accepts(&self, cursor: &Cursor) -> bool {
        cursor.is_of(self.sort, self.filter.digest())
    }

    /// Returns the greatest id that the page may contain, or `None` if the page is empty.
    ///
    /// Stores select by `id <= newest()` where the list [is simple](Self::is_simple), for the first page and for all
    /// others.
    #[must_use]
    pub fn newest(&self) -> Option<TaskId> {
        match &self.cursor {
            None => Some(TaskId::from(Uuid::max())),
            Some(cursor) => {
                cursor.task_id().as_uuid().as_u128().checked_sub(1).map(|before| TaskId::from(Uuid::from_u128(before)))
            }
        }
    }
}

/// A page of a user's tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page starts. `None` on the last page.
    pub next: Option<Cursor>,
}

impl Page {
    /// Creates a page of at most as many tasks as the query asks for, for a store that reads one more to find out
    /// whether there is a next page.
    #[must_use]
    pub fn from_one_more(mut tasks: Vec<Task>, query: &TaskQuery) -> Self {
        let limit = usize::from(query.limit.get());
        let more = tasks.len() > limit;
        tasks.truncate(limit);
        let next = tasks.last().filter(|_| more).map(|task| query.cursor_after(task));
        Self { tasks, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SortKey;

    #[test]
    fn limits_are_decimal_digits() {
        for wrong in ["", "0", "201", "+5", "-1", "1e2", " 5", "99999999999999999999", "५"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong:?}");
        }
        assert_eq!("200".parse(), Limit::new(200));
        assert_eq!("007".parse(), Limit::new(7));
    }

    #[test]
    fn a_page_after_the_smallest_id_is_empty() {
        let smallest = Cursor::new(Sort::NewestFirst, 0, SortKey::None, TaskId::from(Uuid::nil()));
        assert_eq!(TaskQuery::new().cursor(smallest).newest(), None);
    }
}
