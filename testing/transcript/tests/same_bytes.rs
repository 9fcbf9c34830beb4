//! Every framework answers every request with the same bytes, and they are the right ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde_json::Value;
use todo_core::api::{DOCS, PROBES, RESOURCES, openapi};
use todo_transcript::{
    Case, Transcript, apps,
    cases::{self, Expected, Route},
    compare::{FORCED, differences},
    wire::{Afterwards, Answer, Exchange, replay},
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

/// Shows all differences at once, but for those that a framework forces.
fn assert_alike(reference: &Transcript, other: &Transcript) {
    let (forced, found): (Vec<_>, Vec<_>) = differences(&CASES, reference, other)
        .into_iter()
        .partition(|difference| FORCED.iter().any(|known| difference.is(known)));
    let report: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "{} differences:\n\n{}\n", report.len(), report.join("\n\n"));
    for known in FORCED.iter().filter(|known| known.framework == other.framework) {
        assert!(forced.iter().any(|difference| difference.is(known)), "this is not forced any more: {known:?}");
    }
}

#[test]
fn warp_answers_as_axum_does() {
    assert_alike(&TRANSCRIPTS.axum, &TRANSCRIPTS.warp);
}

#[test]
fn poem_answers_as_axum_does() {
    assert_alike(&TRANSCRIPTS.axum, &TRANSCRIPTS.poem);
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    for case in &*CASES {
        assert!(names.insert(&case.name), "two cases are named {}", case.name);
    }
}

