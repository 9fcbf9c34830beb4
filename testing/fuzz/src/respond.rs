//! Any requests of two users through `TodoApi::respond`, compared with a model of the acknowledged tasks.
//!
//! No response is 5xx, except that of a body which never ends. Each response has a status and a code of the API, with
//! the headers of that status. Acknowledged tasks can be read back, by their owner only. A request for another user's
//! task has the same response as a request for a task that does not exist.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};
use todo_core::{
    TaskId, TodoService,
    api::{ApiError, Operation, PROBES, RESOURCES, Resource, TodoApi, find_resource},
    auth::{JwtVerifier, KeySource},
    clock::{Clock as _, FixedClock, IdGenerator, Timestamp},
    store::MemoryStore,
};

use crate::{
    input::Input,
    model::{self, Wanted, Write},
};

const NOW: i64 = 1_763_712_000;
const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for these tests only";
const USERS: [&str; 2] = ["alice", "bob|1"];
const BODY_LIMIT: usize = 600;
const UNKNOWN_ID: &str = "01900000-0000-7000-8000-ffffffffffff";

static TOKENS: LazyLock<[String; 2]> = LazyLock::new(|| USERS.map(|user| token(SECRET, user, NOW + 900)));
static EXPIRED: LazyLock<String> = LazyLock::new(|| token(SECRET, USERS[0], NOW - 900));
static FORGED: LazyLock<String> = LazyLock::new(|| token(&[b'x'; 64], USERS[0], NOW + 900));

fn token(secret: &[u8], user: &str, expires: i64) -> String {
    let claims = json!({ "sub": user, "exp": expires }).to_string();
    let message = [r#"{"alg":"HS256"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Sends at most 16 requests, one after the other, which these bytes choose.
///
/// # Panics
///
/// If a property of [this module](self) does not hold.
pub fn check(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut input = Input::new(data);
        let mut world = World::new();
        for _ in 0..16 {
            if input.is_empty() {
                break;
            }
            world.step(&mut input).await;
        }
        world.read_back().await;
    });
}

/// Generates the same ids in each run, in another order than that of their values.
#[derive(Debug, Default)]
struct CountedIds(AtomicU64);

impl IdGenerator for CountedIds {
    fn next(&self, _: Timestamp) -> TaskId {
        let count = self.0.fetch_add(1, Relaxed);
        format!("01900000-0000-7000-8000-{:04x}{count:08x}", count.wrapping_mul(0x9e37) & 0x7fff)
            .parse()
            .expect("an id")
    }
}

/// The API, and a model of each user's tasks.
struct World {
    api: TodoApi,
    clock: Arc<FixedClock>,
    tasks: [BTreeMap<String, Value>; 2],
    /// The owners and ids of all tasks, including deleted ones.
    ids: Vec<(usize, String)>,
    /// The query of the last link to a next page, or of the changes that come next.
    next_page: Option<String>,
    /// The bodies and the tasks of requests with a key, by their callers and keys.
    requests: BTreeMap<(usize, String), (Vec<u8>, Vec<String>)>,
    replicas: [Replica; 2],
    /// The versions of tasks that a user has had, whose ids continue them.
    former: [BTreeMap<String, i64>; 2],
}

/// The tasks of a client that follows the changes, and its token.
#[derive(Default)]
struct Replica {
    token: Option<String>,
    tasks: BTreeMap<String, Value>,
}

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
struct TestRequest {
    resource: &'static Resource,
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    frames: Vec<BodyFrame>,
    /// The user of the token, if it is valid.
    caller: Option<usize>,
    /// The user in the path, if the path was made with one.
    named: Option<usize>,
    /// The owner and the id of the task in the path, if the path was made with a task that exists or existed.
    named_task: Option<(usize, String)>,
}

/// A part of a body.
#[derive(Clone, Debug)]
enum BodyFrame {
    Data(Bytes),
    Trailers,
    /// The connection breaks.
    Failure,
    /// The client sends nothing more, and does not close the connection.
    Pending,
}

struct Frames {
    frames: VecDeque<BodyFrame>,
    hint: u64,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.frames.pop_front() {
            None => Poll::Ready(None),
            Some(BodyFrame::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(BodyFrame::Trailers) => {
                let trailers = HeaderMap::from_iter([(header::EXPIRES, HeaderValue::from_static("never"))]);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Some(BodyFrame::Failure) => Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
            Some(BodyFrame::Pending) => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.hint);
        hint
    }
}

impl TestRequest {
    /// A GET of this user.
    fn read(caller: usize, path: String) -> Self {
        Self {
            resource: find_resource(RESOURCES, &path).expect("a path of the API"),
            method: Method::GET,
            path,
            query: None,
            headers: HeaderMap::from_iter([(header::AUTHORIZATION, bearer(&TOKENS[caller]))]),
            frames: Vec::new(),
            caller: Some(caller),
            named: None,
            named_task: None,
        }
    }

    /// The query as the API reads it: a URI has no fragment.
    fn read_query(&self) -> Option<String> {
        Uri::try_from(self.target()).ok()?.query().map(str::to_owned)
    }

    /// The body, which the API has accepted.
    fn sent(&self) -> Value {
        match self.body() {
            blank if matches!(blank.trim_ascii(), b"" | b"null") => json!({}),
            sent => serde_json::from_slice(&sent).expect("an accepted body is JSON"),
        }
    }

    /// The target of the request: path and query.
    fn target(&self) -> String {
        self.query.iter().fold(self.path.clone(), |path, query| format!("{path}?{query}"))
    }

