use async_trait::async_trait;

use super::{StoreError, TaskChange, TaskStore};
use crate::{Page, Task, TaskId, TaskQuery, UserId, clock::Timestamp};

/// A store that can do many calls of different owners in one round trip, for
/// [`CoalescingStore`](super::CoalescingStore).
///
/// The contract, beside that of [`TaskStore`]:
///
/// - The answer has one entry for each call, in their order.
/// - Each call has its own owner, and gets only what belongs to that owner. The owner is part of every predicate, and the
///   `user_id` of an answered task is what the store has read, not what it was asked for: the caller compares the two.
/// - A batch of writes happens wholly or not at all. It never names one `(owner, id)` twice, and comes sorted by them.
/// - A batch of writes does not wait for whoever holds one of its rows, a transaction of the host say: such a call is
///   left out, and answered with [`None`].
#[async_trait]
pub trait BatchStore: TaskStore {
    /// Whether batches are possible at all; if not, [`CoalescingStore`](super::CoalescingStore) passes every call on.
    fn is_batching(&self) -> bool {
        true
    }

    /// [`TaskStore::get`], many times.
    async fn get_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<Option<Task>>, BatchError>;

    /// [`TaskStore::list`], many times: either all with a [`completed`](TaskQuery::completed) or all without.
    async fn list_many(&self, calls: &[(&UserId, &TaskQuery)]) -> Result<Vec<Page>, BatchError>;

    /// [`TaskStore::insert`], many times.
    async fn insert_many(&self, calls: &[(&UserId, &Task)]) -> Result<Vec<bool>, BatchError>;

    /// [`TaskStore::update`], many times. `None`: this call did not happen, since there is no such task or since somebody
    /// holds it; done by itself it waits, and finds out.
    async fn update_many(
        &self,
        calls: &[(&UserId, TaskId, &TaskChange, Timestamp)],
    ) -> Result<Vec<Option<Task>>, BatchError>;

    /// [`TaskStore::delete`], many times. `false`: this call did not happen, since there is no such task or since somebody
    /// holds it; done by itself it waits, and finds out.
    async fn delete_many(&self, calls: &[(&UserId, TaskId)]) -> Result<Vec<bool>, BatchError>;
}

/// Why a batch has failed, and whether its calls may be done again.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Nothing has happened: each call may be done by itself, and all but the culprit will then succeed.
    #[error("the batch was rolled back")]
    RolledBack(#[source] StoreError),
    /// Whether the writes have happened is not known, or no call would do better by itself.
    #[error(transparent)]
    Failed(#[from] StoreError),
}
