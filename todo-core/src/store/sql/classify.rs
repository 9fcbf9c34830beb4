//! What an error of the driver means to the caller of a store.

use super::{
    super::error::{SetupError, StoreError},
    sqlstate::{Condition, condition},
};

/// What the error of a statement means. A lost connection is [`StoreError::Interrupted`], since the statement may be a
/// write that was executed. So is one that the server has lost to another server: Citus sends a write to a worker, which
/// commits it by itself.
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let Some(text) = setup_mistake(&error) {
            return SetupError::new(text).with_source(error).into();
        }
        match condition(&error) {
            Condition::Disconnected | Condition::RemoteLost | Condition::FileError => Self::Interrupted(error.into()),
            Condition::ReadOnly | Condition::DiskFull | Condition::FileIsReadOnly => Self::NotWritable(error.into()),
            Condition::Conflict
            | Condition::LockTimeout
            | Condition::IdleClosed
            | Condition::NeverSent
            | Condition::TooManyConnections
            | Condition::OutOfResources
            | Condition::Locked
            | Condition::CannotOpen => Self::Unavailable(error.into()),
            Condition::Cancelled => Self::Timeout(error.into()),
            _ if matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => {
                Self::Unavailable(error.into())
            }
            _ => Self::Backend(error.into()),
        }
    }
}

/// What it means that there is no connection. Nothing was sent.
#[cfg(feature = "postgres")]
pub(in crate::store) fn connect_failed(error: sqlx::Error) -> StoreError {
    if has_rejected_certificate(&error) {
        let text = "the certificate of the database server is not accepted; the host in the URL must be one of the \
                    certificate's names, and a private certificate authority must be named in the URL by sslrootcert";
        return SetupError::new(text).with_source(error).into();
    }
    if let sqlx::Error::Tls(_) = &error {
        let text = "the connection to the database server cannot be encrypted; enable TLS in the server, or change sslmode \
                    or sslrootcert in the URL";
        return SetupError::new(text).with_source(error).into();
    }
    StoreError::from(error).without_effect()
}

/// What it means that there is no connection at the start. The server may not have been reachable yet, but what it has
/// answered does not change.
#[cfg(feature = "postgres")]
pub(in crate::store) fn start_failed(error: sqlx::Error) -> StoreError {
    match refusal(&error) {
        Some(text) => SetupError::new(text).with_source(error).into(),
        None => connect_failed(error),
    }
}

/// What to change if the server has refused a connection for good.
#[cfg(feature = "postgres")]
fn refusal(error: &sqlx::Error) -> Option<&'static str> {
    let response = match error {
        sqlx::Error::Protocol(text) if text.contains("unsupported authentication method") => {
            return Some(
                "the database server asks for a way to log in that is not supported; use scram-sha-256 in its pg_hba.conf",
            );
        }
        sqlx::Error::Protocol(_) => {
            return Some("what responds there is not a PostgreSQL server; correct the host or the port in the URL");
        }
        sqlx::Error::Database(response) => response,
        _ => return None,
    };
    if response.message().contains("bouncer config error") {
        return Some("PgBouncer has no such database or user; correct the URL, or PgBouncer's settings");
    }
    match condition(error) {
        Condition::NoPrivilege => Some(
            "the database server rejected the login; grant the role of the URL connect on the database, or remove a setting \
             from the URL that this role may not change",
        ),
        // object_not_in_prerequisite_state.
        Condition::Other if response.code().as_deref() == Some("55000") => Some(
            "the database accepts no connections; name another one in the URL, or allow them: alter database .. \
             allow_connections true",
        ),
        Condition::Other | Condition::NoObject | Condition::Outdated | Condition::Unsupported => {
            Some("the database server rejected the connection; correct the URL")
        }
        _ => None,
    }
}

/// The mistake that an error makes visible, and what to change.
fn setup_mistake(error: &sqlx::Error) -> Option<&'static str> {
    if let sqlx::Error::Configuration(_) = error {
        return Some("the URL of the database has a setting that is not valid; correct it");
    }
    Some(match condition(error) {
        Condition::LoginRejected => {
            "the database server rejected the login; correct the user or the password in the URL (or PGPASSWORD), or the \
             server's pg_hba.conf"
        }
        Condition::UnknownParameter => {
            "the connection pooler rejects a parameter in the URL of the database; remove it, or add it to \
             ignore_startup_parameters of PgBouncer"
        }
        Condition::NoDatabase => "the database does not exist; create it, or correct its name in the URL",
        Condition::NoTables => "the tables are missing or older than this library; run the migrations (migrate)",
        Condition::NoPrivilege => {
            "the role of the database connection lacks a privilege; check_tables says which, and grant_to grants it"
        }
        Condition::NotADatabase => "the file is not an SQLite database; name another file",
        _ => return None,
    })
}

