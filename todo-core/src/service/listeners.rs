//! The listeners of a service: the open streams of events, by owner.
//!
//! A write through the service wakes the listeners of its owner. Changes by other servers and by the SQL of a host are
//! found by one query a second for the revisions of all owners with listeners. No background task sends the query: the
//! first listener whose timer is due sends it for all. Decision 29 has the reasons.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    UserId,
    clock::Jitter,
    store::{Revision, StoreError, TaskStore},
};

/// The interval at which revisions are asked for.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The longest interval while the store fails.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(15);
/// A question that has taken longer is asked again by another listener: the client of the first may read so slowly that
/// its stream makes no progress.
const POLL_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of owners in one statement.
const OWNERS_AT_ONCE: usize = 500;

/// The listeners of a service. Clones of the service share them.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    owners: HashMap<UserId, Vec<Arc<Listener>>>,
    /// When revisions are asked for next.
    next_poll: Option<Instant>,
    /// The number of the question that is being asked, and since when.
    polling: Option<(u64, Instant)>,
    polls: u64,
    /// How many questions in a row have failed.
    failures: u32,
}

/// A stream that waits for changes of its owner's tasks.
#[derive(Debug)]
struct Listener {
    /// The revision up to which the stream has read all changes, or -1.
    known: AtomicI64,
    changed: Notify,
}

/// There are too many listeners of this owner.
#[derive(Debug)]
pub(crate) struct TooMany;

impl Listeners {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of listeners.
    pub(crate) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Adds a listener, if this owner has fewer than `max`.
    pub(crate) fn listen(self: &Arc<Self>, owner: &UserId, max: usize) -> Result<Listening, TooMany> {
        let listener = Arc::new(Listener { known: AtomicI64::new(-1), changed: Notify::new() });
        let mut state = self.state();
        let listeners = state.owners.entry(owner.clone()).or_default();
        if listeners.len() >= max {
            return Err(TooMany);
        }
        listeners.push(listener.clone());
        state.next_poll.get_or_insert_with(|| Instant::now() + POLL_INTERVAL);
        self.open.fetch_add(1, SeqCst);
        Ok(Listening { listeners: self.clone(), owner: owner.clone(), listener })
    }

    /// Wakes the listeners of an owner whose tasks may have changed.
    pub(crate) fn wake(&self, owner: &UserId) {
        if self.open() > 0
            && let Some(listeners) = self.state().owners.get(owner)
        {
            for listener in listeners {
                listener.changed.notify_one();
            }
        }
    }

    /// Wakes all listeners.
    pub(crate) fn wake_all(&self) {
        self.state().owners.values().flatten().for_each(|listener| listener.changed.notify_one());
    }

    /// Wakes the listeners of an owner when the returned value is dropped: after a write, also one whose caller does
    /// not wait for the result.
    pub(super) fn after_change<'a>(&'a self, owner: &'a UserId) -> Changing<'a> {
        Changing { listeners: self, owner }
    }

    /// When the revisions are asked for next.
    pub(crate) fn next_poll(&self) -> Instant {
        self.state().next_poll.unwrap_or_else(|| Instant::now() + POLL_INTERVAL)
    }

    /// Lets the caller ask for the revisions, if that is due and nobody else does.
    pub(crate) fn begin_poll(self: &Arc<Self>) -> Option<Poll> {
        let now = Instant::now();
        let mut state = self.state();
        let is_due = state.next_poll.is_some_and(|next| now >= next);
        let is_taken = state.polling.is_some_and(|(_, since)| now < since + POLL_TIMEOUT);
        if !is_due {
            return None;
        }
        state.next_poll = Some(now + POLL_INTERVAL);
        if is_taken {
            return None;
        }
        state.polls += 1;
        let number = state.polls;
        state.polling = Some((number, now));
        Some(Poll { listeners: self.clone(), number, is_done: false })
    }

    fn owners(&self) -> Vec<UserId> {
        self.state().owners.keys().cloned().collect()
    }

    /// Wakes those who do not know these revisions yet.
    fn compare(&self, owners: &[UserId], revisions: &[Revision]) {
        let state = self.state();
        for (owner, revision) in owners.iter().zip(revisions) {
            for listener in state.owners.get(owner).into_iter().flatten() {
                if listener.known.load(SeqCst) != revision.get() {
                    listener.changed.notify_one();
                }
            }
        }
    }
}

/// A listener, until this is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    listeners: Arc<Listeners>,
    owner: UserId,
    listener: Arc<Listener>,
}

impl Listening {
    /// Waits until there may be changes. A wake-up between two calls is not lost.
    pub(crate) async fn changed(&self) {
        self.listener.changed.notified().await;
    }

    /// Notes the revision up to which this listener knows all changes; `None` if it has not read all of them.
    pub(crate) fn knows(&self, revision: Option<Revision>) {
        self.listener.known.store(revision.map_or(-1, Revision::get), SeqCst);
    }

    pub(crate) fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.listeners.state();
        if let Some(listeners) = state.owners.get_mut(&self.owner) {
            listeners.retain(|other| !Arc::ptr_eq(other, &self.listener));
            if listeners.is_empty() {
                state.owners.remove(&self.owner);
            }
        }
        if state.owners.is_empty() {
            state.next_poll = None;
        }
        self.listeners.open.fetch_sub(1, SeqCst);
    }
}

/// Wakes the listeners of an owner when it is dropped.
#[derive(Debug)]
pub(super) struct Changing<'a> {
    listeners: &'a Listeners,
    owner: &'a UserId,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.listeners.wake(self.owner);
    }
}

/// The turn to ask for the revisions of all owners who have listeners.
#[derive(Debug)]
pub(crate) struct Poll {
    listeners: Arc<Listeners>,
    number: u64,
    is_done: bool,
}

impl Poll {
    /// Asks the store, and wakes the listeners whose owners have other revisions.
    pub(super) async fn run(mut self, store: &dyn TaskStore) {
        let mut result = Ok(());
        for owners in self.listeners.owners().chunks(OWNERS_AT_ONCE) {
            match store.revisions(owners).await {
                Ok(revisions) => self.listeners.compare(owners, &revisions),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.end(&result);
    }

    fn end(&mut self, result: &Result<(), StoreError>) {
        self.is_done = true;
        let mut state = self.listeners.state();
        if state.polling.is_none_or(|(number, _)| number != self.number) {
            // It took too long, and another listener has asked since.
            return;
        }
        state.polling = None;
        match result {
            Ok(()) if state.failures > 0 => {
                state.failures = 0;
                tracing::info!(target: "todo_core::store", "changes by other servers are noticed again");
            }
            Ok(()) => {}
            Err(error) => {
                if state.failures == 0 {
                    tracing::warn!(
                        target: "todo_core::store",
                        %error,
                        "cannot ask for revisions; changes by other servers are noticed later"
                    );
                }
                let pause = (POLL_INTERVAL * (2 << state.failures.min(5))).min(MAX_POLL_INTERVAL);
                state.failures += 1;
                state.next_poll = state.next_poll.map(|_| Instant::now() + Jitter::shared().spread(pause));
            }
        }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // The client has gone away in the middle: another listener asks at once.
        let mut state = self.listeners.state();
        if state.polling.is_some_and(|(number, _)| number == self.number) {
            state.polling = None;
            state.next_poll = state.next_poll.map(|_| Instant::now());
            if let Some(listener) = state.owners.values().flatten().next() {
                listener.changed.notify_one();
            }
        }
    }
}
