//! The load: a number of requests a second, whether or not the server keeps up, by users whose models know what each
//! response must show.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    call::{Call, Verdict, check, next_page},
    client::{Connections, Outcome, Response},
    model::{Content, DUES, Filter, Model, Moment, PRIORITIES, Page, Place, Sort},
    tally::{Recovery, Tally, Watch, micros},
};

/// The number of users.
pub(crate) const USERS: usize = 50;
/// About how many tasks each user has.
pub(crate) const TASKS: usize = 40;
const PAGE: usize = 20;
/// The maximum number of requests in flight. A real client machine would not open more connections, either.
const MAX_IN_FLIGHT: usize = 3000;
/// Titles contain one of these: what a backup, a statement or an encoding may get wrong.
const ODD_TITLES: [&str; 8] = [
    "buy milk, «bread» & 🧀",
    "Zażółć gęślą jaźń",
    "買い物",
    "é is e\u{301}",
    "'; drop table tasks; --",
    r#"a "quoted" \ one"#,
    "שלום\u{200f}",
    "\u{1d11e}",
];
/// The list that is never renamed.
const HOME: &str = "Home & «garden» 🧀";
const TAGS: [&str; 4] = ["a", "A", "NULL,{}", "z\u{308}"];
/// A page of this length has all tasks of a user.
const ALL: usize = 200;

/// One of the users.
struct User {
    name: String,
    token: Mutex<String>,
    state: Mutex<State>,
    connections: Connections,
}

struct State {
    model: Model,
    random: Random,
    next: Option<(String, Page)>,
    /// The list that is renamed now and then. Its names are used once.
    list: String,
}

/// Makes the token of a user.
pub(crate) type Mint = Box<dyn Fn(&str) -> String + Send + Sync>;

struct Shared {
    users: Vec<User>,
    tally: Mutex<Tally>,
    runs: AtomicBool,
    in_flight: AtomicUsize,
    names: AtomicUsize,
}

/// A load that runs until it is stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

/// The name of a user of a [`Load`], as long as the ids of Better Auth.
pub(crate) fn user_name(prefix: &str, number: usize) -> String {
    format!("{prefix:0<14}{number:018}")
}

impl Load {
    /// The usual users, without any task.
    pub(crate) fn new(servers: &[SocketAddr], mint: &Mint) -> Self {
        Self::of_users("userOfTheDrill", USERS, servers, mint)
    }

