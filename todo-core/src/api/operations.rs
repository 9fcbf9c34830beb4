//! The operations that need a caller: each checks its input, calls the service and makes the response.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{LINK, LOCATION},
};

use super::{
    error::ApiError,
    field_errors::FieldErrors,
    input::{Members, Query, reject_conditions, task_id},
    render,
    response::{empty, ok, with_json},
    results::{BulkResult, TransferResult},
    session::Session,
};
use crate::{
    Page, Task, TaskQuery, TodoService, UserTasks,
    auth::{AuthError, Identity},
};

/// A request of an authenticated caller, before its input is checked.
pub(super) struct Call<'a> {
    pub(super) tasks: UserTasks<'a>,
    pub(super) id: Option<&'a str>,
    pub(super) query: Query<'a>,
    pub(super) headers: &'a HeaderMap,
}

impl Call<'_> {
    pub(super) async fn list(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let query = self.query.task_query(&mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        let page = self.tasks.list(&query).await?;
        let mut response = with_json(StatusCode::OK, "application/json", render::tasks(&page.tasks));
        if let Some(link) = next_link(&query, &page) {
            response.headers_mut().insert(LINK, link);
        }
        Ok(response)
    }

    pub(super) async fn create(self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let new = members.new_task(&mut errors);
        members.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        let task = self.tasks.create(checked(errors, new)?).await?;
        let mut response = with_json(StatusCode::CREATED, "application/json", render::task(&task));
        // Relative, so that it is right under any mount and behind any proxy that removes a prefix.
        if let Ok(location) = HeaderValue::try_from(format!("tasks/{}", task.id)) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    pub(super) async fn delete_all(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        self.query.all(&mut errors);
        self.query.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
        errors.check()?;
        let count = self.tasks.erase().await?;
        Ok(ok(&BulkResult { matched: count, changed: count }))
    }

    /// Reads the token of the user whose tasks [`transfer`](Self::transfer) moves.
    pub(super) fn token_in(&mut self, body: &[u8]) -> Result<String, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let token = members.other_token(&mut errors);
        members.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
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
        self.query.reject_rest(&mut errors);
        Ok(one(&self.tasks.get(checked(errors, id)?).await?))
    }

    pub(super) async fn replace(self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (id, replacement) = (task_id(self.id, &mut errors), members.replacement(&mut errors));
        members.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        let (id, replacement) = checked(errors, id.zip(replacement))?;
        Ok(one(&self.tasks.replace(id, replacement).await?))
    }

    pub(super) async fn patch(self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (id, patch) = (task_id(self.id, &mut errors), members.patch(&mut errors));
        members.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        let id = checked(errors, id)?;
        Ok(one(&self.tasks.patch(id, patch).await?))
    }

    pub(super) async fn delete(self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let id = task_id(self.id, &mut errors);
        self.query.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
        self.tasks.delete(checked(errors, id)?).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn complete(self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse_or_empty(body)?;
        let mut errors = FieldErrors::default();
        let (id, completed) = (task_id(self.id, &mut errors), members.completion(&mut errors));
        members.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        let id = checked(errors, id)?;
        Ok(one(&match completed {
            None => self.tasks.toggle(id).await?,
            Some(completed) => self.tasks.set_completed(id, completed).await?,
        }))
    }

    pub(super) fn session(self, identity: &Identity) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        self.query.reject_rest(&mut errors);
        errors.check()?;
        Ok(ok(&Session::of(identity)))
    }
}

/// The error for a token in the body.
fn invalid_token(problem: &'static str) -> ApiError {
    let mut errors = FieldErrors::default();
    errors.add("from_token", problem);
    errors.into()
}

/// Returns the value that was read, if no field is invalid.
fn checked<T>(errors: FieldErrors, value: Option<T>) -> Result<T, ApiError> {
    errors.check()?;
    value.ok_or(ApiError::Internal("a field has neither a value nor an error"))
}

/// A response with one task.
fn one(task: &Task) -> Response<Bytes> {
    with_json(StatusCode::OK, "application/json", render::task(task))
}

/// The link to the next page: a relative reference that is only a query, which is right under any mount (RFC 8288).
fn next_link(query: &TaskQuery, page: &Page) -> Option<HeaderValue> {
    let cursor = page.next?;
    let mut link = format!("<?cursor={cursor}&limit={}", query.limit.get());
    if let Some(completed) = query.completed {
        link.push_str(if completed { "&completed=true" } else { "&completed=false" });
    }
    link.push_str(">; rel=\"next\"");
    HeaderValue::try_from(link).ok()
}
