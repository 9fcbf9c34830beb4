//! A database that starts slowly, does not respond, crashes, or moves to another server.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection, postgres::PgPoolOptions};
use testkit::{
    pgbouncer::PgBouncer,
    postgres::{Server, Standby, TestDatabase},
    proxy::{Proxy, Traffic},
    stores::{connect, todo_database},
};
use todo_core::{
    NewTask, Task, TaskId, TaskQuery, Title, TodoService, UserId, UserTasks,
    store::{CoalescingStore, PostgresOptions, PostgresStore, StoreError, TaskStore as _},
};
use tokio::time::{sleep, timeout};

fn ann() -> UserId {
    UserId::new("ann").unwrap()
}

fn tasks(store: &PostgresStore) -> UserTasks<'static> {
    tasks_of(TodoService::new(store.clone()))
}

/// Leaks the service, so that spawned tasks can use it. Without the limits for a user: these tests send many calls of
/// one user to the store.
fn tasks_of(service: TodoService) -> UserTasks<'static> {
    Box::leak(Box::new(service.with_user_limits(None))).for_user(ann())
}

fn new_task(title: &str) -> NewTask {
    NewTask::new(Title::new(title).unwrap())
}

/// Opens this many connections, and leaves them idle.
async fn fill(store: &PostgresStore, count: usize) {
    let query = TaskQuery::default();
    let owner = ann();
    while store.status().size < count {
        for listed in futures_util::future::join_all((0..count).map(|_| store.list(&owner, &query, None))).await {
            listed.unwrap();
        }
    }
}

