//! The request bodies of the operations.

use serde_json::{Map, Value, json};

use super::{
    super::routes::Operation,
    values::{WITHOUT_NUL, reference},
};
use crate::Description;

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestBody {
    Create,
    Replace,
    Patch,
    Complete,
}

impl RequestBody {
    /// The body of an operation. No wildcard arm, so that a new operation must choose.
    pub(super) fn of(operation: Operation) -> Option<Self> {
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

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "NewTask",
            Self::Replace => "TaskReplacement",
            Self::Patch => "TaskPatch",
            Self::Complete => "Completion",
        }
    }

    /// The schema of what [`Members`](super::super::input::Members) reads.
    pub(super) fn schema(self) -> Value {
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
        let (about, required, properties) = match self {
            Self::Create => (
                "A task to create.",
                json!(["title"]),
                json!({
                    "title": title,
                    "description": description("Details. `null` is treated like an absent field."),
                    "completed": {
                        "type": "boolean",
                        "default": false,
                        "description": "Whether the task is already done.",
                    },
                }),
            ),
            Self::Replace => (
                "The new content of a task.",
                json!(["title"]),
                json!({
                    "title": title,
                    "description": description("Details. If absent or `null`, the description is removed."),
                    "completed": completed("Whether the task is done. If absent, this does not change."),
                }),
            ),
            Self::Patch => (
                "Changes to some fields of a task (RFC 7396). Absent fields do not change.",
                json!([]),
                json!({
                    "title": title,
                    "description": description("Details. `null` removes the description."),
                    "completed": completed("Whether the task is done."),
                }),
            ),
            Self::Complete => (
                "Whether a task is done. An empty object or `null` toggles it.",
                json!([]),
                json!({"completed": completed("Whether the task is done. If absent, it is toggled.")}),
            ),
        };
        let types = if self == Self::Complete { json!(["object", "null"]) } else { json!("object") };
        json!({
            "type": types,
            "description": about,
            "required": required,
            "properties": properties,
            "additionalProperties": false,
        })
    }

    pub(super) fn examples(self) -> Value {
        match self {
            Self::Create => json!({
                "only a title": {"value": {"title": "Buy milk"}},
                "all fields": {"value": {"title": "Buy milk", "description": "Two bottles", "completed": false}},
            }),
            Self::Replace => json!({
                "only a title": {"summary": "Removes the description", "value": {"title": "Buy bread"}},
                "all fields": {"value": {"title": "Buy bread", "description": "Rye", "completed": true}},
            }),
            Self::Patch => json!({
                "new title": {"value": {"title": "Buy bread"}},
                "no description": {"value": {"description": null}},
                "done": {"value": {"completed": true}},
            }),
            Self::Complete => json!({
                "done": {"summary": "Safe to retry", "value": {"completed": true}},
                "open": {"summary": "Safe to retry", "value": {"completed": false}},
                "toggle": {"summary": "Same as no body", "value": {}},
            }),
        }
    }

    fn content_types(self) -> &'static [&'static str] {
        match self {
            Self::Create | Self::Replace => &["application/json"],
            Self::Patch | Self::Complete => &["application/json", "application/merge-patch+json"],
        }
    }

    /// The request body object of the document.
    pub(super) fn object(self) -> Value {
        let body = json!({"schema": reference(self.name()), "examples": self.examples()});
        let content: Map<_, _> =
            self.content_types().iter().map(|content_type| ((*content_type).to_owned(), body.clone())).collect();
        json!({"required": self != Self::Complete, "content": content})
    }
}
