//! Isolation: the store suite fails for each statement that loses its owner.
//!
//! One statement after the other loses its predicate on `user_id` (the predicate becomes true, but keeps its parameter,
//! so that the statement still runs), and an insert writes the task of another owner. The suite then runs on a store
//! that is right but for this one statement, and a case has to fail. The functions for row-level security are weakened
//! in `tests/postgres_row_security.rs`, since they live in the database.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{
    BatchStore, BulkResult, Names, PostgresOptions, PostgresStore, SqliteStore, StoreError, TaskChange, TaskStore,
    Transfer,
    sql::{
        names::Dialect,
        statements::{Scope, Statements},
    },
};
use crate::{
    Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, UserId, clock::Timestamp, conformance::store::cases,
};

/// The statements that name no owner, since they return no row of a task.
const WITHOUT_OWNER: [&str; 3] = ["has_tasks", "lock", "ping"];

/// The statements that only SQLite needs.
const OF_SQLITE: [&str; 2] = ["transfer_delete", "transfer_count"];

/// The statement without its owner; empty if it has none. A transfer names its owners in several steps, and each of
/// them is weakened alone.
fn without_owner(name: &str, sql: &str) -> Vec<String> {
    if name == "transfer" {
        let owner = "user_id = $1";
        let step = |(place, _)| {
            let (before, after) = sql.split_at(place);
            format!("{before}{}", after.replacen(owner, "cast($1 as text) is not null", 1))
        };
        let of_another = sql.replace("select $2,", "select coalesce('nobody', $2),");
        return sql.match_indices(owner).map(step).chain([of_another]).collect();
    }
    let weakened = [
        ("select $1, unnest(", "select coalesce('nobody', $1), unnest("),
        ("select k.user_id, k.id", "select coalesce('nobody', k.user_id), k.id"),
        ("user_id = $1", "cast($1 as text) is not null"),
        ("t.user_id = k.user_id", "k.user_id is not null"),
        ("values ($1,", "values (coalesce('nobody', $1),"),
    ];
    let weakened = weakened.iter().find(|(owner, _)| sql.contains(owner));
    weakened.map(|(owner, anybody)| sql.replace(owner, anybody)).into_iter().collect()
}

