use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use async_trait::async_trait;

use super::{StoreError, TaskChange, TaskStore, Transfer};
use crate::{Page, Task, TaskId, TaskQuery, UserId, clock::Timestamp};

type Tasks = HashMap<UserId, BTreeMap<TaskId, Task>>;

/// Keeps tasks in memory, for tests and demonstrations.
///
/// The tasks are lost when the process ends. No operation fails. The code is also the shortest example of a
/// [`TaskStore`].
#[derive(Default)]
pub struct MemoryStore(RwLock<Tasks>);

impl MemoryStore {
    /// Returns an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // A poisoned lock is safe to use: no call panics between two changes that belong together.
    fn read(&self) -> RwLockReadGuard<'_, Tasks> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tasks> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl TaskStore for MemoryStore {
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        let mut tasks = self.write();
        let tasks = tasks.entry(owner.clone()).or_default();
        if tasks.contains_key(&task.id) {
            return Ok(false);
        }
        tasks.insert(task.id, Task { user_id: owner.clone(), ..task.clone() });
        Ok(true)
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        Ok(self.read().get(owner).and_then(|tasks| tasks.get(&id)).cloned())
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        let tasks = self.read();
        let (Some(tasks), Some(newest)) = (tasks.get(owner), query.newest()) else {
            return Ok(Page::default());
        };
        let tasks = tasks
            .range(..=newest)
            .rev()
            .map(|(_, task)| task)
            .filter(|task| query.completed.is_none_or(|completed| task.completed == completed))
            .take(usize::from(query.limit.get()) + 1)
            .cloned()
            .collect();
        Ok(Page::from_one_more(tasks, query.limit))
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        let mut tasks = self.write();
        Ok(tasks.get_mut(owner).and_then(|tasks| tasks.get_mut(&id)).map(|task| {
            change.apply(task, now);
            task.clone()
        }))
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        Ok(self.write().get_mut(owner).is_some_and(|tasks| tasks.remove(&id).is_some()))
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        Ok(self.write().remove(owner).map_or(0, |tasks| tasks.len() as u64))
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        let mut tasks = self.write();
        let source = tasks.remove(owner).unwrap_or_default();
        if owner == to {
            let remaining = source.len() as u64;
            tasks.insert(owner.clone(), source);
            return Ok(Transfer { moved: 0, remaining });
        }
        let (mut moved, mut remaining) = (0, BTreeMap::new());
        let target = tasks.entry(to.clone()).or_default();
        for (id, task) in source {
            match target.entry(id) {
                Entry::Occupied(_) => drop(remaining.insert(id, task)),
                Entry::Vacant(entry) => {
                    entry.insert(Task { user_id: to.clone(), ..task });
                    moved += 1;
                }
            }
        }
        let count = remaining.len() as u64;
        tasks.insert(owner.clone(), remaining);
        Ok(Transfer { moved, remaining: count })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
