//! What only PostgreSQL can do to revisions: changes by the SQL of a host, transactions that hold an owner, and locks.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use testkit::stores::{connect, todo_database};
use todo_core::{
    Limit, NewTask, Task, TaskFilter, TaskId, TaskQuery, Title, UserId,
    clock::{Clock as _, SystemClock, Timestamp},
    conformance::store::PlainCalls as _,
    store::{
        BatchStore as _, Change, CoalescingOptions, CoalescingStore, Completion, Creation, Outcome, PostgresOptions,
        PostgresStore, Precondition, Revision, TaskChange, TaskStore,
    },
};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn task(owner: &UserId, number: u128) -> Task {
    let id = TaskId::from(uuid::Uuid::from_u128(number));
    NewTask::new(Title::new("\u{c4}pfel").unwrap()).into_task(
        owner.clone(),
        id,
        Timestamp::from_unix_seconds(1_763_712_000),
    )
}

fn toggle() -> TaskChange {
    TaskChange::completion(Completion::Toggle)
}

async fn revision(store: &dyn TaskStore, owner: &UserId) -> Revision {
    store.revisions(std::slice::from_ref(owner)).await.unwrap()[0]
}

/// The changes of a host that knows nothing of revisions are noticed, one by one and many at once.
#[tokio::test]
async fn the_sql_of_a_host_moves_revisions_and_versions() {
    let database = todo_database().await;
    let store = connect(database.url());
    let (ann, bob) = (user("ann"), user("bob"));
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    for owner in [&ann, &bob] {
        assert!(store.add_all(owner, &[task(owner, 1), task(owner, 2), task(owner, 3)]).await.unwrap());
    }
    let start = store.changes(&ann, None, Limit::default()).await.unwrap().unwrap().next;
    let of_bob = revision(&store, &bob).await;
    let mut before = revision(&store, &ann).await;
    let mut expected = store.get(&ann, task(&ann, 1).id).await.unwrap().unwrap();
    for set in [
        "title = 'Pears'",
        "description = 'Ripe'",
        "completed = true",
        "completed = false",
        "priority = 3",
        "list = 'Home'",
        "tags = '{a}'",
        "position = 'a5'",
        "metadata = '{\"a\":1}'",
        "due = '2026-12-01', due_at = '2026-12-01'",
        "title = title, priority = 1",
    ] {
        let earliest = SystemClock.now();
        let update = format!("update todo.tasks set {set} where user_id = 'ann' and id = '{}'", expected.id);
        host.execute(sqlx::AssertSqlSafe(update)).await.unwrap();
        let after = revision(&store, &ann).await;
        let found = store.get(&ann, expected.id).await.unwrap().unwrap();
        assert!(after > before, "{set}");
        assert_eq!(found.version, expected.version + 1, "{set}");
        assert!(found.updated_at >= earliest && found.updated_at > expected.updated_at, "{set}");
        assert_eq!(found.completed_at.is_some(), found.completed, "{set}");
        if found.completed {
            assert_eq!(found.completed_at, Some(found.updated_at));
        }
        (before, expected) = (after, found);
    }
    // The search knows the new title.
    let pears = TaskFilter::new().text("pears");
    assert_eq!(store.number(&ann, &pears).await.unwrap(), 1);
    assert_eq!(store.number(&ann, &TaskFilter::new().text("\u{e4}pfel")).await.unwrap(), 2);
    // What a host sets itself stays.
    let update =
        "update todo.tasks set completed = true, completed_at = '2020-01-01Z', updated_at = '2030-01-01Z', version = 70
        where user_id = 'ann' and id = '00000000-0000-0000-0000-000000000002'";
    host.execute(update).await.unwrap();
    let found = store.get(&ann, task(&ann, 2).id).await.unwrap().unwrap();
    assert_eq!(
        (found.version, found.updated_at.to_string(), found.completed_at.unwrap().to_string()),
        (70, "2030-01-01T00:00:00.000000Z".to_owned(), "2020-01-01T00:00:00.000000Z".to_owned())
    );
    // Nothing is changed.
    before = revision(&store, &ann).await;
    host.execute("update todo.tasks set title = title, version = version where user_id = 'ann'").await.unwrap();
    assert_eq!(revision(&store, &ann).await, before);
    assert_eq!(revision(&store, &bob).await, of_bob);

    // Owners and ids do not change, and the table is not emptied behind everybody's back.
    for (refused, text) in [
        ("update todo.tasks set user_id = 'zoe' where user_id = 'ann'", "do not change"),
        ("update todo.tasks set id = gen_random_uuid() where user_id = 'ann'", "do not change"),
        ("truncate todo.tasks", "cannot be truncated"),
    ] {
        let error = host.execute(refused).await.unwrap_err();
        assert!(error.to_string().contains(text), "{refused}: {error}");
    }

    // Deletions and insertions of both owners in one statement.
    host.execute("delete from todo.tasks where id <> '00000000-0000-0000-0000-000000000001'").await.unwrap();
    host.execute(
        "insert into todo.tasks (user_id, id, title, created_at, updated_at)
         select owner, '00000000-0000-0000-0000-000000000003', 'Again', now(), now() from unnest(array['ann', 'bob', 'cem']) as owner",
    )
    .await
    .unwrap();
    let found = store.changes(&ann, Some(start), Limit::default()).await.unwrap().unwrap();
    let shown = found.changes.iter().map(|change| match change {
        Change::Task(task) => (task.id.as_uuid().as_u128(), Some(task.version)),
        Change::Deleted(id) => (id.as_uuid().as_u128(), None),
    });
    assert_eq!(shown.collect::<Vec<_>>(), [(1, Some(expected.version)), (2, None), (3, Some(2))]);
    assert_eq!(store.get(&user("cem"), task(&ann, 3).id).await.unwrap().unwrap().version, 1);
    let counts: Vec<(String, i64)> =
        sqlx::query_as("select user_id, tasks from todo.tasks_owners order by 1").fetch_all(&mut host).await.unwrap();
    assert_eq!(counts, [("ann", 2), ("bob", 2), ("cem", 1)].map(|(owner, count)| (owner.to_owned(), count)));
    store.close().await;
    database.close().await;
}

