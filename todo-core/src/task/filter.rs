//! Which tasks of a user to list, and in which order.

use std::{cmp::Ordering, fmt, str::FromStr};

use super::{Cursor, Due, DueBound, InvalidValue, Limit, ListName, Priority, SortKey, Tag, Task, ZoneName};
use crate::timestamp::Timestamp;

/// The order of a list. Tasks without the value come last in every order. Tasks with equal values are in the order of
/// their ids, in the same direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sort {
    /// Newest first (`-created`).
    #[default]
    NewestFirst,
    /// Oldest first (`created`).
    OldestFirst,
    /// What is due first comes first (`due`).
    Due,
    /// What is due last comes first (`-due`).
    DueDescending,
    /// The most urgent first (`priority`).
    Priority,
    /// By the lower-case form of the title, byte by byte (`title`).
    Title,
    /// What was changed first comes first (`updated`).
    Updated,
    /// What was changed last comes first (`-updated`).
    UpdatedDescending,
    /// The manual order (`position`).
    Position,
    /// The manual order backwards. It has no name in URLs.
    PositionDescending,
}

impl Sort {
    /// All orders.
    pub const ALL: [Self; 10] = [
        Self::NewestFirst,
        Self::OldestFirst,
        Self::Due,
        Self::DueDescending,
        Self::Priority,
        Self::Title,
        Self::Updated,
        Self::UpdatedDescending,
        Self::Position,
        Self::PositionDescending,
    ];

    /// Returns the name in URLs.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::NewestFirst => Some("-created"),
            Self::OldestFirst => Some("created"),
            Self::Due => Some("due"),
            Self::DueDescending => Some("-due"),
            Self::Priority => Some("priority"),
            Self::Title => Some("title"),
            Self::Updated => Some("updated"),
            Self::UpdatedDescending => Some("-updated"),
            Self::Position => Some("position"),
            Self::PositionDescending => None,
        }
    }

    /// Whether greater values, and among equal ones greater ids, come first.
    #[must_use]
    pub const fn is_descending(self) -> bool {
        matches!(
            self,
            Self::NewestFirst
                | Self::DueDescending
                | Self::Priority
                | Self::UpdatedDescending
                | Self::PositionDescending
        )
    }

    /// Returns the value of a task by which it is sorted.
    #[must_use]
    pub fn key(self, task: &Task) -> SortKey {
        match self {
            Self::NewestFirst | Self::OldestFirst => SortKey::None,
            Self::Due | Self::DueDescending => {
                task.due.as_ref().map_or(SortKey::None, |due| SortKey::Time(due.sort_key()))
            }
            Self::Priority => task.priority.map_or(SortKey::None, |priority| SortKey::Number(priority.number())),
            Self::Title => SortKey::Text(task.title.as_str().to_lowercase().into()),
            Self::Updated | Self::UpdatedDescending => SortKey::Time(task.updated_at),
            Self::Position | Self::PositionDescending => SortKey::Text(task.position.as_str().into()),
        }
    }

    /// Compares two tasks by their keys and ids: which comes first?
    #[must_use]
    pub fn compare(self, one: (&SortKey, super::TaskId), other: (&SortKey, super::TaskId)) -> Ordering {
        let direction = |order: Ordering| if self.is_descending() { order.reverse() } else { order };
        match (one.0, other.0) {
            (SortKey::None, SortKey::None) => direction(one.1.cmp(&other.1)),
            (SortKey::None, _) => Ordering::Greater,
            (_, SortKey::None) => Ordering::Less,
            (key, other_key) => direction(key.cmp(other_key).then(one.1.cmp(&other.1))),
        }
    }
}

impl FromStr for Sort {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::ALL.into_iter().find(|sort| sort.name() == Some(text)).ok_or(InvalidValue::NotSort)
    }
}

/// Which tasks are meant, by the time when they are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DueFilter {
    /// Those that are never due.
    Never,
    /// Those that are due in a range of time.
    Between {
        /// From this time on.
        from: Option<Due>,
        /// Before this time.
        before: Option<Due>,
    },
}

/// Which tasks of a user are meant. The default means all of them.
///
/// ```
/// use todo_core::{ListName, Priority, TaskFilter};
///
/// let filter = TaskFilter::new().completed(false).list(ListName::new("Home")?).priority(Priority::Urgent);
/// assert!(!filter.is_empty());
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskFilter {
    /// Only tasks that are done (`true`) or open (`false`).
    pub completed: Option<bool>,
    /// Only tasks in one of these lists. `None` in it means the tasks without a list. Empty: all.
    pub lists: Vec<Option<ListName>>,
    /// Only tasks with all of these tags.
    pub tags: Vec<Tag>,
    /// Only tasks with one of these priorities. Empty: all.
    pub priorities: Vec<Priority>,
    /// Only tasks that are due then.
    pub due: Option<DueFilter>,
    /// The time zone in which dates and local times are read, those of the filter and those of tasks.
    pub time_zone: ZoneName,
    /// Only tasks that were changed at this time or later.
    pub updated_since: Option<Timestamp>,
    /// Only tasks whose title or description contains this text. Both are compared in lower case.
    pub text: Option<String>,
}

