//! Connecting over a network. An attempt belongs to no call: when the call that wanted it has gone away, the next one goes
//! on with it. A database that sleeps would otherwise never be seen awake by callers less patient than it takes to wake
//! up. No task is started: whoever waits for a connection drives all attempts on.

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, select, select_all},
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
    /// An attempt was begun or has ended, or who drove it may have gone.
    news: Notify,
}

struct State<DB: Database> {
    /// Calls that want a connection.
    waiting: usize,
    running: Vec<Attempt>,
    done: VecDeque<Result<Opened<DB>, sqlx::Error>>,
    closed: bool,
}

#[derive(Clone)]
struct Attempt {
    begun: Instant,
    end: Shared<BoxFuture<'static, ()>>,
}

impl Attempt {
    /// Whether it has not ended, and is not so old that it leads to no good end: nobody may have driven it for long.
    fn is_running(&self) -> bool {
        self.end.peek().is_none() && self.begun.elapsed() < LIMIT
    }
}

impl<DB: Database> Connecting<DB> {
    pub(super) fn new(size: usize, patience: Duration) -> Self {
        let state = State { waiting: 0, running: Vec::new(), done: VecDeque::new(), closed: false };
        Self { attempts: Arc::new(Attempts { state: Mutex::new(state), news: Notify::new() }), size, patience }
    }

    /// The next connection that is there, made for this call or another.
    pub(super) async fn next(&self, dialer: &Arc<Dialer<DB>>) -> Result<Opened<DB>, sqlx::Error> {
        let waiting = Waiting::new(&self.attempts);
        let deadline = Instant::now() + self.patience;
        loop {
            let mut news = pin!(waiting.0.news.notified());
            // Before the look at the state, so that nothing new is missed.
            news.as_mut().enable();
            let (running, another) = {
                let mut state = self.attempts.lock();
                if let Some(result) = state.done.pop_front() {
                    if result.is_ok() && state.waiting == 1 {
                        // Nobody needs them, and nobody would drive them.
                        state.running.clear();
                    }
                    return result;
                }
                if state.closed {
                    return Err(sqlx::Error::PoolClosed);
                }
                state.running.retain(Attempt::is_running);
                let now = Instant::now();
                let newest = state.running.iter().map(|attempt| attempt.begun).max();
                let is_missing = state.running.len() < state.waiting.min(self.size);
                if is_missing || newest.is_none_or(|begun| now >= begun + ANOTHER) {
                    state.running.push(self.begin(dialer.clone()));
                    waiting.0.news.notify_waiters();
                }
                (state.running.clone(), newest.filter(|_| !is_missing).unwrap_or(now) + ANOTHER)
            };
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer").into());
            }
            let ends = select_all(running.into_iter().map(|attempt| attempt.end));
            // Whatever it is, the way on is the same.
            let _ = timeout_at(another.min(deadline), select(news, ends)).await;
        }
    }

    fn begin(&self, dialer: Arc<Dialer<DB>>) -> Attempt {
        // Not `Arc`: the attempts hold this one.
        let attempts = Arc::downgrade(&self.attempts);
        Attempt { begun: Instant::now(), end: attempt(attempts, dialer).boxed().shared() }
    }

    /// Ends all attempts; the connections that nobody has taken are the caller's.
    pub(super) fn close(&self) -> Vec<Opened<DB>> {
        let mut state = self.attempts.lock();
        state.closed = true;
        state.running.clear();
        let spare = state.done.drain(..).flatten().collect();
        drop(state);
        self.attempts.news.notify_waiters();
        spare
    }
}

impl<DB: Database> Attempts<DB> {
    fn lock(&self) -> MutexGuard<'_, State<DB>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, result: Result<Opened<DB>, sqlx::Error>) {
        let mut state = self.lock();
        // That there was no connection is news only for those who wait now; of what nobody waits for, one is kept.
        let wanted = if result.is_ok() { state.waiting.max(1) } else { state.waiting };
        if state.done.len() < wanted && !state.closed {
            state.done.push_back(result);
        }
        drop(state);
        self.news.notify_waiters();
    }
}

async fn attempt<DB: Database>(attempts: Weak<Attempts<DB>>, dialer: Arc<Dialer<DB>>) {
    let too_late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer").into());
    let result = timeout(LIMIT, dialer.dial()).await.unwrap_or_else(too_late);
    if let Some(attempts) = attempts.upgrade() {
        attempts.end(result);
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
        drop(state);
        self.0.news.notify_waiters();
    }
}