/// The library records revisions itself and marks them. Nobody else's rows pass for its own, whatever their revision:
/// neither copies, of old rows or of those of the same transaction, nor updates that set it.
#[tokio::test]
async fn rows_that_a_host_copies_with_their_revisions_are_counted_and_get_new_ones() {
    let database = todo_database().await;
    let store = connect(database.url());
    let (ann, bob, cem) = (user("ann"), user("bob"), user("cem"));
    for number in 1..=3 {
        assert!(store.add(&ann, &task(&ann, number)).await.unwrap());
        store.change(&ann, task(&ann, number).id, &toggle(), SystemClock.now()).await.unwrap().unwrap();
    }
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    let copy = |to: &str| {
        let columns = "id, title, completed, completed_at, created_at, updated_at, version, revision";
        sqlx::AssertSqlSafe(format!(
            "insert into todo.tasks (user_id, {columns}) select '{to}', {columns} from todo.tasks where user_id = 'ann'"
        ))
    };
    let even: i64 = sqlx::query_scalar("select count(*) from todo.tasks where user_id = 'ann' and revision % 2 = 0")
        .fetch_one(&mut host)
        .await
        .unwrap();
    assert_eq!(even, 3, "the library has marked what it has changed");
    host.execute(copy("bob")).await.unwrap();
    let pool = PgPool::connect(database.url()).await.unwrap();
    let joined = store.in_transaction(pool.begin().await.unwrap());
    joined.change(&ann, task(&ann, 2).id, &toggle(), SystemClock.now()).await.unwrap().unwrap();
    let mut transaction = joined.take().await.unwrap();
    transaction.execute(copy("cem")).await.unwrap();
    transaction.commit().await.unwrap();
    for owner in [&bob, &cem] {
        let changes = store.changes(owner, None, Limit::default()).await.unwrap().unwrap();
        assert_eq!(changes.changes.len(), 3, "{owner}");
        assert!(revision(&store, owner).await > Revision::new(0), "{owner}");
    }
    let of_tasks = "select max(revision) from todo.tasks where user_id = $1";
    for set in ["revision = revision + 2", "title = 'Pears', revision = revision", "title = 'Figs', revision = 8"] {
        let before = revision(&store, &bob).await;
        let since = store.changes(&bob, None, Limit::default()).await.unwrap().unwrap().next;
        let update = format!("update todo.tasks set {set} where user_id = 'bob'");
        host.execute(sqlx::AssertSqlSafe(update)).await.unwrap();
        let greatest: i64 = sqlx::query_scalar(of_tasks).bind("bob").fetch_one(&mut host).await.unwrap();
        assert!(revision(&store, &bob).await > before, "{set}");
        assert_eq!(revision(&store, &bob).await, Revision::new(greatest), "{set}");
        let changes = store.changes(&bob, Some(since), Limit::default()).await.unwrap().unwrap();
        assert_eq!(changes.changes.len(), 3, "{set}");
    }
    let counts: Vec<(String, i64, i64)> = sqlx::query_as(
        "select o.user_id, o.tasks, (select count(*) from todo.tasks as t where t.user_id = o.user_id)
         from todo.tasks_owners as o order by 1",
    )
    .fetch_all(&mut host)
    .await
    .unwrap();
    assert_eq!(counts, ["ann", "bob", "cem"].map(|owner| (owner.to_owned(), 3, 3)));
    pool.close().await;
    store.close().await;
    database.close().await;
}

