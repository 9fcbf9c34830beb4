//! Reads the input of a request: the query parameters, the id in the path and the members of the JSON object in the
//! body. All invalid fields are reported together.

use std::{borrow::Cow, collections::BTreeSet, str::FromStr};

use http::HeaderMap;

use super::{
    error::ApiError,
    field_errors::FieldErrors,
    json_body,
    sync_token::{NotAToken, SyncToken},
};
use crate::{
    Description, Due, DueFilter, IdempotencyKey, InvalidValue, Limit, ListName, Metadata, MetadataPatch, NewTask,
    Patch, Place, Position, Priority, Tag, Tags, Task, TaskFilter, TaskId, TaskPatch, TaskQuery, TaskReplacement,
    Title, UserId,
    clock::Timestamp,
    json::{Json, Number},
};

/// How often a filter that takes several values can be given.
const MAX_REPEATED: usize = 20;
/// The maximum number of characters of a text that is searched for.
const MAX_SEARCHED: usize = 200;

/// The query parameters that were not read yet. Those left at the end are unknown, and rejected.
#[derive(Default)]
pub(super) struct Query<'a> {
    /// The query as it was sent.
    pub(super) text: &'a str,
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The names of parameters that are not encoded as a URL is. To guess what was meant could mean other tasks.
    malformed: Vec<String>,
}

/// Whether each `%` begins a byte, and the bytes are UTF-8.
fn is_encoded(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|rest| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
        && percent_encoding::percent_decode_str(text).decode_utf8().is_ok()
}

impl<'a> Query<'a> {
    pub(super) fn parse(query: Option<&'a str>) -> Self {
        let query = query.unwrap_or_default();
        let parameters = form_urlencoded::parse(query.as_bytes());
        if is_encoded(query) {
            return Self { text: query, parameters: parameters.collect(), malformed: Vec::new() };
        }
        let encoded = query.split('&').filter(|parameter| !parameter.is_empty()).map(is_encoded);
        let (mut good, mut malformed) = (Vec::new(), Vec::new());
        for ((name, value), is_encoded) in parameters.zip(encoded) {
            if is_encoded {
                good.push((name, value));
            } else {
                malformed.push(name.into_owned());
            }
        }
        Self { text: query, parameters: good, malformed }
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

    /// Reads a parameter that may be given several times.
    fn all<T>(
        &mut self,
        name: &str,
        errors: &mut FieldErrors,
        read: impl Fn(&str) -> Result<T, InvalidValue>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        self.parameters.retain(|(key, value)| {
            let own = key == name;
            if own {
                match read(value) {
                    Ok(value) => values.push(value),
                    Err(error) => errors.add(name, error.to_string()),
                }
            }
            !own
        });
        if values.len() > MAX_REPEATED {
            errors.add(name, format!("must be given at most {MAX_REPEATED} times"));
        }
        values
    }

    fn bool(&mut self, name: &str, errors: &mut FieldErrors) -> Option<bool> {
        self.take(name, errors, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })
    }

