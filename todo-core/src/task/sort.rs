use std::{cmp::Ordering, str::FromStr};

use super::{Task, id::TaskId, invalid_value::InvalidValue};
use crate::timestamp::Timestamp;

/// The value of a task by which a list is sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SortKey {
    /// There is none, or the order is that of the ids.
    None,
    /// A time.
    Time(Timestamp),
    /// A number.
    Number(i16),
    /// A text, which is compared byte by byte.
    Text(Box<str>),
}

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
    pub fn compare(self, one: (&SortKey, TaskId), other: (&SortKey, TaskId)) -> Ordering {
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
