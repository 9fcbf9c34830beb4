//! Reads the input of a request: the query parameters, the id in the path and the members of the JSON object in the
//! body. All invalid fields are reported together.

use std::{borrow::Cow, str::FromStr};

use http::HeaderMap;

use super::{error::ApiError, field_errors::FieldErrors, json_body};
use crate::{
    Description, InvalidValue, NewTask, Patch, TaskId, TaskPatch, TaskQuery, TaskReplacement, Title, json::Json,
};

/// The query parameters that were not read yet. Those left at the end are unknown, and rejected.
#[derive(Default)]
pub(super) struct Query<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    pub(super) fn parse(query: Option<&'a str>) -> Self {
        Self { parameters: form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect() }
    }

    fn take<T>(&mut self, name: &str, errors: &mut FieldErrors, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let mut values = Vec::new();
        self.parameters.retain(|(key, value)| {
            let own = key == name;
            if own {
                values.push(read(value));
            }
            !own
        });
        if values.len() > 1 {
            errors.add(name, "must be given only once");
            return None;
        }
        match values.pop()? {
            Ok(value) => Some(value),
            Err(message) => {
                errors.add(name, message);
                None
            }
        }
    }

    fn parsed<T: FromStr<Err = InvalidValue>>(&mut self, name: &str, errors: &mut FieldErrors) -> Option<T> {
        self.take(name, errors, |text| text.parse().map_err(|error: InvalidValue| error.to_string()))
    }

    pub(super) fn task_query(&mut self, errors: &mut FieldErrors) -> TaskQuery {
        TaskQuery {
            limit: self.parsed("limit", errors).unwrap_or_default(),
            cursor: self.parsed("cursor", errors),
            completed: self.take("completed", errors, |text| match text {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err("must be true or false".to_owned()),
            }),
        }
    }

    /// Reads the parameter that says that a change of many tasks is about all of them.
    pub(super) fn all(&mut self, errors: &mut FieldErrors) {
        let wrong = "must be true, to delete all tasks";
        let is_true = |text: &str| (text == "true").then_some(()).ok_or_else(|| wrong.to_owned());
        if self.take("all", errors, is_true).is_none() && !errors.contains("all") {
            errors.add("all", wrong);
        }
    }

    pub(super) fn reject_rest(self, errors: &mut FieldErrors) {
        for (name, _) in self.parameters {
            errors.add(&name, "is unknown");
        }
    }
}

/// Reads the task id in a path.
pub(super) fn task_id(text: Option<&str>, errors: &mut FieldErrors) -> Option<TaskId> {
    match text.unwrap_or_default().parse() {
        Ok(id) => Some(id),
        Err(error) => {
            errors.add("id", error.to_string());
            None
        }
    }
}

/// Rejects the headers of a write that ask for something that this API does not do: a condition, a safe retry, a part
/// of a resource, another method. A client that sends one relies on it, so that the write without it could be harmful.
pub(super) fn reject_conditions(headers: &HeaderMap, errors: &mut FieldErrors) {
    for name in [
        "If-Match",
        "If-None-Match",
        "Idempotency-Key",
        "Content-Range",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        if headers.contains_key(name) {
            errors.add(name, "is not supported");
        }
    }
}

/// The members of the JSON object in a body that were not read yet. Those left at the end are unknown, and rejected.
pub(super) struct Members {
    members: Vec<(String, Json)>,
    /// The names of the members with half of a surrogate pair. Their values are not those that were sent.
    halved: Vec<String>,
}

