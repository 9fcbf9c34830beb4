use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tracing::Instrument as _;

use crate::{
    Error, InvalidValue, Limit, Metadata, NewTask, Page, Patch, Position, Sort, Summary, Task, TaskFilter, TaskId,
    TaskPatch, TaskQuery, TaskReplacement, UserId,
    clock::{Clock, IdGenerator, SystemClock, Timestamp, UuidV7},
    event::{Hook, TaskEvent},
    store::{
        BulkResult, Changes, Completion, Creation, Insertion, LONG_LIST, Outcome, Precondition, Read, Request,
        Revision, StoreError, SyncPoint, TaskChange, TaskStore, Transfer,
    },
    user_limits::{Access, NoSlot, Slot, UserLimiter, UserLimits},
};

/// Calls the store in a tracing span of its own.
macro_rules! traced {
    ($operation:literal, $call:expr) => {
        $call.instrument(tracing::debug_span!(target: "todo_core::store", "store", operation = $operation)).await
    };
}

/// The operations on tasks, over any store.
///
/// Every operation belongs to a user: [`for_user`](Self::for_user) returns that user's [`UserTasks`]. Cloning is cheap,
/// and clones share the store.
///
/// At most a few calls of the same user are in the store at once; see [`UserLimits`]. So a user who sends very many
/// requests delays their own requests, and not those of other users. Only calls that wait for this limit need a runtime
/// of tokio with its timer.
#[derive(Clone, Debug)]
pub struct TodoService {
    store: Arc<dyn TaskStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGenerator>,
    limiter: Option<Arc<UserLimiter>>,
    max_tasks: Option<u64>,
    writes: Arc<Writes>,
    hook: Hook,
}

impl TodoService {
    /// Creates a service over a store, with the system clock and ids of UUID version 7.
    pub fn new(store: impl TaskStore + 'static) -> Self {
        Self {
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            ids: Arc::new(UuidV7::shared()),
            limiter: Some(Arc::new(UserLimiter::new(UserLimits::default()))),
            max_tasks: Some(Self::MAX_TASKS_PER_USER),
            writes: Arc::default(),
            hook: Hook::default(),
        }
    }

    /// Returns a service with the clock and the id generator of this one, over another store.
    ///
    /// With a store that joins a transaction of the host, such as `PostgresInTransaction`, tasks are written in that
    /// transaction.
    ///
    /// The new service has no [`UserLimits`]. The transaction may hold a lock on a task that other calls of the same
    /// user wait for. If its own calls then waited for those calls, neither would continue. The transaction uses a
    /// connection of the host, which the host limits. For a store with connections of its own, add the limits with
    /// [`with_user_limits`](Self::with_user_limits).
    ///
    /// The new service has no [observer](Self::with_observer) either, since the transaction may be rolled back. To
    /// report its changes, collect the events, and call [`observe`](Self::observe) after the commit.
    #[must_use]
    pub fn with_store(&self, store: impl TaskStore + 'static) -> Self {
        Self { store: Arc::new(store), limiter: None, hook: Hook::default(), ..self.clone() }
    }

    /// Sets how many calls of one user may be in the store at once, or removes that limit with `None`.
    ///
    /// The returned service and its clones share one count of the calls, and share it with no other service.
    #[must_use]
    pub fn with_user_limits(mut self, limits: impl Into<Option<UserLimits>>) -> Self {
        self.limiter = limits.into().map(|limits| Arc::new(UserLimiter::new(limits)));
        self
    }

