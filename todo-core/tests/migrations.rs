//! Migrations in both directions.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, SqliteConnection, migrate::Migrate as _,
    postgres::PgPoolOptions,
};
use testkit::stores::{RowSecurityDatabase, connect};
use todo_core::{
    NewTask, Task, TaskQuery, Title, TodoService, UserId,
    store::{DataLoss, Names, PostgresStore, SqliteStore, StoreError, TaskStore},
};

/// Creates tasks of two users.
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

/// The tasks of the two users in the store.
async fn list(store: impl TaskStore + 'static) -> Vec<Task> {
    let service = TodoService::new(store);
    let mut tasks = Vec::new();
    for user in ["ann", "bob"] {
        let page = service.for_user(UserId::new(user).unwrap()).list(&TaskQuery::default()).await.unwrap();
        tasks.extend(page.tasks.into_iter().rev());
    }
    tasks
}

#[track_caller]
fn text(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Setup(mistake)) => mistake.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn run(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(sqlx::raw_sql(statement)).await.unwrap();
}

/// The versions in the ledger, whether there are functions for row-level security, and whether it is enabled.
async fn state(url: &str) -> (Vec<i64>, bool, bool) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let versions = "select version from todo.tasks_migrations order by version";
    let versions = sqlx::query_scalar(versions).fetch_all(&mut connection).await.unwrap();
    let others = "select exists (select from pg_proc where proname ~ '^tasks_(owner|.*_[0-9a-f]{10})$'), \
        exists (select from pg_class where relname = 'tasks' and relrowsecurity and relforcerowsecurity)";
    let (functions, on) = sqlx::query_as(others).fetch_one(&mut connection).await.unwrap();
    (versions, functions, on)
}

/// A released migration must not change by a character: its checksum is in the databases of users.
#[tokio::test]
async fn released_migrations_never_change() {
    let database = testkit::postgres::empty_database().await;
    connect(database.url()).migrate().await.unwrap();
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let checksums = "select version, left(encode(checksum, 'hex'), 32) from todo.tasks_migrations order by version";
    let checksums: Vec<(i64, String)> = sqlx::query_as(checksums).fetch_all(&mut connection).await.unwrap();
    let expected = [(1, "f73137ec61dd350b2257f5f4f0e3da76"), (2, "1c217e7fb2234743c9ace514f9db4f71")];
    assert_eq!(checksums, expected.map(|(version, checksum)| (version, checksum.to_owned())), "PostgreSQL");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    SqliteStore::open_lazy(&path).migrate().await.unwrap();
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let checksums = "select version, lower(substr(hex(checksum), 1, 32)) from todo_tasks_migrations order by version";
    let checksums: Vec<(i64, String)> = sqlx::query_as(checksums).fetch_all(&mut connection).await.unwrap();
    assert_eq!(checksums, [(1, "7beb29a34e268dab06a459d6775ca212".to_owned())], "SQLite");
}

#[tokio::test]
async fn migrating_back_and_forth_keeps_the_tasks() {
    for row_security in [false, true] {
        let secured = RowSecurityDatabase::empty().await;
        let with = |url: &str| {
            let store = connect(url);
            if row_security { store.with_row_security() } else { store }
        };
        let (owner, app) = (with(&secured.owner), with(&secured.app));
        owner.migrate().await.unwrap();
        owner.grant_to(&secured.role("app")).await.unwrap();
        app.check_tables().await.unwrap();
        let tasks = create(app.clone()).await;
        for _ in 0..2 {
            assert_eq!(state(&secured.owner).await, (vec![1, 2], true, row_security));
            owner.migrate_to(1, DataLoss::Refuse).await.unwrap();
            assert_eq!(state(&secured.owner).await, (vec![1], false, false));
            // The first version works without row-level security.
            assert_eq!(list(connect(&secured.app)).await, tasks);
            assert!(app.check_tables().await.is_err());
            // Repeating changes nothing, and every way leads to the newest version.
            owner.migrate_to(1, DataLoss::Refuse).await.unwrap();
            owner.migrate().await.unwrap();
            // The privileges on the functions were removed with them.
            owner.grant_to(&secured.role("app")).await.unwrap();
            app.check_tables().await.unwrap();
            assert_eq!(list(app.clone()).await, tasks);
        }
        secured.database.close().await;
    }
}