    fn operation(&self) -> Option<Operation> {
        self.resource.operation(&self.method)
    }

    /// The bytes of the body.
    fn body(&self) -> Vec<u8> {
        let data =
            self.frames.iter().filter_map(|frame| if let BodyFrame::Data(data) = frame { Some(data) } else { None });
        data.flatten().copied().collect()
    }

    fn is_probe(&self) -> bool {
        matches!(self.operation(), Some(Operation::Health | Operation::Ready))
    }

    /// Whether it creates the task that its path names.
    fn creates_named(&self) -> bool {
        self.method == Method::PUT && self.header("if-none-match") == Some("*")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the conditions of its headers are true of a task.
    fn is_met_by(&self, task: &Value) -> bool {
        let version = task["version"].to_string();
        let names = |list: &str, is_weak: bool| {
            list.split(',').map(str::trim).any(|tag| {
                tag == "*" || tag == format!("\"{version}\"") || (is_weak && tag == format!("W/\"{version}\""))
            })
        };
        self.header("if-match").is_none_or(|list| names(list, false))
            && self.header("if-none-match").is_none_or(|list| !names(list, true))
    }

    /// What the client calls the request.
    fn key(&self) -> Option<String> {
        self.header("idempotency-key").map(|key| key.trim_matches('"').to_owned())
    }

    fn hangs(&self) -> bool {
        self.frames.iter().any(|frame| matches!(frame, BodyFrame::Pending))
    }
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(FixedClock::at(Timestamp::from_unix_seconds(NOW)));
        let service = TodoService::new(MemoryStore::new()).with_clock(clock.clone()).with_ids(CountedIds::default());
        let verifier = JwtVerifier::builder()
            .source(KeySource::secrets([SECRET]).expect("a valid secret"))
            .clock(FixedClock::at(Timestamp::from_unix_seconds(NOW)))
            .build()
            .expect("a valid source");
        let api = TodoApi::new(service, verifier).with_body_limit(BODY_LIMIT);
        Self {
            api,
            clock,
            tasks: Default::default(),
            ids: Vec::new(),
            next_page: None,
            requests: BTreeMap::new(),
            replicas: Default::default(),
            former: Default::default(),
        }
    }