    /// Sets a function that is called after each change of tasks: for notifications, a search index, an audit log or
    /// counters of the host. A second call replaces the first function.
    ///
    /// - It is called when the store has made the change, before the operation returns, and in the same task. The
    ///   events of one task come in the order of its changes, if one process makes them and the service has
    ///   [`UserLimits`].
    /// - A change is reported at most once. It is not reported if the process ends at that moment; if the future of the
    ///   call is dropped, for example because a client has disconnected; or if the store returns an error although it
    ///   has made the change ([`StoreError::may_have_happened`]). Code that must not miss a change reads the tasks, or
    ///   writes in [the same transaction](Self::with_store).
    /// - A call that changes nothing is not reported, such as one that completes a completed task. An exception: such a
    ///   call may be reported if the clock of this process is behind the time of the last change.
    /// - A bulk change is one event. Changes by other processes and by SQL are not reported.
    /// - An update that completes a task and may change other fields takes a second round trip to the store: the task
    ///   is read before, to tell [`Completed`](TaskEvent::Completed) from [`Changed`](TaskEvent::Changed).
    ///
    /// The caller waits for the function. To do slow work, send the event to a queue. If the function panics, so does
    /// the operation, although the change was made.
    ///
    /// ```
    /// use todo_core::{NewTask, TaskEvent, Title, TodoService, UserId, store::MemoryStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, events) = std::sync::mpsc::channel();
    /// let service = TodoService::new(MemoryStore::new()).with_observer(move |event| {
    ///     let _ = sender.send(event); // fails only if nothing receives
    /// });
    ///
    /// let tasks = service.for_user(UserId::new("ann")?);
    /// let task = tasks.create(NewTask::new(Title::new("Buy milk")?)).await?;
    /// tasks.set_completed(task.id, true).await?;
    ///
    /// assert!(matches!(events.recv()?, TaskEvent::Created { tasks, .. } if tasks[0] == task));
    /// assert!(matches!(events.recv()?, TaskEvent::Completed { task: done, .. } if done.id == task.id));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(TaskEvent) + Send + Sync + 'static) -> Self {
        self.hook = Hook::new(observer);
        self
    }

    /// Calls the [observer](Self::with_observer) of this service, if it has one: for changes that the host has made in
    /// its own transaction, after the commit.
    ///
    /// ```
    /// use todo_core::{Error, NewTask, TodoService, UserId, store::TaskStore};
    ///
    /// async fn create(service: &TodoService, in_transaction: impl TaskStore + 'static, ann: UserId, task: NewTask) -> Result<(), Error> {
    ///     let (sender, events) = std::sync::mpsc::channel();
    ///     let tasks = service.with_store(in_transaction).with_observer(move |event| {
    ///         let _ = sender.send(event);
    ///     });
    ///     tasks.for_user(ann).create(task).await?;
    ///     // Commit the transaction here.
    ///     events.try_iter().for_each(|event| service.observe(event));
    ///     Ok(())
    /// }
    /// ```
    pub fn observe(&self, event: TaskEvent) {
        self.hook.call(|| event);
    }

    /// Returns this service with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns this service with another id generator.
    #[must_use]
    pub fn with_ids(mut self, ids: impl IdGenerator + 'static) -> Self {
        self.ids = Arc::new(ids);
        self
    }

    /// The store itself. A call on the `Arc`, which is a store too, would allocate one more future.
    fn store(&self) -> &dyn TaskStore {
        &*self.store
    }

    /// The number of tasks that a user may have by default.
    pub const MAX_TASKS_PER_USER: u64 = 10_000;

    /// Sets the number of tasks that a user may have ([`MAX_TASKS_PER_USER`](Self::MAX_TASKS_PER_USER) by default), or
    /// `None` for no limit. Tasks that are created at the same time may exceed it.
    #[must_use]
    pub fn with_quota(mut self, max_tasks: impl Into<Option<u64>>) -> Self {
        self.max_tasks = max_tasks.into();
        self
    }

    /// Returns the tasks of this user. There is no other way to access tasks.
    #[must_use]
    pub fn for_user(&self, user_id: UserId) -> UserTasks<'_> {
        UserTasks { service: self, owner: user_id, precondition: Precondition::default() }
    }

    /// Checks that the store responds, for a readiness probe.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(traced!("ping", self.store().ping())?)
    }

    /// Whether the store accepts no writes at present: the last write that says something about it has failed with
    /// [`StoreError::NotWritable`], because the database is read-only or its disk is full. A write that has changed
    /// nothing says nothing. Clones share this.
    ///
    /// The readiness probe reports it as `"writes": "failing"` and does not fail, since reads work.
    #[must_use]
    pub fn writes_are_failing(&self) -> bool {
        self.writes.are_failing.load(Relaxed)
    }
}

/// What is known about the writes of the store.
#[derive(Debug, Default)]
struct Writes {
    are_failing: AtomicBool,
}

impl Writes {
    /// Notes the result of a write, and whether it has changed something.
    fn note<T>(&self, result: Result<T, StoreError>, has_changed: impl FnOnce(&T) -> bool) -> Result<T, StoreError> {
        match &result {
            Err(StoreError::NotWritable(cause)) if !self.are_failing.swap(true, Relaxed) => {
                tracing::error!(target: "todo_core::store", %cause, "the database accepts no writes; reads go on");
            }
            Ok(output)
                if self.are_failing.load(Relaxed) && has_changed(output) && self.are_failing.swap(false, Relaxed) =>
            {
                tracing::info!(target: "todo_core::store", "the database accepts writes again");
            }
            _ => {}
        }
        result
    }
}

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
const ATTEMPTS: usize = 5;

fn changes_all_the_time() -> Error {
    StoreError::Unavailable("other calls change the task all the time".into()).into()
}

