//! Opening the database: looking whether it can be used, and bringing it to the newest version.

use std::time::Duration;

use todo_core::{
    TodoService,
    clock::Jitter,
    store::{CoalescingOptions, CoalescingStatus, CoalescingStore, PoolStatus, PostgresStore, SqliteStore, StoreError},
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
        Database::Postgres { url, direct, options, coalesce } => {
            let failed = |error| failed(&url.as_masked_url(), &error);
            let store = PostgresStore::connect(url.reveal(), options).map_err(failed)?;
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
            if findings.pooled && direct.is_none() {
                tracing::warn!(
                    "a connection pooler stands before this database; migrations need DATABASE_DIRECT_URL to go around it"
                );
            }
            migrate(database).await?;
            if !*coalesce {
                return Ok(Store::Postgres(store));
            }
            let mut joining = CoalescingOptions::default();
            joining.max_waiting = options.max_waiting;
            Ok(Store::Coalescing(CoalescingStore::with_options(store, &joining)))
        }
    }
}

/// Brings the database to the newest version, over the direct address if there is one.
pub(crate) async fn migrate(database: &Database) -> Result<(), Failure> {
    match database {
        Database::Sqlite { url, max_waiting, .. } => {
            open_sqlite(url, *max_waiting).await?.close().await;
            Ok(())
        }
        Database::Postgres { url, direct, options, .. } => {
            let url = direct.as_ref().unwrap_or(url);
            let failed = |error| failed(&url.as_masked_url(), &error);
            let store = PostgresStore::connect(url.reveal(), options).map_err(failed)?;
            let migrated = patiently(async || store.migrate().await).await;
            store.close().await;
            migrated.map_err(failed)
        }
    }
}

/// The database in a message.
pub(crate) fn name(database: &Database) -> String {
    match database {
        Database::Sqlite { url, .. } => url.clone(),
        Database::Postgres { url, direct, .. } => direct.as_ref().map_or(url.as_masked_url(), Hidden::as_masked_url),
    }
}

async fn open_sqlite(url: &str, max_waiting: Option<usize>) -> Result<SqliteStore, Failure> {
    let store = SqliteStore::connect(url).map_err(|error| failed(url, &error))?;
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
            Err(error @ StoreError::Unavailable(_)) if Instant::now() < deadline => {
                tracing::warn!(error = causes(&error), "the database cannot be reached; trying again");
                // Many servers may have been started together.
                sleep(Jitter::shared().spread(PAUSE)).await;
            }
            result => return result,
        }
    }
}
