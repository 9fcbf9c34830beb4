use std::{fmt, path::Path, str::FromStr as _, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::{
    Arguments as _, ConnectOptions as _, Connection as _, Row as _, SqlStr, Sqlite, SqliteConnection,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

use tokio::time::{Instant, sleep};

use super::{
    BulkResult, Creation, Insertion, Outcome, Read, Revision, Transfer,
    error::{SetupError, StoreError},
    sql::{
        columns::{Value, json_array, static_text},
        migrate::{self, DataLoss},
        names::{Dialect, Names},
        operations::{
            Count, DeleteIf, DeleteMatching, Effect, Erase, Get, HasTasks, Insert, InsertOne, Operation, Purge,
            Repeated, Reposition, Revisions, TransferAll, UpdateIf, UpdateMatching, WhyNot, fields, for_all_owners,
            operations, revisions, task_store,
        },
        pool::{Connector, Opened, Pool},
        queue::{NoConnection, PoolStatus},
        selection::Selections,
        sqlstate::{Condition, condition},
        statements::Statements,
        transaction::HostTransaction,
    },
};
use crate::{Task, TaskId, UserId, clock::Timestamp};

operations!(SqliteConnection);

impl Operation<SqliteConnection> for Insert<'_> {
    type Output = Insertion;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<Insertion, sqlx::Error> {
        let Self { owner, tasks, creation } = self;
        // A savepoint, if the host has begun a transaction.
        let mut transaction = match tasks {
            [] => return Ok(Insertion::Done),
            [task] => {
                let is_done = InsertOne { owner, task, creation, place: 0 }.run(connection, sql).await?;
                return if is_done { Ok(Insertion::Done) } else { WhyNot(self).run(connection, sql).await };
            }
            _ => begin(connection, sql).await?,
        };
        let count = tasks.len() as u64;
        // What was created before comes before the limit.
        let mut refused = Repeated(self).run(&mut *transaction, sql).await?;
        if refused.is_none() {
            // The statement for one task compares the number of tasks with one less for each that is to follow.
            let max_tasks = creation.max_tasks.map(|max| max.saturating_add(1).saturating_sub(count));
            for (place, task) in tasks.iter().enumerate() {
                let max_tasks = max_tasks.map(|max| max + place as u64);
                let creation = Creation { max_tasks, ..(*creation).clone() };
                let one = InsertOne { owner, task, creation: &creation, place };
                if !one.run(&mut *transaction, sql).await? {
                    refused = Some(Insertion::IdTaken);
                    break;
                }
            }
        }
        match refused {
            None => {
                transaction.commit().await?;
                Ok(Insertion::Done)
            }
            Some(Insertion::IdTaken) => {
                transaction.rollback().await?;
                WhyNot(self).run(connection, sql).await
            }
            Some(repeated) => {
                transaction.rollback().await?;
                Ok(repeated)
            }
        }
    }
}

impl Operation<SqliteConnection> for UpdateIf<'_> {
    type Output = Outcome<Task>;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<Outcome<Task>, sqlx::Error> {
        let Self { update, precondition } = self;
        let mut transaction = begin(connection, sql).await?;
        let found = Get { owner: update.owner, id: update.id }.run(&mut *transaction, sql).await?;
        if let Some(found) = found.filter(|found| !precondition.is_met_by(found)) {
            transaction.rollback().await?;
            return Ok(Outcome::Unmet(Box::new(found)));
        }
        let updated = update.run(&mut *transaction, sql).await?;
        transaction.commit().await?;
        Ok(updated.map_or(Outcome::Missing, Outcome::Done))
    }
}

impl Operation<SqliteConnection> for DeleteIf<'_> {
    type Output = Outcome<()>;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<Outcome<()>, sqlx::Error> {
        let Self { delete, precondition } = self;
        let mut transaction = begin(connection, sql).await?;
        let found = Get { owner: delete.owner, id: delete.id }.run(&mut *transaction, sql).await?;
        if let Some(found) = found.filter(|found| !precondition.is_met_by(found)) {
            transaction.rollback().await?;
            return Ok(Outcome::Unmet(Box::new(found)));
        }
        let is_deleted = delete.run(&mut *transaction, sql).await?;
        transaction.commit().await?;
        Ok(if is_deleted { Outcome::Done(()) } else { Outcome::Missing })
    }
}

