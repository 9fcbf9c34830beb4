//! What an error of the driver means to the caller of a store.

use super::{
    super::error::StoreError,
    sqlstate::{Condition, condition},
};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match condition(&error) {
            Condition::Disconnected
            | Condition::Conflict
            | Condition::LockTimeout
            | Condition::ReadOnly
            | Condition::TooManyConnections
            | Condition::OutOfResources
            | Condition::Busy
            | Condition::FileError => Self::Unavailable(error.into()),
            Condition::Cancelled => Self::Timeout(error.into()),
            Condition::Outdated | Condition::Other => match &error {
                sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Unavailable(error.into()),
                _ => Self::Backend(error.into()),
            },
        }
    }
}

/// What is wrong with the server's certificate, if that is why there is no connection.
#[cfg(feature = "postgres")]
pub(in crate::store) fn rejected_certificate(error: &sqlx::Error) -> Option<String> {
    // sqlx does not export rustls, whose error this is.
    match error {
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
            io.to_string().strip_prefix("invalid peer certificate: ").map(str::to_owned)
        }
        _ => None,
    }
}
