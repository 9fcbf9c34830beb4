//! Opens, checks and migrates the database.

use std::{error::Error, io, iter, mem, time::Duration};

use todo_core::{
    TodoService,
    clock::Jitter,
    store::{
        CoalescingOptions, CoalescingStatus, CoalescingStore, DataLoss, PoolStatus, PostgresOptions, PostgresStore,
        SqliteStore, StoreError, TaskStore as _,
    },
};
use tokio::time::{Instant, sleep};

use crate::{
    failure::{Failure, error_chain, shortened},
    settings::{Database, Secret},
};

/// How long to retry while the database is unreachable. It may have been started together with the server.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// The maximum pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// An open store.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
    Coalescing(CoalescingStore<PostgresStore>),
}

impl Store {
    pub(crate) fn service(&self) -> TodoService {
        match self {
            Self::Sqlite(store) => TodoService::new(store.clone()),
            Self::Postgres(store) => TodoService::new(store.clone()),
            Self::Coalescing(store) => TodoService::new(store.clone()),
        }
    }

    /// The name and the state of each connection pool.
    pub(crate) fn pools(&self) -> Vec<(&'static str, PoolStatus)> {
        match self {
            Self::Sqlite(store) => vec![("readers", store.readers_status()), ("writer", store.writer_status())],
            Self::Postgres(store) => vec![("postgres", store.status())],
            Self::Coalescing(store) => vec![("postgres", store.inner().status())],
        }
    }

    /// The state of statement batching, if it is on.
    pub(crate) fn coalescing(&self) -> Option<CoalescingStatus> {
        match self {
            Self::Sqlite(_) | Self::Postgres(_) => None,
            Self::Coalescing(store) => Some(store.status()),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
            Self::Coalescing(store) => store.inner().close().await,
        }
    }
}

/// Opens the database, checks it and migrates it.
pub(crate) async fn open(database: &Database) -> Result<Store, Failure> {
    match database {
        Database::Sqlite { url, is_default, max_waiting } => {
            if *is_default {
                tracing::info!("DATABASE_URL is not set; tasks are stored in todo.db in the current directory");
            }
            Ok(Store::Sqlite(open_sqlite(url, *max_waiting).await?))
        }
        Database::Postgres { name, url, direct, options, coalesce, row_security } => {
            let place = place(name, url);
            let store = connect(url, options, *row_security).map_err(|error| failed(&place, &error))?;
            let report = retry_while_unreachable(&place, async || store.check().await).await?;
            tracing::info!(
                database = url.masked_url(),
                durable = report.durable,
                pooled = report.pooled,
                "connected to PostgreSQL"
            );
            if !report.durable {
                tracing::warn!(
                    "fsync or synchronous_commit is off in this database: acknowledged writes may be lost in a crash"
                );
            }
            if report.statement_timeout.is_none() {
                tracing::warn!(
                    "statements have no time limit in this database; set one for the role of this server: alter role \
                     .. set statement_timeout = '5s'; alter role .. set lock_timeout = '2s'"
                );
            }
            // With row-level security, the role of DATABASE_URL does not own the tables and cannot migrate.
            let may_migrate = !row_security || direct.is_some();
            if report.pooled && direct.is_none() && may_migrate {
                tracing::warn!(
                    "DATABASE_URL goes through a connection pooler; set DATABASE_DIRECT_URL, since a migration needs a \
                     direct connection"
                );
            }
            // Before the migration enables row-level security, since it then applies to running servers as well.
            if *row_security {
                store.check_role().await.map_err(|error| unusable(&place, &error, true))?;
            }
            if may_migrate && let Err(failure) = migrate(database, &Migration::default()).await {
                // A role that may not migrate may be the role of a server with row-level security.
                if let Err(error @ StoreError::Setup(_)) = store.check_tables().await
                    && let Some(hint) = hint(&error, *row_security)
                {
                    tracing::warn!("{}; {hint}", error_chain(&error));
                }
                return Err(failure);
            }
            store.check_tables().await.map_err(|error| unusable(&place, &error, *row_security))?;
            if store.is_distributed() {
                tracing::info!(
                    "the tables are distributed over several nodes; each call is a statement of its own, and COALESCE has no \
                     effect"
                );
            }
            if !*coalesce {
                return Ok(Store::Postgres(store));
            }
            let batching = CoalescingOptions::default().max_waiting(options.get_max_waiting());
            Ok(Store::Coalescing(CoalescingStore::with_options(store, &batching)))
        }
    }
}

