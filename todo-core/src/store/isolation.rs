//! Isolation: the store suite fails for each statement that loses its owner.
//!
//! One statement after the other loses a predicate on `user_id` (the predicate becomes true, but keeps its parameter,
//! so that the statement still runs), and an insert writes the task of another owner. The suite then runs on a store
//! that is right but for this one predicate, and a case has to fail. Predicates that only lock are noticed since the
//! calls of an owner must not wait while another owner is locked. The functions for row-level security are weakened in
//! `tests/postgres_row_security.rs`, since they live in the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, SqlSafeStr as _};

use super::{
    BatchStore, BulkResult, Changes, Creation, Insertion, Names, Outcome, PostgresOptions, PostgresStore, Precondition,
    Read, Revision, SqliteStore, StoreError, SyncPoint, TaskChange, TaskStore, Transfer,
    sql::{
        names::Dialect,
        statements::{Scope, Statements},
    },
};
use crate::{
    Limit, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId,
    clock::Timestamp,
    conformance::store::{Case, PlainCalls as _, cases},
};

/// The statements that name no owner, since they return no row of a task. Those of operators are among them, which no
/// [`TaskStore`] runs. `insert_rows` is followed by rows, which name theirs.
const WITHOUT_OWNER: [&str; 7] = ["expire", "has_tasks", "insert_rows", "lock", "owners", "ping", "ping_of_shards"];

/// Owners and what takes their place, so that the parameter stays.
const OWNERS: [(&str, &str); 8] = [
    ("values ($1, ", "values (coalesce('nobody', $1), "),
    ("($1, ($2", "(coalesce('nobody', $1), ($2"),
    ("array[$1, $2]", "array['nobody', $1, $2]"),
    ("user_id = $1", "cast($1 as text) is not null"),
    ("user_id = k.user_id", "k.user_id is not null"),
    ("user_id = k.value", "k.value is not null"),
    ("select $1, ", "select coalesce('nobody', $1), "),
    ("select k.user_id, k.id, k.title", "select coalesce('nobody', k.user_id), k.id, k.title"),
];

/// The statement with one of its owners taken away, for each of them. Nothing, if it has none.
fn without_owner(sql: &str) -> Vec<String> {
    let mut weakened = Vec::new();
    for (owner, anybody) in OWNERS {
        for (place, _) in sql.match_indices(owner) {
            let (before, after) = (&sql[..place], &sql[place + owner.len()..]);
            // With the alias of a table.
            let before = before.trim_end_matches(|character: char| character == '.' || character.is_ascii_lowercase());
            let before = if sql[..place].ends_with('.') { before } else { &sql[..place] };
            weakened.push(format!("{before}{anybody}{after}"));
        }
    }
    // A transfer inserts the tasks of one owner for another.
    weakened.extend(sql.contains("select $2, ").then(|| sql.replace("select $2, ", "select coalesce('nobody', $2), ")));
    weakened
}

