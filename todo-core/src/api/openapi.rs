//! The OpenAPI document (feature `openapi`): made from the route table, the types and the errors that answer requests,
//! so that it says what they do.
//!
//! [`TodoApi::respond`](super::TodoApi::respond) serves it, and a page that shows it, at the paths of
//! [`DOCS`].

use std::{collections::BTreeSet, time::Duration};

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Object, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};
use uuid::Uuid;

use super::{
    ApiError, FieldErrors, Operation, PROBES, RESOURCES, Readiness, Resource, Session, Status, User, problem, ready,
    routes::{DOCS, SHADOWED_USERS},
};
use crate::{
    Cursor, Description, Error, Limit, Task, TaskId, Title, UserId,
    auth::{AuthError, Quota, Refusal},
    clock::Timestamp,
};

/// The OpenAPI document (version 3.1) of an API that is mounted here, with the [`PROBES`] at the root: JSON, indented,
/// the same at every call.
///
/// The mount is as seen from where the document itself is: `/api/v1`, or nothing for the root. Behind a proxy that cuts
/// a prefix off nothing has to be said of that, since the document names its server relatively.
///
/// ```
/// let document = todo_core::api::openapi::document("/api/v1");
/// let document: serde_json::Value = serde_json::from_str(&document)?;
/// assert_eq!(document["paths"]["/api/v1/tasks"]["get"]["operationId"], "list_tasks");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn document(mount: &str) -> String {
    let mount = mount.trim_end_matches('/');
    let mounted = RESOURCES.iter().map(|resource| (format!("{mount}{}", resource.path), resource));
    let probes = PROBES.iter().map(|resource| (resource.path.to_owned(), resource));
    let document = Document {
        openapi: "3.1.0",
        info: sorted(json!({
            "title": "Todo API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        })),
        servers: sorted(json!([{"url": "./", "description": "Where this document is"}])),
        tags: sorted(json!([
            {"name": "tasks", "description": "The tasks of the caller"},
            {"name": "tasks of a user", "description": "The same, with the id of the user in the path. It must be the caller's own"},
            {"name": "session", "description": "Who is asking"},
            {"name": "probes", "description": "How the server is; no token is needed"},
        ])),
        paths: sorted(mounted.chain(probes).map(|(path, resource)| (path, path_item(resource))).collect()),
        components: Components {
            schemas: schemas(),
            responses: sorted(Failure::ALL.iter().map(|failure| (failure.name(), failure.response())).collect()),
            headers: sorted(quota_headers().into_iter().collect()),
            security_schemes: sorted(json!({"bearer": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "A JSON Web Token of the identity provider, such as Better Auth's `/api/auth/token`. \
                    It says whose tasks are meant.",
            }})),
        },
    };
    // Texts, numbers and maps with texts as keys: there is nothing in it that could fail.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

const DESCRIPTION: &str = "Tasks of many users, each of whom sees only their own: a task of somebody else looks exactly \
like one that does not exist.

HEAD goes where GET goes and answers without the body. OPTIONS answers 204 with `Allow`. A path that is only nearly one of \
these (a slash at the end, an empty segment) is 404 `not_found`. Fields and parameters that are not named here are refused.

Checks come in one order: path (404), method (405), token (401), the path's user (403), content type (415), size (413), JSON \
(400), fields (422), and only then the store.

Where rates are limited, every answer to a caller who is let in tells what is left, in `RateLimit` and `RateLimit-Policy`.";

/// In this order, whichever map `serde_json` is built with.
#[derive(Serialize)]
struct Document {
    openapi: &'static str,
    info: Value,
    servers: Value,
    tags: Value,
    paths: Value,
    components: Components,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Components {
    schemas: Value,
    responses: Value,
    headers: Value,
    security_schemes: Value,
}

/// Members in the order of their names, at every depth.
fn sorted(mut value: Value) -> Value {
    value.sort_all_objects();
    value
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// White space as `str::trim` sees it: the property `White_Space` of Unicode, which is not quite `\s` of ECMA 262.
macro_rules! white_space {
    () => {
        r"\t-\r\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    };
}

/// Without NUL, and not only white space.
const NOT_BLANK: &str = concat!(r"^[^\x00]*[^\x00", white_space!(), r"][^\x00]*$");
const WITHOUT_NUL: &str = r"^[^\x00]*$";
const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
/// Sixteen bytes in base64url, so the last letter holds two bits.
const CURSOR: &str = "^[A-Za-z0-9_-]{21}[AQgw]$";
const TIMESTAMP: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$";

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// How a type looks over the wire.
macro_rules! schema {
    ($type:ty: $schema:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let schema: Object = $schema.build();
                schema.into()
            }
        }

        impl ToSchema for $type {}
    };
}

schema! { TaskId: text()
    .description(Some("The name of a task among the tasks of its owner: a UUID, in either case."))
    .format(Some(SchemaFormat::Custom("uuid".to_owned())))
    .pattern(Some(UUID))
    .examples([json!(example_id())])
}
schema! { UserId: text()
    .description(Some("A user, as the identity provider names them. It is compared byte for byte."))
    .min_length(Some(1))
    .max_length(Some(UserId::MAX_CHARS))
    .pattern(Some(WITHOUT_NUL))
    .examples([json!(EXAMPLE_USER)])
}
schema! { Title: text()
    .description(Some("What is to be done. White space at both ends is cut off before it is measured."))
    .min_length(Some(1))
    .max_length(Some(Title::MAX_CHARS))
    .pattern(Some(NOT_BLANK))
    .examples([json!("Buy milk")])
}
schema! { Description: text()
    .description(Some("More about a task, kept as it is. The empty text is a description too."))
    .max_length(Some(Description::MAX_CHARS))
    .pattern(Some(WITHOUT_NUL))
    .examples([json!("Two bottles")])
}
schema! { Timestamp: text()
    .description(Some("A moment in UTC, with microseconds (RFC 3339)."))
    .format(Some(SchemaFormat::Custom("date-time".to_owned())))
    .pattern(Some(TIMESTAMP))
    .examples([json!(example_time())])
}

const EXAMPLE_USER: &str = "Zk3vQ8sXw1LrTn5YbH7cJd2MgA9fPe4U";

fn example_id() -> TaskId {
    Uuid::from_u128(0x019a_a562_d400_7000_8000_0000_0000_0001).into()
}

fn example_time() -> Timestamp {
    Timestamp::from_unix_seconds(1_763_712_000)
}

fn example_quota() -> Quota {
    Quota::new(100, Duration::from_secs(10)).remaining(99, Duration::from_secs(1))
}

fn example_task() -> Value {
    json!({
        "id": example_id(),
        "user_id": EXAMPLE_USER,
        "title": "Buy milk",
        "description": "Two bottles",
        "completed": false,
        "created_at": example_time(),
        "updated_at": example_time(),
        "version": 1,
    })
}

fn schemas() -> Value {
    fn of<T: ToSchema>() -> (String, Value) {
        (T::name().into_owned(), json!(T::schema()))
    }
    let from_types = [
        of::<Task>(),
        of::<TaskId>(),
        of::<UserId>(),
        of::<Title>(),
        of::<Description>(),
        of::<Timestamp>(),
        of::<Session<'_>>(),
        of::<User<'_>>(),
        of::<Status>(),
        of::<Readiness>(),
    ];
    let bodies = [RequestBody::Create, RequestBody::Replace, RequestBody::Patch, RequestBody::Complete];
    let bodies = bodies.into_iter().map(|body| (body.name().to_owned(), body.schema()));
    sorted(from_types.into_iter().chain(bodies).chain([("Problem".to_owned(), problem_schema())]).collect())
}

/// As [`super::problem`] writes it.
fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference", "description": "Always `about:blank`: the code says more."},
            "title": {"type": "string", "description": "The name of the status."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "A sentence for a person. Of a 5xx it says nothing of the cause."},
            "code": {
                "type": "string",
                "description": "What kind of error it is, for programs. It does not change between versions.",
                "enum": codes(&Failure::ALL.iter().flat_map(|failure| failure.errors()).collect::<Vec<_>>()),
            },
            "field_errors": {
                "type": "object",
                "description": "Every wrong field or parameter by its name, and what is wrong with it.",
                "minProperties": 1,
                "additionalProperties": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            },
            "failed": {
                "type": "array",
                "description": "Which parts of the server are not ready.",
                "minItems": 1,
                "items": {"type": "string", "enum": ready::PARTS},
            },
        },
    })
}

