//! The paths and their operations.

use http::{
    HeaderName, StatusCode,
    header::{CACHE_CONTROL, LINK, LOCATION},
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        events::{EVENT_STREAM, X_ACCEL_BUFFERING},
        ready::{Readiness, Status},
        results::TransferResult,
        routes::{Operation, RESOURCES, Resource, SHADOWED_USERS},
    },
    bodies::RequestBody,
    examples::{EXAMPLE_USER, example_id, example_task, example_time, example_token},
    failures::Failure,
    headers::{READ_TAG, TASK_TAG, header_name, no_store, quota_references, tag_headers},
    values::{CURSOR, NOT_BLANK_OR_EMPTY, WITHOUT_NUL, reference},
};
use crate::{Cursor, Limit, ListName, Sort, UserTasks};

/// The path item object of a resource, whose operations need this security, unless they are public.
pub(super) fn path_item(resource: &'static Resource, security: &Value) -> Value {
    let operations = resource.operations.iter();
    let described =
        operations.map(|(method, operation)| (method.as_str().to_lowercase(), object(resource, *operation, security)));
    let mut item: Map<_, _> = described.collect();
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
            "The caller's own ID, percent-encoded. Users with the ID `tasks` or `auth` can only use the paths without it.",
        ),
        _ => (reference("TaskId"), "The ID of the task."),
    };
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

/// The id of an operation, which differs between the paths with and without a user.
pub(super) fn operation_id(resource: &Resource, operation: Operation) -> String {
    let end = if resource.names_a_user() { "_of_user" } else { "" };
    format!("{}{end}", operation.name())
}

/// The operation object of the document.
fn object(resource: &'static Resource, operation: Operation, security: &Value) -> Value {
    let (tag, summary, description) = about(operation);
    let tag = if resource.names_a_user() { "tasks of a user" } else { tag };
    let success = success(resource, operation);
    let mut responses = Map::from_iter([(success.status.as_str().to_owned(), success.object(!is_public(operation)))]);
    if operation == Operation::ReplaceTask {
        let mut created =
            Success::ok("The task was created, for `If-None-Match: *`", reference("Task"), example_task());
        created.tag = Tag::Always(TASK_TAG);
        responses.insert("201".to_owned(), created.object(true));
    }
    let known = match operation {
        Operation::GetTask => Some(TASK_TAG),
        Operation::ListTasks | Operation::CountTasks | Operation::SummarizeTasks => Some(READ_TAG),
        _ => None,
    };
    if let Some((pattern, example)) = known {
        let mut headers = tag_headers(pattern, example, true);
        headers.extend(quota_references());
        let response = json!({"description": "What the client has is still current", "headers": headers});
        responses.insert("304".to_owned(), response);
    }
    for failure in Failure::of(resource, operation) {
        let response = json!({"$ref": format!("#/components/responses/{}", failure.name())});
        responses.insert(failure.status().as_str().to_owned(), response);
    }
    let mut object = json!({
        "operationId": operation_id(resource, operation),
        "tags": [tag],
        "summary": summary,
        "security": if is_public(operation) { json!([]) } else { security.clone() },
        "responses": responses,
    });
    if !description.is_empty() {
        object["description"] = description.into();
    }
    let mut parameters = match operation {
        Operation::ListTasks => [list_parameters(), filter_parameters()].concat(),
        Operation::CountTasks => filter_parameters(),
        Operation::ListChanges => vec![limit_parameter(), since_parameter()],
        Operation::StreamEvents => vec![since_parameter(), last_event_parameter()],
        Operation::PatchTasks | Operation::DeleteTasks => [filter_parameters(), vec![all_parameter()]].concat(),
        _ => Vec::new(),
    };
    parameters.extend(header_parameters(operation));
    if !parameters.is_empty() {
        object["parameters"] = parameters.into();
    }
    if let Some(body) = RequestBody::of(operation) {
        object["requestBody"] = body.object();
    }
    object
}

/// Whether the operation requires no token.
fn is_public(operation: Operation) -> bool {
    matches!(operation, Operation::Health | Operation::Ready | Operation::GetDocument)
}

