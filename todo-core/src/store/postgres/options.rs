use std::{str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::super::{error::StoreError, sql::queue::MAX_WAITING};
use crate::clock::Jitter;

/// How a [`PostgresStore`](super::PostgresStore) uses its own connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// How many connections at most. Default: 10.
    pub max_connections: usize,
    /// How long a call waits until a connection is free before it answers [`StoreError::Unavailable`]. Default:
    /// 3 seconds.
    pub acquire_timeout: Duration,
    /// How long a call waits for a new connection, as when the database has to wake up first. An attempt stays when
    /// the call goes, for up to 15 seconds, and the next call goes on with it. It should be less than the patience of
    /// the callers. Default: 8 seconds.
    pub connect_timeout: Duration,
    /// After how long a connection is replaced when it is next needed. Default: 30 minutes.
    pub max_lifetime: Duration,
    /// How many calls may wait for a connection. More answer [`StoreError::Unavailable`] at once, since they would wait
    /// longer than their callers do. Default: 1024.
    pub max_waiting: usize,
    /// How long a statement may run before the server ends it and the call answers [`StoreError::Timeout`]: nobody waits
    /// for it any longer. `None`: as the role or the URL has it. Default: 5 seconds.
    ///
    /// This and [`lock_timeout`](Self::lock_timeout) are set on each new connection, but not behind a pooler: there a
    /// setting would stay with a connection that others use after us. Set them for the role instead
    /// (`alter role todo set statement_timeout = '5s'`). Migrations run without them.
    pub statement_timeout: Option<Duration>,
    /// How long a statement may wait for a lock before the call answers [`StoreError::Unavailable`]. `None`: as the role
    /// or the URL has it. Default: 2 seconds.
    pub lock_timeout: Option<Duration>,
    /// What to make of `sslmode=require`. Default: [`TlsPolicy::Verify`].
    pub tls: TlsPolicy,
    /// Spreads the pauses before something is tried again. Default: [`Jitter::shared`].
    pub jitter: Jitter,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(8),
            max_lifetime: Duration::from_mins(30),
            max_waiting: MAX_WAITING,
            statement_timeout: Some(Duration::from_secs(5)),
            lock_timeout: Some(Duration::from_secs(2)),
            tls: TlsPolicy::Verify,
            jitter: Jitter::shared(),
        }
    }
}

/// What to make of a URL that asks for encryption without a check of the server's certificate (`sslmode=require` or
/// `verify-ca`), which protects from nobody who can answer in the server's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Raise it to `verify-full`, and say so in the log. The roots are those of Mozilla (`webpki-roots`); a private
    /// authority is named in the URL by `sslrootcert`.
    #[default]
    Verify,
    /// Do as the URL says.
    AsWritten,
}

/// Reads the URL of a database.
pub(super) fn read_url(url: &str, tls: TlsPolicy) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url).map_err(|error| StoreError::Backend(error.into()))?;
    let options = options.disable_statement_logging();
    if url.contains("channel_binding=require") {
        tracing::warn!(
            target: "todo_core::store",
            "the database URL asks for channel_binding=require, which the driver does not support: the connection is not bound"
        );
    }
    match (options.get_ssl_mode(), tls) {
        (PgSslMode::Require | PgSslMode::VerifyCa, TlsPolicy::Verify) => {
            tracing::warn!(
                target: "todo_core::store",
                "the database URL asks for encryption without a full check of the server's certificate: raised to sslmode=verify-full"
            );
            Ok(options.ssl_mode(PgSslMode::VerifyFull))
        }
        _ => Ok(options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn require_becomes_verify_full_unless_the_policy_is_as_written() {
        let mode = |url: &str, tls| read_url(url, tls).expect("a URL").get_ssl_mode();
        let url = "postgres://u:p@db.example/todo";
        for weak in ["require", "verify-ca"] {
            let url = format!("{url}?sslmode={weak}&channel_binding=require");
            assert!(matches!(mode(&url, TlsPolicy::Verify), PgSslMode::VerifyFull), "{weak}");
        }
        assert!(matches!(mode(&format!("{url}?sslmode=require"), TlsPolicy::AsWritten), PgSslMode::Require));
        assert!(matches!(mode(url, TlsPolicy::Verify), PgSslMode::Prefer));
    }

    #[test]
    fn the_error_for_a_wrong_url_does_not_repeat_the_url() {
        let error = read_url("postgres://ann:hunter2@db:port/todo", TlsPolicy::Verify);
        let text = format!("{:?}", error.expect_err("no URL"));
        assert!(!text.contains("hunter2"), "{text}");
    }
}
