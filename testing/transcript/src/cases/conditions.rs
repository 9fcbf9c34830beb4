//! Conditional requests, responses that the client has already, and requests that are sent again, in both forms of the
//! paths.

use serde_json::json;

use super::{Case, Plan, Request, Shows};

/// The users of these cases. The first uses the paths without a user, the second those with it.
const USERS: [(&str, &str); 2] = [("careful", "/api/v1/tasks"), ("careful/2", "/api/v1/careful%2F2/tasks")];

/// A date after all changes, and one before.
const LATE: &str = "Fri, 31 Dec 9999 23:59:59 GMT";
const EARLY: &str = "Thu, 01 Jan 1970 00:00:01 GMT";

pub(super) fn add(plan: &mut Plan) {
    for (user, base) in USERS {
        add_changes(plan, user, base);
        add_reads(plan, user, base);
        add_creations(plan, user, base);
        add_retries(plan, user, base);
    }
}

/// A request of this user, and the name of its case.
fn ask(plan: &mut Plan, user: &str, name: &str, request: Request, status: u16) {
    plan.ask(format!("{user}: {name}"), request.by(user), status);
}

fn reject(plan: &mut Plan, user: &str, name: &str, request: Request, field: &str) {
    plan.reject(format!("{user}: {name}"), request.by(user), &[field]);
}

