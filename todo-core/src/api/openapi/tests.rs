use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::HeaderMap;
use regex::Regex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::{
        arguments::Arguments,
        error::{ApiError, SERVER},
        field_errors::FieldErrors,
        input::Members,
        problem::problem,
        ready,
        routes::{Operation, PROBES, RESOURCES, Resource},
    },
    arguments_schema,
    bodies::RequestBody,
    document, document_for,
    examples::{EXAMPLE_USER, example_id, example_quota, example_task},
    failures::Failure,
    headers::header_name,
    operations::operation_id,
    schemas::problem_schema,
    values::{CURSOR, DUE, NOT_BLANK, NOT_BLANK_OR_EMPTY, TIMESTAMP, UUID, WITHOUT_NUL},
};
use crate::{
    Cursor, Description, Due, Error, ListName, Task, TaskId, Title, UserId,
    auth::{AuthError, Credentials, Quota},
    clock::Timestamp,
    store::StoreError,
};

fn parsed() -> Value {
    serde_json::from_str(&document("/api/v1")).expect("JSON")
}

fn all_operations() -> impl Iterator<Item = (String, &'static Resource, &'static str, Operation)> {
    let mounted = RESOURCES.iter().map(|resource| (format!("/api/v1{}", resource.path), resource));
    let probes = PROBES.iter().map(|resource| (resource.path.to_owned(), resource));
    mounted.chain(probes).flat_map(|(path, resource)| {
        let operations = resource.operations.iter();
        operations.map(move |(method, operation)| (path.clone(), resource, method.as_str(), *operation))
    })
}

/// The member names of an object.
fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Compiles a pattern of ECMA 262, which writes code points as `\u2000`.
fn regex(pattern: &str) -> Regex {
    let unicode = Regex::new(r"\\u([0-9a-f]{4})").expect("a pattern");
    Regex::new(&unicode.replace_all(pattern, r"\u{$1}")).expect("a pattern")
}

#[test]
fn the_document_has_exactly_the_operations_of_the_route_table() {
    let document = parsed();
    let mut expected = BTreeMap::<_, BTreeSet<_>>::new();
    let mut ids = BTreeSet::new();
    for (path, resource, method, _) in all_operations() {
        let written = &document["paths"][&path][method.to_lowercase()];
        assert!(ids.insert(written["operationId"].as_str().expect(&path).to_owned()), "{written}");
        assert!(!written["summary"].as_str().expect("a text").is_empty());
        let methods = expected.entry(path.clone()).or_default();
        methods.insert(method.to_lowercase());
        if resource.path.contains('{') {
            methods.insert("parameters".to_owned());
        }
        let tag = &written["tags"][0];
        let tags = document["tags"].as_array().expect("tags");
        assert!(tags.iter().any(|known| known["name"] == *tag), "{tag}");
    }
    let found = document["paths"].as_object().expect("paths").iter();
    let found = found.map(|(path, item)| (path.clone(), names(item).into_iter().map(str::to_owned).collect()));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
    assert_eq!(ids.len(), 33);
}

#[test]
fn only_the_probes_require_no_token() {
    let document = parsed();
    for (path, _, method, operation) in all_operations() {
        let security = &document["paths"][&path][method.to_lowercase()]["security"];
        let is_probe = matches!(operation, Operation::Health | Operation::Ready);
        let expected = if is_probe { json!([]) } else { json!([{"bearer": []}]) };
        assert_eq!(*security, expected, "{method} {path}");
    }
}

#[test]
fn the_path_parameters_are_those_of_the_template() {
    let document = parsed();
    for (path, resource, _, _) in all_operations() {
        let parameters = document["paths"][&path]["parameters"].as_array().cloned().unwrap_or_default();
        let found: Vec<_> = parameters.iter().map(|parameter| parameter["name"].as_str().expect("a name")).collect();
        assert_eq!(found, resource.parameter_names().collect::<Vec<_>>(), "{path}");
    }
}

