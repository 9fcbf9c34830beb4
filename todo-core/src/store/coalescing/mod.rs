//! Batching of calls that would otherwise wait for a connection.
//!
//! A lane has slots for a few statements, and queues for the calls that arrive when all slots are in use. When a
//! statement ends, its slot goes to the call that has waited longest. That call becomes the leader: it takes the
//! waiting calls of the same kind with it and sends all of them as one batch. A batch never waits for more calls, and
//! there is no background task.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Limit, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId,
    clock::Timestamp,
    store::{
        BulkResult, Changes, Creation, Insertion, Outcome as UpdateOutcome, Precondition, Read, Revision, StoreError,
        SyncPoint, TaskChange, TaskStore, Transfer,
    },
};

mod batch;
mod batch_store;
mod blocked;
mod call;
mod lane;
mod options;

use batch::{Batch, State, Waiter, fail};
pub use batch_store::{BatchError, BatchStore};
use blocked::{BlockedSlot, BlockedWrites, NoSlot};
use call::{BatchResult, Call, Kind, Outcome, SharedError};
use lane::{Entry, Lane, Permit, Wakeup};
pub use options::{CoalescingOptions, CoalescingStatus};

/// A store that batches the calls of many users under load, for higher throughput.
///
/// Most calls cost the server and the database less than the round trip that they need. This store wraps another store
/// and sends calls that would wait for a connection as one statement. Every caller gets exactly what a single call
/// returns: its own rows, or its own error.
///
/// - A call is sent alone and at once as long as fewer than
///   [`concurrent_reads`](CoalescingOptions::concurrent_reads) reads or
///   [`concurrent_writes`](CoalescingOptions::concurrent_writes) writes are running. Only calls that have to wait are
///   batched, so that batching adds no latency to a store without load.
/// - Reads and writes have separate queues. The call that has waited longest is sent next. Lists of more than 50 tasks
///   get at most every other statement, so that they do not delay other reads.
/// - A read only joins a statement that is sent after the call was made: callers read their own writes.
/// - A batch never contains two writes to the same task. It skips tasks and owners that another transaction has locked,
///   and the first task of an owner. The calls for these, changes with a [`Precondition`], and insertions of several
///   tasks or with a request have a queue of their own. At most
///   [`max_blocked_writes`](CoalescingOptions::max_blocked_writes) of them hold a connection while they wait for the
///   lock, and of each owner one.
/// - A call that waits longer than [`max_wait`](CoalescingOptions::max_wait) fails with [`StoreError::Unavailable`], so
///   that a stalled database does not build up a queue. So does a call that arrives when
///   [`max_waiting`](CoalescingOptions::max_waiting) calls are waiting.
/// - A caller that is dropped before its batch is sent is not part of the batch. If the caller that sends a batch is
///   dropped, another caller of the batch takes over. There is no background task.
/// - If a batch fails and nothing was applied, each of its calls is retried alone. If it is not known whether something
///   was applied, each call fails with the error of the batch.
/// - The owner is part of every predicate, and each returned row is checked against the owner of its call.
///
/// Clones share the same store.
///
/// ```no_run
/// use todo_core::{TodoService, store::{CoalescingStore, PostgresOptions, PostgresStore}};
///
/// # fn start() -> Result<TodoService, todo_core::store::StoreError> {
/// let store = PostgresStore::connect_lazy("postgres://todo@localhost/todo", &PostgresOptions::default())?;
/// let service = TodoService::new(CoalescingStore::new(store));
/// # Ok(service)
/// # }
/// ```
pub struct CoalescingStore<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for CoalescingStore<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for CoalescingStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalescingStore").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

struct Shared<S> {
    store: S,
    reads: Arc<Lane>,
    writes: Arc<Lane>,
    blocked: BlockedWrites,
    max_batch: usize,
    max_wait: Duration,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    alone: AtomicU64,
    joined: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
}

/// How long a write that is sent alone keeps its slot in the lane while its task is locked.
const MAX_LOCK_WAIT_IN_LANE: Duration = Duration::from_millis(50);

