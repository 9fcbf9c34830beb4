//! Reads from replicas that never show less than this process has shown, or than the caller has.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::{
    Cursor, Limit, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId,
    clock::Timestamp,
    store::{
        BulkResult, Changes, Creation, Insertion, Outcome, Precondition, Read, Revision, StoreError, SyncPoint,
        TaskChange, TaskStore, Transfer,
    },
};

mod bounds;
mod replica;

use bounds::Bounds;
use replica::{CHECK_TIMEOUT, Replica, Target};
pub use replica::{LogPosition, ReplicaStore};

/// How often the servers are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a read of a replica may take before the primary is read instead.
const PATIENCE: Duration = Duration::from_secs(1);

/// A store that writes to a primary and reads from its replicas.
///
/// A replica is behind its primary. This store hides that from callers who stay with it:
///
/// - After a write for an owner, the next read of that owner goes to the primary. So does the first read of an owner,
///   and each read of an owner who has no tasks and no deletions.
/// - Later reads go to a replica. Its answer carries the owner's revision, and is returned only if the revision is at
///   least the highest that this store has returned for this owner, and the one that the caller knows (`known` of a
///   list, count or summary; `since` of the changes). Otherwise the primary is read, too.
/// - So no call shows less than an earlier call on this store, whichever replicas serve them. Another server may show
///   older data to a caller who does not say what it knows: at most [`with_max_lag`](Self::with_max_lag) and some
///   seconds older.
/// - A task that is missing on the replica is looked for on the primary.
///
/// If a replica fails, does not respond for a second, or cancels the statement because of a conflict with what it
/// replays, the primary is read. The caller gets no error because of a replica.
///
/// A replica is read only while [`watch`](Self::watch) runs and finds it usable: it is a standby of the same database,
/// has the tables, and follows the primary. The log says when this changes.
///
/// A store within a transaction of the host ([`PostgresStore::in_transaction`](super::PostgresStore::in_transaction))
/// reads no replica. After the commit, call [`TodoService::observe`](crate::TodoService::observe) or
/// [`refresh`](TaskStore::refresh); the same after changes by the SQL of the host that the next read must contain.
///
/// To batch calls, put each store into a [`CoalescingStore`](super::CoalescingStore) of its own.
///
/// Clones share what they know.
///
/// ```no_run
/// use todo_core::{TodoService, store::{PostgresOptions, PostgresStore, ReplicatedStore}};
///
/// # fn start() -> Result<TodoService, todo_core::store::StoreError> {
/// let options = PostgresOptions::default();
/// let primary = PostgresStore::connect_lazy("postgres://todo@primary/todo", &options)?;
/// let replica = PostgresStore::connect_lazy("postgres://todo@replica/todo", &options.read_only())?;
///
/// let store = ReplicatedStore::new(primary, [replica]);
/// let watched = store.clone();
/// tokio::spawn(async move { watched.watch().await });
/// let service = TodoService::new(store);
/// # Ok(service)
/// # }
/// ```
#[derive(Clone)]
pub struct ReplicatedStore {
    primary: Arc<dyn ReplicaStore>,
    replicas: Arc<[Replica]>,
    bounds: Arc<Bounds>,
    max_lag: Duration,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    next: AtomicUsize,
    from_replica: AtomicU64,
    behind: AtomicU64,
    failed: AtomicU64,
    from_primary: AtomicU64,
}

/// What a [`ReplicatedStore`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// The reads that a replica has served.
    pub from_replica: u64,
    /// The reads for which a replica was asked, and then the primary, since the replica was behind.
    pub behind: u64,
    /// The reads for which a replica was asked, and then the primary, since the replica has failed.
    pub failed: u64,
    /// The reads for which only the primary was asked.
    pub from_primary: u64,
    /// The number of replicas that can be read now.
    pub usable: usize,
    /// The number of replicas.
    pub replicas: usize,
}

type Reading<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

impl ReplicatedStore {
    /// The number of owners about whom something is remembered. An owner takes about 150 bytes.
    const OWNERS: usize = 65_536;

