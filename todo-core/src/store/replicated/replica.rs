//! A replica, and whether it can be read.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use crate::store::{CoalescingStore, StoreError, TaskStore, coalescing::BatchStore};

/// How long the result of a check counts. The checks are more frequent.
const VALID_FOR: Duration = Duration::from_secs(5);
/// How long a check may take.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a replica is not read after a read has shown that it is set up wrongly, in a way that checks do not notice.
const REST: Duration = Duration::from_secs(30);

/// A store that a [`ReplicatedStore`](super::ReplicatedStore) can read: its server says which database it has, and how
/// far it has come.
#[async_trait]
pub trait ReplicaStore: TaskStore {
    /// Asks the server how far it has come.
    async fn log_position(&self) -> Result<LogPosition, StoreError>;

    /// Returns where the server is, for the log, without a password.
    fn place(&self) -> String;
}

#[async_trait]
impl<S: BatchStore + ReplicaStore + 'static> ReplicaStore for CoalescingStore<S> {
    async fn log_position(&self) -> Result<LogPosition, StoreError> {
        self.inner().log_position().await
    }

    fn place(&self) -> String {
        self.inner().place()
    }
}

/// How far a server has come in the log that a primary writes and its standbys replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// Names the database. It is the same for a primary and its standbys, and differs for all others.
    pub database: String,
    /// Whether the server is a standby.
    pub is_standby: bool,
    /// The position up to which the server has written or replayed the log.
    pub position: i64,
}

/// Where a replica has to be.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) database: String,
    pub(super) position: i64,
    /// How long ago the primary was there, at least. `None` if it was there a moment ago, because nothing else is known.
    pub(super) lag: Option<Duration>,
}

/// Why a replica is not read.
#[derive(Debug)]
enum Problem {
    /// The primary was never reached, so that nothing is known.
    NothingKnown,
    Fails(StoreError),
    Silent,
    OtherDatabase,
    NotStandby,
    /// By more than this time, or by an unknown one.
    Behind(Option<Duration>),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingKnown => f.write_str("the primary was not reached yet"),
            Self::Fails(error) => {
                write!(f, "{error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
            Self::Silent => f.write_str("it does not respond"),
            Self::OtherDatabase => f.write_str("it has another database than the primary; use a streaming replica"),
            Self::NotStandby => f.write_str("it is not a standby; it may have been promoted"),
            Self::Behind(None) => f.write_str("it is behind the primary"),
            Self::Behind(Some(lag)) => write!(f, "it is more than {lag:?} behind the primary, or does not follow it"),
        }
    }
}

/// A replica.
pub(super) struct Replica {
    pub(super) store: Arc<dyn ReplicaStore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when it can be read without another check.
    usable_until: Option<Instant>,
    /// Until when it cannot be read, whatever a check says.
    rests_until: Option<Instant>,
    /// The problem that was logged last, if it was not solved since.
    problem: Option<std::mem::Discriminant<Problem>>,
    was_usable: bool,
}

impl Replica {
    pub(super) fn new(store: Arc<dyn ReplicaStore>) -> Self {
        Self { store, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_usable(&self) -> bool {
        self.state().usable_until.is_some_and(|until| Instant::now() < until)
    }

    /// Checks whether it can be read.
    pub(super) async fn check(&self, target: Option<&Target>) {
        let look = async {
            // It needs the same tables and privileges as the primary.
            self.store.ping().await?;
            self.store.log_position().await
        };
        let problem = match (timeout(CHECK_TIMEOUT, look).await, target) {
            (Err(_), _) => Some(Problem::Silent),
            (Ok(Err(error)), _) => Some(Problem::Fails(error)),
            (Ok(Ok(_)), None) => Some(Problem::NothingKnown),
            (Ok(Ok(found)), Some(target)) if found.database != target.database => Some(Problem::OtherDatabase),
            (Ok(Ok(found)), Some(_)) if !found.is_standby => Some(Problem::NotStandby),
            (Ok(Ok(found)), Some(target)) if found.position < target.position => Some(Problem::Behind(target.lag)),
            (Ok(Ok(_)), Some(_)) => None,
        };
        self.note(problem);
    }

    /// Notes that a read has failed. Whether the replica can still be read is decided by the next check, since the read
    /// may be to blame.
    pub(super) fn failed(&self, error: StoreError) {
        if matches!(error, StoreError::Setup(_)) {
            self.state().rests_until = Some(Instant::now() + REST);
            self.note(Some(Problem::Fails(error)));
        } else {
            tracing::debug!(target: "todo_core::store", replica = self.store.place(), %error, "a read of a replica failed");
        }
    }

    fn note(&self, problem: Option<Problem>) {
        let now = Instant::now();
        let mut state = self.state();
        let Some(problem) = problem else {
            if state.rests_until.is_some_and(|until| now < until) {
                return;
            }
            state.usable_until = Some(now + VALID_FOR);
            state.problem = None;
            if !std::mem::replace(&mut state.was_usable, true) {
                drop(state);
                tracing::info!(target: "todo_core::store", replica = self.store.place(), "the replica is read");
            }
            return;
        };
        state.usable_until = None;
        if matches!(problem, Problem::Behind(None)) {
            // It is the first check, most likely. In some seconds it is known how far behind it is.
            return;
        }
        state.was_usable = false;
        let kind = std::mem::discriminant(&problem);
        if state.problem.replace(kind) != Some(kind) {
            drop(state);
            tracing::warn!(
                target: "todo_core::store",
                replica = self.store.place(),
                %problem,
                "the replica is not read; the primary is"
            );
        }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("store", &self.store).finish_non_exhaustive()
    }
}