/// Repeats a call until it does not fail because of an outage.
async fn first_good<T>(mut call: impl AsyncFnMut() -> Result<T, todo_core::Error>) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(todo_core::Error::Store(
                StoreError::Unavailable(_) | StoreError::NotWritable(_) | StoreError::Interrupted(_),
            )) => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_a_database_that_starts() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    proxy.set(Traffic::Held);
    let store = connect(&proxy.url());
    let tasks = tasks(&store);
    let query = TaskQuery::default();
    // More calls than connections.
    let calls = async { futures_util::future::join_all((0..15).map(|_| tasks.list(&query))).await };
    let waking = async {
        sleep(Duration::from_secs(5)).await;
        proxy.set(Traffic::Flows);
    };
    let (answers, ()) = tokio::join!(calls, waking);
    for answer in answers {
        answer.unwrap();
    }
    // One for each connection, the check for a pooler, and another one each second.
    assert!(proxy.accepted() <= 10 + 6 + 10, "{}", proxy.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_call_continues_an_attempt_to_connect() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    proxy.set(Traffic::Held);
    let options = PostgresOptions::default().connect_timeout(Duration::from_millis(300));
    let store = PostgresStore::connect_lazy(&proxy.url(), &options).unwrap();
    // No call waits for as long as the database takes to start.
    for _ in 0..3 {
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
        assert!(timeout(Duration::from_millis(100), store.ping()).await.is_err());
    }
    assert!(proxy.accepted() <= 2, "all calls have waited for the same attempt: {}", proxy.accepted());
    proxy.set(Traffic::Flows);
    // The next call continues the attempt. The check for a pooler needs another connection.
    let before = proxy.accepted();
    // On a busy machine the server needs longer than one call waits. The later calls continue the attempt too.
    let mut calls = 1;
    while let Err(error) = store.ping().await {
        assert!(calls < 20, "{error:?}");
        calls += 1;
    }
    assert!(proxy.accepted() <= before + 1, "{} after {before}", proxy.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_store_fails_calls_that_wait_for_a_connection_at_once() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    proxy.set(Traffic::Held);
    let store = connect(&proxy.url());
    let closing = async {
        while proxy.accepted() == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        store.close().await;
    };
    // Otherwise it would wait for eight seconds.
    let (answer, ()) = tokio::join!(timeout(Duration::from_secs(5), store.ping()), closing);
    assert!(matches!(answer.unwrap(), Err(StoreError::Unavailable(_))));
    assert!(proxy.accepted() <= 2, "no attempt is begun after that: {}", proxy.accepted());
}

/// The name may lead to another server by now, while the first attempt waits for the old one.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_without_a_response_does_not_delay_the_next_one_for_long() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    proxy.set(Traffic::Silent);
    let store = connect(&proxy.url());
    let opened = async {
        sleep(Duration::from_millis(300)).await;
        proxy.set(Traffic::Flows);
    };
    let (answer, ()) = tokio::join!(timeout(Duration::from_secs(5), store.ping()), opened);
    answer.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_without_a_response_is_enough_to_close_all_that_were_idle_with_it() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    let options = PostgresOptions::default().statement_timeout(Duration::from_millis(500));
    let store = PostgresStore::connect_lazy(&proxy.url(), &options).unwrap();
    fill(&store, 8).await;
    proxy.set(Traffic::Silent);
    proxy.set(Traffic::Flows);
    // A second and a half until the first connection is closed, a second for the next; the others take no time.
    let begun = Instant::now();
    store.ping().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let (owner, query) = (ann(), TaskQuery::default());
    for listed in futures_util::future::join_all((0..10).map(|_| store.list(&owner, &query, None))).await {
        listed.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// A write without a response may have been executed.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_a_response_is_not_repeated() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let proxy = Proxy::before(database.url()).await;
    let options = PostgresOptions::default().statement_timeout(Duration::from_millis(500));
    let store = PostgresStore::connect_lazy(&proxy.url(), &options).unwrap();
    let task = tasks(&store).create(new_task("once")).await.unwrap();
    for _ in 0..3 {
        fill(&store, 1).await;
        proxy.set(Traffic::Silent);
        proxy.set(Traffic::Flows);
        let toggled = tasks(&store).toggle(task.id).await;
        assert!(matches!(toggled, Err(todo_core::Error::Store(StoreError::Interrupted(_)))), "{toggled:?}");
    }
    let version: i64 = sqlx::query_scalar("select version from todo.tasks").fetch_one(&mut admin).await.unwrap();
    assert_eq!(version, task.version);
    // Also if it was executed: it waits for a lock until its connection is cut.
    let store = connect(&proxy.url());
    fill(&store, 1).await;
    let mut holder = admin.begin().await.unwrap();
    sqlx::query("select from todo.tasks for update").execute(&mut *holder).await.unwrap();
    let service = tasks(&store);
    let id = task.id;
    let toggling = tokio::spawn(async move { service.toggle(id).await });
    sleep(Duration::from_millis(300)).await;
    proxy.set(Traffic::Silent);
    holder.commit().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    proxy.set(Traffic::Flows);
    proxy.cut();
    let toggled = toggling.await.unwrap();
    assert!(matches!(toggled, Err(todo_core::Error::Store(StoreError::Interrupted(_)))), "{toggled:?}");
    let version: i64 = sqlx::query_scalar("select version from todo.tasks").fetch_one(&mut admin).await.unwrap();
    assert_eq!(version, task.version + 1);
}

/// A caller that leaves early says nothing about its connection.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_caller_that_has_waited_for_long_casts_doubt_on_its_connection() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    let store = connect(&proxy.url());
    fill(&store, 5).await;
    proxy.set(Traffic::Silent);
    proxy.set(Traffic::Flows);
    let ask = async |patience: Duration| timeout(patience, store.ping()).await;
    for _ in 0..2 {
        assert!(ask(Duration::from_millis(200)).await.is_err());
    }
    // There is no doubt about this connection, so the server has six seconds to respond.
    assert!(ask(Duration::from_millis(3500)).await.is_err());
    // Now it has one second.
    ask(Duration::from_millis(3500)).await.unwrap().unwrap();
    ask(Duration::from_secs(1)).await.unwrap().unwrap();
}

/// Makes inserts fail with the code that [`fail`] sets.
async fn add_failures(admin: &mut PgConnection) {
    // A sequence keeps its value when a transaction is rolled back, so it counts the attempts.
    let failing = "create sequence todo.attempts;
        create function todo.fail() returns trigger language plpgsql as $$ begin
            if nextval('todo.attempts') <= current_setting('todo.failures', true)::int then
                raise exception 'no' using errcode = current_setting('todo.code');
            end if;
            return new;
        end $$;
        create trigger failing before insert on todo.tasks for each row execute function todo.fail();";
    sqlx::raw_sql(failing).execute(admin).await.unwrap();
}

