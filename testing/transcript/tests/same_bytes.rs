//! All frameworks respond to all requests with the same bytes, and the responses are correct.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde_json::Value;
use todo_core::api::{DOCS, PROBES, RESOURCES, openapi};
use todo_transcript::{
    Case, Transcript, apps,
    cases::{self, Expected, Route, Shows},
    compare::{FORCED, differences},
    wire::{Afterwards, Exchange, Reply, replay},
};
use tokio::runtime::Runtime;

static CASES: LazyLock<Vec<Case>> = LazyLock::new(cases::all);

struct Transcripts {
    axum: Transcript,
    warp: Transcript,
    poem: Transcript,
}

static TRANSCRIPTS: LazyLock<Transcripts> = LazyLock::new(|| {
    Runtime::new().expect("a runtime").block_on(async {
        let axum = replay("axum", |listener| apps::serve_axum(listener, apps::axum()), &CASES);
        let warp = replay("warp", apps::serve_warp, &CASES);
        let poem = replay("poem", apps::serve_poem, &CASES);
        let (axum, warp, poem) = tokio::join!(axum, warp, poem);
        Transcripts { axum, warp, poem }
    })
});

/// Fails with all differences, except those that a framework forces.
fn assert_equal(reference: &Transcript, other: &Transcript) {
    let (forced, found): (Vec<_>, Vec<_>) = differences(&CASES, reference, other)
        .into_iter()
        .partition(|difference| FORCED.iter().any(|known| difference.is(known)));
    let report: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "{} differences:\n\n{}\n", report.len(), report.join("\n\n"));
    for known in FORCED.iter().filter(|known| known.framework == other.framework) {
        assert!(
            forced.iter().any(|difference| difference.is(known)),
            "this forced difference does not occur any more: {known:?}"
        );
    }
}

#[test]
fn warp_responds_like_axum() {
    assert_equal(&TRANSCRIPTS.axum, &TRANSCRIPTS.warp);
}

#[test]
fn poem_responds_like_axum() {
    assert_equal(&TRANSCRIPTS.axum, &TRANSCRIPTS.poem);
}

#[test]
fn names_of_cases_are_unique() {
    let mut names = BTreeSet::new();
    for case in &*CASES {
        assert!(names.insert(&case.name), "two cases are named {}", case.name);
    }
}

