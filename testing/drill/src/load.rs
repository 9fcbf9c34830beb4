//! The load: so many requests in a second, whether or not the server keeps up, by users who know what their tasks must
//! look like.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
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
    client::{Answer, Connections, Outcome},
    model::{Content, Fault, Finding, Model, Moment, Page, Shown},
};

/// How many users there are.
pub(crate) const USERS: usize = 50;
/// How many tasks each of them has, about.
const TASKS: usize = 40;
const PAGE: usize = 20;
/// How many requests may be under way. Past it, a client would not have been let in by its own machine.
const MAX_IN_FLIGHT: usize = 3000;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests that were sent.
    pub(crate) requests: u64,
    /// Writes that were answered with success.
    pub(crate) acknowledged: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Answers that lack an acknowledged write.
    pub(crate) lost: u64,
    /// Other answers that are not right.
    pub(crate) wrong: u64,
    /// Some of both, in words.
    pub(crate) examples: Vec<String>,
    /// Requests that nobody let in.
    pub(crate) refused: u64,
    /// Connections that broke before an answer came.
    pub(crate) broken: u64,
    /// Requests that had no answer for as long as a client waits.
    pub(crate) silent: u64,
    /// Requests that were due, but too many were under way.
    pub(crate) skipped: u64,
    /// Writes of unknown fate.
    pub(crate) unknown: u64,
    /// How long good answers took, and refusals, in microseconds.
    pub(crate) good: Vec<u32>,
    pub(crate) refusals: Vec<u32>,
    recovery: Option<Recovery>,
    /// Requests sent before this moment have to be answered.
    must_answer: Option<Instant>,
    pub(crate) abandoned: u64,
    /// Answers that said that the connection is closed.
    pub(crate) closing: u64,
}

/// How the server came back after a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    ended: Instant,
    /// From the end of the fault to the first good answer to a request that was sent after it.
    pub(crate) read: Option<Duration>,
    pub(crate) write: Option<Duration>,
    /// To the last answer that was none or a refusal.
    pub(crate) last_failure: Option<Duration>,
}

impl Tally {
    fn find(&mut self, (fault, what): Finding) {
        if fault.is_loss() {
            self.lost += 1;
        } else {
            self.wrong += 1;
        }
        if self.examples.len() < 10 {
            self.examples.push(format!("{fault:?}: {what}"));
        }
    }

    fn good(&mut self, sent: Instant, is_write: bool) {
        self.good.push(micros(sent.elapsed()));
        self.acknowledged += u64::from(is_write);
        if let Some(recovery) = &mut self.recovery
            && sent >= recovery.ended
        {
            let since = recovery.ended.elapsed();
            (if is_write { &mut recovery.write } else { &mut recovery.read }).get_or_insert(since);
        }
    }

    fn failed(&mut self, sent: Instant, is_answered: bool) {
        if let Some(recovery) = &mut self.recovery
            && sent >= recovery.ended
        {
            recovery.last_failure = Some(recovery.ended.elapsed());
        }
        if !is_answered && self.must_answer.is_some_and(|moment| sent < moment) {
            self.abandoned += 1;
        }
    }

    pub(crate) fn recovery(&self) -> Option<Recovery> {
        self.recovery
    }

    /// Takes in what was seen in another round: of times to come back, the longer ones.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.broken += other.broken;
        self.silent += other.silent;
        self.skipped += other.skipped;
        self.unknown += other.unknown;
        self.abandoned += other.abandoned;
        self.closing += other.closing;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.examples.extend(other.examples);
        self.good.extend(other.good);
        self.refusals.extend(other.refusals);
        self.recovery = match (self.recovery, other.recovery) {
            (Some(one), Some(other)) => Some(Recovery {
                read: one.read.zip(other.read).map(|(one, other)| one.max(other)),
                write: one.write.zip(other.write).map(|(one, other)| one.max(other)),
                last_failure: one.last_failure.max(other.last_failure),
                ..one
            }),
            (one, other) => one.or(other),
        };
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

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
}

/// Makes a token of a user.
pub(crate) type Mint = Box<dyn Fn(&str) -> String + Send + Sync>;

struct Shared {
    users: Vec<User>,
    tally: Mutex<Tally>,
    runs: AtomicBool,
    in_flight: AtomicUsize,
    names: AtomicU64,
}

