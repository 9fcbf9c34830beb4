//! The error codes of the databases. Each code is named here and nowhere else.

/// What an error of the driver or the database says about the statement or the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Condition {
    /// The connection is lost. Whether a statement that was sent has taken effect is not known.
    Disconnected,
    /// The transaction was rolled back because of a concurrent one: a serialization failure or a deadlock.
    Conflict,
    /// The statement waited for a lock for longer than `lock_timeout`.
    LockTimeout,
    /// The server accepts no writes: a standby, or a primary during a failover.
    ReadOnly,
    /// What this connection has prepared is no longer valid, because a column has changed or a pooler has forgotten it.
    /// The statement did not run.
    Outdated,
    /// The server has too many connections to accept another one.
    TooManyConnections,
    /// The server lacks memory or disk space.
    OutOfResources,
    /// The statement was cancelled, usually by `statement_timeout`.
    Cancelled,
    /// SQLite: another connection holds the lock, the disk is full, or the file cannot be opened.
    Busy,
    /// SQLite: reading or writing the file failed.
    FileError,
    /// Anything else.
    Other,
}

/// What this error says.
pub(in crate::store) fn condition(error: &sqlx::Error) -> Condition {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Condition::Disconnected
        }
        sqlx::Error::Database(error) => error.code().map_or(Condition::Other, |code| {
            // SQLite has numbers of up to four digits, PostgreSQL has five characters.
            match code.parse::<u32>() {
                Ok(number) if code.len() < 5 => of_sqlite(number),
                _ => of_postgres(&code),
            }
        }),
        _ => Condition::Other,
    }
}

fn of_postgres(code: &str) -> Condition {
    match code {
        // feature_not_supported ("cached plan must not change result type"), invalid_sql_statement_name.
        "0A000" | "26000" => Condition::Outdated,
        // read_only_sql_transaction.
        "25006" => Condition::ReadOnly,
        // serialization_failure, deadlock_detected.
        "40001" | "40P01" => Condition::Conflict,
        // lock_not_available.
        "55P03" => Condition::LockTimeout,
        // query_canceled.
        "57014" => Condition::Cancelled,
        // too_many_connections.
        "53300" => Condition::TooManyConnections,
        // connection_exception; 57P01 to 57P05: the server closes this connection.
        _ if code.starts_with("08") || code.starts_with("57P") => Condition::Disconnected,
        // insufficient_resources.
        _ if code.starts_with("53") => Condition::OutOfResources,
        _ => Condition::Other,
    }
}

/// By the low byte: the rest says more about the same.
fn of_sqlite(code: u32) -> Condition {
    match code & 0xff {
        // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_FULL, SQLITE_CANTOPEN.
        5 | 6 | 13 | 14 => Condition::Busy,
        // SQLITE_IOERR.
        10 => Condition::FileError,
        _ => Condition::Other,
    }
}