impl Operation<SqliteConnection> for Erase<'_> {
    type Output = u64;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<u64, sqlx::Error> {
        let owner = self.owner.as_str();
        let mut transaction = begin(connection, sql).await?;
        let done = sqlx::query(sql.call.erase.clone()).bind(owner).execute(&mut *transaction).await?;
        for statement in [&sql.call.erase_deleted, &sql.call.erase_owner] {
            sqlx::query(statement.clone()).bind(owner).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(done.rows_affected())
    }
}

impl Operation<SqliteConnection> for Revisions<'_> {
    type Output = Vec<Revision>;
    const EFFECT: Effect = Effect::Read;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<Vec<Revision>, sqlx::Error> {
        let owners = text_list(self.0.iter().map(UserId::as_str));
        revisions(sqlx::query_scalar(sql.revisions()).bind(owners).fetch_all(connection).await?, self.0)
    }
}

impl Operation<SqliteConnection> for Purge<'_> {
    type Output = u64;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<u64, sqlx::Error> {
        let owner = self.owner.as_str();
        let mut transaction = begin(connection, sql).await?;
        let until: Option<i64> = sqlx::query_scalar(sql.sqlite.purge_until.clone())
            .bind(owner)
            .bind(self.before.unix_micros())
            .bind(i64::from(self.limit.get()))
            .fetch_one(&mut *transaction)
            .await?;
        let Some(until) = until else {
            transaction.rollback().await?;
            return Ok(0);
        };
        let purge = sqlx::query(sql.sqlite.purge.clone()).bind(owner).bind(until);
        let count = purge.execute(&mut *transaction).await?.rows_affected();
        sqlx::query(sql.sqlite.purge_owner.clone()).bind(owner).bind(until).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(count)
    }
}

impl Operation<SqliteConnection> for TransferAll<'_> {
    type Output = Transfer;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<Transfer, sqlx::Error> {
        let (owner, to) = (self.owner.as_str(), self.to.as_str());
        // A savepoint, if the host has begun a transaction. The first statement writes, so that another process cannot
        // write between the first and the second.
        let mut transaction = connection.begin().await?;
        let moved: Vec<uuid::Uuid> =
            sqlx::query_scalar(sql.call.transfer.clone()).bind(owner).bind(to).fetch_all(&mut *transaction).await?;
        let ids = id_list(moved.iter().copied().map(TaskId::from));
        sqlx::query(sql.sqlite.transfer_delete.clone()).bind(owner).bind(ids).execute(&mut *transaction).await?;
        let remaining: i64 =
            sqlx::query_scalar(sql.sqlite.transfer_count.clone()).bind(owner).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Transfer { moved: moved.len() as u64, remaining: remaining.unsigned_abs() })
    }
}

/// The number of connections for reads.
const READERS: usize = 4;
/// How long a call waits for a connection or for a lock of another process.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps tasks in one SQLite file. SQLite itself is compiled in.
///
/// The file is in WAL mode, with several connections for reads and one for writes, so that reads and writes do not wait
/// for each other. Writes of one process queue up in this store, and never fail with "database is locked"; a write of
/// another process is waited for up to 5 seconds. `synchronous` is `FULL`: a write that has returned survives a power
/// failure.
///
/// The file must be on a local disk, because WAL mode needs shared memory. SQLite creates two files beside it, with the
/// endings `-wal` and `-shm`. A file that this store creates can only be read by its own user (mode 0600 on Unix).
/// Clones share their connections.
///
/// # Schema
///
/// Call [`migrate`](Self::migrate) once at start. It creates these tables, under the configured [`Names`]:
///
/// ```sql
#[doc = include_str!("../../migrations/sqlite/0001_tasks.up.sql")]
/// ```
///
/// A host may also insert, update and delete tasks with SQL: triggers keep revisions, versions and times. An update that
/// leaves `version` alone gets the next one. The owner and the id of a task do not change. Do not use `insert or
/// replace`, which deletes a row without its trigger.
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
    /// For errors.
    path: Arc<Path>,
}

