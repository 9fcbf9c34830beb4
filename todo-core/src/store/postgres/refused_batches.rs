//! Batches that the server does not support.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long no batch is sent after one was refused. Then one is tried again: whoever has distributed a table may have
/// taken that back.
const PAUSE: Duration = Duration::from_mins(10);

/// Remembers that the server does not support a batch: Citus, for example, runs some of them only if the rows of all
/// owners are on one node.
#[derive(Debug, Default)]
pub(super) struct RefusedBatches(Mutex<Option<Instant>>);

impl RefusedBatches {
    /// Whether a batch was refused not long ago.
    pub(super) fn are_recent(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|last| last.elapsed() < PAUSE)
    }

    /// Turns batching off for a while.
    pub(super) fn add(&self, error: &sqlx::Error) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Batches that were under way with the first are refused, too.
        let is_first = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if is_first {
            *last = Some(Instant::now());
            drop(last);
            tracing::warn!(
                target: "todo_core::store",
                %error,
                "the database does not support statements for calls of several users; each call is sent alone for {} minutes",
                PAUSE.as_secs() / 60
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn batching_is_off_for_a_while_after_a_refusal() {
        let refused = RefusedBatches::default();
        assert!(!refused.are_recent());
        refused.add(&sqlx::Error::RowNotFound);
        tokio::time::advance(PAUSE / 2).await;
        // A batch that was sent before does not make it longer.
        refused.add(&sqlx::Error::RowNotFound);
        assert!(refused.are_recent());
        tokio::time::advance(PAUSE / 2).await;
        assert!(!refused.are_recent());
    }
}
