//! A call that waits, and the batch that it becomes part of.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use super::call::{BatchResult, Call, Kind, SharedError};
use crate::{UserId, store::StoreError};

/// A call that waits for its result.
pub(super) struct Waiter {
    /// The position of the call in the order of arrival.
    pub(super) number: u64,
    pub(super) owner: UserId,
    pub(super) call: Call,
    state: Mutex<State>,
}

pub(super) enum State {
    /// In a queue of its lane.
    Queued(Option<Waker>),
    /// Removed from the queue to send the next statement, with the slot of the previous one.
    Leader,
    /// Removed from the queue and part of a batch.
    Joined(Option<Waker>),
    /// Part of a batch whose driver was dropped. This caller has to drive it on.
    Driver(Batch),
    Finished(BatchResult),
    /// The caller has its result, or gave up.
    Left,
}

/// What a caller has to do next.
pub(super) enum Progress {
    Queued,
    Joined,
    Lead,
    Drive(Batch),
    Finish(BatchResult),
}

impl Waiter {
    pub(super) fn new(number: u64, owner: UserId, call: Call) -> Self {
        Self { number, owner, call, state: Mutex::new(State::Queued(None)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_queued(&self) -> bool {
        matches!(*self.lock(), State::Queued(_))
    }

    /// Returns what the caller has to do next. If there is nothing to do, the caller is woken when that changes.
    pub(super) fn progress(&self, context: &Context<'_>) -> Progress {
        let mut state = self.lock();
        match mem::replace(&mut *state, State::Joined(None)) {
            State::Queued(waker) => {
                *state = State::Queued(Some(current(waker, context)));
                Progress::Queued
            }
            State::Joined(waker) => {
                *state = State::Joined(Some(current(waker, context)));
                Progress::Joined
            }
            State::Leader => Progress::Lead,
            State::Driver(batch) => Progress::Drive(batch),
            State::Finished(result) => {
                *state = State::Left;
                Progress::Finish(result)
            }
            State::Left => unreachable!("a caller that has its result does not ask again"),
        }
    }

    /// Makes the caller the leader, and returns its waker. The lane has removed the call from its queue.
    pub(super) fn lead(&self) -> Option<Waker> {
        match mem::replace(&mut *self.lock(), State::Leader) {
            State::Queued(waker) => waker,
            _ => None,
        }
    }

    /// Makes the call part of a batch. The lane has removed it from its queue.
    pub(super) fn join(&self) {
        let mut state = self.lock();
        if let State::Queued(waker) = &mut *state {
            *state = State::Joined(waker.take());
        }
    }

    /// Hands the result to the caller, unless the caller was dropped.
    pub(super) fn finish(&self, result: BatchResult) {
        let mut state = self.lock();
        if matches!(*state, State::Left) {
            return;
        }
        let previous = mem::replace(&mut *state, State::Finished(result));
        drop(state);
        if let State::Joined(Some(waker)) = previous {
            waker.wake();
        }
    }

    /// The caller gives up. Returns what the caller was in the middle of.
    pub(super) fn leave(&self) -> State {
        mem::replace(&mut *self.lock(), State::Left)
    }
}

/// A waker for the task that polls now.
fn current(waker: Option<Waker>, context: &Context<'_>) -> Waker {
    waker.filter(|waker| waker.will_wake(context.waker())).unwrap_or_else(|| context.waker().clone())
}

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One statement for several calls, which one of its callers drives.
///
/// The driver owns the batch. If the driver is dropped, the batch moves to the next member that still waits.
pub(super) struct Batch {
    kind: Kind,
    members: Arc<[Arc<Waiter>]>,
    run: Run,
}

impl Batch {
    /// `run` sends the statement and [finishes](Waiter::finish) every member.
    pub(super) fn new(kind: Kind, members: Arc<[Arc<Waiter>]>, run: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { kind, members, run: Box::pin(run) }
    }

    /// Drives the batch until every member has its result.
    pub(super) async fn drive(self) {
        let mut driving = Driving(Some(self));
        if let Some(batch) = &mut driving.0 {
            batch.run.as_mut().await;
            driving.0 = None;
        }
    }

    /// Gives the batch to a member that still waits. If there is none, nobody needs the rest of the batch, and it is
    /// dropped.
    pub(super) fn pass_on(self) {
        let members = Arc::clone(&self.members);
        for member in &*members {
            let mut state = member.lock();
            if let State::Joined(waker) = &mut *state {
                let waker = waker.take();
                *state = State::Driver(self);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
                return;
            }
        }
    }
}

/// Gives every member the same error.
pub(super) fn fail(members: &[Arc<Waiter>], error: StoreError) {
    let error = SharedError::new(error);
    for member in members {
        member.finish(BatchResult::Failed(error.clone()));
    }
}

/// A batch whose driver may be dropped before the batch ends.
struct Driving(Option<Batch>);

impl Drop for Driving {
    fn drop(&mut self) {
        let Some(batch) = self.0.take() else { return };
        if std::thread::panicking() {
            // A future that has panicked cannot be polled again.
            let Batch { kind, members, run } = batch;
            drop(run);
            let source = "a batch panicked".into();
            // The statement may have been sent before the panic.
            fail(&members, if kind.is_write() { StoreError::Interrupted(source) } else { StoreError::Backend(source) });
        } else {
            // The batch may come back to this driver, which passes it on again when it leaves its position in the lane.
            batch.pass_on();
        }
    }
}
