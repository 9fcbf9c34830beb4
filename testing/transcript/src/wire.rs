//! Sends bytes as they are and reads what comes back, with nothing in between that would put either right.

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

use crate::cases::{Case, Step};

/// How long an answer may take. It is far more than any needs, so that a busy machine is no difference.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked on the same connection after a case.
const FOLLOW_UP: &[u8] = b"GET /health HTTP/1.1\r\nhost: todo.example\r\n\r\n";

/// What one framework answered to every case.
#[derive(Debug)]
pub struct Transcript {
    /// Who answered.
    pub framework: &'static str,
    /// One for each case, in order.
    pub exchanges: Vec<Exchange>,
}

/// What came back on one connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The answers, also those that are not final (`100 Continue`).
    pub answers: Vec<Answer>,
    /// Bytes that are no whole answer, before the end of the connection.
    pub rest: Vec<u8>,
    /// What became of the connection.
    pub afterwards: Afterwards,
}

/// One answer, as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The first line.
    pub status_line: String,
    /// The other lines of the head, in order, but for `date` and `server`.
    pub headers: Vec<(String, String)>,
    /// What follows the head, in the framing that the head announces.
    pub body: Vec<u8>,
}

impl Answer {
    /// The number in the first line; 0 if there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The values of the headers of this name.
    pub fn header(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Whether a connection can be used after a case.
#[derive(Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Nobody asked.
    NotAsked,
    /// The server has closed it.
    Closed,
    /// It is open, but nothing comes.
    Silent,
    /// Another request was answered.
    Answered(Answer),
}

impl fmt::Display for Afterwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not asked"),
            Self::Closed => f.write_str("closed"),
            Self::Silent => f.write_str("open, but silent"),
            Self::Answered(answer) => write!(f, "open, and the next answer is {answer:?}"),
        }
    }
}

/// Sends every case to an app, one after the other, each on a connection of its own.
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
/// If nobody listens.
async fn exchange(address: SocketAddr, case: &Case) -> Exchange {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    // What is sent in two pieces arrives in two.
    stream.set_nodelay(true).expect("a socket has this option");
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader { stream: reader, buffer: Vec::new(), answered: watch::Sender::new(0) };
    let answered = reader.answered.subscribe();
    let reading = async {
        let mut answers = Vec::new();
        let end = loop {
            let Some(expected) = case.expected.get(answers.len()) else { break None };
            match reader.answer(expected.to_head).await {
                Ok(answer) => answers.push(answer),
                Err(end) => break Some(end),
            }
        };
        (answers, end)
    };
    let (answers, end) = tokio::select! {
        read = reading => read,
        () = write(&mut writer, &case.script, answered) => unreachable!("the writing half stays open"),
    };
    let afterwards = match end {
        Some(end) => end,
        None if !case.followed_up => Afterwards::NotAsked,
        None => {
            // If the server has closed the connection, that shows in reading.
            let _ = writer.write_all(FOLLOW_UP).await;
            reader.answer(false).await.map_or_else(|end| end, Afterwards::Answered)
        }
    };
    Exchange { answers, rest: reader.buffer, afterwards }
}

/// Follows the script, and then waits for ever: the writing half stays open, because its end means to some servers
/// that nobody waits for the answer.
async fn write(stream: &mut OwnedWriteHalf, script: &[Step], mut answered: watch::Receiver<usize>) {
    for step in script {
        match step {
            // A server need not read to the end what it refuses.
            Step::Send(bytes) => drop(stream.write_all(bytes).await),
            Step::Pause(time) => sleep(*time).await,
            Step::AwaitAnswer => drop(answered.wait_for(|answers| *answers > 0).await),
        }
    }
    std::future::pending::<()>().await;
}

struct Reader {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    /// How many answers were read.
    answered: watch::Sender<usize>,
}

impl Reader {
    /// The next answer, or why there is none.
    async fn answer(&mut self, to_head: bool) -> Result<Answer, Afterwards> {
        loop {
            if let Some((answer, length)) = parse(&self.buffer, to_head) {
                self.buffer.drain(..length);
                self.answered.send_modify(|answers| *answers += 1);
                return Ok(answer);
            }
            match timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return Err(Afterwards::Silent),
                // A server that closes a connection with something unread resets it.
                Ok(Ok(0) | Err(_)) => return Err(Afterwards::Closed),
                Ok(Ok(_)) => {}
            }
        }
    }
}

/// The answer at the beginning of these bytes, if it is whole, and its length.
fn parse(bytes: &[u8], to_head: bool) -> Option<(Answer, usize)> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    // As characters of one byte each, so that nothing is lost or put right.
    let text: String = bytes[..head - 4].iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.split("\r\n").map(str::to_owned);
    let status_line = lines.next()?;
    let headers = lines.map(|line| match line.split_once(':') {
        Some((name, value)) => (name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()),
        None => (line, String::new()),
    });
    let headers = headers.filter(|(name, _)| !["date", "server"].contains(&name.to_ascii_lowercase().as_str()));
    let mut answer = Answer { status_line, headers: headers.collect(), body: Vec::new() };
    let length = body_length(&answer, &bytes[head..], to_head)?;
    answer.body = bytes[head..].get(..length)?.to_vec();
    Some((answer, head + length))
}

/// How long the body is (RFC 9112, section 6.3), if that is known already.
fn body_length(answer: &Answer, bytes: &[u8], to_head: bool) -> Option<usize> {
    if to_head || matches!(answer.status(), 100..=199 | 204 | 304) {
        Some(0)
    } else if answer.header("transfer-encoding").next().is_some() {
        chunked_length(bytes)
    } else {
        // Without a length it would go on to the end of the connection. None of the servers does that.
        answer.header("content-length").next().map_or(Some(0), |length| length.parse().ok())
    }
}

fn chunked_length(bytes: &[u8]) -> Option<usize> {
    let mut position = 0;
    loop {
        let line = find(&bytes[position..], b"\r\n")?;
        let size = str::from_utf8(&bytes[position..position + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            // Trailers, if any, and an empty line.
            return find(&bytes[position..], b"\r\n\r\n").map(|end| position + end + 4);
        }
        position += line + 2 + size + 2;
        if position > bytes.len() {
            return None;
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
