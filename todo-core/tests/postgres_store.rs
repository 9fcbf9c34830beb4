//! The store suite on [`PostgresStore`], and what only that store guarantees.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, postgres::PgPoolOptions};
use testkit::stores::{RowSecurityDatabase, connect, todo_database};
use todo_core::{
    Cursor, Description, Limit, NewTask, Patch, Task, TaskId, TaskQuery, Title, TodoService, UserId,
    clock::Timestamp,
    conformance::store::PlainCalls as _,
    store::{
        BatchStore as _, CoalescingOptions, CoalescingStore, Completion, Names, PostgresOptions, PostgresStore, Read,
        Revision, StoreError, TaskChange, TaskStore,
    },
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
        let store = PostgresStore::new(pool.clone()).in_transaction(pool.begin().await.unwrap());
        case(Arc::new(store.clone())).await;
        // The transaction can still commit.
        store.take().await.unwrap().commit().await.unwrap();
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
        pool.close().await;
        database.close().await;
    }

    todo_core::store_conformance!(with_store);
}

mod coalescing {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        let database = todo_database().await;
        case(Arc::new(narrow(connect(database.url())))).await;
        database.close().await;
    }

    todo_core::store_conformance!(with_store);
}

/// One read and one write at a time, so that nearly all concurrent calls are batched.
fn narrow(store: PostgresStore) -> CoalescingStore<PostgresStore> {
    let options = CoalescingOptions::default().concurrent_reads(1).concurrent_writes(1);
    CoalescingStore::with_options(store, &options)
}

fn ann(service: &TodoService) -> todo_core::UserTasks<'_> {
    service.for_user(UserId::new("ann").unwrap())
}

fn new_task() -> NewTask {
    NewTask::new(Title::new("Count me").unwrap())
}

/// A proxy for the database that counts round trips: one for each Sync message.
struct Wire {
    url: String,
    syncs: Arc<AtomicUsize>,
}

impl Wire {
    async fn to(database: &str) -> Self {
        let mut url = url::Url::parse(database).unwrap();
        let upstream = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(address.port())).unwrap();
        // Messages can only be counted if they are not encrypted.
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
                            // The first message has no type. Each has its length, which includes the length itself.
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
    let wire = Wire::to(database.url()).await;
    one_round_trip(&wire, with_one_connection(&wire)).await;
}

/// The owner is bound within the statement, not before it.
#[tokio::test(flavor = "multi_thread")]
async fn one_call_with_row_security_is_one_round_trip() {
    let secured = RowSecurityDatabase::migrated().await;
    let wire = Wire::to(&secured.app).await;
    one_round_trip(&wire, with_one_connection(&wire).with_row_security()).await;
    secured.database.close().await;
}

/// One connection, so that all statements are prepared in the second round of calls.
fn with_one_connection(wire: &Wire) -> PostgresStore {
    let options = PostgresOptions::default().max_connections(1);
    PostgresStore::connect_lazy(&wire.url, &options).unwrap()
}

