//! The requests, and the expected statuses.
//!
//! The cases are one sequence, because some of them change tasks that later ones read. Each framework receives all of
//! them.

use std::{fmt, time::Duration};

use serde_json::Value;
use todo_core::api::Operation;

use crate::apps::{task_id, token};

mod bodies;
mod conditions;
mod connections;
mod headers;
mod planning;
mod routes;
mod targets;

/// One connection: the bytes to send and the expected responses.
#[derive(Debug)]
pub struct Case {
    /// The name for reports. No two cases have the same name.
    pub name: String,
    /// What to send, and when.
    pub script: Vec<Step>,
    /// The expected responses, in order.
    pub expected: Vec<Expected>,
    /// Whether another request is sent afterwards, to check whether the connection is still open. `false` if that
    /// depends on how fast the server reads.
    pub followed_up: bool,
    /// The entry of the route table from which the case was generated, if any.
    pub route: Option<Route>,
    /// What the body of the response shows, if the case says that.
    pub shows: Option<Shows>,
}

/// What a body shows.
#[derive(Debug)]
pub enum Shows {
    /// These members of an object, among others.
    Members(Value),
    /// The members of the tasks in an array, in order: all of them have these members, among others.
    Tasks(Vec<Value>),
    /// The names of the fields that are wrong.
    Fields(Vec<String>),
}

/// An entry of the route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The template of the path.
    pub path: &'static str,
    /// The method and the operation; `None` if the path or the method does not exist.
    pub operation: Option<(&'static str, Operation)>,
}

/// A step on a connection.
#[derive(Debug)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits, so that the bytes sent before arrive separately.
    Pause(Duration),
    /// Waits for the first response. If it is the last one, the remaining steps are skipped.
    AwaitResponse,
}

/// An expected response.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The status.
    pub status: u16,
    /// Whether it responds to HEAD, so that it has no body.
    pub to_head: bool,
    /// Whether it responds to PUT, which creates what the target names, so that there is no other location.
    pub to_put: bool,
    /// Whether its body is a stream without an end, of which the first piece is read.
    pub is_stream: bool,
}

impl Case {
    fn new(name: impl Into<String>, request: impl Into<Vec<u8>>, status: u16) -> Self {
        Self::pipelined(name, [(request.into(), status)])
    }

    /// A case of several requests that are sent at once.
    fn pipelined(name: impl Into<String>, requests: impl IntoIterator<Item = (Vec<u8>, u16)>) -> Self {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (request, status) in requests {
            expected.push(Expected {
                status,
                to_head: request.starts_with(b"HEAD "),
                to_put: request.starts_with(b"PUT "),
                is_stream: false,
            });
            bytes.extend(request);
        }
        Self {
            name: name.into(),
            script: vec![Step::Send(bytes)],
            expected,
            followed_up: true,
            route: None,
            shows: None,
        }
    }

    /// Adds a pause and more bytes.
    fn then(mut self, more: impl Into<Vec<u8>>) -> Self {
        self.script.extend([Step::Pause(Duration::from_millis(3)), Step::Send(more.into())]);
        self
    }

    /// Adds an interim response with this status, after which more bytes are sent.
    fn after_response(mut self, status: u16, more: impl Into<Vec<u8>>) -> Self {
        self.expected.insert(0, Expected { status, to_head: false, to_put: false, is_stream: false });
        self.after_interim_response(more)
    }

    /// Adds bytes that are sent only after an interim response.
    fn after_interim_response(mut self, more: impl Into<Vec<u8>>) -> Self {
        self.script.extend([Step::AwaitResponse, Step::Send(more.into())]);
        self
    }

    /// The body of the response has no end, so that no other request can follow.
    fn of_a_stream(mut self) -> Self {
        self.expected.iter_mut().for_each(|expected| expected.is_stream = true);
        self.not_followed_up()
    }

    fn not_followed_up(mut self) -> Self {
        self.followed_up = false;
        self
    }
}

