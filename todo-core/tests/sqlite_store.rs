//! The store suite on [`SqliteStore`], and what only that store guarantees.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{sync::Arc, time::Duration};

use sqlx::{Connection as _, Executor as _, SqliteConnection, SqlitePool};
use todo_core::{
    Limit, NewTask, TaskFilter, TaskId, TaskQuery, Title, TodoService, UserId,
    clock::Timestamp,
    conformance::store::PlainCalls as _,
    store::{Change, Names, SqliteStore, StoreError, TaskStore},
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

/// The changes of a host that knows nothing of revisions are noticed, one by one and many at once.
#[tokio::test]
async fn the_sql_of_a_host_moves_revisions_and_versions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open_lazy(&path);
    store.migrate().await.unwrap();
    let (ann, bob) = (UserId::new("ann").unwrap(), UserId::new("bob").unwrap());
    let task = |owner: &UserId, number: u128| {
        let id = TaskId::from(uuid::Uuid::from_u128(number));
        let new = NewTask::new(Title::new("\u{c4}pfel").unwrap());
        new.into_task(owner.clone(), id, Timestamp::from_unix_seconds(1_763_712_000))
    };
    for owner in [&ann, &bob] {
        assert!(store.add_all(owner, &[task(owner, 1), task(owner, 2), task(owner, 3)]).await.unwrap());
    }
    let revision = async |owner: &UserId| store.revisions(std::slice::from_ref(owner)).await.unwrap()[0];
    let start = store.changes(&ann, None, Limit::default()).await.unwrap().unwrap().next;
    let (of_bob, mut before) = (revision(&bob).await, revision(&ann).await);
    let mut host = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let mut expected = store.get(&ann, task(&ann, 1).id).await.unwrap().unwrap();
    for set in [
        "title = 'Pears'",
        "description = 'Ripe'",
        "completed = 1",
        "completed = 0",
        "priority = 3",
        "list = 'Home'",
        "tags = '[\"a\"]'",
        "position = 'a5'",
        "metadata = '{\"a\":1}'",
        "due = '2026-12-01', due_at = 1796083200000000",
        "title = title, priority = 1",
    ] {
        // Its clock counts milliseconds, and so does what a host's changes get.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let update = format!("update todo_tasks set {set} where user_id = 'ann' and id = unhex('{:032x}')", 1);
        host.execute(sqlx::AssertSqlSafe(update)).await.unwrap();
        let after = revision(&ann).await;
        let found = store.get(&ann, expected.id).await.unwrap().unwrap();
        assert!(after > before, "{set}");
        assert_eq!(found.version, expected.version + 1, "{set}");
        assert!(found.updated_at > expected.updated_at, "{set}");
        assert_eq!(found.completed_at.is_some(), found.completed, "{set}");
        if found.completed {
            assert_eq!(found.completed_at, Some(found.updated_at));
        }
        (before, expected) = (after, found);
    }
    // The search knows the new title.
    assert_eq!(store.number(&ann, &TaskFilter::new().text("pears")).await.unwrap(), 1);
    assert_eq!(store.number(&ann, &TaskFilter::new().text("\u{e4}pfel")).await.unwrap(), 2);
    // What a host sets itself stays.
    let update = "update todo_tasks set completed = 1, completed_at = 5, updated_at = 1900000000000000, version = 70
        where user_id = 'ann' and id = unhex('00000000000000000000000000000002')";
    host.execute(update).await.unwrap();
    let found = store.get(&ann, task(&ann, 2).id).await.unwrap().unwrap();
    assert_eq!(
        (found.version, found.updated_at.unix_micros(), found.completed_at.map(Timestamp::unix_micros)),
        (70, 1_900_000_000_000_000, Some(5))
    );
    // Nothing is changed.
    before = revision(&ann).await;
    host.execute("update todo_tasks set title = title, version = version where user_id = 'ann'").await.unwrap();
    host.execute("insert or ignore into todo_tasks select * from todo_tasks where user_id = 'ann'").await.unwrap();
    assert_eq!(revision(&ann).await, before);
    assert_eq!(revision(&bob).await, of_bob);

    for rejected in [
        "update todo_tasks set user_id = 'zoe' where user_id = 'ann'",
        "update todo_tasks set id = unhex('00000000000000000000000000000009') where user_id = 'ann'",
    ] {
        let error = host.execute(rejected).await.unwrap_err();
        assert!(error.to_string().contains("do not change"), "{rejected}: {error}");
    }
    // An insertion that updates a row which exists.
    let upsert = "insert into todo_tasks (user_id, id, title, created_at, updated_at)
        values ('bob', unhex('00000000000000000000000000000002'), 'Other', 0, 0) on conflict do update set title = excluded.title";
    host.execute(upsert).await.unwrap();
    assert!(revision(&bob).await > of_bob);
    assert_eq!(store.get(&bob, task(&bob, 2).id).await.unwrap().unwrap().version, 2);

    // Deletions and insertions of both owners, each in one statement. SQLite has no `truncate`.
    host.execute("delete from todo_tasks where id <> unhex('00000000000000000000000000000001')").await.unwrap();
    host.execute(
        "insert into todo_tasks (user_id, id, title, created_at, updated_at)
         select value, unhex('00000000000000000000000000000003'), 'Again', 0, 0 from json_each('[\"ann\",\"bob\",\"cem\"]')",
    )
    .await
    .unwrap();
    let found = store.changes(&ann, Some(start), Limit::default()).await.unwrap().unwrap();
    let shown = found.changes.iter().map(|change| match change {
        Change::Task(task) => (task.id.as_uuid().as_u128(), Some(task.version)),
        Change::Deleted(id) => (id.as_uuid().as_u128(), None),
    });
    assert_eq!(shown.collect::<Vec<_>>(), [(1, Some(expected.version)), (2, None), (3, Some(2))]);
    let counts: Vec<(String, i64)> =
        sqlx::query_as("select user_id, tasks from todo_tasks_owners order by 1").fetch_all(&mut host).await.unwrap();
    assert_eq!(counts, [("ann", 2), ("bob", 2), ("cem", 1)].map(|(owner, count)| (owner.to_owned(), count)));
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