    async fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            // The clock may also go back.
            byte @ 0..16 => {
                let now = self.clock.now().unix_micros() + (i64::from(byte) - 6) * 1_500_000;
                self.clock.set(Timestamp::from_unix_micros(now));
            }
            _ => {
                if let Some(request) = self.request(input) {
                    self.send_and_compare(&request).await;
                }
            }
        }
    }

    /// A request that these bytes choose.
    fn request(&self, input: &mut Input<'_>) -> Option<TestRequest> {
        let all: Vec<_> = RESOURCES.iter().chain(PROBES).collect();
        let resource = input.choose(&all);
        let method = method(input)?;
        let mut headers = HeaderMap::new();
        let caller = credential(input, &mut headers);
        let (mut named, mut named_task, mut is_odd) = (None, None, false);
        let path = if input.below(8) == 7 {
            format!("/{}", input.text())
        } else {
            let mut path = input.choose(&["", "/api/v1", "/api", "/tasks", "//", "/%"]).to_owned();
            for segment in resource.path[1..].split('/') {
                path.push('/');
                match segment {
                    "{user_id}" => {
                        let text =
                            input.choose(&["alice", "bob%7C1", "%61lice", "bob%7c1", "", "%FF", "tasks", "x%2Fy"]);
                        named = ["alice", "bob%7C1", "%61lice", "bob%7c1"].iter().position(|known| *known == text);
                        named = named.map(|number| number % 2);
                        path.push_str(text);
                    }
                    "{id}" => match input.below(8) {
                        0..6 if !self.ids.is_empty() => {
                            let (owner, id) = self.ids[input.below(self.ids.len())].clone();
                            let spelling = if input.byte() < 240 { id.clone() } else { id.to_uppercase() };
                            path.push_str(&spelling);
                            named_task = Some((owner, id));
                        }
                        6 => {
                            let text = input.text();
                            path.push_str(&text);
                            is_odd |= text.is_empty() || text.contains('/');
                        }
                        _ => path.push_str(UNKNOWN_ID),
                    },
                    text => path.push_str(text),
                }
            }
            if input.below(32) == 31 {
                path.push('/');
                is_odd = true;
            }
            if is_odd {
                (named, named_task) = (None, None);
            }
            path
        };
        let query = query(input, &self.ids, self.next_page.as_deref());
        more_headers(input, &mut headers);
        conditions(input, &mut headers);
        // No request creates it.
        if path.contains(UNKNOWN_ID) {
            headers.remove(header::IF_NONE_MATCH);
        }
        let frames = frames(input, &self.ids);
        Some(TestRequest { resource, method, path, query, headers, frames, caller, named, named_task })
    }

    async fn send(&self, request: &TestRequest) -> Option<Response<Bytes>> {
        let uri = Uri::try_from(request.target()).ok()?;
        // `Uri` changes some paths, which then would not be this request.
        if uri.path() != request.path {
            return None;
        }
        let hint = request
            .frames
            .iter()
            .map(|frame| if let BodyFrame::Data(data) = frame { data.len() } else { 0 })
            .sum::<usize>();
        // A body need not know its length.
        let hint = if request.frames.len() > 1 { 0 } else { hint as u64 };
        let mut http_request = Request::new(Frames { frames: request.frames.clone().into(), hint });
        *http_request.method_mut() = request.method.clone();
        *http_request.uri_mut() = uri;
        *http_request.headers_mut() = request.headers.clone();
        let (head, body) = self.api.respond(request.resource, http_request).await.into_parts();
        let body = match body.into_bytes() {
            Ok(bytes) => bytes,
            // Of a stream, the first event.
            Err(mut stream) => stream.next().await.expect("an event").expect("no failure"),
        };
        Some(Response::from_parts(head, body))
    }

    async fn send_and_compare(&mut self, request: &TestRequest) {
        // A request for a task that the caller does not have must look like one for an unknown id.
        let missing_task = request
            .named_task
            .as_ref()
            .filter(|(_, id)| request.caller.is_none_or(|caller| !self.tasks[caller].contains_key(id)))
            .filter(|_| !request.creates_named());
        let expected = match missing_task {
            Some((_, id)) => {
                let path = request.path.replace(id, UNKNOWN_ID).replace(&id.to_uppercase(), UNKNOWN_ID);
                self.send(&TestRequest { path, ..request.clone() }).await
            }
            None => None,
        };
        let Some(response) = self.send(request).await else { return };
        if let Some(expected) = expected {
            assert_eq!(
                (response.status(), response.headers(), response.body()),
                (expected.status(), expected.headers(), expected.body()),
                "{request:?}"
            );
            assert!(!response.status().is_success() || request.method == Method::OPTIONS, "{request:?}");
        }
        if request.method == Method::HEAD {
            let same = self.send(&TestRequest { method: Method::GET, ..request.clone() }).await.expect("a valid path");
            assert_eq!((response.status(), response.headers()), (same.status(), same.headers()), "{request:?}");
            assert!(response.body().is_empty(), "{request:?}");
            check_response(request, &same);
            return;
        }
        check_response(request, &response);
        if response.status() == StatusCode::NOT_MODIFIED {
            return self.check_known(request, &response).await;
        }
        if !response.status().is_success() {
            return self.check_refusal(request, &response);
        }
        if request.operation() == Some(Operation::MoveTask) {
            self.acknowledge_move(request, &response).await;
        } else {
            self.acknowledge(request, &response);
        }
    }

    /// Checks that the client has named the response that it would have got.
    async fn check_known(&self, request: &TestRequest, response: &Response<Bytes>) {
        let mut headers = request.headers.clone();
        headers.remove(header::IF_NONE_MATCH);
        let full = self.send(&TestRequest { headers, ..request.clone() }).await.expect("a valid path");
        assert_eq!((full.status(), &full.headers()[header::ETAG]), (StatusCode::OK, &response.headers()[header::ETAG]));
        let known = request.header("if-none-match").expect("a condition");
        let tag = response.headers()[header::ETAG].to_str().expect("text").trim_start_matches("W/");
        assert!(known == "*" || known.contains(tag), "{request:?}");
    }

    /// Checks that a request was refused for a reason.
    fn check_refusal(&self, request: &TestRequest, response: &Response<Bytes>) {
        let problem: Value = serde_json::from_slice(response.body()).expect("JSON");
        let of_request = |caller: usize| self.requests.get(&(caller, request.key()?));
        let caller = request.caller.unwrap_or_default();
        match problem["code"].as_str().expect("a text") {
            code @ ("precondition_failed" | "version_conflict") => {
                let current = &problem["current"];
                let id = current["id"].as_str().expect("a text");
                assert_eq!(Some(current), self.tasks[caller].get(id), "{request:?}");
                if code == "precondition_failed" {
                    assert!(!request.is_met_by(current), "{request:?}");
                } else {
                    assert!(request.is_met_by(current) && request.sent()["version"] != current["version"]);
                }
            }
            "task_deleted" => {
                let (body, ids) = of_request(caller).expect("a repeated request");
                assert_eq!(*body, request.body());
                assert!(ids.iter().any(|id| !self.tasks[caller].contains_key(id)), "{request:?}");
            }
            "validation_failed" if problem["detail"] == "Idempotency-Key was used for another body." => {
                assert_ne!(of_request(caller).expect("a repeated request").0, request.body());
            }
            _ => {}
        }
    }

    /// Compares a success with the model, and updates the model.
    fn acknowledge(&mut self, request: &TestRequest, response: &Response<Bytes>) {
        let Some(operation) = request.operation() else { return assert_eq!(request.method, Method::OPTIONS) };
        if request.is_probe() {
            return assert_eq!(&response.body()[..10], br#"{"status":"#);
        }
        let caller = request.caller.expect("only a valid token succeeds");
        assert!(request.named.is_none_or(|named| named == caller), "{request:?}");
        if operation == Operation::DeleteTask {
            let (_, id) = request.named_task.as_ref().expect("only an existing task can be deleted");
            let task = self.tasks[caller].remove(id).expect("only an existing task can be deleted");
            assert!(request.is_met_by(&task), "{request:?}");
            self.former[caller].insert(id.clone(), version(&task));
            return;
        }
        let body = if operation == Operation::StreamEvents { event(response.body()) } else { &response.body()[..] };
        let answer: Value = serde_json::from_slice(body).expect("JSON");
        let now = self.clock.now();
        let wanted = || Wanted::parse(request.read_query().as_deref().unwrap_or_default());
        match operation {
            Operation::DeleteTasks => self.acknowledge_deletion(request, caller, &answer),
            Operation::PatchTasks => {
                let (wanted, sent) = (wanted(), request.sent());
                let (mut matched, mut changed) = (0, 0);
                for task in self.tasks[caller].values_mut().filter(|task| wanted.includes(task)) {
                    let after = model::written(Write::Patch, task, &sent, now);
                    matched += 1;
                    changed += i32::from(after != *task);
                    *task = after;
                }
                assert_eq!(answer, json!({"matched": matched, "changed": changed}), "{request:?}");
            }
            Operation::TransferTasks => self.acknowledge_transfer(request, caller, &answer),
            Operation::GetSession => assert_eq!(answer["user"]["id"], USERS[caller]),
            Operation::CountTasks => {
                let wanted = wanted();
                let count = self.tasks[caller].values().filter(|task| wanted.includes(task)).count();
                assert_eq!(answer, json!({"count": count}), "{request:?}");
            }
            Operation::SummarizeTasks => {
                assert_eq!(answer, model::summary(self.tasks[caller].values()), "{request:?}");
            }
            Operation::ListChanges | Operation::StreamEvents => self.follow(request, caller, &answer),
            Operation::ListTasks => {
                let wanted = wanted();
                let (expected, more) = wanted.page(self.tasks[caller].values());
                assert_eq!(answer.as_array().expect("a list").iter().collect::<Vec<_>>(), expected, "{request:?}");
                let link = response.headers().get(header::LINK).map(|link| link.to_str().expect("text"));
                assert_eq!(link.is_some(), more, "{request:?}");
                self.next_page = link.and_then(|link| Some(link.strip_prefix("<?")?.split_once('>')?.0.to_owned()));
            }
            Operation::GetTask => {
                let id = answer["id"].as_str().expect("a text");
                assert_eq!(Some(&answer), self.tasks[caller].get(id), "{request:?}");
            }
            Operation::CreateTask => self.acknowledge_creation(request, caller, response, answer, now),
            Operation::ReplaceTask if response.status() == StatusCode::CREATED => {
                self.acknowledge_creation_by_id(request, caller, answer, now);
            }
            operation => {
                let id = answer["id"].as_str().expect("a text").to_owned();
                assert!(self.tasks[caller].get(&id).is_some_and(|task| request.is_met_by(task)), "{request:?}");
                let before = self.tasks[caller].get(&id).expect("only an existing task can be changed");
                let write = match operation {
                    Operation::ReplaceTask => Write::Replace,
                    Operation::PatchTask => Write::Patch,
                    _ => Write::Complete,
                };
                let sent = request.sent();
                assert!(sent.get("version").is_none_or(|version| *version == before["version"]), "{request:?}");
                assert_eq!(answer, model::written(write, before, &sent, now), "{request:?}");
                self.tasks[caller].insert(id, answer);
            }
        }
    }

    /// The creation of a task, or of several.
    fn acknowledge_creation(
        &mut self,
        request: &TestRequest,
        caller: usize,
        response: &Response<Bytes>,
        answer: Value,
        now: Timestamp,
    ) {
        assert_eq!(response.status(), StatusCode::CREATED);
        let (sent, answers) = match (request.sent(), answer) {
            (Value::Array(sent), Value::Array(answers)) => {
                assert!(!response.headers().contains_key(header::LOCATION), "{request:?}");
                (sent, answers)
            }
            (sent, answer) => {
                assert_eq!(response.headers()[header::ETAG], format!("\"{}\"", answer["version"]));
                let location = format!("tasks/{}", answer["id"].as_str().expect("a text"));
                assert_eq!(response.headers()[header::LOCATION], location);
                (vec![sent], vec![answer])
            }
        };
        assert_eq!(sent.len(), answers.len(), "{request:?}");
        let ids: Vec<_> = answers.iter().map(|task| task["id"].as_str().expect("a text").to_owned()).collect();
        if response.headers().contains_key("idempotency-replayed") {
            let key = request.key().expect("a request with a key");
            assert_eq!(self.requests.get(&(caller, key)), Some(&(request.body(), ids.clone())), "{request:?}");
            for (id, answer) in ids.iter().zip(&answers) {
                assert_eq!(self.tasks[caller].get(id), Some(answer), "{request:?}");
            }
            return;
        }
        if let Some(key) = request.key() {
            self.requests.insert((caller, key), (request.body(), ids));
        }
        for ((place, sent), answer) in (0..).zip(sent).zip(answers) {
            let id = answer["id"].as_str().expect("a text").to_owned();
            assert!(self.ids.iter().all(|(_, other)| *other != id), "a new id");
            let new = model::unwritten(&id, USERS[caller], place, now);
            assert_eq!(answer, model::written(Write::Create, &new, &sent, now), "{request:?}");
            self.ids.push((caller, id.clone()));
            self.tasks[caller].insert(id, answer);
        }
    }

    /// The creation of a task under an id that the client has chosen.
    fn acknowledge_creation_by_id(&mut self, request: &TestRequest, caller: usize, answer: Value, now: Timestamp) {
        assert!(request.creates_named(), "{request:?}");
        let id = answer["id"].as_str().expect("a text").to_owned();
        assert!(!self.tasks[caller].contains_key(&id), "{request:?}");
        let version = answer["version"].as_i64().expect("a number");
        let last = self.former[caller].remove(&id).unwrap_or_default();
        assert!(version > last, "{request:?}: {version} after {last}");
        let new = model::unwritten(&id, USERS[caller], 0, now);
        let mut expected = model::written(Write::Create, &new, &request.sent(), now);
        expected["version"] = json!(version);
        assert_eq!(answer, expected, "{request:?}");
        self.ids.push((caller, id.clone()));
        self.tasks[caller].insert(id, answer);
    }

    /// The deletion of many tasks.
    fn acknowledge_deletion(&mut self, request: &TestRequest, caller: usize, answer: &Value) {
        let sent = request.read_query().unwrap_or_default();
        let (wanted, tasks) = (Wanted::parse(&sent), &mut self.tasks[caller]);
        let before = tasks.len();
        let former = &mut self.former[caller];
        tasks.retain(|id, task| {
            let stays = !wanted.includes(task);
            if !stays {
                former.insert(id.clone(), version(task));
            }
            stays
        });
        if model::pairs(&sent).any(|(name, _)| name == "all") {
            former.clear();
            self.requests.retain(|(owner, _), _| *owner != caller);
        }
        let count = before - tasks.len();
        assert_eq!(*answer, json!({"matched": count, "changed": count}), "{request:?}");
    }

    fn acknowledge_transfer(&mut self, request: &TestRequest, caller: usize, answer: &Value) {
        let others = std::mem::take(&mut self.tasks[1 - caller]);
        let (remaining, moved): (BTreeMap<_, _>, BTreeMap<_, _>) =
            others.into_iter().partition(|(id, _)| self.tasks[caller].contains_key(id));
        assert_eq!(*answer, json!({"moved": moved.len(), "remaining": remaining.len()}), "{request:?}");
        self.tasks[1 - caller] = remaining;
        for (id, mut task) in moved {
            task["user_id"] = json!(USERS[caller]);
            self.former[1 - caller].insert(id.clone(), version(&task));
            if let Some(former) = self.former[caller].remove(&id) {
                task["version"] = json!(version(&task).max(former + 1));
            }
            self.ids.push((caller, id.clone()));
            self.tasks[caller].insert(id, task);
        }
    }

    /// Applies a page of changes to a replica, which then has all tasks if there are no more.
    fn follow(&mut self, request: &TestRequest, caller: usize, page: &Value) {
        let sent = request.read_query().unwrap_or_default();
        let since = model::pairs(&sent).find(|(name, _)| name == "since").map(|(_, since)| since);
        let token = page["next"].as_str().expect("a token").to_owned();
        self.next_page = Some(format!("since={token}&limit=2"));
        let replica = &mut self.replicas[caller];
        match since {
            None => replica.tasks.clear(),
            since if since != replica.token => return,
            Some(_) => {}
        }
        for change in page["changes"].as_array().expect("changes") {
            match (change.get("task"), change.get("deleted")) {
                (Some(task), None) => {
                    replica.tasks.insert(task["id"].as_str().expect("a text").to_owned(), task.clone());
                }
                (None, Some(id)) => drop(replica.tasks.remove(id.as_str().expect("a text"))),
                _ => panic!("{request:?}: {change}"),
            }
        }
        replica.token = Some(token);
        if page["more"] == json!(false) {
            assert_eq!(replica.tasks, self.tasks[caller], "{request:?}");
        }
    }

    /// Compares a move with the model. Which positions the API chooses is its own; the order is not.
    async fn acknowledge_move(&mut self, request: &TestRequest, response: &Response<Bytes>) {
        let caller = request.caller.expect("only a valid token succeeds");
        let moved: Value = serde_json::from_slice(response.body()).expect("JSON");
        let id = moved["id"].as_str().expect("a text");
        let before = std::mem::take(&mut self.tasks[caller]);
        let mut after = BTreeMap::new();
        for id in before.keys() {
            let get = TestRequest::read(caller, format!("/tasks/{id}"));
            let task = self.send(&get).await.expect("a valid path");
            after.insert(id.clone(), serde_json::from_slice::<Value>(task.body()).expect("JSON"));
        }
        assert_eq!(after[id], moved, "{request:?}");
        let now = self.clock.now();
        for (id, task) in &before {
            let position = json!({"position": after[id]["position"]});
            assert_eq!(after[id], model::written(Write::Patch, task, &position, now), "{request:?}");
        }
        let (mut order, sent) = (model::in_order(&before), request.sent());
        order.retain(|other| *other != id);
        let place_of = |name: &str| {
            let anchor = sent[name].as_str().expect("a text").to_lowercase();
            order.iter().position(|other| *other == anchor).expect("another task")
        };
        let place = match sent.as_object().expect("an object").keys().next().map(String::as_str) {
            Some("first") => 0,
            Some("last") => order.len(),
            Some("before") => place_of("before"),
            _ => place_of("after") + 1,
        };
        order.insert(place, id);
        assert_eq!(model::in_order(&after), order, "{request:?}");
        self.tasks[caller] = after;
    }

    /// Reads all tasks: they are those of the model.
    async fn read_back(&mut self) {
        for caller in 0..2 {
            if let Some(token) = self.replicas[caller].token.clone() {
                let query = Some(format!("since={token}&limit=200"));
                let next = TestRequest { query, ..TestRequest::read(caller, "/tasks/changes".to_owned()) };
                self.send_and_compare(&next).await;
            }
            for path in ["/tasks", "/tasks/count", "/tasks/summary", "/tasks/changes"] {
                self.send_and_compare(&TestRequest::read(caller, path.to_owned())).await;
            }
            for (owner, id) in self.ids.clone() {
                let named_task = Some((owner, id.clone()));
                let get = TestRequest { named_task, ..TestRequest::read(caller, format!("/tasks/{id}")) };
                let found = self.send(&get).await.expect("a valid path").status() == StatusCode::OK;
                assert_eq!(found, self.tasks[caller].contains_key(&id));
                self.send_and_compare(&get).await;
            }
        }
    }
}

