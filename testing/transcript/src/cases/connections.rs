//! Connections: versions of HTTP, `connection` headers, pipelining, and bytes that are not HTTP.

use super::{Case, Plan, Request};

pub(super) fn add(plan: &mut Plan) {
    add_versions(plan);
    add_connection_headers(plan);
    add_pipelines(plan);
    add_invalid_http(plan);
}

fn session() -> Request {
    Request::get("/api/v1/auth/session").by("ann")
}

fn post() -> Request {
    Request::new("POST", "/api/v1/tasks").by("ann").json(r#"{"title":"x"}"#)
}

fn add_versions(plan: &mut Plan) {
    let old = |request: Request| request.version("HTTP/1.0");
    plan.ask("HTTP/1.0", old(session()), 200);
    plan.ask("HTTP/1.0, without a host", old(session().without("host")), 200);
    plan.ask("HTTP/1.0, kept alive", old(session().header("connection", "keep-alive")), 200);
    plan.ask("HTTP/1.0, closed", old(session().header("connection", "close")), 200);
    plan.ask("HTTP/1.0, no credential", old(Request::get("/api/v1/tasks")), 401);
    plan.ask(
        "HTTP/1.0, no credential, kept alive",
        old(Request::get("/api/v1/tasks").header("connection", "keep-alive")),
        401,
    );
    plan.ask("HTTP/1.0, HEAD", old(Request::new("HEAD", "/health")), 200);
    plan.ask("HTTP/1.0, OPTIONS", old(Request::new("OPTIONS", "/api/v1/tasks")), 204);
    plan.ask("HTTP/1.0, unknown path", old(Request::get("/nowhere")), 404);
    plan.ask("HTTP/1.0, POST", old(post()), 201);
    plan.ask(
        "HTTP/1.0, a body without a length",
        old(Request::new("POST", "/api/v1/tasks").by("ann").unmeasured("{}")),
        400,
    );
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3", "http/1.1", "HTTP/1.10", "HTTP", ""] {
        plan.ask(format!("version {version}"), session().version(version), 400);
    }
    plan.ask("no version", "GET /health\r\n\r\n", 400);
}

fn add_connection_headers(plan: &mut Plan) {
    for (name, value) in [
        ("close", "close"),
        ("in capitals", "CLOSE"),
        ("kept alive", "keep-alive"),
        ("both", "keep-alive, close"),
        ("something else", "x-custom"),
        ("empty", ""),
    ] {
        plan.ask(format!("connection: {name}"), session().header("connection", value), 200);
    }
    let closed = |request: Request| request.header("connection", "close");
    plan.ask("connection: two", session().header("connection", "keep-alive").header("connection", "close"), 200);
    plan.ask("connection: close, POST", closed(post()), 201);
    plan.ask("connection: close, no credential", closed(Request::get("/api/v1/tasks")), 401);
    plan.ask("connection: close, HEAD", closed(Request::new("HEAD", "/health")), 200);
    plan.ask("connection: close, OPTIONS", closed(Request::new("OPTIONS", "/api/v1/tasks")), 204);
    plan.ask("connection: close, unsupported method", closed(Request::new("X", "/api/v1/tasks")), 405);
    plan.ask("connection: close, unknown path", closed(Request::get("/nowhere")), 404);
    plan.ask("connection: close, a probe", closed(Request::get("/health/ready")), 200);
}

fn add_pipelines(plan: &mut Plan) {
    let get = |target: &str| Request::get(target).by("ann");
    let mut pipeline = |name: &str, requests: Vec<(Request, u16)>| {
        plan.add(Case::pipelined(name, requests.into_iter().map(|(request, status)| (request.into(), status))));
    };
    pipeline("pipelined: twenty probes", vec![(Request::get("/health"), 200); 20]);
    pipeline(
        "pipelined: each kind of response",
        vec![
            (get("/api/v1/tasks?limit=1"), 200),
            (Request::get("/api/v1/tasks"), 401),
            (get("/api/v1/bob/tasks"), 403),
            (get("/api/v1/tasks/"), 404),
            (get("/nowhere"), 404),
            (Request::new("PUT", "/api/v1/tasks"), 405),
            (Request::new("OPTIONS", "/api/v1/tasks"), 204),
            (get("/api/v1/tasks?limit=0"), 422),
            (Request::new("HEAD", "/api/v1/tasks?limit=1").by("ann"), 200),
            (get("/health/ready"), 200),
        ],
    );
    pipeline(
        "pipelined: HEAD and GET",
        vec![(Request::new("HEAD", "/health"), 200), (Request::get("/health"), 200), (Request::new("HEAD", "/x"), 404)],
    );
    pipeline(
        "pipelined: after an unread body",
        vec![(Request::new("POST", "/api/v1/tasks").json("{}"), 401), (get("/api/v1/auth/session"), 200)],
    );
    pipeline(
        "pipelined: connection closed by the second",
        vec![(get("/health"), 200), (get("/health/ready").header("connection", "close"), 200)],
    );
    pipeline("pipelined: a write and a read", vec![(post(), 201), (get("/api/v1/tasks?limit=1"), 200)]);
}

fn add_invalid_http(plan: &mut Plan) {
    for (name, bytes) in [
        ("a word", &b"hello\r\n\r\n"[..]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("two spaces", b"GET  /health HTTP/1.1\r\n\r\n"),
        ("a tab", b"GET\t/health\tHTTP/1.1\r\n\r\n"),
        ("no target", b"GET HTTP/1.1\r\n\r\n"),
        ("no method", b" /health HTTP/1.1\r\n\r\n"),
        ("an invalid method", b"G@T /health HTTP/1.1\r\n\r\n"),
        ("a method in UTF-8", b"G\xc3\x84T /health HTTP/1.1\r\n\r\n"),
        ("an extra word", b"GET /health HTTP/1.1 please\r\n\r\n"),
        ("a leading space", b" GET /health HTTP/1.1\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    ] {
        plan.ask(format!("invalid HTTP: {name}"), bytes, 400);
    }
    let method = "X".repeat(1000);
    plan.ask("a method of a thousand letters", Request::new(&method, "/api/v1/tasks"), 405);
    plan.ask("a method of punctuation", Request::new("!#$%&'*+-.^_`|~1", "/api/v1/tasks"), 405);
}