/// A statement that can lose its owner: its name, and all statements with this one weakened.
type Weakened = (&'static str, Box<dyn Fn(&Names) -> Statements + Send + Sync>);

/// Each statement that can lose its owner.
fn weakened(dialect: Dialect, scope: Scope) -> Vec<Weakened> {
    let names = Names::default();
    let mut statements = Statements::render(dialect, names);
    let mut weakened: Vec<Weakened> = Vec::new();
    for (place, (name, found, sql)) in statements.all_mut().into_iter().enumerate() {
        // SQLite adds several tasks with the statement for one.
        let is_of_other = (dialect == Dialect::Postgres && OF_SQLITE.contains(&name))
            || (dialect == Dialect::Sqlite && name == "insert_all");
        if found != scope || is_of_other {
            continue;
        }
        let mutants = without_owner(name, sql.as_str()).len();
        assert_eq!(mutants == 0, WITHOUT_OWNER.contains(&name), "{name}");
        for number in 0..mutants {
            let render = move |names: &Names| {
                let mut statements = Statements::render(dialect, names.clone());
                if let Some((_, _, sql)) = statements.all_mut().into_iter().nth(place) {
                    let text: Arc<str> = without_owner(name, sql.as_str()).swap_remove(number).into();
                    *sql = AssertSqlSafe(text).into_sql_str();
                }
                statements
            };
            weakened.push((name, Box::new(render)));
        }
    }
    if scope == Scope::Call {
        let templates = statements.selections.all_mut();
        for (place, (name, _)) in templates.into_iter().enumerate() {
            let render = move |names: &Names| {
                let mut statements = Statements::render(dialect, names.clone());
                if let Some((_, template)) = statements.selections.all_mut().into_iter().nth(place) {
                    assert!(template.contains("user_id = {owner}"), "{template}");
                    *template = template.replace("user_id = {owner}", "cast({owner} as text) is not null");
                }
                statements
            };
            weakened.push((name, Box::new(render)));
        }
    }
    weakened
}

/// The first case of the suite that fails. Each case gets a new and empty store.
async fn first_failing<S: TaskStore + 'static>(new_store: impl AsyncFn() -> S) -> Option<&'static str> {
    for (name, case) in cases() {
        let run = tokio::spawn(case(Arc::new(new_store().await)));
        // A case may wait for something that a weakened statement never does.
        let passed = tokio::time::timeout(Duration::from_secs(30), run).await.is_ok_and(|ended| ended.is_ok());
        if !passed {
            return Some(name);
        }
    }
    None
}

/// What was tried, to be printed and counted.
#[derive(Default)]
struct Table {
    text: String,
    survived: usize,
    tried: usize,
}

impl Table {
    fn add(&mut self, store: &str, statement: &str, failing: Option<&str>) {
        self.tried += 1;
        self.survived += usize::from(failing.is_none());
        let outcome = failing.map_or_else(|| "SURVIVED".to_owned(), |case| format!("noticed by {case}"));
        writeln!(self.text, "{store:<12} {statement:<20} {outcome}").expect("memory");
    }

    #[expect(clippy::print_stdout, reason = "shown with --nocapture")]
    fn finish(self, least: usize) {
        println!("{}{} statements weakened, {} survived", self.text, self.tried, self.survived);
        assert!(self.survived == 0 && self.tried >= least, "{}", self.text);
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
    assert_eq!(first_failing(async || new_store(None).await).await, None, "without any change");
    let mut table = Table::default();
    for (statement, render) in weakened(Dialect::Sqlite, Scope::Call) {
        let failing = first_failing(async || new_store(Some(render(&Names::default()))).await).await;
        table.add("SQLite", statement, failing);
    }
    table.finish(17);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_notices_each_postgres_statement_without_its_owner() {
    let database = testkit::stores::todo_database().await;
    let connected = PostgresStore::connect_lazy(database.url(), &PostgresOptions::default()).expect("a URL");
    let count = AtomicUsize::new(0);
    let new_store = async |render: Option<&dyn Fn(&Names) -> Statements>| {
        let schema = format!("todo_{}", count.fetch_add(1, Ordering::Relaxed));
        let names = Names::new(schema, "tasks").expect("names");
        let store = connected.clone().with_names(names.clone());
        store.migrate().await.expect("migrated");
        match render {
            Some(render) => store.with_statements(render(&names)),
            None => store,
        }
    };
    assert_eq!(first_failing(async || new_store(None).await).await, None, "without any change");
    let in_batches = async || InBatches { store: new_store(None).await };
    assert_eq!(first_failing(in_batches).await, None, "in batches, without any change");

    let mut table = Table::default();
    for (statement, render) in weakened(Dialect::Postgres, Scope::Call) {
        let failing = first_failing(async || new_store(Some(&render)).await).await;
        table.add("PostgreSQL", statement, failing);
    }
    for (statement, render) in weakened(Dialect::Postgres, Scope::Batch) {
        let failing = first_failing(async || InBatches { store: new_store(Some(&render)).await }).await;
        table.add("PostgreSQL", statement, failing);
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
    async fn insert(&self, owner: &UserId, task: &Task) -> Result<bool, StoreError> {
        Ok(self.store.insert_many(&[(owner, task)]).await.expect("a batch")[0])
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        let found = self.store.get_many(&[(owner, id), (&Self::stranger(), id)]).await;
        Ok(first(found.expect("a batch"), &None))
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery) -> Result<Page, StoreError> {
        if !query.is_simple() {
            return self.store.list(owner, query).await;
        }
        let found = self.store.list_many(&[(owner, query), (&Self::stranger(), query)]).await;
        Ok(first(found.expect("a batch"), &Page::default()))
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        let calls = [(owner, id, change, now), (&Self::stranger(), id, change, now)];
        match first(self.store.update_many(&calls).await.expect("a batch"), &None) {
            // Another call holds the task, or there is none.
            None => self.store.update(owner, id, change, now).await,
            done => Ok(done),
        }
    }

    async fn insert_all(&self, owner: &UserId, tasks: &[Task]) -> Result<bool, StoreError> {
        self.store.insert_all(owner, tasks).await
    }

    async fn count(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        self.store.count(owner, filter).await
    }

    async fn summary(&self, owner: &UserId) -> Result<Summary, StoreError> {
        self.store.summary(owner).await
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
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        self.store.reposition(owner, positions, now).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        self.store.delete_matching(owner, filter).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId) -> Result<bool, StoreError> {
        let deleted = self.store.delete_many(&[(owner, id), (&Self::stranger(), id)]).await;
        if first(deleted.expect("a batch"), &false) { Ok(true) } else { self.store.delete(owner, id).await }
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        self.store.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        self.store.transfer(owner, to).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}
