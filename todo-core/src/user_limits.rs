//! The limit on how many calls of one user are in the store at once.
//!
//! A user is known here only while calls run. Further calls wait in the queue of their user, so the stores and their
//! queues contain a few calls of each user, however many requests a user sends.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{TaskId, UserId};

/// How many calls of one user a [`TodoService`](crate::TodoService) has in its store at once, and how many more wait.
///
/// With the defaults, a user has at most 4 calls in the store. At most one of them writes to the same task, and at most
/// one concerns many tasks (such as a list of more than 50). Further calls of this user wait in a queue of their own, so that they delay no
/// other user. The 65th waiting call fails at once with [`Error::TooManyCalls`](crate::Error::TooManyCalls). If the
/// queue stays full, the errors after the first 64 are held back for about a second: a client that ignores them and
/// sends the next request at once would otherwise keep the processor busy with its own rejections.
///
/// A host that serves many people as one user, such as a kiosk, needs higher limits or none.
///
/// ```
/// use todo_core::{TodoService, UserLimits, store::MemoryStore};
///
/// let service = TodoService::new(MemoryStore::new());
/// let generous = service.clone().with_user_limits(UserLimits::default().concurrent_calls(16));
/// let unlimited = service.with_user_limits(None);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct UserLimits {
    concurrent_calls: usize,
    max_waiting: usize,
    max_wait: Duration,
}

impl Default for UserLimits {
    fn default() -> Self {
        Self { concurrent_calls: 4, max_waiting: 64, max_wait: Duration::from_secs(3) }
    }
}

impl UserLimits {
    /// Sets how many calls of one user may be in the store at once; 0 is treated like 1. Default: 4.
    #[must_use]
    pub fn concurrent_calls(mut self, calls: usize) -> Self {
        self.concurrent_calls = calls;
        self
    }

    /// Sets how many further calls of one user may wait. Default: 64.
    #[must_use]
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// Sets how long a call waits for other calls of its user. After that it fails with
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable), and nothing is sent for it. Default:
    /// 3 seconds.
    #[must_use]
    pub fn max_wait(mut self, time: Duration) -> Self {
        self.max_wait = time;
        self
    }
}

/// What a call does to the tasks of its user.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// It reads, or adds a task.
    Shared,
    /// It reads or changes many tasks, which takes as long as many other calls.
    Many,
    /// It changes or deletes this task. A second such call would only wait for the lock on the task, with a connection.
    Write(TaskId),
    /// It deletes all tasks. It goes ahead of the waiting calls of its user, and has room in the queue when those fill
    /// it, so that a user cannot prevent the deletion of the account.
    Erase,
}

/// Why a call gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// Too many calls of the user are waiting.
    QueueFull,
    /// The call has waited for too long.
    TimedOut,
}

/// How many rejections a user gets at once, before they are held back.
const PROMPT_REJECTIONS: u32 = 64;
/// The shortest and the longest time for which a rejection is held back. The times are spread between the two, so that
/// a client whose requests came all at once does not send all of them again at once.
const HOLD_BACK: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1500)];
/// The number of different times.
const HOLD_BACK_STEPS: u32 = 64;
/// The maximum number of rejections that are held back at the same time, since each keeps its request in memory.
/// Further ones are returned at once.
const MAX_HELD_BACK: usize = 4096;

/// What happens to a call that arrives.
enum Entry {
    /// It has a slot.
    Free,
    /// It waits, and has this number.
    Queued(u64),
    /// Too many calls of the user wait. The rejection is held back for this time, if the user goes on sending calls.
    Full { held_back: Option<Duration> },
}

/// The number of parts with a lock of their own.
const SHARDS: usize = 64;
/// An empty part with more room than this gives its memory back.
const KEPT_ROOM: usize = 32;

/// Limits the calls of each user.
pub(crate) struct UserLimiter {
    limits: UserLimits,
    /// Its key is random, so that users cannot choose ids whose hashes are equal. Users with equal hashes would share
    /// their limits, and nothing else.
    hasher: RandomState,
    shards: [Mutex<Users>; SHARDS],
    /// The number of rejections that are held back.
    held_back: AtomicUsize,
}

