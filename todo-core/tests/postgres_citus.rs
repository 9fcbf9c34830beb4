//! Tables that Citus distributes over several nodes: what [`PostgresStore::distribute`] does, and the store suite on what
//! comes out.
//!
//! `TEST_CITUS_URL` is the URL of a superuser on the coordinator, of a database with the extension and with workers. Each
//! test makes a database of its own on all nodes. Without the variable, this program says that it has run nothing:
//! `scripts/check-citus` says how to run it. It has a `main` of its own, since a test of the usual harness could say that
//! only by being ignored.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]
#![expect(clippy::print_stdout, reason = "the output is the result of the tests")]

use std::{
    env,
    future::Future,
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Row as _};
use todo_core::{
    Limit, NewTask, Task, TaskFilter, TaskId, TaskQuery, Title, UserId,
    clock::Timestamp,
    conformance::store::{PlainCalls as _, cases, postgres_statements},
    store::{
        BatchStore as _, Change, CoalescingOptions, CoalescingStore, Completion, DataLoss, Names, PostgresOptions,
        PostgresStore, Precondition, Read, StoreError, TaskChange, TaskStore,
    },
};

type Test = fn(Arc<Cluster>) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! tests {
    ($($test:ident)+) => {
        const TESTS: &[(&str, Test)] = &[$((stringify!($test), |cluster| Box::pin($test(cluster)))),+];
    };
}

tests! {
    each_statement_asks_one_node
    nothing_changes_when_tables_with_rows_are_distributed
    a_second_run_changes_nothing
    what_is_half_done_is_completed
    writers_beside_the_distribution_are_all_counted
    ordinary_tables_come_back
    what_cannot_be_distributed_is_refused_with_a_reason
    migrations_go_down_and_up_again
    the_sql_of_a_host_is_counted
    a_running_store_notices_a_distribution
    a_store_on_a_worker_works
    one_schema_on_one_node_is_batched
    a_shard_that_moves_keeps_its_triggers
    row_level_security_is_the_second_wall_on_each_node
    row_level_security_comes_after_the_distribution
    functions_that_are_not_distributed_are_named
    the_suite_passes
    the_suite_passes_with_batching
    the_suite_passes_on_a_worker
    the_suite_passes_in_a_transaction_of_the_host
    the_suite_passes_with_row_level_security
    the_suite_passes_with_row_level_security_in_a_transaction_of_the_host
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (flags, filters): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    let Ok(url) = env::var("TEST_CITUS_URL") else {
        if !flags.iter().any(|flag| *flag == "--list") {
            println!(
                "NOT RUN: the tests of Citus, since TEST_CITUS_URL is not set; scripts/check-citus says how to run them"
            );
        }
        return ExitCode::SUCCESS;
    };
    let chosen =
        TESTS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|part| name.contains(part.as_str())));
    if flags.iter().any(|flag| *flag == "--list") {
        chosen.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in chosen {
        let begun = Instant::now();
        let result = runtime.block_on(async {
            let cluster = Arc::new(Cluster::new(&url).await);
            // A task, so that a panic ends this test alone.
            let tasks = tokio::task::LocalSet::new();
            let running = tasks.spawn_local(test(cluster.clone()));
            let ended = tasks.run_until(running).await;
            if ended.is_ok() {
                cluster.drop_databases().await;
            }
            ended
        });
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:.1} s)", begun.elapsed().as_secs_f64());
        if result.is_ok() {
            passed += 1;
        } else {
            failed.push(*name);
        }
    }
    println!(
        "test result: {}. {passed} passed; {} failed; 0 ignored",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A database on all nodes, and two roles without further privileges: the owner of the tables and that of a server.
struct Cluster {
    name: String,
    /// The URL of the database on the coordinator, for a superuser.
    admin: String,
    /// The same on each worker.
    workers: Vec<String>,
    /// The URLs for the other roles.
    owner: String,
    app: String,
}

/// The URL with another user and another database, perhaps on another node.
fn with(url: &str, user: Option<&str>, database: &str, node: Option<(&str, u16)>) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_path(database);
    if let Some(user) = user {
        url.set_username(user).unwrap();
        url.set_password(None).unwrap();
    }
    if let Some((host, port)) = node {
        url.set_host(Some(host)).unwrap();
        url.set_port(Some(port)).unwrap();
    }
    url.into()
}