/// A load that runs until it is stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

impl Load {
    /// Users without any task.
    pub(crate) fn of(servers: &[SocketAddr], mint: &Mint) -> Self {
        let user = |number: usize| {
            let name = format!("userOfTheDrill{number:018}");
            User {
                token: Mutex::new(mint(&name)),
                state: Mutex::new(State { model: Model::new(&name), random: Random(number as u64), next: None }),
                connections: Connections::new(servers.to_vec()),
                name,
            }
        };
        let shared = Shared {
            users: (0..USERS).map(user).collect(),
            tally: Mutex::default(),
            runs: AtomicBool::new(true),
            in_flight: AtomicUsize::new(0),
            names: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), ticker: None }
    }

    /// Gives every user some tasks.
    pub(crate) async fn fill(&self) {
        let mut users = JoinSet::new();
        for number in 0..USERS {
            let shared = self.shared.clone();
            users.spawn(async move {
                for _ in 0..TASKS {
                    let asked = shared.plan_creation(number);
                    shared.ask(number, asked).await;
                }
            });
        }
        users.join_all().await;
    }

    /// Begins to send.
    pub(crate) fn start(&mut self, rate: u32) {
        let shared = self.shared.clone();
        shared.runs.store(true, Ordering::Relaxed);
        self.ticker = Some(tokio::spawn(async move {
            let mut pace = interval(Duration::from_secs(1) / rate.max(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for number in (0..USERS).cycle() {
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
                    let asked = shared.plan(number);
                    shared.ask(number, asked).await;
                    shared.in_flight.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }));
    }

    /// Sends no more, and waits for what is under way.
    pub(crate) async fn stop(&mut self) {
        self.shared.runs.store(false, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.await;
        }
        while self.shared.in_flight.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The fault ends at this moment.
    pub(crate) fn fault_ended(&self) {
        let recovery = Recovery { ended: Instant::now(), read: None, write: None, last_failure: None };
        self.tally().recovery = Some(recovery);
    }

    /// What was sent before this moment has to be answered.
    pub(crate) fn must_answer_before(&self, moment: Instant) {
        self.tally().must_answer = Some(moment);
    }

    /// From now on the users have other tokens.
    pub(crate) fn renew_tokens(&self, mint: &Mint) {
        for user in &self.shared.users {
            *user.token.lock().unwrap_or_else(PoisonError::into_inner) = mint(&user.name);
        }
    }

    /// They close the connections that rest, as gateways do after a rush.
    pub(crate) fn leave(&self) {
        for user in &self.shared.users {
            user.connections.leave();
        }
    }

    /// From now on they ask these servers.
    pub(crate) fn use_servers(&self, servers: &[SocketAddr]) {
        for user in &self.shared.users {
            user.connections.use_servers(servers);
        }
    }

    /// One of the users looks at all tasks. Whether it was a success.
    pub(crate) async fn try_once(&self) -> bool {
        let page = Page { limit: PAGE, ..Page::default() };
        let asked = Asked::List { page, query: format!("?limit={PAGE}"), moment: self.shared.moment(0) };
        self.shared.ask(0, asked).await
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.shared.tally()
    }

    /// Every user pages through all tasks. Nothing is under way any more, so each must be as the model knows it.
    ///
    /// # Errors
    ///
    /// A page is not answered.
    pub(crate) async fn check_everything(&self) -> Result<(), String> {
        for number in 0..USERS {
            let mut next = Some((format!("?limit={}", 7 * PAGE), Page { limit: 7 * PAGE, ..Page::default() }));
            let mut attempts = 20;
            while let Some((query, page)) = next.take() {
                let asked =
                    Asked::List { page: page.clone(), query: query.clone(), moment: self.shared.moment(number) };
                if self.shared.ask(number, asked).await {
                    next = self.shared.state(number).next.take();
                } else {
                    attempts -= 1;
                    if attempts == 0 {
                        return Err("a page of the last look is not answered".to_owned());
                    }
                    sleep(Duration::from_millis(250)).await;
                    next = Some((query, page));
                }
            }
        }
        Ok(())
    }

    /// How many tasks there are, and how many writes have an unknown fate.
    pub(crate) fn census(&self) -> (usize, usize) {
        (0..USERS)
            .map(|number| self.shared.state(number))
            .fold((0, 0), |(tasks, limbo), state| (tasks + state.model.len(), limbo + state.model.in_limbo()))
    }

    /// A task that must be there, for somebody who wants to see whether its loss is noticed: owner and id.
    pub(crate) fn victim(&self) -> Option<(String, String)> {
        let state = self.shared.state(0);
        let id = state.model.free().first().map(|(id, _)| (*id).to_owned())?;
        Some((self.shared.users[0].name.clone(), id))
    }
}

/// What is asked for.
enum Asked {
    List {
        page: Page,
        query: String,
        moment: Moment,
    },
    Get {
        id: String,
        moment: Moment,
    },
    /// Of another user.
    GetForeign {
        id: String,
    },
    Create {
        content: Content,
    },
    Change {
        id: String,
        method: Method,
        path: String,
        body: Option<Value>,
    },
    Delete {
        id: String,
    },
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

    fn name(&self, what: &str) -> String {
        format!("{what} no. {}: buy milk, «bread» & 🧀", self.names.fetch_add(1, Ordering::Relaxed))
    }

    fn plan_creation(&self, number: usize) -> Asked {
        let mut state = self.state(number);
        let description = state.random.chance(50).then(|| "Not the one from last time.\nThe other one.".to_owned());
        let content = Content { title: self.name("Task"), description, completed: state.random.chance(20) };
        state.model.creating(&content);
        Asked::Create { content }
    }

    /// What this user asks for next.
    fn plan(&self, number: usize) -> Asked {
        let mut state = self.state(number);
        let moment = state.model.now();
        let drawn = state.random.below(100);
        if drawn < 30 {
            return plan_list(&mut state, moment);
        }
        if drawn < 56 {
            let State { random, model, .. } = &mut *state;
            let ids = if drawn < 53 { model.present() } else { model.gone() };
            if let Some(id) = random.one_of(&ids) {
                return Asked::Get { id: (*id).to_owned(), moment };
            }
            return plan_list(&mut state, moment);
        }
        if drawn < 58 {
            drop(state);
            let other = self.state((number + 1) % USERS);
            let id = other
                .model
                .present()
                .first()
                .map_or_else(|| "01900000-0000-7000-8000-000000000000".to_owned(), |id| (*id).to_owned());
            return Asked::GetForeign { id };
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
            return Asked::Delete { id };
        }
        let path = format!("/api/tasks/{id}");
        let (method, path, body, content) = match drawn {
            74..84 if content.description.is_some() && state.random.chance(30) => {
                (Method::PATCH, path, Some(json!({ "description": null })), Content { description: None, ..content })
            }
            74..84 => {
                let title = self.name("Patched");
                (Method::PATCH, path, Some(json!({ "title": title })), Content { title, ..content })
            }
            84..89 => {
                let title = self.name("Replaced");
                (Method::PUT, path, Some(json!({ "title": title })), Content { title, description: None, ..content })
            }
            89..95 => {
                let content = Content { completed: !content.completed, ..content };
                (Method::PATCH, path + "/complete", None, content)
            }
            _ => {
                let content = Content { completed: !content.completed, ..content };
                (Method::PATCH, path + "/complete", Some(json!({ "completed": content.completed })), content)
            }
        };
        state.model.changing(&id, &content);
        Asked::Change { id, method, path, body }
    }

    /// Asks, and judges the answer. Whether it was a success.
    async fn ask(&self, number: usize, asked: Asked) -> bool {
        let user = &self.users[number];
        let (method, path, body) = match &asked {
            Asked::List { query, .. } => (Method::GET, format!("/api/tasks{query}"), None),
            Asked::Get { id, .. } | Asked::GetForeign { id } => (Method::GET, format!("/api/tasks/{id}"), None),
            Asked::Create { content: Content { title, description, completed } } => {
                let body = json!({ "title": title, "description": description, "completed": completed });
                (Method::POST, "/api/tasks".to_owned(), Some(body))
            }
            Asked::Change { method, path, body, .. } => (method.clone(), path.clone(), body.clone()),
            Asked::Delete { id } => (Method::DELETE, format!("/api/tasks/{id}"), None),
        };
        let is_write = method != Method::GET;
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
        let request = request.body(Full::new(body)).unwrap_or_else(|_| unreachable!("it is made of good parts"));
        let outcome = user.connections.send(request).await;
        let (sent, answer) = match outcome {
            Outcome::Answered(sent, answer) => (sent, answer),
            Outcome::Unsent => {
                self.tally().refused += 1;
                self.withdraw(number, &asked);
                return false;
            }
            Outcome::Broken(sent) | Outcome::Silent(sent) => {
                let mut tally = self.tally();
                tally.requests += 1;
                tally.failed(sent, false);
                if matches!(outcome, Outcome::Broken(_)) {
                    tally.broken += 1;
                } else {
                    tally.silent += 1;
                }
                drop(tally);
                self.leave_open(number, &asked);
                return false;
            }
        };
        let judged = judge(&mut self.state(number), &asked, &answer);
        let is_unknown = judged != Ok(Verdict::Good) && is_write;
        let mut tally = self.tally();
        tally.requests += 1;
        *tally.statuses.entry(answer.status.as_u16()).or_default() += 1;
        tally.closing += u64::from(answer.headers.get(header::CONNECTION).is_some_and(|value| value == "close"));
        match judged {
            Ok(Verdict::Good) => {
                // That there is no such task is right, but no proof that all is well again: only success is.
                if answer.status.is_success() {
                    tally.good(sent, is_write);
                }
            }
            Ok(Verdict::Refused) => {
                tally.refusals.push(micros(sent.elapsed()));
                tally.failed(sent, true);
            }
            Err(findings) => findings.into_iter().for_each(|finding| tally.find(finding)),
        }
        drop(tally);
        if is_unknown {
            self.leave_open(number, &asked);
        }
        answer.status.is_success()
    }

    /// It was never sent.
    fn withdraw(&self, number: usize, asked: &Asked) {
        let mut state = self.state(number);
        match asked {
            Asked::Create { content } => state.model.uncreated(&content.title),
            Asked::Change { id, .. } | Asked::Delete { id } => state.model.unsent(id),
            Asked::List { .. } | Asked::Get { .. } | Asked::GetForeign { .. } => {}
        }
    }

    /// It may have happened, or may still happen.
    fn leave_open(&self, number: usize, asked: &Asked) {
        match asked {
            Asked::Create { .. } => {}
            Asked::Change { id, .. } | Asked::Delete { id } => self.state(number).model.unknown(id),
            Asked::List { .. } | Asked::Get { .. } | Asked::GetForeign { .. } => return,
        }
        self.tally().unknown += 1;
    }
}

fn plan_list(state: &mut State, moment: Moment) -> Asked {
    if let Some((query, page)) = state.next.take() {
        return Asked::List { page, query, moment };
    }
    let completed = state.random.chance(30).then(|| state.random.chance(50));
    let query = match completed {
        Some(completed) => format!("?limit={PAGE}&completed={completed}"),
        None => format!("?limit={PAGE}"),
    };
    Asked::List { page: Page { limit: PAGE, completed, after: None }, query, moment }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// 503: the server cannot do it now, and nothing is said of a write.
    Refused,
}

fn malformed(answer: &Answer, why: &str) -> Vec<Finding> {
    let start = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
    vec![(Fault::Malformed, format!("{}, {why}: {start}", answer.status))]
}

/// Whether an answer may be. It is taken into the model.
fn judge(state: &mut State, asked: &Asked, answer: &Answer) -> Result<Verdict, Vec<Finding>> {
    let (expected, task) = match asked {
        Asked::List { .. } => (StatusCode::OK, None),
        Asked::GetForeign { id } => (StatusCode::NOT_FOUND, Some(id)),
        Asked::Create { .. } => (StatusCode::CREATED, None),
        Asked::Get { id, .. } | Asked::Change { id, .. } => (StatusCode::OK, Some(id)),
        Asked::Delete { id } => (StatusCode::NO_CONTENT, Some(id)),
    };
    if answer.status.is_client_error() || answer.status.is_server_error() {
        check_problem(answer)?;
    }
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        return Ok(Verdict::Refused);
    }
    if answer.status == StatusCode::NOT_FOUND
        && let Some(id) = task
    {
        return match asked {
            Asked::GetForeign { .. } => Ok(Verdict::Good),
            Asked::Get { id, .. } => state.model.absent(id).map(|()| Verdict::Good).map_err(|finding| vec![finding]),
            _ => Err(vec![state.model.not_found(id)]),
        };
    }
    if answer.status != expected {
        let fault = if matches!(asked, Asked::GetForeign { .. }) { Fault::Foreign } else { Fault::Malformed };
        return Err(vec![(fault, malformed(answer, "another status").remove(0).1)]);
    }
    let shown = || serde_json::from_slice::<Shown>(&answer.body).map_err(|error| malformed(answer, &error.to_string()));
    let one = |finding| vec![finding];
    match asked {
        Asked::List { page, moment, .. } => {
            let tasks: Vec<Shown> =
                serde_json::from_slice(&answer.body).map_err(|error| malformed(answer, &error.to_string()))?;
            let link = answer.headers.get(header::LINK).and_then(|link| link.to_str().ok());
            let next = link.and_then(|link| Some(link.strip_prefix('<')?.split_once(">; rel=\"next\"")?.0.to_owned()));
            if link.is_some() != next.is_some() {
                return Err(malformed(answer, "a Link that is none"));
            }
            state.model.listed(page, *moment, &tasks, next.is_none())?;
            let after = tasks.last().map(|task| task.id.clone());
            state.next = next.map(|query| (query, Page { after, ..page.clone() }));
        }
        Asked::Get { id, moment } => state.model.got(id, *moment, &shown()?).map_err(one)?,
        Asked::GetForeign { .. } => {}
        Asked::Create { content } => state.model.created(&content.title, &shown()?).map_err(one)?,
        Asked::Change { id, .. } => state.model.changed(id, &shown()?).map_err(one)?,
        Asked::Delete { id } => state.model.deleted(id),
    }
    Ok(Verdict::Good)
}

/// Whether an error is as the README has it.
fn check_problem(answer: &Answer) -> Result<(), Vec<Finding>> {
    let is_problem = answer.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or_default();
    let fits = match answer.status.as_u16() {
        404 => code == "task_not_found",
        503 => matches!(code, "unavailable" | "timeout") && answer.headers.contains_key(header::RETRY_AFTER),
        // Of the table in the README, but nothing that this load gives reason for.
        _ => false,
    };
    if is_problem && fits { Ok(()) } else { Err(malformed(answer, "not an error that may be")) }
}

/// `SplitMix64`: as good as is needed here, and the same everywhere.
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const ID: &str = "019abcde-0000-7000-8000-000000000001";

    fn state() -> State {
        let mut model = Model::new("ann");
        let content = Content { title: "Buy milk".to_owned(), description: None, completed: false };
        model.creating(&content);
        model.created("Buy milk", &serde_json::from_str(&task("ann", "Buy milk", 1)).unwrap()).unwrap();
        State { model, random: Random(1), next: None }
    }

    fn task(user: &str, title: &str, version: usize) -> String {
        format!(
            r#"{{"id":"{ID}","user_id":"{user}","title":"{title}","description":null,"completed":false,
            "created_at":"2026-01-01T00:00:00.000000Z","updated_at":"2026-01-01T00:00:0{version}.000000Z","version":{version}}}"#
        )
    }

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: impl Into<Bytes>) -> Answer {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: pairs.collect::<HeaderMap>(),
            body: body.into(),
        }
    }

    fn problem(status: u16, code: &str, retry: bool) -> Answer {
        let mut headers = vec![("content-type", "application/problem+json")];
        headers.extend(retry.then_some(("retry-after", "1")));
        answer(status, &headers, format!(r#"{{"status":{status},"code":"{code}"}}"#))
    }

    fn get(state: &State) -> Asked {
        Asked::Get { id: ID.to_owned(), moment: state.model.now() }
    }

    fn faults(judged: Result<Verdict, Vec<Finding>>) -> Vec<Fault> {
        judged.err().unwrap_or_default().into_iter().map(|(fault, _)| fault).collect()
    }

    #[test]
    fn errors_are_those_of_the_table_that_this_load_gives_reason_for() {
        let mut state = state();
        let asked = get(&state);
        for code in ["unavailable", "timeout"] {
            assert_eq!(judge(&mut state, &asked, &problem(503, code, true)), Ok(Verdict::Refused));
            assert_eq!(faults(judge(&mut state, &asked, &problem(503, code, false))), [Fault::Malformed]);
        }
        for (status, code) in
            [(500, "internal"), (429, "rate_limited"), (401, "token_expired"), (404, "not_found"), (503, "internal")]
        {
            assert_eq!(faults(judge(&mut state, &asked, &problem(status, code, true))), [Fault::Malformed], "{status}");
        }
        for wrong in [
            answer(503, &[("retry-after", "1")], "busy"),
            answer(502, &[], ""),
            answer(201, &[], task("ann", "Buy milk", 1)),
        ] {
            assert_eq!(faults(judge(&mut state, &asked, &wrong)), [Fault::Malformed], "{wrong:?}");
        }
    }

    #[test]
    fn that_there_is_no_such_task_is_right_only_where_there_is_none() {
        let mut state = state();
        let (absent, asked) = (problem(404, "task_not_found", false), get(&state));
        assert_eq!(faults(judge(&mut state, &asked, &absent)), [Fault::Missing]);
        let foreign = Asked::GetForeign { id: ID.to_owned() };
        assert_eq!(judge(&mut state, &foreign, &absent), Ok(Verdict::Good));
        assert_eq!(faults(judge(&mut state, &foreign, &answer(200, &[], task("bob", "x", 1)))), [Fault::Foreign]);
        state.model.deleting(ID);
        let deletion = Asked::Delete { id: ID.to_owned() };
        assert_eq!(faults(judge(&mut state, &deletion, &absent)), [Fault::Missing], "it was there when it was deleted");
    }

    #[test]
    fn bodies_are_compared_with_the_model() {
        let mut state = state();
        let asked = get(&state);
        assert_eq!(judge(&mut state, &asked, &answer(200, &[], task("ann", "Buy milk", 1))), Ok(Verdict::Good));
        assert_eq!(faults(judge(&mut state, &asked, &answer(200, &[], task("bob", "Buy milk", 1)))), [Fault::Foreign]);
        assert_eq!(
            faults(judge(&mut state, &asked, &answer(200, &[], task("ann", "Sell milk", 1)))),
            [Fault::Invented]
        );
        assert_eq!(faults(judge(&mut state, &asked, &answer(200, &[], "{}"))), [Fault::Malformed]);
        let moment = state.model.now();
        let list = |limit| Asked::List { page: Page { limit, ..Page::default() }, query: String::new(), moment };
        assert_eq!(faults(judge(&mut state, &list(5), &answer(200, &[], "[]"))), [Fault::Missing]);
        let full =
            answer(200, &[("link", r#"<?limit=1&cursor=x>; rel="next""#)], format!("[{}]", task("ann", "Buy milk", 1)));
        assert_eq!(judge(&mut state, &list(1), &full), Ok(Verdict::Good));
        let (query, page) = state.next.take().unwrap();
        assert_eq!((query.as_str(), page.after.as_deref()), ("?limit=1&cursor=x", Some(ID)));
    }

    #[test]
    fn the_first_good_answers_after_the_end_of_a_fault_count_and_none_before() {
        let mut tally = Tally::default();
        let early = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
        tally.recovery = Some(Recovery { ended: Instant::now(), read: None, write: None, last_failure: None });
        tally.good(early, true);
        tally.failed(early, true);
        let recovery = tally.recovery().unwrap();
        assert!(recovery.write.is_none() && recovery.last_failure.is_none(), "they were sent before it ended");
        tally.good(Instant::now(), true);
        let first = tally.recovery().unwrap().write;
        assert!(first.is_some() && tally.recovery().unwrap().read.is_none());
        std::thread::sleep(Duration::from_millis(2));
        tally.good(Instant::now(), true);
        assert_eq!(tally.recovery().unwrap().write, first, "the first one counts");
        tally.failed(Instant::now(), true);
        assert!(tally.recovery().unwrap().last_failure > first);
    }

    #[test]
    fn of_several_rounds_the_slowest_counts() {
        let round = |read, write| Tally {
            lost: 1,
            recovery: Some(Recovery { ended: Instant::now(), read, write, last_failure: None }),
            ..Tally::default()
        };
        let (short, long) = (Some(Duration::from_millis(1)), Some(Duration::from_millis(2)));
        let mut all = round(short, long);
        all.add(round(long, short));
        let recovery = all.recovery().unwrap();
        assert_eq!((all.lost, recovery.read, recovery.write), (2, long, long));
        all.add(round(None, short));
        assert_eq!(all.recovery().unwrap().read, None, "once there was none");
    }
}
