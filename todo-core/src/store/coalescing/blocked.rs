//! Writes that wait for a task that another transaction has locked.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

/// The slots for writes to locked tasks. Each of them keeps a connection, and none keeps a slot of a lane.
pub(super) struct BlockedWrites {
    slots: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
    max_wait: Duration,
}

/// Why a write to a locked task gets no slot.
pub(super) enum NoSlot {
    /// The queue is full.
    Full,
    TimedOut,
}

impl BlockedWrites {
    pub(super) fn new(slots: usize, max_waiting: usize, max_wait: Duration) -> Self {
        Self { slots: Semaphore::new(slots), waiting: AtomicUsize::new(0), max_waiting, max_wait }
    }

    /// The number of calls that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for a slot, for a write that has no statement under way.
    pub(super) async fn slot(&self) -> Result<SemaphorePermit<'_>, NoSlot> {
        match self.slots.try_acquire() {
            Ok(slot) => return Ok(slot),
            Err(TryAcquireError::NoPermits) => {}
            Err(TryAcquireError::Closed) => return Err(NoSlot::Full),
        }
        let Some(_waiting) = Waiting::begin(self) else { return Err(NoSlot::Full) };
        match tokio::time::timeout(self.max_wait, self.slots.acquire()).await {
            Ok(slot) => slot.map_err(|_| NoSlot::Full),
            Err(_) => Err(NoSlot::TimedOut),
        }
    }

    /// Takes a slot if one is free, for a write that is sent alone: its task may turn out to be locked.
    pub(super) fn free_slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.try_acquire().ok()
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