/// Makes the next inserts of new connections fail with a code.
async fn fail(admin: &mut PgConnection, database: &TestDatabase, code: &str, failures: i32) {
    let setting = format!(
        "alter database {name} set todo.code = '{code}'; alter database {name} set todo.failures = {failures};
         alter sequence todo.attempts restart",
        name = database.name()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(setting)).execute(admin).await.unwrap();
}

/// The number of attempts to insert since [`fail`].
async fn attempts(admin: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select last_value from todo.attempts").fetch_one(admin).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_repeated_up_to_three_times_and_a_read_only_server_once() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    add_failures(&mut admin).await;
    for (code, failures, expected, sent) in [
        ("40P01", 2, true, 3),
        ("40001", 3, true, 4),
        ("40001", 9, false, 4),
        // The first connection is an old one, the second is new.
        ("25006", 1, true, 2),
        ("25006", 9, false, 2),
        // The prepared statement is outdated.
        ("26000", 1, true, 2),
        ("26000", 9, false, 2),
        // Not supported, which has the same code as an outdated statement: another connection does not help.
        ("0A000", 9, false, 1),
        ("55P03", 9, false, 1),
        ("23514", 9, false, 1),
    ] {
        fail(&mut admin, &database, code, failures).await;
        let store = connect(database.url());
        fill(&store, 3).await;
        let created = tasks(&store).create(new_task("again")).await;
        assert_eq!(created.is_ok(), expected, "{code}: {created:?}");
        assert_eq!(attempts(&mut admin).await, sent, "{code}");
        store.close().await;
    }
}

/// The connections of a pool, by the processes of the server.
async fn backends(admin: &mut PgConnection) -> BTreeSet<i32> {
    let pids = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query_scalar::<_, i32>(pids).fetch_all(admin).await.unwrap().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_pool_of_the_host_a_rejected_write_is_repeated_once() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    add_failures(&mut admin).await;
    for (code, failures, expected, closed) in [
        // A read-only server: the connection is replaced.
        ("25006", 1, true, 1),
        ("25006", 9, false, 1),
        // Outdated statements: they are prepared again on the same connection.
        ("26000", 1, true, 0),
        ("26000", 9, false, 0),
    ] {
        fail(&mut admin, &database, code, failures).await;
        let pool = PgPoolOptions::new().min_connections(5).max_connections(5).connect(database.url()).await.unwrap();
        while pool.num_idle() < 5 {
            sleep(Duration::from_millis(10)).await;
        }
        let before = backends(&mut admin).await;
        let created = tasks(&PostgresStore::new(pool.clone())).create(new_task("again")).await;
        assert_eq!(created.is_ok(), expected, "{code}: {created:?}");
        assert_eq!(attempts(&mut admin).await, 2, "{code}");
        // The server may need a moment to notice that a connection was closed.
        sleep(Duration::from_millis(300)).await;
        let after = backends(&mut admin).await;
        assert_eq!(before.difference(&after).count(), closed, "{code}: {before:?}, {after:?}");
        pool.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changes_fails_no_call_on_the_pool_of_the_host() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let pool = PgPoolOptions::new().min_connections(8).max_connections(8).connect(database.url()).await.unwrap();
    let tasks = tasks(&PostgresStore::new(pool.clone()));
    let task = tasks.create(new_task("Water the plants")).await.unwrap();
    while pool.num_idle() < 8 {
        sleep(Duration::from_millis(10)).await;
    }
    // Every connection has prepared the statement.
    for found in futures_util::future::join_all((0..64).map(|_| tasks.get(task.id))).await {
        found.unwrap();
    }
    let before = backends(&mut admin).await;
    sqlx::raw_sql("alter table todo.tasks alter column list type varchar(400)").execute(&mut admin).await.unwrap();
    for _ in 0..20 {
        assert_eq!(tasks.get(task.id).await.unwrap(), task);
    }
    assert_eq!(backends(&mut admin).await, before, "no connection is replaced");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changes_under_a_running_store_fails_no_call() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let store = connect(database.url());
    let tasks = tasks(&store);
    let task = tasks.create(new_task("Water the plants")).await.unwrap();
    fill(&store, 5).await;
    for _ in 0..10 {
        tasks.get(task.id).await.unwrap();
    }
    sqlx::raw_sql("alter table todo.tasks alter column list type varchar(400)").execute(&mut admin).await.unwrap();
    for _ in 0..10 {
        assert_eq!(tasks.get(task.id).await.unwrap(), task);
    }
}

/// Calls for one locked task must not take all connections.
#[tokio::test(flavor = "multi_thread")]
async fn calls_for_a_locked_task_leave_connections_to_other_calls() {
    let database = todo_database().await;
    let store = connect(database.url());
    fill(&store, 10).await;
    let coalescing = CoalescingStore::new(store.clone());
    let held = tasks(&store).create(new_task("Held")).await.unwrap();
    let mut holder = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("begin; select * from todo.tasks for update").execute(&mut holder).await.unwrap();
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let tasks = tasks_of(TodoService::new(coalescing.clone()));
            tokio::spawn(async move { tasks.toggle(held.id).await })
        })
        .collect();
    // Two in the lane, which they leave, and at most four outside of it.
    sleep(Duration::from_millis(700)).await;
    let status = store.status();
    let busy = status.size - status.idle;
    assert!((1..=6).contains(&busy), "{busy} connections wait for one task");
    coalescing.list(&ann(), &TaskQuery::default(), None).await.unwrap();
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    for call in calls {
        let _ = call.await.unwrap();
    }
}

