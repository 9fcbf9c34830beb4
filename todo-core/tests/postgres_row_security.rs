//! Row-level security of PostgreSQL, behind the predicates of the statements. Each works without the other.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{io::Write as _, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures_util::FutureExt as _;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use testkit::stores::{RowSecurityDatabase, connect, todo_database};
use todo_core::{
    IdempotencyKey, Limit, NewTask, Position, Sort, Task, TaskFilter, TaskId, TaskQuery, Title, TodoService, UserId,
    clock::Timestamp,
    conformance::store::{PlainCalls as _, cases},
    store::{
        BatchStore as _, CoalescingOptions, CoalescingStore, Completion, Creation, Insertion, Names, Outcome,
        PostgresStore, Precondition, Request, StoreError, TaskChange, TaskStore, Transfer,
    },
};

/// As a role that owns nothing: predicates and row-level security.
mod application {
    todo_core::store_conformance!(testkit::stores::postgres_with_row_security);
}

/// As a role to which row-level security does not apply: predicates alone.
mod superuser {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        let secured = RowSecurityDatabase::migrated().await;
        case(Arc::new(connect(secured.database.url()).with_row_security())).await;
        secured.database.close().await;
    }

    todo_core::store_conformance!(with_store);
}

mod transaction_of_the_host {
    use super::*;

    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        let secured = RowSecurityDatabase::migrated().await;
        let pool = PgPool::connect(&secured.app).await.unwrap();
        let store = PostgresStore::new(pool.clone()).with_row_security();
        let store = store.in_transaction(pool.begin().await.unwrap());
        case(Arc::new(store.clone())).await;
        store.take().await.unwrap().commit().await.unwrap();
        pool.close().await;
        secured.database.close().await;
    }

    todo_core::store_conformance!(with_store);
}

/// Cases about the table itself, whatever the statement, and about what the functions leave behind.
macro_rules! of_the_table {
    ($($case:ident)+) => {
        const OF_THE_TABLE: &[(&str, TableCase)] = &[$((stringify!($case), |secured| Box::pin($case(secured)))),+];

        mod table {
            use super::*;

            $(
                #[tokio::test]
                async fn $case() {
                    let secured = RowSecurityDatabase::migrated().await;
                    super::$case(&secured).await;
                    secured.database.close().await;
                }
            )+
        }
    };
}

type TableCase = for<'a> fn(&'a RowSecurityDatabase) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

of_the_table! {
    a_select_shows_only_what_belongs_to_the_bound_owner
    an_insert_for_another_owner_is_rejected
    an_update_changes_only_what_belongs_to_the_bound_owner
    revisions_and_deletions_belong_to_the_bound_owner
    a_deletion_removes_only_what_belongs_to_the_bound_owner
    without_a_bound_owner_every_statement_fails
    row_level_security_applies_to_the_owner_of_the_table
    no_owner_stays_bound_to_a_connection
    in_a_transaction_of_the_host_the_bound_owner_stays_the_same
}

/// One task of Ann's and one of Bob's, with the same id.
async fn two_tasks(secured: &RowSecurityDatabase) {
    run(
        secured.database.url(),
        "delete from todo.tasks_owners; delete from todo.tasks; delete from todo.tasks_deleted;
         insert into todo.tasks (user_id, id, title, created_at, updated_at)
         select owner, '019aa3f0-5c00-7000-8000-000000000001', 'Of ' || owner, now(), now()
         from unnest(array['ann', 'bob']) as owner",
    )
    .await;
}

/// Deletes everything. Without a row of its owner, nothing is left of a task.
const EMPTY: &str = "delete from todo.tasks_owners; delete from todo.tasks; delete from todo.tasks_deleted";

async fn run(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await.unwrap();
    connection.close().await.unwrap();
}

/// The owners and titles of all tasks, without row-level security.
async fn owners(secured: &RowSecurityDatabase) -> Vec<(String, String)> {
    let mut connection = PgConnection::connect(secured.database.url()).await.unwrap();
    sqlx::query_as("select user_id, title from todo.tasks order by user_id").fetch_all(&mut connection).await.unwrap()
}

/// The number of rows of a statement, for the role in this URL and with this bound owner.
async fn rows(url: &str, owner: &str, statement: &'static str) -> Result<u64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    bind(&mut transaction, owner).await;
    let done = sqlx::query(statement).execute(&mut *transaction).await;
    if done.is_ok() {
        transaction.commit().await.unwrap();
    }
    done.map(|done| done.rows_affected())
}

async fn bind(connection: &mut PgConnection, owner: &str) {
    sqlx::query("select set_config('todo.user_id', $1, true)").bind(owner).execute(connection).await.unwrap();
}

/// Whether PostgreSQL responds that a privilege is missing (SQLSTATE 42501).
fn is_denied<T: std::fmt::Debug>(result: &Result<T, sqlx::Error>) -> bool {
    result.as_ref().is_err_and(|error| {
        error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "42501")
    })
}

async fn a_select_shows_only_what_belongs_to_the_bound_owner(secured: &RowSecurityDatabase) {
    two_tasks(secured).await;
    for owner in ["ann", "bob"] {
        assert_eq!(rows(&secured.app, owner, "select * from todo.tasks").await.unwrap(), 1);
    }
    assert_eq!(rows(&secured.app, "ann", "select * from todo.tasks where user_id = 'bob'").await.unwrap(), 0);
    assert_eq!(rows(&secured.app, "carol", "select * from todo.tasks").await.unwrap(), 0);
}

