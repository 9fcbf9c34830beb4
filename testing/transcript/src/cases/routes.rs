//! Every path of the route table, with every method that it has and those that it has not, and everything that can be
//! wrong: each kind of error that the operation can answer.

use todo_core::api::{DOCS, Operation, PROBES, RESOURCES, Resource};

use super::{Case, Plan, Request, Route};
use crate::apps::{COOKIE, FAULTY_STORES, expired_token, foreign_token, token};

/// An id that no task has.
pub(super) const NOBODYS: &str = "019aa3f0-5c00-7000-8000-000000000000";

pub(super) fn add(plan: &mut Plan) {
    let bobs = plan.create("bob", "a task of another user");
    for resource in RESOURCES {
        for (method, operation) in resource.operations {
            let endpoint = Endpoint { resource, method: method.as_str(), operation: *operation };
            endpoint.add(plan, &bobs);
            if method == http::Method::GET {
                Endpoint { method: "HEAD", ..endpoint }.add(plan, &bobs);
            }
        }
    }
    for probe in PROBES {
        let (_, operation) = probe.operations[0];
        for method in ["GET", "HEAD"] {
            let endpoint = Endpoint { resource: probe, method, operation };
            endpoint.ask(plan, "the store is there", Request::new(method, probe.path), 200);
            for (path, fault) in FAULTY_STORES {
                let status = if operation == Operation::Ready { 503 } else { 200 };
                let request = Request::new(method, format!("{path}{}", probe.path));
                endpoint.ask(plan, &format!("the store is {fault:?}"), request, status);
            }
        }
    }
    for document in DOCS {
        for method in ["GET", "HEAD"] {
            let endpoint = Endpoint { resource: document, method, operation: document.operations[0].1 };
            let request = || Request::new(method, document.path);
            endpoint.ask(plan, "anybody", request(), 200);
            endpoint.ask(plan, "somebody", request().by("ann"), 200);
            endpoint.ask(plan, "whoever has it", request().header("if-none-match", "*"), 304);
            endpoint.ask(plan, "whoever has another", request().header("if-none-match", "\"another\""), 200);
        }
    }
    let at_the_root = PROBES.iter().chain(DOCS).map(|own| ("", own));
    for (prefix, resource) in RESOURCES.iter().map(|own| ("/api/v1", own)).chain(at_the_root) {
        add_what_it_is_not(plan, prefix, resource);
    }
    let complete = format!("/api/v1/tasks/{NOBODYS}/complete");
    plan.ask("HEAD where there is no GET", Request::new("HEAD", complete).by("ann"), 405);
    // The shorter mount.
    for resource in RESOURCES {
        let path = format!("/api{}", concrete(resource.path, "ann", NOBODYS));
        let (method, operation) = &resource.operations[0];
        let status = match operation {
            Operation::ListTasks | Operation::GetSession => 200,
            _ => 404,
        };
        plan.ask(format!("{method} {path}"), Request::new(method.as_str(), path).by("ann"), status);
    }
}

/// What is left of the tasks of all users who have any.
pub(super) fn add_last(plan: &mut Plan) {
    for user in ["ann", "bob", "metered", "v1", "tasks", "auth", "a/b", "ü"] {
        plan.ask(format!("what {user} has at the end"), Request::get("/api/v1/tasks").by(user), 200);
    }
}

