//! Calls that would wait for a connection share a round trip.
//!
//! A lane lets a few statements run at once. Who comes when one is free runs at once and alone, as without all this.
//! Who comes later waits; and when a statement has ended, one of those who wait becomes the leader: it takes the others
//! that want the same with it, as one batch. Nothing waits for a batch to fill, and no task runs in the background.

use std::{
    collections::{HashSet, VecDeque},
    error::Error as StdError,
    fmt,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Semaphore, time::Sleep};

use super::{BatchError, BatchStore, SetupError, StoreError, TaskChange, TaskStore};
use crate::{Page, Task, TaskId, TaskQuery, UserId, clock::Timestamp};

/// A store around a store: under load, calls of many users that wait for a connection become one statement.
///
/// A round trip costs the server and the database more than what most calls ask for, so sharing it is what raises
/// throughput. What callers get is what they got without: each exactly its own rows, or its own error.
///
/// - While no more calls run than the lanes are wide, a call runs by itself and at once. Only those that have to wait are
///   joined, so nothing gets slower when there is nothing to gain.
/// - Reads and writes have lanes of their own. Within a lane who has waited longest is next; only lists of more than 50
///   have to leave every other turn to the rest, so that neither writes nor long lists keep everybody else waiting.
/// - A read joins only statements that are sent after it was asked: what its caller has written, it reads.
/// - Two writes to one task are never in one batch. A task that somebody holds (a transaction of the host) delays only
///   the calls that want it.
/// - Who has waited for 3 seconds without a turn is told so: a database that stands still makes no one stand in a queue.
/// - Who goes away before the batch is sent is not part of it; if the leader goes away in the middle, another caller
///   of the batch goes on in its place. Nothing runs that no caller drives.
/// - If a batch fails and surely nothing has happened, each call is done again by itself; if that is not known, each gets
///   the error of the batch ([`StoreError::Interrupted`]).
/// - The owner is part of every predicate, and every row is compared with its caller before it leaves the store.
///
/// Clones are the same store.
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
    max_batch: usize,
    max_wait: Duration,
    /// Places for calls that wait for a held task outside of the lanes.
    held: Semaphore,
    counts: Counts,
}

/// How a [`CoalescingStore`] joins calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoalescingOptions {
    /// How many statements that read run at once; the next calls wait and are joined. Together with
    /// [`writes`](Self::writes) it should be less than the connections of the store. Default: 2.
    pub reads: usize,
    /// How many statements that write run at once. Default: 2.
    pub writes: usize,
    /// How many calls a statement serves at most. Default: 64.
    pub max_batch: usize,
    /// How many calls may wait for reads, and as many for writes; the next gets [`StoreError::Unavailable`] at once.
    /// Default: 4096.
    pub max_waiting: usize,
    /// How many calls may have a connection while they wait for a task that somebody holds. Together with
    /// [`reads`](Self::reads) and [`writes`](Self::writes) it should be less than the connections of the store, or whoever
    /// holds one task could stop everybody. Default: 4.
    pub held: usize,
    /// How long a call waits for its turn; then it gets [`StoreError::Unavailable`]. A statement that is under way is the
    /// store's to end. Default: 3 seconds.
    pub max_wait: Duration,
}

impl Default for CoalescingOptions {
    fn default() -> Self {
        Self { reads: 2, writes: 2, max_batch: 64, max_waiting: 4096, max_wait: Duration::from_secs(3), held: 4 }
    }
}

/// What a [`CoalescingStore`] has done since it was made, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoalescingStatus {
    /// Calls that ran by themselves.
    pub alone: u64,
    /// Calls that shared a statement with others.
    pub joined: u64,
    /// Statements that they shared.
    pub batches: u64,
    /// Calls that were refused because too many were waiting.
    pub refused: u64,
    /// Calls that wait now.
    pub waiting: usize,
}

#[derive(Default)]
struct Counts {
    alone: AtomicU64,
    joined: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
}

/// The most rows that a batch of lists may answer, so that no batch keeps its connection for long.
const MAX_ROWS: usize = 2048;
/// How long a single write keeps its place in the lane.
const PATIENCE: Duration = Duration::from_millis(50);
/// From how many rows on a list has to queue with its like.
const LARGE: u16 = 50;

