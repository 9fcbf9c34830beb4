use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE},
};
use serde::Serialize;

/// A response with status 200 and this value as its JSON body.
pub(super) fn ok(body: &impl Serialize) -> Response<Bytes> {
    json(StatusCode::OK, "application/json", body)
}

/// A response with this value as its JSON body.
pub(super) fn json(status: StatusCode, content_type: &'static str, body: &impl Serialize) -> Response<Bytes> {
    match serde_json::to_vec(body) {
        Ok(body) => with_json(status, content_type, body),
        // The bodies consist of strings, numbers and lists, which always serialize.
        Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// A response whose body is JSON already.
pub(super) fn with_json(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Bytes> {
    with_bytes(status, content_type, body.into())
}

/// A response with these bytes.
pub(super) fn with_bytes(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
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
    // Responses depend on the user, so no cache may store them.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
