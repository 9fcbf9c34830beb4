//! Any query of a list, with any cursor.
//!
//! An accepted cursor has exactly one spelling. A page contains what the query asks for, and nothing of another owner.
//! The response to an invalid query names every invalid parameter. The links of the pages lead to each task once, and
//! end.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, Uri, header, request::Parts};
use http_body_util::Empty;
use serde_json::Value;
use todo_core::{
    Cursor, ListName, NewTask, Priority, Tag, Tags, TaskId, TaskQuery, Title, TodoService, UserId,
    api::{FieldErrors, RESOURCES, TodoApi},
    auth::{AuthError, Authenticator, Identity},
    clock::{IdGenerator, Timestamp},
    store::MemoryStore,
};

use crate::{
    input::Input,
    model::{Wanted, malformed, pairs, shown},
};

const USERS: [&str; 2] = ["alice", "bob"];

/// Checks a query. The first bytes of `data` choose the existing tasks, the rest is the query, in which `$` and a digit
/// are replaced by the cursor after that task.
///
/// # Panics
///
/// If a property of [this module](self) does not hold.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..input.below(16) {
        let flags = input.byte();
        world.add(usize::from(flags & 1), flags & 2 != 0, id(flags >> 2, input.byte()));
    }
    let inserts_between = input.byte();
    let mut query = String::from_utf8_lossy(input.rest()).into_owned();
    for (number, (_, id, _)) in world.tasks.iter().take(10).enumerate() {
        let id: TaskId = id.parse().expect("an id");
        query = query.replace(&format!("${number}"), &Cursor::after(id).to_string());
    }
    round_trip(&query);
    for value in query.split(['&', '=']) {
        round_trip(value);
    }
    world.list(&query, inserts_between);
}

/// Ids next to each other, and at both ends of the range.
fn id(high: u8, low: u8) -> u128 {
    match high & 7 {
        0 => u128::from(low),
        1 => u128::MAX - u128::from(low),
        high => (u128::from(high) << 120) + u128::from(low % 8),
    }
}

fn round_trip(text: &str) {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string(), text);
    }
}

fn number(id: &str) -> u128 {
    u128::from_str_radix(&id.replace('-', ""), 16).expect("hexadecimal")
}

#[derive(Debug)]
struct UserByHeader;

#[async_trait::async_trait]
impl Authenticator for UserByHeader {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        let name = head.headers[header::AUTHORIZATION].to_str().expect("text");
        Ok(Identity::new(UserId::new(name).expect("a user")))
    }
}

/// Generates the ids that were pushed into it.
#[derive(Clone, Debug, Default)]
struct ChosenIds(Arc<Mutex<VecDeque<TaskId>>>);

impl IdGenerator for ChosenIds {
    fn next(&self, _: Timestamp) -> TaskId {
        self.0.lock().expect("no panic").pop_front().expect("an id")
    }
}

struct World {
    api: TodoApi,
    ids: ChosenIds,
    /// Owner, id, completed.
    tasks: Vec<(usize, String, bool)>,
}

impl World {
    fn new() -> Self {
        let ids = ChosenIds::default();
        let service = TodoService::new(MemoryStore::new()).with_ids(ids.clone());
        Self { api: TodoApi::new(service, UserByHeader), ids, tasks: Vec::new() }
    }

