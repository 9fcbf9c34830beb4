//! The statements, once for both dialects, and the functions that run them on a connection.
//!
//! Every statement names `user_id = $1`; `scripts/check-isolation` weakens one after the other and shows that the store
//! suite notices each.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::{
    SqlSafeStr as _,
    error::DatabaseError,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    Completion, StoreError, TaskChange,
    names::{Dialect, Names},
};
use crate::{Description, Patch, Task, TaskId, Title, UserId, clock::Timestamp};

/// The statements with the names put in, so that a call formats nothing.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) insert: &'static str,
    pub(super) get: &'static str,
    pub(super) list: &'static str,
    pub(super) list_completed: &'static str,
    pub(super) update: &'static str,
    pub(super) delete: &'static str,
    pub(super) erase: &'static str,
    pub(super) ping: &'static str,
    pub(super) has_tasks: &'static str,
    #[cfg(feature = "sqlite")]
    pub(super) lock: &'static str,
    #[cfg(feature = "postgres")]
    pub(super) batch: Batches,
}

/// The same for many calls at once.
#[cfg(feature = "postgres")]
#[derive(Debug)]
pub(super) struct Batches {
    pub(super) get: &'static str,
    pub(super) list: &'static str,
    pub(super) list_completed: &'static str,
    pub(super) insert: &'static str,
    pub(super) update: &'static str,
    pub(super) delete: &'static str,
}

// No statement fails on purpose: in PostgreSQL a statement that fails aborts the transaction, which may be the host's.
const INSERT: &str = "insert into {tasks} (user_id, id, title, description, completed, created_at, updated_at, version) \
    values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing";

const GET: &str = "select id, title, description, completed, created_at, updated_at, version from {tasks} \
    where user_id = $1 and id = $2";

const LIST: &str = "select id, title, description, completed, created_at, updated_at, version from {tasks} \
    where user_id = $1 and id <= $2 order by id desc limit $3";

// A statement of its own, not an `or $4 is null`: one plan that serves both would read the wrong index for one.
const LIST_COMPLETED: &str = "select id, title, description, completed, created_at, updated_at, version from {tasks} \
    where user_id = $1 and {completed} and id <= $2 order by id desc limit $3";

// $3 title or null; $4 whether the description changes, $5 to what; $6 toggle; $7 completed or null; $8 now.
const UPDATE: &str = "update {tasks} set \
    title = coalesce($3, title), \
    description = case when $4 then $5 else description end, \
    completed = case when $6 then not completed else coalesce($7, completed) end, \
    updated_at = case when {changes} then {greatest}(updated_at, $8) else updated_at end, \
    version = case when {changes} then version + 1 else version end \
    where user_id = $1 and id = $2 \
    returning id, title, description, completed, created_at, updated_at, version";

const CHANGES: &str = "(coalesce($3, title) <> title or ($4 and $5 is distinct from description) or $6 \
    or coalesce($7, completed) <> completed)";

const DELETE: &str = "delete from {tasks} where user_id = $1 and id = $2";

const ERASE: &str = "delete from {tasks} where user_id = $1";

// Fails if the table is not there, and reads no row.
const PING: &str = "select 1 from {tasks} where false";

// Of any owner, so it is for migrations alone.
const HAS_TASKS: &str = "select exists (select 1 from {tasks})";

// A write of nothing, which takes SQLite's lock all the same.
#[cfg(feature = "sqlite")]
const LOCK: &str = "delete from {tasks} where false";

// Batches: the calls come as arrays, and `n` is the place of a call in them. Each row brings its owner, for the caller to
// compare. `lateral` and `offset 0` keep the planner from anything else than one look into an index for each call.

#[cfg(feature = "postgres")]
const GET_MANY: &str = "select k.n, t.user_id, t.id, t.title, t.description, t.completed, t.created_at, t.updated_at, t.version \
    from unnest($1::text[], $2::uuid[]) with ordinality as k (user_id, id, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.id = k.id offset 0) as t";

