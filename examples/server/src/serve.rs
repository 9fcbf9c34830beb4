//! Listening, accepting and stopping.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    time::Duration,
};

use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use socket2::SockRef;
use todo_core::api::TodoApi;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep},
};
use tower::BoxError;

use crate::{
    app::App,
    connection::{Beginning, ConnectionServer, MemoryBudget},
    connection_limit::ConnectionLimit,
    failure::{Failure, error_chain},
    log_budget::LogBudget,
    telemetry,
};

/// Opens the port of the API.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = bind(address, "HOST", "--port").await?;
    if let Err(error) = limit_sockets(&listener) {
        tracing::warn!(%error, "cannot limit the socket buffers and timeouts of connections");
    }
    Ok(listener)
}

/// Limits what the system buffers of each connection, and how long it waits for a client that has gone away. Accepted
/// connections inherit these settings.
fn limit_sockets(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    // The sizes that Linux begins with; it would raise them to many megabytes. It doubles the given numbers.
    socket.set_recv_buffer_size(64 * 1024)?;
    socket.set_send_buffer_size(128 * 1024)?;
    // Of what the client does not read yet, most is kept in the process, where it is counted.
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(16 * 1024)?;
    // A client that vanishes without a word would keep its streams of events for a quarter of an hour.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_mins(1)))?;
    Ok(())
}

/// Opens a port. An error message names the two settings, by which another address or port can be chosen.
pub(crate) async fn bind(address: SocketAddr, host: &str, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let port = address.port();
        Failure::fatal(match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {port} is in use by another program; choose another port: {flag} {}",
                if port == u16::MAX { port - 1 } else { port + 1 }
            ),
            io::ErrorKind::AddrNotAvailable => format!(
                "this machine does not have the address {}; use {host}=127.0.0.1 for this machine only, or {host}=0.0.0.0 for \
                 all networks",
                address.ip()
            ),
            _ => format!("cannot listen on {address}: {error}"),
        })
    })
}

/// The limit of connections: `max`, or fewer if the limit of open files, less `other_files`, is lower.
pub(crate) fn connection_limit(max: usize, other_files: usize) -> ConnectionLimit {
    let Some(files) = raise_open_file_limit() else { return ConnectionLimit::new(max) };
    let possible = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(other_files + OTHER_FILES).max(1);
    if possible < max {
        tracing::warn!(
            open_files = files,
            max_connections = possible,
            "the limit of open files is too low for MAX_CONNECTIONS={max}; at most {possible} connections are accepted"
        );
    }
    ConnectionLimit::new(max.min(possible))
}

/// Files that are open beside connections: logs, listeners, scrapes of metrics, a fetch of keys.
const OTHER_FILES: usize = 64;

/// Raises the limit of open files to its maximum, since each connection is an open file and the usual limit of 1024 is
/// only a default for programs that use `select`. Returns the limit, or `None` if there is none.
fn raise_open_file_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "cannot raise the limit of open files");
        }
        getrlimit(Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}

/// The number of stop signals (SIGTERM, SIGINT, SIGHUP) since this was made.
#[derive(Clone, Debug)]
pub(crate) struct StopSignals(watch::Receiver<u32>);

impl StopSignals {
    /// Starts to count signals. Must be called in a tokio runtime.
    pub(crate) fn subscribe() -> Result<Self, Failure> {
        let (count, signals) = watch::channel(0);
        let counting =
            count_signals(count).map_err(|error| Failure::fatal(format!("cannot handle stop signals: {error}")))?;
        tokio::spawn(counting);
        Ok(Self(signals))
    }

    /// Waits for the first signal, which asks for a graceful stop.
    pub(crate) async fn first(&mut self) {
        self.at_least(1).await;
    }

    /// Waits for another signal than those that have been counted.
    async fn next(&mut self) {
        let count = *self.0.borrow();
        self.at_least(count + 1).await;
    }

