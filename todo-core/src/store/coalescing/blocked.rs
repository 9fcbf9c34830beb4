//! Writes that wait for a task or an owner that another transaction has locked.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError};

use crate::UserId;

/// The slots for writes to what is locked. Each of them keeps a connection, and none keeps a slot of a lane.
///
/// An owner has one slot at a time, since the writes of an owner wait for each other anyway: so an owner who is locked
/// does not take the slots of all others.
pub(super) struct BlockedWrites {
    slots: Semaphore,
    /// The owners who have a slot or wait for one, with their turns.
    owners: Mutex<HashMap<UserId, Arc<Semaphore>>>,
    waiting: AtomicUsize,
    max_waiting: usize,
    max_wait: Duration,
}

/// Why a write to what is locked gets no slot.
pub(super) enum NoSlot {
    /// The queue is full.
    Full,
    TimedOut,
}

/// The right to run a write that may wait for a lock.
pub(super) struct BlockedSlot<'a> {
    _slot: SemaphorePermit<'a>,
    _turn: Turn<'a>,
}

impl BlockedWrites {
    pub(super) fn new(slots: usize, max_waiting: usize, max_wait: Duration) -> Self {
        Self {
            slots: Semaphore::new(slots),
            owners: Mutex::default(),
            waiting: AtomicUsize::new(0),
            max_waiting,
            max_wait,
        }
    }

    /// The number of calls that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for a slot, for a write that has no statement under way.
    pub(super) async fn slot(&self, owner: &UserId) -> Result<BlockedSlot<'_>, NoSlot> {
        if let Some(slot) = self.free_slot(owner) {
            return Ok(slot);
        }
        let Some(_waiting) = Waiting::begin(self) else { return Err(NoSlot::Full) };
        let slot = async {
            let mut turn = Turn::of(self, owner);
            let permit = Arc::clone(&turn.semaphore).acquire_owned().await.map_err(|_| NoSlot::Full)?;
            turn.permit = Some(permit);
            let slot = self.slots.acquire().await.map_err(|_| NoSlot::Full)?;
            Ok(BlockedSlot { _slot: slot, _turn: turn })
        };
        tokio::time::timeout(self.max_wait, slot).await.unwrap_or(Err(NoSlot::TimedOut))
    }

    /// Takes a slot if one is free, for a write that is sent alone: its task or its owner may turn out to be locked.
    pub(super) fn free_slot(&self, owner: &UserId) -> Option<BlockedSlot<'_>> {
        let mut turn = Turn::of(self, owner);
        turn.permit = Some(Arc::clone(&turn.semaphore).try_acquire_owned().ok()?);
        match self.slots.try_acquire() {
            Ok(slot) => Some(BlockedSlot { _slot: slot, _turn: turn }),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => None,
        }
    }
}

/// The turn of a call among those of its owner.
struct Turn<'a> {
    blocked: &'a BlockedWrites,
    owner: UserId,
    semaphore: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<'a> Turn<'a> {
    fn of(blocked: &'a BlockedWrites, owner: &UserId) -> Self {
        let mut owners = blocked.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let semaphore = owners.entry(owner.clone()).or_insert_with(|| Arc::new(Semaphore::new(1)));
        let semaphore = Arc::clone(semaphore);
        drop(owners);
        Self { blocked, owner: owner.clone(), semaphore, permit: None }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // A permit has the semaphore, too.
        drop(self.permit.take());
        let mut owners = self.blocked.owners.lock().unwrap_or_else(PoisonError::into_inner);
        // This call and the map: nobody else waits. Who comes next takes the lock of the map first.
        if Arc::strong_count(&self.semaphore) == 2 {
            owners.remove(&self.owner);
        }
    }
}

/// A call that is counted as waiting. It is no longer counted when this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(blocked: &'a BlockedWrites) -> Option<Self> {
        let one_more = |waiting| (waiting < blocked.max_waiting).then_some(waiting + 1);
        let counted = blocked.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        counted.ok().map(|_| Self(&blocked.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_owner_has_one_slot_at_a_time_and_leaves_nothing_behind() {
        let blocked = BlockedWrites::new(2, 10, Duration::from_secs(1));
        let [ann, bob, cem] = ["ann", "bob", "cem"].map(|name| UserId::new(name).unwrap());
        let first = blocked.free_slot(&ann).expect("a slot is free");
        assert!(blocked.free_slot(&ann).is_none(), "another slot is free, but not for her");
        let mut second = Box::pin(blocked.slot(&ann));
        assert!(second.as_mut().now_or_never().is_none());
        let of_bob = blocked.free_slot(&bob).expect("a slot for another owner");
        assert!(blocked.free_slot(&cem).is_none(), "all slots are taken");
        assert!(matches!(blocked.slot(&cem).await, Err(NoSlot::TimedOut)));
        assert_eq!(blocked.waiting(), 1);
        drop(first);
        let second = second.await.unwrap_or_else(|_| panic!("it is her turn"));
        drop((second, of_bob));
        assert_eq!((blocked.owners.lock().unwrap().len(), blocked.slots.available_permits()), (0, 2));
    }
}
