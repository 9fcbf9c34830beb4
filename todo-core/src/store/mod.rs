//! The stores that keep tasks, and their contract.
//!
//! [`TaskStore`] is the contract. [`MemoryStore`] is always available; `SqliteStore` and `PostgresStore` need the
//! features `sqlite` and `postgres`. [`CoalescingStore`] wraps another store. [`StoreError`] says whether a call that
//! failed may have been executed.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    Description, Due, Limit, ListName, Metadata, Page, Patch, Position, Priority, Summary, Tags, Task, TaskFilter,
    TaskId, TaskQuery, TaskReplacement, Title, UserId, clock::Timestamp,
};

mod coalescing;
mod error;
#[cfg(all(test, feature = "conformance", feature = "postgres", feature = "sqlite"))]
mod isolation;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod revision;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use coalescing::{BatchError, BatchStore, CoalescingOptions, CoalescingStatus, CoalescingStore};
pub use error::{SetupError, StoreError};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{CheckReport, PostgresInTransaction, PostgresOptions, PostgresStore, TlsPolicy};
pub use revision::{Change, Changes, Creation, Insertion, Outcome, Precondition, Read, Request, Revision, SyncPoint};
#[cfg(all(feature = "conformance", feature = "postgres"))]
pub(crate) use sql::texts::texts as postgres_statements;
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
    /// Adds all of these tasks, or none. The ids differ from each other.
    ///
    /// `task.user_id` equals `owner`; a store uses `owner`. A task with the id of a deleted one continues its versions.
    /// If several conditions fail, [`Insertion::Repeated`], [`Insertion::KeyTaken`] and [`Insertion::Deleted`] come
    /// first.
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError>;

    /// Returns the task, or `None` if this owner has no such task.
    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError>;

    /// Returns a page of this owner's tasks, unless the owner has the revision that is known. The cursor of the query
    /// is one of the same list.
    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError>;

    /// Returns how many of this owner's tasks the filter means, unless the owner has the revision that is known.
    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError>;

    /// Returns how many tasks this owner has, in all, in each list and with each tag, unless the owner has the revision
    /// that is known. The lists and tags are in the order of the bytes of their names.
    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError>;

    /// Applies the change as [`TaskChange::apply`] does if the precondition is true, and returns the changed task.
    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError>;

    /// Applies the change to all of this owner's tasks that the filter means.
    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError>;

    /// Sets the positions of some of this owner's tasks, each as a change of its own, if the task `moved` has this
    /// version. Returns these tasks in any order. Tasks that this owner does not have are left out.
    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError>;

    /// Deletes the task if the precondition is true.
    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError>;

    /// Deletes all of this owner's tasks that the filter means, and returns their number.
    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError>;

    /// Deletes all tasks of this owner and what is left of deleted ones, and returns the number of tasks.
    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError>;

    /// Moves all tasks of this owner to another one, unchanged but for their owner.
    ///
    /// A task whose id the new owner already has stays with the former owner, so that no task is lost; so do all tasks
    /// if the two owners are the same. A task that is created for the former owner at the same time may stay, too.
    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError>;

    /// Returns at most `limit` changes that come after `since`, or all tasks from the beginning without it.
    ///
    /// `None` if `since` cannot be continued: the owner never had that revision, or deletions after it are not known
    /// any more. The caller then has to begin again.
    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError>;

    /// Returns the revisions of these owners, in their order.
    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError>;

    /// Forgets this owner's tasks that were deleted before a time, the oldest first and at most `limit`, and returns
    /// their number. The time is compared with revisions, which are later than deletions if a clock has gone backwards.
    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError>;

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

/// How many tasks a change of many has found and changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkResult {
    /// The number of tasks that the filter means.
    pub matched: u64,
    /// The number of tasks that got other values, or were deleted.
    pub changed: u64,
}