impl TaskFilter {
    /// Returns a filter that means all tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only tasks that are done (`true`) or open (`false`).
    #[must_use]
    pub fn completed(mut self, completed: impl Into<Option<bool>>) -> Self {
        self.completed = completed.into();
        self
    }

    /// Only tasks in this list, or in another one that is given.
    #[must_use]
    pub fn list(mut self, list: impl Into<Option<ListName>>) -> Self {
        self.lists.push(list.into());
        self
    }

    /// Only tasks with this tag.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Only tasks with this priority, or with another one that is given.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priorities.push(priority);
        self
    }

    /// Only tasks that are due in this range, or never.
    #[must_use]
    pub fn due(mut self, due: DueFilter) -> Self {
        self.due = Some(due);
        self
    }

    /// Reads dates and local times in this time zone.
    #[must_use]
    pub fn time_zone(mut self, zone: ZoneName) -> Self {
        self.time_zone = zone;
        self
    }

    /// Only tasks that were changed at this time or later.
    #[must_use]
    pub fn updated_since(mut self, time: Timestamp) -> Self {
        self.updated_since = Some(time);
        self
    }

    /// Only tasks whose title or description contains this text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Whether all tasks are meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { time_zone: self.time_zone.clone(), ..Self::default() }
    }

    /// Whether nothing but the completion matters.
    pub(crate) fn is_simple(&self) -> bool {
        *self == Self { completed: self.completed, time_zone: self.time_zone.clone(), ..Self::default() }
    }

    /// The bounds of the time when tasks are due.
    #[must_use]
    pub fn due_bounds(&self) -> (Option<DueBound>, Option<DueBound>) {
        match &self.due {
            Some(DueFilter::Between { from, before }) => {
                let bound = |due: &Option<Due>| due.as_ref().map(|due| DueBound::new(due, &self.time_zone));
                (bound(from), bound(before))
            }
            Some(DueFilter::Never) | None => (None, None),
        }
    }

    /// Returns a test of tasks. Stores that keep tasks as values call this; the others do the same in their database.
    pub fn matcher(&self) -> impl Fn(&Task) -> bool {
        let (from, before) = self.due_bounds();
        let text = self.text.as_ref().map(|text| text.to_lowercase());
        move |task| {
            let contains = |text: &str| {
                let description = task.description.as_ref().map(|description| description.as_str());
                task.title.as_str().to_lowercase().contains(text)
                    || description.is_some_and(|description| description.to_lowercase().contains(text))
            };
            let is_due = match (&self.due, &task.due) {
                (None, _) => true,
                (Some(DueFilter::Never), due) => due.is_none(),
                (Some(DueFilter::Between { .. }), None) => false,
                (Some(DueFilter::Between { .. }), Some(due)) => {
                    from.is_none_or(|from| from.includes(due)) && before.is_none_or(|before| !before.includes(due))
                }
            };
            is_due
                && self.completed.is_none_or(|completed| completed == task.completed)
                && (self.lists.is_empty() || self.lists.contains(&task.list))
                && self.tags.iter().all(|tag| task.tags.as_slice().contains(tag))
                && (self.priorities.is_empty()
                    || task.priority.is_some_and(|priority| self.priorities.contains(&priority)))
                && self.updated_since.is_none_or(|time| task.updated_at >= time)
                && text.as_deref().is_none_or(contains)
        }
    }

    /// A number that is different for different filters with high probability, and the same in every process.
    fn digest(&self) -> u32 {
        struct Fnv(u32);
        impl fmt::Write for Fnv {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for byte in text.bytes() {
                    self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
                }
                Ok(())
            }
        }
        if self.is_empty() {
            return 0;
        }
        let mut hash = Fnv(0x811c_9dc5);
        let Self { completed, lists, tags, priorities, due, time_zone, updated_since, text } = self;
        let due = match due {
            None => None,
            Some(DueFilter::Never) => Some((None, None)),
            Some(DueFilter::Between { from, before }) => {
                let text = |due: &Option<Due>| Some(due.as_ref().map_or("", Due::stored_text).to_owned());
                Some((text(from), text(before)))
            }
        };
        let zone = time_zone.as_str();
        // Hashing cannot fail.
        let _ = fmt::write(
            &mut hash,
            format_args!("{completed:?}{lists:?}{tags:?}{priorities:?}{due:?}{zone}{updated_since:?}{text:?}"),
        );
        hash.0
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

    /// Starts where an earlier page ended ([`Page::next`](super::Page::next)).
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
}
