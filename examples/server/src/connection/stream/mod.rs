//! A stream with the time limits of a connection.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Version;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    memory::{Account, OpenAccount},
    unreadable::Beginning,
};
use crate::connection_limit::ConnectionLimit;

pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// More than the 60 seconds after which usual proxies close a connection.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The idle timeout while the connection limit is nearly reached, and the interval of that check.
pub(super) const SHORT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Closes a connection whose client reads a byte now and then, or opens other requests instead of reading.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_mins(2);
/// The maximum size of hyper's buffer for reading, and so of a head that it parses.
pub(super) const MAX_BUFFER: usize = 256 * 1024;
/// What hyper reads at a time. Only a larger head is counted before it is complete.
const SMALL_HEAD: usize = 8 * 1024;
/// A piece of a body, and the head of its response.
const SMALL_WRITE: usize = 20 * 1024;
/// The buffers of hyper, and the sizes up to which they are not counted.
const READ: (usize, usize) = (0, SMALL_HEAD);
const WRITE: (usize, usize) = (1, SMALL_WRITE);

/// The requests of one connection, as far as its limits depend on them.
#[derive(Debug)]
pub(super) struct Activity {
    limit: Option<ConnectionLimit>,
    account: Arc<Account>,
    beginning: Beginning,
    begun: AtomicU64,
    ended: AtomicU64,
    is_http_2: AtomicBool,
}

impl Activity {
    pub(super) fn new(limit: Option<ConnectionLimit>, account: Arc<Account>, beginning: Beginning) -> Self {
        let (begun, ended) = Default::default();
        Self { limit, account, beginning, begun, ended, is_http_2: AtomicBool::new(false) }
    }

    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    fn limit_is_nearly_reached(&self) -> bool {
        self.limit.as_ref().is_some_and(ConnectionLimit::is_nearly_reached)
    }

    /// Notes a request whose head has been received. It is active until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> ActiveRequest {
        self.is_http_2.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Release);
        ActiveRequest(Arc::clone(self))
    }
}

/// A request without a response yet, or whose body is still being read.
#[derive(Debug)]
pub(super) struct ActiveRequest(Arc<Activity>);

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

/// A stream that fails when a time limit or the memory budget is exceeded.
pub(super) struct TimedStream<S> {
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
    /// Since when there are bytes to write that did not fit into the buffer of the system.
    unwritten_since: Option<Instant>,
    /// How many bytes were received since the last request began.
    received: usize,
    /// What is counted of an unfinished head of HTTP/2.
    held_of_head: usize,
    /// What is counted of hyper's buffers of HTTP/1.1 for reading and writing. Once they have grown, they keep their
    /// size.
    held_buffers: [usize; 2],
    account: OpenAccount,
}