    /// Makes a store that writes to `primary` and reads from `replicas`. All have the same names, and all or none have
    /// row-level security.
    #[must_use]
    pub fn new<S: ReplicaStore + 'static>(primary: S, replicas: impl IntoIterator<Item = S>) -> Self {
        let replicas = replicas.into_iter().map(|store| Replica::new(Arc::new(store))).collect();
        Self {
            primary: Arc::new(primary),
            replicas,
            bounds: Arc::new(Bounds::new(Self::OWNERS)),
            max_lag: Duration::from_secs(10),
            shared: Arc::default(),
        }
    }

    /// Sets how far a replica may be behind the primary and still be read. Default: 10 seconds.
    #[must_use]
    pub fn with_max_lag(self, max_lag: Duration) -> Self {
        Self { max_lag, ..self }
    }

    /// Sets of how many owners this store remembers what was seen. Default: 65,536. A read of another owner goes to the
    /// primary.
    #[must_use]
    pub fn with_max_owners(self, count: usize) -> Self {
        Self { bounds: Arc::new(Bounds::new(count)), ..self }
    }

    /// Returns the counters, for metrics.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let shared = &self.shared;
        ReplicaStatus {
            from_replica: shared.from_replica.load(Relaxed),
            behind: shared.behind.load(Relaxed),
            failed: shared.failed.load(Relaxed),
            from_primary: shared.from_primary.load(Relaxed),
            usable: self.replicas.iter().filter(|replica| replica.is_usable()).count(),
            replicas: self.replicas.len(),
        }
    }

    /// Checks the replicas each second, for ever. Run it once, in a task; no replica is read without it.
    ///
    /// A replica must be a standby of the primary's database, and must have replayed what the primary had written some
    /// time ago ([`with_max_lag`](Self::with_max_lag)). While the primary does not respond, its last known position
    /// counts.
    pub async fn watch(&self) {
        // When the primary was where; the last position that is old enough is the target.
        let mut positions: VecDeque<(Instant, i64)> = VecDeque::new();
        let mut database = String::new();
        loop {
            if let Ok(Ok(found)) = timeout(CHECK_TIMEOUT, self.primary.log_position()).await
                && !found.is_standby
            {
                // After a failover the log may be shorter.
                if found.database != database || positions.back().is_some_and(|(_, last)| found.position < *last) {
                    positions.clear();
                    database = found.database;
                }
                let now = Instant::now();
                positions.push_back((now, found.position));
                while positions.get(1).is_some_and(|(then, _)| now - *then >= self.max_lag) {
                    positions.pop_front();
                }
            }
            let target = positions.front().map(|(then, position)| Target {
                database: database.clone(),
                position: *position,
                lag: (then.elapsed() >= self.max_lag).then_some(self.max_lag),
            });
            join_all(self.replicas.iter().map(|replica| replica.check(target.as_ref()))).await;
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// Reads from a replica, or returns `None` if the primary must be read. `known`: the revision that the caller has.
    /// `revision`: the owner's revision in an answer, or `None` if the answer cannot be used.
    async fn ask_replica<'a, T>(
        &'a self,
        owner: &'a UserId,
        known: Option<Revision>,
        call: impl Fn(&'a dyn ReplicaStore) -> Reading<'a, T> + Send,
        revision: impl Fn(&T) -> Option<Revision> + Send,
    ) -> Option<T> {
        let shared = &self.shared;
        let replica = if self.bounds.is_settled(owner) { self.usable_replica() } else { None };
        let Some(replica) = replica else {
            shared.from_primary.fetch_add(1, Relaxed);
            return None;
        };
        match timeout(PATIENCE, call(&*replica.store)).await {
            Ok(Ok(answer)) => {
                let shown = revision(&answer).filter(|shown| known.is_none_or(|known| *shown >= known));
                if shown.is_some_and(|shown| self.bounds.accept(owner, shown)) {
                    shared.from_replica.fetch_add(1, Relaxed);
                    return Some(answer);
                }
                shared.behind.fetch_add(1, Relaxed);
            }
            Ok(Err(error)) => {
                shared.failed.fetch_add(1, Relaxed);
                replica.failed(error);
            }
            Err(_) => {
                shared.failed.fetch_add(1, Relaxed);
            }
        }
        None
    }

    /// One of the replicas that can be read, in turn.
    fn usable_replica(&self) -> Option<&Replica> {
        let first = self.shared.next.fetch_add(1, Relaxed);
        let mut turns = (0..self.replicas.len()).map(|turn| first.wrapping_add(turn) % self.replicas.len());
        turns.find_map(|place| self.replicas.get(place).filter(|replica| replica.is_usable()))
    }

    /// Reads from the primary, and notes what is shown.
    async fn ask_primary<'a, T>(
        &'a self,
        owner: &'a UserId,
        call: impl Fn(&'a dyn ReplicaStore) -> Reading<'a, T> + Send,
        revision: impl Fn(&T) -> Option<Revision> + Send,
    ) -> Result<T, StoreError> {
        let began = self.bounds.begin(owner);
        let answer = call(&*self.primary).await?;
        if let Some(revision) = revision(&answer) {
            self.bounds.settle(owner, began, revision);
        }
        Ok(answer)
    }

    async fn read<'a, T>(
        &'a self,
        owner: &'a UserId,
        known: Option<Revision>,
        call: impl Fn(&'a dyn ReplicaStore) -> Reading<'a, T> + Send + Sync,
        revision: impl Fn(&T) -> Option<Revision> + Send + Sync,
    ) -> Result<T, StoreError> {
        match self.ask_replica(owner, known, &call, &revision).await {
            Some(answer) => Ok(answer),
            None => self.ask_primary(owner, call, revision).await,
        }
    }

    /// Lets the next read of these owners go to the primary when the returned value is dropped: after a write, whether
    /// it has succeeded or not, and also one whose caller does not wait for the result.
    fn writing<'a, const N: usize>(&'a self, owners: [&'a UserId; N]) -> Writing<'a, N> {
        Writing { bounds: &self.bounds, owners }
    }
}

struct Writing<'a, const N: usize> {
    bounds: &'a Bounds,
    owners: [&'a UserId; N],
}

impl<const N: usize> Drop for Writing<'_, N> {
    fn drop(&mut self) {
        self.owners.iter().for_each(|owner| self.bounds.unsettle(owner));
    }
}

/// The owner's revision in an answer to a caller who knows this one.
fn revision_of<T>(known: Option<Revision>) -> impl Fn(&Read<T>) -> Option<Revision> {
    move |answer| match answer {
        Read::Unchanged => known,
        Read::Changed { revision, .. } => Some(*revision),
    }
}

#[async_trait]
impl TaskStore for ReplicatedStore {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        let _writing = self.writing([owner]);
        self.primary.insert(owner, tasks, creation).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        // A list that begins with the task, since a list comes with the owner's revision.
        let before = id.as_uuid().as_u128().checked_add(1).map(|id| Cursor::after(TaskId::from(Uuid::from_u128(id))));
        let query = &TaskQuery::new().cursor(before).limit(Limit::new(1).unwrap_or_default());
        let found = |answer: &Read<Page>| match answer {
            Read::Changed { revision, value } => value.tasks.first().filter(|task| task.id == id).map(|_| *revision),
            Read::Unchanged => None,
        };
        let answer = match self.ask_replica(owner, None, |store| store.list(owner, query, None), found).await {
            Some(answer) => answer,
            None => self.ask_primary(owner, |store| store.list(owner, query, None), revision_of(None)).await?,
        };
        Ok(match answer {
            Read::Changed { value, .. } => value.tasks.into_iter().next().filter(|task| task.id == id),
            Read::Unchanged => None,
        })
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        self.read(owner, known, |store| store.list(owner, query, known), revision_of(known)).await
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        self.read(owner, known, |store| store.count(owner, filter, known), revision_of(known)).await
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        self.read(owner, known, |store| store.summary(owner, known), revision_of(known)).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        let _writing = self.writing([owner]);
        self.primary.update(owner, id, change, precondition, now).await
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        let _writing = self.writing([owner]);
        self.primary.update_matching(owner, filter, change, now).await
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        let _writing = self.writing([owner]);
        self.primary.reposition(owner, positions, moved, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError> {
        let _writing = self.writing([owner]);
        self.primary.delete(owner, id, precondition).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        let _writing = self.writing([owner]);
        self.primary.delete_matching(owner, filter).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        let _writing = self.writing([owner]);
        self.primary.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        let _writing = self.writing([owner, to]);
        self.primary.transfer(owner, to).await
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        let known = since.map(|since| since.revision.max(since.begun));
        // That a client has to begin again is for the primary to say.
        let revision = |changes: &Option<Changes>| changes.as_ref().map(|changes| changes.revision);
        self.read(owner, known, |store| store.changes(owner, since, limit), revision).await
    }

    /// From the primary: the streams of events have to notice changes soon, and then read all of them.
    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        let began: Vec<_> = owners.iter().map(|owner| self.bounds.begin(owner)).collect();
        let revisions = self.primary.revisions(owners).await?;
        for ((owner, began), revision) in owners.iter().zip(began).zip(&revisions) {
            self.bounds.settle(owner, began, *revision);
        }
        Ok(revisions)
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        // It has no revision. A replica may honour a sync point for longer; not for those who know of the purge.
        let _writing = self.writing([owner]);
        self.primary.purge(owner, before, limit).await
    }

    fn refresh(&self, owner: &UserId) {
        self.bounds.unsettle(owner);
    }

    /// The primary alone: without a replica, all calls work.
    async fn ping(&self) -> Result<(), StoreError> {
        self.primary.ping().await
    }
}

impl fmt::Debug for ReplicatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatedStore")
            .field("primary", &self.primary)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