impl<S: BatchStore + 'static> CoalescingStore<S> {
    /// Joins the calls of this store, with the default options.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self::with_options(store, &CoalescingOptions::default())
    }

    /// Joins the calls of this store.
    #[must_use]
    pub fn with_options(store: S, options: &CoalescingOptions) -> Self {
        let lane = |width: usize| Arc::new(Lane::new(width.max(1), options.max_waiting));
        Self {
            shared: Arc::new(Shared {
                store,
                reads: lane(options.reads),
                writes: lane(options.writes),
                max_batch: options.max_batch.max(1),
                max_wait: options.max_wait,
                held: Semaphore::new(options.held.max(1)),
                counts: Counts::default(),
            }),
        }
    }

    /// The store whose calls are joined.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.shared.store
    }

    /// What has been done so far.
    #[must_use]
    pub fn status(&self) -> CoalescingStatus {
        let Shared { counts, reads, writes, .. } = &*self.shared;
        CoalescingStatus {
            alone: counts.alone.load(Ordering::Relaxed),
            joined: counts.joined.load(Ordering::Relaxed),
            batches: counts.batches.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            waiting: reads.lock().waiting + writes.lock().waiting,
        }
    }

    /// Waits for the turn of a call: it is answered as part of a batch, or has to be done by itself.
    async fn turn(&self, kind: Kind, owner: &UserId, call: impl FnOnce() -> Call + Send) -> Result<Turn, StoreError> {
        let shared = &self.shared;
        if !shared.store.is_batching() {
            return Ok(Turn::Alone(Alone::Unjoined));
        }
        let lane = if kind.writes() { &shared.writes } else { &shared.reads };
        let place = match lane.enter(kind, || Waiter::new(owner.clone(), call())) {
            Entry::Free(permit) => {
                shared.counts.alone.fetch_add(1, Ordering::Relaxed);
                return Ok(Turn::Alone(Alone::InLane(permit)));
            }
            Entry::Queued(waiter) => Place(waiter),
            Entry::Full => {
                shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                return Err(StoreError::Unavailable("too many calls wait for the store".into()));
            }
        };
        let mut patience = pin!(tokio::time::sleep(shared.max_wait));
        loop {
            match place.woken(patience.as_mut()).await {
                Woken::ToLead(permit) => {
                    let members = lane.collect(kind, &place.0, shared.max_batch);
                    if members.len() == 1 {
                        shared.counts.alone.fetch_add(1, Ordering::Relaxed);
                        return Ok(Turn::Alone(Alone::InLane(permit)));
                    }
                    shared.counts.batches.fetch_add(1, Ordering::Relaxed);
                    shared.counts.joined.fetch_add(members.len() as u64, Ordering::Relaxed);
                    let run = Arc::clone(shared).run(kind, members.clone(), permit);
                    Batch::begin(members, Box::pin(run)).drive(&place.0).await;
                }
                Woken::ToDrive(batch) => batch.drive(&place.0).await,
                Woken::TooLate => return Err(StoreError::Unavailable("the store was busy for too long".into())),
                Woken::Answered(Answer::Outcome(outcome)) => return Ok(Turn::Answered(outcome)),
                Woken::Answered(Answer::ByItself) => return Ok(Turn::Alone(Alone::AfterBatch)),
                Woken::Answered(Answer::Failed(error)) => return Err(error.each()),
            }
        }
    }
}

impl<S: BatchStore> Shared<S> {
    /// Sends a batch and gives each member its answer.
    async fn run(self: Arc<Self>, kind: Kind, members: Arc<[Arc<Waiter>]>, permit: Permit) {
        let result = self.send(kind, &members).await;
        // The next batch need not wait until everybody here has been told.
        drop(permit);
        match result {
            Ok(outcomes) if outcomes.len() == members.len() => {
                for (member, outcome) in members.iter().zip(outcomes) {
                    member.answer(member.check(outcome));
                }
            }
            Ok(_) => {
                let error = StoreError::Backend("a batch has another number of answers than of calls".into());
                fail(&members, error);
            }
            Err(BatchError::RolledBack(error)) => {
                tracing::debug!(target: "todo_core::store", %error, "a batch was rolled back; its calls run by themselves");
                for member in &*members {
                    member.answer(Answer::ByItself);
                }
            }
            Err(BatchError::Failed(error)) => fail(&members, error),
        }
    }