#[cfg(feature = "postgres")]
const LIST_MANY: &str = "select k.n, t.user_id, t.id, t.title, t.description, t.completed, t.created_at, t.updated_at, t.version \
    from unnest($1::text[], $2::uuid[], $3::bigint[]) with ordinality as k (user_id, newest, rows, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.id <= k.newest \
        order by t.id desc limit k.rows) as t";

#[cfg(feature = "postgres")]
const LIST_COMPLETED_MANY: &str = "select k.n, t.user_id, t.id, t.title, t.description, t.completed, t.created_at, t.updated_at, t.version \
    from unnest($1::text[], $2::uuid[], $3::bigint[], $4::boolean[]) with ordinality as k (user_id, newest, rows, completed, n) \
    cross join lateral (select * from {tasks} as t where t.user_id = k.user_id and t.completed = k.completed and t.id <= k.newest \
        order by t.id desc limit k.rows) as t";

#[cfg(feature = "postgres")]
const INSERT_MANY: &str = "insert into {tasks} (user_id, id, title, description, completed, created_at, updated_at, version) \
    select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::boolean[], $6::timestamptz[], $7::timestamptz[], $8::bigint[]) \
    on conflict do nothing returning user_id, id";

// Rows that somebody else has locked are left out, so that nobody waits but who wants them.
#[cfg(feature = "postgres")]
const UPDATE_MANY: &str = "with k as materialized (\
        select * from unnest($1::text[], $2::uuid[], $3::text[], $4::boolean[], $5::text[], $6::boolean[], $7::boolean[], $8::timestamptz[]) \
        with ordinality as k (user_id, id, title, describe, description, toggle, completed, now, n)\
    ), free as materialized (\
        select k.n, t.id from k cross join lateral (\
            select t.id from {tasks} as t where t.user_id = k.user_id and t.id = k.id for no key update skip locked) as t\
    ) \
    update {tasks} as t set \
    title = coalesce(k.title, t.title), \
    description = case when k.describe then k.description else t.description end, \
    completed = case when k.toggle then not t.completed else coalesce(k.completed, t.completed) end, \
    updated_at = case when {changes} then greatest(t.updated_at, k.now) else t.updated_at end, \
    version = case when {changes} then t.version + 1 else t.version end \
    from k join free using (n) where t.user_id = k.user_id and t.id = k.id \
    returning k.n, t.user_id, t.id, t.title, t.description, t.completed, t.created_at, t.updated_at, t.version";

#[cfg(feature = "postgres")]
const CHANGES_MANY: &str = "(coalesce(k.title, t.title) <> t.title \
    or (k.describe and k.description is distinct from t.description) or k.toggle \
    or coalesce(k.completed, t.completed) <> t.completed)";

#[cfg(feature = "postgres")]
const DELETE_MANY: &str = "with free as materialized (\
        select k.n, k.user_id, k.id from unnest($1::text[], $2::uuid[]) with ordinality as k (user_id, id, n) cross join lateral (\
            select t.id from {tasks} as t where t.user_id = k.user_id and t.id = k.id for update skip locked) as t\
    ) \
    delete from {tasks} as t using free as k where t.user_id = k.user_id and t.id = k.id returning k.n, t.user_id, t.id";

impl Statements {
    /// The statements for these names.
    pub(super) fn of(dialect: Dialect, names: &Names) -> Arc<Self> {
        Self::rendered(dialect, false, names)
    }

    /// The same as calls of the functions that bind their owner.
    #[cfg(feature = "postgres")]
    pub(super) fn with_row_security(names: &Names) -> Arc<Self> {
        Self::rendered(Dialect::Postgres, true, names)
    }

    /// They are rendered at their first use in this process, since a store within a transaction is made for each
    /// transaction.
    fn rendered(dialect: Dialect, row_security: bool, names: &Names) -> Arc<Self> {
        type Rendered = ((Dialect, bool, Names), Arc<Statements>);
        static RENDERED: Mutex<Vec<Rendered>> = Mutex::new(Vec::new());
        let mut rendered = RENDERED.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |key: &(Dialect, bool, Names)| key.0 == dialect && key.1 == row_security && key.2 == *names;
        if let Some((_, statements)) = rendered.iter().find(|(key, _)| is_wanted(key)) {
            return statements.clone();
        }
        let statements = Self::render(dialect, names);
        #[cfg(feature = "postgres")]
        let statements = if row_security { super::row_security::calls(statements, names) } else { statements };
        let statements = Arc::new(statements);
        rendered.push(((dialect, row_security, names.clone()), statements.clone()));
        statements
    }