/// A change of a task, made in one atomic step. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskChange {
    /// The new title, if it changes.
    pub title: Option<Title>,
    /// How the description changes.
    pub description: Patch<Description>,
    /// How the completion changes, if it does.
    pub completed: Option<Completion>,
    /// How the time changes when the task is due.
    pub due: Patch<Due>,
    /// How the priority changes.
    pub priority: Patch<Priority>,
    /// How the list changes.
    pub list: Patch<ListName>,
    /// The new tags, if they change.
    pub tags: Option<Tags>,
    /// The new position, if it changes.
    pub position: Option<Position>,
    /// The new metadata, if they change.
    pub metadata: Option<Metadata>,
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
    /// database. Returns whether a field got another value.
    ///
    /// If one did, `version` is incremented and `updated_at` becomes `now`; otherwise both stay the same. `updated_at`
    /// never becomes earlier, whatever `now` is. `completed_at` is the time of the change that completed the task, which
    /// is `updated_at` after it.
    pub fn apply(&self, task: &mut Task, now: Timestamp) -> bool {
        let updated_at = task.updated_at.max(now);
        let completed = match self.completed {
            None => task.completed,
            Some(Completion::Set(completed)) => completed,
            Some(Completion::Toggle) => !task.completed,
        };
        let mut changed = false;
        set(&mut task.title, self.title.as_ref(), &mut changed);
        patch(&mut task.description, &self.description, &mut changed);
        if completed != task.completed {
            task.completed = completed;
            task.completed_at = completed.then_some(updated_at);
            changed = true;
        }
        patch(&mut task.due, &self.due, &mut changed);
        patch(&mut task.priority, &self.priority, &mut changed);
        patch(&mut task.list, &self.list, &mut changed);
        set(&mut task.tags, self.tags.as_ref(), &mut changed);
        set(&mut task.position, self.position.as_ref(), &mut changed);
        set(&mut task.metadata, self.metadata.as_ref(), &mut changed);
        if changed {
            task.updated_at = updated_at;
            task.version += 1;
        }
        changed
    }

    /// Returns a change of the position alone.
    #[must_use]
    pub fn position(position: Position) -> Self {
        Self { position: Some(position), ..Self::default() }
    }
}

fn set<T: Clone + PartialEq>(value: &mut T, new: Option<&T>, changed: &mut bool) {
    if let Some(new) = new.filter(|new| *new != value) {
        value.clone_from(new);
        *changed = true;
    }
}

fn patch<T: Clone + PartialEq>(value: &mut Option<T>, patch: &Patch<T>, changed: &mut bool) {
    let new = match patch {
        Patch::Keep => return,
        Patch::Clear => None,
        Patch::Set(new) => Some(new),
    };
    if new != value.as_ref() {
        *value = new.cloned();
        *changed = true;
    }
}

impl From<TaskReplacement> for TaskChange {
    fn from(replacement: TaskReplacement) -> Self {
        Self {
            title: Some(replacement.title),
            description: replacement.description.map_or(Patch::Clear, Patch::Set),
            completed: replacement.completed.map(Completion::Set),
            due: replacement.due,
            priority: replacement.priority,
            list: replacement.list,
            tags: replacement.tags,
            position: replacement.position,
            metadata: replacement.metadata,
        }
    }
}

#[async_trait]
impl<T: TaskStore + ?Sized> TaskStore for Arc<T> {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        (**self).insert(owner, tasks, creation).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        (**self).get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        (**self).list(owner, query, known).await
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        (**self).count(owner, filter, known).await
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        (**self).summary(owner, known).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        (**self).update(owner, id, change, precondition, now).await
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        (**self).update_matching(owner, filter, change, now).await
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        (**self).reposition(owner, positions, moved, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError> {
        (**self).delete(owner, id, precondition).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        (**self).delete_matching(owner, filter).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        (**self).erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        (**self).transfer(owner, to).await
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        (**self).changes(owner, since, limit).await
    }

    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        (**self).revisions(owners).await
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        (**self).purge(owner, before, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        (**self).ping().await
    }
}