    /// Reads the parameters that say which tasks are meant.
    pub(super) fn filter(&mut self, errors: &mut FieldErrors) -> TaskFilter {
        let mut filter = TaskFilter::new().completed(self.bool("completed", errors));
        filter.lists = self.all("list", errors, |text| match text {
            "" => Ok(None),
            text => ListName::new(text).map(Some),
        });
        filter.tags = self.all("tag", errors, |text| Tag::new(text));
        filter.priorities = self.all("priority", errors, str::parse);
        filter.time_zone = self.parsed("time_zone", errors).unwrap_or_default();
        filter.updated_since = self.take("updated_since", errors, |text| {
            text.parse().map_err(|_| "must be an RFC 3339 time, such as 2026-12-01T16:00:00Z".to_owned())
        });
        filter.text = self.take("q", errors, |text| match text {
            "" => Err(InvalidValue::Blank.to_string()),
            text if text.contains('\0') => Err(InvalidValue::Nul.to_string()),
            text if text.chars().count() > MAX_SEARCHED => Err(InvalidValue::TooLong { max: MAX_SEARCHED }.to_string()),
            text => Ok(text.to_owned()),
        });
        let never = self.take("due", errors, |text| match text {
            "none" => Ok(()),
            _ => Err("must be none; for a range of time there are due_from and due_before".to_owned()),
        });
        let (from, before): (Option<Due>, Option<Due>) =
            (self.parsed("due_from", errors), self.parsed("due_before", errors));
        filter.due = match (never, from, before) {
            (None, None, None) => None,
            (Some(()), None, None) => Some(DueFilter::Never),
            (Some(()), ..) => {
                errors.add("due", "must not be given together with due_from or due_before");
                None
            }
            (None, from, before) => Some(DueFilter::Between { from, before }),
        };
        if let (Some(from), Some(before)) = filter.due_bounds()
            && before.instant <= from.instant
        {
            errors.add("due_before", "must be later than due_from");
        }
        filter
    }

    pub(super) fn task_query(&mut self, errors: &mut FieldErrors) -> TaskQuery {
        let mut query = TaskQuery::new().filter(self.filter(errors));
        query.sort = self.parsed("sort", errors).unwrap_or_default();
        query.limit = self.parsed("limit", errors).unwrap_or_default();
        query.cursor = self.parsed("cursor", errors);
        if query.cursor.as_ref().is_some_and(|cursor| !query.accepts(cursor)) {
            errors.add("cursor", InvalidValue::OtherQuery.to_string());
        }
        query
    }

    /// Reads the token after which changes are asked for.
    pub(super) fn since(&mut self, errors: &mut FieldErrors) -> Option<SyncToken> {
        self.take("since", errors, |text| text.parse().map_err(|error: NotAToken| error.to_string()))
    }

    pub(super) fn limit(&mut self, errors: &mut FieldErrors) -> Limit {
        self.parsed("limit", errors).unwrap_or_default()
    }

    /// Reads the parameters that say which tasks to change. Without a filter, all of them must be meant explicitly.
    pub(super) fn bulk_filter(&mut self, errors: &mut FieldErrors) -> TaskFilter {
        let all = self.take("all", errors, |text| match text {
            "true" => Ok(()),
            _ => Err("must be true".to_owned()),
        });
        let filter = self.filter(errors);
        match (all, filter.is_empty()) {
            (None, true) if errors.is_empty() && self.malformed.is_empty() => {
                errors.add("all", "must be true, or there must be a filter; otherwise no tasks are meant");
            }
            (Some(()), false) => errors.add("all", "must not be given together with a filter"),
            _ => {}
        }
        filter
    }

