//! The streams of events, on the core alone: with the time of tokio paused, and stores that count, fail or hang.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{Request, request::Parts};
use http_body_util::{BodyExt as _, Empty};
use serde_json::{Value, json};
use todo_core::{
    Limit, NewTask, Page, Position, Summary, Task, TaskFilter, TaskId, TaskQuery, Title, TodoService, UserId,
    UserLimits,
    api::{RESOURCES, ResponseBody, TodoApi, find_resource},
    auth::{AuthError, Authenticator, Identity},
    clock::{Clock, Timestamp},
    store::{
        BulkResult, Changes, Creation, Insertion, MemoryStore, Outcome, Precondition, Read, Revision, StoreError,
        SyncPoint, TaskChange, TaskStore, Transfer,
    },
};
use tokio::time::{Instant, sleep, timeout};

/// A store that other servers share, and that counts, fails and hangs.
#[derive(Debug, Default)]
struct Shared {
    tasks: MemoryStore,
    is_down: AtomicBool,
    /// How many of the next questions for revisions never return.
    hanging: AtomicUsize,
    /// Whether the result of a write gets lost.
    loses_results: AtomicBool,
    /// Whether another server changes (1) or deletes (2) each new task at once.
    meanwhile: AtomicUsize,
    reads: AtomicUsize,
    polls: AtomicUsize,
}

impl Shared {
    fn up(&self) -> Result<(), StoreError> {
        if self.is_down.load(SeqCst) { Err(StoreError::Unavailable("it is down".into())) } else { Ok(()) }
    }

    fn result<T>(&self, result: T) -> Result<T, StoreError> {
        if self.loses_results.load(SeqCst) { Err(StoreError::Interrupted("lost".into())) } else { Ok(result) }
    }
}

#[async_trait]
impl TaskStore for Shared {
    async fn insert(&self, owner: &UserId, tasks: &[Task], creation: &Creation) -> Result<Insertion, StoreError> {
        let inserted = self.tasks.insert(owner, tasks, creation).await?;
        for task in tasks {
            let title = Some(Title::new("Of another server").unwrap());
            let change = TaskChange { title, ..TaskChange::default() };
            match self.meanwhile.load(SeqCst) {
                1 => drop(self.tasks.update(owner, task.id, &change, &Precondition::default(), task.created_at).await?),
                2 => drop(self.tasks.delete(owner, task.id, &Precondition::default()).await?),
                _ => {}
            }
        }
        self.result(inserted)
    }

    async fn get(&self, owner: &UserId, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.tasks.get(owner, id).await
    }

    async fn list(&self, owner: &UserId, query: &TaskQuery, known: Option<Revision>) -> Result<Read<Page>, StoreError> {
        self.tasks.list(owner, query, known).await
    }

    async fn count(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        known: Option<Revision>,
    ) -> Result<Read<u64>, StoreError> {
        self.tasks.count(owner, filter, known).await
    }

    async fn summary(&self, owner: &UserId, known: Option<Revision>) -> Result<Read<Summary>, StoreError> {
        self.tasks.summary(owner, known).await
    }

    async fn update(
        &self,
        owner: &UserId,
        id: TaskId,
        change: &TaskChange,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<Outcome<Task>, StoreError> {
        self.tasks.update(owner, id, change, precondition, now).await
    }

    async fn update_matching(
        &self,
        owner: &UserId,
        filter: &TaskFilter,
        change: &TaskChange,
        now: Timestamp,
    ) -> Result<BulkResult, StoreError> {
        self.tasks.update_matching(owner, filter, change, now).await
    }

    async fn reposition(
        &self,
        owner: &UserId,
        positions: &[(TaskId, Position)],
        moved: (TaskId, i64),
        now: Timestamp,
    ) -> Result<Vec<Task>, StoreError> {
        self.tasks.reposition(owner, positions, moved, now).await
    }

    async fn delete(&self, owner: &UserId, id: TaskId, precondition: &Precondition) -> Result<Outcome<()>, StoreError> {
        self.tasks.delete(owner, id, precondition).await
    }

    async fn delete_matching(&self, owner: &UserId, filter: &TaskFilter) -> Result<u64, StoreError> {
        self.tasks.delete_matching(owner, filter).await
    }

    async fn erase(&self, owner: &UserId) -> Result<u64, StoreError> {
        self.tasks.erase(owner).await
    }

    async fn transfer(&self, owner: &UserId, to: &UserId) -> Result<Transfer, StoreError> {
        self.tasks.transfer(owner, to).await
    }

    async fn changes(
        &self,
        owner: &UserId,
        since: Option<SyncPoint>,
        limit: Limit,
    ) -> Result<Option<Changes>, StoreError> {
        self.reads.fetch_add(1, SeqCst);
        self.up()?;
        self.tasks.changes(owner, since, limit).await
    }

    async fn revisions(&self, owners: &[UserId]) -> Result<Vec<Revision>, StoreError> {
        self.polls.fetch_add(1, SeqCst);
        if self.hanging.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            std::future::pending::<()>().await;
        }
        self.up()?;
        self.tasks.revisions(owners).await
    }

