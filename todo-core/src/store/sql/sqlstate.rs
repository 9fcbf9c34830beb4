//! The error codes of the databases. Each code is named here and nowhere else.

use sqlx::error::DatabaseError;
#[cfg(feature = "postgres")]
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What an error of the driver or the database says about the statement or the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Condition {
    /// The connection is lost. Whether a statement that was sent has taken effect is not known.
    Disconnected,
    /// The server or the pooler had closed the connection before it received the statement, because the connection was
    /// idle; or the pooler had no connection to the server for it.
    IdleClosed,
    /// The connection was closed before the statement was sent as a whole, so that the server cannot have committed it.
    NeverSent,
    /// The server rejected the user, the password or the address of the client.
    LoginRejected,
    /// A pooler does not know a parameter of the connection.
    UnknownParameter,
    /// The database does not exist.
    NoDatabase,
    /// A table, a column, a function or the schema does not exist.
    NoTables,
    /// A role, a type or another named object does not exist.
    NoObject,
    /// The role lacks a privilege, or row-level security rejected a row.
    NoPrivilege,
    /// The statement failed because the server could not reach another server, or lost it: a worker of Citus, or a
    /// server behind `dblink` or `postgres_fdw`. The connection to the server itself goes on. Whether the statement has
    /// taken effect is not known: the other server may have committed its part.
    RemoteLost,
    /// The server does not support the statement. Another connection is no better.
    Unsupported,
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
    /// The disk of the database is full, or its quota is used up.
    DiskFull,
    /// The database lacks memory or another resource.
    OutOfResources,
    /// The statement was cancelled, usually by `statement_timeout`.
    Cancelled,
    /// SQLite: another connection holds the lock.
    Locked,
    /// SQLite: the file cannot be opened.
    CannotOpen,
    /// SQLite: reading or writing the file failed.
    FileError,
    /// SQLite: the file is not a database.
    NotADatabase,
    /// SQLite: the process may read the file but not write it.
    FileIsReadOnly,
    /// Anything else.
    Other,
}

impl Condition {
    /// Whether the connection is lost.
    pub(in crate::store) fn is_disconnected(self) -> bool {
        matches!(self, Self::Disconnected | Self::IdleClosed | Self::NeverSent)
    }
}

/// What this error says.
pub(in crate::store) fn condition(error: &sqlx::Error) -> Condition {
    match error {
        // Only writing to a connection fails like this, and only if the system has not taken the bytes. The last bytes of
        // a statement ask the server to commit it.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Condition::NeverSent,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Condition::Disconnected
        }
        sqlx::Error::Database(error) => of_response(&**error),
        _ => Condition::Other,
    }
}

/// What the server has responded.
fn of_response(error: &(dyn DatabaseError + 'static)) -> Condition {
    let Some(code) = error.code() else { return Condition::Other };
    // SQLite has numbers of up to four digits, PostgreSQL has five characters.
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => of_sqlite(number, error.message()),
        _ => of_postgres(&code, error.message(), Origin::of(error)),
    }
}

/// What a response of PostgreSQL says beside its code.
#[derive(Clone, Copy, Debug)]
struct Origin {
    /// Whether the server, or a pooler, closes this connection: the severity is `FATAL` or `PANIC`.
    ends_session: bool,
    /// Whether the error is about what this connection has prepared.
    is_of_prepared: bool,
}