    /// The parameters that a link to another page of the same list repeats.
    pub(super) fn repeated(&self) -> Vec<(String, String)> {
        let is_repeated = |(name, _): &&(Cow<'_, str>, Cow<'_, str>)| name != "cursor" && name != "limit";
        let parameters = self.parameters.iter().filter(is_repeated);
        parameters.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    pub(super) fn reject_rest(self, errors: &mut FieldErrors) {
        for name in self.malformed {
            errors.add(&name, "must be percent-encoded UTF-8");
        }
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

/// Rejects the headers of a write that ask for something that this API does not do: a part of a resource, another
/// method. A client that sends one relies on it, so that the write without it could be harmful.
pub(super) fn reject_unsupported(headers: &HeaderMap, errors: &mut FieldErrors) {
    for name in ["Content-Range", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        reject_header(name, headers, errors);
    }
}

/// Rejects a condition of a write that is not about one task.
pub(super) fn reject_conditions(headers: &HeaderMap, errors: &mut FieldErrors) {
    for name in ["If-Match", "If-None-Match", "If-Unmodified-Since"] {
        reject_header(name, headers, errors);
    }
}

/// Rejects the key of a request that creates nothing.
pub(super) fn reject_idempotency_key(headers: &HeaderMap, errors: &mut FieldErrors) {
    reject_header(IDEMPOTENCY_KEY, headers, errors);
}

fn reject_header(name: &str, headers: &HeaderMap, errors: &mut FieldErrors) {
    if headers.contains_key(name) {
        errors.add(name, "is not supported");
    }
}

/// The header with the key of a request that may be sent more than once.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Reads the key of a request that may be sent more than once. It may be in quotes, as a string of RFC 9651 is.
pub(super) fn idempotency_key(headers: &HeaderMap, errors: &mut FieldErrors) -> Option<IdempotencyKey> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).into_iter();
    let value = values.next()?;
    if values.next().is_some() {
        errors.add(IDEMPOTENCY_KEY, "must be given only once");
        return None;
    }
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    IdempotencyKey::new(key).map_err(|error| errors.add(IDEMPOTENCY_KEY, error.to_string())).ok()
}

/// The fields that only the server sets, as a client sends them back.
#[derive(Default)]
pub(super) struct SentBack {
    /// The version that the client has.
    pub(super) version: Option<i64>,
    /// The times that the client has, if it does not send a version.
    times: Vec<(&'static str, Option<Timestamp>)>,
}

impl SentBack {
    /// Whether the times have to be compared with those of the task.
    pub(super) fn has_times(&self) -> bool {
        !self.times.is_empty()
    }

    /// Checks that the times are those of the task.
    pub(super) fn check_times(&self, task: &Task) -> Result<(), ApiError> {
        let mut errors = FieldErrors::default();
        for (name, sent) in &self.times {
            let own = match *name {
                "created_at" => Some(task.created_at),
                "updated_at" => Some(task.updated_at),
                _ => task.completed_at,
            };
            if own != *sent {
                errors.add(name, "is set by the server, and is another one");
            }
        }
        Ok(errors.check()?)
    }

