//! Migrations on PostgreSQL.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, migrate::Migrator, pool::PoolConnection};
use tokio::time::{Instant, sleep};

use super::{
    super::{
        error::{SetupError, StoreError},
        sql::{
            classify::connect_failed,
            migrate::{self, DataLoss, MigrationLockHeld},
            names::{Dialect, Names},
            operations::{HasTasks, Operation as _},
            sqlstate::{Condition, condition},
            statements::Statements,
        },
    },
    PostgresStore,
    connections::Connections,
    distribution,
    functions::{add_functions, drop_functions, execute, missing_functions},
    session::connect,
};

/// What is done with the tables while no other session migrates them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    To(u32, DataLoss),
    Distribute,
    Undistribute,
}

/// For how long a migration is repeated that waits for a lock.
const LIMIT: Duration = Duration::from_secs(10);

impl PostgresStore {
    /// Migrates schema and table to the newest version. It is safe to call this in many processes at once. If the
    /// tables are at the newest version, it only reads the ledger: it takes no lock, and needs no privilege but to read
    /// the ledger.
    ///
    /// To migrate, it needs a direct connection, not a pooler in transaction mode, since it holds an advisory lock of
    /// the session. The key of the lock is `hashtextextended('todo-core migrations in "schema"."table"', 0)`, with the
    /// [`Names`] of this store. Other calls wait for a migration for at most a second at a time. If it is dropped or
    /// fails, no migration is half done.
    ///
    /// Every role that may connect to the database can take an advisory lock. So a hostile role can delay a migration,
    /// but not the start of a server whose tables are at the newest version.
    ///
    /// # Errors
    ///
    /// The server cannot be reached; another transaction has held the tables for ten seconds, or another session the
    /// lock, which the error names ([`StoreError::Unavailable`]); or the role may not create the schema, or a newer
    /// version of this library has migrated the tables ([`StoreError::Setup`]).
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.migrate_to(migrate::newest_version(Dialect::Postgres), DataLoss::Refuse).await
    }

    /// Migrates schema and table to this version, which may be an older one. Version 0 is no table; the schema stays,
    /// since it may contain other tables. Going back is one transaction.
    ///
    /// ```no_run
    /// # async fn back(store: todo_core::store::PostgresStore) -> Result<(), todo_core::store::StoreError> {
    /// use todo_core::store::DataLoss;
    ///
    /// store.migrate_to(1, DataLoss::Refuse).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`migrate`](Self::migrate); or there is no such version, or there are tasks that it would delete, and
    /// `loss` is [`DataLoss::Refuse`] ([`StoreError::Setup`]).
    pub async fn migrate_to(&self, version: u32, loss: DataLoss) -> Result<(), StoreError> {
        self.change(Change::To(migrate::known_version(Dialect::Postgres, version)?, loss)).await.map(|_| ())
    }

    /// Distributes the tables over the nodes of a Citus cluster by their owner, and returns what it did, a sentence for
    /// each step; nothing, if everything was done. It migrates to the newest version first.
    ///
    /// Call it over a connection to the coordinator, as the owner of the tables. It is safe to call it beside running
    /// servers, and again: what somebody has left half done is completed. Tasks, revisions and deletions of an owner are
    /// then on one node, and each call asks that node alone. The ledger of the migrations is on every node.
    ///
    /// All of it is one transaction. Until it ends, other calls wait, or fail with [`StoreError::Unavailable`]. The tasks
    /// that are there are copied, which took about 10 s for a million.
    ///
    /// A store finds out in [`migrate`](Self::migrate) or [`check_tables`](Self::check_tables) that its tables are
    /// distributed, and then runs each call by itself ([`CoalescingStore`](crate::store::CoalescingStore) does not batch).
    /// So call one of them at start, and start servers again that were running before.
    ///
    /// ```no_run
    /// # async fn distribute(store: todo_core::store::PostgresStore) -> Result<(), todo_core::store::StoreError> {
    /// for step in store.distribute().await? {
    ///     println!("{step}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`migrate`](Self::migrate); or there is no Citus in the database, this is not its coordinator, a table is
    /// distributed in another way, or the role does not own the tables ([`StoreError::Setup`], with a text that says what
    /// to change).
    pub async fn distribute(&self) -> Result<Vec<String>, StoreError> {
        self.before_change().await?;
        self.change(Change::Distribute).await
    }

    /// Makes ordinary tables of the distributed ones again, on the coordinator, and returns what it did; nothing, if they
    /// are ordinary. The ledger stays on every node, where it does no harm.
    ///
    /// What [`distribute`](Self::distribute) says about other calls applies here too.
    ///
    /// # Errors
    ///
    /// Those of [`distribute`](Self::distribute).
    pub async fn undistribute(&self) -> Result<Vec<String>, StoreError> {
        self.before_change().await?;
        self.change(Change::Undistribute).await
    }

    async fn before_change(&self) -> Result<(), StoreError> {
        if let Some(obstacle) = self.run(&distribution::Look).await?.wrong_server() {
            return Err(SetupError::new(obstacle).into());
        }
        self.migrate().await
    }

    /// Changes the tables, and returns what was done. Repeats it for a while if another transaction holds a lock that it
    /// needs.
    pub(super) async fn change(&self, change: Change) -> Result<Vec<String>, StoreError> {
        let begun = Instant::now();
        loop {
            match self.change_once(change).await {
                Err(error) if migrate::is_locked(&error) && begun.elapsed() < LIMIT => {
                    tracing::warn!(target: "todo_core::store", "a migration waits for another transaction or migration to end");
                    // Calls that have queued up behind the migration run first.
                    sleep(self.connections.jitter().spread(Duration::from_secs(1))).await;
                }
                result => return result.map_err(StoreError::with_hint),
            }
        }
    }

    async fn change_once(&self, change: Change) -> Result<Vec<String>, StoreError> {
        match &self.connections {
            // Not a connection of the pool, whose statements have a time limit.
            Connections::Own { session, .. } => {
                let mut connection = connect(&session.servers, session.connect_timeout).await?;
                let changed = run(&mut connection, &self.sql, change).await;
                // The farewell matters only to the server's log.
                let _ = connection.close().await;
                changed
            }
            Connections::Host { pool, .. } => {
                let mut connection = pool.acquire().await.map_err(connect_failed)?;
                if is_done(&mut connection, &self.sql, change).await? {
                    return Ok(Vec::new());
                }
                let mut connection = HostConnection(Some(connection));
                let lock_timeout = LockTimeout::of(&mut connection).await?;
                let steps = run(&mut connection, &self.sql, change).await?;
                lock_timeout.restore(&mut connection).await?;
                connection.give_back();
                Ok(steps)
            }
        }
    }
}

