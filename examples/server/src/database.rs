//! Opening the database: looking whether it can be used, and bringing it to the newest version.

use std::time::Duration;

use todo_core::{
    TodoService,
    clock::Jitter,
    store::{
        CoalescingOptions, CoalescingStatus, CoalescingStore, DataLoss, PoolStatus, PostgresOptions, PostgresStore,
        SqliteStore, StoreError,
    },
};
use tokio::time::{Instant, sleep};

use crate::{
    failure::Failure,
    settings::{Database, Hidden, causes},
};

/// How long a database that does not answer is waited for at start: it may have been started together with us.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// An open store, ready for use.
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

    /// The pools of connections and what they are doing.
    pub(crate) fn pools(&self) -> Vec<(&'static str, PoolStatus)> {
        match self {
            Self::Sqlite(store) => vec![("readers", store.readers_status()), ("writer", store.writer_status())],
            Self::Postgres(store) => vec![("postgres", store.status())],
            Self::Coalescing(store) => vec![("postgres", store.inner().status())],
        }
    }

    /// How calls share statements, if they do.
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

/// Opens the store, checks it and migrates it.
pub(crate) async fn open(database: &Database) -> Result<Store, Failure> {
    match database {
        Database::Sqlite { url, is_default, max_waiting } => {
            if *is_default {
                tracing::info!("DATABASE_URL is not set: tasks are kept in todo.db in the current directory");
            }
            Ok(Store::Sqlite(open_sqlite(url, *max_waiting).await?))
        }
        Database::Postgres { url, direct, options, coalesce, row_security } => {
            let failed = |error| failed(&url.as_masked_url(), &error);
            let store = connect(url, options, *row_security).map_err(failed)?;
            let findings = patiently(async || store.check().await).await.map_err(failed)?;
            tracing::info!(
                database = url.as_masked_url(),
                durable = findings.durable,
                pooled = findings.pooled,
                "connected to PostgreSQL"
            );
            if !findings.durable {
                tracing::warn!(
                    "fsync or synchronous_commit is off in this database: answered writes may be lost in a crash"
                );
            }
            if findings.statement_timeout.is_none() {
                tracing::warn!(
                    "a statement may run for ever in this database; set a limit for the role of this server: \
                     alter role .. set statement_timeout = '5s'; alter role .. set lock_timeout = '2s'"
                );
            }
            // With row security this role is not the one to migrate.
            let may_migrate = !row_security || direct.is_some();
            if findings.pooled && direct.is_none() && may_migrate {
                tracing::warn!(
                    "a connection pooler stands before this database; migrations need DATABASE_DIRECT_URL to go around it"
                );
            }
            // Before it is turned on: from then on it holds for servers that run already, too.
            if *row_security {
                store.check_role().await.map_err(|error| refused(url, &error, true))?;
            }
            if may_migrate && let Err(failure) = migrate(database, &Migration::default()).await {
                // Who may not migrate may be one who was to use row security.
                if let Err(complaint @ StoreError::Setup(_)) = store.check_tables().await {
                    tracing::warn!("{}; {}", causes(&complaint), hint(*row_security));
                }
                return Err(failure);
            }
            store.check_tables().await.map_err(|error| refused(url, &error, *row_security))?;
            if !*coalesce {
                return Ok(Store::Postgres(store));
            }
            let mut joining = CoalescingOptions::default();
            joining.max_waiting = options.get_max_waiting();
            Ok(Store::Coalescing(CoalescingStore::with_options(store, &joining)))
        }
    }
}

fn refused(url: &Hidden, error: &StoreError, row_security: bool) -> Failure {
    let (database, hint) = (url.as_masked_url(), hint(row_security));
    Failure::fatal(format!("cannot use the database {database}: {}; {hint}", causes(error)))
}

