use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};

/// The body of a response: bytes, or a stream of events that ends when the server or the client ends it.
///
/// It is an [`http_body::Body`] and a [`Stream`], so that an adapter passes it on in the way of its framework. It never
/// fails.
///
/// ```
/// use bytes::Bytes;
/// use todo_core::api::{ApiError, ResponseBody, problem};
///
/// let response: http::Response<ResponseBody> = problem(ApiError::NotFound).map(ResponseBody::from);
/// let bytes: Bytes = response.into_body().into_bytes().expect("not a stream");
/// assert!(bytes.starts_with(b"{"));
/// ```
pub struct ResponseBody(Content);

enum Content {
    /// Empty at the end.
    Whole(Bytes),
    // In a mutex, which is never locked, since some frameworks want bodies that are `Sync`.
    Stream(Mutex<Pin<Box<dyn Stream<Item = Bytes> + Send>>>),
    Ended,
}

impl ResponseBody {
    pub(super) fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Content::Stream(Mutex::new(Box::pin(stream))))
    }

    /// No body, in a response that is about another one. Nor does it say that it has no bytes, since some frameworks
    /// would make a `Content-Length` of that.
    pub(super) fn absent() -> Self {
        Self(Content::Ended)
    }

    /// Leaves the body out, in a response to HEAD.
    pub(super) fn leave_out(&mut self) {
        self.0 = match self.0 {
            Content::Whole(_) => Content::Whole(Bytes::new()),
            Content::Stream(_) | Content::Ended => Content::Ended,
        };
    }

    /// Returns the bytes.
    ///
    /// # Errors
    ///
    /// The body itself, if it is a stream.
    pub fn into_bytes(self) -> Result<Bytes, Self> {
        match self.0 {
            Content::Whole(bytes) => Ok(bytes),
            Content::Ended => Ok(Bytes::new()),
            stream @ Content::Stream(_) => Err(Self(stream)),
        }
    }
}

impl Default for ResponseBody {
    /// An empty body.
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self(Content::Whole(bytes))
    }
}

impl Stream for ResponseBody {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match &mut self.0 {
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(std::mem::take(bytes)),
            Content::Stream(stream) => {
                let stream = stream.get_mut().unwrap_or_else(PoisonError::into_inner);
                ready!(stream.as_mut().poll_next(context))
            }
            Content::Ended => None,
        };
        if next.is_none() && !matches!(self.0, Content::Whole(_)) {
            // Frees what the stream holds.
            self.0 = Content::Ended;
        }
        Poll::Ready(next.map(Ok))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.poll_next(context).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Stream(_) => false,
            Content::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // Of a stream that is left out, too, so that no framework says that it has no bytes.
            Content::Stream(_) | Content::Ended => SizeHint::default(),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Whole(bytes) => f.debug_tuple("Whole").field(bytes).finish(),
            Content::Stream(_) => f.write_str("Stream"),
            Content::Ended => f.write_str("Ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    struct Counted(u8);

    impl Stream for Counted {
        type Item = Bytes;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
            self.0 += 1;
            Poll::Ready((self.0 < 3).then(|| Bytes::from(vec![self.0])))
        }
    }

    #[tokio::test]
    async fn a_whole_body_is_one_frame() {
        for text in ["", "x", "a longer text"] {
            let body = ResponseBody::from(Bytes::from(text));
            assert_eq!(
                (Body::size_hint(&body).exact(), body.is_end_stream()),
                (Some(text.len() as u64), text.is_empty())
            );
            let collected = body.collect().await.expect("it cannot fail");
            assert_eq!(collected.to_bytes(), text);
            assert_eq!(ResponseBody::from(Bytes::from(text)).into_bytes().expect("bytes"), text);
        }
    }

    #[tokio::test]
    async fn a_stream_is_read_to_its_end() {
        let body = ResponseBody::stream(Counted(0)).into_bytes().expect_err("a stream");
        assert_eq!((Body::size_hint(&body).exact(), body.is_end_stream()), (None, false));
        assert_eq!(body.collect().await.expect("it cannot fail").to_bytes(), [1, 2][..]);
        let mut body = ResponseBody::stream(Counted(9));
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }
}