/// A host copies tasks with their revisions: in a message of several statements or a `do` block that began before the
/// library wrote the tasks, and in a trigger that runs within a statement of the library. All copies are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn copies_within_a_long_message_and_by_a_trigger_are_counted() {
    let database = todo_database().await;
    let store = connect(database.url());
    let batching = CoalescingStore::with_options(store.clone(), &CoalescingOptions::default());
    let (ann, bob) = (user("ann"), user("bob"));
    assert!(store.add_all(&ann, &[task(&ann, 1), task(&ann, 2)]).await.unwrap());
    assert!(store.add(&bob, &task(&bob, 1)).await.unwrap());
    let columns = "title, completed, completed_at, created_at, updated_at, version, revision";
    let copies: String = ["ann", "bob", "cem"]
        .map(|to| {
            format!(
                "insert into todo.tasks (user_id, id, {columns}) select '{to}', gen_random_uuid(), {columns}
                 from todo.tasks where user_id = 'ann' and id = '{}';",
                task(&ann, 1).id
            )
        })
        .concat();
    let touches = "update todo.tasks as t set title = 'Copied', revision = s.revision from todo.tasks as s
        where s.user_id = 'ann' and s.id = '00000000-0000-0000-0000-000000000001' and t.user_id = 'bob';";
    let waiting =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'advisory')";
    let mut watch = PgConnection::connect(database.url()).await.unwrap();
    let mut counts = [2, 1, 0];
    for long in [
        format!("select pg_advisory_lock(7); {copies} {touches} select pg_advisory_unlock(7)"),
        format!("do $$ begin perform pg_advisory_lock(7); {copies} {touches} perform pg_advisory_unlock(7); end $$"),
    ] {
        watch.execute("select pg_advisory_lock(7)").await.unwrap();
        let mut host = PgConnection::connect(database.url()).await.unwrap();
        let message =
            tokio::spawn(async move { host.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(long))).await.map(drop) });
        while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut watch).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        batching.change(&ann, task(&ann, 1).id, &toggle(), SystemClock.now()).await.unwrap().unwrap();
        let mut before = Vec::new();
        for owner in [&ann, &bob, &user("cem")] {
            before.push(store.changes(owner, None, Limit::default()).await.unwrap().unwrap().next);
        }
        watch.execute("select pg_advisory_unlock(7)").await.unwrap();
        message.await.unwrap().unwrap();
        for (place, owner) in [&ann, &bob, &user("cem")].into_iter().enumerate() {
            // Nothing is known of an owner who had no task.
            let since = (counts[place] > 0).then_some(before[place]);
            counts[place] += 1;
            let changes = store.changes(owner, since, Limit::default()).await.unwrap().unwrap();
            // All tasks of Bob were touched.
            let expected = if place == 1 { counts[place] } else { 1 };
            assert_eq!(changes.changes.len(), expected, "{owner}");
            assert_eq!(counted(&mut watch, owner).await, (counts[place], counts[place]), "{owner}");
        }
    }

    watch
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "create function repeat() returns trigger language plpgsql as $$ begin
                insert into todo.tasks (user_id, id, {columns}) select new.user_id, gen_random_uuid(),
                    new.title, false, null, new.created_at, new.updated_at, new.version, new.revision;
                update todo.tasks set title = 'Seen', revision = new.revision where user_id = 'bob';
                return new;
             end $$;
             create trigger repeat after update on todo.tasks for each row
                when (new.completed and not old.completed) execute function repeat()"
        ))))
        .await
        .unwrap();
    for (place, store) in [&store as &dyn TaskStore, &batching].into_iter().enumerate() {
        let (id, now) = (task(&ann, 2).id, SystemClock.now());
        let of_bob = store.changes(&bob, None, Limit::default()).await.unwrap().unwrap().next;
        let of_ann = store.changes(&ann, None, Limit::default()).await.unwrap().unwrap().next;
        store.change(&ann, id, &TaskChange::completion(Completion::Set(true)), now).await.unwrap().unwrap();
        assert_eq!(store.changes(&ann, Some(of_ann), Limit::default()).await.unwrap().unwrap().changes.len(), 2);
        let changed_of_bob = store.changes(&bob, Some(of_bob), Limit::default()).await.unwrap().unwrap().changes.len();
        assert_eq!(changed_of_bob, counts[1], "{place}");
        counts[0] += 1;
        assert_eq!(counted(&mut watch, &ann).await, (counts[0], counts[0]), "{place}");
        store.change(&ann, id, &TaskChange::completion(Completion::Set(false)), now).await.unwrap().unwrap();
    }

    // A trigger that runs before the statement is done cannot change tasks of this owner: the call fails as a whole.
    let before = "drop trigger repeat on todo.tasks; create trigger repeat before update on todo.tasks for each row
        when (new.completed and not old.completed) execute function repeat()";
    watch.execute(sqlx::raw_sql(before)).await.unwrap();
    let (revision_before, now) = (revision(&store, &ann).await, SystemClock.now());
    let completion = TaskChange::completion(Completion::Set(true));
    store.change(&ann, task(&ann, 2).id, &completion, now).await.unwrap_err();
    assert_eq!(revision(&store, &ann).await, revision_before);
    assert_eq!(counted(&mut watch, &ann).await, (counts[0], counts[0]));
    store.close().await;
    database.close().await;
}

