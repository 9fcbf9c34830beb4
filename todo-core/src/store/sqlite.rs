use std::{fmt, path::Path, str::FromStr as _, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::{
    ConnectOptions as _, Connection as _, Sqlite, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    error::StoreError,
    sql::{
        migrate::{self, DataLoss},
        names::{Dialect, Names},
        operations::{Effect, HasTasks, Operation, operations, task_store},
        pool::{Connector, Opened, Pool},
        queue::PoolStatus,
        statements::Statements,
        transaction::HostTransaction,
    },
};
use crate::clock::Timestamp;

operations!(SqliteConnection, Micros);

/// How many connections read at once.
const READERS: usize = 4;
/// How long a call waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps tasks in one SQLite file, with SQLite itself compiled in.
///
/// Many readers and one writer: the file is in WAL mode, so they do not wait for one another, and writes queue up here
/// rather than at the file's lock. Within one process "database is locked" does not occur; another process that writes
/// to the file is waited for up to 5 seconds. `synchronous` is `FULL`: an answered write survives a power cut.
///
/// The file must be on a local disk (WAL needs shared memory); SQLite keeps two files beside it, `-wal` and `-shm`.
///
/// # Schema
///
/// Call [`migrate`](Self::migrate) once at start; it makes this, under the configured [`Names`]:
///
/// ```sql
#[doc = include_str!("../../migrations/sqlite/0001_tasks.up.sql")]
/// ```
///
/// # Example
///
/// ```
/// use todo_core::store::SqliteStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("todo-core-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let store = SqliteStore::open_lazy(directory.join("tasks.db"));
/// store.migrate().await?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    writer: Pool<Sqlite>,
    readers: Pool<Sqlite>,
    sql: Arc<Statements>,
}

impl SqliteStore {
    #[cfg(all(test, feature = "conformance", feature = "postgres", feature = "sqlite"))]
    pub(super) fn with_statements(self, statements: Statements) -> Self {
        Self { sql: Arc::new(statements), ..self }
    }

    /// A store in this file, which is made at first use if it is not there.
    pub fn open_lazy(path: impl AsRef<Path>) -> Self {
        Self::with_options(SqliteConnectOptions::new().filename(path).create_if_missing(true))
    }