    /// Rejects what a task that does not exist cannot have.
    pub(super) fn reject(&self, errors: &mut FieldErrors) {
        let names = self.version.map(|_| "version").into_iter().chain(self.times.iter().map(|(name, _)| *name));
        names.for_each(|name| errors.add(name, "is set by the server"));
    }
}

/// The members of the JSON object in a body that were not read yet. Those left at the end are unknown, and rejected.
pub(super) struct Members {
    members: Vec<(String, Json)>,
    /// The names of the members whose values are not those that were sent, with what is wrong.
    wrong: Vec<(String, &'static str)>,
}

/// The body of a creation.
pub(super) enum OneOrMany {
    One(Members),
    /// The elements of an array, or what is wrong with one.
    Many(Vec<Result<Members, &'static str>>),
}

impl OneOrMany {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let parsed = json_body::parse(body).map_err(|reason| ApiError::MalformedJson { reason })?;
        let elements = match parsed.value {
            Json::Array(elements) => elements,
            Json::Object(members) => return Ok(Self::One(Members::of_object(members, &parsed.wrong))),
            _ => return Err(ApiError::NotAnObject { or_array: true }),
        };
        let element = |(index, element)| match element {
            Json::Object(members) => {
                let of_element = parsed.wrong.iter().filter(|wrong| wrong.member == index);
                let wrong = of_element.filter_map(|wrong| Some((wrong.member_of_element?, wrong.reason)));
                Ok(Members::new(members, wrong))
            }
            _ => Err("must be an object"),
        };
        Ok(Self::Many(elements.into_iter().enumerate().map(element).collect()))
    }
}

impl Members {
    /// `wrong` has the indices of the members whose values are not those that were sent, with what is wrong.
    fn new(members: Vec<(String, Json)>, wrong: impl Iterator<Item = (usize, &'static str)>) -> Self {
        let wrong = wrong.filter_map(|(index, wrong)| Some((members.get(index)?.0.clone(), wrong))).collect();
        Self { members, wrong }
    }

    fn of_object(members: Vec<(String, Json)>, wrong: &[json_body::Wrong]) -> Self {
        Self::new(members, wrong.iter().map(|wrong| (wrong.member, wrong.reason)))
    }

    /// The members of an object of which all values are those that were sent.
    pub(super) fn of(members: Vec<(String, Json)>) -> Self {
        Self::new(members, std::iter::empty())
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let parsed = json_body::parse(body).map_err(|reason| ApiError::MalformedJson { reason })?;
        let Json::Object(members) = parsed.value else { return Err(ApiError::NotAnObject { or_array: false }) };
        Ok(Self::of_object(members, &parsed.wrong))
    }

    /// Parses a body that may be empty or `null`, which are treated like an empty object.
    pub(super) fn parse_or_empty(body: &[u8]) -> Result<Self, ApiError> {
        match body.trim_ascii() {
            b"" | b"null" => Ok(Self::of(Vec::new())),
            _ => Self::parse(body),
        }
    }

    pub(super) fn take(&mut self, name: &str, errors: &mut FieldErrors) -> Option<Json> {
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
        if let Some((_, wrong)) = self.wrong.iter().find(|(wrong, _)| wrong == name) {
            errors.add(name, *wrong);
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

    /// Reads a string that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        errors: &mut FieldErrors,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.take(name, errors) {
            Some(Json::String(text)) => return read(&text).map_err(|error| errors.add(name, error)).ok(),
            Some(_) => errors.add(name, "must be a string"),
            None if errors.contains(name) => {}
            None => errors.add(name, "is required"),
        }
        None
    }

    /// Reads a string that may be null or absent.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        errors: &mut FieldErrors,
        read: impl Fn(String) -> Result<T, String>,
    ) -> Option<T> {
        set(self.patch_text(name, errors, read))
    }

    /// Reads a string that may be null.
    fn patch_text<T, E: ToString>(
        &mut self,
        name: &str,
        errors: &mut FieldErrors,
        read: impl Fn(String) -> Result<T, E>,
    ) -> Patch<T> {
        match self.take(name, errors) {
            None => Patch::Keep,
            Some(Json::Null) => Patch::Clear,
            Some(Json::String(text)) => match read(text) {
                Ok(value) => Patch::Set(value),
                Err(error) => {
                    errors.add(name, error.to_string());
                    Patch::Keep
                }
            },
            Some(_) => {
                errors.add(name, "must be a string or null");
                Patch::Keep
            }
        }
    }

    fn description(&mut self, errors: &mut FieldErrors) -> Patch<Description> {
        self.patch_text("description", errors, Description::new)
    }

    fn due(&mut self, errors: &mut FieldErrors) -> Patch<Due> {
        self.patch_text("due", errors, |text| Due::new(&text))
    }

    fn priority(&mut self, errors: &mut FieldErrors) -> Patch<Priority> {
        self.patch_text("priority", errors, |text| text.parse())
    }

    fn list(&mut self, errors: &mut FieldErrors) -> Patch<ListName> {
        self.patch_text("list", errors, ListName::new)
    }

    /// Reads the tags. Null is no tags.
    fn tags(&mut self, errors: &mut FieldErrors) -> Option<Tags> {
        let elements = match self.take("tags", errors)? {
            Json::Null => return Some(Tags::default()),
            Json::Array(elements) => elements,
            _ => {
                errors.add("tags", "must be an array of strings or null");
                return None;
            }
        };
        let count = elements.len();
        let mut tags = Vec::new();
        // The others are too many anyway; without errors of their own, they do not make the response long.
        for (index, element) in elements.into_iter().enumerate().take(Tags::MAX) {
            let tag = match element {
                Json::String(text) => Tag::new(text).map_err(|error| error.to_string()),
                _ => Err("must be a string".to_owned()),
            };
            match tag {
                Ok(tag) => tags.push(tag),
                Err(error) => errors.add(&format!("tags.{index}"), error),
            }
        }
        // Also if some of them are left out because they are invalid.
        if count > Tags::MAX {
            errors.add("tags", InvalidValue::TooMany { max: Tags::MAX }.to_string());
            return None;
        }
        Tags::new(tags).map_err(|error| errors.add("tags", error.to_string())).ok()
    }

