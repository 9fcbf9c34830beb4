//! How much a connection may be told, and how long it may take for what it does.
//!
//! hyper has one limit for the head of a request, which also ends a connection that merely rests between two. A
//! gateway that reuses connections then runs into one that is just being closed, and its user sees an error. So the
//! limits are here, and apart: a head that has begun is soon there; a resting connection may rest for longer than
//! gateways let it; and whoever does not take an answer is not waited for. The time of an answer itself is the API's
//! business.
//!
//! When nearly as many connections are open as there may be, a rest is short: those who have something to say go first.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::crowd::Crowd;

/// From the first byte of a request, or from the beginning of the connection, to the end of the head.
const HEAD: Duration = Duration::from_secs(10);
/// From an answer to the next request. More than the 60 seconds after which usual gateways close.
const REST: Duration = Duration::from_secs(75);
/// The same while there are nearly too many connections. How often that is looked at, too.
const CROWDED_REST: Duration = Duration::from_secs(10);
/// How long the other side may take no byte of an answer.
const STALL: Duration = Duration::from_secs(30);
/// How long it may take the whole of what is written, so that nobody holds an answer by a byte now and then.
const TAKING: Duration = Duration::from_mins(2);

/// How much a connection may be told.
pub(crate) fn builder() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        // The limits of time are those of [`Limited`].
        .header_read_timeout(None)
        // Else hyper 1.12 may refuse what cannot be read in the middle of the answer before it, if that is not taken
        // at once (`on_parse_error`, which does not ask `can_write_head`); a seed of the fuzzer shows it.
        .writev(false)
        .max_headers(100)
        // The head of a request has to fit; a larger one is answered with 431.
        .max_buf_size(64 * 1024);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(200)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    server
}

/// The requests of one connection, as far as the connection itself has to know of them.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Those among whom the connection is, if there is a limit to them.
    crowd: Option<Crowd>,
    begun: AtomicU64,
    ended: AtomicU64,
    multiplexed: AtomicBool,
}

impl Activity {
    pub(crate) fn among(crowd: Crowd) -> Self {
        Self { crowd: Some(crowd), ..Self::default() }
    }

    fn is_crowded(&self) -> bool {
        self.crowd.as_ref().is_some_and(Crowd::is_tight)
    }

    /// A request whose head is there. It lasts until the returned value is dropped.
    pub(crate) fn begin(self: &Arc<Self>, version: http::Version) -> Busy {
        self.multiplexed.store(version == http::Version::HTTP_2, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Release);
        Busy(Arc::clone(self))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet of the next request.
    Rest,
    /// Its head is coming.
    Head,
    /// It is being answered.
    Answer,
}

/// A stream that fails when its limits of time are over.
pub(crate) struct Limited<S> {
    stream: S,
    activity: Arc<Activity>,
    phase: Phase,
    /// When the phase began.
    began: Instant,
    /// When it must be over; without meaning during an answer.
    deadline: Instant,
    /// How many requests had begun when the phase did.
    seen: u64,
    alarm: Pin<Box<Sleep>>,
    /// Set while the other side takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    /// By when it must have taken what is written, if it could not take all at once.
    taken_by: Option<Instant>,
}

impl<S> Limited<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        let began = Instant::now();
        let deadline = began + HEAD;
        Self {
            stream,
            activity,
            phase: Phase::Head,
            began,
            deadline,
            seen: 0,
            alarm: Box::pin(sleep_until(deadline)),
            stall: None,
            taken_by: None,
        }
    }

    fn enter(&mut self, phase: Phase, limit: Duration) {
        self.phase = phase;
        self.began = Instant::now();
        self.deadline = self.began + limit;
    }

    /// Catches up with what requests have done since the last look.
    fn update(&mut self) {
        let ended = self.activity.ended.load(Ordering::Acquire);
        let begun = self.activity.begun.load(Ordering::Acquire);
        if begun != ended {
            self.phase = Phase::Answer;
        } else if self.phase == Phase::Answer || self.seen != begun {
            self.enter(Phase::Rest, REST);
        }
        self.seen = begun;
    }

    fn heard(&mut self) {
        self.update();
        // Frames of HTTP/2 are more than requests: there a rest ends when a request has begun.
        if self.phase == Phase::Rest && !self.activity.multiplexed.load(Ordering::Relaxed) {
            self.enter(Phase::Head, HEAD);
        }
    }

    /// Pending, until the phase takes too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.update();
        if self.phase == Phase::Answer {
            return Poll::Pending;
        }
        // An alarm that rings too early costs less than one that is set anew for each request.
        if self.alarm.deadline() > self.deadline {
            self.alarm.as_mut().reset(self.deadline);
        }
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            let now = Instant::now();
            let rests = self.phase == Phase::Rest;
            let what = if now >= self.deadline {
                if rests { "no further request has come" } else { "no whole request has come in time" }
            } else if rests && now - self.began >= CROWDED_REST && self.activity.is_crowded() {
                "no further request has come, and others need the place"
            } else {
                let next = if rests { self.deadline.min(now + CROWDED_REST) } else { self.deadline };
                self.alarm.as_mut().reset(next);
                continue;
            };
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
        }
    }

    fn poll_written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let now = Instant::now;
        if written.is_ready() {
            self.stall = None;
            if self.taken_by.is_none_or(|end| now() < end) {
                return written;
            }
        } else {
            let end = *self.taken_by.get_or_insert_with(|| now() + TAKING);
            let stall = self.stall.get_or_insert_with(|| Box::pin(sleep_until(end.min(now() + STALL))));
            ready!(stall.as_mut().poll(cx));
        }
        let what = "the answer is not being taken";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                self.heard();
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.poll_deadline(cx),
            end @ Poll::Ready(_) => end,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
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
        // hyper reads during an answer, to notice when the caller goes away, and not again after it until something
        // comes. So this is where a rest is seen to begin: whoever has answered flushes.
        if let Poll::Ready(result) = self.poll_deadline(cx) {
            return Poll::Ready(result);
        }
        // Whoever flushes has written all there was.
        self.taken_by = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
