//! The cost of the operations of [`TodoService`] on each store, one call after the other.
//!
//! Writes on SQLite and PostgreSQL wait for the disk. PostgreSQL is a private server (see `testkit::postgres`), over
//! TCP on this machine.

mod settings;
mod tasks;

use std::{
    fmt,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use sqlx::{PgPool, SqlitePool};
use testkit::postgres::Source;
use todo_core::{
    Limit, Patch, TaskId, TaskPatch, TaskQuery, Title, TodoService, UserTasks,
    store::{MemoryStore, SqliteStore},
};
use tokio::runtime::Runtime;

use tasks::{USER, fill, new_task, runtime, user};

const OF_MANY: &str = "Bx8Kq2LmNp4RsTuVwXyZaBcDeFgHiJkL";
const MANY: usize = 10_000;
const CREATOR: &str = "Cx8Kq2LmNp4RsTuVwXyZaBcDeFgHiJkL";

/// The number of tasks that are created before they are removed again.
const CREATED: u64 = 1000;

fn memory(criterion: &mut Criterion) {
    let runtime = runtime();
    let service = TodoService::new(MemoryStore::new());
    runtime.block_on(fill(&service, OF_MANY, MANY));
    operations(criterion.benchmark_group("service/memory"), &runtime, &service);
}

fn sqlite(criterion: &mut Criterion) {
    let runtime = runtime();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open_lazy(&path);
    let service = TodoService::new(store.clone());
    runtime.block_on(async {
        store.migrate().await.expect("a table");
        // In one transaction, since it would take a minute otherwise.
        let pool = SqlitePool::connect(&format!("sqlite://{}", path.display())).await.expect("a connection");
        let transaction = pool.begin_with("begin immediate").await.expect("a transaction");
        let within = store.in_transaction(transaction).await.expect("a writable transaction");
        fill(&service.with_store(within.clone()), OF_MANY, MANY).await;
        within.take().await.expect("the transaction").commit().await.expect("a commit");
        pool.close().await;
    });
    operations(criterion.benchmark_group("service/SQLite"), &runtime, &service);
    runtime.block_on(store.close());
}

fn postgres(criterion: &mut Criterion) {
    let runtime = runtime();
    if let Err(error) = runtime.block_on(Source::find()) {
        say(format_args!("service/PostgreSQL is NOT measured: {error}"));
        return;
    }
    let database = runtime.block_on(testkit::stores::todo_database());
    let store = testkit::stores::connect(database.url());
    let service = TodoService::new(store.clone());
    runtime.block_on(async {
        let pool = PgPool::connect(database.url()).await.expect("a connection");
        let within = store.in_transaction(pool.begin().await.expect("a transaction"));
        fill(&service.with_store(within.clone()), OF_MANY, MANY).await;
        within.take().await.expect("the transaction").commit().await.expect("a commit");
        sqlx::query("vacuum analyze").execute(&pool).await.expect("statistics");
        pool.close().await;
    });
    operations(criterion.benchmark_group("service/PostgreSQL"), &runtime, &service);
    runtime.block_on(async {
        store.close().await;
        database.close().await;
    });
}

/// What the limit on the calls of a user costs a call that does not wait, on the fastest store.
fn user_limits(criterion: &mut Criterion) {
    let runtime = runtime();
    let limited = TodoService::new(MemoryStore::new());
    let id = runtime.block_on(fill(&limited, USER, 20))[7];
    let unlimited = limited.clone().with_user_limits(None);
    let mut group = criterion.benchmark_group("service/user limits");
    for (name, service) in [("off", &unlimited), ("on", &limited)] {
        let tasks = service.for_user(user(USER));
        group.bench_function(format!("{name}: get"), |bencher| {
            bencher.to_async(&runtime).iter(async || tasks.get(id).await.expect("the task exists"));
        });
        group.bench_function(format!("{name}: toggle"), |bencher| {
            bencher.to_async(&runtime).iter(async || tasks.toggle(id).await.expect("the task exists"));
        });
    }
    group.finish();
}

#[expect(clippy::print_stderr, reason = "the user must see what is not measured")]
fn say(what: fmt::Arguments<'_>) {
    eprintln!("{what}");
}

fn operations(mut group: BenchmarkGroup<'_, WallTime>, runtime: &Runtime, service: &TodoService) {
    let ids = runtime.block_on(fill(service, USER, 20));
    let (few, many) = (service.for_user(user(USER)), service.for_user(user(OF_MANY)));
    let query = |limit| TaskQuery::new().limit(Limit::new(limit).expect("a limit"));
    let id = ids[7];

    group.bench_function("list 20 of 20", |bencher| {
        bencher.to_async(runtime).iter(async || list(&few, query(20)).await);
    });
    group.bench_function("list 100 of 10,000", |bencher| {
        bencher.to_async(runtime).iter(async || list(&many, query(100)).await);
    });
    group.bench_function("get", |bencher| {
        bencher.to_async(runtime).iter(async || few.get(id).await.expect("the task exists"));
    });
    group.bench_function("create", |bencher| bencher.to_async(runtime).iter_custom(|calls| create(service, calls)));
    group.bench_function("patch", |bencher| bencher.to_async(runtime).iter_custom(|calls| patch(&few, id, calls)));
    group.bench_function("toggle", |bencher| {
        bencher.to_async(runtime).iter(async || few.toggle(id).await.expect("the task exists"));
    });
    group.finish();
}

async fn list(tasks: &UserTasks<'_>, query: TaskQuery) {
    let page = tasks.list(&query).await.expect("a page");
    assert_eq!(page.tasks.len(), usize::from(query.limit.get()));
}

/// Creates tasks of a user with at most [`CREATED`] tasks.
async fn create(service: &TodoService, calls: u64) -> Duration {
    let creator = service.for_user(user(CREATOR));
    let (mut spent, mut left) = (Duration::ZERO, calls);
    while left > 0 {
        let new: Vec<_> = (0..left.min(CREATED)).map(|_| new_task(1)).collect();
        left -= new.len() as u64;
        let start = Instant::now();
        for task in new {
            creator.create(task).await.expect("a stored task");
        }
        spent += start.elapsed();
        creator.erase().await.expect("an empty list");
    }
    spent
}

/// Each call changes the task, since the titles alternate.
async fn patch(tasks: &UserTasks<'_>, id: TaskId, calls: u64) -> Duration {
    let patches = ["Buy milk", "Buy bread"].map(|title| TaskPatch {
        title: Some(Title::new(title).expect("a title")),
        description: Patch::Keep,
        ..TaskPatch::default()
    });
    let start = Instant::now();
    for patch in patches.iter().cycle().zip(0..calls).map(|(patch, _)| patch) {
        tasks.patch(id, patch.clone()).await.expect("the task exists");
    }
    start.elapsed()
}

criterion_group!(name = benches; config = settings::short(); targets = memory, user_limits, sqlite, postgres);
criterion_main!(benches);