    fn add(&mut self, owner: usize, completed: bool, id: u128) {
        let (low, text) = (id & 0xff, format!("{id:032x}"));
        let id = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-");
        // Ids need only be unique for each owner.
        if self.tasks.iter().any(|(own, other, _)| *own == owner && *other == id) {
            return;
        }
        self.ids.0.lock().expect("no panic").push_back(id.parse().expect("an id"));
        // What is sorted and filtered by, chosen by the last digits of the id.
        let (low, lists) = (usize::try_from(low).expect("a byte"), ["Home", "W&k="]);
        let dues = ["2026-12-01", "2026-12-01T08:00", "2026-12-01T09:00[Europe/Berlin]", "2026-12-01T08:00Z"];
        let new = NewTask {
            completed,
            priority: Priority::ALL.get(low % 5).copied(),
            due: dues.get(low / 2 % 5).map(|due| due.parse().expect("a due time")),
            list: lists.get(low % 3).map(|list| ListName::new(*list).expect("a list")),
            tags: Tags::new(["x", "y"][..low % 3].iter().map(|tag| Tag::new(*tag).expect("a tag")).collect())
                .expect("tags"),
            ..NewTask::new(Title::new(format!("{owner} {id}")).expect("a title"))
        };
        let tasks = self.api.service().for_user(UserId::new(USERS[owner]).expect("a user"));
        let task = tasks.create(new).now_or_never().expect("the memory store is never pending").expect("a new id");
        assert_eq!(task.id.to_string(), id);
        self.tasks.push((owner, id, completed));
    }

    fn request(&self, query: &str) -> Option<Response<Bytes>> {
        let uri: Uri = format!("/api/v1/tasks?{query}").parse().ok()?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static(USERS[0]));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let response = runtime.expect("a runtime").block_on(self.api.respond(&RESOURCES[0], request));
        Some(response.map(|body| body.into_bytes().expect("no stream")))
    }

    /// Checks the response to a query with filters or a sort, and those to the links of its pages.
    fn list_filtered(&self, query: &str, mut response: Response<Bytes>) {
        if response.status() == 422 {
            let problem: Value = serde_json::from_slice(response.body()).expect("JSON");
            let given: BTreeSet<_> = pairs(query).map(|(name, _)| shown(&name)).collect();
            let named = problem["field_errors"].as_object().expect("fields");
            assert!(!named.is_empty() && named.keys().all(|name| given.contains(name)), "{query:?}: {problem}");
            return;
        }
        let all = self.request("limit=200").expect("a valid query");
        let all: Vec<Value> = serde_json::from_slice(all.body()).expect("a list");
        let mut query = query.to_owned();
        for page in 0.. {
            assert!(page <= all.len(), "the links do not end: {query:?}");
            assert_eq!(response.status(), 200, "{query:?}");
            let listed: Vec<Value> = serde_json::from_slice(response.body()).expect("a list");
            let (expected, more) = Wanted::parse(&query).page(&all);
            assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{query:?}");
            let link = response.headers().get(header::LINK).map(next_query);
            assert_eq!(link.is_some(), more, "{query:?}");
            let Some(next) = link else { break };
            let repeated =
                |query: &str| pairs(query).filter(|(name, _)| name != "cursor" && name != "limit").collect::<Vec<_>>();
            assert_eq!(repeated(&next), repeated(&query), "a link repeats the filters");
            response = self.request(&next).expect("a link is a valid query");
            query = next;
        }
    }

    fn list(&mut self, query: &str, inserts_between: u8) {
        let Some(response) = self.request(query) else { return };
        // A URI has no fragment: `#` ends the query.
        let query = query.split('#').next().unwrap_or_default();
        if pairs(query).any(|(name, _)| FILTERS.contains(&&*name)) {
            self.list_filtered(query, response);
            return;
        }
        let wanted = match Parameters::parse(query) {
            Ok(wanted) => wanted,
            Err(wrong) => {
                assert_eq!(response.status(), 422, "{query:?}");
                let problem: Value = serde_json::from_slice(response.body()).expect("JSON");
                let named: BTreeSet<_> = problem["field_errors"].as_object().expect("fields").keys().cloned().collect();
                let wrong: BTreeSet<_> = wrong.iter().map(|name| shown(name)).collect();
                assert!(named.is_subset(&wrong), "{query:?}: {named:?}, {wrong:?}");
                assert_eq!(named.len(), wrong.len().min(FieldErrors::MAX_FIELDS), "{query:?}: {named:?}, {wrong:?}");
                return;
            }
        };
        let mut expected: Vec<_> = self
            .tasks
            .iter()
            .filter(|(owner, id, completed)| {
                *owner == 0
                    && wanted.cursor.is_none_or(|cursor| number(id) < cursor)
                    && wanted.completed.is_none_or(|wanted| wanted == *completed)
            })
            .map(|(_, id, _)| id.clone())
            .collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));

        let mut response = response;
        let mut listed = Vec::new();
        for page in 0.. {
            assert!(page <= expected.len() + 256, "the links do not end: {query:?}");
            assert_eq!(response.status(), 200, "{query:?}");
            let tasks: Vec<Value> = serde_json::from_slice(response.body()).expect("a list");
            assert!(tasks.len() <= wanted.limit);
            for task in &tasks {
                let id = task["id"].as_str().expect("a text");
                assert_eq!(
                    (task["user_id"].as_str(), task["title"].as_str()),
                    (Some(USERS[0]), Some(&*format!("0 {id}")))
                );
                listed.push(id.to_owned());
            }
            let Some(link) = response.headers().get(header::LINK) else { break };
            assert_eq!(tasks.len(), wanted.limit, "only a full page has a next page");
            let next = next_query(link);
            // Tasks are inserted between two pages: the next page contains the older ones, not the newer ones.
            if page < 4 && inserts_between & (1 << page) != 0 {
                let id = u128::from(inserts_between) << (24 * page + 8);
                let before = self.tasks.len();
                self.add(0, wanted.completed.unwrap_or(true), id);
                let last = number(listed.last().expect("a full page"));
                if self.tasks.len() > before && id < last {
                    expected.push(self.tasks[before].1.clone());
                    expected.sort_unstable_by(|a, b| b.cmp(a));
                }
            }
            response = self.request(&next).expect("a link is a valid query");
        }
        assert_eq!(listed, expected, "{query:?}");
    }
}

