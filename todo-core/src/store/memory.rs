use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use async_trait::async_trait;

use super::{
    BulkResult, Change, Changes, Creation, Insertion, Outcome, Precondition, Read, Request, Revision, StoreError,
    SyncPoint, TaskChange, TaskStore, Transfer,
};
use crate::{
    Group, Limit, Page, Position, Sort, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId,
    clock::{Clock, SystemClock, Timestamp},
};

/// Keeps tasks in memory, for tests and demonstrations.
///
/// The tasks are lost when the process ends. No operation fails. The code is also the shortest example of a
/// [`TaskStore`].
#[derive(Default)]
pub struct MemoryStore(RwLock<HashMap<UserId, Owner>>, RevisionClock);

/// Where revisions come from: the system clock, if there is no other.
type RevisionClock = Option<Arc<dyn Clock>>;

/// What is kept of an owner.
#[derive(Default)]
struct Owner {
    clock: RevisionClock,
    revision: i64,
    /// Deleted tasks are known from the revision after this one on.
    purged: i64,
    tasks: BTreeMap<TaskId, Kept>,
    deleted: BTreeMap<TaskId, Deleted>,
}

struct Kept {
    task: Task,
    revision: i64,
    /// The request that created the task, and the place of the task in it.
    request: Option<(Request, usize)>,
}

struct Deleted {
    revision: i64,
    version: i64,
    request: Option<(Request, usize)>,
}

impl Owner {
    /// Moves the revision on.
    fn next_revision(&mut self) -> i64 {
        let now = self.clock.as_ref().map_or_else(|| SystemClock.now(), Clock::now).unix_micros();
        let mut next = now.max(self.revision + 1);
        if self.revision == 0 {
            // Later than all that an owner who was erased just now has had.
            next += 1000;
            self.purged = next - 1;
        }
        self.revision = next;
        next
    }

    /// What a request has created before, if anything.
    fn repeated(&self, request: &Request) -> Option<Insertion> {
        let is_same_key = |known: &&(Request, usize)| known.0.key == request.key;
        let tasks = self.tasks.values().filter_map(|kept| Some((kept.request.as_ref()?, Some(&kept.task))));
        let deleted = self.deleted.values().filter_map(|deleted| Some((deleted.request.as_ref()?, None)));
        let mut found: Vec<_> = tasks.chain(deleted).filter(|(known, _)| is_same_key(known)).collect();
        found.sort_by_key(|((_, place), _)| *place);
        let ((first, _), _) = found.first()?;
        if first.digest != request.digest {
            return Some(Insertion::KeyTaken);
        }
        let tasks: Option<Vec<_>> = found.into_iter().map(|(_, task)| task.cloned()).collect();
        Some(tasks.map_or(Insertion::Deleted, Insertion::Repeated))
    }

    fn add(&mut self, task: Task, request: Option<(Request, usize)>) {
        let revision = self.next_revision();
        let (mut version, mut request) = (task.version, request);
        if let Some(former) = self.deleted.remove(&task.id) {
            version = version.max(former.version + 1);
            request = request.or(former.request);
        }
        self.tasks.insert(task.id, Kept { task: Task { version, ..task }, revision, request });
    }

    /// Applies a change to a task that exists.
    fn change(&mut self, id: TaskId, change: &TaskChange, now: Timestamp) -> Option<(bool, Task)> {
        let kept = self.tasks.get_mut(&id)?;
        let changed = change.apply(&mut kept.task, now);
        let task = kept.task.clone();
        if changed {
            let revision = self.next_revision();
            if let Some(kept) = self.tasks.get_mut(&id) {
                kept.revision = revision;
            }
        }
        Some((changed, task))
    }

    fn remove(&mut self, id: TaskId) -> Option<Task> {
        let Kept { task, request, .. } = self.tasks.remove(&id)?;
        let revision = self.next_revision();
        self.deleted.insert(id, Deleted { revision, version: task.version, request });
        Some(task)
    }

    fn matching(&self, filter: &TaskFilter) -> Vec<TaskId> {
        let matches = filter.matcher();
        self.tasks.values().filter(|kept| matches(&kept.task)).map(|kept| kept.task.id).collect()
    }
}

