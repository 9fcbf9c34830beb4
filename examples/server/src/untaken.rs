//! Answers that are made and not taken.
//!
//! Over HTTP/1.1 a connection has one answer at a time, and `connection` sees whether it is taken. Over HTTP/2 it has
//! two hundred, and the other side says of each how much it takes now: whoever says "nothing" and asks for page after
//! page would have all of them kept for him. So they are counted, and there is an end to it.

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
use todo_core::{Error, api::problem, store::StoreError};
use tower::BoxError;

use crate::app::Body;

/// How many bytes of answers one connection may leave untaken. That is two hundred usual pages.
const MOST: usize = 8 * 1024 * 1024;
/// Answers up to this size are not counted. Those to writes are smaller, so that none of them is ever held back.
const SMALL: usize = 16 * 1024;

/// What one connection has not taken yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Untaken(Arc<AtomicUsize>);

impl Untaken {
    /// The answer, or 503 if too much waits already.
    pub(crate) fn hold(&self, response: Response<Body>) -> Response<Body> {
        // Not every framework hands on what is known of the size, but each answer of the core says it.
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let size = usize::try_from(response.body().size_hint().lower().max(length.unwrap_or(0))).unwrap_or(usize::MAX);
        if size <= SMALL {
            return response;
        }
        let before = self.0.fetch_add(size, Relaxed);
        let held = Held { all: self.0.clone(), size };
        if before.saturating_add(size) > MOST {
            let untaken = StoreError::Unavailable("the answers before this one are not being taken".into());
            return problem(Error::Store(untaken)).map(|body| Body::new(Full::new(body).map_err(BoxError::from)));
        }
        response.map(|body| Body::new(Pieces { body, rest: Bytes::new(), _held: held }))
    }
}

/// An answer's part in what is not taken, until it is dropped.
#[derive(Debug)]
struct Held {
    all: Arc<AtomicUsize>,
    size: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.size, Relaxed);
    }
}

/// A body in small pieces. In one piece it would be given to the connection as soon as a single byte is asked for.
struct Pieces {
    body: Body,
    rest: Bytes,
    _held: Held,
}

impl http_body::Body for Pieces {
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
        let size = self.rest.len().min(SMALL);
        let piece = self.rest.split_to(size);
        // The last one waits without being counted, and must not keep the whole.
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

    fn answer(size: usize) -> Response<Body> {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("a byte")).collect();
        Response::new(Body::new(Full::new(Bytes::from(body)).map_err(BoxError::from)))
    }

    #[tokio::test]
    async fn a_large_answer_comes_in_pieces_and_whole() {
        let untaken = Untaken::default();
        for size in [SMALL + 1, 3 * SMALL, 3 * SMALL + 1] {
            let mut body = untaken.hold(answer(size)).into_body();
            assert_eq!((body.size_hint().exact(), untaken.0.load(Relaxed)), (Some(size as u64), size));
            let mut whole = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.expect("a piece").into_data().expect("data");
                assert!((1..=SMALL).contains(&piece.len()));
                whole.extend_from_slice(&piece);
                assert_eq!(body.is_end_stream(), whole.len() == size);
            }
            drop(body);
            let expected = answer(size).into_body().collect().await.expect("a body").to_bytes();
            assert!(expected == whole && untaken.0.load(Relaxed) == 0);
        }
    }

    #[test]
    fn an_answer_whose_size_is_known_by_its_header_alone_is_counted() {
        let untaken = Untaken::default();
        let hidden = |response: Response<Body>| response.map(|body| Body::new(body.map_frame(|frame| frame)));
        let mut response = hidden(answer(SMALL + 1));
        response.headers_mut().insert(CONTENT_LENGTH, (SMALL + 1).into());
        let held = untaken.hold(response);
        assert_eq!(untaken.0.load(Relaxed), SMALL + 1);
        drop(held);
        assert_eq!(untaken.0.load(Relaxed), 0);
    }

    #[test]
    fn what_is_too_much_is_refused_until_something_is_taken() {
        let untaken = Untaken::default();
        let mut held: Vec<_> = (0..8).map(|_| untaken.hold(answer(MOST / 8))).collect();
        assert!(held.iter().all(|response| response.status() == 200));
        let refused = untaken.hold(answer(SMALL + 1));
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (503, &"1".parse().expect("a value"))
        );
        assert_eq!(untaken.hold(answer(SMALL)).status(), 200, "what is small is not counted");
        held.pop();
        assert_eq!(untaken.hold(answer(SMALL + 1)).status(), 200);
        drop(held);
        assert_eq!(untaken.0.load(Relaxed), 0);
    }
}
