//! Sends requests as a browser or a gateway would, and says exactly what became of each.

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

/// How long an answer may take. The server gives up earlier (`REQUEST_TIMEOUT_SECONDS`), and has to say so.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(5);
/// How long a client that is not let in tries again, and how often.
const KNOCKING: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was sent at this time, and answered.
    Answered(Instant, Answer),
    /// No byte of it was sent, since nobody listened.
    Unsent,
    /// It was sent, and the connection broke.
    Broken(Instant),
    /// It was sent, and not answered in [`PATIENCE`].
    Silent(Instant),
}

type Connection = SendRequest<Full<Bytes>>;

/// Connections that are kept open, to servers that take turns.
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

    /// Leaves all connections that rest, and opens others to these servers.
    pub(crate) fn use_servers(&self, servers: &[SocketAddr]) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
        self.leave();
    }

    /// Closes all connections that rest.
    pub(crate) fn leave(&self) {
        self.idle().clear();
    }

    /// Sends a request once. What could not be sent is tried again; what was sent is not.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Outcome {
        let begun = Instant::now();
        let mut request = Some(request);
        while let Some(sending) = request.take() {
            let Some(mut connection) = self.connection(begun).await else { return Outcome::Unsent };
            let sent = Instant::now();
            match timeout(PATIENCE, exchange(&mut connection, sending)).await {
                Ok(Ok(answer)) => {
                    self.idle().push(connection);
                    return Outcome::Answered(sent, answer);
                }
                // The server had closed it, and nothing was sent.
                Ok(Err(Some(unsent))) => request = Some(unsent),
                Ok(Err(None)) => return Outcome::Broken(sent),
                Err(_) => return Outcome::Silent(sent),
            }
        }
        Outcome::Unsent
    }

    async fn connection(&self, begun: Instant) -> Option<Connection> {
        while let Some(connection) = self.take() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        loop {
            if let Ok(Ok(connection)) = timeout(CONNECTING, connect(self.next_server())).await {
                return Some(connection);
            }
            if begun.elapsed() >= KNOCKING {
                return None;
            }
            sleep(PAUSE).await;
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

/// An error has the request in it if nothing of it was sent.
async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Option<Request<Full<Bytes>>>> {
    let response = connection.try_send_request(request).await.map_err(|mut error| error.take_message())?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| None)?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
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

    /// Answers so many requests of each connection with its number, says nothing to the next and closes.
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
    async fn a_connection_that_was_closed_while_it_rested_is_replaced() {
        let (server, mut seen) = serve(1).await;
        let connections = Connections::new(vec![server.address()]);
        for _ in 0..3 {
            let outcome = connections.send(request()).await;
            assert!(matches!(&outcome, Outcome::Answered(_, answer) if answer.body == "ok"), "{outcome:?}");
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 3);
    }

    #[tokio::test]
    async fn what_was_sent_is_not_sent_again() {
        let (server, mut seen) = serve(0).await;
        let outcome = Connections::new(vec![server.address()]).send(request()).await;
        assert!(matches!(outcome, Outcome::Broken(_)), "{outcome:?}");
        assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 1);
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_is_sent_but_another_server_is_tried() {
        let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], testkit::http::lasting_port().unwrap()));
        assert!(matches!(Connections::new(vec![nobody]).send(request()).await, Outcome::Unsent));
        let (server, _seen) = serve(1).await;
        let outcome = Connections::new(vec![nobody, server.address()]).send(request()).await;
        assert!(matches!(outcome, Outcome::Answered(..)), "{outcome:?}");
    }
}
