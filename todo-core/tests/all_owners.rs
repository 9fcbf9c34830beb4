//! What an operator does for all owners: forgetting old deletions, and expiring what clients know after a restore.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{path::Path, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use testkit::stores::{RowSecurityDatabase, connect, todo_database};
use todo_core::{
    Limit, NewTask, Task, TaskId, Title, UserId,
    clock::{Clock as _, SystemClock, Timestamp},
    conformance::store::PlainCalls as _,
    store::{Change, Revision, SqliteStore, StoreError, SyncPoint, TaskStore},
};

/// More owners than one statement reads.
const OWNERS: u32 = 1100;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn task(owner: &UserId, number: u128) -> Task {
    let new = NewTask::new(Title::new("Read the map").unwrap());
    let id = TaskId::from(uuid::Uuid::from_u128(number));
    new.into_task(owner.clone(), id, Timestamp::from_unix_seconds(1_763_712_000))
}

fn now() -> Timestamp {
    SystemClock.now().plus(Duration::from_mins(1))
}

async fn beginning(store: &dyn TaskStore, owner: &UserId) -> SyncPoint {
    store.changes(owner, None, Limit::default()).await.unwrap().unwrap().next
}

/// How many changes are known since a point, if it can be continued.
async fn since(store: &dyn TaskStore, owner: &UserId, point: SyncPoint) -> Option<usize> {
    store.changes(owner, Some(point), Limit::default()).await.unwrap().map(|found| found.changes.len())
}

/// Every owner has deleted two tasks, and Ann has 450 deletions. Some are forgotten, and then the others.
async fn forgets_deletions(store: &dyn TaskStore, purge_all: impl AsyncFn(Timestamp) -> u64) {
    let (first, ann, last) = (user("0001"), user("ann"), user("1100"));
    let mut points = Vec::new();
    for owner in [&first, &last, &ann] {
        points.push(beginning(store, owner).await);
        store.add(owner, &task(owner, 1)).await.unwrap();
    }
    let middle = points.iter().map(|point| point.revision.get()).max().unwrap();
    assert_eq!(purge_all(Timestamp::from_unix_seconds(0)).await, 0);
    assert_eq!(since(store, &last, points[1]).await, Some(1));
    // Later deletions stay.
    for owner in [&first, &last] {
        store.remove(owner, task(owner, 1).id).await.unwrap();
    }
    let purged = purge_all(Timestamp::from_unix_micros(middle + 1)).await;
    assert_eq!(purged, u64::from(2 * OWNERS) + 450);
    assert_eq!(purge_all(Timestamp::from_unix_micros(middle + 1)).await, 0);
    for (owner, point) in [(&first, points[0]), (&last, points[1]), (&ann, points[2])] {
        assert_eq!(since(store, owner, point).await, Some(1), "{owner}: nothing later was forgotten");
    }
    assert_eq!(purge_all(now()).await, 2);
    assert_eq!(since(store, &last, points[1]).await, None);
    assert_eq!(since(store, &ann, points[2]).await, Some(1), "Ann has deleted nothing since");
}

/// A client that has seen changes that are lost begins again, and others who have none of them, too.
async fn expires_points(store: &dyn TaskStore, seen: SyncPoint, expire: impl AsyncFn() -> u64, owners: u64) {
    let ann = user("ann");
    let of_bob = beginning(store, &user("bob")).await;
    let before = store.revisions(&[ann.clone(), user("bob")]).await.unwrap();
    assert_eq!(since(store, &ann, seen).await, None, "the owner has not had this revision any more");
    assert_eq!(expire().await, owners);
    let after = store.revisions(&[ann.clone(), user("bob")]).await.unwrap();
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
    assert!(after[0] > seen.revision);
    assert_eq!(since(store, &ann, seen).await, None);
    assert_eq!(since(store, &user("bob"), of_bob).await, None);
    // Who begins now goes on.
    let start = beginning(store, &ann).await;
    store.add(&ann, &task(&ann, 50)).await.unwrap();
    assert_eq!(since(store, &ann, start).await, Some(1));
    assert_eq!(since(store, &ann, seen).await, None, "also once the owner has later revisions");
    assert_eq!(store.revisions(&[user("nobody")]).await.unwrap(), [Revision::default()]);
}

async fn sqlite(path: &Path) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap()
}

#[tokio::test]
async fn sqlite_forgets_the_deletions_of_all_owners() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open_lazy(&path);
    store.migrate().await.unwrap();
    let fill = format!(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < {OWNERS})
         insert into todo_tasks (user_id, id, title, created_at, updated_at)
         select printf('%04d', i), unhex(printf('%032x', 900 + k.k)), 'x', 0, 0 from n cross join (select 1 as k union select 2) as k;
         with recursive n (i) as (select 1 union all select i + 1 from n where i < 450)
         insert into todo_tasks (user_id, id, title, created_at, updated_at)
         select 'ann', unhex(printf('%032x', 1000 + i)), 'x', 0, 0 from n;
         delete from todo_tasks"
    );
    sqlite(&path).await.execute(sqlx::raw_sql(AssertSqlSafe(fill))).await.unwrap();
    forgets_deletions(&store, async |before| store.purge_all(before).await.unwrap()).await;
}