/// Writers that record the writes that have returned, until they are stopped.
struct Writers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    running: Vec<tokio::task::JoinHandle<Vec<TaskId>>>,
}

impl Writers {
    fn start(store: &PostgresStore) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let joining = TodoService::new(CoalescingStore::new(store.clone()));
        let running = (0..8).map(|number| {
            let tasks = if number % 2 == 0 { tasks(store) } else { tasks_of(joining.clone()) };
            let (stop, answered) = (stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match tasks.create(new_task("kept")).await {
                        Ok(Task { id, .. }) => {
                            acknowledged.push(id);
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => sleep(Duration::from_millis(20)).await,
                    }
                }
                acknowledged
            })
        });
        let running = running.collect();
        Self { stop, answered, running }
    }

    /// Waits until this many more writes have returned.
    async fn go_on(&self, more: usize) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        while self.answered.load(Ordering::Relaxed) < enough {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn acknowledged(self) -> Vec<TaskId> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for writer in self.running {
            all.extend(writer.await.unwrap());
        }
        all
    }
}

async fn assert_all_there(url: &str, acknowledged: &[TaskId]) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let ids: Vec<uuid::Uuid> = acknowledged.iter().map(|id| id.as_uuid()).collect();
    let kept: i64 = sqlx::query_scalar("select count(*) from todo.tasks where id = any($1)")
        .bind(&ids)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(usize::try_from(kept).unwrap(), ids.len());
}

