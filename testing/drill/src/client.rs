//! An HTTP client that keeps connections open, as browsers and gateways do, and reports the exact outcome of each
//! request.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long to wait for a response. The server has a shorter limit (`REQUEST_TIMEOUT_SECONDS`) and must respond by
/// then.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that cannot connect retries for so long, with this pause.
const CONNECT_RETRIES: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A complete response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was sent at this time, and the server responded.
    Responded(Instant, Response),
    /// No connection could be made, so nothing was sent.
    NotConnected,
    /// It was sent at this time, and the connection closed before the response was complete.
    ConnectionLost(Instant),
    /// It was sent at this time, and there was no response within [`RESPONSE_TIMEOUT`].
    TimedOut(Instant),
}

type Connection = SendRequest<Full<Bytes>>;

/// Open connections to one or more servers. New connections go to the servers in turn.
#[derive(Debug)]
pub(crate) struct Connections {
    servers: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    idle: Mutex<Vec<Connection>>,
}

impl Connections {
    pub(crate) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers: servers.into(), turn: AtomicUsize::new(0), idle: Mutex::default() }
    }

    /// Closes all idle connections; new connections go to these servers.
    pub(crate) fn use_servers(&self, servers: &[SocketAddr]) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
        self.close_idle();
    }

    /// Closes all idle connections.
    pub(crate) fn close_idle(&self) {
        self.idle().clear();
    }

    /// Sends a request at most once: a request that could not be sent is retried, one that was sent is not.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Outcome {
        let begun = Instant::now();
        let mut request = Some(request);
        while let Some(sending) = request.take() {
            let Some(mut connection) = self.connection(begun).await else { return Outcome::NotConnected };
            let sent = Instant::now();
            match timeout(RESPONSE_TIMEOUT, exchange(&mut connection, sending)).await {
                Ok(Ok(response)) => {
                    self.idle().push(connection);
                    return Outcome::Responded(sent, response);
                }
                // The server had closed the connection, and nothing was sent.
                Ok(Err(Some(unsent))) => request = Some(unsent),
                Ok(Err(None)) => return Outcome::ConnectionLost(sent),
                Err(_) => return Outcome::TimedOut(sent),
            }
        }
        Outcome::NotConnected
    }

    async fn connection(&self, begun: Instant) -> Option<Connection> {
        while let Some(connection) = self.take() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        loop {
            if let Ok(Ok(connection)) = timeout(CONNECT_TIMEOUT, connect(self.next_server())).await {
                return Some(connection);
            }
            if begun.elapsed() >= CONNECT_RETRIES {
                return None;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    fn next_server(&self) -> SocketAddr {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers[self.turn.fetch_add(1, Ordering::Relaxed) % servers.len()]
    }

    fn take(&self) -> Option<Connection> {
        self.idle().pop()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(server: SocketAddr) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection)
}

/// The error holds the request if nothing of it was sent.
async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<Response, Option<Request<Full<Bytes>>>> {
    let response = connection.try_send_request(request).await.map_err(|mut error| error.take_message())?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| None)?.to_bytes();
    Ok(Response { status: head.status, headers: head.headers, body })
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use testkit::http::Server;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::mpsc,
    };

    use super::*;

    fn request() -> Request<Full<Bytes>> {
        Request::get("/").header("host", "x").body(Full::default()).unwrap()
    }

    /// Responds to this number of requests on each connection, then closes it without a response to the next.
    async fn serve(requests: usize) -> (Server, mpsc::UnboundedReceiver<()>) {
        let (seen, received) = mpsc::unbounded_channel();
        let server = Server::start(async move |listener| {
            while let Ok((mut stream, _)) = listener.accept().await {
                for _ in 0..requests {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = seen.send(());
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
                if requests == 0 {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = seen.send(());
                }
            }
        })
        .await;
        (server, received)
    }

    #[tokio::test]
    async fn an_idle_connection_that_the_server_closed_is_replaced() {
        let (server, mut seen) = serve(1).await;
        let connections = Connections::new(vec![server.address()]);
        for _ in 0..3 {
            let outcome = connections.send(request()).await;
            assert!(matches!(&outcome, Outcome::Responded(_, response) if response.body == "ok"), "{outcome:?}");
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 3);
    }

    #[tokio::test]
    async fn a_request_that_was_sent_is_not_retried() {
        let (server, mut seen) = serve(0).await;
        let outcome = Connections::new(vec![server.address()]).send(request()).await;
        assert!(matches!(outcome, Outcome::ConnectionLost(_)), "{outcome:?}");
        assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 1);
    }

    #[tokio::test]
    async fn a_server_that_does_not_listen_is_skipped() {
        let closed = std::net::SocketAddr::from(([127, 0, 0, 1], testkit::http::lasting_port().unwrap()));
        assert!(matches!(Connections::new(vec![closed]).send(request()).await, Outcome::NotConnected));
        let (server, _seen) = serve(1).await;
        let outcome = Connections::new(vec![closed, server.address()]).send(request()).await;
        assert!(matches!(outcome, Outcome::Responded(..)), "{outcome:?}");
    }
}