impl<S> TimedStream<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>, account: OpenAccount) -> Self {
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
            unwritten_since: None,
            received: 0,
            held_of_head: 0,
            held_buffers: [0; 2],
            account,
        }
    }

    fn account(&self) -> &Account {
        self.account.account()
    }

    fn is_http_2(&self) -> bool {
        self.activity.is_http_2.load(Ordering::Relaxed)
    }

    /// Ready with an error once the connection must be closed because of the memory budget.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.account().wake_when_closed(cx.waker());
        if self.account().is_closed() { Poll::Ready(Err(closed())) } else { Poll::Pending }
    }

    /// Counts an unfinished head of HTTP/2 of this size.
    fn hold_head(&mut self, bytes: usize) {
        if (bytes == 0) != (self.held_of_head == 0) {
            self.account().head_is_held_since((bytes > 0).then(Instant::now));
        }
        let before = std::mem::replace(&mut self.held_of_head, bytes);
        self.account().change(before, bytes);
    }

    /// Notes that one of hyper's buffers has this number of bytes.
    fn buffer_has(&mut self, (buffer, small): (usize, usize), bytes: usize) {
        let before = self.held_buffers[buffer];
        if bytes > before.max(small) && !self.is_http_2() {
            if self.held_buffers == [0; 2] {
                self.account().buffers_have_grown();
            }
            self.held_buffers[buffer] = bytes;
            self.account().change(before, bytes);
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
        let is_idle = begun == ended && !self.account().has_unread_responses();
        let enters_idle = is_idle && (self.phase == Phase::Response || self.begun_requests != begun);
        if enters_idle || self.begun_requests != begun {
            self.received = 0;
            self.hold_head(0);
        }
        if enters_idle {
            self.enter(Phase::Idle, IDLE_TIMEOUT);
        } else if !is_idle {
            self.phase = Phase::Response;
        }
        self.begun_requests = begun;
    }

    /// Bytes were received into a buffer that had room for `room`.
    fn received(&mut self, count: usize, room: usize) {
        self.update();
        // HTTP/2 has frames that belong to no request: there an idle connection stays idle until a request has begun.
        if self.phase == Phase::Idle && !self.is_http_2() {
            self.enter(Phase::Head, HEAD_TIMEOUT);
        }
        self.received = self.received.saturating_add(count).min(MAX_BUFFER);
        if !self.is_http_2() {
            // The buffer has the whole head, but of a body only what is passed on next.
            let is_body = self.phase == Phase::Response;
            self.buffer_has(READ, if is_body { self.received.min(2 * room) } else { self.received });
        } else if self.received > SMALL_HEAD {
            // A head is decoded piece by piece, and the pieces are kept as well. (It may also be other frames.)
            self.hold_head(2 * self.received);
        }
    }

    /// Ready with an error once the phase has exceeded its time limit.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.update();
        // A timer that expires too early costs less than a timer that is reset for each request.
        if self.phase != Phase::Response && self.timer.deadline() > self.deadline {
            self.timer.as_mut().reset(self.deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.phase == Phase::Response {
                // A response that is made later has a later deadline.
                let deadline = self.account().oldest_response().unwrap_or(now) + WRITE_TIMEOUT;
                if now >= deadline {
                    return Poll::Ready(Err(unread()));
                }
                self.timer.as_mut().reset(deadline);
                continue;
            }
            let is_idle = self.phase == Phase::Idle;
            let reason = if now >= self.deadline {
                if !is_idle && self.received > 0 {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, SlowHead)));
                }
                "the connection was idle for too long"
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

    /// Continues a write of this length.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.buffer_has(WRITE, length);
        let now = Instant::now;
        if let Poll::Ready(result) = written {
            self.stall_timer = None;
            if self.unwritten_since.is_some_and(|since| now() >= since + WRITE_TIMEOUT) {
                return Poll::Ready(Err(unread()));
            }
            return Poll::Ready(result);
        }
        if let Poll::Ready(Err(error)) = self.poll_closed(cx) {
            return Poll::Ready(Err(error));
        }
        let since = match self.unwritten_since {
            Some(since) => since,
            None => {
                let response = if self.is_http_2() { None } else { self.account().oldest_response() };
                self.account().write_buffer_holds_since(response.unwrap_or_else(now))
            }
        };
        self.unwritten_since = Some(since);
        let stalled = || Box::pin(sleep_until((since + WRITE_TIMEOUT).min(now() + WRITE_STALL_TIMEOUT)));
        ready!(self.stall_timer.get_or_insert_with(stalled).as_mut().poll(cx));
        Poll::Ready(Err(unread()))
    }
}

impl<S> Drop for TimedStream<S> {
    fn drop(&mut self) {
        let held: usize = self.held_buffers.iter().sum();
        self.account().change(self.held_of_head + held, 0);
    }
}

/// The head of a request was begun and not finished in time.
#[derive(Debug)]
pub(super) struct SlowHead;

impl fmt::Display for SlowHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the head of a request took too long")
    }
}

impl Error for SlowHead {}

fn unread() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client did not read the response in time")
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, "connections held too much memory, and this one for the longest time")
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.account().is_closed() {
            return Poll::Ready(Err(closed()));
        }
        let (before, room) = (buf.filled().len(), buf.remaining());
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                if self.received == 0 && self.phase == Phase::Head {
                    let bytes = &buf.filled()[before..];
                    if bytes.starts_with(b"PRI ") {
                        // The first bytes of HTTP/2.
                        self.activity.is_http_2.store(true, Ordering::Relaxed);
                    }
                    self.activity.beginning.note(bytes);
                }
                self.received(buf.filled().len() - before, room);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if let Poll::Ready(Err(error)) = self.poll_closed(cx) {
                    return Poll::Ready(Err(error));
                }
                self.poll_deadline(cx)
            }
            end @ Poll::Ready(_) => end,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.poll_written(cx, buf.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_written(cx, length, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes after each response, and does not read again until bytes arrive. So this is where an idle phase
        // begins and where its timer is polled.
        if self.account().is_closed() {
            return Poll::Ready(Err(closed()));
        }
        if let Poll::Ready(result) = self.poll_deadline(cx) {
            return Poll::Ready(result);
        }
        // All writes are done before a flush.
        self.unwritten_since = None;
        self.account().write_buffer_is_empty();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
