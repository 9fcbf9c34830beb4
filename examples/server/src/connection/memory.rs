//! One budget for the memory that the clients of all connections hold.
//!
//! A client holds memory with responses that it does not read, with heads and bodies that it does not finish, and with
//! many requests at a time. Each connection has an [`Account`] of such bytes. When all accounts together exceed the
//! [`MemoryBudget`], the connections that have held theirs for the longest time are closed. Decision 22 has the
//! reasons.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

const MIB: usize = 1024 * 1024;
/// The default of the setting `CONNECTION_MEMORY_MIB`: a quarter of the memory limit in `deploy/`.
pub(crate) const DEFAULT_MIB: usize = 256;
/// The interval at which accounts are compared while the budget is exceeded. A comparison of 10,000 accounts takes a
/// millisecond.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// The budget of the process. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    /// The part of the budget that each connection may use without being closed for it.
    share: usize,
    held: AtomicUsize,
    /// What closed accounts hold. It is being freed.
    freeing: AtomicUsize,
    closed_connections: AtomicU64,
    next_id: AtomicU64,
    accounts: Mutex<HashMap<u64, Arc<Account>>>,
    last: Mutex<Last>,
}

/// When these happened last.
#[derive(Debug, Default)]
struct Last {
    check: Option<Instant>,
    warning: Option<Instant>,
}

impl MemoryBudget {
    /// A budget for at most this number of connections. Even if all of them use their share, the budget is not
    /// exceeded.
    pub(crate) fn new(mib: usize, max_connections: usize) -> Self {
        let limit = mib.saturating_mul(MIB);
        Self(Arc::new(Shared {
            limit,
            share: limit / max_connections.max(1),
            held: AtomicUsize::new(0),
            freeing: AtomicUsize::new(0),
            closed_connections: AtomicU64::new(0),
            next_id: AtomicU64::new(0),
            accounts: Mutex::default(),
            last: Mutex::default(),
        }))
    }

    /// The budget in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    /// The bytes that connections hold now.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Relaxed)
    }

    /// The number of connections that were closed because the budget was exceeded.
    pub(crate) fn closed_connections(&self) -> u64 {
        self.0.closed_connections.load(Relaxed)
    }

    /// Opens the account of a new connection.
    pub(super) fn open_account(&self) -> OpenAccount {
        let id = self.0.next_id.fetch_add(1, Relaxed);
        let account = Arc::new(Account {
            budget: self.clone(),
            held: AtomicUsize::new(0),
            unread_responses: AtomicUsize::new(0),
            has_piece: AtomicBool::new(false),
            body: AtomicWaker::new(),
            has_written: AtomicBool::new(false),
            task: AtomicWaker::new(),
            times: Mutex::default(),
        });
        lock(&self.0.accounts).insert(id, account.clone());
        OpenAccount { id, account }
    }

    /// Closes connections until nine tenths of the budget are in use.
    #[cold]
    fn enforce(&self) {
        // Another thread is doing it.
        let Ok(mut last) = self.0.last.try_lock() else { return };
        let now = Instant::now();
        if last.check.is_some_and(|check| now - check < CHECK_INTERVAL) {
            return;
        }
        last.check = Some(now);
        let target = self.0.limit - self.0.limit / 10;
        let mut held = self.held().saturating_sub(self.0.freeing.load(Relaxed));
        if held <= self.0.limit {
            return;
        }
        let mut candidates = Vec::new();
        for account in lock(&self.0.accounts).values() {
            let bytes = account.held();
            if bytes > self.0.share && !account.is_closed() {
                candidates.push((account.oldest().unwrap_or(now), bytes, account.clone()));
            }
        }
        candidates.sort_unstable_by_key(|(since, ..)| *since);
        let mut closed = 0_u64;
        for (_, bytes, account) in candidates {
            if held <= target {
                break;
            }
            account.close();
            account.task.wake();
            held = held.saturating_sub(bytes);
            closed += 1;
        }
        let total = self.0.closed_connections.fetch_add(closed, Relaxed) + closed;
        if closed > 0 && last.warning.is_none_or(|warning| now - warning > WARNING_INTERVAL) {
            last.warning = Some(now);
            tracing::warn!(
                limit = self.0.limit,
                connections = closed,
                since_start = total,
                "connections hold too much memory (CONNECTION_MEMORY_MIB); those whose clients have not read a response \
                 or not finished a request for the longest time are closed"
            );
        }
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::new(DEFAULT_MIB, 10_000)
    }
}

