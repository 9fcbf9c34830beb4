//! Measures each sort and each filter for users with few and with many tasks, among a million tasks of others.
//!
//! ```text
//! cargo bench -p todo-benches --bench queries               among 10^5 tasks
//! cargo bench -p todo-benches --bench queries -- --full     among 10^6 tasks: three minutes, 1 GB of temporary files
//! ```
//!
//! A private PostgreSQL server has the tasks in the order of their ids, so that those of one user are scattered. For each
//! query the table shows what PostgreSQL's statistics say about it: the indexes that were searched, the database pages
//! that were read for one call, and the median time of the call.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, PgPool, Row as _, postgres::PgPoolOptions};
use testkit::postgres::Source;
use todo_core::{
    Due, DueFilter, Limit, ListName, Priority, Sort, Tag, TaskFilter, TaskQuery, UserId,
    store::{PostgresStore, TaskStore as _},
};
use tokio::runtime::Builder;

/// The users, each with the number of their tasks.
const USERS: [(&str, u32); 3] = [("few", 20), ("some", 1_000), ("many", 10_000)];
const CALLS: usize = 60;
/// After the fifth execution of a statement PostgreSQL may plan it once for all.
const WARM_UP: usize = 8;

enum Call {
    List(TaskQuery),
    Count(TaskFilter),
    Summary,
}

/// What one kind of call costs one user.
struct Cost {
    indexes: Vec<String>,
    pages: f64,
    median: Duration,
    p95: Duration,
}

#[expect(clippy::print_stdout, reason = "a bench prints its results")]
fn main() {
    let tasks = if std::env::args().any(|argument| argument == "--full") { 1_000_000 } else { 100_000 };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    if let Err(error) = runtime.block_on(Source::find()) {
        println!("queries are NOT measured: {error}");
        return;
    }
    let text = runtime.block_on(async {
        let database = testkit::stores::todo_database().await;
        // One connection, so that the statistics of its session can be asked for.
        let pool = PgPoolOptions::new().max_connections(1).connect(database.url()).await.expect("a connection");
        fill(&pool, tasks).await;
        let store = PostgresStore::new(pool.clone());
        let mut text = format!("median (p95) in ms, pages; {tasks} tasks, pages of 100\n{:<34}", "");
        for (_, number) in USERS {
            let _ = write!(text, "{:>30}", format!("{number} tasks"));
        }
        text.push('\n');
        for (name, call) in calls() {
            let _ = write!(text, "{name:<34}");
            let mut indexes = Vec::new();
            for (user, _) in USERS {
                let cost = cost(&pool, &store, &UserId::new(user).expect("a user"), &call).await;
                let [median, p95] = [cost.median, cost.p95].map(|time| time.as_secs_f64() * 1000.0);
                let _ = write!(text, "{:>30}", format!("{median:.2} ({p95:.2}), {:.0}", cost.pages));
                indexes = cost.indexes;
            }
            let _ = writeln!(text, "  {}", indexes.join(", "));
        }
        store.close().await;
        pool.close().await;
        database.close().await;
        text
    });
    println!("{text}");
}

fn calls() -> Vec<(&'static str, Call)> {
    let list = |filter: TaskFilter| Call::List(TaskQuery::new().filter(filter));
    let sorted = |sort: Sort| Call::List(TaskQuery::new().sort(sort));
    let filter = TaskFilter::new;
    let name = ListName::new("List 3").expect("a list");
    let tag = |tag: &str| Tag::new(tag).expect("a tag");
    let due = |from: Option<&str>, before: Option<&str>| {
        let read = |text: Option<&str>| text.map(|text| text.parse::<Due>().expect("a time"));
        filter().due(DueFilter::Between { from: read(from), before: read(before) })
    };
    let last_of =
        |sort: Sort, limit: u16| Call::List(TaskQuery::new().sort(sort).limit(Limit::new(limit).expect("a limit")));
    vec![
        ("-created (default)", sorted(Sort::NewestFirst)),
        ("created", sorted(Sort::OldestFirst)),
        ("due", sorted(Sort::Due)),
        ("-due", sorted(Sort::DueDescending)),
        ("position", sorted(Sort::Position)),
        ("priority", sorted(Sort::Priority)),
        ("title", sorted(Sort::Title)),
        ("updated", sorted(Sort::Updated)),
        ("-updated", sorted(Sort::UpdatedDescending)),
        ("position, 20", last_of(Sort::Position, 20)),
        ("completed=false", list(filter().completed(false))),
        ("completed=true", list(filter().completed(true))),
        ("list", list(filter().list(name.clone()))),
        ("list, by position", Call::List(TaskQuery::new().filter(filter().list(name)).sort(Sort::Position))),
        ("tag", list(filter().tag(tag("tag 3")))),
        ("two tags", list(filter().tag(tag("tag 3")).tag(tag("tag 4")))),
        ("priority=urgent", list(filter().priority(Priority::Urgent))),
        (
            "overdue, by due",
            Call::List(TaskQuery::new().filter(due(None, Some("2025-06-01")).completed(false)).sort(Sort::Due)),
        ),
        ("due in a week", list(due(Some("2025-06-01"), Some("2025-06-08")))),
        ("due=none", list(filter().due(DueFilter::Never))),
        ("updated_since, last day", list(filter().updated_since("2025-12-31T00:00:00Z".parse().expect("a time")))),
        ("q, found often", list(filter().text("kitchen"))),
        ("q, found never", list(filter().text("nowhere"))),
        ("count", Call::Count(filter())),
        ("count, overdue", Call::Count(due(None, Some("2025-06-01")).completed(false))),
        ("count, q", Call::Count(filter().text("kitchen"))),
        ("summary", Call::Summary),
    ]
}