async fn statement(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

/// A primary with synchronous replication to a standby, and a proxy for it.
async fn replicated() -> (Server, Standby, Proxy) {
    let primary = Server::start_local("wal_level = replica\nhot_standby = on").await.unwrap();
    let primary = primary.expect("PostgreSQL (install it with scripts/setup)");
    connect(primary.url()).migrate().await.unwrap();
    let (primary, standby) = tokio::task::spawn_blocking(|| {
        let standby = Standby::of(&primary);
        (primary, standby)
    })
    .await
    .unwrap();
    statement(primary.url(), "alter system set synchronous_standby_names = '*'").await;
    statement(primary.url(), "select pg_reload_conf()").await;
    let proxy = Proxy::before(primary.url()).await;
    (primary, standby.unwrap(), proxy)
}

/// The connections respond to pings, but lead to a server that is read-only.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_orderly_failover_writes_go_to_the_new_primary() {
    let (primary, standby, proxy) = replicated().await;
    let store = connect(&proxy.url());
    let writers = Writers::start(&store);
    writers.go_on(50).await;
    // The server is read-only from now on. The standby has every write that has returned.
    statement(primary.url(), "alter system set default_transaction_read_only = on").await;
    statement(primary.url(), "select pg_reload_conf()").await;
    sleep(Duration::from_millis(300)).await;
    let mut acknowledged = writers.acknowledged().await;
    fill(&store, 10).await;
    statement(standby.url(), "alter system set synchronous_standby_names = ''").await;
    statement(standby.url(), "select pg_promote()").await;
    proxy.switch(standby.url()).await;
    // Ten connections lead to the old primary. The first write that fails is enough to close them.
    let begun = Instant::now();
    let tasks = tasks(&store);
    let first = tasks.create(new_task("first")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    acknowledged.push(first.id);
    assert_all_there(standby.url(), &acknowledged).await;
    // No read uses an old connection.
    let fresh = tasks.create(new_task("fresh")).await.unwrap();
    for found in futures_util::future::join_all((0..10).map(|_| tasks.get(fresh.id))).await {
        assert_eq!(found.unwrap(), fresh);
    }
    tokio::task::spawn_blocking(|| (standby.stop(), primary.stop())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_of_the_primary_every_write_that_has_returned_is_kept() {
    let (primary, standby, proxy) = replicated().await;
    let store = connect(&proxy.url());
    let writers = Writers::start(&store);
    writers.go_on(50).await;
    // Nothing gets a response from now on, not even a connection reset.
    proxy.set(Traffic::Silent);
    tokio::task::spawn_blocking(|| primary.stop()).await.unwrap();
    statement(standby.url(), "alter system set synchronous_standby_names = ''").await;
    statement(standby.url(), "select pg_promote()").await;
    proxy.cut();
    proxy.switch(standby.url()).await;
    proxy.set(Traffic::Flows);
    let begun = Instant::now();
    let tasks = tasks(&store);
    let first = first_good(async || tasks.create(new_task("first")).await).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    writers.go_on(50).await;
    let mut acknowledged = writers.acknowledged().await;
    acknowledged.push(first.id);
    assert_all_there(standby.url(), &acknowledged).await;
    tokio::task::spawn_blocking(|| standby.stop()).await.unwrap();
}

/// A URL that names two servers.
fn of_both(one: &str, other: &str) -> String {
    let port = |url: &str| url::Url::parse(url).unwrap().port().unwrap();
    let place = |url: &str| format!("127.0.0.1:{}", port(url));
    one.replacen(&place(one), &format!("{},{}", place(one), place(other)), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_the_primary_is_found_and_the_next_one_after_a_failover() {
    let (primary, standby, proxy) = replicated().await;
    let store = connect(&of_both(standby.url(), &proxy.url()));
    // Both connections of the check lead to the primary.
    store.check().await.unwrap();
    store.migrate().await.unwrap();
    let writers = Writers::start(&store);
    writers.go_on(50).await;
    let connected = proxy.accepted();
    // Nothing gets a response from now on, and new connections stay open.
    proxy.set(Traffic::Silent);
    statement(standby.url(), "alter system set synchronous_standby_names = ''").await;
    statement(standby.url(), "select pg_promote()").await;
    tokio::task::spawn_blocking(|| primary.stop()).await.unwrap();
    let mut acknowledged = writers.acknowledged().await;
    let begun = Instant::now();
    let tasks = tasks(&store);
    let first = first_good(async || tasks.create(new_task("first")).await).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    acknowledged.push(first.id);
    assert_all_there(standby.url(), &acknowledged).await;
    // Once the new primary is known, no connection begins with the old one.
    let after = proxy.accepted();
    assert!(after > connected);
    fill(&store, 10).await;
    assert_eq!(proxy.accepted(), after);
    tokio::task::spawn_blocking(|| standby.stop()).await.unwrap();
}

/// It does not know of the promotion for a moment, and has old tasks.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_primary_that_comes_back_is_not_used() {
    let (primary, standby, proxy) = replicated().await;
    let new_proxy = Proxy::before(standby.url()).await;
    let store = connect(&of_both(&proxy.url(), &new_proxy.url()));
    let tasks = tasks(&store);
    let old = tasks.create(new_task("old")).await.unwrap();
    fill(&store, 3).await;
    // Frozen: connections stay open, and get no response.
    proxy.set(Traffic::Held);
    statement(standby.url(), "alter system set synchronous_standby_names = ''").await;
    statement(standby.url(), "select pg_promote()").await;
    assert!(first_good(async || tasks.set_completed(old.id, true).await).await.completed);
    // Now only the former primary can be reached.
    new_proxy.set(Traffic::Refused);
    new_proxy.cut();
    proxy.set(Traffic::Flows);
    // Some attempts ask only the new primary, since others are searching.
    let (mut calls, mut rejected) = (0, 0);
    while rejected < 3 {
        let read = tasks.get(old.id).await;
        let Err(todo_core::Error::Store(error @ StoreError::Unavailable(_))) = read else { panic!("{read:?}") };
        let cause = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source()).last();
        rejected += usize::from(cause.unwrap().to_string().contains("former primary"));
        calls += 1;
        assert!(calls < 30, "{error:?}");
    }
    new_proxy.set(Traffic::Flows);
    assert!(first_good(async || tasks.get(old.id).await).await.completed);
    tokio::task::spawn_blocking(|| (standby.stop(), primary.stop())).await.unwrap();
}

/// With replication that does not wait, a cluster may go back to a former primary: an operator restores a backup, or the
/// lock of the leader is given back. Then it is the only primary, and all other servers are standbys.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_has_gone_back_is_used_after_some_seconds() {
    let (primary, standby, proxy) = replicated().await;
    let (primary, other) = tokio::task::spawn_blocking(|| {
        let other = Standby::of(&primary);
        (primary, other.unwrap())
    })
    .await
    .unwrap();
    let second = Proxy::before(standby.url()).await;
    let store = connect(&of_both(&proxy.url(), &second.url()));
    let tasks = tasks(&store);
    let task = tasks.create(new_task("kept")).await.unwrap();
    proxy.set(Traffic::Refused);
    proxy.cut();
    statement(standby.url(), "alter system set synchronous_standby_names = ''").await;
    statement(standby.url(), "select pg_promote()").await;
    assert!(first_good(async || tasks.set_completed(task.id, true).await).await.completed);
    // The new primary is gone, and its place was given to a standby of the former one.
    second.switch(other.url()).await;
    second.cut();
    proxy.set(Traffic::Flows);
    let begun = Instant::now();
    let found = loop {
        match tasks.get(task.id).await {
            Ok(found) => break found,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error:?}"),
        }
    };
    assert!(!found.completed && begun.elapsed() > Duration::from_secs(8), "{found:?} {:?}", begun.elapsed());
    assert!(first_good(async || tasks.set_completed(task.id, true).await).await.completed);
    tokio::task::spawn_blocking(|| (standby.stop(), other.stop(), primary.stop())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_used_within_two_seconds() {
    let server = Server::start_local("").await.unwrap().expect("PostgreSQL (install it with scripts/setup)");
    let store = connect(server.url());
    store.migrate().await.unwrap();
    let server = Arc::new(server);
    let tasks = tasks(&store);
    let task = tasks.create(new_task("kept")).await.unwrap();
    fill(&store, 8).await;
    let writers = Writers::start(&store);
    writers.go_on(50).await;
    let restarted = server.clone();
    // It returns when connections are accepted.
    let restart = move || {
        let faults = restarted.faults().unwrap();
        faults.kill().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        faults.start().unwrap();
    };
    tokio::task::spawn_blocking(restart).await.unwrap();
    let begun = Instant::now();
    assert_eq!(first_good(async || tasks.get(task.id).await).await, task);
    first_good(async || tasks.toggle(task.id).await).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_all_there(server.url(), &writers.acknowledged().await).await;
}

/// The server says that it has closed the session because it was idle. A write that comes then was not executed.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_a_session_that_the_server_closed_as_idle_is_repeated() {
    let database = todo_database().await;
    let setting = format!("alter database \"{}\" set idle_session_timeout = '300ms'", database.name());
    statement(database.url(), &setting).await;
    let store = connect(database.url());
    let tasks = tasks(&store);
    let task = tasks.create(new_task("toggled")).await.unwrap();
    for count in 1..=3 {
        fill(&store, 3).await;
        sleep(Duration::from_millis(600)).await;
        let toggled = tasks.toggle(task.id).await.unwrap();
        assert_eq!(toggled.version, 1 + count, "it happened once");
    }
    // The same with batches.
    let batching = tasks_of(TodoService::new(CoalescingStore::new(store.clone())));
    sleep(Duration::from_millis(600)).await;
    let toggled = futures_util::future::join_all((0..5).map(|_| batching.create(new_task("batched")))).await;
    assert!(toggled.iter().all(Result::is_ok), "{toggled:?}");
    assert_eq!(tasks.list(&TaskQuery::default()).await.unwrap().tasks.len(), 6);
}

/// PgBouncer has its own words for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_a_connection_that_the_pooler_closed_as_idle_is_repeated() {
    let database = todo_database().await;
    let url = database.url().to_owned();
    let pooler = tokio::task::spawn_blocking(move || PgBouncer::tracking_with(&url, "client_idle_timeout = 1"));
    let pooler = pooler.await.unwrap();
    let store = connect(&pooler.url());
    let tasks = tasks(&store);
    let task = tasks.create(new_task("toggled")).await.unwrap();
    for count in 1..=2 {
        fill(&store, 3).await;
        sleep(Duration::from_millis(2500)).await;
        assert_eq!(tasks.toggle(task.id).await.unwrap().version, 1 + count, "it happened once");
    }
}

/// The system does not take the bytes of the write, since the connection was closed before.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_certainly_was_not_sent_is_repeated() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    let store = connect(&proxy.url());
    let tasks = tasks(&store);
    let task = tasks.create(new_task("toggled")).await.unwrap();
    tasks.toggle(task.id).await.unwrap();
    for count in 1..=3 {
        fill(&store, 3).await;
        proxy.hang_up();
        sleep(Duration::from_millis(200)).await;
        assert_eq!(tasks.toggle(task.id).await.unwrap().version, 2 + count, "it happened once");
    }
}