    fn render(dialect: Dialect, names: &Names) -> Self {
        let (greatest, completed) = match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => ("greatest", "completed = $4"),
            // Without statistics SQLite (3.51) thinks that every other task is done, and rather reads them all by their
            // key until a page is full than to use the index that is made for this.
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => ("max", "unlikely(completed = $4)"),
        };
        let names = names.resolve(dialect);
        // sqlx takes a `&'static str`, or checks a `String` at each call. The names of a program are few, and the
        // statements are rendered once for each.
        let render = |template: &str| -> &'static str {
            let template = template.replace("{changes}", CHANGES).replace("{greatest}", greatest);
            names.render(&template.replace("{completed}", completed)).leak()
        };
        Self {
            insert: render(INSERT),
            get: render(GET),
            list: render(LIST),
            list_completed: render(LIST_COMPLETED),
            update: render(UPDATE),
            delete: render(DELETE),
            erase: render(ERASE),
            ping: render(PING),
            has_tasks: render(HAS_TASKS),
            #[cfg(feature = "sqlite")]
            lock: render(LOCK),
            #[cfg(feature = "postgres")]
            batch: Batches {
                get: render(GET_MANY),
                list: render(LIST_MANY),
                list_completed: render(LIST_COMPLETED_MANY),
                insert: render(INSERT_MANY),
                update: render(&UPDATE_MANY.replace("{changes}", CHANGES_MANY)),
                delete: render(DELETE_MANY),
            },
        }
    }
}

/// A step of the schema, there and back. The way there never changes once it is released: its checksum is in the ledger.
struct Step {
    description: &'static str,
    up: &'static str,
    down: &'static str,
}

macro_rules! step {
    ($dialect:literal, $name:literal, $description:literal) => {
        Step {
            description: $description,
            up: include_str!(concat!("../../migrations/", $dialect, "/", $name, ".up.sql")),
            down: include_str!(concat!("../../migrations/", $dialect, "/", $name, ".down.sql")),
        }
    };
}

/// Version 1, version 2 and so on.
fn steps(dialect: Dialect) -> &'static [Step] {
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => {
            &[step!("postgres", "0001_tasks", "tasks"), step!("postgres", "0002_row_security", "row security")]
        }
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => &[step!("sqlite", "0001_tasks", "tasks")],
    }
}

/// The version that this library works with.
pub(super) fn newest_version(dialect: Dialect) -> u32 {
    u32::try_from(steps(dialect).len()).unwrap_or(u32::MAX)
}

