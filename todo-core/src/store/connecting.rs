//! Connecting over a network. An attempt belongs to no call: when the call that wanted it has gone away, it goes on, and
//! the next call finds it. A database that sleeps would otherwise never be seen awake by callers less patient than it
//! takes to wake up.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::Database;
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use super::pool::{Dialer, Opened};

/// How long an attempt goes on.
const LIMIT: Duration = Duration::from_secs(15);

/// When no attempt has an answer for so long, another is begun beside them: the server may have moved, and the others lead
/// where it was.
const ANOTHER: Duration = Duration::from_secs(1);

pub(super) struct Connecting<DB: Database> {
    attempts: Arc<Attempts<DB>>,
    size: usize,
    patience: Duration,
}

struct Attempts<DB: Database> {
    state: Mutex<State<DB>>,
    news: Notify,
}

struct State<DB: Database> {
    /// Calls that want a connection.
    waiting: usize,
    running: usize,
    begun: Option<Instant>,
    done: VecDeque<Result<Opened<DB>, sqlx::Error>>,
    closed: bool,
}

impl<DB: Database> Connecting<DB> {
    pub(super) fn new(size: usize, patience: Duration) -> Self {
        let state = State { waiting: 0, running: 0, begun: None, done: VecDeque::new(), closed: false };
        Self { attempts: Arc::new(Attempts { state: Mutex::new(state), news: Notify::new() }), size, patience }
    }

    /// The next connection that is there, made for this call or another.
    pub(super) async fn next(&self, dialer: &Arc<Dialer<DB>>) -> Result<Opened<DB>, sqlx::Error> {
        let waiting = Waiting::new(&self.attempts);
        let deadline = Instant::now() + self.patience;
        loop {
            let another = {
                let mut state = self.attempts.lock();
                if let Some(result) = state.done.pop_front() {
                    return result;
                }
                let now = Instant::now();
                let is_missing = state.running < state.waiting.min(self.size);
                if is_missing || state.begun.is_none_or(|begun| now >= begun + ANOTHER) {
                    state.running += 1;
                    state.begun = Some(now);
                    tokio::spawn(attempt(Running(self.attempts.clone()), dialer.clone()));
                }
                state.begun.unwrap_or(now) + ANOTHER
            };
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer").into());
            }
            // Whether there is news or it is time for another attempt, the way on is the same.
            let _ = timeout_at(another.min(deadline), waiting.0.news.notified()).await;
        }
    }

    /// No more attempts count; the connections that nobody has taken are the caller's.
    pub(super) fn close(&self) -> Vec<Opened<DB>> {
        let mut state = self.attempts.lock();
        state.closed = true;
        state.done.drain(..).flatten().collect()
    }
}

impl<DB: Database> Attempts<DB> {
    fn lock(&self) -> MutexGuard<'_, State<DB>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn attempt<DB: Database>(running: Running<DB>, dialer: Arc<Dialer<DB>>) {
    let too_late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer").into());
    let result = timeout(LIMIT, dialer.dial()).await.unwrap_or_else(too_late);
    running.end(result);
}

/// An attempt that runs.
struct Running<DB: Database>(Arc<Attempts<DB>>);

impl<DB: Database> Running<DB> {
    fn end(&self, result: Result<Opened<DB>, sqlx::Error>) {
        let mut state = self.0.lock();
        // That there was no connection is news only for those who wait now; of what nobody waits for, one is kept.
        let wanted = if result.is_ok() { state.waiting.max(1) } else { state.waiting };
        if !state.closed && state.done.len() < wanted {
            state.done.push_back(result);
            drop(state);
            self.0.news.notify_one();
        }
    }
}

impl<DB: Database> Drop for Running<DB> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

/// A call that wants a connection.
struct Waiting<'a, DB: Database>(&'a Arc<Attempts<DB>>);

impl<'a, DB: Database> Waiting<'a, DB> {
    fn new(attempts: &'a Arc<Attempts<DB>>) -> Self {
        attempts.lock().waiting += 1;
        Self(attempts)
    }
}

impl<DB: Database> Drop for Waiting<'_, DB> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waiting -= 1;
        if state.waiting == 0 {
            state.done.retain(Result::is_ok);
        }
    }
}