impl Cluster {
    async fn new(url: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("citus_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(url).await.unwrap();
        let nodes: Vec<(String, i32, bool)> =
            sqlx::query_as("select nodename, nodeport, groupid = 0 from pg_dist_node order by groupid, nodeport")
                .fetch_all(&mut connection)
                .await
                .expect("a database with Citus");
        let workers: Vec<_> = nodes
            .iter()
            .filter(|(.., is_coordinator)| !is_coordinator)
            .map(|(host, port, _)| (host.clone(), *port))
            .collect();
        assert!(!workers.is_empty(), "the cluster has no workers");
        let (owner, app) = ("citus_test_owner", "citus_test_app");
        for role in [owner, app] {
            let create =
                format!("do $$ begin create role {role} login; exception when duplicate_object then null; end $$");
            connection.execute(sqlx::raw_sql(AssertSqlSafe(create))).await.unwrap();
        }
        let admin = with(url, None, &name, None);
        let on_worker = |(host, port): &(String, i32)| {
            let node = (host.as_str(), u16::try_from(*port).unwrap());
            (with(url, None, "postgres", Some(node)), with(url, None, &name, Some(node)))
        };
        let on_workers: Vec<_> = workers.iter().map(on_worker).collect();
        let places = on_workers.iter().cloned().chain([(url.to_owned(), admin.clone())]);
        for (server, database) in places {
            run(&server, &format!("create database {name} template template0 encoding 'UTF8'")).await;
            run(&database, "create extension citus").await;
        }
        let (host, port, _) =
            nodes.iter().find(|(.., is_coordinator)| *is_coordinator).expect("the coordinator is a node");
        run(&admin, &format!("select citus_set_coordinator_host('{host}', {port})")).await;
        for (host, port) in &workers {
            run(&admin, &format!("select citus_add_node('{host}', {port})")).await;
        }
        // Fewer shards, since each case of the suite makes its own.
        run(&admin, &format!("alter database {name} set citus.shard_count = 4")).await;
        run(&admin, &format!("grant create on database {name} to {owner}")).await;
        Self {
            owner: with(&admin, Some(owner), &name, None),
            app: with(&admin, Some(app), &name, None),
            workers: on_workers.into_iter().map(|(_, database)| database).collect(),
            admin,
            name,
        }
    }

    async fn drop_databases(&self) {
        for database in [&self.admin].into_iter().chain(&self.workers) {
            run(&with(database, None, "postgres", None), &format!("drop database {} with (force)", self.name)).await;
        }
    }

    /// The URL of a role on the first worker.
    fn on_worker(&self, url: &str) -> String {
        let worker = url::Url::parse(&self.workers[0]).unwrap();
        with(url, None, &self.name, Some((worker.host_str().unwrap(), worker.port().unwrap())))
    }

    /// Migrated tables of the owner.
    async fn migrated(&self) -> PostgresStore {
        let store = connect(&self.owner);
        store.migrate().await.unwrap();
        store
    }

    /// The same, distributed.
    async fn distributed(&self) -> PostgresStore {
        let store = connect(&self.owner);
        let steps = store.distribute().await.unwrap();
        assert!(store.is_distributed() && !steps.is_empty(), "{steps:?}");
        store
    }

    async fn value<T>(&self, query: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let mut connection = PgConnection::connect(&self.admin).await.unwrap();
        let value = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        value
    }

    /// Everything that the tables contain, as text.
    async fn content(&self) -> Vec<String> {
        let mut content = Vec::new();
        for table in ["tasks", "tasks_owners", "tasks_deleted"] {
            let all = format!(
                "select coalesce(string_agg(t::text, e'\\n' order by t::text), '') from (select * from todo.{table}) as t"
            );
            content.push(self.value(&all).await);
        }
        content
    }
}

fn connect(url: &str) -> PostgresStore {
    PostgresStore::connect_lazy(url, &PostgresOptions::default().max_connections(6)).unwrap()
}

async fn run(url: &str, sql: &str) {
    tried(url, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn tried(url: &str, sql: &str) -> Result<u64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    connection.close().await?;
    done.map(|done| done.rows_affected())
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn task(owner: &UserId, number: u128) -> Task {
    let title = Title::new(format!("Number {number}")).unwrap();
    NewTask::new(title).into_task(owner.clone(), uuid::Uuid::from_u128(number).into(), Timestamp::from_unix_seconds(1))
}

/// Tasks of many owners, some of which are changed and deleted.
async fn fill(store: &PostgresStore, owners: u128, tasks: u128) {
    for owner in 1..=owners {
        let owner = user(&format!("user {owner}"));
        for number in 1..=tasks {
            store.add(&owner, &task(&owner, number)).await.unwrap();
        }
        let toggle = TaskChange::completion(Completion::Toggle);
        let now = Timestamp::from_unix_seconds(2);
        store.update(&owner, uuid::Uuid::from_u128(1).into(), &toggle, &Precondition::default(), now).await.unwrap();
        store.delete(&owner, uuid::Uuid::from_u128(2).into(), &Precondition::default()).await.unwrap();
    }
}

/// The text of a mistake in the setup.
fn complaint<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Setup(mistake)) => mistake.to_string(),
        other => panic!("{other:?}"),
    }
}

/// How many owners have another count than they have tasks, or an older revision than one of them; and tasks without
/// an owner.
async fn miscounted(cluster: &Cluster) -> i64 {
    let owners = "select count(*) from (select o.tasks, o.revision, coalesce(t.count, 0) as count, coalesce(t.last, 0) as last \
        from todo.tasks_owners as o left join (select user_id, count(*), max(revision) as last from todo.tasks group by user_id) as t \
        on t.user_id = o.user_id) as c where c.tasks <> c.count or c.revision < c.last";
    let tasks = "select count(*) from todo.tasks as t left join todo.tasks_owners as o on o.user_id = t.user_id where o.user_id is null";
    cluster.value::<i64>(owners).await + cluster.value::<i64>(tasks).await
}

/// The statements that concern several owners, or none.
const OF_MANY_OWNERS: [&str; 7] =
    ["expire", "has_tasks", "owners", "ping", "ping_of_shards", "revisions_of_shards", "transfer"];