/// The migrations with the names put in, and a ledger of their own: `_sqlx_migrations` is the host's.
pub(super) fn migrator(dialect: Dialect, names: &Names) -> Migrator {
    let resolved = names.resolve(dialect);
    let migrations = (1..).zip(steps(dialect)).flat_map(|(version, step)| {
        let ways = [(MigrationType::ReversibleUp, step.up), (MigrationType::ReversibleDown, step.down)];
        ways.map(|(way, source)| {
            let sql = sqlx::AssertSqlSafe(resolved.render(source)).into_sql_str();
            Migration::new(version, step.description.into(), way, sql, false)
        })
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    #[cfg(feature = "postgres")]
    if dialect == Dialect::Postgres {
        migrator.create_schema(format!(r#""{}""#, names.schema()));
    }
    migrator.dangerous_set_table_name(resolved.ledger);
    migrator
}

/// Runs the migrations, up to a version if one is named. Boxed, because the compiler does not see through sqlx's bounds
/// that the future may change threads ("implementation of `Acquire` is not general enough").
pub(super) fn migrate<'a, C>(migrator: &'a Migrator, connection: &'a mut C, to: Option<u32>) -> Migrating<'a, ()>
where
    C: Migrate + Send,
{
    Box::pin(migrator.run_direct(to.map(i64::from), connection, false))
}

/// Runs the ways back down to a version, and answers which one the database has then. It takes no lock, and is to run
/// within a transaction.
pub(super) fn revert<'a, C>(migrator: &'a Migrator, connection: &'a mut C, to: u32) -> Migrating<'a, u32>
where
    C: Migrate + Send,
{
    Box::pin(async move {
        let ledger = &migrator.table_name;
        connection.ensure_migrations_table(ledger).await?;
        let applied = connection.list_applied_migrations(ledger).await?;
        let mut version = 0;
        for applied in &applied {
            if !migrator.version_exists(applied.version) {
                return Err(MigrateError::VersionMissing(applied.version));
            }
            version = version.max(u32::try_from(applied.version).unwrap_or(0));
        }
        let backwards = migrator.iter().rev().filter(|step| step.migration_type.is_down_migration());
        for step in backwards.filter(|step| applied.iter().any(|applied| applied.version == step.version)) {
            if step.version > i64::from(to) {
                connection.revert(ledger, step).await?;
                version = u32::try_from(step.version - 1).unwrap_or(0);
            }
        }
        Ok(version)
    })
}

type Migrating<'a, T> = Pin<Box<dyn Future<Output = Result<T, MigrateError>> + Send + 'a>>;

/// Whether a migration may take the tasks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataLoss {
    /// It fails, and changes nothing, while there are tasks that it would remove.
    Refuse,
    /// It removes them.
    Accept,
}

/// The version that somebody asks for, if there is such a one.
pub(super) fn known_version(dialect: Dialect, version: u32) -> Result<u32, StoreError> {
    let newest = newest_version(dialect);
    if version <= newest {
        return Ok(version);
    }
    Err(StoreError::Backend(format!("there is no version {version} of the tables; the newest is {newest}").into()))
}

pub(super) fn tasks_would_be_lost() -> StoreError {
    StoreError::Backend("there are tasks, and version 0 has no place for them: nothing was changed".into())
}

/// What a failed migration means to the caller.
pub(super) fn migration_failed(dialect: Dialect, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) => error.into(),
        MigrateError::ExecuteMigration(error, _) if is_lock_refused(&error) => error.into(),
        MigrateError::VersionMissing(version) => newer_version(dialect, version),
        error => StoreError::Backend(error.into()),
    }
}

/// Whether a migration has failed because somebody else had the lock that it needs.
#[cfg(feature = "postgres")]
pub(super) fn is_locked(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(source) if source.downcast_ref::<sqlx::Error>().is_some_and(is_lock_refused))
}

fn is_lock_refused(error: &sqlx::Error) -> bool {
    has_code(error, &["55P03"])
}

/// Somebody with a newer library was here.
pub(super) fn newer_version(dialect: Dialect, version: i64) -> StoreError {
    let known = newest_version(dialect);
    let text = format!(
        "the tables are at version {version}, and this program knows none after {known}: use a newer one, or let the \
         newer one take them back to version {known}"
    );
    StoreError::Backend(text.into())
}

/// What `update` binds, in the order of its parameters.
pub(super) struct Change<'a> {
    pub(super) title: Option<&'a str>,
    pub(super) describe: bool,
    pub(super) description: Option<&'a str>,
    pub(super) toggle: bool,
    pub(super) completed: Option<bool>,
}

impl<'a> From<&'a TaskChange> for Change<'a> {
    fn from(change: &'a TaskChange) -> Self {
        Self {
            title: change.title.as_ref().map(Title::as_str),
            describe: change.description != Patch::Keep,
            description: match &change.description {
                Patch::Set(description) => Some(description.as_str()),
                Patch::Keep | Patch::Clear => None,
            },
            toggle: change.completed == Some(Completion::Toggle),
            completed: match change.completed {
                Some(Completion::Set(completed)) => Some(completed),
                Some(Completion::Toggle) | None => None,
            },
        }
    }
}

