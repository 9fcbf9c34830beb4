//! Headers: repeated, malformed, too many, too large, or without meaning for the API.

use super::{Case, Plan, Request};
use crate::apps::token;

pub(super) fn add(plan: &mut Plan) {
    add_credentials(plan);
    add_spelling(plan);
    add_ignored(plan);
    add_sizes(plan);
}

const SESSION: &str = "/api/v1/auth/session";

fn session() -> Request {
    Request::get(SESSION)
}

fn add_credentials(plan: &mut Plan) {
    let (ann, bob) = (token("ann"), token("bob"));
    for (name, value, status) in [
        ("empty", String::new(), 401),
        ("a scheme alone", "Bearer".to_owned(), 401),
        ("a scheme and a space", "Bearer ".to_owned(), 401),
        ("Basic", "Basic YW5uOmFubg==".to_owned(), 401),
        ("in lower case", format!("bearer {ann}"), 200),
        ("in upper case", format!("BEARER {ann}"), 200),
        ("two spaces", format!("Bearer  {ann}"), 200),
        ("a space at the end", format!("Bearer {ann} "), 200),
        ("a tab", format!("Bearer\t{ann}"), 401),
        ("without a scheme", ann.clone(), 401),
        ("a list", format!("Bearer {ann}, Bearer {ann}"), 401),
        ("in quotes", format!("Bearer \"{ann}\""), 401),
        ("not a token", "Bearer nonsense".to_owned(), 401),
        ("truncated", format!("Bearer {}", &ann[..ann.len() - 1]), 401),
        ("not ASCII", format!("Bearer {ann}ü"), 401),
        ("twelve thousand characters", format!("Bearer {}", "a".repeat(12_000)), 401),
    ] {
        plan.ask(format!("authorization: {name}"), session().header("authorization", value), status);
    }
    plan.ask("authorization: bytes that are not UTF-8", session().header("authorization", b"Bearer \xff"), 401);
    plan.ask("authorization: twice the same", session().by("ann").by("ann"), 401);
    plan.ask("authorization: two users", session().header("Authorization", format!("Bearer {bob}")).by("ann"), 401);
    plan.ask("authorization: a token and an empty value", session().by("ann").header("authorization", ""), 401);
    plan.ask("authorization: in a cookie", session().header("cookie", format!("token={ann}")), 401);
    plan.ask("authorization: in the query", Request::get(format!("{SESSION}?access_token={ann}")), 401);
    plan.ask("authorization: for a proxy", session().header("proxy-authorization", format!("Bearer {ann}")), 401);
    plan.ask("authorization: beside a cookie", session().by("ann").header("cookie", "a=b; c=d"), 200);
    plan.ask("authorization: folded", raw_session(&format!("authorization: Bearer\r\n {ann}\r\n")), 400);
}

/// A request for the session with a token of ann and these lines in its head.
fn raw_session(lines: &str) -> Vec<u8> {
    format!("GET {SESSION} HTTP/1.1\r\nhost: todo.example\r\nauthorization: Bearer {}\r\n{lines}\r\n", token("ann"))
        .into_bytes()
}

