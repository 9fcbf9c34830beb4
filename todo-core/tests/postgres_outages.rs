//! A database that sleeps, falls silent, goes away and comes back elsewhere.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection};
use testkit::{
    postgres::{Server, Standby},
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

/// The service lives as long as the process, so that tasks of the runtime may have it.
fn tasks_of(service: TodoService) -> UserTasks<'static> {
    Box::leak(Box::new(service)).for_user(ann())
}

fn new_task(title: &str) -> NewTask {
    NewTask::new(Title::new(title).unwrap())
}

/// So many connections, all idle.
async fn fill(store: &PostgresStore, count: usize) {
    let query = TaskQuery::default();
    let owner = ann();
    while store.status().size < count {
        for listed in futures_util::future::join_all((0..count).map(|_| store.list(&owner, &query))).await {
            listed.unwrap();
        }
    }
}

/// The first answer that is none of an outage.
async fn first_good<T>(mut call: impl AsyncFnMut() -> Result<T, todo_core::Error>) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(todo_core::Error::Store(StoreError::Unavailable(_))) => sleep(Duration::from_millis(50)).await,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_wakes_up_in_time_is_waited_for() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    proxy.set(Traffic::Held);
    let store = connect(&proxy.url());
    let tasks = tasks(&store);
    let query = TaskQuery::default();
    // More than there may be connections, so that some wait for those who wait.
    let calls = async { futures_util::future::join_all((0..15).map(|_| tasks.list(&query))).await };
    let waking = async {
        sleep(Duration::from_secs(5)).await;
        proxy.set(Traffic::Flows);
    };
    let (answers, ()) = tokio::join!(calls, waking);
    for answer in answers {
        answer.unwrap();
    }
    // One for each that may be, the look for a pooler, and one more in each second.
    assert!(proxy.accepted() <= 10 + 6 + 10, "{}", proxy.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_call_goes_on_connecting_where_another_has_left() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    proxy.set(Traffic::Held);
    let options = PostgresOptions::default().connect_timeout(Duration::from_millis(300));
    let store = PostgresStore::connect_lazy(&proxy.url(), &options).unwrap();
    // Nobody waits for as long as the database takes to wake up.
    for _ in 0..3 {
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
        assert!(timeout(Duration::from_millis(100), store.ping()).await.is_err());
    }
    assert!(proxy.accepted() <= 2, "all have waited for the same: {}", proxy.accepted());
    proxy.set(Traffic::Flows);
    // The next call goes on with what was begun, and looks for a pooler, which takes a connection of its own.
    let before = proxy.accepted();
    store.ping().await.unwrap();
    assert!(proxy.accepted() <= before + 1, "{} after {before}", proxy.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_connection_of_a_store_that_closes_is_told_at_once() {
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
    // Else it would wait for eight seconds.
    let (answer, ()) = tokio::join!(timeout(Duration::from_secs(5), store.ping()), closing);
    assert!(matches!(answer.unwrap(), Err(StoreError::Unavailable(_))));
    assert!(proxy.accepted() <= 2, "nothing is begun any more: {}", proxy.accepted());
}

/// As when the address leads to another server by now, and the first attempt waits at the old one.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_nobody_answers_does_not_keep_others_from_connecting() {
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
async fn one_silent_connection_is_enough_to_give_up_all_that_were_idle_with_it() {
    let database = todo_database().await;
    let proxy = Proxy::before(database.url()).await;
    let options = PostgresOptions::default().statement_timeout(Duration::from_millis(500));
    let store = PostgresStore::connect_lazy(&proxy.url(), &options).unwrap();
    fill(&store, 8).await;
    proxy.set(Traffic::Silent);
    proxy.set(Traffic::Flows);
    // A second and a half until the first is given up, a second for the next; the others cost nothing.
    let begun = Instant::now();
    store.ping().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let (owner, query) = (ann(), TaskQuery::default());
    for listed in futures_util::future::join_all((0..10).map(|_| store.list(&owner, &query))).await {
        listed.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// A write whose answer is lost may have happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_not_answered_is_not_sent_again() {
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
        assert!(matches!(toggled, Err(todo_core::Error::Store(StoreError::Unavailable(_)))), "{toggled:?}");
    }
    let version: i64 = sqlx::query_scalar("select version from todo.tasks").fetch_one(&mut admin).await.unwrap();
    assert_eq!(version, task.version);
    // Also if it did happen: it is held by a lock until its connection is cut, and then let go.
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
    assert!(matches!(toggled, Err(todo_core::Error::Store(StoreError::Unavailable(_)))), "{toggled:?}");
    let version: i64 = sqlx::query_scalar("select version from todo.tasks").fetch_one(&mut admin).await.unwrap();
    assert_eq!(version, task.version + 1);
}

/// Who hangs up soon says nothing about the connection; who had to wait for long does.
#[tokio::test(flavor = "multi_thread")]
async fn only_who_waited_in_vain_for_long_casts_doubt_on_connections() {
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
    // Nobody has doubted this one, so it is given six seconds to answer.
    assert!(ask(Duration::from_millis(3500)).await.is_err());
    // The next are given one.
    ask(Duration::from_millis(3500)).await.unwrap().unwrap();
    ask(Duration::from_secs(1)).await.unwrap().unwrap();
}

/// A statement that the server has rolled back is sent again, and only so often.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again_and_a_read_only_server_is_asked_twice() {
    let database = todo_database().await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    // Sequences go on when a transaction is rolled back: they count what the server was asked.
    let failing = "create sequence todo.asked;
        create function todo.fail() returns trigger language plpgsql as $$ begin
            if nextval('todo.asked') <= current_setting('todo.failures', true)::int then
                raise exception 'no' using errcode = current_setting('todo.code');
            end if;
            return new;
        end $$;
        create trigger failing before insert on todo.tasks for each row execute function todo.fail();";
    sqlx::raw_sql(failing).execute(&mut admin).await.unwrap();
    for (code, failures, expected, asked) in [
        ("40P01", 2, true, 3),
        ("40001", 3, true, 4),
        ("40001", 9, false, 4),
        // The first connection was there before, the second is new.
        ("25006", 1, true, 2),
        ("25006", 9, false, 2),
        // What was prepared is of no use any more.
        ("0A000", 1, true, 2),
        ("26000", 1, true, 2),
        ("0A000", 9, false, 2),
        ("55P03", 9, false, 1),
        ("23514", 9, false, 1),
    ] {
        let setting = format!(
            "alter database {name} set todo.code = '{code}'; alter database {name} set todo.failures = {failures};
             alter sequence todo.asked restart",
            name = database.name()
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(setting)).execute(&mut admin).await.unwrap();
        let store = connect(database.url());
        fill(&store, 3).await;
        let created = tasks(&store).create(new_task("again")).await;
        assert_eq!(created.is_ok(), expected, "{code}: {created:?}");
        let was_asked: i64 =
            sqlx::query_scalar("select last_value from todo.asked").fetch_one(&mut admin).await.unwrap();
        assert_eq!(was_asked, asked, "{code}");
        store.close().await;
    }
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
    sqlx::raw_sql("alter table todo.tasks alter column title type varchar(400)").execute(&mut admin).await.unwrap();
    for _ in 0..10 {
        assert_eq!(tasks.get(task.id).await.unwrap(), task);
    }
}

/// One task that somebody holds must not take all connections.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_a_held_task_leave_connections_to_the_others() {
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
    // Two in the lane, which they leave, and four who have a place outside of it.
    sleep(Duration::from_millis(700)).await;
    let status = store.status();
    let busy = status.size - status.idle;
    assert!((1..=6).contains(&busy), "{busy} connections wait for one task");
    coalescing.list(&ann(), &TaskQuery::default()).await.unwrap();
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    for call in calls {
        let _ = call.await.unwrap();
    }
}