#[test]
fn every_reference_resolves() {
    fn check(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(&target[1..]).is_some(), "{target}");
                }
                if let Some(Value::String(target)) = members.get("operationId")
                    && members.contains_key("parameters")
                {
                    assert!(
                        all_operations()
                            .any(|(_, resource, _, operation)| operation_id(resource, operation) == *target)
                    );
                }
                members.values().for_each(|value| check(document, value));
            }
            Value::Array(values) => values.iter().for_each(|value| check(document, value)),
            _ => {}
        }
    }
    let document = parsed();
    check(&document, &document);
}

/// The failures that an error is documented in. No wildcard arm, so that a new error must choose.
fn failures(error: &ApiError) -> &'static [Failure] {
    match error {
        ApiError::Auth(AuthError::Missing | AuthError::Expired | AuthError::Invalid(_) | AuthError::Revoked) => {
            &[Failure::Unauthorized]
        }
        ApiError::Auth(AuthError::InsufficientScope { .. }) => {
            &[Failure::Forbidden, Failure::ForbiddenToCreate, Failure::InsufficientScope]
        }
        ApiError::Auth(AuthError::ForeignOrigin) | ApiError::Forbidden => {
            &[Failure::Forbidden, Failure::ForbiddenToCreate]
        }
        ApiError::Auth(AuthError::RateLimited { .. } | AuthError::OverQuota(_))
        | ApiError::TooManyStreams { .. }
        | ApiError::Service(Error::TooManyCalls) => &[Failure::RateLimited],
        ApiError::Auth(AuthError::Unavailable { .. } | AuthError::KeyMayBeNew { .. })
        | ApiError::Service(Error::Store(
            StoreError::Unavailable(_)
            | StoreError::NotWritable(_)
            | StoreError::Interrupted(_)
            | StoreError::Timeout(_),
        ))
        | ApiError::Timeout { .. } => &[Failure::Unavailable],
        ApiError::NotReady { .. } => &[Failure::NotReady],
        ApiError::Service(Error::Store(StoreError::Setup(_) | StoreError::Backend(_)) | Error::IdsExhausted)
        | ApiError::Internal(_) => &[Failure::Internal],
        ApiError::NotFound | ApiError::TrailingSlash => &[Failure::NotFound, Failure::TaskOrPathNotFound],
        ApiError::Service(Error::TaskNotFound) => &[Failure::TaskNotFound, Failure::TaskOrPathNotFound],
        ApiError::MethodNotAllowed { .. } => &[Failure::MethodNotAllowed],
        ApiError::PayloadTooLarge { .. } => &[Failure::PayloadTooLarge],
        // A limit of the host, which may have none.
        ApiError::HeadTooLarge { .. } => &[],
        ApiError::VersionConflict { .. } => &[Failure::VersionConflict],
        ApiError::PreconditionRequired => &[Failure::PreconditionRequired],
        ApiError::Service(Error::PreconditionFailed { .. }) => &[Failure::PreconditionFailed],
        ApiError::Service(Error::QuotaExceeded { .. }) => &[Failure::ForbiddenToCreate],
        ApiError::Service(Error::TaskDeleted) => &[Failure::TaskDeleted],
        ApiError::SyncTokenExpired => &[Failure::SyncTokenExpired],
        ApiError::UnsupportedMediaType { .. } => &[Failure::UnsupportedMediaType],
        ApiError::MalformedJson { .. } | ApiError::IncompleteBody => &[Failure::MalformedJson],
        ApiError::SlowBody { .. } => &[Failure::SlowBody],
        ApiError::NotAnObject { .. }
        | ApiError::Validation(_)
        | ApiError::Service(Error::InvalidField { .. } | Error::IdempotencyKeyReused) => &[Failure::ValidationFailed],
    }
}