    /// Users without any task. Their names begin with this prefix.
    pub(crate) fn of_users(prefix: &str, count: usize, servers: &[SocketAddr], mint: &Mint) -> Self {
        let user = |number: usize| {
            let name = user_name(prefix, number);
            User {
                token: Mutex::new(mint(&name)),
                state: Mutex::new(State {
                    model: Model::new(&name),
                    random: Random(number as u64),
                    next: None,
                    list: "First list".to_owned(),
                }),
                connections: Connections::new(servers.to_vec()),
                name,
            }
        };
        let shared = Shared {
            users: (0..count).map(user).collect(),
            tally: Mutex::default(),
            runs: AtomicBool::new(true),
            in_flight: AtomicUsize::new(0),
            names: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared), ticker: None }
    }

    /// Gives every user some tasks.
    pub(crate) async fn fill(&self) {
        let mut users = JoinSet::new();
        for number in 0..self.shared.users.len() {
            let shared = self.shared.clone();
            users.spawn(async move {
                for _ in 0..TASKS {
                    let call = shared.plan_creation(number);
                    shared.call(number, call).await;
                }
            });
        }
        users.join_all().await;
    }

    /// Starts to send this number of requests a second.
    pub(crate) fn start(&mut self, rate: u32) {
        let shared = self.shared.clone();
        shared.runs.store(true, Ordering::Relaxed);
        self.ticker = Some(tokio::spawn(async move {
            let mut pace = interval(Duration::from_secs(1) / rate.max(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for number in (0..shared.users.len()).cycle() {
                pace.tick().await;
                if !shared.runs.load(Ordering::Relaxed) {
                    return;
                }
                if shared.in_flight.load(Ordering::Relaxed) >= MAX_IN_FLIGHT {
                    shared.tally().skipped += 1;
                    continue;
                }
                shared.in_flight.fetch_add(1, Ordering::Relaxed);
                let shared = shared.clone();
                tokio::spawn(async move {
                    let call = shared.plan(number);
                    shared.call(number, call).await;
                    shared.in_flight.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }));
    }

    /// Stops sending, and waits for all requests in flight.
    pub(crate) async fn stop(&mut self) {
        self.shared.runs.store(false, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.await;
        }
        while self.shared.in_flight.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The fault ends now.
    pub(crate) fn fault_ended(&self) {
        let recovery = Recovery { ended: Instant::now(), read: None, write: None, last_failure: None };
        self.tally().recovery = Some(recovery);
    }

    /// From now on, measures how long no write succeeds. Returns the longest such time since the last call, and how long
    /// after that call the last request failed.
    pub(crate) fn watch(&self) -> (Duration, Option<Duration>) {
        let now = Instant::now();
        let before = self.tally().watch.replace(Watch::new(now));
        before.map_or_else(Default::default, |watch| (watch.longest_until(now), watch.last_failure))
    }

    /// Whether a write has succeeded that was sent after this moment.
    pub(crate) fn has_written_since(&self, moment: Instant) -> bool {
        self.tally().written.is_some_and(|sent| sent > moment)
    }

    /// Requests sent before this moment must get a response.
    pub(crate) fn must_respond_before(&self, moment: Instant) {
        self.tally().must_respond = Some(moment);
    }

    /// Gives the users new tokens.
    pub(crate) fn renew_tokens(&self, mint: &Mint) {
        for user in &self.shared.users {
            *user.token.lock().unwrap_or_else(PoisonError::into_inner) = mint(&user.name);
        }
    }

    /// Closes all idle connections, as gateways do when the load decreases.
    pub(crate) fn close_idle(&self) {
        for user in &self.shared.users {
            user.connections.close_idle();
        }
    }

    /// Sends requests to these servers from now on.
    pub(crate) fn use_servers(&self, servers: &[SocketAddr]) {
        for user in &self.shared.users {
            user.connections.use_servers(servers);
        }
    }

    /// Sends one request of one user for a page. Returns whether the response was successful.
    pub(crate) async fn try_once(&self) -> bool {
        let page = Page { limit: PAGE, ..Page::default() };
        let call = Call::List { page, query: format!("?limit={PAGE}"), sent: self.shared.moment(0) };
        self.shared.call(0, call).await
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.shared.tally()
    }

    /// Reads all pages of every user, and compares them with the models. No write may be in flight.
    ///
    /// # Errors
    ///
    /// A page gets no successful response.
    pub(crate) async fn check_everything(&self) -> Result<(), String> {
        for number in 0..self.shared.users.len() {
            let mut next = Some((format!("?limit={}", 7 * PAGE), Page { limit: 7 * PAGE, ..Page::default() }));
            let mut attempts = 20;
            while let Some((query, page)) = next.take() {
                let call = Call::List { page: page.clone(), query: query.clone(), sent: self.shared.moment(number) };
                if self.shared.call(number, call).await {
                    next = self.shared.state(number).next.take();
                } else {
                    attempts -= 1;
                    if attempts == 0 {
                        return Err("a page of the last check gets no successful response".to_owned());
                    }
                    sleep(Duration::from_millis(250)).await;
                    next = Some((query, page));
                }
            }
        }
        Ok(())
    }

    /// Reads all pages of every user, byte for byte. Nothing is compared with the models.
    ///
    /// # Errors
    ///
    /// A page gets no successful response.
    pub(crate) async fn snapshot(&self) -> Result<Vec<Bytes>, String> {
        let mut pages = Vec::new();
        for number in 0..self.shared.users.len() {
            let mut next = Some("?limit=200".to_owned());
            while let Some(query) = next {
                let outcome = self.shared.send(number, Method::GET, format!("/api/tasks{query}"), None).await;
                let Outcome::Responded(_, Response { status: StatusCode::OK, headers, body }) = outcome else {
                    return Err(format!("a page of a snapshot is not read: {outcome:?}"));
                };
                pages.push(body);
                next = next_page(&headers).map(str::to_owned);
            }
        }
        Ok(pages)
    }

    /// The present moment of every user's model.
    pub(crate) fn moments(&self) -> Vec<Moment> {
        (0..self.shared.users.len()).map(|number| self.shared.moment(number)).collect()
    }

    /// The database was restored from a backup that began at these [`moments`](Self::moments). No write may be sent
    /// after this.
    pub(crate) fn restored(&self, backup: &[Moment]) {
        for (number, moment) in backup.iter().enumerate() {
            self.shared.state(number).model.restored(*moment);
        }
    }

    /// The number of versions and deletions that responses have shown.
    pub(crate) fn known(&self) -> usize {
        (0..self.shared.users.len()).map(|number| self.shared.state(number).model.known()).sum()
    }

    /// The number of tasks, and the number of writes with an unknown outcome.
    pub(crate) fn census(&self) -> (usize, usize) {
        (0..self.shared.users.len())
            .map(|number| self.shared.state(number))
            .fold((0, 0), |(tasks, open), state| (tasks + state.model.len(), open + state.model.unresolved()))
    }

    /// The owner and the id of a task that must exist.
    pub(crate) fn victim(&self) -> Option<(String, String)> {
        let state = self.shared.state(0);
        let id = state.model.free().first().map(|(id, _)| (*id).to_owned())?;
        Some((self.shared.users[0].name.clone(), id))
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, number: usize) -> MutexGuard<'_, State> {
        self.users[number].state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self, number: usize) -> Moment {
        self.state(number).model.now()
    }

    /// A title that is used once.
    fn title(&self, what: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{what} no. {number}: {}", ODD_TITLES[number % ODD_TITLES.len()])
    }

    fn plan_creation(&self, number: usize) -> Call {
        let mut state = self.state(number);
        let description = state.random.chance(50).then(|| "Not the one from last time.\nThe other one.".to_owned());
        let mut content = Content {
            title: self.title("Task"),
            description,
            completed: state.random.chance(20),
            ..Content::default()
        };
        for field in ["due", "priority", "list", "tags", "metadata"] {
            if state.random.chance(50) {
                change(&mut content, field, &mut state);
            }
        }
        state.model.creating(&content);
        Call::Create { content }
    }

    /// The next request of this user.
    fn plan(&self, number: usize) -> Call {
        let mut state = self.state(number);
        let sent = state.model.now();
        let drawn = state.random.below(100);
        if drawn < 30 {
            return plan_list(&mut state, sent);
        }
        if drawn < 36 {
            return if drawn < 33 { Call::Count { filter: filter(&mut state), sent } } else { Call::Summary { sent } };
        }
        if drawn < 56 {
            let State { random, model, .. } = &mut *state;
            let ids = if drawn < 53 { model.present() } else { model.gone() };
            if let Some(id) = random.one_of(&ids) {
                return Call::Get { id: (*id).to_owned(), sent };
            }
            return plan_list(&mut state, sent);
        }
        if drawn < 58 {
            drop(state);
            let other = self.state((number + 1) % self.users.len());
            let id = other
                .model
                .present()
                .first()
                .map_or_else(|| "01900000-0000-7000-8000-000000000000".to_owned(), |id| (*id).to_owned());
            return Call::GetForeign { id };
        }
        let State { random, model, .. } = &mut *state;
        let target = random.one_of(&model.free()).map(|(id, content)| ((*id).to_owned(), (*content).clone()));
        let Some((id, content)) = target else {
            drop(state);
            return self.plan_creation(number);
        };
        if drawn < 74 {
            if state.model.len() < TASKS || (state.model.len() == TASKS && state.random.chance(50)) {
                drop(state);
                return self.plan_creation(number);
            }
            state.model.deleting(&id);
            return Call::Delete { id };
        }
        if drawn >= 99 {
            // Tasks that are created from now on are in the list of the new name.
            let new = self.title("List");
            let old = std::mem::replace(&mut state.list, new.clone());
            if let Some(ids) = state.model.members(&old).filter(|ids| !ids.is_empty()) {
                state.model.changing_all(&ids, |content| content.list = Some(new.clone()));
                return Call::ChangeAll { ids, list: old, body: json!({ "list": new }) };
            }
        }
        if drawn >= 94 && !state.model.is_moving() {
            let State { random, model, .. } = &mut *state;
            let free: Vec<_> = model.free().into_iter().map(|(id, _)| id).filter(|other| *other != id).collect();
            let other = random.one_of(&free).map(|id| (*id).to_owned());
            let place = match (random.below(6), other) {
                (0, _) => Place::First,
                (1, _) | (_, None) => Place::Last,
                (2 | 3, Some(other)) => Place::Before(other),
                (_, Some(other)) => Place::After(other),
            };
            model.moving(&id, &place);
            return Call::Move { id, place };
        }
        let path = format!("/api/tasks/{id}");
        let (method, path, body, content) = match drawn {
            74..77 if content.description.is_some() && state.random.chance(30) => {
                (Method::PATCH, path, Some(json!({ "description": null })), Content { description: None, ..content })
            }
            74..82 => {
                // The title always changes, so that every patch makes a version.
                let mut content = Content { title: self.title("Patched"), ..content };
                let mut body = json!({ "title": content.title });
                let fields = ["due", "priority", "list", "tags", "metadata"];
                if let Some(field) = state.random.one_of(&fields) {
                    body[*field] = change(&mut content, field, &mut state);
                }
                (Method::PATCH, path, Some(body), content)
            }
            82..86 => {
                let title = self.title("Replaced");
                (Method::PUT, path, Some(json!({ "title": title })), Content { title, description: None, ..content })
            }
            86..90 => {
                let content = Content { completed: !content.completed, ..content };
                (Method::PATCH, path + "/complete", None, content)
            }
            _ => {
                let content = Content { completed: !content.completed, ..content };
                (Method::PATCH, path + "/complete", Some(json!({ "completed": content.completed })), content)
            }
        };
        state.model.changing(&id, &content);
        Call::Change { id, method, path, body }
    }

    /// Sends a request at most once.
    async fn send(&self, number: usize, method: Method, path: String, body: Option<Value>) -> Outcome {
        let user = &self.users[number];
        let token = user.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request.body(Full::new(body)).unwrap_or_else(|_| unreachable!("its parts are valid"));
        user.connections.send(request).await
    }

    /// Sends a request, and checks the response. Returns whether the response was successful.
    async fn call(&self, number: usize, call: Call) -> bool {
        let (method, path, body) = match &call {
            Call::List { query, .. } => (Method::GET, format!("/api/tasks{query}"), None),
            Call::Get { id, .. } | Call::GetForeign { id } => (Method::GET, format!("/api/tasks/{id}"), None),
            Call::Create { content } => (Method::POST, "/api/tasks".to_owned(), Some(json!(content))),
            Call::Change { method, path, body, .. } => (method.clone(), path.clone(), body.clone()),
            Call::Move { id, place } => {
                let body = match place {
                    Place::First => json!({ "first": true }),
                    Place::Last => json!({ "last": true }),
                    Place::Before(other) => json!({ "before": other }),
                    Place::After(other) => json!({ "after": other }),
                };
                (Method::POST, format!("/api/tasks/{id}/move"), Some(body))
            }
            Call::ChangeAll { list, body, .. } => {
                (Method::PATCH, format!("/api/tasks?{}", query(&[("list", list)])), Some(body.clone()))
            }
            Call::Count { filter, .. } => (Method::GET, format!("/api/tasks/count?{}", filter_query(filter)), None),
            Call::Summary { .. } => (Method::GET, "/api/tasks/summary".to_owned(), None),
            Call::Delete { id } => (Method::DELETE, format!("/api/tasks/{id}"), None),
        };
        let is_write = method != Method::GET;
        let outcome = self.send(number, method, path, body).await;
        let (sent, response) = match outcome {
            Outcome::Responded(sent, response) => (sent, response),
            Outcome::NotConnected => {
                self.tally().not_connected += 1;
                self.not_sent(number, &call);
                return false;
            }
            Outcome::ConnectionLost(sent) | Outcome::TimedOut(sent) => {
                let mut tally = self.tally();
                tally.requests += 1;
                tally.failed(sent, false);
                if matches!(outcome, Outcome::ConnectionLost(_)) {
                    tally.connections_lost += 1;
                } else {
                    tally.timed_out += 1;
                }
                drop(tally);
                self.outcome_unknown(number, &call);
                return false;
            }
        };
        let checked = {
            let state = &mut *self.state(number);
            check(&mut state.model, &mut state.next, &call, &response)
        };
        let is_unknown = checked != Ok(Verdict::Right) && is_write;
        let mut tally = self.tally();
        tally.requests += 1;
        *tally.statuses.entry(response.status.as_u16()).or_default() += 1;
        tally.closing += u64::from(response.headers.get(header::CONNECTION).is_some_and(|value| value == "close"));
        match checked {
            Ok(Verdict::Right) => {
                // A 404 may be right, but does not show that the server has recovered.
                if response.status.is_success() {
                    tally.succeeded(sent, is_write);
                }
            }
            Ok(Verdict::Unavailable) => {
                tally.unavailable.push(micros(sent.elapsed()));
                tally.failed(sent, true);
            }
            Err(findings) => findings.into_iter().for_each(|finding| tally.find(finding)),
        }
        drop(tally);
        if is_unknown {
            self.outcome_unknown(number, &call);
        }
        response.status.is_success()
    }

    /// The request was not sent.
    fn not_sent(&self, number: usize, call: &Call) {
        let mut state = self.state(number);
        match call {
            Call::Create { content } => state.model.uncreated(&content.title),
            Call::Change { id, .. } | Call::Delete { id } => state.model.unsent(id),
            Call::Move { id, place } => {
                state.model.unsent(id);
                state.model.release(place);
            }
            Call::ChangeAll { ids, .. } => {
                for id in ids {
                    state.model.unsent(id);
                }
            }
            Call::List { .. }
            | Call::Get { .. }
            | Call::GetForeign { .. }
            | Call::Count { .. }
            | Call::Summary { .. } => {}
        }
    }

    /// The write may have happened, or may still happen.
    fn outcome_unknown(&self, number: usize, call: &Call) {
        match call {
            Call::Create { .. } => {}
            Call::Change { id, .. } | Call::Delete { id } => self.state(number).model.unknown(id),
            Call::Move { id, place } => {
                let mut state = self.state(number);
                state.model.unknown(id);
                state.model.release(place);
            }
            Call::ChangeAll { ids, .. } => {
                let mut state = self.state(number);
                for id in ids {
                    state.model.unknown(id);
                }
            }
            Call::List { .. }
            | Call::Get { .. }
            | Call::GetForeign { .. }
            | Call::Count { .. }
            | Call::Summary { .. } => return,
        }
        self.tally().unknown += 1;
    }
}

fn plan_list(state: &mut State, sent: Moment) -> Call {
    if let Some((query, page)) = state.next.take() {
        return Call::List { page, query, sent };
    }
    if state.random.chance(20) {
        // A whole list in another order.
        let sort = *state.random.one_of(&[Sort::Position, Sort::Due, Sort::Priority]).unwrap_or(&Sort::Position);
        let name = match sort {
            Sort::NewestFirst => "-created",
            Sort::Position => "position",
            Sort::Due => "due",
            Sort::Priority => "priority",
        };
        let filter = if state.random.chance(50) { Filter::default() } else { filter(state) };
        let query = format!("?limit={ALL}&sort={name}&{}", filter_query(&filter));
        return Call::List { page: Page { limit: ALL, filter, sort, after: None }, query, sent };
    }
    let filter = if state.random.chance(70) { Filter::default() } else { filter(state) };
    let query = format!("?limit={PAGE}&{}", filter_query(&filter));
    Call::List { page: Page { limit: PAGE, filter, ..Page::default() }, query, sent }
}

/// A random filter, of one field or two.
fn filter(state: &mut State) -> Filter {
    let mut filter = Filter::default();
    for _ in 0..=state.random.below(2) {
        match state.random.below(4) {
            0 => filter.completed = Some(state.random.chance(50)),
            1 => filter.list = Some(list(state).unwrap_or_default()),
            2 => filter.tag = state.random.one_of(&TAGS).map(|tag| (*tag).to_owned()),
            _ => filter.priority = state.random.one_of(&PRIORITIES).map(|priority| (*priority).to_owned()),
        }
    }
    filter
}

fn list(state: &mut State) -> Option<String> {
    match state.random.below(3) {
        0 => None,
        1 => Some(HOME.to_owned()),
        _ => Some(state.list.clone()),
    }
}

fn query(parameters: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

fn filter_query(filter: &Filter) -> String {
    let completed = filter.completed.map(|completed| completed.to_string());
    let given = [
        ("completed", completed.as_deref()),
        ("list", filter.list.as_deref()),
        ("tag", filter.tag.as_deref()),
        ("priority", filter.priority.as_deref()),
    ];
    query(&given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect::<Vec<_>>())
}

/// Sets a field to a random value. Returns the value in the merge patch that does so.
fn change(content: &mut Content, field: &str, state: &mut State) -> Value {
    let one = |random: &mut Random, values: &[&str]| {
        let value = random.one_of(values).map(|value| (*value).to_owned());
        if random.chance(75) { value } else { None }
    };
    match field {
        "due" => {
            content.due = one(&mut state.random, &DUES);
            json!(content.due)
        }
        "priority" => {
            content.priority = one(&mut state.random, &PRIORITIES);
            json!(content.priority)
        }
        "list" => {
            content.list = list(state);
            json!(content.list)
        }
        "tags" => {
            let count = usize::try_from(state.random.below(4)).unwrap_or(0);
            content.tags = TAGS.iter().cycle().skip(count).take(count).map(|tag| (*tag).to_owned()).collect();
            json!(content.tags)
        }
        _ => {
            // A merge patch: one member changes, and the others stay.
            let name = ["color", "number", "\u{e9}"][usize::try_from(state.random.below(3)).unwrap_or(0)];
            let value = if state.random.chance(70) { json!(state.random.below(1000)) } else { Value::Null };
            if value.is_null() {
                content.metadata.remove(name);
            } else {
                content.metadata.insert(name.to_owned(), value.clone());
            }
            json!({ name: value })
        }
    }
}

/// `SplitMix64`: good enough for this, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one_of<'a, T>(&mut self, choice: &'a [T]) -> Option<&'a T> {
        let index = self.below(choice.len().max(1) as u64);
        choice.get(usize::try_from(index).unwrap_or(0))
    }
}
