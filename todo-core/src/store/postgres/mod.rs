use std::{fmt, io, sync::Arc, time::Duration};

use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Row as _};
use tokio::time::timeout;

use super::{
    error::{SetupError, StoreError},
    sql::{
        names::{Dialect, Names},
        operations::{Operation, for_all_owners, operations, task_store},
        queue::PoolStatus,
        statements::Statements,
        transaction::HostTransaction,
    },
};

mod arguments;
mod batch;
mod bulk;
mod connecting;
mod connections;
mod distribution;
mod functions;
mod log_position;
mod migrate;
mod options;
mod refused_batches;
mod retry;
mod row_security;
mod servers;
mod session;
mod slow_owners;
mod url;

#[cfg(test)]
pub(super) use arguments::texts;
use arguments::{arguments, read_task};
use bulk::{id_list, selected_rows};
use connections::Connections;
pub use options::{PostgresOptions, TlsPolicy};
use refused_batches::RefusedBatches;
use servers::Servers;

operations!(PgConnection);

/// Keeps tasks in PostgreSQL (14 or later), in a schema of their own.
///
/// Each call is one statement and one round trip, except for [`erase`](super::TaskStore::erase),
/// [`transfer`](super::TaskStore::transfer) and insertions of several tasks, which are transactions, and requests that
/// are repeated. Clones share their connections.
///
/// # Connections
///
/// [`connect_lazy`](Self::connect_lazy) makes a store with connections of its own, [`new`](Self::new) a store on the
/// host's pool. Direct connections are supported, and poolers that track prepared statements (PgBouncer 1.21 or newer
/// with `max_prepared_statements`, Neon, Supavisor). Other poolers mix up the statements of their clients;
/// [`check`](Self::check) finds out and fails.
///
/// # Retries
///
/// The store repeats, up to three times and within 7 seconds:
///
/// - connecting;
/// - a read whose connection was lost;
/// - a call that was certainly not sent: the server or the pooler had closed the connection because it was idle, or the
///   system did not take the bytes;
/// - a statement that the server has rolled back because of a conflict (a serialization failure or a deadlock).
///
/// The store repeats a read once, after a pause, if the server could not reach another server for it (a worker of Citus,
/// `dblink`, `postgres_fdw`). Such a write fails with [`StoreError::Interrupted`]. The connection is kept.
///
/// The store repeats once, over another connection, a statement that was rejected because the server has become
/// read-only (as a former primary does) or because its prepared form is no longer valid. The pauses between attempts
/// are at most 50, 100 and 200 ms, and at least half of that, at random. No other call is repeated: a write whose
/// connection was lost fails with [`StoreError::Interrupted`], since it may have been executed. Nothing is repeated in
/// a transaction of the host.
///
/// If the server does not respond for a second longer than [`statement_timeout`](PostgresOptions::statement_timeout),
/// or for 30 seconds without such a limit, the connection counts as lost. The store pings a connection of its own
/// before use if it was idle for 30 seconds, or if another one was found dead.
///
/// # Slow owners
///
/// Calls of owners whose statements take longer than 500 ms hold at most half of the connections, so that the others go
/// on being served. If they hold more, and calls wait for a connection, the rest of them are given up: reads with
/// [`StoreError::Unavailable`], writes with [`StoreError::Interrupted`]. The details are in
/// `docs/decisions/0032-slow-owners.md`.
///
/// # Schema
///
/// Call [`migrate`](Self::migrate) once at start. It creates these tables, under the configured [`Names`]:
///
/// ```sql
#[doc = include_str!("../../../migrations/postgres/0001_tasks.up.sql")]
/// ```
///
/// A store [with row-level security](Self::with_row_security) also creates functions.
/// [`migrate_to`](Self::migrate_to) reverts migrations.
///
/// A host may read the tables, add indexes to them and refer to them from its own tables. It may also insert, update and
/// delete tasks with SQL: triggers keep revisions, versions and times. An update that leaves `version` alone gets the
/// next one. The owner and the id of a task do not change, and `truncate` fails. Calls of the store for the same owner
/// wait until the host's transaction ends.
///
/// # Example
///
/// ```no_run
/// use todo_core::store::{PostgresOptions, PostgresStore};
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::connect_lazy("postgres://todo@localhost/todo", &PostgresOptions::default())?;
/// store.check().await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    connections: Connections,
    sql: Arc<Statements>,
    refused_batches: Arc<RefusedBatches>,
}

/// What [`PostgresStore::check`] has found out about the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Whether a write that has returned survives a crash of the database server: its settings `fsync` and
    /// `synchronous_commit` are on.
    pub durable: bool,
    /// Whether the connections lead to a pooler. The pooler then tracks prepared statements, since the check fails
    /// otherwise.
    pub pooled: bool,
    /// How long a statement of this store may run, or `None` if there is no limit. Behind a pooler, and on the host's
    /// pool, the setting of the role applies.
    pub statement_timeout: Option<Duration>,
}