fn codes<'a>(errors: impl IntoIterator<Item = &'a (&'static str, ApiError)>) -> BTreeSet<&'static str> {
    errors.into_iter().map(|(_, error)| error.code()).collect()
}

/// What may be sent to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestBody {
    Create,
    Replace,
    Patch,
    Complete,
}

impl RequestBody {
    /// A new operation must choose.
    fn of(operation: Operation) -> Option<Self> {
        match operation {
            Operation::CreateTask => Some(Self::Create),
            Operation::ReplaceTask => Some(Self::Replace),
            Operation::PatchTask => Some(Self::Patch),
            Operation::CompleteTask => Some(Self::Complete),
            Operation::ListTasks
            | Operation::GetTask
            | Operation::DeleteTask
            | Operation::GetSession
            | Operation::Health
            | Operation::Ready
            | Operation::GetDocument => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Create => "NewTask",
            Self::Replace => "TaskReplacement",
            Self::Patch => "TaskPatch",
            Self::Complete => "Completion",
        }
    }

    /// As [`super::input::Members`] reads it.
    fn schema(self) -> Value {
        let (title, completed) = (reference("Title"), "Whether the task is done");
        let description = json!({
            "type": ["string", "null"],
            "maxLength": Description::MAX_CHARS,
            "pattern": WITHOUT_NUL,
        });
        let text = |schema: &Value, text: &str| {
            let mut schema = schema.clone();
            schema["description"] = text.into();
            schema
        };
        let (about, required, properties) = match self {
            Self::Create => (
                "A task that is to be created.",
                json!(["title"]),
                json!({
                    "title": title,
                    "description": text(&description, "More about it; null is as good as nothing."),
                    "completed": {"type": "boolean", "default": false, "description": format!("{completed} already.")},
                }),
            ),
            Self::Replace => (
                "What is put in the place of a task's content.",
                json!(["title"]),
                json!({
                    "title": title,
                    "description": text(&description, "Absent or null, it is removed."),
                    "completed": {"type": "boolean", "description": format!("{completed}. Absent, it stays as it is.")},
                }),
            ),
            Self::Patch => (
                "A change to parts of a task (RFC 7396). What is absent stays as it is.",
                json!([]),
                json!({
                    "title": title,
                    "description": text(&description, "Null removes it."),
                    "completed": {"type": "boolean", "description": format!("{completed}.")},
                }),
            ),
            Self::Complete => (
                "Whether a task is to be done; an empty object toggles.",
                json!([]),
                json!({"completed": {"type": "boolean", "description": format!("{completed} from now on. Absent, it is toggled.")}}),
            ),
        };
        json!({
            "type": "object",
            "description": about,
            "required": required,
            "properties": properties,
            "additionalProperties": false,
        })
    }

