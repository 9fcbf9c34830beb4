//! Which calls are repeated, how often and when: the one place that decides.
//!
//! Only a call that has certainly not happened, or that changes nothing, is repeated. A write whose connection was lost
//! is neither.

use std::time::{Duration, Instant};

use super::super::{
    error::StoreError,
    sql::{
        classify::has_rejected_certificate,
        operations::Effect,
        queue::NoConnection,
        sqlstate::{Condition, condition},
    },
};
use crate::clock::Jitter;

/// The longest pauses before each repetition; [`Jitter`] shortens each by up to half. There are no more repetitions
/// than pauses.
const PAUSES: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// No repetition begins later than this after the call: callers do not wait forever, and it takes long to find out that
/// a server does not respond.
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
    /// Whether the call was repeated because of its connection: a read-only server, or outdated statements.
    renewed: bool,
    /// Whether the call was repeated because the server could not reach another server.
    remote_lost: bool,
}

impl Retries {
    pub(super) fn new(effect: Effect, jitter: Jitter) -> Self {
        Self { effect, jitter, begun: Instant::now(), failed: 0, lost: false, renewed: false, remote_lost: false }
    }

    /// Whether a connection was found dead, so that others may be dead too.
    pub(super) fn have_lost(&self) -> bool {
        self.lost
    }

    /// Whether a statement that failed like this may be sent again. `is_new`: the connection was opened for this
    /// attempt.
    pub(super) fn allow(&self, condition: Condition, is_new: bool) -> bool {
        let may_help = match condition {
            Condition::Disconnected => self.effect == Effect::Read,
            Condition::IdleClosed | Condition::NeverSent => true,
            // The server may have noticed only now that a connection of its own was dead, and opens another one next
            // time. If the other server is gone, more attempts would only be more load.
            Condition::RemoteLost => self.effect == Effect::Read && !self.remote_lost,
            // The server has rolled it back. The writes of a batch are run one by one instead: only one of them has a
            // conflict.
            Condition::Conflict => self.effect != Effect::BatchOfWrites,
            // It was rejected before it did anything. If the connection is new, another one is no better.
            Condition::ReadOnly | Condition::Outdated => !is_new && !self.renewed,
            _ => false,
        };
        may_help && !self.are_over()
    }

    /// After a statement has failed: waits until the next attempt may begin, or returns the error if there is none.
    /// `is_new`: the connection was opened for this attempt.
    pub(super) async fn after(&mut self, error: sqlx::Error, is_new: bool) -> Result<(), StoreError> {
        let condition = condition(&error);
        if !self.allow(condition, is_new) {
            return Err(self.effect.failed(error));
        }
        tracing::debug!(target: "todo_core::store", %error, "a call is repeated");
        self.lost = condition.is_disconnected();
        self.renewed |= matches!(condition, Condition::ReadOnly | Condition::Outdated);
        self.remote_lost |= condition == Condition::RemoteLost;
        // If the connection is to blame, the next attempt need not wait.
        self.pause(!matches!(condition, Condition::Conflict | Condition::RemoteLost)).await;
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

/// Whether another attempt to connect may succeed. If the server offers no encryption, or has a wrong certificate, none
/// will; and an attempt that has timed out took long enough.
fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => false,
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => false,
        _ => match condition(error) {
            Condition::TooManyConnections => true,
            condition => condition.is_disconnected() && !has_rejected_certificate(error),
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
        assert!(matches!(retries.after(lost(), true).await, Err(StoreError::Unavailable(_))));
        assert!(begun.elapsed() <= Duration::from_millis(302), "{:?}", begun.elapsed());
        assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_write_whose_connection_was_lost_is_not_repeated() {
        for effect in [Effect::Write, Effect::BatchOfWrites] {
            assert!(matches!(retries(effect).after(lost(), false).await, Err(StoreError::Interrupted(_))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_was_certainly_not_sent_is_repeated() {
        for effect in [Effect::Write, Effect::BatchOfWrites] {
            let mut retries = retries(effect);
            let not_sent = || sqlx::Error::Io(io::ErrorKind::BrokenPipe.into());
            for _ in 0..3 {
                retries.after(not_sent(), false).await.expect("another attempt");
                assert!(retries.have_lost());
            }
            assert!(matches!(retries.after(not_sent(), false).await, Err(StoreError::Unavailable(_))));
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