#[test]
fn failures_have_the_status_and_codes_of_their_errors() {
    let document = parsed();
    for failure in Failure::ALL {
        let written = &document["components"]["responses"][failure.name()];
        let target = written["content"]["application/problem+json"]["schema"]["$ref"].as_str().expect("a reference");
        let schema = &document.pointer(&target[1..]).expect("a schema")["allOf"][1]["properties"];
        let mut expected = BTreeSet::new();
        for (_, error) in failure.errors() {
            assert!(failures(&error).contains(failure), "{error:?}");
            expected.insert(error.code());
        }
        assert_eq!(schema["code"]["enum"], json!(expected), "{failure:?}");
    }
    let all = json!([
        "forbidden",
        "incomplete_body",
        "insufficient_scope",
        "internal",
        "malformed_json",
        "method_not_allowed",
        "not_found",
        "payload_too_large",
        "precondition_failed",
        "precondition_required",
        "quota_exceeded",
        "rate_limited",
        "request_timeout",
        "sync_token_expired",
        "task_deleted",
        "task_not_found",
        "timeout",
        "token_expired",
        "token_invalid",
        "token_revoked",
        "unauthenticated",
        "unavailable",
        "unsupported_media_type",
        "validation_failed",
        "version_conflict",
    ]);
    assert_eq!(document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"], all);
}

#[test]
fn the_failures_of_an_operation_have_different_statuses() {
    for (path, resource, method, operation) in all_operations() {
        let statuses: Vec<_> = Failure::of(resource, operation).into_iter().map(Failure::status).collect();
        assert_eq!(statuses.iter().collect::<BTreeSet<_>>().len(), statuses.len(), "{method} {path}: {statuses:?}");
    }
}

/// The schema of a problem is written by hand, unlike those of the other response bodies, which are derived.
#[test]
fn problems_have_the_members_of_their_schema() {
    let schema = problem_schema();
    let (mut seen, mut always) = (BTreeSet::new(), names(&schema["properties"]));
    for (_, error) in Failure::ALL.iter().flat_map(|failure| failure.errors()) {
        let body: Value = serde_json::from_slice(problem(error).body()).expect("JSON");
        let members = names(&body);
        always.retain(|name| members.contains(name));
        seen.extend(members.into_iter().map(str::to_owned));
    }
    assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), names(&schema["properties"]));
    let required: BTreeSet<_> =
        schema["required"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(always, required);
}

#[test]
fn members_that_are_always_present_are_required() {
    let schemas = &parsed()["components"]["schemas"];
    for (name, required) in [
        (
            "Task",
            json!([
                "id",
                "user_id",
                "title",
                "description",
                "completed",
                "completed_at",
                "due",
                "priority",
                "list",
                "tags",
                "position",
                "metadata",
                "created_at",
                "updated_at",
                "version",
            ]),
        ),
        ("Session", json!(["user", "expires_at"])),
        ("User", json!(["id"])),
        ("Status", json!(["status"])),
        ("Readiness", json!(["status", "store", "keys", "writes"])),
        ("BulkResult", json!(["matched", "changed"])),
        ("TransferResult", json!(["moved", "remaining"])),
    ] {
        assert_eq!(schemas[name]["required"], required);
    }
    assert_eq!(names(&schemas["Task"]["properties"]), names(&example_task()));
    assert!(serde_json::from_value::<Task>(example_task()).is_ok());
}

#[test]
fn failed_parts_have_the_names_of_the_readiness_schema() {
    let document = parsed();
    let mut parts = names(&document["components"]["schemas"]["Readiness"]["properties"]);
    assert!(parts.remove("status") && parts.remove("writes") && parts.insert(SERVER));
    assert_eq!(parts, BTreeSet::from(ready::FAILED));
    let response = &document["components"]["responses"]["NotReady"]["content"]["application/problem+json"];
    assert_eq!(document["components"]["schemas"]["NotReadyProblem"]["allOf"][1]["required"], json!(["failed"]));
    for example in response["examples"].as_object().expect("examples").values() {
        let failed = example["value"]["failed"].as_array().expect("parts");
        assert!(failed.iter().all(|part| parts.contains(part.as_str().expect("a name"))), "{example}");
    }
}

#[test]
fn quota_headers_match_their_patterns() {
    let document = parsed();
    let headers = &document["components"]["headers"];
    let quotas = [
        example_quota(),
        example_quota().refused(Duration::from_millis(1)),
        Quota::new(u32::MAX, Duration::from_hours(24)),
    ];
    for quota in quotas {
        let mut sent = HeaderMap::new();
        quota.tell(&mut sent);
        assert_eq!(sent.len(), 2);
        for (name, value) in &sent {
            let header = &headers[header_name(name)];
            assert!(header.get("required").is_none(), "{name} is sent only if a gate has a quota");
            let pattern = regex(header["schema"]["pattern"].as_str().expect("a pattern"));
            assert!(pattern.is_match(value.to_str().expect("ASCII")), "{name}: {value:?}");
        }
    }
}

