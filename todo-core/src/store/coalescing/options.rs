use std::time::Duration;

/// The limits of a [`CoalescingStore`](super::CoalescingStore).
///
/// The sum of [`concurrent_reads`](Self::concurrent_reads), [`concurrent_writes`](Self::concurrent_writes) and
/// [`max_blocked_writes`](Self::max_blocked_writes) should be less than the number of connections of the store: then
/// writes to a locked task never use all connections.
///
/// ```
/// use std::time::Duration;
/// use todo_core::store::CoalescingOptions;
///
/// let options = CoalescingOptions::default().concurrent_reads(4).max_wait(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct CoalescingOptions {
    pub(super) concurrent_reads: usize,
    pub(super) concurrent_writes: usize,
    pub(super) max_batch: usize,
    pub(super) max_waiting: usize,
    pub(super) max_wait: Duration,
    pub(super) max_blocked_writes: usize,
}

impl Default for CoalescingOptions {
    fn default() -> Self {
        Self {
            concurrent_reads: 2,
            concurrent_writes: 2,
            max_batch: 64,
            max_waiting: 4096,
            max_wait: Duration::from_secs(3),
            max_blocked_writes: 4,
        }
    }
}

impl CoalescingOptions {
    /// Sets how many read statements run at the same time. Further reads wait and are batched. Default: 2.
    #[must_use]
    pub fn concurrent_reads(mut self, statements: usize) -> Self {
        self.concurrent_reads = statements;
        self
    }

    /// Sets how many write statements run at the same time. Further writes wait and are batched. Default: 2.
    #[must_use]
    pub fn concurrent_writes(mut self, statements: usize) -> Self {
        self.concurrent_writes = statements;
        self
    }

    /// Sets the maximum number of calls in a batch. Default: 64.
    #[must_use]
    pub fn max_batch(mut self, calls: usize) -> Self {
        self.max_batch = calls;
        self
    }

    /// Sets the maximum length of each queue. There is one for reads, one for writes, and one for writes to locked
    /// tasks. When a queue is full, the next call fails at once with
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable). Default: 4096.
    #[must_use]
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// Sets how long a call waits in a queue. After that it fails with
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable), and no statement is sent for it. The time of
    /// a statement that was sent is limited by the store. Default: 3 seconds.
    #[must_use]
    pub fn max_wait(mut self, time: Duration) -> Self {
        self.max_wait = time;
        self
    }

    /// Sets how many writes may hold a connection while they wait for a task that another transaction has locked.
    /// Further writes to locked tasks wait without a connection. A write that is sent alone counts while it runs, since
    /// its task may turn out to be locked. Default: 4.
    #[must_use]
    pub fn max_blocked_writes(mut self, statements: usize) -> Self {
        self.max_blocked_writes = statements;
        self
    }
}

/// Counters of a [`CoalescingStore`](super::CoalescingStore) since its creation, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoalescingStatus {
    /// How many calls were sent alone.
    pub alone: u64,
    /// How many calls were sent in a batch.
    pub joined: u64,
    /// How many batches were sent.
    pub batches: u64,
    /// How many calls were rejected because their queue was full.
    pub refused: u64,
    /// How many calls are waiting in a queue now.
    pub waiting: usize,
}