fn version(task: &Value) -> i64 {
    task["version"].as_i64().expect("a number")
}

/// The data of the first event of a stream.
fn event(bytes: &[u8]) -> &[u8] {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let [retry, name, id, data, "", ""] = text.split('\n').collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!((retry, name), ("retry: 3000", "event: changes"), "{text}");
    let id = id.strip_prefix("id: ").expect("an id");
    let data = data.strip_prefix("data: ").expect("data");
    assert!(data.contains(&format!(r#""next":"{id}""#)), "{text}");
    data.as_bytes()
}

/// Checks the properties of every response.
fn check_response(request: &TestRequest, response: &Response<Bytes>) {
    let (status, headers, body) = (response.status(), response.headers(), response.body());
    let header = |name: HeaderName| headers.get(name).map(|value| value.to_str().expect("text"));
    let kept = header(header::ETAG).map_or("no-store", |_| "private, no-cache");
    assert_eq!(header(header::CACHE_CONTROL), Some(kept));
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    for token in TOKENS.iter().chain([&*EXPIRED, &*FORGED]) {
        assert!(!text.contains(token.rsplit('.').next().expect("a signature")), "it contains a token: {text}");
    }
    assert_eq!(header(header::LINK).is_some(), status == 200 && headers.contains_key(header::LINK));
    let error = response.extensions().get::<Arc<ApiError>>();
    let is_error = status.is_client_error() || status.is_server_error();
    assert_eq!(error.map(|error| error.status()), Some(status).filter(|_| is_error));
    assert_eq!(
        header(header::WWW_AUTHENTICATE).is_some_and(|challenge| challenge.starts_with("Bearer")),
        status == 401
    );
    let may_retry = matches!(status.as_u16(), 429 | 503);
    assert_eq!(header(header::RETRY_AFTER).is_some(), may_retry);
    let is_options = request.method == Method::OPTIONS && status == 204;
    assert_eq!(
        header(header::ALLOW),
        Some(request.resource.allow).filter(|_| status == 405 || is_options),
        "{request:?}"
    );

    // The API checks the path, then the token, then the user.
    if status == 404 && text.contains(r#""not_found""#) {
        return assert!(request.named.is_none(), "{request:?}: {text}");
    }
    if request.operation().is_some() && !request.is_probe() {
        assert_eq!(status == 401, request.caller.is_none(), "{request:?}: {text}");
        if let (Some(caller), Some(named)) = (request.caller, request.named) {
            assert_eq!(status == 403, caller != named, "{request:?}: {text}");
        }
    }

    if matches!(status.as_u16(), 204 | 304) {
        assert!(body.is_empty() && header(header::CONTENT_LENGTH).is_none() && header(header::CONTENT_TYPE).is_none());
        return;
    }
    if status == 200 && request.operation() == Some(Operation::StreamEvents) {
        assert_eq!((header(header::CONTENT_TYPE), header(header::CONTENT_LENGTH)), (Some("text/event-stream"), None));
        return;
    }
    assert_eq!(header(header::CONTENT_LENGTH), Some(&*body.len().to_string()));
    if status.is_success() {
        assert!(matches!(status.as_u16(), 200 | 201), "{status}");
        return assert_eq!(header(header::CONTENT_TYPE), Some("application/json"));
    }
    assert_eq!(header(header::CONTENT_TYPE), Some("application/problem+json"));
    let problem: Value = serde_json::from_str(&text).expect("JSON");
    let members: Vec<_> = problem.as_object().expect("an object").keys().map(String::as_str).collect();
    let known = ["type", "title", "status", "detail", "code", "field_errors", "current"];
    assert_eq!(problem.get("current").is_some(), matches!(status.as_u16(), 409 | 412), "{text}");
    assert!(members.iter().all(|name| known.contains(name)), "{text}");
    assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(status.as_u16())));
    assert_eq!(problem["title"], status.canonical_reason().expect("a known status"));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "{text}");
    let code = problem["code"].as_str().expect("a text");
    let codes: &[&str] = match status.as_u16() {
        400 => &["malformed_json", "incomplete_body"],
        401 => &["unauthenticated", "token_expired", "token_invalid"],
        403 => &["forbidden"],
        404 => &["not_found", "task_not_found"],
        405 => &["method_not_allowed"],
        409 => &["version_conflict"],
        410 => &["task_deleted", "sync_token_expired"],
        412 => &["precondition_failed"],
        413 => &["payload_too_large"],
        415 => &["unsupported_media_type"],
        422 => &["validation_failed"],
        408 if request.hangs() => &["request_timeout"],
        _ => panic!("{request:?}: {status} {text}"),
    };
    assert!(codes.contains(&code), "{text}");
    match problem.get("field_errors") {
        Some(fields) => {
            assert_eq!(status, 422);
            let fields = fields.as_object().expect("an object");
            assert!(!fields.is_empty());
            for messages in fields.values() {
                assert!(messages.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(Value::is_string)));
            }
        }
        None => assert!(status != 422 || text.contains("must be a JSON object"), "{text}"),
    }
}