impl Members {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let parsed = json_body::parse(body).map_err(|reason| ApiError::MalformedJson { reason })?;
        let Json::Object(members) = parsed.value else { return Err(ApiError::NotAnObject) };
        let halved = parsed.halved.into_iter().filter_map(|index| Some(members.get(index)?.0.clone())).collect();
        Ok(Self { members, halved })
    }

    /// Parses a body that may be empty or `null`, which are treated like an empty object.
    pub(super) fn parse_or_empty(body: &[u8]) -> Result<Self, ApiError> {
        match body.trim_ascii() {
            b"" | b"null" => Ok(Self { members: Vec::new(), halved: Vec::new() }),
            _ => Self::parse(body),
        }
    }

    fn take(&mut self, name: &str, errors: &mut FieldErrors) -> Option<Json> {
        let mut values = Vec::new();
        self.members.retain_mut(|(key, value)| {
            let own = key == name;
            if own {
                values.push(std::mem::replace(value, Json::Null));
            }
            !own
        });
        if values.len() > 1 {
            errors.add(name, "must be given only once");
            return None;
        }
        if self.halved.iter().any(|halved| halved == name) {
            errors.add(name, "must not contain half of a surrogate pair, such as an emoji that was cut in two");
            return None;
        }
        values.pop()
    }

    fn title(&mut self, required: bool, errors: &mut FieldErrors) -> Option<Title> {
        match self.take("title", errors) {
            Some(Json::String(text)) => Title::new(text).map_err(|error| errors.add("title", error.to_string())).ok(),
            Some(_) => {
                errors.add("title", "must be a string");
                None
            }
            None => {
                if required && !errors.contains("title") {
                    errors.add("title", "is required");
                }
                None
            }
        }
    }

    fn description(&mut self, errors: &mut FieldErrors) -> Patch<Description> {
        match self.take("description", errors) {
            None => Patch::Keep,
            Some(Json::Null) => Patch::Clear,
            Some(Json::String(text)) => match Description::new(text) {
                Ok(description) => Patch::Set(description),
                Err(error) => {
                    errors.add("description", error.to_string());
                    Patch::Keep
                }
            },
            Some(_) => {
                errors.add("description", "must be a string or null");
                Patch::Keep
            }
        }
    }

    fn completed(&mut self, errors: &mut FieldErrors) -> Option<bool> {
        match self.take("completed", errors)? {
            Json::Bool(completed) => Some(completed),
            _ => {
                errors.add("completed", "must be true or false");
                None
            }
        }
    }

    pub(super) fn new_task(&mut self, errors: &mut FieldErrors) -> Option<NewTask> {
        let (title, description, completed) =
            (self.title(true, errors), self.description(errors), self.completed(errors));
        Some(NewTask { title: title?, description: set(description), completed: completed.unwrap_or(false) })
    }

    pub(super) fn replacement(&mut self, errors: &mut FieldErrors) -> Option<TaskReplacement> {
        let (title, description, completed) =
            (self.title(true, errors), self.description(errors), self.completed(errors));
        Some(TaskReplacement { title: title?, description: set(description), completed })
    }

    pub(super) fn patch(&mut self, errors: &mut FieldErrors) -> TaskPatch {
        TaskPatch {
            title: self.title(false, errors),
            description: self.description(errors),
            completed: self.completed(errors),
        }
    }

    /// The token of the user whose tasks are moved.
    pub(super) fn other_token(&mut self, errors: &mut FieldErrors) -> Option<String> {
        match self.take("from_token", errors) {
            Some(Json::String(token)) => return Some(token),
            Some(_) => errors.add("from_token", "must be a string"),
            None if errors.contains("from_token") => {}
            None => errors.add("from_token", "is required"),
        }
        None
    }

    pub(super) fn completion(&mut self, errors: &mut FieldErrors) -> Option<bool> {
        self.completed(errors)
    }

    pub(super) fn reject_rest(self, errors: &mut FieldErrors) {
        for (name, _) in self.members {
            let message = match name.as_str() {
                "user_id" => "is set from the token",
                "id" | "created_at" | "updated_at" | "version" => "is set by the server",
                _ => "is unknown",
            };
            errors.add(&name, message);
        }
    }
}

fn set<T>(patch: Patch<T>) -> Option<T> {
    match patch {
        Patch::Set(value) => Some(value),
        Patch::Keep | Patch::Clear => None,
    }
}
