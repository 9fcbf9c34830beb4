//! Size and time limits of a connection.
//!
//! hyper has one time limit for the head of a request, and it also closes a connection that is idle between two
//! requests. A proxy that reuses connections then sends a request into a connection that is being closed, and its user
//! sees an error. So [`ConnectionServer`] has separate limits:
//!
//! | limit | time |
//! | --- | --- |
//! | the head of a request, from its first byte (for the first request: from the accept) | 10 s |
//! | idle between two requests | 75 s; 10 s while more than 90 % of the allowed connections are open |
//! | a client that reads no byte of a response | 30 s |
//! | a client that does not read the whole of what is written | 2 min |
//!
//! The time limit of a request is that of the API (`REQUEST_TIMEOUT_SECONDS`). Heads have at most 100 headers and 64
//! KiB.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tower::BoxError;

use crate::connection_limit::ConnectionLimit;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// More than the 60 seconds after which usual proxies close a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The idle timeout while the connection limit is nearly reached, and the interval of that check.
const SHORT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Closes a connection whose client reads a byte now and then.
const WRITE_TIMEOUT: Duration = Duration::from_mins(2);

/// Serves connections of HTTP/1.1 and HTTP/2 within the limits of [this module](self).
///
/// The program serves every connection with it; the fuzzer sends bytes into it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::convert::Infallible;
///
/// use bytes::Bytes;
/// use http::Response;
/// use http_body_util::Full;
/// use todo_server::connection::ConnectionServer;
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// let (mut client, stream) = tokio::io::duplex(1024);
/// let connection = ConnectionServer::default()
///     .serve(stream, async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello"))));
/// client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
/// let mut received = String::new();
/// let (served, read) = tokio::join!(connection, client.read_to_string(&mut received));
/// served.unwrap();
/// read.unwrap();
/// assert!(received.starts_with("HTTP/1.1 200 OK\r\n") && received.ends_with("hello"));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionServer {
    http: auto::Builder<TokioExecutor>,
    limit: Option<ConnectionLimit>,
}

impl Default for ConnectionServer {
    fn default() -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            // `TimedStream` has the time limits.
            .header_read_timeout(None)
            // With vectored writes, hyper 1.12 may write the response to an unreadable request into the middle of the
            // response before it, if the client does not read that at once (`on_parse_error` does not ask
            // `can_write_head`). The seed `rejected-behind-a-response` of the fuzzer shows it.
            .writev(false)
            .max_headers(100)
            // The head of a request must fit into the buffer; a larger head is rejected with 431.
            .max_buf_size(64 * 1024);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(200)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        Self { http, limit: None }
    }
}

impl ConnectionServer {
    /// Closes idle connections early while this limit is nearly reached.
    pub(crate) fn with_limit(self, limit: ConnectionLimit) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Serves one connection until the client or a limit closes it. Each request goes to `respond`.
    pub fn serve<S, R, F, B, E>(
        &self,
        stream: S,
        respond: R,
    ) -> impl GracefulConnection<Error = BoxError> + Send + use<S, R, F, B, E>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        R: Fn(Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let activity = Arc::new(Activity { limit: self.limit.clone(), ..Activity::default() });
        let stream = TimedStream::new(stream, activity.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let active = activity.begin(request.version());
            let response = respond(request);
            async move {
                let response = response.await;
                drop(active);
                response
            }
        });
        self.http.serve_connection(TokioIo::new(stream), service).into_owned()
    }
}

/// The requests of one connection, as far as its time limits depend on them.
#[derive(Debug, Default)]
struct Activity {
    limit: Option<ConnectionLimit>,
    begun: AtomicU64,
    ended: AtomicU64,
    is_http_2: AtomicBool,
}

impl Activity {
    fn limit_is_nearly_reached(&self) -> bool {
        self.limit.as_ref().is_some_and(ConnectionLimit::is_nearly_reached)
    }

    /// Notes a request whose head has been received. It is active until the returned value is dropped.
    fn begin(self: &Arc<Self>, version: Version) -> ActiveRequest {
        self.is_http_2.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Release);
        ActiveRequest(Arc::clone(self))
    }
}