/// The answer of a read that knew no revision.
fn value<T: Default>(read: Read<T>) -> T {
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

/// Where to move a task in the manual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Right before this task.
    Before(TaskId),
    /// Right after this task.
    After(TaskId),
    /// Before all other tasks.
    First,
    /// After all other tasks.
    Last,
}

/// Positions longer than this are avoided, so that the limit of [`Position::MAX_CHARS`] is never reached.
const LONG_POSITION: usize = 80;

/// The positions to set so that a task comes between `before` and `after`, which are both in the order of their distance.
/// Neighbours are spaced anew only if there is no room between the closest. `None` if there is none in what is known;
/// `known` is the number of neighbours that was asked for on each side.
fn spaced(task: &Task, before: &[Task], after: &[Task], known: usize) -> Option<Vec<(TaskId, Position)>> {
    let is_in_place = |low: Option<&Task>, high: Option<&Task>| {
        let key = |task: &Task| (task.position.clone(), task.id);
        low.is_none_or(|low| key(low) < key(task)) && high.is_none_or(|high| key(task) < key(high))
    };
    if is_in_place(before.first(), after.first()) {
        return Some(Vec::new());
    }
    for moved in 0..=before.len() + after.len() {
        for back in moved.saturating_sub(after.len())..=moved.min(before.len()) {
            let forth = moved - back;
            // The end of the list, or of what is known of it.
            let is_unknown = |side: &[Task], count: usize| count == side.len() && side.len() + 1 >= known && count > 0;
            if is_unknown(before, back) || is_unknown(after, forth) {
                continue;
            }
            let (low, high) = (before.get(back), after.get(forth));
            let positions =
                Position::many_between(low.map(|task| &task.position), high.map(|task| &task.position), moved + 1);
            let Some(positions) = positions else { continue };
            if positions.iter().any(|position| position.as_str().len() > LONG_POSITION) {
                continue;
            }
            let ids = before[..back].iter().rev().map(|task| task.id);
            let ids = ids.chain([task.id]).chain(after[..forth].iter().map(|task| task.id));
            return Some(ids.zip(positions).collect());
        }
    }
    None
}

