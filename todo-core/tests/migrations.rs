//! The tables, there and back.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use testkit::stores::{WalledDatabase, connect};
use todo_core::{
    NewTask, Task, TaskQuery, Title, TodoService, UserId,
    store::{DataLoss, PostgresStore, SqliteStore, StoreError, TaskStore},
};

/// Tasks of two users.
async fn create(store: impl TaskStore + 'static) -> Vec<Task> {
    let service = TodoService::new(store);
    let mut tasks = Vec::new();
    for user in ["ann", "bob"] {
        for title in ["Water the plants", "Feed the fish"] {
            let task = NewTask::new(Title::new(title).unwrap());
            tasks.push(service.for_user(UserId::new(user).unwrap()).create(task).await.unwrap());
        }
    }
    tasks
}

/// The same tasks, as the store has them.
async fn list(store: impl TaskStore + 'static) -> Vec<Task> {
    let service = TodoService::new(store);
    let mut tasks = Vec::new();
    for user in ["ann", "bob"] {
        let page = service.for_user(UserId::new(user).unwrap()).list(&TaskQuery::default()).await.unwrap();
        tasks.extend(page.tasks.into_iter().rev());
    }
    tasks
}

fn text(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Backend(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn run(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(sqlx::raw_sql(statement)).await.unwrap();
}

/// Which versions the ledger has, whether there are functions, and whether row security is on.
async fn state(url: &str) -> (Vec<i64>, bool, bool) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let versions = "select version from todo.tasks_migrations order by version";
    let versions = sqlx::query_scalar(versions).fetch_all(&mut connection).await.unwrap();
    let others = "select exists (select from pg_proc where proname like 'tasks\\_%'), \
        exists (select from pg_class where relname = 'tasks' and relrowsecurity and relforcerowsecurity)";
    let (functions, on) = sqlx::query_as(others).fetch_one(&mut connection).await.unwrap();
    (versions, functions, on)
}

/// A migration that somebody has run must stay as it was, to the letter: its checksum is in their database.
#[tokio::test]
async fn released_migrations_never_change() {
    let database = testkit::postgres::empty_database().await;
    connect(database.url()).migrate().await.unwrap();
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let checksums = "select version, left(encode(checksum, 'hex'), 32) from todo.tasks_migrations order by version";
    let checksums: Vec<(i64, String)> = sqlx::query_as(checksums).fetch_all(&mut connection).await.unwrap();
    let expected = [(1, "9a7c41fd3aad034830b6373cb07b6eed"), (2, "a39f0466ab023ac731a9f121186ee4f2")];
    assert_eq!(checksums, expected.map(|(version, checksum)| (version, checksum.to_owned())), "PostgreSQL");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    SqliteStore::open_lazy(&path).migrate().await.unwrap();
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let checksums = "select version, lower(substr(hex(checksum), 1, 32)) from todo_tasks_migrations order by version";
    let checksums: Vec<(i64, String)> = sqlx::query_as(checksums).fetch_all(&mut connection).await.unwrap();
    assert_eq!(checksums, [(1, "f9d0c82c66537a545be52cd71d22bb80".to_owned())], "SQLite");
}

/// With row security and without.
#[tokio::test]
async fn up_and_down_and_up_again_keeps_the_tasks() {
    for row_security in [false, true] {
        let walled = WalledDatabase::empty().await;
        let with = |url: &str| {
            let store = connect(url);
            if row_security { store.with_row_security() } else { store }
        };
        let (owner, app) = (with(&walled.owner), with(&walled.app));
        owner.migrate().await.unwrap();
        owner.grant_to(&walled.role("app")).await.unwrap();
        app.check_tables().await.unwrap();
        let tasks = create(app.clone()).await;
        for _ in 0..2 {
            assert_eq!(state(&walled.owner).await, (vec![1, 2], true, row_security));
            owner.migrate_to(1, DataLoss::Refuse).await.unwrap();
            assert_eq!(state(&walled.owner).await, (vec![1], false, false));
            // As the first version had it; also for those who have not been told.
            assert_eq!(list(connect(&walled.app)).await, tasks);
            assert!(app.check_tables().await.is_err());
            // As often as one likes, and from there as from anywhere.
            owner.migrate_to(1, DataLoss::Refuse).await.unwrap();
            owner.migrate_to(2, DataLoss::Refuse).await.unwrap();
            owner.migrate().await.unwrap();
            // Privileges on what was removed went with it.
            owner.grant_to(&walled.role("app")).await.unwrap();
            app.check_tables().await.unwrap();
            assert_eq!(list(app.clone()).await, tasks);
        }
        walled.database.close().await;
    }
}

#[tokio::test]
async fn tasks_are_lost_only_if_that_is_asked_for() {
    for row_security in [false, true] {
        let walled = WalledDatabase::empty().await;
        let owner = connect(&walled.owner);
        let owner = if row_security { owner.with_row_security() } else { owner };
        owner.migrate().await.unwrap();
        let before = state(&walled.owner).await;
        let tasks = create(owner.clone()).await;
        let refused = text(owner.migrate_to(0, DataLoss::Refuse).await);
        assert!(refused.contains("there are tasks"), "{refused}");
        // Not half of the way either, or the second wall would be gone.
        assert_eq!(state(&walled.owner).await, before);
        assert_eq!(list(owner.clone()).await, tasks);
        owner.migrate_to(0, DataLoss::Accept).await.unwrap();
        assert_eq!(state(&walled.owner).await, (vec![], false, false));
        assert!(owner.ping().await.is_err());
        owner.migrate().await.unwrap();
        assert_eq!(list(owner.clone()).await, []);
        // Nothing is lost, so nobody has to be asked.
        owner.migrate_to(0, DataLoss::Refuse).await.unwrap();
        owner.migrate_to(0, DataLoss::Refuse).await.unwrap();
        walled.database.close().await;
    }
}

/// Some come up while others go down, as if two people had decided differently; tasks are written meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_migrates_at_the_same_time_waits_for_the_other() {
    let walled = WalledDatabase::migrated().await;
    let tasks = create(walled.store()).await;
    let moves: Vec<_> = (0..12)
        .map(|number| {
            let store: PostgresStore = connect(&walled.owner).with_row_security();
            tokio::spawn(async move {
                if number % 2 == 0 { store.migrate().await } else { store.migrate_to(1, DataLoss::Refuse).await }
            })
        })
        .collect();
    for moved in moves {
        moved.await.unwrap().unwrap();
    }
    let (versions, functions, on) = state(&walled.owner).await;
    assert_eq!((functions, on), (versions == [1, 2], versions == [1, 2]), "{versions:?}");
    let owner = connect(&walled.owner).with_row_security();
    owner.migrate().await.unwrap();
    owner.grant_to(&walled.role("app")).await.unwrap();
    assert_eq!(state(&walled.owner).await, (vec![1, 2], true, true));
    assert_eq!(list(walled.store()).await, tasks);
    walled.database.close().await;
}