#[tokio::test]
async fn a_migration_deletes_tasks_only_if_the_data_loss_is_accepted() {
    for row_security in [false, true] {
        let secured = RowSecurityDatabase::empty().await;
        let owner = connect(&secured.owner);
        let owner = if row_security { owner.with_row_security() } else { owner };
        owner.migrate().await.unwrap();
        let before = state(&secured.owner).await;
        let tasks = create(owner.clone()).await;
        let refused = text(owner.migrate_to(0, DataLoss::Refuse).await);
        assert!(refused.contains("there are tasks"), "{refused}");
        // The migration is not half done, or row-level security would be disabled.
        assert_eq!(state(&secured.owner).await, before);
        assert_eq!(list(owner.clone()).await, tasks);
        owner.migrate_to(0, DataLoss::Accept).await.unwrap();
        assert_eq!(state(&secured.owner).await, (vec![], false, false));
        assert!(owner.ping().await.is_err());
        owner.migrate().await.unwrap();
        assert_eq!(list(owner.clone()).await, []);
        // There are no tasks to lose.
        owner.migrate_to(0, DataLoss::Refuse).await.unwrap();
        owner.migrate_to(0, DataLoss::Refuse).await.unwrap();
        secured.database.close().await;
    }
}

/// Some migrate forward while others migrate back.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_run_one_after_the_other() {
    let secured = RowSecurityDatabase::migrated().await;
    let tasks = create(secured.store()).await;
    let moves: Vec<_> = (0..12)
        .map(|number| {
            let store: PostgresStore = connect(&secured.owner).with_row_security();
            tokio::spawn(async move {
                if number % 2 == 0 { store.migrate().await } else { store.migrate_to(1, DataLoss::Refuse).await }
            })
        })
        .collect();
    for moved in moves {
        moved.await.unwrap().unwrap();
    }
    let (versions, functions, on) = state(&secured.owner).await;
    assert_eq!((functions, on), (versions == [1, 2], versions == [1, 2]), "{versions:?}");
    let owner = connect(&secured.owner).with_row_security();
    owner.migrate().await.unwrap();
    owner.grant_to(&secured.role("app")).await.unwrap();
    assert_eq!(state(&secured.owner).await, (vec![1, 2], true, true));
    assert_eq!(list(secured.store()).await, tasks);
    secured.database.close().await;
}