/// Those that others replace where the tables are distributed.
const REPLACED: [&str; 4] = ["insert", "insert_all", "revisions", "transfer_lock"];

async fn each_statement_asks_one_node(cluster: Arc<Cluster>) {
    cluster.distributed().await;
    let mut connection = PgConnection::connect(&cluster.admin).await.unwrap();
    let mut asked = 0;
    for (name, sql) in postgres_statements(Names::default()) {
        if OF_MANY_OWNERS.contains(&&*name) || REPLACED.contains(&&*name) {
            continue;
        }
        let types = types_of_filters(&name);
        let prepare = format!("prepare statement{types} as {sql}");
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(prepare)))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let types = "select unnest(parameter_types)::text from pg_prepared_statements where name = 'statement'";
        let types: Vec<String> = sqlx::query_scalar(types).fetch_all(&mut connection).await.unwrap();
        // A condition that is always true, or never, is not part of the plan: each one is once this and once that.
        for round in 0..2 {
            let values: Vec<_> = types
                .iter()
                .enumerate()
                .map(|(place, kind)| if kind == "boolean" && (place + round) % 2 == 0 { "false" } else { value(kind) })
                .collect();
            let explain = format!("explain execute statement({})", values.join(", "));
            let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(explain))).await;
            let rows = rows.unwrap_or_else(|error| panic!("{name}: {error}\n{sql}"));
            let plan: Vec<String> = rows.iter().map(|row| row.try_get(0).unwrap()).collect();
            let plan = plan.join("\n");
            let counts: Vec<_> = plan.lines().filter_map(|line| line.trim().strip_prefix("Task Count: ")).collect();
            let is_one =
                counts == ["1"] && !plan.contains("Distributed Subplan") && !plan.contains("INSERT ... SELECT");
            assert!(is_one, "{name}: {plan}\n{sql}");
        }
        connection.execute("deallocate statement").await.unwrap();
        asked += 1;
    }
    println!("{asked} statements have one task");
    assert!(asked >= 60, "{asked}");
}

/// The types of parameters that a statement with filters may not mention.
fn types_of_filters(name: &str) -> String {
    let filter = "text, boolean, text, boolean, text, text".to_owned() + &", timestamptz".repeat(11) + ", text";
    if name.starts_with("list by") || name.starts_with("list of") {
        format!("({filter}, bigint, uuid, timestamptz, text, smallint, bigint)")
    } else if name.starts_with("count of") {
        format!("({filter}, bigint)")
    } else if name.contains(" of filter") {
        format!("({filter})")
    } else {
        String::new()
    }
}

/// A value of a type.
fn value(kind: &str) -> &'static str {
    match kind {
        "uuid" => "'00000000-0000-0000-0000-000000000001'",
        "boolean" => "true",
        "smallint" | "bigint" => "1",
        "timestamp with time zone" => "'2026-01-01'",
        "bytea" => r"'\x00000000000000000000000000000000'",
        "uuid[]" => "array_fill('00000000-0000-0000-0000-000000000001'::uuid, array[3])",
        "text[]" => "array['{}', '{}', '{}']",
        "bigint[]" => "array[1, 2, 3]",
        "smallint[]" => "array[1, 2, 3]::smallint[]",
        "boolean[]" => "array[true, true, true]",
        "timestamp with time zone[]" => "array['2026-01-01', '2026-01-01', '2026-01-01']::timestamptz[]",
        // Also an array that is read from its text.
        _ => "'{}'",
    }
}

async fn nothing_changes_when_tables_with_rows_are_distributed(cluster: Arc<Cluster>) {
    let store = cluster.migrated().await;
    fill(&store, 20, 5).await;
    let before = cluster.content().await;
    let steps = store.distribute().await.unwrap();
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert_eq!(cluster.content().await, before);
    assert_eq!(miscounted(&cluster).await, 0);
    store.check_tables().await.unwrap();
    assert!(store.is_distributed() && !store.is_batching());
    // No copy of the rows stays behind, where an erasure would not find it.
    let left = "select sum(pg_relation_size(oid))::bigint from pg_class where relnamespace = 'todo'::regnamespace and relname in \
        ('tasks', 'tasks_owners', 'tasks_deleted')";
    assert_eq!(cluster.value::<i64>(left).await, 0);
    // Owners are on both workers.
    let nodes = "select count(distinct nodeport) from citus_shards where table_name = 'todo.tasks'::regclass";
    assert_eq!(usize::try_from(cluster.value::<i64>(nodes).await).unwrap(), cluster.workers.len());
    // A client that has followed an owner goes on.
    let ann = user("user 1");
    let changes = store.changes(&ann, None, Limit::default()).await.unwrap().unwrap();
    let from = changes.next;
    store.add(&ann, &task(&ann, 77)).await.unwrap();
    store.delete(&ann, uuid::Uuid::from_u128(3).into(), &Precondition::default()).await.unwrap();
    let changes = store.changes(&ann, Some(from), Limit::default()).await.unwrap().unwrap();
    let kinds: Vec<_> = changes.changes.iter().map(|change| matches!(change, Change::Deleted(_))).collect();
    assert_eq!(kinds, [false, true], "{changes:?}");
    assert_eq!(miscounted(&cluster).await, 0);
}