fn method(input: &mut Input<'_>) -> Option<Method> {
    let known = [
        Method::GET,
        Method::POST,
        Method::PATCH,
        Method::PUT,
        Method::DELETE,
        Method::POST,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    match input.below(known.len() + 1) {
        number if number < known.len() => Some(known[number].clone()),
        _ => Method::from_bytes(input.bytes()).ok(),
    }
}

fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).expect("a value")
}

/// Adds a token to the headers. Returns its user if it is valid.
fn credential(input: &mut Input<'_>, headers: &mut HeaderMap) -> Option<usize> {
    let name = header::AUTHORIZATION;
    match input.below(16) {
        0 => None,
        1 => {
            headers.insert(name, bearer(&EXPIRED));
            None
        }
        2 => {
            headers.insert(name, bearer(&FORGED));
            None
        }
        3 => {
            headers.append(&name, bearer(&TOKENS[0]));
            headers.append(&name, bearer(&TOKENS[input.below(2)]));
            None
        }
        4 => {
            if let Ok(value) = HeaderValue::from_bytes(input.bytes()) {
                headers.insert(name, value);
            }
            None
        }
        5 => {
            let scheme = input.choose(&["bearer", "BEARER", "bEaReR"]);
            headers.insert(name, HeaderValue::try_from(format!("{scheme} {}", TOKENS[0])).expect("a value"));
            Some(0)
        }
        number => {
            let user = number % 2;
            headers.insert(name, bearer(&TOKENS[user]));
            Some(user)
        }
    }
}

