//! The schemas of the document.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    super::{
        ready::{self, Readiness, Status},
        results::{BulkResult, TransferResult},
        session::{Session, User},
    },
    bodies::RequestBody,
    failures::Failure,
};
use crate::{Description, Task, TaskId, Title, UserId, clock::Timestamp};

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
        of::<Session<'_>>(),
        of::<User<'_>>(),
        of::<Status>(),
        of::<Readiness>(),
        of::<BulkResult>(),
        of::<TransferResult>(),
    ];
    let bodies = RequestBody::ALL.into_iter().map(|body| (body.name().to_owned(), body.schema()));
    let problems = Failure::ALL.iter().map(|failure| (failure.schema_name(), failure.schema()));
    from_types.into_iter().chain(bodies).chain([("Problem".to_owned(), problem_schema())]).chain(problems).collect()
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
        },
    })
}
