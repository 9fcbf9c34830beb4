//! The migrations of the tables, in both directions.

use std::pin::Pin;

use sqlx::{
    SqlSafeStr as _,
    migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    super::error::{SetupError, StoreError},
    names::{Dialect, Names},
    sqlstate::{Condition, condition},
};

/// A version of the tables: the statements that lead to it and back. The statements that lead to it never change after
/// their release, because their checksum is in the ledger.
struct Step {
    description: &'static str,
    up: &'static str,
    down: &'static str,
}

macro_rules! step {
    ($dialect:literal, $name:literal, $description:literal) => {
        Step {
            description: $description,
            up: include_str!(concat!("../../../migrations/", $dialect, "/", $name, ".up.sql")),
            down: include_str!(concat!("../../../migrations/", $dialect, "/", $name, ".down.sql")),
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

/// The triggers of the table, each with its name and the statement that creates it.
#[cfg(feature = "postgres")]
pub(in crate::store) fn triggers(names: &Names) -> Vec<(String, String)> {
    let text = names.resolve(Dialect::Postgres).render(steps(Dialect::Postgres)[0].up);
    let starts = text.match_indices("\ncreate trigger ").map(|(place, _)| &text[place + 1..]);
    let statements = starts.filter_map(|rest| rest.split_once(';').map(|(statement, _)| statement));
    statements.filter_map(|statement| Some((statement.split('"').nth(1)?.to_owned(), statement.to_owned()))).collect()
}

/// The version that this library works with.
pub(in crate::store) fn newest_version(dialect: Dialect) -> u32 {
    u32::try_from(steps(dialect).len()).unwrap_or(u32::MAX)
}

/// The migrations with the names put in. Their ledger is a table of its own: `_sqlx_migrations` belongs to the host.
pub(in crate::store) fn migrator(dialect: Dialect, names: &Names) -> Migrator {
    let resolved = names.resolve(dialect);
    let migrations = (1..).zip(steps(dialect)).flat_map(|(version, step)| {
        let ways = [(MigrationType::ReversibleUp, step.up), (MigrationType::ReversibleDown, step.down)];
        ways.map(|(way, source)| {
            let sql = sqlx::AssertSqlSafe(resolved.render(source)).into_sql_str();
            Migration::new(version, step.description.into(), way, sql, false)
        })
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(resolved.ledger);
    // The key of sqlx's lock belongs to every program that uses the database. The stores take locks of their own.
    migrator.set_locking(false);
    migrator
}

/// Whether the tables are at this version, according to the ledger, which must exist. This only reads.
pub(in crate::store) fn is_at<'a, C>(migrator: &'a Migrator, connection: &'a mut C, version: u32) -> Migrating<'a, bool>
where
    C: Migrate + Send,
{
    Box::pin(async move {
        let ledger = &migrator.table_name;
        if let Some(version) = connection.dirty_version(ledger).await? {
            return Err(MigrateError::Dirty(version));
        }
        agrees(migrator, &connection.list_applied_migrations(ledger).await?, version)
    })
}

/// Whether exactly the migrations up to this version have been applied. Fails if others have been, or with other text.
fn agrees(migrator: &Migrator, applied: &[AppliedMigration], version: u32) -> Result<bool, MigrateError> {
    let mut is_at = true;
    for applied in applied {
        is_known(migrator, applied)?;
        is_at &= applied.version <= i64::from(version);
    }
    Ok(is_at && u32::try_from(applied.len()) == Ok(version))
}

/// Fails unless the migration that was applied is one of these, with the same text.
fn is_known(migrator: &Migrator, applied: &AppliedMigration) -> Result<(), MigrateError> {
    let mut steps = migrator.iter().filter(|step| !step.migration_type.is_down_migration());
    let step = steps.find(|step| step.version == applied.version);
    let step = step.ok_or(MigrateError::VersionMissing(applied.version))?;
    if step.checksum == applied.checksum { Ok(()) } else { Err(MigrateError::VersionMismatch(applied.version)) }
}

/// Runs the migrations up to a version. It takes no lock. Boxed, because the compiler does not find out that the future
/// is `Send` ("implementation of `Acquire` is not general enough").
pub(in crate::store) fn migrate<'a, C>(
    migrator: &'a Migrator,
    connection: &'a mut C,
    to: Option<u32>,
) -> Migrating<'a, ()>
where
    C: Migrate + Send,
{
    Box::pin(migrator.run_direct(to.map(i64::from), connection, false))
}

/// Reverts the migrations down to a version, and returns the version that the database has then. It takes no lock, so
/// it has to run in a transaction.
pub(in crate::store) fn revert<'a, C>(migrator: &'a Migrator, connection: &'a mut C, to: u32) -> Migrating<'a, u32>
where
    C: Migrate + Send,
{
    Box::pin(async move {
        let ledger = &migrator.table_name;
        connection.ensure_migrations_table(ledger).await?;
        let applied = connection.list_applied_migrations(ledger).await?;
        let mut version = 0;
        for applied in &applied {
            is_known(migrator, applied)?;
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

/// Whether a migration may delete tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataLoss {
    /// The migration fails and changes nothing if there are tasks that it would delete.
    Refuse,
    /// The migration deletes them.
    Accept,
}

/// The requested version, if there is one with this number.
pub(in crate::store) fn known_version(dialect: Dialect, version: u32) -> Result<u32, StoreError> {
    let newest = newest_version(dialect);
    if version <= newest {
        return Ok(version);
    }
    let text = format!("there is no version {version} of the tables; the newest is {newest}");
    Err(SetupError::new(text).into())
}

pub(in crate::store) fn tasks_would_be_lost() -> StoreError {
    let text =
        "there are tasks, which version 0 would delete: nothing was changed; to delete them, accept the data loss";
    SetupError::new(text).into()
}

/// What a failed migration means to the caller.
pub(in crate::store) fn migration_failed(dialect: Dialect, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)
            if condition(&error) == Condition::NoPrivilege =>
        {
            let text = "the role of the database connection may not migrate the tables; migrate as a role that owns them, or \
                        that may create their schema";
            SetupError::new(text).with_source(error).into()
        }
        MigrateError::Execute(error) => error.into(),
        // Without a meaning of its own, the error is kept with the number of the migration.
        MigrateError::ExecuteMigration(error, _) if condition(&error) != Condition::Other => error.into(),
        MigrateError::VersionMissing(version) => newer_version(dialect, version),
        MigrateError::VersionMismatch(version) => {
            let text = format!(
                "migration {version} of the tables is not the one of this library: another version has created them, \
                 perhaps one from before the first release; nothing was changed; use that version, or other names for new \
                 tables"
            );
            SetupError::new(text).with_source(error).into()
        }
        error => StoreError::Backend(error.into()),
    }
}

/// Whether a migration has failed because another transaction held a lock that it needs.
#[cfg(feature = "postgres")]
pub(in crate::store) fn is_locked(error: &StoreError) -> bool {
    let is_lock_timeout = |error: &sqlx::Error| condition(error) == Condition::LockTimeout;
    matches!(error, StoreError::Unavailable(source)
        if source.is::<MigrationLockHeld>() || source.downcast_ref::<sqlx::Error>().is_some_and(is_lock_timeout))
}

/// Another session holds the lock of the migrations.
#[cfg(feature = "postgres")]
#[derive(Debug, thiserror::Error)]
#[error(
    "the tables have to be migrated, and another session holds the advisory lock of their migrations: {holder}; wait for it, \
     or end it with pg_terminate_backend"
)]
pub(in crate::store) struct MigrationLockHeld {
    pub(in crate::store) holder: String,
    pub(in crate::store) source: sqlx::Error,
}

/// The tables were migrated by a newer version of this library.
fn newer_version(dialect: Dialect, version: i64) -> StoreError {
    let known = newest_version(dialect);
    let text = format!(
        "the tables are at version {version}, and this program knows versions up to {known}; use a newer program, or migrate \
         the tables back to version {known} with that program"
    );
    SetupError::new(text).into()
}