    /// A store in the file that a URL names: `sqlite://tasks.db`, `sqlite:///var/lib/todo/tasks.db`. The file is made
    /// at first use if it is not there, unless the URL says `?mode=rw`.
    ///
    /// # Errors
    ///
    /// It is no such URL, or it names no file (`sqlite::memory:`): a database in memory belongs to one connection, use
    /// [`MemoryStore`](super::MemoryStore).
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let wrong = |reason: &str| StoreError::Backend(reason.into());
        if !url.starts_with("sqlite:") {
            return Err(wrong("a SQLite URL begins with sqlite:"));
        }
        let options = SqliteConnectOptions::from_str(url).map_err(|error| StoreError::Backend(error.into()))?;
        if url.contains(":memory:") || url.contains("mode=memory") || options.get_filename().as_os_str().is_empty() {
            return Err(wrong("a SQLite database in memory belongs to one connection; name a file"));
        }
        if url.contains("mode=ro") || url.contains("immutable=") {
            return Err(wrong("the SQLite database must be writable"));
        }
        let create = !url.contains("mode=rw") || url.contains("mode=rwc");
        Ok(Self::with_options(options.create_if_missing(create)))
    }

    fn with_options(options: SqliteConnectOptions) -> Self {
        let options = options
            .busy_timeout(PATIENCE)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let reading = options.clone().create_if_missing(false).pragma("query_only", "on");
        Self {
            writer: Pool::new(Box::new(Opener(options)), 1, PATIENCE, None),
            readers: Pool::new(Box::new(Opener(reading)), READERS, PATIENCE, None),
            sql: Statements::new(Dialect::Sqlite, Names::default()),
        }
    }

    /// The same file, with other names for the table.
    #[must_use]
    pub fn with_names(self, names: Names) -> Self {
        Self { sql: Statements::new(Dialect::Sqlite, names), ..self }
    }

    /// The same file, with so many reads and so many writes that may wait for their turn; more answer
    /// [`StoreError::Unavailable`] at once, since they would wait longer than their callers do. Default: 1024 of each.
    #[must_use]
    pub fn with_max_waiting(self, max_waiting: usize) -> Self {
        Self {
            writer: self.writer.with_max_waiting(max_waiting),
            readers: self.readers.with_max_waiting(max_waiting),
            ..self
        }
    }

    /// Returns a store that works in a transaction of the host, with the names of this store.
    ///
    /// The transaction belongs to the same file. Begin it with `BEGIN IMMEDIATE` (`pool.begin_with("BEGIN IMMEDIATE")`), or it
    /// may fail to write because another connection has written since it began.
    ///
    /// ```no_run
    /// use todo_core::{NewTask, Title, TodoService, UserId, store::SqliteStore};
    ///
    /// # async fn hire(pool: sqlx::SqlitePool) -> Result<(), Box<dyn std::error::Error>> {
    /// let store = SqliteStore::open_lazy("tasks.db");
    /// let service = TodoService::new(store.clone());
    ///
    /// let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    /// sqlx::query("insert into employees (name) values ('Ann')").execute(&mut *transaction).await?;
    ///
    /// let in_transaction = store.in_transaction(transaction).await?;
    /// let tasks = service.with_store(in_transaction.clone());
    /// tasks.for_user(UserId::new("ann")?).create(NewTask::new(Title::new("Sign the contract")?)).await?;
    ///
    /// in_transaction.take().await.ok_or("taken before")?.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The transaction cannot write: it did not begin with `BEGIN IMMEDIATE`, and another connection has written since
    /// ([`StoreError::Unavailable`]).
    pub async fn in_transaction(
        &self,
        mut transaction: sqlx::Transaction<'static, Sqlite>,
    ) -> Result<SqliteInTransaction, StoreError> {
        // A write of nothing takes the write lock, if the transaction does not have it yet.
        sqlx::query(self.sql.lock.clone()).execute(&mut *transaction).await?;
        Ok(SqliteInTransaction { transaction: HostTransaction::new(transaction), sql: self.sql.clone() })
    }

    /// What the connection that writes is doing now, for metrics. It waits for nothing.
    #[must_use]
    pub fn writer_status(&self) -> PoolStatus {
        self.writer.status()
    }

    /// What the connections that read are doing now, for metrics. It waits for nothing.
    #[must_use]
    pub fn readers_status(&self) -> PoolStatus {
        self.readers.status()
    }

    /// Brings the table to the newest version. It is safe to run this in many processes at once, and does nothing when
    /// there is nothing to do.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or written, or it was migrated by a newer version of this library.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.run_migrations(migrate::newest_version(Dialect::Sqlite), DataLoss::Refuse).await
    }

    /// Brings the table to this version, which may be an older one; 0 removes it. Wholly or not at all.
    ///
    /// # Errors
    ///
    /// As with [`migrate`](Self::migrate); or there is no such version; or there are tasks that would be lost, and
    /// `loss` refuses that.
    pub async fn migrate_to(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        self.run_migrations(migrate::known_version(Dialect::Sqlite, version)?, loss).await
    }

    async fn run_migrations(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        let mut connection = self.writer.lease().await?;
        // sqlx takes no lock on SQLite. With the write lock held around all of it, whoever comes second finds it done.
        let mut transaction = connection.begin_with("begin immediate").await?;
        let migrator = migrate::migrator(Dialect::Sqlite, &self.sql.names);
        let failed = |error| migrate::migration_failed(Dialect::Sqlite, error);
        migrate::migrate(&migrator, &mut *transaction, Some(version)).await.map_err(failed)?;
        let now = migrate::revert(&migrator, &mut *transaction, version.max(1)).await.map_err(failed)?;
        if now > version {
            if loss == DataLoss::Refuse && HasTasks.run(&mut *transaction, &self.sql).await? {
                return Err(migrate::tasks_would_be_lost());
            }
            migrate::revert(&migrator, &mut *transaction, version).await.map_err(failed)?;
        }
        let result = transaction.commit().await;
        Ok(connection.finish(result)?)
    }

    /// Closes the file, so that nothing is left beside it if no other process has it open. Calls that still run come to
    /// their end; later ones answer [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("names", &self.sql.names).finish_non_exhaustive()
    }
}

/// Opens connections to a file.
struct Opener(SqliteConnectOptions);

impl Connector<Sqlite> for Opener {
    fn connect(&self) -> BoxFuture<'_, Result<Opened<Sqlite>, sqlx::Error>> {
        self.0.connect().map(|connected| connected.map(Opened::new)).boxed()
    }
}

/// A time as SQLite keeps it: whole microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Micros(i64);

impl From<Timestamp> for Micros {
    fn from(moment: Timestamp) -> Self {
        Self(moment.unix_micros())
    }
}

impl From<Micros> for Timestamp {
    fn from(Micros(micros): Micros) -> Self {
        Self::from_unix_micros(micros)
    }
}

