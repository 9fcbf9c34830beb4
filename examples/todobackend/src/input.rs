//! Reads request bodies. All invalid members are reported together.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header::CONTENT_TYPE},
};
use serde_json::{Map, Value};
use todo_core::{
    NewTask, Patch, TaskPatch, Title,
    api::{ApiError, FieldErrors},
};

use crate::{Backend, Failure};

/// The maximum size of a body in bytes.
pub(crate) const BODY_LIMIT: usize = 64 * 1024;

/// The members of the JSON object in a body.
pub(crate) struct Members(Map<String, Value>);

impl FromRequest<Backend> for Members {
    type Rejection = Failure;

    async fn from_request(request: Request, backend: &Backend) -> Result<Self, Failure> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let reason = "Send the body as application/json.".to_owned();
            return Err(Failure(ApiError::UnsupportedMediaType { reason, compressed: false }));
        }
        let body = Bytes::from_request(request, backend).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::PayloadTooLarge { limit: Some(BODY_LIMIT) },
            _ => ApiError::IncompleteBody,
        })?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(_) => Err(Failure(ApiError::NotAnObject { or_array: false })),
            Err(error) => {
                Err(Failure(ApiError::MalformedJson { reason: format!("The body is not valid JSON: {error}.") }))
            }
        }
    }
}

impl Members {
    /// Reads a new todo and its order.
    pub(crate) fn new_todo(mut self) -> Result<(NewTask, Option<i64>), ApiError> {
        let mut errors = FieldErrors::default();
        let (title, completed, order) = (self.title(&mut errors), self.completed(&mut errors), self.order(&mut errors));
        if title.is_none() && !errors.contains("title") {
            errors.add("title", "is required");
        }
        self.reject_rest(&mut errors);
        match title {
            Some(title) if errors.is_empty() => {
                let order = if let Patch::Set(order) = order { Some(order) } else { None };
                Ok((NewTask { completed: completed.unwrap_or(false), ..NewTask::new(title) }, order))
            }
            _ => Err(ApiError::Validation(errors)),
        }
    }

    /// Reads a change of a todo and of its order.
    pub(crate) fn patch(mut self) -> Result<(TaskPatch, Patch<i64>), ApiError> {
        let mut errors = FieldErrors::default();
        let patch = TaskPatch {
            title: self.title(&mut errors),
            completed: self.completed(&mut errors),
            ..TaskPatch::default()
        };
        let order = self.order(&mut errors);
        self.reject_rest(&mut errors);
        errors.check()?;
        Ok((patch, order))
    }

    fn title(&mut self, errors: &mut FieldErrors) -> Option<Title> {
        let title = match self.0.remove("title")? {
            Value::String(title) => Title::new(title).map_err(|error| error.to_string()),
            _ => Err("must be a string".to_owned()),
        };
        title.map_err(|message| errors.add("title", message)).ok()
    }

    fn completed(&mut self, errors: &mut FieldErrors) -> Option<bool> {
        let completed = self.0.remove("completed")?;
        completed.as_bool().or_else(|| {
            errors.add("completed", "must be true or false");
            None
        })
    }

    fn order(&mut self, errors: &mut FieldErrors) -> Patch<i64> {
        match self.0.remove("order") {
            None => Patch::Keep,
            Some(Value::Null) => Patch::Clear,
            Some(order) => order.as_i64().map_or_else(
                || {
                    errors.add("order", "must be a 64-bit integer or null");
                    Patch::Keep
                },
                Patch::Set,
            ),
        }
    }

    fn reject_rest(mut self, errors: &mut FieldErrors) {
        // Clients send back what they received.
        self.0.remove("url");
        for (name, _) in self.0 {
            errors.add(&name, "is unknown");
        }
    }
}
