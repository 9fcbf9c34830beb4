//! The operations that need a caller: each checks its input, calls the service and makes the response.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{LINK, LOCATION},
};

use super::{
    error::ApiError,
    field_errors::FieldErrors,
    input::{Members, OneOrMany, Query, reject_conditions, task_id},
    render,
    response::{empty, ok, with_json},
    results::{Count, TransferResult},
    session::Session,
};
use crate::{
    Page, Task, TaskQuery, TodoService, UserTasks,
    auth::{AuthError, Identity},
    store::BulkResult,
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
        let repeated = self.query.repeated();
        let query = self.query.task_query(&mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        let page = self.tasks.list(&query).await?;
        let mut response = with_json(StatusCode::OK, "application/json", render::tasks(&page.tasks));
        if let Some(link) = next_link(&query, &repeated, &page) {
            response.headers_mut().insert(LINK, link);
        }
        Ok(response)
    }

    pub(super) async fn count(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let filter = self.query.filter(&mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        Ok(ok(&Count { count: self.tasks.count(&filter).await? }))
    }

    pub(super) async fn summary(self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        self.query.reject_rest(&mut errors);
        errors.check()?;
        Ok(ok(&self.tasks.summary().await?))
    }

    pub(super) async fn create(self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = match OneOrMany::parse(body)? {
            OneOrMany::One(members) => members,
            OneOrMany::Many(elements) => return self.create_many(elements).await,
        };
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

    async fn create_many(self, elements: Vec<Result<Members, &'static str>>) -> Result<Response<Bytes>, ApiError> {
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
        reject_conditions(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        let tasks = self.tasks.create_all(checked(errors, new.into_iter().collect())?).await?;
        Ok(with_json(StatusCode::CREATED, "application/json", render::tasks(&tasks)))
    }

    pub(super) async fn patch_many(mut self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (filter, patch) = (self.query.bulk_filter(&mut errors), members.patch_of_many(&mut errors));
        members.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        Ok(ok(&self.tasks.patch_matching(&filter, patch).await?))
    }

    pub(super) async fn delete_many(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let filter = self.query.bulk_filter(&mut errors);
        reject_conditions(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        // The deletion of all tasks goes ahead of the other calls of the user.
        let deleted =
            if filter.is_empty() { self.tasks.erase().await? } else { self.tasks.delete_matching(&filter).await? };
        Ok(ok(&BulkResult { matched: deleted, changed: deleted }))
    }

    pub(super) async fn move_to(self, body: &[u8]) -> Result<Response<Bytes>, ApiError> {
        let mut members = Members::parse(body)?;
        let mut errors = FieldErrors::default();
        let (id, place) = (task_id(self.id, &mut errors), members.place(&mut errors));
        members.reject_rest(&mut errors);
        reject_conditions(self.headers, &mut errors);
        self.query.reject_rest(&mut errors);
        let (id, place) = checked(errors, id.zip(place))?;
        Ok(one(&self.tasks.move_to(id, place).await?))
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
fn next_link(query: &TaskQuery, repeated: &[(String, String)], page: &Page) -> Option<HeaderValue> {
    let cursor = page.next.as_ref()?;
    let mut link = form_urlencoded::Serializer::for_suffix("<?".to_owned(), 2);
    link.append_pair("cursor", &cursor.to_string()).append_pair("limit", &query.limit.get().to_string());
    link.extend_pairs(repeated);
    HeaderValue::try_from(link.finish() + ">; rel=\"next\"").ok()
}
