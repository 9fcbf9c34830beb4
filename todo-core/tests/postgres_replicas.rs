//! [`ReplicatedStore`] with a primary and a standby, whose replay is paused, stopped and resumed.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]
#![expect(clippy::print_stdout, reason = "two tests print figures")]

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, PgPool};
use testkit::{
    postgres::{Server, Standby},
    proxy::{Proxy, Traffic},
    stores::connect,
};
use todo_core::{
    Error, Limit, NewTask, Task, TaskFilter, TaskId, TaskPatch, TaskQuery, Title, TodoService, UserId, UserTasks,
    api::{RESOURCES, TodoApi, find_resource},
    auth::JwtVerifier,
    clock::Jitter,
    store::{
        Change, CoalescingOptions, CoalescingStore, PostgresOptions, PostgresStore, Read, ReplicaStatus,
        ReplicatedStore, StoreError, SyncPoint, TaskStore,
    },
};
use tokio::{
    sync::OnceCell,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing_subscriber::fmt::MakeWriter;

const SECRET: &str = "a secret of thirty-two bytes or more";

/// A primary and a standby.
struct Cluster {
    primary: Server,
    standby: Standby,
}

impl Cluster {
    async fn start() -> Self {
        let primary = Server::start_local("wal_level = replica\nhot_standby = on").await.unwrap();
        let primary = primary.expect("PostgreSQL (install it with scripts/setup)");
        connect(primary.url()).migrate().await.unwrap();
        let (primary, standby) = tokio::task::spawn_blocking(|| {
            let standby = Standby::of(&primary);
            (primary, standby)
        })
        .await
        .unwrap();
        Self { primary, standby: standby.unwrap() }
    }

    /// A server of ours that reads from the standby.
    async fn server(&self, batching: bool) -> Replicated {
        Replicated::start(self.primary.url(), self.standby.url(), batching).await
    }

    /// Stops the replay of the standby, which responds to reads.
    async fn pause(&self) {
        statement(self.standby.url(), "select pg_wal_replay_pause()").await;
        is_true(self.standby.url(), "select pg_get_wal_replay_pause_state() = 'paused'").await;
    }

    async fn resume(&self) {
        statement(self.standby.url(), "select pg_wal_replay_resume()").await;
    }

    /// Waits until the standby has everything that the primary has now.
    async fn caught_up(&self) {
        let mut connection = PgConnection::connect(self.primary.url()).await.unwrap();
        let position: String =
            sqlx::query_scalar("select pg_current_wal_insert_lsn()::text").fetch_one(&mut connection).await.unwrap();
        is_true(self.standby.url(), &format!("select pg_last_wal_replay_lsn() >= '{position}'")).await;
    }
}

async fn statement(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

/// Waits until a query is true.
async fn is_true(url: &str, query: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let look = async {
        while !sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), look).await.expect(query);
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let look = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), look).await.expect(what);
}

/// A store with a replica, as a server has it.
struct Replicated {
    store: ReplicatedStore,
    service: TodoService,
    watch: JoinHandle<()>,
}

impl Drop for Replicated {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Replicated {
    /// Waits until the replica is read. It is, however far it is behind.
    async fn start(primary: &str, replica: &str, batching: bool) -> Self {
        let server = Self::open(connect(primary), replica_at(replica), batching, Duration::from_hours(1));
        server.is_read().await;
        server
    }

    fn open(primary: PostgresStore, replica: PostgresStore, batching: bool, max_lag: Duration) -> Self {
        let store = if batching {
            ReplicatedStore::new(narrow(primary), [narrow(replica)])
        } else {
            ReplicatedStore::new(primary, [replica])
        };
        let store = store.with_max_lag(max_lag);
        let watched = store.clone();
        let watch = tokio::spawn(async move { watched.watch().await });
        let service = TodoService::new(store.clone()).with_user_limits(None);
        Self { store, service, watch }
    }

    fn tasks(&self, owner: &str) -> UserTasks<'_> {
        self.service.for_user(user(owner))
    }

    fn status(&self) -> ReplicaStatus {
        self.store.status()
    }

    async fn is_read(&self) {
        until("the replica is read", || self.status().usable == 1).await;
    }

    async fn is_not_read(&self) {
        until("the replica is not read", || self.status().usable == 0).await;
    }

    fn api(&self) -> TodoApi {
        TodoApi::new(self.service.clone(), JwtVerifier::hs256(SECRET).unwrap())
    }
}

/// One read and one write at a time, so that nearly all concurrent calls are batched.
fn narrow(store: PostgresStore) -> CoalescingStore<PostgresStore> {
    let options = CoalescingOptions::default().concurrent_reads(1).concurrent_writes(1);
    CoalescingStore::with_options(store, &options)
}