/// The users whose calls run, by the hash of their ids.
type Users = HashMap<u64, Calls, BuildHasherDefault<AlreadyHashed>>;

/// The calls of one user.
///
/// While a slot is free, the waiting calls are exactly those that would write to a task in `written`, and long lists
/// while another one runs.
#[derive(Default)]
struct Calls {
    /// The number of slots in use.
    running: usize,
    /// The tasks that running calls write to.
    written: Vec<TaskId>,
    /// Whether a running call is a long list.
    lists_many: bool,
    /// The waiting calls, in the order of their turns.
    waiting: VecDeque<Waiter>,
    /// The number of the next call that waits.
    next_number: u64,
    /// The number of calls that were rejected since the queue was last empty.
    rejected: u32,
}

/// A waiting call. It is removed from the queue when it gets a slot.
struct Waiter {
    number: u64,
    access: Access,
    waker: Option<Waker>,
}

impl fmt::Debug for UserLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserLimiter").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl UserLimiter {
    pub(crate) fn new(limits: UserLimits) -> Self {
        let limits = UserLimits { concurrent_calls: limits.concurrent_calls.max(1), ..limits };
        Self {
            limits,
            hasher: RandomState::new(),
            held_back: AtomicUsize::new(0),
            shards: [const { Mutex::new(HashMap::with_hasher(BuildHasherDefault::new())) }; SHARDS],
        }
    }

    /// Waits for a slot for a call. The slot is free again when it is dropped.
    pub(crate) async fn slot(&self, user: &UserId, access: Access) -> Result<Slot<'_>, NoSlot> {
        let user = self.hasher.hash_one(user.as_str());
        let number = match self.enter(user, access) {
            Entry::Free => return Ok(Slot { limiter: self, user, access }),
            Entry::Queued(number) => number,
            Entry::Full { held_back } => {
                if let Some(time) = held_back {
                    self.hold_back(time).await;
                }
                return Err(NoSlot::QueueFull);
            }
        };
        let mut position = Position { limiter: self, user, access, number, had_turn: false };
        let turn = poll_fn(|context| self.poll_turn(user, number, context));
        tokio::time::timeout(self.limits.max_wait, turn).await.map_err(|_| NoSlot::TimedOut)?;
        position.had_turn = true;
        Ok(Slot { limiter: self, user, access })
    }

    /// Takes a free slot, or a position in the queue.
    fn enter(&self, user: u64, access: Access) -> Entry {
        let mut users = self.users(user);
        let calls = users.entry(user).or_default();
        if calls.running < self.limits.concurrent_calls && calls.allows(access) {
            // No waiting call could use the slot.
            calls.begin(access);
            return Entry::Free;
        }
        calls.enqueue(access, &self.limits)
    }

    /// Waits before a rejection is returned, unless too many rejections wait already.
    async fn hold_back(&self, time: Duration) {
        let held_back = HeldBack::begin(&self.held_back);
        if held_back.before < MAX_HELD_BACK {
            tokio::time::sleep(time).await;
        }
    }

    fn users(&self, user: u64) -> MutexGuard<'_, Users> {
        // The map uses the lowest and the highest bits of the hash.
        let shard = (user >> 32) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when the waiting call has got a slot.
    fn poll_turn(&self, user: u64, number: u64, context: &Context<'_>) -> Poll<()> {
        let mut users = self.users(user);
        let Some(waiter) = users.get_mut(&user).and_then(|calls| calls.waiter(number)) else { return Poll::Ready(()) };
        if !waiter.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            waiter.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Gives the slot of a call to the next call that may have it.
    fn release(&self, user: u64, access: Access) {
        let mut users = self.users(user);
        let Some(calls) = users.get_mut(&user) else { return };
        let next = calls.end(access);
        if calls.running == 0 {
            users.remove(&user);
            if users.is_empty() && users.capacity() > KEPT_ROOM {
                *users = HashMap::default();
            }
        }
        drop(users);
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// Removes a waiting call. Returns `false` if the call has got its slot.
    fn leave(&self, user: u64, number: u64) -> bool {
        let mut users = self.users(user);
        let Some(calls) = users.get_mut(&user) else { return false };
        let Some(index) = calls.waiting.iter().position(|waiter| waiter.number == number) else { return false };
        let waiter = calls.waiting.remove(index);
        calls.reset_if_empty();
        drop(users);
        // A waker runs code of the host when it is dropped.
        drop(waiter);
        true
    }
}

impl Calls {
    /// Whether such a call can run beside those that run.
    fn allows(&self, access: Access) -> bool {
        match access {
            Access::Many => !self.lists_many,
            Access::Write(task) => !self.written.contains(&task),
            Access::Shared | Access::Erase => true,
        }
    }

    fn begin(&mut self, access: Access) {
        self.running += 1;
        match access {
            Access::Write(task) => self.written.push(task),
            Access::Many => self.lists_many = true,
            Access::Shared | Access::Erase => {}
        }
    }

    /// Frees a slot and gives it to the first waiting call that may have it. Returns the waker of that call.
    ///
    /// At most one call may: the others wait for a slot, or for other calls that still run.
    fn end(&mut self, access: Access) -> Option<Waker> {
        self.running -= 1;
        match access {
            Access::Write(task) => self.written.retain(|written| *written != task),
            Access::Many => self.lists_many = false,
            Access::Shared | Access::Erase => {}
        }
        let next = self.waiting.iter().position(|waiter| self.allows(waiter.access))?;
        let next = self.waiting.remove(next)?;
        self.reset_if_empty();
        self.begin(next.access);
        next.waker
    }

    /// Adds a waiting call, if the queue has room for it.
    fn enqueue(&mut self, access: Access, limits: &UserLimits) -> Entry {
        let number = self.next_number;
        let waiter = Waiter { number, access, waker: None };
        match access {
            Access::Erase if self.waiting.len() < limits.max_waiting + limits.concurrent_calls => {
                self.waiting.push_front(waiter);
            }
            Access::Shared | Access::Many | Access::Write(_) if self.waiting.len() < limits.max_waiting => {
                self.waiting.push_back(waiter);
            }
            _ => {
                self.rejected = self.rejected.wrapping_add(1);
                let [shortest, longest] = HOLD_BACK;
                let step = self.rejected % HOLD_BACK_STEPS;
                let time = shortest + longest.saturating_sub(shortest) / HOLD_BACK_STEPS * step;
                return Entry::Full { held_back: (self.rejected > PROMPT_REJECTIONS).then_some(time) };
            }
        }
        self.next_number += 1;
        Entry::Queued(number)
    }

    fn reset_if_empty(&mut self) {
        if self.waiting.is_empty() {
            self.rejected = 0;
        }
    }

    fn waiter(&mut self, number: u64) -> Option<&mut Waiter> {
        self.waiting.iter_mut().find(|waiter| waiter.number == number)
    }
}

/// The right to have a call in the store.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    limiter: &'a UserLimiter,
    user: u64,
    access: Access,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.limiter.release(self.user, self.access);
    }
}