/// The tasks of one user, and the operations on them.
///
/// Every operation fails with [`Error::Store`] if the store fails, and with [`Error::TooManyCalls`] if too many calls
/// of the user are waiting (see [`UserLimits`]). The sections "Errors" of the methods list the other errors.
#[derive(Clone, Debug)]
pub struct UserTasks<'a> {
    service: &'a TodoService,
    owner: UserId,
    precondition: Precondition,
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
    /// let still_open = tasks.only_if(Precondition::version(task.version));
    /// assert!(matches!(still_open.patch(task.id, patch).await, Err(Error::PreconditionFailed { current }) if current.completed));
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

    /// Adds tasks as they are, with their ids, times and versions, all or none: for a copy of a user's tasks. Their owner
    /// becomes this user. Returns `false` and adds none, if this user has a task with one of the ids already, or if two
    /// of the tasks have the same id.
    ///
    /// ```
    /// use todo_core::{Limit, NewTask, Sort, TaskQuery, Title, TodoService, UserId, api::task_from_json, store::MemoryStore};
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
        let count = traced!("delete_matching", self.service.store().delete_matching(&self.owner, filter));
        let count = self.service.writes.note(count, |count| *count > 0)?;
        if count > 0 {
            self.service.hook.call(|| TaskEvent::ManyDeleted { owner: self.owner.clone(), count });
        }
        Ok(count)
    }

    /// Moves a task to another place in the manual order ([`Sort::Position`]).
    ///
    /// The task gets a position between those of its new neighbours. Where there is no room between them, the fewest
    /// neighbours get new positions too, each as a change of its own.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`]; [`Error::InvalidField`] `before` or `after`: this user has no such task, or it is the
    /// task itself.
    pub async fn move_to(&self, id: TaskId, place: Place) -> Result<Task, Error> {
        let _slot = self.slot(Access::Write(id)).await?;
        for _ in 0..ATTEMPTS {
            if let Some(task) = self.try_to_move(id, place).await? {
                return Ok(task);
            }
        }
        Err(changes_all_the_time())
    }

    /// Moves a task. `None` if another call has changed it meanwhile.
    async fn try_to_move(&self, id: TaskId, place: Place) -> Result<Option<Task>, Error> {
        let store = self.service.store();
        let task = self.current(id).await?;
        let neighbours = async |sort: Sort, after: Option<&Task>, count: usize| {
            let limit = u16::try_from(count).unwrap_or(Limit::MAX).min(Limit::MAX);
            let mut query = TaskQuery::new().sort(sort).limit(Limit::new(limit).unwrap_or_default());
            query.cursor = after.map(|task| query.cursor_after(task));
            let mut found = Vec::new();
            loop {
                let page = value(traced!("list", store.list(&self.owner, &query, None))?);
                found.extend(page.tasks.into_iter().filter(|task| task.id != id));
                query.cursor = page.next;
                if query.cursor.is_none() || found.len() >= count {
                    return Ok::<_, Error>(found);
                }
            }
        };
        let anchor = async |field: &'static str, anchor: TaskId| {
            let wrong = Error::InvalidField { field, reason: InvalidValue::NotOtherTask };
            if anchor == id {
                return Err(wrong);
            }
            traced!("get", store.get(&self.owner, anchor))?.ok_or(wrong)
        };
        // One more than is needed, since the task itself may be among them.
        let mut window = 2;
        loop {
            let (before, after) = match place {
                Place::First => (Vec::new(), neighbours(Sort::Position, None, window).await?),
                Place::Last => (neighbours(Sort::PositionDescending, None, window).await?, Vec::new()),
                Place::Before(other) => {
                    let other = anchor("before", other).await?;
                    let before = neighbours(Sort::PositionDescending, Some(&other), window).await?;
                    let mut after = vec![other];
                    after.extend(neighbours(Sort::Position, after.first(), window).await?);
                    (before, after)
                }
                Place::After(other) => {
                    let other = anchor("after", other).await?;
                    let after = neighbours(Sort::Position, Some(&other), window).await?;
                    let mut before = vec![other];
                    before.extend(neighbours(Sort::PositionDescending, before.first(), window).await?);
                    (before, after)
                }
            };
            let Some(positions) = spaced(&task, &before, &after, window) else {
                // With all tasks of the user there is always room, unless others change them all the time.
                if before.len().max(after.len()) + 1 < window {
                    return Err(StoreError::Unavailable("there is no room for the task at this place".into()).into());
                }
                window *= 4;
                continue;
            };
            if positions.is_empty() {
                return Ok(Some(task));
            }
            let now = self.service.clock.now();
            let condition = (id, task.version);
            let moved = traced!("reposition", store.reposition(&self.owner, &positions, condition, now));
            let moved = self.service.writes.note(moved, |moved| !moved.is_empty())?;
            for moved in &moved {
                self.report_change(moved, false, now);
            }
            return Ok(moved.into_iter().find(|moved| moved.id == id));
        }
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

    /// Returns the task, if the precondition is true of it.
    async fn current(&self, id: TaskId) -> Result<Task, Error> {
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
        let deleted = traced!("delete", self.service.store().delete(&self.owner, id, &self.precondition));
        done(self.service.writes.note(deleted, |deleted| *deleted == Outcome::Done(()))?)?;
        self.service.hook.call(|| TaskEvent::Deleted { owner: self.owner.clone(), id });
        Ok(())
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
        let transferred = traced!("transfer", self.service.store().transfer(&self.owner, to));
        let transfer = self.service.writes.note(transferred, |transfer| transfer.moved > 0)?;
        if transfer.moved > 0 {
            let (owner, to) = (&self.owner, to);
            let count = transfer.moved;
            self.service.hook.call(|| TaskEvent::Transferred { owner: owner.clone(), to: to.clone(), count });
        }
        Ok(transfer)
    }

    /// Returns what has changed since the client was at this point, or all tasks of the user from the beginning. `None` if
    /// the client has to begin again.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn changes(&self, since: Option<SyncPoint>, limit: Limit) -> Result<Option<Changes>, Error> {
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
        let updated = traced!("update", self.service.store().update(&self.owner, id, change, precondition, now));
        let outcome = self.service.writes.note(updated, |outcome| matches!(outcome, Outcome::Done(_)))?;
        if let Outcome::Done(task) = &outcome {
            self.report_change(task, change.completed.is_some(), now);
        }
        Ok(outcome)
    }

    /// Reports what has become of a task by an update at this time, if it has changed it.
    fn report_change(&self, task: &Task, may_complete: bool, now: Timestamp) {
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
    async fn slot(&self, access: Access) -> Result<Option<Slot<'_>>, Error> {
        let Some(limiter) = &self.service.limiter else { return Ok(None) };
        limiter.slot(&self.owner, access).await.map(Some).map_err(|no_slot| match no_slot {
            NoSlot::QueueFull => Error::TooManyCalls,
            NoSlot::TimedOut => {
                StoreError::Unavailable("the call waited too long for other calls of its user".into()).into()
            }
        })
    }
}
