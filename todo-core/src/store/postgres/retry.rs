//! Which calls are repeated, how often and when: the one place that decides.
//!
//! Only a call that has certainly not happened, or that changes nothing, is repeated. A write whose connection was lost is
//! neither.

use std::time::{Duration, Instant};

use super::super::{
    error::StoreError,
    sql::{
        classify::rejected_certificate,
        operations::Effect,
        queue::NoConnection,
        sqlstate::{Condition, condition},
    },
};
use crate::clock::Jitter;

/// The longest pauses before each repetition; [`Jitter`] shortens each by up to half. There are no more repetitions than
/// pauses.
const PAUSES: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// No repetition begins later than this after the call: callers do not wait forever, and it takes long to find out that a
/// server does not respond.
const WITHIN: Duration = Duration::from_secs(7);

/// The repetitions of one call.
#[derive(Debug)]
pub(super) struct Retries {
    effect: Effect,
    jitter: Jitter,
    begun: Instant,
    failed: usize,
    /// Whether the last attempt lost its connection.
    lost: bool,
}

impl Retries {
    pub(super) fn new(effect: Effect, jitter: Jitter) -> Self {
        Self { effect, jitter, begun: Instant::now(), failed: 0, lost: false }
    }

    /// Whether a connection was found dead, so that others may be dead too.
    pub(super) fn have_lost(&self) -> bool {
        self.lost
    }

    /// After a statement has failed: waits until the next attempt may begin, or returns the error if there is none.
    /// `is_new`: the connection was opened for this attempt.
    pub(super) async fn after(&mut self, error: sqlx::Error, is_new: bool) -> Result<(), StoreError> {
        if !is_repeatable(self.effect, condition(&error), is_new) || self.are_over() {
            return Err(error.into());
        }
        tracing::debug!(target: "todo_core::store", %error, "a call is repeated");
        self.lost = condition(&error) == Condition::Disconnected;
        // If the connection is to blame, the next attempt has another one and need not wait.
        self.pause(condition(&error) != Condition::Conflict).await;
        Ok(())
    }

    /// After there was no connection: waits until the next attempt may begin, or returns the error if there is none.
    pub(super) async fn after_no_connection(&mut self, reason: NoConnection) -> Result<(), StoreError> {
        match reason {
            NoConnection::ConnectFailed(error) if is_unreachable(&error) && !self.are_over() => {
                tracing::debug!(target: "todo_core::store", %error, "connecting is repeated");
                self.pause(false).await;
                Ok(())
            }
            reason => Err(reason.into()),
        }
    }

    fn are_over(&self) -> bool {
        self.failed >= PAUSES.len() || self.begun.elapsed() > WITHIN
    }

    async fn pause(&mut self, first_at_once: bool) {
        if !(first_at_once && self.failed == 0) {
            tokio::time::sleep(self.jitter.spread(PAUSES[self.failed])).await;
        }
        self.failed += 1;
    }
}

/// Whether a statement that failed like this may be sent again.
fn is_repeatable(effect: Effect, condition: Condition, is_new: bool) -> bool {
    match condition {
        Condition::Disconnected => effect == Effect::Read,
        // The server has rolled it back. The writes of a batch are run one by one instead: only one of them has a conflict.
        Condition::Conflict => effect != Effect::BatchOfWrites,
        // It was rejected before it did anything. If the connection is new, another one leads to the same server.
        Condition::ReadOnly | Condition::Outdated => !is_new,
        _ => false,
    }
}

/// Whether another attempt to connect may succeed. If the server offers no encryption, or has a wrong certificate, none
/// will; and an attempt that has timed out took long enough.
fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => false,
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => false,
        _ => match condition(error) {
            Condition::Disconnected => rejected_certificate(error).is_none(),
            condition => condition == Condition::TooManyConnections,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn lost() -> sqlx::Error {
        sqlx::Error::Io(io::ErrorKind::ConnectionReset.into())
    }

    fn retries(effect: Effect) -> Retries {
        Retries::new(effect, Jitter::seeded(1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_attempted_at_most_four_times() {
        let mut retries = retries(Effect::Read);
        let begun = tokio::time::Instant::now();
        for _ in 0..3 {
            retries.after(lost(), true).await.expect("another attempt");
        }
        assert!(retries.after(lost(), true).await.is_err());
        assert!(begun.elapsed() <= Duration::from_millis(302), "{:?}", begun.elapsed());
        assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_write_whose_connection_was_lost_is_not_repeated() {
        for effect in [Effect::Write, Effect::BatchOfWrites] {
            assert!(matches!(retries(effect).after(lost(), false).await, Err(StoreError::Unavailable(_))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_is_attempted_at_most_four_times() {
        for effect in [Effect::Read, Effect::Write, Effect::BatchOfWrites] {
            let mut retries = retries(effect);
            for _ in 0..3 {
                retries.after_no_connection(NoConnection::ConnectFailed(lost())).await.expect("another attempt");
            }
            assert!(retries.after_no_connection(NoConnection::ConnectFailed(lost())).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_call_that_was_rejected_by_a_full_queue_is_not_repeated() {
        for reason in [NoConnection::QueueFull, NoConnection::NoneFree] {
            assert!(retries(Effect::Read).after_no_connection(reason).await.is_err());
        }
    }
}
