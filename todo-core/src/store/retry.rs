//! What is tried again, how often and when: the one place that decides.
//!
//! Only what has certainly not happened, or changes nothing, is repeated. A write whose connection died is neither.

use std::time::{Duration, Instant};

use super::{
    StoreError,
    pool::Denied,
    sql::{is_conflict, is_disconnected, is_outdated, is_read_only, is_unreachable},
};
use crate::clock::Jitter;

/// How long the pauses before another attempt are at most; [`Jitter`] takes up to half of each away. There are no more
/// attempts than these and the first.
const PAUSES: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// No attempt begins later than this after the first: callers do not wait for ever, and a server that answers nobody
/// takes long to be found out.
const WITHIN: Duration = Duration::from_secs(7);

/// What happens if a call is done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// Nothing.
    Read,
    /// Perhaps another thing than if it is done once.
    Write,
    /// The same, and each of its calls can be tried by itself.
    Batch,
}

/// One call, however often it is tried.
#[derive(Debug)]
pub(super) struct Attempts {
    nature: Nature,
    jitter: Jitter,
    begun: Instant,
    failed: usize,
    /// Whether the last one found its connection dead.
    lost: bool,
}

impl Attempts {
    pub(super) fn new(nature: Nature, jitter: Jitter) -> Self {
        Self { nature, jitter, begun: Instant::now(), failed: 0, lost: false }
    }

    /// Whether a connection was found dead, so that others may be.
    pub(super) fn have_lost(&self) -> bool {
        self.lost
    }

    /// After a statement has failed: waits until it is time for the next attempt, or answers that there is none.
    /// `is_fresh`: the connection was opened for this attempt.
    pub(super) async fn again(&mut self, error: sqlx::Error, is_fresh: bool) -> Result<(), StoreError> {
        if !is_repeatable(self.nature, &error, is_fresh) || self.are_over() {
            return Err(error.into());
        }
        tracing::debug!(target: "todo_core::store", %error, "a call is tried again");
        self.lost = is_disconnected(&error);
        // It was the connection that failed, and the next is another.
        self.pause(!is_conflict(&error)).await;
        Ok(())
    }

    /// The same, after there was no connection to be had.
    pub(super) async fn connect_again(&mut self, denied: Denied) -> Result<(), StoreError> {
        match denied {
            Denied::Unreachable(error) if is_unreachable(&error) && !self.are_over() => {
                tracing::debug!(target: "todo_core::store", %error, "connecting is tried again");
                self.pause(false).await;
                Ok(())
            }
            denied => Err(denied.into()),
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
fn is_repeatable(nature: Nature, error: &sqlx::Error, is_fresh: bool) -> bool {
    if is_disconnected(error) {
        return nature == Nature::Read;
    }
    // The server has rolled it back. The calls of a batch are tried one by one: it is one of them that meets somebody.
    if is_conflict(error) {
        return nature != Nature::Batch;
    }
    // It was refused before it did anything. A connection just opened leads to where the others will, too.
    (is_read_only(error) || is_outdated(error)) && !is_fresh
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn lost() -> sqlx::Error {
        sqlx::Error::Io(io::ErrorKind::ConnectionReset.into())
    }

    fn attempts(nature: Nature) -> Attempts {
        Attempts::new(nature, Jitter::seeded(1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_tried_four_times_at_most() {
        let mut attempts = attempts(Nature::Read);
        let begun = tokio::time::Instant::now();
        for _ in 0..3 {
            attempts.again(lost(), true).await.expect("another attempt");
        }
        assert!(attempts.again(lost(), true).await.is_err());
        assert!(begun.elapsed() <= Duration::from_millis(302), "{:?}", begun.elapsed());
        assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_write_whose_connection_died_is_not_tried_again() {
        for nature in [Nature::Write, Nature::Batch] {
            assert!(matches!(attempts(nature).again(lost(), false).await, Err(StoreError::Unavailable(_))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_is_tried_four_times_at_most() {
        for nature in [Nature::Read, Nature::Write, Nature::Batch] {
            let mut attempts = attempts(nature);
            for _ in 0..3 {
                attempts.connect_again(Denied::Unreachable(lost())).await.expect("another attempt");
            }
            assert!(attempts.connect_again(Denied::Unreachable(lost())).await.is_err());
        }
    }

    #[tokio::test]
    async fn who_is_refused_for_the_crowd_does_not_come_back() {
        for denied in [Denied::Full, Denied::NoneFree] {
            assert!(attempts(Nature::Read).connect_again(denied).await.is_err());
        }
    }
}