async fn an_insert_for_another_owner_is_rejected(secured: &RowSecurityDatabase) {
    two_tasks(secured).await;
    let insert = "insert into todo.tasks (user_id, id, title, created_at, updated_at)
                  values ('bob', gen_random_uuid(), 'Of ann', now(), now())";
    let refused = rows(&secured.app, "ann", insert).await;
    assert!(is_denied(&refused), "{refused:?}");
    assert_eq!(rows(&secured.app, "bob", insert).await.unwrap(), 1);
}

async fn an_update_changes_only_what_belongs_to_the_bound_owner(secured: &RowSecurityDatabase) {
    two_tasks(secured).await;
    assert_eq!(rows(&secured.app, "ann", "update todo.tasks set title = 'Changed'").await.unwrap(), 1);
    let expected = [("ann", "Changed"), ("bob", "Of bob")].map(|(owner, title)| (owner.to_owned(), title.to_owned()));
    assert_eq!(owners(secured).await, expected);
}

/// The tables beside the tasks: who has which revision, and what is left of deleted tasks.
async fn revisions_and_deletions_belong_to_the_bound_owner(secured: &RowSecurityDatabase) {
    two_tasks(secured).await;
    for owner in ["ann", "bob"] {
        assert_eq!(rows(&secured.app, owner, "delete from todo.tasks").await.unwrap(), 1);
    }
    for owner in ["ann", "bob"] {
        for (read, change) in [
            ("select * from todo.tasks_owners", "update todo.tasks_owners set tasks = 0"),
            ("select * from todo.tasks_deleted", "delete from todo.tasks_deleted"),
        ] {
            assert_eq!(rows(&secured.app, owner, read).await.unwrap(), 1, "{owner}: {read}");
            assert_eq!(rows(&secured.app, owner, change).await.unwrap(), 1, "{owner}: {change}");
        }
    }
    let insert = "insert into todo.tasks_owners (user_id, revision, tasks, purged) values ('cem', 1, 1, 1)";
    let refused = rows(&secured.app, "ann", insert).await;
    assert!(is_denied(&refused), "{refused:?}");
}

async fn a_deletion_removes_only_what_belongs_to_the_bound_owner(secured: &RowSecurityDatabase) {
    two_tasks(secured).await;
    assert_eq!(rows(&secured.app, "ann", "delete from todo.tasks").await.unwrap(), 1);
    assert_eq!(owners(secured).await, [("bob".to_owned(), "Of bob".to_owned())]);
}

async fn without_a_bound_owner_every_statement_fails(secured: &RowSecurityDatabase) {
    two_tasks(secured).await;
    let mut connection = PgConnection::connect(&secured.app).await.unwrap();
    // First on a new connection, and then after an owner was bound in a transaction.
    for _ in 0..2 {
        for statement in [
            "select * from todo.tasks",
            "select * from todo.tasks where user_id = 'ann'",
            "update todo.tasks set title = 'Changed'",
            "delete from todo.tasks",
            "insert into todo.tasks (user_id, id, title, created_at, updated_at)
             values ('ann', gen_random_uuid(), 'New', now(), now())",
        ] {
            let refused = sqlx::query(statement).fetch_all(&mut connection).await;
            assert!(is_denied(&refused), "{statement}: {refused:?}");
            assert!(refused.unwrap_err().to_string().contains("no owner is bound"));
        }
        let mut transaction = connection.begin().await.unwrap();
        bind(&mut transaction, "ann").await;
        transaction.commit().await.unwrap();
    }
    assert_eq!(owners(secured).await.len(), 2);
}

async fn row_level_security_applies_to_the_owner_of_the_table(secured: &RowSecurityDatabase) {
    two_tasks(secured).await;
    assert_eq!(rows(&secured.owner, "ann", "select * from todo.tasks").await.unwrap(), 1);
}

/// The operations, each with the case that fails without row-level security. `run` runs the statements with filters.
const OPERATIONS: [(&str, &str); 19] = [
    ("get", "a_select_shows_only_what_belongs_to_the_bound_owner"),
    ("list", "a_select_shows_only_what_belongs_to_the_bound_owner"),
    ("list_completed", "a_select_shows_only_what_belongs_to_the_bound_owner"),
    ("summary", "a_select_shows_only_what_belongs_to_the_bound_owner"),
    ("requested", "a_select_shows_only_what_belongs_to_the_bound_owner"),
    ("taken", "a_select_shows_only_what_belongs_to_the_bound_owner"),
    ("changes", "a_select_shows_only_what_belongs_to_the_bound_owner"),
    ("revisions", "revisions_and_deletions_belong_to_the_bound_owner"),
    ("insert", "an_insert_for_another_owner_is_rejected"),
    ("insert_all", "an_insert_for_another_owner_is_rejected"),
    ("transfer", "an_insert_for_another_owner_is_rejected"),
    ("update", "an_update_changes_only_what_belongs_to_the_bound_owner"),
    ("update_if", "an_update_changes_only_what_belongs_to_the_bound_owner"),
    ("reposition", "an_update_changes_only_what_belongs_to_the_bound_owner"),
    ("delete", "a_deletion_removes_only_what_belongs_to_the_bound_owner"),
    ("delete_if", "a_deletion_removes_only_what_belongs_to_the_bound_owner"),
    ("erase", "a_deletion_removes_only_what_belongs_to_the_bound_owner"),
    ("purge", "revisions_and_deletions_belong_to_the_bound_owner"),
    ("run", "an_update_changes_only_what_belongs_to_the_bound_owner"),
];