/// Methods that a path has not, and paths that are nearly it.
fn add_what_it_is_not(plan: &mut Plan, prefix: &str, resource: &'static Resource) {
    let mut ask = |what: &str, method: &str, path: &str, status| {
        let path = concrete(path, "ann", NOBODYS);
        let request = Request::new(method, format!("{prefix}{path}")).by("ann");
        let route = Some(Route { path: resource.path, operation: None });
        plan.add(Case { route, ..Case::new(format!("{method} {path}: {what}"), request, status) });
    };
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "X"] {
        if !resource.allow.split(", ").any(|known| known == method) {
            ask("no such method", method, resource.path, 405);
        }
    }
    ask("which methods", "OPTIONS", resource.path, 204);
    for path in resource.near_misses() {
        for method in ["GET", "OPTIONS"] {
            ask("only nearly ours", method, &path, 404);
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

    /// What it takes, if it takes a body at all.
    fn good_body(self) -> Option<&'static str> {
        match self.operation {
            Operation::CreateTask => Some(r#"{"title":"New","description":"As well"}"#),
            Operation::ReplaceTask => Some(r#"{"title":"Replaced"}"#),
            Operation::PatchTask => Some(r#"{"description":"Patched"}"#),
            Operation::CompleteTask => Some(r#"{"completed":true}"#),
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

    /// To the path with this user and id, with nothing else.
    fn bare(self, user: &str, id: &str) -> Request {
        Request::new(self.method, format!("/api/v1{}", concrete(self.resource.path, user, id)))
    }

    /// As it should be.
    fn good(self, user: &str, id: &str) -> Request {
        self.with_good_body(self.bare(user, id).by(user))
    }

    fn with_good_body(self, request: Request) -> Request {
        match self.good_body() {
            Some(body) => request.json(body),
            None => request,
        }
    }

    fn add(self, plan: &mut Plan, bobs: &str) {
        let name = format!("{} {}", self.method, self.resource.path);
        let id = if self.has_id() { plan.create("ann", format!("a task for {name}")) } else { NOBODYS.to_owned() };
        self.ask(plan, "what it is for", self.good("ann", &id), self.success());
        self.add_callers(plan, bobs);
        self.add_fields(plan);
        if self.good_body().is_some() {
            self.add_bodies(plan);
        }
        if self.operation == Operation::GetSession {
            // Once, since it takes as long as the API gives a request.
            if self.method == "GET" {
                self.ask(plan, "it takes too long", self.good("forgotten", NOBODYS), 503);
            }
        } else {
            for (user, status) in [("store-away", 503), ("store-slow", 503), ("store-broken", 500)] {
                self.ask(plan, user, self.good(user, NOBODYS), status);
                // The service has given out an id, and the store has not taken it.
                plan.ids += u64::from(self.operation == Operation::CreateTask);
            }
        }
    }

    fn ask(self, plan: &mut Plan, what: &str, request: Request, status: u16) {
        let name = format!("{} {}: {what}", self.method, self.resource.path);
        let route = Some(Route { path: self.resource.path, operation: Some((self.method, self.operation)) });
        plan.add(Case { route, ..Case::new(name, request, status) });
    }

    fn add_callers(self, plan: &mut Plan, bobs: &str) {
        let with = |token: String| {
            self.with_good_body(self.bare("ann", NOBODYS).header("authorization", format!("Bearer {token}")))
        };
        self.ask(plan, "nobody", self.with_good_body(self.bare("ann", NOBODYS)), 401);
        self.ask(plan, "an expired token", with(expired_token("ann")), 401);
        self.ask(plan, "a token of somebody else", with(foreign_token("ann")), 401);
        self.ask(plan, "a revoked token", self.good("disabled", NOBODYS), 401);
        self.ask(plan, "too many requests", self.good("hasty", NOBODYS), 429);
        self.ask(plan, "a quota that is used up", self.good("spent", NOBODYS), 429);
        let status = if self.has_id() { 404 } else { self.success() };
        self.ask(plan, "a quota of which some is left", self.good("metered", NOBODYS), status);
        let mut wrong = self.good("metered", NOBODYS);
        wrong.target.extend(b"?dry=run");
        self.ask(plan, "some quota left, and an unknown parameter", wrong, 422);
        self.ask(plan, "nobody knows whether the token is good", self.good("unheard", NOBODYS), 503);
        if self.has_user() {
            self.ask(plan, "another user's path", self.with_good_body(self.bare("bob", bobs).by("ann")), 403);
            self.ask(plan, "a user whose paths are shadowed", self.good("auth", NOBODYS), 404);
        }
        let by_cookie = |origin: &str| {
            let request = self.bare("disabled", NOBODYS).header("cookie", format!("{COOKIE}={}", token("disabled")));
            self.with_good_body(request.header("origin", origin))
        };
        let reads = matches!(self.operation, Operation::ListTasks | Operation::GetTask | Operation::GetSession);
        self.ask(plan, "a cookie", by_cookie("https://todo.example"), 401);
        self.ask(plan, "a cookie from another site", by_cookie("https://evil.example"), if reads { 401 } else { 403 });
        if self.has_id() {
            self.ask(plan, "another user's task", self.good("ann", bobs), 404);
            self.ask(plan, "nobody's task", self.good("ann", NOBODYS), 404);
        }
    }

    fn add_fields(self, plan: &mut Plan) {
        if self.has_id() {
            self.ask(plan, "an id that is no UUID", self.good("ann", "7"), 422);
        }
        let mut request = self.good("ann", NOBODYS);
        request.target.extend(b"?dry=run");
        self.ask(plan, "an unknown parameter", request, 422);
    }

    fn add_bodies(self, plan: &mut Plan) {
        let request = || self.bare("ann", NOBODYS).by("ann");
        let good = self.good_body().unwrap_or_default();
        self.ask(plan, "a body that is not JSON", request().json("{"), 400);
        self.ask(plan, "a body that is no object", request().json("[]"), 422);
        self.ask(plan, "wrong fields", request().json(r#"{"title":5,"completed":null,"colour":"red"}"#), 422);
        self.ask(plan, "a body without a type", request().body(good), 415);
        self.ask(plan, "a body of another type", request().header("content-type", "text/plain").body(good), 415);
        self.ask(plan, "a compressed body", request().header("content-encoding", "gzip").json(good), 415);
        self.ask(plan, "a body over the limit", request().json(vec![b' '; 64 * 1024 + 1]), 413);
    }
}
