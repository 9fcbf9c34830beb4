//! Errors and delays of a server behind PostgreSQL (a worker of Citus, `dblink`, `postgres_fdw`), which concern only the
//! owners whose rows are there. PostgreSQL reports them with the codes of a lost connection, but at the severity
//! `ERROR`: its own connections go on. Here a trigger and a view raise such errors, and wait.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgPoolOptions};
use testkit::{
    postgres::TestDatabase,
    stores::{connect, todo_database},
};
use todo_core::{
    NewTask, Task, TaskId, TaskQuery, Title, UserId,
    api::ApiError,
    clock::{Clock as _, IdGenerator as _, SystemClock, UuidV7},
    store::{BatchStore as _, CoalescingStore, Creation, PostgresOptions, PostgresStore, StoreError, TaskStore},
};
use tokio::time::sleep;
use tracing_subscriber::fmt::MakeWriter;

fn owner(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn new_task(owner: &UserId) -> Task {
    let task = NewTask::new(Title::new("Read the map").unwrap());
    let now = SystemClock.now();
    task.into_task(owner.clone(), UuidV7::shared().next(now), now)
}

async fn add(store: &(impl TaskStore + ?Sized), owner: &UserId) -> Result<TaskId, StoreError> {
    let task = new_task(owner);
    store.insert(owner, std::slice::from_ref(&task), &Creation::default()).await.map(|_| task.id)
}

/// Runs statements as another client.
async fn run(database: &TestDatabase, statements: &str) {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// A database in which each use of a task of an owner whose name begins with `far` runs `todo.reach()`.
async fn with_far_owners(reach: &str) -> TestDatabase {
    let database = todo_database().await;
    // A sequence keeps its value when a transaction is rolled back, so it counts the attempts.
    let statements = "create sequence todo.attempts minvalue 0 start 0;
        create function todo.reach() returns void language plpgsql as $$ begin {reach} end $$;
        create function todo.is_there(owner text) returns boolean language plpgsql as $$ begin
            if owner like 'far%' then
                perform nextval('todo.attempts');
                perform todo.reach();
            end if;
            return true;
        end $$;
        create function todo.reach_first() returns trigger language plpgsql as $$ begin
            perform todo.is_there(new.user_id);
            return new;
        end $$;
        create trigger first before insert on todo.tasks for each row execute function todo.reach_first();
        alter table todo.tasks rename to tasks_of_all;
        create view todo.tasks as select * from todo.tasks_of_all where todo.is_there(user_id)";
    run(&database, &statements.replace("{reach}", reach)).await;
    database
}

/// Changes what an access to a task of a far owner does.
async fn set_reach(database: &TestDatabase, reach: &str) {
    let text = "create or replace function todo.reach() returns void language plpgsql as $$ begin {reach} end $$";
    run(database, &text.replace("{reach}", reach)).await;
}

/// The number of accesses to tasks of far owners since the last call of this.
async fn attempts(admin: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select setval('todo.attempts', 0, false) * 0 + n from (select last_value + is_called::int as n \
        from todo.attempts) as a",
    )
    .fetch_one(admin)
    .await
    .unwrap()
}

/// The processes of the server that serve the other connections.
async fn backends(admin: &mut PgConnection) -> BTreeSet<i32> {
    let pids = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query_scalar::<_, i32>(pids).fetch_all(admin).await.unwrap().into_iter().collect()
}

/// Opens this many connections, and leaves them idle.
async fn fill(store: &PostgresStore, count: usize) {
    let (owner, query) = (owner("near"), TaskQuery::default());
    while store.status().size < count {
        for listed in futures_util::future::join_all((0..count).map(|_| store.list(&owner, &query, None))).await {
            listed.unwrap();
        }
    }
}

fn status(error: StoreError) -> u16 {
    ApiError::from(todo_core::Error::from(error)).status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_about_another_server_ends_no_connection() {
    let database = with_far_owners("return;").await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let far = owner("far");
    let pool = PgPoolOptions::new().min_connections(5).max_connections(5).connect(database.url()).await.unwrap();
    for store in [connect(database.url()), PostgresStore::new(pool.clone())] {
        let id = add(&store, &far).await.unwrap();
        fill(&store, 5).await;
        let before = backends(&mut admin).await;
        for code in ["08000", "08006", "08P01", "40003", "57P01", "57P03", "57P05"] {
            set_reach(&database, &format!("raise exception 'client_idle_timeout' using errcode = '{code}';")).await;
            attempts(&mut admin).await;
            // It may have happened, since the other server commits by itself.
            let error = add(&store, &far).await.unwrap_err();
            assert!(matches!(error, StoreError::Interrupted(_)), "{code}: {error:?}");
            assert_eq!((status(error), attempts(&mut admin).await), (503, 1), "{code}");
            let error = store.get(&far, id).await.unwrap_err();
            assert!(matches!(error, StoreError::Unavailable(_)), "{code}: {error:?}");
            assert_eq!((status(error), attempts(&mut admin).await), (503, 2), "{code}: a read is repeated once");
        }
        set_reach(&database, "raise exception 'no' using errcode = '0A000';").await;
        attempts(&mut admin).await;
        let error = add(&store, &far).await.unwrap_err();
        assert!(matches!(error, StoreError::Backend(_)), "{error:?}");
        assert!(store.get(&far, id).await.is_err());
        assert_eq!(attempts(&mut admin).await, 2, "another connection does not help");
        add(&store, &owner("near")).await.unwrap();
        assert_eq!(backends(&mut admin).await, before, "no connection is replaced");
        set_reach(&database, "return;").await;
        add(&store, &far).await.unwrap();
        store.get(&far, id).await.unwrap().unwrap();
        assert_eq!(backends(&mut admin).await, before);
        store.close().await;
    }
    pool.close().await;
}

/// The server has noticed only now that its own connection to the other server is dead.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_succeeds_if_the_other_server_is_there_again() {
    let database = with_far_owners("return;").await;
    let store = connect(database.url());
    let far = owner("far");
    let id = add(&store, &far).await.unwrap();
    let once = "if currval('todo.attempts') = 0 then raise exception 'gone' using errcode = '08006'; end if;";
    set_reach(&database, once).await;
    attempts(&mut PgConnection::connect(database.url()).await.unwrap()).await;
    store.get(&far, id).await.unwrap().unwrap();
}

/// Calls of owners, one after the other, until they are stopped.
struct Clients {
    stop: Arc<AtomicBool>,
    running: Vec<tokio::task::JoinHandle<Calls>>,
}

#[derive(Default)]
struct Calls {
    /// How long those took that have succeeded.
    took: Vec<Duration>,
    failed: usize,
    /// The errors with their sources, and how often each was returned.
    errors: BTreeMap<String, usize>,
}

impl Clients {
    /// Each owner adds a task and reads it.
    fn start(store: &Arc<dyn TaskStore>, owners: impl IntoIterator<Item = UserId>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let running = owners.into_iter().map(|owner| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut calls = Calls::default();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let done = match add(&*store, &owner).await {
                        Ok(id) => store.get(&owner, id).await.map(|_| ()),
                        Err(error) => Err(error),
                    };
                    match done {
                        Ok(()) => calls.took.push(begun.elapsed()),
                        Err(error) => {
                            calls.failed += 1;
                            *calls.errors.entry(format!("{error:?}")).or_default() += 1;
                        }
                    }
                    // Clients are not alone on the machine of the tests.
                    sleep(Duration::from_millis(5)).await;
                }
                calls
            })
        });
        Self { running: running.collect(), stop }
    }

    async fn stop(self) -> Calls {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Calls::default();
        for client in self.running {
            let calls = client.await.unwrap();
            all.took.extend(calls.took);
            all.failed += calls.failed;
            for (error, count) in calls.errors {
                *all.errors.entry(error).or_default() += count;
            }
        }
        all.took.sort();
        all
    }
}