async fn one_round_trip(wire: &Wire, store: PostgresStore) {
    let service = TodoService::new(store);
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
        tasks.list(&TaskQuery::new().completed(false)).await.unwrap();
        called("list completed");
        tasks.toggle(task.id).await.unwrap();
        called("toggle");
        tasks.delete(task.id).await.unwrap();
        called("delete");
        tasks.erase().await.unwrap();
        called("erase");
        tasks.transfer_to(&UserId::new("bob").unwrap()).await.unwrap();
        called("transfer");
        service.ping().await.unwrap();
        called("ping");
        if warm {
            // These are transactions.
            let most = |name: &str| if ["erase", "transfer"].contains(&name) { 4 } else { 1 };
            assert!(calls.iter().all(|(name, round_trips)| (1..=most(name)).contains(round_trips)), "{calls:?}");
        }
        warm = true;
    }
    // And none afterwards, when the connection is given back.
    let count = wire.count();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(wire.count(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_succeeds_although_its_connection_was_closed() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let pool = PgPoolOptions::new().test_before_acquire(false).connect_lazy(database.url()).unwrap();
    for (store, own) in [(connect(database.url()), true), (PostgresStore::new(pool), false)] {
        let service = TodoService::new(store);
        let tasks = ann(&service);
        let task = tasks.create(new_task()).await.unwrap();
        for _ in 0..3 {
            // Several connections, so that the second attempt could get a closed one too.
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
        // A write may have been executed, so it is not repeated; the next one succeeds. (The host's pool may have found
        // out when the connection was given back.)
        kill_others(&mut admin).await;
        match tasks.toggle(task.id).await {
            Err(error) => assert!(matches!(error, todo_core::Error::Store(StoreError::Interrupted(_))), "{error:?}"),
            Ok(toggled) => assert!(!own && toggled.completed),
        }
        tasks.toggle(task.id).await.unwrap();
        tasks.delete(task.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_server_only_one_write_fails() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let service = TodoService::new(connect(database.url()));
    let tasks = ann(&service);
    // The maximum number of connections.
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

/// On own connections and on the host's pool: two connections that are in use, and three calls that may wait.
#[tokio::test(flavor = "multi_thread")]
async fn calls_over_the_limit_of_waiting_calls_are_rejected_at_once() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    // No call fails because it has waited for too long.
    let options = PostgresOptions::default().max_connections(2).max_waiting(3).acquire_timeout(Duration::from_mins(10));
    let own = PostgresStore::connect_lazy(database.url(), &options).unwrap();
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
        // A call that is dropped makes room.
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
async fn concurrent_first_starts_migrate_once() {
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
    assert_eq!(applied, 2);
    connect(database.url()).ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_with_other_names_and_the_hosts_tables_stay_separate() {
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
        // Keywords of SQL.
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
async fn the_check_reports_durability_and_poolers() {
    let database = todo_database().await;
    let report = connect(database.url()).check().await.unwrap();
    assert!(report.durable, "fsync and synchronous_commit are on");
    assert!(!report.pooled);
    let careless = format!("{}?options=-c%20synchronous_commit%3Doff", database.url());
    assert!(!connect(&careless).check().await.unwrap().durable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setup_mistake_is_an_error_that_says_what_to_change() {
    let database = testkit::postgres::empty_database().await;
    let mut unknown_user = url::Url::parse(database.url()).unwrap();
    unknown_user.set_username("todo_unknown_user").unwrap();
    let mut unknown_database = url::Url::parse(database.url()).unwrap();
    unknown_database.set_path("todo_unknown_database");
    for (url, expected) in [
        (unknown_user.as_str(), "rejected the login"),
        (unknown_database.as_str(), "the database does not exist; create it"),
        (database.url(), "run the migrations"),
    ] {
        let pool = PgPoolOptions::new().connect_lazy(url).unwrap();
        for (store, is_own) in [(connect(url), true), (PostgresStore::new(pool), false)] {
            let error = store.erase(&UserId::new("ann").unwrap()).await.unwrap_err();
            if is_own && url != database.url() {
                // A call waits for what may come back; the check at the start says what to change.
                assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                let error = store.check().await.unwrap_err();
                assert!(matches!(&error, StoreError::Setup(_)) && error.to_string().contains(expected), "{error:?}");
                continue;
            }
            assert!(matches!(error, StoreError::Setup(_)), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(!error.to_string().contains(&source), "{source}");
        }
    }
    let error = PostgresStore::connect_lazy("postgres://ann:hunter2@db:port/todo", &PostgresOptions::default());
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::Setup(_)) && error.to_string().contains("has the form"), "{error}");
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_a_time_limit() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let mut lock = admin.begin().await.unwrap();
    lock.execute(r#"lock table "todo"."tasks" in access exclusive mode"#).await.unwrap();
    let call = async |statement: Option<u64>, lock: Option<u64>| {
        let options = PostgresOptions::default()
            .statement_timeout(statement.map(Duration::from_millis))
            .lock_timeout(lock.map(Duration::from_millis));
        let store = PostgresStore::connect_lazy(database.url(), &options).unwrap();
        let service = TodoService::new(store);
        tokio::time::timeout(Duration::from_secs(20), ann(&service).list(&TaskQuery::default())).await
    };
    let answer = call(Some(200), None).await.expect("the server cancels the statement");
    assert!(matches!(answer, Err(todo_core::Error::Store(StoreError::Timeout(_)))), "{answer:?}");
    let answer = call(None, Some(200)).await.expect("waiting for the lock is limited");
    assert!(matches!(answer, Err(todo_core::Error::Store(StoreError::Unavailable(_)))), "{answer:?}");
    let answer = tokio::time::timeout(Duration::from_secs(20), connect(database.url()).ping()).await;
    assert!(answer.expect("there are limits by default").is_err());
    lock.rollback().await.unwrap();

    // The check reports what was set for the store, or else for the role.
    let report = connect(database.url()).check().await.unwrap();
    assert_eq!(report.statement_timeout, Some(Duration::from_secs(5)));
    let options = PostgresOptions::default().statement_timeout(None);
    let found = async |url: &str| {
        let store = PostgresStore::connect_lazy(url, &options).unwrap();
        store.check().await.unwrap().statement_timeout
    };
    assert_eq!(found(database.url()).await, None);
    let limited = format!("{}?options=-c%20statement_timeout%3D7s", database.url());
    assert_eq!(found(&limited).await, Some(Duration::from_secs(7)));
}

/// Concurrent migrations wait for each other for longer than a call may.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_limits_of_calls_do_not_apply_to_migrations() {
    let database = testkit::postgres::empty_database().await;
    let limit = Duration::from_millis(1);
    let options = PostgresOptions::default().statement_timeout(limit).lock_timeout(limit);
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let store = PostgresStore::connect_lazy(database.url(), &options).unwrap();
            tokio::spawn(async move { store.migrate().await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
}

/// Every kind of call, as a batch for two owners that have the same ids, and as single calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_returns_the_same_as_single_calls() {
    let database = todo_database().await;
    let store = connect(database.url());
    let service = TodoService::new(store.clone());
    let users = ["ann", "bob"].map(|name| UserId::new(name).unwrap());
    let mut tasks = Vec::new();
    for owner in &users {
        for number in 0..5 {
            let task = service.for_user(owner.clone()).create(new_task()).await.unwrap();
            let mut task = Task { title: Title::new(format!("{owner} {number}")).unwrap(), ..task };
            if number % 2 == 0 {
                task = service.for_user(owner.clone()).toggle(task.id).await.unwrap();
            }
            tasks.push(task);
        }
    }
    let absent = TaskId::from(uuid::Uuid::nil());

    // Also for ids that only the other owner has.
    let calls: Vec<_> = users
        .iter()
        .flat_map(|owner| tasks.iter().map(move |task| (owner, task.id)))
        .chain([(&users[0], absent)])
        .collect();
    let found = store.get_many(&calls).await.unwrap();
    for ((owner, id), found) in calls.iter().zip(found) {
        assert_eq!(found, store.get(owner, *id).await.unwrap());
        assert!(found.is_none_or(|task| task.user_id == **owner));
    }

    let cursor = Some(Cursor::after(tasks[3].id));
    for completed in [None, Some(false), Some(true)] {
        let queries = [
            TaskQuery::new().completed(completed),
            TaskQuery::new().limit(Limit::new(2).unwrap()).completed(completed),
            TaskQuery::new()
                .limit(Limit::new(1).unwrap())
                .cursor(cursor.clone())
                .completed(completed.map(|completed| !completed)),
            TaskQuery::new().cursor(Cursor::after(absent)).completed(completed),
        ];
        let calls: Vec<_> =
            users.iter().flat_map(|owner| queries.iter().map(move |query| (owner, query, None))).collect();
        let pages = store.list_many(&calls).await.unwrap();
        for ((owner, query, _), page) in calls.iter().zip(pages) {
            assert_eq!(page, store.list(owner, query, None).await.unwrap(), "{query:?}");
        }
        // Calls that know the revision of their owner, of which half are right.
        let revisions = store.revisions(&users.iter().map(|owner| (*owner).clone()).collect::<Vec<_>>()).await.unwrap();
        let calls = users.iter().zip(&revisions).flat_map(|(owner, revision)| {
            let known = [Some(*revision), Some(Revision::new(revision.get() - 1))];
            known.map(|known| (owner, &queries[0], known))
        });
        let calls: Vec<_> = calls.collect();
        for ((owner, query, known), page) in calls.iter().zip(store.list_many(&calls).await.unwrap()) {
            assert_eq!(page, store.list(owner, query, *known).await.unwrap(), "{owner} {known:?}");
            assert_eq!(page == Read::Unchanged, revisions.contains(&known.unwrap()), "{owner} {known:?}");
        }
    }

    let new: Vec<_> = users
        .iter()
        .flat_map(|owner| tasks[..6].iter().map(move |task| (owner, Task { user_id: owner.clone(), ..task.clone() })))
        .collect();
    let inserted =
        store.insert_many(&new.iter().map(|(owner, task)| (*owner, task, None)).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(inserted, [false, false, false, false, false, true, true, true, true, true, true, false]);

    let now = Timestamp::from_unix_seconds(2_000_000_000);
    let changes = [
        TaskChange::default(),
        TaskChange::completion(Completion::Toggle),
        TaskChange::completion(Completion::Set(true)),
        TaskChange { title: Some(Title::new("Another").unwrap()), ..TaskChange::default() },
        TaskChange { description: Patch::Set(Description::new("More").unwrap()), ..TaskChange::default() },
        TaskChange { description: Patch::Clear, ..TaskChange::default() },
    ];
    let mut calls: Vec<_> = users
        .iter()
        .flat_map(|owner| tasks[..6].iter().zip(&changes).map(move |(task, change)| (owner, task.id, change, now)))
        .chain([(&users[0], absent, &changes[1], now)])
        .collect();
    calls.sort_by_key(|(owner, id, ..)| (*owner, *id));
    let mut expected = Vec::new();
    for (owner, id, change, now) in &calls {
        let mut task = store.get(owner, *id).await.unwrap();
        if let Some(task) = &mut task {
            change.apply(task, *now);
        }
        expected.push(task);
    }
    assert_eq!(store.update_many(&calls).await.unwrap(), expected);

    let calls = [(&users[0], tasks[0].id), (&users[0], absent), (&users[1], tasks[0].id)];
    assert_eq!(store.delete_many(&calls).await.unwrap(), [true, false, true]);
    assert_eq!(store.delete_many(&calls).await.unwrap(), [false, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_round_trip() {
    let database = todo_database().await;
    let wire = Wire::to(database.url()).await;
    let options = PostgresOptions::default().max_connections(1);
    let store = narrow(PostgresStore::connect_lazy(&wire.url, &options).unwrap());
    let service = TodoService::new(store.clone()).with_user_limits(None);
    let tasks = ann(&service);
    let (_, query) = (tasks.create(new_task()).await.unwrap(), TaskQuery::default());
    let burst = async || {
        let (count, batches) = (wire.count(), store.status().batches);
        for page in futures_util::future::join_all((0..21).map(|_| tasks.list(&query))).await {
            assert_eq!(page.unwrap().tasks.len(), 1);
        }
        (wire.count() - count, store.status().batches - batches)
    };
    burst().await;
    assert_eq!(burst().await, (2, 1), "one single call, and a batch of twenty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_task_delays_only_calls_for_its_owner_in_a_batch() {
    let database = todo_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let options = PostgresOptions::default().lock_timeout(None).statement_timeout(None);
    let store = narrow(PostgresStore::connect_lazy(database.url(), &options).unwrap());
    let service = TodoService::new(store.clone());
    let held = ann(&service).create(new_task()).await.unwrap();
    let of = |number: usize| service.for_user(UserId::new(format!("user {number}")).unwrap());
    let mut free = Vec::new();
    for number in 0..10 {
        free.push(of(number).create(new_task()).await.unwrap());
    }
    let mut transaction = pool.begin().await.unwrap();
    transaction
        .execute(sqlx::query(r#"select 1 from "todo"."tasks" where id = $1 for update"#).bind(held.id.as_uuid()))
        .await
        .unwrap();

    for _ in 0..3 {
        let waiting = tokio::spawn({
            let service = service.clone();
            async move { ann(&service).toggle(held.id).await }
        });
        let batches = store.status().batches;
        while store.status().batches == batches {
            let toggled = futures_util::future::join_all(free.iter().enumerate().map(|(number, task)| {
                let tasks = of(number);
                async move { tasks.toggle(task.id).await }
            }));
            for task in tokio::time::timeout(Duration::from_secs(20), toggled).await.expect("other calls do not wait") {
                task.unwrap();
            }
        }
        assert!(!waiting.is_finished());
        waiting.abort();
    }
    let waiting = tokio::spawn(async move { ann(&service).toggle(held.id).await });
    transaction.commit().await.unwrap();
    // The dropped calls may have been executed too: the database had received them.
    assert!(waiting.await.unwrap().unwrap().version > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_locked_tasks_delay_no_others() {
    let database = todo_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let options = PostgresOptions::default().lock_timeout(None).statement_timeout(None);
    let store = CoalescingStore::new(PostgresStore::connect_lazy(database.url(), &options).unwrap());
    let service = TodoService::new(store.clone());
    let of = |name: String| service.for_user(UserId::new(name).unwrap());
    let (mut locked, mut transaction) = (Vec::new(), pool.begin().await.unwrap());
    for number in 0..6 {
        let tasks = of(format!("user {number}"));
        locked.push((tasks.create(new_task()).await.unwrap().id, tasks));
    }
    transaction.execute(r#"select 1 from "todo"."tasks" for update"#).await.unwrap();
    // The first task of an owner is not part of a batch, and would wait.
    for number in 0..20 {
        of(format!("other {number}")).create(new_task()).await.unwrap();
    }
    let pause = Duration::from_millis(100);
    let blocked = futures_util::future::join_all((0..).zip(&locked).map(async |(number, (id, tasks))| {
        // Each is sent alone.
        tokio::time::sleep(pause * number).await;
        tasks.toggle(*id).await
    }));
    let others = async {
        tokio::time::sleep(pause * 7).await;
        let begun = std::time::Instant::now();
        for number in 0..20 {
            let tasks = of(format!("other {number}"));
            let call = async { tasks.toggle(tasks.create(new_task()).await.unwrap().id).await.unwrap() };
            tokio::time::timeout(Duration::from_secs(2), call).await.expect("others do not wait for the lock");
        }
        let took = begun.elapsed();
        transaction.commit().await.unwrap();
        took
    };
    let (blocked, took) = futures_util::future::join(blocked, others).await;
    for task in blocked {
        assert_eq!(task.unwrap().version, 2);
    }
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_the_database_rejects_fails_no_other_in_its_batch() {
    let database = todo_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    pool.execute(r#"alter table "todo"."tasks" add check (title <> 'Refused')"#).await.unwrap();
    let store = narrow(connect(database.url()));
    let service = TodoService::new(store.clone());
    let titles = (0..20).map(|number| if number == 7 { "Refused".to_owned() } else { format!("Task {number}") });
    let created = futures_util::future::join_all(titles.map(|title| {
        let service = service.clone();
        async move { ann(&service).create(NewTask::new(Title::new(title).unwrap())).await }
    }))
    .await;
    assert!(store.status().batches > 0);
    for (number, created) in created.iter().enumerate() {
        match created {
            Ok(_) => assert_ne!(number, 7),
            Err(error) => assert!(number == 7 && matches!(error, todo_core::Error::Store(StoreError::Backend(_)))),
        }
    }
    assert_eq!(ann(&service).list(&TaskQuery::default()).await.unwrap().tasks.len(), 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_several_servers_do_not_deadlock() {
    let database = todo_database().await;
    let stores = [(); 3].map(|()| narrow(connect(database.url())));
    let service = TodoService::new(stores[0].clone());
    let users: Vec<_> = (0..8).map(|number| UserId::new(format!("user {number}")).unwrap()).collect();
    let mut tasks = Vec::new();
    for owner in &users {
        tasks.push(service.for_user(owner.clone()).create(new_task()).await.unwrap());
    }
    let servers: Vec<_> = stores
        .iter()
        .enumerate()
        .map(|(server, store)| {
            let (service, tasks) = (TodoService::new(store.clone()), tasks.clone());
            tokio::spawn(async move {
                for round in 0..50 {
                    // Each server has another order of the tasks.
                    let calls = (0..tasks.len()).map(|number| {
                        let task = &tasks[(number * (2 * server + 1) + round) % tasks.len()];
                        let (service, owner, id) = (&service, task.user_id.clone(), task.id);
                        async move { service.for_user(owner).toggle(id).await }
                    });
                    for toggled in futures_util::future::join_all(calls).await {
                        toggled.unwrap();
                    }
                }
            })
        })
        .collect();
    for server in servers {
        server.await.unwrap();
    }
    assert!(stores.iter().all(|store| store.status().batches > 0));
    for task in tasks {
        let task = service.for_user(task.user_id).get(task.id).await.unwrap();
        assert_eq!(task.version, 1 + 3 * 50, "every toggle counts");
    }
}

/// Many owners have tasks with the same ids, and check every task that they get.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_owner_gets_only_their_own_tasks() {
    let database = todo_database().await;
    let store = narrow(connect(database.url()));
    let users: Vec<_> = (0..100).map(|number| UserId::new(format!("user {number}")).unwrap()).collect();
    let callers = users.iter().map(|owner| {
        let (store, owner) = (store.clone(), owner.clone());
        tokio::spawn(async move {
            let now = Timestamp::from_unix_seconds(1);
            let is_own = |task: &Task| task.user_id == owner && task.title.as_str() == owner.as_str();
            for number in 1..=20_u8 {
                let id = TaskId::from(uuid::Uuid::from_u128(number.into()));
                let title = Title::new(owner.to_string()).unwrap();
                let task = NewTask::new(title).into_task(owner.clone(), id, now);
                assert!(store.add(&owner, &task).await.unwrap());
                assert!(!store.add(&owner, &task).await.unwrap());
                let query = TaskQuery::new().completed((number % 2 == 0).then_some(false));
                let page = store.page(&owner, &query).await.unwrap();
                assert!(page.tasks.iter().all(is_own));
                assert_eq!(page.tasks[0].id, id);
                let toggle = TaskChange::completion(Completion::Toggle);
                let toggled = store.change(&owner, id, &toggle, now).await.unwrap().unwrap();
                assert!(is_own(&toggled) && toggled.completed && toggled.version == 2);
                assert_eq!(store.get(&owner, id).await.unwrap(), Some(toggled));
                if number % 5 == 0 {
                    assert!(store.remove(&owner, id).await.unwrap());
                    assert!(!store.remove(&owner, id).await.unwrap());
                }
            }
            assert_eq!(store.erase(&owner).await.unwrap(), 16);
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let status = store.status();
    assert!(status.joined > status.alone, "{status:?}");
}
