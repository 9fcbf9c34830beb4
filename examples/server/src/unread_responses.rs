//! A limit on the responses that a client of HTTP/2 does not read.
//!
//! Over HTTP/1.1 a connection has one response at a time, and [`crate::connection`] closes the connection if the client
//! does not read it. Over HTTP/2 a connection has up to 200 requests at a time, and the client chooses how many bytes
//! of each response it accepts. A client that accepts none and requests page after page would make the server keep all
//! of these pages in memory. So each connection counts the bytes of its unread responses, and past 8 MiB it responds
//! 503.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use todo_core::{
    api::{ApiError, problem},
    store::StoreError,
};
use tower::BoxError;

use crate::app::Body;

/// The maximum number of unread bytes of a connection: two hundred usual pages.
const MAX_UNREAD: usize = 8 * 1024 * 1024;
/// Responses of at most this size are not counted. Responses to writes are smaller, so a write is never rejected after
/// it has happened.
const UNCOUNTED: usize = 16 * 1024;

/// Counts the unread bytes of one connection. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnreadResponses(Arc<AtomicUsize>);

impl UnreadResponses {
    /// Counts this response as unread until its body is dropped. Returns 503 instead if the connection has too many
    /// unread bytes.
    pub(crate) fn track(&self, response: Response<Body>) -> Response<Body> {
        // Some frameworks hide the size of the body. Each response of the core has a `Content-Length`.
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let size = usize::try_from(response.body().size_hint().lower().max(length.unwrap_or(0))).unwrap_or(usize::MAX);
        if size <= UNCOUNTED {
            return response;
        }
        let before = self.0.fetch_add(size, Relaxed);
        let unread = UnreadBytes { total: self.0.clone(), size };
        if before.saturating_add(size) > MAX_UNREAD {
            let error = StoreError::Unavailable("the client does not read the earlier responses".into());
            return problem(ApiError::Service(error.into()))
                .map(|body| Body::new(Full::new(body).map_err(BoxError::from)));
        }
        response.map(|body| Body::new(SplitBody { body, rest: Bytes::new(), _unread: unread }))
    }
}

/// The bytes of one response, counted until this is dropped.
#[derive(Debug)]
struct UnreadBytes {
    total: Arc<AtomicUsize>,
    size: usize,
}

impl Drop for UnreadBytes {
    fn drop(&mut self) {
        self.total.fetch_sub(self.size, Relaxed);
    }
}

/// A body in small pieces. A body in one piece would be handed to the connection, and no longer be counted, as soon as
/// the client accepts one byte.
struct SplitBody {
    body: Body,
    rest: Bytes,
    _unread: UnreadBytes,
}

impl http_body::Body for SplitBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let size = self.rest.len().min(UNCOUNTED);
        let piece = self.rest.split_to(size);
        // The connection holds the last piece when it is no longer counted. A copy does not keep the whole body in
        // memory.
        let piece = if self.rest.is_empty() { Bytes::copy_from_slice(&piece) } else { piece };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        match body.exact() {
            Some(exact) => SizeHint::with_exact(rest + exact),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(size: usize) -> Response<Body> {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("a byte")).collect();
        Response::new(Body::new(Full::new(Bytes::from(body)).map_err(BoxError::from)))
    }

    #[tokio::test]
    async fn a_large_response_is_sent_whole_in_pieces() {
        let unread = UnreadResponses::default();
        for size in [UNCOUNTED + 1, 3 * UNCOUNTED, 3 * UNCOUNTED + 1] {
            let mut body = unread.track(response(size)).into_body();
            assert_eq!((body.size_hint().exact(), unread.0.load(Relaxed)), (Some(size as u64), size));
            let mut whole = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.expect("a piece").into_data().expect("data");
                assert!((1..=UNCOUNTED).contains(&piece.len()));
                whole.extend_from_slice(&piece);
                assert_eq!(body.is_end_stream(), whole.len() == size);
            }
            drop(body);
            let expected = response(size).into_body().collect().await.expect("a body").to_bytes();
            assert!(expected == whole && unread.0.load(Relaxed) == 0);
        }
    }

    #[test]
    fn a_response_is_counted_by_its_content_length_if_the_body_hides_its_size() {
        let unread = UnreadResponses::default();
        let hidden = |response: Response<Body>| response.map(|body| Body::new(body.map_frame(|frame| frame)));
        let mut response = hidden(response(UNCOUNTED + 1));
        response.headers_mut().insert(CONTENT_LENGTH, (UNCOUNTED + 1).into());
        let tracked = unread.track(response);
        assert_eq!(unread.0.load(Relaxed), UNCOUNTED + 1);
        drop(tracked);
        assert_eq!(unread.0.load(Relaxed), 0);
    }

    #[test]
    fn past_the_limit_large_responses_are_503_until_others_are_read() {
        let unread = UnreadResponses::default();
        let mut tracked: Vec<_> = (0..8).map(|_| unread.track(response(MAX_UNREAD / 8))).collect();
        assert!(tracked.iter().all(|response| response.status() == 200));
        let rejected = unread.track(response(UNCOUNTED + 1));
        assert_eq!(
            (rejected.status().as_u16(), &rejected.headers()["retry-after"]),
            (503, &"1".parse().expect("a value"))
        );
        assert_eq!(unread.track(response(UNCOUNTED)).status(), 200, "small responses are not counted");
        tracked.pop();
        assert_eq!(unread.track(response(UNCOUNTED + 1)).status(), 200);
        drop(tracked);
        assert_eq!(unread.0.load(Relaxed), 0);
    }
}
