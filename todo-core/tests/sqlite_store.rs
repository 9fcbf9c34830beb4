//! The store suite on [`SqliteStore`], and what only that store guarantees.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{sync::Arc, time::Duration};

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
        // The transaction can still commit.
        store.take().await.unwrap().commit().await.unwrap();
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
        pool.close().await;
    }

    todo_core::store_conformance!(with_store);
}

#[tokio::test]
async fn a_transaction_that_can_no_longer_write_is_rejected() {
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
async fn concurrent_first_starts_migrate_once() {
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
async fn stores_with_other_names_and_the_hosts_tables_stay_separate() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_another_one_that_has_locked_the_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let mut other = SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    other.execute("create table other (number integer)").await.unwrap();
    // While another connection may write, SQLite does not wait to change the file to WAL mode.
    other.execute("begin immediate").await.unwrap();
    let store = SqliteStore::open_lazy(&path);
    let starting = tokio::spawn(async move { store.migrate().await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    other.execute("commit").await.unwrap();
    starting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_setup_mistake_is_an_error_that_says_what_to_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let text = |result: Result<(), StoreError>| match result {
        Err(StoreError::Setup(mistake)) => mistake.to_string(),
        other => panic!("{other:?}"),
    };
    let no_tables = SqliteStore::open_lazy(&path);
    // Reads do not create the file.
    SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap().close().await.unwrap();
    assert!(text(no_tables.ping().await).contains("run the migrations"));
    assert!(text(no_tables.erase(&UserId::new("ann").unwrap()).await.map(drop)).contains("run the migrations"));
    std::fs::write(&path, "This is a letter and no database. ".repeat(100)).unwrap();
    assert!(text(SqliteStore::open_lazy(&path).migrate().await).contains("not an SQLite database"));
    let no_folder = directory.path().join("no-folder").join("tasks.db");
    assert!(text(SqliteStore::open_lazy(no_folder).migrate().await).contains("create the folder"));
    for url in ["postgres://db", "sqlite::memory:", "sqlite://tasks.db?mode=ro", "sqlite://tasks.db?mode=what"] {
        text(SqliteStore::from_url(url).map(drop));
    }
}

#[test]
fn a_database_in_memory_is_rejected() {
    for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://x?mode=memory", "sqlite://x?mode=ro", "mysql://x"] {
        assert!(SqliteStore::from_url(url).is_err(), "{url}");
    }
    assert!(SqliteStore::from_url("sqlite://tasks.db").is_ok());
}

#[tokio::test]
async fn a_file_that_must_exist_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::from_url(&format!("sqlite://{}?mode=rw", path.display())).unwrap();
    assert!(matches!(store.migrate().await, Err(StoreError::Setup(_))));
    assert!(!path.exists());
}
