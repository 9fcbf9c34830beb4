use std::time::Duration;

use super::super::sql::queue::MAX_WAITING;
use crate::clock::Jitter;

/// Settings for the connections that a [`PostgresStore`](super::PostgresStore) opens itself.
///
/// ```
/// use std::time::Duration;
/// use todo_core::store::PostgresOptions;
///
/// let options = PostgresOptions::default().max_connections(20).statement_timeout(Duration::from_secs(2));
/// ```
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    pub(super) max_connections: usize,
    pub(super) acquire_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_lifetime: Duration,
    pub(super) max_waiting: usize,
    pub(super) statement_timeout: Option<Duration>,
    pub(super) lock_timeout: Option<Duration>,
    pub(super) read_only: bool,
    pub(super) limit_slow_owners: bool,
    pub(super) tls: TlsPolicy,
    pub(super) jitter: Jitter,
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
            read_only: false,
            limit_slow_owners: false,
            tls: TlsPolicy::Verify,
            jitter: Jitter::shared(),
        }
    }
}

impl PostgresOptions {
    /// Sets the maximum number of connections, which is at least 1. Default: 10.
    #[must_use]
    pub fn max_connections(self, count: usize) -> Self {
        Self { max_connections: count.max(1), ..self }
    }

    /// Returns the maximum number of connections.
    #[must_use]
    pub fn get_max_connections(&self) -> usize {
        self.max_connections
    }

    /// Sets how long a call waits until a connection is free before it fails with
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable). Default: 3 seconds.
    #[must_use]
    pub fn acquire_timeout(self, timeout: Duration) -> Self {
        Self { acquire_timeout: timeout, ..self }
    }

    /// Sets how long a call waits for a new connection before it fails with
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable). Default: 8 seconds.
    ///
    /// A database may have to start first. If a call fails or is dropped, its attempt to connect goes on for up to
    /// 15 seconds, and the next call continues it. So the timeout can be as short as callers wait.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Sets the age at which a connection is replaced when it is next needed. Default: 30 minutes.
    #[must_use]
    pub fn max_lifetime(self, age: Duration) -> Self {
        Self { max_lifetime: age, ..self }
    }

    /// Sets how many calls may wait for a connection. Further calls fail with
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable) at once, since they would wait longer than
    /// their callers do. Default: 1024.
    #[must_use]
    pub fn max_waiting(self, count: usize) -> Self {
        Self { max_waiting: count, ..self }
    }

    /// Returns how many calls may wait for a connection.
    #[must_use]
    pub fn get_max_waiting(&self) -> usize {
        self.max_waiting
    }

    /// Sets how long a statement may run before the server cancels it and the call fails with
    /// [`StoreError::Timeout`](crate::store::StoreError::Timeout). `None`: as set for the role or in the URL. Default:
    /// 5 seconds.
    ///
    /// This and [`lock_timeout`](Self::lock_timeout) are set on each new connection, but not behind a pooler, where the
    /// setting would stay for other clients. There, set them for the role
    /// (`alter role todo set statement_timeout = '5s'`). Migrations run without them.
    #[must_use]
    pub fn statement_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { statement_timeout: timeout.into(), ..self }
    }

    /// Sets how long a statement may wait for a lock before the call fails with
    /// [`StoreError::Unavailable`](crate::store::StoreError::Unavailable). `None`: as set for the role or in the URL.
    /// Default: 2 seconds.
    #[must_use]
    pub fn lock_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { lock_timeout: timeout.into(), ..self }
    }

    /// Makes the connections read-only (`default_transaction_read_only`), for a replica: if its URL leads to the primary
    /// by mistake, no write can go there. Like the time limits, this is not set behind a pooler.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Lets calls of owners whose statements are slow hold at most half of the connections: where the rows of some owners
    /// are on a server that may hang, behind `postgres_fdw` for example. Default: only where the tables are distributed over
    /// several nodes. Where all rows are on one server, calls would be given up while it is slow for everybody.
    #[must_use]
    pub fn limit_slow_owners(self) -> Self {
        Self { limit_slow_owners: true, ..self }
    }

    /// Sets how `sslmode=require` in the URL is understood. Default: [`TlsPolicy::Verify`].
    #[must_use]
    pub fn tls(self, policy: TlsPolicy) -> Self {
        Self { tls: policy, ..self }
    }

    /// Sets the randomness of the pauses between retries. Default: [`Jitter::shared`].
    #[must_use]
    pub fn jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }
}

/// How to treat a URL that asks for encryption without a full check of the server's certificate (`sslmode=require` or
/// `verify-ca`). Without that check, another server can pose as the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Use `verify-full` instead, and log a warning. The trusted authorities are those of Mozilla (`webpki-roots`);
    /// name a private one in the URL with `sslrootcert`.
    #[default]
    Verify,
    /// Do as the URL says.
    AsWritten,
}
