//! Compares the cost of calls with ten thousand and with ten million tasks.
//!
//! ```text
//! cargo bench -p todo-benches --bench growth              10^4 and 10^5 tasks, half a minute
//! cargo bench -p todo-benches --bench growth -- --full    up to 10^7 tasks: ten minutes, 6 GB of temporary files
//! ```
//!
//! A private PostgreSQL server has one database for each size. Each round makes the same calls of [`PostgresStore`] on
//! all of them, so that other load on the machine affects all of them. The tasks are stored in the order of their ids,
//! so that those of one user are scattered.
//!
//! The calls are comparable at each size: every user has about 200 tasks or more, so that smaller databases have fewer
//! users (at most 10,000). One large user has a tenth of all tasks (at most 100,000), of which 150 are completed. The
//! last page of 100 is page 1000 if there are 100,000.
//!
//! "any user" is each user in turn, and "ten users" is one of ten: the difference is the cost of tasks that are not in
//! the cache of the server. To measure with a larger cache, set `TEST_DATABASE_URL` to a server that has one.

use std::{
    fmt::Write as _,
    fs, iter,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, types::Uuid};
use testkit::postgres::{Source, TestDatabase};
use todo_core::{
    Cursor, Limit, NewTask, TaskId, TaskQuery, Title, UserId,
    clock::{Clock as _, IdGenerator as _, SystemClock, UuidV7},
    store::{Creation, Insertion, PostgresOptions, PostgresStore, Read, TaskStore as _},
};
use tokio::runtime::Builder;

const SIZES: [u32; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
const ROUNDS: usize = 50;
/// The number of calls in a round, for each call and size.
const CALLS: usize = 40;
/// The maximum ratio of the cost of a page to its cost at the smallest size.
const ALLOWED: f64 = 1.2;

#[derive(Clone, Copy)]
enum Call {
    Get,
    Page { of: Users, limit: u16 },
    LastPage,
    Done,
    Create,
}

#[derive(Clone, Copy, PartialEq)]
enum Users {
    /// Each user in turn.
    All,
    /// The same ten users again and again.
    Ten,
}

const CALLED: [(&str, Call); 8] = [
    ("get, any user", Call::Get),
    ("first 20, any user", Call::Page { of: Users::All, limit: 20 }),
    ("first 100, any user", Call::Page { of: Users::All, limit: 100 }),
    ("first 20, ten users", Call::Page { of: Users::Ten, limit: 20 }),
    ("first 100, ten users", Call::Page { of: Users::Ten, limit: 100 }),
    ("last 100, large user", Call::LastPage),
    ("100 done, large user", Call::Done),
    ("create, any user", Call::Create),
];

/// One database.
struct Size {
    tasks: u32,
    users: u32,
    of_large_user: u32,
    bytes: i64,
    loading: Duration,
    database: TestDatabase,
    store: PostgresStore,
    large_user: UserId,
    /// The task before the last page of the large user.
    before_last_page: TaskId,
    /// Tasks of other users, at random.
    sample: Vec<(UserId, TaskId)>,
    /// For each of [`CALLED`].
    times: [Vec<Duration>; CALLED.len()],
}

#[expect(clippy::print_stdout, reason = "a bench prints its results")]
fn main() {
    let full = std::env::args().any(|argument| argument == "--full");
    let sizes = if full { &SIZES[..] } else { &SIZES[..2] };
    // One thread, so that only the call itself is measured.
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    if let Err(error) = runtime.block_on(Source::find()) {
        println!("growth is NOT measured: {error}");
        return;
    }
    let report = runtime.block_on(async {
        let mut loaded = Vec::new();
        for &tasks in sizes {
            let size = Size::load(tasks).await;
            println!("{tasks} tasks of {} users: loaded in {:.0?}", size.users, size.loading);
            loaded.push(size);
        }
        let report = measure(&mut loaded).await;
        for size in loaded {
            size.store.close().await;
            size.database.close().await;
        }
        report
    });
    println!("\n{}", table(&report));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder").join("growth");
    let file = folder.join("report.json");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, format!("{report:#}\n")))
        .expect("the report is written");
    println!("The whole report: {}", file.display());
}

