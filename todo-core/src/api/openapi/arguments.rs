//! The JSON schemas of arguments, made of the parameters and the bodies of the document.

use serde_json::{Map, Value, json};

use super::{
    super::routes::{Operation, RESOURCES},
    bodies::RequestBody,
    operations::{filter_parameters, list_parameters},
    schemas::schemas,
    sorted,
    values::reference,
};

/// Returns the JSON schema (2020-12) of the [`Arguments`](crate::api::Arguments) of an operation: for the tools of an
/// assistant, or a form. `None` if `Arguments` does not read those of this operation.
///
/// The schema is indented JSON without references, and the same at every call. Its members are the id of the task, the
/// query parameters and the fields of the body. Operations that change a task have `version`, which stands for the header
/// `If-Match`. The fields that only the server sets cannot be sent back.
///
/// ```
/// use todo_core::api::{Operation, openapi::arguments_schema};
///
/// let schema = arguments_schema(Operation::PatchTask).ok_or("no schema")?;
/// let schema: serde_json::Value = serde_json::from_str(&schema)?;
/// assert_eq!(schema["required"], serde_json::json!(["id"]));
/// assert_eq!(schema["properties"]["title"]["maxLength"], 200);
/// assert!(arguments_schema(Operation::Health).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn arguments_schema(operation: Operation) -> Option<String> {
    let (parameters, changes_a_task) = match operation {
        Operation::ListTasks => ([list_parameters(), filter_parameters()].concat(), false),
        Operation::CountTasks => (filter_parameters(), false),
        Operation::SummarizeTasks | Operation::CreateTask | Operation::GetTask => (Vec::new(), false),
        Operation::PatchTask | Operation::CompleteTask | Operation::MoveTask | Operation::DeleteTask => {
            (Vec::new(), true)
        }
        // A filter and a patch have fields of the same names.
        Operation::PatchTasks
        | Operation::DeleteTasks
        | Operation::ListChanges
        | Operation::StreamEvents
        | Operation::TransferTasks
        | Operation::ReplaceTask
        | Operation::GetSession
        | Operation::Health
        | Operation::Ready
        | Operation::GetDocument => return None,
    };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for parameter in parameters {
        let mut schema = parameter["schema"].clone();
        schema["description"] = parameter["description"].clone();
        properties.insert(parameter["name"].as_str()?.to_owned(), schema);
    }
    if let Some(body) = RequestBody::of(operation) {
        let body = body.schema();
        properties.extend(body["properties"].as_object()?.clone());
        required.extend(body["required"].as_array()?.iter().cloned());
    }
    for name in SET_BY_THE_SERVER {
        properties.remove(name);
    }
    let mut named = RESOURCES.iter().filter(|resource| resource.names_a_task());
    if named.any(|resource| resource.operations.iter().any(|(_, own)| *own == operation)) {
        properties.insert("id".to_owned(), reference("TaskId"));
        required.push("id".into());
    }
    if changes_a_task {
        let description =
            "The version of the task that the caller has. If the task has another one, nothing is changed.";
        properties.insert("version".to_owned(), json!({"type": "integer", "minimum": 1, "description": description}));
    }
    let schema = json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    });
    // Strings, numbers and maps with string keys always serialize.
    Some(serde_json::to_string_pretty(&sorted(inlined(schema, &schemas()))).unwrap_or_default())
}

/// What a client may send back in the body of a request. Here, it would only distract.
const SET_BY_THE_SERVER: [&str; 6] = ["id", "user_id", "version", "created_at", "updated_at", "completed_at"];

/// Replaces each reference by the schema that it names, with what is beside the reference. No schema contains itself.
fn inlined(value: Value, schemas: &Value) -> Value {
    match value {
        Value::Object(mut members) => {
            let mut whole = match members.remove("$ref") {
                Some(Value::String(name)) => {
                    let name = name.rsplit('/').next().unwrap_or_default();
                    schemas[name].as_object().cloned().unwrap_or_default()
                }
                _ => Map::new(),
            };
            whole.extend(members);
            if whole.contains_key("$ref") {
                return inlined(Value::Object(whole), schemas);
            }
            whole.into_iter().map(|(name, value)| (name, inlined(value, schemas))).collect()
        }
        Value::Array(values) => values.into_iter().map(|value| inlined(value, schemas)).collect(),
        other => other,
    }
}
