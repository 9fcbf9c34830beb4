use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;

use super::ApiError;
use crate::auth::AuthError;

/// The body of an error: problem details (RFC 9457), with `detail` as a text so that clients which show it need not
/// know more.
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
}

/// The answer that an error is: for an adapter or a host that refuses a request itself, in the same words.
///
/// The error rides in the extensions of the response as `Arc<ApiError>`.
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
    let error = error.into();
    let status = error.status();
    let body = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail: error.detail(),
        code: error.code(),
        field_errors: match &error {
            ApiError::Validation(errors) => Some(errors.iter().collect()),
            _ => None,
        },
        failed: match &error {
            ApiError::NotReady { failed } => Some(failed),
            _ => None,
        },
    };
    let mut response = json(status, "application/problem+json", &body);
    let headers = response.headers_mut();
    if let ApiError::MethodNotAllowed { allow } = error {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(challenge) = error.challenge() {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
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

/// `Retry-After` knows whole seconds, and to come too early is to be refused again.
fn whole_seconds(after: Duration) -> u64 {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    seconds.max(1)
}

/// A response with a JSON body and all headers that belong to one.
pub(super) fn json(status: StatusCode, content_type: &'static str, body: &impl Serialize) -> Response<Bytes> {
    match serde_json::to_vec(body) {
        Ok(body) => with_json(status, content_type, body),
        // Our bodies are texts, numbers and lists of them: there is nothing in them that could fail.
        Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// A response with this body, which is JSON already.
pub(super) fn with_json(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Bytes> {
    let body = Bytes::from(body);
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = body;
    response
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    // What one user sees is for nobody's cache.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
