//! The schemas of ids, texts and times.

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Object, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};

use super::examples::{EXAMPLE_USER, example_id, example_time};
use crate::{Description, TaskId, Title, UserId, clock::Timestamp};

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
/// Sixteen bytes in base64url, so the last letter encodes two bits.
pub(super) const CURSOR: &str = "^[A-Za-z0-9_-]{21}[AQgw]$";
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
