//! The operations that need a caller: each checks its input, calls the service and makes the response.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header::LOCATION};

use super::{
    conditions::{Conditions, is_known, newest_known, tag_of, tagged},
    error::ApiError,
    field_errors::FieldErrors,
    input::{
        Members, OneOrMany, Query, SentBack, idempotency_key, reject_conditions, reject_idempotency_key,
        reject_unsupported, task_id,
    },
    reads::{CachedRead, ReadCache, not_modified},
    render,
    response::{empty, ok, with_json},
    results::{Count, TransferResult},
    routes::Operation,
    session::Session,
};
use crate::{
    Error, IdempotencyKey, NewTask, Page, Patch, Task, TaskId, TaskQuery, TaskReplacement, TodoService, UserTasks,
    auth::{AuthError, Identity},
    store::{BulkResult, Precondition, Read, Request},
};

/// A request of an authenticated caller, before its input is checked.
pub(super) struct Call<'a> {
    pub(super) tasks: UserTasks<'a>,
    pub(super) id: Option<&'a str>,
    pub(super) query: Query<'a>,
    pub(super) headers: &'a HeaderMap,
    pub(super) cache: Option<&'a ReadCache>,
    /// Whether changes of one task need a precondition.
    pub(super) requires_preconditions: bool,
}

const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

