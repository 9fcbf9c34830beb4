use std::sync::Arc;

use tracing::Instrument as _;

use crate::{
    Error, NewTask, Page, Task, TaskId, TaskPatch, TaskQuery, TaskReplacement, UserId,
    clock::{Clock, IdGenerator, SystemClock, UuidV7},
    store::{Completion, TaskChange, TaskStore},
};

/// A call of the store, in a span of its own for whoever traces.
macro_rules! traced {
    ($operation:literal, $call:expr) => {
        $call.instrument(tracing::debug_span!(target: "todo_core::store", "store", operation = $operation)).await
    };
}

/// The operations on tasks and the rules that they follow, over any store.
///
/// It is cheap to clone, and clones are the same service.
#[derive(Clone, Debug)]
pub struct TodoService {
    store: Arc<dyn TaskStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGenerator>,
}

impl TodoService {
    /// A service over this store, with the system's clock and identifiers of UUID version 7.
    pub fn new(store: impl TaskStore + 'static) -> Self {
        Self { store: Arc::new(store), clock: Arc::new(SystemClock), ids: Arc::new(UuidV7::shared()) }
    }

    /// The same rules, clock and identifiers over another store: one that joins a transaction of the host, say.
    #[must_use]
    pub fn with_store(&self, store: impl TaskStore + 'static) -> Self {
        Self { store: Arc::new(store), ..self.clone() }
    }

    /// The same service by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The same service with identifiers from another source.
    #[must_use]
    pub fn with_ids(mut self, ids: impl IdGenerator + 'static) -> Self {
        self.ids = Arc::new(ids);
        self
    }

    /// Not the `Arc`, which is a store too, and would put each call into a box more.
    fn store(&self) -> &dyn TaskStore {
        &*self.store
    }

    /// The tasks of this user. There is no other way to a task.
    #[must_use]
    pub fn for_user(&self, user_id: UserId) -> UserTasks<'_> {
        UserTasks { service: self, owner: user_id }
    }

    /// Whether the store answers, for a readiness probe.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]: it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(traced!("ping", self.store().ping())?)
    }
}

/// One user's tasks, and all that can be done with them.
///
/// Every operation fails with [`Error::Store`] if the store does; the errors below come beside that.
#[derive(Clone, Debug)]
pub struct UserTasks<'a> {
    service: &'a TodoService,
    owner: UserId,
}

impl UserTasks<'_> {
    /// Whose tasks these are.
    #[must_use]
    pub fn owner(&self) -> &UserId {
        &self.owner
    }

    /// A page of the tasks, newest first.
    ///
    /// # Errors
    ///
    /// Only those of the store.
    pub async fn list(&self, query: &TaskQuery) -> Result<Page, Error> {
        Ok(traced!("list", self.service.store().list(&self.owner, query))?)
    }

    /// The task.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn get(&self, id: TaskId) -> Result<Task, Error> {
        traced!("get", self.service.store().get(&self.owner, id))?.ok_or(Error::TaskNotFound)
    }

    /// Adds a task.
    ///
    /// # Errors
    ///
    /// [`Error::IdsExhausted`]: the source of identifiers gave out several that this user has already.
    pub async fn create(&self, new: NewTask) -> Result<Task, Error> {
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
        // A second process may, once in many lives, have made the same identifier.
        for _ in 0..3 {
            if traced!("insert", self.service.store().insert(&self.owner, &task))? {
                return Ok(task);
            }
            task.id = self.service.ids.next(now);
        }
        Err(Error::IdsExhausted)
    }

    /// Puts other content in the place of a task's.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn replace(&self, id: TaskId, replacement: TaskReplacement) -> Result<Task, Error> {
        self.change(id, &replacement.into()).await
    }

    /// Changes parts of a task.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn patch(&self, id: TaskId, patch: TaskPatch) -> Result<Task, Error> {
        self.change(id, &patch.into()).await
    }

    /// Makes a done task open and an open one done. To do it twice is to do nothing; to retry it is not safe, for that
    /// there is [`set_completed`](Self::set_completed).
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn toggle(&self, id: TaskId) -> Result<Task, Error> {
        self.change(id, &TaskChange::completion(Completion::Toggle)).await
    }

    /// Makes a task done or open.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn set_completed(&self, id: TaskId, completed: bool) -> Result<Task, Error> {
        self.change(id, &TaskChange::completion(Completion::Set(completed))).await
    }

    /// Removes a task.
    ///
    /// # Errors
    ///
    /// [`Error::TaskNotFound`].
    pub async fn delete(&self, id: TaskId) -> Result<(), Error> {
        if traced!("delete", self.service.store().delete(&self.owner, id))? { Ok(()) } else { Err(Error::TaskNotFound) }
    }

    /// Removes all of the user's tasks, for the deletion of an account, and answers how many there were.
    ///
    /// # Errors
    ///
    /// Only those of the store.
    pub async fn erase(&self) -> Result<u64, Error> {
        Ok(traced!("erase", self.service.store().erase(&self.owner))?)
    }

    async fn change(&self, id: TaskId, change: &TaskChange) -> Result<Task, Error> {
        let now = self.service.clock.now();
        traced!("update", self.service.store().update(&self.owner, id, change, now))?.ok_or(Error::TaskNotFound)
    }
}