/// Above all: a 5xx is nothing but what a case asks for.
#[test]
fn the_statuses_are_the_expected() {
    let wrong: Vec<_> = exchanges()
        .filter_map(|(case, exchange)| {
            let expected: Vec<_> = case.expected.iter().map(|expected| expected.status).collect();
            let found: Vec<_> = exchange.answers.iter().map(Answer::status).collect();
            (found != expected).then(|| format!("{}: {found:?} and not {expected:?}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn exchanges() -> impl Iterator<Item = (&'static Case, &'static Exchange)> {
    CASES.iter().zip(&TRANSCRIPTS.axum.exchanges)
}

#[test]
fn every_answer_is_well_formed() {
    for (case, exchange) in exchanges() {
        for (expected, answer) in case.expected.iter().zip(&exchange.answers) {
            check(answer, *expected, &format!("{}: {answer:?}", case.name));
        }
        assert!(exchange.rest.is_empty(), "{}: {}", case.name, exchange.rest.escape_ascii());
        match &exchange.afterwards {
            Afterwards::Answered(answer) => assert_eq!(answer.body, br#"{"status":"ok"}"#, "{}", case.name),
            Afterwards::Silent => panic!("{}: the connection is open, and silent", case.name),
            Afterwards::Closed | Afterwards::NotAsked => {}
        }
    }
}

fn check(answer: &Answer, expected: Expected, context: &str) {
    let status = answer.status();
    let header = |name: &str| {
        let values: Vec<_> = answer.header(name).collect();
        assert!(values.len() <= 1, "{name} twice, {context}");
        values.first().copied()
    };
    let by_the_server = status >= 400 && header("cache-control").is_none();
    assert_eq!(header("transfer-encoding"), None, "{context}");
    assert_eq!(header("www-authenticate").is_some(), status == 401, "{context}");
    assert_eq!(header("allow").is_some(), status == 405 || (status == 204 && header("allow").is_some()), "{context}");
    assert_eq!(header("retry-after").is_some(), status == 429 || status == 503, "{context}");
    assert_eq!(header("location").is_some(), status == 201, "{context}");
    match status {
        100 => assert!(answer.headers.is_empty(), "{context}"),
        204 => assert_eq!((header("content-length"), header("content-type")), (None, None), "{context}"),
        304 => assert_eq!((header("content-length") == Some("0"), header("content-type")), (false, None), "{context}"),
        // The server could not read the request, so nobody was asked.
        400 | 414 | 431 if by_the_server => {
            assert_eq!((header("connection"), answer.body.len()), (Some("close"), 0), "{context}");
        }
        400.. => {
            assert_eq!(header("content-type"), Some("application/problem+json"), "{context}");
            assert_eq!(header("cache-control"), Some("no-store"), "{context}");
            let member = format!(r#""status":{status},"#);
            let body = String::from_utf8_lossy(&answer.body);
            assert!(expected.to_head || body.contains(&member), "{context}");
        }
        _ => assert!(header("content-type").is_some(), "{context}"),
    }
    if !expected.to_head && !matches!(status, 100 | 204 | 304) {
        assert_eq!(header("content-length"), Some(&*answer.body.len().to_string()), "{context}");
    }
}

/// Each operation answers to somebody each thing that the document says it can answer, and nothing else.
#[test]
fn every_operation_shows_what_is_documented() {
    let mut seen = BTreeMap::<_, BTreeSet<String>>::new();
    for (case, exchange) in exchanges() {
        if let (Some(Route { path, operation: Some((method, _)) }), [answer]) = (case.route, &*exchange.answers) {
            seen.entry((path, method)).or_default().insert(outcome(answer));
        }
    }
    let document = serde_json::from_str(&openapi::document("")).expect("JSON");
    for resource in RESOURCES.iter().chain(PROBES) {
        for (method, _) in resource.operations {
            let expected = documented(&document, resource.path, method.as_str());
            let codes: BTreeSet<_> = expected.iter().map(|(outcome, _)| outcome.clone()).collect();
            assert_eq!(seen[&(resource.path, method.as_str())], codes, "{method} {}", resource.path);
            if method == "GET" {
                // There is no body to tell them apart.
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

/// No header but those that the document names, and all that it says are always there.
#[test]
fn every_answer_has_the_headers_that_are_documented() {
    const OF_EVERY_ANSWER: [&str; 3] = ["content-type", "content-length", "connection"];
    let document: Value = serde_json::from_str(&openapi::document("")).expect("JSON");
    let mut quotas = BTreeSet::new();
    for (case, exchange) in exchanges() {
        let (Some(Route { path, operation: Some((method, _)) }), [answer]) = (case.route, &*exchange.answers) else {
            continue;
        };
        if DOCS.iter().any(|resource| resource.path == path) {
            continue;
        }
        let method = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
        let mut response = &document["paths"][path][method]["responses"][answer.status().to_string()];
        if let Some(target) = response.get("$ref").and_then(Value::as_str) {
            response = document.pointer(&target[1..]).expect("a response");
        }
        let documented = response["headers"].as_object().expect("headers");
        for (name, _) in &answer.headers {
            let is_known = documented
                .keys()
                .map(String::as_str)
                .chain(OF_EVERY_ANSWER)
                .any(|known| known.eq_ignore_ascii_case(name));
            assert!(is_known, "{}: {name} is not documented", case.name);
        }
        for (name, header) in documented {
            let is_there = answer.header(name).next().is_some();
            assert!(is_there || header["required"] != true, "{}: {name} is missing", case.name);
            if is_there && name == "RateLimit" {
                quotas.insert(answer.status());
            }
        }
    }
    assert_eq!(quotas, [200, 201, 404, 422, 429].into());
}

/// The outcomes of an operation with their statuses, as the document says. That a path has not a method is not an outcome
/// of the operations that it has; the next test shows it.
fn documented(document: &Value, path: &str, method: &str) -> Vec<(String, String)> {
    let responses = document["paths"][path][method.to_lowercase()]["responses"].as_object().expect("responses");
    let outcomes = responses.iter().filter(|(status, _)| *status != "405").flat_map(|(status, response)| {
        let codes = match response.get("$ref").and_then(Value::as_str) {
            Some(target) => {
                let response = document.pointer(&target[1..]).expect("a response");
                let schema = &response["content"]["application/problem+json"]["schema"]["allOf"][1];
                let codes = schema["properties"]["code"]["enum"].as_array().expect("codes");
                codes.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            None => vec![status.clone()],
        };
        codes.into_iter().map(move |code| (code, status.clone()))
    });
    outcomes.collect()
}

/// Each path answers to methods that it has not, and there are paths that are nearly it.
#[test]
fn every_path_is_told_from_what_it_is_not() {
    let mut seen = BTreeMap::<_, BTreeSet<String>>::new();
    for (case, exchange) in exchanges() {
        if let (Some(Route { path, operation: None }), [answer]) = (case.route, &*exchange.answers) {
            seen.entry(path).or_default().insert(outcome(answer));
        }
    }
    for resource in RESOURCES.iter().chain(PROBES).chain(DOCS) {
        let expected = ["204", "method_not_allowed", "not_found"].map(str::to_owned);
        assert_eq!(seen[resource.path], BTreeSet::from(expected), "{}", resource.path);
    }
}

/// The `code` of an error, else the status.
fn outcome(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    match body.split_once(r#""code":""#).and_then(|(_, rest)| rest.split_once('"')) {
        Some((code, _)) => code.to_owned(),
        None => answer.status().to_string(),
    }
}