fn replica_at(url: &str) -> PostgresStore {
    PostgresStore::connect_lazy(url, &PostgresOptions::default().read_only()).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn title(text: &str) -> Title {
    Title::new(text).unwrap()
}

fn renamed(text: &str) -> TaskPatch {
    TaskPatch { title: Some(title(text)), ..TaskPatch::default() }
}

async fn titles(tasks: &UserTasks<'_>) -> Vec<String> {
    let page = tasks.list(&TaskQuery::new()).await.unwrap();
    page.tasks.iter().map(|task| task.title.to_string()).collect()
}

async fn changed(tasks: &UserTasks<'_>, since: Option<SyncPoint>) -> Vec<Change> {
    tasks.changes(since, Limit::default()).await.unwrap().expect("the client can go on").changes
}

async fn call(api: &TodoApi, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Response<Bytes> {
    let claims = json!({"sub": "ann", "exp": testkit::tokens::now() + 60});
    let token = testkit::tokens::secret_token(SECRET.as_bytes(), &claims);
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let resource = find_resource(RESOURCES, path.split('?').next().unwrap()).unwrap();
    let response = api.respond(resource, request.body(Full::<Bytes>::from(body)).unwrap()).await;
    response.map(|body| body.into_bytes().unwrap())
}

fn etag(response: &Response<Bytes>) -> String {
    response.headers()["etag"].to_str().unwrap().to_owned()
}

mod conformance {
    use super::*;

    /// A cluster for all cases, whose standby is always some milliseconds behind. Each case has a database of its own.
    async fn with_store(case: impl AsyncFnOnce(Arc<dyn TaskStore>)) {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let cluster = SHARED
            .get_or_init(async || {
                let cluster = Cluster::start().await;
                statement(cluster.standby.url(), "alter system set recovery_min_apply_delay = '30ms'").await;
                statement(cluster.standby.url(), "select pg_reload_conf()").await;
                cluster
            })
            .await;
        let name = format!("case_{}", NUMBER.fetch_add(1, SeqCst));
        statement(cluster.primary.url(), &format!("create database {name}")).await;
        let of_case =
            |url: &str| url.strip_suffix("/postgres").expect("the database postgres").to_owned() + "/" + &name;
        let (primary, standby) = (of_case(cluster.primary.url()), of_case(cluster.standby.url()));
        connect(&primary).migrate().await.unwrap();
        cluster.caught_up().await;
        let server = Replicated::start(&primary, &standby, true).await;
        case(Arc::new(server.store.clone())).await;
        drop(server);
        statement(cluster.primary.url(), &format!("drop database {name} with (force)")).await;
    }

    todo_core::store_conformance!(with_store);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_stay_see_their_writes_while_the_replica_is_behind() {
    let cluster = Cluster::start().await;
    for batching in [false, true] {
        let server = cluster.server(batching).await;
        let tasks = server.tasks(if batching { "bob" } else { "ann" });
        let first = tasks.create(NewTask::new(title("first"))).await.unwrap();
        cluster.caught_up().await;
        // The first read settles what the owner has; from then on the replica is read.
        for _ in 0..3 {
            assert_eq!(tasks.get(first.id).await.unwrap(), first);
        }
        assert_eq!(titles(&tasks).await, ["first"]);
        assert_eq!((server.status().from_replica, server.status().behind), (3, 0), "{:?}", server.status());

        cluster.pause().await;
        let second = tasks.create(NewTask::new(title("second"))).await.unwrap();
        assert_eq!(titles(&tasks).await, ["second", "first"]);
        assert_eq!(titles(&tasks).await, ["second", "first"], "the replica was asked, and the primary then");
        assert_eq!(tasks.get(second.id).await.unwrap(), second);
        assert_eq!(tasks.count(&TaskFilter::new()).await.unwrap(), 2);
        assert_eq!(tasks.summary().await.unwrap().total, 2);
        assert_eq!(changed(&tasks, None).await.len(), 2);
        assert!(server.status().behind >= 5, "{:?}", server.status());

        let done = tasks.set_completed(first.id, true).await.unwrap();
        assert_eq!(tasks.get(first.id).await.unwrap(), done);
        assert_eq!(tasks.get(first.id).await.unwrap(), done);
        assert_eq!(tasks.count(&TaskFilter::new().completed(true)).await.unwrap(), 1);
        tasks.delete(second.id).await.unwrap();
        assert!(matches!(tasks.get(second.id).await, Err(Error::TaskNotFound)));
        assert!(matches!(tasks.get(second.id).await, Err(Error::TaskNotFound)));
        assert_eq!(titles(&tasks).await, ["first"]);

        // An owner without a revision is never read from the replica, which still has the tasks.
        tasks.erase().await.unwrap();
        for _ in 0..3 {
            assert!(titles(&tasks).await.is_empty());
            assert!(matches!(tasks.get(first.id).await, Err(Error::TaskNotFound)));
            assert!(changed(&tasks, None).await.is_empty());
            assert_eq!(tasks.summary().await.unwrap().total, 0);
        }
        tasks.create(NewTask::new(title("again"))).await.unwrap();
        for _ in 0..3 {
            assert_eq!(titles(&tasks).await, ["again"]);
        }

        cluster.resume().await;
        cluster.caught_up().await;
        let before = server.status();
        for _ in 0..10 {
            assert_eq!(titles(&tasks).await, ["again"]);
        }
        assert_eq!(server.status().from_replica, before.from_replica + 10, "the replica is read again");
        assert_eq!((before.failed, server.status().failed), (0, 0));
    }
}

/// The moment before the erasure is known to the replica, and unknown to this server.
#[tokio::test(flavor = "multi_thread")]
async fn erased_tasks_do_not_come_back_from_a_replica_that_has_seen_more_than_this_server() {
    let cluster = Cluster::start().await;
    let (server, other) = (cluster.server(false).await, cluster.server(false).await);
    let tasks = server.tasks("ann");
    tasks.create(NewTask::new(title("first"))).await.unwrap();
    assert_eq!(titles(&tasks).await, ["first"]);
    other.tasks("ann").create(NewTask::new(title("second"))).await.unwrap();
    cluster.caught_up().await;
    cluster.pause().await;
    tasks.erase().await.unwrap();
    for _ in 0..3 {
        assert!(titles(&tasks).await.is_empty());
    }
    // The other server has not seen the erasure.
    assert_eq!(titles(&other.tasks("ann")).await, Vec::<String>::new(), "its first read goes to the primary");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_says_what_it_knows_gets_no_less_from_another_server() {
    /// What a caller brings from the first server.
    #[derive(Debug, Clone, Copy)]
    enum Brings {
        Nothing,
        List,
        Count,
        Summary,
        Changes,
        Poll,
        Refresh,
    }

    let cluster = Cluster::start().await;
    let (one, other) = (cluster.server(false).await, cluster.server(true).await);
    let all =
        [Brings::Nothing, Brings::List, Brings::Count, Brings::Summary, Brings::Changes, Brings::Poll, Brings::Refresh];
    for brings in all {
        let owner = format!("{brings:?}");
        let task = one.tasks(&owner).create(NewTask::new(title("old"))).await.unwrap();
        cluster.caught_up().await;
        let tasks = other.tasks(&owner);
        // Settles the owner.
        assert_eq!(titles(&tasks).await, ["old"]);
        cluster.pause().await;
        let new = one.tasks(&owner).patch(task.id, renamed("new")).await.unwrap();
        let Read::Changed { revision, .. } = one.tasks(&owner).list_if_changed(&TaskQuery::new(), None).await.unwrap()
        else {
            panic!("nothing was known")
        };
        let point = one.tasks(&owner).changes(None, Limit::default()).await.unwrap().unwrap().next;
        assert_eq!(titles(&tasks).await, ["old"], "{brings:?}: the replica is behind, and the caller brings nothing");
        let known = Some(revision);
        match brings {
            Brings::Nothing => {}
            Brings::List => {
                assert_eq!(tasks.list_if_changed(&TaskQuery::new(), known).await.unwrap(), Read::Unchanged);
            }
            Brings::Count => {
                assert_eq!(tasks.count_if_changed(&TaskFilter::new(), known).await.unwrap(), Read::Unchanged);
            }
            Brings::Summary => assert_eq!(tasks.summary_if_changed(known).await.unwrap(), Read::Unchanged),
            Brings::Changes => assert_eq!(changed(&tasks, Some(point)).await, []),
            // As the streams of events do.
            Brings::Poll => assert_eq!(other.store.revisions(&[user(&owner)]).await.unwrap(), [revision]),
            Brings::Refresh => tasks.refresh(),
        }
        let expected = if let Brings::Nothing = brings { "old" } else { "new" };
        for _ in 0..3 {
            assert_eq!(titles(&tasks).await, [expected], "{brings:?}");
            assert_eq!(tasks.get(task.id).await.unwrap().title.as_str(), expected, "{brings:?}");
        }
        if expected == "new" {
            assert_eq!(tasks.get(task.id).await.unwrap(), new);
        }
        cluster.resume().await;
    }
    assert!(other.status().from_replica >= 7 && other.status().behind >= 6, "{:?}", other.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_tag_from_another_server_is_honoured() {
    let cluster = Cluster::start().await;
    let (one, other) = (cluster.server(false).await, cluster.server(false).await);
    let (one, other) = (one.api(), other.api());
    let mut path = String::new();
    for number in 0..8 {
        // Each time, the caller has an old and a new version, and the second server has the old one from the replica.
        let old =
            call(&one, "POST", "/tasks", &[], &json!({"title": number.to_string(), "metadata": {"old": 1}})).await;
        let id = serde_json::from_slice::<Value>(old.body()).unwrap()["id"].as_str().unwrap().to_owned();
        path = format!("/tasks/{id}");
        cluster.caught_up().await;
        let of_old = etag(&call(&other, "GET", "/tasks", &[], &Value::Null).await);
        cluster.pause().await;
        let new = call(&one, "PATCH", &path, &[], &json!({"title": "new"})).await;
        let (version, new) = (etag(&new), serde_json::from_slice::<Value>(new.body()).unwrap());
        let tag = etag(&call(&one, "GET", "/tasks", &[], &Value::Null).await);
        // In the cache of the second server, too.
        let stale = call(&other, "GET", "/tasks", &[], &Value::Null).await;
        assert_eq!((etag(&stale), stale.status()), (of_old, StatusCode::OK), "the second server reads the replica");
        assert_ne!(etag(&stale), tag);
        let stale = call(&other, "GET", &path, &[], &Value::Null).await;
        assert_eq!(etag(&stale), "\"1\"", "the second server reads the replica");
        match number {
            0 => {
                let list = call(&other, "GET", "/tasks", &[("if-none-match", &tag)], &Value::Null).await;
                assert_eq!(list.status(), StatusCode::NOT_MODIFIED);
            }
            1 => {
                let both = format!("{}, {tag}", etag(&call(&other, "GET", "/tasks", &[], &Value::Null).await));
                let list = call(&other, "GET", "/tasks", &[("if-none-match", &both)], &Value::Null).await;
                assert_eq!((list.status(), etag(&list)), (StatusCode::NOT_MODIFIED, tag));
            }
            2 => {
                let task = call(&other, "GET", &path, &[("if-none-match", &version)], &Value::Null).await;
                assert_eq!(task.status(), StatusCode::NOT_MODIFIED);
            }
            3 => {
                let task = call(&other, "GET", &path, &[("if-match", &version)], &Value::Null).await;
                assert_eq!((task.status(), etag(&task)), (StatusCode::OK, version));
            }
            // Changes that read before they write.
            4 => {
                let body = json!({"metadata": {"new": 2}});
                let task = call(&other, "PATCH", &path, &[("if-match", &version)], &body).await;
                assert_eq!(task.status(), StatusCode::OK, "{task:?}");
            }
            5 => {
                let body = json!({"title": "newer", "updated_at": new["updated_at"]});
                let task = call(&other, "PATCH", &path, &[], &body).await;
                assert_eq!(task.status(), StatusCode::OK, "{task:?}");
            }
            6 => {
                let moved = format!("{path}/move");
                let task = call(&other, "POST", &moved, &[("if-match", &version)], &json!({"first": true})).await;
                assert_eq!(task.status(), StatusCode::OK, "{task:?}");
            }
            _ => {
                // The owner's first task on the second server after the deletion of all tasks.
                let changes = call(&one, "GET", "/tasks/changes", &[], &Value::Null).await;
                let token = serde_json::from_slice::<Value>(changes.body()).unwrap()["next"].clone();
                let since = format!("/tasks/changes?since={}", token.as_str().unwrap());
                let changes = call(&other, "GET", &since, &[], &Value::Null).await;
                assert_eq!(changes.status(), StatusCode::OK, "{changes:?}");
            }
        }
        let task = call(&other, "GET", &path, &[], &Value::Null).await;
        assert_ne!(etag(&task), "\"1\"", "{number}: the second server does not go back");
        cluster.resume().await;
    }
    // A tag that nobody has given.
    cluster.caught_up().await;
    let forged = call(&other, "GET", &path, &[("if-none-match", "\"99\"")], &Value::Null).await;
    assert_eq!(forged.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_the_replica_does_not_have_yet_is_found() {
    let cluster = Cluster::start().await;
    let (one, other) = (cluster.server(false).await, cluster.server(true).await);
    one.tasks("ann").create(NewTask::new(title("first"))).await.unwrap();
    cluster.caught_up().await;
    assert_eq!(titles(&other.tasks("ann")).await, ["first"]);
    cluster.pause().await;
    let second = one.tasks("ann").create(NewTask::new(title("second"))).await.unwrap();
    assert_eq!(titles(&other.tasks("ann")).await, ["first"], "the replica is behind");
    assert_eq!(other.tasks("ann").get(second.id).await.unwrap(), second);
    assert_eq!(titles(&other.tasks("ann")).await, ["second", "first"], "and is not read after that");
    // The ends of the range of ids.
    for id in [uuid::Uuid::nil(), uuid::Uuid::max()] {
        assert!(matches!(other.tasks("ann").get(TaskId::from(id)).await, Err(Error::TaskNotFound)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_has_committed_itself_is_read_at_once() {
    let cluster = Cluster::start().await;
    let pool = PgPool::connect(cluster.primary.url()).await.unwrap();
    let server = cluster.server(false).await;
    let tasks = server.tasks("ann");
    tasks.create(NewTask::new(title("first"))).await.unwrap();
    cluster.caught_up().await;
    assert_eq!(titles(&tasks).await, ["first"]);
    cluster.pause().await;
    let joined = connect(cluster.primary.url()).in_transaction(pool.begin().await.unwrap());
    let (sender, events) = std::sync::mpsc::channel();
    let service = server.service.with_store(joined.clone()).with_observer(move |event| sender.send(event).unwrap());
    let in_transaction = service.for_user(user("ann"));
    let second = in_transaction.create(NewTask::new(title("second"))).await.unwrap();
    // The transaction reads what it has written, and nobody else does.
    assert_eq!(titles(&in_transaction).await, ["second", "first"]);
    assert_eq!(in_transaction.get(second.id).await.unwrap(), second);
    assert_eq!(titles(&tasks).await, ["first"]);
    joined.take().await.unwrap().commit().await.unwrap();
    for event in events.try_iter() {
        server.service.observe(event);
    }
    assert_eq!(titles(&tasks).await, ["second", "first"]);
}

mod random_lag {
    use super::*;

    const OWNERS: usize = 3;

    /// What one server has shown of each owner at least: the number in the title, and the number of tasks.
    #[derive(Default)]
    struct Shown([(AtomicI64, AtomicI64); OWNERS]);

    struct World {
        servers: [Replicated; 2],
        shown: [Shown; 2],
        tasks: Vec<TaskId>,
        is_over: AtomicBool,
        reads: AtomicUsize,
    }

    fn number(task: &Task) -> i64 {
        task.title.as_str().parse().unwrap()
    }

    impl World {
        fn tasks(&self, server: usize, owner: usize) -> UserTasks<'_> {
            self.servers[server].tasks(&format!("owner {owner}"))
        }

        async fn write(&self, owner: usize, random: &Random) {
            let (mut renames, mut creations) = (0, 1);
            while !self.is_over.load(SeqCst) {
                let server = random.below(2);
                let tasks = self.tasks(server, owner);
                if random.below(4) == 0 {
                    tasks.create(NewTask::new(title("-1"))).await.unwrap();
                    creations += 1;
                    self.shown[server].0[owner].1.fetch_max(creations, SeqCst);
                } else {
                    renames += 1;
                    tasks.patch(self.tasks[owner], renamed(&renames.to_string())).await.unwrap();
                    self.shown[server].0[owner].0.fetch_max(renames, SeqCst);
                }
                sleep(Duration::from_millis(random.below(60) as u64)).await;
            }
        }

        async fn read(&self, random: &Random) {
            // Clients that follow the changes, now here, now there.
            let mut clients = [(None::<SyncPoint>, -1, 0); OWNERS];
            while !self.is_over.load(SeqCst) {
                let (server, owner) = (random.below(2), random.below(OWNERS));
                let (tasks, id) = (self.tasks(server, owner), self.tasks[owner]);
                let shown = &self.shown[server].0[owner];
                let (least_number, least_count) = (shown.0.load(SeqCst), shown.1.load(SeqCst));
                let kind = random.below(5);
                let case = format!("server {server}, owner {owner}, kind {kind}");
                let (found, count) = match kind {
                    0 => (Some(number(&tasks.get(id).await.unwrap())), None),
                    1 => {
                        let query = TaskQuery::new().limit(Limit::new(Limit::MAX).unwrap());
                        let page = tasks.list(&query).await.unwrap();
                        let task = page.tasks.iter().find(|task| task.id == id).map(number);
                        (task, page.next.is_none().then_some(page.tasks.len() as u64))
                    }
                    2 => (None, Some(tasks.count(&TaskFilter::new()).await.unwrap())),
                    3 => (None, Some(tasks.summary().await.unwrap().total)),
                    _ => {
                        let (since, known, count) = &mut clients[owner];
                        let changes = tasks.changes(*since, Limit::new(Limit::MAX).unwrap()).await.unwrap();
                        let changes = changes.unwrap_or_else(|| panic!("{case}: a client has to begin again"));
                        *since = Some(changes.next);
                        for change in changes.changes {
                            let Change::Task(task) = change else { continue };
                            if task.id == id {
                                assert!(number(&task) >= *known, "{case}: {} after {known}", number(&task));
                                *known = number(&task);
                            } else {
                                *count += 1;
                            }
                        }
                        // What the client has now.
                        (Some(*known), (!changes.more).then_some(*count + 1))
                    }
                };
                if let Some(found) = found {
                    assert!(found >= least_number, "{case}: {found} after {least_number}");
                    shown.0.fetch_max(found, SeqCst);
                }
                if let Some(count) = count.map(|count| i64::try_from(count).unwrap()) {
                    assert!(count >= least_count, "{case}: {count} tasks after {least_count}");
                    shown.1.fetch_max(count, SeqCst);
                }
                self.reads.fetch_add(1, SeqCst);
            }
        }

        async fn disturb(&self, cluster: &Cluster, random: &Random) {
            for _ in 0..40 {
                cluster.pause().await;
                sleep(Duration::from_millis(random.below(200) as u64)).await;
                cluster.resume().await;
                sleep(Duration::from_millis(random.below(100) as u64)).await;
            }
            self.is_over.store(true, SeqCst);
        }
    }

    /// Writers and readers on two servers, while the replay of the standby stops and goes on at random.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_call_on_one_server_shows_less_than_an_earlier_one() {
        let cluster = Cluster::start().await;
        let servers = [cluster.server(false).await, cluster.server(true).await];
        let mut tasks = Vec::new();
        for owner in 0..OWNERS {
            let task = servers[0].tasks(&format!("owner {owner}")).create(NewTask::new(title("0"))).await.unwrap();
            tasks.push(task.id);
        }
        let world = World { servers, shown: Default::default(), tasks, is_over: false.into(), reads: 0.into() };
        let random = Random::new();
        let writers = futures_util::future::join_all((0..OWNERS).map(|owner| world.write(owner, &random)));
        let readers = futures_util::future::join_all((0..6).map(|_| world.read(&random)));
        tokio::join!(world.disturb(&cluster, &random), writers, readers);
        let statuses: Vec<_> = world.servers.iter().map(Replicated::status).collect();
        println!("{} reads; {statuses:?}", world.reads.load(SeqCst));
        for status in statuses {
            assert!(status.from_replica > 50 && status.behind > 50 && status.failed == 0, "{status:?}");
        }
    }
}

/// Random numbers.
struct Random(Jitter);

impl Random {
    fn new() -> Self {
        Self(Jitter::shared())
    }

    fn below(&self, end: usize) -> usize {
        // The spread is between half of a time and all of it.
        let spread = self.0.spread(Duration::from_millis(2)).as_nanos() - 1_000_000;
        usize::try_from(spread).unwrap() % end
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_causes_no_errors_and_is_read_again_later() {
    let cluster = Cluster::start().await;
    let proxy = Proxy::before(cluster.standby.url()).await;
    for batching in [false, true] {
        let server = Replicated::start(cluster.primary.url(), &proxy.url(), batching).await;
        let tasks = server.tasks("ann");
        let task = tasks.create(NewTask::new(title("kept"))).await.unwrap();
        cluster.caught_up().await;
        let read = async || {
            let begun = Instant::now();
            assert_eq!(tasks.get(task.id).await.unwrap(), task);
            assert!(!titles(&tasks).await.is_empty());
            begun.elapsed()
        };
        for traffic in [Traffic::Refused, Traffic::Silent] {
            server.is_read().await;
            read().await;
            let before = server.status();
            read().await;
            assert_eq!(server.status().from_replica, before.from_replica + 2);
            proxy.set(traffic);
            if traffic == Traffic::Refused {
                proxy.cut();
            }
            // Until it is noticed, calls take a second longer at most.
            let slowest = futures_util::future::join_all((0..20).map(|_| read())).await.into_iter().max().unwrap();
            assert!(slowest < Duration::from_millis(3500), "{traffic:?}: {slowest:?}");
            server.is_not_read().await;
            let before = server.status();
            assert!(before.failed > 0, "{before:?}");
            for _ in 0..20 {
                read().await;
            }
            let after = server.status();
            assert_eq!((after.failed, after.from_primary), (before.failed, before.from_primary + 40));
            // Writes need no replica.
            tasks.create(NewTask::new(title("more"))).await.unwrap();
            proxy.cut();
            proxy.set(Traffic::Flows);
            server.is_read().await;
            cluster.caught_up().await;
            read().await;
            let before = server.status();
            read().await;
            assert_eq!(server.status().from_replica, before.from_replica + 2, "the replica is read again");
        }
    }
}

/// A second gain: owners whose state is known can read while there is no primary.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_primary_the_replica_is_read() {
    let cluster = Cluster::start().await;
    let proxy = Proxy::before(cluster.primary.url()).await;
    let server = Replicated::start(&proxy.url(), cluster.standby.url(), false).await;
    let tasks = server.tasks("ann");
    let task = tasks.create(NewTask::new(title("kept"))).await.unwrap();
    cluster.caught_up().await;
    assert_eq!(tasks.get(task.id).await.unwrap(), task);
    proxy.set(Traffic::Refused);
    proxy.cut();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(tasks.get(task.id).await.unwrap(), task);
    assert_eq!(server.status().usable, 1);
    // Whoever has written may have changed something that the replica does not have.
    let failed = tasks.create(NewTask::new(title("lost"))).await;
    assert!(matches!(failed, Err(Error::Store(StoreError::Unavailable(_)))), "{failed:?}");
    assert!(matches!(tasks.get(task.id).await, Err(Error::Store(StoreError::Unavailable(_)))));
    assert!(server.service.ping().await.is_err(), "readiness is that of the primary");
    proxy.set(Traffic::Flows);
    assert_eq!(tasks.get(task.id).await.unwrap(), task);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The number of lines with a text.
    fn count(&self, text: &str) -> usize {
        self.text().lines().filter(|line| line.contains(text)).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Collects what this thread logs until the guard is dropped.
fn collected() -> (Log, tracing::subscriber::DefaultGuard) {
    // As in `observability.rs`.
    static EVERYWHERE: std::sync::Once = std::sync::Once::new();
    EVERYWHERE.call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).expect("no other"));
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn a_server_that_is_no_replica_is_not_read_and_the_log_says_it_once() {
    let (log, _guard) = collected();
    let cluster = Cluster::start().await;
    let other = Server::start_local("").await.unwrap().expect("PostgreSQL (install it with scripts/setup)");
    connect(other.url()).migrate().await.unwrap();
    statement(cluster.primary.url(), "create database unmigrated").await;
    cluster.caught_up().await;
    let primary = cluster.primary.url();
    let mut unmigrated = url::Url::parse(cluster.standby.url()).unwrap();
    unmigrated.set_path("/unmigrated");
    for (replica, problem) in [
        (other.url(), "it has another database than the primary"),
        (primary, "it is not a standby"),
        (unmigrated.as_str(), "does not exist"),
    ] {
        let server = Replicated::open(connect(primary), replica_at(replica), false, Duration::from_secs(10));
        until(problem, || log.text().contains(problem)).await;
        sleep(Duration::from_millis(2500)).await;
        assert_eq!(log.count(problem), 1, "{}", log.text());
        assert_eq!(server.status().usable, 0);
        let tasks = server.tasks("ann");
        let task = tasks.create(NewTask::new(title("kept"))).await.unwrap();
        for _ in 0..3 {
            assert_eq!(tasks.get(task.id).await.unwrap(), task);
        }
        assert_eq!(server.status().from_replica, 0);
    }
    let password = url::Url::parse(primary).unwrap().password().unwrap().to_owned();
    assert!(!log.text().contains(&password), "{}", log.text());
}

#[tokio::test]
async fn a_replica_that_is_far_behind_or_promoted_is_not_read() {
    let (log, _guard) = collected();
    let cluster = Cluster::start().await;
    let lag = Duration::from_secs(2);
    let server = Replicated::open(connect(cluster.primary.url()), replica_at(cluster.standby.url()), false, lag);
    server.is_read().await;
    let tasks = server.tasks("ann");
    let task = tasks.create(NewTask::new(title("kept"))).await.unwrap();
    for _ in 0..2 {
        cluster.pause().await;
        // So that there is something to replay.
        server.tasks("bob").create(NewTask::new(title("other"))).await.unwrap();
        server.is_not_read().await;
        assert_eq!(tasks.get(task.id).await.unwrap(), task);
        cluster.resume().await;
        server.is_read().await;
    }
    assert_eq!(log.count("it is more than 2s behind the primary"), 2, "{}", log.text());
    assert_eq!(log.count("the replica is read"), 3, "{}", log.text());
    // An idle primary does not make a replica old.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(server.status().usable, 1);

    statement(cluster.standby.url(), "select pg_promote()").await;
    server.is_not_read().await;
    assert_eq!(tasks.get(task.id).await.unwrap(), task);
    assert_eq!(log.count("it is not a standby"), 1, "{}", log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_holds_on_a_replica() {
    let cluster = Cluster::start().await;
    let primary = cluster.primary.url();
    statement(
        primary,
        "create role app login password 'app-password'; create role owner login password 'owner-password'",
    )
    .await;
    statement(primary, "drop schema todo cascade; grant create on database postgres to owner").await;
    let as_role = |url: &str, role: &str| {
        let mut url = url::Url::parse(url).unwrap();
        url.set_username(role).unwrap();
        url.set_password(Some(&format!("{role}-password"))).unwrap();
        String::from(url)
    };
    let owner = connect(&as_role(primary, "owner")).with_row_security();
    owner.migrate().await.unwrap();
    owner.grant_to("app").await.unwrap();
    cluster.caught_up().await;
    let replica = replica_at(&as_role(cluster.standby.url(), "app")).with_row_security();
    let server = Replicated::open(
        connect(&as_role(primary, "app")).with_row_security(),
        replica.clone(),
        false,
        Duration::from_hours(1),
    );
    server.is_read().await;
    let (ann, bob) = (server.tasks("ann"), server.tasks("bob"));
    let task = ann.create(NewTask::new(title("of Ann"))).await.unwrap();
    bob.create(NewTask::new(title("of Bob"))).await.unwrap();
    cluster.caught_up().await;
    for _ in 0..2 {
        assert_eq!(titles(&ann).await, ["of Ann"]);
        assert_eq!(titles(&bob).await, ["of Bob"]);
        assert_eq!(ann.get(task.id).await.unwrap(), task);
        assert!(matches!(bob.get(task.id).await, Err(Error::TaskNotFound)));
        assert_eq!(bob.count(&TaskFilter::new().completed(false)).await.unwrap(), 1);
        assert_eq!(bob.summary().await.unwrap().total, 1);
        assert_eq!(changed(&bob, None).await.len(), 1);
    }
    assert!(server.status().from_replica >= 8, "{:?}", server.status());
    assert_eq!(server.status().failed, 0);
    // The policy applies on the replica.
    let mut connection = PgConnection::connect(&as_role(cluster.standby.url(), "app")).await.unwrap();
    let all = sqlx::query_scalar::<_, i64>("select count(*) from todo.tasks");
    let error = all.fetch_one(&mut connection).await.expect_err("no owner is bound");
    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("42501"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_store_writes_nothing() {
    let database = testkit::stores::todo_database().await;
    let service = TodoService::new(replica_at(database.url()));
    let tasks = service.for_user(user("ann"));
    let written = tasks.create(NewTask::new(title("lost"))).await;
    assert!(matches!(written, Err(Error::Store(StoreError::NotWritable(_)))), "{written:?}");
    assert!(titles(&tasks).await.is_empty());
    database.close().await;
}

/// The table of what was seen holds fewer owners than there are.
#[tokio::test(flavor = "multi_thread")]
async fn owners_who_were_forgotten_are_read_from_the_primary() {
    let cluster = Cluster::start().await;
    let store = ReplicatedStore::new(connect(cluster.primary.url()), [replica_at(cluster.standby.url())]);
    let store = store.with_max_lag(Duration::from_hours(1)).with_max_owners(4);
    let watched = store.clone();
    let watch = tokio::spawn(async move { watched.watch().await });
    until("the replica is read", || store.status().usable == 1).await;
    let service = TodoService::new(store.clone());
    cluster.pause().await;
    let owners: Vec<_> = (0..10).map(|number| user(&format!("owner {number}"))).collect();
    for owner in &owners {
        service.for_user(owner.clone()).create(NewTask::new(title("one"))).await.unwrap();
    }
    for _ in 0..2 {
        for owner in &owners {
            assert_eq!(titles(&service.for_user(owner.clone())).await, ["one"]);
        }
    }
    assert_eq!((store.status().from_primary, store.status().behind), (20, 0));
    watch.abort();
}

/// The statements of the primary for the same calls, without and with a replica.
#[tokio::test(flavor = "multi_thread")]
async fn most_reads_are_no_work_for_the_primary() {
    const OWNERS: usize = 40;
    const CALLS: usize = 800;

    /// Runs a mix of calls, of which one in 20 is a write, and returns the number of transactions of the primary.
    async fn load(url: &str, service: &TodoService) -> i64 {
        let transactions = async || -> i64 {
            let mut connection = PgConnection::connect(url).await.unwrap();
            let query = "select xact_commit from pg_stat_database where datname = current_database()";
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
        };
        let before = transactions().await;
        let owner = |number: usize| service.for_user(user(&format!("owner {number}")));
        let mut tasks = Vec::new();
        for number in 0..OWNERS {
            tasks.push(owner(number).create(NewTask::new(title("one"))).await.unwrap().id);
            // The first read of an owner goes to the primary.
            owner(number).list(&TaskQuery::new()).await.unwrap();
        }
        let random = Random::new();
        let callers = (0..4).map(async |_| {
            for _ in 0..CALLS / 4 {
                let number = random.below(OWNERS);
                match random.below(20) {
                    0 => drop(owner(number).toggle(tasks[number]).await.unwrap()),
                    1..8 => drop(owner(number).get(tasks[number]).await.unwrap()),
                    _ => drop(owner(number).list(&TaskQuery::new()).await.unwrap()),
                }
            }
        });
        futures_util::future::join_all(callers).await;
        // What a session has done is counted at the latest when it ends.
        statement(
            url,
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
        transactions().await - before
    }

    let cluster = Cluster::start().await;
    let off = load(cluster.primary.url(), &TodoService::new(connect(cluster.primary.url()))).await;
    let server = cluster.server(false).await;
    let on = load(cluster.primary.url(), &server.service).await;
    println!(
        "{CALLS} calls: {off} transactions of the primary without a replica, {on} with one; {:?}",
        server.status()
    );
    assert!(on * 2 < off, "{on} against {off}");
}