impl SqliteStore {
    #[cfg(all(test, feature = "conformance", feature = "postgres", feature = "sqlite"))]
    pub(super) fn with_statements(self, statements: Statements) -> Self {
        Self { sql: Arc::new(statements), ..self }
    }

    /// Makes a store for this file. The file is opened, and created if it does not exist, when the store is first used.
    pub fn open_lazy(path: impl AsRef<Path>) -> Self {
        Self::with_options(SqliteConnectOptions::new().filename(path), true)
    }

    /// Makes a store for the file in a URL such as `sqlite://tasks.db` or `sqlite:///var/lib/todo/tasks.db`. The file
    /// is opened, and created if it does not exist, when the store is first used. With `?mode=rw` it is not created.
    ///
    /// # Errors
    ///
    /// The URL is not valid, or names no file that can be written ([`StoreError::Setup`]). A database in memory belongs
    /// to one connection; use [`MemoryStore`](super::MemoryStore) instead.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let wrong = |reason: &str| SetupError::new(reason).into();
        if !url.starts_with("sqlite:") {
            return Err(wrong("the URL of an SQLite database begins with sqlite:"));
        }
        let options = SqliteConnectOptions::from_str(url).map_err(|error| {
            let text = "the URL of the database is not valid; it has the form sqlite://folder/file.db";
            SetupError::new(text).with_source(error)
        })?;
        if url.contains(":memory:") || url.contains("mode=memory") || options.get_filename().as_os_str().is_empty() {
            return Err(wrong("an SQLite database in memory belongs to one connection; name a file"));
        }
        if url.contains("mode=ro") || url.contains("immutable=") {
            return Err(wrong("the SQLite database must be writable; remove mode=ro or immutable from the URL"));
        }
        let create = !url.contains("mode=rw") || url.contains("mode=rwc");
        Ok(Self::with_options(options, create))
    }

    fn with_options(options: SqliteConnectOptions, creates: bool) -> Self {
        let options = options
            .create_if_missing(creates)
            .busy_timeout(PATIENCE)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let path = options.get_filename().into();
        let reading = options.clone().create_if_missing(false).pragma("query_only", "on");
        let writer = Opener { options, creates };
        let reader = Opener { options: reading, creates: false };
        Self {
            writer: Pool::new(Box::new(writer), 1, PATIENCE, None),
            readers: Pool::new(Box::new(reader), READERS, PATIENCE, None),
            sql: Statements::new(Dialect::Sqlite, Names::default()),
            path,
        }
    }

    /// Returns a store for the same file with other names for the table.
    #[must_use]
    pub fn with_names(self, names: Names) -> Self {
        Self { sql: Statements::new(Dialect::Sqlite, names), ..self }
    }

    /// Returns a store for the same file with another limit on the reads that wait, and on the writes that wait
    /// (default 1024 each). Further calls fail with [`StoreError::Unavailable`] at once, since they would wait longer
    /// than their callers do.
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
    /// The transaction belongs to the same file. Begin it with `BEGIN IMMEDIATE`
    /// (`pool.begin_with("BEGIN IMMEDIATE")`), or it may fail to write because another connection has written since it
    /// began.
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
        sqlx::query(self.sql.sqlite.lock.clone()).execute(&mut *transaction).await?;
        Ok(SqliteInTransaction { transaction: HostTransaction::new(transaction), sql: self.sql.clone() })
    }

    /// Returns the state of the connection for writes, for metrics. It does not wait.
    #[must_use]
    pub fn writer_status(&self) -> PoolStatus {
        self.writer.status()
    }

    /// Returns the state of the connections for reads, for metrics. It does not wait.
    #[must_use]
    pub fn readers_status(&self) -> PoolStatus {
        self.readers.status()
    }

    /// Migrates the table to the newest version. It is safe to call this in many processes at once. If the table is at
    /// the newest version, it changes nothing.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or written, or a newer version of this library has migrated it
    /// ([`StoreError::Setup`]).
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.run_migrations(migrate::newest_version(Dialect::Sqlite), DataLoss::Refuse).await
    }

    /// Migrates the table to this version, which may be an older one, in one transaction. Version 0 is no table.
    ///
    /// # Errors
    ///
    /// Those of [`migrate`](Self::migrate); or there is no such version, or there are tasks that it would delete, and
    /// `loss` is [`DataLoss::Refuse`] ([`StoreError::Setup`]).
    pub async fn migrate_to(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        self.run_migrations(migrate::known_version(Dialect::Sqlite, version)?, loss).await
    }

    async fn run_migrations(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        self.try_to_migrate(version, loss).await.map_err(cannot_write)
    }

    async fn try_to_migrate(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        let mut connection = self.writer.lease().await.map_err(cannot_open)?;
        let migrator = migrate::migrator(Dialect::Sqlite, &self.sql.names);
        let failed = |error| migrate::migration_failed(Dialect::Sqlite, error);
        // Looked at first, so that a start with nothing to migrate does not wait for another process that writes.
        let has_ledger = "select exists (select 1 from sqlite_schema where type = 'table' and name = $1)";
        let ledger = format!("{}_migrations", self.sql.names.resolve(Dialect::Sqlite).table);
        if sqlx::query_scalar(has_ledger).bind(ledger).fetch_one(&mut *connection).await?
            && migrate::is_at(&migrator, &mut *connection, version).await.map_err(failed)?
        {
            connection.finish(Ok(()));
            return Ok(());
        }
        // This transaction holds the write lock, so that concurrent migrations run one after the other, and all but the
        // first find the work done.
        let mut transaction = connection.begin_with("begin immediate").await?;
        migrate::migrate(&migrator, &mut *transaction, Some(version)).await.map_err(failed)?;
        let now = migrate::revert(&migrator, &mut *transaction, version.max(1)).await.map_err(failed)?;
        if now > version {
            if loss == DataLoss::Refuse && HasTasks.run(&mut *transaction, &self.sql).await? {
                return Err(migrate::tasks_would_be_lost());
            }
            migrate::revert(&migrator, &mut *transaction, version).await.map_err(failed)?;
        }
        let result = transaction.commit().await;
        connection.finish(result.as_ref().copied());
        Ok(result?)
    }

    /// Forgets the deletions of all owners that were made before a time, and returns their number: for an operator, from
    /// time to time. [`TodoService`](crate::TodoService) forgets some of an owner's old deletions when the owner deletes
    /// tasks, so that without this call those of owners who delete nothing are kept.
    ///
    /// Each statement takes little time, however many owners and deletions there are: it reads at most 500 owners, or
    /// forgets at most 200 deletions of one owner. If the call fails, what it has done stays done.
    ///
    /// # Errors
    ///
    /// Those of every call.
    pub async fn purge_all(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.purge_owners(before).await
    }

    /// Makes every client begin again that follows the [changes](super::TaskStore::changes) of an owner, and returns the
    /// number of owners. Call it after a backup was restored, before clients are served: they may have seen changes that
    /// are lost now, and would not notice it once their owner makes others. Lists that they have kept are not current
    /// any more, either.
    ///
    /// At most 500 owners are changed at once. If the call fails, call it again.
    ///
    /// # Errors
    ///
    /// Those of every call.
    pub async fn expire_sync_points(&self) -> Result<u64, StoreError> {
        self.expire_owners().await
    }

    /// Closes the file. If no other process has it open, SQLite deletes the two files beside it. Running calls end
    /// normally; later calls fail with [`StoreError::Unavailable`].
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