    async fn purge(&self, owner: &UserId, before: Timestamp, limit: Limit) -> Result<u64, StoreError> {
        self.tasks.purge(owner, before, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.up()
    }
}

/// Accepts the user's id as a credential, and answers later questions as it is told.
#[derive(Clone, Debug, Default)]
struct Users {
    questions: Arc<AtomicU32>,
    verdict: Arc<Mutex<Verdict>>,
    expires_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Verdict {
    #[default]
    Accepted,
    Revoked,
    Unknown,
    RateLimited,
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        self.questions.fetch_add(1, SeqCst);
        let user = head.headers["authorization"].to_str().unwrap();
        let retry_after = Duration::from_secs(2);
        match *self.verdict.lock().unwrap() {
            Verdict::Accepted => {
                let mut identity = Identity::new(UserId::new(user).unwrap());
                identity.expires_at = self.expires_at;
                Ok(identity)
            }
            Verdict::Revoked => Err(AuthError::Revoked),
            Verdict::Unknown => Err(AuthError::Unavailable { retry_after, source: "down".into() }),
            Verdict::RateLimited => Err(AuthError::RateLimited { retry_after }),
        }
    }
}

/// A clock that goes with the time of tokio, from this second on.
#[derive(Debug)]
struct Paused(Instant, i64);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.1).plus(self.0.elapsed())
    }
}

fn server(store: &Arc<Shared>, users: &Users) -> TodoApi {
    TodoApi::new(TodoService::new(store.clone()), users.clone())
}

async fn respond(api: &TodoApi, user: &str, target: &str) -> http::Response<ResponseBody> {
    let path = target.split('?').next().unwrap();
    let request = Request::get(target).header("authorization", user).body(Empty::<Bytes>::new()).unwrap();
    api.respond(find_resource(RESOURCES, path).unwrap(), request).await
}

async fn problem(api: &TodoApi, user: &str, target: &str) -> (u16, String) {
    let response = respond(api, user, target).await;
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(&response.into_body().into_bytes().expect("a problem")).unwrap();
    (status, body["code"].as_str().unwrap().to_owned())
}

/// An open stream.
struct Stream(ResponseBody);

/// What a stream contains.
#[derive(Debug, PartialEq)]
enum Item {
    /// The changes of an event, and its token.
    Changes(Value, String),
    Comment,
    Retry(u32),
}

impl Stream {
    /// Opens a stream whose first event has these changes.
    async fn open(api: &TodoApi, user: &str, query: &str) -> (Self, Value, String) {
        let response = respond(api, user, &format!("/tasks/events{query}")).await;
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert!(!headers.contains_key("content-length"));
        let mut stream = Self(response.into_body());
        let text = stream.frame().await.expect("the first event");
        let event = text.strip_prefix("retry: 3000\n").expect("how soon to come again");
        match Item::parse(event) {
            Item::Changes(changes, token) => (stream, changes, token),
            other => panic!("{other:?}"),
        }
    }

    async fn frame(&mut self) -> Option<String> {
        let frame = self.0.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(frame.to_vec()).unwrap())
    }

    async fn item(&mut self) -> Option<Item> {
        self.frame().await.map(|text| Item::parse(&text))
    }

    /// The next changes, within this time.
    async fn changes(&mut self, within: Duration) -> Value {
        let changes = async {
            loop {
                match self.item().await.expect("it is open") {
                    Item::Changes(changes, _) => return changes,
                    Item::Comment => {}
                    other @ Item::Retry(_) => panic!("{other:?}"),
                }
            }
        };
        timeout(within, changes).await.expect("changes in time")
    }
}