/// While a migration waits for a lock on the table, all other calls wait behind it.
#[tokio::test]
async fn a_migration_that_waits_delays_other_calls_only_briefly() {
    let database = testkit::stores::todo_database().await;
    let store = connect(database.url());
    let tasks = create(store.clone()).await;
    let mut reader = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("begin; select count(*) from todo.tasks").execute(&mut reader).await.unwrap();
    let migrating =
        tokio::spawn(async move { connect(database.url()).migrate_to(1, DataLoss::Refuse).await.map(|()| database) });
    for _ in 0..3 {
        // A statement waits for at most two seconds, and here for the second that the migration waits.
        assert_eq!(list(store.clone()).await, tasks);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert!(!migrating.is_finished());
    sqlx::raw_sql("commit").execute(&mut reader).await.unwrap();
    let database = migrating.await.unwrap().unwrap();
    assert_eq!(state(database.url()).await.0, [1]);
    assert_eq!(list(store).await, tasks);
}

#[tokio::test]
async fn the_pool_of_the_host_migrates_in_both_directions() {
    let database = testkit::postgres::empty_database().await;
    let pool = PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
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

/// The setting of a connection of the pool, and where it comes from.
async fn lock_timeout(pool: &PgPool) -> (String, String) {
    let setting = "select setting, source from pg_settings where name = 'lock_timeout'";
    sqlx::query_as(setting).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_migration_over_the_pool_of_the_host_leaves_its_lock_timeout_as_it_was() {
    let database = testkit::postgres::empty_database().await;
    for (setting, expected) in [("set lock_timeout = '4321ms'", ("4321", "session")), ("", ("0", "default"))] {
        let options = PgPoolOptions::new().max_connections(1).after_connect(move |connection, _| {
            Box::pin(async move { connection.execute(sqlx::raw_sql(setting)).await.map(|_| ()) })
        });
        let pool = options.connect(database.url()).await.unwrap();
        let store = PostgresStore::new(pool.clone());
        let expected = (expected.0.to_owned(), expected.1.to_owned());
        assert_eq!(lock_timeout(&pool).await, expected);
        store.migrate().await.unwrap();
        assert_eq!(lock_timeout(&pool).await, expected, "after a migration");
        create(store.clone()).await;
        assert!(store.migrate_to(0, DataLoss::Refuse).await.is_err());
        assert_eq!(lock_timeout(&pool).await, expected, "after a migration that failed");
        store.migrate_to(0, DataLoss::Accept).await.unwrap();
        assert_eq!(lock_timeout(&pool).await, expected, "after a migration back");
        pool.close().await;
    }
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_dropped_leaves_nothing_behind_in_the_pool_of_the_host() {
    let database = testkit::stores::todo_database().await;
    let pool = PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    let before = lock_timeout(&pool).await;
    let mut reader = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("begin; select count(*) from todo.tasks").execute(&mut reader).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    // The migration waits for the reader, and holds its advisory lock.
    let dropped = tokio::time::timeout(Duration::from_millis(500), store.migrate_to(1, DataLoss::Refuse)).await;
    assert!(dropped.is_err(), "{dropped:?}");
    sqlx::raw_sql("commit").execute(&mut reader).await.unwrap();
    assert_eq!(lock_timeout(&pool).await, before);
    // The next migration would wait for that lock.
    tokio::time::timeout(Duration::from_secs(8), connect(database.url()).migrate()).await.unwrap().unwrap();
    pool.close().await;
    database.close().await;
}

/// A role that may only connect, with the lock of sqlx's migrations, or that and the locks of ours.
struct Stranger {
    connection: PgConnection,
    role: String,
}

impl Stranger {
    async fn with_lock_of_sqlx(secured: &mut RowSecurityDatabase) -> Self {
        let url = secured.database.add_role("stranger", "").await;
        let mut connection = PgConnection::connect(&url).await.unwrap();
        connection.lock().await.unwrap();
        Self { connection, role: secured.role("stranger") }
    }

    async fn take_our_locks(&mut self) {
        let keys = "select pg_advisory_lock(hashtextextended(what, 0)) from unnest(array[
            'todo-core migrations in \"todo\".\"tasks\"', 'todo-core grants in todo']) as what";
        sqlx::query(keys).execute(&mut self.connection).await.unwrap();
    }
}

#[tokio::test]
async fn with_nothing_to_migrate_or_to_grant_no_lock_of_another_session_matters() {
    let mut secured = RowSecurityDatabase::migrated().await;
    let mut stranger = Stranger::with_lock_of_sqlx(&mut secured).await;
    stranger.take_our_locks().await;
    let begun = Instant::now();
    let owner = connect(&secured.owner).with_row_security();
    owner.migrate().await.unwrap();
    owner.grant_to(&secured.role("app")).await.unwrap();
    connect(&secured.owner).migrate().await.unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect(&secured.owner).await.unwrap();
    PostgresStore::new(pool.clone()).migrate().await.unwrap();
    // The role of the application may read the ledger, and no more is needed.
    secured.store().migrate().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    pool.close().await;
    drop(stranger);
    secured.database.close().await;
}

/// A server also starts with a role that may create nothing, and while Citus could not run a definition on all nodes.
#[tokio::test]
async fn with_nothing_to_migrate_nothing_is_defined() {
    let secured = RowSecurityDatabase::migrated().await;
    let refuse = "create function public.refuse() returns event_trigger language plpgsql as $$ begin
            raise exception 'refused: %', tg_tag using hint = 'Connect to the coordinator.';
        end $$;
        create event trigger refuse on ddl_command_start execute function public.refuse()";
    run(secured.database.url(), refuse).await;
    for url in [&secured.owner, &secured.app] {
        connect(url).migrate().await.unwrap();
        let store = connect(url).with_row_security();
        store.migrate().await.unwrap();
        store.migrate_to(2, DataLoss::Refuse).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(1).connect(url).await.unwrap();
        PostgresStore::new(pool.clone()).migrate().await.unwrap();
        pool.close().await;
    }
    secured.store().check_tables().await.unwrap();
    // A definition is refused. The error has the hint of the database.
    let refused = connect(&secured.owner).with_names(Names::new("other", "tasks").unwrap()).migrate().await;
    let refused = refused.unwrap_err();
    let mut text = refused.to_string();
    let mut source = refused.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    assert!(text.contains("refused: CREATE SCHEMA") && text.contains("hint: Connect to the coordinator."), "{text}");
    secured.database.close().await;
}

#[tokio::test]
async fn a_migration_fails_in_time_and_names_the_session_that_holds_its_lock() {
    let mut secured = RowSecurityDatabase::empty().await;
    let mut stranger = Stranger::with_lock_of_sqlx(&mut secured).await;
    let owner = connect(&secured.owner);
    // The lock of sqlx, which a migration of the host may hold, is another one.
    let begun = Instant::now();
    owner.migrate_to(1, DataLoss::Refuse).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    stranger.take_our_locks().await;
    // So is the lock of tables with other names.
    owner.clone().with_names(Names::new("other", "tasks").unwrap()).migrate().await.unwrap();
    let failed = owner.migrate().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let Err(StoreError::Unavailable(held)) = failed else { panic!("{failed:?}") };
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut stranger.connection).await.unwrap();
    assert!(held.to_string().contains(&format!("process {pid} of the role {}", stranger.role)), "{held}");
    assert_eq!(state(&secured.owner).await.0, [1]);
    stranger.connection.close().await.unwrap();
    owner.migrate().await.unwrap();
    assert_eq!(state(&secured.owner).await.0, [1, 2]);
    secured.database.close().await;
}

#[tokio::test]
async fn with_nothing_to_migrate_a_file_that_another_process_writes_can_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    SqliteStore::open_lazy(&path).migrate().await.unwrap();
    let mut writer = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let writing = writer.begin_with("begin immediate").await.unwrap();
    let store = SqliteStore::open_lazy(&path);
    tokio::time::timeout(Duration::from_secs(1), store.migrate()).await.unwrap().unwrap();
    assert_eq!(list(store).await, []);
    drop(writing);
}

