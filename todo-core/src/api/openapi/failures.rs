//! The responses to failed requests.

use std::{collections::BTreeSet, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY},
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        body::unsupported_media_type,
        error::{ApiError, SERVER},
        events::MAX_STREAMS,
        field_errors::FieldErrors,
        json_body,
        problem::problem_for,
        ready,
        routes::{Operation, RESOURCES, Resource},
    },
    bodies::RequestBody,
    examples::{example_quota, example_task},
    headers::{failure_header, header_name, quota_references},
    values::reference,
};
use crate::{
    Error, Task, TodoService,
    auth::{AuthError, Credentials, Refusal},
};

/// A response to a failed request, as the document describes it: one for each status of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    MalformedJson,
    SlowBody,
    Unauthorized,
    Forbidden,
    ForbiddenToCreate,
    InsufficientScope,
    TaskNotFound,
    NotFound,
    TaskOrPathNotFound,
    MethodNotAllowed,
    PayloadTooLarge,
    UnsupportedMediaType,
    VersionConflict,
    TaskDeleted,
    PreconditionFailed,
    ValidationFailed,
    PreconditionRequired,
    SyncTokenExpired,
    RateLimited,
    Internal,
    Unavailable,
    NotReady,
}

/// The error for a body that is not JSON.
fn malformed(body: &str) -> ApiError {
    let reason = json_body::parse(body.as_bytes()).err().unwrap_or_default();
    ApiError::MalformedJson { reason }
}

/// The error for a body with this header only.
fn unsupported(name: HeaderName, value: &'static str) -> ApiError {
    let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
    unsupported_media_type(&headers, true).unwrap_or(ApiError::Internal("the header is supported"))
}

/// The error of a change that is not made, with the task as it is.
fn with_current(error: impl FnOnce(Box<Task>) -> ApiError) -> Option<ApiError> {
    serde_json::from_value(example_task()).ok().map(error)
}

