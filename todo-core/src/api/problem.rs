use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response,
    header::{ACCEPT_ENCODING, ALLOW, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;

use super::{
    conditions::{tag_of, tagged},
    error::ApiError,
    response::json,
};
use crate::{
    Task,
    auth::{AuthError, Credentials},
};

/// The body of an error: problem details (RFC 9457). `detail` is always a string, so that a client can show it without
/// knowing the code.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_errors: Option<BTreeMap<&'a str, &'a [String]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<&'a Task>,
}

/// Makes the response to a failed request: status, headers and problem details (RFC 9457).
///
/// An adapter or a host calls it for requests that it rejects itself, so that all errors have the same form. It takes
/// an [`ApiError`] or anything that converts to one: the [`Error`](crate::Error) of the service, an [`AuthError`],
/// [`FieldErrors`](super::FieldErrors). The response carries the error in its extensions as `Arc<ApiError>`.
///
/// A 401 asks for a bearer token. If the authenticator accepts other credentials, use
/// [`TodoApi::problem`](super::TodoApi::problem).
///
/// ```
/// use todo_core::api::{ApiError, problem};
///
/// let response = problem(ApiError::NotFound);
/// assert_eq!(response.status(), 404);
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// ```
#[must_use]
pub fn problem(error: impl Into<ApiError>) -> Response<Bytes> {
    problem_for(error.into(), &Credentials::bearer())
}

/// The response, for callers who present these credentials.
pub(super) fn problem_for(error: ApiError, credentials: &Credentials) -> Response<Bytes> {
    let status = error.status();
    let body = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail: error.detail_for(credentials),
        code: error.code(),
        field_errors: match &error {
            ApiError::Validation(errors) => Some(errors.iter().collect()),
            _ => None,
        },
        failed: match &error {
            ApiError::NotReady { failed } => Some(failed),
            _ => None,
        },
        current: error.current(),
    };
    let mut response = json(status, "application/problem+json", &body);
    let headers = response.headers_mut();
    tagged(headers, error.current().and_then(tag_of));
    match &error {
        ApiError::MethodNotAllowed { allow, .. } => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        ApiError::UnsupportedMediaType { compressed: true, .. } => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        _ => {}
    }
    if let Some(challenge) = error.challenge_for(credentials) {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    if let Some(after) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if let ApiError::Auth(AuthError::OverQuota(quota)) = &error {
        quota.tell(headers);
    }
    response.extensions_mut().insert(Arc::new(error));
    response
}

/// Rounds up, since `Retry-After` has whole seconds and a retry that comes too early is rejected again.
fn whole_seconds(after: Duration) -> u64 {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    seconds.max(1)
}
