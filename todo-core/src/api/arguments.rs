use std::fmt;

use super::{error::ApiError, field_errors::FieldErrors, input::Members, operations::checked};
use crate::{NewTask, Place, TaskFilter, TaskId, TaskPatch, TaskQuery, store::Precondition};

/// Reads the arguments of a call that is not a request of the HTTP API: a tool call of an assistant, a message in a
/// queue.
///
/// The arguments are one JSON object. It has the id of the task, the query parameters and the fields of the body side by
/// side; `arguments_schema` in `todo_core::api::openapi` returns its JSON schema. The values are checked like those of a
/// request, and all invalid ones are reported together.
///
/// Each method takes the fields that it reads, and notes what is wrong with them. [`finish`](Self::finish) rejects the
/// fields that no method has read, and returns all errors.
///
/// ```
/// use todo_core::{NewTask, TaskId, TaskPatch, Title, TodoService, UserId, api::{ApiError, Arguments},
/// store::{MemoryStore, Precondition}};
///
/// fn change(json: &[u8]) -> Result<(TaskId, Precondition, TaskPatch), ApiError> {
///     let mut arguments = Arguments::parse(json)?;
///     let (id, precondition, patch) = (arguments.id(), arguments.precondition(), arguments.patch());
///     Ok((arguments.finish(id)?, precondition, patch))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = TodoService::new(MemoryStore::new());
/// let tasks = service.for_user(UserId::new("ann")?);
/// let task = tasks.create(NewTask::new(Title::new("Buy milk")?)).await?;
///
/// let json = format!(r#"{{"id": "{}", "version": 1, "title": "Buy bread"}}"#, task.id);
/// let (id, precondition, patch) = change(json.as_bytes())?;
/// assert_eq!(tasks.only_if(precondition).patch(id, patch).await?.title.as_str(), "Buy bread");
///
/// let error = change(br#"{"id": "7", "title": " ", "colour": "red"}"#).unwrap_err();
/// assert_eq!(error.detail(), "colour is unknown; id must be a UUID; title must not be blank.");
/// # Ok(())
/// # }
/// ```
pub struct Arguments {
    members: Members,
    errors: FieldErrors,
}

impl Arguments {
    /// Parses a JSON object. An empty text and `null` are treated like an empty object.
    ///
    /// # Errors
    ///
    /// [`ApiError::MalformedJson`] and [`ApiError::NotAnObject`].
    pub fn parse(json: &[u8]) -> Result<Self, ApiError> {
        Ok(Self { members: Members::parse_or_empty(json)?, errors: FieldErrors::default() })
    }

    /// Reads `id`, which is required.
    pub fn id(&mut self) -> Option<TaskId> {
        let parse = |text: &str| text.parse().map_err(|error: crate::InvalidValue| error.to_string());
        self.members.required("id", &mut self.errors, parse)
    }

    /// Reads `version`, the version of the task that the caller has, for [`UserTasks::only_if`](crate::UserTasks::only_if).
    /// Without it, there is no condition.
    pub fn precondition(&mut self) -> Precondition {
        self.members.version(&mut self.errors).map(Precondition::version).unwrap_or_default()
    }

    /// Reads `completed`.
    pub fn completed(&mut self) -> Option<bool> {
        self.members.completion(&mut self.errors)
    }

    /// Reads the fields of a new task. `title` is required.
    pub fn new_task(&mut self) -> Option<NewTask> {
        self.members.new_task(&mut self.errors)
    }

    /// Reads the fields to change. An absent field is kept, and `null` removes the value.
    pub fn patch(&mut self) -> TaskPatch {
        self.members.patch(&mut self.errors)
    }

    /// Reads exactly one of `before`, `after`, `first` and `last`.
    pub fn place(&mut self) -> Option<Place> {
        self.members.place(&mut self.errors)
    }

    /// Reads all fields that are left as the query parameters of a list: filters, `sort`, `limit` and `cursor`.
    ///
    /// A parameter that may be given several times is an array. A value may also be written as it is in a URL: `"20"`
    /// for 20. `null` is treated like an absent field.
    pub fn task_query(&mut self) -> TaskQuery {
        let mut query = self.members.take_query(&mut self.errors);
        let read = query.task_query(&mut self.errors);
        query.reject_rest(&mut self.errors);
        read
    }

