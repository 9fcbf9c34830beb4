//! The request bodies of the operations.

use serde_json::{Value, json};

use super::{
    super::routes::Operation,
    examples::example_id,
    values::{WITHOUT_NUL, reference},
};
use crate::{Description, UserTasks};

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestBody {
    Create,
    Replace,
    Patch,
    PatchMany,
    Complete,
    Move,
    Transfer,
}

/// The schema of this name, or null.
fn or_null(name: &str) -> Value {
    json!({"oneOf": [reference(name), {"type": "null"}]})
}

/// The fields that an absent member leaves alone, or that are empty in a new task.
fn planning(position: &Value) -> Value {
    json!({
        "due": or_null("Due"),
        "priority": or_null("Priority"),
        "list": or_null("ListName"),
        "tags": or_null("Tags"),
        "position": position,
        "metadata": or_null("Metadata"),
    })
}

/// The fields that only the server sets, for a client that changes what it has read and sends all of it.
fn sent_back() -> Value {
    let time = |name: &str| json!({"$ref": "#/components/schemas/Timestamp", "description": format!("`{name}` of the task. It is not compared if `version` is there.")});
    json!({
        "id": {"$ref": "#/components/schemas/TaskId", "description": "The ID in the path."},
        "user_id": {"$ref": "#/components/schemas/UserId", "description": "The caller."},
        "version": {
            "type": "integer",
            "format": "int64",
            "minimum": 1,
            "description": "The version that the client has. If the task has another one, nothing is changed (409).",
        },
        "created_at": time("created_at"),
        "updated_at": time("updated_at"),
        "completed_at": {"oneOf": [time("completed_at"), {"type": "null"}]},
    })
}

impl RequestBody {
    pub(super) const ALL: [Self; 7] =
        [Self::Create, Self::Replace, Self::Patch, Self::PatchMany, Self::Complete, Self::Move, Self::Transfer];

    /// The body of an operation. No wildcard arm, so that a new operation must choose.
    pub(super) fn of(operation: Operation) -> Option<Self> {
        match operation {
            Operation::CreateTask => Some(Self::Create),
            Operation::ReplaceTask => Some(Self::Replace),
            Operation::PatchTask => Some(Self::Patch),
            Operation::PatchTasks => Some(Self::PatchMany),
            Operation::CompleteTask => Some(Self::Complete),
            Operation::MoveTask => Some(Self::Move),
            Operation::TransferTasks => Some(Self::Transfer),
            Operation::ListTasks
            | Operation::DeleteTasks
            | Operation::CountTasks
            | Operation::SummarizeTasks
            | Operation::ListChanges
            | Operation::StreamEvents
            | Operation::GetTask
            | Operation::DeleteTask
            | Operation::GetSession
            | Operation::Health
            | Operation::Ready
            | Operation::GetDocument => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "NewTask",
            Self::Replace => "TaskReplacement",
            Self::Patch => "TaskPatch",
            Self::PatchMany => "BulkPatch",
            Self::Complete => "Completion",
            Self::Move => "Move",
            Self::Transfer => "TransferRequest",
        }
    }

    /// The description, the required members, and the schemas of all members.
    fn parts(self) -> (&'static str, Value, Value) {
        let title = reference("Title");
        let description = |text: &str| {
            json!({
                "type": ["string", "null"],
                "maxLength": Description::MAX_CHARS,
                "pattern": WITHOUT_NUL,
                "description": text,
            })
        };
        let completed = |text: &str| json!({"type": "boolean", "description": text});
        let with = |mut properties: Value, more: Value| {
            if let (Value::Object(properties), Value::Object(more)) = (&mut properties, more) {
                properties.extend(more);
            }
            properties
        };
        match self {
            Self::Create => (
                "A task to create. `null` is treated like an absent field.",
                json!(["title"]),
                with(
                    planning(&or_null("Position")),
                    json!({
                        "title": title,
                        "description": description("Details. `null` is treated like an absent field."),
                        // Without a `default`, which makes some generators require the field.
                        "completed": completed("Whether the task is already done. If absent, it is not."),
                    }),
                ),
            ),
            Self::Replace => (
                "The new content of a task. Absent fields other than the description do not change; `null` empties them.",
                json!(["title"]),
                with(
                    with(planning(&reference("Position")), sent_back()),
                    json!({
                        "title": title,
                        "description": description("Details. If absent or `null`, the description is removed."),
                        "completed": completed("Whether the task is done. If absent, this does not change."),
                    }),
                ),
            ),
            Self::Patch => (
                "Changes to some fields of a task (RFC 7396). Absent fields do not change; `null` empties them. `metadata` is \
                 merged.",
                json!([]),
                with(
                    with(planning(&reference("Position")), sent_back()),
                    json!({
                        "title": title,
                        "description": description("Details. `null` removes the description."),
                        "completed": completed("Whether the task is done."),
                    }),
                ),
            ),
            Self::PatchMany => {
                let (_, required, mut properties) = Self::Patch.parts();
                if let (Some(properties), Some(sent_back)) = (properties.as_object_mut(), sent_back().as_object()) {
                    properties.retain(|name, _| name != "metadata" && !sent_back.contains_key(name));
                }
                ("Changes to some fields of many tasks (RFC 7396); absent ones do not change.", required, properties)
            }
            Self::Complete => (
                "Whether a task is done. An empty object or `null` toggles it.",
                json!([]),
                json!({"completed": completed("Whether the task is done. If absent, it is toggled.")}),
            ),
            Self::Move => (
                "Where to move a task in the manual order: exactly one member.",
                json!([]),
                json!({
                    "before": {"$ref": "#/components/schemas/TaskId", "description": "Right before this task."},
                    "after": {"$ref": "#/components/schemas/TaskId", "description": "Right after this task."},
                    "first": {"type": "boolean", "enum": [true], "description": "Before all other tasks."},
                    "last": {"type": "boolean", "enum": [true], "description": "After all other tasks."},
                }),
            ),
            Self::Transfer => (
                "Whose tasks are moved to the caller.",
                json!(["from_token"]),
                json!({"from_token": {
                    "type": "string",
                    "minLength": 1,
                    "description": "A valid token of the other user, like the caller's own in the header `Authorization`.",
                }}),
            ),
        }
    }

