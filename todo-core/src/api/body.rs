use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Buf, BufMut};
use futures_core::Stream;
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::{Body, Frame};
use http_body_util::LengthLimitError;

use super::error::ApiError;

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
    let unsupported = || ApiError::UnsupportedMediaType { merge_patch };
    let supported = is_json(headers, merge_patch);
    // The header too, because the bodies of some frameworks do not know their size.
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
        // Frames without data are trailers, which have no meaning here.
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

/// Whether the headers declare a body of JSON in UTF-8 (RFC 8259, section 8.1) that is not compressed.
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