/// The tag, the summary and the description of an operation.
fn about(operation: Operation) -> (&'static str, &'static str, &'static str) {
    match operation {
        Operation::ListTasks => (
            "tasks",
            "List tasks",
            "Returns the newest tasks first, if `sort` does not say otherwise. If there are more, `Link` points to the next \
             page. Clients that follow it miss and repeat no task that stays in its place, even if other tasks are created, \
             moved or deleted meanwhile.",
        ),
        Operation::CreateTask => (
            "tasks",
            "Create a task, or several",
            "The body is a task, or an array of 1 to 100, of which all or none are created; the response is then an array, \
             and errors name the element (`3.title`). With an `Idempotency-Key` it is safe to retry; otherwise each request \
             creates tasks.",
        ),
        Operation::PatchTasks => (
            "tasks",
            "Change many tasks",
            "Applies the merge patch to all tasks that the filters mean, in one step. Without a filter, `all=true` is \
             needed. `metadata` cannot be changed in this way.",
        ),
        Operation::DeleteTasks => (
            "tasks",
            "Delete many tasks",
            "Deletes all tasks that the filters mean, in one step. Without a filter, `all=true` is needed.",
        ),
        Operation::CountTasks => ("tasks", "Count tasks", "Counts the tasks that the filters mean."),
        Operation::SummarizeTasks => (
            "tasks",
            "Count tasks by list and tag",
            "What a sidebar needs. Tasks without a list are only in the totals.",
        ),
        Operation::ListChanges => (
            "tasks",
            "List changes",
            "What a client needs to keep a copy of all tasks. Without `since`, all tasks; with it, those that were created, \
             changed or deleted after it, each once and as it is now, in the order of the changes. `next` is the token to \
             send next, at once if `more` is true.",
        ),
        Operation::StreamEvents => (
            "tasks",
            "Follow changes",
            "A stream of server-sent events. Each event `changes` has a page of changes as its data, as `GET /tasks/changes` \
             returns it, and the token of the page as its ID. The first event comes at once: all tasks, or what has changed \
             since the token. Others follow when tasks change. The stream ends with the token of the caller, after an hour \
             without an end of the token, and when the server stops; clients then open it again. At most 16 for a user.",
        ),
        Operation::MoveTask => (
            "tasks",
            "Move a task",
            "Gives the task a position before, after, first or last in the order `sort=position`. Where there is no room \
             between its neighbours, the fewest of them get new positions too.",
        ),
        Operation::TransferTasks => (
            "tasks",
            "Move the tasks of another user to the caller",
            "For a guest who signs up. The caller has a token of the other user, too. The tasks do not change but for \
             `user_id`, and for `version` where the caller had a task with the same ID before. One atomic step, and safe to retry. A task whose ID the caller already has stays with the other \
             user.",
        ),
        Operation::GetTask => ("tasks", "Read a task", ""),
        Operation::ReplaceTask => (
            "tasks",
            "Replace a task",
            "If no value changes, `version` and `updated_at` do not change either. With `If-None-Match: *` it creates the \
             task. The fields that the server sets may be sent back; a `version` is a condition.",
        ),
        Operation::PatchTask => (
            "tasks",
            "Change some fields of a task",
            "The body is a JSON merge patch (RFC 7396). Its content type may also be `application/merge-patch+json`. The \
             fields that the server sets may be sent back; a `version` is a condition.",
        ),
        Operation::DeleteTask => ("tasks", "Delete a task", ""),
        Operation::CompleteTask => (
            "tasks",
            "Complete or reopen a task",
            "With a value, the task is set to it, which is safe to retry. Without a body, or with an empty object, the \
             task is toggled.",
        ),
        Operation::GetSession => {
            ("session", "Read the caller's identity", "Returns the user that the token describes.")
        }
        Operation::Health => ("probes", "Liveness probe", "Responds while the process runs. It checks nothing else."),
        Operation::Ready => {
            ("probes", "Readiness probe", "Checks that the store responds and that there are keys to verify tokens.")
        }
        Operation::GetDocument => ("documentation", "Read a file of the documentation", ""),
    }
}