impl Item {
    fn parse(text: &str) -> Self {
        let block = text.strip_suffix("\n\n").expect(text);
        if block == ":" {
            return Self::Comment;
        }
        if let Some(retry) = block.strip_prefix("retry: ") {
            return Self::Retry(retry.parse().unwrap());
        }
        let (head, data) = block.split_once("\ndata: ").expect(text);
        let token = head.strip_prefix("event: changes\nid: ").expect(text);
        let page: Value = serde_json::from_str(data).expect(text);
        assert_eq!(page["next"], token, "{text}");
        Self::Changes(page["changes"].clone(), token.to_owned())
    }
}

async fn create(api: &TodoApi, user: &str, title: &str) -> Task {
    let tasks = api.service().for_user(UserId::new(user).unwrap());
    tasks.create(NewTask::new(Title::new(title).unwrap())).await.unwrap()
}

/// What another server makes of it a moment later is not what this call has created.
#[tokio::test]
async fn a_creation_under_the_id_of_a_client_returns_what_it_has_created() {
    let store = Arc::<Shared>::default();
    let service = TodoService::new(store.clone());
    let tasks = service.for_user(UserId::new("ann").unwrap());
    let new = || NewTask::new(Title::new("Mine").unwrap());
    let id = |number: u128| TaskId::from(uuid::Uuid::from_u128(0x01900000_0000_7000_8000_000000000000 + number));
    for (number, meanwhile) in [(1, 0), (2, 1), (3, 2)] {
        store.meanwhile.store(meanwhile, SeqCst);
        let created = tasks.create_with_id(id(number), new()).await.unwrap();
        assert_eq!((created.title.as_str(), created.version), ("Mine", 1));
    }
    // The id of a deleted task: the next version, unless the task was changed meanwhile.
    for (meanwhile, version) in [(0, 2), (1, 1)] {
        tasks.delete(id(1)).await.unwrap();
        store.meanwhile.store(meanwhile, SeqCst);
        let created = tasks.create_with_id(id(1), new()).await.unwrap();
        assert_eq!((created.title.as_str(), created.version), ("Mine", version));
    }
}

const AT_ONCE: Duration = Duration::from_millis(150);
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn a_write_of_this_server_is_sent_at_once_and_one_of_another_within_a_second() {
    let (store, users) = (Arc::default(), Users::default());
    let (here, there) = (server(&store, &users), server(&store, &users));
    let (mut stream, first, token) = Stream::open(&here, "ann", "").await;
    assert_eq!(first, json!([]));
    // The first task of a user, too.
    let task = create(&here, "ann", "Here").await;
    assert_eq!(stream.changes(AT_ONCE).await, json!([{"task": task}]));
    create(&here, "bob", "Of another user").await;
    let there_too = create(&there, "ann", "There").await;
    assert_eq!(stream.changes(Duration::from_millis(1100)).await, json!([{"task": there_too}]));
    // It goes on where an earlier stream has ended.
    drop(stream);
    let (_, missed, _) = Stream::open(&there, "ann", &format!("?since={token}")).await;
    assert_eq!(missed, json!([{"task": task}, {"task": there_too}]));
}