impl PostgresStore {
    #[cfg(all(test, feature = "conformance", feature = "postgres", feature = "sqlite"))]
    pub(super) fn with_statements(self, statements: Statements) -> Self {
        Self { sql: Arc::new(statements), ..self }
    }

    #[cfg(all(test, feature = "conformance", feature = "postgres", feature = "sqlite"))]
    pub(super) fn names(&self) -> &Names {
        &self.sql.names
    }

    /// Makes a store on the host's pool, with the default [`Names`].
    ///
    /// The settings of the pool apply. By default sqlx pings a connection before each use, which costs a round trip;
    /// disable that with `PgPoolOptions::test_before_acquire(false)`, since this store replaces dead connections
    /// itself. sqlx also pings a connection when it is given back, after the call has returned. A store with
    /// connections of its own ([`connect_lazy`](Self::connect_lazy)) does neither.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::with_connections(Connections::host(pool))
    }

    /// Makes a store with connections of its own, with the default [`Names`]. It opens connections when they are first
    /// needed, so this does not fail if there is no server.
    ///
    /// The URL may name several servers, one of which is the primary: `postgres://todo@a,b:5433,c/todo`. The store uses
    /// only the primary, and finds the new one after a failover. It goes back to a former primary, whose timeline is older
    /// than another that it has seen, only if for ten seconds all servers respond and this is the only primary.
    ///
    /// # Errors
    ///
    /// The URL is not valid; it has the form `postgres://user:password@host:port/database?...` ([`StoreError::Setup`]).
    /// The error does not repeat the URL.
    pub fn connect_lazy(url: &str, options: &PostgresOptions) -> Result<Self, StoreError> {
        let servers = Servers::new(url::read_url(url, options.tls)?);
        Ok(Self::with_connections(Connections::own(servers, options)))
    }

    fn with_connections(connections: Connections) -> Self {
        let sql = Statements::new(Dialect::Postgres, Names::default());
        Self { connections, sql, refused_batches: Arc::default() }
    }

    /// Returns a store with the same connections and other names for schema and table.
    #[must_use]
    pub fn with_names(self, names: Names) -> Self {
        let sql = if self.sql.row_security {
            Statements::with_row_security(names)
        } else {
            Statements::new(Dialect::Postgres, names)
        };
        Self { sql, refused_batches: Arc::default(), ..self }
    }

    /// Returns a store with the same connections and another limit on the calls that wait for one (default 1024).
    /// Further calls fail with [`StoreError::Unavailable`] at once.
    ///
    /// On the host's pool, only the calls of this store and its clones count, not what the host itself does with the
    /// pool.
    #[must_use]
    pub fn with_max_waiting(self, max_waiting: usize) -> Self {
        Self { connections: self.connections.with_max_waiting(max_waiting), ..self }
    }

    /// Returns a store that works in a transaction of the host, with the names and the row-level security of this
    /// store.
    ///
    /// The transaction belongs to the same database; it need not come from the connections of this store.
    ///
    /// ```no_run
    /// use todo_core::{NewTask, Title, TodoService, UserId, store::PostgresStore};
    ///
    /// # async fn hire(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
    /// let store = PostgresStore::new(pool.clone());
    /// let service = TodoService::new(store.clone());
    ///
    /// let mut transaction = pool.begin().await?;
    /// sqlx::query("insert into employees (name) values ('Ann')").execute(&mut *transaction).await?;
    ///
    /// let in_transaction = store.in_transaction(transaction);
    /// let tasks = service.with_store(in_transaction.clone());
    /// tasks.for_user(UserId::new("ann")?).create(NewTask::new(Title::new("Sign the contract")?)).await?;
    ///
    /// in_transaction.take().await.ok_or("taken before")?.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn in_transaction(&self, transaction: sqlx::Transaction<'static, Postgres>) -> PostgresInTransaction {
        PostgresInTransaction { transaction: HostTransaction::new(transaction), sql: self.sql.clone() }
    }

    /// Returns the state of the connections, for metrics. It does not wait, and sends nothing to the database.
    ///
    /// On the host's pool, `size` and `idle` are those of the pool; `waiting` and `refused` count the calls of this
    /// store and its clones.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.connections.status()
    }

    /// Checks that the database can be used, and reports how durable it is. Call it at start.
    ///
    /// # Errors
    ///
    /// The server cannot be reached ([`StoreError::Unavailable`]); or it rejects the login, its certificate is not
    /// accepted, or its pooler mixes up the prepared statements of its clients ([`StoreError::Setup`]).
    pub async fn check(&self) -> Result<CheckReport, StoreError> {
        let silent = |_| {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the server does not respond");
            Err(StoreError::Unavailable(error.into()))
        };
        // The time limit for two connections.
        let looked = timeout(2 * self.connections.connect_timeout(), self.look()).await;
        looked.unwrap_or_else(silent).map_err(StoreError::with_hint)
    }

    async fn look(&self) -> Result<CheckReport, StoreError> {
        let servers = self.connections.servers();
        // New connections: sqlx numbers statements, so both give the same name to different statements.
        let limit = self.connections.connect_timeout();
        let (mut one, mut other) = (session::connect(&servers, limit).await?, session::connect(&servers, limit).await?);
        let pooled = session::is_pooled(&mut one, &mut other).await?;
        if pooled && session::mixes_statements(&mut one, &mut other).await {
            return Err(SetupError::new(
                "the connection pooler of the database does not track prepared statements, so that clients get the rows of \
                 each other's queries; set max_prepared_statements (PgBouncer 1.21 or newer), or use the direct URL of the \
                 database",
            )
            .into());
        }
        let settings = "select current_setting('fsync') = 'on' and current_setting('synchronous_commit') <> 'off', \
                        (select setting::bigint from pg_settings where name = 'statement_timeout'), \
                        current_setting('server_encoding')";
        let settings = sqlx::raw_sql(settings).fetch_one(&mut one).await?;
        let (durable, millis) = (settings.try_get(0)?, settings.try_get::<i64, _>(1)?);
        if settings.try_get::<&str, _>(2)? != "UTF8" {
            return Err(SetupError::new(
                "the encoding of the database is not UTF8, so that it cannot store every text; create it with encoding 'UTF8' \
                 template template0",
            )
            .into());
        }
        let of_role = u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis);
        let statement_timeout = match &self.connections {
            Connections::Own { session, .. } => {
                session.set_pooled(pooled);
                session.statement_timeout.filter(|_| !pooled).or(of_role)
            }
            Connections::Host { .. } => of_role,
        };
        // The farewell matters only to the server's log.
        let _ = (one.close().await, other.close().await);
        Ok(CheckReport { durable, pooled, statement_timeout })
    }

    /// Closes the connections that this store has opened. Those of the host's pool stay open.
    pub async fn close(&self) {
        if let Connections::Own { pool, .. } = &self.connections {
            pool.close().await;
        }
    }

    async fn run<O: Operation<PgConnection>>(&self, operation: &O) -> Result<O::Output, StoreError> {
        self.connections.run(&self.sql, operation).await
    }
}

