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
//! | a client that does not read the whole of a response, or of an event | 2 min |
//! | the rest of a body after a response that did not need it (at most 32 MiB) | 10 s |
//!
//! A response that is a stream of events has no time limit of its own, and is not idle. Of a stream the connection takes
//! the next event when the client has taken the one before.
//!
//! The time limit of a request is that of the API (`REQUEST_TIMEOUT_SECONDS`). Heads have at most 100 headers and 64
//! KiB; larger ones reach the program, up to 200 headers and 256 KiB, so that it can respond to them. The memory for requests and for responses that are not read has a limit over all connections, the setting
//! `CONNECTION_MEMORY_MIB`.

mod body;
mod memory;
mod rest;
mod stream;
mod unreadable;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::BoxError;

pub use self::body::RequestBody;
pub(crate) use self::{
    memory::{DEFAULT_MIB, MemoryBudget},
    unreadable::{Beginning, Unreadable},
};

use self::{
    body::{ResponseBody, hold_request, target_length},
    rest::Rest,
    stream::{Activity, MAX_BUFFER, TimedStream},
};
use crate::connection_limit::ConnectionLimit;

/// The maximum number of headers of a request.
pub(crate) const MAX_HEADERS: usize = 100;
/// The maximum size of the head of a request: method, target and headers.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Whether the head of a request exceeds [`MAX_HEADERS`] or [`MAX_HEAD`].
pub(crate) fn has_large_head<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if headers.len() > MAX_HEADERS {
        return true;
    }
    // As HTTP/1.1 writes it: spaces, the version, a colon and the ends of lines.
    let line = request.method().as_str().len() + target_length(request) + 12;
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    line + size + 2 > MAX_HEAD
}

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
    memory: MemoryBudget,
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
            // Of larger heads, hyper itself rejects the rest, without a body.
            .max_headers(2 * MAX_HEADERS)
            .max_buf_size(MAX_BUFFER);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(200)
            .max_header_list_size(256 * 1024)
            // What a client may send of bodies that the API does not read yet.
            .initial_stream_window_size(128 * 1024)
            .initial_connection_window_size(256 * 1024)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        Self { http, limit: None, memory: MemoryBudget::default() }
    }
}

impl ConnectionServer {
    /// Closes idle connections early while this limit is nearly reached.
    pub(crate) fn with_limit(self, limit: ConnectionLimit) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Closes connections when all together exceed this budget.
    pub(crate) fn with_memory(self, memory: MemoryBudget) -> Self {
        Self { memory, ..self }
    }

    /// Serves one connection until the client or a limit closes it. Each request goes to `respond`.
    pub fn serve<S, R, F, B, E>(
        &self,
        stream: S,
        respond: R,
    ) -> impl GracefulConnection<Error = BoxError> + Send + use<S, R, F, B, E>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        R: Fn(Request<RequestBody>) -> F + Send + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
        E: Into<BoxError> + 'static,
    {
        self.serve_noting(stream, &Beginning::default(), respond)
    }

    /// Serves one connection, and notes how its bytes begin.
    pub(crate) fn serve_noting<S, R, F, B, E>(
        &self,
        stream: S,
        beginning: &Beginning,
        respond: R,
    ) -> impl GracefulConnection<Error = BoxError> + Send + use<S, R, F, B, E>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        R: Fn(Request<RequestBody>) -> F + Send + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
        E: Into<BoxError> + 'static,
    {
        let account = self.memory.open_account();
        let activity = Arc::new(Activity::new(self.limit.clone(), account.account().clone(), beginning.clone()));
        let stream = TimedStream::new(stream, activity.clone(), account);
        let service = service_fn(move |request: Request<Incoming>| {
            let version = request.version();
            let active = activity.begin(version);
            let account = activity.account().clone();
            let open_request = hold_request(&account, &request);
            let (rest, active) = match Rest::of(&request, active) {
                Ok(rest) => (Some(rest), None),
                Err(active) => (None, Some(active)),
            };
            let response = respond(request.map(|body| RequestBody::new(body, open_request.clone(), rest.clone())));
            let activity = activity.clone();
            async move {
                let (mut head, body) = response.await?.into_parts();
                if version == Version::HTTP_2
                    && let Some(rest) = &rest
                {
                    rest.read_first().await;
                }
                let mut body = ResponseBody::new(account, version == Version::HTTP_2, body).await;
                if body.is_stream() {
                    body.keep_active(activity.begin(version));
                }
                drop((active, open_request));
                if rest.as_ref().is_some_and(|rest| rest.ends_the_connection()) {
                    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, E>(Response::from_parts(head, body.before_the_rest_of(rest)))
            }
        });
        self.http.serve_connection(TokioIo::new(stream), service).into_owned()
    }
}