    fn examples(self) -> Value {
        match self {
            Self::Create => json!({
                "a title": {"value": {"title": "Buy milk"}},
                "everything": {"value": {"title": "Buy milk", "description": "Two bottles", "completed": false}},
            }),
            Self::Replace => json!({
                "a title": {"summary": "Removes the description", "value": {"title": "Buy bread"}},
                "everything": {"value": {"title": "Buy bread", "description": "Rye", "completed": true}},
            }),
            Self::Patch => json!({
                "another title": {"value": {"title": "Buy bread"}},
                "no description": {"value": {"description": null}},
                "done": {"value": {"completed": true}},
            }),
            Self::Complete => json!({
                "done": {"summary": "Safe to retry", "value": {"completed": true}},
                "open": {"summary": "Safe to retry", "value": {"completed": false}},
                "toggled": {"summary": "As without a body", "value": {}},
            }),
        }
    }

    fn content_types(self) -> &'static [&'static str] {
        match self {
            Self::Create | Self::Replace => &["application/json"],
            Self::Patch | Self::Complete => &["application/json", "application/merge-patch+json"],
        }
    }

    fn written(self) -> Value {
        let body = json!({"schema": reference(self.name()), "examples": self.examples()});
        let content: Map<_, _> =
            self.content_types().iter().map(|content_type| ((*content_type).to_owned(), body.clone())).collect();
        json!({"required": self != Self::Complete, "content": content})
    }
}