/// Runs all rounds and returns the report.
async fn measure(sizes: &mut [Size]) -> Value {
    let load_before = load_average();
    let began = Instant::now();
    // The first round is not counted: it fills the caches, and the server chooses its plans.
    for round in 0..=ROUNDS {
        // In alternating order, so that no size always follows the largest.
        sizes.reverse();
        for size in &mut *sizes {
            size.round(round).await;
        }
        if round == 0 {
            sizes.iter_mut().flat_map(|size| &mut size.times).for_each(Vec::clear);
        }
    }
    sizes.sort_by_key(|size| size.tasks);
    json!({
        "postgres": testkit::postgres::server().await.version(),
        "shared_buffers": shared_buffers().await,
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "load_average_before": load_before,
        "load_average_after": load_average(),
        "seconds": began.elapsed().as_secs(),
        "allowed": ALLOWED,
        "sizes": sizes.iter().map(|size| size.report(&sizes[0])).collect::<Vec<_>>(),
    })
}

impl Size {
    async fn load(tasks: u32) -> Self {
        let began = Instant::now();
        let of_large_user = (tasks / 10).min(100_000);
        let users = ((tasks - of_large_user) / 200).min(10_000);
        let database = testkit::stores::todo_database().await;
        let mut connection = PgConnection::connect(database.url()).await.expect("a connection");
        fill(&mut connection, tasks, users, of_large_user).await;
        let loading = began.elapsed();

        let large_user: String = sqlx::query_scalar(AssertSqlSafe(format!("select {}", user_id("0"))))
            .fetch_one(&mut connection)
            .await
            .expect("a user");
        let before_last_page = r#"select id from "todo"."tasks" where user_id = $1 order by id desc offset $2 limit 1"#;
        let before_last_page: Uuid = sqlx::query_scalar(before_last_page)
            .bind(&large_user)
            .bind(i64::from(of_large_user - 101))
            .fetch_one(&mut connection)
            .await
            .expect("enough tasks");
        let sample = r#"select user_id, id from "todo"."tasks" tablesample bernoulli ($1) where user_id <> $2
                        order by random() limit 2000"#;
        let sample: Vec<(String, Uuid)> = sqlx::query_as(sample)
            .bind((1_000_000.0 / f64::from(tasks)).min(100.0))
            .bind(&large_user)
            .fetch_all(&mut connection)
            .await
            .expect("a sample");
        let bytes = "select pg_database_size(current_database())";
        let bytes = sqlx::query_scalar(bytes).fetch_one(&mut connection).await.expect("a size");
        // The calls are made one after the other.
        let options = PostgresOptions::default().max_connections(1);
        Self {
            tasks,
            users,
            of_large_user,
            bytes,
            loading,
            store: PostgresStore::connect_lazy(database.url(), &options).expect("a URL"),
            database,
            large_user: user(&large_user),
            before_last_page: before_last_page.into(),
            sample: sample.into_iter().map(|(owner, id)| (user(&owner), id.into())).collect(),
            times: Default::default(),
        }
    }

    async fn round(&mut self, round: usize) {
        for (number, (_, call)) in CALLED.into_iter().enumerate() {
            for repetition in 0..CALLS {
                let regular = matches!(call, Call::Page { of: Users::Ten, .. });
                let among = if regular { &self.sample[..10] } else { &self.sample[..] };
                // So that no call reads what the previous one has read.
                let (owner, id) = &among[(round * CALLS + repetition + number * 300) % among.len()];
                let spent = self.call(call, owner, *id).await;
                self.times[number].push(spent);
            }
        }
    }

