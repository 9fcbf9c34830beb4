use std::error::Error as StdError;

/// Why a store has not done what it was asked.
///
/// The text of an error names no value of a task; its source is the driver's own error and may, so log the text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It cannot be reached, or too many callers wait for it already. To try again later may help. Whether a write
    /// has happened is not known.
    #[error("the task store is unavailable")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// It did not answer in time. Whether a write has happened is not known.
    #[error("the task store did not answer in time")]
    Timeout(#[source] Box<dyn StdError + Send + Sync>),
    /// It answered something that it should not; to try again does not help.
    #[error("the task store failed")]
    Backend(#[source] Box<dyn StdError + Send + Sync>),
}