/// Registers the account of a connection until this is dropped.
#[derive(Debug)]
pub(super) struct OpenAccount {
    id: u64,
    account: Arc<Account>,
}

impl OpenAccount {
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for OpenAccount {
    fn drop(&mut self) {
        lock(&self.account.budget.0.accounts).remove(&self.id);
        self.account.close();
    }
}

/// A bit of [`Account::held`]: whether the connection is closed or must be.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The memory that the client of one connection holds, and since when.
pub(super) struct Account {
    budget: MemoryBudget,
    /// The bytes, and [`CLOSED`].
    held: AtomicUsize,
    unread_responses: AtomicUsize,
    /// Whether a piece of a large body is in the write buffer of HTTP/1.1, and the task that has the next one.
    has_piece: AtomicBool,
    body: AtomicWaker,
    /// Whether [`Times::written`] is set.
    has_written: AtomicBool,
    /// The task of the connection.
    task: AtomicWaker,
    times: Mutex<Times>,
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (held, is_closed) = (self.held(), self.is_closed());
        formatter.debug_struct("Account").field("held", &held).field("is_closed", &is_closed).finish_non_exhaustive()
    }
}

/// Since when a connection holds memory.
#[derive(Debug, Default)]
struct Times {
    requests: Entries,
    responses: Entries,
    /// Bytes in the write buffer of the connection.
    written: Option<Instant>,
    /// Buffers that have grown.
    buffers: Option<Instant>,
    /// Bytes of the head of a request.
    head: Option<Instant>,
}

/// What is held, in the order of time.
#[derive(Debug, Default)]
struct Entries {
    next: u64,
    live: VecDeque<(u64, Instant)>,
}

impl Entries {
    fn begin(&mut self, since: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.live.push_back((number, since));
        number
    }

    fn end(&mut self, number: u64) {
        if let Ok(position) = self.live.binary_search_by_key(&number, |(number, _)| *number) {
            self.live.remove(position);
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.live.front().map(|(_, since)| *since)
    }
}

impl Account {
    /// The bytes that the connection holds.
    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed) & !CLOSED
    }

    /// Whether the connection must be closed because the budget is exceeded.
    pub(super) fn is_closed(&self) -> bool {
        self.held.load(Relaxed) & CLOSED != 0
    }

    fn close(&self) {
        let before = self.held.fetch_or(CLOSED, Relaxed);
        if before & CLOSED == 0 {
            self.budget.0.freeing.fetch_add(before, Relaxed);
        }
    }

    /// Wakes this task when the connection must be closed.
    pub(super) fn wake_when_closed(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Since when the oldest unread response is held.
    pub(super) fn oldest_response(&self) -> Option<Instant> {
        lock(&self.times).responses.oldest()
    }

    /// Whether bytes of a response are held that the connection has not taken yet.
    pub(super) fn has_unread_responses(&self) -> bool {
        self.unread_responses.load(Relaxed) > 0
    }

    /// Notes that the write buffer holds bytes since this moment, or since an earlier one if that is known. Returns the
    /// earlier moment.
    pub(super) fn write_buffer_holds_since(&self, since: Instant) -> Instant {
        let mut times = lock(&self.times);
        let since = times.written.map_or(since, |earlier| earlier.min(since));
        times.written = Some(since);
        self.has_written.store(true, Relaxed);
        since
    }

    /// Notes that the buffers of the connection have begun to grow.
    pub(super) fn buffers_have_grown(&self) {
        lock(&self.times).buffers.get_or_insert_with(Instant::now);
    }

    /// Whether a piece of a body may be put into the write buffer. If not, the task is woken when the write buffer is
    /// empty.
    pub(super) fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_piece.load(Relaxed) {
            self.body.register(cx.waker());
            return Poll::Pending;
        }
        self.has_piece.store(true, Relaxed);
        Poll::Ready(())
    }

    /// Notes that the write buffer is empty.
    pub(super) fn write_buffer_is_empty(&self) {
        if self.has_piece.load(Relaxed) {
            self.has_piece.store(false, Relaxed);
            self.body.wake();
        }
        if self.has_written.load(Relaxed) {
            lock(&self.times).written = None;
            self.has_written.store(false, Relaxed);
        }
    }

    /// Notes since when an unfinished head is held, or that none is.
    pub(super) fn head_is_held_since(&self, since: Option<Instant>) {
        lock(&self.times).head = since;
    }

    /// Since when the connection holds anything.
    fn oldest(&self) -> Option<Instant> {
        let times = lock(&self.times);
        [times.requests.oldest(), times.responses.oldest(), times.written, times.buffers, times.head]
            .into_iter()
            .flatten()
            .min()
    }

    /// Counts bytes. If the budget is exceeded, connections are closed, perhaps this one.
    fn hold(&self, bytes: usize) {
        if self.held.fetch_add(bytes, Relaxed) & CLOSED != 0 {
            self.budget.0.freeing.fetch_add(bytes, Relaxed);
        }
        let before = self.budget.0.held.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.budget.0.limit {
            self.budget.enforce();
        }
    }

    /// Counts this number of bytes instead of the number before.
    pub(super) fn change(&self, before: usize, now: usize) {
        if now > before {
            self.hold(now - before);
        } else if now < before {
            self.release(before - now);
        }
    }

    fn release(&self, bytes: usize) {
        if self.held.fetch_sub(bytes, Relaxed) & CLOSED != 0 {
            self.budget.0.freeing.fetch_sub(bytes, Relaxed);
        }
        self.budget.0.held.fetch_sub(bytes, Relaxed);
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    Response,
}

