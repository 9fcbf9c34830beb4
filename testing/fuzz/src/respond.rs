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

use crate::input::Input;

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
        Self { api, clock, tasks: Default::default(), ids: Vec::new() }
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
        let query = query(input, &self.ids);
        more_headers(input, &mut headers);
        let frames = frames(input);
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
        Some(self.api.respond(request.resource, http_request).await)
    }

    async fn send_and_compare(&mut self, request: &TestRequest) {
        // A request for a task that the caller does not have must look like one for an unknown id.
        let missing_task = request
            .named_task
            .as_ref()
            .filter(|(owner, id)| request.caller != Some(*owner) || !self.tasks[*owner].contains_key(id));
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
        if response.status().is_success() {
            self.acknowledge(request, &response);
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
            let (owner, id) = request.named_task.as_ref().expect("only an existing task can be deleted");
            assert_eq!(*owner, caller);
            assert!(self.tasks[caller].remove(id).is_some(), "{request:?}");
            return;
        }
        let answer: Value = serde_json::from_slice(response.body()).expect("JSON");
        match operation {
            Operation::DeleteTasks => {
                let count = std::mem::take(&mut self.tasks[caller]).len();
                return assert_eq!(answer, json!({"matched": count, "changed": count}), "{request:?}");
            }
            Operation::TransferTasks => {
                let moved = std::mem::take(&mut self.tasks[1 - caller]);
                assert_eq!(answer, json!({"moved": moved.len(), "remaining": 0}), "{request:?}");
                for (id, mut task) in moved {
                    task["user_id"] = json!(USERS[caller]);
                    self.ids.iter_mut().filter(|(_, known)| *known == id).for_each(|(owner, _)| *owner = caller);
                    self.tasks[caller].insert(id, task);
                }
                return;
            }
            Operation::GetSession => return assert_eq!(answer["user"]["id"], USERS[caller]),
            Operation::ListTasks => {
                let listed = answer.as_array().expect("a list");
                let mut before = None;
                for task in listed {
                    let id = task["id"].as_str().expect("a text");
                    assert!(before.is_none_or(|before| id < before), "{answer}");
                    before = Some(id);
                    assert_eq!(Some(task), self.tasks[caller].get(id), "{request:?}");
                }
                if request.query.is_none() {
                    assert_eq!(listed.len(), self.tasks[caller].len().min(100));
                }
                return;
            }
            _ => {}
        }
        let id = answer["id"].as_str().expect("a text").to_owned();
        assert_eq!(answer["user_id"], USERS[caller]);
        let before = self.tasks[caller].get(&id).cloned();
        if operation == Operation::GetTask {
            return assert_eq!(Some(answer), before, "{request:?}");
        }
        let sent: Value = match request.body() {
            blank if blank.trim_ascii().is_empty() => json!({}),
            sent => serde_json::from_slice(&sent).expect("an accepted body is JSON"),
        };
        if operation == Operation::CreateTask {
            assert!(self.ids.iter().all(|(_, other)| *other != id), "a new id");
            assert_eq!(response.status(), StatusCode::CREATED);
            assert_eq!(response.headers()[header::LOCATION], format!("tasks/{id}"));
            self.ids.push((caller, id.clone()));
        }
        assert_eq!(answer, expected(operation, before.as_ref(), &sent, &answer), "{request:?}");
        self.tasks[caller].insert(id, answer);
    }

    /// Reads all tasks: they are those of the model.
    async fn read_back(&mut self) {
        for caller in 0..2 {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, bearer(&TOKENS[caller]));
            let list = TestRequest {
                resource: &RESOURCES[0],
                method: Method::GET,
                path: "/tasks".to_owned(),
                query: None,
                headers,
                frames: Vec::new(),
                caller: Some(caller),
                named: None,
                named_task: None,
            };
            self.send_and_compare(&list).await;
            for (owner, id) in self.ids.clone() {
                let path = format!("/tasks/{id}");
                let get = TestRequest {
                    resource: find_resource(RESOURCES, &path).expect("a task has a path"),
                    path,
                    named_task: Some((owner, id.clone())),
                    ..list.clone()
                };
                let found = self.send(&get).await.expect("a valid path").status() == StatusCode::OK;
                assert_eq!(found, owner == caller && self.tasks[owner].contains_key(&id));
                self.send_and_compare(&get).await;
            }
        }
    }
}

