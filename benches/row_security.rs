//! The cost of row-level security: the same calls with it and without it, and with statements of their own that set the
//! owner.
//!
//! ```text
//! cargo bench -p todo-benches --bench row_security
//! ```
//!
//! All calls use a role that owns nothing, one after the other, on a private PostgreSQL over TCP on this machine. The
//! variants alternate with each call, so that other load on the machine affects all of them.

use std::{
    fmt::Write as _,
    slice,
    time::{Duration, Instant},
};

use sqlx::{Connection as _, Executor as _, PgConnection};
use testkit::{postgres::Source, stores::RowSecurityDatabase};
use todo_core::{
    Limit, NewTask, Task, TaskId, TaskQuery, Title, UserId,
    clock::{Clock as _, IdGenerator as _, SystemClock, UuidV7},
    store::{
        Completion, Creation, Insertion, PostgresOptions, PostgresStore, Precondition, Read, TaskChange, TaskStore,
    },
};
use tokio::runtime::Builder;

const ROUNDS: usize = 1000;
/// Rounds that are not counted: they fill the caches, and the server chooses its plans.
const WARM_UP: usize = 100;
const USERS: usize = 500;
const CALLS: [&str; 4] = ["get", "list of 20", "create", "toggle"];

/// A variant to access the tasks.
enum Variant {
    Store(PostgresStore),
    /// The statements of a store without row-level security, each in a transaction that sets the owner first, as in
    /// handwritten code.
    Transactions(PgConnection),
}

#[expect(clippy::print_stdout, reason = "a bench prints its results")]
fn main() {
    // One thread, so that only the call itself is measured.
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    if let Err(error) = runtime.block_on(Source::find()) {
        println!("row_security is NOT measured: {error}");
        return;
    }
    println!("{}", runtime.block_on(measure()));
}

async fn measure() -> String {
    let (plain, secured) = (RowSecurityDatabase::empty().await, RowSecurityDatabase::migrated().await);
    let owner = connect(&plain.owner);
    owner.migrate().await.expect("the owner creates the schema");
    owner.grant_to(&plain.role("app")).await.expect("the owner grants access");
    let users: Vec<UserId> = (0..USERS).map(|number| UserId::new(format!("{number:0>32}")).expect("an id")).collect();
    for database in [&plain, &secured] {
        fill(&mut PgConnection::connect(database.database.url()).await.expect("a connection")).await;
    }
    let mut variants = [
        ("predicates only", Variant::Store(connect(&plain.app))),
        ("functions only", Variant::Store(connect(secured.database.url()).with_row_security())),
        ("functions and policies", Variant::Store(connect(&secured.app).with_row_security())),
        ("owner set by hand", Variant::Transactions(PgConnection::connect(&secured.app).await.expect("a connection"))),
    ];
    let load = load_average();
    let mut times: Vec<Vec<Vec<Duration>>> = vec![vec![Vec::new(); variants.len()]; CALLS.len()];
    for round in 0..WARM_UP + ROUNDS {
        let owner = &users[round * 7 % USERS];
        for (call, times) in times.iter_mut().enumerate() {
            // Writes wait for the disk, so there are fewer of them.
            let repetitions = if ["create", "toggle"].contains(&CALLS[call]) { 1 } else { 5 };
            // The order rotates, so that no variant always follows the slowest.
            for turn in 0..variants.len() * repetitions {
                let variant = (round + turn) % variants.len();
                let spent = variants[variant].1.call(call, owner).await;
                if round >= WARM_UP {
                    times[variant].push(spent);
                }
            }
        }
    }
    times.iter_mut().flatten().for_each(|times| times.sort_unstable());
    let mut text = format!(
        "PostgreSQL {}, load {load} before and {} after, {ROUNDS} writes and five times as many reads each\n10th percentile/median in us, ratio of each to the first\n{:<22}",
        testkit::postgres::server().await.version(),
        load_average(),
        "",
    );
    text.extend(CALLS.map(|name| format!("{name:>26}")));
    for (variant, (name, _)) in variants.iter().enumerate() {
        // Writing to a `String` does not fail.
        let _ = write!(text, "\n{name:<22}");
        for times in &times {
            let at = |variant: usize, share: usize| {
                times[variant][(times[variant].len() - 1) * share / 100].as_secs_f64() * 1e6
            };
            let (low, median) = (at(variant, 10), at(variant, 50));
            let cell = format!("{low:.0}/{median:.0} x{:.2}/{:.2}", low / at(0, 10), median / at(0, 50));
            let _ = write!(text, "{cell:>26}");
        }
    }
    for (_, variant) in variants {
        if let Variant::Store(store) = variant {
            store.close().await;
        }
    }
    plain.database.close().await;
    secured.database.close().await;
    text
}