impl<S: BatchStore + 'static> CoalescingStore<S> {
    /// Wraps a store, with the default options.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self::with_options(store, &CoalescingOptions::default())
    }

    /// Wraps a store, with these options.
    #[must_use]
    pub fn with_options(store: S, options: &CoalescingOptions) -> Self {
        let CoalescingOptions { max_waiting, max_wait, .. } = *options;
        Self {
            shared: Arc::new(Shared {
                store,
                reads: Lane::new(options.concurrent_reads.max(1), max_waiting),
                writes: Lane::new(options.concurrent_writes.max(1), max_waiting),
                blocked: BlockedWrites::new(options.max_blocked_writes.max(1), max_waiting, max_wait),
                max_batch: options.max_batch.max(1),
                max_wait,
                counts: Counts::default(),
            }),
        }
    }

    /// Returns the wrapped store.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.shared.store
    }

    /// Returns the counters, for metrics.
    #[must_use]
    pub fn status(&self) -> CoalescingStatus {
        let Shared { counts, reads, writes, blocked, .. } = &*self.shared;
        CoalescingStatus {
            alone: counts.alone.load(Ordering::Relaxed),
            joined: counts.joined.load(Ordering::Relaxed),
            batches: counts.batches.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            waiting: reads.waiting() + writes.waiting() + blocked.waiting(),
        }
    }

    /// Waits until a batch has run the call, or the caller has to run it alone.
    async fn turn(&self, kind: Kind, owner: &UserId, call: impl FnOnce() -> Call + Send) -> Result<Turn, StoreError> {
        let shared = &self.shared;
        if !shared.store.is_batching() {
            return Ok(Turn::Alone(Alone::Unbatched));
        }
        let lane = if kind.is_write() { &shared.writes } else { &shared.reads };
        let position = match lane.enter(kind, || (owner.clone(), call())) {
            Entry::Free(permit) => {
                shared.counts.alone.fetch_add(1, Ordering::Relaxed);
                return Ok(Turn::Alone(Alone::InLane(permit)));
            }
            Entry::Queued(position) => position,
            Entry::Full => return Err(shared.reject("too many calls are waiting for the store")),
        };
        let mut max_wait = pin!(tokio::time::sleep(shared.max_wait));
        loop {
            match position.wakeup(max_wait.as_mut()).await {
                Wakeup::Lead(permit) => {
                    let members = position.collect(shared.max_batch);
                    if members.len() == 1 {
                        shared.counts.alone.fetch_add(1, Ordering::Relaxed);
                        return Ok(Turn::Alone(Alone::InLane(permit)));
                    }
                    shared.counts.batches.fetch_add(1, Ordering::Relaxed);
                    shared.counts.joined.fetch_add(members.len() as u64, Ordering::Relaxed);
                    let run = Arc::clone(shared).run(kind, members.clone(), permit);
                    Batch::new(kind, members, run).drive().await;
                }
                Wakeup::Drive(batch) => batch.drive().await,
                Wakeup::TimedOut => {
                    return Err(StoreError::Unavailable("the call waited too long for the store".into()));
                }
                Wakeup::Finish(BatchResult::Done(outcome)) => return Ok(Turn::Done(outcome)),
                Wakeup::Finish(BatchResult::NotDone) => return Ok(Turn::Alone(Alone::AfterBatch)),
                Wakeup::Finish(BatchResult::Failed(error)) => return Err(error.into_store_error()),
            }
        }
    }
}

/// Who runs a call.
#[expect(clippy::large_enum_variant, reason = "it is moved a few times; a box would be an allocation for each call")]
enum Turn {
    /// A batch has run it.
    Done(Outcome),
    /// Its caller has to run it.
    Alone(Alone),
}

/// A call that its caller runs.
enum Alone {
    /// With a slot, which is free again when this is dropped.
    InLane(Permit),
    /// The store does not batch.
    Unbatched,
    /// A batch has not applied it: its task may be locked.
    AfterBatch,
}

impl<S> Shared<S> {
    fn reject(&self, problem: &'static str) -> StoreError {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        StoreError::Unavailable(problem.into())
    }
}

impl<S: BatchStore> Shared<S> {
    /// Runs a write alone. If its task is locked, the write waits outside of the lane: the number of such writes is
    /// limited, since each keeps a connection.
    ///
    /// A write that waited for a lock in the lane would delay the writes of all users. So a write has a slot for what
    /// is locked from the start, and can leave the lane at any time. While no such slot is free, or another write of
    /// its owner has one, the write is sent as a batch of one, which waits for no lock.
    async fn write(
        self: &Arc<Self>,
        alone: Alone,
        (kind, owner): (Kind, &UserId),
        copy: impl FnOnce() -> Call + Send,
        call: impl Future<Output = Result<Outcome, StoreError>> + Send,
    ) -> Result<Outcome, StoreError> {
        match alone {
            Alone::Unbatched => return call.await,
            Alone::AfterBatch => {}
            Alone::InLane(permit) => {
                if let Some(_slot) = self.blocked.free_slot(owner) {
                    let mut call = pin!(call);
                    if let Ok(result) = tokio::time::timeout(MAX_LOCK_WAIT_IN_LANE, call.as_mut()).await {
                        return result;
                    }
                    drop(permit);
                    return call.await;
                }
                let member = Arc::new(Waiter::new(0, owner.clone(), copy()));
                Arc::clone(self).run(kind, Arc::new([Arc::clone(&member)]), permit).await;
                match member.leave() {
                    State::Finished(BatchResult::Done(outcome)) => return Ok(outcome),
                    State::Finished(BatchResult::Failed(error)) => return Err(error.into_store_error()),
                    _ => {}
                }
            }
        }
        let _slot = self.blocked_slot(owner).await?;
        call.await
    }