/// Reads go on, and the write is known not to have happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_not_writable_until_a_write_succeeds() {
    let database = todo_database().await;
    let store = connect(database.url());
    let service = TodoService::new(store.clone());
    let tasks = service.for_user(ann());
    let task = tasks.create(new_task("kept")).await.unwrap();
    let read_only = async |value: &str| {
        // In a transaction that can write, once the database is read-only by default.
        let name = database.name();
        statement(
            database.url(),
            &format!("begin read write; alter database \"{name}\" set default_transaction_read_only = {value}; commit"),
        )
        .await;
        let others = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> \
                      pg_backend_pid()";
        statement(database.url(), others).await;
        // The dead connections are found.
        assert_eq!(tasks.get(task.id).await.unwrap(), task);
    };
    assert!(!service.writes_are_failing());
    read_only("on").await;
    for _ in 0..2 {
        let failed = tasks.create(new_task("not kept")).await;
        assert!(matches!(failed, Err(todo_core::Error::Store(StoreError::NotWritable(_)))), "{failed:?}");
        assert!(service.writes_are_failing() && service.clone().writes_are_failing());
        store.ping().await.unwrap();
    }
    assert_eq!(tasks.list(&TaskQuery::default()).await.unwrap().tasks, std::slice::from_ref(&task));
    read_only("off").await;
    assert!(service.writes_are_failing(), "nothing was written yet");
    // A write that changes nothing says nothing.
    assert!(tasks.delete(TaskId::from(uuid::Uuid::nil())).await.is_err());
    assert!(service.writes_are_failing());
    tasks.create(new_task("kept, too")).await.unwrap();
    assert!(!service.writes_are_failing());
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_is_repeated_for_writes_too() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    proxy.set(Traffic::Refused);
    let store = connect(&proxy.url());
    assert!(matches!(store.erase(&ann()).await, Err(StoreError::Unavailable(_))));
    assert_eq!(proxy.accepted(), 4);
    let opened = async {
        sleep(Duration::from_millis(60)).await;
        proxy.set(Traffic::Flows);
    };
    let owner = ann();
    let (erased, ()) = tokio::join!(store.erase(&owner), opened);
    assert_eq!(erased.unwrap(), 0);
}