/// A request without a response yet.
#[derive(Debug)]
struct ActiveRequest(Arc<Activity>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte of the next request has been received.
    Idle,
    /// The head of a request is being received.
    Head,
    /// The response is being made or sent.
    Response,
}

/// A stream that fails with `TimedOut` when a time limit is exceeded.
struct TimedStream<S> {
    stream: S,
    activity: Arc<Activity>,
    phase: Phase,
    /// When the phase began.
    began: Instant,
    /// When the phase must have ended. Has no meaning in [`Phase::Response`].
    deadline: Instant,
    /// How many requests had begun when the phase did.
    begun_requests: u64,
    timer: Pin<Box<Sleep>>,
    /// Runs while the client reads nothing.
    stall_timer: Option<Pin<Box<Sleep>>>,
    /// When the client must have read what is written, if it did not fit into the buffer of the system at once.
    write_deadline: Option<Instant>,
}

impl<S> TimedStream<S> {
    fn new(stream: S, activity: Arc<Activity>) -> Self {
        let began = Instant::now();
        let deadline = began + HEAD_TIMEOUT;
        Self {
            stream,
            activity,
            phase: Phase::Head,
            began,
            deadline,
            begun_requests: 0,
            timer: Box::pin(sleep_until(deadline)),
            stall_timer: None,
            write_deadline: None,
        }
    }

    fn enter(&mut self, phase: Phase, limit: Duration) {
        self.phase = phase;
        self.began = Instant::now();
        self.deadline = self.began + limit;
    }

    /// Brings the phase up to date with the requests that have begun and ended since the last call.
    fn update(&mut self) {
        let ended = self.activity.ended.load(Ordering::Acquire);
        let begun = self.activity.begun.load(Ordering::Acquire);
        if begun != ended {
            self.phase = Phase::Response;
        } else if self.phase == Phase::Response || self.begun_requests != begun {
            self.enter(Phase::Idle, IDLE_TIMEOUT);
        }
        self.begun_requests = begun;
    }

    /// Bytes were received.
    fn received(&mut self) {
        self.update();
        // HTTP/2 has frames that belong to no request: there an idle connection stays idle until a request has begun.
        if self.phase == Phase::Idle && !self.activity.is_http_2.load(Ordering::Relaxed) {
            self.enter(Phase::Head, HEAD_TIMEOUT);
        }
    }

    /// Ready with an error once the phase has exceeded its time limit.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.update();
        if self.phase == Phase::Response {
            return Poll::Pending;
        }
        // A timer that expires too early costs less than a timer that is reset for each request.
        if self.timer.deadline() > self.deadline {
            self.timer.as_mut().reset(self.deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let is_idle = self.phase == Phase::Idle;
            let reason = if now >= self.deadline {
                if is_idle { "the connection was idle for too long" } else { "the head of a request took too long" }
            } else if is_idle && now - self.began >= SHORT_IDLE_TIMEOUT && self.activity.limit_is_nearly_reached() {
                "the connection was idle while the connection limit was nearly reached"
            } else {
                let next = if is_idle { self.deadline.min(now + SHORT_IDLE_TIMEOUT) } else { self.deadline };
                self.timer.as_mut().reset(next);
                continue;
            };
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
        }
    }

    fn poll_written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let now = Instant::now;
        if written.is_ready() {
            self.stall_timer = None;
            if self.write_deadline.is_none_or(|deadline| now() < deadline) {
                return written;
            }
        } else {
            let deadline = *self.write_deadline.get_or_insert_with(|| now() + WRITE_TIMEOUT);
            let stalled = || Box::pin(sleep_until(deadline.min(now() + WRITE_STALL_TIMEOUT)));
            ready!(self.stall_timer.get_or_insert_with(stalled).as_mut().poll(cx));
        }
        let reason = "the client did not read the response in time";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                self.received();
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.poll_deadline(cx),
            end @ Poll::Ready(_) => end,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes after each response, and does not read again until bytes arrive. So this is where an idle phase
        // begins and where its timer is polled.
        if let Poll::Ready(result) = self.poll_deadline(cx) {
            return Poll::Ready(result);
        }
        // All writes are done before a flush.
        self.write_deadline = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