fn connect(url: &str) -> PostgresStore {
    // The calls are made one after the other.
    let options = PostgresOptions::default().max_connections(1);
    PostgresStore::connect_lazy(url, &options).expect("a URL")
}

/// Creates twenty tasks for each user. The id of the first one is computed from the user's number.
async fn fill(connection: &mut PgConnection) {
    let fill = "insert into todo.tasks (user_id, id, title, created_at, updated_at) \
        select lpad(owner::text, 32, '0'), ('019aa3f0-5c00-7000-' || \
            case task when 0 then '8000-' || lpad(to_hex(owner), 12, '0') else '8001-' || lpad(to_hex(owner * 100 + task), 12, '0') end)::uuid, \
            'Buy the tickets for the train to the sea', now(), now() \
        from generate_series(0, 19) as task, generate_series(0, $1 - 1) as owner";
    sqlx::query(fill).bind(i32::try_from(USERS).expect("few")).execute(&mut *connection).await.expect("stored tasks");
    connection.execute("vacuum analyze").await.expect("statistics");
}

fn known(owner: &UserId) -> TaskId {
    let number: u128 = owner.as_str().parse().expect("a number");
    TaskId::from(uuid::Uuid::from_u128(0x019a_a3f0_5c00_7000_8000_0000_0000_0000 + number))
}

fn next() -> TaskId {
    UuidV7::shared().next(SystemClock.now())
}

fn new_task(owner: &UserId, id: TaskId) -> Task {
    let now = SystemClock.now();
    let title = Title::new("Buy the tickets for the train to the sea").expect("a title");
    NewTask::new(title).into_task(owner.clone(), id, now)
}

impl Variant {
    /// Measures one call.
    async fn call(&mut self, call: usize, owner: &UserId) -> Duration {
        let new = new_task(owner, next());
        let query = TaskQuery::new().limit(Limit::new(20).expect("a limit"));
        let toggle = TaskChange::completion(Completion::Toggle);
        let start;
        match self {
            Self::Store(store) => {
                start = Instant::now();
                match CALLS[call] {
                    "get" => assert!(store.get(owner, known(owner)).await.expect("a result").is_some()),
                    "list of 20" => {
                        let read = store.list(owner, &query, None).await.expect("a result");
                        assert!(matches!(read, Read::Changed { value, .. } if value.tasks.len() == 20));
                    }
                    "create" => {
                        let inserted = store.insert(owner, slice::from_ref(&new), &Creation::default()).await;
                        assert_eq!(inserted.expect("a result"), Insertion::Done);
                    }
                    _ => {
                        let always = Precondition::default();
                        let updated = store.update(owner, known(owner), &toggle, &always, new.created_at).await;
                        assert!(updated.expect("a result").done().is_some());
                    }
                }
            }
            Self::Transactions(connection) => {
                start = Instant::now();
                let done = within(connection, CALLS[call], owner, &new).await.expect("a result");
                assert!(if CALLS[call] == "list of 20" { done >= 20 } else { done == 1 }, "{done} rows");
            }
        }
        start.elapsed()
    }
}

/// Runs a statement after setting the owner in the same transaction: four round trips. Returns the number of rows.
async fn within(connection: &mut PgConnection, call: &str, owner: &UserId, new: &Task) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let bind = "select set_config('todo.user_id', $1, true)";
    sqlx::query(bind).bind(owner.as_str()).execute(&mut *transaction).await?;
    let statement = match call {
        "get" => {
            "select id, title, description, completed, created_at, updated_at, version from todo.tasks \
             where user_id = $1 and id = $2"
        }
        "list of 20" => {
            "select id, title, description, completed, created_at, updated_at, version from todo.tasks \
             where user_id = $1 and id <= $2 order by id desc limit 21"
        }
        "create" => {
            "insert into todo.tasks (user_id, id, title, description, completed, created_at, updated_at, version) \
             values ($1, $2, 'Buy the tickets for the train to the sea', null, false, now(), now(), 1) \
             on conflict do nothing"
        }
        _ => {
            "update todo.tasks set completed = not completed, updated_at = greatest(updated_at, now()), \
             version = version + 1 where user_id = $1 and id = $2 \
             returning id, title, description, completed, created_at, updated_at, version"
        }
    };
    let id = match call {
        "create" => new.id.as_uuid(),
        "list of 20" => uuid::Uuid::max(),
        _ => known(owner).as_uuid(),
    };
    let done = sqlx::query(statement).bind(owner.as_str()).bind(id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(done.rows_affected())
}

fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}