    async fn send(&self, kind: Kind, members: &[Arc<Waiter>]) -> Result<Vec<Option<Outcome>>, BatchError> {
        /// What all members of a batch ask for.
        macro_rules! calls {
            ($($call:pat => $asked:expr),+) => {
                members.iter().filter_map(|member| match &member.call {
                    $($call => Some((&member.owner, $asked)),)+
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
                let pages = store.list_many(&calls!(Call::List(query) => query)).await?;
                pages.into_iter().map(|page| Some(Outcome::Page(page))).collect()
            }
            Kind::Insert => {
                let inserted = store.insert_many(&calls!(Call::Insert(task) => &**task)).await?;
                inserted.into_iter().map(|inserted| Some(Outcome::Done(inserted))).collect()
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
                deleted.into_iter().map(|deleted| deleted.then_some(Outcome::Done(true))).collect()
            }
        })
    }
}

/// What a call comes to.
enum Turn {
    /// It has its answer.
    Answered(Outcome),
    /// Its caller does it.
    Alone(Alone),
}

/// A call that its caller does.
enum Alone {
    /// Its place in the lane is given back when it is done.
    InLane(Permit),
    /// Nothing is joined here.
    Unjoined,
    /// It did not happen in a batch: somebody may hold its task.
    AfterBatch,
}

/// What is asked for. Calls of one kind may be in one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    List,
    LongList,
    FilteredList,
    LongFilteredList,
    Insert,
    Update,
    Delete,
}

impl Kind {
    /// How many there are in one lane.
    const IN_LANE: usize = 5;
    /// From this place on there are the long ones.
    const LONG: usize = 3;

    fn of(query: &TaskQuery) -> Self {
        match (query.completed.is_some(), query.limit.get() > LARGE) {
            (false, false) => Self::List,
            (false, true) => Self::LongList,
            (true, false) => Self::FilteredList,
            (true, true) => Self::LongFilteredList,
        }
    }

    fn writes(self) -> bool {
        matches!(self, Self::Insert | Self::Update | Self::Delete)
    }

    /// Its place in its lane.
    fn place(self) -> usize {
        match self {
            Self::Get | Self::Insert => 0,
            Self::List | Self::Update => 1,
            Self::FilteredList | Self::Delete => 2,
            Self::LongList => Self::LONG,
            Self::LongFilteredList => Self::LONG + 1,
        }
    }
}

/// A call with all it needs, since another caller may be the one who sends it.
enum Call {
    /// For get and delete.
    One(TaskId),
    List(TaskQuery),
    Insert(Box<Task>),
    Update {
        id: TaskId,
        change: TaskChange,
        now: Timestamp,
    },
}

impl Call {
    /// The task that it writes to; reads have none, since they may be together.
    fn key(&self, kind: Kind) -> Option<TaskId> {
        match self {
            Self::One(id) => kind.writes().then_some(*id),
            Self::List(_) => None,
            Self::Insert(task) => Some(task.id),
            Self::Update { id, .. } => Some(*id),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::List(query) => usize::from(query.limit.get()) + 1,
            _ => 1,
        }
    }
}

enum Outcome {
    Task(Option<Task>),
    Page(Page),
    Done(bool),
}

enum Answer {
    Outcome(Outcome),
    /// It did not happen in the batch, and is to be done by itself.
    ByItself,
    Failed(Failure),
}

/// One error that many callers get.
#[derive(Clone)]
struct Failure(Arc<StoreError>);

impl Failure {
    fn each(self) -> StoreError {
        let source = Box::new(SharedError(self.0.clone()));
        match &*self.0 {
            StoreError::Setup(mistake) => SetupError::new(mistake.to_string()).with_source(source).into(),
            StoreError::Unavailable(_) => StoreError::Unavailable(source),
            StoreError::Interrupted(_) => StoreError::Interrupted(source),
            StoreError::Timeout(_) => StoreError::Timeout(source),
            StoreError::Backend(_) => StoreError::Backend(source),
        }
    }
}

#[derive(Debug)]
struct SharedError(Arc<StoreError>);

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a statement for several calls has failed")
    }
}

impl StdError for SharedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