#[tokio::test]
async fn tables_of_a_newer_version_are_not_changed() {
    let secured = RowSecurityDatabase::migrated().await;
    let store = connect(secured.database.url());
    let unknown = text(store.migrate_to(3, DataLoss::Refuse).await);
    assert!(unknown.contains("there is no version 3"), "{unknown}");
    run(
        secured.database.url(),
        "insert into todo.tasks_migrations (version, description, success, checksum, execution_time)
         values (3, 'of a newer version', true, '', 0)",
    )
    .await;
    for refused in [
        text(store.migrate().await),
        text(store.migrate_to(1, DataLoss::Refuse).await),
        text(store.check_tables().await),
        text(secured.store().check_tables().await),
    ] {
        assert!(refused.contains("at version 3") && refused.contains("versions up to 2"), "{refused}");
    }
    assert_eq!(state(&secured.owner).await, (vec![1, 2, 3], true, true));
    // A running server keeps working: a rolling deployment has both versions for a while.
    create(secured.store()).await;
    secured.database.close().await;
}

/// Before the first release the tables had other columns, and their migrations were replaced.
#[tokio::test]
async fn tables_from_before_the_first_release_are_refused_and_not_changed() {
    let database = testkit::postgres::empty_database().await;
    let store = connect(database.url());
    store.migrate().await.unwrap();
    run(
        database.url(),
        "drop table todo.tasks cascade;
         create table todo.tasks (user_id text, id uuid, title text, primary key (user_id, id));
         insert into todo.tasks values ('ann', gen_random_uuid(), 'Water the plants');
         update todo.tasks_migrations set checksum = '\\x0123'",
    )
    .await;
    for refused in [
        text(store.migrate().await),
        text(store.migrate_to(1, DataLoss::Refuse).await),
        text(store.migrate_to(0, DataLoss::Accept).await),
        text(store.check_tables().await),
    ] {
        assert!(refused.contains("from before the first release; nothing was changed"), "{refused}");
    }
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let title: String = sqlx::query_scalar("select title from todo.tasks").fetch_one(&mut connection).await.unwrap();
    assert_eq!(title, "Water the plants");
    store.close().await;
    database.close().await;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open_lazy(&path);
    store.migrate().await.unwrap();
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    connection.execute("update todo_tasks_migrations set checksum = x'0123'").await.unwrap();
    for refused in [text(store.migrate().await), text(store.migrate_to(0, DataLoss::Accept).await)] {
        assert!(refused.contains("from before the first release; nothing was changed"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_migrates_in_both_directions() {
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
        values (2, 'of a newer version', true, x'00', 0)";
    connection.execute(AssertSqlSafe(newer.to_owned())).await.unwrap();
    let refused = text(store.migrate().await);
    assert!(refused.contains("at version 2") && refused.contains("versions up to 1"), "{refused}");
}

/// An administrator has created the schema for its owner, who may create no other.
#[tokio::test]
async fn the_owner_of_an_existing_schema_needs_no_right_to_create_schemas() {
    let mut database = testkit::postgres::empty_database().await;
    let owner = database.add_role("owner", "").await;
    let role = format!("{}_owner", database.name());
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let create = format!("create schema todo authorization {role}");
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(create))).await.unwrap();
    connection.close().await.unwrap();
    let store = connect(&owner);
    assert!(store.clone().with_names(Names::new("other", "tasks").unwrap()).migrate().await.is_err());
    store.migrate().await.unwrap();
    store.check_tables().await.unwrap();
    assert_eq!(state(&owner).await.0, [1, 2]);
    store.migrate_to(0, DataLoss::Refuse).await.unwrap();
    store.close().await;
    database.close().await;
}
