//! Random histories of calls: each store has the same results as the store in memory, call by call.
//!
//! `HISTORY_CALLS=1000000 cargo test --release --test histories` runs longer ones.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{env, sync::Arc};

use todo_core::{
    conformance::store::random_history,
    store::{CoalescingStore, PostgresOptions, PostgresStore, TaskStore},
};

fn calls() -> usize {
    env::var("HISTORY_CALLS").map_or(10_000, |calls| calls.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_has_the_results_of_memory() {
    testkit::stores::sqlite(async |store: Arc<dyn TaskStore>| {
        random_history(&*store, 7, calls()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_has_the_results_of_memory() {
    let database = testkit::stores::todo_database().await;
    let store = PostgresStore::connect_lazy(database.url(), &PostgresOptions::default()).unwrap();
    random_history(&store, 8, calls()).await;
    store.close().await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_behind_batches_has_the_results_of_memory() {
    let database = testkit::stores::todo_database().await;
    let store = PostgresStore::connect_lazy(database.url(), &PostgresOptions::default()).unwrap();
    random_history(&CoalescingStore::new(store.clone()), 9, calls()).await;
    store.close().await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_with_row_security_has_the_results_of_memory() {
    let secured = testkit::stores::RowSecurityDatabase::migrated().await;
    let store = PostgresStore::connect_lazy(&secured.app, &PostgresOptions::default()).unwrap().with_row_security();
    random_history(&store, 10, calls()).await;
    store.close().await;
    secured.database.close().await;
}