    /// The schema of what [`Members`](super::super::input::Members) reads.
    pub(super) fn schema(self) -> Value {
        let (about, required, properties) = self.parts();
        let mut schema = json!({
            "type": "object",
            "description": about,
            "required": required,
            "properties": properties,
            "additionalProperties": false,
        });
        if self == Self::Move {
            schema["minProperties"] = 1.into();
            schema["maxProperties"] = 1.into();
        }
        schema
    }

    pub(super) fn examples(self) -> Value {
        match self {
            Self::Create => json!({
                "only a title": {"value": {"title": "Buy milk"}},
                "all fields": {"value": {
                    "title": "Buy milk",
                    "description": "Two bottles",
                    "completed": false,
                    "due": "2026-12-01T17:00[Europe/Berlin]",
                    "priority": "high",
                    "list": "Groceries",
                    "tags": ["home"],
                    "position": "a0",
                    "metadata": {"color": "green"},
                }},
                "several tasks": {"value": [{"title": "Buy milk"}, {"title": "Buy bread"}]},
            }),
            Self::Replace => json!({
                "only a title": {"summary": "Removes the description", "value": {"title": "Buy bread"}},
                "all fields": {"value": {"title": "Buy bread", "description": "Rye", "completed": true}},
                "what was read": {
                    "summary": "Changed only if the version is still the same",
                    "value": {"id": example_id(), "title": "Buy bread", "version": 1},
                },
            }),
            Self::Patch => json!({
                "new title": {"value": {"title": "Buy bread"}},
                "no description": {"value": {"description": null}},
                "done": {"value": {"completed": true}},
                "due, in no list": {"value": {"due": "2026-12-01", "list": null}},
            }),
            Self::PatchMany => json!({
                "rename a list": {"value": {"list": "Shopping"}},
                "done": {"value": {"completed": true}},
            }),
            Self::Move => json!({
                "before": {"value": {"before": "019aa562-d400-7000-8000-000000000001"}},
                "to the end": {"value": {"last": true}},
            }),
            Self::Complete => json!({
                "done": {"summary": "Safe to retry", "value": {"completed": true}},
                "open": {"summary": "Safe to retry", "value": {"completed": false}},
                "toggle": {"summary": "Same as no body", "value": {}},
            }),
            Self::Transfer => {
                json!({"a guest": {"value": {"from_token": "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJndWVzdCJ9.c2lnbmF0dXJl"}}})
            }
        }
    }

    /// The request body object of the document.
    pub(super) fn object(self) -> Value {
        let mut schema = reference(self.name());
        if self == Self::Complete {
            schema = json!({"anyOf": [schema, {"type": "null"}]});
        }
        if self == Self::Create {
            let several = json!({
                "type": "array",
                "items": reference(self.name()),
                "minItems": 1,
                "maxItems": UserTasks::MAX_BULK,
            });
            schema = json!({"oneOf": [schema, several]});
        }
        let body = json!({"schema": schema, "examples": self.examples()});
        // The content type of merge patches, which PATCH accepts too, is only in the description of the operation:
        // with two content types, some generators write clients that do not compile.
        json!({"required": self != Self::Complete, "content": {"application/json": body}})
    }
}