/// Names of parameters with values that are valid, each of which the fuzzer may also combine with others.
const PARAMETERS: [(&str, &[&str]); 20] = [
    ("limit", &["1", "2", "200", "007", "%31", "0", "201", "+1", ""]),
    ("completed", &["true", "false", "TRUE", ""]),
    ("all", &["true", "true", "false"]),
    ("list", &["", "Home", "W%26k", "home", "+Home"]),
    ("tag", &["x", "y", "X", ""]),
    ("priority", &["low", "urgent", "high", "none"]),
    ("due", &["none", "none", "2026-12-01"]),
    ("due_from", &["2026-12-01", "2026-12-01T08:00", "2026-12-01T08:00Z", "2026-12-01T08:00[Europe/Berlin]", "x"]),
    ("due_before", &["2026-12-02", "2026-12-01T08:01", "2026-12-01T17:00%2B01:00", "0001-01-01", "10000-01-01"]),
    ("time_zone", &["Europe/Berlin", "utc", "America/New_York", "../x", "%00"]),
    ("updated_since", &["2025-11-21T08:00:00Z", "2025-11-21T09:00:01.5%2B01:00", "2025-11-21"]),
    ("q", &["x", "MILK", "%C3%84", "%25", ""]),
    ("sort", &["due", "-due", "priority", "title", "updated", "-updated", "position", "created", "-created", "id"]),
    ("sort", &["due", "position", "title"]),
    ("li%6Dit", &["1", "2"]),
    ("cursor", &["x", ""]),
    ("limi", &["1"]),
    ("user_id", &["alice"]),
    ("", &["", "1"]),
    ("dry_run", &["true"]),
];

