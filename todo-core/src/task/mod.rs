//! Tasks and the types of their fields. Every value of these types is valid, because it can only be created with
//! checks.

mod id;
mod invalid_value;
mod page;
mod text;

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;
pub use id::TaskId;
pub use invalid_value::InvalidValue;
pub use page::{Cursor, Limit, Page, TaskQuery};
pub use text::{Description, Title, UserId};

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
/// use todo_core::{Description, NewTask, Title};
///
/// let task = NewTask { description: Some(Description::new("Two bottles")?), ..NewTask::new(Title::new("Buy milk")?) };
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
}

impl NewTask {
    /// Creates the values of an open task without a description.
    #[must_use]
    pub fn new(title: Title) -> Self {
        Self { title, description: None, completed: false }
    }
}

/// The values that replace those of a task (PUT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskReplacement {
    /// The new title.
    pub title: Title,
    /// The new description. `None` removes the description.
    pub description: Option<Description>,
    /// Whether the task is done. `None` does not change it, so that a client that replaces the texts does not reopen
    /// the task.
    pub completed: Option<bool>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskPatch {
    /// The new title. `None` does not change it.
    pub title: Option<Title>,
    /// The change of the description.
    pub description: Patch<Description>,
    /// Whether the task is done. `None` does not change it.
    pub completed: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_serialized_and_deserialized() {
        let json = r#"{"id":"019aa3f0-5c00-7000-8000-000000000001","user_id":"ann","title":"Buy milk","description":null,"completed":false,"created_at":"2025-11-21T08:00:00.000000Z","updated_at":"2025-11-21T08:00:00.000000Z","version":1}"#;
        let task: Task = serde_json::from_str(json).expect("a task");
        assert_eq!(serde_json::to_string(&task).expect("JSON"), json);
        assert!(serde_json::from_str::<Task>(&json.replace("Buy milk", " ")).is_err());
    }
}
