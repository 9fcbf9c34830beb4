//! An empty store of each kind for one test case: test files pass these functions to the macros of
//! `todo_core::conformance`.

use std::{fmt, sync::Arc};

use sqlx::{Connection as _, Executor as _, PgConnection};
use todo_core::{
    api::TodoApi,
    conformance::api::{App, api},
    store::{MemoryStore, PostgresOptions, PostgresStore, SqliteStore, TaskStore},
};

use crate::{
    http::{Client, Server},
    postgres::{self, TestDatabase},
};

/// Runs a case with a store in memory.
pub async fn memory(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    case(Arc::new(MemoryStore::new())).await;
}

/// Runs a case with a SQLite store in a file of its own.
///
/// # Panics
///
/// If the file cannot be created.
pub async fn sqlite(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open_lazy(directory.path().join("tasks.db"));
    store.migrate().await.expect("the file can be created");
    case(Arc::new(store)).await;
}

/// Runs a case with a store in a PostgreSQL database of its own.
///
/// # Panics
///
/// If there is no PostgreSQL; the message says what to install.
pub async fn postgres(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    let database = todo_database().await;
    case(Arc::new(connect(database.url()))).await;
    database.close().await;
}

/// A PostgreSQL database with the tables, under their default names.
///
/// # Panics
///
/// If there is no PostgreSQL; the message says what to install.
pub async fn todo_database() -> TestDatabase {
    postgres::database("todo", async |url| connect(url).migrate().await.expect("the database can be migrated")).await
}

/// A PostgreSQL database with row-level security: one role owns the tables, and the application uses another one.
pub struct RowSecurityDatabase {
    /// The database. If the tests have a superuser, its own URL is not subject to row-level security.
    pub database: TestDatabase,
    /// The URL for the owner of the tables.
    pub owner: String,
    /// The URL for the role of an application.
    pub app: String,
}

/// Without the URLs, which contain passwords.
impl fmt::Debug for RowSecurityDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowSecurityDatabase").field("database", &self.database).finish_non_exhaustive()
    }
}

impl RowSecurityDatabase {
    /// Creates two roles and an empty database, in which the owner may create a schema.
    ///
    /// # Panics
    ///
    /// If there is no PostgreSQL, or if the user of the tests may not create roles.
    pub async fn empty() -> Self {
        let mut database = postgres::empty_database().await;
        let owner = database.add_role("owner", "").await;
        let app = database.add_role("app", "").await;
        let mut connection = PgConnection::connect(database.url()).await.expect("a connection");
        let grant = format!("grant create on database {0} to {0}_owner", database.name());
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(grant))).await.expect("the database is ours");
        Self { database, owner, app }
    }

    /// Creates the tables at their newest version, with row-level security enabled.
    ///
    /// # Panics
    ///
    /// If there is no PostgreSQL, or if the user of the tests may not create roles.
    pub async fn migrated() -> Self {
        let secured = Self::empty().await;
        let owner = connect(&secured.owner).with_row_security();
        owner.migrate().await.expect("the owner may create a schema");
        owner.grant_to(&secured.role("app")).await.expect("the owner may grant");
        owner.close().await;
        secured
    }

    /// The full name of a role.
    #[must_use]
    pub fn role(&self, name: &str) -> String {
        format!("{}_{name}", self.database.name())
    }

    /// A store for the role of the application.
    #[must_use]
    pub fn store(&self) -> PostgresStore {
        connect(&self.app).with_row_security()
    }
}

/// Runs a case with row-level security, as a role that owns no table.
///
/// # Panics
///
/// If there is no PostgreSQL; the message says what to install.
pub async fn postgres_with_row_security(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    let secured = RowSecurityDatabase::migrated().await;
    let store = secured.store();
    store.check_tables().await.expect("the tables are complete");
    case(Arc::new(store)).await;
    secured.database.close().await;
}

/// A store with connections of its own.
///
/// # Panics
///
/// If the URL is invalid.
#[must_use]
pub fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect_lazy(url, &PostgresOptions::default()).expect("a URL of PostgreSQL")
}

#[async_trait::async_trait]
impl App for Client {
    async fn call(&self, request: http::Request<bytes::Bytes>) -> http::Response<bytes::Bytes> {
        self.send(request).await
    }
}

/// Runs a case for adapters over real sockets. `serve` serves the suite's API with this store.
pub async fn served<Serving>(
    store: Arc<dyn TaskStore>,
    serve: impl FnOnce(tokio::net::TcpListener, TodoApi) -> Serving,
    case: impl AsyncFnOnce(&dyn App),
) where
    Serving: Future<Output = ()> + Send + 'static,
{
    let server = Server::start(|listener| serve(listener, api(store))).await;
    case(&server.client()).await;
}
