use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use async_trait::async_trait;

use super::{BulkResult, StoreError, TaskChange, TaskStore, Transfer};
use crate::{Group, Page, Position, Sort, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId, clock::Timestamp};

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

    async fn insert_all(&self, owner: &UserId, tasks: &[Task]) -> Result<bool, StoreError> {
        let mut stored = self.write();
        let stored = stored.entry(owner.clone()).or_default();
        if tasks.iter().any(|task| stored.contains_key(&task.id)) {
            return Ok(false);
        }
        stored.extend(tasks.iter().map(|task| (task.id, Task { user_id: owner.clone(), ..task.clone() })));
        Ok(true)
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        let tasks = self.read();
        let Some(tasks) = tasks.get(owner) else { return Ok(Page::default()) };
        let matches = query.filter.matcher();
        let one_more = usize::from(query.limit.get()) + 1;
        if query.sort == Sort::NewestFirst {
            let Some(newest) = query.newest() else { return Ok(Page::default()) };
            let tasks = tasks.range(..=newest).rev().map(|(_, task)| task).filter(|task| matches(task));
            return Ok(Page::from_one_more(tasks.take(one_more).cloned().collect(), query));
        }
        let mut keyed: Vec<_> =
            tasks.values().filter(|task| matches(task)).map(|task| (query.sort.key(task), task)).collect();
        if let Some(cursor) = &query.cursor {
            let before = (cursor.key(), cursor.task_id());
            keyed.retain(|(key, task)| query.sort.compare(before, (key, task.id)).is_lt());
        }
        keyed.sort_by(|(key, task), (other_key, other)| query.sort.compare((key, task.id), (other_key, other.id)));
        let tasks = keyed.into_iter().take(one_more).map(|(_, task)| task.clone()).collect();
        Ok(Page::from_one_more(tasks, query))
    }

    async fn count(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        let matches = filter.matcher();
        let tasks = self.read();
        Ok(tasks.get(owner).map_or(0, |tasks| tasks.values().filter(|task| matches(task)).count() as u64))
    }

    async fn summary(&self, owner: &UserId) -> Result<Summary, StoreError> {
        let tasks = self.read();
        let (mut summary, mut lists, mut tags) = (Summary::default(), BTreeMap::new(), BTreeMap::new());
        for task in tasks.get(owner).into_iter().flat_map(BTreeMap::values) {
            let open = u64::from(!task.completed);
            summary.total += 1;
            summary.open += open;
            let count = |(all_open, all): &mut (u64, u64)| (*all_open, *all) = (*all_open + open, *all + 1);
            task.list.iter().for_each(|list| count(lists.entry(list.clone()).or_default()));
            task.tags.iter().for_each(|tag| count(tags.entry(tag.clone()).or_default()));
        }
        summary.lists = lists.into_iter().map(|(name, (open, total))| Group { name, open, total }).collect();
        summary.tags = tags.into_iter().map(|(name, (open, total))| Group { name, open, total }).collect();
        Ok(summary)
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        let mut tasks = self.write();
        let task = tasks.get_mut(owner).and_then(|tasks| tasks.get_mut(&id));
        Ok(task.filter(|task| change.if_version.is_none_or(|version| version == task.version)).map(|task| {
            change.apply(task, now);
            task.clone()
        }))
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        let matches = filter.matcher();
        let mut tasks = self.write();
        let mut result = BulkResult::default();
        for task in tasks.get_mut(owner).into_iter().flat_map(BTreeMap::values_mut).filter(|task| matches(task)) {
            result.matched += 1;
            result.changed += u64::from(change.apply(task, now));
        }
        Ok(result)
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        let mut tasks = self.write();
        let Some(tasks) = tasks.get_mut(owner) else { return Ok(Vec::new()) };
        let mut moved = Vec::with_capacity(positions.len());
        for (id, position) in positions {
            if let Some(task) = tasks.get_mut(id) {
                TaskChange::position(position.clone()).apply(task, now);
                moved.push(task.clone());
            }
        }
        Ok(moved)
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        Ok(self.write().get_mut(owner).is_some_and(|tasks| tasks.remove(&id).is_some()))
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        let matches = filter.matcher();
        let mut tasks = self.write();
        let Some(tasks) = tasks.get_mut(owner) else { return Ok(0) };
        let before = tasks.len();
        tasks.retain(|_, task| !matches(task));
        Ok((before - tasks.len()) as u64)
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