async fn a_second_run_changes_nothing(cluster: Arc<Cluster>) {
    let store = cluster.distributed().await;
    fill(&store, 5, 3).await;
    let before = cluster.content().await;
    assert_eq!(store.distribute().await.unwrap(), Vec::<String>::new());
    assert_eq!(cluster.content().await, before);
}

async fn what_is_half_done_is_completed(cluster: Arc<Cluster>) {
    let store = cluster.migrated().await;
    fill(&store, 5, 3).await;
    // By hand: the triggers are dropped, the tasks are distributed, and others are not.
    let by_hand = "drop trigger zz_todo_before_insert on todo.tasks; drop trigger todo_after_insert on todo.tasks; \
        drop trigger zz_todo_before_update on todo.tasks; drop trigger todo_after_delete on todo.tasks; \
        drop trigger zz_todo_before_truncate on todo.tasks";
    run(&cluster.owner, by_hand).await;
    run(&cluster.owner, "select create_distributed_table('todo.tasks', 'user_id')").await;
    assert!(complaint(store.check_tables().await).contains("only in part"));
    // Changes that no trigger sees.
    run(&cluster.owner, "delete from todo.tasks where user_id = 'user 1'").await;
    run(&cluster.owner, "insert into todo.tasks (user_id, id, title, created_at, updated_at) values ('new', gen_random_uuid(), 'x', now(), now())").await;
    let (ann, from) = (user("user 1"), Some(todo_core::store::SyncPoint::default()));
    assert_ne!(miscounted(&cluster).await, 0);
    let steps = store.distribute().await.unwrap();
    assert!(steps.iter().any(|step| step.contains("Triggers were missing")), "{steps:?}");
    assert_eq!(miscounted(&cluster).await, 0);
    store.check_tables().await.unwrap();
    assert_eq!(store.changes(&ann, from, Limit::default()).await.unwrap(), None, "clients begin again");
    assert_eq!(store.distribute().await.unwrap(), Vec::<String>::new());
}