impl sqlx::Type<Sqlite> for Micros {
    fn type_info() -> <Sqlite as sqlx::Database>::TypeInfo {
        <i64 as sqlx::Type<Sqlite>>::type_info()
    }
}

impl sqlx::Encode<'_, Sqlite> for Micros {
    fn encode_by_ref(
        &self,
        buffer: &mut <Sqlite as sqlx::Database>::ArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        sqlx::Encode::<Sqlite>::encode_by_ref(&self.0, buffer)
    }
}

impl<'r> sqlx::Decode<'r, Sqlite> for Micros {
    fn decode(value: <Sqlite as sqlx::Database>::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        <i64 as sqlx::Decode<'r, Sqlite>>::decode(value).map(Self)
    }
}

impl SqliteStore {
    async fn run<O: Operation<SqliteConnection>>(&self, operation: &O) -> Result<O::Output, StoreError> {
        let pool = if O::EFFECT == Effect::Read { &self.readers } else { &self.writer };
        let mut connection = pool.lease().await?;
        let result = operation.run(&mut connection, &self.sql).await;
        Ok(connection.finish(result)?)
    }
}

task_store!(SqliteStore);

/// A store within a transaction of the host, made by [`SqliteStore::in_transaction`]: the host's rows and the tasks commit or
/// roll back together.
///
/// Clones are the same store, so that one goes into a [`TodoService`](crate::TodoService) and the other returns the
/// transaction to the host. Calls run one after the other. After a call that failed, roll the transaction back.
#[derive(Clone)]
pub struct SqliteInTransaction {
    transaction: HostTransaction<Sqlite>,
    sql: Arc<Statements>,
}

impl SqliteInTransaction {
    /// Returns the transaction to the host, when the running call has ended. `None` if it was returned before.
    ///
    /// Later calls of this store fail with [`StoreError::Unavailable`].
    pub async fn take(&self) -> Option<sqlx::Transaction<'static, Sqlite>> {
        self.transaction.take().await
    }

    async fn run<O: Operation<SqliteConnection>>(&self, operation: &O) -> Result<O::Output, StoreError> {
        let mut connection = self.transaction.lock().await?;
        Ok(operation.run(&mut connection, &self.sql).await?)
    }
}

impl fmt::Debug for SqliteInTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteInTransaction").field("names", &self.sql.names).finish_non_exhaustive()
    }
}

task_store!(SqliteInTransaction);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        TaskId, UserId,
        store::{TaskStore as _, sql::operations::Erase},
    };

    #[tokio::test]
    async fn an_answered_write_survives_a_power_cut() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open_lazy(directory.path().join("tasks.db"));
        store.migrate().await.expect("migrated");
        let mut writer = store.writer.lease().await.expect("a writer");
        let mode: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&mut *writer).await.expect("a mode");
        // 2 is FULL: the write-ahead log is synced at each commit.
        let synchronous: i64 = sqlx::query_scalar("pragma synchronous").fetch_one(&mut *writer).await.expect("a level");
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    }

    #[tokio::test]
    async fn a_closed_file_is_one_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open_lazy(directory.path().join("tasks.db"));
        store.migrate().await.expect("migrated");
        store.ping().await.expect("an answer");
        let files = || std::fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(files(), 3);
        store.close().await;
        assert_eq!(files(), 1);
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn more_writes_than_may_wait_are_refused_at_once_and_reads_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open_lazy(directory.path().join("tasks.db")).with_max_waiting(1);
        store.migrate().await.expect("migrated");
        let owner = UserId::new("ann").expect("a user");
        let taken = store.writer.lease().await.expect("a writer");
        let mut waiting = std::pin::pin!(store.erase(&owner));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let status = store.writer_status();
        assert_eq!((status.size, status.idle, status.waiting, status.refused), (1, 0, 1, 0), "{status:?}");
        assert!(matches!(store.erase(&owner).await, Err(StoreError::Unavailable(_))));
        assert_eq!((store.writer_status().refused, store.readers_status().refused), (1, 0));
        store.get(&owner, TaskId::from(uuid::Uuid::nil())).await.expect("a reader");
        drop(taken);
        waiting.await.expect("its turn has come");
        assert_eq!(store.writer_status().waiting, 0);
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open_lazy(directory.path().join("tasks.db"));
        store.migrate().await.expect("migrated");
        let mut reader = store.readers.lease().await.expect("a reader");
        let owner = UserId::new("ann").expect("a user");
        let error = Erase { owner: &owner }.run(&mut *reader, &store.sql).await.expect_err("it only reads");
        assert!(error.to_string().contains("readonly"), "{error}");
    }
}
