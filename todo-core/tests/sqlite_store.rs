//! The store suite on [`SqliteStore`], and what only SQLite promises.

use std::sync::Arc;

use todo_core::store::{SqliteStore, TaskStore};

async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("tasks.db"));
    store.migrate().await.unwrap();
    case(Arc::new(store)).await;
}

todo_core::store_conformance!(with_store);
