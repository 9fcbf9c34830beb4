//! Bodies: their types, their lengths and their framing; those that nobody reads, and those that never end.

use super::{Case, Plan, Request};

pub(super) fn add(plan: &mut Plan) {
    let task = plan.create("ann", "a task for odd bodies");
    add_types(plan);
    add_contents(plan);
    add_empty_ones(plan, &task);
    add_lengths(plan);
    add_chunks(plan);
    add_codings(plan);
    add_meaningless(plan, &task);
    add_refused(plan);
    add_expectations(plan);
    add_limits(plan);
}

/// A body that creates a task.
const GOOD: &str = r#"{"title":"x"}"#;

/// The same in a chunk.
const GOOD_CHUNK: &str = "d\r\n{\"title\":\"x\"}\r\n";

/// The end of a body in chunks.
const LAST_CHUNK: &str = "0\r\n\r\n";

fn post() -> Request {
    Request::new("POST", "/api/v1/tasks").by("ann")
}

fn complete(task: &str) -> Request {
    Request::new("PATCH", format!("/api/v1/tasks/{task}/complete")).by("ann")
}

/// With the headers for a JSON body of this length, and without the body.
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
        ("a comma too many", r#"{"title":"x",}"#, 400),
        ("a lone surrogate", r#"{"title":"\ud800"}"#, 400),
        ("a pair of surrogates", r#"{"title":"\ud83e\udd80"}"#, 201),
        ("null", "null", 422),
        ("a text", r#""title""#, 422),
        ("a field twice", r#"{"title":"x","title":"x"}"#, 422),
        ("NUL", r#"{"title":"a\u0000b"}"#, 422),
        ("a name that has to be escaped", r#"{"title":"x","\"\\\u0000\n<>\u00fc":1}"#, 422),
        ("fields of the server", r#"{"title":"x","id":1,"user_id":"bob","version":7}"#, 422),
        ("a blank title", r#"{"title":" \t\u3000"}"#, 422),
        ("markup", r#"{"title":"<script>alert(1)</script>","description":" \\ \" \u007f \n"}"#, 201),
        ("every script", "{\"title\":\"日本語 🦀 e\u{301}\"}", 201),
        ("a number beyond all limits", r#"{"title":"x","completed":1e999999}"#, 400),
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
        (" ", 400),
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
    // Nothing is of no type.
    let typed = || complete(task).header("content-type", "text/plain");
    plan.ask("complete: nothing, of a type", typed(), 200);
    plan.ask("complete: nothing, compressed", complete(task).header("content-encoding", "gzip"), 200);
    plan.ask("complete: an empty body, of a type", typed().body(""), 200);
    let chunked = typed().header("transfer-encoding", "chunked").unmeasured(LAST_CHUNK);
    plan.ask("complete: an empty body in chunks, of a type", chunked, 200);
    plan.ask("complete: an empty body in chunks", complete(task).chunked(LAST_CHUNK), 200);
    plan.ask("no body where one is needed", post().header("content-type", "text/plain"), 400);
    plan.ask("an empty body where one is needed", post().json(""), 400);
}

fn add_lengths(plan: &mut Plan) {
    let of = |length: &str| announcing(post(), length).unmeasured(GOOD);
    plan.ask("content-length: with zeros in front", of("0013"), 201);
    plan.ask("content-length: with spaces around", of("  13 "), 201);
    for value in ["", "+13", "-1", "0x0d", "13.0", "1e1", "13, 13", "13;", "\u{665}", "18446744073709551616"] {
        plan.ask(format!("content-length: {value}"), of(value), 400);
    }
    plan.ask("content-length: twice the same", of("13").header("content-length", "13"), 201);
    plan.ask("content-length: two", of("13").header("content-length", "14"), 400);
    plan.ask("content-length: the largest of all", of("18446744073709551615"), 431);
    plan.ask("content-length: very large", of("1000000000000000"), 413);
    // What is too much is the next request.
    for (more, status) in
        [("GET /health HTTP/1.1\r\n\r\n", 200), ("X /nowhere HTTP/1.1\r\n\r\n", 404), ("}\r\n\r\n", 400)]
    {
        let requests = [(of("13").into(), 201), (more.into(), status)];
        plan.add(Case::pipelined(format!("content-length: too small, and then {more:?}"), requests));
    }
    let mut slow = Case::new("content-length: kept slowly", announcing(post(), "13"), 201);
    for byte in GOOD.chars() {
        slow = slow.then(byte.to_string());
    }
    plan.add(slow);
}

fn add_chunks(plan: &mut Plan) {
    for (name, chunks, status) in [
        ("one", "d\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 201),
        ("three", "4\r\n{\"ti\r\n5\r\ntle\":\r\n4\r\n\"x\"}\r\n0\r\n\r\n", 201),
        ("in capitals", "D\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 201),
        ("with zeros in front", "000d\r\n{\"title\":\"x\"}\r\n000\r\n\r\n", 201),
        ("with extensions", "d;name=value;other=\"quoted\"\r\n{\"title\":\"x\"}\r\n0;last\r\n\r\n", 201),
        ("with spaces", "d \t\r\n{\"title\":\"x\"}\r\n0 \r\n\r\n", 201),
        ("with trailers", "d\r\n{\"title\":\"x\"}\r\n0\r\nx-trailer: a\r\ncontent-length: 1\r\n\r\n", 201),
        ("with trailers that count for nothing", "2\r\n{}\r\n0\r\nauthorization: x\r\ncontent-type: x\r\n\r\n", 422),
        ("none", "0\r\n\r\n", 400),
        ("not JSON", "1\r\n{\r\n0\r\n\r\n", 400),
        ("of no number", "x\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("of a number below zero", "-1\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("of an empty number", "\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("of a number that is too large", "1000000000000000d\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("longer than they say", "c\r\n{\"title\":\"x\"}\r\n0\r\n\r\n", 400),
        ("that end in a line feed alone", "d\n{\"title\":\"x\"}\n0\n\n", 400),
        ("with a trailer that is none", "d\r\n{\"title\":\"x\"}\r\n0\r\nx trailer\r\n\r\n", 400),
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
    plan.ask("chunks: of another type", typed().unmeasured("1\r\nx\r\n0\r\n\r\n"), 415);
    plan.ask("chunks: none, of another type", typed().unmeasured(LAST_CHUNK), 400);
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
    // Chunks win, and the connection is given up, since others may have read it otherwise.
    for length in ["13", "5", "70000", "x"] {
        let request = chunked().header("content-length", length);
        plan.ask(format!("transfer-encoding: and then a length of {length}"), request, 201);
    }
    let first = post().header("content-length", "5").chunked([GOOD_CHUNK, LAST_CHUNK].concat());
    plan.ask("transfer-encoding: after a length", first, 201);
}

/// Bodies of requests that have no use for one.
fn add_meaningless(plan: &mut Plan, task: &str) {
    for (method, status) in [("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("POST", 405)] {
        let request = || Request::new(method, format!("/api/v1/tasks/{task}")).by("ann");
        let mut ask = |body: &str, request: Request| plan.ask(format!("{method} with {body}"), request, status);
        ask("a body", request().json("{"));
        ask("a body of another type", request().header("content-type", "text/plain").body("x"));
        ask("a large body", request().json(vec![b'x'; 70_000]));
        ask("a body in chunks", request().chunked("1\r\nx\r\n0\r\n\r\n"));
        ask("chunks that are none", request().chunked("x\r\n"));
        ask("a body that does not come", request().header("content-length", "1000").unmeasured("x"));
    }
    for (name, length) in [("a body", 1), ("a large body", 70_000)] {
        let id = plan.create("ann", format!("a task to delete with {name}"));
        let request = Request::new("DELETE", format!("/api/v1/tasks/{id}")).by("ann").json(vec![b'x'; length]);
        plan.ask(format!("DELETE with {name}"), request, 204);
    }
}

/// Bodies of requests that are refused before anybody would read them.
fn add_refused(plan: &mut Plan) {
    for (why, request, status) in [
        ("nobody", Request::new("POST", "/api/v1/tasks"), 401),
        ("another user's path", Request::new("POST", "/api/v1/bob/tasks").by("ann"), 403),
        ("nearly ours", Request::new("POST", "/api/v1/tasks/").by("ann"), 404),
        ("the host's", Request::new("POST", "/nowhere").by("ann"), 404),
        ("a probe", Request::new("POST", "/health"), 405),
        ("no such method", Request::new("PUT", "/api/v1/tasks").by("ann"), 405),
    ] {
        let mut ask = |body: &str, request: Request| plan.ask(format!("{why}, with {body}"), request, status);
        ask("a body", request.clone().json(GOOD));
        ask("a body of 5000 bytes", request.clone().json(vec![b' '; 5000]));
        ask("a body over the limit", request.clone().json(vec![b' '; 200_000]));
        ask("a megabyte, of which little comes", announcing(request.clone(), "1000000").unmeasured(vec![b' '; 1000]));
        ask("a body in chunks", request.clone().chunked("1\r\nx\r\n0\r\n\r\n"));
        ask("chunks that do not end", request.chunked("3e8\r\nx"));
    }
}

/// `Expect: 100-continue`: whoever is refused is not asked for a body.
fn add_expectations(plan: &mut Plan) {
    let expecting = |request: Request| request.header("expect", "100-continue");
    let asked = |name: &str, request: Request, body: &str, status| {
        Case::new(format!("expect: {name}"), request, status).after_answer(100, body)
    };
    plan.add(asked("a body", announcing(expecting(post()), "13"), GOOD, 201));
    plan.add(asked("in capitals", announcing(post().header("Expect", "100-CONTINUE"), "13"), GOOD, 201));
    plan.add(asked("a body that is not JSON", announcing(expecting(post()), "1"), "{", 400));
    plan.add(asked("chunks", expecting(post()).chunked(""), &[GOOD_CHUNK, LAST_CHUNK].concat(), 201));
    plan.add(asked("without waiting", expecting(post()).json(GOOD), "", 201));
    // Longer than the request that follows, so that it makes no difference whether that is taken for the body.
    let long = |request: Request| announcing(request, "1000");
    for (why, request, status) in [
        ("nobody", long(Request::new("POST", "/api/v1/tasks")), 401),
        ("another user's path", long(Request::new("POST", "/api/v1/bob/tasks").by("ann")), 403),
        ("the host's", long(Request::new("POST", "/nowhere")), 404),
        ("no such method", long(Request::new("PUT", "/api/v1/tasks")), 405),
        ("over the limit", announcing(post(), "70000"), 413),
        ("compressed", long(post()).header("content-encoding", "gzip"), 415),
    ] {
        plan.add(Case::new(format!("expect: {why}"), expecting(request), status).unless_answered(GOOD));
    }
    plan.ask("expect: no body", expecting(Request::get("/api/v1/auth/session").by("ann")), 200);
    plan.ask("expect: something else", post().header("expect", "the unexpected").json(GOOD), 201);
    plan.ask("expect: in HTTP/1.0", expecting(post()).version("HTTP/1.0").json(GOOD), 201);
}

fn add_limits(plan: &mut Plan) {
    const LIMIT: usize = 64 * 1024;
    let spaces = |length: usize| " ".repeat(length);
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n", spaces(length));
    let rest = LIMIT - GOOD.len();
    plan.ask("a body at the limit", post().json([GOOD, &spaces(rest)].concat()), 201);
    plan.ask("a body over the limit", post().json([GOOD, &spaces(rest + 1)].concat()), 413);
    plan.ask("a body over the limit that does not come", announcing(post(), "65537"), 413);
    plan.ask("chunks at the limit", post().chunked([GOOD_CHUNK, &chunk(rest), LAST_CHUNK].concat()), 201);
    // How much of it is read in one go depends on the machine, and so does what becomes of the connection.
    let over = post().chunked([GOOD_CHUNK, &chunk(rest), &chunk(1), LAST_CHUNK].concat());
    plan.add(Case::new("chunks over the limit", over, 413).not_followed_up());
    // Their end never comes, so whoever waits for that does not answer.
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
    plan.ask("a body that never comes", announcing(post(), "1000").unmeasured("{"), 503);
    plan.ask("chunks that never come", post().chunked("5\r\n{"), 503);
}