    /// Measures one call, for this task of this user if the call has one.
    async fn call(&self, call: Call, owner: &UserId, id: TaskId) -> Duration {
        match call {
            Call::Get => {
                let start = Instant::now();
                let task = self.store.get(owner, id).await;
                let spent = start.elapsed();
                assert!(task.is_ok_and(|task| task.is_some()));
                spent
            }
            Call::Page { limit, .. } => self.page(owner, limit, TaskQuery::default()).await,
            Call::LastPage => {
                let cursor = Some(Cursor::after(self.before_last_page));
                self.page(&self.large_user, 100, TaskQuery::new().cursor(cursor)).await
            }
            Call::Done => self.page(&self.large_user, 100, TaskQuery::new().completed(true)).await,
            Call::Create => {
                let now = SystemClock.now();
                let title = Title::new("Buy the tickets for the train to the sea").expect("a title");
                let task = NewTask::new(title).into_task(owner.clone(), UuidV7::shared().next(now), now);
                let start = Instant::now();
                let inserted = self.store.insert(owner, std::slice::from_ref(&task), &Creation::default()).await;
                let spent = start.elapsed();
                assert!(matches!(inserted, Ok(Insertion::Done)));
                spent
            }
        }
    }

    async fn page(&self, owner: &UserId, limit: u16, query: TaskQuery) -> Duration {
        let query = query.limit(Limit::new(limit).expect("a limit"));
        let start = Instant::now();
        let page = self.store.list(owner, &query, None).await;
        let spent = start.elapsed();
        let is_full = |page: &todo_core::Page| page.tasks.len() == usize::from(limit);
        assert!(matches!(page, Ok(Read::Changed { value, .. }) if is_full(&value)), "full pages");
        spent
    }

    fn report(&self, smallest: &Self) -> Value {
        let calls = CALLED.iter().zip(&self.times).zip(&smallest.times).map(|(((name, call), times), smallest)| {
            let [median, p95, of_smallest] = [(times, 50), (times, 95), (smallest, 50)].map(|(t, p)| percentile(t, p));
            json!({
                "call": name,
                "page": matches!(call, Call::Page { .. } | Call::LastPage | Call::Done),
                "samples": times.len(),
                "median_us": median,
                "p95_us": p95,
                "ratio_of_medians": (median / of_smallest * 100.0).round() / 100.0,
            })
        });
        json!({
            "tasks": self.tasks,
            "users": self.users,
            "of_large_user": self.of_large_user,
            "megabytes": self.bytes / 1_000_000,
            "loading_seconds": self.loading.as_secs(),
            "calls": calls.collect::<Vec<_>>(),
        })
    }
}

/// The size of the cache of the server.
async fn shared_buffers() -> String {
    let url = testkit::postgres::server().await.url();
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    sqlx::query_scalar("show shared_buffers").fetch_one(&mut connection).await.expect("a setting")
}

/// Microseconds with one decimal.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = times[(times.len() * percent / 100).min(times.len() - 1)];
    (at.as_secs_f64() * 10_000_000.0).round() / 10.0
}

/// The load average of the machine, if the system has it.
fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn user(id: &str) -> UserId {
    UserId::new(id).expect("an id")
}

/// SQL for the id of the user of this number: 32 letters.
fn user_id(number: &str) -> String {
    format!("translate(md5(({number})::text), '0123456789abcdef', 'QwErTyUiOpAsDfGh')")
}

