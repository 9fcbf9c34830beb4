//! Reads what a request brings: its content type, its body within a limit, the members of a JSON object, the
//! parameters of a query. Every wrong field is named at once.

use std::{future::poll_fn, pin::pin, str::FromStr};

use bytes::{Buf, BufMut};
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::LengthLimitError;

use super::{ApiError, FieldErrors};
use crate::{
    Description, InvalidValue, NewTask, Patch, TaskId, TaskPatch, TaskQuery, TaskReplacement, Title, json::Json,
};

/// What may stand in for any error of a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reads a body of at most `limit` bytes, while it arrives: 415 comes before 413, and an empty body is judged by
/// neither.
pub(super) async fn read_body<B>(
    headers: &HeaderMap,
    body: B,
    limit: usize,
    merge_patch: bool,
) -> Result<Vec<u8>, ApiError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let unsupported = || ApiError::UnsupportedMediaType { merge_patch };
    let supported = is_json(headers, merge_patch);
    // Not every framework's body knows its own size.
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let size = body.size_hint().lower().max(declared.unwrap_or(0));
    if size > 0 && !supported {
        return Err(unsupported());
    }
    if size > limit as u64 {
        return Err(ApiError::PayloadTooLarge { limit: Some(limit) });
    }
    let mut body = pin!(body);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|error| {
            if is_length_limit(&*error.into()) {
                ApiError::PayloadTooLarge { limit: None }
            } else {
                ApiError::MalformedJson
            }
        })?;
        // What is no data is trailers, which say nothing to us.
        let Ok(data) = frame.into_data() else { continue };
        if data.has_remaining() && !supported {
            return Err(unsupported());
        }
        if data.remaining() > limit - bytes.len() {
            return Err(ApiError::PayloadTooLarge { limit: Some(limit) });
        }
        bytes.put(data);
    }
    Ok(bytes)
}

/// Whether reading a body failed at a length limit of the host, which is lower than ours. Frameworks wrap the error of
/// the limit in errors of their own.
fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return true;
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            // The `source` of an `io::Error` is the source of the error in it, not that error itself.
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// Whether the body is declared to be JSON, in UTF-8 (RFC 8259, section 8.1), and not compressed.
fn is_json(headers: &HeaderMap, merge_patch: bool) -> bool {
    let encoded =
        headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None, false) = (types.next(), types.next(), encoded) else {
        return false;
    };
    let Ok(content_type) = content_type.to_str() else {
        return false;
    };
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let known = essence.eq_ignore_ascii_case("application/json")
        || (merge_patch && essence.eq_ignore_ascii_case("application/merge-patch+json"));
    known
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// The parameters of a query. Those that nobody takes are unknown.
pub(super) struct Query<'a> {
    parameters: Vec<(std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>,
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

    pub(super) fn refuse_rest(self, errors: &mut FieldErrors) {
        for (name, _) in self.parameters {
            errors.add(&name, "is unknown");
        }
    }
}

/// The id in a path.
pub(super) fn task_id(text: Option<&str>, errors: &mut FieldErrors) -> Option<TaskId> {
    match text.unwrap_or_default().parse() {
        Ok(id) => Some(id),
        Err(error) => {
            errors.add("id", error.to_string());
            None
        }
    }
}

/// The members of the JSON object in a body. Those that nobody takes are unknown.
pub(super) struct Members(Vec<(String, Json)>);

impl Members {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match Json::parse(body) {
            Ok(Json::Object(members)) => Ok(Self(members)),
            Ok(_) => Err(ApiError::NotAnObject),
            Err(_) => Err(ApiError::MalformedJson),
        }
    }

    /// An empty body is an empty object where every member may be absent.
    pub(super) fn parse_or_empty(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() { Ok(Self(Vec::new())) } else { Self::parse(body) }
    }

    fn take(&mut self, name: &str, errors: &mut FieldErrors) -> Option<Json> {
        let mut values = Vec::new();
        self.0.retain_mut(|(key, value)| {
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

    pub(super) fn completion(&mut self, errors: &mut FieldErrors) -> Option<bool> {
        self.completed(errors)
    }

    pub(super) fn refuse_rest(self, errors: &mut FieldErrors) {
        for (name, _) in self.0 {
            let message = match name.as_str() {
                "user_id" => "comes from the token",
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

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full, Limited};

    use super::*;

    #[derive(Debug)]
    struct Wrapped(BoxError);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&*self.0)
        }
    }

    #[tokio::test]
    async fn a_length_limit_error_is_found_behind_wrapping_errors() {
        let limit_error =
            async || Limited::new(Full::<Bytes>::from("too long"), 1).collect().await.expect_err("over the limit");
        let errors: [BoxError; 4] = [
            limit_error().await,
            Wrapped(limit_error().await).into(),
            io::Error::other(limit_error().await).into(),
            Wrapped(io::Error::other(Wrapped(limit_error().await)).into()).into(),
        ];
        for error in errors {
            assert!(is_length_limit(&*error), "{error:?}");
        }
        let others: [BoxError; 3] =
            ["reset".into(), io::Error::from(io::ErrorKind::ConnectionReset).into(), Wrapped("reset".into()).into()];
        for error in others {
            assert!(!is_length_limit(&*error), "{error:?}");
        }
    }
}
