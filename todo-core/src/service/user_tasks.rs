use std::time::Duration;

use tracing::Instrument as _;

use super::TodoService;
use crate::{
    Error, InvalidValue, Limit, Metadata, NewTask, Page, Patch, Position, Summary, Task, TaskFilter, TaskId, TaskPatch,
    TaskQuery, TaskReplacement, UserId,
    clock::Timestamp,
    event::TaskEvent,
    store::{
        BulkResult, Changes, Completion, Creation, Insertion, LONG_LIST, Outcome, Precondition, Read, Request,
        Revision, StoreError, SyncPoint, TaskChange, Transfer,
    },
    user_limits::{Access, NoSlot, Slot},
};

/// A change of one or more tasks from a patch, with the metadata merged.
fn patch_change(patch: TaskPatch, metadata: Option<Metadata>) -> TaskChange {
    TaskChange {
        title: patch.title,
        description: patch.description,
        completed: patch.completed.map(Completion::Set),
        due: patch.due,
        priority: patch.priority,
        list: patch.list,
        tags: patch.tags,
        position: patch.position,
        metadata,
    }
}

/// How often a change is tried that depends on what was read before.
pub(super) const ATTEMPTS: usize = 5;

pub(super) fn changes_all_the_time() -> Error {
    StoreError::Unavailable("other calls change the task all the time".into()).into()
}

/// The answer of a read that knew no revision.
pub(super) fn value<T: Default>(read: Read<T>) -> T {
    match read {
        Read::Changed { value, .. } => value,
        Read::Unchanged => T::default(),
    }
}

fn done<T>(outcome: Outcome<T>) -> Result<T, Error> {
    match outcome {
        Outcome::Done(result) => Ok(result),
        Outcome::Missing => Err(Error::TaskNotFound),
        Outcome::Unmet(current) => Err(Error::PreconditionFailed { current }),
    }
}

/// The tasks of one user, and the operations on them.
///
/// Every operation fails with [`Error::Store`] if the store fails, and with [`Error::TooManyCalls`] if too many calls
/// of the user are waiting (see [`UserLimits`](crate::UserLimits)). The sections "Errors" of the methods list the other
/// errors.
#[derive(Clone, Debug)]
pub struct UserTasks<'a> {
    pub(super) service: &'a TodoService,
    pub(super) owner: UserId,
    pub(super) precondition: Precondition,
}

/// Tasks that were created, or that the same request has created before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The tasks, in the order of the request. Those of an earlier request are as they are now.
    pub tasks: Vec<Task>,
    /// Whether an earlier request with the same key has created them.
    pub repeated: bool,
}