impl MemoryStore {
    /// Returns an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty store whose revisions come from this clock instead of the system's, for tests that compare
    /// responses.
    #[must_use]
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        Self(RwLock::default(), Some(Arc::new(clock)))
    }

    fn new_owner(&self) -> Owner {
        Owner { clock: self.1.clone(), ..Owner::default() }
    }

    // A poisoned lock is safe to use: no call panics between two changes that belong together.
    fn owners(&self) -> RwLockReadGuard<'_, HashMap<UserId, Owner>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<UserId, Owner>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a read returns of an owner, unless the revision is known.
    fn read<T>(&self, owner: &UserId, known: Option<Revision>, read: impl FnOnce(&Owner) -> T) -> Read<T> {
        let owners = self.owners();
        let nobody = Owner::default();
        let owner = owners.get(owner).unwrap_or(&nobody);
        let revision = Revision::new(owner.revision);
        if known == Some(revision) { Read::Unchanged } else { Read::Changed { revision, value: read(owner) } }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

fn page(owner: &Owner, query: &TaskQuery) -> Page {
    let matches = query.filter.matcher();
    let one_more = usize::from(query.limit.get()) + 1;
    if query.sort == Sort::NewestFirst {
        let Some(newest) = query.newest() else { return Page::default() };
        let tasks = owner.tasks.range(..=newest).rev().map(|(_, kept)| &kept.task).filter(|task| matches(task));
        return Page::from_one_more(tasks.take(one_more).cloned().collect(), query);
    }
    let tasks = owner.tasks.values().map(|kept| &kept.task).filter(|task| matches(task));
    let mut keyed: Vec<_> = tasks.map(|task| (query.sort.key(task), task)).collect();
    if let Some(cursor) = &query.cursor {
        let before = (cursor.key(), cursor.task_id());
        keyed.retain(|(key, task)| query.sort.compare(before, (key, task.id)).is_lt());
    }
    keyed.sort_by(|(key, task), (other_key, other)| query.sort.compare((key, task.id), (other_key, other.id)));
    let tasks = keyed.into_iter().take(one_more).map(|(_, task)| task.clone()).collect();
    Page::from_one_more(tasks, query)
}

fn summary(owner: &Owner) -> Summary {
    let (mut summary, mut lists, mut tags) = (Summary::default(), BTreeMap::new(), BTreeMap::new());
    for Kept { task, .. } in owner.tasks.values() {
        let open = u64::from(!task.completed);
        summary.total += 1;
        summary.open += open;
        let count = |(all_open, all): &mut (u64, u64)| (*all_open, *all) = (*all_open + open, *all + 1);
        task.list.iter().for_each(|list| count(lists.entry(list.clone()).or_default()));
        task.tags.iter().for_each(|tag| count(tags.entry(tag.clone()).or_default()));
    }
    summary.lists = lists.into_iter().map(|(name, (open, total))| Group { name, open, total }).collect();
    summary.tags = tags.into_iter().map(|(name, (open, total))| Group { name, open, total }).collect();
    summary
}

#[async_trait]
impl TaskStore for MemoryStore {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        let mut owners = self.write();
        let kept = owners.entry(owner.clone()).or_insert_with(|| self.new_owner());
        if let Some(repeated) = creation.request.as_ref().and_then(|request| kept.repeated(request)) {
            return Ok(repeated);
        }
        if tasks.iter().any(|task| kept.tasks.contains_key(&task.id)) {
            return Ok(Insertion::IdTaken);
        }
        if creation.max_tasks.is_some_and(|max| (kept.tasks.len() + tasks.len()) as u64 > max) {
            return Ok(Insertion::QuotaExceeded);
        }
        for (place, task) in tasks.iter().enumerate() {
            let request = creation.request.clone().map(|request| (request, place));
            kept.add(Task { user_id: owner.clone(), ..task.clone() }, request);
        }
        Ok(Insertion::Done)
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        Ok(self.owners().get(owner).and_then(|kept| kept.tasks.get(&id)).map(|kept| kept.task.clone()))
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        Ok(self.read(owner, known, |owner| page(owner, query)))
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        Ok(self.read(owner, known, |owner| owner.matching(filter).len() as u64))
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        Ok(self.read(owner, known, summary))
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        let mut owners = self.write();
        let Some(kept) = owners.get_mut(owner) else { return Ok(Outcome::Missing) };
        if let Some(found) = kept.tasks.get(&id).filter(|found| !precondition.is_met_by(&found.task)) {
            return Ok(Outcome::Unmet(Box::new(found.task.clone())));
        }
        Ok(kept.change(id, change, now).map_or(Outcome::Missing, |(_, task)| Outcome::Done(task)))
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        let mut owners = self.write();
        let Some(kept) = owners.get_mut(owner) else { return Ok(BulkResult::default()) };
        let ids = kept.matching(filter);
        let changed = ids.iter().filter(|id| kept.change(**id, change, now).is_some_and(|(changed, _)| changed));
        Ok(BulkResult { changed: changed.count() as u64, matched: ids.len() as u64 })
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        (moved, version): (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        let mut owners = self.write();
        let Some(kept) = owners.get_mut(owner) else { return Ok(Vec::new()) };
        if kept.tasks.get(&moved).is_none_or(|found| found.task.version != version) {
            return Ok(Vec::new());
        }
        let moved = positions.iter().map(|(id, position)| (*id, TaskChange::position(position.clone())));
        Ok(moved.filter_map(|(id, change)| kept.change(id, &change, now)).map(|(_, task)| task).collect())
    }

    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError> {
        let mut owners = self.write();
        let Some(kept) = owners.get_mut(owner) else { return Ok(Outcome::Missing) };
        if let Some(found) = kept.tasks.get(&id).filter(|found| !precondition.is_met_by(&found.task)) {
            return Ok(Outcome::Unmet(Box::new(found.task.clone())));
        }
        Ok(kept.remove(id).map_or(Outcome::Missing, |_| Outcome::Done(())))
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        let mut owners = self.write();
        let Some(kept) = owners.get_mut(owner) else { return Ok(0) };
        let ids = kept.matching(filter);
        Ok(ids.iter().filter_map(|id| kept.remove(*id)).count() as u64)
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        Ok(self.write().remove(owner).map_or(0, |kept| kept.tasks.len() as u64))
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        let mut owners = self.write();
        let Some(source) = owners.get(owner) else { return Ok(Transfer::default()) };
        let ids: Vec<_> = source.tasks.keys().copied().collect();
        let is_taken = |id: &TaskId| owner == to || owners.get(to).is_some_and(|kept| kept.tasks.contains_key(id));
        let (stay, go): (Vec<_>, Vec<_>) = ids.into_iter().partition(is_taken);
        for id in &go {
            let task = owners.get_mut(owner).and_then(|source| source.remove(*id));
            if let Some(task) = task {
                owners
                    .entry(to.clone())
                    .or_insert_with(|| self.new_owner())
                    .add(Task { user_id: to.clone(), ..task }, None);
            }
        }
        Ok(Transfer { moved: go.len() as u64, remaining: stay.len() as u64 })
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        let owners = self.owners();
        let nobody = Owner::default();
        let kept = owners.get(owner).unwrap_or(&nobody);
        let revision = Revision::new(kept.revision);
        let from = since.unwrap_or(SyncPoint { begun: revision, ..SyncPoint::default() });
        if since.is_some() && !from.is_within(revision, Revision::new(kept.purged)) {
            return Ok(None);
        }
        let mut found: BTreeMap<(i64, TaskId), Change> = BTreeMap::new();
        for (id, Kept { task, revision, .. }) in &kept.tasks {
            found.insert((*revision, *id), Change::Task(Box::new(task.clone())));
        }
        for (id, deleted) in kept.deleted.iter().filter(|(_, deleted)| deleted.revision > from.begun.get()) {
            found.insert((deleted.revision, *id), Change::Deleted(*id));
        }
        let found = found.into_iter().filter(|((revision, id), _)| from.is_before(Revision::new(*revision), *id));
        let one_more = usize::from(limit.get()) + 1;
        let found = found.take(one_more).map(|((revision, id), change)| (Revision::new(revision), id, change));
        Ok(Some(Changes::from_one_more(found.collect(), from, revision, limit)))
    }

    async fn revisions(&self, asked: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        let owners = self.owners();
        let revision = |owner: &UserId| Revision::new(owners.get(owner).map_or(0, |kept| kept.revision));
        Ok(asked.iter().map(revision).collect())
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        let mut owners = self.write();
        let Some(kept) = owners.get_mut(owner) else { return Ok(0) };
        let mut old: Vec<_> = kept
            .deleted
            .iter()
            // A revision is not before the time of its change.
            .filter(|(_, deleted)| deleted.revision < before.unix_micros())
            .map(|(id, deleted)| (deleted.revision, *id))
            .collect();
        old.sort_unstable();
        old.truncate(limit.get().into());
        for (revision, id) in &old {
            if let Entry::Occupied(entry) = kept.deleted.entry(*id) {
                entry.remove();
            }
            kept.purged = kept.purged.max(*revision);
        }
        Ok(old.len() as u64)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
