use std::fmt;

use super::{Description, Due, DueBound, ListName, Priority, Tag, Task, ZoneName};
use crate::timestamp::Timestamp;

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
                let description = task.description.as_ref().map(Description::as_str);
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
    pub(super) fn digest(&self) -> u32 {
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