impl Origin {
    #[cfg(feature = "postgres")]
    fn of(error: &(dyn DatabaseError + 'static)) -> Self {
        let response = error.try_downcast_ref::<PgDatabaseError>();
        Self {
            ends_session: response
                .is_none_or(|response| matches!(response.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
            // The function in PostgreSQL (since 8.3) that compares a prepared statement with the tables of now.
            is_of_prepared: response.and_then(PgDatabaseError::routine) == Some("RevalidateCachedQuery"),
        }
    }

    #[cfg(not(feature = "postgres"))]
    fn of(_: &(dyn DatabaseError + 'static)) -> Self {
        Self { ends_session: true, is_of_prepared: false }
    }
}

/// The meaning of a code (SQLSTATE) of PostgreSQL. Comments give its name in the manual.
fn of_postgres(code: &str, message: &str, origin: Origin) -> Condition {
    // connection_exception, statement_completion_unknown, operator_intervention. If the session goes on, they are not
    // about our connection.
    let is_about_a_connection = code.starts_with("08") || code == "40003" || code.starts_with("57P");
    if is_about_a_connection && !origin.ends_session {
        return Condition::RemoteLost;
    }
    match code {
        // protocol_violation, as PgBouncer words it.
        "08P01" if message.contains("unsupported startup parameter") => Condition::UnknownParameter,
        "08P01" if message.contains("no such database") => Condition::NoDatabase,
        "08P01" if message.contains("no such user") || message.contains("password authentication failed") => {
            Condition::LoginRejected
        }
        // For statements that it has not passed on.
        "08P01" if message.contains("client_idle_timeout") || message.contains("query_wait_timeout") => {
            Condition::IdleClosed
        }
        // idle_session_timeout.
        "57P05" => Condition::IdleClosed,
        _ if is_about_a_connection => Condition::Disconnected,
        // feature_not_supported, as "cached plan must not change result type".
        "0A000" if origin.is_of_prepared => Condition::Outdated,
        "0A000" => Condition::Unsupported,
        // invalid_sql_statement_name.
        "26000" => Condition::Outdated,
        // read_only_sql_transaction.
        "25006" => Condition::ReadOnly,
        // invalid_catalog_name.
        "3D000" => Condition::NoDatabase,
        // undefined_table, undefined_column, undefined_function, invalid_schema_name.
        "42P01" | "42703" | "42883" | "3F000" => Condition::NoTables,
        // undefined_object.
        "42704" => Condition::NoObject,
        // insufficient_privilege.
        "42501" => Condition::NoPrivilege,
        // serialization_failure, deadlock_detected.
        "40001" | "40P01" => Condition::Conflict,
        // too_many_connections.
        "53300" => Condition::TooManyConnections,
        // lock_not_available.
        "55P03" => Condition::LockTimeout,
        // query_canceled.
        "57014" => Condition::Cancelled,
        // invalid_authorization_specification.
        _ if code.starts_with("28") => Condition::LoginRejected,
        // disk_full.
        "53100" => Condition::DiskFull,
        // insufficient_resources.
        _ if code.starts_with("53") => Condition::OutOfResources,
        _ => Condition::Other,
    }
}

/// The meaning of a result code of SQLite. Its low byte is the primary code.
fn of_sqlite(code: u32, message: &str) -> Condition {
    match code & 0xff {
        // SQLITE_ERROR, which has no code of its own for this.
        1 if message.starts_with("no such table") || message.starts_with("no such column") => Condition::NoTables,
        // SQLITE_BUSY, SQLITE_LOCKED.
        5 | 6 => Condition::Locked,
        // SQLITE_READONLY.
        8 => Condition::FileIsReadOnly,
        // SQLITE_IOERR.
        10 => Condition::FileError,
        // SQLITE_FULL.
        13 => Condition::DiskFull,
        // SQLITE_CANTOPEN.
        14 => Condition::CannotOpen,
        // SQLITE_NOTADB.
        26 => Condition::NotADatabase,
        _ => Condition::Other,
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn only_a_fatal_error_is_about_our_connection() {
        let of =
            |code, message, ends_session| of_postgres(code, message, Origin { ends_session, is_of_prepared: false });
        for code in ["08000", "08003", "08006", "08P01", "40003", "57P01", "57P02", "57P03", "57P04"] {
            assert_eq!(of(code, "", true), Condition::Disconnected, "{code}");
            assert_eq!(of(code, "", false), Condition::RemoteLost, "{code}");
        }
        // Nor does a text make another one of it, which may contain anything.
        for (code, message) in [("57P05", ""), ("08P01", "client_idle_timeout"), ("08P01", "query_wait_timeout")] {
            assert_eq!(of(code, message, true), Condition::IdleClosed, "{code} {message}");
            assert_eq!(of(code, message, false), Condition::RemoteLost, "{code} {message}");
        }
        assert_eq!(of("57014", "", false), Condition::Cancelled);
    }

    #[test]
    fn what_is_not_supported_is_outdated_only_if_it_is_about_a_prepared_statement() {
        let of = |is_of_prepared| of_postgres("0A000", "", Origin { ends_session: false, is_of_prepared });
        assert_eq!((of(true), of(false)), (Condition::Outdated, Condition::Unsupported));
    }
}