#[tokio::test(start_paused = true)]
async fn writes_of_all_kinds_wake_the_streams_of_their_owners() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let api = server(&store, &users);
    let tasks = |user: &str| api.service().for_user(UserId::new(user).unwrap());
    let task = create(&api, "ann", "Task").await;
    let (mut ann, ..) = Stream::open(&api, "ann", "").await;
    let (mut bob, ..) = Stream::open(&api, "bob", "").await;
    // No question for revisions can be the reason.
    store.hanging.store(usize::MAX, SeqCst);
    let all = TaskFilter::new();
    let patch = todo_core::TaskPatch { completed: Some(true), ..Default::default() };
    tasks("ann").patch_matching(&all, patch).await.unwrap();
    assert_eq!(ann.changes(AT_ONCE).await[0]["task"]["completed"], true);
    let task = tasks("ann").toggle(task.id).await.unwrap();
    assert_eq!(ann.changes(AT_ONCE).await, json!([{"task": task}]));
    let imported = [Task { id: uuid::Uuid::from_u128(5).into(), ..task.clone() }];
    assert!(tasks("ann").import(&imported).await.unwrap());
    assert_eq!(ann.changes(AT_ONCE).await[0]["task"]["version"], task.version);
    tasks("ann").move_to(task.id, todo_core::Place::First).await.unwrap();
    assert_eq!(ann.changes(AT_ONCE).await[0]["task"]["id"], json!(task.id));
    tasks("ann").delete(imported[0].id).await.unwrap();
    assert_eq!(ann.changes(AT_ONCE).await, json!([{"deleted": imported[0].id}]));
    // Of a transfer, both owners.
    tasks("ann").transfer_to(&UserId::new("bob").unwrap()).await.unwrap();
    assert_eq!(ann.changes(AT_ONCE).await, json!([{"deleted": task.id}]));
    assert_eq!(bob.changes(AT_ONCE).await[0]["task"]["user_id"], "bob");
    // A write whose result is unknown.
    store.loses_results.store(true, SeqCst);
    let lost = tasks("bob").create(NewTask::new(Title::new("Lost").unwrap())).await;
    assert!(lost.is_err());
    assert_eq!(bob.changes(AT_ONCE).await[0]["task"]["title"], "Lost");
    assert_eq!(tasks("bob").delete_matching(&TaskFilter::new().completed(Some(false))).await.unwrap(), 2);
    assert_eq!(bob.changes(AT_ONCE).await.as_array().unwrap().len(), 2);
    // The erasure of an owner ends the streams, whose tokens cannot be continued.
    store.loses_results.store(false, SeqCst);
    let (.., token) = Stream::open(&api, "bob", "").await;
    create(&api, "bob", "Erased").await;
    bob.changes(AT_ONCE).await;
    tasks("bob").erase().await.unwrap();
    assert_eq!(timeout(AT_ONCE, bob.item()).await, Ok(None));
    assert_eq!(problem(&api, "bob", &format!("/tasks/events?since={token}")).await, (410, "sync_token_expired".into()));
}

#[tokio::test(start_paused = true)]
async fn one_question_a_second_serves_all_streams() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let api = server(&store, &users);
    let mut streams = Vec::new();
    for number in 0..100 {
        streams.push(Stream::open(&api, &format!("user {}", number % 50), "").await.0);
    }
    assert_eq!(api.open_streams(), 100);
    let reads = store.reads.load(SeqCst);
    let waiting = streams.iter_mut().map(|stream| async { while stream.item().await.is_some() {} });
    assert!(timeout(MINUTE, futures_util::future::join_all(waiting)).await.is_err());
    let polls = store.polls.load(SeqCst);
    assert!((58..=61).contains(&polls), "{polls}");
    assert_eq!(store.reads.load(SeqCst), reads, "nothing has changed");
    drop(streams);
    assert_eq!(api.open_streams(), 0);
    sleep(MINUTE).await;
    assert_eq!(store.polls.load(SeqCst), polls, "nobody asks without streams");
}

