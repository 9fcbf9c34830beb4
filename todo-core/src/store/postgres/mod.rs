use std::{fmt, sync::Arc, time::Duration};

use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Row as _};
use tokio::time::timeout;

use super::{
    error::StoreError,
    sql::{
        names::{Dialect, Names},
        operations::{Operation, operations, task_store},
        queue::PoolStatus,
        statements::Statements,
        transaction::HostTransaction,
    },
};

mod batch;
mod connecting;
mod connections;
mod migrate;
mod options;
mod retry;
mod row_security;
mod session;

use connections::Connections;
pub use options::{PostgresOptions, TlsPolicy};

operations!(PgConnection, time::OffsetDateTime);

/// Keeps tasks in PostgreSQL (14 or later), in a schema of their own.
///
/// One call is one statement and one round trip.
///
/// # Retries
///
/// Up to three times, after pauses of up to 50, 100 and 200 ms, half of each left to chance, and not later than 7 seconds
/// after the call began: connecting; a read whose connection died; what the server has rolled back because it met
/// somebody else (`40001`, `40P01`). What a server refused because it only reads (`25006`), as a primary does that is none
/// any more, is sent once more over a new connection, and all connections that are older are given up. Nothing else is
/// repeated, and nothing within a transaction of the host.
///
/// A server that does not answer at all is noticed, too: a second after
/// [`statement_timeout`](PostgresOptions::statement_timeout), or after 30 seconds if there is none, the connection counts
/// as dead. A connection that nobody has used for 30 seconds, or that was idle when another was found dead, is asked first,
/// and has a second to answer.
///
/// Only direct connections and poolers that keep track of prepared statements are supported (PgBouncer from 1.21 with
/// `max_prepared_statements`, Neon, Supavisor); behind others, statements of different callers are mixed up.
/// [`check`](Self::check) finds that out.
///
/// # Schema
///
/// Call [`migrate`](Self::migrate) once at start; it makes this, under the configured [`Names`]:
///
/// ```sql
#[doc = include_str!("../../../migrations/postgres/0001_tasks.up.sql")]
/// ```
///
/// Beside it stand functions that only a store [with row security](Self::with_row_security) uses; they cost nobody
/// else a thing. [`migrate_to`](Self::migrate_to) leads back.
///
/// A host may read the table, add indexes to it and refer to it from its own tables; rows are to be written through
/// the store.
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
}

/// What [`PostgresStore::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Whether an answered write survives a crash of the server's machine: its settings `fsync` and
    /// `synchronous_commit` are on.
    pub durable: bool,
    /// Whether a pooler stands between us and the server. (It keeps track of prepared statements, or the check fails.)
    pub pooled: bool,
    /// How long a statement of this store may run; `None`: for ever. Behind a pooler, and on the host's pool, that is
    /// the host's to choose.
    pub statement_timeout: Option<Duration>,
}

impl PostgresStore {
    #[cfg(all(test, feature = "conformance", feature = "postgres", feature = "sqlite"))]
    pub(super) fn with_statements(self, statements: Statements) -> Self {
        Self { sql: Arc::new(statements), ..self }
    }