fn add_spelling(plan: &mut Plan) {
    for (name, lines, status) in [
        ("folded", "x-folded: a\r\n b\r\n", 400),
        ("a space before the colon", "x-space : a\r\n", 400),
        ("a space before the name", " x-space: a\r\n", 400),
        ("no colon", "x-nothing\r\n", 400),
        ("no name", ": a\r\n", 400),
        ("no value", "x-empty:\r\n", 200),
        ("no space", "x-tight:a\r\n", 200),
        ("spaces around the value", "x-wide: \t a \t \r\n", 200),
        ("an invalid name", "x(y): a\r\n", 400),
        ("a name in UTF-8", "x-\u{fc}: a\r\n", 400),
        ("a name of punctuation", "!#$%&'*+-.^_`|~: a\r\n", 200),
        ("a value in UTF-8", "x-text: \u{fc}\u{1f980}\r\n", 200),
        ("NUL in a value", "x-nul: a\0b\r\n", 400),
        ("a bell in a value", "x-bell: a\x07b\r\n", 400),
        ("a carriage return in a value", "x-return: a\rb\r\n", 400),
        ("a line feed alone", "x-line: a\nx-other: b\r\n", 200),
        ("the same twice", "x-twice: a\r\nx-twice: a\r\n", 200),
    ] {
        plan.ask(format!("header: {name}"), raw_session(lines), status);
    }
    plan.ask("header: bytes above 127", session().by("ann").header("x-bytes", [0x80, 0xff]), 200);
    let lines = String::from_utf8_lossy(&raw_session("")).replace("\r\n", "\n");
    plan.ask("header: lines that end in a line feed alone", lines, 200);
    plan.ask("header: lines that end in a carriage return alone", "GET /health HTTP/1.1\rhost: x\r\r", 400);
    plan.ask("header: none", "GET /health HTTP/1.1\r\n\r\n", 200);
    plan.ask("header: an empty line first", [b"\r\n", &*raw_session("")].concat(), 200);
    plan.ask(
        "header: upper case",
        String::from_utf8_lossy(&raw_session("")).replace("authorization", "AUTHORIZATION"),
        200,
    );
}

/// Headers that other servers act on.
fn add_ignored(plan: &mut Plan) {
    plan.ask("no host", session().without("host").by("ann"), 200);
    plan.ask("two hosts", session().header("host", "elsewhere.example").by("ann"), 200);
    for (name, value) in [
        ("host", ""),
        ("host", "a/b?c#d e"),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/api/v1/tasks"),
        ("x-forwarded-prefix", "/elsewhere"),
        ("x-forwarded-user", "bob"),
        ("accept", "text/html"),
        ("accept", "application/*;q=0"),
        ("accept-encoding", "gzip, br, zstd"),
        ("accept-charset", "latin1"),
        ("range", "bytes=0-1"),
        ("if-match", "\"x\""),
        ("if-none-match", "*"),
        ("if-modified-since", "Fri, 21 Nov 2025 08:00:00 GMT"),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("cache-control", "only-if-cached"),
        ("prefer", "return=minimal"),
        ("te", "trailers"),
        ("trailer", "x-trailer"),
        ("max-forwards", "0"),
        ("origin", "https://elsewhere.example"),
        ("upgrade-insecure-requests", "1"),
        ("x-request-id", "7"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("content-length", "0"),
    ] {
        plan.ask(format!("GET with {name}: {value}"), session().without(name).header(name, value).by("ann"), 200);
    }
    let preflight = Request::new("OPTIONS", "/api/v1/tasks")
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization");
    plan.ask("a preflight", preflight, 204);
    for upgrade in ["h2c", "websocket", "TLS/1.0, HTTP/1.1"] {
        let request = session()
            .header("connection", "upgrade, http2-settings")
            .header("upgrade", upgrade)
            .header("http2-settings", "AAMAAABkAAQAAP__")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        plan.ask(format!("upgrade to {upgrade}"), request.clone().by("ann"), 200);
        plan.ask(format!("upgrade to {upgrade} without a credential"), request, 401);
    }
}

fn add_sizes(plan: &mut Plan) {
    let large = |bytes: usize| session().by("ann").header("x-large", vec![b'x'; bytes]);
    plan.ask("a header of 8 KiB", large(8 * 1024), 200);
    plan.ask("a header of 64 KiB", large(64 * 1024), 200);
    plan.ask("a header of 300 KiB", large(300 * 1024), 200);
    plan.ask("a header of 600 KiB", large(600 * 1024), 431);
    // Plus the host and the credential.
    let many =
        |count| (0..count).fold(session().by("ann"), |request, number| request.header(&format!("x-{number}"), "x"));
    plan.ask("a hundred headers", many(98), 200);
    plan.ask("a hundred and one headers", many(99), 431);
    plan.ask("a name of a thousand characters", session().by("ann").header(&"x".repeat(1000), "x"), 200);
    plan.add(Case::new("a head that arrives slowly", &raw_session("")[..40], 200).then(&raw_session("")[40..]));
}
