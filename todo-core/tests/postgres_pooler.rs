//! Behind a real PgBouncer: one that mixes up prepared statements is rejected, one that tracks them is not.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::sync::Arc;

use sqlx::{ConnectOptions as _, PgConnection, Row as _, postgres::PgConnectOptions};
use testkit::{pgbouncer::PgBouncer, stores::RowSecurityDatabase};
use todo_core::{
    NewTask, TaskId, TaskQuery, Title, TodoService, UserId,
    store::{
        CoalescingStore, Completion, Outcome, PostgresOptions, PostgresStore, Precondition, StoreError, TaskChange,
        TaskStore,
    },
};

/// Runs a case with a store behind a pooler that tracks statements, after a function has wrapped the store.
async fn pooled(over: impl FnOnce(PostgresStore) -> Arc<dyn TaskStore>, case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
    let database = testkit::stores::todo_database().await;
    let pooler = PgBouncer::tracking(database.url());
    case(over(testkit::stores::connect(&pooler.url()))).await;
    drop(pooler);
    database.close().await;
}

mod behind_a_pooler {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        pooled(|store| Arc::new(store), case).await;
    }

    todo_core::store_conformance!(with_store);
}

mod coalescing_behind_a_pooler {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        pooled(|store| Arc::new(CoalescingStore::new(store)), case).await;
    }

    todo_core::store_conformance!(with_store);
}

/// The owner is bound on a connection to the server that another client uses a moment later.
mod row_security_behind_a_pooler {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        let secured = RowSecurityDatabase::migrated().await;
        let pooler = PgBouncer::tracking(&secured.app);
        let store = testkit::stores::connect(&pooler.url()).with_row_security();
        store.check_tables().await.unwrap();
        case(Arc::new(store)).await;
        drop(pooler);
        secured.database.close().await;
    }

    todo_core::store_conformance!(with_store);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_every_owner_gets_only_their_own_tasks() {
    let database = testkit::stores::todo_database().await;
    let pooler = PgBouncer::tracking(database.url());
    every_owner_gets_only_their_own_tasks(|| {
        let store = testkit::stores::connect(&pooler.url());
        [TodoService::new(store.clone()), TodoService::new(CoalescingStore::new(store))]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_no_owner_stays_bound() {
    let secured = RowSecurityDatabase::migrated().await;
    let pooler = PgBouncer::tracking(&secured.app);
    every_owner_gets_only_their_own_tasks(|| {
        let store = testkit::stores::connect(&pooler.url()).with_row_security();
        [TodoService::new(store.clone()), TodoService::new(CoalescingStore::new(store))]
    })
    .await;
    for client in &mut every_session(&pooler).await {
        let bound = sqlx::raw_sql("select coalesce(current_setting('todo.user_id', true), '')");
        assert_eq!(bound.fetch_one(&mut *client).await.unwrap().get::<String, _>(0), "");
    }
}

/// A client in each of the pooler's connections to the server, which it has for itself as long as its transaction
/// lasts.
async fn every_session(pooler: &PgBouncer) -> Vec<PgConnection> {
    let options: PgConnectOptions = pooler.url().parse().unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = options.connect().await.unwrap();
        sqlx::raw_sql("begin").execute(&mut client).await.unwrap();
        clients.push(client);
    }
    clients
}

/// Three connections to the server for six stores, each with connections of its own.
async fn every_owner_gets_only_their_own_tasks(services: impl Fn() -> [TodoService; 2]) {
    let mut owners = tokio::task::JoinSet::new();
    for store_number in 0..6 {
        let services = services();
        for owner_number in 0..8 {
            let service = services[owner_number % 2].clone();
            owners.spawn(async move {
                let name = format!("owner-{store_number}-{owner_number}");
                let tasks = service.for_user(UserId::new(name.as_str()).unwrap());
                for round in 0..10 {
                    let title = format!("{name}, {round}");
                    let task = tasks.create(NewTask::new(Title::new(&title).unwrap())).await.unwrap();
                    assert_eq!(tasks.get(task.id).await.unwrap().title.as_str(), title);
                    assert!(tasks.toggle(task.id).await.unwrap().completed);
                    let listed = tasks.list(&TaskQuery::default()).await.unwrap().tasks;
                    assert_eq!(listed.len(), round + 1);
                    for task in listed {
                        assert!(task.user_id.as_str() == name && task.title.as_str().starts_with(&name), "{task:?}");
                    }
                }
            });
        }
    }
    while let Some(done) = owners.join_next().await {
        done.unwrap();
    }
}

/// Migrations hold a lock of the session, so they need the direct URL.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_migrated_over_the_direct_url_work_behind_the_pooler() {
    let database = testkit::postgres::empty_database().await;
    let pooler = PgBouncer::tracking(database.url());
    let store = testkit::stores::connect(&pooler.url());
    assert!(store.check().await.unwrap().pooled);
    assert!(matches!(store.ping().await, Err(StoreError::Setup(_))), "there is no table yet");
    testkit::stores::connect(database.url()).migrate().await.unwrap();
    store.ping().await.unwrap();
    let ann = UserId::new("ann").unwrap();
    let toggle = TaskChange::completion(Completion::Toggle);
    let now = todo_core::clock::Timestamp::from_unix_seconds(1_763_712_000);
    let nobody = TaskId::from(uuid::Uuid::nil());
    assert_eq!(store.update(&ann, nobody, &toggle, &Precondition::default(), now).await.unwrap(), Outcome::Missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_mixes_statements_is_rejected() {
    let database = testkit::stores::todo_database().await;
    let pooler = PgBouncer::mixing(database.url());
    for _ in 0..3 {
        let store = PostgresStore::connect_lazy(&pooler.url(), &PostgresOptions::default()).unwrap();
        match store.check().await {
            Err(StoreError::Setup(error)) => {
                for remedy in ["max_prepared_statements", "1.21", "direct URL"] {
                    assert!(error.to_string().contains(remedy), "{error}");
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_tracks_statements_is_found_and_used() {
    let database = testkit::stores::todo_database().await;
    let direct = PostgresStore::connect_lazy(database.url(), &PostgresOptions::default()).unwrap();
    assert!(!direct.check().await.unwrap().pooled);
    let pooler = PgBouncer::tracking(database.url());
    let store = PostgresStore::connect_lazy(&pooler.url(), &PostgresOptions::default()).unwrap();
    assert!(store.check().await.unwrap().pooled);
}

/// Another client uses the connection to the server a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_set_in_the_sessions_of_a_pooler() {
    let database = testkit::stores::todo_database().await;
    let pooler = PgBouncer::tracking(database.url());
    let store = PostgresStore::connect_lazy(&pooler.url(), &PostgresOptions::default()).unwrap();
    store.ping().await.unwrap();
    assert!(store.status().size > 0, "it has connected");
    for client in &mut every_session(&pooler).await {
        for setting in ["statement_timeout", "lock_timeout"] {
            let show = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("show {setting}"))).fetch_one(&mut *client).await;
            assert_eq!(show.unwrap().get::<String, _>(0), "0", "{setting}");
        }
    }
}
