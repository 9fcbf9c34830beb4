//! An empty store of each kind, for one case of a suite: what a test file passes to the macros of
//! `todo_core::conformance`.

use std::sync::Arc;

use todo_core::{
    conformance::http::{App, api},
    http::TodoApi,
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
    let store = SqliteStore::open(directory.path().join("tasks.db"));
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

/// A store with connections of its own.
///
/// # Panics
///
/// If the URL is none.
#[must_use]
pub fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect(url, &PostgresOptions::default()).expect("a URL of PostgreSQL")
}

#[async_trait::async_trait]
impl App for Client {
    async fn call(&self, request: ::http::Request<bytes::Bytes>) -> ::http::Response<bytes::Bytes> {
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