/// The headers of a request that have a meaning of their own here.
fn header_parameters(operation: Operation) -> Vec<Value> {
    let parameter = |name: &str, description: &str, pattern: &str, example: &str| {
        json!({
            "name": name,
            "in": "header",
            "description": description,
            "schema": {"type": "string", "minLength": 1, "pattern": pattern},
            "example": example,
        })
    };
    let if_match = || {
        let description = "Entity tags of the task. If its tag is none of them, nothing is done (412); `*` means any.";
        parameter("If-Match", description, TAGS, TASK_TAG.1)
    };
    let if_none_match = |description: &str, example: &str| parameter("If-None-Match", description, TAGS, example);
    // Without a pattern, since what cannot be read is ignored here.
    let known = |example: &str| {
        json!({
            "name": "If-None-Match",
            "in": "header",
            "description": "Entity tags of what the client has. If it is still current, the response is 304.",
            "schema": {"type": "string"},
            "example": example,
        })
    };
    match operation {
        Operation::ListTasks | Operation::CountTasks | Operation::SummarizeTasks => {
            vec![known(READ_TAG.1)]
        }
        Operation::GetTask => vec![if_match(), known(TASK_TAG.1)],
        Operation::CreateTask => vec![parameter(
            "Idempotency-Key",
            "What the client calls the request, so that it can be sent again: the same key and the same body create their \
             tasks once. A repeated request gets the tasks as they are now.",
            "^([!-~]{1,255}|\"[!-~]{1,255}\")$",
            "\"0f9c1d3e-6f0a-4a53-9d0f-6a1f8f1f5a11\"",
        )],
        Operation::ReplaceTask => vec![
            if_match(),
            if_none_match(
                "`*` creates the task under the ID in the path, a UUID of version 7, if it does not exist. Entity tags: if \
                 that of the task is one of them, nothing is done (412).",
                "*",
            ),
        ],
        Operation::PatchTask | Operation::DeleteTask | Operation::CompleteTask | Operation::MoveTask => {
            vec![if_match()]
        }
        _ => Vec::new(),
    }
}

/// A list of entity tags, or `*`. A tag may contain any visible character but a quote.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*"){0,20})$"#;

fn limit_parameter() -> Value {
    json!({
        "name": "limit",
        "in": "query",
        "description": "The maximum number of tasks in the page.",
        "schema": {
            "type": "integer",
            "minimum": Limit::MIN,
            "maximum": Limit::MAX,
            "default": Limit::default().get(),
        },
    })
}

fn since_parameter() -> Value {
    json!({
        "name": "since",
        "in": "query",
        "description": "The token `next` of an earlier response, up to which the client knows all changes.",
        "schema": reference("SyncToken"),
        "example": example_token(),
    })
}

fn last_event_parameter() -> Value {
    json!({
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The ID of the last event that the client has received. It takes precedence over `since`.",
        "schema": reference("SyncToken"),
        "example": example_token(),
    })
}

pub(super) fn list_parameters() -> Vec<Value> {
    vec![
        limit_parameter(),
        json!({
            "name": "cursor",
            "in": "query",
            "description": "Where the page starts: the cursor from the `Link` of an earlier page of the same list.",
            "schema": {"type": "string", "pattern": CURSOR, "maxLength": 4096},
            "example": Cursor::after(example_id()).to_string(),
        }),
        json!({
            "name": "sort",
            "in": "query",
            "description": "The order. Tasks without the value come last. `priority` is the most urgent first, `title` \
                sorts by the bytes of the title in lower case.",
            "schema": {
                "type": "string",
                "enum": Sort::ALL.iter().filter_map(|sort| sort.name()).collect::<Vec<_>>(),
                "default": Sort::default().name(),
            },
        }),
    ]
}

