//! The number of open connections and its maximum.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts open connections and limits their number. Clones share the count.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    open: AtomicUsize,
    slots: Arc<Semaphore>,
}

impl ConnectionLimit {
    pub(crate) fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared { max, open: AtomicUsize::new(0), slots: Arc::new(Semaphore::new(max)) }))
    }

    /// Waits for a free slot.
    pub(crate) async fn acquire(&self) -> Slot {
        match Arc::clone(&self.0.slots).acquire_owned().await {
            Ok(permit) => self.slot(permit),
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// A free slot, if there is one now.
    pub(crate) fn try_acquire(&self) -> Option<Slot> {
        let permit = Arc::clone(&self.0.slots).try_acquire_owned().ok()?;
        Some(self.slot(permit))
    }

    fn slot(&self, permit: OwnedSemaphorePermit) -> Slot {
        Slot { limit: self.clone(), permit }
    }

    /// The maximum number of connections.
    pub(crate) fn max(&self) -> usize {
        self.0.max
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.0.open.load(Relaxed)
    }

    /// Whether at most a tenth of the slots is free, so that idle connections are closed early.
    pub(crate) fn is_nearly_reached(&self) -> bool {
        self.open() >= self.0.max - self.0.max / 10
    }
}

/// A free slot, reserved for the next connection.
#[derive(Debug)]
pub(crate) struct Slot {
    limit: ConnectionLimit,
    permit: OwnedSemaphorePermit,
}

impl Slot {
    /// Counts a connection as open until the returned value is dropped.
    pub(crate) fn occupy(self) -> OpenConnection {
        self.limit.0.open.fetch_add(1, Relaxed);
        OpenConnection { limit: self.limit, _permit: self.permit }
    }
}

/// A slot in use by an open connection.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    limit: ConnectionLimit,
    _permit: OwnedSemaphorePermit,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.limit.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_nearly_reached_at_nine_tenths_and_reached_at_all_slots() {
        let limit = ConnectionLimit::new(10);
        let mut connections = Vec::new();
        for count in 0..10 {
            assert_eq!((limit.open(), limit.is_nearly_reached()), (count, count >= 9));
            connections.push(limit.acquire().await.occupy());
        }
        assert!(limit.try_acquire().is_none());
        let mut next = std::pin::pin!(limit.acquire());
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), &mut next).await.is_err());
        connections.pop();
        drop(next.await);
        assert_eq!(limit.open(), 9);
        let single = ConnectionLimit::new(1);
        assert!(!single.is_nearly_reached());
        let _only = single.acquire().await.occupy();
        assert!(single.is_nearly_reached());
    }
}
