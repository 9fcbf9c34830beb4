use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Buf, BufMut};
use futures_core::Stream;
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::{Body, Frame};
use http_body_util::LengthLimitError;

use super::{error::ApiError, printable::printable};

/// Any error of a body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body made of a stream of chunks, for the adapters of frameworks that expose bodies as streams.
pub struct StreamBody<S>(Pin<Box<S>>);

impl<S> StreamBody<S> {
    /// Creates a body from a stream of its chunks.
    pub fn new(stream: S) -> Self {
        Self(Box::pin(stream))
    }
}

impl<S, D, E> Body for StreamBody<S>
where
    S: Stream<Item = Result<D, E>>,
    D: Buf,
{
    type Data = D;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<D>, E>>> {
        self.0.as_mut().poll_next(context).map_ok(Frame::data)
    }
}

impl<S> fmt::Debug for StreamBody<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamBody")
    }
}

/// Reads a body of at most `limit` bytes.
///
/// The limit is checked while the body arrives. 415 takes precedence over 413, and neither applies to an empty body.
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
    let mut unsupported = unsupported_media_type(headers, merge_patch);
    // The header too, because the bodies of some frameworks do not know their size.
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let size = body.size_hint().lower().max(declared.unwrap_or(0));
    if size > 0
        && let Some(error) = unsupported.take()
    {
        return Err(error);
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
                ApiError::IncompleteBody
            }
        })?;
        // Frames without data are trailers, which have no meaning here.
        let Ok(data) = frame.into_data() else { continue };
        if data.has_remaining()
            && let Some(error) = unsupported.take()
        {
            return Err(error);
        }
        if data.remaining() > limit - bytes.len() {
            return Err(ApiError::PayloadTooLarge { limit: Some(limit) });
        }
        bytes.put(data);
    }
    Ok(bytes)
}

/// Whether a body failed at a length limit of the host, which is lower than the API's own.
///
/// Frameworks wrap the error of the limit in errors of their own, so the whole source chain is searched.
fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return true;
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            // The source of an `io::Error` is the source of the error inside it, not that error itself.
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// The error for headers that do not declare a body of JSON in UTF-8 (RFC 8259, section 8.1) that is not compressed.
pub(super) fn unsupported_media_type(headers: &HeaderMap, merge_patch: bool) -> Option<ApiError> {
    let mut compressed = false;
    let wanted = if merge_patch { "application/json or application/merge-patch+json" } else { "application/json" };
    let reason = if let Some(coding) = coding(headers) {
        compressed = true;
        format!("Send the body without compression. The content coding {coding} is not supported.")
    } else {
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        match (types.next(), types.next()) {
            (None, _) => format!("Send the body with the header Content-Type: {wanted}."),
            (Some(_), Some(_)) => "Send one Content-Type header.".to_owned(),
            (Some(content_type), None) => {
                let mut parts = content_type.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                let essence = parts.next().unwrap_or_default();
                let known = essence.eq_ignore_ascii_case(b"application/json")
                    || (merge_patch && essence.eq_ignore_ascii_case(b"application/merge-patch+json"));
                if known {
                    let charset = quoted(parts.find_map(other_charset)?);
                    format!("Send the body in UTF-8, not in the charset {charset}.")
                } else {
                    format!("Send the body as {wanted}, not as {}.", quoted(essence))
                }
            }
        }
    };
    Some(ApiError::UnsupportedMediaType { reason, compressed })
}

/// The content coding of a body, if it has one.
fn coding(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let coding = codings.map(<[u8]>::trim_ascii).find(|coding| !coding.eq_ignore_ascii_case(b"identity"))?;
    Some(quoted(coding))
}

/// The value of a parameter of `application/json` that contradicts UTF-8. JSON is always UTF-8 and has no such
/// parameter (RFC 8259, section 11), but many clients send one.
fn other_charset(parameter: &[u8]) -> Option<&[u8]> {
    let split = parameter.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (parameter[..split].trim_ascii(), parameter[split + 1..].trim_ascii());
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    // ASCII is a part of UTF-8.
    let is_utf_8 = [&b"utf-8"[..], b"utf8", b"us-ascii"].iter().any(|own| unquoted.eq_ignore_ascii_case(own));
    (name.eq_ignore_ascii_case(b"charset") && !is_utf_8).then_some(unquoted)
}

/// A text of the client in a sentence. An empty text would leave a gap.
fn quoted(text: &[u8]) -> String {
    format!("`{}`", printable(text))
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