/// Whether there is no connection because of the server's certificate.
#[cfg(feature = "postgres")]
pub(in crate::store) fn has_rejected_certificate(error: &sqlx::Error) -> bool {
    // sqlx does not export rustls, whose error this is.
    matches!(error, sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData
        && io.to_string().starts_with("invalid peer certificate: "))
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use std::{borrow::Cow, error::Error as StdError, fmt, io};

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;
    use crate::store::sql::operations::Effect;

    #[derive(Debug)]
    struct Response(&'static str, &'static str);

    impl fmt::Display for Response {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }

    impl StdError for Response {}

    impl DatabaseError for Response {
        fn message(&self) -> &str {
            self.1
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn response(code: &'static str, message: &'static str) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Response(code, message)))
    }

    fn name(error: &StoreError) -> &'static str {
        match error {
            StoreError::Setup(_) => "setup",
            StoreError::Unavailable(_) => "unavailable",
            StoreError::NotWritable(_) => "not writable",
            StoreError::Interrupted(_) => "interrupted",
            StoreError::Timeout(_) => "timeout",
            StoreError::Backend(_) => "backend",
        }
    }

    #[test]
    fn every_code_has_its_meaning() {
        for (code, message, write) in [
            // PostgreSQL.
            ("53300", "sorry, too many clients already", "unavailable"),
            ("53100", "could not extend file", "not writable"),
            ("53200", "out of memory", "unavailable"),
            ("40001", "could not serialize access", "unavailable"),
            ("40P01", "deadlock detected", "unavailable"),
            ("55P03", "canceling statement due to lock timeout", "unavailable"),
            ("25006", "cannot execute INSERT in a read-only transaction", "not writable"),
            ("57014", "canceling statement due to statement timeout", "timeout"),
            ("57P01", "terminating connection due to administrator command", "interrupted"),
            ("57P05", "terminating connection due to idle-session timeout", "unavailable"),
            ("08P01", "client_idle_timeout", "unavailable"),
            ("08P01", "query_wait_timeout", "unavailable"),
            ("08P01", "server conn crashed?", "interrupted"),
            ("08006", "connection failure", "interrupted"),
            ("40003", "statement completion unknown", "interrupted"),
            ("08P01", "unsupported startup parameter: search_path", "setup"),
            ("08P01", "server login has been failing, try again later", "interrupted"),
            ("08P01", "no such database: todo", "setup"),
            ("08P01", "no such user: todo", "setup"),
            ("28P01", "password authentication failed", "setup"),
            ("28000", "no pg_hba.conf entry", "setup"),
            ("3D000", "database does not exist", "setup"),
            ("42P01", "relation does not exist", "setup"),
            ("3F000", "schema does not exist", "setup"),
            ("42501", "permission denied", "setup"),
            ("23514", "new row violates check constraint", "backend"),
            ("0A000", "cached plan must not change result type", "backend"),
            ("XX000", "internal error", "backend"),
            // SQLite.
            ("5", "database is locked", "unavailable"),
            ("517", "database is locked", "unavailable"),
            ("6", "database table is locked", "unavailable"),
            ("13", "database or disk is full", "not writable"),
            ("14", "unable to open database file", "unavailable"),
            ("10", "disk I/O error", "interrupted"),
            ("778", "disk I/O error", "interrupted"),
            ("1", "no such table: todo_tasks", "setup"),
            ("26", "file is not a database", "setup"),
            ("8", "attempt to write a readonly database", "not writable"),
            ("1", "near \"slect\": syntax error", "backend"),
            ("275", "CHECK constraint failed", "backend"),
        ] {
            let case = format!("{code}: {message}");
            assert_eq!(name(&response(code, message).into()), write, "{case}");
            // A read, and an attempt to connect, leave nothing open.
            let without_effect = if write == "interrupted" { "unavailable" } else { write };
            assert_eq!(name(&Effect::Read.failed(response(code, message))), without_effect, "{case}");
            assert_eq!(name(&connect_failed(response(code, message))), without_effect, "{case}");
        }
    }

    #[test]
    fn every_error_of_the_driver_has_its_meaning() {
        let lost = || sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());
        assert_eq!(name(&lost().into()), "interrupted");
        assert_eq!(name(&sqlx::Error::Protocol("odd".into()).into()), "interrupted");
        assert_eq!(name(&sqlx::Error::WorkerCrashed.into()), "interrupted");
        assert_eq!(name(&Effect::Read.failed(lost())), "unavailable");
        assert_eq!(name(&connect_failed(lost())), "unavailable");
        assert_eq!(name(&sqlx::Error::PoolTimedOut.into()), "unavailable");
        assert_eq!(name(&sqlx::Error::Configuration("wrong".into()).into()), "setup");
        assert_eq!(name(&connect_failed(sqlx::Error::Tls("no TLS".into()))), "setup");
        assert_eq!(name(&sqlx::Error::Decode("odd".into()).into()), "backend");
        #[cfg(feature = "postgres")]
        {
            let certificate = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer");
            let error = connect_failed(certificate.into());
            assert_eq!(name(&error), "setup");
            assert!(error.source().is_some_and(|source| source.to_string().contains("UnknownIssuer")));
            assert!(!error.to_string().contains("UnknownIssuer"), "the text does not repeat the source: {error}");
        }
    }
}
