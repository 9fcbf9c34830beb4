//! A limit on how many calls wait for a connection.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{
    super::error::StoreError,
    sqlstate::{Condition, condition},
};

/// How many calls may wait for a connection, unless the host says otherwise.
pub(in crate::store) const MAX_WAITING: usize = 1024;

/// The state of a pool of connections at one moment, for metrics.
///
/// The numbers are read one after the other while the pool is in use, so they may differ from each other by a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The maximum number of connections.
    pub max_size: usize,
    /// The number of open connections.
    pub size: usize,
    /// The number of open connections that no call uses.
    pub idle: usize,
    /// The number of calls that wait for a connection.
    pub waiting: usize,
    /// The maximum number of waiting calls. Further calls are rejected at once.
    pub max_waiting: usize,
    /// The number of calls that were rejected for that reason since the store was created.
    pub refused: u64,
}

/// Why a call got no connection. Nothing was sent to the database.
#[derive(Debug)]
pub(in crate::store) enum NoConnection {
    /// Too many calls wait already.
    QueueFull,
    /// No connection became free in time, or the store is closed.
    NoneFree,
    /// A new connection could not be opened.
    ConnectFailed(sqlx::Error),
}

impl From<NoConnection> for StoreError {
    fn from(reason: NoConnection) -> Self {
        match reason {
            NoConnection::QueueFull => Self::Unavailable("too many calls wait for a connection".into()),
            NoConnection::NoneFree => Self::Unavailable("no connection became free in time".into()),
            // A file with other contents does not become a database.
            NoConnection::ConnectFailed(error) if condition(&error) == Condition::NotADatabase => error.into(),
            // Also if the database or the role is gone: both were there at the start, and may come back.
            NoConnection::ConnectFailed(error) => Self::Unavailable(error.into()),
        }
    }
}

/// Counts the calls that have a connection or wait for one, and rejects a call when too many wait: it would get its
/// connection only after its caller has given up.
#[derive(Clone)]
pub(in crate::store) struct Queue(Arc<Counts>);

struct Counts {
    connections: usize,
    max_waiting: usize,
    calls: AtomicUsize,
    rejected: AtomicU64,
}

impl Queue {
    pub(in crate::store) fn new(connections: usize, max_waiting: usize) -> Self {
        Self(Arc::new(Counts { connections, max_waiting, calls: AtomicUsize::new(0), rejected: AtomicU64::new(0) }))
    }

    /// An empty queue for the same number of connections.
    pub(in crate::store) fn with_max_waiting(&self, max_waiting: usize) -> Self {
        Self::new(self.0.connections, max_waiting)
    }

    /// Takes a slot, which is free again when it is dropped.
    pub(in crate::store) fn enter(&self) -> Result<QueueSlot, NoConnection> {
        let counts = &self.0;
        // Made first, so that it is given back in either case.
        let slot = QueueSlot(Arc::clone(counts));
        let before = counts.calls.fetch_add(1, Ordering::Relaxed);
        if before < counts.connections.saturating_add(counts.max_waiting) {
            return Ok(slot);
        }
        counts.rejected.fetch_add(1, Ordering::Relaxed);
        Err(NoConnection::QueueFull)
    }

    /// The status of the pool that this queue leads to.
    pub(in crate::store) fn status(&self, size: usize, idle: usize) -> PoolStatus {
        let counts = &self.0;
        PoolStatus {
            max_size: counts.connections,
            size,
            idle,
            waiting: counts.calls.load(Ordering::Relaxed).saturating_sub(size.saturating_sub(idle)),
            max_waiting: counts.max_waiting,
            refused: counts.rejected.load(Ordering::Relaxed),
        }
    }
}

/// The slot of one call in a [`Queue`].
pub(in crate::store) struct QueueSlot(Arc<Counts>);

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