/// The parameters that say which tasks are meant.
pub(super) fn filter_parameters() -> Vec<Value> {
    let parameter = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "query", "description": description, "schema": schema});
    let several = |items: Value| json!({"type": "array", "items": items, "maxItems": 20});
    vec![
        parameter(
            "completed",
            "`true` for tasks that are done, `false` for tasks that are open.",
            json!({"type": "boolean"}),
        ),
        parameter(
            "list",
            "Tasks in one of these lists. An empty value means tasks without a list.",
            several(json!({"type": "string", "maxLength": ListName::MAX_CHARS, "pattern": NOT_BLANK_OR_EMPTY})),
        ),
        parameter("tag", "Tasks with all of these tags.", several(reference("Tag"))),
        parameter("priority", "Tasks with one of these priorities.", several(reference("Priority"))),
        parameter("due_from", "Tasks that are due at this time or later.", reference("Due")),
        parameter("due_before", "Tasks that are due before this time.", reference("Due")),
        parameter("due", "`none` for tasks that are never due.", json!({"type": "string", "enum": ["none"]})),
        parameter(
            "time_zone",
            "The time zone (IANA) in which dates and local times are read, those of tasks and those of `due_from` and \
             `due_before`.",
            json!({"type": "string", "default": "UTC", "maxLength": 64, "examples": ["Europe/Berlin"]}),
        ),
        parameter(
            "updated_since",
            "Tasks that were changed at this time (RFC 3339) or later.",
            json!({"type": "string", "format": "date-time"}),
        ),
        parameter(
            "q",
            "Tasks whose title or description contains this text. Upper and lower case are not distinguished.",
            json!({"type": "string", "minLength": 1, "maxLength": 200, "pattern": WITHOUT_NUL}),
        ),
    ]
}

fn all_parameter() -> Value {
    json!({
        "name": "all",
        "in": "query",
        "description": "`true` means all tasks. It is needed where no filter is given.",
        "schema": {"type": "boolean", "enum": [true]},
    })
}

/// The response to a successful request.
struct Success {
    status: StatusCode,
    description: &'static str,
    /// The schema of the body, and an example.
    body: Option<(Value, Value)>,
    content_type: &'static str,
    headers: Vec<(HeaderName, Value)>,
    links: Value,
    tag: Tag,
}

/// Whether a response has an entity tag, with its pattern and an example.
enum Tag {
    Never,
    Sometimes((&'static str, &'static str)),
    Always((&'static str, &'static str)),
}

impl Success {
    fn ok(description: &'static str, schema: Value, example: Value) -> Self {
        Self {
            status: StatusCode::OK,
            description,
            body: Some((schema, example)),
            content_type: "application/json",
            headers: Vec::new(),
            links: Value::Null,
            tag: Tag::Never,
        }
    }

    /// The response object of the document.
    fn object(self, has_quota: bool) -> Value {
        let mut headers: Map<_, _> =
            self.headers.into_iter().map(|(name, header)| (header_name(&name), header)).collect();
        headers.extend(match self.tag {
            Tag::Never => Map::from_iter([(header_name(&CACHE_CONTROL), no_store())]),
            Tag::Sometimes((pattern, example)) => tag_headers(pattern, example, false),
            Tag::Always((pattern, example)) => tag_headers(pattern, example, true),
        });
        if has_quota {
            headers.extend(quota_references());
        }
        let mut object = json!({"description": self.description, "headers": headers});
        if let Some((schema, example)) = self.body {
            object["content"] = json!({self.content_type: {"schema": schema, "example": example}});
        }
        if !self.links.is_null() {
            object["links"] = self.links;
        }
        object
    }
}

/// The response to the creation of tasks.
fn created(resource: &'static Resource) -> Success {
    let location = json!({
        "description": "The URL of the task, relative to the path of the request. Absent if several were created.",
        "schema": {"type": "string", "format": "uri-reference", "pattern": "^tasks/[0-9a-f-]{36}$"},
        "example": format!("tasks/{}", example_id()),
    });
    let several = json!({"type": "array", "items": reference("Task"), "minItems": 1, "maxItems": UserTasks::MAX_BULK});
    let schema = json!({"oneOf": [reference("Task"), several]});
    let mut success = Success::ok("The new task, or the new tasks in the order of the request", schema, example_task());
    success.status = StatusCode::CREATED;
    success.headers.push((LOCATION, location));
    success.headers.push((
        HeaderName::from_static("idempotency-replayed"),
        json!({
            "description": "Whether an earlier request with the same `Idempotency-Key` has created the tasks.",
            "schema": {"type": "string", "const": "true"},
        }),
    ));
    success.tag = Tag::Sometimes(TASK_TAG);
    success.links = links(resource);
    success
}

