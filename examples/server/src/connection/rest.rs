//! The rest of a body: what the server reads after a response that did not need it.
//!
//! A response may be made before the body of its request has arrived: 401, 404, 413. If the server then closed the
//! connection, the system would reset it because of the bytes that were not read, and many clients would report a
//! failed write instead of the response. Over HTTP/2, hyper would send `RST_STREAM`, which some clients take for a
//! failure too. So the rest of the body is read and thrown away: after the response, and over HTTP/2 for a moment before
//! it. Decision 23 has the reasons.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Request, Version, header::EXPECT};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::{runtime::Handle, time::timeout};

use super::{memory::Hold, stream::ActiveRequest};

/// How much of a body is read after the response. Then the connection is closed; over HTTP/2, the stream.
const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// How long a body is read after the response.
const MAX_TIME: Duration = Duration::from_secs(10);
/// How long a body of HTTP/2 is read before the response. curl ends its stream too early when it sees a rejection, and h2
/// then resets the stream, perhaps before it has sent the body of the response.
const FIRST: Duration = Duration::from_secs(1);

/// What happens to the body of a request when it is dropped before its end. The rest is read once the response has
/// begun: earlier, hyper would send `100 Continue` to a client that waits for it.
#[derive(Debug)]
pub(super) struct Rest {
    /// Whether the client waits for `100 Continue`.
    waits: bool,
    /// Whether the connection is closed after a part of the body, if it is not read before.
    is_too_large: bool,
    was_polled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    has_begun: bool,
    unread: Option<Unread>,
    /// Keeps the connection from counting as idle.
    active: Option<ActiveRequest>,
}

#[derive(Debug)]
struct Unread {
    body: Incoming,
    /// What has been thrown away.
    bytes: u64,
    _request: Arc<Hold>,
}

impl Rest {
    /// What to do with the body of this request. If it has none, `active` is given back.
    pub(super) fn of(request: &Request<Incoming>, active: ActiveRequest) -> Result<Arc<Self>, ActiveRequest> {
        if request.body().is_end_stream() {
            return Err(active);
        }
        let state = State { has_begun: false, unread: None, active: Some(active) };
        Ok(Arc::new(Self {
            waits: request.version() == Version::HTTP_11 && request.headers().contains_key(EXPECT),
            is_too_large: request.version() < Version::HTTP_2 && request.body().size_hint().lower() > MAX_BYTES,
            was_polled: AtomicBool::new(false),
            state: Mutex::new(state),
        }))
    }

    /// The body is being read.
    pub(super) fn polled(&self) {
        self.was_polled.store(true, Relaxed);
    }

    /// Whether the response must say that the connection is closed: the client has not been asked for the body, so what
    /// follows may or may not be the body; or the body is longer than what will be read.
    pub(super) fn ends_the_connection(&self) -> bool {
        (self.waits && !self.was_polled.load(Relaxed)) || (self.is_too_large && self.state().unread.is_some())
    }

    /// The body was dropped before its end.
    pub(super) fn leave(&self, body: Incoming, request: Arc<Hold>) {
        let mut state = self.state();
        state.unread = Some(Unread { body, bytes: 0, _request: request });
        state.read_on();
    }

    /// Reads for [`FIRST`], if the body was dropped before its end.
    pub(super) async fn read_first(&self) {
        let Some(mut unread) = self.state().unread.take() else { return };
        if timeout(FIRST, unread.throw_away()).await.is_err() {
            self.state().unread = Some(unread);
        }
    }

    /// The connection has begun to send the response.
    pub(super) fn response_begins(&self) {
        let mut state = self.state();
        state.has_begun = true;
        state.read_on();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read_on(&mut self) {
        if self.has_begun
            && let Some(mut unread) = self.unread.take()
            // While the program ends, there is no runtime.
            && let Ok(runtime) = Handle::try_current()
        {
            let active = self.active.take();
            runtime.spawn(async move {
                let _ = timeout(MAX_TIME, unread.throw_away()).await;
                drop((unread, active));
            });
        }
    }
}

impl Unread {
    /// Reads the body to its end, or to [`MAX_BYTES`].
    async fn throw_away(&mut self) {
        while self.bytes <= MAX_BYTES
            && let Some(Ok(frame)) = self.body.frame().await
        {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    }
}