fn path_item(resource: &'static Resource) -> Value {
    let operations = resource.operations.iter();
    let mut item: Map<_, _> =
        operations.map(|(method, operation)| (method.as_str().to_lowercase(), written(resource, *operation))).collect();
    let parameters: Vec<_> = resource.parameter_names().map(path_parameter).collect();
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), parameters.into());
    }
    item.into()
}

fn path_parameter(name: &str) -> Value {
    let (schema, description) = match name {
        "user_id" => (
            json!({"$ref": "#/components/schemas/UserId", "not": {"enum": SHADOWED_USERS}}),
            "The caller's own id, percent-encoded. The users `tasks` and `auth` have the paths without it only.",
        ),
        _ => (reference("TaskId"), "The task's id."),
    };
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

/// The name of an operation, of which there are two where a path can name the user.
fn operation_id(resource: &Resource, operation: Operation) -> String {
    let end = if resource.names_a_user() { "_of_user" } else { "" };
    format!("{}{end}", operation.name())
}

fn written(resource: &'static Resource, operation: Operation) -> Value {
    let (tag, summary, description) = about(operation);
    let tag = if resource.names_a_user() { "tasks of a user" } else { tag };
    let success = success(resource, operation);
    let mut responses = Map::from_iter([(success.status.as_str().to_owned(), success.written(!is_public(operation)))]);
    for failure in Failure::of(resource, operation) {
        let response = json!({"$ref": format!("#/components/responses/{}", failure.name())});
        responses.insert(failure.status().as_str().to_owned(), response);
    }
    let mut written = json!({
        "operationId": operation_id(resource, operation),
        "tags": [tag],
        "summary": summary,
        "security": if is_public(operation) { json!([]) } else { json!([{"bearer": []}]) },
        "responses": responses,
    });
    if !description.is_empty() {
        written["description"] = description.into();
    }
    if operation == Operation::ListTasks {
        written["parameters"] = list_parameters();
    }
    if let Some(body) = RequestBody::of(operation) {
        written["requestBody"] = body.written();
    }
    written
}

/// Whether it answers to everybody.
fn is_public(operation: Operation) -> bool {
    matches!(operation, Operation::Health | Operation::Ready | Operation::GetDocument)
}

/// Its tag, a few words, and some more.
fn about(operation: Operation) -> (&'static str, &'static str, &'static str) {
    match operation {
        Operation::ListTasks => (
            "tasks",
            "List tasks",
            "Newest first, which is the order of ids. Where there is more, `Link` says where: follow it, and pages under \
             concurrent changes lose and repeat nothing.",
        ),
        Operation::CreateTask => ("tasks", "Create a task", "Not safe to retry: each call creates one."),
        Operation::GetTask => ("tasks", "Read a task", ""),
        Operation::ReplaceTask => ("tasks", "Replace a task", "What changes nothing is no change: `version` stays."),
        Operation::PatchTask => ("tasks", "Change parts of a task", "A JSON merge patch (RFC 7396)."),
        Operation::DeleteTask => ("tasks", "Delete a task", ""),
        Operation::CompleteTask => (
            "tasks",
            "Complete a task, or reopen it",
            "With a value it is set, which is safe to retry. Without a body, or with an empty object, it is toggled.",
        ),
        Operation::GetSession => ("session", "Say who is asking", "What the token says of its user."),
        Operation::Health => ("probes", "Say that the process is alive", "It asks nobody."),
        Operation::Ready => (
            "probes",
            "Say whether requests can be answered",
            "It asks the store, and whether there are keys to check tokens by.",
        ),
        Operation::GetDocument => ("documentation", "A file of the documentation", ""),
    }
}

fn list_parameters() -> Value {
    json!([
        {
            "name": "limit",
            "in": "query",
            "description": "How many tasks a page has at most.",
            "schema": {
                "type": "integer",
                "minimum": Limit::MIN,
                "maximum": Limit::MAX,
                "default": Limit::default().get(),
            },
        },
        {
            "name": "cursor",
            "in": "query",
            "description": "Where the page begins: a text from the `Link` of an earlier page.",
            "schema": {"type": "string", "pattern": CURSOR, "minLength": 22, "maxLength": 22},
            "example": Cursor::after(example_id()).to_string(),
        },
        {
            "name": "completed",
            "in": "query",
            "description": "Only tasks that are done, or only those that are not.",
            "schema": {"type": "boolean"},
        },
    ])
}

struct Success {
    status: StatusCode,
    description: &'static str,
    /// The schema of the body, and an example.
    body: Option<(Value, Value)>,
    headers: Vec<(HeaderName, Value)>,
    links: Value,
}

impl Success {
    fn ok(description: &'static str, schema: Value, example: Value) -> Self {
        Self {
            status: StatusCode::OK,
            description,
            body: Some((schema, example)),
            headers: Vec::new(),
            links: Value::Null,
        }
    }

    fn written(self, tells_quota: bool) -> Value {
        let headers = self.headers.into_iter().chain([(CACHE_CONTROL, no_store())]);
        let mut headers: Map<_, _> = headers.map(|(name, header)| (as_written(&name), header)).collect();
        if tells_quota {
            headers.extend(quota_references());
        }
        let mut written = json!({"description": self.description, "headers": headers});
        if let Some((schema, example)) = self.body {
            written["content"] = json!({"application/json": {"schema": schema, "example": example}});
        }
        if !self.links.is_null() {
            written["links"] = self.links;
        }
        written
    }
}

fn success(resource: &'static Resource, operation: Operation) -> Success {
    let task = |description| Success::ok(description, reference("Task"), example_task());
    match operation {
        Operation::ListTasks => {
            let page = json!({"type": "array", "items": reference("Task"), "maxItems": Limit::MAX});
            let link = json!({
                "description": "Where the next page is, relative to this one (RFC 8288). Absent on the last page.",
                "schema": {"type": "string", "pattern": r#"^<\?cursor=[^>]*>; rel="next"$"#},
                "example": format!(r#"<?cursor={}&limit=1>; rel="next""#, Cursor::after(example_id())),
            });
            let mut success = Success::ok("A page of tasks", page, json!([example_task()]));
            success.headers.push((LINK, link));
            success
        }
        Operation::CreateTask => {
            let location = json!({
                "description": "Where the task is, relative to the path of the request.",
                "required": true,
                "schema": {"type": "string", "format": "uri-reference", "pattern": "^tasks/[0-9a-f-]{36}$"},
                "example": format!("tasks/{}", example_id()),
            });
            let mut success = task("The new task");
            success.status = StatusCode::CREATED;
            success.headers.push((LOCATION, location));
            success.links = links(resource);
            success
        }
        Operation::GetTask => task("The task"),
        Operation::ReplaceTask | Operation::PatchTask | Operation::CompleteTask => task("The task as it is now"),
        Operation::DeleteTask => Success {
            status: StatusCode::NO_CONTENT,
            description: "The task is deleted",
            body: None,
            headers: Vec::new(),
            links: Value::Null,
        },
        Operation::GetSession => Success::ok(
            "Who is asking",
            reference("Session"),
            json!({
                "user": {"id": EXAMPLE_USER, "email": "ann@example.com", "name": "Ann"},
                "expires_at": example_time(),
            }),
        ),
        Operation::Health => Success::ok("It is alive", reference("Status"), json!(Status { status: "ok" })),
        Operation::Ready => Success::ok("It is ready", reference("Readiness"), json!(Readiness::READY)),
        Operation::GetDocument => Success::ok("The file", json!({}), Value::Null),
    }
}

/// What can be done with a task that was created here: everything at the paths that continue this one.
fn links(created_at: &Resource) -> Value {
    let resources = RESOURCES
        .iter()
        .filter(|resource| resource.path.strip_prefix(created_at.path).is_some_and(|rest| rest.starts_with("/{id}")));
    let mut parameters = json!({"id": "$response.body#/id"});
    if created_at.names_a_user() {
        parameters["user_id"] = "$request.path.user_id".into();
    }
    let operations =
        resources.flat_map(|resource| resource.operations.iter().map(move |(_, operation)| (resource, *operation)));
    let links = operations.map(|(resource, operation)| {
        let link = json!({"operationId": operation_id(resource, operation), "parameters": parameters});
        (operation.name().to_owned(), link)
    });
    Value::Object(links.collect())
}

/// `www-authenticate` as people write it: `WWW-Authenticate`.
fn as_written(name: &HeaderName) -> String {
    for special in ["WWW-Authenticate", "RateLimit", "RateLimit-Policy"] {
        if name == special {
            return special.to_owned();
        }
    }
    let words = name.as_str().split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    });
    words.collect::<Vec<_>>().join("-")
}

/// The headers that tell a caller of the quota, where there is one.
fn quota_headers() -> Map<String, Value> {
    let mut headers = HeaderMap::new();
    example_quota().tell(&mut headers);
    let described = headers.iter().map(|(name, value)| {
        let (description, pattern) = if name == "ratelimit" {
            (
                "How many requests are left (`r`), and after how many seconds all of them are there again (`t`).",
                "r=[0-9]+;t",
            )
        } else {
            ("How many requests a caller may make (`q`) in how many seconds (`w`).", "q=[0-9]+;w")
        };
        let header = json!({
            "description": format!("{description} Absent where rates are not limited."),
            "schema": {"type": "string", "pattern": format!("^\"user\";{pattern}=[0-9]+$")},
            "example": value.to_str().unwrap_or_default(),
        });
        (as_written(name), header)
    });
    described.collect()
}

fn quota_references() -> Map<String, Value> {
    let names = quota_headers().into_iter().map(|(name, _)| name);
    names.map(|name| (name.clone(), json!({"$ref": format!("#/components/headers/{name}")}))).collect()
}

fn no_store() -> Value {
    json!({
        "description": "What one user sees is stored for no other.",
        "required": true,
        "schema": {"type": "string", "const": "no-store"},
    })
}

/// What an operation can answer in the place of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    MalformedJson,
    Unauthorized,
    Forbidden,
    TaskNotFound,
    NotFound,
    NothingFound,
    MethodNotAllowed,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
    RateLimited,
    Internal,
    Unavailable,
    NotReady,
}

