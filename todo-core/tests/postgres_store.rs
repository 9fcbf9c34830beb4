//! The store suite on [`PostgresStore`], and what only PostgreSQL promises.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Row as _, postgres::PgPoolOptions};
use testkit::{
    postgres::TestDatabase,
    stores::{connect, todo_database},
};
use todo_core::{
    NewTask, TaskQuery, Title, TodoService, UserId,
    store::{Names, PostgresInTransaction, PostgresOptions, PostgresStore, StoreError, TaskStore},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

mod own_connections {
    todo_core::store_conformance!(testkit::stores::postgres);
}

mod pool_of_the_host {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        let database = todo_database().await;
        let pool = PgPoolOptions::new().test_before_acquire(false).connect(database.url()).await.unwrap();
        case(Arc::new(PostgresStore::new(pool.clone()))).await;
        pool.close().await;
        database.close().await;
    }

    todo_core::store_conformance!(with_store);
}

mod transaction_of_the_host {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        let database = todo_database().await;
        let pool = PgPool::connect(database.url()).await.unwrap();
        let store = PostgresInTransaction::new(pool.begin().await.unwrap());
        case(Arc::new(store.clone())).await;
        // It is still one that can commit.
        store.take().await.unwrap().commit().await.unwrap();
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
        pool.close().await;
        database.close().await;
    }

    todo_core::store_conformance!(with_store);
}

fn ann(service: &TodoService) -> todo_core::UserTasks<'_> {
    service.for_user(UserId::new("ann").unwrap())
}

fn new_task() -> NewTask {
    NewTask::new(Title::new("Count me").unwrap())
}

/// Between us and the database: counts how often we wait for an answer, which is once for each Sync message.
struct Wire {
    url: String,
    syncs: Arc<AtomicUsize>,
}

