use async_trait::async_trait;

use crate::{
    Page, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId,
    clock::Timestamp,
    store::{Creation, Insertion, Precondition, Read, StoreError, TaskChange, TaskStore},
};

/// The calls of a store without conditions, for tests.
#[async_trait]
pub trait PlainCalls: TaskStore {
    /// Adds a task. Returns whether it was added.
    async fn add(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        self.add_all(owner, std::slice::from_ref(task)).await
    }

    /// Adds tasks. Returns whether they were added.
    async fn add_all(&self, owner: &UserId, tasks: &[Task]) -> Result<bool, StoreError> {
        Ok(self.insert(owner, tasks, &Creation::default()).await? == Insertion::Done)
    }

    /// Returns a page.
    async fn page(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        self.list(owner, query, None).await.map(changed)
    }

    /// Counts tasks.
    async fn number(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        self.count(owner, filter, None).await.map(changed)
    }

    /// Returns the summary.
    async fn groups(&self, owner: &UserId) -> Result<Summary, StoreError> {
        self.summary(owner, None).await.map(changed)
    }

    /// Changes a task, if there is one.
    async fn change(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        Ok(self.update(owner, id, change, &Precondition::default(), now).await?.done())
    }

    /// Deletes a task. Returns whether there was one.
    async fn remove(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        Ok(self.delete(owner, id, &Precondition::default()).await?.done().is_some())
    }
}

impl<T: TaskStore + ?Sized> PlainCalls for T {}

/// The answer to a caller who knew none.
fn changed<T>(read: Read<T>) -> T {
    match read {
        Read::Changed { value, .. } => value,
        Read::Unchanged => panic!("nothing was known"),
    }
}