/// A row as the statements above answer it; `T` is how the dialect keeps a time.
pub(super) type Row<T> = (uuid::Uuid, String, Option<String>, bool, T, T, i64);

pub(super) fn task<T: Into<Timestamp>>(owner: &UserId, row: Row<T>) -> Result<Task, sqlx::Error> {
    let (id, title, description, completed, created_at, updated_at, version) = row;
    let decode = |error| sqlx::Error::Decode(Box::new(error));
    Ok(Task {
        id: TaskId::from(id),
        user_id: owner.clone(),
        title: Title::new(title).map_err(decode)?,
        description: description.map(Description::new).transpose().map_err(decode)?,
        completed,
        created_at: created_at.into(),
        updated_at: updated_at.into(),
        version,
    })
}

/// The functions that run the statements on a connection of one dialect. They are the same but for the types, which
/// sqlx lets nobody abstract over without a page of bounds.
macro_rules! operations {
    ($connection:ty, $database:ty, $time:ty) => {
        use crate::{
            Page, Task, TaskId, TaskQuery, UserId,
            clock::Timestamp,
            store::{
                TaskChange,
                sql::{Change, Row, Statements, task},
            },
        };

        pub(in crate::store) async fn insert(
            connection: &mut $connection,
            sql: &Statements,
            owner: &UserId,
            task: &Task,
        ) -> Result<bool, sqlx::Error> {
            let done = sqlx::query(sql.insert)
                .bind(owner.as_str())
                .bind(task.id.as_uuid())
                .bind(task.title.as_str())
                .bind(task.description.as_ref().map(|description| description.as_str()))
                .bind(task.completed)
                .bind(<$time>::from(task.created_at))
                .bind(<$time>::from(task.updated_at))
                .bind(task.version)
                .execute(connection)
                .await?;
            Ok(done.rows_affected() == 1)
        }

        pub(in crate::store) async fn get(
            connection: &mut $connection,
            sql: &Statements,
            owner: &UserId,
            id: TaskId,
        ) -> Result<Option<Task>, sqlx::Error> {
            let row: Option<Row<$time>> =
                sqlx::query_as(sql.get).bind(owner.as_str()).bind(id.as_uuid()).fetch_optional(connection).await?;
            row.map(|row| task(owner, row)).transpose()
        }

        pub(in crate::store) async fn list(
            connection: &mut $connection,
            sql: &Statements,
            owner: &UserId,
            query: &TaskQuery,
        ) -> Result<Page, sqlx::Error> {
            let Some(newest) = query.newest() else {
                return Ok(Page::default());
            };
            let statement = if query.completed.is_some() { sql.list_completed } else { sql.list };
            let mut statement = sqlx::query_as(statement)
                .bind(owner.as_str())
                .bind(newest.as_uuid())
                .bind(i64::from(query.limit.get()) + 1);
            if let Some(completed) = query.completed {
                statement = statement.bind(completed);
            }
            let rows: Vec<Row<$time>> = statement.fetch_all(connection).await?;
            let tasks = rows.into_iter().map(|row| task(owner, row)).collect::<Result<_, _>>()?;
            Ok(Page::from_one_more(tasks, query.limit))
        }

        pub(in crate::store) async fn update(
            connection: &mut $connection,
            sql: &Statements,
            owner: &UserId,
            id: TaskId,
            change: &TaskChange,
            now: Timestamp,
        ) -> Result<Option<Task>, sqlx::Error> {
            let change = Change::from(change);
            // Not `fetch_optional`: on SQLite it answers with the first row, and the statement commits only when it
            // has been read to its end.
            let rows: Vec<Row<$time>> = sqlx::query_as(sql.update)
                .bind(owner.as_str())
                .bind(id.as_uuid())
                .bind(change.title)
                .bind(change.describe)
                .bind(change.description)
                .bind(change.toggle)
                .bind(change.completed)
                .bind(<$time>::from(now))
                .fetch_all(connection)
                .await?;
            rows.into_iter().next().map(|row| task(owner, row)).transpose()
        }

        pub(in crate::store) async fn delete(
            connection: &mut $connection,
            sql: &Statements,
            owner: &UserId,
            id: TaskId,
        ) -> Result<bool, sqlx::Error> {
            let done = sqlx::query(sql.delete).bind(owner.as_str()).bind(id.as_uuid()).execute(connection).await?;
            Ok(done.rows_affected() == 1)
        }

        pub(in crate::store) async fn erase(
            connection: &mut $connection,
            sql: &Statements,
            owner: &UserId,
        ) -> Result<u64, sqlx::Error> {
            let done = sqlx::query(sql.erase).bind(owner.as_str()).execute(connection).await?;
            Ok(done.rows_affected())
        }

        pub(in crate::store) async fn ping(connection: &mut $connection, sql: &Statements) -> Result<(), sqlx::Error> {
            sqlx::query(sql.ping).execute(connection).await.map(|_| ())
        }

        pub(in crate::store) async fn has_tasks(
            connection: &mut $connection,
            sql: &Statements,
        ) -> Result<bool, sqlx::Error> {
            sqlx::query_scalar(sql.has_tasks).fetch_one(connection).await
        }
    };
}
pub(super) use operations;