fn success(resource: &'static Resource, operation: Operation) -> Success {
    let tagged = |success: Success, tag| Success { tag: Tag::Always(tag), ..success };
    let task = |description| tagged(Success::ok(description, reference("Task"), example_task()), TASK_TAG);
    match operation {
        Operation::ListTasks => {
            let page = json!({"type": "array", "items": reference("Task"), "maxItems": Limit::MAX});
            let link = json!({
                "description": "The next page, relative to this one (RFC 8288). Absent on the last page.",
                "schema": {"type": "string", "pattern": r#"^<\?cursor=[^>]*>; rel="next"$"#},
                "example": format!(r#"<?cursor={}&limit=1>; rel="next""#, Cursor::after(example_id())),
            });
            let mut success = Success::ok("A page of tasks", page, json!([example_task()]));
            success.headers.push((LINK, link));
            tagged(success, READ_TAG)
        }
        Operation::CreateTask => created(resource),
        Operation::PatchTasks => {
            Success::ok("The numbers of tasks", reference("BulkResult"), json!({"matched": 3, "changed": 2}))
        }
        Operation::DeleteTasks => {
            Success::ok("The numbers of tasks", reference("BulkResult"), json!({"matched": 3, "changed": 3}))
        }
        Operation::CountTasks => {
            tagged(Success::ok("The number of tasks", reference("Count"), json!({"count": 3})), READ_TAG)
        }
        Operation::SummarizeTasks => tagged(
            Success::ok(
                "The numbers of tasks",
                reference("Summary"),
                json!({
                    "total": 4,
                    "open": 3,
                    "lists": [{"name": "Groceries", "open": 2, "total": 3}],
                    "tags": [{"name": "home", "open": 1, "total": 1}],
                }),
            ),
            READ_TAG,
        ),
        Operation::ListChanges => Success::ok(
            "A page of changes",
            reference("Changes"),
            json!({"changes": [{"task": example_task()}, {"deleted": example_id()}], "next": example_token(), "more": false}),
        ),
        Operation::StreamEvents => {
            let token = example_token();
            let data = json!({"changes": [{"deleted": example_id()}], "next": token, "more": false});
            let example = format!("retry: 3000\nevent: changes\nid: {token}\ndata: {data}\n\n");
            let mut success = Success::ok("The events", json!({"type": "string"}), example.into());
            success.content_type = EVENT_STREAM;
            let header = json!({
                "description": "Proxies must pass each event on at once.",
                "required": true,
                "schema": {"type": "string", "const": "no"},
            });
            success.headers.push((X_ACCEL_BUFFERING, header));
            success
        }
        Operation::TransferTasks => Success::ok(
            "The numbers of tasks",
            reference("TransferResult"),
            json!(TransferResult { moved: 3, remaining: 0 }),
        ),
        Operation::GetTask => task("The task"),
        Operation::ReplaceTask | Operation::PatchTask | Operation::CompleteTask | Operation::MoveTask => {
            task("The task after the change")
        }
        Operation::DeleteTask => Success {
            status: StatusCode::NO_CONTENT,
            description: "The task was deleted",
            body: None,
            content_type: "",
            headers: Vec::new(),
            links: Value::Null,
            tag: Tag::Never,
        },
        Operation::GetSession => Success::ok(
            "The caller's identity",
            reference("Session"),
            json!({
                "user": {"id": EXAMPLE_USER, "email": "ann@example.com", "name": "Ann"},
                "expires_at": example_time(),
            }),
        ),
        Operation::Health => Success::ok("The process runs", reference("Status"), json!(Status::OK)),
        Operation::Ready => Success::ok("The server is ready", reference("Readiness"), json!(Readiness::ready(false))),
        Operation::GetDocument => Success::ok("The file", json!({}), Value::Null),
    }
}

/// Links from a created task to the operations on it: all operations of the paths that continue this one with an id.
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
