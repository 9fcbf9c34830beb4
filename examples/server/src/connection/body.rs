//! Bodies whose bytes are counted in the account of their connection.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    memory::{Account, Hold},
    rest::Rest,
    stream::ActiveRequest,
};

/// The size of the pieces in which a body is given to a connection of HTTP/1.1. The connection copies each piece into
/// its write buffer, which keeps the size that it once had. So it gets a piece when it has written the one before.
const PIECE: usize = 16 * 1024;
/// What an open request needs beside its head and body: the task that responds to it.
const REQUEST_BYTES: usize = 12 * 1024;
/// What an unread response of HTTP/2 needs beside its body: its head, and the task that sends it.
const RESPONSE_BYTES: usize = 4 * 1024;
/// What a header needs beside its name and its value.
const HEADER_BYTES: usize = 100;

/// Counts an open request and its head.
pub(super) fn hold_request<B>(account: &Arc<Account>, request: &Request<B>) -> Arc<Hold> {
    let header = |(name, value): (&HeaderName, &HeaderValue)| HEADER_BYTES + name.as_str().len() + value.len();
    let headers: usize = request.headers().iter().map(header).sum();
    Arc::new(Hold::of_request(account, REQUEST_BYTES + target_length(request) + headers))
}

/// The length of the path and the query.
pub(super) fn target_length<B>(request: &Request<B>) -> usize {
    request.uri().path_and_query().map_or(0, |target| target.as_str().len())
}

/// The body of a request. What has been received counts as long as the request is open. If it is dropped before its
/// end, the server reads the rest after the response.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` at the end.
    body: Option<Incoming>,
    request: Arc<Hold>,
    /// `None` if the request has no body.
    rest: Option<Arc<Rest>>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, request: Arc<Hold>, rest: Option<Arc<Rest>>) -> Self {
        Self { body: Some(body), request, rest }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(body), Some(rest)) = (self.body.take(), &self.rest)
            && !body.is_end_stream()
        {
            rest.leave(body, self.request.clone());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Some(rest) = &this.rest {
            rest.polled();
        }
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => this.request.add(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) | None => this.body = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of a response. Its bytes count until the connection has taken the last of them.
pub(super) struct ResponseBody<B: Body> {
    account: Arc<Account>,
    is_http_2: bool,
    /// The rest of a frame.
    rest: Bytes,
    /// The first frame, if it is not one of data, or an error instead of it.
    first: Option<Result<Frame<Bytes>, B::Error>>,
    /// Whether this is a large body or a stream over HTTP/1.1.
    is_in_pieces: bool,
    /// Keeps the connection from counting as idle while a stream is open.
    active: Option<ActiveRequest>,
    /// The body of the request, until this response begins.
    request: Option<BeforeResponse>,
    body: B,
}

impl<B: Body + Unpin> Unpin for ResponseBody<B> {}

impl<B: Body<Data = Bytes> + Unpin> ResponseBody<B> {
    /// Takes what there is of the body already, so that it counts from now on.
    pub(super) async fn new(account: Arc<Account>, is_http_2: bool, body: B) -> Self {
        let (rest, first) = (Bytes::new(), None);
        let (active, request) = (None, None);
        let mut counted = Self { account, is_http_2, rest, first, is_in_pieces: false, active, request, body };
        poll_fn(|cx| {
            if let Poll::Ready(Some(first)) = Pin::new(&mut counted.body).poll_frame(cx) {
                match first.map(Frame::into_data) {
                    Ok(Ok(data)) => counted.rest = counted.hold(data),
                    Ok(Err(frame)) => counted.first = Some(Ok(frame)),
                    Err(error) => counted.first = Some(Err(error)),
                }
            }
            Poll::Ready(())
        })
        .await;
        counted
    }

    /// Whether the end of the body is not known.
    pub(super) fn is_stream(&self) -> bool {
        !self.body.is_end_stream() && self.body.size_hint().exact().is_none()
    }

    /// Keeps the connection from counting as idle until the end of this stream.
    pub(super) fn keep_active(&mut self, active: ActiveRequest) {
        self.active = Some(active);
        // The next event is made when the client has taken this one.
        self.is_in_pieces = !self.is_http_2;
    }

    /// Reads the rest of the body of the request when the connection takes this response.
    pub(super) fn before_the_rest_of(mut self, request: Option<Arc<Rest>>) -> Self {
        self.request = request.map(BeforeResponse);
        self
    }

    /// Counts these bytes until the last part of them is dropped.
    fn hold(&self, bytes: Bytes) -> Bytes {
        // HTTP/1.1 copies them into its write buffer, which is counted as a whole.
        if bytes.is_empty() || (!self.is_http_2 && bytes.len() <= PIECE) {
            return bytes;
        }
        // Static files and the document are shared by all responses.
        let own_bytes = if bytes.is_unique() { bytes.len() } else { 0 };
        let fixed_bytes = if self.is_http_2 { RESPONSE_BYTES } else { 0 };
        let hold = Hold::of_response(&self.account, own_bytes + fixed_bytes);
        Bytes::from_owner(HeldBytes { bytes, hold, is_http_2: self.is_http_2 })
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        // hyper takes the head before it asks for the body. (Without a body it drops this instead.)
        this.request = None;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(first));
        }
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = this.hold(data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => {
                    this.active = None;
                    return Poll::Ready(end);
                }
            }
        }
        // HTTP/2 keeps the bytes as they are until it sends them.
        let is_large = !this.is_http_2 && (this.is_in_pieces || this.rest.len() > PIECE);
        if is_large {
            this.is_in_pieces = true;
            ready!(this.account.poll_piece(cx));
        }
        let size = if is_large { this.rest.len().min(PIECE) } else { this.rest.len() };
        let piece = if size == this.rest.len() { std::mem::take(&mut this.rest) } else { this.rest.split_to(size) };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint().exact() {
            Some(exact) => SizeHint::with_exact(self.rest.len() as u64 + exact),
            None => SizeHint::default(),
        }
    }
}