/// Writers who note what was answered, until they are told to stop.
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

    /// Waits until so many more writes were answered.
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

async fn statement(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
}

/// A primary whose answers wait for its standby, and a proxy before it.
async fn replicated() -> (Server, Standby, Proxy) {
    let primary = Server::start_local("wal_level = replica\nhot_standby = on").await.unwrap();
    let primary = primary.expect("PostgreSQL (apt-get install postgresql)");
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

/// The connections of a pool answer pings, but lead to a server that writes no more.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_orderly_failover_writes_go_to_the_new_primary() {
    let (primary, standby, proxy) = replicated().await;
    let store = connect(&proxy.url());
    let writers = Writers::start(&store);
    writers.go_on(50).await;
    // Nothing is written here any more; what was written is at the standby, since its answer waited for that.
    statement(primary.url(), "alter system set default_transaction_read_only = on").await;
    statement(primary.url(), "select pg_reload_conf()").await;
    sleep(Duration::from_millis(300)).await;
    let mut acknowledged = writers.acknowledged().await;
    fill(&store, 10).await;
    statement(standby.url(), "alter system set synchronous_standby_names = ''").await;
    statement(standby.url(), "select pg_promote()").await;
    proxy.switch(standby.url()).await;
    // Ten connections lead to the old one. The first that says so is enough.
    let begun = Instant::now();
    let tasks = tasks(&store);
    let first = tasks.create(new_task("first")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    acknowledged.push(first.id);
    assert_all_there(standby.url(), &acknowledged).await;
    // No connection that lay there leads a reader to what was.
    let fresh = tasks.create(new_task("fresh")).await.unwrap();
    for found in futures_util::future::join_all((0..10).map(|_| tasks.get(fresh.id))).await {
        assert_eq!(found.unwrap(), fresh);
    }
    tokio::task::spawn_blocking(|| (standby.stop(), primary.stop())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_death_of_the_primary_nothing_that_was_answered_is_lost() {
    let (primary, standby, proxy) = replicated().await;
    let store = connect(&proxy.url());
    let writers = Writers::start(&store);
    writers.go_on(50).await;
    // Whoever asks now gets no answer, not even a refusal.
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

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_and_started_again_is_used_within_two_seconds() {
    let server = Server::start_local("").await.unwrap().expect("PostgreSQL (apt-get install postgresql)");
    let store = connect(server.url());
    store.migrate().await.unwrap();
    let server = Arc::new(server);
    let tasks = tasks(&store);
    let task = tasks.create(new_task("kept")).await.unwrap();
    fill(&store, 8).await;
    let writers = Writers::start(&store);
    writers.go_on(50).await;
    let restarted = server.clone();
    // It waits until connections are accepted.
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

#[tokio::test(flavor = "multi_thread")]
async fn a_certain_failure_to_connect_is_tried_again_for_writes_too() {
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