/// The invalid fields of a body.
fn invalid(body: RequestBody, text: &Value) -> FieldErrors {
    let mut members = Members::parse(text.to_string().as_bytes()).expect("an object");
    let mut errors = FieldErrors::default();
    match body {
        RequestBody::Create => drop(members.new_task(&mut errors)),
        RequestBody::Replace => {
            drop(members.replacement(&mut errors));
            sent_back(&mut members, &mut errors);
        }
        RequestBody::Patch => {
            drop(members.patch(&mut errors));
            sent_back(&mut members, &mut errors);
        }
        RequestBody::PatchMany => drop(members.patch_of_many(&mut errors)),
        RequestBody::Complete => drop(members.completion(&mut errors)),
        RequestBody::Move => drop(members.place(&mut errors)),
        RequestBody::Transfer => drop(members.other_token(&mut errors)),
    }
    members.reject_rest(&mut errors);
    errors
}

fn sent_back(members: &mut Members, errors: &mut FieldErrors) {
    let user = UserId::new(EXAMPLE_USER).expect("an id");
    members.sent_back(Some(example_id()), &user, errors);
}

#[test]
fn bodies_accept_exactly_the_members_of_their_schema() {
    for body in RequestBody::ALL {
        let schema = body.schema();
        let known = names(&schema["properties"]);
        let required: BTreeSet<_> =
            schema["required"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let empty = invalid(body, &json!({}));
        // Any one of its members, which the schema says by their number.
        let required = if body == RequestBody::Move { BTreeSet::from(["before"]) } else { required };
        assert_eq!(empty.iter().map(|(field, _)| field).collect::<BTreeSet<_>>(), required, "{body:?}");
        let task = example_task();
        for name in names(&task) {
            let alone = invalid(body, &json!({name: task[name]}));
            assert_eq!(!alone.contains(name), known.contains(name), "{body:?}, {name}: {alone:?}");
        }
        for name in &known {
            let null = invalid(body, &json!({*name: null}));
            let property = &schema["properties"][*name];
            let may_be_null = property["type"].as_array().is_some_and(|types| types.contains(&json!("null")))
                || property["oneOf"].as_array().is_some_and(|schemas| schemas.contains(&json!({"type": "null"})));
            assert_eq!(!null.contains(name), may_be_null, "{body:?}, {name}: {null:?}");
        }
        for (name, example) in body.examples().as_object().expect("examples") {
            // The body of a creation may be an array.
            let values = example["value"].as_array().cloned().unwrap_or_else(|| vec![example["value"].clone()]);
            for value in values {
                let errors = invalid(body, &value);
                assert!(errors.is_empty(), "{body:?}, {name}: {errors:?}");
            }
        }
    }
}

/// The invalid arguments of an operation, or `None` if they are not read.
fn invalid_arguments(operation: Operation, json: &Value) -> Option<FieldErrors> {
    let mut arguments = Arguments::parse(json.to_string().as_bytes()).expect("an object");
    let is_change = matches!(
        operation,
        Operation::PatchTask | Operation::CompleteTask | Operation::MoveTask | Operation::DeleteTask
    );
    if is_change {
        arguments.precondition();
    }
    let id = (is_change || operation == Operation::GetTask).then(|| arguments.id());
    match operation {
        Operation::ListTasks => drop(arguments.task_query()),
        Operation::CountTasks => drop(arguments.filter()),
        Operation::CreateTask => drop(arguments.new_task()),
        Operation::PatchTask => drop(arguments.patch()),
        Operation::CompleteTask => drop(arguments.completed()),
        Operation::MoveTask => drop(arguments.place()),
        Operation::SummarizeTasks | Operation::GetTask | Operation::DeleteTask => {}
        _ => return None,
    }
    Some(match arguments.finish(Some(id)) {
        Ok(_) => FieldErrors::default(),
        Err(ApiError::Validation(errors)) => errors,
        Err(error) => panic!("{error}"),
    })
}

#[test]
fn arguments_have_exactly_the_members_of_their_schema() {
    let rejected = ["is unknown", "is set by the server", "is set from the token"].map(str::to_owned);
    let mut all = names(&example_task()).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let schemas: Vec<_> = all_operations()
        .filter_map(|(_, _, _, operation)| {
            let schema = arguments_schema(operation);
            assert_eq!(schema.is_some(), invalid_arguments(operation, &json!({})).is_some(), "{operation:?}");
            let schema: Value = serde_json::from_str(&schema?).expect("JSON");
            all.extend(names(&schema["properties"]).into_iter().map(str::to_owned));
            Some((operation, schema))
        })
        .collect();
    for (operation, schema) in schemas {
        assert!(!schema.to_string().contains("$ref"), "{operation:?}");
        let known = names(&schema["properties"]);
        for name in &all {
            // No field accepts this value, so that each has an error.
            let errors = invalid_arguments(operation, &json!({name: ["\0"]})).expect("errors");
            let (_, messages) =
                errors.iter().find(|(field, _)| *field == name || field.starts_with("tags.")).expect(name);
            let is_known = !messages.iter().any(|message| rejected.contains(message));
            assert_eq!(is_known, known.contains(&**name), "{operation:?}, {name}: {errors:?}");
        }
        let required: BTreeSet<_> =
            schema["required"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let errors = invalid_arguments(operation, &json!({})).expect("errors");
        let mut missing: BTreeSet<_> = errors.iter().map(|(field, _)| field).collect();
        // Any one of its members, which the schema cannot say.
        missing.retain(|field| operation != Operation::MoveTask || *field != "before");
        assert_eq!(missing, required, "{operation:?}");
        let examples = RequestBody::of(operation).map(RequestBody::examples).unwrap_or_default();
        for (name, example) in examples.as_object().into_iter().flatten() {
            if let Value::Object(mut example) = example["value"].clone() {
                if required.contains("id") {
                    example.insert("id".to_owned(), json!(example_id()));
                }
                let errors = invalid_arguments(operation, &example.into()).expect("errors");
                assert!(errors.is_empty(), "{operation:?}, {name}: {errors:?}");
            }
        }
    }
}

#[test]
fn the_schema_of_arguments_contains_what_it_refers_to() {
    let schema = arguments_schema(Operation::ListTasks).expect("a schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let of = |name: &str| schema["properties"][name].clone();
    assert_eq!(of("tag")["items"]["maxLength"], crate::Tag::MAX_CHARS);
    assert_eq!(of("priority")["items"]["enum"], json!(["low", "medium", "high", "urgent"]));
    assert_eq!(of("due_from")["description"], "Tasks that are due at this time or later.");
    assert_eq!(of("due_from")["pattern"], DUE);
    let schema = arguments_schema(Operation::CreateTask).expect("a schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(schema["properties"]["tags"]["oneOf"][0]["items"]["maxLength"], crate::Tag::MAX_CHARS);
}

#[test]
fn the_title_pattern_accepts_the_same_texts_as_the_type() {
    let pattern = regex(NOT_BLANK);
    for c in '\0'..=char::MAX {
        for text in [c.to_string(), format!(" {c}\n")] {
            assert_eq!(pattern.is_match(&text), Title::new(text.as_str()).is_ok(), "{text:?}");
        }
    }
    for text in ["", " ", "a\0", "\0a", "a b", " a ", "a\n", "\u{2028}\u{85}", "\u{feff}", "a\0b"] {
        assert_eq!(pattern.is_match(text), Title::new(text).is_ok(), "{text:?}");
    }
}

#[test]
fn the_pattern_without_nul_accepts_the_same_texts_as_the_types() {
    let pattern = regex(WITHOUT_NUL);
    for text in ["", "\0", "a\0", "\n", "a\nb\0", "ü"] {
        assert_eq!(pattern.is_match(text), Description::new(text).is_ok(), "{text:?}");
        assert_eq!(pattern.is_match(text) && !text.is_empty(), UserId::new(text).is_ok(), "{text:?}");
    }
}

#[test]
fn due_times_match_their_pattern() {
    let pattern = regex(DUE);
    for text in [
        "0001-01-01",
        "2026-12-01T17:00",
        "2026-12-01T17:00:05.123456789",
        "2026-12-01T16:00Z",
        "2026-12-01T17:00+01:00",
        "2026-12-01T17:00[Etc/GMT+1]",
        "1883-11-18T12:00[America/New_York]",
        "2026-10-25T02:30[Europe/Berlin]",
    ] {
        let due: Due = text.parse().expect(text);
        assert!(pattern.is_match(text) && pattern.is_match(&due.to_string()), "{text}: {due}");
    }
    for text in
        ["2026-13-01", "2026-12-32", "2026-12-01T24:00", "2026-12-01T17:00:60", "2026-12-01Z", "2026-12-01T16:00Z[UTC]"]
    {
        assert!(!pattern.is_match(text) && text.parse::<Due>().is_err(), "{text}");
    }
}

#[test]
fn the_pattern_of_the_list_parameter_accepts_names_and_nothing() {
    let pattern = regex(NOT_BLANK_OR_EMPTY);
    for text in ["", " ", "a", " a\n", "\0", "a\0"] {
        assert_eq!(pattern.is_match(text), text.is_empty() || ListName::new(text).is_ok(), "{text:?}");
    }
}

#[test]
fn ids_cursors_and_times_match_their_patterns() {
    let (uuid, cursor, timestamp) = (regex(UUID), regex(CURSOR), regex(TIMESTAMP));
    for number in [0, 1, u128::MAX, 0x019a_a562_d400_7000_8000_0000_0000_0001] {
        let id = TaskId::from(Uuid::from_u128(number));
        assert!(uuid.is_match(&id.to_string()) && uuid.is_match(&id.to_string().to_uppercase()));
        assert!(cursor.is_match(&Cursor::after(id).to_string()));
    }
    for text in ["019aa3f05c0070008000000000000001", "{019aa3f0-5c00-7000-8000-000000000001}", "", "x"] {
        assert_eq!(uuid.is_match(text), text.parse::<TaskId>().is_ok(), "{text}");
    }
    for last in (0x20..0x7f).map(char::from) {
        // Other texts that match are rejected too.
        let text = format!("AAAAAAABmqPwXABwAIAAAAAAAAABA{last}");
        assert!(cursor.is_match(&text) || text.parse::<Cursor>().is_err(), "{text}");
    }
    for micros in [i64::MIN, -1, 0, 1, i64::MAX] {
        assert!(timestamp.is_match(&Timestamp::from_unix_micros(micros).to_string()));
    }
}

#[test]
fn mounted_paths_start_with_the_mount() {
    for (mount, expected) in [("", "/tasks"), ("/", "/tasks"), ("/v2/", "/v2/tasks"), ("/a/b", "/a/b/tasks")] {
        let document: Value = serde_json::from_str(&document(mount)).expect("JSON");
        assert!(document["paths"].get(expected).is_some() && document["paths"].get("/health").is_some(), "{mount}");
    }
}

#[test]
fn the_document_declares_the_credentials_of_the_authenticator() {
    let session = Credentials::cookie("session").missing("Sign in at /login.");
    let document_for = |credentials: &Credentials| -> Value {
        serde_json::from_str(&document_for("/api", credentials)).expect("JSON")
    };
    let of_sessions = document_for(&session);
    let cookie = &of_sessions["components"]["securitySchemes"]["cookie"];
    assert_eq!((&cookie["in"], &cookie["name"]), (&json!("cookie"), &json!("session")));
    assert_eq!(of_sessions["paths"]["/api/tasks"]["get"]["security"], json!([{"cookie": []}]));
    assert_eq!(of_sessions["paths"]["/health"]["get"]["security"], json!([]));
    let unauthorized = of_sessions["components"]["responses"]["Unauthorized"].to_string();
    assert!(unauthorized.contains("Sign in at /login.") && !unauthorized.contains(" token"), "{unauthorized}");
    let either = document_for(&Credentials::bearer().or(session));
    assert_eq!(names(&either["components"]["securitySchemes"]), BTreeSet::from(["bearer", "cookie"]));
    assert_eq!(either["paths"]["/api/tasks"]["get"]["security"], json!([{"bearer": []}, {"cookie": []}]));
    assert_eq!(document_for(&Credentials::bearer()), parsed_at("/api"));
}

fn parsed_at(mount: &str) -> Value {
    serde_json::from_str(&document(mount)).expect("JSON")
}