/// Whether the connection is gone, so that another may do better.
pub(super) fn is_disconnected(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // Class 08 is "connection exception"; 57P01 to 57P05 say that the server ends this connection.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
        }
        _ => false,
    }
}

/// The code (SQLSTATE) that the server gave.
fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| codes.contains(&&*code))
}

/// Serialization failure or deadlock: the server has rolled back what met somebody else.
#[cfg(feature = "postgres")]
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    has_code(error, &["40001", "40P01"])
}

/// What this connection has prepared is of no use any more, since a column has changed or a pooler has forgotten it. The
/// statement did not run.
pub(super) fn is_outdated(error: &sqlx::Error) -> bool {
    has_code(error, &["0A000", "26000"])
}

/// A standby, or a primary that is one no more: the connection leads to the wrong server.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "25006")
}

/// Whether nobody could be reached, or nobody had room, so that another attempt to connect may do better. A server that
/// offers no encryption, or whose certificate is wrong, will not.
#[cfg(feature = "postgres")]
pub(super) fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => false,
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => false,
        _ => (is_disconnected(error) && refused_certificate(error).is_none()) || has_code(error, &["53300"]),
    }
}

/// What is wrong with the server's certificate, if that is why there is no connection.
#[cfg(feature = "postgres")]
pub(super) fn refused_certificate(error: &sqlx::Error) -> Option<String> {
    // sqlx does not export rustls, whose error this is.
    match error {
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
            io.to_string().strip_prefix("invalid peer certificate: ").map(str::to_owned)
        }
        _ => None,
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_disconnected(&error) {
            return Self::Unavailable(error.into());
        }
        match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Unavailable(error.into()),
            sqlx::Error::Database(database) => match database_condition(&**database) {
                Condition::Busy => Self::Unavailable(error.into()),
                Condition::Canceled => Self::Timeout(error.into()),
                Condition::Other => Self::Backend(error.into()),
            },
            _ => Self::Backend(error.into()),
        }
    }
}

enum Condition {
    Busy,
    Canceled,
    Other,
}

fn database_condition(error: &dyn DatabaseError) -> Condition {
    match error.code().as_deref() {
        // PostgreSQL: insufficient resources, serialization failure, deadlock, lock not available, read-only (a
        // standby, or a primary in failover).
        Some(code) if code.starts_with("53") || ["40001", "40P01", "55P03", "25006"].contains(&code) => Condition::Busy,
        Some("57014") => Condition::Canceled,
        // SQLite: SQLITE_BUSY (5), SQLITE_LOCKED (6), SQLITE_IOERR (10), SQLITE_FULL (13), SQLITE_CANTOPEN (14), with
        // their extended codes, whose low byte is the code.
        Some(code)
            if code.len() < 5 && matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(5 | 6 | 10 | 13 | 14)) =>
        {
            Condition::Busy
        }
        _ => Condition::Other,
    }
}