    /// Reads the position. On creation, null is the last place.
    fn position(&mut self, is_new: bool, errors: &mut FieldErrors) -> Option<Position> {
        match self.take("position", errors)? {
            Json::String(text) => Position::new(text).map_err(|error| errors.add("position", error.to_string())).ok(),
            Json::Null if is_new => None,
            _ => {
                errors.add("position", "must be a string");
                None
            }
        }
    }

    fn metadata<T>(&mut self, errors: &mut FieldErrors, read: impl Fn(Json) -> Result<T, InvalidValue>) -> Patch<T> {
        match self.take("metadata", errors) {
            None => Patch::Keep,
            Some(Json::Null) => Patch::Clear,
            Some(json @ Json::Object(_)) => match read(json) {
                Ok(value) => Patch::Set(value),
                Err(error) => {
                    errors.add("metadata", error.to_string());
                    Patch::Keep
                }
            },
            Some(_) => {
                errors.add("metadata", "must be an object or null");
                Patch::Keep
            }
        }
    }

    /// Reads where to move a task.
    pub(super) fn place(&mut self, errors: &mut FieldErrors) -> Option<Place> {
        let mut places = Vec::new();
        let mut given = 0;
        for (name, place) in [("before", Place::Before as fn(TaskId) -> Place), ("after", Place::After)] {
            match self.take(name, errors) {
                None => {}
                Some(Json::String(text)) => {
                    given += 1;
                    match text.parse() {
                        Ok(id) => places.push(place(id)),
                        Err(error) => errors.add(name, InvalidValue::to_string(&error)),
                    }
                }
                Some(_) => {
                    given += 1;
                    errors.add(name, "must be a string");
                }
            }
        }
        for (name, place) in [("first", Place::First), ("last", Place::Last)] {
            match self.take(name, errors) {
                None => {}
                Some(Json::Bool(true)) => {
                    given += 1;
                    places.push(place);
                }
                Some(_) => {
                    given += 1;
                    errors.add(name, "must be true");
                }
            }
        }
        if given != 1 && errors.is_empty() {
            errors.add("before", "must be given, or one of after, first and last, but only one of them");
        }
        places.pop()
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
        let title = self.title(true, errors);
        let new = NewTask {
            description: set(self.description(errors)),
            completed: self.completed(errors).unwrap_or(false),
            due: set(self.due(errors)),
            priority: set(self.priority(errors)),
            list: set(self.list(errors)),
            tags: self.tags(errors).unwrap_or_default(),
            position: self.position(true, errors),
            metadata: set(self.metadata(errors, |json| Metadata::from_json(&json))).unwrap_or_default(),
            ..NewTask::new(Title::placeholder())
        };
        Some(NewTask { title: title?, ..new })
    }

    pub(super) fn replacement(&mut self, errors: &mut FieldErrors) -> Option<TaskReplacement> {
        let title = self.title(true, errors);
        let replacement = TaskReplacement {
            title: Title::placeholder(),
            description: set(self.description(errors)),
            completed: self.completed(errors),
            due: self.due(errors),
            priority: self.priority(errors),
            list: self.list(errors),
            tags: self.tags(errors),
            position: self.position(false, errors),
            metadata: match self.metadata(errors, |json| Metadata::from_json(&json)) {
                Patch::Keep => None,
                Patch::Clear => Some(Metadata::default()),
                Patch::Set(metadata) => Some(metadata),
            },
        };
        Some(TaskReplacement { title: title?, ..replacement })
    }