fn unusable(place: &str, error: &StoreError, row_security: bool) -> Failure {
    let hint = hint(error, row_security).map(|hint| format!("; {hint}")).unwrap_or_default();
    Failure::fatal(format!("cannot use the database {place}: {}{hint}", error_chain(error)))
}

/// A database for messages: its URL without the password, and the setting that has the URL.
fn place(name: &str, url: &Secret) -> String {
    format!("{} ({name})", url.masked_url())
}

/// What to change if the role or the tables are not as the settings need them, if the error does not say it.
fn hint(error: &StoreError, row_security: bool) -> Option<&'static str> {
    let hint = if row_security {
        "ROW_SECURITY=on needs a DATABASE_URL with a role that does not own the tables, and the DATABASE_DIRECT_URL of \
         the owner, which migrates and grants at start. Without DATABASE_DIRECT_URL, run once with the owner's URL: \
         DATABASE_URL=.. ROW_SECURITY=on todo-server migrate --grant-to <role>"
    } else {
        // Not if the tables are missing or old, for example.
        error.to_string().contains("row-level security").then_some("set ROW_SECURITY=on")?
    };
    Some(hint)
}

/// Opens the database for a command of an operator, which neither creates nor migrates it.
pub(crate) async fn open_as_it_is(database: &Database) -> Result<Store, Failure> {
    match database {
        Database::Sqlite { url, .. } => {
            let failed = |error| failed(url, &error);
            let store = SqliteStore::from_url(url).map_err(failed)?;
            // It reads, so that it does not create the file.
            store.ping().await.map_err(failed)?;
            Ok(Store::Sqlite(store))
        }
        Database::Postgres { name, url, options, row_security, .. } => {
            let place = place(name, url);
            let store = connect(url, options, *row_security).map_err(|error| failed(&place, &error))?;
            retry_while_unreachable(&place, async || store.check().await).await?;
            store.check_tables().await.map_err(|error| unusable(&place, &error, *row_security))?;
            Ok(Store::Postgres(store))
        }
    }
}

/// Opens the database for a command about all users. With row-level security, the role of an operator need not be one
/// that a server can use.
pub(crate) async fn open_for_all_users(database: &Database) -> Result<Store, Failure> {
    match database {
        Database::Sqlite { .. } => open_as_it_is(database).await,
        Database::Postgres { name, url, options, .. } => {
            let place = place(name, url);
            let store = connect(url, options, false).map_err(|error| failed(&place, &error))?;
            retry_while_unreachable(&place, async || store.check().await).await?;
            Ok(Store::Postgres(store))
        }
    }
}

/// The options of the command `migrate`.
#[derive(Clone, Debug)]
pub(crate) struct Migration {
    /// The target version; `None` is the newest.
    pub(crate) to: Option<u32>,
    pub(crate) loss: DataLoss,
    /// The role to which access is granted.
    pub(crate) grant_to: Option<String>,
    /// Whether to distribute the tables over the nodes of Citus, or to take that back.
    pub(crate) distribution: Option<Distribution>,
}

/// Where the tables are, in a cluster of Citus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Distributed,
    Undistributed,
}

impl Default for Migration {
    fn default() -> Self {
        Self { to: None, loss: DataLoss::Refuse, grant_to: None, distribution: None }
    }
}

/// Migrates the database, over the direct URL if there is one. Returns what was done about its distribution.
pub(crate) async fn migrate(database: &Database, migration: &Migration) -> Result<Vec<String>, Failure> {
    match database {
        Database::Sqlite { url, .. } => {
            if migration.grant_to.is_some() {
                return Err(Failure::fatal(format!("cannot grant access to {url}: SQLite has no roles")));
            }
            if migration.distribution.is_some() {
                return Err(Failure::fatal(format!("cannot distribute the tables of {url}: SQLite has no nodes")));
            }
            let failed = |error| failed(url, &error);
            let store = SqliteStore::from_url(url).map_err(failed)?;
            let migrated = match migration.to {
                None => store.migrate().await,
                Some(version) => store.migrate_to(version, migration.loss).await,
            };
            store.close().await;
            migrated.map_err(failed).map(|()| Vec::new())
        }
        Database::Postgres { name, url, direct, options, row_security, .. } => {
            let (owner_name, owner_url) = match direct {
                Some(direct) => ("DATABASE_DIRECT_URL", direct),
                None => (*name, url),
            };
            let owner_place = place(owner_name, owner_url);
            let failed = |error| failed(&owner_place, &error);
            let store = connect(owner_url, options, *row_security).map_err(failed)?;
            let migrated =
                retry_while_unreachable(&owner_place, async || match (migration.to, migration.distribution) {
                    (Some(version), _) => store.migrate_to(version, migration.loss).await.map(|()| Vec::new()),
                    (None, None) => store.migrate().await.map(|()| Vec::new()),
                    (None, Some(Distribution::Distributed)) => store.distribute().await,
                    (None, Some(Distribution::Undistributed)) => store.undistribute().await,
                });
            let steps = migrated.await?;
            let role = match (&migration.grant_to, direct) {
                (Some(role), _) => Some(role.clone()),
                (None, Some(_)) if *row_security && migration.to.is_none() => {
                    other_role(&store, &place(name, url), url, options).await?
                }
                _ => None,
            };
            if let Some(role) = role {
                store.grant_to(&role).await.map_err(failed)?;
                tracing::info!(role, "granted access to the tables");
            }
            store.close().await;
            Ok(steps)
        }
    }
}