/// Runs every operation without its predicate, without row-level security, and without both.
///
/// The table goes to standard error itself, which the test runner does not capture, so that the output of CI has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn predicates_and_row_level_security_each_work_alone() {
    const ON: &str = "alter table todo.tasks enable row level security;
        alter table todo.tasks_owners enable row level security; alter table todo.tasks_deleted enable row level security";
    const OFF: &str = "alter table todo.tasks disable row level security;
        alter table todo.tasks_owners disable row level security; alter table todo.tasks_deleted disable row level security";
    let secured = RowSecurityDatabase::migrated().await;
    let (superuser, store) = (secured.database.url(), secured.store());
    let bypassing = connect(superuser).with_row_security();
    let mut admin = PgConnection::connect(superuser).await.unwrap();
    assert_eq!(suite(&mut admin, &store).await, None, "nothing is changed yet");
    let mut tried = 0;
    let mut tell = |what: &str, change: &str, outcome: String| {
        tried += 1;
        let _ = writeln!(std::io::stderr(), "{what:<15} {change:<24} {outcome}");
    };

    for (operation, _) in OPERATIONS {
        let good = definition(&secured, operation).await;
        let bad = without_predicate(&good);
        run(superuser, &bad).await;
        let caught = suite(&mut admin, &bypassing).await;
        let caught = caught.unwrap_or_else(|| panic!("{operation} without its predicate survives"));
        let held = if operation.starts_with("insert") {
            // It would insert a task for another owner, which row-level security rejects.
            assert!(suite(&mut admin, &store).await.is_some(), "a task is missing");
            let owner = UserId::new("ann").unwrap();
            let tasks = [task(&owner, 1), task(&owner, 2)];
            let count = if operation == "insert" { 1 } else { 2 };
            let refused = store.add_all(&owner, &tasks[..count]).await;
            assert!(matches!(refused, Err(StoreError::Setup(_))), "{refused:?}");
            let others = owners(&secured).await.into_iter().filter(|(owner, _)| owner == "nobody").count();
            assert_eq!(others, 0, "no task was inserted for another owner");
            "rejects it".to_owned()
        } else {
            // The case that notices it where row-level security does not apply.
            assert!(
                passes(caught, &mut admin, &store).await,
                "row-level security does not hide what {operation} shows"
            );
            "still hides".to_owned()
        };
        tell(operation, "predicate removed:", format!("row-level security {held}; without it caught by {caught}"));

        run(superuser, OFF).await;
        assert!(!passes(caught, &mut admin, &store).await, "{operation} without both is not caught by {caught}");
        run(superuser, ON).await;
        run(superuser, &good).await;
        tell(operation, "both removed:", format!("caught by {caught}"));
    }

    run(superuser, OFF).await;
    assert_eq!(suite(&mut admin, &store).await, None, "the predicates do not hold alone");
    let caught = of_the_table(&secured).await;
    for (operation, case) in OPERATIONS {
        assert!(caught.contains(&case), "{operation} without row-level security is not caught by {case}: {caught:?}");
        let held = format!("the predicate still hides ({} cases pass)", cases().len());
        tell(operation, "policy disabled:", format!("{held}; caught by {case}"));
    }
    run(superuser, ON).await;

    holes_in_row_security(&secured, &mut tell).await;
    bindings_that_outlive_their_call(&secured, &mut tell).await;
    assert_eq!(of_the_table(&secured).await, <[&str; 0]>::default(), "all changes were undone");
    let _ = writeln!(std::io::stderr(), "row-level security: {tried} mutants, 0 survived");
}

/// Holes in the policy and its function.
async fn holes_in_row_security(secured: &RowSecurityDatabase, tell: &mut impl FnMut(&str, &str, String)) {
    let superuser = secured.database.url();
    for (hole, case, open, close) in [
        (
            "shows all",
            "a_select_shows_only_what_belongs_to_the_bound_owner",
            "alter policy tasks_owner on todo.tasks using (true)",
            "alter policy tasks_owner on todo.tasks using (user_id = todo.tasks_owner())",
        ),
        (
            "accepts all",
            "an_insert_for_another_owner_is_rejected",
            "alter policy tasks_owner on todo.tasks with check (true)",
            "alter policy tasks_owner on todo.tasks with check (user_id = todo.tasks_owner())",
        ),
        (
            "shows all owners",
            "revisions_and_deletions_belong_to_the_bound_owner",
            "alter policy tasks_owner on todo.tasks_owners using (true)",
            "alter policy tasks_owner on todo.tasks_owners using (user_id = todo.tasks_owner())",
        ),
        (
            "accepts all owners",
            "revisions_and_deletions_belong_to_the_bound_owner",
            "alter policy tasks_owner on todo.tasks_owners with check (true)",
            "alter policy tasks_owner on todo.tasks_owners with check (user_id = todo.tasks_owner())",
        ),
        (
            "shows all deleted",
            "revisions_and_deletions_belong_to_the_bound_owner",
            "alter policy tasks_owner on todo.tasks_deleted using (true)",
            "alter policy tasks_owner on todo.tasks_deleted using (user_id = todo.tasks_owner())",
        ),
        (
            "not forced",
            "row_level_security_applies_to_the_owner_of_the_table",
            "alter table todo.tasks no force row level security",
            "alter table todo.tasks force row level security",
        ),
    ] {
        run(superuser, open).await;
        assert!(fails(case, secured).await, "{hole} is not caught by {case}");
        run(superuser, close).await;
        tell("policy", &format!("{hole}:"), format!("caught by {case}"));
    }
    let silent = definition(secured, "owner").await;
    run(superuser, &silent.replace("raise insufficient_privilege using", "raise notice using")).await;
    let case = "without_a_bound_owner_every_statement_fails";
    assert!(fails(case, secured).await, "not caught by {case}");
    run(superuser, &silent).await;
    tell("policy", "no error without owner:", format!("caught by {case}"));
}

