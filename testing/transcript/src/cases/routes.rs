//! All paths of the route table: each with supported and unsupported methods, and with each error of its operations.

use std::sync::LazyLock;

use todo_core::api::{DOCS, Operation, PROBES, RESOURCES, Resource};

use super::{Case, Plan, Request, Route, planning::PLANNERS};
use crate::apps::{COOKIE, FAULTY_STORES, STRICT, expired_token, foreign_token, token, token_without_scope};

/// The body that moves the tasks of a guest.
static TRANSFER: LazyLock<String> = LazyLock::new(|| format!(r#"{{"from_token":"{}"}}"#, token("guest")));

/// The id of no task.
pub(super) const UNKNOWN_ID: &str = "019aa3f0-5c00-7000-8000-000000000000";

/// A token for the changes of the user `ann`, of a time before all cases.
const TOKEN_OF_ANN: &str = "AUmRXg19S0AuAAAAAAAAAQIAAAAAAAAAAwAAAAAAAAAAAAAAAAAAAAc";

/// The id of a task that a client creates.
const NEW_ID: &str = "019aa3f0-5c00-7000-8000-0000000000ff";

pub(super) fn add(plan: &mut Plan) {
    let of_bob = plan.create("bob", "a task of another user");
    for resource in RESOURCES {
        for (method, operation) in resource.operations {
            let endpoint = Endpoint { resource, method: method.as_str(), operation: *operation };
            endpoint.add(plan, &of_bob);
            if method == http::Method::GET {
                Endpoint { method: "HEAD", ..endpoint }.add(plan, &of_bob);
            }
        }
    }
    for probe in PROBES {
        let (_, operation) = probe.operations[0];
        for method in ["GET", "HEAD"] {
            let endpoint = Endpoint { resource: probe, method, operation };
            endpoint.ask(plan, "the store works", Request::new(method, probe.path), 200);
            for (path, fault) in FAULTY_STORES {
                let status = if operation == Operation::Ready { 503 } else { 200 };
                let request = Request::new(method, format!("{path}{}", probe.path));
                endpoint.ask(plan, &format!("the store fails: {fault:?}"), request, status);
            }
        }
    }
    for document in DOCS {
        for method in ["GET", "HEAD"] {
            let endpoint = Endpoint { resource: document, method, operation: document.operations[0].1 };
            let request = || Request::new(method, document.path);
            endpoint.ask(plan, "without a token", request(), 200);
            endpoint.ask(plan, "with a token", request().by("ann"), 200);
            endpoint.ask(plan, "with a matching entity tag", request().header("if-none-match", "*"), 304);
            endpoint.ask(plan, "with another entity tag", request().header("if-none-match", "\"another\""), 200);
        }
    }
    let at_the_root = PROBES.iter().chain(DOCS).map(|own| ("", own));
    for (prefix, resource) in RESOURCES.iter().map(|own| ("/api/v1", own)).chain(at_the_root) {
        add_mismatches(plan, prefix, resource);
    }
    let complete = format!("/api/v1/tasks/{UNKNOWN_ID}/complete");
    plan.ask("HEAD where there is no GET", Request::new("HEAD", complete).by("ann"), 405);
    // The shorter prefix.
    for resource in RESOURCES {
        let path = format!("/api{}", concrete(resource.path, "ann", UNKNOWN_ID));
        let (method, operation) = &resource.operations[0];
        let status = match operation {
            Operation::ListTasks
            | Operation::CountTasks
            | Operation::SummarizeTasks
            | Operation::ListChanges
            | Operation::StreamEvents
            | Operation::GetSession => 200,
            // Without a body.
            Operation::TransferTasks | Operation::MoveTask => 400,
            _ => 404,
        };
        let case = Case::new(format!("{method} {path}"), Request::new(method.as_str(), path).by("ann"), status);
        plan.add(if *operation == Operation::StreamEvents { case.of_a_stream() } else { case });
    }
}

/// Lists the remaining tasks of all users.
pub(super) fn add_last(plan: &mut Plan) {
    for user in ["ann", "bob", "with-quota", "v1", "tasks", "auth", "a/b", "ü"].into_iter().chain(PLANNERS) {
        plan.ask(format!("the remaining tasks of {user}"), Request::get("/api/v1/tasks").by(user), 200);
    }
}

/// Unsupported methods, and paths that almost match.
fn add_mismatches(plan: &mut Plan, prefix: &str, resource: &'static Resource) {
    let mut ask = |what: &str, method: &str, path: &str, status| {
        let path = concrete(path, "ann", UNKNOWN_ID);
        let request = Request::new(method, format!("{prefix}{path}")).by("ann");
        let route = Some(Route { path: resource.path, operation: None });
        plan.add(Case { route, ..Case::new(format!("{method} {path}: {what}"), request, status) });
    };
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "X"] {
        if !resource.allow.split(", ").any(|known| known == method) {
            ask("an unsupported method", method, resource.path, 405);
        }
    }
    ask("the supported methods", "OPTIONS", resource.path, 204);
    for path in resource.near_misses() {
        for method in ["GET", "OPTIONS"] {
            ask("almost a match", method, &path, 404);
        }
    }
}

fn concrete(template: &str, user: &str, id: &str) -> String {
    template.replace("{user_id}", user).replace("{id}", id)
}

#[derive(Clone, Copy)]
struct Endpoint {
    resource: &'static Resource,
    method: &'static str,
    operation: Operation,
}

impl Endpoint {
    fn has_user(self) -> bool {
        self.resource.path.contains("{user_id}")
    }

    fn has_id(self) -> bool {
        self.resource.path.contains("{id}")
    }

    /// Whether the operation needs filters, or a parameter that says that all tasks are meant.
    fn is_about_many(self) -> bool {
        matches!(self.operation, Operation::PatchTasks | Operation::DeleteTasks)
    }

    /// A valid body, if the operation has one.
    fn good_body(self) -> Option<&'static str> {
        match self.operation {
            Operation::CreateTask => Some(r#"{"title":"New","description":"As well"}"#),
            Operation::ReplaceTask => Some(r#"{"title":"Replaced"}"#),
            Operation::PatchTask => Some(r#"{"description":"Patched"}"#),
            Operation::PatchTasks => Some(r#"{"priority":"low"}"#),
            Operation::MoveTask => Some(r#"{"last":true}"#),
            Operation::CompleteTask => Some(r#"{"completed":true}"#),
            Operation::TransferTasks => Some(&TRANSFER),
            _ => None,
        }
    }

    fn success(self) -> u16 {
        match self.operation {
            Operation::CreateTask => 201,
            Operation::DeleteTask => 204,
            _ => 200,
        }
    }

    /// A request to the path with this user and id, without a credential or a body.
    fn bare(self, user: &str, id: &str) -> Request {
        let query = if self.is_about_many() { "?all=true" } else { "" };
        Request::new(self.method, format!("/api/v1{}{query}", concrete(self.resource.path, user, id)))
    }

    /// Adds a parameter that no operation has.
    fn with_unknown_parameter(self, mut request: Request) -> Request {
        request.target.extend(if self.is_about_many() { b"&dry=run" } else { b"?dry=run" });
        request
    }

    /// A valid request.
    fn good(self, user: &str, id: &str) -> Request {
        self.with_good_body(self.bare(user, id).by(user))
    }

    fn with_good_body(self, request: Request) -> Request {
        match self.good_body() {
            Some(body) => request.json(body),
            None => request,
        }
    }

    fn add(self, plan: &mut Plan, of_bob: &str) {
        let name = format!("{} {}", self.method, self.resource.path);
        let id = if self.has_id() { plan.create("ann", format!("a task for {name}")) } else { UNKNOWN_ID.to_owned() };
        self.add_conditions(plan, &id);
        self.ask(plan, "valid", self.good("ann", &id), self.success());
        self.add_callers(plan, of_bob);
        self.add_fields(plan);
        if self.good_body().is_some() {
            self.add_bodies(plan);
        }
        if self.operation == Operation::GetSession {
            // Only once, because it takes as long as the time limit of the API.
            if self.method == "GET" {
                self.ask(plan, "the time limit is exceeded", self.good("gate-hangs", UNKNOWN_ID), 503);
            }
        } else {
            for (user, status) in
                [("store-unavailable", 503), ("store-timeout", 503), ("store-failure", 500), ("busy", 429)]
            {
                // These do not wait for the calls that keep this user busy.
                let goes_ahead = matches!(self.operation, Operation::DeleteTasks | Operation::TransferTasks);
                if goes_ahead && user == "busy" {
                    continue;
                }
                self.ask(plan, user, self.good(user, UNKNOWN_ID), status);
                // The service has generated an id that the store did not insert.
                plan.ids += u64::from(status != 429 && self.operation == Operation::CreateTask);
            }
        }
    }

    fn ask(self, plan: &mut Plan, what: &str, request: Request, status: u16) {
        let name = format!("{} {}: {what}", self.method, self.resource.path);
        let route = Some(Route { path: self.resource.path, operation: Some((self.method, self.operation)) });
        let is_stream = self.operation == Operation::StreamEvents && self.method == "GET" && status == 200;
        let case = Case { route, ..Case::new(name, request, status) };
        plan.add(if is_stream { case.of_a_stream() } else { case });
    }

    /// Conditions, and what else needs a task of `ann` before it is changed.
    fn add_conditions(self, plan: &mut Plan, id: &str) {
        let on_a_task = self.has_id();
        let is_cached =
            matches!(self.operation, Operation::ListTasks | Operation::CountTasks | Operation::SummarizeTasks);
        if is_cached || self.operation == Operation::GetTask {
            self.ask(plan, "what the client has", self.good("ann", id).header("if-none-match", "*"), 304);
        }
        if !on_a_task {
            if self.operation == Operation::CreateTask {
                self.add_repeated(plan);
                self.ask(plan, "as many tasks as allowed", self.good("has-all-tasks", id), 403);
                plan.ids += 1;
            }
            return;
        }
        self.ask(plan, "a stale tag", self.good("ann", id).header("if-match", "\"77\""), 412);
        if !matches!(self.method, "GET" | "HEAD") {
            let path = concrete(self.resource.path, "ann", id);
            let strict = Request::new(self.method, format!("{STRICT}{path}")).by("ann");
            self.ask(plan, "no condition, where one is required", self.with_good_body(strict), 428);
            let star = Request::new(self.method, format!("{STRICT}{path}")).by("ann").header("if-match", "\"78\"");
            self.ask(plan, "a condition, where one is required", self.with_good_body(star), 412);
        }
        if matches!(self.operation, Operation::ReplaceTask | Operation::PatchTask) {
            let stale = self.bare("ann", id).by("ann").json(r#"{"title":"x","version":99}"#);
            self.ask(plan, "a stale version", stale, 409);
        }
        if self.operation == Operation::ReplaceTask {
            let new = |user: &str| self.good(user, NEW_ID).header("if-none-match", "*");
            self.ask(plan, "as many tasks as allowed", new("has-all-tasks"), 403);
            self.ask(plan, "a new task", new("ann"), 201);
            // The client has made the id.
            plan.ids -= 1;
            self.ask(plan, "a new task that exists", new("ann"), 412);
            plan.ask(
                format!("{}: the new task is deleted", self.resource.path),
                Request::new("DELETE", format!("/api/v1/tasks/{NEW_ID}")).by("ann"),
                204,
            );
        }
    }

    /// A request with a key, sent again, also after its task was deleted.
    fn add_repeated(self, plan: &mut Plan) {
        let request = || self.good("ann", UNKNOWN_ID).header("idempotency-key", self.resource.path.len().to_string());
        self.ask(plan, "with a key", request(), 201);
        let task = plan.last_id();
        self.ask(plan, "with the same key", request(), 201);
        let deletion = Request::new("DELETE", format!("/api/v1/tasks/{task}")).by("ann");
        plan.ask(format!("{}: what was created is deleted", self.resource.path), deletion, 204);
        self.ask(plan, "with the key of a deleted task", request(), 410);
        plan.ids += 1;
    }

    fn add_callers(self, plan: &mut Plan, of_bob: &str) {
        let with = |token: String| {
            self.with_good_body(self.bare("ann", UNKNOWN_ID).header("authorization", format!("Bearer {token}")))
        };
        self.ask(plan, "no credential", self.with_good_body(self.bare("ann", UNKNOWN_ID)), 401);
        self.ask(plan, "an expired token", with(expired_token("ann")), 401);
        self.ask(plan, "a token with another signature", with(foreign_token("ann")), 401);
        self.ask(plan, "a token that is too long", with("x".repeat(16_385)), 401);
        self.ask(plan, "a token without the required scope", with(token_without_scope("ann")), 403);
        self.ask(plan, "a revoked token", self.good("disabled", UNKNOWN_ID), 401);
        self.ask(plan, "too many requests", self.good("rate-limited", UNKNOWN_ID), 429);
        self.ask(plan, "a used-up quota", self.good("over-quota", UNKNOWN_ID), 429);
        let status = if self.has_id() { 404 } else { self.success() };
        self.ask(plan, "a quota with requests left", self.good("with-quota", UNKNOWN_ID), status);
        let wrong = self.with_unknown_parameter(self.good("with-quota", UNKNOWN_ID));
        self.ask(plan, "a quota with requests left, and an unknown parameter", wrong, 422);
        self.ask(plan, "the gate is unavailable", self.good("gate-unavailable", UNKNOWN_ID), 503);
        if self.has_user() {
            self.ask(plan, "another user's path", self.with_good_body(self.bare("bob", of_bob).by("ann")), 403);
            self.ask(plan, "a user whose ID equals a path segment", self.good("auth", UNKNOWN_ID), 404);
        }
        let by_cookie = |origin: &str| {
            let request = self.bare("disabled", UNKNOWN_ID).header("cookie", format!("{COOKIE}={}", token("disabled")));
            self.with_good_body(request.header("origin", origin))
        };
        let reads = matches!(self.method, "GET" | "HEAD");
        self.ask(plan, "a cookie", by_cookie("https://todo.example"), 401);
        self.ask(plan, "a cookie from another site", by_cookie("https://evil.example"), if reads { 401 } else { 403 });
        if self.has_id() {
            self.ask(plan, "another user's task", self.good("ann", of_bob), 404);
            self.ask(plan, "a task that does not exist", self.good("ann", UNKNOWN_ID), 404);
        }
    }

    fn add_fields(self, plan: &mut Plan) {
        if self.has_id() {
            self.ask(plan, "an ID that is not a UUID", self.good("ann", "7"), 422);
        }
        let request = self.with_unknown_parameter(self.good("ann", UNKNOWN_ID));
        self.ask(plan, "an unknown parameter", request, 422);
        if matches!(self.operation, Operation::ListChanges | Operation::StreamEvents) {
            let mut request = self.good("with-quota", UNKNOWN_ID);
            request.target.extend(format!("?since={TOKEN_OF_ANN}").bytes());
            self.ask(plan, "a token of another user", request, 410);
        }
    }

    fn add_bodies(self, plan: &mut Plan) {
        let request = || self.bare("ann", UNKNOWN_ID).by("ann");
        let good = self.good_body().unwrap_or_default();
        self.ask(plan, "a body that is not JSON", request().json("{"), 400);
        self.ask(plan, "a body that is not an object", request().json("[]"), 422);
        self.ask(plan, "invalid fields", request().json(r#"{"title":5,"completed":null,"colour":"red"}"#), 422);
        self.ask(plan, "a body without a content type", request().body(good), 415);
        self.ask(
            plan,
            "a body with another content type",
            request().header("content-type", "text/plain").body(good),
            415,
        );
        self.ask(plan, "a compressed body", request().header("content-encoding", "gzip").json(good), 415);
        self.ask(plan, "a body over the limit", request().json(vec![b' '; 64 * 1024 + 1]), 413);
    }
}
