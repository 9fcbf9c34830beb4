//! Listening, accepting and stopping.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    app::App,
    connection::{Activity, Limited, builder},
    crowd::Crowd,
    failure::Failure,
    settings::causes,
    telemetry,
    untaken::Untaken,
};

/// Opens the port.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    bind(address, "HOST", "--port").await
}

/// Opens a port that these two settings choose.
pub(crate) async fn bind(address: SocketAddr, host: &str, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let port = address.port();
        Failure::fatal(match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {port} is taken by another program; choose another one: {flag} {}",
                if port == u16::MAX { port - 1 } else { port + 1 }
            ),
            io::ErrorKind::AddrNotAvailable => format!(
                "this machine has no address {}; {host}=127.0.0.1 is this machine alone, {host}=0.0.0.0 all its networks",
                address.ip()
            ),
            _ => format!("cannot listen on {address}: {error}"),
        })
    })
}

/// Room for so many connections, or for as many as there may be open files, less those that others need.
pub(crate) fn crowd(wanted: usize, others: usize) -> Crowd {
    let Some(files) = raise_open_file_limit() else { return Crowd::of_at_most(wanted) };
    let possible = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(others + OTHER_FILES).max(1);
    if possible < wanted {
        tracing::warn!(
            open_files = files,
            "as the limit of open files is, there can be {possible} connections at once, not {wanted}"
        );
    }
    Crowd::of_at_most(wanted.min(possible))
}

/// What is open beside connections: logs, listeners, files of SQLite, whoever looks at metrics, a fetch of keys.
const OTHER_FILES: usize = 64;

/// A connection is an open file, and the usual limit of 1024 is there for programs older than `poll`. Answers the
/// limit, if there is one.
fn raise_open_file_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
        getrlimit(Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}

/// The signals that ask to stop (SIGTERM, SIGINT), from the moment this is made.
#[derive(Clone, Debug)]
pub(crate) struct StopSignals(watch::Receiver<u32>);

impl StopSignals {
    /// Begins to listen to signals. Within a runtime only.
    pub(crate) fn subscribe() -> io::Result<Self> {
        let (count, signals) = watch::channel(0);
        tokio::spawn(count_signals(count)?);
        Ok(Self(signals))
    }

    /// Somebody asks to stop.
    pub(crate) async fn asked(&mut self) {
        self.count_to(1).await;
    }

    /// Somebody asks again, and means at once.
    async fn insisted(&mut self) {
        self.count_to(2).await;
    }

    async fn count_to(&mut self, wanted: u32) {
        if self.0.wait_for(|count| *count >= wanted).await.is_err() {
            // Nobody listens to signals any more, so there will not be one.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
fn count_signals(count: watch::Sender<u32>) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            count.send_modify(|count| *count += 1);
        }
    })
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn count_signals(count: watch::Sender<u32>) -> io::Result<impl Future<Output = ()>> {
    Ok(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            count.send_modify(|count| *count += 1);
        }
    })
}

