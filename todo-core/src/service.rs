use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tracing::Instrument as _;

use crate::{
    Error, NewTask, Page, Task, TaskId, TaskPatch, TaskQuery, TaskReplacement, UserId,
    clock::{Clock, IdGenerator, SystemClock, UuidV7},
    store::{Completion, LONG_LIST, StoreError, TaskChange, TaskStore},
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
    #[must_use]
    pub fn with_store(&self, store: impl TaskStore + 'static) -> Self {
        Self { store: Arc::new(store), limiter: None, ..self.clone() }
    }

    /// Sets how many calls of one user may be in the store at once, or removes that limit with `None`.
    ///
    /// The returned service and its clones share one count of the calls, and share it with no other service.
    #[must_use]
    pub fn with_user_limits(mut self, limits: impl Into<Option<UserLimits>>) -> Self {
        self.limiter = limits.into().map(|limits| Arc::new(UserLimiter::new(limits)));
        self
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
            Err(StoreError::NotWritable(cause)) => {
                if !self.are_failing.swap(true, Relaxed) {
                    tracing::error!(target: "todo_core::store", %cause, "the database accepts no writes; reads go on");
                }
            }
            Ok(output) if self.are_failing.load(Relaxed) && has_changed(output) => {
                if self.are_failing.swap(false, Relaxed) {
                    tracing::info!(target: "todo_core::store", "the database accepts writes again");
                }
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
        if self.service.writes.note(deleted, |deleted| *deleted)? { Ok(()) } else { Err(Error::TaskNotFound) }
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
        Ok(self.service.writes.note(erased, |count| *count > 0)?)
    }

    async fn change(&self, id: TaskId, change: &TaskChange) -> Result<Task, Error> {
        let _slot = self.slot(Access::Write(id)).await?;
        let now = self.service.clock.now();
        let updated = traced!("update", self.service.store().update(&self.owner, id, change, now));
        self.service.writes.note(updated, Option::is_some)?.ok_or(Error::TaskNotFound)
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