    pub(super) fn patch(&mut self, errors: &mut FieldErrors) -> TaskPatch {
        TaskPatch {
            title: self.title(false, errors),
            description: self.description(errors),
            completed: self.completed(errors),
            due: self.due(errors),
            priority: self.priority(errors),
            list: self.list(errors),
            tags: self.tags(errors),
            position: self.position(false, errors),
            metadata: self.metadata(errors, MetadataPatch::from_json),
        }
    }

    /// Reads a change of many tasks, which cannot be one of their metadata.
    pub(super) fn patch_of_many(&mut self, errors: &mut FieldErrors) -> TaskPatch {
        if self.take("metadata", errors).is_some() {
            errors.add("metadata", InvalidValue::NotInBulk.to_string());
        }
        self.patch(errors)
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

    /// Reads the version that the client has.
    pub(super) fn version(&mut self, errors: &mut FieldErrors) -> Option<i64> {
        match self.take("version", errors)? {
            Json::Number(Number::Integer(version @ 1..)) => Some(version),
            _ => {
                errors.add("version", "must be a whole number from 1 on");
                None
            }
        }
    }

    /// Takes all remaining members as the parameters of a query. An array is a parameter that is given several times, and
    /// null one that is not given.
    pub(super) fn take_query(&mut self, errors: &mut FieldErrors) -> Query<'static> {
        let mut parameters = Vec::new();
        let names: BTreeSet<_> = self.members.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            let values = match self.take(&name, errors) {
                None | Some(Json::Null) => continue,
                Some(Json::Array(values)) => values,
                Some(value) => vec![value],
            };
            for value in values {
                let text = match value {
                    Json::String(text) => text,
                    Json::Bool(value) => value.to_string(),
                    Json::Number(Number::Integer(number)) => number.to_string(),
                    Json::Number(Number::Natural(number)) => number.to_string(),
                    Json::Number(Number::Float(_)) | Json::Null | Json::Array(_) | Json::Object(_) => {
                        errors.add(&name, "must be a string, a whole number, true or false, or an array of them");
                        continue;
                    }
                };
                parameters.push((Cow::Owned(name.clone()), Cow::Owned(text)));
            }
        }
        Query { text: "", parameters, malformed: Vec::new() }
    }

    /// Reads the fields that only the server sets, for a client that changes what it has read and sends all of it. The
    /// id and the user must be those of the task.
    pub(super) fn sent_back(&mut self, id: Option<TaskId>, owner: &UserId, errors: &mut FieldErrors) -> SentBack {
        match self.take("id", errors) {
            None => {}
            Some(Json::String(text)) if id.is_none_or(|id| text.parse() == Ok(id)) => {}
            Some(_) => errors.add("id", "must be the ID in the path"),
        }
        match self.take("user_id", errors) {
            None => {}
            Some(Json::String(text)) if text == owner.as_str() => {}
            Some(_) => errors.add("user_id", "is set from the token"),
        }
        let version = self.version(errors);
        let mut times = Vec::new();
        for name in ["created_at", "updated_at", "completed_at"] {
            let time = match self.take(name, errors) {
                None => continue,
                Some(Json::Null) if name == "completed_at" => Some(None),
                Some(Json::String(text)) => text.parse().ok().map(Some),
                Some(_) => None,
            };
            match time {
                _ if version.is_some() => {}
                Some(time) => times.push((name, time)),
                None => errors.add(name, "must be an RFC 3339 time, such as 2026-12-01T16:00:00Z"),
            }
        }
        SentBack { version, times }
    }

    pub(super) fn reject_rest(self, errors: &mut FieldErrors) {
        for (name, _) in self.members {
            let message = match name.as_str() {
                "user_id" => "is set from the token",
                "id" | "completed_at" | "created_at" | "updated_at" | "version" => "is set by the server",
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