/// Bindings that a function may leave behind.
async fn bindings_that_outlive_their_call(secured: &RowSecurityDatabase, tell: &mut impl FnMut(&str, &str, String)) {
    let superuser = secured.database.url();
    for (operation, _) in OPERATIONS {
        let good = definition(secured, operation).await;
        for (hole, case, from, to) in [
            ("binding stays:", "no_owner_stays_bound_to_a_connection", "$1, true)", "$1, false)"),
            (
                "binding not taken back:",
                "in_a_transaction_of_the_host_the_bound_owner_stays_the_same",
                "perform pg_catalog.set_config('todo.user_id', coalesce(former, ''), true);",
                "",
            ),
        ] {
            // Functions for several owners bind each of them, in another way.
            let in_their_way = |text: &str| match operation {
                "revisions" | "transfer" => {
                    let one = if operation == "revisions" { "one)" } else { "$1)" };
                    text.replace("$1, true)", &format!("'set local todo.user_id = %L', {one}"))
                        .replace("$1, false)", &format!("'set todo.user_id = %L', {one}"))
                        .replace(
                            "perform pg_catalog.set_config('todo.user_id', ",
                            "execute pg_catalog.format('set local todo.user_id = %L', ",
                        )
                        .replace("coalesce(former, ''), true)", "coalesce(former, ''))")
                }
                _ => text.to_owned(),
            };
            let (from, to) = (in_their_way(from), in_their_way(to));
            assert!(good.contains(&from), "{good}");
            run(superuser, &good.replace(&from, &to)).await;
            assert!(fails(case, secured).await, "{operation}, {hole} not caught by {case}");
            tell(operation, hole, format!("caught by {case}"));
        }
        run(superuser, &good).await;
    }
}

/// The first case of the suite that fails, if one does.
///
/// Cases without concurrent calls come first: those that fail leave calls behind, which would disturb the next case.
async fn suite(admin: &mut PgConnection, store: &PostgresStore) -> Option<&'static str> {
    let mut cases = cases();
    cases
        .sort_by_key(|(name, _)| name.contains("concurrent") || name.contains("writers") || name.contains("cancelled"));
    for (name, _) in cases {
        if !passes(name, admin, store).await {
            return Some(name);
        }
    }
    None
}

/// Whether this case of the suite passes.
async fn passes(name: &str, admin: &mut PgConnection, store: &PostgresStore) -> bool {
    admin.execute(sqlx::raw_sql(EMPTY)).await.unwrap();
    let (_, case) = cases().into_iter().find(|(case, _)| *case == name).unwrap();
    AssertUnwindSafe(case(Arc::new(store.clone()))).catch_unwind().await.is_ok()
}

/// The failing cases of the table.
async fn of_the_table(secured: &RowSecurityDatabase) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for (name, _) in OF_THE_TABLE {
        if fails(name, secured).await {
            failed.push(*name);
        }
    }
    failed
}

/// Whether this case of the table fails.
async fn fails(name: &str, secured: &RowSecurityDatabase) -> bool {
    let (_, case) = OF_THE_TABLE.iter().find(|(case, _)| *case == name).unwrap();
    AssertUnwindSafe(case(secured)).catch_unwind().await.is_err()
}

/// The text that creates a function.
async fn definition(secured: &RowSecurityDatabase, operation: &str) -> String {
    let mut connection = PgConnection::connect(secured.database.url()).await.unwrap();
    let definition =
        "select pg_get_functiondef(p.oid) from pg_proc as p where p.proname ~ ('^tasks_' || $1 || '(_[0-9a-f]{10})?$')";
    sqlx::query_scalar(definition).bind(operation).fetch_one(&mut connection).await.unwrap()
}

/// The qualified name of a function, whose own name ends in a digest.
async fn function(secured: &RowSecurityDatabase, operation: &str) -> String {
    let mut connection = PgConnection::connect(secured.database.url()).await.unwrap();
    let name = "select 'todo.' || p.proname from pg_proc as p where p.proname ~ ('^tasks_' || $1 || '_[0-9a-f]{10}$')";
    sqlx::query_scalar(name).bind(operation).fetch_one(&mut connection).await.unwrap()
}

/// The function with a statement that ignores the owner: it reads or changes all tasks, or inserts one for another
/// owner.
fn without_predicate(definition: &str) -> String {
    let weaker = definition
        .replace("t.user_id = $1", "$1 is not null")
        .replace("o.user_id = $1", "$1 is not null")
        .replace("user_id = $1", "$1 is not null")
        .replace("user_id = one", "one is not null")
        .replace("values ($1, ", "values ('nobody', ")
        .replace(
            "execute $5 using",
            "execute replace(replace($5, 'o.user_id = $1', '$1 is not null'), 'user_id = $1', '$1 is not null') using",
        );
    assert_ne!(weaker, definition);
    weaker
}

fn task(owner: &UserId, number: u128) -> Task {
    let now = Timestamp::from_unix_seconds(1_763_712_000);
    let id = TaskId::from(uuid::Uuid::from_u128(number));
    NewTask::new(Title::new("Read the map").unwrap()).into_task(owner.clone(), id, now)
}