impl Kind {
    fn of(self, times: &mut Times) -> &mut Entries {
        match self {
            Self::Request => &mut times.requests,
            Self::Response => &mut times.responses,
        }
    }
}

/// Bytes that an account holds until this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    account: Arc<Account>,
    kind: Kind,
    number: u64,
    since: Instant,
    bytes: AtomicUsize,
}

impl Hold {
    /// The head of a request, and what the server needs to respond to it.
    pub(super) fn of_request(account: &Arc<Account>, bytes: usize) -> Self {
        Self::new(account, Kind::Request, bytes)
    }

    /// Bytes of a response.
    pub(super) fn of_response(account: &Arc<Account>, bytes: usize) -> Self {
        account.unread_responses.fetch_add(1, Relaxed);
        Self::new(account, Kind::Response, bytes)
    }

    fn new(account: &Arc<Account>, kind: Kind, bytes: usize) -> Self {
        let since = Instant::now();
        let number = kind.of(&mut lock(&account.times)).begin(since);
        account.hold(bytes);
        Self { account: account.clone(), kind, number, since, bytes: AtomicUsize::new(bytes) }
    }

    /// Notes that the bytes of a response are now in the write buffer of the connection.
    pub(super) fn moves_to_the_write_buffer(&self) {
        self.account.write_buffer_holds_since(self.since);
    }