/// In particular, no request causes an unexpected 5xx.
#[test]
fn statuses_are_as_expected() {
    let wrong: Vec<_> = exchanges()
        .filter_map(|(case, exchange)| {
            let expected: Vec<_> = case.expected.iter().map(|expected| expected.status).collect();
            let found: Vec<_> = exchange.replies.iter().map(Reply::status).collect();
            (found != expected).then(|| format!("{}: {found:?} and not {expected:?}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn exchanges() -> impl Iterator<Item = (&'static Case, &'static Exchange)> {
    CASES.iter().zip(&TRANSCRIPTS.axum.exchanges)
}

#[test]
fn responses_are_well_formed() {
    for (case, exchange) in exchanges() {
        for (expected, reply) in case.expected.iter().zip(&exchange.replies) {
            check(reply, *expected, &format!("{}: {reply:?}", case.name));
        }
        assert!(exchange.rest.is_empty(), "{}: {}", case.name, exchange.rest.escape_ascii());
        match &exchange.afterwards {
            Afterwards::Reply(reply) => assert_eq!(reply.body, br#"{"status":"ok"}"#, "{}", case.name),
            Afterwards::Silent => panic!("{}: the connection is open, but the server does not respond", case.name),
            Afterwards::Closed | Afterwards::NotAsked => {}
        }
    }
}

fn check(reply: &Reply, expected: Expected, context: &str) {
    let status = reply.status();
    let header = |name: &str| {
        let values: Vec<_> = reply.header(name).collect();
        assert!(values.len() <= 1, "{name} twice, {context}");
        values.first().copied()
    };
    let by_the_server = status >= 400 && header("cache-control").is_none();
    assert_eq!(header("transfer-encoding").is_some(), expected.is_stream && status == 200, "{context}");
    // The response to a HEAD has no body, which would tell the two kinds of 403 apart.
    let has_challenge = header("www-authenticate").is_some();
    let lacks_scope = status == 403
        && if reply.body.is_empty() { has_challenge } else { reply.body.ends_with(br#""code":"insufficient_scope"}"#) };
    assert_eq!(has_challenge, status == 401 || lacks_scope, "{context}");
    assert_eq!(header("allow").is_some(), status == 405 || (status == 204 && header("allow").is_some()), "{context}");
    assert_eq!(header("retry-after").is_some(), status == 429 || status == 503, "{context}");
    // Several tasks that were created together have no common location.
    let is_array = reply.body.starts_with(b"[");
    assert_eq!(header("location").is_some(), status == 201 && !is_array && !expected.to_put, "{context}");
    match status {
        100 => assert!(reply.headers.is_empty(), "{context}"),
        204 => assert_eq!((header("content-length"), header("content-type")), (None, None), "{context}"),
        304 => assert_eq!((header("content-length") == Some("0"), header("content-type")), (false, None), "{context}"),
        // The server could not parse the request, so the app did not receive it.
        400 | 414 | 431 if by_the_server => {
            assert_eq!((header("connection"), reply.body.len()), (Some("close"), 0), "{context}");
        }
        400.. => {
            assert_eq!(header("content-type"), Some("application/problem+json"), "{context}");
            let kept = header("etag").map_or("no-store", |_| "private, no-cache");
            assert_eq!(header("cache-control"), Some(kept), "{context}");
            let member = format!(r#""status":{status},"#);
            let body = String::from_utf8_lossy(&reply.body);
            assert!(expected.to_head || body.contains(&member), "{context}");
        }
        _ => assert!(header("content-type").is_some(), "{context}"),
    }
    if status == 200 && header("content-type") == Some("text/event-stream") {
        assert_eq!(header("content-length"), None, "{context}");
    } else if !expected.to_head && !matches!(status, 100 | 204 | 304) {
        assert_eq!(header("content-length"), Some(&*reply.body.len().to_string()), "{context}");
    }
}

/// Bodies have the members that their cases name, and errors name exactly the fields that are wrong.
#[test]
fn bodies_are_as_expected() {
    let mut wrong = Vec::new();
    for (case, exchange) in exchanges() {
        let (Some(shows), [reply]) = (&case.shows, &*exchange.replies) else { continue };
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let as_expected = match shows {
            Shows::Members(expected) => has_members(&body, expected),
            Shows::Tasks(expected) => body.as_array().is_some_and(|tasks| {
                tasks.len() == expected.len()
                    && tasks.iter().zip(expected).all(|(task, expected)| has_members(task, expected))
            }),
            Shows::Fields(expected) => body["field_errors"].as_object().is_some_and(|fields| {
                let expected: BTreeSet<_> = expected.iter().collect();
                fields.keys().collect::<BTreeSet<_>>() == expected
            }),
        };
        if !as_expected {
            wrong.push(format!("{}: {shows:?}\n    and not {}", case.name, String::from_utf8_lossy(&reply.body)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn has_members(body: &Value, expected: &Value) -> bool {
    expected.as_object().is_some_and(|members| members.iter().all(|(name, value)| body.get(name) == Some(value)))
}

/// The cases of each operation cause exactly the responses that the OpenAPI document lists.
#[test]
fn operations_have_exactly_the_documented_responses() {
    let mut seen = BTreeMap::<_, BTreeSet<String>>::new();
    for (case, exchange) in exchanges() {
        if let (Some(Route { path, operation: Some((method, _)) }), [reply]) = (case.route, &*exchange.replies) {
            seen.entry((path, method)).or_default().insert(outcome(reply));
        }
    }
    let document = serde_json::from_str(&openapi::document("")).expect("JSON");
    for resource in RESOURCES.iter().chain(PROBES) {
        for (method, _) in resource.operations {
            let expected = documented(&document, resource.path, method.as_str());
            let codes: BTreeSet<_> = expected.iter().map(|(outcome, _)| outcome.clone()).collect();
            // Only a slow or broken connection causes these, in the same way for each operation with a body.
            let codes = &codes - &["incomplete_body", "request_timeout"].map(str::to_owned).into();
            assert_eq!(seen[&(resource.path, method.as_str())], codes, "{method} {}", resource.path);
            if method == "GET" {
                // Responses to HEAD have no body with a code.
                let statuses: BTreeSet<_> = expected.into_iter().map(|(_, status)| status).collect();
                assert_eq!(seen[&(resource.path, "HEAD")], statuses, "HEAD {}", resource.path);
            }
        }
    }
    for resource in DOCS {
        let expected = ["200", "304"].map(str::to_owned).into();
        assert_eq!((&seen[&(resource.path, "GET")], &seen[&(resource.path, "HEAD")]), (&expected, &expected));
    }
}

/// Responses have only documented headers, and all that the document requires.
#[test]
fn responses_have_the_documented_headers() {
    const OF_ALL_RESPONSES: [&str; 4] = ["content-type", "content-length", "connection", "transfer-encoding"];
    let document: Value = serde_json::from_str(&openapi::document("")).expect("JSON");
    let mut quotas = BTreeSet::new();
    for (case, exchange) in exchanges() {
        let (Some(Route { path, operation: Some((method, _)) }), [reply]) = (case.route, &*exchange.replies) else {
            continue;
        };
        if DOCS.iter().any(|resource| resource.path == path) {
            continue;
        }
        let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
        let mut response = &document["paths"][path][method]["responses"][reply.status().to_string()];
        if let Some(target) = response.get("$ref").and_then(Value::as_str) {
            response = document.pointer(&target[1..]).expect("a response");
        }
        let documented = response["headers"].as_object().expect("headers");
        for (name, _) in &reply.headers {
            let is_known = documented
                .keys()
                .map(String::as_str)
                .chain(OF_ALL_RESPONSES)
                .any(|known| known.eq_ignore_ascii_case(name));
            assert!(is_known, "{}: {name} is not documented", case.name);
        }
        for (name, header) in documented {
            let is_present = reply.header(name).next().is_some();
            assert!(is_present || header["required"] != true, "{}: {name} is missing", case.name);
            if is_present && name == "RateLimit" {
                quotas.insert(reply.status());
            }
        }
    }
    assert_eq!(quotas, [200, 201, 404, 410, 422, 429].into());
}

/// The documented outcomes of an operation with their statuses. 405 is not an outcome of an operation; the next test
/// covers it.
fn documented(document: &Value, path: &str, method: &str) -> Vec<(String, String)> {
    let responses = document["paths"][path][method.to_lowercase()]["responses"].as_object().expect("responses");
    let outcomes = responses.iter().filter(|(status, _)| *status != "405").flat_map(|(status, response)| {
        let codes = match response.get("$ref").and_then(Value::as_str) {
            Some(target) => {
                let response = document.pointer(&target[1..]).expect("a response");
                let target =
                    response["content"]["application/problem+json"]["schema"]["$ref"].as_str().expect("a reference");
                let schema = &document.pointer(&target[1..]).expect("a schema")["allOf"][1];
                let codes = schema["properties"]["code"]["enum"].as_array().expect("codes");
                codes.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            None => vec![status.clone()],
        };
        codes.into_iter().map(move |code| (code, status.clone()))
    });
    outcomes.collect()
}

/// Each path has cases with an unsupported method and with paths that almost match.
#[test]
fn paths_reject_unsupported_methods_and_near_misses() {
    let mut seen = BTreeMap::<_, BTreeSet<String>>::new();
    for (case, exchange) in exchanges() {
        if let (Some(Route { path, operation: None }), [reply]) = (case.route, &*exchange.replies) {
            seen.entry(path).or_default().insert(outcome(reply));
        }
    }
    for resource in RESOURCES.iter().chain(PROBES).chain(DOCS) {
        let expected = ["204", "method_not_allowed", "not_found"].map(str::to_owned);
        assert_eq!(seen[resource.path], BTreeSet::from(expected), "{}", resource.path);
    }
}

/// The code of an error, or the status of a success.
fn outcome(reply: &Reply) -> String {
    let body = String::from_utf8_lossy(&reply.body);
    match body.split_once(r#""code":""#).and_then(|(_, rest)| rest.split_once('"')) {
        Some((code, _)) => code.to_owned(),
        None => reply.status().to_string(),
    }
}
