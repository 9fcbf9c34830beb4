//! The stores that keep tasks, and their contract.
//!
//! [`TaskStore`] is the contract. [`MemoryStore`] is always available; `SqliteStore` and `PostgresStore` need the
//! features `sqlite` and `postgres`. [`CoalescingStore`] wraps another store. [`StoreError`] says whether a call that
//! failed may have been executed.

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
pub use error::{SetupError, StoreError};
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

/// Lists of more tasks than this take much longer than other calls, and wait for their turns apart from them.
pub(crate) const LONG_LIST: u16 = 50;

/// Keeps tasks. Each call is one atomic step, and an owner never sees another owner's tasks.
///
/// The contract of every store, which the suite in `todo_core::conformance` checks:
///
/// - Every method except [`ping`](Self::ping) takes the owner first, and reads and writes only the tasks of that owner;
///   [`transfer`](Self::transfer) also adds tasks to the new owner. The same [`TaskId`] under two owners means two
///   tasks.
/// - A call is executed completely or not at all. Concurrent calls have the same effect as if they ran one after the
///   other, in some order: 64 toggles toggle 64 times.
/// - When a write has returned, it is kept, as durably as the store promises.
/// - A missing task is a result ([`None`], `false`), not an error.
///
/// # Errors
///
/// [`StoreError`] says why a call failed, and whether it may have been executed.
#[async_trait]
pub trait TaskStore: fmt::Debug + Send + Sync {
    /// Adds a task. Returns `false`, and changes nothing, if this owner already has a task with this id.
    ///
    /// `task.user_id` equals `owner`; a store uses `owner`.
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError>;

    /// Returns the task, or `None` if this owner has no such task.
    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError>;

    /// Returns a page of this owner's tasks, in descending order of their ids.
    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError>;

    /// Applies the change as [`TaskChange::apply`] does, and returns the changed task, or `None` if this owner has no
    /// such task.
    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError>;

    /// Deletes the task. Returns `false` if this owner has no such task.
    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError>;

    /// Deletes all tasks of this owner, and returns their number.
    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError>;

    /// Moves all tasks of this owner to another one, unchanged but for their owner.
    ///
    /// A task whose id the new owner already has stays with the former owner, so that no task is lost; so do all tasks
    /// if the two owners are the same. A task that is created for the former owner at the same time may stay, too.
    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError>;

    /// Checks that the store works, for a readiness probe. It needs the same tables and privileges as the other calls.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// What [`TaskStore::transfer`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// The number of tasks that the new owner has got.
    pub moved: u64,
    /// The number of tasks that stay with the former owner, since the new owner has tasks with the same ids.
    pub remaining: u64,
}

/// A change of one task, made in one atomic step. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskChange {
    /// The new title, if it changes.
    pub title: Option<Title>,
    /// How the description changes.
    pub description: Patch<Description>,
    /// How the completion changes, if it does.
    pub completed: Option<Completion>,
}

/// How the completion of a task changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// To this value.
    Set(bool),
    /// To the opposite of its value at the moment of the change, which may not be the one that the caller last read.
    Toggle,
}

impl TaskChange {
    /// Returns a change of the completion alone.
    #[must_use]
    pub fn completion(completed: Completion) -> Self {
        Self { completed: Some(completed), ..Self::default() }
    }

    /// Applies the change to a task. Stores that keep tasks as values call this; the others do the same in their
    /// database.
    ///
    /// If a field gets another value, `version` is incremented and `updated_at` becomes `now`; otherwise both stay the
    /// same. `updated_at` never becomes earlier, whatever `now` is.
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

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        (**self).transfer(owner, to).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        (**self).ping().await
    }
}
