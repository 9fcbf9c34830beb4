//! The schemas of the document.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    super::{
        ready::{self, Readiness, Status},
        results::{Count, TransferResult},
        session::{Session, User},
        sync_token,
    },
    bodies::RequestBody,
    failures::Failure,
    values::{CURSOR, reference},
};
use crate::{
    Description, Due, Limit, ListName, Metadata, Position, Priority, Tag, Tags, Task, TaskId, Title, UserId,
    clock::Timestamp, store::BulkResult,
};

pub(super) fn schemas() -> Value {
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
        of::<Due>(),
        of::<Priority>(),
        of::<ListName>(),
        of::<Tag>(),
        of::<Tags>(),
        of::<Position>(),
        of::<Metadata>(),
        of::<Count>(),
        of::<BulkResult>(),
        ("Summary".to_owned(), summary_schema()),
        ("SyncToken".to_owned(), token_schema()),
        ("Changes".to_owned(), changes_schema()),
        of::<Session<'_>>(),
        of::<User<'_>>(),
        of::<Status>(),
        of::<Readiness>(),
        of::<TransferResult>(),
    ];
    let bodies = RequestBody::ALL.into_iter().map(|body| (body.name().to_owned(), body.schema()));
    let problems = Failure::ALL.iter().map(|failure| (failure.schema_name(), failure.schema()));
    from_types.into_iter().chain(bodies).chain([("Problem".to_owned(), problem_schema())]).chain(problems).collect()
}

fn token_schema() -> Value {
    json!({
        "type": "string",
        "description": "How far a client has followed the changes of its user's tasks. Its content is not defined.",
        "pattern": CURSOR,
        "maxLength": sync_token::MAX_CHARS,
    })
}

fn changes_schema() -> Value {
    let task = json!({
        "type": "object",
        "description": "A task that was created or changed, as it is now.",
        "required": ["task"],
        "properties": {"task": reference("Task")},
    });
    let deleted = json!({
        "type": "object",
        "description": "A task that was deleted. The client need not have known it.",
        "required": ["deleted"],
        "properties": {"deleted": reference("TaskId")},
    });
    json!({
        "type": "object",
        "description": "What has changed among the caller's tasks.",
        "required": ["changes", "next", "more"],
        "properties": {
            "changes": {
                "type": "array",
                "description": "The changes, in their order.",
                "items": {"oneOf": [task, deleted]},
                "maxItems": Limit::MAX,
            },
            "next": {
                "$ref": "#/components/schemas/SyncToken",
                "description": "How far the client is that has followed these changes: the next `since`.",
            },
            "more": {"type": "boolean", "description": "Whether there are more changes now."},
        },
    })
}

fn summary_schema() -> Value {
    let number = |text: &str| json!({"type": "integer", "format": "int64", "minimum": 0, "description": text});
    let groups = |name: &str, text: &str| {
        json!({
            "type": "array",
            "description": text,
            "items": {
                "type": "object",
                "required": ["name", "open", "total"],
                "properties": {
                    "name": {"$ref": format!("#/components/schemas/{name}")},
                    "open": number("The number of open tasks."),
                    "total": number("The number of tasks."),
                },
            },
        })
    };
    json!({
        "type": "object",
        "description": "How many tasks the caller has.",
        "required": ["total", "open", "lists", "tags"],
        "properties": {
            "total": number("The number of tasks."),
            "open": number("The number of open tasks."),
            "lists": groups("ListName", "The lists, in the order of their names. Tasks without a list are not in it."),
            "tags": groups("Tag", "The tags, in the order of their names."),
        },
    })
}

/// The body that [`problem`](super::super::problem) writes.
pub(super) fn problem_schema() -> Value {
    let errors = Failure::ALL.iter().flat_map(|failure| failure.errors());
    let codes: BTreeSet<_> = errors.map(|(_, error)| error.code()).collect();
    json!({
        "type": "object",
        "description": "Why a request failed (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {
                "type": "string",
                "format": "uri-reference",
                "description": "Always `about:blank`. Use `code` to tell errors apart.",
            },
            "title": {"type": "string", "description": "The name of the status."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "A sentence for people. It does not contain the cause of a 5xx."},
            "code": {
                "type": "string",
                "description": "The kind of error, for programs. Codes do not change between versions.",
                "enum": codes,
            },
            "field_errors": {
                "type": "object",
                "description": "All invalid fields and query parameters by name, each with its messages.",
                "minProperties": 1,
                "additionalProperties": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            },
            "failed": {
                "type": "array",
                "description": "The parts of the server that are not ready.",
                "minItems": 1,
                "items": {"type": "string", "enum": ready::FAILED},
            },
            "current": {"$ref": "#/components/schemas/Task", "description": "The task as it is."},
        },
    })
}