#[tokio::test]
async fn postgres_forgets_the_deletions_of_all_owners() {
    let database = todo_database().await;
    let store = connect(database.url());
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    let fill = format!(
        "insert into todo.tasks (user_id, id, title, created_at, updated_at)
         select lpad(i::text, 4, '0'), gen_random_uuid(), 'x', now(), now() from generate_series(1, {OWNERS}) i, generate_series(1, 2);
         insert into todo.tasks (user_id, id, title, created_at, updated_at)
         select 'ann', gen_random_uuid(), 'x', now(), now() from generate_series(1, 450);
         delete from todo.tasks"
    );
    host.execute(sqlx::raw_sql(AssertSqlSafe(fill))).await.unwrap();
    forgets_deletions(&store, async |before| store.purge_all(before).await.unwrap()).await;
    store.close().await;
    database.close().await;
}

/// A real restore: the file is replaced by an older copy.
#[tokio::test]
async fn after_a_restore_the_points_of_sqlite_can_be_expired() {
    let directory = tempfile::tempdir().unwrap();
    let [path, copy] = ["tasks.db", "copy.db"].map(|name| directory.path().join(name));
    let (store, ann, bob) = (SqliteStore::open_lazy(&path), user("ann"), user("bob"));
    store.migrate().await.unwrap();
    store.add(&ann, &task(&ann, 1)).await.unwrap();
    store.add(&bob, &task(&bob, 1)).await.unwrap();
    let backup = format!("vacuum into '{}'", copy.display());
    sqlite(&path).await.execute(sqlx::raw_sql(AssertSqlSafe(backup))).await.unwrap();
    store.add(&ann, &task(&ann, 2)).await.unwrap();
    let seen = beginning(&store, &ann).await;
    store.close().await;
    let store = SqliteStore::open_lazy(&copy);
    expires_points(&store, seen, async || store.expire_sync_points().await.unwrap(), 2).await;
    store.close().await;
}

/// As if the database had been restored: the last change of Ann is gone.
#[tokio::test]
async fn after_a_restore_the_points_of_postgres_can_be_expired() {
    const LOSE: &str = "begin; alter table todo.tasks disable trigger user;
        delete from todo.tasks where user_id = 'ann' and id = '00000000-0000-0000-0000-000000000002';
        update todo.tasks_owners set tasks = 1, revision = (select revision from todo.tasks where user_id = 'ann')
            where user_id = 'ann';
        alter table todo.tasks enable trigger user; commit";
    let database = todo_database().await;
    let (store, ann, bob) = (connect(database.url()), user("ann"), user("bob"));
    store.add(&bob, &task(&bob, 1)).await.unwrap();
    let others = format!(
        "insert into todo.tasks (user_id, id, title, created_at, updated_at)
         select lpad(i::text, 4, '0'), gen_random_uuid(), 'x', now(), now() from generate_series(1, {OWNERS}) i"
    );
    let mut host = PgConnection::connect(database.url()).await.unwrap();
    host.execute(sqlx::raw_sql(AssertSqlSafe(others))).await.unwrap();
    store.add(&ann, &task(&ann, 1)).await.unwrap();
    store.add(&ann, &task(&ann, 2)).await.unwrap();
    let seen = beginning(&store, &ann).await;
    host.execute(sqlx::raw_sql(LOSE)).await.unwrap();
    // Without it, this client would not notice that the second task is lost.
    let mut transaction = host.begin().await.unwrap();
    let joined = "insert into todo.tasks (user_id, id, title, created_at, updated_at)
        values ('ann', gen_random_uuid(), 'x', now(), now())";
    transaction.execute(joined).await.unwrap();
    let shown: i64 = sqlx::query_scalar("select revision from todo.tasks_owners where user_id = 'ann'")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    assert!(shown > seen.revision.get());
    transaction.rollback().await.unwrap();
    let owners = u64::from(OWNERS) + 2;
    expires_points(&store, seen, async || store.expire_sync_points().await.unwrap(), owners).await;
    store.close().await;
    database.close().await;
}

/// The role of a server does not see all owners, and is told so; neither does the owner of the tables.
#[tokio::test]
async fn with_row_level_security_only_an_operators_role_reaches_all_owners() {
    let secured = RowSecurityDatabase::migrated().await;
    let (store, ann) = (secured.store(), user("ann"));
    store.add(&ann, &task(&ann, 1)).await.unwrap();
    store.remove(&ann, task(&ann, 1).id).await.unwrap();
    let start = beginning(&store, &ann).await;
    for url in [&secured.app, &secured.owner] {
        for store in [connect(url), connect(url).with_row_security()] {
            for result in [store.purge_all(now()).await, store.expire_sync_points().await] {
                let Err(StoreError::Setup(mistake)) = result else { panic!("{result:?}") };
                assert!(mistake.to_string().contains("BYPASSRLS"), "{mistake}");
            }
            store.close().await;
        }
    }
    let operator = connect(secured.database.url());
    assert_eq!(operator.purge_all(now()).await.unwrap(), 1);
    assert_eq!(since(&store, &ann, start).await, Some(0));
    assert_eq!(operator.expire_sync_points().await.unwrap(), 1);
    assert_eq!(since(&store, &ann, start).await, None);
    let again = store.changes(&ann, None, Limit::default()).await.unwrap().unwrap();
    assert!(!again.changes.iter().any(|change| matches!(change, Change::Deleted(_))));
    operator.close().await;
    store.close().await;
    secured.database.close().await;
}
