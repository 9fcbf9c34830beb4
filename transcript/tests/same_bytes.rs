//! Every framework answers every request with the same bytes, and they are the right ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use todo_core::http::{Operation, PROBES, RESOURCES, Resource};
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
    if !expected.to_head && !matches!(status, 100 | 204) {
        assert_eq!(header("content-length"), Some(&*answer.body.len().to_string()), "{context}");
    }
}

/// Each operation answers to somebody each thing that it can answer.
#[test]
fn every_operation_shows_every_outcome() {
    let mut seen = BTreeMap::<_, BTreeSet<String>>::new();
    for (case, exchange) in exchanges() {
        if let (Some(Route { path, operation: Some((method, _)) }), [answer]) = (case.route, &*exchange.answers) {
            seen.entry((path, method)).or_default().insert(outcome(answer));
        }
    }
    for resource in RESOURCES.iter().chain(PROBES) {
        for (method, operation) in resource.operations {
            let expected = outcomes(resource, *operation);
            assert_eq!(seen[&(resource.path, method.as_str())], expected, "{method} {}", resource.path);
            if method == "GET" {
                // There is no body to tell them apart.
                let statuses: BTreeSet<_> = expected.iter().map(|outcome| status(outcome)).collect();
                assert_eq!(seen[&(resource.path, "HEAD")], statuses, "HEAD {}", resource.path);
            }
        }
    }
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
    for resource in RESOURCES.iter().chain(PROBES) {
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

/// What an operation can answer, as the README says it.
fn outcomes(resource: &Resource, operation: Operation) -> BTreeSet<String> {
    let mut outcomes = vec![match operation {
        Operation::CreateTask => "201",
        Operation::DeleteTask => "204",
        _ => "200",
    }];
    if operation == Operation::Ready {
        outcomes.push("unavailable");
    }
    if !matches!(operation, Operation::Health | Operation::Ready) {
        outcomes.extend(["unauthenticated", "token_expired", "token_invalid", "token_revoked", "rate_limited"]);
        outcomes.push("validation_failed");
        if operation != Operation::GetSession {
            outcomes.extend(["internal", "unavailable", "timeout"]);
        }
    }
    if resource.path.contains("{user_id}") {
        outcomes.push("forbidden");
    }
    if resource.path.contains("{id}") {
        outcomes.push("task_not_found");
    }
    if matches!(
        operation,
        Operation::CreateTask | Operation::ReplaceTask | Operation::PatchTask | Operation::CompleteTask
    ) {
        outcomes.extend(["malformed_json", "unsupported_media_type", "payload_too_large"]);
    }
    outcomes.into_iter().map(str::to_owned).collect()
}

fn status(outcome: &str) -> String {
    let status = match outcome {
        "unauthenticated" | "token_expired" | "token_invalid" | "token_revoked" => "401",
        "forbidden" => "403",
        "task_not_found" => "404",
        "validation_failed" => "422",
        "rate_limited" => "429",
        "internal" => "500",
        "unavailable" | "timeout" => "503",
        other => other,
    };
    status.to_owned()
}
