use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tracing::Instrument as _;

use crate::{
    Error, UserId,
    clock::{Clock, IdGenerator, SystemClock, Timestamp, UuidV7},
    event::{Hook, TaskEvent},
    store::{Precondition, StoreError, TaskStore},
    user_limits::{UserLimiter, UserLimits},
};

/// Calls the store in a tracing span of its own.
macro_rules! traced {
    ($operation:literal, $call:expr) => {
        $call.instrument(tracing::debug_span!(target: "todo_core::store", "store", operation = $operation)).await
    };
}

pub(crate) mod listeners;
mod moving;
mod user_tasks;

use listeners::Listeners;
pub use moving::Place;
pub use user_tasks::{Created, UserTasks};

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
    deletions: Option<Deletions>,
    writes: Arc<Writes>,
    hook: Hook,
    listeners: Arc<Listeners>,
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
            deletions: Some(Deletions::kept_for(Self::DELETIONS_KEPT)),
            writes: Arc::default(),
            hook: Hook::default(),
            listeners: Arc::default(),
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
    /// report its changes, collect the events, and call [`observe`](Self::observe) after the commit. That also wakes
    /// the clients of `GET /tasks/events` at once; otherwise they notice the changes within a second. Nor does the new
    /// service forget [old deletions](Self::with_deletions_kept).
    #[must_use]
    pub fn with_store(&self, store: impl TaskStore + 'static) -> Self {
        let (hook, listeners) = (Hook::default(), Arc::default());
        Self { store: Arc::new(store), limiter: None, deletions: None, hook, listeners, ..self.clone() }
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
    /// its own transaction, after the commit. Later reads through this service contain these changes, also if the store
    /// has replicas.
    ///
    /// ```
    /// use todo_core::{Error, NewTask, TodoService, UserId, store::TaskStore};
    ///
    /// async fn create(service: &TodoService, in_transaction: impl TaskStore + 'static, ann: UserId, task: NewTask) ->
    /// Result<(), Error> {
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
        self.store().refresh(event.owner());
        self.listeners.wake(event.owner());
        if let TaskEvent::Transferred { to, .. } = &event {
            self.store().refresh(to);
            self.listeners.wake(to);
        }
        self.hook.call(|| event);
    }

    /// Who waits for changes.
    pub(crate) fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    /// Asks for the revisions of all owners who have listeners.
    pub(crate) async fn poll(&self, turn: listeners::Poll) {
        traced!("revisions", turn.run(self.store()));
    }

    /// The time of this service's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
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

    /// How long deletions are kept by default: 30 days.
    pub const DELETIONS_KEPT: Duration = Duration::from_hours(30 * 24);

    /// Sets how long deletions are kept ([`DELETIONS_KEPT`](Self::DELETIONS_KEPT) by default), or `None` for ever.
    ///
    /// A client that follows the changes of a user learns of a deletion as long as it is kept. A client that was away
    /// for longer has to begin again. As long, a repeated request does not create a deleted task again.
    ///
    /// About one in 31 deletions of tasks takes a second call of the store, which forgets at most 200 old deletions of the
    /// same user; a deletion of very many tasks takes more of them, and forgets at most twice as many. `purge_all` of a
    /// store forgets those of users who delete nothing.
    #[must_use]
    pub fn with_deletions_kept(mut self, kept: impl Into<Option<Duration>>) -> Self {
        self.deletions = kept.into().map(Deletions::kept_for);
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

/// How long deletions are kept. Clones count together.
#[derive(Clone, Debug)]
struct Deletions {
    kept: Duration,
    /// The number of tasks that were deleted.
    count: Arc<AtomicU64>,
}

impl Deletions {
    /// Old deletions are forgotten once in so many. It is a prime number, so that no user is left out whose deletions
    /// take turns with those of others.
    const PER_PURGE: u64 = 31;

    fn kept_for(kept: Duration) -> Self {
        Self { kept, count: Arc::default() }
    }

    /// Counts deletions. Returns whether it is time to forget old ones.
    fn count(&self, deleted: u64) -> bool {
        let before = self.count.fetch_add(deleted, Relaxed);
        before / Self::PER_PURGE != before.wrapping_add(deleted) / Self::PER_PURGE
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Limit, NewTask, TaskFilter, TaskId, Title,
        clock::Timestamp,
        store::{Change, MemoryStore, SyncPoint},
    };

    /// A clock that is ahead of the one of the store by some days.
    #[derive(Debug)]
    struct Ahead(u64);

    impl Clock for Ahead {
        fn now(&self) -> Timestamp {
            SystemClock.now().plus(Duration::from_hours(24 * self.0))
        }
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("a user")
    }

    async fn filled(service: &TodoService, owner: &UserId, count: usize) -> Vec<TaskId> {
        let new = NewTask::new(Title::new("Read the map").expect("a title"));
        let mut ids = Vec::new();
        for _ in 0..count.div_ceil(100) {
            let tasks = service.for_user(owner.clone()).create_all(vec![new.clone(); count.min(100)]).await;
            ids.extend(tasks.expect("tasks").iter().map(|task| task.id));
        }
        ids
    }

    /// The number of deletions that are known since a point, if all of them are.
    async fn known(service: &TodoService, owner: &UserId, since: SyncPoint) -> Option<usize> {
        let limit = Limit::new(Limit::MAX).expect("a limit");
        let found = service.for_user(owner.clone()).changes(Some(since), limit).await.expect("changes")?;
        Some(found.changes.iter().filter(|change| matches!(change, Change::Deleted(_))).count())
    }

    /// Two users with a task that was deleted 29 days ago, and one of them deletes others.
    async fn after_deletions(service: &TodoService, deletions: usize) -> [Option<usize>; 2] {
        let (ann, bob) = (user("ann"), user("bob"));
        let mut since = Vec::new();
        for owner in [&ann, &bob] {
            let ids = filled(service, owner, 1).await;
            let start = service.for_user(owner.clone()).changes(None, Limit::default()).await.expect("changes");
            since.push(start.expect("a beginning").next);
            service.for_user(owner.clone()).delete(ids[0]).await.expect("deleted");
        }
        let ids = filled(service, &ann, deletions).await;
        let later = service.clone().with_clock(Ahead(29));
        for id in &ids {
            later.for_user(ann.clone()).delete(*id).await.expect("deleted");
        }
        [known(service, &ann, since[0]).await, known(service, &bob, since[1]).await]
    }

    #[tokio::test]
    async fn an_owners_deletions_forget_old_ones_of_the_same_owner() {
        let service = TodoService::new(MemoryStore::new());
        assert_eq!(after_deletions(&service, 40).await, [Some(41), Some(1)], "none is older than 30 days");
        let service = TodoService::new(MemoryStore::new()).with_deletions_kept(Duration::from_hours(28 * 24));
        assert_eq!(after_deletions(&service, 28).await, [Some(29), Some(1)], "it is not time yet");
        let service = TodoService::new(MemoryStore::new()).with_deletions_kept(Duration::from_hours(28 * 24));
        assert_eq!(after_deletions(&service, 29).await, [None, Some(1)]);
        let service = TodoService::new(MemoryStore::new()).with_deletions_kept(None);
        assert_eq!(after_deletions(&service, 70).await, [Some(71), Some(1)]);
    }

    /// Deletions of many tasks do not pile up, and what is forgotten at once is limited.
    #[tokio::test]
    async fn a_deletion_of_many_tasks_forgets_in_proportion() {
        let (service, ann) = (TodoService::new(MemoryStore::new()), user("ann"));
        for _ in 0..3 {
            filled(&service, &ann, 900).await;
            service.for_user(ann.clone()).delete_matching(&TaskFilter::new()).await.expect("deleted");
        }
        let later = service.clone().with_clock(Ahead(31));
        let left = async || {
            // Forgets them, to count them.
            let mut count = 0;
            loop {
                let never = Timestamp::from_unix_micros(i64::MAX);
                match service.store().purge(&ann, never, Limit::default()).await.expect("purged") {
                    0 => return count,
                    some => count += some,
                }
            }
        };
        filled(&service, &ann, 400).await;
        later.for_user(ann.clone()).delete_matching(&TaskFilter::new()).await.expect("deleted");
        assert_eq!(left().await, 2700 + 400 - 800);
    }

    #[tokio::test]
    async fn a_service_in_a_transaction_forgets_nothing() {
        let service = TodoService::new(MemoryStore::new()).with_store(MemoryStore::new()).with_clock(Ahead(31));
        assert_eq!(after_deletions(&service, 70).await, [Some(71), Some(1)]);
    }
}