    /// Runs a write that is never batched. It may wait for a lock, so it waits outside of the lane.
    async fn write_apart<T>(
        &self,
        owner: &UserId,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if !self.store.is_batching() {
            return call.await;
        }
        let _slot = self.blocked_slot(owner).await?;
        call.await
    }

    async fn blocked_slot(&self, owner: &UserId) -> Result<BlockedSlot<'_>, StoreError> {
        self.blocked.slot(owner).await.map_err(|no_slot| match no_slot {
            NoSlot::Full => self.reject("too many calls are waiting for locked tasks"),
            NoSlot::TimedOut => {
                StoreError::Unavailable("the call waited too long for other calls for locked tasks".into())
            }
        })
    }

    /// Sends a batch and gives each member its result.
    async fn run(self: Arc<Self>, kind: Kind, members: Arc<[Arc<Waiter>]>, permit: Permit) {
        let result = self.send(kind, &members).await;
        // The next statement need not wait until all members have their results.
        drop(permit);
        match result {
            Ok(outcomes) if outcomes.len() == members.len() => {
                for (member, outcome) in members.iter().zip(outcomes) {
                    member.finish(checked(member, outcome));
                }
            }
            Ok(_) => fail(&members, StoreError::Backend("a batch returned the wrong number of results".into())),
            Err(BatchError::RolledBack(error)) => {
                tracing::debug!(
                    target: "todo_core::store",
                    %error,
                    "a batch was rolled back; each of its calls is retried alone"
                );
                for member in &*members {
                    member.finish(BatchResult::NotDone);
                }
            }
            Err(BatchError::Failed(error)) => fail(&members, error),
        }
    }

    async fn send(&self, kind: Kind, members: &[Arc<Waiter>]) -> Result<Vec<Option<Outcome>>, BatchError> {
        /// The owners and arguments of all members.
        macro_rules! calls {
            ($($call:pat => $arguments:expr),+) => {
                members.iter().filter_map(|member| match &member.call {
                    $($call => Some((&member.owner, $arguments)),)+
                    _ => None,
                }).collect::<Vec<_>>()
            };
        }
        let store = &self.store;
        Ok(match kind {
            Kind::Get => {
                let tasks = store.get_many(&calls!(Call::One(id) => *id)).await?;
                tasks.into_iter().map(|task| Some(Outcome::Task(task))).collect()
            }
            Kind::List | Kind::LongList | Kind::FilteredList | Kind::LongFilteredList => {
                let calls = members.iter().filter_map(|member| match &member.call {
                    Call::List(query, known) => Some((&member.owner, query, *known)),
                    _ => None,
                });
                let pages = store.list_many(&calls.collect::<Vec<_>>()).await?;
                pages.into_iter().map(|page| Some(Outcome::Page(page))).collect()
            }
            Kind::Insert => {
                let calls = members.iter().filter_map(|member| match &member.call {
                    Call::Insert(task, max_tasks) => Some((&member.owner, &**task, *max_tasks)),
                    _ => None,
                });
                let inserted = store.insert_many(&calls.collect::<Vec<_>>()).await?;
                let done = |inserted: bool| inserted.then_some(Outcome::Inserted(Insertion::Done));
                inserted.into_iter().map(done).collect()
            }
            Kind::Update => {
                let calls = members.iter().filter_map(|member| match &member.call {
                    Call::Update { id, change, now } => Some((&member.owner, *id, change, *now)),
                    _ => None,
                });
                let tasks = store.update_many(&calls.collect::<Vec<_>>()).await?;
                tasks.into_iter().map(|task| task.map(|task| Outcome::Task(Some(task)))).collect()
            }
            Kind::Delete => {
                let deleted = store.delete_many(&calls!(Call::One(id) => *id)).await?;
                deleted.into_iter().map(|deleted| deleted.then_some(Outcome::Applied(true))).collect()
            }
        })
    }
}