/// The task after this operation. Values that the server chooses are taken from its response.
fn expected(operation: Operation, before: Option<&Value>, sent: &Value, answer: &Value) -> Value {
    let of_before = |name: &str| before.map(|before| before[name].clone());
    let mut task = answer.clone();
    if operation == Operation::CompleteTask {
        let was = of_before("completed").expect("the task existed");
        task["completed"] = sent.get("completed").cloned().unwrap_or_else(|| json!(was != json!(true)));
        task["title"] = of_before("title").expect("the task existed");
        task["description"] = of_before("description").expect("the task existed");
    } else {
        let replaces = operation != Operation::PatchTask;
        task["title"] = match sent.get("title") {
            Some(title) => json!(title.as_str().expect("a text").trim()),
            None => of_before("title").expect("the task existed"),
        };
        task["description"] = match (sent.get("description"), of_before("description")) {
            (Some(sent), _) => sent.clone(),
            (None, Some(before)) if !replaces => before,
            (None, _) => Value::Null,
        };
        task["completed"] = sent.get("completed").cloned().or(of_before("completed")).unwrap_or(json!(false));
    }
    match before {
        None => {
            task["version"] = json!(1);
            assert_eq!(task["created_at"], task["updated_at"]);
        }
        Some(before) => {
            task["created_at"] = before["created_at"].clone();
            let changed = ["title", "description", "completed"].iter().any(|name| task[*name] != before[*name]);
            task["version"] = json!(before["version"].as_i64().expect("a number") + i64::from(changed));
            // Both texts have the same length, so this compares the times.
            assert!(answer["updated_at"].as_str() >= before["updated_at"].as_str(), "{answer}");
            if !changed {
                task["updated_at"] = before["updated_at"].clone();
            }
        }
    }
    task
}

/// Checks the properties of every response.
fn check_response(request: &TestRequest, response: &Response<Bytes>) {
    let (status, headers, body) = (response.status(), response.headers(), response.body());
    let header = |name: HeaderName| headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!(header(header::CACHE_CONTROL), Some("no-store"));
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    for token in TOKENS.iter().chain([&*EXPIRED, &*FORGED]) {
        assert!(!text.contains(token.rsplit('.').next().expect("a signature")), "it contains a token: {text}");
    }
    assert_eq!(header(header::LINK).is_some(), status == 200 && headers.contains_key(header::LINK));
    let error = response.extensions().get::<Arc<ApiError>>();
    assert_eq!(error.map(|error| error.status()), Some(status).filter(|status| !status.is_success()));
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

    if status == 204 {
        assert!(body.is_empty() && header(header::CONTENT_LENGTH).is_none() && header(header::CONTENT_TYPE).is_none());
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
    let known = ["type", "title", "status", "detail", "code", "field_errors"];
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

fn query(input: &mut Input<'_>, ids: &[(usize, String)]) -> Option<String> {
    match input.below(8) {
        0..5 => None,
        5 => Some(input.text().into_owned()),
        _ => {
            let mut pairs = Vec::new();
            for _ in 0..input.below(4) {
                let name = input.choose(&["limit", "cursor", "completed", "li%6Dit", "limi", "user_id", "", "all"]);
                let value = match input.below(8) {
                    0..4 => {
                        input.choose(&["1", "2", "200", "0", "201", "true", "false", "007", "+1", "%31", ""]).to_owned()
                    }
                    4 | 5 if !ids.is_empty() => {
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

fn frames(input: &mut Input<'_>) -> Vec<BodyFrame> {
    let body: Vec<u8> = match input.below(8) {
        0 => Vec::new(),
        1 => input.bytes().to_vec(),
        2 => input.bytes().repeat(1 + input.below(8)),
        _ => object(input).into_bytes(),
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

/// A JSON object with members that the API knows, and with values that are almost valid.
fn object(input: &mut Input<'_>) -> String {
    let mut members = Vec::new();
    for _ in 0..input.below(5) {
        let name = input.choose(&[
            "title",
            "description",
            "completed",
            "title",
            "t\\u0069tle",
            "user_id",
            "id",
            "version",
            "x",
            "from_token",
        ]);
        let value = match input.below(12) {
            0..8 if name == "from_token" => json!(TOKENS[input.below(2)]).to_string(),
            0..3 => {
                json!(input.choose(&["Buy milk", "  Buy milk\t", "x", "", " ", "\u{85}\u{3000}y", "a\0b"])).to_string()
            }
            3 => "true".to_owned(),
            4 => "false".to_owned(),
            5 => "null".to_owned(),
            6 => json!("ä".repeat(input.below(256))).to_string(),
            7 => input
                .choose(&["1", "[]", "{}", "\"\\ud800\"", "1e999", "tru", "\"\\u0000\"", "\"\\ud83d\\ude00\""])
                .to_owned(),
            8 => input.text().into_owned(),
            _ => json!(input.text()).to_string(),
        };
        members.push(format!("\"{name}\":{value}"));
    }
    format!("{{{}}}", members.join(input.choose(&[",", ", ", "\n,", ",", ";"])))
}
