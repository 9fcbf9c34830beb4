//! The store suite on [`SqliteStore`], and what only SQLite promises.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::sync::Arc;

use sqlx::{Connection as _, Executor as _, SqliteConnection, SqlitePool};
use todo_core::{
    NewTask, TaskQuery, Title, TodoService, UserId,
    store::{Names, SqliteStore, StoreError, TaskStore},
};

mod own_connections {
    todo_core::store_conformance!(testkit::stores::sqlite);
}

mod transaction_of_the_host {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.db");
        let store = SqliteStore::open_lazy(&path);
        store.migrate().await.unwrap();
        let pool = SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        let store = store.in_transaction(pool.begin_with("BEGIN IMMEDIATE").await.unwrap()).await.unwrap();
        case(Arc::new(store.clone())).await;
        // It is still one that can commit.
        store.take().await.unwrap().commit().await.unwrap();
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
        pool.close().await;
    }

    todo_core::store_conformance!(with_store);
}

#[tokio::test]
async fn a_transaction_that_cannot_write_any_more_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.db");
    let store = SqliteStore::open_lazy(&path);
    store.migrate().await.unwrap();
    let pool = SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let mut late = pool.begin().await.unwrap();
    late.fetch_all("select * from todo_tasks").await.unwrap();
    let service = TodoService::new(store.clone());
    let ann = service.for_user(UserId::new("ann").unwrap());
    ann.create(NewTask::new(Title::new("First").unwrap())).await.unwrap();
    // What the transaction has read is outdated.
    let error = store.in_transaction(late).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_starts_at_once_migrate_once() {
    let directory = tempfile::tempdir().unwrap();
    // Each store has connections of its own, as each process would.
    let starts: Vec<_> = (0..12)
        .map(|_| {
            let store = SqliteStore::open_lazy(directory.path().join("tasks.db"));
            tokio::spawn(async move {
                store.migrate().await?;
                store.ping().await
            })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_write_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    SqliteStore::open_lazy(&path).migrate().await.unwrap();
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let service = TodoService::new(SqliteStore::open_lazy(&path));
            tokio::spawn(async move {
                let tasks = service.for_user(UserId::new(format!("writer {number}")).unwrap());
                for _ in 0..25 {
                    tasks.create(NewTask::new(Title::new("Mine").unwrap())).await.unwrap();
                }
                tasks.list(&TaskQuery::default()).await.unwrap().tasks.len()
            })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 25);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_live_beside_each_other_and_beside_the_hosts_own_tables() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.db");
    let mut host = SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    host.execute(
        "create table tasks (nothing_like_ours integer); insert into tasks values (7);
         create table _sqlx_migrations (version integer primary key); insert into _sqlx_migrations values (42);",
    )
    .await
    .unwrap();
    let stores = [
        SqliteStore::open_lazy(&path),
        SqliteStore::open_lazy(&path).with_names(Names::new("todo", "chores").unwrap()),
    ];
    for store in &stores {
        store.migrate().await.unwrap();
        store.migrate().await.unwrap();
        let service = TodoService::new(store.clone());
        let ann = service.for_user(UserId::new("ann").unwrap());
        assert_eq!(ann.list(&TaskQuery::default()).await.unwrap().tasks, []);
        ann.create(NewTask::new(Title::new("Mine").unwrap())).await.unwrap();
    }
    let untouched: (i64, i64) =
        sqlx::query_as("select (select sum(nothing_like_ours) from tasks), (select version from _sqlx_migrations)")
            .fetch_one(&mut host)
            .await
            .unwrap();
    assert_eq!(untouched, (7, 42));
}

#[test]
fn a_database_in_memory_is_refused() {
    for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://x?mode=memory", "sqlite://x?mode=ro", "mysql://x"] {
        assert!(SqliteStore::from_url(url).is_err(), "{url}");
    }
    assert!(SqliteStore::from_url("sqlite://tasks.db").is_ok());
}

#[tokio::test]
async fn a_file_that_must_be_there_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::from_url(&format!("sqlite://{}?mode=rw", path.display())).unwrap();
    assert!(store.migrate().await.is_err());
    assert!(!path.exists());
}