/// Fills an empty table with the tasks. The indexes are dropped before and created again afterwards.
async fn fill(connection: &mut PgConnection, tasks: u32, users: u32, of_large_user: u32) {
    let indexes: Vec<String> = sqlx::query_scalar(
        "select indexdef from pg_indexes where schemaname = 'todo' and tablename = 'tasks' and indexname <> 'tasks_pkey'",
    )
    .fetch_all(&mut *connection)
    .await
    .expect("indexes");
    let key: String =
        sqlx::query_scalar("select pg_get_constraintdef(oid) from pg_constraint where conname = 'tasks_pkey'")
            .fetch_one(&mut *connection)
            .await
            .expect("a key");
    let names: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, indexname) from pg_indexes
         where schemaname = 'todo' and tablename = 'tasks' and indexname <> 'tasks_pkey'",
    )
    .fetch_all(&mut *connection)
    .await
    .expect("names");

    let (every, year) = (tasks / of_large_user, 365 * 24 * 60 * 60 * 1000_u64);
    let owner = user_id(&format!("case when n % {every} = 0 then 0 else 1 + (hashint4(n) & 2147483647) % {users} end"));
    let insert = format!(
        r#"insert into "todo"."tasks" (user_id, id, title, description, completed, created_at, updated_at)
        select {owner},
            (lpad(to_hex(1735689600000 + n * {step}::bigint), 12, '0') || '7' || substr(random, 1, 3) || '8' || substr(random, 4, 15))::uuid,
            (array['Buy', 'Call', 'Write to', 'Pay', 'Repair', 'Clean', 'Book', 'Read'])[1 + n % 8]
                || (array[' the', ' my', ' our', ' that'])[1 + n / 8 % 4]
                || (array[' neighbours', ' bicycle', ' kitchen window', ' invoice of last month', ' dentist', ' tickets for the train to the sea'])[1 + n / 32 % 6],
            case when n % 3 = 0 then 'Before the end of the week, and not without asking Ann what she thinks of it: ' || random end,
            case when n % {every} = 0 then n / {every} % {one_done} = 0 else n % 3 = 1 end,
            moment, moment
        from generate_series(1, {tasks}) n
            cross join lateral (select md5('random' || n) as random, to_timestamp(1735689600 + n * {step}::bigint / 1000) as moment) each"#,
        step = year / u64::from(tasks),
        one_done = of_large_user / 150,
    );
    let statements = iter::once("set synchronous_commit = off; set maintenance_work_mem = '512MB'".to_owned())
        .chain(names.iter().map(|name| format!("drop index {name}")))
        .chain([r#"alter table "todo"."tasks" drop constraint "tasks_pkey""#.to_owned(), insert])
        .chain([format!(r#"alter table "todo"."tasks" add constraint "tasks_pkey" {key}"#)])
        .chain(indexes)
        .chain(["vacuum analyze".to_owned(), "checkpoint".to_owned()]);
    for statement in statements {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *connection).await;
        done.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

/// The report as a table.
fn table(report: &Value) -> String {
    let sizes = report["sizes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = format!(
        "PostgreSQL {} with a cache of {}, load average {} before and {} after\n\n{:<22}",
        report["postgres"].as_str().unwrap_or_default(),
        report["shared_buffers"].as_str().unwrap_or_default(),
        report["load_average_before"],
        report["load_average_after"],
        "median/p95 in us",
    );
    for size in sizes {
        let _ = write!(text, "{:>24}", format!("{} tasks", size["tasks"]));
    }
    let mut too_much = Vec::new();
    for (number, (name, _)) in CALLED.iter().enumerate() {
        let _ = write!(text, "\n{name:<22}");
        for size in sizes {
            let call = &size["calls"][number];
            let times = format!(
                "{}/{} x{:.2}",
                call["median_us"],
                call["p95_us"],
                call["ratio_of_medians"].as_f64().unwrap_or_default()
            );
            let _ = write!(text, "{times:>24}");
            if call["page"] == true && call["ratio_of_medians"].as_f64().is_some_and(|ratio| ratio > ALLOWED) {
                too_much.push(format!("{name} at {}", size["tasks"]));
            }
        }
    }
    let verdict =
        if too_much.is_empty() { "everywhere".to_owned() } else { format!("NOT for {}", too_much.join(", ")) };
    let _ = writeln!(text, "\n\nA page costs at most {ALLOWED} times what it costs at the smallest size: {verdict}.");
    text
}