#[tokio::test(start_paused = true)]
async fn another_stream_asks_when_the_one_that_asks_goes_away_or_stands_still() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let (api, other) = (server(&store, &users), server(&store, &users));
    for stands_still in [false, true] {
        let (mut asking, ..) = Stream::open(&api, "bob", "").await;
        store.hanging.store(1, SeqCst);
        // It begins to ask, and gets no answer.
        let before = store.polls.load(SeqCst);
        assert!(timeout(Duration::from_millis(1100), asking.item()).await.is_err());
        assert_eq!((store.polls.load(SeqCst), store.hanging.load(SeqCst)), (before + 1, 0));
        let (mut stream, ..) = Stream::open(&api, "ann", "").await;
        let task = create(&other, "ann", "Task").await;
        let within = if stands_still {
            // Its client reads nothing, so that it makes no progress.
            Duration::from_secs(12)
        } else {
            drop(asking);
            Duration::from_millis(1100)
        };
        assert_eq!(stream.changes(within).await, json!([{"task": task}]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlasts_a_store_that_is_down_and_asks_it_seldom() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let (api, other) = (server(&store, &users), server(&store, &users));
    let (mut stream, ..) = Stream::open(&api, "ann", "").await;
    store.is_down.store(true, SeqCst);
    let here = create(&api, "ann", "Here").await;
    let there = create(&other, "ann", "There").await;
    let (mut comments, began) = (0, Instant::now());
    while began.elapsed() < 5 * MINUTE {
        assert_eq!(stream.item().await, Some(Item::Comment));
        comments += 1;
    }
    assert!((19..=21).contains(&comments), "{comments}");
    let (reads, polls) = (store.reads.load(SeqCst), store.polls.load(SeqCst));
    assert!(reads < 60 && polls < 60, "{reads} reads and {polls} questions in 5 minutes");
    // A new stream cannot begin now.
    assert_eq!(problem(&api, "ann", "/tasks/events").await, (503, "unavailable".into()));
    store.is_down.store(false, SeqCst);
    assert_eq!(stream.changes(Duration::from_secs(16)).await, json!([{"task": here}, {"task": there}]));
    let there = create(&other, "ann", "There").await;
    assert_eq!(stream.changes(Duration::from_secs(16)).await, json!([{"task": there}]));
}

#[tokio::test(start_paused = true)]
async fn the_caller_is_asked_about_every_15_seconds() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let api = server(&store, &users);
    let verdict = |verdict| *users.verdict.lock().unwrap() = verdict;
    let (mut stream, ..) = Stream::open(&api, "ann", "").await;
    let began = Instant::now();
    for number in 1..=4 {
        assert_eq!(stream.item().await, Some(Item::Comment));
        assert_eq!(began.elapsed().as_secs(), 15 * number);
    }
    sleep(AT_ONCE).await;
    assert!(stream.item().now_or_never().is_none());
    assert_eq!(users.questions.load(SeqCst), 5);

    // While nobody knows whether the caller is accepted, comments go on and changes wait.
    verdict(Verdict::Unknown);
    assert_eq!(stream.item().await, Some(Item::Comment));
    assert!(timeout(AT_ONCE, stream.item()).await.is_err());
    let task = create(&api, "ann", "Task").await;
    assert_eq!(stream.item().await, Some(Item::Comment));
    verdict(Verdict::Accepted);
    assert_eq!(stream.changes(Duration::from_secs(3)).await, json!([{"task": task}]));

    // Who may send no requests for a while may go on reading.
    verdict(Verdict::RateLimited);
    for _ in 0..3 {
        assert_eq!(stream.item().await, Some(Item::Comment));
    }
    let task = create(&api, "ann", "Task").await;
    assert_eq!(stream.changes(AT_ONCE).await, json!([{"task": task}]));

    verdict(Verdict::Revoked);
    let (end, began) = (async { while stream.item().await.is_some() {} }, Instant::now());
    timeout(MINUTE, end).await.expect("it ends");
    assert!(began.elapsed() <= Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_credential_expires_or_after_an_hour() {
    let store = Arc::<Shared>::default();
    let end = async |users: &Users, clock: i64| {
        let service = TodoService::new(store.clone()).with_clock(Paused(Instant::now(), clock));
        let api = TodoApi::new(service, users.clone());
        let (mut stream, ..) = Stream::open(&api, "ann", "").await;
        let began = Instant::now();
        let verdict = users.verdict.clone();
        let lasts = users.expires_at.map_or(u64::MAX, |end| (end.unix_seconds() - clock).unsigned_abs());
        let expire = async {
            sleep(Duration::from_secs(lasts.min(1_000_000))).await;
            *verdict.lock().unwrap() = Verdict::Revoked;
            std::future::pending::<()>().await;
        };
        let mut expire = pin!(expire);
        loop {
            tokio::select! {
                biased;
                () = &mut expire => unreachable!(),
                item = stream.item() => if item.is_none() { return began.elapsed() },
            }
        }
    };
    let expiring = Users { expires_at: Some(Timestamp::from_unix_seconds(1020)), ..Users::default() };
    let elapsed = end(&expiring, 1000).await;
    assert!(elapsed >= Duration::from_secs(20) && elapsed < Duration::from_millis(20_100), "{elapsed:?}");
    let elapsed = end(&Users::default(), 1000).await;
    assert!(elapsed >= Duration::from_hours(1) && elapsed < Duration::from_secs(3601), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_user_has_at_most_16_streams_and_they_take_no_slots() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let limits = UserLimits::default().concurrent_calls(1).max_waiting(1);
    let api = TodoApi::new(TodoService::new(store).with_user_limits(limits), users);
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(Stream::open(&api, "ann", "").await.0);
    }
    let response = respond(&api, "ann", "/tasks/events").await;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"15".parse().unwrap()));
    assert_eq!(problem(&api, "ann", "/tasks/events").await, (429, "rate_limited".into()));
    Stream::open(&api, "bob", "").await;
    assert_eq!(respond(&api, "ann", "/tasks").await.status(), 200, "streams do not count as calls");
    streams.pop();
    Stream::open(&api, "ann", "").await;
    // HEAD opens none.
    for _ in 0..40 {
        let head = Request::head("/tasks/events").header("authorization", "ann").body(Empty::<Bytes>::new()).unwrap();
        let response = api.respond(find_resource(RESOURCES, "/tasks/events").unwrap(), head).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(response.into_body().into_bytes().expect("no stream").is_empty());
    }
    assert_eq!(api.open_streams(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_costs_one_page() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let api = server(&store, &users);
    let (mut stream, ..) = Stream::open(&api, "ann", "").await;
    let reads = store.reads.load(SeqCst);
    for number in 0..250 {
        create(&api, "ann", &format!("Task {number}")).await;
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.reads.load(SeqCst), reads, "nobody has asked for the next event");
    // Whoever reads again gets all, in pages.
    let mut seen = 0;
    for length in [100, 100, 50] {
        let changes = stream.changes(AT_ONCE).await;
        assert_eq!(changes.as_array().unwrap().len(), length);
        seen += length;
    }
    assert_eq!(seen, 250);
    // Many writes in a row are read together.
    let reads = store.reads.load(SeqCst);
    let writes = async {
        for number in 0..500 {
            create(&api, "ann", &format!("Task {number}")).await;
            sleep(Duration::from_millis(2)).await;
        }
    };
    let reading = async {
        let mut count = 0;
        while count < 500 {
            count += stream.changes(MINUTE).await.as_array().unwrap().len();
        }
    };
    tokio::join!(writes, reading);
    let reads = store.reads.load(SeqCst) - reads;
    assert!(reads < 25, "{reads} reads in a second");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_ends_its_streams_with_the_time_of_the_next_attempt() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let api = server(&store, &users);
    let (mut stream, ..) = Stream::open(&api, "ann", "").await;
    let stopping = async {
        sleep(Duration::from_secs(5)).await;
        api.clone().begin_stop();
    };
    let began = Instant::now();
    let (item, ()) = tokio::join!(stream.item(), stopping);
    let Some(Item::Retry(retry)) = item else { panic!("{item:?}") };
    assert!((2000..=4000).contains(&retry), "{retry}");
    assert_eq!(stream.item().await, None);
    assert!(began.elapsed() < Duration::from_millis(5100), "{:?}", began.elapsed());
    assert_eq!(api.open_streams(), 0);
    assert_eq!(problem(&api, "ann", "/tasks/events").await, (503, "unavailable".into()));
    assert_eq!(respond(&api, "ann", "/tasks").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_after_the_token_of_the_header_or_the_query() {
    let (store, users) = (Arc::<Shared>::default(), Users::default());
    let api = server(&store, &users);
    let first = create(&api, "ann", "First").await;
    let (_, all, early) = Stream::open(&api, "ann", "").await;
    assert_eq!(all, json!([{"task": first}]));
    let second = create(&api, "ann", "Second").await;
    let (_, changes, late) = Stream::open(&api, "ann", &format!("?since={early}")).await;
    assert_eq!(changes, json!([{"task": second}]));

    let with_ids = async |query: &str, ids: &[&str]| {
        let mut request = Request::get(format!("/tasks/events{query}")).header("authorization", "ann");
        for id in ids {
            request = request.header("last-event-id", *id);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = api.respond(find_resource(RESOURCES, "/tasks/events").unwrap(), request).await;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let first = body.next().await.unwrap().unwrap();
        (status, String::from_utf8(first.to_vec()).unwrap())
    };
    // The header of a browser that connects again is later than the query that it repeats.
    for (query, id, is_empty) in [
        (String::new(), &late, true),
        (format!("?since={early}"), &late, true),
        (format!("?since={late}"), &early, false),
    ] {
        let (status, text) = with_ids(&query, &[id]).await;
        assert_eq!((status, text.contains(r#""changes":[],"#)), (200, is_empty), "{text}");
    }
    for (query, ids, field) in [
        ("", &["x"][..], "Last-Event-ID must be a token from an earlier response"),
        ("", &[""], "Last-Event-ID must be a token from an earlier response"),
        ("", &[&late, &late], "Last-Event-ID must be given only once"),
        ("?since=x", &[&late], "since must be a token from an earlier response"),
        ("?limit=5", &[], "limit is unknown"),
    ] {
        let (status, text) = with_ids(query, ids).await;
        assert!(status == 422 && text.contains(field), "{status} {text}");
    }
    assert_eq!(problem(&api, "bob", &format!("/tasks/events?since={late}")).await, (410, "sync_token_expired".into()));
}
