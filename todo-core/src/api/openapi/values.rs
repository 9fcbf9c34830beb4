//! The schemas of ids, texts and times.

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Object, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};

use super::examples::{EXAMPLE_USER, example_id, example_time};
use crate::{Description, Due, ListName, Metadata, Position, Tag, Tags, TaskId, Title, UserId, clock::Timestamp};

/// White space as `str::trim` defines it: the Unicode property `White_Space`, which differs slightly from `\s` of ECMA
/// 262.
macro_rules! white_space {
    () => {
        r"\t-\r\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    };
}

/// Without NUL, and not only white space.
pub(super) const NOT_BLANK: &str = concat!(r"^[^\x00]*[^\x00", white_space!(), r"][^\x00]*$");
pub(super) const WITHOUT_NUL: &str = r"^[^\x00]*$";
pub(super) const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
/// Base64url.
pub(super) const CURSOR: &str = "^[A-Za-z0-9_-]+$";
/// A text of a name, or nothing.
pub(super) const NOT_BLANK_OR_EMPTY: &str = concat!(r"^([^\x00]*[^\x00", white_space!(), r"][^\x00]*)?$");
/// The forms of a due time. Whether the date and the time zone exist, and whether the offset fits, is beyond a pattern.
pub(super) const DUE: &str = concat!(
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?",
    r"(Z|([+-]([01][0-9]|2[0-3]):[0-5][0-9])?(\[[A-Za-z0-9/_+-]+\])?))?$",
);
pub(super) const POSITION: &str = "^[A-Za-z][0-9A-Za-z]+$";
pub(super) const TIMESTAMP: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$";

/// A reference to a schema of the document.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// Implements the schema of a type.
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
    .description(Some("The ID of a task: a UUID, in upper or lower case. It is unique among the tasks of a user."))
    .format(Some(SchemaFormat::Custom("uuid".to_owned())))
    .pattern(Some(UUID))
    .examples([json!(example_id())])
}
schema! { UserId: text()
    .description(Some("The ID of a user, as the identity provider spells it. It is compared byte for byte."))
    .min_length(Some(1))
    .max_length(Some(UserId::MAX_CHARS))
    .pattern(Some(WITHOUT_NUL))
    .examples([json!(EXAMPLE_USER)])
}
schema! { Title: text()
    .description(Some("What to do. White space at both ends is removed before the length is checked."))
    .min_length(Some(1))
    .max_length(Some(Title::MAX_CHARS))
    .pattern(Some(NOT_BLANK))
    .examples([json!("Buy milk")])
}
schema! { Description: text()
    .description(Some("Details of a task, stored unchanged. It may be empty."))
    .max_length(Some(Description::MAX_CHARS))
    .pattern(Some(WITHOUT_NUL))
    .examples([json!("Two bottles")])
}
schema! { Timestamp: text()
    .description(Some("A time in UTC with microseconds (RFC 3339)."))
    .format(Some(SchemaFormat::Custom("date-time".to_owned())))
    .pattern(Some(TIMESTAMP))
    .examples([json!(example_time())])
}
schema! { Due: text()
    .description(Some(
        "When a task is due: a date (`2026-12-01`), a local date and time (`2026-12-01T17:00:00`), a date and time in a \
         time zone (`2026-12-01T17:00:00+01:00[Europe/Berlin]`) or a moment (`2026-12-01T16:00:00Z`). Seconds and the \
         offset of a time zone may be omitted in requests.",
    ))
    .min_length(Some(10))
    .max_length(Some(120))
    .pattern(Some(DUE))
    .examples([json!("2026-12-01"), json!("2026-12-01T17:00:00+01:00[Europe/Berlin]")])
}
schema! { ListName: text()
    .description(Some("The name of a list. White space at both ends is removed before the length is checked."))
    .min_length(Some(1))
    .max_length(Some(ListName::MAX_CHARS))
    .pattern(Some(NOT_BLANK))
    .examples([json!("Groceries")])
}
schema! { Tag: text()
    .description(Some("A tag. White space at both ends is removed before the length is checked."))
    .min_length(Some(1))
    .max_length(Some(Tag::MAX_CHARS))
    .pattern(Some(NOT_BLANK))
    .examples([json!("home")])
}
schema! { Position: text()
    .description(Some(
        "A place in the manual order: a key of the npm package `fractional-indexing`. Keys are compared byte by byte.",
    ))
    .min_length(Some(2))
    .max_length(Some(Position::MAX_CHARS))
    .pattern(Some(POSITION))
    .examples([json!("a0")])
}
schema! { Metadata: ObjectBuilder::new()
    .schema_type(Type::Object)
    .description(Some(
        "Fields of the client's or the host's own. As JSON at most 4096 bytes and 8 levels; the members are sorted by name.",
    ))
    .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(true)))
    .examples([json!({"color": "green"})])
}

impl PartialSchema for Tags {
    fn schema() -> RefOr<Schema> {
        utoipa::openapi::ArrayBuilder::new()
            .items(utoipa::openapi::Ref::from_schema_name("Tag"))
            .description(Some("Different tags, in the order in which they were given."))
            .max_items(Some(Tags::MAX))
            .unique_items(true)
            .build()
            .into()
    }
}

impl ToSchema for Tags {}