/// A statement that can lose its owner: its name, and all statements with this one weakened.
type Weakened = (&'static str, Box<dyn Fn(&Names) -> Statements + Send + Sync>);

/// Each statement that can lose an owner, as often as it names one.
fn weakened(dialect: Dialect, scope: Scope) -> Vec<Weakened> {
    let mut statements = Statements::render(dialect, Names::default());
    let mut weakened: Vec<Weakened> = Vec::new();
    for (place, (name, found, sql)) in statements.all_mut(dialect).into_iter().enumerate() {
        if found != scope {
            continue;
        }
        let mutants = without_owner(sql.as_str()).len();
        assert_eq!(mutants == 0, WITHOUT_OWNER.contains(&name), "{name}");
        for number in 0..mutants {
            let render = move |names: &Names| {
                let mut statements = Statements::render(dialect, names.clone());
                if scope == Scope::Shards {
                    statements.set_sharded(true);
                }
                if let Some((_, _, sql)) = statements.all_mut(dialect).into_iter().nth(place) {
                    let text: Arc<str> = without_owner(sql.as_str()).swap_remove(number).into();
                    *sql = AssertSqlSafe(text).into_sql_str();
                }
                statements
            };
            weakened.push((name, Box::new(render)));
        }
    }
    if scope == Scope::Call {
        for (place, (name, template)) in statements.selections.all_mut().into_iter().enumerate() {
            let mutants = without_owner(template).len();
            assert_eq!(mutants == 0, dialect == Dialect::Sqlite && name.ends_with(" of matching"), "{name}");
            for number in 0..mutants {
                let render = move |names: &Names| {
                    let mut statements = Statements::render(dialect, names.clone());
                    if let Some((_, template)) = statements.selections.all_mut().into_iter().nth(place) {
                        *template = without_owner(template).swap_remove(number);
                    }
                    statements
                };
                weakened.push((name, Box::new(render)));
            }
        }
    }
    weakened
}

/// The cases of the suite. Those that have noticed something come first: they will often notice the next.
struct Suite(Vec<(&'static str, Case)>);

impl Suite {
    fn new() -> Self {
        Self(cases())
    }

    /// The first case that fails. Each case gets a new and empty store.
    async fn first_failing<S: TaskStore + 'static>(&mut self, new_store: impl AsyncFn() -> S) -> Option<&'static str> {
        for place in 0..self.0.len() {
            let (name, case) = self.0[place];
            let run = tokio::spawn(case(Arc::new(new_store().await)));
            // A case may wait for something that a weakened statement never does.
            let passed = tokio::time::timeout(Duration::from_secs(30), run).await.is_ok_and(|ended| ended.is_ok());
            if !passed {
                self.0[..=place].rotate_right(1);
                return Some(name);
            }
        }
        None
    }
}

/// What was tried: printed, and counted.
#[derive(Default)]
struct Table {
    survivors: Vec<String>,
    tried: usize,
}

#[expect(clippy::print_stdout, reason = "shown with --nocapture")]
impl Table {
    fn add(&mut self, store: &str, statement: &str, failing: Option<&str>) {
        self.tried += 1;
        match failing {
            Some(case) => println!("{store:<12} {statement:<20} noticed by {case}"),
            None => {
                println!("{store:<12} {statement:<20} SURVIVED");
                self.survivors.push(format!("{store}: {statement}, the {}th tried", self.tried));
            }
        }
    }

    fn finish(self, least: usize) {
        println!("{} statements weakened, {} survived", self.tried, self.survivors.len());
        assert!(self.survivors.is_empty() && self.tried >= least, "{:?} of {}", self.survivors, self.tried);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_notices_each_sqlite_statement_without_its_owner() {
    let directory = tempfile::tempdir().expect("a directory");
    let count = AtomicUsize::new(0);
    let new_store = async |statements: Option<Statements>| {
        let file = directory.path().join(format!("{}.db", count.fetch_add(1, Ordering::Relaxed)));
        let store = SqliteStore::open_lazy(file);
        store.migrate().await.expect("migrated");
        match statements {
            Some(statements) => store.with_statements(statements),
            None => store,
        }
    };
    let mut suite = Suite::new();
    assert_eq!(suite.first_failing(async || new_store(None).await).await, None, "without any change");
    let mut table = Table::default();
    for (statement, render) in weakened(Dialect::Sqlite, Scope::Call) {
        let failing = suite.first_failing(async || new_store(Some(render(&Names::default()))).await).await;
        table.add("SQLite", statement, failing);
    }
    table.finish(17);
}

/// Whether the calls of an owner, alone and in batches, wait for another owner who is locked, or for nothing: whether a
/// batch leaves out the calls of the locked one, and no call leaves rows of an owner who made none.
async fn waits_for_others(
    store: &PostgresStore,
    names: &Names,
    url: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let [ann, bob, cem, dan] = ["ann", "bob", "cem", "dan"].map(|name| UserId::new(name).expect("a user"));
    let mut tasks = Vec::new();
    for owner in [&ann, &bob, &dan] {
        for number in 1..=4_u128 {
            let title = crate::Title::new("Read the map").expect("a title");
            let task = crate::NewTask::new(title).into_task(
                owner.clone(),
                uuid::Uuid::from_u128(number).into(),
                Timestamp::from_unix_seconds(1),
            );
            store.add(owner, &task).await?;
            tasks.push(task);
        }
    }
    let (task, now) = (&tasks[0], Timestamp::from_unix_seconds(2));
    let numbered = |number: u128| Task { id: uuid::Uuid::from_u128(number).into(), ..task.clone() };
    // Bob adds a task with this id below.
    store.add(&ann, &numbered(12)).await?;
    assert!(store.remove(&ann, numbered(12).id).await?);
    let mut host = sqlx::PgConnection::connect(url).await?;
    let mut transaction = host.begin().await?;
    // The row of Ann, and the tasks of Dan.
    for (table, held) in [("tasks_owners", &ann), ("tasks", &dan)] {
        let hold = format!(r#"select from "{}"."{table}" where user_id = $1 for update"#, names.schema());
        sqlx::query(AssertSqlSafe(hold)).bind(held.as_str()).execute(&mut *transaction).await?;
    }
    let toggle = TaskChange::completion(super::Completion::Toggle);
    let calls = async {
        let met = Precondition { version_not_in: vec![99], ..Precondition::default() };
        let limited = Creation { max_tasks: Some(100), ..Creation::default() };
        store.insert(&bob, &[numbered(9)], &limited).await?;
        store.insert(&bob, &[numbered(10), numbered(11)], &limited).await?;
        store.update(&bob, task.id, &toggle, &Precondition::default(), now).await?;
        store.update(&bob, task.id, &toggle, &met, now).await?;
        store.update_matching(&bob, &TaskFilter::new(), &toggle, now).await?;
        store.reposition(&bob, &[(task.id, task.position.clone())], (task.id, 4), now).await?;
        store.delete(&bob, uuid::Uuid::from_u128(2).into(), &Precondition::default()).await?;
        store.delete(&bob, uuid::Uuid::from_u128(3).into(), &met).await?;
        // In a batch, those of the locked owners are left out.
        let update = [&ann, &bob, &dan].map(|owner| (owner, task.id, &toggle, now));
        let updated = store.update_many(&update).await?;
        assert_eq!(updated.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
        let twelve = numbered(12);
        let inserted = store.insert_many(&[&ann, &bob, &cem].map(|owner| (owner, &twelve, None))).await?;
        assert_eq!(inserted, [false, true, false]);
        let four = uuid::Uuid::from_u128(4).into();
        let deleted = store.delete_many(&[(&ann, four), (&bob, four), (&cem, four), (&dan, four)]).await?;
        assert_eq!(deleted, [false, true, false, false]);
        store.purge(&bob, Timestamp::from_unix_micros(i64::MAX), Limit::default()).await?;
        store.transfer(&bob, &cem).await?;
        store.erase(&cem).await?;
        store.delete_matching(&bob, &TaskFilter::new()).await?;
        store.erase(&bob).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let result = tokio::time::timeout(Duration::from_secs(5), calls).await;
    transaction.rollback().await?;
    result??;
    let left =
        format!(r#"select count(*) from "{}"."tasks_owners" where user_id not in ('ann', 'dan')"#, names.schema());
    let left: i64 = sqlx::query_scalar(AssertSqlSafe(left)).fetch_one(&mut host).await?;
    assert_eq!(left, 0, "whoever was erased has no row");
    host.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_notices_each_postgres_statement_without_its_owner() {
    let database = testkit::stores::todo_database().await;
    let connected = PostgresStore::connect_lazy(database.url(), &PostgresOptions::default()).expect("a URL");
    let count = AtomicUsize::new(0);
    let new_store = async |render: Option<&(dyn Fn(&Names) -> Statements + Send + Sync)>| {
        let schema = format!("todo_{}", count.fetch_add(1, Ordering::Relaxed));
        let names = Names::new(schema, "tasks").expect("names");
        let store = connected.clone().with_names(names.clone());
        store.migrate().await.expect("migrated");
        match render {
            Some(render) => store.with_statements(render(&names)),
            None => store,
        }
    };
    let (mut suite, mut suite_in_batches) = (Suite::new(), Suite::new());
    assert_eq!(suite.first_failing(async || new_store(None).await).await, None, "without any change");
    let in_batches = async || InBatches { store: new_store(None).await };
    assert_eq!(suite_in_batches.first_failing(in_batches).await, None, "in batches, without any change");
    let waits = async |render: Option<&(dyn Fn(&Names) -> Statements + Send + Sync)>| {
        let store = match render {
            Some(render) => new_store(Some(render)).await,
            None => new_store(None).await,
        };
        let (names, url) = (store.names().clone(), database.url().to_owned());
        let run = tokio::spawn(async move {
            waits_for_others(&store, &names, &url).await.map_err(|error| error.to_string()).expect("no call waits");
        });
        run.await.is_err()
    };
    assert!(!waits(None).await, "without any change");
    // The statements for distributed tables work on ordinary ones, too.
    let of_shards = |names: &Names| {
        let statements = Statements::render(Dialect::Postgres, names.clone());
        statements.set_sharded(true);
        statements
    };
    let sharded = async || new_store(Some(&of_shards)).await;
    assert_eq!(suite.first_failing(sharded).await, None, "as on distributed tables, without any change");
    assert!(!waits(Some(&of_shards)).await, "as on distributed tables, without any change");

    let mut table = Table::default();
    for scope in [Scope::Call, Scope::Batch, Scope::Shards] {
        for (statement, render) in weakened(Dialect::Postgres, scope) {
            // The quick check comes first.
            let failing = if waits(Some(&*render)).await {
                Some("waiting for others")
            } else if scope != Scope::Batch {
                suite.first_failing(async || new_store(Some(&*render)).await).await
            } else {
                suite_in_batches.first_failing(async || InBatches { store: new_store(Some(&*render)).await }).await
            };
            table.add("PostgreSQL", statement, failing);
        }
    }
    connected.close().await;
    database.close().await;
    table.finish(23);
}

/// A store that sends each call in a batch, beside a call of another owner for a task with the same id.
#[derive(Debug)]
struct InBatches {
    store: PostgresStore,
}

impl InBatches {
    /// An owner without tasks, who sorts after every other.
    fn stranger() -> UserId {
        UserId::new("\u{10ffff}").expect("a user")
    }
}

/// What the call gets that came first; the stranger's must get nothing.
fn first<T: PartialEq + std::fmt::Debug>(results: Vec<T>, nothing: &T) -> T {
    let mut results = results.into_iter();
    let first = results.next().expect("a result for each call");
    assert_eq!(results.next().as_ref(), Some(nothing), "a stranger got something");
    first
}

#[async_trait]
impl TaskStore for InBatches {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        let ([task], None) = (tasks, &creation.request) else {
            return self.store.insert(owner, tasks, creation).await;
        };
        let calls = [(owner, task, creation.max_tasks)];
        if self.store.insert_many(&calls).await.expect("a batch")[0] {
            return Ok(Insertion::Done);
        }
        // The owner has no task yet, or another call holds the owner, or it must not be added.
        self.store.insert(owner, tasks, creation).await
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        let found = self.store.get_many(&[(owner, id), (&Self::stranger(), id)]).await;
        Ok(first(found.expect("a batch"), &None))
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        if !query.is_simple() {
            return self.store.list(owner, query, known).await;
        }
        let found = self.store.list_many(&[(owner, query, known), (&Self::stranger(), query, None)]).await;
        let nothing = Read::Changed { revision: Revision::default(), value: Page::default() };
        Ok(first(found.expect("a batch"), &nothing))
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        self.store.count(owner, filter, known).await
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        self.store.summary(owner, known).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        if !precondition.is_always_met() {
            return self.store.update(owner, id, change, precondition, now).await;
        }
        let calls = [(owner, id, change, now), (&Self::stranger(), id, change, now)];
        match first(self.store.update_many(&calls).await.expect("a batch"), &None) {
            // Another call holds the task or its owner, or there is none.
            None => self.store.update(owner, id, change, precondition, now).await,
            Some(task) => Ok(Outcome::Done(task)),
        }
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        self.store.update_matching(owner, filter, change, now).await
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        self.store.reposition(owner, positions, moved, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError> {
        if precondition.is_always_met() {
            let deleted = self.store.delete_many(&[(owner, id), (&Self::stranger(), id)]).await;
            if first(deleted.expect("a batch"), &false) {
                return Ok(Outcome::Done(()));
            }
        }
        self.store.delete(owner, id, precondition).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        self.store.delete_matching(owner, filter).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        self.store.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        self.store.transfer(owner, to).await
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        self.store.changes(owner, since, limit).await
    }

    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        self.store.revisions(owners).await
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        self.store.purge(owner, before, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}