fn fail(members: &[Arc<Waiter>], error: StoreError) {
    let failure = Failure(Arc::new(error));
    for member in members {
        member.answer(Answer::Failed(failure.clone()));
    }
}

/// Where the calls of one kind, reads or writes, wait.
struct Lane {
    width: usize,
    max_waiting: usize,
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    running: usize,
    waiting: usize,
    queues: [VecDeque<Arc<Waiter>>; Kind::IN_LANE],
    /// How many have come to wait so far.
    number: u64,
    /// Whether long lists were preferred last time.
    long_turn: bool,
}

enum Entry {
    Free(Permit),
    Queued(Arc<Waiter>),
    Full,
}

/// The right to run a statement. Given back, it makes one of those who wait a leader.
struct Permit(Arc<Lane>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.hand_on();
    }
}

impl Lane {
    fn new(width: usize, max_waiting: usize) -> Self {
        Self { width, max_waiting, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, kind: Kind, waiter: impl FnOnce() -> Waiter) -> Entry {
        let mut state = self.lock();
        if state.running < self.width {
            state.running += 1;
            return Entry::Free(Permit(self.clone()));
        }
        if state.waiting >= self.max_waiting {
            return Entry::Full;
        }
        let waiter = Arc::new(Waiter { number: state.number, ..waiter() });
        state.number += 1;
        state.waiting += 1;
        state.queues[kind.place()].push_back(waiter.clone());
        Entry::Queued(waiter)
    }

    /// Makes the next of those who wait the leader.
    fn hand_on(self: &Arc<Self>) {
        let mut state = self.lock();
        while let Some(waiter) = state.next() {
            let mut waiting = waiter.lock();
            if let State::Queued(waker) = &mut *waiting {
                let waker = waker.take();
                *waiting = State::Leader(Permit(self.clone()));
                drop((waiting, state));
                if let Some(waker) = waker {
                    waker.wake();
                }
                return;
            }
        }
        state.running -= 1;
    }

    /// The leader and those who want the same, sorted by what they write to.
    fn collect(&self, kind: Kind, leader: &Arc<Waiter>, max: usize) -> Arc<[Arc<Waiter>]> {
        let mut members = vec![leader.clone()];
        let mut rows = leader.call.rows();
        let mut written = HashSet::new();
        let mut is_new = |waiter: &Waiter| match waiter.call.key(kind) {
            Some(id) => written.insert((waiter.owner.clone(), id)),
            None => true,
        };
        is_new(leader);
        let mut second_writes = Vec::new();
        let mut state = self.lock();
        while members.len() < max {
            let queue = &mut state.queues[kind.place()];
            let Some(next) = queue.pop_front_if(|next| rows + next.call.rows() <= MAX_ROWS) else { break };
            if matches!(*next.lock(), State::Gone) {
                state.waiting -= 1;
            } else if is_new(&next) {
                state.waiting -= 1;
                rows += next.call.rows();
                members.push(next);
            } else {
                second_writes.push(next);
            }
        }
        for waiter in second_writes.into_iter().rev() {
            state.queues[kind.place()].push_front(waiter);
        }
        drop(state);
        if kind.writes() {
            // Everybody locks rows in the same order, so nobody waits in a circle.
            members.sort_by(|a, b| (&a.owner, a.call.key(kind)).cmp(&(&b.owner, b.call.key(kind))));
        }
        members.into()
    }
}

impl LaneState {
    /// The next of those who wait: who has waited longest, but long lists only every other time.
    fn next(&mut self) -> Option<Arc<Waiter>> {
        let (short, long) = self.queues.split_at_mut(Kind::LONG);
        let oldest = |queues: &mut [VecDeque<Arc<Waiter>>]| {
            let heads = queues.iter().enumerate().filter_map(|(place, queue)| Some((queue.front()?.number, place)));
            let (_, place) = heads.min()?;
            queues[place].pop_front()
        };
        self.long_turn = !self.long_turn;
        let (first, second) = if self.long_turn { (long, short) } else { (short, long) };
        let waiter = oldest(first).or_else(|| oldest(second))?;
        self.waiting -= 1;
        Some(waiter)
    }
}

/// A call that waits for its turn.
struct Waiter {
    /// Counted in the order of coming.
    number: u64,
    owner: UserId,
    call: Call,
    state: Mutex<State>,
}

enum State {
    Queued(Option<Waker>),
    Leader(Permit),
    /// Part of a batch that is being sent by somebody.
    Joined(Option<Waker>),
    /// Part of a batch whose driver has gone away: the next is this one.
    Driver(Arc<Batch>),
    Answered(Answer),
    Gone,
}

enum Woken {
    ToLead(Permit),
    ToDrive(Arc<Batch>),
    Answered(Answer),
    /// It is still nobody's, and has waited for long enough.
    TooLate,
}

impl Waiter {
    fn new(owner: UserId, call: Call) -> Self {
        Self { number: 0, owner, call, state: Mutex::new(State::Queued(None)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, answer: Answer) {
        let mut state = self.lock();
        let before = match &*state {
            State::Gone => return,
            _ => mem::replace(&mut *state, State::Answered(answer)),
        };
        drop(state);
        if let State::Joined(Some(waker)) = before {
            waker.wake();
        }
    }

    /// The last wall: no row goes to anybody but its owner, whatever went wrong below.
    fn check(&self, outcome: Option<Outcome>) -> Answer {
        let Some(outcome) = outcome else {
            return Answer::ByItself;
        };
        let is_own = |task: &Task| {
            task.user_id == self.owner
                && match &self.call {
                    Call::One(id) | Call::Update { id, .. } => task.id == *id,
                    Call::List(_) | Call::Insert(_) => true,
                }
        };
        let is_right = match (&outcome, &self.call) {
            (Outcome::Task(task), Call::One(_) | Call::Update { .. }) => task.iter().all(is_own),
            (Outcome::Page(page), Call::List(_)) => page.tasks.iter().all(is_own),
            (Outcome::Done(_), Call::One(_) | Call::Insert(_)) => true,
            _ => false,
        };
        if is_right {
            return Answer::Outcome(outcome);
        }
        tracing::error!(target: "todo_core::store", "a batch has answered a call with what belongs to another; withheld");
        Answer::Failed(Failure(Arc::new(StoreError::Backend("a batch has mixed up its calls".into()))))
    }
}

/// A caller's place in a lane, which it leaves when it goes away.
struct Place(Arc<Waiter>);

impl Place {
    async fn woken(&self, mut patience: Pin<&mut Sleep>) -> Woken {
        poll_fn(|context| {
            let mut state = self.0.lock();
            match &mut *state {
                State::Queued(_) if patience.as_mut().poll(context).is_ready() => {
                    *state = State::Gone;
                    Poll::Ready(Woken::TooLate)
                }
                State::Queued(waker) | State::Joined(waker) => {
                    match waker {
                        Some(waker) => waker.clone_from(context.waker()),
                        None => *waker = Some(context.waker().clone()),
                    }
                    Poll::Pending
                }
                State::Leader(_) | State::Driver(_) | State::Answered(_) => {
                    Poll::Ready(match mem::replace(&mut *state, State::Queued(None)) {
                        State::Leader(permit) => Woken::ToLead(permit),
                        State::Driver(batch) => {
                            *state = State::Joined(None);
                            Woken::ToDrive(batch)
                        }
                        State::Answered(answer) => Woken::Answered(answer),
                        _ => unreachable!("looked at above, under the same lock"),
                    })
                }
                State::Gone => unreachable!("set only when the place is left, or about to be"),
            }
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = mem::replace(&mut *self.0.lock(), State::Gone);
        // A permit goes to the next when it is dropped here, outside of the lock.
        if let State::Driver(batch) = state {
            batch.pass_on(&self.0);
        }
    }
}

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Calls that are one statement, and what remains to be done for them.
struct Batch {
    members: Arc<[Arc<Waiter>]>,
    run: Mutex<Option<Run>>,
}

impl Batch {
    fn begin(members: Arc<[Arc<Waiter>]>, run: Run) -> Arc<Self> {
        let batch = Arc::new(Self { members, run: Mutex::new(Some(run)) });
        for member in &*batch.members {
            let mut state = member.lock();
            if let State::Queued(waker) = &mut *state {
                let waker = waker.take();
                *state = State::Joined(waker);
            }
        }
        batch
    }

    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what remains, until every member has its answer.
    async fn drive(self: Arc<Self>, driver: &Arc<Waiter>) {
        let run = self.lock().take();
        let mut driving = Driving { batch: self, driver, run };
        if let Some(run) = &mut driving.run {
            run.as_mut().await;
            driving.run = None;
        }
    }

    /// Gives the rest to another member; if there is none any more, the rest is for nobody and is dropped.
    fn pass_on(self: &Arc<Self>, gone: &Arc<Waiter>) {
        for member in self.members.iter().filter(|member| !Arc::ptr_eq(member, gone)) {
            let mut state = member.lock();
            if let State::Joined(waker) = &mut *state {
                let waker = waker.take();
                *state = State::Driver(self.clone());
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
                return;
            }
        }
        let rest = self.lock().take();
        drop(rest);
    }
}

/// A caller who drives a batch, and may go away in the middle.
struct Driving<'a> {
    batch: Arc<Batch>,
    driver: &'a Arc<Waiter>,
    run: Option<Run>,
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        if std::thread::panicking() {
            // It cannot be polled again.
            drop(run);
            fail(&self.batch.members, StoreError::Backend("a batch has panicked".into()));
        } else {
            *self.batch.lock() = Some(run);
            self.batch.pass_on(self.driver);
        }
    }
}

impl<S> Shared<S> {
    /// A write that may have to wait for somebody who holds its task. Who waits for long does so outside of the lane, where
    /// there are few places: each keeps a connection.
    async fn write<T>(&self, alone: Alone, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let permit = match alone {
            Alone::Unjoined => return call.await,
            Alone::AfterBatch => {
                let busy = || StoreError::Unavailable("too many calls wait for tasks that somebody holds".into());
                let place = tokio::time::timeout(self.max_wait, self.held.acquire()).await;
                let _place = place.map_err(|_| busy())?.map_err(|_| busy())?;
                return call.await;
            }
            Alone::InLane(permit) => permit,
        };
        let mut call = pin!(call);
        if let Ok(answer) = tokio::time::timeout(PATIENCE, call.as_mut()).await {
            return answer;
        }
        let mut place = pin!(self.held.acquire());
        let first = poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending => place.as_mut().poll(context).map(Err),
        });
        match first.await {
            Ok(answer) => answer,
            Err(_place) => {
                drop(permit);
                call.await
            }
        }
    }
}

/// An answer that is of another kind than the call.
fn mismatch() -> StoreError {
    StoreError::Backend("a call was answered as another kind of call".into())
}

#[async_trait]
impl<S: BatchStore + 'static> TaskStore for CoalescingStore<S> {
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        match self.turn(Kind::Insert, owner, || Call::Insert(Box::new(task.clone()))).await? {
            Turn::Alone(_alone) => self.shared.store.insert(owner, task).await,
            Turn::Answered(Outcome::Done(done)) => Ok(done),
            Turn::Answered(_) => Err(mismatch()),
        }
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        match self.turn(Kind::Get, owner, || Call::One(id)).await? {
            Turn::Alone(_alone) => self.shared.store.get(owner, id).await,
            Turn::Answered(Outcome::Task(task)) => Ok(task),
            Turn::Answered(_) => Err(mismatch()),
        }
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        match self.turn(Kind::of(query), owner, || Call::List(*query)).await? {
            Turn::Alone(_alone) => self.shared.store.list(owner, query).await,
            Turn::Answered(Outcome::Page(page)) => Ok(page),
            Turn::Answered(_) => Err(mismatch()),
        }
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        match self.turn(Kind::Update, owner, || Call::Update { id, change: change.clone(), now }).await? {
            Turn::Alone(alone) => self.shared.write(alone, self.shared.store.update(owner, id, change, now)).await,
            Turn::Answered(Outcome::Task(task)) => Ok(task),
            Turn::Answered(_) => Err(mismatch()),
        }
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        match self.turn(Kind::Delete, owner, || Call::One(id)).await? {
            Turn::Alone(alone) => self.shared.write(alone, self.shared.store.delete(owner, id)).await,
            Turn::Answered(Outcome::Done(done)) => Ok(done),
            Turn::Answered(_) => Err(mismatch()),
        }
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        self.shared.store.erase(owner).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.shared.store.ping().await
    }
}