/// Every call of a store.
async fn all_calls(store: &dyn TaskStore) {
    let ann = UserId::new("ann").unwrap();
    let (query, done) = (TaskQuery::default(), TaskQuery::new().completed(true));
    let sample = task(&ann, 1);
    let version = |version| Precondition::version(version);
    assert!(store.add(&ann, &sample).await.unwrap());
    assert!(!store.add(&ann, &sample).await.unwrap());
    assert_eq!(store.get(&ann, sample.id).await.unwrap().as_ref(), Some(&sample));
    assert_eq!(store.page(&ann, &query).await.unwrap().tasks.len(), 1);
    assert_eq!(store.page(&ann, &done).await.unwrap().tasks.len(), 0);
    let toggle = TaskChange::completion(Completion::Toggle);
    let (all, now) = (TaskFilter::new(), sample.created_at);
    assert!(store.change(&ann, sample.id, &toggle, now).await.unwrap().is_some());
    let updated = store.update(&ann, sample.id, &toggle, &version(1), now).await.unwrap();
    assert!(matches!(updated, Outcome::Unmet(current) if current.version == 2));
    assert!(!store.add_all(&ann, &[task(&ann, 1)]).await.unwrap());
    assert!(store.add_all(&ann, &[task(&ann, 4), task(&ann, 5)]).await.unwrap());
    assert_eq!(store.number(&ann, &all).await.unwrap(), 3);
    assert_eq!(store.groups(&ann).await.unwrap().open, 2);
    assert_eq!(store.page(&ann, &TaskQuery::new().sort(Sort::Position)).await.unwrap().tasks.len(), 3);
    let changed = store.update_matching(&ann, &TaskFilter::new().completed(false), &toggle, now).await.unwrap();
    assert_eq!((changed.matched, changed.changed), (2, 2));
    let place = (sample.id, Position::new("a1").unwrap());
    assert_eq!(store.reposition(&ann, &[place], (sample.id, 2), now).await.unwrap().len(), 1);
    let some = TaskQuery::new().limit(Limit::new(1).unwrap());
    assert_eq!(store.page(&ann, &some).await.unwrap().tasks[0].id, task(&ann, 5).id);
    assert_eq!(store.delete(&ann, task(&ann, 5).id, &version(2)).await.unwrap(), Outcome::Done(()));
    assert!(store.remove(&ann, task(&ann, 4).id).await.unwrap());
    assert_eq!(store.changes(&ann, None, Limit::default()).await.unwrap().unwrap().changes.len(), 1);
    assert_eq!(store.revisions(std::slice::from_ref(&ann)).await.unwrap().len(), 1);
    assert_eq!(store.purge(&ann, Timestamp::from_unix_micros(i64::MAX), Limit::default()).await.unwrap(), 2);
    assert_eq!(store.delete_matching(&ann, &TaskFilter::new().completed(true)).await.unwrap(), 1);
    let key = IdempotencyKey::new("once").unwrap();
    let once = Creation { request: Some(Request { key, digest: [1; 16] }), max_tasks: Some(1) };
    assert_eq!(store.insert(&ann, &[task(&ann, 7)], &once).await.unwrap(), Insertion::Done);
    assert!(matches!(store.insert(&ann, &[task(&ann, 8)], &once).await.unwrap(), Insertion::Repeated(_)));
    assert!(store.remove(&ann, task(&ann, 7).id).await.unwrap());
    assert!(store.add(&ann, &sample).await.unwrap());
    assert!(store.remove(&ann, sample.id).await.unwrap());
    assert_eq!(store.erase(&ann).await.unwrap(), 0);
    let carol = UserId::new("carol").unwrap();
    assert!(store.add(&carol, &task(&carol, 3)).await.unwrap());
    assert_eq!(store.transfer(&carol, &ann).await.unwrap(), Transfer { moved: 1, remaining: 0 });
    assert_eq!(store.erase(&ann).await.unwrap(), 1);
    store.ping().await.unwrap();
}

/// A task that violates a constraint.
fn impossible(owner: &UserId) -> Task {
    Task { updated_at: Timestamp::from_unix_seconds(0), ..task(owner, 2) }
}

async fn bound(connection: &mut PgConnection) -> Option<String> {
    let bound = "select nullif(current_setting('todo.user_id', true), '')";
    sqlx::query_scalar(bound).fetch_one(connection).await.unwrap()
}

async fn no_owner_stays_bound_to_a_connection(secured: &RowSecurityDatabase) {
    run(secured.database.url(), EMPTY).await;
    // One connection, so that the test sees what a call leaves behind.
    let pool = PgPoolOptions::new().max_connections(1).connect(&secured.app).await.unwrap();
    let store = PostgresStore::new(pool.clone()).with_row_security();
    let ann = UserId::new("ann").unwrap();
    let backend = "select pg_backend_pid()";
    let before: i32 = sqlx::query_scalar(backend).fetch_one(&pool).await.unwrap();
    for _ in 0..2 {
        all_calls(&store).await;
        assert_eq!(bound(&mut pool.acquire().await.unwrap()).await, None);
        let refused = sqlx::query("select * from todo.tasks").fetch_all(&pool).await;
        assert!(is_denied(&refused), "{refused:?}");
        assert!(store.add(&ann, &impossible(&ann)).await.is_err());
        assert_eq!(bound(&mut pool.acquire().await.unwrap()).await, None);
        let refused = sqlx::query("select * from todo.tasks").fetch_all(&pool).await;
        assert!(is_denied(&refused), "{refused:?}");
    }
    assert_eq!(sqlx::query_scalar::<_, i32>(backend).fetch_one(&pool).await.unwrap(), before, "the same connection");
    pool.close().await;
}