/// The result of a member, unless it contains rows of another owner.
fn checked(member: &Waiter, outcome: Option<Outcome>) -> BatchResult {
    match outcome {
        None => BatchResult::NotDone,
        Some(outcome) if member.call.allows(&member.owner, &outcome) => BatchResult::Done(outcome),
        Some(_) => {
            tracing::error!(
                target: "todo_core::store",
                "a batch returned rows of another owner or call; the call fails and the rows are not returned"
            );
            BatchResult::Failed(SharedError::new(mismatch()))
        }
    }
}

fn mismatch() -> StoreError {
    StoreError::Backend("a batch returned the result of another call".into())
}

#[async_trait]
impl<S: BatchStore + 'static> TaskStore for CoalescingStore<S> {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        let shared = &self.shared;
        let call = async { shared.store.insert(owner, tasks, creation).await };
        // A batch has one task of a call, and knows no requests.
        let ([task], None) = (tasks, &creation.request) else { return shared.write_apart(owner, call).await };
        let copy = || Call::Insert(Box::new(task.clone()), creation.max_tasks);
        let outcome = match self.turn(Kind::Insert, owner, copy).await? {
            Turn::Alone(alone) => {
                let call = async { call.await.map(Outcome::Inserted) };
                shared.write(alone, (Kind::Insert, owner), copy, call).await?
            }
            Turn::Done(outcome) => outcome,
        };
        match outcome {
            Outcome::Inserted(insertion) => Ok(insertion),
            _ => Err(mismatch()),
        }
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        match self.turn(Kind::Get, owner, || Call::One(id)).await? {
            Turn::Alone(_alone) => self.shared.store.get(owner, id).await,
            Turn::Done(Outcome::Task(task)) => Ok(task),
            Turn::Done(_) => Err(mismatch()),
        }
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        let Some(kind) = Kind::of_list(query) else { return self.shared.store.list(owner, query, known).await };
        match self.turn(kind, owner, || Call::List(query.clone(), known)).await? {
            Turn::Alone(_alone) => self.shared.store.list(owner, query, known).await,
            Turn::Done(Outcome::Page(page)) => Ok(page),
            Turn::Done(_) => Err(mismatch()),
        }
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<UpdateOutcome<Task>, StoreError> {
        let shared = &self.shared;
        let call = async { shared.store.update(owner, id, change, precondition, now).await };
        if !precondition.is_always_met() {
            return shared.write_apart(owner, call).await;
        }
        let copy = || Call::Update { id, change: change.clone(), now };
        let outcome = match self.turn(Kind::Update, owner, copy).await? {
            Turn::Alone(alone) => {
                let call = async { call.await.map(|outcome| Outcome::Task(outcome.done())) };
                shared.write(alone, (Kind::Update, owner), copy, call).await?
            }
            Turn::Done(outcome) => outcome,
        };
        match outcome {
            Outcome::Task(task) => Ok(task.map_or(UpdateOutcome::Missing, UpdateOutcome::Done)),
            _ => Err(mismatch()),
        }
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        self.shared.store.count(owner, filter, known).await
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        self.shared.store.summary(owner, known).await
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        self.shared.store.update_matching(owner, filter, change, now).await
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        self.shared.store.reposition(owner, positions, moved, now).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        self.shared.store.delete_matching(owner, filter).await
    }

    async fn delete(
        &self,
        owner: &UserId,
        id: TaskId,
        precondition: &Precondition,
    ) -> Result<UpdateOutcome<()>, StoreError> {
        let shared = &self.shared;
        let call = async { shared.store.delete(owner, id, precondition).await };
        if !precondition.is_always_met() {
            return shared.write_apart(owner, call).await;
        }
        let copy = || Call::One(id);
        let outcome = match self.turn(Kind::Delete, owner, copy).await? {
            Turn::Alone(alone) => {
                let call = async { call.await.map(|outcome| Outcome::Applied(outcome.done().is_some())) };
                shared.write(alone, (Kind::Delete, owner), copy, call).await?
            }
            Turn::Done(outcome) => outcome,
        };
        match outcome {
            Outcome::Applied(true) => Ok(UpdateOutcome::Done(())),
            Outcome::Applied(false) => Ok(UpdateOutcome::Missing),
            _ => Err(mismatch()),
        }
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        self.shared.store.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        self.shared.store.transfer(owner, to).await
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        self.shared.store.changes(owner, since, limit).await
    }

    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        self.shared.store.revisions(owners).await
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        self.shared.store.purge(owner, before, limit).await
    }

    fn refresh(&self, owner: &UserId) {
        self.shared.store.refresh(owner);
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.shared.store.ping().await
    }
}
