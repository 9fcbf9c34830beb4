//! Tasks and the types of their fields. Every value of these types is valid, because it can only be created with
//! checks.

mod cursor;
mod due;
mod filter;
mod id;
mod idempotency_key;
mod invalid_value;
mod metadata;
mod position;
mod priority;
mod query;
mod sort;
mod summary;
mod text;

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;
pub use cursor::Cursor;
pub use due::{Due, DueBound, DueKind, ZoneName};
pub use filter::{DueFilter, TaskFilter};
pub use id::TaskId;
pub use idempotency_key::IdempotencyKey;
pub use invalid_value::InvalidValue;
pub use metadata::{Metadata, MetadataPatch};
pub use position::Position;
pub use priority::Priority;
pub use query::{Limit, Page, TaskQuery};
pub use sort::{Sort, SortKey};
pub use summary::{Group, Summary};
pub use text::{Description, ListName, Tag, Tags, Title, UserId};

/// A task of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// The ID of the task, unique among the tasks of its owner.
    pub id: TaskId,
    /// The owner of the task.
    pub user_id: UserId,
    /// What to do.
    pub title: Title,
    /// Details.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub description: Option<Description>,
    /// Whether the task is done.
    pub completed: bool,
    /// When the task was completed. Null while it is open.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub completed_at: Option<Timestamp>,
    /// When the task is due: a date (`2026-12-01`), a local date and time (`2026-12-01T17:00:00`), a date and time in a
    /// time zone (`2026-12-01T17:00:00+01:00[Europe/Berlin]`) or a moment (`2026-12-01T16:00:00Z`).
    #[cfg_attr(feature = "openapi", schema(required))]
    pub due: Option<Due>,
    /// How important the task is.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub priority: Option<Priority>,
    /// The name of the list that the task is in.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub list: Option<ListName>,
    /// The tags of the task, in the order in which they were given.
    pub tags: Tags,
    /// The place of the task in the manual order, a key of the npm package `fractional-indexing`.
    pub position: Position,
    /// Fields of the client's or the host's own.
    pub metadata: Metadata,
    /// When the task was created.
    pub created_at: Timestamp,
    /// When the task was last changed. It is never before `created_at` and never decreases.
    pub updated_at: Timestamp,
    /// The number of changes plus one. A write that changes no value is not counted.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub version: i64,
}

/// The values of a task to create.
///
/// ```
/// use todo_core::{Description, NewTask, Priority, Title};
///
/// let task = NewTask {
///     description: Some(Description::new("Two bottles")?),
///     due: Some("2026-12-01".parse()?),
///     priority: Some(Priority::High),
///     ..NewTask::new(Title::new("Buy milk")?)
/// };
/// assert!(!task.completed);
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// What to do.
    pub title: Title,
    /// Details.
    pub description: Option<Description>,
    /// Whether the task is already done.
    pub completed: bool,
    /// When the task is due.
    pub due: Option<Due>,
    /// How important the task is.
    pub priority: Option<Priority>,
    /// The list that the task is in.
    pub list: Option<ListName>,
    /// The tags.
    pub tags: Tags,
    /// The place in the manual order. `None` is the last place.
    pub position: Option<Position>,
    /// Fields of the client's or the host's own.
    pub metadata: Metadata,
}

impl NewTask {
    /// Creates the values of an open task with nothing but a title.
    #[must_use]
    pub fn new(title: Title) -> Self {
        Self {
            title,
            description: None,
            completed: false,
            due: None,
            priority: None,
            list: None,
            tags: Tags::default(),
            position: None,
            metadata: Metadata::default(),
        }
    }

    /// Returns the task that is created with these values at this time.
    #[must_use]
    pub fn into_task(self, user_id: UserId, id: TaskId, now: Timestamp) -> Task {
        Task {
            id,
            user_id,
            title: self.title,
            description: self.description,
            completed: self.completed,
            completed_at: self.completed.then_some(now),
            due: self.due,
            priority: self.priority,
            list: self.list,
            tags: self.tags,
            position: self.position.unwrap_or_else(|| Position::at(now)),
            metadata: self.metadata,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }
}

/// The values that replace those of a task (PUT).
///
/// A description that is not given is removed. All other values that are not given stay as they are, so that a client
/// that knows only some fields never removes the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskReplacement {
    /// The new title.
    pub title: Title,
    /// The new description. `None` removes the description.
    pub description: Option<Description>,
    /// Whether the task is done.
    pub completed: Option<bool>,
    /// The change of the time when the task is due.
    pub due: Patch<Due>,
    /// The change of the priority.
    pub priority: Patch<Priority>,
    /// The change of the list.
    pub list: Patch<ListName>,
    /// The new tags.
    pub tags: Option<Tags>,
    /// The new place in the manual order.
    pub position: Option<Position>,
    /// The new metadata, which replaces the old.
    pub metadata: Option<Metadata>,
}

impl TaskReplacement {
    /// Creates a replacement that sets the title, removes the description and keeps everything else.
    #[must_use]
    pub fn new(title: Title) -> Self {
        Self {
            title,
            description: None,
            completed: None,
            due: Patch::Keep,
            priority: Patch::Keep,
            list: Patch::Keep,
            tags: None,
            position: None,
            metadata: None,
        }
    }
}

/// A change of an optional value: keep, remove or replace it (RFC 7396).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Keep the value.
    #[default]
    Keep,
    /// Remove the value.
    Clear,
    /// Replace the value.
    Set(T),
}

/// The fields of a task to change (PATCH). The default changes nothing.
///
/// ```
/// use todo_core::{Patch, TaskPatch};
///
/// let clear_description = TaskPatch { description: Patch::Clear, ..TaskPatch::default() };
/// assert_eq!(clear_description.title, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskPatch {
    /// The new title. `None` does not change it.
    pub title: Option<Title>,
    /// The change of the description.
    pub description: Patch<Description>,
    /// Whether the task is done. `None` does not change it.
    pub completed: Option<bool>,
    /// The change of the time when the task is due.
    pub due: Patch<Due>,
    /// The change of the priority.
    pub priority: Patch<Priority>,
    /// The change of the list.
    pub list: Patch<ListName>,
    /// The new tags. `None` does not change them.
    pub tags: Option<Tags>,
    /// The new place in the manual order. `None` does not change it.
    pub position: Option<Position>,
    /// What is merged into the metadata (RFC 7396). [`Patch::Clear`] removes all members.
    pub metadata: Patch<MetadataPatch>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_serialized_and_deserialized() {
        let json = r#"{"id":"019aa3f0-5c00-7000-8000-000000000001","user_id":"ann","title":"Buy milk","description":null,"completed":false,"completed_at":null,"due":null,"priority":null,"list":null,"tags":[],"position":"a0","metadata":{},"created_at":"2025-11-21T08:00:00.000000Z","updated_at":"2025-11-21T08:00:00.000000Z","version":1}"#;
        let task: Task = serde_json::from_str(json).expect("a task");
        assert_eq!(serde_json::to_string(&task).expect("JSON"), json);
        assert!(serde_json::from_str::<Task>(&json.replace("Buy milk", " ")).is_err());
    }
}