async fn run(store: &PostgresStore, owner: &UserId, call: &Call) {
    match call {
        Call::List(query) => drop(store.list(owner, query, None).await.expect("a page")),
        Call::Count(filter) => drop(store.count(owner, filter, None).await.expect("a number")),
        Call::Summary => drop(store.summary(owner, None).await.expect("a summary")),
    }
}

async fn cost(pool: &PgPool, store: &PostgresStore, owner: &UserId, call: &Call) -> Cost {
    for _ in 0..WARM_UP {
        run(store, owner, call).await;
    }
    let before = statistics(pool).await;
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let start = Instant::now();
        run(store, owner, call).await;
        times.push(start.elapsed());
    }
    let after = statistics(pool).await;
    let grown = |name: &str| after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
    let scans = after.keys().filter(|name| *name != "pages" && grown(name) > 0);
    times.sort_unstable();
    Cost {
        indexes: scans.cloned().collect(),
        #[expect(clippy::cast_precision_loss, reason = "far less than 2^52 pages")]
        pages: grown("pages") as f64 / CALLS as f64,
        median: times[times.len() / 2],
        p95: times[times.len() * 95 / 100],
    }
}

/// The searches of each index and of the table, and the pages that were read.
async fn statistics(pool: &PgPool) -> BTreeMap<String, i64> {
    // What this session has counted is otherwise shown a second later.
    sqlx::query("select pg_stat_force_next_flush()").execute(pool).await.expect("a flush");
    sqlx::query("select pg_stat_clear_snapshot()").execute(pool).await.expect("a snapshot");
    let counts = "select replace(indexrelname, 'tasks_user_id_', ''), idx_scan from pg_stat_user_indexes where relname = 'tasks' \
        union all select 'whole table', seq_scan from pg_stat_user_tables where relname = 'tasks' \
        union all select 'pages', (heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read \
            + coalesce(toast_blks_hit + toast_blks_read, 0))::bigint \
            from pg_statio_user_tables where relname = 'tasks'";
    let rows = sqlx::query(counts).fetch_all(pool).await.expect("statistics");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Fills an empty table with tasks of a year: those of the users above, and 100 for each of the others.
async fn fill(pool: &PgPool, tasks: u32) {
    let own: u32 = USERS.iter().map(|(_, number)| number).sum();
    let mut owner = format!("'user ' || n % {}", (tasks - own) / 100);
    for (user, number) in USERS {
        let every = tasks / number;
        // Prime offsets, so that the users do not take each other's tasks.
        let offset = number % 97 % every;
        owner = format!("case when n % {every} = {offset} then '{user}' else {owner} end");
    }
    let step = 365 * 24 * 60 * 60 * 1000 / u64::from(tasks);
    let moment = format!("to_timestamp(1735689600 + n * {step}::bigint / 1000)");
    let insert = format!(
        r#"insert into "todo"."tasks" (user_id, id, title, title_lower, description, description_lower, completed, completed_at,
            due, due_at, priority, list, tags, position, created_at, updated_at)
        select {owner}, (lpad(to_hex(1735689600000 + n * {step}::bigint), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
            title, lower(title), description, lower(description), n % 3 = 1, case when n % 3 = 1 then {moment} end,
            case when n % 2 = 0 then to_char({moment} + interval '5 days', 'YYYY-MM-DD') end,
            case when n % 2 = 0 then date_trunc('day', {moment} + interval '5 days', 'UTC') end,
            case when n % 5 < 4 then 1 + n % 4 end,
            case when n % 3 > 0 then 'List ' || n % 7 end,
            case when n % 4 = 0 then array['tag ' || n % 5, 'tag ' || 5 + n % 6] end,
            'i' || lpad(to_hex(n), 9, '0'), {moment}, {moment}
        from generate_series(1, {tasks}) n
            cross join lateral (select (array['Buy', 'Call', 'Write to', 'Pay', 'Repair', 'Clean', 'Book', 'Read'])[1 + n % 8]
                || (array[' the', ' my', ' our', ' that'])[1 + n / 8 % 4]
                || (array[' neighbours', ' bicycle', ' kitchen window', ' invoice of last month', ' dentist',
                    ' tickets for the train to the sea'])[1 + n / 32 % 6] as title,
                case when n % 3 = 0 then 'Before the end of the week, and not without asking Ann what she thinks of it' end as description
            ) each"#
    );
    for statement in ["set synchronous_commit = off".to_owned(), insert, r#"vacuum analyze "todo"."tasks""#.to_owned()]
    {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(pool).await;
        done.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}
