//! The stream of events with which a client follows the changes of its tasks.
//!
//! A stream is driven by the one who reads it: it does nothing while the client reads nothing, and ends when it is
//! dropped. It holds at most one page that the client has not taken.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    changes::{self, ChangesPage},
    error::{ApiError, SERVER},
    field_errors::FieldErrors,
    input::Query,
    log::report,
    response::empty,
    response_body::ResponseBody,
    running::Running,
    sync_token::{NotAToken, SyncToken},
};
use crate::{
    Limit, UserId,
    auth::{AuthError, Identity},
    clock::Jitter,
    service::listeners::Listening,
    store::SyncPoint,
};

/// The content type of the stream.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
pub(super) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// The number of streams that one user may have open.
pub(super) const MAX_STREAMS: usize = 16;
/// The interval of comments, and of the questions whether the caller is still accepted.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);
/// The interval of the questions while the credential has expired and is accepted yet, and the shortest interval.
const EXPIRED_INTERVAL: Duration = Duration::from_secs(2);
const SHORT_INTERVAL: Duration = Duration::from_millis(20);
/// The longest time of a stream whose credential does not expire.
const MAX_TIME: Duration = Duration::from_hours(1);
/// The shortest time between two reads of a stream, so that many writes in a row lead to few reads.
const READ_INTERVAL: Duration = Duration::from_millis(100);
/// The longest pause after reads that failed.
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// After how many milliseconds a client connects again, and the most after a stop of the server.
const RETRY: u32 = 3000;
const RETRY_AFTER_STOP: Duration = Duration::from_secs(4);