/// Why the file cannot be opened at the start. Later, the same error may be temporary, such as too many open files.
fn cannot_open(reason: NoConnection) -> StoreError {
    match reason {
        NoConnection::ConnectFailed(error) if condition(&error) == Condition::CannotOpen => {
            let text = "the SQLite file cannot be opened or created; create the folder that contains it, and let this process \
                        write there";
            SetupError::new(text).with_source(error).into()
        }
        reason => reason.into(),
    }
}

/// Why the file cannot be written at the start. Later, the same error may be temporary.
fn cannot_write(error: StoreError) -> StoreError {
    match error {
        StoreError::NotWritable(source)
            if source.downcast_ref().is_some_and(|error| condition(error) == Condition::FileIsReadOnly) =>
        {
            let text =
                "the SQLite file cannot be written; let this process write the file and the folder that contains it";
            let mistake = SetupError::new(text);
            mistake.with_source(source).into()
        }
        error => error,
    }
}

/// Opens connections to a file.
struct Opener {
    options: SqliteConnectOptions,
    /// Whether the file is created if it does not exist.
    creates: bool,
}

impl Opener {
    async fn open(&self) -> Result<SqliteConnection, sqlx::Error> {
        if self.creates {
            create_private(self.options.get_filename());
        }
        let begun = Instant::now();
        loop {
            match self.options.connect().await {
                // SQLite itself does not always wait for the lock that it needs to change a new file to WAL mode.
                Err(error) if condition(&error) == Condition::Locked && begun.elapsed() < PATIENCE => {
                    sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    }
}

/// Creates the file if it does not exist, so that only this user can read it: SQLite would let every user read it. The
/// two files beside it get the same permissions from SQLite.
fn create_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // It usually exists. If it cannot be created, SQLite says why.
    drop(options.open(path));
}

impl Connector<Sqlite> for Opener {
    fn connect(&self) -> BoxFuture<'_, Result<Opened<Sqlite>, sqlx::Error>> {
        self.open().map(|opened| opened.map(Opened::new)).boxed()
    }
}

/// Values as arguments of a statement.
fn arguments<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add(text.as_deref()),
            Value::Uuid(id) => arguments.add(id),
            Value::Bool(value) => arguments.add(value),
            Value::Small(number) => arguments.add(number),
            Value::Big(number) => arguments.add(number),
            // Microseconds since 1970.
            Value::Time(time) => arguments.add(time.map(Timestamp::unix_micros)),
            Value::Bytes(bytes) => arguments.add(bytes.map(<[u8]>::to_vec)),
            Value::Texts(texts) => arguments.add(texts.map(|texts| json_array(&texts))),
            Value::Smalls(numbers) => arguments.add(numbers.map(|numbers| json_array(&numbers))),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn time(row: &SqliteRow, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get_unchecked::<Option<i64>, _>(column)?.map(Timestamp::from_unix_micros))
}

