//! Bodies: content types, lengths, chunks and codings; bodies that are not read, and bodies that never end.

use super::{Case, Plan, Request};

pub(super) fn add(plan: &mut Plan) {
    let task = plan.create("ann", "a task for the cases of bodies");
    add_types(plan);
    add_contents(plan);
    add_empty_ones(plan, &task);
    add_lengths(plan);
    add_chunks(plan);
    add_codings(plan);
    add_ignored(plan, &task);
    add_rejected(plan);
    add_expectations(plan);
    add_limits(plan);
}

/// A body that creates a task.
const GOOD: &str = r#"{"title":"x"}"#;

/// The same body as a chunk.
const GOOD_CHUNK: &str = "d\r\n{\"title\":\"x\"}\r\n";

/// The end of a chunked body.
const LAST_CHUNK: &str = "0\r\n\r\n";

fn post() -> Request {
    Request::new("POST", "/api/v1/tasks").by("ann")
}

fn complete(task: &str) -> Request {
    Request::new("PATCH", format!("/api/v1/tasks/{task}/complete")).by("ann")
}

/// Adds the headers of a JSON body of this length, without the body.
fn announcing(request: Request, length: &str) -> Request {
    request.header("content-type", "application/json").header("content-length", length)
}

fn add_types(plan: &mut Plan) {
    for (content_type, status) in [
        ("application/json", 201),
        ("Application/JSON", 201),
        ("application/json;charset=utf-8", 201),
        ("application/json; charset=\"UTF-8\"", 201),
        ("application/json ; version=1", 201),
        ("application/json;", 201),
        ("application/json; charset=latin1", 415),
        ("application/json, application/json", 415),
        ("application/jsonp", 415),
        ("application/problem+json", 415),
        ("application/merge-patch+json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("text/plain", 415),
        ("*/*", 415),
        ("json", 415),
        ("", 415),
        (";", 415),
        ("\u{fc}", 415),
    ] {
        let request = post().header("content-type", content_type).body(GOOD);
        plan.ask(format!("content-type: {content_type}"), request, status);
    }
    let twice = |first: &str| post().header("content-type", first).json(GOOD);
    plan.ask("content-type: twice the same", twice("application/json"), 415);
    plan.ask("content-type: two", twice("text/plain"), 415);
    plan.ask("content-type: bytes above 127", post().header("content-type", [0xff]).body(GOOD), 415);
    for (coding, status) in [
        ("identity", 201),
        ("IDENTITY", 201),
        ("gzip", 415),
        ("GZIP", 415),
        ("br", 415),
        ("aws-chunked", 415),
        ("identity, gzip", 415),
        ("", 415),
        ("x", 415),
    ] {
        let request = post().header("content-encoding", coding).json(GOOD);
        plan.ask(format!("content-encoding: {coding}"), request, status);
    }
    let two = post().header("content-encoding", "identity").header("content-encoding", "gzip").json(GOOD);
    plan.ask("content-encoding: two", two, 415);
}

fn add_contents(plan: &mut Plan) {
    for (name, body, status) in [
        ("white space", " ", 400),
        ("a byte order mark", "\u{feff}{\"title\":\"x\"}", 400),
        ("two values", r#"{"title":"x"}{}"#, 400),
        ("a trailing comma", r#"{"title":"x",}"#, 400),
        ("a lone surrogate", r#"{"title":"\ud800"}"#, 422),
        ("a pair of surrogates", r#"{"title":"\ud83e\udd80"}"#, 201),
        ("null", "null", 422),
        ("a string", r#""title""#, 422),
        ("a repeated field", r#"{"title":"x","title":"x"}"#, 422),
        ("NUL", r#"{"title":"a\u0000b"}"#, 422),
        ("a name that needs escaping", r#"{"title":"x","\"\\\u0000\n<>\u00fc":1}"#, 422),
        ("fields of the server", r#"{"title":"x","id":1,"user_id":"bob","version":7}"#, 422),
        ("a blank title", r#"{"title":" \t\u3000"}"#, 422),
        ("markup", r#"{"title":"<script>alert(1)</script>","description":" \\ \" \u007f \n"}"#, 201),
        ("every script", "{\"title\":\"日本語 🦀 e\u{301}\"}", 201),
        ("a number that is too large", r#"{"title":"x","completed":1e999999}"#, 422),
    ] {
        plan.ask(format!("JSON: {name}"), post().json(body), status);
    }
    plan.ask("JSON: not UTF-8", post().json(b"{\"title\":\"\xfc\"}"), 400);
    plan.ask("JSON: deep", post().json("[".repeat(10_000)), 400);
    let fields: Vec<_> = (0..500).map(|number| format!(r#""x{number}":{number}"#)).collect();
    plan.ask("JSON: five hundred unknown fields", post().json(format!("{{{}}}", fields.join(","))), 422);
}

fn add_empty_ones(plan: &mut Plan, task: &str) {
    for (body, status) in [
        (r#"{"completed":true}"#, 200),
        ("{}", 200),
        (r#"{"completed":null}"#, 422),
        (r#"{"completed":"true"}"#, 422),
        (GOOD, 422),
        ("true", 422),
        (" ", 200),
    ] {
        plan.ask(format!("complete: {body}"), complete(task).json(body), status);
    }
    for (path, name) in [("", "patch"), ("/complete", "complete")] {
        let request = Request::new("PATCH", format!("/api/v1/tasks/{task}{path}"))
            .by("ann")
            .header("content-type", "application/merge-patch+json")
            .body(r#"{"completed":true}"#);
        plan.ask(format!("{name}: a merge patch"), request, 200);
    }
    // The content type of an empty body is ignored.
    let typed = || complete(task).header("content-type", "text/plain");
    plan.ask("complete: no body, with a content type", typed(), 200);
    plan.ask("complete: no body, compressed", complete(task).header("content-encoding", "gzip"), 200);
    plan.ask("complete: an empty body, with a content type", typed().body(""), 200);
    let chunked = typed().header("transfer-encoding", "chunked").unmeasured(LAST_CHUNK);
    plan.ask("complete: an empty chunked body, with a content type", chunked, 200);
    plan.ask("complete: an empty chunked body", complete(task).chunked(LAST_CHUNK), 200);
    plan.ask("no body where one is required", post().header("content-type", "text/plain"), 400);
    plan.ask("an empty body where one is required", post().json(""), 400);
}

fn add_lengths(plan: &mut Plan) {
    let of = |length: &str| announcing(post(), length).unmeasured(GOOD);
    plan.ask("content-length: with leading zeros", of("0013"), 201);
    plan.ask("content-length: with spaces around", of("  13 "), 201);
    for value in ["", "+13", "-1", "0x0d", "13.0", "1e1", "13, 13", "13;", "\u{665}", "18446744073709551616"] {
        plan.ask(format!("content-length: {value}"), of(value), 400);
    }
    plan.ask("content-length: twice the same", of("13").header("content-length", "13"), 201);
    plan.ask("content-length: two", of("13").header("content-length", "14"), 400);
    plan.ask("content-length: the largest possible", of("18446744073709551615"), 431);
    plan.ask("content-length: very large", of("1000000000000000"), 413);
    // Bytes after the length are the next request.
    for (more, status) in
        [("GET /health HTTP/1.1\r\n\r\n", 200), ("X /nowhere HTTP/1.1\r\n\r\n", 404), ("}\r\n\r\n", 400)]
    {
        let requests = [(of("13").into(), 201), (more.into(), status)];
        plan.add(Case::pipelined(format!("content-length: too small, and then {more:?}"), requests));
    }
    let mut slow = Case::new("content-length: a body that arrives slowly", announcing(post(), "13"), 201);
    for byte in GOOD.chars() {
        slow = slow.then(byte.to_string());
    }
    plan.add(slow);
}

fn add_chunks(plan: &mut Plan) {
    for (name, chunks, status) in [
        ("one", "d\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 201),
        ("three", "4\r\n{\"ti\r\n5\r\ntle\":\r\n4\r\n\"x\"}\r\n0\r\n\r\n", 201),
        ("in upper case", "D\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 201),
        ("with leading zeros", "000d\r\n{\"title\":\"x\"}\r\n000\r\n\r\n", 201),
        ("with extensions", "d;name=value;other=\"quoted\"\r\n{\"title\":\"x\"}\r\n0;last\r\n\r\n", 201),
        ("with spaces", "d \t\r\n{\"title\":\"x\"}\r\n0 \r\n\r\n", 201),
        ("with trailers", "d\r\n{\"title\":\"x\"}\r\n0\r\nx-trailer: a\r\ncontent-length: 1\r\n\r\n", 201),
        ("with trailers that are ignored", "2\r\n{}\r\n0\r\nauthorization: x\r\ncontent-type: x\r\n\r\n", 422),
        ("none", "0\r\n\r\n", 400),
        ("not JSON", "1\r\n{\r\n0\r\n\r\n", 400),
        ("without a number", "x\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("with a negative number", "-1\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("with an empty number", "\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("with a number that is too large", "1000000000000000d\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("longer than declared", "c\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("that end in a line feed alone", "d\n{\"title\":\"x\"}\n0\n\n", 400),
        ("with an invalid trailer", "d\r\n{\"title\":\"x\"}\r\n0\r\nx trailer\r\n\r\n", 400),
    ] {
        plan.ask(format!("chunks: {name}"), post().chunked(chunks), status);
    }
    let extended = format!("d;{}\r\n{GOOD}\r\n{LAST_CHUNK}", "x".repeat(20_000));
    plan.ask("chunks: with an extension of 20,000 characters", post().chunked(extended), 400);
    let single = GOOD.chars().map(|byte| format!("1\r\n{byte}\r\n"));
    let mut slow = Case::new("chunks: slow", post().chunked(""), 201);
    for chunk in single.clone() {
        slow = slow.then(chunk);
    }
    plan.add(slow.then(LAST_CHUNK));
    let at_once = post().chunked(single.chain([LAST_CHUNK.to_owned()]).collect::<String>());
    plan.ask("chunks: of one byte each", at_once, 201);
    let typed = || post().header("content-type", "text/plain").header("transfer-encoding", "chunked");
    plan.ask("chunks: with another content type", typed().unmeasured("1\r\nx\r\n0\r\n\r\n"), 415);
    plan.ask("chunks: none, with another content type", typed().unmeasured(LAST_CHUNK), 400);
}

fn add_codings(plan: &mut Plan) {
    let coded = |coding: &str| {
        let request = post().header("content-type", "application/json").header("transfer-encoding", coding);
        request.unmeasured([GOOD_CHUNK, LAST_CHUNK].concat())
    };
    for (coding, status) in
        [("Chunked", 201), ("gzip, chunked", 201), ("chunked, gzip", 400), ("identity", 400), ("gzip", 400), ("", 400)]
    {
        plan.ask(format!("transfer-encoding: {coding}"), coded(coding), status);
    }
    let chunked = || coded("chunked");
    plan.ask("transfer-encoding: twice", chunked().header("transfer-encoding", "chunked"), 201);
    plan.ask("transfer-encoding: in HTTP/1.0", chunked().version("HTTP/1.0"), 400);
    // The chunks take precedence, and the server closes the connection, because a proxy may use the length instead.
    for length in ["13", "5", "70000", "x"] {
        let request = chunked().header("content-length", length);
        plan.ask(format!("transfer-encoding: and then a length of {length}"), request, 201);
    }
    let first = post().header("content-length", "5").chunked([GOOD_CHUNK, LAST_CHUNK].concat());
    plan.ask("transfer-encoding: after a length", first, 201);
}

/// Bodies of requests whose body is ignored.
fn add_ignored(plan: &mut Plan, task: &str) {
    for (method, status) in [("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("POST", 405)] {
        let request = || Request::new(method, format!("/api/v1/tasks/{task}")).by("ann");
        let mut ask = |body: &str, request: Request| plan.ask(format!("{method} with {body}"), request, status);
        ask("a body", request().json("{"));
        ask("a body with another content type", request().header("content-type", "text/plain").body("x"));
        ask("a large body", request().json(vec![b'x'; 70_000]));
        ask("a chunked body", request().chunked("1\r\nx\r\n0\r\n\r\n"));
        ask("invalid chunks", request().chunked("x\r\n"));
        ask("a body that does not arrive", request().header("content-length", "1000").unmeasured("x"));
    }
    for (name, length) in [("a body", 1), ("a large body", 70_000)] {
        let id = plan.create("ann", format!("a task to delete with {name}"));
        let request = Request::new("DELETE", format!("/api/v1/tasks/{id}")).by("ann").json(vec![b'x'; length]);
        plan.ask(format!("DELETE with {name}"), request, 204);
    }
}

/// Bodies of requests that are rejected before the body is read.
fn add_rejected(plan: &mut Plan) {
    for (why, request, status) in [
        ("no credential", Request::new("POST", "/api/v1/tasks"), 401),
        ("another user's path", Request::new("POST", "/api/v1/bob/tasks").by("ann"), 403),
        ("almost a match", Request::new("POST", "/api/v1/tasks/").by("ann"), 404),
        ("a path of the host", Request::new("POST", "/nowhere").by("ann"), 404),
        ("a probe", Request::new("POST", "/health"), 405),
        ("an unsupported method", Request::new("PUT", "/api/v1/tasks").by("ann"), 405),
    ] {
        let mut ask = |body: &str, request: Request| plan.ask(format!("{why}, with {body}"), request, status);
        ask("a body", request.clone().json(GOOD));
        ask("a body of 5000 bytes", request.clone().json(vec![b' '; 5000]));
        ask("a body over the limit", request.clone().json(vec![b' '; 200_000]));
        ask("a megabyte, of which little arrives", announcing(request.clone(), "1000000").unmeasured(vec![b' '; 1000]));
        ask("a chunked body", request.clone().chunked("1\r\nx\r\n0\r\n\r\n"));
        ask("chunks that do not end", request.chunked("3e8\r\nx"));
    }
}

/// `Expect: 100-continue`: the server does not ask for the body of a request that it rejects.
fn add_expectations(plan: &mut Plan) {
    let expecting = |request: Request| request.header("expect", "100-continue");
    let continued = |name: &str, request: Request, body: &str, status| {
        Case::new(format!("expect: {name}"), request, status).after_response(100, body)
    };
    plan.add(continued("a body", announcing(expecting(post()), "13"), GOOD, 201));
    plan.add(continued("in upper case", announcing(post().header("Expect", "100-CONTINUE"), "13"), GOOD, 201));
    plan.add(continued("a body that is not JSON", announcing(expecting(post()), "1"), "{", 400));
    plan.add(continued("chunks", expecting(post()).chunked(""), &[GOOD_CHUNK, LAST_CHUNK].concat(), 201));
    plan.add(continued("without waiting", expecting(post()).json(GOOD), "", 201));
    // Longer than the next request, so that it does not matter whether the server reads that as the body.
    let long = |request: Request| announcing(request, "1000");
    for (why, request, status) in [
        ("no credential", long(Request::new("POST", "/api/v1/tasks")), 401),
        ("another user's path", long(Request::new("POST", "/api/v1/bob/tasks").by("ann")), 403),
        ("a path of the host", long(Request::new("POST", "/nowhere")), 404),
        ("an unsupported method", long(Request::new("PUT", "/api/v1/tasks")), 405),
        ("over the limit", announcing(post(), "70000"), 413),
        ("compressed", long(post()).header("content-encoding", "gzip"), 415),
    ] {
        plan.add(Case::new(format!("expect: {why}"), expecting(request), status).after_interim_response(GOOD));
    }
    plan.ask("expect: no body", expecting(Request::get("/api/v1/auth/session").by("ann")), 200);
    plan.ask("expect: an unknown expectation", post().header("expect", "the unexpected").json(GOOD), 201);
    plan.ask("expect: in HTTP/1.0", expecting(post()).version("HTTP/1.0").json(GOOD), 201);
}

fn add_limits(plan: &mut Plan) {
    const LIMIT: usize = 64 * 1024;
    let spaces = |length: usize| " ".repeat(length);
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n", spaces(length));
    let rest = LIMIT - GOOD.len();
    plan.ask("a body at the limit", post().json([GOOD, &spaces(rest)].concat()), 201);
    plan.ask("a body over the limit", post().json([GOOD, &spaces(rest + 1)].concat()), 413);
    plan.ask("a body over the limit that does not arrive", announcing(post(), "65537"), 413);
    plan.ask("chunks at the limit", post().chunked([GOOD_CHUNK, &chunk(rest), LAST_CHUNK].concat()), 201);
    // Whether the connection stays open depends on how much the server reads at once.
    let over = post().chunked([GOOD_CHUNK, &chunk(rest), &chunk(1), LAST_CHUNK].concat());
    plan.add(Case::new("chunks over the limit", over, 413).not_followed_up());
    // The body never ends, so a server that waits for its end does not respond.
    for (name, beginning, piece) in [
        ("chunks that grow over the limit", "", chunk(4096)),
        ("one chunk that grows over the limit", "100000000\r\n", spaces(4096)),
    ] {
        let mut growing = Case::new(name, post().chunked(beginning), 413);
        for _ in 0..=LIMIT / 4096 {
            growing = growing.then(&*piece);
        }
        plan.add(growing);
    }
    plan.ask("a body that never arrives", announcing(post(), "1000").unmeasured("{"), 408);
    plan.ask("chunks that never arrive", post().chunked("5\r\n{"), 408);
}
