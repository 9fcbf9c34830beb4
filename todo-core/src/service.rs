use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tracing::Instrument as _;

use crate::{
    Error, NewTask, Page, Task, TaskId, TaskPatch, TaskQuery, TaskReplacement, UserId,
    clock::{Clock, IdGenerator, SystemClock, Timestamp, UuidV7},
    event::{Hook, TaskEvent},
    store::{Completion, LONG_LIST, StoreError, TaskChange, TaskStore, Transfer},
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

    /// Returns the tasks of this user. There is no other way to access tasks.
    #[must_use]
    pub fn for_user(&self, user_id: UserId) -> UserTasks<'_> {
        UserTasks { service: self, owner: user_id }
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

/// The tasks of one user, and the operations on them.
///
/// Every operation fails with [`Error::Store`] if the store fails, and with [`Error::TooManyCalls`] if too many calls
/// of the user are waiting (see [`UserLimits`]). The sections "Errors" of the methods list the other errors.
#[derive(Clone, Debug)]
pub struct UserTasks<'a> {
    service: &'a TodoService,
    owner: UserId,
}

impl UserTasks<'_> {
    /// Returns the user.
    #[must_use]
    pub fn owner(&self) -> &UserId {
        &self.owner
    }

    /// Returns a page of tasks, newest first.
    ///
    /// # Errors
    ///
    /// No others.
    pub async fn list(&self, query: &TaskQuery) -> Result<Page, Error> {
        let is_long = query.limit.get() > LONG_LIST;
        let _slot = self.slot(if is_long { Access::LongList } else { Access::Shared }).await?;
        Ok(traced!("list", self.service.store().list(&self.owner, query))?)
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
        let mut task = Task {
            id: self.service.ids.next(now),
            user_id: self.owner.clone(),
            title: new.title,
            description: new.description,
            completed: new.completed,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        // Another process may have generated the same id, which is extremely unlikely.
        for _ in 0..3 {
            let inserted = traced!("insert", self.service.store().insert(&self.owner, &task));
            if self.service.writes.note(inserted, |inserted| *inserted)? {
                let created = || TaskEvent::Created { owner: self.owner.clone(), tasks: vec![task.clone()] };
                self.service.hook.call(created);
                return Ok(task);
            }
            task.id = self.service.ids.next(now);
        }
        Err(Error::IdsExhausted)
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
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn patch(&self, id: TaskId, patch: TaskPatch) -> Result<Task, Error> {
        self.change(id, &patch.into()).await
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
        let deleted = traced!("delete", self.service.store().delete(&self.owner, id));
        if !self.service.writes.note(deleted, |deleted| *deleted)? {
            return Err(Error::TaskNotFound);
        }
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

    async fn change(&self, id: TaskId, change: &TaskChange) -> Result<Task, Error> {
        let _slot = self.slot(Access::Write(id)).await?;
        // To tell whether a change of several fields completes the task. No other call of this process changes it
        // meanwhile, since they wait for the slot.
        let mut was_completed = false;
        if self.service.hook.is_set() && completes_among_others(change) {
            let former = traced!("get", self.service.store().get(&self.owner, id))?;
            was_completed = former.is_some_and(|former| former.completed);
        }
        let now = self.service.clock.now();
        let updated = traced!("update", self.service.store().update(&self.owner, id, change, now));
        let task = self.service.writes.note(updated, Option::is_some)?.ok_or(Error::TaskNotFound)?;
        if is_changed(&task, now) {
            self.service.hook.call(|| {
                let (owner, task) = (self.owner.clone(), task.clone());
                if completes(change, &task) && !was_completed {
                    TaskEvent::Completed { owner, task }
                } else {
                    TaskEvent::Changed { owner, task }
                }
            });
        }
        Ok(task)
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

/// Whether an update at this time has changed the task: it then has this time or a later one.
fn is_changed(task: &Task, now: Timestamp) -> bool {
    task.updated_at >= now
}

/// Whether an update that has changed the task has completed it, if the task was open before.
fn completes(change: &TaskChange, task: &Task) -> bool {
    change.completed.is_some() && task.completed
}

/// Whether a change completes a task and may change other fields, so that it can also change a completed task.
fn completes_among_others(change: &TaskChange) -> bool {
    let completed = Some(Completion::Set(true));
    change.completed == completed && *change != TaskChange { completed, ..TaskChange::default() }
}