/// A connection of the host's pool that is closed, and not given back, if the migration fails or is dropped: its
/// session may still hold the advisory lock.
struct HostConnection(Option<PoolConnection<Postgres>>);

impl HostConnection {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for HostConnection {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl Deref for HostConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().unwrap_or_else(|| unreachable!("taken only by give_back, which takes the connection"))
    }
}

impl DerefMut for HostConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().unwrap_or_else(|| unreachable!("taken only by give_back, which takes the connection"))
    }
}

/// The `lock_timeout` of a session before a migration.
struct LockTimeout {
    millis: String,
    /// Whether the session has set it, or else the role, the database or the server.
    is_of_session: bool,
}

impl LockTimeout {
    async fn of(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let setting = "select setting, source = 'session' from pg_settings where name = 'lock_timeout'";
        let (millis, is_of_session) = sqlx::query_as(setting).fetch_one(connection).await?;
        Ok(Self { millis, is_of_session })
    }

    async fn restore(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let restored = if self.is_of_session {
            sqlx::query("select set_config('lock_timeout', $1, false)").bind(&self.millis).execute(connection).await
        } else {
            sqlx::raw_sql("reset lock_timeout").execute(connection).await
        };
        restored.map(|_| ())
    }
}

/// Leaves `lock_timeout` changed; and after an error, possibly, the advisory lock held.
async fn run(connection: &mut PgConnection, sql: &Statements, change: Change) -> Result<Vec<String>, StoreError> {
    if is_done(connection, sql, change).await? {
        return Ok(Vec::new());
    }
    // While a migration waits for a table, all other calls that want the table wait behind it.
    sqlx::raw_sql("set lock_timeout = '1s'").execute(&mut *connection).await?;
    lock(connection, &sql.names).await?;
    let steps = match change {
        Change::To(version, loss) => {
            migrate_to(connection, sql, version, loss).await?;
            Vec::new()
        }
        Change::Distribute => distribution::distribute(connection, sql).await?,
        Change::Undistribute => distribution::undistribute(connection, sql).await?,
    };
    unlock(connection, &sql.names).await?;
    Ok(steps)
}