/// Dropped when the response begins.
struct BeforeResponse(Arc<Rest>);

impl Drop for BeforeResponse {
    fn drop(&mut self) {
        self.0.response_begins();
    }
}

/// Bytes that count until this is dropped.
struct HeldBytes {
    bytes: Bytes,
    hold: Hold,
    is_http_2: bool,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        if !self.is_http_2 {
            self.hold.moves_to_the_write_buffer();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, Empty, Full, StreamBody};

    use super::{super::memory::MemoryBudget, *};

    fn bytes(size: usize) -> Bytes {
        (0..size).map(|at| u8::try_from(at % 251).expect("a byte")).collect::<Vec<_>>().into()
    }

    async fn counted(account: &Arc<Account>, is_http_2: bool, content: Bytes) -> ResponseBody<Full<Bytes>> {
        ResponseBody::new(account.clone(), is_http_2, Full::new(content)).await
    }

    #[tokio::test]
    async fn over_http_1_a_response_is_sent_whole_in_pieces() {
        let account = MemoryBudget::default().open_account();
        let account = account.account();
        for size in [0, 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 1] {
            let mut body = counted(account, false, bytes(size)).await;
            // A small response is in the write buffer at once.
            assert_eq!(account.held(), if size > PIECE { size } else { 0 });
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(size as u64), size == 0));
            let mut whole = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.expect("a piece").into_data().expect("data");
                if size > PIECE && whole.len() + piece.len() < size {
                    assert!(body.frame().now_or_never().is_none(), "the write buffer is not empty yet");
                }
                account.write_buffer_is_empty();
                assert!((1..=PIECE).contains(&piece.len()));
                whole.extend_from_slice(&piece);
                assert_eq!(body.is_end_stream(), whole.len() == size);
            }
            assert!(bytes(size) == whole);
            assert_eq!((account.held(), account.has_unread_responses()), (0, false));
        }
    }

    #[tokio::test]
    async fn over_http_2_a_response_counts_until_its_last_byte_is_dropped() {
        let account = MemoryBudget::default().open_account();
        let account = account.account();
        for size in [1, PIECE, 10 * PIECE] {
            let mut body = counted(account, true, bytes(size)).await;
            assert_eq!(account.held(), size + RESPONSE_BYTES);
            let mut whole = body.frame().await.expect("a frame").expect("a piece").into_data().expect("data");
            assert!(whole == bytes(size) && body.is_end_stream());
            drop(body);
            // The whole allocation is kept as long as a byte of it.
            let last = whole.split_off(size - 1);
            drop(whole);
            assert_eq!((account.held(), account.has_unread_responses()), (size + RESPONSE_BYTES, true));
            drop(last);
            assert_eq!((account.held(), account.has_unread_responses()), (0, false));
        }
    }

    #[tokio::test]
    async fn shared_bytes_are_not_counted_but_their_time_is() {
        static FILE: [u8; 10 * PIECE] = [7; 10 * PIECE];
        let account = MemoryBudget::default().open_account();
        let account = account.account();
        let document = bytes(10 * PIECE);
        for (is_http_2, fixed) in [(false, 0), (true, RESPONSE_BYTES)] {
            for shared in [Bytes::from_static(&FILE), document.clone()] {
                let body = counted(account, is_http_2, shared.clone()).await;
                assert_eq!((account.held(), account.oldest_response().is_some()), (fixed, true));
                let same = body.rest.as_ptr() == shared.as_ptr();
                assert!(same, "it is not copied");
            }
        }
    }

    #[tokio::test]
    async fn of_a_stream_only_the_data_that_it_has_made_is_old() {
        let account = MemoryBudget::default().open_account();
        let account = account.account();
        let (events, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
            let event = receiver.recv().await?;
            Some((Ok::<_, std::io::Error>(Frame::data(event)), receiver))
        });
        let mut body = ResponseBody::new(account.clone(), true, StreamBody::new(Box::pin(stream))).await;
        for _ in 0..2 {
            assert_eq!((account.held(), account.oldest_response(), body.is_end_stream()), (0, None, false));
            events.send(bytes(100)).await.expect("a receiver");
            let event = body.frame().await.expect("a frame").expect("an event").into_data().expect("data");
            assert!(event == bytes(100) && account.held() == 100 + RESPONSE_BYTES);
        }
        drop(events);
        assert!(body.frame().await.is_none());
        let empty = ResponseBody::new(account.clone(), true, Empty::<Bytes>::new()).await;
        assert_eq!((empty.is_end_stream(), account.held(), account.oldest_response()), (true, 0, None));
    }
}