/// What the triggers of a host make of tasks is counted and seen too, whatever their names.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_triggers_of_a_host_do_is_counted() {
    let database = todo_database().await;
    let store = connect(database.url());
    let batching = CoalescingStore::with_options(store.clone(), &CoalescingOptions::default());
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    let define = |name: &str, when: &str, body: &str| {
        sqlx::AssertSqlSafe(format!(
            "create function {name}() returns trigger language plpgsql as $$ begin {body} end $$;
             create trigger {name} {when} on todo.tasks for each row execute function {name}()"
        ))
    };
    let (id, other) = (task(&user("ann"), 1).id, task(&user("ann"), 2).id);
    for first in ["a", "z"] {
        let ann = user(&format!("ann {first}"));
        assert!(store.add_all(&ann, &[task(&ann, 1), task(&ann, 2)]).await.unwrap());
        let changes = async |since| {
            let found = store.changes(&ann, Some(since), Limit::default()).await.unwrap().unwrap();
            (found.changes.len(), found.next)
        };
        let (_, start) = changes(store.changes(&ann, None, Limit::default()).await.unwrap().unwrap().next).await;
        let drop_trigger = |name: &str| sqlx::AssertSqlSafe(format!("drop function {name} cascade"));

        // It changes a row of which the statement has changed nothing.
        let name = format!("{first}_title");
        let body = "new.title := upper(new.title); return new;";
        host.execute(sqlx::raw_sql(define(&name, "before update", body))).await.unwrap();
        let update = "update todo.tasks set title = title where user_id = $1";
        sqlx::query(update).bind(ann.as_str()).execute(&mut host).await.unwrap();
        let (number, start) = changes(start).await;
        assert_eq!(number, 2, "{name}");
        host.execute(drop_trigger(&name)).await.unwrap();

        // It takes the revision back.
        let name = format!("{first}_keeps");
        let body = "new.revision := old.revision; return new;";
        host.execute(sqlx::raw_sql(define(&name, "before update", body))).await.unwrap();
        let mut start = start;
        for store in [&store as &dyn TaskStore, &batching] {
            store.change(&ann, id, &toggle(), SystemClock.now()).await.unwrap().unwrap();
            let change = store.update_matching(&ann, &TaskFilter::new(), &toggle(), SystemClock.now()).await.unwrap();
            assert_eq!(change.changed, 2);
            let (number, next) = changes(start).await;
            assert_eq!(number, 2, "{name}");
            start = next;
        }
        host.execute(drop_trigger(&name)).await.unwrap();

        // It deletes at once what is created under the id of a deleted task.
        assert!(store.remove(&ann, other).await.unwrap());
        let (number, start) = changes(start).await;
        assert_eq!(number, 1);
        let name = format!("{first}_cap");
        let body = "delete from todo.tasks where user_id = new.user_id and id = new.id; return null;";
        host.execute(sqlx::raw_sql(define(&name, "after insert", body))).await.unwrap();
        store.add(&ann, &task(&ann, 2)).await.unwrap();
        let found = store.changes(&ann, Some(start), Limit::default()).await.unwrap().unwrap();
        assert!(matches!(found.changes[..], [Change::Deleted(id)] if id == other), "{name}: {:?}", found.changes);
        assert_eq!(counted(&mut host, &ann).await, (1, 1), "{name}");
        host.execute(drop_trigger(&name)).await.unwrap();

        // It keeps a task that is erased.
        assert!(store.add(&ann, &task(&ann, 2)).await.unwrap());
        let name = format!("{first}_protects");
        let body = "return case when old.id = '00000000-0000-0000-0000-000000000001' then null else old end;";
        host.execute(sqlx::raw_sql(define(&name, "before delete", body))).await.unwrap();
        assert_eq!(store.erase(&ann).await.unwrap(), 1);
        assert_eq!(counted(&mut host, &ann).await, (1, 1), "{name}");
        store.change(&ann, id, &toggle(), SystemClock.now()).await.unwrap().unwrap();
        host.execute(drop_trigger(&name)).await.unwrap();

        // It adds a task when one is erased.
        let name = format!("{first}_log");
        let body = "insert into todo.tasks (user_id, id, title, created_at, updated_at)
            values (old.user_id, gen_random_uuid(), 'Deleted', now(), now()); return null;";
        host.execute(sqlx::raw_sql(define(&name, "after delete", body))).await.unwrap();
        assert_eq!(store.erase(&ann).await.unwrap(), 1);
        assert_eq!(counted(&mut host, &ann).await, (1, 1), "{name}");
        host.execute(drop_trigger(&name)).await.unwrap();

        // Somebody deletes the row of the owner.
        for (statement, expected) in [
            ("update todo.tasks set title = 'Still there' where user_id = $1", 1),
            (
                "insert into todo.tasks (user_id, id, title, created_at, updated_at)
                 values ($1, gen_random_uuid(), 'New', now(), now()), ($1, gen_random_uuid(), 'Newer', now(), now())",
                3,
            ),
        ] {
            sqlx::query("delete from todo.tasks_owners where user_id = $1")
                .bind(ann.as_str())
                .execute(&mut host)
                .await
                .unwrap();
            sqlx::query(statement).bind(ann.as_str()).execute(&mut host).await.unwrap();
            assert_eq!(counted(&mut host, &ann).await, (expected, expected), "{statement}");
        }
        assert_eq!(store.erase(&ann).await.unwrap(), 3);
        assert_eq!(revision(&store, &ann).await, Revision::new(0));
    }
    store.close().await;
    database.close().await;
}