    /// A store over the host's pool, with the default [`Names`].
    ///
    /// The pool's own settings hold. By default sqlx asks a connection how it is before each use, which costs a round
    /// trip: `PgPoolOptions::test_before_acquire(false)` turns that off, and this store replaces dead connections
    /// itself. sqlx also asks, after the answer is out, when a connection is given back; a store that was made by
    /// [`connect_lazy`](Self::connect_lazy) does neither.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::with_connections(Connections::host(pool))
    }

    /// A store with connections of its own, opened when they are first needed.
    ///
    /// # Errors
    ///
    /// The URL is not one that sqlx understands (`postgres://user:password@host/database?...`). The text of the error
    /// does not repeat the URL.
    pub fn connect_lazy(url: &str, options: &PostgresOptions) -> Result<Self, StoreError> {
        Ok(Self::with_connections(Connections::own(options::read_url(url, options.tls)?, options)))
    }

    fn with_connections(connections: Connections) -> Self {
        Self { connections, sql: Statements::new(Dialect::Postgres, Names::default()) }
    }

    /// The same connections, with other names for schema and table.
    #[must_use]
    pub fn with_names(self, names: Names) -> Self {
        let sql = if self.sql.row_security {
            Statements::with_row_security(names)
        } else {
            Statements::new(Dialect::Postgres, names)
        };
        Self { sql, ..self }
    }

    /// The same connections, with so many calls that may wait for one; more answer [`StoreError::Unavailable`] at once.
    /// Default: 1024.
    ///
    /// Of the host's pool only the calls of this store and its clones count: what the host itself does with the pool is
    /// not seen here.
    #[must_use]
    pub fn with_max_waiting(self, max_waiting: usize) -> Self {
        Self { connections: self.connections.with_max_waiting(max_waiting), ..self }
    }

    /// Returns a store that works in a transaction of the host, with the names and the row-level security of this store.
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

    /// What the connections are doing now, for metrics. It waits for nothing and asks the database nothing.
    ///
    /// Of the host's pool, size and idle connections are the pool's; waiting and refused calls are those of this store
    /// and its clones.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.connections.status()
    }

    /// Looks at what stands behind the URL: whether it is safe to use at all, and how durable it is.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or a pooler that mixes up the prepared statements of its clients stands before
    /// it ([`StoreError::Backend`], with a text that says so).
    pub async fn check(&self) -> Result<CheckReport, StoreError> {
        let silent = |_| Err(StoreError::Unavailable("the server does not answer".into()));
        // As long as its two connections may take.
        timeout(2 * self.connections.connect_timeout(), self.look()).await.unwrap_or_else(silent)
    }

    async fn look(&self) -> Result<CheckReport, StoreError> {
        let options = self.connections.connect_options();
        // Fresh ones, because sqlx names statements by counting, and the names must clash.
        let limit = self.connections.connect_timeout();
        let (mut one, mut other) = (session::connect(&options, limit).await?, session::connect(&options, limit).await?);
        let pooled = session::is_pooled(&mut one, &mut other).await?;
        if pooled && session::mixes_statements(&mut one, &mut other).await {
            return Err(StoreError::Backend(
                "a connection pooler that does not track prepared statements stands before the database: it answers \
                 with the rows of other queries. Set max_prepared_statements in PgBouncer, which version 1.21 or newer \
                 has, or use the direct URL of the database instead of the pooled one"
                    .into(),
            ));
        }
        let settings = "select current_setting('fsync') = 'on' and current_setting('synchronous_commit') <> 'off', \
                        (select setting::bigint from pg_settings where name = 'statement_timeout')";
        let settings = sqlx::raw_sql(settings).fetch_one(&mut one).await?;
        let (durable, millis) = (settings.try_get(0)?, settings.try_get::<i64, _>(1)?);
        let of_role = u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis);
        let statement_timeout = match &self.connections {
            Connections::Own { session, .. } => {
                session.set_pooled(pooled);
                session.statement_timeout.filter(|_| !pooled).or(of_role)
            }
            Connections::Host { .. } => of_role,
        };
        // That they are closed politely matters to nobody but the server's log.
        let _ = (one.close().await, other.close().await);
        Ok(CheckReport { durable, pooled, statement_timeout })
    }

    /// Closes the connections that this store opened; those of the host's pool stay.
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

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("names", &self.sql.names).finish_non_exhaustive()
    }
}

/// A store within a transaction of the host, made by [`PostgresStore::in_transaction`]: the host's rows and the tasks commit
/// or roll back together.
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
        Ok(operation.run(&mut connection, &self.sql).await?)
    }
}

task_store!(PostgresInTransaction);

impl fmt::Debug for PostgresInTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresInTransaction").field("names", &self.sql.names).finish_non_exhaustive()
    }
}