fn query(input: &mut Input<'_>, ids: &[(usize, String)], next_page: Option<&str>) -> Option<String> {
    match input.below(8) {
        0..4 => None,
        4 => Some(next_page.unwrap_or("all=true").to_owned()),
        5 => Some(input.text().into_owned()),
        _ => {
            let mut pairs = Vec::new();
            for _ in 0..input.below(5) {
                let (name, values) = input.choose(&PARAMETERS);
                let value = match input.below(8) {
                    0..6 => input.choose(values).to_owned(),
                    6 if !ids.is_empty() => {
                        let (_, id) = &ids[input.below(ids.len())];
                        todo_core::Cursor::after(id.parse().expect("an id")).to_string()
                    }
                    _ => input.text().into_owned(),
                };
                pairs.push(format!("{name}={value}"));
            }
            Some(pairs.join("&"))
        }
    }
}

fn more_headers(input: &mut Input<'_>, headers: &mut HeaderMap) {
    let value = |text: &'static str| HeaderValue::from_static(text);
    match input.below(8) {
        0..4 => {
            headers.insert(header::CONTENT_TYPE, value("application/json"));
        }
        4 => {
            headers.insert(header::CONTENT_TYPE, value("application/merge-patch+json; charset=\"UTF-8\""));
        }
        5 => {}
        6 => {
            headers.append(header::CONTENT_TYPE, value("application/json"));
            headers.append(header::CONTENT_TYPE, value("text/plain"));
        }
        _ => {
            if let Ok(value) = HeaderValue::from_bytes(input.bytes()) {
                headers.insert(header::CONTENT_TYPE, value);
            }
        }
    }
    match input.below(16) {
        0 => {
            headers.insert(header::CONTENT_LENGTH, value("18446744073709551615"));
        }
        1 => {
            headers.insert(header::CONTENT_ENCODING, value("gzip"));
        }
        2 => {
            headers.insert(header::CONTENT_ENCODING, value("identity"));
        }
        3 => {
            let name = HeaderName::from_bytes(input.bytes());
            let own = |name: &HeaderName| *name == header::AUTHORIZATION;
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(input.bytes()))
                && !own(&name)
            {
                headers.append(name, value);
            }
        }
        _ => {}
    }
}