impl Failure {
    pub(super) const ALL: &[Self] = &[
        Self::MalformedJson,
        Self::SlowBody,
        Self::Unauthorized,
        Self::Forbidden,
        Self::ForbiddenToCreate,
        Self::InsufficientScope,
        Self::TaskNotFound,
        Self::NotFound,
        Self::TaskOrPathNotFound,
        Self::MethodNotAllowed,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::VersionConflict,
        Self::TaskDeleted,
        Self::PreconditionFailed,
        Self::ValidationFailed,
        Self::PreconditionRequired,
        Self::SyncTokenExpired,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
        Self::NotReady,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MalformedJson => "MalformedJson",
            Self::SlowBody => "SlowBody",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::ForbiddenToCreate => "ForbiddenToCreate",
            Self::InsufficientScope => "InsufficientScope",
            Self::TaskNotFound => "TaskNotFound",
            Self::NotFound => "NotFound",
            Self::TaskOrPathNotFound => "TaskOrPathNotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::PayloadTooLarge => "PayloadTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::VersionConflict => "VersionConflict",
            Self::TaskDeleted => "TaskDeleted",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::ValidationFailed => "ValidationFailed",
            Self::PreconditionRequired => "PreconditionRequired",
            Self::SyncTokenExpired => "SyncTokenExpired",
            Self::RateLimited => "RateLimited",
            Self::Internal => "Internal",
            Self::Unavailable => "Unavailable",
            Self::NotReady => "NotReady",
        }
    }

    /// A text of the document, for callers who present these credentials.
    fn text(self, text: &str, credentials: &Credentials) -> String {
        if self == Self::Unauthorized { text.replace("token", credentials.noun()) } else { text.to_owned() }
    }

    fn description(self) -> &'static str {
        match self {
            Self::MalformedJson => "The body is not valid JSON, or incomplete.",
            Self::SlowBody => "The body did not arrive in time.",
            Self::Unauthorized => "The token is missing, invalid, expired or revoked, or there is more than one.",
            Self::Forbidden => {
                "The user in the path is not the caller; or a page of another site sent a write with a token in a cookie; or \
                 the token lacks a scope that this server requires."
            }
            Self::ForbiddenToCreate => "As for other writes; or the caller has as many tasks as a user may have.",
            Self::InsufficientScope => "The token lacks a scope that this server requires.",
            Self::TaskNotFound => "The caller has no such task. Another user may have one.",
            Self::NotFound => {
                "The path does not exist: users with the ID `tasks` or `auth` have no paths of this form."
            }
            Self::TaskOrPathNotFound => {
                "The caller has no such task (another user may have one), or the path does not exist: users with the ID \
                 `tasks` or `auth` have no paths of this form."
            }
            Self::MethodNotAllowed => "The path does not support the method.",
            Self::PayloadTooLarge => "The body is larger than the limit, which is 64 KiB by default.",
            Self::UnsupportedMediaType => "The content type is not JSON in UTF-8, or the body is compressed.",
            Self::VersionConflict => {
                "The task has changed since the version in the body. `current` is the task as it is. Nothing was changed."
            }
            Self::TaskDeleted => {
                "An earlier request with the same `Idempotency-Key` created a task that was deleted since. Nothing was done."
            }
            Self::PreconditionFailed => {
                "A condition in the headers is not true of the task. `current` is the task as it is. Nothing was changed."
            }
            Self::PreconditionRequired => {
                "The request has no condition, and this server requires one. By default it does not."
            }
            Self::ValidationFailed => {
                "Fields or query parameters are invalid, missing or unknown. All are reported together."
            }
            Self::SyncTokenExpired => {
                "The token is one of another user, or too old, or the server has lost later changes. Read all tasks again, \
                 without a token."
            }
            Self::RateLimited => "The caller sends too many requests, or too many at the same time. Nothing was done.",
            Self::Internal => "The server failed.",
            Self::Unavailable => {
                "The store or the keys that verify tokens are unreachable or too slow. A write may have happened."
            }
            Self::NotReady => "The parts in `failed` do not work or did not respond in time; or the server stops.",
        }
    }

    /// The errors with this response, each with the name of its example.
    pub(super) fn errors(self) -> Vec<(&'static str, ApiError)> {
        let seconds = Duration::from_secs;
        match self {
            Self::MalformedJson => {
                vec![("not JSON", malformed("{\"title\":'x'}")), ("incomplete", ApiError::IncompleteBody)]
            }
            Self::SlowBody => vec![("too slow", ApiError::SlowBody { limit: seconds(10) })],
            Self::Unauthorized => vec![
                ("no token", AuthError::Missing.into()),
                ("expired token", AuthError::Expired.into()),
                ("invalid token", AuthError::Invalid(Refusal::Signature).into()),
                ("long token", AuthError::Invalid(Refusal::TooLong).into()),
                ("revoked token", AuthError::Revoked.into()),
            ],
            Self::Forbidden => {
                let others =
                    vec![("another user", ApiError::Forbidden), ("another site", AuthError::ForeignOrigin.into())];
                [others, Self::InsufficientScope.errors()].into_iter().flatten().collect()
            }
            Self::ForbiddenToCreate => {
                let mut errors = Self::Forbidden.errors();
                errors.push(("too many tasks", Error::QuotaExceeded { max: TodoService::MAX_TASKS_PER_USER }.into()));
                errors
            }
            Self::VersionConflict => {
                let error = with_current(|current| ApiError::VersionConflict { current });
                error.map(|error| ("a stale version", error)).into_iter().collect()
            }
            Self::TaskDeleted => vec![("deleted", Error::TaskDeleted.into())],
            Self::PreconditionFailed => {
                let error = with_current(|current| Error::PreconditionFailed { current }.into());
                error.map(|error| ("a stale ETag", error)).into_iter().collect()
            }
            Self::PreconditionRequired => vec![("no condition", ApiError::PreconditionRequired)],
            Self::InsufficientScope => {
                vec![("a missing scope", AuthError::InsufficientScope { required: "todo".into() }.into())]
            }
            Self::TaskNotFound => vec![("no such task", Error::TaskNotFound.into())],
            Self::NotFound => vec![("no such path", ApiError::NotFound), ("slash at the end", ApiError::TrailingSlash)],
            Self::TaskOrPathNotFound => {
                [Self::TaskNotFound.errors(), Self::NotFound.errors()].into_iter().flatten().collect()
            }
            Self::MethodNotAllowed => {
                vec![(
                    "no such method",
                    ApiError::MethodNotAllowed { allow: RESOURCES[0].allow, method: Method::TRACE },
                )]
            }
            Self::PayloadTooLarge => vec![("over the limit", ApiError::PayloadTooLarge { limit: Some(64 * 1024) })],
            Self::UnsupportedMediaType => vec![
                ("not JSON", unsupported(CONTENT_TYPE, "text/plain")),
                ("compressed", unsupported(CONTENT_ENCODING, "gzip")),
            ],
            Self::ValidationFailed => {
                let mut errors = FieldErrors::default();
                errors.add("title", "must not be blank");
                errors.add("user_id", "is set from the token");
                vec![("invalid fields", errors.into()), ("not an object", ApiError::NotAnObject { or_array: false })]
            }
            Self::SyncTokenExpired => vec![("begin again", ApiError::SyncTokenExpired)],
            Self::RateLimited => vec![
                ("too many at the same time", Error::TooManyCalls.into()),
                ("too many streams", ApiError::TooManyStreams { max: MAX_STREAMS }),
                ("too many requests", AuthError::RateLimited { retry_after: seconds(7) }.into()),
                (
                    "quota used up",
                    AuthError::OverQuota(example_quota().remaining(0, seconds(10)).refused(seconds(1))).into(),
                ),
            ],
            Self::Internal => vec![("internal error", ApiError::Internal("an example"))],
            Self::Unavailable => vec![
                ("unreachable", AuthError::Unavailable { retry_after: seconds(5), source: "an example".into() }.into()),
                ("too slow", ApiError::Timeout { limit: seconds(10) }),
            ],
            Self::NotReady => {
                let failed = |parts: &[&'static str]| ApiError::NotReady { failed: parts.to_vec() };
                vec![
                    ("one part", failed(&ready::PARTS[..1])),
                    ("all parts", failed(&ready::PARTS)),
                    ("the server stops", failed(&[SERVER])),
                ]
            }
        }
    }

    pub(super) fn status(self) -> StatusCode {
        self.errors().first().map(|(_, error)| error.status()).unwrap_or_default()
    }

    /// Whether the failure can come after authentication, so that the response has the caller's quota.
    fn has_quota(self) -> bool {
        match self {
            Self::Forbidden
            | Self::ForbiddenToCreate
            | Self::TaskNotFound
            | Self::TaskOrPathNotFound
            | Self::VersionConflict
            | Self::TaskDeleted
            | Self::PreconditionFailed
            | Self::PreconditionRequired
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::MalformedJson
            | Self::SlowBody
            | Self::ValidationFailed
            | Self::SyncTokenExpired
            | Self::RateLimited
            | Self::Internal
            | Self::Unavailable => true,
            Self::Unauthorized | Self::InsufficientScope | Self::NotFound | Self::MethodNotAllowed | Self::NotReady => {
                false
            }
        }
    }

    /// The failures of an operation. No wildcard arm, so that a new operation must choose.
    pub(super) fn of(resource: &Resource, operation: Operation) -> Vec<Self> {
        let mut failures = vec![Self::MethodNotAllowed];
        let (writes, uses_store) = match operation {
            Operation::ListTasks
            | Operation::CountTasks
            | Operation::SummarizeTasks
            | Operation::ListChanges
            | Operation::StreamEvents
            | Operation::GetTask => (false, true),
            Operation::CreateTask
            | Operation::PatchTasks
            | Operation::DeleteTasks
            | Operation::TransferTasks
            | Operation::MoveTask
            | Operation::ReplaceTask
            | Operation::PatchTask
            | Operation::DeleteTask
            | Operation::CompleteTask => (true, true),
            Operation::GetSession => (false, false),
            Operation::Ready => {
                failures.push(Self::NotReady);
                return failures;
            }
            Operation::Health | Operation::GetDocument => return failures,
        };
        failures.extend([Self::Unauthorized, Self::RateLimited, Self::ValidationFailed, Self::Unavailable]);
        if matches!(operation, Operation::ListChanges | Operation::StreamEvents) {
            failures.push(Self::SyncTokenExpired);
        }
        if uses_store {
            failures.push(Self::Internal);
        }
        failures.push(match operation {
            Operation::CreateTask | Operation::ReplaceTask => Self::ForbiddenToCreate,
            _ if writes || resource.names_a_user() => Self::Forbidden,
            _ => Self::InsufficientScope,
        });
        if operation == Operation::CreateTask {
            failures.push(Self::TaskDeleted);
        }
        if resource.names_a_task() {
            failures.push(Self::PreconditionFailed);
            if writes {
                failures.push(Self::PreconditionRequired);
            }
        }
        if matches!(operation, Operation::ReplaceTask | Operation::PatchTask) {
            failures.push(Self::VersionConflict);
        }
        failures.extend(match (resource.names_a_user(), resource.names_a_task()) {
            (false, false) => None,
            (false, true) => Some(Self::TaskNotFound),
            (true, false) => Some(Self::NotFound),
            (true, true) => Some(Self::TaskOrPathNotFound),
        });
        if RequestBody::of(operation).is_some() {
            failures.extend([Self::MalformedJson, Self::SlowBody, Self::UnsupportedMediaType, Self::PayloadTooLarge]);
        }
        failures
    }

    /// The name of the schema of its body.
    pub(super) fn schema_name(self) -> String {
        format!("{}Problem", self.name())
    }

    /// The schema of its body: a problem with one of these codes.
    ///
    /// It has a name, so that a generator makes one type of it, and not one for each operation. It has nothing that
    /// generators cannot make a type of: a `const` for the status made some of them leave the response out.
    pub(super) fn schema(self) -> Value {
        let codes: BTreeSet<_> = self.errors().iter().map(|(_, error)| error.code()).collect();
        let mut members = json!({"type": "object", "properties": {"code": {"type": "string", "enum": codes}}});
        match self {
            Self::NotReady => members["required"] = json!(["failed"]),
            Self::PreconditionFailed | Self::VersionConflict => members["required"] = json!(["current"]),
            _ => {}
        }
        json!({"description": self.description(), "allOf": [reference("Problem"), members]})
    }

    /// The response object of the document, for callers who present these credentials. Its examples are real responses.
    pub(super) fn response(self, credentials: &Credentials) -> Value {
        let errors = self.errors();
        let mut examples = Map::new();
        let quotas = if self.has_quota() { quota_references() } else { Map::new() };
        let mut headers = quotas.clone();
        let responses: Vec<_> =
            errors.into_iter().map(|(name, error)| (name, problem_for(error, credentials))).collect();
        let is_in_all = |name: &HeaderName| responses.iter().all(|(_, response)| response.headers().contains_key(name));
        for (name, response) in &responses {
            let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
            examples.insert(self.text(name, credentials), json!({"value": body}));
            for (name, value) in response.headers() {
                let spelled = header_name(name);
                if name == CONTENT_TYPE || name == CONTENT_LENGTH || quotas.contains_key(&spelled) {
                    continue;
                }
                let header = headers.entry(spelled).or_insert_with(|| failure_header(name, value, credentials));
                if !is_in_all(name) {
                    header["required"] = false.into();
                }
                // The example is the value of the last error, which has the most detail.
                if name != CACHE_CONTROL && name != VARY {
                    let value = value.to_str().unwrap_or_default();
                    header["example"] = value.parse::<u64>().map_or_else(|_| value.into(), Value::from);
                }
            }
        }
        json!({
            "description": self.text(self.description(), credentials),
            "headers": headers,
            "content": {"application/problem+json": {"schema": reference(&self.schema_name()), "examples": examples}},
        })
    }
}