/// Serves until asked to stop, then finishes what is in flight, for `grace` at most.
///
/// While there are as many connections as there may be, others wait in the queue of the system.
pub(crate) async fn serve(listener: TcpListener, app: App, crowd: Crowd, mut stop: StopSignals, grace: Duration) {
    let server = builder();
    let connections = GracefulShutdown::new();
    let mut told = None;
    loop {
        let place = match crowd.place_now() {
            Some(place) => place,
            None => {
                // Once a minute, or the log is the next thing that is too full.
                if told.is_none_or(|moment: Instant| moment.elapsed() > Duration::from_mins(1)) {
                    told = Some(Instant::now());
                    tracing::warn!(limit = crowd.limit(), "as many connections as there may be; others wait");
                }
                tokio::select! {
                    place = crowd.place() => place,
                    () = stop.asked() => break,
                }
            }
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.asked() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Answers are small and written whole: nothing is gained by waiting for more.
                let _ = stream.set_nodelay(true);
                let activity = Activity::among(crowd.clone());
                let taken = place.taken_in(&crowd);
                let connection = connection(&server, &connections, stream, activity, app.clone());
                tokio::spawn(async move {
                    let _taken = taken;
                    if let Err(error) = connection.await {
                        tracing::debug!(%peer, error = causes(&*error), "a connection has broken off");
                    }
                });
            }
            // The connection is gone already; the next one need not be.
            Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "a connection was not accepted"),
            // Most likely too many open files. Others close soon.
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections now; trying again");
                tokio::select! {
                    () = sleep(Duration::from_millis(500)) => {}
                    () = stop.asked() => break,
                }
            }
        }
    }
    drop(listener);
    tracing::info!("stopping: finishing {} open connections", connections.count());
    let mut finished = pin!(connections.shutdown());
    tokio::select! {
        () = &mut finished => tracing::info!("stopped"),
        () = sleep(grace) => tracing::warn!("stopped, although some requests were not finished in {grace:?}"),
        () = stop.insisted() => tracing::warn!("stopped at once, as asked for the second time"),
    }
}

/// Serves one connection to its end.
fn connection<S>(
    server: &auto::Builder<TokioExecutor>,
    connections: &GracefulShutdown,
    stream: S,
    activity: Activity,
    app: App,
) -> impl Future<Output = Result<(), tower::BoxError>> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(activity);
    let untaken = Untaken::default();
    let stream = Limited::new(stream, activity.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = activity.begin(request.version());
        let answer = telemetry::observe(app.clone(), request, untaken.clone());
        async move {
            let answer = answer.await;
            drop(busy);
            answer
        }
    });
    connections.watch(server.serve_connection(TokioIo::new(stream), service).into_owned())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::Response;
    use http_body_util::{BodyExt as _, Empty};
    use hyper::client::conn::{http1, http2};
    use tokio::io::{DuplexStream, duplex};
    use tower::{service_fn, util::BoxCloneSyncService};

    use super::*;
    use crate::app::Body;

    /// Serves a connection with an app that takes a while, as a store does. Answers our end of it.
    fn served() -> (DuplexStream, tokio::task::JoinHandle<Duration>) {
        let (ours, theirs) = duplex(64 * 1024);
        let app = BoxCloneSyncService::new(service_fn(async |_: Request<Incoming>| {
            sleep(Duration::from_millis(20)).await;
            Ok::<_, Infallible>(Response::new(Body::default()))
        }));
        let connections = GracefulShutdown::new();
        let connection = connection(&builder(), &connections, theirs, Activity::default(), app);
        let lasting = async move {
            let began = Instant::now();
            let _ = connection.await;
            drop(connections);
            began.elapsed()
        };
        (ours, tokio::spawn(lasting))
    }

    fn request() -> Request<Empty<Bytes>> {
        Request::get("http://localhost/").body(Empty::new()).expect("a request")
    }

    /// One request at the beginning and one after a minute; the connection then rests to its end.
    macro_rules! lasts_through_two_requests {
        ($sender:expr, $driver:expr, $lasting:expr) => {{
            tokio::spawn($driver);
            for _ in 0..2 {
                let response = $sender.send_request(request()).await.expect("an answer");
                response.into_body().collect().await.expect("a body");
                sleep(Duration::from_mins(1)).await;
            }
            let lasted = $lasting.await.expect("no panic");
            let expected = Duration::from_mins(1) + Duration::from_secs(75);
            assert!(lasted >= expected && lasted < expected + Duration::from_secs(1), "{lasted:?}");
        }};
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_it_has_rested_for_long() {
        let (stream, lasting) = served();
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        lasts_through_two_requests!(sender, driver, lasting);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_http_2_ends_when_it_has_rested_for_long() {
        let (stream, lasting) = served();
        let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
        let (mut sender, driver) = handshake.await.expect("a connection");
        lasts_through_two_requests!(sender, driver, lasting);
    }
}
