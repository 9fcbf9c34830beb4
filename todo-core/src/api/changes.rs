//! The changes of a client's tasks since a token.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    error::ApiError, field_errors::FieldErrors, operations::Call, render, response::with_json, sync_token::SyncToken,
};
use crate::{
    Limit, UserTasks,
    store::{Changes, SyncPoint},
};

impl Call<'_> {
    pub(super) async fn changes(mut self) -> Result<Response<Bytes>, ApiError> {
        let mut errors = FieldErrors::default();
        let since = self.query.since(&mut errors);
        let limit = self.query.limit(&mut errors);
        self.query.reject_rest(&mut errors);
        errors.check()?;
        let since = since.map(|token| point_of(token, &self.tasks)).transpose()?;
        let body = page(&self.tasks, since, limit).await?.json;
        Ok(with_json(StatusCode::OK, "application/json", body))
    }
}

/// A page of changes as JSON.
pub(super) struct ChangesPage {
    pub(super) json: Vec<u8>,
    pub(super) token: String,
    pub(super) next: SyncPoint,
    pub(super) more: bool,
    pub(super) is_empty: bool,
}

/// The point of a token, if it is one of the owner of these tasks.
pub(super) fn point_of(token: SyncToken, tasks: &UserTasks<'_>) -> Result<SyncPoint, ApiError> {
    token.point_of(tasks.owner()).ok_or(ApiError::SyncTokenExpired)
}

/// Reads and renders the changes after a point.
pub(super) async fn page(
    tasks: &UserTasks<'_>,
    since: Option<SyncPoint>,
    limit: Limit,
) -> Result<ChangesPage, ApiError> {
    let Changes { changes, next, more, .. } = tasks.changes(since, limit).await?.ok_or(ApiError::SyncTokenExpired)?;
    let token = SyncToken::new(tasks.owner(), next).text();
    let json = render::changes(&changes, &token, more);
    Ok(ChangesPage { json, token, next, more, is_empty: changes.is_empty() })
}