    async fn at_least(&mut self, wanted: u32) {
        if self.0.wait_for(|count| *count >= wanted).await.is_err() {
            // Signals are no longer counted, so none will arrive.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
fn count_signals(count: watch::Sender<u32>) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // `nohup` has told this program to ignore it.
    let mut hangup = if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        loop {
            let third = async {
                match &mut hangup {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = third => {}
            }
            count.send_modify(|count| *count += 1);
        }
    })
}

/// Whether the parent has set SIGHUP to be ignored, as far as the system tells.
#[cfg(unix)]
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // The lowest bit is signal 1.
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on Unix it can fail")]
fn count_signals(count: watch::Sender<u32>) -> io::Result<impl Future<Output = ()>> {
    Ok(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            count.send_modify(|count| *count += 1);
        }
    })
}

/// How the server stops.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) signals: StopSignals,
    /// The API, whose readiness probe fails from the first signal on.
    pub(crate) api: TodoApi,
    /// How long connections are accepted after the first signal.
    pub(crate) delay: Duration,
    /// How long open requests may take after that.
    pub(crate) grace: Duration,
}

impl Stop {
    /// Ends when no more connections are to be accepted.
    async fn begun(&self) {
        let mut signals = self.signals.clone();
        signals.first().await;
        self.api.begin_stop();
        if !self.delay.is_zero() {
            tracing::info!("stopping: no longer ready; connections are accepted for another {:?}", self.delay);
            tokio::select! {
                () = sleep(self.delay) => {}
                () = signals.next() => {}
            }
        }
    }
}

/// Serves until the first stop signal, then stops as [`Stop`] says.
///
/// At the connection limit further connections wait in the listen queue of the operating system.
pub(crate) async fn serve(
    listener: TcpListener,
    app: App,
    limit: ConnectionLimit,
    memory: MemoryBudget,
    mut stop: Stop,
) {
    let server = ConnectionServer::default().with_limit(limit.clone()).with_memory(memory);
    let connections = GracefulShutdown::new();
    accept(&listener, &app, &server, &limit, &connections, pin!(stop.begun())).await;
    drop(listener);
    tracing::info!(connections = connections.count(), "stopping: finishing open requests");
    let mut finished = pin!(connections.shutdown());
    tokio::select! {
        () = &mut finished => tracing::info!("stopped"),
        () = sleep(stop.grace) => {
            tracing::warn!("stopped before all requests were finished, after {:?}", stop.grace);
        }
        () = stop.signals.next() => tracing::warn!("stopped at once after another signal"),
    }
}

/// Accepts connections until the stop.
async fn accept(
    listener: &TcpListener,
    app: &App,
    server: &ConnectionServer,
    limit: &ConnectionLimit,
    connections: &GracefulShutdown,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) {
    let mut last_warning = None;
    loop {
        let slot = match limit.try_acquire() {
            Some(slot) => slot,
            None => {
                // At most once a minute, since the log would fill up otherwise.
                if last_warning.is_none_or(|moment: Instant| moment.elapsed() > Duration::from_mins(1)) {
                    last_warning = Some(Instant::now());
                    tracing::warn!(limit = limit.max(), "the connection limit is reached; further connections wait");
                }
                tokio::select! {
                    slot = limit.acquire() => slot,
                    () = &mut stop => break,
                }
            }
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Responses are small and written whole, so a delay gains nothing.
                let _ = stream.set_nodelay(true);
                let open = slot.occupy();
                let lines = LogBudget::default();
                let beginning = Beginning::default();
                let connection = connection(server, stream, app.clone(), lines.clone(), &beginning);
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    let _open = open;
                    // Libraries log what a client sends, too.
                    let Err(error) = lines.scope(connection).await else { return };
                    if let Some(reason) = beginning.unreadable(&*error) {
                        telemetry::unreadable(reason, peer, &*error, &lines);
                    } else {
                        tracing::debug!(%peer, error = error_chain(&*error), "connection closed with an error");
                    }
                });
            }
            Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "connection not accepted"),
            // Most likely too many files are open. Other connections will be closed soon.
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; retrying");
                tokio::select! {
                    () = sleep(Duration::from_millis(500)) => {}
                    () = &mut stop => break,
                }
            }
        }
    }
}