impl Wire {
    async fn to(database: &TestDatabase) -> Self {
        let mut url = url::Url::parse(database.url()).unwrap();
        let upstream = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(address.port())).unwrap();
        // Encrypted messages cannot be counted.
        url.query_pairs_mut().append_pair("sslmode", "disable");
        let syncs = Arc::new(AtomicUsize::new(0));
        let counter = syncs.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (upstream, counter) = (upstream.clone(), counter.clone());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(upstream).await.unwrap();
                    let (mut from_client, mut to_client) = client.split();
                    let (mut from_server, mut to_server) = server.split();
                    let up = async {
                        let mut startup = true;
                        loop {
                            // The first message has no type; each has its length, which counts itself.
                            let mut head = vec![0; if startup { 4 } else { 5 }];
                            if from_client.read_exact(&mut head).await.is_err() {
                                break;
                            }
                            let length = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap()) as usize - 4;
                            let mut body = vec![0; length];
                            from_client.read_exact(&mut body).await.unwrap();
                            if !startup && head[0] == b'S' {
                                counter.fetch_add(1, Ordering::SeqCst);
                            }
                            startup = false;
                            head.extend(body);
                            if to_server.write_all(&head).await.is_err() {
                                break;
                            }
                        }
                    };
                    let down = tokio::io::copy(&mut from_server, &mut to_client);
                    tokio::select! { () = up => {}, _ = down => {} }
                });
            }
        });
        Self { url: url.into(), syncs }
    }

    fn count(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_is_one_round_trip() {
    let database = todo_database().await;
    let wire = Wire::to(&database).await;
    // One connection, so that the second round of calls finds all statements prepared.
    let mut options = PostgresOptions::default();
    options.max_connections = 1;
    let service = TodoService::new(PostgresStore::connect(&wire.url, &options).unwrap());
    let tasks = ann(&service);
    let mut warm = false;
    for _ in 0..2 {
        let mut calls = Vec::new();
        let mut count = wire.count();
        let mut called = |name: &'static str| {
            let now = wire.count();
            calls.push((name, now - std::mem::replace(&mut count, now)));
        };
        let task = tasks.create(new_task()).await.unwrap();
        called("create");
        tasks.get(task.id).await.unwrap();
        called("get");
        tasks.list(&TaskQuery::default()).await.unwrap();
        called("list");
        tasks.list(&TaskQuery { completed: Some(false), ..TaskQuery::default() }).await.unwrap();
        called("list completed");
        tasks.toggle(task.id).await.unwrap();
        called("toggle");
        tasks.delete(task.id).await.unwrap();
        called("delete");
        tasks.erase().await.unwrap();
        called("erase");
        service.ping().await.unwrap();
        called("ping");
        if warm {
            assert!(calls.iter().all(|(_, round_trips)| *round_trips == 1), "{calls:?}");
        }
        warm = true;
    }
    // And none behind our back, when connections are given back.
    let count = wire.count();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(wire.count(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_is_replaced_without_the_reader_seeing_it() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let pool = PgPoolOptions::new().test_before_acquire(false).connect_lazy(database.url()).unwrap();
    for (store, own) in [(connect(database.url()), true), (PostgresStore::new(pool), false)] {
        let service = TodoService::new(store);
        let tasks = ann(&service);
        let task = tasks.create(new_task()).await.unwrap();
        for _ in 0..3 {
            // Several connections, so that the second attempt would meet a dead one too.
            let query = TaskQuery::default();
            let busy = (0..8).map(|_| tasks.list(&query));
            for listed in futures_util::future::join_all(busy).await {
                listed.unwrap();
            }
            kill_others(&mut admin).await;
            assert_eq!(tasks.get(task.id).await.unwrap(), task);
            kill_others(&mut admin).await;
            assert_eq!(tasks.list(&TaskQuery::default()).await.unwrap().tasks, std::slice::from_ref(&task));
            kill_others(&mut admin).await;
            service.ping().await.unwrap();
        }
        // Whether a write has happened is not known, so it is not done twice; the next one is served. (A host's pool
        // may have noticed before us, when the connection was given back.)
        kill_others(&mut admin).await;
        match tasks.toggle(task.id).await {
            Err(error) => assert!(matches!(error, todo_core::Error::Store(StoreError::Unavailable(_))), "{error:?}"),
            Ok(toggled) => assert!(!own && toggled.completed),
        }
        tasks.toggle(task.id).await.unwrap();
        tasks.delete(task.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_server_one_write_fails_and_no_more() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let service = TodoService::new(connect(database.url()));
    let tasks = ann(&service);
    // As many connections as there can be.
    let busy = (0..10).map(|_| tasks.create(new_task()));
    for created in futures_util::future::join_all(busy).await {
        created.unwrap();
    }
    kill_others(&mut admin).await;
    assert!(tasks.create(new_task()).await.is_err());
    let busy = (0..10).map(|_| tasks.create(new_task()));
    for created in futures_util::future::join_all(busy).await {
        created.unwrap();
    }
}

async fn kill_others(admin: &mut PgConnection) {
    let killed = admin
        .fetch_all(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
    assert!(!killed.is_empty());
}

/// Own connections, and a pool of the host: two connections of which nobody gets an answer, and three who may wait.
#[tokio::test(flavor = "multi_thread")]
async fn who_would_wait_behind_too_many_others_is_refused_at_once() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let mut options = PostgresOptions::default();
    // Nobody is refused because he has waited for too long.
    (options.max_connections, options.max_waiting, options.acquire_timeout) = (2, 3, Duration::from_mins(10));
    let own = PostgresStore::connect(database.url(), &options).unwrap();
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_mins(10));
    let host = PostgresStore::new(pool.connect_lazy(database.url()).unwrap()).with_max_waiting(3);
    for store in [own, host] {
        store.ping().await.unwrap();
        let status = store.status();
        assert_eq!((status.max_size, status.size, status.waiting, status.max_waiting), (2, 1, 0, 3), "{status:?}");
        let mut lock = admin.begin().await.unwrap();
        lock.execute(r#"lock table "todo"."tasks" in access exclusive mode"#).await.unwrap();
        let calls: Vec<_> = (0..5)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { ann(&TodoService::new(store)).list(&TaskQuery::default()).await })
            })
            .collect();
        while (store.status().size, store.status().waiting) != (2, 3) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for refused in 1..=2 {
            match store.ping().await {
                Err(StoreError::Unavailable(cause)) => assert!(cause.to_string().contains("too many"), "{cause}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(store.status().refused, refused);
        }
        // Whoever goes away makes room.
        calls[4].abort();
        while store.status().waiting != 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let late = tokio::spawn({
            let store = store.clone();
            async move { store.ping().await }
        });
        lock.rollback().await.unwrap();
        for call in calls.into_iter().take(4) {
            call.await.unwrap().unwrap();
        }
        late.await.unwrap().unwrap();
        assert_eq!((store.status().waiting, store.status().refused), (0, 2));
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_starts_at_once_migrate_once() {
    let database = testkit::postgres::empty_database().await;
    let starts: Vec<_> = (0..12)
        .map(|_| {
            let store = connect(database.url());
            tokio::spawn(async move { store.migrate().await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    let pool = PgPool::connect(database.url()).await.unwrap();
    let applied: i64 =
        sqlx::query_scalar(r#"select count(*) from "todo"."tasks_migrations""#).fetch_one(&pool).await.unwrap();
    assert_eq!(applied, 1);
    connect(database.url()).ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_live_beside_each_other_and_beside_the_hosts_own_tables() {
    let database = testkit::postgres::empty_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    pool.execute(
        "create table tasks (nothing_like_ours integer); insert into tasks values (7);
         create table _sqlx_migrations (version bigint primary key); insert into _sqlx_migrations values (42);",
    )
    .await
    .unwrap();
    let stores = [
        PostgresStore::new(pool.clone()),
        PostgresStore::new(pool.clone()).with_names(Names::new("todo", "chores").unwrap()),
        PostgresStore::new(pool.clone()).with_names(Names::new("public", "todo_tasks").unwrap()),
        // Words of SQL are names like others.
        PostgresStore::new(pool.clone()).with_names(Names::new("select", "table").unwrap()),
    ];
    for store in &stores {
        store.migrate().await.unwrap();
        store.migrate().await.unwrap();
        let service = TodoService::new(store.clone());
        assert_eq!(ann(&service).list(&TaskQuery::default()).await.unwrap().tasks, []);
        ann(&service).create(new_task()).await.unwrap();
    }
    for store in stores {
        assert_eq!(ann(&TodoService::new(store)).erase().await.unwrap(), 1);
    }
    let host: (i32, i64) = sqlx::query_as(
        "select (select sum(nothing_like_ours)::int from tasks), (select version from _sqlx_migrations)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(host, (7, 42));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_found_to_be_durable_and_direct() {
    let database = todo_database().await;
    let findings = connect(database.url()).check().await.unwrap();
    assert!(findings.durable, "fsync and synchronous_commit are on");
    assert!(!findings.pooled);
    let careless = format!("{}?options=-c%20synchronous_commit%3Doff", database.url());
    assert!(!connect(&careless).check().await.unwrap().durable);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_waits_for_the_database_without_end() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let mut lock = admin.begin().await.unwrap();
    lock.execute(r#"lock table "todo"."tasks" in access exclusive mode"#).await.unwrap();
    let call = async |statement: Option<u64>, lock: Option<u64>| {
        let mut options = PostgresOptions::default();
        options.statement_timeout = statement.map(Duration::from_millis);
        options.lock_timeout = lock.map(Duration::from_millis);
        let store = PostgresStore::connect(database.url(), &options).unwrap();
        let service = TodoService::new(store);
        tokio::time::timeout(Duration::from_secs(20), ann(&service).list(&TaskQuery::default())).await
    };
    let answer = call(Some(200), None).await.expect("the statement is ended");
    assert!(matches!(answer, Err(todo_core::Error::Store(StoreError::Timeout(_)))), "{answer:?}");
    let answer = call(None, Some(200)).await.expect("the lock is not waited for");
    assert!(matches!(answer, Err(todo_core::Error::Store(StoreError::Unavailable(_)))), "{answer:?}");
    let answer = tokio::time::timeout(Duration::from_secs(20), connect(database.url()).ping()).await;
    assert!(answer.expect("there are limits by default").is_err());
    lock.rollback().await.unwrap();

    // What was set is seen where it counts, and what the role has where nothing is set.
    let findings = connect(database.url()).check().await.unwrap();
    assert_eq!(findings.statement_timeout, Some(Duration::from_secs(5)));
    let mut options = PostgresOptions::default();
    options.statement_timeout = None;
    let found = async |url: &str| {
        let store = PostgresStore::connect(url, &options).unwrap();
        store.check().await.unwrap().statement_timeout
    };
    assert_eq!(found(database.url()).await, None);
    let limited = format!("{}?options=-c%20statement_timeout%3D7s", database.url());
    assert_eq!(found(&limited).await, Some(Duration::from_secs(7)));
}

/// Others migrate at the same time, and wait for one another longer than a call may.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_has_no_limit_of_time() {
    let database = testkit::postgres::empty_database().await;
    let mut options = PostgresOptions::default();
    (options.statement_timeout, options.lock_timeout) =
        (Some(Duration::from_millis(1)), Some(Duration::from_millis(1)));
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let store = PostgresStore::connect(database.url(), &options).unwrap();
            tokio::spawn(async move { store.migrate().await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_scans() {
    let database = todo_database().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    // One owner with very many tasks, few of them done and those the oldest, among many owners.
    connection
        .execute(
            r#"insert into "todo"."tasks" (user_id, id, title, completed, created_at, updated_at)
               select case when n <= 20000 then 'ann' else 'user ' || n % 500 end,
                      ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'Task', n <= 100, now(), now()
               from generate_series(1, 40000) n;
               analyze "todo"."tasks";
               set plan_cache_mode = force_generic_plan;"#,
        )
        .await
        .unwrap();
    // As `store/sql.rs` has them.
    let statements = [
        (r#"select id from "todo"."tasks" where user_id = $1 and id <= $2 order by id desc limit 101"#, "text, uuid"),
        (
            r#"select id from "todo"."tasks" where user_id = $1 and completed = $3 and id <= $2 order by id desc limit 101"#,
            "text, uuid, boolean",
        ),
        (r#"select id from "todo"."tasks" where user_id = $1 and id = $2"#, "text, uuid"),
        (r#"update "todo"."tasks" set title = title where user_id = $1 and id = $2"#, "text, uuid"),
        (r#"delete from "todo"."tasks" where user_id = $1 and id = $2"#, "text, uuid"),
        (r#"delete from "todo"."tasks" where user_id = $1"#, "text"),
    ];
    for (number, (statement, types)) in statements.into_iter().enumerate() {
        let arguments =
            ["'ann'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "true"][..types.split(", ").count()].join(", ");
        let prepare = format!("prepare s{number} ({types}) as {statement}");
        connection.execute(sqlx::AssertSqlSafe(prepare)).await.unwrap();
        let analyze = if statement.starts_with("select") { "analyze, buffers, timing off," } else { "" };
        let explain = format!("explain ({analyze} costs off) execute s{number} ({arguments})");
        let plan = connection.fetch_all(sqlx::AssertSqlSafe(explain)).await.unwrap();
        let plan = plan.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n");
        assert!(!plan.contains("Seq Scan") && plan.contains("Index"), "{statement}\n{plan}");
        let buffers: usize = plan
            .lines()
            .find(|line| line.trim_start().starts_with("Buffers: shared"))
            .into_iter()
            .flat_map(|line| line.split_whitespace().filter_map(|word| word.split('=').nth(1)?.parse::<usize>().ok()))
            .sum();
        assert!(buffers <= 120, "{statement} touches {buffers} pages\n{plan}");
    }
}
