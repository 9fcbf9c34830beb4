//! Sends bytes unchanged and reads the responses, without an HTTP client that would correct either.

use std::{fmt, net::SocketAddr, time::Duration};

use testkit::http::Server;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{sleep, timeout},
};

use crate::cases::{Case, Expected, Step};

/// How long a response may take: long enough that a busy machine causes no difference.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The request that is sent on the same connection after a case.
const FOLLOW_UP: &[u8] = b"GET /health HTTP/1.1\r\nhost: todo.example\r\n\r\n";

/// The responses of one framework to all cases.
#[derive(Debug)]
pub struct Transcript {
    /// The framework.
    pub framework: &'static str,
    /// One exchange for each case, in order.
    pub exchanges: Vec<Exchange>,
}

/// The responses on one connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The responses, including interim responses (`100 Continue`).
    pub replies: Vec<Reply>,
    /// Bytes after the last complete response.
    pub rest: Vec<u8>,
    /// The state of the connection afterwards.
    pub afterwards: Afterwards,
}

/// One response, as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The first line.
    pub status_line: String,
    /// The headers in order, except `date` and `server`.
    pub headers: Vec<(String, String)>,
    /// The body, with its chunks if it is chunked.
    pub body: Vec<u8>,
}

impl Reply {
    /// Returns the status in the first line, or 0 if there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Returns the values of the headers with this name.
    pub fn header(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The state of a connection after a case.
#[derive(Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It was not checked.
    NotAsked,
    /// The server closed it.
    Closed,
    /// It is open, but the server does not respond.
    Silent,
    /// The server responded to another request.
    Reply(Reply),
}

impl fmt::Display for Afterwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not checked"),
            Self::Closed => f.write_str("closed"),
            Self::Silent => f.write_str("open, without a response"),
            Self::Reply(response) => write!(f, "open, and the next response is {response:?}"),
        }
    }
}

/// Sends all cases to an app, one after the other, each on a new connection.
pub async fn replay<Serving>(
    framework: &'static str,
    serve: impl FnOnce(TcpListener) -> Serving,
    cases: &[Case],
) -> Transcript
where
    Serving: Future<Output = ()> + Send + 'static,
{
    let server = Server::start(serve).await;
    let mut exchanges = Vec::with_capacity(cases.len());
    for case in cases {
        exchanges.push(exchange(server.address(), case).await);
    }
    Transcript { framework, exchanges }
}

/// Sends one case.
///
/// # Panics
///
/// If the connection is refused.
async fn exchange(address: SocketAddr, case: &Case) -> Exchange {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    // Bytes that are sent separately arrive separately.
    stream.set_nodelay(true).expect("a socket has this option");
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader { stream: reader, buffer: Vec::new(), received: watch::Sender::new(0) };
    let received = reader.received.subscribe();
    let reading = async {
        let mut replies = Vec::new();
        let end = loop {
            let Some(expected) = case.expected.get(replies.len()) else { break None };
            match reader.reply(*expected).await {
                Ok(reply) => replies.push(reply),
                Err(end) => break Some(end),
            }
        };
        (replies, end)
    };
    let (replies, end) = tokio::select! {
        read = reading => read,
        () = write(&mut writer, &case.script, received) => unreachable!("the writing half stays open"),
    };
    let afterwards = match end {
        Some(end) => end,
        None if !case.followed_up => Afterwards::NotAsked,
        None => {
            // If the server has closed the connection, the read fails.
            let _ = writer.write_all(FOLLOW_UP).await;
            let expected = Expected { status: 200, to_head: false, to_put: false, is_stream: false };
            reader.reply(expected).await.map_or_else(|end| end, Afterwards::Reply)
        }
    };
    Exchange { replies, rest: reader.buffer, afterwards }
}

/// Executes the script and then waits forever. The writing half stays open, because some servers do not respond to a
/// client that has closed it.
async fn write(stream: &mut OwnedWriteHalf, script: &[Step], mut received: watch::Receiver<usize>) {
    for step in script {
        match step {
            // A server need not read the rest of a request that it rejects.
            Step::Send(bytes) => drop(stream.write_all(bytes).await),
            Step::Pause(time) => sleep(*time).await,
            Step::AwaitResponse => drop(received.wait_for(|replies| *replies > 0).await),
        }
    }
    std::future::pending::<()>().await;
}

struct Reader {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    /// How many responses were read.
    received: watch::Sender<usize>,
}

impl Reader {
    /// Reads the next response, or returns why there is none.
    async fn reply(&mut self, expected: Expected) -> Result<Reply, Afterwards> {
        loop {
            if let Some((reply, length)) = parse(&self.buffer, expected) {
                self.buffer.drain(..length);
                self.received.send_modify(|replies| *replies += 1);
                return Ok(reply);
            }
            match timeout(TIMEOUT, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return Err(Afterwards::Silent),
                // A server that closes a connection with unread bytes resets it.
                Ok(Ok(0) | Err(_)) => return Err(Afterwards::Closed),
                Ok(Ok(_)) => {}
            }
        }
    }
}

/// Parses the response at the start of these bytes, if it is complete, and returns it with its length.
fn parse(bytes: &[u8], expected: Expected) -> Option<(Reply, usize)> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    // Each byte becomes one character, so that nothing is lost or corrected.
    let text: String = bytes[..head - 4].iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.split("\r\n").map(str::to_owned);
    let status_line = lines.next()?;
    let headers = lines.map(|line| match line.split_once(':') {
        Some((name, value)) => (name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()),
        None => (line, String::new()),
    });
    let headers = headers.filter(|(name, _)| !["date", "server"].contains(&name.to_ascii_lowercase().as_str()));
    let mut reply = Reply { status_line, headers: headers.collect(), body: Vec::new() };
    let length = body_length(&reply, &bytes[head..], expected)?;
    reply.body = bytes[head..].get(..length)?.to_vec();
    Some((reply, head + length))
}

/// The length of the body (RFC 9112, section 6.3), if it is known already.
fn body_length(reply: &Reply, bytes: &[u8], expected: Expected) -> Option<usize> {
    if expected.to_head || matches!(reply.status(), 100..=199 | 204 | 304) {
        Some(0)
    } else if reply.header("transfer-encoding").next().is_some() {
        chunked_length(bytes, expected.is_stream)
    } else {
        // A body without a length ends with the connection. None of the servers sends one.
        reply.header("content-length").next().map_or(Some(0), |length| length.parse().ok())
    }
}

/// The length of all chunks, or of the first one of a stream.
fn chunked_length(bytes: &[u8], is_stream: bool) -> Option<usize> {
    let mut position = 0;
    loop {
        let line = find(&bytes[position..], b"\r\n")?;
        let size = str::from_utf8(&bytes[position..position + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            // Optional trailers and an empty line.
            return find(&bytes[position..], b"\r\n\r\n").map(|end| position + end + 4);
        }
        position += line + 2 + size + 2;
        if position > bytes.len() {
            return None;
        }
        if is_stream {
            return Some(position);
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