    /// Counts more bytes.
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.account.hold(bytes);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.account.release(self.bytes.load(Relaxed));
        self.kind.of(&mut lock(&self.account.times)).end(self.number);
        if matches!(self.kind, Kind::Response) {
            self.account.unread_responses.fetch_sub(1, Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A budget of 1 MiB for 16 connections, and the accounts of this number of them.
    fn accounts(count: usize) -> (MemoryBudget, Vec<OpenAccount>) {
        let budget = MemoryBudget::new(1, 16);
        let accounts = (0..count).map(|_| budget.open_account()).collect();
        (budget, accounts)
    }

    fn response(account: &OpenAccount, bytes: usize) -> Hold {
        Hold::of_response(account.account(), bytes)
    }

    fn are_closed(accounts: &[OpenAccount]) -> Vec<bool> {
        accounts.iter().map(|account| account.account().is_closed()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn past_the_budget_the_connections_with_the_oldest_unread_responses_are_closed() {
        let (budget, accounts) = accounts(5);
        let mut held = Vec::new();
        // The fourth began first, then the first, second and third.
        for account in [3, 0, 1, 2] {
            held.push(response(&accounts[account], MIB / 4));
            advance(SECOND).await;
        }
        assert_eq!((budget.held(), are_closed(&accounts)), (MIB, vec![false; 5]), "it is not exceeded");
        // A busy connection, whose responses are read after a while.
        for _ in 0..100 {
            drop(response(&accounts[4], 1));
            advance(SECOND).await;
        }
        assert_eq!(are_closed(&accounts), [false, false, false, true, false], "one is enough");
        assert_eq!(budget.closed_connections(), 1);
        // What it holds no longer counts when another one is looked for.
        held.push(response(&accounts[4], MIB / 4 + 1));
        assert_eq!(are_closed(&accounts), [true, false, false, true, false]);
        held.clear();
        assert_eq!((budget.held(), budget.closed_connections()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_as_old_as_its_oldest_unread_response() {
        let (_, accounts) = accounts(3);
        // The first connection takes all responses but one, the second takes each after two seconds.
        let never_read = response(&accounts[0], MIB / 2);
        let mut young = VecDeque::new();
        for _ in 0..10 {
            advance(SECOND).await;
            young.push_back(response(&accounts[1], MIB / 8));
            if young.len() > 2 {
                young.pop_front();
            }
            drop(response(&accounts[0], 1));
        }
        advance(SECOND).await;
        let more = response(&accounts[2], MIB / 2);
        assert_eq!(are_closed(&accounts), [true, false, false]);
        drop((never_read, young, more));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_less_than_its_share_is_never_closed() {
        let (budget, accounts) = accounts(16);
        let share = MIB / 16;
        let small: Vec<_> = accounts[..15].iter().map(|account| response(account, share)).collect();
        advance(SECOND).await;
        let large = response(&accounts[15], share + 1);
        assert_eq!(are_closed(&accounts), [vec![false; 15], vec![true]].concat());
        drop((small, large));
        assert_eq!((budget.held(), budget.0.freeing.load(Relaxed)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_closed_connection_still_holds_closes_no_other() {
        let (budget, mut accounts) = accounts(3);
        let ended = response(&accounts[0], MIB);
        drop(accounts.remove(0));
        advance(SECOND).await;
        let other = response(&accounts[0], MIB / 2);
        assert_eq!((budget.held(), are_closed(&accounts)), (MIB + MIB / 2, vec![false; 2]));
        drop(ended);
        let more = response(&accounts[1], MIB / 2);
        assert_eq!((budget.held(), are_closed(&accounts)), (MIB, vec![false; 2]));
        drop((other, more));
        assert_eq!((budget.held(), budget.0.freeing.load(Relaxed)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn heads_buffers_and_requests_have_an_age_as_well() {
        for kind in 0..4 {
            let (_, accounts) = accounts(2);
            let old = accounts[0].account();
            let request = Hold::of_request(old, MIB / 4);
            match kind {
                0 => old.head_is_held_since(Some(Instant::now())),
                1 => assert_eq!(old.write_buffer_holds_since(Instant::now()), Instant::now()),
                2 => old.buffers_have_grown(),
                _ => {}
            }
            if kind < 3 {
                drop(request);
                old.change(0, MIB / 4);
            } else {
                std::mem::forget(request);
            }
            advance(SECOND).await;
            let young = response(&accounts[1], MIB);
            assert!(are_closed(&accounts)[0], "{kind}");
            drop(young);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_are_compared_at_most_every_ten_milliseconds() {
        let (budget, accounts) = accounts(2);
        let first = response(&accounts[0], 2 * MIB);
        assert_eq!(are_closed(&accounts), [true, false]);
        let second = response(&accounts[1], 2 * MIB);
        assert_eq!(are_closed(&accounts), [true, false]);
        advance(CHECK_INTERVAL).await;
        drop(response(&accounts[1], 1));
        assert_eq!(are_closed(&accounts), [true, true]);
        drop((first, second, accounts));
        assert!(budget.0.accounts.lock().expect("no panic").is_empty());
    }
}