/// Adds conditions and keys of requests.
fn conditions(input: &mut Input<'_>, headers: &mut HeaderMap) {
    for (name, values) in [
        ("if-match", &["\"1\"", "\"2\"", "*", "W/\"1\"", "\"1\", \"2\", \"3\"", "1", ""][..]),
        ("if-none-match", &["*", "*", "\"1\"", "W/\"2\"", "\"x\", \"3\"", "x", "*, \"1\""]),
        ("idempotency-key", &["a", "b", "\"a\"", "", "a b"]),
    ] {
        if input.below(8) == 7 {
            headers.insert(name, HeaderValue::from_static(input.choose(values)));
        }
    }
}

fn frames(input: &mut Input<'_>, ids: &[(usize, String)]) -> Vec<BodyFrame> {
    let body: Vec<u8> = match input.below(8) {
        0 => Vec::new(),
        1 => input.bytes().to_vec(),
        2 => input.bytes().repeat(1 + input.below(8)),
        3 => {
            let objects: Vec<_> = (0..input.below(5)).map(|_| object(input, ids)).collect();
            format!("[{}]", objects.join(",")).into_bytes()
        }
        _ => object(input, ids).into_bytes(),
    };
    let mut frames = Vec::new();
    match input.below(8) {
        0..4 => frames.push(BodyFrame::Data(body.into())),
        4 => {
            let piece = 1 + input.below(40);
            frames.extend(body.chunks(piece).map(|piece| BodyFrame::Data(Bytes::copy_from_slice(piece))));
            frames.push(BodyFrame::Trailers);
        }
        5 => {
            let at = input.below(256).min(body.len());
            frames.push(BodyFrame::Data(Bytes::copy_from_slice(&body[..at])));
            frames.push(input.choose(&[&BodyFrame::Failure, &BodyFrame::Pending]).clone());
        }
        6 => {
            let at = input.below(256).min(body.len());
            frames.extend([&body[..at], &[], &body[at..]].map(|piece| BodyFrame::Data(Bytes::copy_from_slice(piece))));
        }
        _ => frames.extend([BodyFrame::Trailers, BodyFrame::Data(body.into())]),
    }
    frames
}

/// Names of members with values that are valid or almost valid.
const MEMBERS: [(&str, &[&str]); 20] = [
    ("title", &["\"Buy milk\"", "\"  Buy milk\\t\"", "\"x\"", "\"\"", "\" \"", "\"\u{85}\u{3000}y\"", "\"a\\u0000b\""]),
    ("title", &["\"\u{c4}pfel\"", "\"buy\"", "\"\\ud83d\\ude00\"", "\"\\ud800\""]),
    ("t\\u0069tle", &["\"x\"", "null"]),
    ("description", &["null", "\"\"", "\"More milk\"", "1"]),
    ("completed", &["true", "false", "null"]),
    (
        "due",
        &[
            "\"2026-12-01\"",
            "\"2026-12-01T08:00\"",
            "\"2026-12-01T08:00[europe/berlin]\"",
            "\"2026-12-01T09:00+01:00\"",
            "\"2026-10-25T02:30[Europe/Berlin]\"",
            "\"2026-10-25T02:30+01:00[Europe/Berlin]\"",
            "null",
            "\"2026-03-29T02:30+01:00[Europe/Berlin]\"",
            "\"2026-12-01T08:00[../x]\"",
        ],
    ),
    ("priority", &["\"low\"", "\"urgent\"", "\"high\"", "null", "\"High\""]),
    ("list", &["\"Home\"", "\" W&k \"", "null", "\"\""]),
    ("tags", &["[]", "[\"x\"]", "[\"x\",\" y \"]", "null", "[\"x\",\"x\"]", "[1]"]),
    ("position", &["\"a0\"", "\"a1\"", "\"Zz\"", "\"a0V\"", "null", "\"a00\"", "\"a0\""]),
    (
        "metadata",
        &["{}", "{\"b\":1,\"a\":{\"c\":null}}", "{\"b\":null}", "{\"a\":-0.0}", "{\"a\":[0]}", "null", "{\"a\":1e999}"],
    ),
    (
        "metadata",
        &["{\"a\":{\"c\":18446744073709551615}}", "{\"n\":1e2}", "[]", "{\"a\":1,\"a\":2}", "{\"\\u0000\":1}"],
    ),
    ("first", &["true", "true", "false"]),
    ("last", &["true", "true", "null"]),
    ("before", &["5"]),
    ("after", &["\"x\""]),
    ("from_token", &["5"]),
    ("user_id", &["\"alice\"", "\"bob|1\""]),
    ("version", &["1", "2", "0", "\"1\""]),
    ("x", &["1", "tru", "{}"]),
];

/// A JSON object with members that the API knows.
fn object(input: &mut Input<'_>, ids: &[(usize, String)]) -> String {
    let mut members = Vec::new();
    for _ in 0..input.below(6) {
        let (name, values) = input.choose(&MEMBERS);
        let value = match input.below(12) {
            0..9 if name == "from_token" => json!(TOKENS[input.below(2)]).to_string(),
            0..9 if matches!(name, "before" | "after") && !ids.is_empty() => {
                json!(ids[input.below(ids.len())].1).to_string()
            }
            0..9 => input.choose(values).to_owned(),
            9 => json!("ä".repeat(input.below(256))).to_string(),
            10 => input.text().into_owned(),
            _ => json!(input.text()).to_string(),
        };
        members.push(format!("\"{name}\":{value}"));
    }
    format!("{{{}}}", members.join(input.choose(&[",", ", ", "\n,", ",", ";"])))
}
