//! The queues of calls that wait for a slot, and the slots.

use std::{
    collections::{HashSet, VecDeque},
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, ready},
};

use tokio::time::Sleep;

use super::{
    batch::{Batch, Progress, State, Waiter},
    call::{BatchResult, Call, Kind},
};
use crate::UserId;

/// The maximum number of rows that a batch of lists may return, so that a batch does not keep its connection for long.
const MAX_ROWS: usize = 2048;

/// The slots for statements of reads or of writes, and the calls that wait for one.
pub(super) struct Lane {
    slots: usize,
    max_waiting: usize,
    state: Mutex<LaneState>,
}

/// Exactly the calls in the queues are in [`State::Queued`].
#[derive(Default)]
struct LaneState {
    /// The number of slots in use.
    running: usize,
    /// One for each kind of call, in the order of arrival.
    queues: [VecDeque<Arc<Waiter>>; Kind::QUEUES],
    /// The number of the next call that arrives.
    next_number: u64,
    /// Whether long lists were preferred the last time.
    long_lists_first: bool,
}

pub(super) enum Entry {
    Free(Permit),
    Queued(QueuePosition),
    /// The queue is full.
    Full,
}

/// A slot: the right to run a statement. When it is dropped, the slot goes to the next call in the queue.
pub(super) struct Permit(Arc<Lane>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Lane {
    pub(super) fn new(slots: usize, max_waiting: usize) -> Arc<Self> {
        Arc::new(Self { slots, max_waiting, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of calls in the queues.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Takes a free slot, or a position in the queue.
    pub(super) fn enter(self: &Arc<Self>, kind: Kind, call: impl FnOnce() -> (UserId, Call)) -> Entry {
        let mut state = self.lock();
        if state.running < self.slots {
            state.running += 1;
            return Entry::Free(Permit(self.clone()));
        }
        if state.waiting() >= self.max_waiting {
            return Entry::Full;
        }
        let (owner, call) = call();
        let waiter = Arc::new(Waiter::new(state.next_number, owner, call));
        state.next_number += 1;
        state.queues[kind.queue()].push_back(waiter.clone());
        Entry::Queued(QueuePosition { lane: self.clone(), kind, waiter })
    }

    /// Gives a slot to the next call in the queue. That caller becomes the leader.
    fn release(&self) {
        let mut state = self.lock();
        let Some(waiter) = state.next() else {
            state.running -= 1;
            return;
        };
        let waker = waiter.lead();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Removes a call from its queue. Returns `false` if the call is in no queue, because its turn has come.
    fn remove(&self, kind: Kind, waiter: &Waiter) -> bool {
        let mut state = self.lock();
        let queue = &mut state.queues[kind.queue()];
        let Ok(index) = queue.binary_search_by_key(&waiter.number, |waiter| waiter.number) else { return false };
        queue.remove(index);
        drop(state);
        waiter.leave();
        true
    }
}

impl LaneState {
    fn waiting(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Removes the call that has waited longest. Long lists come first every other time only.
    fn next(&mut self) -> Option<Arc<Waiter>> {
        let (short, long) = self.queues.split_at_mut(Kind::LONG_QUEUES);
        let oldest = |queues: &mut [VecDeque<Arc<Waiter>>]| {
            let heads = queues.iter().enumerate().filter_map(|(queue, waiters)| Some((waiters.front()?.number, queue)));
            let (_, queue) = heads.min()?;
            queues[queue].pop_front()
        };
        self.long_lists_first = !self.long_lists_first;
        let (first, second) = if self.long_lists_first { (long, short) } else { (short, long) };
        oldest(first).or_else(|| oldest(second))
    }
}

/// What a waiting call is woken for.
pub(super) enum Wakeup {
    Lead(Permit),
    Drive(Batch),
    Finish(BatchResult),
    /// The call has waited for too long, and no statement was or will be sent for it.
    TimedOut,
}

/// The position of a caller in a lane. The caller leaves the lane when this is dropped.
pub(super) struct QueuePosition {
    lane: Arc<Lane>,
    kind: Kind,
    waiter: Arc<Waiter>,
}

impl QueuePosition {
    /// Waits until there is something to do. The time limit counts only while the call is in the queue.
    pub(super) async fn wakeup(&self, mut max_wait: Pin<&mut Sleep>) -> Wakeup {
        poll_fn(|context| {
            Poll::Ready(match self.waiter.progress(context) {
                Progress::Queued => {
                    ready!(max_wait.as_mut().poll(context));
                    if !self.lane.remove(self.kind, &self.waiter) {
                        // Its turn has come meanwhile, and it is woken again.
                        return Poll::Pending;
                    }
                    Wakeup::TimedOut
                }
                Progress::Joined => return Poll::Pending,
                Progress::Lead => Wakeup::Lead(Permit(self.lane.clone())),
                Progress::Drive(batch) => Wakeup::Drive(batch),
                Progress::Finish(result) => Wakeup::Finish(result),
            })
        })
        .await
    }

    /// The members of the batch that this leader sends: the leader, and waiting calls of the same kind. Writes are
    /// sorted by owner and task.
    pub(super) fn collect(&self, max: usize) -> Arc<[Arc<Waiter>]> {
        let kind = self.kind;
        let mut members = vec![self.waiter.clone()];
        let mut rows = self.waiter.call.rows();
        let mut written = HashSet::new();
        let mut is_first_write = |waiter: &Waiter| match waiter.call.written_task(kind) {
            Some(id) => written.insert((waiter.owner.clone(), id)),
            None => true,
        };
        is_first_write(&self.waiter);
        let mut second_writes = Vec::new();
        let mut state = self.lane.lock();
        let queue = &mut state.queues[kind.queue()];
        while members.len() < max {
            let Some(next) = queue.pop_front_if(|next| rows + next.call.rows() <= MAX_ROWS) else { break };
            if is_first_write(&next) {
                next.join();
                rows += next.call.rows();
                members.push(next);
            } else {
                second_writes.push(next);
            }
        }
        for waiter in second_writes.into_iter().rev() {
            queue.push_front(waiter);
        }
        drop(state);
        if kind.is_write() {
            // All batches lock rows in the same order, so that two batches cannot deadlock.
            members.sort_by(|a, b| (&a.owner, a.call.written_task(kind)).cmp(&(&b.owner, b.call.written_task(kind))));
        }
        members.into()
    }
}

impl Drop for QueuePosition {
    fn drop(&mut self) {
        if self.waiter.is_queued() && self.lane.remove(self.kind, &self.waiter) {
            return;
        }
        match self.waiter.leave() {
            State::Leader => drop(Permit(self.lane.clone())),
            State::Driver(batch) => batch.pass_on(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Weak, time::Duration};

    use futures_util::FutureExt as _;

    use super::*;
    use crate::TaskId;

    fn call(owner: &str) -> (UserId, Call) {
        (UserId::new(owner).unwrap(), Call::One(TaskId::from(uuid::Uuid::nil())))
    }

    /// A lane whose only slot is taken, and two calls that wait.
    fn busy_lane() -> (Arc<Lane>, Permit, [QueuePosition; 2]) {
        let lane = Lane::new(1, 10);
        let Entry::Free(permit) = lane.enter(Kind::Get, || call("ann")) else { panic!("the slot is free") };
        let positions = ["bob", "cay"].map(|owner| match lane.enter(Kind::Get, || call(owner)) {
            Entry::Queued(position) => position,
            _ => panic!("the slot is taken"),
        });
        (lane, permit, positions)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_in_a_batch_does_not_time_out() {
        let (_, permit, [leader, member]) = busy_lane();
        drop(permit);
        let members = leader.collect(64);
        assert_eq!(members.len(), 2);
        let mut max_wait = pin!(tokio::time::sleep(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(member.wakeup(max_wait.as_mut()).now_or_never().is_none());
        members[1].finish(BatchResult::NotDone);
        let result = member.wakeup(max_wait.as_mut()).now_or_never();
        assert!(matches!(result, Some(Wakeup::Finish(BatchResult::NotDone))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_gives_up_frees_its_memory_at_once() {
        let (lane, _permit, [first, second]) = busy_lane();
        let dropped = Arc::downgrade(&second.waiter);
        drop(second);
        assert_eq!((lane.waiting(), Weak::strong_count(&dropped)), (1, 0));
        let mut max_wait = pin!(tokio::time::sleep(Duration::from_secs(1)));
        assert!(matches!(first.wakeup(max_wait.as_mut()).await, Wakeup::TimedOut));
        assert_eq!((lane.waiting(), Arc::strong_count(&first.waiter)), (0, 1));
    }

    #[tokio::test]
    async fn a_leader_that_is_dropped_gives_its_slot_to_the_next_call() {
        let (lane, permit, [first, second]) = busy_lane();
        drop(permit);
        drop(first);
        let mut max_wait = pin!(tokio::time::sleep(Duration::from_secs(1)));
        assert!(matches!(second.wakeup(max_wait.as_mut()).await, Wakeup::Lead(_)));
        assert!(matches!(lane.enter(Kind::Get, || call("dan")), Entry::Free(_)));
    }
}