impl<'a> Call<'a> {
    pub(super) async fn list(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let (text, repeated) = (self.query.text, self.query.repeated());
        let query = self.query.task_query(&mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        let read = CachedRead::new(self.cache, self.tasks.owner(), Operation::ListTasks, text, self.headers);
        match self.tasks.list_if_changed(&query, read.known()).await? {
            Read::Unchanged => read.unchanged(),
            Read::Changed { revision, value: page } => {
                Ok(read.changed(revision, || (render::tasks(&page.tasks), next_link(&query, &repeated, &page))))
            }
        }
    }

    pub(super) async fn count(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let text = self.query.text;
        let filter = self.query.filter(&mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        let read = CachedRead::new(self.cache, self.tasks.owner(), Operation::CountTasks, text, self.headers);
        match self.tasks.count_if_changed(&filter, read.known()).await? {
            Read::Unchanged => read.unchanged(),
            Read::Changed { revision, value: count } => {
                Ok(read.changed(revision, || (bytes_of(&Count { count }), None)))
            }
        }
    }

    pub(super) async fn summary(self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let text = self.query.text;
        self.query.reject_rest(&mut errors);
        errors.check()?;
        let read = CachedRead::new(self.cache, self.tasks.owner(), Operation::SummarizeTasks, text, self.headers);
        match self.tasks.summary_if_changed(read.known()).await? {
            Read::Unchanged => read.unchanged(),
            Read::Changed { revision, value: summary } => Ok(read.changed(revision, || (bytes_of(&summary), None))),
        }
    }

    pub(super) async fn create(self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = match OneOrMany::parse(body)? {
            OneOrMany::One(members) => members,
            OneOrMany::Many(elements) => return self.create_many(elements, body).await,
        };
        let mut errors = FieldErrors::default();
        let new = members.new_task(&mut errors);
        members.reject_rest(&mut errors);
        let key = self.key_of_creation(&mut errors);
        self.query.reject_rest(&mut errors);
        let new = checked(errors, new)?;
        let (task, is_repeated) = match key {
            None => (self.tasks.create(new).await?, false),
            Some(key) => {
                let created = self.tasks.create_once(vec![new], request(key, body)).await?;
                let task = created.tasks.into_iter().next();
                (task.ok_or(ApiError::Internal("a request has created nothing"))?, created.repeated)
            }
        };
        let mut response = created(render::task(&task), is_repeated);
        tagged(response.headers_mut(), tag_of(&task));
        // Relative, so that it is right under any mount and behind any proxy that removes a prefix.
        if let Ok(location) = HeaderValue::try_from(format!("tasks/{}", task.id)) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    /// Reads the headers of a creation.
    fn key_of_creation(&self, errors: &mut FieldErrors) -> Option<IdempotencyKey> {
        reject_conditions(self.headers, errors);
        reject_unsupported(self.headers, errors);
        idempotency_key(self.headers, errors)
    }

    async fn create_many(
        self,
        elements: Vec<Result<Members, &'static str>>,
        body: &[u8],
    ) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        if elements.is_empty() || elements.len() > UserTasks::MAX_BULK {
            errors.add("body", format!("must be an array of 1 to {} tasks", UserTasks::MAX_BULK));
        }
        let mut new = Vec::with_capacity(elements.len().min(UserTasks::MAX_BULK));
        for (index, members) in elements.into_iter().enumerate().take(UserTasks::MAX_BULK) {
            match members {
                Ok(mut members) => {
                    let mut of_element = FieldErrors::default();
                    new.push(members.new_task(&mut of_element));
                    members.reject_rest(&mut of_element);
                    errors.add_of_element(index, of_element);
                }
                Err(wrong) => errors.add(&index.to_string(), wrong),
            }
        }
        let key = self.key_of_creation(&mut errors);
        self.query.reject_rest(&mut errors);
        let new = checked(errors, new.into_iter().collect())?;
        let (tasks, is_repeated) = match key {
            None => (self.tasks.create_all(new).await?, false),
            Some(key) => {
                let created = self.tasks.create_once(new, request(key, body)).await?;
                (created.tasks, created.repeated)
            }
        };
        Ok(created(render::tasks(&tasks), is_repeated))
    }

    pub(super) async fn patch_many(mut self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (filter, patch) = (self.query.bulk_filter(&mut errors), members.patch_of_many(&mut errors));
        members.reject_rest(&mut errors);
        reject_all(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        Ok(ok(&self.tasks.patch_matching(&filter, patch).await?))
    }

    pub(super) async fn delete_many(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let filter = self.query.bulk_filter(&mut errors);
        reject_all(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        // The deletion of all tasks goes ahead of the other calls of the user.
        let deleted =
            if filter.is_empty() { self.tasks.erase().await? } else { self.tasks.delete_matching(&filter).await? };
        Ok(ok(&BulkResult { matched: deleted, changed: deleted }))
    }

    pub(super) async fn move_to(mut self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (id, place) = (task_id(self.id, &mut errors), members.place(&mut errors));
        members.reject_rest(&mut errors);
        let conditions = self.conditions(&mut errors);
        std::mem::take(&mut self.query).reject_rest(&mut errors);
        let (id, place) = checked(errors, id.zip(place))?;
        let change = self.change(id, conditions, SentBack::default()).await?;
        change.result(change.tasks.move_to(id, place).await)
    }

    /// Reads the token of the user whose tasks [`transfer`](Self::transfer) moves.
    pub(super) fn token_in(&mut self, body: &[u8]) -> Result<String, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let token = members.other_token(&mut errors);
        members.reject_rest(&mut errors);
        reject_all(self.headers, &mut errors);
        std::mem::take(&mut self.query).reject_rest(&mut errors);
        checked(errors, token)
    }

    /// Moves the tasks of another user to the caller. The request has valid tokens of both users.
    pub(super) async fn transfer(
        self,
        service: &TodoService,
        from: Result<Identity, AuthError>,
    ) -> Result<Response<Bytes>, ApiError> {
        let from = match from {
            Ok(identity) if identity.user_id != *self.tasks.owner() => identity.user_id,
            Ok(_) => return Err(invalid_token("must be a token of another user")),
            Err(AuthError::Expired) => return Err(invalid_token("has expired")),
            Err(AuthError::Revoked) => return Err(invalid_token("has been revoked")),
            Err(AuthError::InsufficientScope { .. }) => return Err(invalid_token("lacks a required scope")),
            Err(AuthError::Missing | AuthError::Invalid(_) | AuthError::ForeignOrigin) => {
                return Err(invalid_token("is not a valid token"));
            }
            Err(
                error @ (AuthError::RateLimited { .. }
                | AuthError::OverQuota(_)
                | AuthError::KeyMayBeNew { .. }
                | AuthError::Unavailable { .. }),
            ) => {
                return Err(error.into());
            }
        };
        let transfer = service.for_user(from).transfer_to(self.tasks.owner()).await?;
        Ok(ok(&TransferResult::from(transfer)))
    }

    pub(super) async fn get(self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let id = task_id(self.id, &mut errors);
        let conditions = Conditions::of_read(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        let id = checked(errors, id)?;
        if conditions.is_given {
            self.tasks.refresh();
        }
        let mut task = self.tasks.get(id).await?;
        // The store may have replicas, one of which does not have yet what the client has.
        if newest_known(self.headers).is_some_and(|version| task.version < version) {
            self.tasks.refresh();
            task = self.tasks.get(id).await?;
        }
        if !conditions.precondition.is_met_by(&task) {
            return Err(Error::PreconditionFailed { current: Box::new(task) }.into());
        }
        if !is_known(self.headers, &task) {
            return Ok(one(&task));
        }
        let mut response = not_modified();
        tagged(response.headers_mut(), tag_of(&task));
        Ok(response)
    }

    pub(super) async fn replace(mut self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (id, replacement) = (task_id(self.id, &mut errors), members.replacement(&mut errors));
        let sent_back = members.sent_back(id, self.tasks.owner(), &mut errors);
        members.reject_rest(&mut errors);
        let conditions = self.conditions(&mut errors);
        if conditions.is_absent {
            sent_back.reject(&mut errors);
            if self.headers.contains_key("If-Match") {
                errors.add("If-None-Match", "must not be * together with If-Match");
            }
        }
        std::mem::take(&mut self.query).reject_rest(&mut errors);
        let (id, replacement) = checked(errors, id.zip(replacement))?;
        if conditions.is_absent {
            let task = self.tasks.create_with_id(id, new_task(replacement)).await?;
            let mut response = created(render::task(&task), false);
            tagged(response.headers_mut(), tag_of(&task));
            return Ok(response);
        }
        let change = self.change(id, conditions, sent_back).await?;
        change.result(change.tasks.replace(id, replacement).await)
    }

    pub(super) async fn patch(mut self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (id, patch) = (task_id(self.id, &mut errors), members.patch(&mut errors));
        let sent_back = members.sent_back(id, self.tasks.owner(), &mut errors);
        members.reject_rest(&mut errors);
        let conditions = self.conditions(&mut errors);
        std::mem::take(&mut self.query).reject_rest(&mut errors);
        let id = checked(errors, id)?;
        let change = self.change(id, conditions, sent_back).await?;
        change.result(change.tasks.patch(id, patch).await)
    }

    pub(super) async fn delete(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let id = task_id(self.id, &mut errors);
        std::mem::take(&mut self.query).reject_rest(&mut errors);
        let conditions = self.conditions(&mut errors);
        let id = checked(errors, id)?;
        let change = self.change(id, conditions, SentBack::default()).await?;
        change.tasks.delete(id).await.map_err(|error| change.failure(error))?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn complete(mut self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse_or_empty(body)?;
        let mut errors = FieldErrors::default();
        let (id, completed) = (task_id(self.id, &mut errors), members.completion(&mut errors));
        members.reject_rest(&mut errors);
        let conditions = self.conditions(&mut errors);
        std::mem::take(&mut self.query).reject_rest(&mut errors);
        let id = checked(errors, id)?;
        let change = self.change(id, conditions, SentBack::default()).await?;
        change.result(match completed {
            None => change.tasks.toggle(id).await,
            Some(completed) => change.tasks.set_completed(id, completed).await,
        })
    }

    /// Reads the headers of a change of one task.
    fn conditions(&self, errors: &mut FieldErrors) -> Conditions {
        reject_unsupported(self.headers, errors);
        reject_idempotency_key(self.headers, errors);
        Conditions::of_change(self.headers, errors)
    }

    /// Prepares the change of a task under the conditions of the headers and of the body.
    async fn change(self, id: TaskId, conditions: Conditions, sent_back: SentBack) -> Result<Change<'a>, ApiError> {
        if self.requires_preconditions && !conditions.is_given && sent_back.version.is_none() {
            return Err(ApiError::PreconditionRequired);
        }
        let headers = conditions.of_existing();
        let mut version = sent_back.version;
        if sent_back.has_times() {
            self.tasks.refresh();
            let current = self.tasks.get(id).await?;
            if !headers.is_met_by(&current) {
                return Err(Error::PreconditionFailed { current: Box::new(current) }.into());
            }
            sent_back.check_times(&current)?;
            version = Some(current.version);
        }
        let mut all = headers.clone();
        if let Some(version) = version {
            let is_allowed = all.version_in.as_ref().is_none_or(|versions| versions.contains(&version));
            all.version_in = Some(if is_allowed { vec![version] } else { Vec::new() });
        }
        Ok(Change { tasks: self.tasks.only_if(all), headers })
    }

    pub(super) fn session(self, identity: &Identity) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        self.query.reject_rest(&mut errors);
        errors.check()?;
        Ok(ok(&Session::of(identity)))
    }
}

/// A change of a task under the conditions of a request.
struct Change<'a> {
    /// The tasks of the caller, under all conditions.
    tasks: UserTasks<'a>,
    /// The condition of the headers, without that of the body.
    headers: Precondition,
}

impl Change<'_> {
    /// The response after the change.
    fn result(&self, changed: Result<Task, Error>) -> Result<Response<Bytes>, ApiError> {
        changed.map(|task| one(&task)).map_err(|error| self.failure(error))
    }

    /// Tells a condition of the body that is not met from one of the headers.
    fn failure(&self, error: Error) -> ApiError {
        match error {
            Error::PreconditionFailed { current } if self.headers.is_met_by(&current) => {
                ApiError::VersionConflict { current }
            }
            error => error.into(),
        }
    }
}

/// Rejects the headers that a change of many tasks does not support.
fn reject_all(headers: &HeaderMap, errors: &mut FieldErrors) {
    reject_conditions(headers, errors);
    reject_idempotency_key(headers, errors);
    reject_unsupported(headers, errors);
}

/// A request to create tasks that may be sent more than once: the same key and the same body are the same request.
fn request(key: IdempotencyKey, body: &[u8]) -> Request {
    let mut short = [0; 16];
    let digest = digest(&SHA256, body);
    short.iter_mut().zip(digest.as_ref()).for_each(|(short, byte)| *short = *byte);
    Request { key, digest: short }
}

/// A task with this content.
fn new_task(content: TaskReplacement) -> NewTask {
    fn set<T>(patch: Patch<T>) -> Option<T> {
        match patch {
            Patch::Set(value) => Some(value),
            Patch::Keep | Patch::Clear => None,
        }
    }
    NewTask {
        description: content.description,
        completed: content.completed.unwrap_or_default(),
        due: set(content.due),
        priority: set(content.priority),
        list: set(content.list),
        tags: content.tags.unwrap_or_default(),
        position: content.position,
        metadata: content.metadata.unwrap_or_default(),
        ..NewTask::new(content.title)
    }
}

/// The response to a creation.
fn created(body: Vec<u8>, is_repeated: bool) -> Response<Bytes> {
    let mut response = with_json(StatusCode::CREATED, "application/json", body);
    if is_repeated {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// A value as JSON. The values consist of strings, numbers and lists, which always serialize.
fn bytes_of(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The error for a token in the body.
fn invalid_token(problem: &'static str) -> ApiError {
    let mut errors = FieldErrors::default();
    errors.add("from_token", problem);
    errors.into()
}

/// Returns the value that was read, if no field is invalid.
pub(super) fn checked<T>(errors: FieldErrors, value: Option<T>) -> Result<T, ApiError> {
    errors.check()?;
    value.ok_or(ApiError::Internal("a field has neither a value nor an error"))
}

/// A response with one task.
fn one(task: &Task) -> Response<Bytes> {
    let mut response = with_json(StatusCode::OK, "application/json", render::task(task));
    tagged(response.headers_mut(), tag_of(task));
    response
}

/// The link to the next page: a relative reference that is only a query, which is right under any mount (RFC 8288).
fn next_link(query: &TaskQuery, repeated: &[(String, String)], page: &Page) -> Option<HeaderValue> {
    let cursor = page.next.as_ref()?;
    let mut link = form_urlencoded::Serializer::for_suffix("<?".to_owned(), 2);
    link.append_pair("cursor", &cursor.to_string()).append_pair("limit", &query.limit.get().to_string());
    link.extend_pairs(repeated);
    HeaderValue::try_from(link.finish() + ">; rel=\"next\"").ok()
}