/// Makes the response: the stream from the token of the request on, or from nothing.
pub(super) async fn open(
    running: &Running,
    head: &Parts,
    identity: Identity,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut errors = FieldErrors::default();
    let mut query = Query::parse(head.uri.query());
    let since = query.since(&mut errors);
    query.reject_rest(&mut errors);
    let last = last_event(head, &mut errors);
    errors.check()?;
    if running.is_stopping() {
        return Err(ApiError::NotReady { failed: vec![SERVER] });
    }
    let tasks = running.service.for_user(identity.user_id.clone());
    // A browser that connects again repeats the query, and says in the header how far it has come.
    let since = last.or(since).map(|token| changes::point_of(token, &tasks)).transpose()?;
    // Before the first read, so that no change is missed.
    let listening = running.service.listeners().listen(&identity.user_id, MAX_STREAMS);
    let listening = listening.map_err(|_| ApiError::TooManyStreams { max: MAX_STREAMS })?;
    let first = changes::page(&tasks, since, Limit::default()).await?;

    let now = Instant::now();
    let mut stream = EventStream {
        running: running.clone(),
        head: head.clone(),
        user_id: identity.user_id.clone(),
        listening,
        since,
        ready: Some(Bytes::from(format!("retry: {RETRY}\n{}", event(&first)))),
        work: None,
        is_behind: false,
        is_accepted: true,
        read_at: now,
        failures: 0,
        comment_at: now + COMMENT_INTERVAL,
        check_at: now + COMMENT_INTERVAL,
        ends_at: identity.expires_at.is_none().then(|| now + MAX_TIME),
        has_ended: false,
    };
    stream.advance(&first);
    stream.check_by(&identity);
    let mut response = empty(StatusCode::OK).map(|_| ResponseBody::stream(Unfolded::new(stream)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    // nginx would collect the events.
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The token of the last event that the client has received.
fn last_event(head: &Parts, errors: &mut FieldErrors) -> Option<SyncToken> {
    let mut values = head.headers.get_all(LAST_EVENT_ID).iter();
    let token = values.next()?.to_str().ok().and_then(|text| text.parse().ok());
    if values.next().is_some() {
        errors.add(LAST_EVENT_ID, "must be given only once");
        return None;
    }
    if token.is_none() {
        errors.add(LAST_EVENT_ID, NotAToken.to_string());
    }
    token
}

fn event(page: &ChangesPage) -> String {
    // JSON has no line breaks.
    let json = String::from_utf8_lossy(&page.json);
    format!("event: changes\nid: {}\ndata: {json}\n\n", page.token)
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a stream waits for while it works.
enum Done {
    Read(Result<ChangesPage, ApiError>),
    /// `None` if it took too long.
    Checked(Option<Result<Identity, AuthError>>),
    /// Revisions were asked for.
    Polled,
}

struct EventStream {
    running: Running,
    /// The head of the request, with which the authenticator is asked again.
    head: Parts,
    user_id: UserId,
    listening: Listening,
    since: Option<SyncPoint>,
    /// What the client gets next.
    ready: Option<Bytes>,
    work: Option<Work<Done>>,
    /// Whether there may be changes after `since`.
    is_behind: bool,
    /// Whether the last question has found the caller accepted.
    is_accepted: bool,
    /// When changes may be read next.
    read_at: Instant,
    /// How many reads in a row have failed.
    failures: u32,
    comment_at: Instant,
    /// When to ask whether the caller is still accepted.
    check_at: Instant,
    ends_at: Option<Instant>,
    has_ended: bool,
}

/// Why a stream goes on.
enum Woken {
    Changed,
    Done(Done),
    Time,
}

impl EventStream {
    /// What the client gets next, or `None` at the end.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            if self.has_ended {
                return None;
            }
            if self.running.is_stopping() {
                // At different moments, so that not all clients come at once.
                let retry = Jitter::shared().spread(RETRY_AFTER_STOP).as_millis();
                self.has_ended = true;
                return Some((format!("retry: {retry}\n\n").into(), self));
            }
            let now = Instant::now();
            if self.ends_at.is_some_and(|end| now >= end) {
                return None;
            }
            // Nothing is sent while the caller may not be accepted any more.
            if self.is_accepted
                && now < self.check_at
                && let Some(bytes) = self.ready.take()
            {
                return Some((bytes, self));
            }
            if now >= self.comment_at {
                self.comment_at = now + COMMENT_INTERVAL;
                return Some((Bytes::from_static(b":\n\n"), self));
            }
            if self.work.is_none() {
                self.work = self.next_work(now);
            }
            match self.wait().await {
                Woken::Changed => self.is_behind = true,
                Woken::Done(done) => {
                    self.work = None;
                    self.finish(done);
                }
                Woken::Time => {}
            }
        }
    }

    fn next_work(&mut self, now: Instant) -> Option<Work<Done>> {
        let running = self.running.clone();
        if now >= self.check_at {
            let head = self.head.clone();
            return Some(Box::pin(async move {
                let admitted = timeout(running.timeout, running.admit(&head)).await;
                Done::Checked(admitted.ok().map(|admitted| admitted.map(|(identity, _)| identity)))
            }));
        }
        if self.may_read() && now >= self.read_at {
            self.is_behind = false;
            self.read_at = now + READ_INTERVAL;
            let (owner, since) = (self.user_id.clone(), self.since);
            return Some(Box::pin(async move {
                let tasks = running.service.for_user(owner);
                let read = timeout(running.timeout, changes::page(&tasks, since, Limit::default())).await;
                Done::Read(read.unwrap_or_else(|_| Err(ApiError::Timeout { limit: running.timeout })))
            }));
        }
        let turn = self.listening.listeners().begin_poll()?;
        Some(Box::pin(async move {
            running.service.poll(turn).await;
            Done::Polled
        }))
    }

    fn may_read(&self) -> bool {
        self.is_behind && self.is_accepted && self.ready.is_none()
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) -> Woken {
        let mut until = self.comment_at;
        if let Some(end) = self.ends_at {
            until = until.min(end);
        }
        if self.work.is_none() {
            until = until.min(self.check_at).min(self.listening.listeners().next_poll());
            if self.may_read() {
                until = until.min(self.read_at);
            }
        }
        let (mut changed, mut time) = (pin!(self.listening.changed()), pin!(sleep_until(until)));
        poll_fn(|context| {
            if let Some(work) = &mut self.work
                && let Poll::Ready(done) = work.as_mut().poll(context)
            {
                return Poll::Ready(Woken::Done(done));
            }
            if changed.as_mut().poll(context).is_ready() {
                return Poll::Ready(Woken::Changed);
            }
            time.as_mut().poll(context).map(|()| Woken::Time)
        })
        .await
    }

    fn finish(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Polled => {}
            Done::Read(Ok(page)) => {
                self.failures = 0;
                self.advance(&page);
                if page.more {
                    self.read_at = now;
                }
                if !page.is_empty {
                    self.ready = Some(event(&page).into());
                }
            }
            // The client connects again and is told.
            Done::Read(Err(ApiError::SyncTokenExpired)) => self.has_ended = true,
            Done::Read(Err(error)) => {
                if self.failures == 0 {
                    report(&error);
                }
                let pause = Duration::from_secs(1 << self.failures.min(5)).min(MAX_PAUSE);
                self.failures += 1;
                self.is_behind = true;
                self.read_at = now + Jitter::shared().spread(pause);
            }
            Done::Checked(Some(Ok(identity))) if identity.user_id == self.user_id => {
                self.is_accepted = true;
                self.check_at = now + COMMENT_INTERVAL;
                self.check_by(&identity);
            }
            // The caller is accepted, and may only send no requests now.
            Done::Checked(Some(Err(AuthError::RateLimited { .. } | AuthError::OverQuota(_)))) => {
                self.is_accepted = true;
                self.check_at = now + COMMENT_INTERVAL;
            }
            Done::Checked(None) => self.check_again(now, Duration::from_secs(1)),
            Done::Checked(Some(Err(
                AuthError::Unavailable { retry_after, .. } | AuthError::KeyMayBeNew { retry_after },
            ))) => self.check_again(now, retry_after),
            Done::Checked(_) => self.has_ended = true,
        }
    }

    /// Nobody can say now whether the caller is accepted.
    fn check_again(&mut self, now: Instant, after: Duration) {
        self.is_accepted = false;
        self.check_at = now + after.clamp(Duration::from_secs(1), COMMENT_INTERVAL);
    }

    /// The client will have received this page.
    fn advance(&mut self, page: &ChangesPage) {
        self.since = Some(page.next);
        self.is_behind |= page.more;
        self.listening.knows((!page.more).then_some(page.next.revision));
    }

    /// Asks whether the caller is accepted when the credential expires.
    fn check_by(&mut self, identity: &Identity) {
        let left =
            identity.expires_at.map(|end| end.unix_micros().saturating_sub(self.running.service.now().unix_micros()));
        if let Some(left) = left {
            // One that is accepted although it has expired will not be for long.
            let left = u64::try_from(left).map_or(EXPIRED_INTERVAL, Duration::from_micros).max(SHORT_INTERVAL);
            self.check_at = self.check_at.min(Instant::now() + left);
        }
    }
}

/// A stream made of a function of its state.
struct Unfolded {
    next: Option<Work<Option<(Bytes, EventStream)>>>,
}

impl Unfolded {
    fn new(stream: EventStream) -> Self {
        Self { next: Some(Box::pin(stream.next())) }
    }
}

impl Stream for Unfolded {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let Poll::Ready(item) = next.as_mut().poll(context) else { return Poll::Pending };
        self.next = None;
        Poll::Ready(item.map(|(bytes, stream)| {
            self.next = Some(Box::pin(stream.next()));
            bytes
        }))
    }
}
