//! A limit on the log lines that one connection can cause.
//!
//! A request of HTTP/2 may have 25 bytes, since its headers are in a table that client and server share, and a frame
//! that makes a library log a warning has 17. A log line is ten times as long, so a client could fill the disk. Each
//! connection therefore has a budget:
//!
//! | lines | at once | per second |
//! | --- | --- | --- |
//! | one for each request of a signed-in user that succeeded | 10,000 | 1000 |
//! | all others | 200 | 20 |
//!
//! The others are those of rejected and anonymous requests, of requests without a response, causes of errors, and
//! warnings of libraries.
//!
//! Lines beyond that are counted instead: in a metric, and in a line of their own at most every ten seconds and when
//! the connection is closed. The metrics of requests count every request.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    filter::Targets,
    layer::{Context, Filter},
};

/// The target of lines that take from the budget themselves.
pub(crate) const TARGET: &str = "todo_server::http";

/// The minimum time between two lines that say how many lines were left out.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

tokio::task_local! {
    static CURRENT: LogBudget;
}

/// The level of the log.
static LEVEL: OnceLock<LevelFilter> = OnceLock::new();

/// The number of lines that were left out since the start.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn left_out() -> u64 {
    LEFT_OUT.load(Relaxed)
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A request of a signed-in user that succeeded.
    Served,
    /// Anything else.
    Other,
}

/// The log lines that one connection can cause. Clones share the budget.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogBudget(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    began: Instant,
    served: Bucket,
    others: Bucket,
    /// The lines that were left out and not told yet.
    left_out: AtomicU64,
    /// When that was last told, in nanoseconds since the beginning.
    told_at: AtomicU64,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            served: Bucket::new(10_000, Duration::from_millis(1)),
            others: Bucket::new(200, Duration::from_millis(50)),
            left_out: AtomicU64::new(0),
            told_at: AtomicU64::new(0),
        }
    }
}

impl LogBudget {
    /// Lines that are logged while the future runs take from this budget.
    pub(crate) fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self.clone(), future)
    }

    /// Whether a line of [`TARGET`] may be logged. If lines were left out, says so from time to time.
    pub(crate) fn allows(&self, level: Level, line: Line) -> bool {
        if LEVEL.get().is_none_or(|max| level > *max) || !self.take(line) {
            return false;
        }
        let connection = &*self.0;
        let now = connection.now();
        let told_at = connection.told_at.load(Relaxed);
        if now >= told_at + nanoseconds(TELL_INTERVAL) && connection.left_out.load(Relaxed) > 0 {
            connection.told_at.store(now, Relaxed);
            let lines = connection.left_out.swap(0, Relaxed);
            tracing::info!(target: TARGET, lines, "log lines of this connection were left out");
        }
        true
    }

    fn take(&self, line: Line) -> bool {
        let connection = &*self.0;
        let bucket = match line {
            Line::Served => &connection.served,
            Line::Other => &connection.others,
        };
        let is_free = bucket.take(connection.now());
        if !is_free {
            connection.left_out.fetch_add(1, Relaxed);
            LEFT_OUT.fetch_add(1, Relaxed);
        }
        is_free
    }
}

impl Connection {
    fn now(&self) -> u64 {
        nanoseconds(self.began.elapsed())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let lines = *self.left_out.get_mut();
        if lines > 0 {
            tracing::info!(target: TARGET, lines, "log lines of a closed connection were left out");
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// A number of lines at once, and a new one in each interval.
#[derive(Debug)]
struct Bucket {
    /// When the bucket is full again, in nanoseconds since the beginning.
    full_at: AtomicU64,
    lines: u64,
    interval: u64,
}

impl Bucket {
    fn new(lines: u64, interval: Duration) -> Self {
        Self { full_at: AtomicU64::new(0), lines, interval: nanoseconds(interval) }
    }

    fn take(&self, now: u64) -> bool {
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let next = full_at.max(now) + self.interval;
            (next <= now + self.lines * self.interval).then_some(next)
        });
        taken.is_ok()
    }
}

/// Filters lines by target and level, and those within a connection by its budget.
#[derive(Debug)]
pub(crate) struct WithinBudget(Targets);

impl WithinBudget {
    /// `level` is that of [`TARGET`].
    pub(crate) fn new(targets: Targets, level: LevelFilter) -> Self {
        LEVEL.get_or_init(|| level);
        Self(targets)
    }
}

impl<S: Subscriber> Filter<S> for WithinBudget {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Filter::<S>::enabled(&self.0, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = Filter::<S>::callsite_enabled(&self.0, metadata);
        // tracing-subscriber 0.3.23 panics in a debug build when `event_enabled` rejects an event for which `enabled`
        // was not called, because its interest was `always`.
        if interest.is_always() && metadata.is_event() { Interest::sometimes() } else { interest }
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Nothing may be logged here: the subscriber is busy with the event.
        event.metadata().target() == TARGET || CURRENT.try_with(|budget| budget.take(Line::Other)).unwrap_or(true)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::<S>::max_level_hint(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_a_burst_of_lines_and_then_some_each_second() {
        for (line, burst, each_second) in [(Line::Other, 200, 20), (Line::Served, 10_000, 1000)] {
            let budget = LogBudget::default();
            let taken = |attempts: usize| (0..attempts).filter(|_| budget.take(line)).count();
            assert_eq!(taken(2 * burst), burst);
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(taken(burst), each_second);
            // A connection that was quiet for long has no more than the burst.
            tokio::time::advance(Duration::from_hours(1)).await;
            assert_eq!(taken(2 * burst), burst);
            let left_out = 3 * burst - each_second;
            assert_eq!(budget.0.left_out.load(Relaxed), u64::try_from(left_out).expect("a count"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_requests_leave_the_lines_of_signed_in_users_alone() {
        let budget = LogBudget::default();
        while budget.take(Line::Other) {}
        assert!(budget.take(Line::Served));
    }
}