fn texts(row: &SqliteRow, column: usize) -> Result<Option<Vec<String>>, sqlx::Error> {
    let json: Option<String> = row.try_get_unchecked(column)?;
    json.map(|json| serde_json::from_str(&json)).transpose().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// The task in a row, from a column on.
fn read_task(owner: &UserId, row: &SqliteRow, first: usize) -> Result<Task, sqlx::Error> {
    fields!(row, first, time, texts).into_task(owner)
}

/// Several ids in hexadecimal, as a JSON array.
fn id_list(ids: impl Iterator<Item = TaskId>) -> String {
    json_array(&ids.map(|id| format!("{:x}", id.as_uuid().simple())).collect::<Vec<_>>())
}

/// Several texts as a JSON array.
fn text_list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    json_array(&texts.collect::<Vec<_>>())
}

/// Runs a statement with filters.
async fn selected_rows(
    connection: &mut SqliteConnection,
    _: &Statements,
    statement: SqlStr,
    values: Vec<Value<'_>>,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    sqlx::query_with(statement, arguments(values)?).fetch_all(connection).await
}

/// Begins a transaction that writes, or a savepoint in that of the host. It is rolled back when it is dropped.
async fn begin<'a>(
    connection: &'a mut SqliteConnection,
    sql: &Statements,
) -> Result<sqlx::Transaction<'a, Sqlite>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query(sql.sqlite.lock.clone()).execute(&mut *transaction).await?;
    Ok(transaction)
}

impl Operation<SqliteConnection> for UpdateMatching<'_> {
    type Output = BulkResult;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<BulkResult, sqlx::Error> {
        let Self { owner, filter, change, now } = self;
        let mut transaction = begin(connection, sql).await?;
        let matched = match (Count { owner, filter, known: None }).run(&mut *transaction, sql).await? {
            Read::Changed { value, .. } => value,
            Read::Unchanged => 0,
        };
        let values = arguments(Selections::update_values(owner.as_str(), filter, change, *now))?;
        let update = static_text(sql.selections.update(filter));
        let changed = sqlx::query_with(update, values).execute(&mut *transaction).await?.rows_affected();
        transaction.commit().await?;
        Ok(BulkResult { matched, changed })
    }
}

