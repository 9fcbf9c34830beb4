//! Behind a real PgBouncer: one that mixes up prepared statements is refused, one that tracks them is not.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use sqlx::{ConnectOptions as _, Row as _, postgres::PgConnectOptions};
use testkit::pgbouncer::PgBouncer;
use todo_core::store::{PostgresOptions, PostgresStore, StoreError, TaskStore as _};

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_mixes_statements_is_refused() {
    let database = testkit::stores::todo_database().await;
    let pooler = PgBouncer::mixing(database.url());
    for _ in 0..3 {
        let store = PostgresStore::connect(&pooler.url(), &PostgresOptions::default()).unwrap();
        match store.check().await {
            Err(StoreError::Backend(error)) => assert!(error.to_string().contains("pooler"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_tracks_statements_is_found_and_used() {
    let database = testkit::stores::todo_database().await;
    let direct = PostgresStore::connect(database.url(), &PostgresOptions::default()).unwrap();
    assert!(!direct.check().await.unwrap().pooled);
    let pooler = PgBouncer::tracking(database.url());
    let store = PostgresStore::connect(&pooler.url(), &PostgresOptions::default()).unwrap();
    assert!(store.check().await.unwrap().pooled);
}

/// A connection behind a pooler is somebody else's a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_set_in_the_sessions_of_a_pooler() {
    let database = testkit::stores::todo_database().await;
    let pooler = PgBouncer::tracking(database.url());
    let store = PostgresStore::connect(&pooler.url(), &PostgresOptions::default()).unwrap();
    store.ping().await.unwrap();
    assert!(store.status().size > 0, "it has connected");
    let options: PgConnectOptions = pooler.url().parse().unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = options.connect().await.unwrap();
        // It has a session of the server for itself as long as the transaction lasts.
        sqlx::raw_sql("begin").execute(&mut client).await.unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        for setting in ["statement_timeout", "lock_timeout"] {
            let show = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("show {setting}"))).fetch_one(&mut *client).await;
            assert_eq!(show.unwrap().get::<String, _>(0), "0", "{setting}");
        }
    }
}