fn add_changes(plan: &mut Plan, user: &str, base: &str) {
    plan.show(
        format!("{user}: a task to change"),
        Request::new("POST", base).by(user).json(r#"{"title":"Guarded"}"#),
        201,
        json!({"version": 1}),
    );
    let task = format!("{base}/{}", plan.last_id());
    let changes = [
        ("PUT", "", r#"{"title":"Replaced"}"#),
        ("PATCH", "", r#"{"title":"Patched"}"#),
        ("PATCH", "/complete", ""),
        ("POST", "/move", r#"{"last":true}"#),
        ("DELETE", "", ""),
    ];
    for (method, end, body) in changes {
        let request = |headers: &[(&str, &str)]| {
            let request = Request::new(method, format!("{task}{end}"));
            headers.iter().fold(request, |request, (name, value)| request.header(name, *value)).json(body)
        };
        for (name, value) in [
            ("if-match", "\"77\""),
            ("if-match", "W/\"1\""),
            ("if-match", "\"x\",, \"y,z\""),
            ("if-none-match", "\"1\", \"2\", \"3\", \"4\", W/\"5\""),
            ("if-unmodified-since", EARLY),
        ] {
            let name_of_case = format!("{method} {end} with {name}: {value}");
            let case = Case::new(format!("{user}: {name_of_case}"), request(&[(name, value)]).by(user), 412);
            plan.add(Case { shows: Some(Shows::Members(json!({"code": "precondition_failed"}))), ..case });
        }
        for (name, field, value) in [
            ("if-match", "If-Match", "1"),
            ("if-match", "If-Match", "*, \"1\""),
            ("if-none-match", "If-None-Match", "\"1"),
            ("if-unmodified-since", "If-Unmodified-Since", "tomorrow"),
            ("idempotency-key", "Idempotency-Key", "k"),
        ] {
            reject(plan, user, &format!("{method} {end} with {name}: {value}"), request(&[(name, value)]), field);
        }
        let two = [("if-match", "\"77\""), ("if-match", "\"78\"")];
        ask(plan, user, &format!("{method} {end} with two lines of tags"), request(&two), 412);
        let met = [("if-match", "\"77\", *"), ("if-none-match", "\"77\"")];
        reject(plan, user, &format!("{method} {end} with a star in a list"), request(&met), "If-Match");
        let met = [("if-match", "*"), ("if-none-match", "\"77\""), ("if-unmodified-since", EARLY)];
        let status = if method == "DELETE" { 204 } else { 200 };
        ask(plan, user, &format!("{method} {end} if it exists"), request(&met), status);
        let late = request(&[("if-unmodified-since", LATE)]);
        ask(plan, user, &format!("{method} {end} with {LATE}"), late, if method == "DELETE" { 404 } else { 200 });
    }
    let gone = Request::new("PATCH", task).header("if-match", "\"1\"").json("{}");
    ask(plan, user, "a condition of a task that is gone", gone, 404);
}

fn add_reads(plan: &mut Plan, user: &str, base: &str) {
    ask(plan, user, "a task to read", Request::new("POST", base).json(r#"{"title":"Read"}"#), 201);
    let task = format!("{base}/{}", plan.last_id());
    for method in ["GET", "HEAD"] {
        for (value, status) in
            [("\"1\"", 304), ("W/\"1\"", 304), ("*", 304), ("\"x\", \"1\"", 304), ("\"2\"", 200), ("1", 200), ("", 200)]
        {
            let read = Request::new(method, task.clone()).header("if-none-match", value);
            ask(plan, user, &format!("{method} a task with if-none-match: {value}"), read, status);
        }
        for end in ["", "?limit=1", "/count", "/summary"] {
            for (value, status) in [("*", 304), ("W/\"0-0-0\"", 200), ("nonsense", 200)] {
                let read = Request::new(method, format!("{base}{end}")).header("if-none-match", value);
                ask(plan, user, &format!("{method} {base}{end} with if-none-match: {value}"), read, status);
            }
        }
    }
    for (value, status) in [("\"1\"", 200), ("\"2\"", 412), ("*", 200)] {
        let read = Request::get(task.clone()).header("if-match", value);
        ask(plan, user, &format!("GET a task with if-match: {value}"), read, status);
    }
    reject(plan, user, "GET a task with if-match: 1", Request::get(task).header("if-match", "1"), "If-Match");
}

fn add_creations(plan: &mut Plan, user: &str, base: &str) {
    let new =
        |id: &str, body: &str| Request::new("PUT", format!("{base}/{id}")).header("if-none-match", "*").json(body);
    let id = "019aa3f0-5c00-7abc-8def-0000000000aa";
    let create = |plan: &mut Plan, name: &str, request: Request| {
        plan.show(format!("{user}: {name}"), request.by(user), 201, json!({"id": id}));
        // The client has made the id.
        plan.ids -= 1;
    };
    create(plan, "PUT creates a task", new(id, r#"{"title":"Offline"}"#));
    ask(plan, user, "PUT creates it once", new(id, r#"{"title":"Offline"}"#), 412);
    ask(plan, user, "DELETE what PUT has created", Request::new("DELETE", format!("{base}/{id}")), 204);
    create(plan, "PUT creates it again", new(&id.to_uppercase(), r#"{"title":"Again"}"#));
    for other in ["019aa3f0-5c00-4abc-8def-0000000000aa", "019aa3f0-5c00-7abc-0def-0000000000aa"] {
        reject(plan, user, &format!("PUT creates no {other}"), new(other, r#"{"title":"x"}"#), "id");
    }
    let both = new(id, r#"{"title":"x"}"#).header("if-match", "*");
    reject(plan, user, "PUT creates and changes", both, "If-None-Match");
    let task = format!("{base}/{id}");
    for method in ["PUT", "PATCH"] {
        let change = |body: &str| Request::new(method, task.clone()).json(body);
        for (body, field) in [
            (r#"{"title":"x","id":"019aa3f0-5c00-7abc-8def-0000000000ab"}"#, "id"),
            (r#"{"title":"x","user_id":"someone else"}"#, "user_id"),
            (r#"{"title":"x","version":"1"}"#, "version"),
            (r#"{"title":"x","updated_at":"2000-01-01T00:00:00Z"}"#, "updated_at"),
            (r#"{"title":"x","completed_at":5}"#, "completed_at"),
        ] {
            reject(plan, user, &format!("{method} {body}"), change(body), field);
        }
        ask(plan, user, &format!("{method} a stale version"), change(r#"{"title":"x","version":99}"#), 409);
        let stale = change(r#"{"title":"x","version":99}"#).header("if-match", "\"98\"");
        ask(plan, user, &format!("{method} a stale version and tag"), stale, 412);
        let same = format!(r#"{{"title":"Again","id":"{id}","user_id":"{user}","completed_at":null}}"#);
        ask(plan, user, &format!("{method} what was read"), change(&same), 200);
    }
}

fn add_retries(plan: &mut Plan, user: &str, base: &str) {
    let create = |key: &str, body: &str| Request::new("POST", base).header("idempotency-key", key).json(body);
    let (one, two) = (r#"{"title":"Once"}"#, r#"[{"title":"a"},{"title":"b"}]"#);
    ask(plan, user, "a key", create("k1", one), 201);
    let id = plan.last_id();
    ask(plan, user, "the key again", create("\"k1\"", one), 201);
    reject(plan, user, "the key with another body", create("k1", two), "Idempotency-Key");
    plan.ids += 2;
    ask(plan, user, "a key of an array", create("k2", two), 201);
    plan.ids += 1;
    ask(plan, user, "the key of an array again", create("k2", two), 201);
    plan.ids += 1;
    for (name, key) in [("empty", ""), ("only quotes", "\"\""), ("with a space", "a b"), ("long", &*"k".repeat(256))] {
        reject(plan, user, &format!("a key that is {name}"), create(key, one), "Idempotency-Key");
    }
    reject(plan, user, "two keys", create("k3", one).header("idempotency-key", "k3"), "Idempotency-Key");
    reject(plan, user, "a creation with a condition", create("k3", one).header("if-match", "*"), "If-Match");
    ask(plan, user, "DELETE what was created", Request::new("DELETE", format!("{base}/{id}")), 204);
    ask(plan, user, "the key of a deleted task", create("k1", one), 410);
    plan.ids += 1;
    ask(plan, user, "DELETE all that is left", Request::new("DELETE", format!("{base}?all=true")), 200);
}