/// While a migration waits for a lock of the whole table, all others would wait behind it.
#[tokio::test]
async fn a_migration_that_somebody_holds_up_does_not_hold_up_the_others() {
    let database = testkit::stores::todo_database().await;
    let store = connect(database.url());
    let tasks = create(store.clone()).await;
    let mut reader = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("begin; select count(*) from todo.tasks").execute(&mut reader).await.unwrap();
    let migrating =
        tokio::spawn(async move { connect(database.url()).migrate_to(1, DataLoss::Refuse).await.map(|()| database) });
    for _ in 0..3 {
        // A statement waits for two seconds at most, and this one for the second that the migration waits.
        assert_eq!(list(store.clone()).await, tasks);
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
    assert!(!migrating.is_finished());
    sqlx::raw_sql("commit").execute(&mut reader).await.unwrap();
    let database = migrating.await.unwrap().unwrap();
    assert_eq!(state(database.url()).await.0, [1]);
    assert_eq!(list(store).await, tasks);
}

#[tokio::test]
async fn the_pool_of_the_host_migrates_both_ways() {
    let database = testkit::postgres::empty_database().await;
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    store.migrate().await.unwrap();
    let tasks = create(store.clone()).await;
    assert!(store.migrate_to(0, DataLoss::Refuse).await.is_err());
    store.migrate_to(1, DataLoss::Refuse).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(list(store).await, tasks);
    pool.close().await;
    database.close().await;
}

#[tokio::test]
async fn a_database_that_is_newer_is_left_alone() {
    let walled = WalledDatabase::migrated().await;
    let store = connect(walled.database.url());
    let unknown = text(store.migrate_to(3, DataLoss::Refuse).await);
    assert!(unknown.contains("there is no version 3"), "{unknown}");
    run(
        walled.database.url(),
        "insert into todo.tasks_migrations (version, description, success, checksum, execution_time)
         values (3, 'of a newer one', true, '', 0)",
    )
    .await;
    for refused in [
        text(store.migrate().await),
        text(store.migrate_to(1, DataLoss::Refuse).await),
        text(store.check_tables().await),
        text(walled.store().check_tables().await),
    ] {
        assert!(refused.contains("at version 3") && refused.contains("none after 2"), "{refused}");
    }
    assert_eq!(state(&walled.owner).await, (vec![1, 2, 3], true, true));
    // Who has it open already goes on with it: a rolling deployment has both for a while.
    create(walled.store()).await;
    walled.database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_goes_there_and_back_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open_lazy(&path);
    store.migrate().await.unwrap();
    let tasks = create(store.clone()).await;
    let unknown = text(store.migrate_to(2, DataLoss::Refuse).await);
    assert!(unknown.contains("there is no version 2"), "{unknown}");
    let refused = text(store.migrate_to(0, DataLoss::Refuse).await);
    assert!(refused.contains("there are tasks"), "{refused}");
    store.migrate_to(1, DataLoss::Refuse).await.unwrap();
    assert_eq!(list(store.clone()).await, tasks);
    store.migrate_to(0, DataLoss::Accept).await.unwrap();
    assert!(store.ping().await.is_err());
    store.migrate_to(0, DataLoss::Refuse).await.unwrap();

    let moves: Vec<_> = (0..8)
        .map(|number| {
            let store = SqliteStore::open_lazy(&path);
            tokio::spawn(async move {
                if number % 2 == 0 { store.migrate().await } else { store.migrate_to(0, DataLoss::Refuse).await }
            })
        })
        .collect();
    for moved in moves {
        moved.await.unwrap().unwrap();
    }
    store.migrate().await.unwrap();
    let tasks = create(store.clone()).await;
    assert_eq!(list(store.clone()).await, tasks);

    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let newer = "insert into todo_tasks_migrations (version, description, success, checksum, execution_time) \
        values (2, 'of a newer one', true, x'00', 0)";
    connection.execute(AssertSqlSafe(newer.to_owned())).await.unwrap();
    let refused = text(store.migrate().await);
    assert!(refused.contains("at version 2") && refused.contains("none after 1"), "{refused}");
}