/// The role of `url`, if it is not the owner's. The database is asked for it, since a pooler may use another role than
/// its URL names.
async fn other_role(
    owner: &PostgresStore,
    place: &str,
    url: &Secret,
    options: &PostgresOptions,
) -> Result<Option<String>, Failure> {
    let failed = |error| failed(place, &error);
    let store = connect(url, options, true).map_err(failed)?;
    let role = retry_while_unreachable(place, async || store.role().await).await?;
    store.close().await;
    let owner = owner.role().await.map_err(failed)?;
    Ok((role != owner).then_some(role))
}

fn connect(url: &Secret, options: &PostgresOptions, row_security: bool) -> Result<PostgresStore, StoreError> {
    let store = PostgresStore::connect_lazy(url.reveal(), options)?;
    Ok(if row_security { store.with_row_security() } else { store })
}

/// The URL of the migrated database, without its password.
pub(crate) fn migrated_url(database: &Database) -> String {
    match database {
        Database::Sqlite { url, .. } => url.clone(),
        Database::Postgres { url, direct, .. } => direct.as_ref().unwrap_or(url).masked_url(),
    }
}

async fn open_sqlite(url: &str, max_waiting: Option<usize>) -> Result<SqliteStore, Failure> {
    let store = SqliteStore::from_url(url).map_err(|error| failed(url, &error))?;
    store.migrate().await.map_err(|error| failed(url, &error))?;
    Ok(match max_waiting {
        Some(count) => store.with_max_waiting(count),
        None => store,
    })
}

fn failed(place: &str, error: &StoreError) -> Failure {
    // The places of connections are not repeated.
    let text = match error {
        StoreError::Setup(mistake) => match mistake.source() {
            Some(_) => format!("{mistake} ({})", innermost(error)),
            None => mistake.to_string(),
        },
        error => error_chain(error),
    };
    Failure::fatal(format!("cannot use the database {place}: {text}"))
}

/// An error and its causes.
fn causes(error: &StoreError) -> impl Iterator<Item = &(dyn Error + 'static)> {
    iter::successors(Some(error as &(dyn Error + 'static)), |error| (**error).source())
}

fn innermost(error: &StoreError) -> String {
    causes(error).last().map_or_else(String::new, |cause| shortened(&cause.to_string()).into_owned())
}

/// Retries for [`RETRY_FOR`] while the database is unreachable.
async fn retry_while_unreachable<T>(
    place: &str,
    attempt: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + RETRY_FOR;
    let mut is_first = true;
    loop {
        let error = match attempt().await {
            Ok(output) => return Ok(output),
            Err(error @ (StoreError::Unavailable(_) | StoreError::Interrupted(_))) => error,
            Err(error) => return Err(failed(place, &error)),
        };
        let cause = innermost(&error);
        if Instant::now() >= deadline {
            // Other servers may hold the lock of the migrations, or all connections.
            let is_reached = !causes(&error).any(<dyn Error>::is::<io::Error>);
            return Err(if is_reached {
                failed(place, &error)
            } else {
                let text = "start the database, or correct its URL";
                Failure::fatal(format!("cannot reach the database {place}: {cause}; {text}"))
            });
        }
        if mem::take(&mut is_first) {
            tracing::warn!(cause, "the database {place} is unreachable; retrying for {RETRY_FOR:?}");
        } else {
            tracing::debug!(cause, "the database {place} is unreachable; retrying");
        }
        // At random, since many servers may have been started together.
        sleep(Jitter::shared().spread(MAX_PAUSE)).await;
    }
}
