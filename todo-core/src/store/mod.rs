//! Where tasks live: the contract of a store, and the stores.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    Description, Page, Patch, Task, TaskId, TaskPatch, TaskQuery, TaskReplacement, Title, UserId, clock::Timestamp,
};

mod coalescing;
mod error;
#[cfg(all(test, feature = "conformance", feature = "postgres", feature = "sqlite"))]
mod isolation;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use coalescing::{BatchError, BatchStore, CoalescingOptions, CoalescingStatus, CoalescingStore};
pub use error::StoreError;
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{CheckReport, PostgresInTransaction, PostgresOptions, PostgresStore, TlsPolicy};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sql::{
    migrate::DataLoss,
    names::{InvalidName, Names},
    queue::PoolStatus,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteInTransaction, SqliteStore};

/// Where tasks live. One call is one atomic step, and an owner never sees another owner's tasks.
///
/// The contract of every store, which the suite in `todo_core::conformance` checks:
///
/// - Every method but [`ping`](Self::ping) takes the owner first, and touches only the tasks of that owner. The same
///   [`TaskId`] under two owners is two tasks.
/// - A call happens wholly or not at all, and calls that run at once have the effect of some order of them one after
///   the other: 64 toggles are 64 toggles.
/// - What a call has answered is kept, as durably as the store promises.
/// - Absence is an answer ([`None`], `false`), never an error.
///
/// # Errors
///
/// A method fails only for the two reasons that [`StoreError`] has.
#[async_trait]
pub trait TaskStore: fmt::Debug + Send + Sync {
    /// Adds a task; `false`, and nothing happens, if this owner has a task with this id already.
    ///
    /// `task.user_id` is `owner`; a store goes by `owner`.
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError>;

    /// The task, or `None` if this owner has no such task.
    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError>;

    /// A page of this owner's tasks, by descending id.
    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError>;

    /// Applies the change as [`TaskChange::apply`] does, and answers the task as it is then, or `None` if this owner
    /// has no such task.
    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError>;

    /// Removes the task; `false` if this owner has no such task.
    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError>;

    /// Removes all tasks of this owner and answers how many there were.
    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError>;

    /// Whether the store answers at all: for a readiness probe, so it touches what the other calls need.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// A change to one task, as one atomic step. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskChange {
    /// The new title, if it is to change.
    pub title: Option<Title>,
    /// What is to become of the description.
    pub description: Patch<Description>,
    /// What is to become of the completion.
    pub completed: Option<Completion>,
}

/// What is to become of a task's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It becomes this.
    Set(bool),
    /// It becomes the opposite of what it is when the change happens, not of what the caller last saw.
    Toggle,
}

impl TaskChange {
    /// A change of the completion alone.
    #[must_use]
    pub fn completion(completed: Completion) -> Self {
        Self { completed: Some(completed), ..Self::default() }
    }

    /// The meaning of a change, for stores that hold tasks as values; the others do the same in their own language.
    ///
    /// `version` grows by one and `updated_at` becomes `now` if a field has another value than before; else both stay.
    /// `updated_at` never goes backwards, whatever `now` says.
    pub fn apply(&self, task: &mut Task, now: Timestamp) {
        let title = self.title.as_ref().unwrap_or(&task.title);
        let description = match &self.description {
            Patch::Keep => task.description.as_ref(),
            Patch::Clear => None,
            Patch::Set(description) => Some(description),
        };
        let completed = match self.completed {
            None => task.completed,
            Some(Completion::Set(completed)) => completed,
            Some(Completion::Toggle) => !task.completed,
        };
        if (title, description, completed) == (&task.title, task.description.as_ref(), task.completed) {
            return;
        }
        (task.title, task.description, task.completed) = (title.clone(), description.cloned(), completed);
        task.updated_at = task.updated_at.max(now);
        task.version += 1;
    }
}

impl From<TaskPatch> for TaskChange {
    fn from(patch: TaskPatch) -> Self {
        Self { title: patch.title, description: patch.description, completed: patch.completed.map(Completion::Set) }
    }
}

impl From<TaskReplacement> for TaskChange {
    fn from(replacement: TaskReplacement) -> Self {
        Self {
            title: Some(replacement.title),
            description: replacement.description.map_or(Patch::Clear, Patch::Set),
            completed: replacement.completed.map(Completion::Set),
        }
    }
}

#[async_trait]
impl<T: TaskStore + ?Sized> TaskStore for Arc<T> {
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        (**self).insert(owner, task).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        (**self).get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        (**self).list(owner, query).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        (**self).update(owner, id, change, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        (**self).delete(owner, id).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        (**self).erase(owner).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        (**self).ping().await
    }
}