/// The query of a link to the next page.
fn next_query(link: &HeaderValue) -> String {
    let link = link.to_str().expect("text");
    link.strip_prefix("<?").and_then(|link| link.strip_suffix(">; rel=\"next\"")).expect(link).to_owned()
}

/// The parameters that [`Parameters`] does not know.
const FILTERS: [&str; 10] =
    ["list", "tag", "priority", "due", "due_from", "due_before", "time_zone", "updated_since", "q", "sort"];

struct Parameters {
    limit: usize,
    cursor: Option<u128>,
    completed: Option<bool>,
}

impl Parameters {
    /// The parameters of a query, or the names of the invalid ones.
    fn parse(query: &str) -> Result<Self, BTreeSet<String>> {
        let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut wrong: BTreeSet<_> = malformed(query).collect();
        let is_encoded = |pair: &&str| malformed(pair).next().is_none();
        for (name, value) in query.split('&').filter(is_encoded).flat_map(pairs) {
            given.entry(name).or_default().push(value);
        }
        let mut wanted = Self { limit: 100, cursor: None, completed: None };
        let mut cursor = None;
        for (name, values) in given {
            let is_valid = match (&*name, &*values) {
                ("limit", [value]) => limit(value).map(|limit| wanted.limit = limit).is_some(),
                // Below: whether it belongs to this list depends on another parameter.
                ("cursor", [value]) => {
                    cursor = value.parse::<Cursor>().ok();
                    cursor.is_some()
                }
                ("completed", [value]) => {
                    wanted.completed = Some(value == "true");
                    matches!(&**value, "true" | "false")
                }
                _ => false,
            };
            if !is_valid {
                wrong.insert(name);
            }
        }
        if let Some(cursor) = cursor {
            wanted.cursor = Some(number(&cursor.task_id().to_string()));
            if !TaskQuery::new().completed(wanted.completed).accepts(&cursor) {
                wrong.insert("cursor".to_owned());
            }
        }
        if wrong.is_empty() { Ok(wanted) } else { Err(wrong) }
    }
}

fn limit(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.trim_start_matches('0'))?;
    let limit = if digits.len() <= 3 { digits.parse().ok()? } else { return None };
    (1..=200).contains(&limit).then_some(limit)
}