impl Calls {
    fn median(&self) -> Duration {
        self.took.get(self.took.len() / 2).copied().unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { took, failed, .. } = self;
        write!(f, "{} succeeded in {:?} (median) to {:?}, {failed} failed", took.len(), self.median(), took.last())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_that_is_gone_costs_the_owners_of_this_one_nothing() {
    let database = with_far_owners("raise exception 'gone' using errcode = '08006';").await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let own = connect(database.url());
    fill(&own, 10).await;
    let store: Arc<dyn TaskStore> = Arc::new(own);
    let near = || (0..3).map(|number| owner(&format!("near {number}")));
    let clients = Clients::start(&store, near());
    sleep(Duration::from_secs(1)).await;
    let alone = clients.stop().await;
    let before = backends(&mut admin).await;
    let (clients, far) = (Clients::start(&store, near()), Clients::start(&store, [owner("far 1"), owner("far 2")]));
    sleep(Duration::from_secs(2)).await;
    let (beside, far) = (clients.stop().await, far.stop().await);
    assert_eq!((alone.failed, beside.failed, far.took.len()), (0, 0, 0));
    assert!(far.failed > 20, "{}", far.failed);
    assert_eq!(backends(&mut admin).await, before, "no connection is replaced");
    let limit = 5 * alone.median() + Duration::from_millis(5);
    assert!(beside.median() < limit, "{:?} instead of {:?}", beside.median(), alone.median());
}

/// The lines of a log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Citus runs a batch only if the rows of all owners are on one node.
#[tokio::test]
async fn after_a_batch_that_the_server_does_not_support_calls_are_sent_alone() {
    // See `observability.rs`: the threads of the other tests must not switch the events off.
    tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let refuse =
        "if current_query() like '%unnest(%' then raise exception 'cannot push down' using errcode = '0A000'; end if;";
    let database = with_far_owners("return;").await;
    let store = connect(database.url());
    let far: Vec<_> = (0..40).map(|number| owner(&format!("far {number}"))).collect();
    let mut ids = Vec::new();
    for owner in &far {
        ids.push(add(&store, owner).await.unwrap());
    }
    set_reach(&database, refuse).await;
    fill(&store, 5).await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let before = backends(&mut admin).await;
    let coalescing = CoalescingStore::new(store.clone());
    assert!(store.is_batching());
    for _ in 0..5 {
        let reads = far.iter().zip(&ids).map(|(owner, id)| coalescing.get(owner, *id));
        for found in futures_util::future::join_all(reads).await {
            found.unwrap().unwrap();
        }
    }
    assert!(!store.is_batching());
    let status = coalescing.status();
    assert!((1..=2).contains(&status.batches), "{status:?}");
    let after = backends(&mut admin).await;
    assert!(before.is_subset(&after), "no connection is replaced: {before:?} {after:?}");
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("WARN todo_core::store: the database does not support").count(), 1, "{log}");
    // Another table of the same server may be another matter.
    let names = todo_core::store::Names::new("other", "tasks").unwrap();
    assert!(store.clone().with_names(names).is_batching());
    assert!(!store.clone().is_batching());
}

/// A server that hangs has half of the owners, as Citus distributes them.
#[expect(clippy::print_stdout, reason = "the numbers are shown with --nocapture")]
#[tokio::test(flavor = "multi_thread")]
async fn owners_whose_statements_hang_leave_half_of_the_connections_to_the_others() {
    let database = todo_database().await;
    let hang = "create function todo.hang() returns trigger language plpgsql as $$ begin
            if hashtext(new.user_id) < 0 then perform pg_sleep(60); end if;
            return new;
        end $$";
    run(&database, hang).await;
    let mut admin = PgConnection::connect(database.url()).await.unwrap();
    let names: Vec<String> = sqlx::query_scalar(
        "select name from (select 'user ' || n as name from generate_series(1, 1000) as n) as u order by hashtext(name)",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let owners = |names: &[String]| names.iter().step_by(16).map(|name| owner(name)).collect::<Vec<_>>();
    let (far, near) = (owners(&names[..400]), owners(&names[600..]));
    let options = PostgresOptions::default().limit_slow_owners();
    let own = PostgresStore::connect_lazy(database.url(), &options).unwrap();
    fill(&own, 10).await;
    let store: Arc<dyn TaskStore> = Arc::new(own.clone());
    // More clients than connections on each side.
    let (first, far) = (Clients::start(&store, near.clone()), Clients::start(&store, far));
    sleep(Duration::from_secs(1)).await;
    let quiet = first.stop().await;
    let first = Clients::start(&store, near.clone());
    run(&database, "create trigger hang before insert on todo.tasks for each row execute function todo.hang()").await;
    sleep(Duration::from_secs(6)).await;
    let first = first.stop().await;
    // By now it is known whose statements hang.
    let second = Clients::start(&store, near);
    let mut most = 0;
    for _ in 0..50 {
        sleep(Duration::from_millis(100)).await;
        most = most.max(own.status().size);
    }
    let second = second.stop().await;
    let far = far.stop().await;
    let text = format!(
        "before: {quiet}; at first: {first}; later: {second}; those that hang: {} failed; at most {most} connections",
        far.failed
    );
    println!("{text}");
    // In five times the time, half as many, at least: the machine may be busy.
    let is_served = 2 * second.took.len() > quiet.took.len() && second.failed * 20 <= second.took.len();
    assert!(is_served, "{text}, {:?}", second.errors);
    assert!(second.median() < 4 * quiet.median() + Duration::from_millis(50), "{text}");
    assert!(!first.took.is_empty() && most <= 10, "{text}, {:?}", first.errors);
    run(&database, "drop trigger hang on todo.tasks").await;
    let healed = Instant::now();
    while add(&*store, &owner(&names[0])).await.is_err() {
        assert!(healed.elapsed() < Duration::from_secs(10));
    }
}