/// What may help if the tables are not as they have to be.
fn hint(row_security: bool) -> &'static str {
    if row_security {
        "with ROW_SECURITY=on, DATABASE_URL is of a role that owns nothing, and DATABASE_DIRECT_URL of the owner of the same \
         tables, who migrates and grants at start; or beforehand, with ROW_SECURITY=on and the owner's DATABASE_URL: \
         todo-server migrate --grant-to <role>"
    } else {
        "if row security is to be used, set ROW_SECURITY=on"
    }
}

/// What `migrate` was asked for, beside the settings.
#[derive(Clone, Debug)]
pub(crate) struct Migration {
    /// To which version; the newest, if not said.
    pub(crate) to: Option<u32>,
    pub(crate) loss: DataLoss,
    /// Who is let in.
    pub(crate) grant_to: Option<String>,
}

impl Default for Migration {
    fn default() -> Self {
        Self { to: None, loss: DataLoss::Refuse, grant_to: None }
    }
}

/// Brings the database to the newest version, or the one that is asked for, over the direct address if there is one.
pub(crate) async fn migrate(database: &Database, migration: &Migration) -> Result<(), Failure> {
    match database {
        Database::Sqlite { url, .. } => {
            if migration.grant_to.is_some() {
                return Err(Failure::fatal(format!("SQLite has no roles, so nothing of {url} can be granted to one")));
            }
            let failed = |error| failed(url, &error);
            let store = SqliteStore::from_url(url).map_err(failed)?;
            let migrated = match migration.to {
                None => store.migrate().await,
                Some(version) => store.migrate_to(version, migration.loss).await,
            };
            store.close().await;
            migrated.map_err(failed)
        }
        Database::Postgres { url, direct, options, row_security, .. } => {
            let address = direct.as_ref().unwrap_or(url);
            let failed = |error| failed(&address.as_masked_url(), &error);
            let store = connect(address, options, *row_security).map_err(failed)?;
            let migrated = patiently(async || match migration.to {
                None => store.migrate().await,
                Some(version) => store.migrate_to(version, migration.loss).await,
            });
            migrated.await.map_err(failed)?;
            let user = match (&migration.grant_to, direct) {
                (Some(role), _) => Some(role.clone()),
                (None, Some(_)) if *row_security && migration.to.is_none() => other_role(&store, url, options).await?,
                _ => None,
            };
            if let Some(user) = user {
                store.grant_to(&user).await.map_err(failed)?;
                tracing::info!(role = user, "granted what a server needs");
            }
            store.close().await;
            Ok(())
        }
    }
}

/// The role at this address, if it is another one than that of the owner. The database is asked, since behind a pooler the
/// URL may have another name for it.
async fn other_role(owner: &PostgresStore, url: &Hidden, options: &PostgresOptions) -> Result<Option<String>, Failure> {
    let failed = |error| failed(&url.as_masked_url(), &error);
    let store = connect(url, options, true).map_err(failed)?;
    let role = patiently(async || store.role().await).await.map_err(failed)?;
    store.close().await;
    let own = owner.role().await.map_err(failed)?;
    Ok((role != own).then_some(role))
}

fn connect(url: &Hidden, options: &PostgresOptions, row_security: bool) -> Result<PostgresStore, StoreError> {
    let store = PostgresStore::connect_lazy(url.reveal(), options)?;
    Ok(if row_security { store.with_row_security() } else { store })
}

/// The database in a message.
pub(crate) fn name(database: &Database) -> String {
    match database {
        Database::Sqlite { url, .. } => url.clone(),
        Database::Postgres { url, direct, .. } => direct.as_ref().map_or(url.as_masked_url(), Hidden::as_masked_url),
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

fn failed(database: &str, error: &StoreError) -> Failure {
    Failure::fatal(format!("cannot use the database {database}: {}", causes(error)))
}

/// Tries again for a while, if it is only that the database cannot be reached.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Err(error @ (StoreError::Unavailable(_) | StoreError::Interrupted(_))) if Instant::now() < deadline => {
                tracing::warn!(error = causes(&error), "the database cannot be reached; trying again");
                // Many servers may have been started together.
                sleep(Jitter::shared().spread(PAUSE)).await;
            }
            result => return result,
        }
    }
}
