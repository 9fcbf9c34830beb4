//! An app on a free port, and clients that send requests exactly as they are.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use bytes::Bytes;
//! use http::Request;
//! use testkit::http::Server;
//! # use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! let server = Server::start(async |listener| {
//!     // pass the listener to the framework, for example: axum::serve(listener, app).await
//! #   let (mut stream, _) = listener.accept().await.unwrap();
//! #   let _ = stream.read(&mut [0; 1024]).await;
//! #   stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
//! })
//! .await;
//! let response = server.client().send(Request::get("//tasks%2F").body(Bytes::new()).unwrap()).await;
//! assert_eq!(response.status(), 204);
//! # }
//! ```

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
    time::timeout,
};

/// How long to wait for a response.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A free port of this machine.
///
/// # Panics
///
/// If there is none.
pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("there is a free port");
    let address = listener.local_addr().expect("a listener has an address");
    (listener, address)
}

/// A free port for a server that is stopped and started again. It is outside the range of ports that the system gives
/// to clients: a client that retries while no server listens could otherwise get the port that it connects to, and
/// connect to itself.
///
/// # Errors
///
/// None was found in a hundred attempts.
///
/// # Panics
///
/// If the system has no randomness.
pub fn lasting_port() -> io::Result<u16> {
    let mut random = [0; 2];
    let mut attempt = || {
        aws_lc_rs::rand::fill(&mut random).expect("the system has randomness");
        // The range starts at 32768 on Linux, and at 49152 on other systems.
        let port = 10_000 + u16::from_le_bytes(random) % 20_000;
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|_| port)
    };
    (1..100).find_map(|_| attempt().ok()).map_or_else(attempt, Ok)
}

/// An app on a free port. It is stopped when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts an app: `serve` accepts the connections of a listener.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn start<Serving>(serve: impl FnOnce(TcpListener) -> Serving) -> Self
    where
        Serving: Future<Output = ()> + Send + 'static,
    {
        let (listener, address) = listener().await;
        Self { address, task: tokio::spawn(serve(listener)) }
    }

    /// The address of the app.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client that opens a connection for each request.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends requests as they are: the target byte for byte, and only the given headers and those that HTTP/1.1 requires
/// (`host`, unless there is one, and the length of a body).
///
/// Use [`raw`] for requests that [`http::Request`] cannot express.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    /// The open connection, if this client keeps connections.
    kept: Option<Mutex<Option<SendRequest<Full<Bytes>>>>>,
}

impl Client {
    /// A client that opens a connection for each request.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, kept: None }
    }

    /// A client that sends all requests through one connection, as long as the server keeps it open.
    #[must_use]
    pub fn keeping_alive(address: SocketAddr) -> Self {
        Self { address, kept: Some(Mutex::new(None)) }
    }

    /// Sends a request, and returns the complete response.
    ///
    /// # Panics
    ///
    /// If there is no complete response.
    pub async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        let what = format!("{} {}", request.method(), request.uri());
        timeout(TIMEOUT, self.exchange(request))
            .await
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .unwrap_or_else(|error| panic!("{what} has no response: {error}"))
    }

    async fn exchange(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
        let host = HeaderValue::try_from(self.address.to_string())?;
        request.headers_mut().entry(HOST).or_insert(host);
        let request = request.map(Full::new);
        let Some(kept) = &self.kept else {
            return respond(&mut self.connect().await?, request).await;
        };
        let mut kept = kept.lock().await;
        let mut connection = match kept.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect().await?,
        };
        let response = respond(&mut connection, request).await?;
        *kept = Some(connection);
        Ok(response)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, BoxError> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(connection)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn respond(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, BoxError> {
    let (head, body) = connection.send_request(request).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// Writes bytes to a connection, and returns the bytes of the response to the first request in them: up to the end that
/// its head defines, or up to the end of the connection. Interim responses (`100 Continue`) are included.
///
/// # Panics
///
/// If no server listens, or if the response is not complete after 30 seconds.
pub async fn raw(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut response = Vec::new();
    let outcome = timeout(TIMEOUT, read_response(address, request, &mut response)).await;
    if let Err(error) = outcome.unwrap_or_else(|elapsed| Err(elapsed.into())) {
        panic!("no whole response: {error}; so far: {:?}", String::from_utf8_lossy(&response));
    }
    response
}

async fn read_response(address: SocketAddr, request: &[u8], response: &mut Vec<u8>) -> io::Result<()> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let writing = async {
        // A server need not read a request that it rejects. The writing half stays open, because some servers take its
        // end as the end of the client.
        let _ = writer.write_all(request).await;
        std::future::pending::<()>().await;
    };
    let to_head = request.starts_with(b"HEAD ");
    let reading = async {
        while !has_ended(response, to_head) {
            match reader.read_buf(response).await {
                Ok(0) => break,
                Ok(_) => {}
                // A server that stops reading resets the connection. The bytes before are its response.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    tokio::select! {
        read = reading => read,
        () = writing => unreachable!("the writing half stays open"),
    }
}

/// Whether these bytes are a complete response.
fn has_ended(response: &[u8], to_head: bool) -> bool {
    let Some(head) = find(response, b"\r\n\r\n") else {
        return false;
    };
    let (head, body) = (String::from_utf8_lossy(&response[..head]).to_ascii_lowercase(), &response[head + 4..]);
    let status = head.split(' ').nth(1).unwrap_or_default();
    let header = |name: &str| {
        head.lines()
            .skip(1)
            .find_map(|line| line.split_once(':').filter(|(key, _)| *key == name))
            .map(|(_, v)| v.trim())
    };
    if status.starts_with('1') && status != "101" {
        has_ended(body, to_head)
    } else if to_head || matches!(status, "101" | "204" | "304") {
        true
    } else if header("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
        has_last_chunk(body)
    } else if let Some(length) = header("content-length").and_then(|length| length.parse().ok()) {
        body.len() >= length
    } else {
        false
    }
}

fn has_last_chunk(mut body: &[u8]) -> bool {
    while let Some(line) = find(body, b"\r\n") {
        let size = String::from_utf8_lossy(&body[..line]);
        let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16) else {
            return false;
        };
        if size == 0 {
            // Trailers, if any, and an empty line.
            return find(&body[line..], b"\r\n\r\n").is_some();
        }
        let Some(rest) = body.get(line + 2 + size + 2..) else {
            return false;
        };
        body = rest;
    }
    false
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