/// The number of the owner's tasks by their row, and the number that there are.
async fn counted(connection: &mut PgConnection, owner: &UserId) -> (usize, usize) {
    let numbers =
        "select (select tasks from todo.tasks_owners where user_id = $1), count(*) from todo.tasks where user_id = $1";
    let (by_row, there): (i64, i64) = sqlx::query_as(numbers).bind(owner.as_str()).fetch_one(connection).await.unwrap();
    (by_row.try_into().unwrap(), there.try_into().unwrap())
}

/// A batch adds a task under the id of one that is deleted between the batch's snapshot and its lock: it leaves this
/// call out, since it would begin the versions again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_does_not_create_what_was_deleted_after_it_began() {
    let mut database = todo_database().await;
    let slow_url = database.add_role("slow", "").await;
    let store = connect(database.url());
    let ann = user("ann");
    assert!(store.add_all(&ann, &[task(&ann, 1), task(&ann, 2)]).await.unwrap());
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    // For this role, half a second passes before an owner is locked.
    let policies = format!(
        "grant usage on schema todo to {role}; grant all on all tables in schema todo to {role};
         drop policy tasks_owner on todo.tasks_owners;
         alter table todo.tasks_owners enable row level security;
         create policy slow on todo.tasks_owners to {role} using (pg_sleep(0.5) is not null)",
        role = format_args!("{}_slow", database.name())
    );
    host.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(policies))).await.unwrap();
    let slow = connect(&slow_url);
    let batch = tokio::spawn({
        let (slow, ann) = (slow.clone(), ann.clone());
        async move { slow.insert_many(&[(&ann, &task(&ann, 2), None)]).await.unwrap() }
    });
    let sleeps =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep')";
    while !batch.is_finished() && !sqlx::query_scalar::<_, bool>(sleeps).fetch_one(&mut host).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(store.remove(&ann, task(&ann, 2).id).await.unwrap());
    assert_eq!(batch.await.unwrap(), [false]);
    assert!(store.add(&ann, &task(&ann, 2)).await.unwrap());
    assert_eq!(store.get(&ann, task(&ann, 2).id).await.unwrap().unwrap().version, 2);
    slow.close().await;
    store.close().await;
    host.close().await.unwrap();
    database.close().await;
}

/// How long the test of locks runs, in seconds; `LOCK_SECONDS` sets more.
fn lock_seconds() -> u64 {
    std::env::var("LOCK_SECONDS").map_or(6, |seconds| seconds.parse().unwrap())
}

