//! Unusual request targets: which of them belong to the API, and which to the host.

use super::{Plan, Request, routes::UNKNOWN_ID};

/// The maximum length of a target that the servers accept.
const LONGEST_TARGET: usize = 65_534;

pub(super) fn add(plan: &mut Plan) {
    let task = plan.create("ann", "a task for the cases of targets");
    add_forms(plan);
    add_slashes(plan, &task);
    add_segments(plan, &task);
    add_escapes(plan, &task);
    add_queries(plan);
    add_shadowed_users(plan);
    add_long_ones(plan);
    add_host(plan);
}

/// Adds a GET with a token of ann.
fn get(plan: &mut Plan, target: impl AsRef<[u8]>, status: u16) {
    let target = target.as_ref();
    plan.ask(format!("GET {}", target.escape_ascii()), Request::get(target).by("ann"), status);
}

fn add_forms(plan: &mut Plan) {
    // Absolute targets, as sent to a proxy (RFC 9112, section 3.2.2).
    for (target, status) in [
        ("http://todo.example/api/v1/tasks?limit=1", 200),
        ("HTTP://ELSEWHERE.EXAMPLE:80/api/v1/tasks?limit=1", 200),
        ("https://ann@elsewhere.example/api/v1/auth/session", 200),
        ("ftp://[::1]/api/v1/ann/tasks?limit=1", 200),
        ("http://todo.example/health", 200),
        ("http://todo.example/api/v1/tasks/", 404),
        ("http://todo.example//api/v1/tasks", 404),
        ("http://todo.example", 404),
        ("http://todo.example?limit=1", 404),
        ("http://todo.example/", 404),
        ("http:///api/v1/tasks", 400),
        ("todo.example:80", 404),
        ("*", 404),
        ("api/v1/tasks", 400),
        ("", 400),
    ] {
        get(plan, target, status);
    }
    let post = Request::new("POST", "http://todo.example/api/v1/tasks").by("ann").json(r#"{"title":"Absolute"}"#);
    plan.ask("POST to an absolute target", post, 201);
    for (method, target, status) in [
        ("OPTIONS", "*", 404),
        ("HEAD", "*", 404),
        ("OPTIONS", "http://todo.example/api/v1/tasks", 204),
        ("OPTIONS", "http://todo.example", 404),
        ("CONNECT", "todo.example:443", 404),
        ("CONNECT", "*", 404),
        ("TRACE", "http://todo.example/api/v1/tasks", 405),
    ] {
        plan.ask(format!("{method} {target}"), Request::new(method, target), status);
    }
}

fn add_slashes(plan: &mut Plan, task: &str) {
    for target in [
        "/",
        "//",
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/api/v1//",
        "//api/v1/tasks",
        "/api//v1/tasks",
        "/api/v1///tasks",
        "/api/v1/tasks//",
        "/api/v1/tasks///",
        "/api/v1/ann/tasks//",
        "/api/v1/ann//tasks",
        "/api/v1//ann/tasks",
        "/api/v1//tasks//",
        "/api/v1///",
        "/api/v1/tasks//complete//",
        "/api/v1/tasks///complete",
        "/api/v1/auth",
        "/api/v1/auth/",
        "/api/v1/auth//session",
        "/api/v1//auth/session",
        "/api/v1/auth/session//",
        "/api//tasks//",
        "/health//",
        "//health",
        "/health//ready",
        "/health/alive",
        "/unavailable-store/health/",
        "/unavailable-store//health",
        "/api/v1/health",
        "/tasks",
        "/v1/tasks",
    ] {
        get(plan, target, 404);
    }
    for end in ["/", "//", "/complete/", "/complete//", "//complete", "/complete/x"] {
        get(plan, format!("/api/v1/tasks/{task}{end}"), 404);
        get(plan, format!("/api/ann/tasks/{task}{end}"), 404);
    }
}

fn add_segments(plan: &mut Plan, task: &str) {
    for (target, status) in [
        // No server removes dot segments.
        ("/api/v1/./tasks", 403),
        ("/api/v1/../tasks", 403),
        ("/api/v1/../v1/tasks", 404),
        ("/api/./v1/tasks", 404),
        ("/./api/v1/tasks", 404),
        ("/api/v1/tasks/.", 422),
        ("/api/v1/tasks/..", 422),
        ("/api/v1/tasks/./", 404),
        ("/api/v1/tasks/./complete", 405),
        ("/api/v1/tasks/../tasks", 404),
        ("/api/v1/ann/../ann/tasks", 404),
        ("/api/v1/tasks;v=1", 404),
        ("/api/v1;v=1/tasks", 403),
        ("/api/v1/ann;v=1/tasks", 403),
        ("/api/v1/auth/session;v=1", 404),
        ("/api/v1/tasks/;", 422),
        ("/API/v1/tasks", 404),
        ("/api/V1/tasks", 403),
        ("/api/v1/Tasks", 404),
        ("/api/v1/ANN/tasks", 403),
        ("/api/v1/AUTH/session", 404),
        ("/Health", 404),
        ("/api/v1/{user_id}/tasks", 403),
        ("/api/v1/:user_id/tasks", 403),
        ("/api/v1/*/tasks", 403),
        ("/api/v1/tasks/{id}", 422),
        ("/api/v1/tasks/:id", 422),
        ("/api/v1/tasks/*", 422),
        ("/api/v1/-/tasks", 403),
        ("/api/v1/tasks/-", 422),
        ("/api/v1/tasks/complete", 422),
        ("/api/v1/a@b:c/tasks", 403),
        ("/api/v1/a'b(c)!$&+,=/tasks", 403),
        ("/api/v1/\"{|}/tasks", 403),
        ("/api/v1/tasks/\"", 422),
        ("/api/v1/<>/tasks", 400),
        ("/api/v1/^/tasks", 403),
        ("/api/v1/`/tasks", 400),
        ("/api/v1/\\/tasks", 403),
        ("/api/v2/tasks", 403),
    ] {
        get(plan, target, status);
    }
    get(plan, format!("/api/v1/tasks/{}", task.to_uppercase()), 200);
    get(plan, format!("/api/v1/tasks/{task};v=1"), 422);
    get(plan, format!("/api/v1/tasks/{{{task}}}"), 422);
    get(plan, format!("/api/v1/tasks/{}", task.replace('-', "")), 422);
    get(plan, format!("/api/v1/tasks/{task}/tasks"), 404);
}

fn add_escapes(plan: &mut Plan, task: &str) {
    for (target, status) in [
        ("/api/v1%2Ftasks", 404),
        ("/api%2Fv1/tasks", 404),
        ("/api%2Fv1%2Ftasks", 404),
        ("%2Fapi/v1/tasks", 400),
        ("/%2Fapi/v1/tasks", 404),
        ("/api/v1/tasks%2F", 404),
        ("/api/v1/tasks%2f", 404),
        ("/api/v1/tasks/%2F", 422),
        ("/api/v1/%2F/tasks", 403),
        ("/api/v1/%2Ftasks", 404),
        ("/api/v1/ann%2Ftasks", 404),
        ("/api/v1/%5C/tasks", 403),
        ("/api/v1/a%6En/tasks?limit=1", 200),
        ("/api/v1/%61%6e%6E/tasks?limit=1", 200),
        ("/api/v1/t%61sks", 404),
        ("/api/v1/%74asks", 404),
        ("/api/v1/ann/t%61sks", 404),
        ("/api/%761/tasks", 403),
        ("/%61pi/v1/tasks", 404),
        ("/api/v1/auth/%73ession", 404),
        ("/%68ealth", 404),
        ("/api/v1/%2E/tasks", 403),
        ("/api/v1/%2e%2E/tasks", 403),
        ("/api/v1/tasks/%2e%2e", 422),
        ("/api/v1/%00/tasks", 403),
        ("/api/v1/ann%00/tasks", 403),
        ("/api/v1/tasks/%00", 422),
        ("/api/v1/tasks%00", 404),
        ("/api/v1/tasks/%00/", 404),
        ("/%00", 404),
        ("/api/v1/%FF/tasks", 403),
        ("/api/v1/ann%FF/tasks", 403),
        ("/api/v1/tasks/%FF", 422),
        ("/api/v1/ann/tasks/%FF", 422),
        ("/api/v1/%FF/tasks/%FF", 403),
        ("/api/v1/%FF/tasks/", 404),
        ("/api/v1/tasks%FF", 404),
        ("/api/v1/%FF", 404),
        ("/api/%FF", 404),
        ("/api/%FF/v1/tasks", 404),
        ("/%FF", 404),
        ("/%FF/health", 404),
        ("/health/%FF", 404),
        ("/host/%FF", 404),
        ("/api/v1/%C0%AF/tasks", 403),
        ("/api/v1/%ED%A0%80/tasks", 403),
        ("/api/v1/%/tasks", 403),
        ("/api/v1/%2/tasks", 403),
        ("/api/v1/%zz/tasks", 403),
        ("/api/v1/tasks/%", 422),
        ("/api/v1/%2561nn/tasks", 403),
        ("/api/v1/%20ann/tasks", 403),
        ("/api/v1/%0D%0Ax:y/tasks", 403),
        ("/api/v1/tasks/%0D%0A", 422),
    ] {
        get(plan, target, status);
    }
    get(plan, format!("/api/v1/tasks/{task}%2Fcomplete"), 422);
    get(plan, format!("/api/v1/tasks/{}", task.replace('-', "%2D")), 200);
    get(plan, format!("/api/v1/tasks/{task}%00"), 422);
    // Bytes that should be percent-encoded.
    get(plan, "/api/v1/ü/tasks", 403);
    get(plan, "/api/v1/tasks?ü=1", 422);
    get(plan, b"/api/v1/\xff/tasks", 400);
    get(plan, b"/api/v1/tasks?\xff=1", 400);
    get(plan, b"/api/v1/\xc3/tasks", 400);
    get(plan, "/api/v1/an n/tasks", 400);
    get(plan, "/api/v1/\t/tasks", 400);
    get(plan, "/api/v1/\0/tasks", 400);
    get(plan, "/api/v1/\x7f/tasks", 400);
    get(plan, "/api/v1/tasks#fragment", 200);
    get(plan, "/api/v1/#/tasks", 404);
    for (user, path) in [("a/b", "a%2Fb"), ("ü", "%C3%BC"), ("ü", "ü")] {
        let request = Request::new("POST", format!("/api/v1/{path}/tasks")).by(user).json(r#"{"title":"Odd"}"#);
        plan.ask(format!("POST as {user} to {path}"), request, 201);
        let id = plan.last_id();
        let request = Request::get(format!("/api/v1/{path}/tasks/{id}")).by(user);
        plan.ask(format!("GET as {user} from {path}"), request, 200);
        let request = Request::get(format!("/api/{path}/tasks")).by(user);
        plan.ask(format!("GET as {user} from {path} of the shorter prefix"), request, 200);
    }
}

fn add_queries(plan: &mut Plan) {
    for (query, status) in [
        ("?", 200),
        ("?&", 200),
        ("?&&&", 200),
        ("??", 422),
        ("?=", 422),
        ("?limit", 422),
        ("?limit=", 422),
        ("?limit=1", 200),
        ("?limit=%31", 200),
        ("?l%69mit=1", 200),
        ("?limit=+1", 422),
        ("?limit=0", 422),
        ("?limit=201", 422),
        ("?limit=99999999999999999999", 422),
        ("?limit=1&limit=1", 422),
        ("?limit=1?", 422),
        ("?limit=1#fragment", 200),
        ("?limit=1&completed=true", 200),
        ("?completed=false&limit=2", 200),
        ("?completed=TRUE", 422),
        ("?completed", 422),
        ("?LIMIT=1", 422),
        ("?cursor=x", 422),
        ("?cursor=%00", 422),
        ("?%00", 422),
        ("?%FF=%FF", 422),
        ("?%=1", 422),
        ("?a=1;limit=1", 422),
        ("?+", 422),
        ("?a/b/../c", 422),
        ("?http://elsewhere.example/", 422),
        ("?x={}|^", 422),
        ("?x=`", 422),
        ("?x=\"", 400),
        ("?x=<>", 400),
        ("?access_token=x", 422),
        ("?limit=ten&cursor=x&completed=1&page=2", 422),
    ] {
        get(plan, format!("/api/v1/tasks{query}"), status);
    }
    let cursor = todo_core::Cursor::after(crate::apps::task_id(40));
    get(plan, format!("/api/v1/ann/tasks?limit=2&cursor={cursor}"), 200);
    get(plan, "/api/v1/auth/session?", 200);
    get(plan, "/api/v1/auth/session?x", 422);
    get(plan, "/health?", 200);
    get(plan, "/health?x=1", 200);
    get(plan, "/health/ready?%FF", 200);
    get(plan, "/?limit=1", 404);
    get(plan, "/nowhere?limit=1", 404);
}

/// Users whose ID equals a path segment.
fn add_shadowed_users(plan: &mut Plan) {
    for user in ["tasks", "auth", "v1"] {
        let id = plan.create(user, format!("a task of the user {user}"));
        let (list, task, complete, escaped) = match user {
            "tasks" => (422, 404, 405, 404),
            "auth" => (404, 404, 404, 404),
            // Only the shorter prefix conflicts with this user ID, and only unless it is encoded.
            _ => (200, 200, 422, 200),
        };
        let escape = format!("%{:02X}{}", user.as_bytes()[0], &user[1..]);
        for (path, status) in [
            (format!("/api/v1/tasks/{id}?"), 200),
            (format!("/api/tasks/{id}?"), 200),
            (format!("/api/v1/{user}/tasks"), list),
            (format!("/api/{user}/tasks"), list),
            (format!("/api/v1/{user}/tasks/"), 404),
            (format!("/api/{user}/tasks/"), 404),
            (format!("/api/v1/{user}/tasks/{id}"), task),
            (format!("/api/{user}/tasks/{id}"), task),
            (format!("/api/v1/{user}/tasks/{id}/"), 404),
            (format!("/api/v1/{user}/tasks/complete"), complete),
            (format!("/api/v1/{escape}/tasks"), escaped),
            (format!("/api/{escape}/tasks"), escaped),
        ] {
            plan.ask(format!("GET {path} as {user}"), Request::get(path).by(user), status);
        }
        let path = format!("/api/v1/{user}/tasks/{id}/complete");
        plan.ask(format!("PATCH {path} as {user}"), Request::new("PATCH", path).by(user), task);
        let path = format!("/api/v1/{user}/tasks");
        let status = if user == "auth" { 404 } else { 204 };
        plan.ask(format!("OPTIONS {path} as {user}"), Request::new("OPTIONS", path).by(user), status);
    }
    // Paths that could match in more than one way.
    for (path, status) in [
        ("/api/v1/tasks/tasks/complete", 405),
        ("/api/v1/tasks/tasks/tasks", 404),
        ("/api/v1/tasks/tasks/tasks/complete", 404),
        ("/api/v1/auth/tasks/session", 404),
        ("/api/v1/auth/session/tasks", 404),
        ("/api/v1/tasks/auth/session", 404),
        ("/api/v1/session/tasks", 403),
        ("/api/v1/complete/tasks", 403),
        ("/api/v1/v1/tasks", 403),
        ("/api/v1/api/tasks", 403),
        ("/api/tasks/tasks", 422),
        ("/api/v1/tasks/v1", 422),
        ("/api/v1/auth/tasks/", 404),
        ("/api/auth/tasks/", 404),
    ] {
        get(plan, path, status);
    }
    get(plan, format!("/api/v1/tasks/tasks/{UNKNOWN_ID}/complete"), 404);
}

fn add_long_ones(plan: &mut Plan) {
    let mut long = |name: &str, target: String, status| {
        plan.ask(name, Request::get(target).by("ann"), status);
    };
    long("a long id", format!("/api/v1/tasks/{}", "7".repeat(10_000)), 422);
    long("a long user id", format!("/api/v1/{}/tasks", "a".repeat(10_000)), 403);
    long("a long unknown path", format!("/{}", "a".repeat(10_000)), 404);
    long("a thousand segments", "/a".repeat(1000), 404);
    long("a thousand slashes", format!("/api/v1{}tasks", "/".repeat(1000)), 404);
    long("a thousand parameters", format!("/api/v1/tasks?{}", "a&".repeat(1000)), 422);
    let mut longest = |name: &str, length, status| {
        let target = "/api/v1/tasks/";
        long(name, format!("{target}{}", "7".repeat(length - target.len())), status);
    };
    longest("the longest target", LONGEST_TARGET, 422);
    longest("a target that is too long", LONGEST_TARGET + 1, 414);
}

/// Paths of the host.
fn add_host(plan: &mut Plan) {
    plan.ask("the host's route", Request::get("/host"), 200);
    plan.ask("the host's route for users, without a credential", Request::get("/host/me"), 401);
    plan.ask("the host's route for users, as ann", Request::get("/host/me").by("ann"), 200);
    plan.ask("the host's route for users, as ü", Request::get("/host/me?").by("ü"), 200);
    plan.ask("the host's route for users, revoked", Request::get("/host/me").by("disabled"), 401);
    plan.ask("the host's route for users, rate limited", Request::get("/host/me").by("rate-limited"), 429);
    plan.ask("the host's route for users, no quota left", Request::get("/host/me").by("over-quota"), 429);
    plan.ask("a list, some quota left", Request::get("/api/v1/tasks").by("with-quota"), 200);
    plan.ask("a list, no quota left", Request::get("/api/v1/tasks").by("over-quota"), 429);
    plan.ask("an invalid ID, some quota left", Request::get("/api/v1/tasks/7").by("with-quota"), 422);
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "X"] {
        plan.ask(format!("{method} /nowhere"), Request::new(method, "/nowhere"), 404);
        plan.ask(
            format!("{method} /api/v1/nowhere, with a body"),
            Request::new(method, "/api/v1/nowhere").json("{}"),
            404,
        );
    }
}