async fn migrate_to(
    connection: &mut PgConnection,
    sql: &Statements,
    version: u32,
    loss: DataLoss,
) -> Result<(), StoreError> {
    let mut migrator = migrate::migrator(Dialect::Postgres, &sql.names);
    let failed = |error| migrate::migration_failed(Dialect::Postgres, error);
    // Only if it is missing: PostgreSQL requires the privilege to create a schema for `if not exists`, too, which the
    // owner of a schema that an administrator has created may lack.
    let has_schema = "select exists (select from pg_namespace where nspname = $1)";
    if !sqlx::query_scalar(has_schema).bind(sql.names.schema()).fetch_one(&mut *connection).await? {
        migrator.create_schema(format!(r#""{}""#, sql.names.schema()));
    }
    migrate::migrate(&migrator, &mut *connection, Some(version)).await.map_err(failed)?;
    let mut transaction = connection.begin().await?;
    distribution::prepare(&mut transaction).await?;
    if version < FIRST_WITH_POLICY {
        drop_functions(&mut transaction, &sql.names, "true").await?;
    }
    // Down to version 1 no task is deleted, and from there on row-level security hides none.
    let now = migrate::revert(&migrator, &mut *transaction, version.max(1)).await.map_err(failed)?;
    if now > version {
        if loss == DataLoss::Refuse && has_tasks(&mut transaction, sql).await? {
            return Err(migrate::tasks_would_be_lost());
        }
        migrate::revert(&migrator, &mut *transaction, version).await.map_err(failed)?;
    }
    if sql.row_security && is_row_security_off(&mut transaction, &sql.names).await? {
        for table in ["{tasks}", "{owners}", "{deleted}"] {
            let enable = format!("alter table {table} enable row level security, force row level security");
            execute(&mut transaction, &sql.names, &enable).await?;
        }
    }
    if sql.row_security && version >= FIRST_WITH_POLICY {
        add_functions(&mut transaction, &sql.names).await?;
        distribution::distribute_functions(&mut transaction, sql).await?;
    }
    transaction.commit().await?;
    distribution::look(connection, sql).await?;
    Ok(())
}

/// Whether there is nothing to migrate. This only reads, and waits for no lock of another session: every role that may
/// connect could hold one.
async fn is_done(connection: &mut PgConnection, sql: &Statements, change: Change) -> Result<bool, StoreError> {
    let Change::To(version, _) = change else { return Ok(false) };
    let is_done = is_at(connection, &migrate::migrator(Dialect::Postgres, &sql.names), sql, version).await?;
    if is_done {
        distribution::look(connection, sql).await?;
    }
    Ok(is_done)
}

async fn is_at(
    connection: &mut PgConnection,
    migrator: &Migrator,
    sql: &Statements,
    version: u32,
) -> Result<bool, StoreError> {
    // Asked of the catalogs, since the name of the ledger cannot be resolved in a schema without the privilege `usage`.
    let may_read = "select has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') \
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace \
        where n.nspname = $1 and c.relname = $2 || '_migrations'";
    let (schema, table) = (sql.names.schema(), sql.names.table());
    match sqlx::query_scalar(may_read).bind(schema).bind(table).fetch_optional(&mut *connection).await? {
        Some(true) => {}
        Some(false) => {
            let text = format!(
                "the role of the database connection may not read {schema}.{table}_migrations, so that it cannot be checked \
                 whether the tables are up to date; as their owner, grant usage on schema {schema} and select on this table \
                 (grant_to does)"
            );
            return Err(SetupError::new(text).into());
        }
        None => return Ok(false),
    }
    let is_at = migrate::is_at(migrator, &mut *connection, version).await;
    if !is_at.map_err(|error| migrate::migration_failed(Dialect::Postgres, error))? {
        return Ok(false);
    }
    if !sql.row_security || version < FIRST_WITH_POLICY {
        return Ok(true);
    }
    Ok(!is_row_security_off(connection, &sql.names).await?
        && missing_functions(connection, &sql.names).await?.is_empty())
}

/// The first version of the tables that has a policy, and so the functions that bind the owner.
const FIRST_WITH_POLICY: u32 = 2;

/// The key of the advisory lock, as an expression. It is not sqlx's key, which follows from the name of the database
/// alone, so that the host's migrations and ours do not wait for each other.
const LOCK_KEY: &str = "hashtextextended('todo-core migrations in {tasks}', 0)";

/// Takes the advisory lock of the migrations under these names.
async fn lock(connection: &mut PgConnection, names: &Names) -> Result<(), StoreError> {
    match execute(connection, names, &format!("select pg_advisory_lock({LOCK_KEY})")).await {
        Err(source) if condition(&source) == Condition::LockTimeout => {
            let holder = lock_holder(connection, names).await?;
            Err(StoreError::Unavailable(MigrationLockHeld { holder, source }.into()))
        }
        result => Ok(result?),
    }
}

async fn unlock(connection: &mut PgConnection, names: &Names) -> Result<(), sqlx::Error> {
    execute(connection, names, &format!("select pg_advisory_unlock({LOCK_KEY})")).await
}

/// Who holds the advisory lock, for a message.
async fn lock_holder(connection: &mut PgConnection, names: &Names) -> Result<String, sqlx::Error> {
    let holder = format!(
        "select coalesce(string_agg(format('process %s of the role %I', l.pid, a.usename), ', '), 'no process any more') \
            from pg_locks as l join pg_database as d on d.oid = l.database join pg_stat_activity as a on a.pid = l.pid, \
                lateral (select {LOCK_KEY} as key) as k \
            where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and d.datname = current_database() \
                and l.classid::bigint = (k.key >> 32) & 4294967295 and l.objid::bigint = k.key & 4294967295"
    );
    let holder = names.resolve(Dialect::Postgres).render(&holder);
    sqlx::query_scalar(AssertSqlSafe(holder)).fetch_one(connection).await
}

/// Whether there is a task. No other transaction can add one until this one ends.
async fn has_tasks(transaction: &mut PgConnection, sql: &Statements) -> Result<bool, sqlx::Error> {
    execute(transaction, &sql.names, "lock table {tasks} in access exclusive mode").await?;
    HasTasks.run(transaction, sql).await
}

/// Whether row-level security of one of the tables is not in force for all roles, the owner of the table included,
/// although there is a policy.
async fn is_row_security_off(connection: &mut PgConnection, names: &Names) -> Result<bool, sqlx::Error> {
    let is_off = "select bool_or(not (c.relrowsecurity and c.relforcerowsecurity) \
        and exists (select from pg_policy as p where p.polrelid = c.oid and p.polname = $2 || '_owner')) \
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace \
        where n.nspname = $1 and c.relname in ($2, $2 || '_owners', $2 || '_deleted')";
    let is_off: Option<bool> =
        sqlx::query_scalar(is_off).bind(names.schema()).bind(names.table()).fetch_one(connection).await?;
    Ok(is_off == Some(true))
}
