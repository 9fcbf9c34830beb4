//! The bodies of responses that say how many tasks an operation was about.

use serde::Serialize;

use crate::store::Transfer;

/// How many tasks a change of many tasks was about.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(super) struct BulkResult {
    /// The number of tasks that the request selects.
    pub(super) matched: u64,
    /// The number of tasks that were changed or deleted.
    pub(super) changed: u64,
}

/// What a transfer of tasks has done.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(super) struct TransferResult {
    /// The number of tasks that the caller has got.
    pub(super) moved: u64,
    /// The number of tasks that stay with the former owner, since the caller has tasks with the same IDs.
    pub(super) remaining: u64,
}

impl From<Transfer> for TransferResult {
    fn from(Transfer { moved, remaining }: Transfer) -> Self {
        Self { moved, remaining }
    }
}