impl Failure {
    const ALL: &[Self] = &[
        Self::MalformedJson,
        Self::Unauthorized,
        Self::Forbidden,
        Self::TaskNotFound,
        Self::NotFound,
        Self::NothingFound,
        Self::MethodNotAllowed,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::ValidationFailed,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
        Self::NotReady,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::MalformedJson => "MalformedJson",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::TaskNotFound => "TaskNotFound",
            Self::NotFound => "NotFound",
            Self::NothingFound => "TaskOrPathNotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::PayloadTooLarge => "PayloadTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::ValidationFailed => "ValidationFailed",
            Self::RateLimited => "RateLimited",
            Self::Internal => "Internal",
            Self::Unavailable => "Unavailable",
            Self::NotReady => "NotReady",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::MalformedJson => "The body is not JSON.",
            Self::Unauthorized => "There is no token, or more than one, or it is not good.",
            Self::Forbidden => {
                "The path names another user than the token; or, where tokens are also taken from a cookie, a write came \
                 from a page of another site."
            }
            Self::TaskNotFound => "The caller has no such task. Whether another user has one is not said.",
            Self::NotFound => "There is nothing at this path: the users `tasks` and `auth` have no paths of this form.",
            Self::NothingFound => {
                "The caller has no such task, and whether another user has one is not said; or there is nothing at this \
                 path, since the users `tasks` and `auth` have none of this form."
            }
            Self::MethodNotAllowed => "The path does not have the method.",
            Self::PayloadTooLarge => "The body is over the limit, which is 64 KiB if nothing else is configured.",
            Self::UnsupportedMediaType => "The body is not declared to be JSON in UTF-8, or it is compressed.",
            Self::ValidationFailed => {
                "A field or a parameter is wrong, missing or unknown. Every wrong one is named at once."
            }
            Self::RateLimited => "The caller asks too often.",
            Self::Internal => "Something went wrong on the server's side.",
            Self::Unavailable => {
                "The store or the keys of the tokens cannot be reached, or did not answer in time. After `timeout` it is \
                 not known whether a write has happened."
            }
            Self::NotReady => "The parts that are named in `failed` do not do their work, or did not answer in time.",
        }
    }

    /// The errors that it is, each with what has happened.
    fn errors(self) -> Vec<(&'static str, ApiError)> {
        let after = Duration::from_secs;
        match self {
            Self::MalformedJson => vec![("not JSON", ApiError::MalformedJson)],
            Self::Unauthorized => vec![
                ("no token", AuthError::Missing.into()),
                ("an old token", AuthError::Expired.into()),
                ("a bad token", AuthError::Invalid(Refusal::Signature).into()),
                ("a token that was taken back", AuthError::Revoked.into()),
            ],
            Self::Forbidden => {
                vec![("another user", ApiError::Forbidden), ("another site", AuthError::ForeignOrigin.into())]
            }
            Self::TaskNotFound => vec![("no such task", Error::TaskNotFound.into())],
            Self::NotFound => vec![("no such path", ApiError::NotFound)],
            Self::NothingFound => {
                [Self::TaskNotFound.errors(), Self::NotFound.errors()].into_iter().flatten().collect()
            }
            Self::MethodNotAllowed => {
                vec![("no such method", ApiError::MethodNotAllowed { allow: RESOURCES[0].allow })]
            }
            Self::PayloadTooLarge => vec![("over the limit", ApiError::PayloadTooLarge { limit: Some(64 * 1024) })],
            Self::UnsupportedMediaType => vec![
                ("not JSON", ApiError::UnsupportedMediaType { merge_patch: false }),
                ("neither JSON nor a merge patch", ApiError::UnsupportedMediaType { merge_patch: true }),
            ],
            Self::ValidationFailed => {
                let mut errors = FieldErrors::default();
                errors.add("title", "must not be blank");
                errors.add("user_id", "comes from the token");
                vec![("wrong fields", ApiError::Validation(errors)), ("no fields", ApiError::NotAnObject)]
            }
            Self::RateLimited => vec![
                ("too many requests", AuthError::RateLimited { retry_after: after(7) }.into()),
                (
                    "a quota is used up",
                    AuthError::OverQuota(example_quota().remaining(0, after(10)).refused(after(1))).into(),
                ),
            ],
            Self::Internal => vec![("a fault", ApiError::Internal("an example"))],
            Self::Unavailable => vec![
                ("out of reach", AuthError::Unavailable { retry_after: after(5), source: "an example".into() }.into()),
                ("too slow", ApiError::Timeout { limit: after(10) }),
            ],
            Self::NotReady => {
                let failed = |parts: &[&'static str]| ApiError::NotReady { failed: parts.to_vec() };
                vec![("one part", failed(&ready::PARTS[..1])), ("all parts", failed(&ready::PARTS))]
            }
        }
    }

    fn status(self) -> StatusCode {
        self.errors().first().map(|(_, error)| error.status()).unwrap_or_default()
    }

    /// Whether the caller can be known before it happens, so that what is left of a quota is told.
    fn tells_quota(self) -> bool {
        match self {
            Self::Forbidden
            | Self::TaskNotFound
            | Self::NothingFound
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::MalformedJson
            | Self::ValidationFailed
            | Self::RateLimited
            | Self::Internal
            | Self::Unavailable => true,
            Self::Unauthorized | Self::NotFound | Self::MethodNotAllowed | Self::NotReady => false,
        }
    }

    /// What this operation can answer. A new operation must choose.
    fn of(resource: &Resource, operation: Operation) -> Vec<Self> {
        let mut failures = vec![Self::MethodNotAllowed];
        let (writes, uses_store) = match operation {
            Operation::ListTasks | Operation::GetTask => (false, true),
            Operation::CreateTask
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
        if uses_store {
            failures.push(Self::Internal);
        }
        if writes || resource.names_a_user() {
            failures.push(Self::Forbidden);
        }
        failures.extend(match (resource.names_a_user(), resource.names_a_task()) {
            (false, false) => None,
            (false, true) => Some(Self::TaskNotFound),
            (true, false) => Some(Self::NotFound),
            (true, true) => Some(Self::NothingFound),
        });
        if RequestBody::of(operation).is_some() {
            failures.extend([Self::MalformedJson, Self::UnsupportedMediaType, Self::PayloadTooLarge]);
        }
        failures
    }

    /// Schema and examples: the answers themselves.
    fn response(self) -> Value {
        let errors = self.errors();
        let codes = codes(&errors);
        let mut examples = Map::new();
        let quotas = if self.tells_quota() { quota_references() } else { Map::new() };
        let mut headers = quotas.clone();
        for (summary, error) in errors {
            let response = problem(error);
            let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
            examples.insert(summary.to_owned(), json!({"value": body}));
            for (name, value) in response.headers() {
                let written = as_written(name);
                if name == CONTENT_TYPE || name == CONTENT_LENGTH || quotas.contains_key(&written) {
                    continue;
                }
                let header = headers.entry(written).or_insert_with(|| failure_header(name));
                // The more telling one is the last.
                if name != CACHE_CONTROL {
                    let value = value.to_str().unwrap_or_default();
                    header["example"] = value.parse::<u64>().map_or_else(|_| value.into(), Value::from);
                }
            }
        }
        let mut members = json!({
            "properties": {
                "status": {"type": "integer", "const": self.status().as_u16()},
                "code": {"type": "string", "enum": codes},
            },
        });
        if self == Self::NotReady {
            members["required"] = json!(["failed"]);
        }
        let schema = json!({"allOf": [reference("Problem"), members]});
        json!({
            "description": self.description(),
            "headers": headers,
            "content": {"application/problem+json": {"schema": schema, "examples": examples}},
        })
    }
}

fn failure_header(name: &HeaderName) -> Value {
    let (description, schema) = if name == WWW_AUTHENTICATE {
        (
            "What is wrong with the token (RFC 6750).",
            json!({"type": "string", "pattern": "^Bearer( error=\"invalid_token\", error_description=\"[^\"]+\")?$"}),
        )
    } else if name == RETRY_AFTER {
        ("After how many seconds to try again.", json!({"type": "integer", "minimum": 1}))
    } else if name == ALLOW {
        let known: BTreeSet<_> = RESOURCES.iter().chain(PROBES).chain(DOCS).map(|resource| resource.allow).collect();
        ("The methods that the path has.", json!({"type": "string", "enum": known}))
    } else {
        return no_store();
    };
    json!({"description": description, "required": true, "schema": schema})
}

#[cfg(test)]
mod tests;