impl UserTasks<'_> {
    /// Returns the same tasks, whose single changes are made only if this is true of the task: by
    /// [`replace`](Self::replace), [`patch`](Self::patch), [`toggle`](Self::toggle),
    /// [`set_completed`](Self::set_completed), [`move_to`](Self::move_to) and [`delete`](Self::delete). They fail with
    /// [`Error::PreconditionFailed`] otherwise. The condition is checked and the change made in one atomic step.
    ///
    /// ```
    /// # use todo_core::{Error, NewTask, TaskPatch, Title, TodoService, UserId, store::{MemoryStore, Precondition}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let service = TodoService::new(MemoryStore::new());
    /// let tasks = service.for_user(UserId::new("ann")?);
    /// let task = tasks.create(NewTask::new(Title::new("Buy milk")?)).await?;
    /// let patch = TaskPatch { completed: Some(true), ..TaskPatch::default() };
    /// tasks.patch(task.id, patch.clone()).await?;
    ///
    /// let still_open = tasks.only_if(Precondition::version(task.version)); assert!(matches!(still_open.patch(task.id,
    /// patch).await, Err(Error::PreconditionFailed { current }) if current.completed));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn only_if(mut self, precondition: Precondition) -> Self {
        self.precondition = precondition;
        self
    }

    /// Returns the user.
    #[must_use]
    pub fn owner(&self) -> &UserId {
        &self.owner
    }

    /// Returns a page of tasks.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidField`] `cursor`: the cursor belongs to another sort or other filters.
    pub async fn list(&self, query: &TaskQuery) -> Result<Page, Error> {
        self.list_if_changed(query, None).await.map(value)
    }

    /// Returns a page of tasks, unless the user's revision is the one that is known.
    ///
    /// # Errors
    ///
    /// Those of [`list`](Self::list).
    pub async fn list_if_changed(&self, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, Error> {
        if query.cursor.as_ref().is_some_and(|cursor| !query.accepts(cursor)) {
            return Err(Error::InvalidField { field: "cursor", reason: InvalidValue::OtherQuery });
        }
        let is_long = query.limit.get() > LONG_LIST || !query.is_simple();
        let _slot = self.slot(if is_long { Access::Many } else { Access::Shared }).await?;
        Ok(traced!("list", self.service.store().list(&self.owner, query, known))?)
    }

    /// Returns a task.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn get(&self, id: TaskId) -> Result<Task, Error> {
        let _slot = self.slot(Access::Shared).await?;
        traced!("get", self.service.store().get(&self.owner, id))?.ok_or(Error::TaskNotFound)
    }

    /// Makes the later reads of this user through this service return at least what is committed now: after changes by
    /// the SQL of the host, or when another service says that it has changed tasks. Only a store with replicas has
    /// anything to do.
    pub fn refresh(&self) {
        self.service.store().refresh(&self.owner);
    }

    /// Creates a task.
    ///
    /// # Errors
    ///
    /// [`Error::IdsExhausted`]: the id generator returned several ids in a row that this user's tasks already have.
    pub async fn create(&self, new: NewTask) -> Result<Task, Error> {
        let _slot = self.slot(Access::Shared).await?;
        let now = self.service.clock.now();
        let task = new.into_task(self.owner.clone(), self.service.ids.next(now), now);
        let created = self.insert(vec![task], None, now).await?;
        created.tasks.into_iter().next().ok_or(Error::IdsExhausted)
    }

    /// Creates several tasks, all or none, and returns them in the same order.
    ///
    /// Those without a position come last in the manual order, in this order.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidField`]: there are more than [`MAX_BULK`](Self::MAX_BULK). [`Error::IdsExhausted`] and
    /// [`Error::QuotaExceeded`] as for [`create`](Self::create).
    pub async fn create_all(&self, new: Vec<NewTask>) -> Result<Vec<Task>, Error> {
        self.create_requested(new, None).await.map(|created| created.tasks)
    }

    /// Creates several tasks, all or none, for a request that may be sent more than once: the same request creates its
    /// tasks once, whichever server it is sent to.
    ///
    /// # Errors
    ///
    /// Those of [`create_all`](Self::create_all); [`Error::IdempotencyKeyReused`]: another request had the same key;
    /// [`Error::TaskDeleted`]: one of the tasks was deleted since.
    pub async fn create_once(&self, new: Vec<NewTask>, request: Request) -> Result<Created, Error> {
        self.create_requested(new, Some(request)).await
    }

    /// Creates a task under an id that the client has chosen, a UUID of version 7: for clients that create tasks while
    /// they are offline. It is safe to retry. Returns the task as this call has created it. If the id is that of a deleted
    /// task, its versions continue; if another server has changed the new task already, the returned version is 1, so
    /// that a condition with it is not met.
    ///
    /// # Errors
    ///
    /// [`Error::PreconditionFailed`]: the user has a task with this id; [`Error::InvalidField`] `id`: it has another
    /// version; [`Error::QuotaExceeded`].
    pub async fn create_with_id(&self, id: TaskId, new: NewTask) -> Result<Task, Error> {
        let is_v7 = id.as_uuid().get_version() == Some(uuid::Version::SortRand);
        if !is_v7 || id.as_uuid().get_variant() != uuid::Variant::RFC4122 {
            return Err(Error::InvalidField { field: "id", reason: InvalidValue::NotUuidV7 });
        }
        let _slot = self.slot(Access::Write(id)).await?;
        let store = self.service.store();
        let creation = Creation { request: None, max_tasks: self.service.max_tasks };
        for _ in 0..ATTEMPTS {
            let task = new.clone().into_task(self.owner.clone(), id, self.service.clock.now());
            let inserted = traced!("insert", store.insert(&self.owner, std::slice::from_ref(&task), &creation));
            let inserted = self.service.writes.note(inserted, |inserted| *inserted == Insertion::Done)?;
            if inserted == Insertion::QuotaExceeded {
                return Err(Error::QuotaExceeded { max: self.service.max_tasks.unwrap_or_default() });
            }
            // Also after the insertion: a task under the id of a deleted one has a later version.
            let current = traced!("get", store.get(&self.owner, id));
            if inserted == Insertion::Done {
                let current = current.map_err(|error| StoreError::Interrupted(error.into()))?;
                // Another server may have changed or deleted it meanwhile. Then the version is not known, and the first
                // one is returned: a condition with it is not met, unless it is the right one.
                let is_same = |current: &Task| Task { version: task.version, ..current.clone() } == task;
                let version = current.filter(is_same).map_or(task.version, |current| current.version);
                let task = Task { version, ..task };
                self.service.hook.call(|| TaskEvent::Created { owner: self.owner.clone(), tasks: vec![task.clone()] });
                return Ok(task);
            }
            if let Some(current) = current? {
                return Err(Error::PreconditionFailed { current: Box::new(current) });
            }
        }
        Err(changes_all_the_time())
    }

    async fn create_requested(&self, new: Vec<NewTask>, request: Option<Request>) -> Result<Created, Error> {
        if new.len() > Self::MAX_BULK {
            return Err(Error::InvalidField { field: "tasks", reason: InvalidValue::TooMany { max: Self::MAX_BULK } });
        }
        let _slot = self.slot(if new.len() > 1 { Access::Many } else { Access::Shared }).await?;
        let now = self.service.clock.now();
        let with_place = |(place, new): (u64, NewTask)| {
            let id = self.service.ids.next(now);
            let at = now.plus(Duration::from_micros(place));
            let position = new.position.clone().unwrap_or_else(|| Position::at(at));
            NewTask { position: Some(position), ..new }.into_task(self.owner.clone(), id, now)
        };
        let tasks: Vec<_> = (0..).zip(new).map(with_place).collect();
        if tasks.is_empty() {
            return Ok(Created { tasks, repeated: false });
        }
        self.insert(tasks, request, now).await
    }

    async fn insert(&self, mut tasks: Vec<Task>, request: Option<Request>, now: Timestamp) -> Result<Created, Error> {
        let creation = Creation { request, max_tasks: self.service.max_tasks };
        let _changing = self.service.listeners.after_change(&self.owner);
        // Another process may have generated the same id, which is extremely unlikely.
        for _ in 0..3 {
            let inserted = traced!("insert", self.service.store().insert(&self.owner, &tasks, &creation));
            match self.service.writes.note(inserted, |inserted| *inserted == Insertion::Done)? {
                Insertion::Done => {
                    self.service.hook.call(|| TaskEvent::Created { owner: self.owner.clone(), tasks: tasks.clone() });
                    return Ok(Created { tasks, repeated: false });
                }
                Insertion::Repeated(tasks) => return Ok(Created { tasks, repeated: true }),
                Insertion::KeyTaken => return Err(Error::IdempotencyKeyReused),
                Insertion::Deleted => return Err(Error::TaskDeleted),
                Insertion::QuotaExceeded => {
                    return Err(Error::QuotaExceeded { max: self.service.max_tasks.unwrap_or_default() });
                }
                Insertion::IdTaken => tasks.iter_mut().for_each(|task| task.id = self.service.ids.next(now)),
            }
        }
        Err(Error::IdsExhausted)
    }

    /// The maximum number of tasks that one call creates.
    pub const MAX_BULK: usize = 100;

    /// Adds tasks as they are, with their ids, times and versions, all or none: for a copy of a user's tasks. Their
    /// owner becomes this user. Returns `false` and adds none, if this user has a task with one of the ids already, or
    /// if two of the tasks have the same id.
    ///
    /// ```
    /// use todo_core::{Limit, NewTask, Sort, TaskQuery, Title, TodoService, UserId, api::task_from_json,
    /// store::MemoryStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let service = TodoService::new(MemoryStore::new());
    /// let ann = service.for_user(UserId::new("ann")?);
    /// ann.create(NewTask::new(Title::new("Buy milk")?)).await?;
    /// let page = ann.list(&TaskQuery::new().sort(Sort::OldestFirst).limit(Limit::new(200)?)).await?;
    ///
    /// // As JSON, for example in a file; a task has the same form as in the API.
    /// let lines = page.tasks.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    /// let read = lines.iter().map(|line| task_from_json(line.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    ///
    /// assert!(!ann.import(&read).await?, "she has these tasks already");
    /// ann.erase().await?;
    /// assert!(ann.import(&read).await?);
    /// assert_eq!(ann.list(&TaskQuery::new()).await?, page);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidField`]: there are more than [`MAX_BULK`](Self::MAX_BULK).
    pub async fn import(&self, tasks: &[Task]) -> Result<bool, Error> {
        if tasks.len() > Self::MAX_BULK {
            return Err(Error::InvalidField { field: "tasks", reason: InvalidValue::TooMany { max: Self::MAX_BULK } });
        }
        let _slot = self.slot(Access::Many).await?;
        let mut ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
        ids.sort_unstable();
        if tasks.is_empty() || ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Ok(tasks.is_empty());
        }
        let tasks: Vec<_> = tasks.iter().map(|task| Task { user_id: self.owner.clone(), ..task.clone() }).collect();
        let creation = Creation { request: None, max_tasks: self.service.max_tasks };
        let _changing = self.service.listeners.after_change(&self.owner);
        let imported = traced!("insert", self.service.store().insert(&self.owner, &tasks, &creation));
        let imported = self.service.writes.note(imported, |imported| *imported == Insertion::Done)?;
        if imported == Insertion::QuotaExceeded {
            return Err(Error::QuotaExceeded { max: self.service.max_tasks.unwrap_or_default() });
        }
        let imported = imported == Insertion::Done;
        if imported {
            self.service.hook.call(|| TaskEvent::Created { owner: self.owner.clone(), tasks });
        }
        Ok(imported)
    }

    /// Returns how many tasks a filter means.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn count(&self, filter: &TaskFilter) -> Result<u64, Error> {
        self.count_if_changed(filter, None).await.map(value)
    }

    /// Returns how many tasks the filter means, unless the user's revision is the one that is known.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn count_if_changed(&self, filter: &TaskFilter, known: Option<Revision>) -> Result<Read<u64>, Error> {
        let _slot = self.slot(Access::Many).await?;
        Ok(traced!("count", self.service.store().count(&self.owner, filter, known))?)
    }

    /// Returns how many tasks there are, in all, in each list and with each tag.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn summary(&self) -> Result<Summary, Error> {
        self.summary_if_changed(None).await.map(value)
    }

    /// Returns the summary, unless the user's revision is the one that is known.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn summary_if_changed(&self, known: Option<Revision>) -> Result<Read<Summary>, Error> {
        let _slot = self.slot(Access::Many).await?;
        Ok(traced!("summary", self.service.store().summary(&self.owner, known))?)
    }

    /// Changes some fields of all tasks that a filter means, in one step.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidField`] `metadata`: metadata cannot be changed for many tasks at once.
    pub async fn patch_matching(&self, filter: &TaskFilter, patch: TaskPatch) -> Result<BulkResult, Error> {
        if patch.metadata != Patch::Keep {
            return Err(Error::InvalidField { field: "metadata", reason: InvalidValue::NotInBulk });
        }
        let change = patch_change(patch, None);
        let _slot = self.slot(Access::Many).await?;
        let now = self.service.clock.now();
        let _changing = self.service.listeners.after_change(&self.owner);
        let result =
            traced!("update_matching", self.service.store().update_matching(&self.owner, filter, &change, now));
        let result = self.service.writes.note(result, |result| result.changed > 0)?;
        if result.changed > 0 {
            self.service.hook.call(|| TaskEvent::ManyChanged { owner: self.owner.clone(), count: result.changed });
        }
        Ok(result)
    }

    /// Deletes all tasks that a filter means, in one step, and returns how many there were.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn delete_matching(&self, filter: &TaskFilter) -> Result<u64, Error> {
        let _slot = self.slot(Access::Many).await?;
        let _changing = self.service.listeners.after_change(&self.owner);
        let count = traced!("delete_matching", self.service.store().delete_matching(&self.owner, filter));
        let count = self.service.writes.note(count, |count| *count > 0)?;
        if count > 0 {
            self.service.hook.call(|| TaskEvent::ManyDeleted { owner: self.owner.clone(), count });
            self.forget_old_deletions(count).await;
        }
        Ok(count)
    }

    /// Replaces the content of a task.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn replace(&self, id: TaskId, replacement: TaskReplacement) -> Result<Task, Error> {
        self.change(id, &replacement.into()).await
    }

    /// Changes some fields of a task.
    ///
    /// A patch of the metadata is merged with those that the task has. If other calls change the task each time between
    /// reading and writing, this fails after five attempts.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`]; [`Error::InvalidField`] `metadata`: merged, they are too large or too deep;
    /// [`StoreError::Unavailable`] after five attempts.
    pub async fn patch(&self, id: TaskId, mut patch: TaskPatch) -> Result<Task, Error> {
        let merge = match std::mem::take(&mut patch.metadata) {
            Patch::Set(merge) => merge,
            Patch::Clear => return self.change(id, &patch_change(patch, Some(Metadata::default()))).await,
            Patch::Keep => return self.change(id, &patch_change(patch, None)).await,
        };
        let _slot = self.slot(Access::Write(id)).await?;
        for _ in 0..ATTEMPTS {
            let task = self.current(id).await?;
            let merged = task.metadata.merged(&merge);
            let merged = merged.map_err(|reason| Error::InvalidField { field: "metadata", reason })?;
            let change = patch_change(patch.clone(), Some(merged));
            match self.update(id, &change, &Precondition::version(task.version)).await? {
                Outcome::Done(task) => return Ok(task),
                Outcome::Missing => return Err(Error::TaskNotFound),
                Outcome::Unmet(_) => {}
            }
        }
        Err(changes_all_the_time())
    }

    /// Returns the task for a change, if the precondition is true of it.
    pub(super) async fn current(&self, id: TaskId) -> Result<Task, Error> {
        self.refresh();
        let task = traced!("get", self.service.store().get(&self.owner, id))?.ok_or(Error::TaskNotFound)?;
        if self.precondition.is_met_by(&task) {
            Ok(task)
        } else {
            Err(Error::PreconditionFailed { current: Box::new(task) })
        }
    }

    /// Completes an open task and reopens a completed one.
    ///
    /// A retry may toggle the task twice. [`set_completed`](Self::set_completed) is safe to retry.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn toggle(&self, id: TaskId) -> Result<Task, Error> {
        self.change(id, &TaskChange::completion(Completion::Toggle)).await
    }

    /// Completes (`true`) or reopens (`false`) a task. It is safe to retry.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn set_completed(&self, id: TaskId, completed: bool) -> Result<Task, Error> {
        self.change(id, &TaskChange::completion(Completion::Set(completed))).await
    }

    /// Deletes a task.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn delete(&self, id: TaskId) -> Result<(), Error> {
        let _slot = self.slot(Access::Write(id)).await?;
        let _changing = self.service.listeners.after_change(&self.owner);
        let deleted = traced!("delete", self.service.store().delete(&self.owner, id, &self.precondition));
        done(self.service.writes.note(deleted, |deleted| *deleted == Outcome::Done(()))?)?;
        self.service.hook.call(|| TaskEvent::Deleted { owner: self.owner.clone(), id });
        self.forget_old_deletions(1).await;
        Ok(())
    }

    /// Forgets some old deletions of this user, if it is time, after tasks were deleted. If that fails, the next attempt
    /// does it.
    async fn forget_old_deletions(&self, deleted: u64) {
        let Some(deletions) = self.service.deletions.as_ref().filter(|deletions| deletions.count(deleted)) else {
            return;
        };
        let before = self.service.clock.now().minus(deletions.kept);
        let limit = Limit::new(Limit::MAX).unwrap_or_default();
        let mut forgotten = 0;
        loop {
            match traced!("purge", self.service.store().purge(&self.owner, before, limit)) {
                Ok(count) => {
                    forgotten += count;
                    if count < u64::from(limit.get()) || forgotten >= deleted.saturating_mul(2) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(target: "todo_core::store", %error, "old deletions were not forgotten");
                    return;
                }
            }
        }
    }

    /// Deletes all tasks of the user, for the deletion of an account, and returns how many there were.
    ///
    /// The call goes ahead of the user's waiting calls, and is not rejected when those fill the queue of the user. So a
    /// user cannot prevent it with many requests.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn erase(&self) -> Result<u64, Error> {
        let _slot = self.slot(Access::Erase).await?;
        let _changing = self.service.listeners.after_change(&self.owner);
        let erased = traced!("erase", self.service.store().erase(&self.owner));
        let count = self.service.writes.note(erased, |count| *count > 0)?;
        if count > 0 {
            self.service.hook.call(|| TaskEvent::Erased { owner: self.owner.clone(), count });
        }
        Ok(count)
    }

    /// Moves all tasks of the user to another user, unchanged but for their owner: for a guest who signs up.
    ///
    /// It is one atomic step. A task whose id the other user already has stays with this user, and the result says how
    /// many there are; with ids of this service that happens to no task. Like [`erase`](Self::erase), the call goes
    /// ahead of the user's waiting calls.
    ///
    /// ```
    /// # use todo_core::{NewTask, Title, TodoService, UserId, store::MemoryStore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let service = TodoService::new(MemoryStore::new());
    /// # service.for_user(UserId::new("guest")?).create(NewTask::new(Title::new("Buy milk")?)).await?;
    /// let transfer = service.for_user(UserId::new("guest")?).transfer_to(&UserId::new("ann")?).await?;
    /// assert_eq!((transfer.moved, transfer.remaining), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn transfer_to(&self, to: &UserId) -> Result<Transfer, Error> {
        let _slot = self.slot(Access::Erase).await?;
        let _changing = [&self.owner, to].map(|owner| self.service.listeners.after_change(owner));
        let transferred = traced!("transfer", self.service.store().transfer(&self.owner, to));
        let transfer = self.service.writes.note(transferred, |transfer| transfer.moved > 0)?;
        if transfer.moved > 0 {
            let (owner, to) = (&self.owner, to);
            let count = transfer.moved;
            self.service.hook.call(|| TaskEvent::Transferred { owner: owner.clone(), to: to.clone(), count });
        }
        Ok(transfer)
    }

    /// Returns what has changed since the client was at this point, or all tasks of the user from the beginning. `None`
    /// if the client has to begin again.
    ///
    /// A client that began when the user had no task, at revision 0, knows nothing: it gets all tasks, too.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn changes(&self, since: Option<SyncPoint>, limit: Limit) -> Result<Option<Changes>, Error> {
        let since = since.filter(|since| *since != SyncPoint::default());
        let _slot = self.slot(Access::Many).await?;
        Ok(traced!("changes", self.service.store().changes(&self.owner, since, limit))?)
    }

    async fn change(&self, id: TaskId, change: &TaskChange) -> Result<Task, Error> {
        let _slot = self.slot(Access::Write(id)).await?;
        done(self.update(id, change, &self.precondition).await?)
    }

    /// Changes a task if the precondition is true, and reports the change.
    async fn update(
        &self,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
    ) -> Result<Outcome<Task>, Error> {
        let now = self.service.clock.now();
        let _changing = self.service.listeners.after_change(&self.owner);
        let updated = traced!("update", self.service.store().update(&self.owner, id, change, precondition, now));
        let outcome = self.service.writes.note(updated, |outcome| matches!(outcome, Outcome::Done(_)))?;
        if let Outcome::Done(task) = &outcome {
            self.report_change(task, change.completed.is_some(), now);
        }
        Ok(outcome)
    }

    /// Reports what has become of a task by an update at this time, if it has changed it.
    pub(super) fn report_change(&self, task: &Task, may_complete: bool, now: Timestamp) {
        // A task that the update has changed has this time or a later one.
        if task.updated_at < now {
            return;
        }
        self.service.hook.call(|| {
            let (owner, task) = (self.owner.clone(), task.clone());
            if may_complete && task.completed_at == Some(task.updated_at) {
                TaskEvent::Completed { owner, task }
            } else {
                TaskEvent::Changed { owner, task }
            }
        });
    }

    /// Waits until this user may have another call in the store.
    pub(super) async fn slot(&self, access: Access) -> Result<Option<Slot<'_>>, Error> {
        let Some(limiter) = &self.service.limiter else { return Ok(None) };
        limiter.slot(&self.owner, access).await.map(Some).map_err(|no_slot| match no_slot {
            NoSlot::QueueFull => Error::TooManyCalls,
            NoSlot::TimedOut => {
                StoreError::Unavailable("the call waited too long for other calls of its user".into()).into()
            }
        })
    }
}