/// Serves one connection.
fn connection<S>(
    server: &ConnectionServer,
    stream: S,
    app: App,
    lines: LogBudget,
    beginning: &Beginning,
) -> impl GracefulConnection<Error = BoxError> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let respond = move |request| telemetry::observe(app.clone(), request, lines.clone());
    server.serve_noting(stream, beginning, respond)
}

/// Whether only this connection failed, so that the next one may be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::{
        any::Any,
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };

    use bytes::Bytes;
    use futures_util::stream;
    use http::{Request, Response};
    use http_body::Frame;
    use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
    use hyper::client::conn::{http1, http2};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tower::{service_fn, util::BoxCloneSyncService};

    use super::*;
    use crate::{app::Body, connection::RequestBody};

    /// Serves a connection with an app that is as slow as a store. Returns the client's end, and how long the
    /// connection was open.
    fn serve_slow_app() -> (DuplexStream, tokio::task::JoinHandle<Duration>) {
        let (client, stream) = duplex(64 * 1024);
        let app = BoxCloneSyncService::new(service_fn(async |_: Request<RequestBody>| {
            sleep(Duration::from_millis(20)).await;
            Ok::<_, Infallible>(Response::new(Body::default()))
        }));
        let connection =
            connection(&ConnectionServer::default(), stream, app, LogBudget::default(), &Beginning::default());
        let open_for = async move {
            let began = Instant::now();
            let _ = connection.await;
            began.elapsed()
        };
        (client, tokio::spawn(open_for))
    }

    fn request() -> Request<Empty<Bytes>> {
        Request::get("http://localhost/").body(Empty::new()).expect("a request")
    }

    /// One request at once and one after a minute; then the connection is idle until the server closes it.
    macro_rules! is_open_for_two_requests {
        ($sender:expr, $driver:expr, $open_for:expr) => {{
            tokio::spawn($driver);
            for _ in 0..2 {
                let response = $sender.send_request(request()).await.expect("a response");
                response.into_body().collect().await.expect("a body");
                sleep(Duration::from_mins(1)).await;
            }
            let open_for = $open_for.await.expect("no panic");
            let expected = Duration::from_mins(1) + Duration::from_secs(75);
            assert!(open_for >= expected && open_for < expected + Duration::from_secs(1), "{open_for:?}");
        }};
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_of_http_1_is_closed_after_its_last_request() {
        let (stream, open_for) = serve_slow_app();
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        is_open_for_two_requests!(sender, driver, open_for);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_of_http_2_is_closed_after_its_last_request() {
        let (stream, open_for) = serve_slow_app();
        let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
        let (mut sender, driver) = handshake.await.expect("a connection");
        is_open_for_two_requests!(sender, driver, open_for);
    }

    /// An app whose responses are streams: an event of this size at each interval, as long as the client takes them.
    /// Counts the events that were made.
    fn app_of_streams(size: usize, interval: Duration) -> (App, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let app = BoxCloneSyncService::new(service_fn(move |_: Request<RequestBody>| {
            let count = count.clone();
            let events = stream::unfold((), move |()| {
                let count = count.clone();
                async move {
                    sleep(interval).await;
                    count.fetch_add(1, Relaxed);
                    Some((Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b'x'; size]))), ()))
                }
            });
            async move { Ok::<_, Infallible>(Response::new(Body::new(StreamBody::new(Box::pin(events))))) }
        }));
        (app, made)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_client_reads_it_stays_open() {
        for is_http_2 in [false, true] {
            let (client, stream) = duplex(64 * 1024);
            let (app, _) = app_of_streams(3, Duration::from_secs(15));
            let connection =
                connection(&ConnectionServer::default(), stream, app, LogBudget::default(), &Beginning::default());
            tokio::spawn(async move {
                let _ = connection.await;
            });
            let client = TokioIo::new(client);
            let mut body = if is_http_2 {
                let handshake = http2::Builder::new(TokioExecutor::new()).handshake(client);
                let (mut sender, driver) = handshake.await.expect("a connection");
                tokio::spawn(driver);
                let body = sender.send_request(request()).await.expect("a response").into_body();
                tokio::spawn(async move {
                    let _sender = sender;
                    sleep(Duration::from_hours(3)).await;
                });
                body
            } else {
                let (mut sender, driver) = http1::handshake(client).await.expect("a connection");
                tokio::spawn(driver);
                sender.send_request(request()).await.expect("a response").into_body()
            };
            for number in 0..480 {
                let frame = body.frame().await.expect("it is open");
                let data = frame.unwrap_or_else(|error| panic!("event {number}, HTTP/2 {is_http_2}: {error}"));
                assert_eq!(data.into_data().expect("data"), "xxx");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_client_reads_nothing_is_closed_and_makes_no_more_events() {
        // Of HTTP/1.1 as many as the pipe takes and two more; of HTTP/2 as many as fit into the window of the stream, which
        // is 2 MiB in this client.
        for (is_http_2, size, most) in [(false, 40_000, 4), (false, 3_000, 26), (true, 40_000, 55)] {
            let (client, stream) = duplex(64 * 1024);
            let (app, made) = app_of_streams(size, Duration::from_millis(10));
            let connection =
                connection(&ConnectionServer::default(), stream, app, LogBudget::default(), &Beginning::default());
            let began = Instant::now();
            let closed = tokio::spawn(async move {
                let error = connection.await.expect_err("it is closed");
                (began.elapsed(), error_chain(&*error))
            });
            // It is kept open.
            let mut unread: Vec<Box<dyn Any + Send>> = Vec::new();
            if is_http_2 {
                let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(client));
                let (mut sender, driver) = handshake.await.expect("a connection");
                tokio::spawn(driver);
                let body = sender.send_request(request()).await.expect("a response").into_body();
                unread.push(Box::new((sender, body)));
            } else {
                let mut client = client;
                client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a pipe");
                unread.push(Box::new(client));
            }
            let (open_for, reason) = closed.await.expect("no panic");
            let limit = if is_http_2 { Duration::from_mins(2) } else { Duration::from_secs(30) };
            assert!(
                open_for >= limit && open_for < limit + Duration::from_secs(2),
                "{is_http_2} {open_for:?} {reason}"
            );
            assert!(reason.contains("did not read the response"), "{reason}");
            assert!(made.load(Relaxed) <= most, "{is_http_2} {size} {}", made.load(Relaxed));
        }
    }

    /// A client that accepts no byte of a response, and opens another request now and then.
    #[tokio::test(start_paused = true)]
    async fn a_connection_of_http_2_whose_client_reads_nothing_is_closed_in_spite_of_requests() {
        let (client, stream) = duplex(64 * 1024);
        let app = BoxCloneSyncService::new(service_fn(async |_: Request<RequestBody>| {
            Ok::<_, Infallible>(Response::new(Body::new(Full::from(vec![7; 1000]).map_err(BoxError::from))))
        }));
        let connection =
            connection(&ConnectionServer::default(), stream, app, LogBudget::default(), &Beginning::default());
        let began = Instant::now();
        let closed = tokio::spawn(async move {
            let error = connection.await.expect_err("it is closed");
            (began.elapsed(), error_chain(&*error))
        });
        let mut client_of_nothing = http2::Builder::new(TokioExecutor::new());
        client_of_nothing.initial_stream_window_size(0);
        let (mut sender, driver) = client_of_nothing.handshake(TokioIo::new(client)).await.expect("a connection");
        tokio::spawn(driver);
        let mut unread = Vec::new();
        while !closed.is_finished() {
            if let Ok(response) = sender.send_request(request()).await {
                unread.push(response);
            }
            sleep(Duration::from_secs(50)).await;
        }
        let (open_for, reason) = closed.await.expect("no panic");
        assert!(open_for >= Duration::from_mins(2) && open_for < Duration::from_secs(121), "{open_for:?} {reason}");
        assert!(reason.contains("did not read the response") && unread.len() == 3, "{reason}");
    }
}
