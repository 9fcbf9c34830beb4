//! Connecting over a network.
//!
//! An attempt to connect belongs to no call: when the call that began it is dropped, the next call continues it.
//! Otherwise callers with less patience than a sleeping database needs to wake up would never get a connection. No task
//! is spawned: the calls that wait for a connection poll all attempts.
//!
//! An attempt that no call has polled for a while may fail because of that: its time limit has passed, or the server
//! has closed the connection. Such a failure is not reported to the calls that wait by then. They begin another
//! attempt.

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, select, select_all},
};
use sqlx::Postgres;
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use super::{
    super::sql::pool::{Connector, Opened},
    servers::Primary,
    session::Session,
};

/// How long an attempt goes on.
const LIMIT: Duration = Duration::from_secs(15);

/// If no attempt has ended for this long, another one is begun beside them: the server may have moved, and the others
/// lead to its old address.
const ANOTHER: Duration = Duration::from_secs(1);

/// Opens connections with shared attempts.
pub(super) struct Connecting {
    attempts: Arc<ConnectAttempts>,
    session: Arc<Session>,
    max_attempts: usize,
}

struct ConnectAttempts {
    state: Mutex<State>,
    /// An attempt was begun or has ended, or the call that polled it was dropped.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The number of calls that wait for a connection.
    waiting: usize,
    running: Vec<ConnectAttempt>,
    done: VecDeque<Result<Opened<Postgres>, sqlx::Error>>,
    closed: bool,
}

#[derive(Clone)]
struct ConnectAttempt {
    begun: Instant,
    /// Whether there was a moment at which no call polled it.
    was_abandoned: Arc<AtomicBool>,
    end: Shared<BoxFuture<'static, ()>>,
}

impl ConnectAttempt {
    /// Whether it has not ended and is not too old. An old one may not have been polled for a long time.
    fn is_running(&self) -> bool {
        self.end.peek().is_none() && self.begun.elapsed() < LIMIT
    }
}

impl Connecting {
    pub(super) fn new(session: Arc<Session>, max_attempts: usize) -> Self {
        let attempts = ConnectAttempts { state: Mutex::default(), changed: Notify::new() };
        Self { attempts: Arc::new(attempts), session, max_attempts }
    }

    /// The next connection, begun by this call or another one.
    async fn next(&self) -> Result<Opened<Postgres>, sqlx::Error> {
        let waiting = Waiting::new(&self.attempts);
        let deadline = Instant::now() + self.session.connect_timeout;
        loop {
            let mut changed = pin!(waiting.0.changed.notified());
            // Before the state is read, so that no change is missed.
            changed.as_mut().enable();
            let (running, another) = {
                let mut state = self.attempts.lock();
                if let Some(result) = state.done.pop_front() {
                    if result.is_ok() && state.waiting == 1 {
                        // No call needs the other attempts, and none would poll them.
                        state.running.clear();
                    }
                    return result;
                }
                if state.closed {
                    return Err(sqlx::Error::PoolClosed);
                }
                state.running.retain(ConnectAttempt::is_running);
                let now = Instant::now();
                let newest = state.running.iter().map(|attempt| attempt.begun).max();
                let is_missing = state.running.len() < state.waiting.min(self.max_attempts);
                if is_missing || newest.is_none_or(|begun| now >= begun + ANOTHER) {
                    state.running.push(self.begin());
                    waiting.0.changed.notify_waiters();
                }
                (state.running.clone(), newest.filter(|_| !is_missing).unwrap_or(now) + ANOTHER)
            };
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not respond").into());
            }
            let ends = select_all(running.into_iter().map(|attempt| attempt.end));
            // Whatever has happened, the state is read again.
            let _ = timeout_at(another.min(deadline), select(changed, ends)).await;
        }
    }

    fn begin(&self) -> ConnectAttempt {
        let session = self.session.clone();
        self.attempts.begin(async move { session.open().await.map(opened) })
    }
}

fn opened(primary: Primary) -> Opened<Postgres> {
    Opened::new(primary.connection).on_timeline(primary.timeline)
}

impl Connector<Postgres> for Connecting {
    fn connect(&self) -> BoxFuture<'_, Result<Opened<Postgres>, sqlx::Error>> {
        self.next().boxed()
    }

    fn timeline(&self) -> u32 {
        self.session.servers.timeline()
    }

    fn close(&self) -> Vec<Opened<Postgres>> {
        let mut state = self.attempts.lock();
        state.closed = true;
        state.running.clear();
        let spare = state.done.drain(..).flatten().collect();
        drop(state);
        self.attempts.changed.notify_waiters();
        spare
    }
}

impl ConnectAttempts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(
        self: &Arc<Self>,
        opening: impl Future<Output = Result<Opened<Postgres>, sqlx::Error>> + Send + 'static,
    ) -> ConnectAttempt {
        // Not `Arc`: the attempts own this future.
        let attempts = Arc::downgrade(self);
        let was_abandoned = Arc::<AtomicBool>::default();
        let end = attempt(attempts, opening, was_abandoned.clone()).boxed().shared();
        ConnectAttempt { begun: Instant::now(), was_abandoned, end }
    }

    fn end(&self, result: Result<Opened<Postgres>, sqlx::Error>, was_abandoned: bool) {
        let mut state = self.lock();
        // A failure is reported to the calls that wait now. One connection is kept even if no call waits.
        let wanted = match &result {
            Ok(_) => state.waiting.max(1),
            Err(_) if was_abandoned => 0,
            Err(_) => state.waiting,
        };
        if state.done.len() < wanted && !state.closed {
            state.done.push_back(result);
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

async fn attempt(
    attempts: Weak<ConnectAttempts>,
    opening: impl Future<Output = Result<Opened<Postgres>, sqlx::Error>>,
    was_abandoned: Arc<AtomicBool>,
) {
    let silent = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not respond").into());
    let result = timeout(LIMIT, opening).await.unwrap_or_else(silent);
    if let Some(attempts) = attempts.upgrade() {
        attempts.end(result, was_abandoned.load(Relaxed));
    }
}

/// A call that waits for a connection.
struct Waiting<'a>(&'a Arc<ConnectAttempts>);

impl<'a> Waiting<'a> {
    fn new(attempts: &'a Arc<ConnectAttempts>) -> Self {
        attempts.lock().waiting += 1;
        Self(attempts)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting -= 1;
        if state.waiting == 0 {
            state.done.retain(Result::is_ok);
            for attempt in &state.running {
                attempt.was_abandoned.store(true, Relaxed);
            }
        }
        drop(state);
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// The results that the calls of now get from an attempt that fails when it is polled again after this time.
    async fn reported_after(pause: Duration, is_abandoned: bool) -> usize {
        let attempts = Arc::new(ConnectAttempts { state: Mutex::default(), changed: Notify::new() });
        let first = Waiting::new(&attempts);
        let attempt = attempts.begin(pending());
        attempts.lock().running.push(attempt.clone());
        assert!(attempt.end.clone().now_or_never().is_none());
        let first = if is_abandoned {
            drop(first);
            None
        } else {
            Some(first)
        };
        tokio::time::advance(pause).await;
        let _second = Waiting::new(&attempts);
        assert!(attempt.is_running());
        attempt.end.await;
        drop(first);
        attempts.lock().done.len()
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_of_an_attempt_that_was_abandoned_is_not_reported_to_later_calls() {
        let just_before_the_limit = LIMIT.saturating_sub(Duration::from_millis(50));
        assert_eq!(reported_after(just_before_the_limit, true).await, 0);
        assert_eq!(reported_after(just_before_the_limit, false).await, 1, "a call has polled it all the time");
    }
}