async fn in_a_transaction_of_the_host_the_bound_owner_stays_the_same(secured: &RowSecurityDatabase) {
    run(secured.database.url(), EMPTY).await;
    let pool = PgPool::connect(&secured.app).await.unwrap();
    for host in [None, Some("bob")] {
        let mut transaction = pool.begin().await.unwrap();
        if let Some(host) = host {
            bind(&mut transaction, host).await;
        }
        let store = PostgresStore::new(pool.clone()).with_row_security().in_transaction(transaction);
        all_calls(&store).await;
        let mut transaction = store.take().await.unwrap();
        assert_eq!(bound(&mut transaction).await.as_deref(), host);

        // Also after a failed call, when the host has rolled back to a savepoint.
        let mut savepoint = transaction.begin().await.unwrap();
        let ann = UserId::new("ann").unwrap();
        let impossible = format!("select * from {}($1, gen_random_uuid(), -1, null)", function(secured, "list").await);
        let failed = sqlx::query(AssertSqlSafe(impossible)).bind(ann.as_str()).execute(&mut *savepoint).await;
        assert!(failed.unwrap_err().to_string().contains("LIMIT must not be negative"));
        savepoint.rollback().await.unwrap();
        assert_eq!(bound(&mut transaction).await.as_deref(), host);
        transaction.commit().await.unwrap();
    }
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_with_row_security_are_not_batched() {
    let secured = RowSecurityDatabase::migrated().await;
    assert!(!secured.store().is_batching());
    assert!(connect(&secured.app).is_batching());
    let options = CoalescingOptions::default().concurrent_reads(1).concurrent_writes(1);
    let store = CoalescingStore::with_options(secured.store(), &options);
    let owners: Vec<_> = (0..50).map(|number| UserId::new(format!("user {number}")).unwrap()).collect();
    let calls = owners.iter().map(|owner| {
        let store = &store;
        async move {
            assert!(store.add(owner, &task(owner, 1)).await.unwrap());
            assert_eq!(store.page(owner, &TaskQuery::default()).await.unwrap().tasks.len(), 1);
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!((store.status().joined, store.status().batches), (0, 0), "{:?}", store.status());
    secured.database.close().await;
}

async fn complaint(store: &PostgresStore) -> String {
    match store.check_tables().await {
        Err(StoreError::Setup(complaint)) => complaint.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_checks_name_every_mistake_in_roles_and_tables() {
    let mut secured = RowSecurityDatabase::empty().await;
    let store = secured.store();
    let superuser = secured.database.url().to_owned();
    assert!(complaint(&store).await.contains("does not exist"));
    assert!(complaint(&connect(&secured.app)).await.contains("does not exist"));

    // There are tables, but no row-level security and no privileges.
    let owner = connect(&secured.owner);
    owner.migrate().await.unwrap();
    assert!(complaint(&store).await.contains("not enabled and forced"));
    let owner = owner.with_row_security();
    owner.migrate().await.unwrap();
    assert!(complaint(&store).await.contains("lacks privileges"));
    assert!(store.ping().await.is_err());
    owner.grant_to(&secured.role("app")).await.unwrap();
    store.check_tables().await.unwrap();
    store.ping().await.unwrap();

    // The store and the tables do not agree, or the role is the wrong one.
    let without = connect(&secured.app);
    assert!(complaint(&without).await.contains("row-level security is enabled"));
    assert!(without.get(&UserId::new("ann").unwrap(), task(&UserId::new("ann").unwrap(), 1).id).await.is_err());
    assert!(complaint(&connect(&superuser).with_row_security()).await.contains("is a superuser"));
    connect(&superuser).check_tables().await.unwrap();
    let bypassing = secured.database.add_role("bypassing", "bypassrls").await;
    assert!(complaint(&connect(&bypassing).with_row_security()).await.contains("has BYPASSRLS"));
    assert!(complaint(&owner).await.contains("may disable row-level security"));
    let member = secured.database.add_role("member", &format!("in role {}", secured.role("owner"))).await;
    assert!(complaint(&connect(&member).with_row_security()).await.contains("may disable row-level security"));

    // Later changes.
    for (change, expected, repair) in [
        (
            "create policy support on todo.tasks using (true)",
            "another permissive policy",
            "drop policy support on todo.tasks",
        ),
        (
            "alter policy tasks_owner on todo.tasks using (true)",
            "are missing or were changed",
            "alter policy tasks_owner on todo.tasks using (user_id = todo.tasks_owner())",
        ),
        (
            "alter policy tasks_owner on todo.tasks with check (true)",
            "are missing or were changed",
            "alter policy tasks_owner on todo.tasks with check (user_id = todo.tasks_owner())",
        ),
        (
            "alter table todo.tasks no force row level security",
            "not enabled and forced",
            "alter table todo.tasks force row level security",
        ),
        (
            "alter table todo.tasks disable row level security",
            "not enabled and forced",
            "alter table todo.tasks enable row level security",
        ),
        (
            "alter table todo.tasks_owners disable row level security",
            "not enabled and forced",
            "alter table todo.tasks_owners enable row level security",
        ),
        (
            "alter policy tasks_owner on todo.tasks_deleted using (true)",
            "are missing or were changed",
            "alter policy tasks_owner on todo.tasks_deleted using (user_id = todo.tasks_owner())",
        ),
        (
            "create policy support on todo.tasks_owners using (true)",
            "another permissive policy",
            "drop policy support on todo.tasks_owners",
        ),
        (
            "revoke update on todo.tasks_owners from @app",
            "lacks privileges",
            "grant update on todo.tasks_owners to @app",
        ),
        (
            "revoke delete on todo.tasks_deleted from @app",
            "lacks privileges",
            "grant delete on todo.tasks_deleted to @app",
        ),
        ("revoke execute on function @erase from @app", "lacks privileges", "grant execute on function @erase to @app"),
        ("revoke delete on todo.tasks from @app", "lacks privileges", "grant delete on todo.tasks to @app"),
        ("revoke usage on schema todo from @app", "lacks privileges", "grant usage on schema todo to @app"),
        (
            "insert into todo.tasks_migrations (version, description, success, checksum, execution_time)
             values (99, 'of a newer version', true, '', 0)",
            "are at version 99",
            "delete from todo.tasks_migrations where version = 99",
        ),
    ] {
        let (app, erase) = (secured.role("app"), function(&secured, "erase").await);
        let run = async |statement: &str| {
            run(&superuser, &statement.replace("@app", &app).replace("@erase", &erase)).await;
        };
        run(change).await;
        let complaint = complaint(&store).await;
        assert!(complaint.contains(expected), "{change}: {complaint}");
        run(repair).await;
        store.check_tables().await.unwrap();
    }
    secured.database.close().await;
}

#[tokio::test]
async fn privileges_are_granted_to_one_role_only() {
    let mut secured = RowSecurityDatabase::migrated().await;
    let owner = connect(&secured.owner).with_row_security();
    // In quotes or not, `public` is every role.
    for name in ["public", "", "a\0b"] {
        let refused = owner.grant_to(name).await;
        assert!(
            matches!(&refused, Err(StoreError::Setup(mistake)) if mistake.to_string().contains("not the name")),
            "{name}"
        );
    }
    let refused = owner.grant_to("\"; drop table todo.tasks; --").await;
    assert!(
        matches!(&refused, Err(StoreError::Setup(mistake)) if mistake.to_string().contains("there is no role")),
        "{refused:?}"
    );
    all_calls(&secured.store()).await;
    // Servers that start at the same time.
    let grants = (0..8).map(|_| async {
        let owner = connect(&secured.owner).with_row_security();
        owner.grant_to(&secured.role("app")).await
    });
    for granted in futures_util::future::join_all(grants).await {
        granted.unwrap();
    }

    // A role with an unusual name.
    let stranger = secured.database.add_role("stranger", "").await;
    let odd = format!("{} \"odd\"; --", secured.role("stranger"));
    let rename = format!(r#"alter role {} rename to "{}""#, secured.role("stranger"), odd.replace('"', "\"\""));
    run(secured.database.url(), &rename).await;
    let options: PgConnectOptions = stranger.parse().unwrap();
    // Renaming removes the password.
    let password = format!(r#"alter role "{}" password 'secret'"#, odd.replace('"', "\"\""));
    run(secured.database.url(), &password).await;
    let pool = PgPool::connect_lazy_with(options.username(&odd).password("secret"));
    let store = PostgresStore::new(pool).with_row_security();
    assert!(store.ping().await.is_err(), "public may not call the functions");
    assert!(complaint(&store).await.contains("lacks privileges"));
    owner.grant_to(&odd).await.unwrap();
    store.check_tables().await.unwrap();
    all_calls(&store).await;
    assert_eq!(store.role().await.unwrap(), odd);
    let back = format!(r#"alter role "{}" rename to {}"#, odd.replace('"', "\"\""), secured.role("stranger"));
    run(secured.database.url(), &back).await;
    secured.database.close().await;
}

/// Placeholders of our SQL templates, and what they would become.
#[tokio::test]
async fn a_role_named_like_a_placeholder_gets_its_own_privileges() {
    let mut secured = RowSecurityDatabase::migrated().await;
    let owner = connect(&secured.owner).with_row_security();
    let superuser = secured.database.url().to_owned();
    for (number, (placeholder, value)) in
        [("{table}", "tasks"), ("{schema}", "todo"), ("{tasks}", "x"), ("{role}", "y")].into_iter().enumerate()
    {
        secured.database.add_role(value, "").await;
        secured.database.add_role(&format!("odd{number}"), "").await;
        let (plain, odd) = (secured.role(&format!("odd{number}")), secured.role(placeholder));
        run(&superuser, &format!(r#"alter role {plain} rename to "{odd}""#)).await;
        let granted = owner.grant_to(&odd).await;
        let mut connection = PgConnection::connect(&superuser).await.unwrap();
        let may = "select has_schema_privilege($1, 'todo', 'usage')";
        let mut may =
            async |role: &str| -> bool { sqlx::query_scalar(may).bind(role).fetch_one(&mut connection).await.unwrap() };
        let found = (may(&odd).await, may(&secured.role(value)).await);
        run(&superuser, &format!(r#"alter role "{odd}" rename to {plain}"#)).await;
        granted.unwrap();
        assert_eq!(found, (true, false), "{odd}");
    }
    secured.database.close().await;
}

#[tokio::test]
async fn tables_with_other_names_have_their_own_row_level_security() {
    let secured = RowSecurityDatabase::migrated().await;
    // The longest names, and keywords of SQL.
    for names in [Names::new("s".repeat(30), "t".repeat(30)).unwrap(), Names::new("select", "table").unwrap()] {
        let owner = connect(&secured.owner).with_row_security().with_names(names.clone());
        owner.migrate().await.unwrap();
        owner.grant_to(&secured.role("app")).await.unwrap();
        let store = connect(&secured.app).with_names(names.clone()).with_row_security();
        store.check_tables().await.unwrap();
        all_calls(&store).await;
        let pool = PgPool::connect(&secured.app).await.unwrap();
        let joined = store.in_transaction(pool.begin().await.unwrap());
        all_calls(&joined).await;
        joined.take().await.unwrap().rollback().await.unwrap();
        pool.close().await;
    }
    secured.database.close().await;
}

/// Row-level security does not apply to foreign keys.
#[tokio::test]
async fn a_table_of_the_host_may_refer_to_tasks() {
    let secured = RowSecurityDatabase::migrated().await;
    run(
        &secured.owner,
        "create table todo.reminders (user_id text, id uuid,
             foreign key (user_id, id) references todo.tasks on delete cascade)",
    )
    .await;
    let service = TodoService::new(secured.store());
    let ann = service.for_user(UserId::new("ann").unwrap());
    let task = ann.create(todo_core::NewTask::new(Title::new("Remind me").unwrap())).await.unwrap();
    run(&secured.owner, &format!("insert into todo.reminders values ('ann', '{}')", task.id)).await;
    ann.delete(task.id).await.unwrap();
    let mut connection = PgConnection::connect(&secured.owner).await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from todo.reminders").fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, 0);
    secured.database.close().await;
}

/// The functions always exist; row-level security is enabled only if it is asked for.
#[tokio::test]
async fn migrating_without_row_security_does_not_enable_it() {
    let database = todo_database().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let on = "select relrowsecurity or relforcerowsecurity from pg_class where oid = 'todo.tasks'::regclass";
    assert!(!sqlx::query_scalar::<_, bool>(on).fetch_one(&mut connection).await.unwrap());
    connect(database.url()).check_tables().await.unwrap();
    database.close().await;
}

/// What a trigger does with row-level security, whoever changes a task: the owner of the change is bound while it
/// works, and what was bound before is bound again.
#[tokio::test]
async fn triggers_work_for_a_superuser_and_for_a_role_that_binds_an_owner() {
    let secured = RowSecurityDatabase::migrated().await;
    let store = secured.store();
    let (ann, bob) = (UserId::new("ann").unwrap(), UserId::new("bob").unwrap());
    for owner in [&ann, &bob] {
        assert!(store.add_all(owner, &[task(owner, 1), task(owner, 2)]).await.unwrap());
    }
    let insert = "insert into todo.tasks (user_id, id, title, created_at, updated_at)
        values ('ann', gen_random_uuid(), 'From SQL', now(), now())";
    // A superuser changes tasks of both in one statement, with nobody bound and with somebody else.
    let mut superuser = PgConnection::connect(secured.database.url()).await.unwrap();
    for host in [None, Some("zoe")] {
        let before = store.revisions(&[ann.clone(), bob.clone()]).await.unwrap();
        let mut transaction = superuser.begin().await.unwrap();
        if let Some(host) = host {
            bind(&mut transaction, host).await;
        }
        for (statement, count) in [
            ("update todo.tasks set title = title || '!' where id = '00000000-0000-0000-0000-000000000001'", 2),
            (insert, 1),
        ] {
            let done = sqlx::query(statement).execute(&mut *transaction).await.unwrap();
            assert_eq!(done.rows_affected(), count);
            assert_eq!(bound(&mut transaction).await.as_deref(), host);
        }
        transaction.commit().await.unwrap();
        let after = store.revisions(&[ann.clone(), bob.clone()]).await.unwrap();
        assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
    }
    let changed = store.get(&bob, task(&bob, 1).id).await.unwrap().unwrap();
    assert_eq!((changed.title.as_str(), changed.version), ("Read the map!!", 3));
    run(secured.database.url(), "delete from todo.tasks where id = '00000000-0000-0000-0000-000000000002'").await;

    // The roles of the application and of the owner of the tables bind one owner.
    for url in [&secured.app, &secured.owner] {
        assert!(rows(url, "ann", "update todo.tasks set title = 'Mine ' || version").await.unwrap() > 0);
        assert_eq!(rows(url, "ann", insert).await.unwrap(), 1);
        assert_eq!(rows(url, "ann", "delete from todo.tasks where title = 'From SQL'").await.unwrap(), 1);
    }
    let page = store.changes(&ann, None, Limit::default()).await.unwrap().unwrap();
    assert_eq!(store.revisions(std::slice::from_ref(&ann)).await.unwrap(), [page.next.revision]);
    let mut counts: Vec<(String, i64, i64)> = sqlx::query_as(
        "select o.user_id, o.tasks, (select count(*) from todo.tasks_deleted as d where d.user_id = o.user_id)
         from todo.tasks_owners as o order by 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    let of_bob = counts.pop().unwrap();
    assert_eq!(of_bob, ("bob".to_owned(), 1, 1));
    let of_ann = counts.pop().unwrap();
    assert_eq!((of_ann.0.as_str(), of_ann.1, of_ann.2), ("ann", 3, 3), "the row and the tasks agree");
    assert_eq!(store.number(&ann, &TaskFilter::new()).await.unwrap(), 3);
    secured.database.close().await;
}
