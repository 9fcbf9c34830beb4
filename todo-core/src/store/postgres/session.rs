//! How the connections of a store are opened: their settings, and what stands between them and the server.

use std::{fmt::Write as _, io, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::{sync::OnceCell, time::timeout};

use super::{
    super::{error::StoreError, sql::classify::start_failed},
    options::PostgresOptions,
    servers::{Primary, Servers},
};
use crate::clock::Jitter;

/// How the connections that a store opens itself are opened.
pub(super) struct Session {
    pub(super) servers: Arc<Servers>,
    pub(super) statement_timeout: Option<Duration>,
    lock_timeout: Option<Duration>,
    read_only: bool,
    pub(super) limit_slow_owners: bool,
    pub(super) connect_timeout: Duration,
    pub(super) jitter: Jitter,
    /// Whether there is a pooler, found out once. Behind a pooler a session belongs to others too, so no setting is
    /// made.
    pooled: OnceCell<bool>,
}

impl Session {
    pub(super) fn new(servers: Servers, options: &PostgresOptions) -> Self {
        Self {
            servers: Arc::new(servers),
            statement_timeout: options.statement_timeout,
            lock_timeout: options.lock_timeout,
            read_only: options.read_only,
            limit_slow_owners: options.limit_slow_owners,
            connect_timeout: options.connect_timeout,
            jitter: options.jitter.clone(),
            pooled: OnceCell::new(),
        }
    }

    /// Opens a connection with its settings.
    pub(super) async fn open(&self) -> Result<Primary, sqlx::Error> {
        let mut primary = self.servers.connect().await?;
        let connection = &mut primary.connection;
        let look = async || {
            let mut other = self.servers.connect().await?.connection;
            let pooled = is_pooled(connection, &mut other).await;
            let _ = other.close().await;
            pooled
        };
        if !*self.pooled.get_or_try_init(look).await? {
            // Not prepared, so that it takes no statement name. The text contains nothing but numbers.
            sqlx::raw_sql(AssertSqlSafe(self.settings())).execute(&mut primary.connection).await?;
        }
        Ok(primary)
    }

    /// Remembers that there is, or is not, a pooler.
    pub(super) fn set_pooled(&self, pooled: bool) {
        // An earlier result is right, too.
        let _ = self.pooled.set(pooled);
    }

    fn settings(&self) -> String {
        // Routers drop connections that are idle for some minutes; the server's keepalives count as traffic.
        let mut settings = String::from("set tcp_keepalives_idle = 60;");
        for (name, limit) in [("statement_timeout", self.statement_timeout), ("lock_timeout", self.lock_timeout)] {
            if let Some(limit) = limit {
                // 0 would mean no limit, and the server accepts no larger number.
                let millis = limit.as_millis().clamp(1, 2_147_483_647);
                // Writing to a string does not fail.
                let _ = write!(settings, "set {name} = {millis};");
            }
        }
        if self.read_only {
            settings.push_str("set default_transaction_read_only = on;");
        }
        settings
    }
}

/// Opens a connection outside of the pool.
pub(super) async fn connect(servers: &Servers, limit: Duration) -> Result<PgConnection, StoreError> {
    let silent = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not respond").into());
    let connected = timeout(limit, servers.connect()).await.unwrap_or_else(silent);
    let primary = connected.map_err(|error| start_failed(error).of_attempt(|| attempt(servers)))?;
    Ok(primary.connection)
}

/// What an attempt to connect does, for its error. Without the password.
pub(super) fn attempt(servers: &Servers) -> String {
    format!("connect to {servers}")
}

/// The process of the server that serves this connection. Not prepared: behind a pooler even that name may clash.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

/// Whether these two connections lead to a pooler that shares its connections to the server among its clients: one
/// server process serves both, or several serve one of them.
pub(super) async fn is_pooled(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let first = backend(one).await?;
    // Other clients use the pooler too, so that both may get different connections at first.
    for _ in 0..3 {
        if backend(other).await? == first || backend(one).await? != first {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a pooler mixes up prepared statements: two clients that share a connection to the server give the same name
/// to different statements.
pub(super) async fn mixes_statements(one: &mut PgConnection, other: &mut PgConnection) -> bool {
    // Twice, since the second time each client uses what it prepared the first time.
    for _ in 0..2 {
        let mine = sqlx::query_scalar::<_, String>("select 'one'").fetch_one(&mut *one).await;
        let theirs = sqlx::query_scalar::<_, String>("select 'other'").fetch_one(&mut *other).await;
        if !matches!((mine.as_deref(), theirs.as_deref()), (Ok("one"), Ok("other"))) {
            return true;
        }
    }
    false
}