task_store!(PostgresStore);
for_all_owners!(PostgresStore);

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("names", &self.sql.names).finish_non_exhaustive()
    }
}

/// A store within a transaction of the host, made by [`PostgresStore::in_transaction`]: the host's rows and the tasks
/// commit or roll back together.
///
/// Clones are the same store, so that one goes into a [`TodoService`](crate::TodoService) and the other returns the
/// transaction to the host. Calls run one after the other, and none is repeated. After a call that failed, PostgreSQL
/// rejects every further statement of the transaction; roll it back.
///
/// With row-level security, the transaction has the same bound owner (`todo.user_id`) after a call as before.
#[derive(Clone)]
pub struct PostgresInTransaction {
    transaction: HostTransaction<Postgres>,
    sql: Arc<Statements>,
}

impl PostgresInTransaction {
    /// Returns the transaction to the host, when the running call has ended. `None` if it was returned before.
    ///
    /// Later calls of this store fail with [`StoreError::Unavailable`].
    pub async fn take(&self) -> Option<sqlx::Transaction<'static, Postgres>> {
        self.transaction.take().await
    }

    async fn run<O: Operation<PgConnection>>(&self, operation: &O) -> Result<O::Output, StoreError> {
        let mut connection = self.transaction.lock().await?;
        operation.run(&mut connection, &self.sql).await.map_err(|error| O::EFFECT.failed(error))
    }
}

task_store!(PostgresInTransaction);

impl fmt::Debug for PostgresInTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresInTransaction").field("names", &self.sql.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with a schema for each of its customers makes stores for many names.
    #[tokio::test]
    async fn stores_for_many_names_free_their_statements() {
        let pool = PgPool::connect_lazy("postgres://nowhere.invalid/todo").expect("a URL");
        let host = PostgresStore::new(pool);
        let mut statements = Vec::new();
        for number in 0..1000 {
            let names = Names::new(format!("customer_{number}"), "tasks").expect("names");
            let store = host.clone().with_names(names);
            let secure = store.clone().with_row_security();
            assert!(secure.sql.call.insert.as_str().contains(&format!(r#""customer_{number}"."tasks_insert_"#)));
            statements.extend([Arc::downgrade(&store.sql), Arc::downgrade(&secure.sql)]);
        }
        assert!(statements.iter().all(|statements| statements.upgrade().is_none()));
    }
}