/// Displays the request like a Rust string. Long requests are truncated.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 400;
        for (position, step) in self.script.iter().enumerate() {
            if position > 5 {
                return write!(f, " (and so on, {} steps)", self.script.len());
            }
            match step {
                Step::Send(bytes) if bytes.len() > SHOWN => {
                    write!(f, "\"{}\"... ({} bytes)", bytes[..SHOWN].escape_ascii(), bytes.len())?;
                }
                Step::Send(bytes) => write!(f, "\"{}\"", bytes.escape_ascii())?,
                Step::Pause(time) => write!(f, " ({time:?}) ")?,
                Step::AwaitResponse => f.write_str(" (a response) ")?,
            }
        }
        Ok(())
    }
}

/// Returns all cases.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut plan = Plan::default();
    routes::add(&mut plan);
    targets::add(&mut plan);
    headers::add(&mut plan);
    bodies::add(&mut plan);
    planning::add(&mut plan);
    conditions::add(&mut plan);
    connections::add(&mut plan);
    routes::add_last(&mut plan);
    plan.cases
}

/// The cases so far.
#[derive(Default)]
struct Plan {
    cases: Vec<Case>,
    /// How many ids the service has generated for them.
    ids: u64,
}

impl Plan {
    fn add(&mut self, case: Case) {
        self.ids += case.expected.iter().map(|expected| u64::from(expected.status == 201)).sum::<u64>();
        self.cases.push(case);
    }

    /// Adds a case of one request.
    fn ask(&mut self, name: impl Into<String>, request: impl Into<Vec<u8>>, status: u16) {
        self.add(Case::new(name, request, status));
    }

    /// Adds a case of one request whose response shows these members of an object.
    fn show(&mut self, name: impl Into<String>, request: impl Into<Vec<u8>>, status: u16, members: Value) {
        self.add(Case { shows: Some(Shows::Members(members)), ..Case::new(name, request, status) });
    }

    /// Adds a case of one request that is rejected because exactly these fields are wrong.
    fn reject(&mut self, name: impl Into<String>, request: impl Into<Vec<u8>>, fields: &[&str]) {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        self.add(Case { shows: Some(Shows::Fields(fields)), ..Case::new(name, request, 422) });
    }

    /// Adds a case that creates a task of this user, and returns the id of the task.
    fn create(&mut self, user: &str, name: impl Into<String>) -> String {
        let name = name.into();
        let request = Request::new("POST", "/api/v1/tasks").by(user).json(format!(r#"{{"title":"{name}"}}"#));
        self.ask(name, request, 201);
        self.last_id()
    }

    /// The id of the last created task.
    fn last_id(&self) -> String {
        task_id(self.ids - 1).to_string()
    }
}

/// A request, built part by part. Nothing is added implicitly, except the host.
#[derive(Clone)]
struct Request {
    method: String,
    target: Vec<u8>,
    version: &'static str,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    fn new(method: &str, target: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("host".to_owned(), b"todo.example".to_vec())];
        Self { method: method.to_owned(), target: target.into(), version: "HTTP/1.1", headers, body: Vec::new() }
    }

    fn get(target: impl Into<Vec<u8>>) -> Self {
        Self::new("GET", target)
    }

    fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(own, _)| own != name);
        self
    }

    /// Adds a token of this user.
    fn by(self, user: &str) -> Self {
        self.header("authorization", format!("Bearer {}", token(user)))
    }

    /// Adds a body and its length.
    fn body(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        self.header("content-length", length).unmeasured(body)
    }

    /// Adds a body without changing the headers.
    fn unmeasured(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/json").body(body)
    }

    /// Adds a chunked JSON body. The last chunk must be included.
    fn chunked(self, chunks: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/json").header("transfer-encoding", "chunked").unmeasured(chunks)
    }
}

impl From<Request> for Vec<u8> {
    fn from(request: Request) -> Self {
        let mut bytes = format!("{} ", request.method).into_bytes();
        bytes.extend(request.target);
        bytes.extend(format!(" {}\r\n", request.version).bytes());
        for (name, value) in request.headers {
            bytes.extend(format!("{name}: ").bytes());
            bytes.extend(value);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        bytes.extend(request.body);
        bytes
    }
}
