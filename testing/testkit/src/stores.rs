//! An empty store of each kind, for one case of a suite: what a test file passes to the macros of
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

/// Runs a case with a store in a file of its own.
///
/// # Panics
///
/// If the file cannot be made.
pub async fn sqlite(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open_lazy(directory.path().join("tasks.db"));
    store.migrate().await.expect("the file can be made");
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

/// A PostgreSQL database that has the tables of the default names.
///
/// # Panics
///
/// If there is no PostgreSQL; the message says what to install.
pub async fn todo_database() -> TestDatabase {
    postgres::database("todo", async |url| connect(url).migrate().await.expect("the database can be migrated")).await
}

/// A PostgreSQL database with two walls: tables that a role owns which is not ours, and another role to use them.
pub struct WalledDatabase {
    /// The database; its own address is that of whom row security does not apply to, if the tests have a superuser.
    pub database: TestDatabase,
    /// The address for the owner of the tables.
    pub owner: String,
    /// The address for the role of an application.
    pub app: String,
}

/// Without the addresses, which have passwords in them.
impl fmt::Debug for WalledDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalledDatabase").field("database", &self.database).finish_non_exhaustive()
    }
}

impl WalledDatabase {
    /// Two roles, and nothing in the database; the owner may make a schema.
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

    /// The tables at their newest version, with row security on.
    ///
    /// # Panics
    ///
    /// If there is no PostgreSQL, or if the user of the tests may not create roles.
    pub async fn migrated() -> Self {
        let walled = Self::empty().await;
        let owner = connect(&walled.owner).with_row_security();
        owner.migrate().await.expect("the owner may make a schema");
        owner.grant_to(&walled.role("app")).await.expect("the owner may grant");
        owner.close().await;
        walled
    }

    /// The whole name of a role.
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

/// Runs a case with a store behind row security, as a role that owns nothing.
///
/// # Panics
///
/// If there is no PostgreSQL; the message says what to install.
pub async fn postgres_with_row_security(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    let walled = WalledDatabase::migrated().await;
    let store = walled.store();
    store.check_tables().await.expect("the tables are as they have to be");
    case(Arc::new(store)).await;
    walled.database.close().await;
}

/// A store with connections of its own.
///
/// # Panics
///
/// If the URL is none.
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

/// Runs a case for adapters over real sockets: the suite's API over this store, served as the function says.
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