impl Operation<SqliteConnection> for Reposition<'_> {
    type Output = Vec<Task>;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<Vec<Task>, sqlx::Error> {
        let positions: serde_json::Map<_, _> = self
            .positions
            .iter()
            .map(|(id, position)| (id.as_uuid().simple().to_string(), position.as_str().into()))
            .collect();
        let values = [
            Value::Text(Some(self.owner.as_str().into())),
            Value::Text(Some(serde_json::Value::Object(positions).to_string().into())),
            Value::Text(None),
            Value::Time(Some(self.now)),
            Value::Uuid(Some(self.moved.0.as_uuid())),
            Value::Big(Some(self.moved.1)),
        ];
        let rows = sqlx::query_with(sql.call.reposition.clone(), arguments(values)?).fetch_all(connection).await?;
        rows.iter().map(|row| read_task(self.owner, row, 0)).collect()
    }
}

impl Operation<SqliteConnection> for DeleteMatching<'_> {
    type Output = u64;
    const EFFECT: Effect = Effect::Write;

    async fn run(&self, connection: &mut SqliteConnection, sql: &Statements) -> Result<u64, sqlx::Error> {
        let values = arguments(Selections::filter_values(self.owner.as_str(), self.filter))?;
        let done = sqlx::query_with(sql.selections.delete(self.filter), values).execute(connection).await?;
        Ok(done.rows_affected())
    }
}

impl SqliteStore {
    async fn run<O: Operation<SqliteConnection>>(&self, operation: &O) -> Result<O::Output, StoreError> {
        let pool = if O::EFFECT == Effect::Read { &self.readers } else { &self.writer };
        let mut connection = pool.lease().await.map_err(|reason| {
            let is_opening = matches!(reason, NoConnection::ConnectFailed(_));
            let error = StoreError::from(reason);
            if is_opening { error.of_attempt(|| format!("open {}", self.path.display())) } else { error }
        })?;
        let result = operation.run(&mut connection, &self.sql).await;
        connection.finish(result.as_ref().map(|_| ()));
        result.map_err(|error| O::EFFECT.failed(error))
    }
}

task_store!(SqliteStore);
for_all_owners!(SqliteStore);

/// A store within a transaction of the host, made by [`SqliteStore::in_transaction`]: the host's rows and the tasks
/// commit or roll back together.
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
        operation.run(&mut connection, &self.sql).await.map_err(|error| O::EFFECT.failed(error))
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
    use crate::{UserId, store::TaskStore as _};

    #[tokio::test]
    async fn each_commit_is_synced_to_the_disk() {
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
    async fn closing_leaves_one_file() {
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
    async fn writes_over_the_limit_are_rejected_at_once_and_reads_are_not() {
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
        waiting.await.expect("it gets the connection");
        assert_eq!(store.writer_status().waiting, 0);
    }

    #[tokio::test]
    async fn a_store_in_a_transaction_shares_the_statements_of_its_store() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tasks.db");
        let names = Names::new("todo", "chores").expect("names");
        let store = SqliteStore::open_lazy(&path).with_names(names);
        store.migrate().await.expect("migrated");
        let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.expect("a pool");
        let transaction = pool.begin_with("begin immediate").await.expect("a transaction");
        let in_transaction = store.in_transaction(transaction).await.expect("it can write");
        assert!(Arc::ptr_eq(&store.sql, &in_transaction.sql));
        let statements = Arc::downgrade(&store.sql);
        drop((store, in_transaction));
        assert!(statements.upgrade().is_none(), "the statements are freed with the last store");
    }

    #[tokio::test]
    async fn connections_for_reads_cannot_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open_lazy(directory.path().join("tasks.db"));
        store.migrate().await.expect("migrated");
        let mut reader = store.readers.lease().await.expect("a reader");
        let owner = UserId::new("ann").expect("a user");
        let error = Erase { owner: &owner }.run(&mut *reader, &store.sql).await.expect_err("it only reads");
        assert!(error.to_string().contains("readonly"), "{error}");
    }
}