    /// Reads all fields that are left as filters, in the same way.
    pub fn filter(&mut self) -> TaskFilter {
        let mut query = self.members.take_query(&mut self.errors);
        let read = query.filter(&mut self.errors);
        query.reject_rest(&mut self.errors);
        read
    }

    /// Returns a value that was read, if all fields are valid and none is left.
    ///
    /// # Errors
    ///
    /// [`ApiError::Validation`] names all invalid, missing and unknown fields. [`ApiError::Internal`]: the value is
    /// `None`, although no field is invalid; a required value of these methods never is.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, ApiError> {
        self.members.reject_rest(&mut self.errors);
        checked(self.errors, value)
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the values, which may be titles.
        f.debug_struct("Arguments").field("errors", &self.errors).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sort, Tag};

    fn parse(json: &str) -> Arguments {
        Arguments::parse(json.as_bytes()).expect(json)
    }

    fn detail<T: fmt::Debug>(arguments: Arguments, value: Option<T>) -> String {
        arguments.finish(value).expect_err("an error").detail()
    }

    #[test]
    fn a_query_is_read_from_json_values_and_from_their_texts() {
        for json in [
            r#"{"q":"milk","tag":["a","b"],"completed":false,"limit":7,"sort":"due","due":null}"#,
            r#"{"q":"milk","tag":["a","b"],"completed":"false","limit":"7","sort":["due"]}"#,
        ] {
            let mut arguments = parse(json);
            let query = arguments.task_query();
            let query = arguments.finish(Some(query)).expect(json);
            assert_eq!(query.filter.text.as_deref(), Some("milk"), "{json}");
            assert_eq!(query.filter.tags, ["a", "b"].map(|tag| Tag::new(tag).expect("a tag")), "{json}");
            assert_eq!((query.filter.completed, query.limit.get()), (Some(false), 7), "{json}");
            assert_eq!(query.sort, "due".parse::<Sort>().expect("a sort"), "{json}");
        }
    }

    #[test]
    fn all_invalid_parameters_are_named() {
        let json = r#"{"limit":1.5,"tag":{"a":1},"list":[null],"completed":[true,false],"Q":"x","sort":"size","q":"a","q":"b"}"#;
        let mut arguments = parse(json);
        let query = arguments.task_query();
        let ApiError::Validation(errors) = arguments.finish(Some(query)).expect_err("errors") else { panic!("{json}") };
        let names: Vec<_> = errors.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Q", "completed", "limit", "list", "q", "sort", "tag"]);
        let mut arguments = parse(r#"{"limit":3}"#);
        let filter = arguments.filter();
        assert_eq!(detail(arguments, Some(filter)), "limit is unknown.");
    }

    #[test]
    fn fields_that_nothing_reads_and_values_that_nothing_can_hold_are_rejected() {
        let mut arguments = parse(r#"{"title":"\ud83c","user_id":"bob","priority":"high"}"#);
        let new = arguments.new_task();
        assert!(new.is_none());
        let detail = detail(arguments, new);
        assert!(detail.contains("title must not contain half of a surrogate pair"), "{detail}");
        assert!(detail.contains("user_id is set from the token"), "{detail}");

        let mut arguments = parse(r#"{"before":"019aa3f0-5c00-7000-8000-000000000001","last":true,"version":0}"#);
        let (id, place, precondition) = (arguments.id(), arguments.place(), arguments.precondition());
        assert_eq!(precondition, Precondition::default());
        let message = arguments.finish(id.zip(place)).expect_err("errors").detail();
        assert_eq!(message, "id is required; version must be a whole number from 1 on.");
    }

    #[test]
    fn only_an_object_is_read() {
        assert!(matches!(Arguments::parse(b"[]"), Err(ApiError::NotAnObject { .. })));
        assert!(matches!(Arguments::parse(b"{"), Err(ApiError::MalformedJson { .. })));
        for empty in ["", "null", "{}"] {
            let mut arguments = parse(empty);
            let patch = arguments.patch();
            assert_eq!(arguments.finish(Some(patch)).expect(empty), TaskPatch::default());
        }
    }

    #[test]
    fn the_values_are_not_shown() {
        let mut arguments = parse(r#"{"title":"secret","id":"secret","secret":1}"#);
        arguments.id();
        assert!(!format!("{arguments:?}").contains("secret"), "{arguments:?}");
    }
}
