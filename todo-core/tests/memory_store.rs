//! The store suite on [`MemoryStore`].

use std::sync::Arc;

use todo_core::store::{MemoryStore, TaskStore};

async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    case(Arc::new(MemoryStore::new())).await;
}

todo_core::store_conformance!(with_store);
