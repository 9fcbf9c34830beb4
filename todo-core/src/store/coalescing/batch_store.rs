use async_trait::async_trait;

use crate::{
    Page, Task, TaskId, TaskQuery, UserId,
    clock::Timestamp,
    store::{Read, Revision, StoreError, TaskChange, TaskStore},
};

/// A store that can run many calls of different owners in one statement, for
/// [`CoalescingStore`](super::CoalescingStore).
///
/// The contract, in addition to that of [`TaskStore`]:
///
/// - A method returns one result for each call, in the order of the calls.
/// - Every call has its own owner and returns only rows of that owner. The owner is part of every predicate.
///   [`Task::user_id`] is the owner that the store has read from the row, not a copy of the argument, so that the
///   caller can compare the two.
/// - A batch of writes is applied completely or not at all. It contains each `(owner, id)` at most once and is sorted
///   by `(owner, id)`.
/// - A batch of writes does not wait for row locks of other transactions. A call whose task or owner is locked is left
///   out, and its result is [`None`] or `false`.
#[async_trait]
pub trait BatchStore: TaskStore {
    /// Whether the store can run batches. If not, [`CoalescingStore`](super::CoalescingStore) passes on every call
    /// unchanged.
    fn is_batching(&self) -> bool {
        true
    }

    /// Runs many [`TaskStore::get`] calls.
    async fn get_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<Option<Task>>, BatchError>;

    /// Runs many [`TaskStore::list`] calls. Either all of them have a [`completed`](TaskQuery::completed) filter or
    /// none has.
    async fn list_many(&self, calls: &[(&UserId, &TaskQuery, Option<Revision>)])
    -> Result<Vec<Read<Page>>, BatchError>;

    /// Runs many [`TaskStore::insert`] calls, each of one task and without a request; with the number of tasks that the
    /// owner may have.
    ///
    /// `false` means that the call was not applied: the id is taken, the owner has too many tasks or none before this
    /// one, or another transaction has locked the owner. The caller then runs [`TaskStore::insert`], which waits for
    /// the lock and tells the cases apart.
    async fn insert_many(&self, calls: &[(&UserId, &Task, Option<u64>)]) -> Result<Vec<bool>, BatchError>;

    /// Runs many [`TaskStore::update`] calls without a precondition.
    ///
    /// [`None`] means that the call was not applied: the task does not exist, or another transaction has locked it or
    /// its owner. The caller then runs [`TaskStore::update`], which waits for the lock and tells the cases apart.
    async fn update_many(
        &self,
        calls: &[(&UserId, TaskId, &TaskChange, Timestamp)],
    ) -> Result<Vec<Option<Task>>, BatchError>;

    /// Runs many [`TaskStore::delete`] calls without a precondition.
    ///
    /// `false` means that the call was not applied: the task does not exist, or another transaction has locked it or
    /// its owner. The caller then runs [`TaskStore::delete`], which waits for the lock and tells the cases apart.
    async fn delete_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<bool>, BatchError>;
}

/// Why a batch failed, and whether its calls may be retried.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Nothing was applied. Each call may be retried alone; all calls except the one that failed the batch can then
    /// succeed.
    #[error("the batch was rolled back")]
    RolledBack(#[source] StoreError),
    /// It is not known whether the writes were applied, or each call would fail in the same way if it was retried
    /// alone.
    #[error(transparent)]
    Failed(#[from] StoreError),
}