/// Single calls and batches of the same owners, and the calls of many tasks, for some seconds: PostgreSQL finds no
/// deadlock among them (it counts those that the store would repeat).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_the_same_owners_never_wait_for_each_other_in_a_circle() {
    let database = todo_database().await;
    let store = connect(database.url());
    let narrow = CoalescingOptions::default().concurrent_writes(2).concurrent_reads(2);
    let batching = CoalescingStore::with_options(store.clone(), &narrow);
    let owners: Vec<_> = (0..6).map(|number| user(&format!("user {number}"))).collect();
    for owner in &owners {
        let tasks: Vec<_> = (1..=8).map(|number| task(owner, number)).collect();
        assert!(store.add_all(owner, &tasks).await.unwrap());
    }
    let ends = Instant::now() + Duration::from_secs(lock_seconds());
    let calls = Arc::new(AtomicU64::new(0));
    let callers = (0..24_u64).map(|caller| {
        let (single, batching, owners, calls) = (store.clone(), batching.clone(), owners.clone(), calls.clone());
        tokio::spawn(async move {
            let mut number = caller;
            while Instant::now() < ends {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let place = usize::try_from(number >> 33).unwrap();
                let owner = &owners[place % owners.len()];
                let task = task(owner, 1 + (place / 7 % 8) as u128);
                let (now, always) = (SystemClock.now(), Precondition::default());
                let store: &dyn TaskStore = if caller % 3 == 0 { &single } else { &batching };
                match place / 64 % 24 {
                    0..8 => drop(store.update(owner, task.id, &toggle(), &always, now).await.unwrap()),
                    8..11 => {
                        drop(store.update(owner, task.id, &toggle(), &Precondition::version(3), now).await.unwrap());
                    }
                    11..14 => drop(store.add(owner, &task).await.unwrap()),
                    14..17 => drop(store.delete(owner, task.id, &always).await.unwrap()),
                    17 => drop(store.update_matching(owner, &TaskFilter::new(), &toggle(), now).await.unwrap()),
                    18 => {
                        let place = (task.id, task.position.clone());
                        store.reposition(owner, &[place], (task.id, 2), now).await.unwrap();
                    }
                    19 => drop(store.transfer(owner, &owners[(place + 1) % owners.len()]).await.unwrap()),
                    20 => drop(store.erase(owner).await.unwrap()),
                    21 => drop(store.purge(owner, now, Limit::default()).await.unwrap()),
                    22 => drop(store.delete_matching(owner, &TaskFilter::new().completed(true)).await.unwrap()),
                    _ => {
                        let several: Vec<_> = (1..=4).map(|number| self::task(owner, number)).collect();
                        store.insert(owner, &several, &Creation::default()).await.unwrap();
                    }
                }
                calls.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert!(batching.status().batches > 0 && calls.load(Ordering::Relaxed) > 200, "{:?}", batching.status());
    // A session reports what it has counted at its end.
    store.close().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    assert_eq!(deadlocks(&mut connection).await, 0);
    // The counts of the owners are those of their tasks.
    let wrong = "select count(*) from todo.tasks_owners as o
        where o.tasks <> (select count(*) from todo.tasks as t where t.user_id = o.user_id)";
    assert_eq!(sqlx::query_scalar::<_, i64>(wrong).fetch_one(&mut connection).await.unwrap(), 0);
    let without = "select count(*) from todo.tasks where user_id not in (select user_id from todo.tasks_owners)";
    assert_eq!(sqlx::query_scalar::<_, i64>(without).fetch_one(&mut connection).await.unwrap(), 0);
    // A task is there or deleted.
    let both = "select count(*) from todo.tasks join todo.tasks_deleted using (user_id, id)";
    assert_eq!(sqlx::query_scalar::<_, i64>(both).fetch_one(&mut connection).await.unwrap(), 0);
    database.close().await;
}

/// The number of deadlocks in the sessions of this database that have ended.
async fn deadlocks(connection: &mut PgConnection) -> i64 {
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        and backend_type = 'client backend'";
    let ends = Instant::now() + Duration::from_secs(20);
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut *connection).await.unwrap() > 0 {
        assert!(Instant::now() < ends, "other sessions have not ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    sqlx::query_scalar(deadlocks).fetch_one(connection).await.unwrap()
}

/// A host that locks a task before its owner can wait for a call in a circle. PostgreSQL ends the call, which has waited
/// first; the store repeats it, and the caller notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_waits_in_a_circle_with_the_sql_of_a_host_is_repeated() {
    let database = todo_database().await;
    let options = PostgresOptions::default().lock_timeout(None).statement_timeout(Duration::from_mins(1));
    let store = PostgresStore::connect_lazy(database.url(), &options).unwrap();
    let ann = user("ann");
    assert!(store.add(&ann, &task(&ann, 1)).await.unwrap());
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    let mut transaction = host.begin().await.unwrap();
    transaction.execute("select from todo.tasks where user_id = 'ann' for update").await.unwrap();
    let call = tokio::spawn({
        let (store, ann) = (store.clone(), ann.clone());
        async move { store.change(&ann, task(&ann, 1).id, &toggle(), SystemClock.now()).await }
    });
    let waits =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *transaction).await.unwrap() {
        // A transaction keeps what it has seen of the other sessions.
        transaction.execute("select pg_stat_clear_snapshot()").await.unwrap();
    }
    transaction.execute("update todo.tasks set title = 'Of the host' where user_id = 'ann'").await.unwrap();
    transaction.commit().await.unwrap();
    let changed = call.await.unwrap().unwrap().unwrap();
    assert_eq!((changed.version, changed.title.as_str(), changed.completed), (3, "Of the host", true));
    host.close().await.unwrap();
    store.close().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    assert_eq!(deadlocks(&mut connection).await, 1);
    database.close().await;
}

/// While a transaction of the host holds an owner, or has created one's first task, only the calls of this owner wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_that_holds_an_owner_delays_only_the_calls_of_this_owner() {
    let database = todo_database().await;
    let options = PostgresOptions::default().lock_timeout(None).statement_timeout(Duration::from_mins(1));
    let store = PostgresStore::connect_lazy(database.url(), &options).unwrap();
    let narrow = CoalescingOptions::default().concurrent_writes(1).concurrent_reads(1);
    let batching = CoalescingStore::with_options(store.clone(), &narrow);
    let owners: Vec<_> = (0..10).map(|number| user(&format!("user {number}"))).collect();
    for owner in &owners[..8] {
        assert!(store.add(owner, &task(owner, 1)).await.unwrap());
    }
    for hold in [
        "select from todo.tasks_owners where user_id = 'user 0' for update",
        "update todo.tasks set title = 'Of the host' where user_id = 'user 0'",
        "insert into todo.tasks (user_id, id, title, created_at, updated_at)
         values ('user 0', gen_random_uuid(), 'Of the host', now(), now())",
        // This owner is new.
        "insert into todo.tasks (user_id, id, title, created_at, updated_at)
         values ('user 8', gen_random_uuid(), 'The first', now(), now())",
    ] {
        let held = if hold.contains("user 8") { &owners[8] } else { &owners[0] };
        let mut host = PgConnection::connect(database.url()).await.unwrap();
        let mut transaction = host.begin().await.unwrap();
        transaction.execute(hold).await.unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let waiting = (0..4_u128).map(|number| {
            let (batching, held, is_over) = (batching.clone(), held.clone(), is_over.clone());
            tokio::spawn(async move {
                if number % 2 == 0 {
                    assert!(batching.add(&held, &task(&held, 100 + number)).await.unwrap());
                    batching.remove(&held, task(&held, 100 + number).id).await.unwrap();
                } else {
                    batching.change(&held, task(&held, 1).id, &toggle(), SystemClock.now()).await.unwrap();
                }
                is_over.load(Ordering::SeqCst)
            })
        });
        let waiting: Vec<_> = waiting.collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Many calls of the others, the first of a new owner among them.
        let others = owners[1..8].iter().chain(&owners[9..]).cycle().take(30).enumerate().map(|(number, owner)| {
            let batching = &batching;
            async move {
                let new = task(owner, 1000 + number as u128);
                assert!(batching.add(owner, &new).await.unwrap());
                assert!(batching.change(owner, new.id, &toggle(), SystemClock.now()).await.unwrap().is_some());
                assert!(!batching.page(owner, &TaskQuery::default()).await.unwrap().tasks.is_empty());
                assert!(batching.remove(owner, new.id).await.unwrap());
            }
        });
        tokio::time::timeout(Duration::from_secs(20), join_all(others)).await.expect("the others do not wait");
        // Reads of the held owner do not wait either.
        let query = TaskQuery::default();
        let read = batching.page(held, &query);
        tokio::time::timeout(Duration::from_secs(1), read).await.expect("a read does not wait").unwrap();
        is_over.store(true, Ordering::SeqCst);
        transaction.commit().await.unwrap();
        let mut waited = 0;
        for call in waiting {
            waited += usize::from(call.await.unwrap());
        }
        // A change of a task that this owner does not have need not wait.
        assert!(waited >= if held == &owners[8] { 2 } else { 4 }, "{hold}: {waited} have waited");
        host.close().await.unwrap();
    }
    store.close().await;
    database.close().await;
}

/// Whoever has seen a revision has seen every change up to it, however many write at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn followers_miss_nothing_while_others_write() {
    let database = todo_database().await;
    let store = connect(database.url());
    let batching = CoalescingStore::new(store.clone());
    let ann = user("ann");
    let is_over = Arc::new(AtomicBool::new(false));
    let writers = (0..8_u128).map(|writer| {
        let (store, single, ann) = (batching.clone(), store.clone(), ann.clone());
        tokio::spawn(async move {
            for round in 0..60_u128 {
                let id = task(&ann, writer * 4 + round % 4).id;
                let new = Task { id, ..task(&ann, 0) };
                match round % 5 {
                    0 | 1 => drop(store.add(&ann, &new).await.unwrap()),
                    2 | 3 => drop(store.change(&ann, id, &toggle(), SystemClock.now()).await.unwrap()),
                    _ => drop(single.remove(&ann, id).await.unwrap()),
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let followers = (1..=4_u16).map(|limit| {
        let (store, ann, is_over) = (store.clone(), ann.clone(), is_over.clone());
        tokio::spawn(async move { follow(&store, &ann, Limit::new(limit * 3).unwrap(), &is_over).await })
    });
    let followers: Vec<_> = followers.collect();
    for writer in writers {
        writer.await.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    let mut expected = store.page(&ann, &TaskQuery::new().limit(Limit::new(200).unwrap())).await.unwrap().tasks;
    expected.reverse();
    for follower in followers {
        assert_eq!(follower.await.unwrap(), expected);
    }
    store.close().await;
    database.close().await;
}

/// Follows the changes until all is over and known.
async fn follow(store: &PostgresStore, owner: &UserId, limit: Limit, is_over: &AtomicBool) -> Vec<Task> {
    let (mut since, mut tasks) = (None, std::collections::BTreeMap::new());
    loop {
        let was_over = is_over.load(Ordering::SeqCst);
        let Some(page) = store.changes(owner, since, limit).await.unwrap() else {
            (since, tasks) = (None, std::collections::BTreeMap::new());
            continue;
        };
        for change in page.changes {
            match change {
                Change::Task(task) => drop(tasks.insert(task.id, *task)),
                Change::Deleted(id) => drop(tasks.remove(&id)),
            }
        }
        since = Some(page.next);
        if was_over && !page.more {
            return tasks.into_values().collect();
        }
    }
}

/// A host that deletes a task and inserts it again in one statement has changed it. Clients do not lose it.
#[tokio::test]
async fn a_task_that_a_statement_deletes_and_inserts_again_is_changed() {
    let database = todo_database().await;
    let store = connect(database.url());
    let ann = user("ann");
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    assert!(store.add_all(&ann, &[task(&ann, 1), task(&ann, 2)]).await.unwrap());
    let id = task(&ann, 1).id;
    for (columns, version) in [("d.*", 2), ("user_id, id, title, created_at, updated_at", 3), ("d.*", 4)] {
        let start = store.changes(&ann, None, Limit::default()).await.unwrap().unwrap().next;
        let names = if columns == "d.*" { "" } else { columns };
        let statement = format!(
            "with d as (delete from todo.tasks where id = '{id}' returning *)
            insert into todo.tasks {} select {columns} from d",
            if names.is_empty() { String::new() } else { format!("({names})") },
        );
        host.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        let found = store.get(&ann, id).await.unwrap().unwrap();
        assert_eq!(found.version, version, "{columns}");
        let changes = store.changes(&ann, Some(start), Limit::default()).await.unwrap().unwrap().changes;
        assert!(matches!(&changes[..], [Change::Task(shown)] if **shown == found), "{columns}: {changes:?}");
        let left: (i64, i64) = sqlx::query_as(
            "select (select count(*) from todo.tasks_deleted), (select tasks from todo.tasks_owners where user_id = 'ann')",
        )
        .fetch_one(&mut host)
        .await
        .unwrap();
        assert_eq!(left, (0, 2), "{columns}");
    }
}

/// For each task, a trigger writes the row of its owner again. Thousands of versions of this row must not make that
/// slower: it reads as much of the table of owners for each task of many as for each of few.
#[tokio::test]
async fn many_tasks_of_an_owner_cost_in_proportion() {
    let database = todo_database().await;
    let store = connect(database.url());
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    let (few, many) = (300, 3000);
    for statement in [
        "insert into todo.tasks (user_id, id, title, created_at, updated_at)
            select $1, gen_random_uuid(), 'Pears', now(), now() from generate_series(1, $2)",
        "update todo.tasks set completed = true where user_id = $1 and $2 > 0",
        "delete from todo.tasks where user_id = $1 and $2 > 0",
    ] {
        let mut read = Vec::new();
        for (owner, count) in [("few", few), ("many", many)] {
            let mut transaction = host.begin().await.unwrap();
            let done = sqlx::query(statement).bind(owner).bind(count).execute(&mut *transaction).await.unwrap();
            assert_eq!(done.rows_affected(), u64::try_from(count).unwrap());
            let pages = "select pg_stat_get_xact_blocks_fetched('todo.tasks_owners'::regclass)
                + pg_stat_get_xact_blocks_fetched('todo.tasks_owners_pkey'::regclass)";
            read.push(sqlx::query_scalar::<_, i64>(pages).fetch_one(&mut *transaction).await.unwrap());
            transaction.commit().await.unwrap();
            let left = if statement.starts_with("delete") { 0 } else { count };
            let counted = "select tasks from todo.tasks_owners where user_id = $1";
            let counted: i64 = sqlx::query_scalar(counted).bind(owner).fetch_one(&mut host).await.unwrap();
            assert_eq!(counted, i64::from(left), "{statement}");
            assert_eq!(store.number(&user(owner), &TaskFilter::new()).await.unwrap(), u64::try_from(left).unwrap());
        }
        assert!(read[1] < read[0] * 15, "{read:?} pages for {few} and {many} tasks: {statement}");
    }
}

/// A host may change tasks in a transaction with another isolation level: it gets an error instead of a wrong revision.
#[tokio::test]
async fn a_repeatable_read_of_the_host_fails_rather_than_reuse_a_revision() {
    let database = todo_database().await;
    let store = connect(database.url());
    let ann = user("ann");
    assert!(store.add_all(&ann, &[task(&ann, 1), task(&ann, 2)]).await.unwrap());
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    let mut transaction = host.begin_with("begin isolation level repeatable read").await.unwrap();
    transaction.execute("select count(*) from todo.tasks").await.unwrap();
    let updated = store.update(&ann, task(&ann, 1).id, &toggle(), &Precondition::default(), SystemClock.now()).await;
    assert!(matches!(updated, Ok(Outcome::Done(_))));
    let failed =
        transaction.execute("update todo.tasks set title = 'Late' where id = '00000000-0000-0000-0000-000000000002'");
    let code = failed.await.unwrap_err().as_database_error().unwrap().code().unwrap().into_owned();
    assert_eq!(code, "40001");
    transaction.rollback().await.unwrap();
    store.close().await;
    database.close().await;
}