async fn writers_beside_the_distribution_are_all_counted(cluster: Arc<Cluster>) {
    let store = cluster.migrated().await;
    fill(&store, 20, 20).await;
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = Vec::new();
    for number in 0..8_u128 {
        let (store, stop, failed) = (connect(&cluster.owner), stop.clone(), failed.clone());
        writers.push(tokio::spawn(async move {
            let (mut acknowledged, mut next) = (0_u64, number * 1_000_000 + 1000);
            while !stop.load(Ordering::Relaxed) {
                let owner = user(&format!("writer {}", next % 13));
                match store.add(&owner, &task(&owner, next)).await {
                    Ok(_) => acknowledged += 1,
                    Err(_) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                next += 1;
            }
            acknowledged
        }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    store.distribute().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.unwrap();
    }
    let there: i64 = cluster.value("select count(*) from todo.tasks where user_id like 'writer %'").await;
    println!("{acknowledged} tasks were added meanwhile, {} calls failed", failed.load(Ordering::Relaxed));
    assert!(there.unsigned_abs() >= acknowledged && acknowledged > 0, "{there} of {acknowledged}");
    assert_eq!(miscounted(&cluster).await, 0);
}

async fn ordinary_tables_come_back(cluster: Arc<Cluster>) {
    let store = cluster.distributed().await;
    fill(&store, 10, 4).await;
    let before = cluster.content().await;
    assert_eq!(store.undistribute().await.unwrap().len(), 3);
    assert!(!store.is_distributed() && store.is_batching());
    assert_eq!(cluster.content().await, before);
    store.check_tables().await.unwrap();
    fill(&store, 12, 6).await;
    assert_eq!(miscounted(&cluster).await, 0);
    assert_eq!(store.undistribute().await.unwrap(), Vec::<String>::new());
    let before = cluster.content().await;
    assert_eq!(store.distribute().await.unwrap().len(), 3, "the ledger has stayed");
    assert_eq!(cluster.content().await, before);
    store.check_tables().await.unwrap();
}

async fn what_cannot_be_distributed_is_refused_with_a_reason(cluster: Arc<Cluster>) {
    let store = cluster.migrated().await;
    let on_worker = connect(&cluster.on_worker(&cluster.admin)).with_names(Names::new("elsewhere", "tasks").unwrap());
    assert!(on_worker.distribute().await.is_err());
    // Not the owner.
    run(
        &cluster.admin,
        "grant usage on schema todo to citus_test_app; grant select on todo.tasks_migrations to citus_test_app",
    )
    .await;
    let text = complaint(connect(&cluster.app).distribute().await);
    assert!(text.contains("does not own"), "{text}");
    // By another column.
    run(&cluster.admin, "set citus.enable_unsafe_triggers = on; alter table todo.tasks drop constraint tasks_pkey; drop index todo.tasks_user_id_request_key_idx").await;
    tried(&cluster.admin, "begin; set local citus.enable_unsafe_triggers = on; select create_distributed_table('todo.tasks', 'id'); commit").await.unwrap();
    for text in [complaint(store.distribute().await), complaint(store.check_tables().await)] {
        assert!(text.contains("todo.tasks is distributed by id"), "{text}");
    }
    // On the worker.
    let text = complaint(connect(&cluster.on_worker(&cluster.owner)).distribute().await);
    assert!(text.contains("worker") || text.contains("coordinator"), "{text}");
    // Without Citus.
    let (server, name) = (with(&cluster.admin, None, "postgres", None), format!("{}_plain", cluster.name));
    run(&server, &format!("create database {name}")).await;
    let plain = connect(&with(&cluster.admin, None, &name, None));
    let text = complaint(plain.distribute().await);
    assert!(text.contains("has no Citus"), "{text}");
    plain.migrate().await.unwrap();
    plain.check_tables().await.unwrap();
    assert!(!plain.is_distributed() && plain.is_batching());
    plain.close().await;
    run(&server, &format!("drop database {name} with (force)")).await;
}

async fn migrations_go_down_and_up_again(cluster: Arc<Cluster>) {
    let store = cluster.distributed().await;
    fill(&store, 5, 3).await;
    let before = cluster.content().await;
    let secured = connect(&cluster.owner).with_row_security();
    secured.migrate().await.unwrap();
    secured.grant_to("citus_test_app").await.unwrap();
    let app = connect(&cluster.app).with_row_security();
    app.check_tables().await.unwrap();
    for round in 0..2 {
        store.migrate_to(1, DataLoss::Refuse).await.unwrap_or_else(|error| panic!("down, round {round}: {error:?}"));
        assert_eq!(cluster.content().await, before);
        assert!(app.check_tables().await.is_err());
        secured.migrate().await.unwrap_or_else(|error| panic!("up, round {round}: {error:?}"));
        secured.grant_to("citus_test_app").await.unwrap();
        app.check_tables().await.unwrap();
        assert_eq!(
            app.get(&user("user 1"), uuid::Uuid::from_u128(3).into()).await.unwrap().unwrap().title.as_str(),
            "Number 3"
        );
    }
    store.migrate_to(1, DataLoss::Refuse).await.unwrap();
    assert!(complaint(store.migrate_to(0, DataLoss::Refuse).await).contains("there are tasks"));
    store.migrate_to(0, DataLoss::Accept).await.unwrap();
    // Nothing is left on any node but the ledger.
    for node in [&cluster.admin].into_iter().chain(&cluster.workers) {
        let mut connection = PgConnection::connect(node).await.unwrap();
        let left: Vec<String> = sqlx::query_scalar(
            "select relname::text from pg_class where relnamespace = 'todo'::regnamespace and relkind = 'r' and relname !~ '^tasks_migrations' \
             union all select proname::text from pg_proc where pronamespace = 'todo'::regnamespace",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(left, Vec::<String>::new(), "{node}");
    }
    // And everything once more.
    let steps = store.distribute().await.unwrap();
    assert_eq!(steps.len(), 3, "{steps:?}");
    fill(&store, 3, 3).await;
    assert_eq!(miscounted(&cluster).await, 0);
}

async fn the_sql_of_a_host_is_counted(cluster: Arc<Cluster>) {
    let store = cluster.migrated().await;
    fill(&store, 10, 5).await;
    store.distribute().await.unwrap();
    let ann = user("user 3");
    let of_ann = async || store.revisions(&[ann.clone(), user("nobody"), user("user 4")]).await.unwrap();
    let before = of_ann().await;
    let insert = "insert into todo.tasks (user_id, id, title, created_at, updated_at) values \
        ('user 3', '00000000-0000-0000-0000-0000000000aa', 'By a host', now(), now()), \
        ('user 5', '00000000-0000-0000-0000-0000000000aa', 'By a host', now(), now())";
    run(&cluster.owner, insert).await;
    let after = of_ann().await;
    assert!(after[0] > before[0] && after[1] == before[1] && after[2] == before[2], "{before:?} {after:?}");
    assert_eq!(miscounted(&cluster).await, 0);
    // Of many owners at once, with a change of nothing among them.
    run(&cluster.owner, "update todo.tasks set title = 'By a host' where id = '00000000-0000-0000-0000-000000000003' or title = 'By a host'").await;
    let found = store.get(&ann, uuid::Uuid::from_u128(3).into()).await.unwrap().unwrap();
    assert_eq!((found.title.as_str(), found.version), ("By a host", 2));
    let found = store.get(&ann, uuid::Uuid::from_u128(0xaa).into()).await.unwrap().unwrap();
    assert_eq!(found.version, 1, "a change of nothing");
    run(&cluster.owner, "delete from todo.tasks where title = 'By a host'").await;
    assert_eq!(miscounted(&cluster).await, 0);
    let gone: i64 = cluster.value("select count(*) from todo.tasks_deleted where user_id = 'user 3'").await;
    assert_eq!(gone, 3);
    assert!(tried(&cluster.owner, "truncate todo.tasks").await.is_err());
    // In one transaction with a savepoint, for two owners on different nodes.
    let transaction = "begin; delete from todo.tasks where user_id = 'user 1'; savepoint one; \
        delete from todo.tasks where user_id = 'user 2'; rollback to savepoint one; commit";
    run(&cluster.owner, transaction).await;
    assert_eq!(miscounted(&cluster).await, 0);
    let left: Vec<i64> = vec![
        cluster.value("select count(*) from todo.tasks where user_id = 'user 1'").await,
        cluster.value("select count(*) from todo.tasks where user_id = 'user 2'").await,
    ];
    assert_eq!(left, [0, 3]);
    // For operators.
    assert!(store.expire_sync_points().await.unwrap() >= 10);
    assert!(store.purge_all(Timestamp::from_unix_micros(i64::MAX)).await.unwrap() > 10);
}

async fn a_running_store_notices_a_distribution(cluster: Arc<Cluster>) {
    let store = cluster.migrated().await;
    fill(&store, 5, 3).await;
    let running = connect(&cluster.owner);
    running.check_tables().await.unwrap();
    let server = Arc::new(CoalescingStore::with_options(
        running.clone(),
        &CoalescingOptions::default().concurrent_reads(1).concurrent_writes(1),
    ));
    store.distribute().await.unwrap();
    assert!(running.is_batching());
    let read = |number: u128| {
        let server = server.clone();
        tokio::spawn(async move {
            server.get(&user(&format!("user {}", number % 5 + 1)), uuid::Uuid::from_u128(3).into()).await
        })
    };
    let reads: Vec<_> = (0..40).map(read).collect();
    for read in reads {
        assert!(read.await.unwrap().unwrap().is_some());
    }
    assert!(!running.is_batching(), "the store still batches");
}

async fn a_store_on_a_worker_works(cluster: Arc<Cluster>) {
    let store = cluster.distributed().await;
    fill(&store, 4, 3).await;
    let on_worker = connect(&cluster.on_worker(&cluster.owner));
    // The ledger is there, and nothing is to be done.
    on_worker.migrate().await.unwrap();
    on_worker.check_tables().await.unwrap();
    assert!(on_worker.is_distributed());
    for owner in ["user 1", "user 2", "user 3", "user 4", "new one", "new two"].map(user) {
        on_worker.add(&owner, &task(&owner, 99)).await.unwrap();
        assert!(store.get(&owner, uuid::Uuid::from_u128(99).into()).await.unwrap().is_some());
    }
    assert_eq!(miscounted(&cluster).await, 0);
}

async fn one_schema_on_one_node_is_batched(cluster: Arc<Cluster>) {
    let store = cluster.migrated().await;
    fill(&store, 4, 3).await;
    // The triggers would count the copies, and their tables move one after the other.
    let triggers = |what: &str| {
        format!(
            "select string_agg({what}, '; ') from pg_trigger where tgrelid = 'todo.tasks'::regclass and not tgisinternal"
        )
    };
    let create: String = cluster.value(&triggers("pg_get_triggerdef(oid)")).await;
    let drop: String = cluster.value(&triggers("format('drop trigger %I on todo.tasks', tgname)")).await;
    run(&cluster.admin, &drop).await;
    run(&cluster.admin, "select citus_schema_distribute('todo')").await;
    for create in create.split("; ") {
        let create = [
            "begin",
            "set local citus.enable_unsafe_triggers = on",
            "set local citus.multi_shard_modify_mode = 'sequential'",
            create,
            "commit",
        ];
        let mut connection = PgConnection::connect(&cluster.admin).await.unwrap();
        for statement in create {
            connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await.unwrap();
        }
    }
    let store = connect(&cluster.owner);
    store.check_tables().await.unwrap();
    assert!(!store.is_distributed() && store.is_batching());
    let ids = [user("user 1"), user("user 2")];
    let id: TaskId = uuid::Uuid::from_u128(3).into();
    let found = store.get_many(&[(&ids[0], id), (&ids[1], id)]).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    let tasks = [task(&ids[0], 9), task(&ids[1], 9)];
    assert_eq!(
        store.insert_many(&[(&ids[0], &tasks[0], None), (&ids[1], &tasks[1], None)]).await.unwrap(),
        [true, true]
    );
    assert_eq!(miscounted(&cluster).await, 0);
    assert!(complaint(store.distribute().await).contains("schema-based"));
}

async fn a_shard_that_moves_keeps_its_triggers(cluster: Arc<Cluster>) {
    let store = cluster.distributed().await;
    fill(&store, 12, 4).await;
    let before = cluster.content().await;
    let moves = "set citus.enable_unsafe_triggers = on; \
        select citus_move_shard_placement(s.shardid, s.nodename, s.nodeport, t.nodename, t.nodeport, 'block_writes') \
        from citus_shards as s join pg_dist_node as t on t.groupid <> 0 and t.nodeport <> s.nodeport \
        where s.table_name = 'todo.tasks'::regclass order by s.shardid limit 1";
    run(&cluster.admin, moves).await;
    assert_eq!(cluster.content().await, before, "the copy was counted");
    for owner in 1..=12 {
        let owner = user(&format!("user {owner}"));
        store.add(&owner, &task(&owner, 50)).await.unwrap();
    }
    assert_eq!(miscounted(&cluster).await, 0);
}

/// Distributed tables with row-level security.
async fn secured(cluster: &Cluster) -> PostgresStore {
    let owner = connect(&cluster.owner).with_row_security();
    owner.distribute().await.unwrap();
    owner.grant_to("citus_test_app").await.unwrap();
    owner.close().await;
    let app = connect(&cluster.app).with_row_security();
    app.check_tables().await.unwrap();
    app
}

/// Fails unless nobody but the owner and `citus_test_app` may call the functions that bind an owner, on all nodes.
async fn are_closed(cluster: &Cluster) {
    for node in [&cluster.admin].into_iter().chain(&cluster.workers) {
        let mut connection = PgConnection::connect(node).await.unwrap();
        let open = "select p.proname::text from pg_proc as p where p.pronamespace = 'todo'::regnamespace \
            and p.proname ~ '_[0-9a-f]{10}$' and (p.proacl is null or exists (\
                select from aclexplode(p.proacl) as a where a.grantee not in (p.proowner, 'citus_test_app'::regrole)))";
        let open: Vec<String> = sqlx::query_scalar(open).fetch_all(&mut connection).await.unwrap();
        assert_eq!(open, Vec::<String>::new(), "{node}");
        let count = "select count(*) from pg_proc as p where p.pronamespace = 'todo'::regnamespace and p.proname ~ '_[0-9a-f]{10}$'";
        let count: i64 = sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap();
        assert!(count >= 19, "{count} functions on {node}");
    }
}

async fn row_level_security_is_the_second_wall_on_each_node(cluster: Arc<Cluster>) {
    let app = secured(&cluster).await;
    are_closed(&cluster).await;
    for owner in ["ann", "bob", "cem", "dan"].map(user) {
        app.add(&owner, &task(&owner, 1)).await.unwrap();
        assert_eq!(app.page(&owner, &TaskQuery::new()).await.unwrap().tasks.len(), 1);
    }
    // Nobody is bound: an error, on the coordinator, on a worker, and for a shard.
    let shard: String = cluster
        .value(
            "select shard_name from citus_shards where table_name = 'todo.tasks'::regclass order by nodeport limit 1",
        )
        .await;
    for (url, table) in [
        (&cluster.app, "todo.tasks"),
        (&cluster.on_worker(&cluster.app), "todo.tasks"),
        (&cluster.on_worker(&cluster.app), &*shard),
    ] {
        let error = tried(url, &format!("select * from {table} where title = 'Number 1'")).await;
        let code =
            error.as_ref().err().and_then(|error| error.as_database_error()).and_then(sqlx::error::DatabaseError::code);
        // A shard without rows asks nobody.
        assert!(code.as_deref() == Some("42501") || table == shard, "{url} {table}: {error:?}");
    }
    // Somebody is bound: only theirs, whatever the statement says.
    for owner in ["ann", "bob"] {
        let bound = |sql: &str| {
            format!(
                "begin; set local citus.propagate_set_commands = 'local'; set local todo.user_id = '{owner}'; {sql}; commit"
            )
        };
        let mut connection = PgConnection::connect(&cluster.app).await.unwrap();
        connection.execute("begin").await.unwrap();
        connection.execute("set local citus.propagate_set_commands = 'local'").await.unwrap();
        let bind = format!("set local todo.user_id = '{owner}'");
        connection.execute(sqlx::raw_sql(AssertSqlSafe(bind))).await.unwrap();
        let seen: Vec<String> =
            sqlx::query_scalar("select user_id from todo.tasks").fetch_all(&mut connection).await.unwrap();
        assert_eq!(seen, [owner]);
        drop(connection);
        assert!(tried(&cluster.app, &bound("insert into todo.tasks (user_id, id, title, created_at, updated_at) values ('eve', gen_random_uuid(), 'x', now(), now())")).await.is_err());
    }
    // Of two owners, by functions that run on the coordinator.
    let moved = app.transfer(&user("ann"), &user("bob")).await.unwrap();
    assert_eq!((moved.moved, moved.remaining), (0, 1));
    app.add(&user("ann"), &task(&user("ann"), 2)).await.unwrap();
    let moved = app.transfer(&user("ann"), &user("bob")).await.unwrap();
    assert_eq!((moved.moved, moved.remaining), (1, 1));
    let revisions = app.revisions(&["bob", "nobody", "ann"].map(user)).await.unwrap();
    assert!(revisions[0].get() > 0 && revisions[1].get() == 0 && revisions[2].get() > 0, "{revisions:?}");
    app.ping().await.unwrap();
    // On a worker, too.
    let on_worker = connect(&cluster.on_worker(&cluster.app)).with_row_security();
    on_worker.check_tables().await.unwrap();
    for owner in ["ann", "bob", "cem", "dan"].map(user) {
        let task = task(&owner, 7);
        on_worker.add(&owner, &task).await.unwrap();
        assert!(on_worker.get(&owner, task.id).await.unwrap().is_some());
    }
    on_worker.transfer(&user("cem"), &user("dan")).await.unwrap();
}

async fn row_level_security_comes_after_the_distribution(cluster: Arc<Cluster>) {
    let store = cluster.distributed().await;
    fill(&store, 4, 3).await;
    let owner = connect(&cluster.owner).with_row_security();
    owner.migrate().await.unwrap();
    owner.grant_to("citus_test_app").await.unwrap();
    let app = connect(&cluster.app).with_row_security();
    app.check_tables().await.unwrap();
    are_closed(&cluster).await;
    assert_eq!(app.page(&user("user 1"), &TaskQuery::new()).await.unwrap().tasks.len(), 2);
    assert!(matches!(
        app.count(&user("user 2"), &TaskFilter::default(), None).await.unwrap(),
        Read::Changed { value: 2, .. }
    ));
    // Ordinary tables again, and distributed again, with row-level security in force.
    assert_eq!(owner.undistribute().await.unwrap().len(), 3);
    let ordinary = connect(&cluster.app).with_row_security();
    ordinary.check_tables().await.unwrap();
    assert_eq!(ordinary.page(&user("user 1"), &TaskQuery::new()).await.unwrap().tasks.len(), 2);
    let steps = owner.distribute().await.unwrap();
    assert!(steps.iter().any(|step| step.contains("functions")), "{steps:?}");
    let app = connect(&cluster.app).with_row_security();
    app.check_tables().await.unwrap();
    are_closed(&cluster).await;
    assert_eq!(app.page(&user("user 1"), &TaskQuery::new()).await.unwrap().tasks.len(), 2);
}

async fn functions_that_are_not_distributed_are_named(cluster: Arc<Cluster>) {
    // Made before the tables were distributed, by a store that knows nothing of row-level security.
    let owner = connect(&cluster.owner).with_row_security();
    owner.migrate().await.unwrap();
    owner.grant_to("citus_test_app").await.unwrap();
    run(&cluster.admin, "update pg_catalog.pg_dist_object set distribution_argument_index = null where false").await;
    connect(&cluster.owner).distribute().await.unwrap();
    run(
        &cluster.admin,
        "update pg_catalog.pg_dist_object set force_delegation = null where classid = 'pg_proc'::regclass and objid in \
        (select oid from pg_proc where proname ~ '^tasks_get_')",
    )
    .await;
    let app = connect(&cluster.app).with_row_security();
    let text = complaint(app.check_tables().await);
    assert!(text.contains("tasks_get_") && text.contains("--distribute"), "{text}");
    assert!(!text.contains("tasks_list_"), "{text}");
    assert!(owner.distribute().await.unwrap().iter().any(|step| step.contains("functions")));
    app.check_tables().await.unwrap();
    are_closed(&cluster).await;
}

/// Runs the store suite, each case on new tables that are distributed.
async fn suite<S: TaskStore + 'static>(
    cluster: &Arc<Cluster>,
    row_security: bool,
    store: impl AsyncFn(PostgresStore, PgPool) -> (S, Option<PgPool>),
    url: &str,
) {
    let filter = env::var("TEST_CITUS_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    let all = cases();
    let chosen: Vec<_> = all.into_iter().filter(|(name, _)| name.contains(&filter)).collect();
    for (number, (name, case)) in chosen.iter().enumerate() {
        let names = Names::new(format!("todo_{number}"), "tasks").unwrap();
        let owner = connect(&cluster.owner).with_names(names.clone());
        let owner = if row_security { owner.with_row_security() } else { owner };
        owner.distribute().await.unwrap();
        if row_security {
            owner.grant_to("citus_test_app").await.unwrap();
        }
        owner.close().await;
        let plain = connect(url).with_names(names);
        let plain = if row_security { plain.with_row_security() } else { plain };
        plain.check_tables().await.unwrap();
        assert!(plain.is_distributed());
        let pool = PgPool::connect_lazy(url).unwrap();
        let (store, in_use) = store(plain.clone(), pool.clone()).await;
        let passed = tokio::time::timeout(Duration::from_mins(1), tokio::spawn(case(Arc::new(store)))).await;
        if !passed.is_ok_and(|ended| ended.is_ok()) {
            println!("  {name} ... FAILED");
            failed.push(*name);
        }
        plain.close().await;
        drop(in_use);
        pool.close().await;
        let drop_schema = format!("drop schema todo_{number} cascade");
        run(&cluster.admin, &drop_schema).await;
    }
    println!("  {} of {} cases passed", chosen.len() - failed.len(), chosen.len());
    assert!(failed.is_empty(), "{failed:?}");
}

async fn the_suite_passes(cluster: Arc<Cluster>) {
    suite(&cluster, false, async |store, _| (store, None), &cluster.owner).await;
}

async fn the_suite_passes_with_batching(cluster: Arc<Cluster>) {
    let narrow = CoalescingOptions::default().concurrent_reads(1).concurrent_writes(1);
    suite(&cluster, false, async |store, _| (CoalescingStore::with_options(store, &narrow), None), &cluster.owner)
        .await;
}

async fn the_suite_passes_on_a_worker(cluster: Arc<Cluster>) {
    let url = cluster.on_worker(&cluster.owner);
    suite(&cluster, false, async |store, _| (store, None), &url).await;
}

async fn the_suite_passes_in_a_transaction_of_the_host(cluster: Arc<Cluster>) {
    let begin =
        async |store: PostgresStore, pool: PgPool| (store.in_transaction(pool.begin().await.unwrap()), Some(pool));
    suite(&cluster, false, begin, &cluster.owner).await;
}

async fn the_suite_passes_with_row_level_security(cluster: Arc<Cluster>) {
    suite(&cluster, true, async |store, _| (store, None), &cluster.app).await;
}

async fn the_suite_passes_with_row_level_security_in_a_transaction_of_the_host(cluster: Arc<Cluster>) {
    let begin =
        async |store: PostgresStore, pool: PgPool| (store.in_transaction(pool.begin().await.unwrap()), Some(pool));
    suite(&cluster, true, begin, &cluster.app).await;
}