/// The position of a call in the queue of its user. When this is dropped before the turn of the call, the call leaves
/// the queue.
struct Position<'a> {
    limiter: &'a UserLimiter,
    user: u64,
    access: Access,
    number: u64,
    had_turn: bool,
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        if !self.had_turn && !self.limiter.leave(self.user, self.number) {
            // The call has got a slot since it was last polled.
            self.limiter.release(self.user, self.access);
        }
    }
}

/// A rejection that is held back. It is no longer counted when this is dropped.
struct HeldBack<'a> {
    count: &'a AtomicUsize,
    /// The number of others at the beginning.
    before: usize,
}

impl<'a> HeldBack<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A hasher for keys that are hashes.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, pin::Pin, sync::Arc, task::ready};

    use futures_util::{FutureExt as _, future::BoxFuture};

    use super::*;

    fn limiter(concurrent_calls: usize, max_waiting: usize) -> Arc<UserLimiter> {
        let limits = UserLimits::default().concurrent_calls(concurrent_calls).max_waiting(max_waiting);
        Arc::new(UserLimiter::new(limits))
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("the id is valid")
    }

    fn write(task: u128) -> Access {
        Access::Write(TaskId::from(uuid::Uuid::from_u128(task)))
    }

    /// A call that waits for its slot, has it, or was rejected.
    struct Call<'a> {
        waiting: BoxFuture<'a, Result<Slot<'a>, NoSlot>>,
        result: Option<Result<Slot<'a>, NoSlot>>,
    }

    impl<'a> Call<'a> {
        fn of(limiter: &'a UserLimiter, name: &str, access: Access) -> Self {
            let user = user(name);
            let waiting = async move { limiter.slot(&user, access).await }.boxed();
            let mut call = Self { waiting, result: None };
            call.poll();
            call
        }

        fn poll(&mut self) -> Option<Result<(), NoSlot>> {
            if self.result.is_none() {
                self.result = self.waiting.as_mut().now_or_never();
            }
            self.result.as_ref().map(|result| result.as_ref().map(|_| ()).map_err(|no_slot| *no_slot))
        }

        fn has_slot(&mut self) -> bool {
            self.poll() == Some(Ok(()))
        }
    }

    /// The number of users that are known, the room for them, and the number of their calls.
    fn remembered(limiter: &UserLimiter) -> (usize, usize, usize) {
        let shards: Vec<_> = limiter.shards.iter().map(|shard| shard.lock().expect("no panic")).collect();
        let calls = |users: &Users| users.values().map(|calls| calls.running + calls.waiting.len()).sum::<usize>();
        (
            shards.iter().map(|users| users.len()).sum(),
            shards.iter().map(|users| users.capacity()).max().unwrap_or_default(),
            shards.iter().map(|users| calls(users)).sum(),
        )
    }

    #[tokio::test]
    async fn further_calls_of_a_user_wait_in_order_and_those_of_others_do_not() {
        let limiter = limiter(2, 10);
        let mut running = vec![Call::of(&limiter, "ann", Access::Shared), Call::of(&limiter, "ann", write(1))];
        assert!(running.iter_mut().all(Call::has_slot));
        let mut waiting: Vec<_> = (2..7).map(|task| Call::of(&limiter, "ann", write(task))).collect();
        assert!(Call::of(&limiter, "bob", write(1)).has_slot(), "another user has slots of their own");
        while !waiting.is_empty() {
            assert!(!waiting.iter_mut().any(Call::has_slot));
            running.remove(0);
            assert_eq!(waiting.iter_mut().filter_map(|call| call.has_slot().then_some(())).count(), 1);
            assert!(waiting[0].has_slot(), "the call that has waited longest is next");
            running.push(waiting.remove(0));
        }
        drop(running);
        assert_eq!(remembered(&limiter).0, 0);
    }

    #[tokio::test]
    async fn writes_to_one_task_run_one_after_the_other() {
        let limiter = limiter(3, 10);
        let first = Call::of(&limiter, "ann", write(1));
        let mut second = Call::of(&limiter, "ann", write(1));
        let mut third = Call::of(&limiter, "ann", write(1));
        assert!(!second.has_slot() && !third.has_slot());
        // Calls that do not wait for this task go ahead.
        let mut other = Call::of(&limiter, "ann", write(2));
        let mut read = Call::of(&limiter, "ann", Access::Shared);
        assert!(other.has_slot() && read.has_slot());
        drop(read);
        assert!(!second.has_slot(), "a free slot does not help");
        drop(first);
        assert!(second.has_slot() && !third.has_slot());
        drop(second);
        assert!(third.has_slot());
        drop((third, other));
        assert_eq!(remembered(&limiter).0, 0);
    }

    #[tokio::test]
    async fn long_lists_run_one_after_the_other() {
        let limiter = limiter(3, 10);
        let [first, mut second, mut third] = [(); 3].map(|()| Call::of(&limiter, "ann", Access::Many));
        assert!(!second.has_slot() && !third.has_slot());
        let mut others = [Call::of(&limiter, "ann", Access::Shared), Call::of(&limiter, "ann", write(1))];
        assert!(others.iter_mut().all(Call::has_slot), "other calls go ahead");
        assert!(Call::of(&limiter, "bob", Access::Many).has_slot());
        drop(first);
        assert!(second.has_slot() && !third.has_slot());
        drop(others);
        assert!(!third.has_slot(), "a free slot does not help");
        drop(second);
        assert!(third.has_slot());
        drop(third);
        assert_eq!(remembered(&limiter).0, 0);
    }

    #[tokio::test]
    async fn a_full_queue_rejects_at_once_and_has_room_for_an_erasure() {
        let limiter = limiter(2, 3);
        let calls = |count: usize, access| (0..count).map(|_| Call::of(&limiter, "ann", access)).collect::<Vec<_>>();
        let mut running = calls(2, Access::Shared);
        let mut waiting = calls(3, Access::Shared);
        assert_eq!(Call::of(&limiter, "ann", Access::Shared).poll(), Some(Err(NoSlot::QueueFull)));
        assert_eq!(Call::of(&limiter, "ann", write(1)).poll(), Some(Err(NoSlot::QueueFull)));
        let mut erasures = calls(2, Access::Erase);
        assert_eq!(
            Call::of(&limiter, "ann", Access::Erase).poll(),
            Some(Err(NoSlot::QueueFull)),
            "that is limited too"
        );
        running.pop();
        running.pop();
        assert!(erasures.iter_mut().all(Call::has_slot) && !waiting[0].has_slot(), "erasures go ahead");
        drop(erasures);
        assert!(waiting[0].has_slot() && waiting[1].has_slot());
    }

    #[tokio::test(start_paused = true)]
    async fn rejections_are_held_back_from_a_user_who_goes_on() {
        let limiter = limiter(1, 2);
        let running = Call::of(&limiter, "ann", Access::Shared);
        let waiting = [Call::of(&limiter, "ann", Access::Shared), Call::of(&limiter, "ann", Access::Shared)];
        let took = async || {
            let begun = tokio::time::Instant::now();
            let rejected = limiter.slot(&user("ann"), Access::Shared).await;
            assert_eq!(rejected.err(), Some(NoSlot::QueueFull));
            begun.elapsed()
        };
        for _ in 0..PROMPT_REJECTIONS {
            assert_eq!(took().await, Duration::ZERO);
        }
        let (mut times, mut sum) = (HashSet::new(), Duration::ZERO);
        for _ in 0..HOLD_BACK_STEPS {
            let time = took().await;
            assert!((HOLD_BACK[0]..HOLD_BACK[1]).contains(&time), "{time:?}");
            times.insert(time.as_millis());
            sum += time;
        }
        assert!(times.len() > 50 && (950..1050).contains(&(sum / HOLD_BACK_STEPS).as_millis()), "{times:?}");
        // One that is dropped no longer counts.
        let held_back = Call::of(&limiter, "ann", Access::Shared);
        assert_eq!(limiter.held_back.load(Ordering::Relaxed), 1);
        drop(held_back);
        assert_eq!(limiter.held_back.load(Ordering::Relaxed), 0);
        // A limited number is held back.
        let held_back: Vec<_> = (0..MAX_HELD_BACK).map(|_| Call::of(&limiter, "ann", Access::Shared)).collect();
        assert_eq!(limiter.held_back.load(Ordering::Relaxed), MAX_HELD_BACK);
        assert_eq!(took().await, Duration::ZERO);
        drop(held_back);
        // A queue that was empty in the meantime.
        drop((running, waiting));
        let _calls = [(); 3].map(|()| Call::of(&limiter, "ann", Access::Shared));
        assert_eq!(took().await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_limited_time() {
        let limiter = limiter(1, 1);
        let running = Call::of(&limiter, "ann", Access::Shared);
        for _ in 0..3 {
            let begun = tokio::time::Instant::now();
            let late = limiter.slot(&user("ann"), Access::Shared).await;
            assert_eq!((late.err(), begun.elapsed().as_secs()), (Some(NoSlot::TimedOut), 3));
        }
        assert_eq!(remembered(&limiter).2, 1, "it has left the queue");
        drop(running);
        assert!(limiter.slot(&user("ann"), Access::Shared).await.is_ok());
    }

    #[tokio::test]
    async fn dropped_calls_leave_nothing_behind() {
        let limiter = limiter(1, 10);
        // Before its turn.
        let running = Call::of(&limiter, "ann", write(1));
        drop(Call::of(&limiter, "ann", write(1)));
        assert_eq!(remembered(&limiter).2, 1);
        // After its turn has come, and before it has noticed. The next call gets the slot.
        let unaware = Call::of(&limiter, "ann", write(1));
        let mut next = Call::of(&limiter, "ann", write(1));
        drop(running);
        assert!(!next.has_slot());
        drop(unaware);
        assert!(next.has_slot());
        // While it runs.
        drop(next);
        assert_eq!(remembered(&limiter).0, 0);
        // Before it was polled at all.
        drop(limiter.slot(&user("ann"), write(1)));
        assert_eq!(remembered(&limiter).0, 0);
    }

    #[tokio::test]
    async fn users_are_remembered_only_while_their_calls_run() {
        let limiter = limiter(4, 64);
        let calls: Vec<_> =
            (0..20_000).map(|number| Call::of(&limiter, &format!("user {number}"), Access::Shared)).collect();
        let (users, room, _) = remembered(&limiter);
        assert!(users == 20_000 && room > 200, "{users}, {room}");
        drop(calls);
        let (users, room, _) = remembered(&limiter);
        assert!(users == 0 && room <= KEPT_ROOM, "{users}, {room}");
    }

    #[tokio::test]
    async fn zero_concurrent_calls_are_treated_like_one() {
        let limiter = limiter(0, 0);
        let mut call = Call::of(&limiter, "ann", Access::Shared);
        assert!(call.has_slot());
        assert_eq!(Call::of(&limiter, "ann", Access::Shared).poll(), Some(Err(NoSlot::QueueFull)));
    }

    /// Polls a future this number of times, and drops it then.
    struct Impatient<F>(Pin<Box<F>>, usize);

    impl<F: Future> Future for Impatient<F> {
        type Output = Option<F::Output>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            if self.1 == 0 {
                return Poll::Ready(None);
            }
            self.1 -= 1;
            Poll::Ready(Some(ready!(self.0.as_mut().poll(context))))
        }
    }

    /// Calls of several threads that are dropped at every point: the limits hold at each moment, every call that waits
    /// gets its turn, and nothing is left.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn under_load_the_limits_hold_and_no_slot_is_lost() {
        #[derive(Default)]
        struct Running {
            all: AtomicUsize,
            of_task: [AtomicUsize; 3],
        }
        let limiter = limiter(3, 1000);
        let users: Arc<[Running; 3]> = Arc::default();
        let callers = (0..48_usize).map(|caller| {
            let (limiter, users) = (limiter.clone(), users.clone());
            tokio::spawn(async move {
                let mut done = 0;
                for round in 0..400_usize {
                    let (name, task) = (caller % 3, round % 4);
                    let access = if task == 3 { Access::Shared } else { write(task as u128) };
                    let call = async {
                        let _slot = limiter.slot(&user(&name.to_string()), access).await.expect("a turn");
                        let running = &users[name];
                        assert!(running.all.fetch_add(1, Ordering::SeqCst) < 3);
                        let _one_less = Decrement(&running.all);
                        let _one_less_of_task = running.of_task.get(task).map(|count| {
                            assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0);
                            Decrement(count)
                        });
                        tokio::task::yield_now().await;
                    };
                    let polls = if round % 5 == 0 { round % 7 } else { usize::MAX };
                    done += usize::from(Impatient(Box::pin(call), polls).await.is_some());
                }
                done
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            assert!(caller.await.expect("no panic") >= 320);
        }
        assert_eq!(remembered(&limiter).0, 0);
    }

    struct Decrement<'a>(&'a AtomicUsize);

    impl Drop for Decrement<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
