//! Clients that read no responses, or do not finish their requests, with many connections.
//!
//! The memory of the server stays below 160 MiB and other clients are served, although the clients ask for more memory
//! than that.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use http::Method;
use testkit::tokens::user_token;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    Framework,
    floods::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, MIB, allow_open_files, assert_all_is_freed, field, frame,
        get,
    },
    metrics::Metrics,
    program::{PATIENCE, SECRET, Server, Setup},
};

const MEMORY: u64 = 160 * MIB;

const PAGE: &str = "/api/tasks?limit=200";
const DOCUMENT: &str = "/openapi.json";
const BUNDLE: &str = "/docs/swagger-ui-bundle.js";

/// A server with this budget in MiB. The share of each connection is more than a usual request needs.
async fn serve(framework: Framework, budget: usize) -> Server {
    allow_open_files(6000);
    let server = Setup::with_secret(framework)
        .set("METRICS_PORT", "0")
        .set("CONNECTION_MEMORY_MIB", &budget.to_string())
        .set("MAX_CONNECTIONS", &(budget * 60).to_string())
        .serve(&[]);
    let ann = server.user("ann");
    let body = serde_json::json!({ "title": "x".repeat(200), "description": "\u{1f980}".repeat(1000) }).to_string();
    for _ in 0..200 {
        assert_eq!(ann.send(Method::POST, "/api/tasks", &body).await.status(), 201);
    }
    let page = ann.send(Method::GET, PAGE, "").await;
    assert!(page.body().len() > 800_000, "{}", page.body().len());
    server
}

/// Connects with a small receive buffer, so that the system takes little of a response.
async fn connect(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    socket.connect(server.address).await.expect("a connection")
}

/// Sends, as far as the server reads.
async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    // The server may close the connection meanwhile.
    let _ = timeout(Duration::from_secs(2), stream.write_all(bytes)).await;
}

async fn http_1(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(server).await;
    send(&mut stream, bytes).await;
    stream
}

/// A connection of HTTP/2 whose client accepts no byte of a response.
async fn http_2(server: &Server, frames: &[u8]) -> TcpStream {
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    http_1(server, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], frames].concat()).await
}

fn token() -> String {
    user_token(SECRET.as_bytes(), "ann")
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", token()).into_bytes()
}

/// The frames of this number of requests with this head.
fn requests(count: u32, flags: u8, head: &[u8], body: &[u8]) -> Vec<u8> {
    let one = |number| {
        let stream = 2 * number + 1;
        let body = if body.is_empty() { Vec::new() } else { frame(DATA, 0, stream, body) };
        [frame(HEADERS, END_HEADERS | flags, stream, head), body].concat()
    };
    (0..count).flat_map(one).collect()
}

/// Waits until each request has a response, except for one of the honest client.
async fn responded(server: &Server) {
    while Metrics::of(server).await.count("http_requests_in_flight") > 1 {
        sleep(Duration::from_millis(2)).await;
    }
}

/// A client that sends requests without a pause, and measures them. Its requests need no database, which has limits of
/// its own.
struct Honest {
    times: Arc<Mutex<Vec<Duration>>>,
    task: JoinHandle<()>,
}

impl Honest {
    fn begin(server: &Server) -> Self {
        let times = Arc::new(Mutex::new(Vec::new()));
        let (measured, user) = (times.clone(), server.user("bob"));
        let task = tokio::spawn(async move {
            for path in ["/api/auth/session", DOCUMENT].iter().cycle() {
                let began = Instant::now();
                let response = user.send(Method::GET, path, "").await;
                assert!(response.status() == 200 && response.body().len() > 30, "{response:?}");
                measured.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { times, task }
    }

    /// The 99th percentile of at least 50 requests since the last call.
    async fn p99(&self) -> Duration {
        loop {
            assert!(!self.task.is_finished(), "each request succeeds");
            if let Some(p99) = self.take_p99() {
                return p99;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn take_p99(&self) -> Option<Duration> {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() < 50 {
            return None;
        }
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        times.clear();
        Some(p99)
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens this number of connections, some at a time. The server closes at least `closed` of them to stay within its
/// budget, or none. Meanwhile and afterwards an honest client is served, and the memory of the server is bounded.
async fn withstand(
    server: &Server,
    what: &str,
    (count, at_a_time): (usize, usize),
    closed: u64,
    open: impl AsyncFn() -> TcpStream,
) {
    let count_of = async |name| Metrics::of(server).await.count(name);
    let closed_before = count_of("todo_connections_closed_for_memory_total").await;
    let honest = Honest::begin(server);
    let before = honest.p99().await;
    // Many at a time, since the server closes them after a while.
    let streams: Vec<_> = stream::iter(0..count).map(|_| open()).buffer_unordered(at_a_time).collect().await;
    let budget = count_of("todo_connection_memory_max_bytes").await;
    let within_budget = async {
        let is_within = async || {
            count_of("todo_connections_closed_for_memory_total").await >= closed_before + closed
                && count_of("todo_connection_memory_bytes").await <= budget
        };
        while !is_within().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let settled = timeout(PATIENCE, within_budget).await;
    assert!(settled.is_ok(), "{what}: too few connections are closed");
    let during = honest.p99().await;
    // How fast is for a drill: this is a debug build, and all clients use the same processors.
    assert!(during < PATIENCE, "{what}: 99 % of responses within {during:?}, and {before:?} before");
    if let Some(peak) = server.program.peak_memory() {
        assert!(peak < MEMORY, "{what}: {} MiB", peak / MIB);
    }
    drop(streams);
    drop(honest);
    let freed = async {
        loop {
            let metrics = Metrics::of(server).await;
            let (open, held) = (metrics.count("todo_connections"), metrics.count("todo_connection_memory_bytes"));
            if open == 0 && held == 0 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, freed).await.expect("all is freed");
    if closed == 0 {
        assert_eq!(count_of("todo_connections_closed_for_memory_total").await, closed_before, "{what}");
    }
}

/// Each large response, unread on many connections. What all of them ask for is more than [`MEMORY`].
pub(crate) async fn unread_responses_need_little_memory_and_block_no_others(framework: Framework) {
    let server = serve(framework, 32).await;
    let head = |path| get(path, &token());
    // Pages are made for each request, and the budget is for about 37 of them.
    let page = request(PAGE);
    let pages = requests(5, END_STREAM, &head(PAGE), &[]);
    withstand(&server, "pages", (220, 4), 150, async || {
        let stream = http_1(&server, &page).await;
        responded(&server).await;
        stream
    })
    .await;
    withstand(&server, "pages over HTTP/2", (44, 1), 26, async || {
        let stream = http_2(&server, &pages).await;
        responded(&server).await;
        stream
    })
    .await;
    // The files are shared by all responses, and HTTP/1.1 copies a small part for each connection: that is in the
    // budget.
    for path in [DOCUMENT, BUNDLE] {
        let (file, files) = (request(path), requests(5, END_STREAM, &head(path), &[]));
        withstand(&server, path, (500, 50), 0, async || http_1(&server, &file).await).await;
        let what = format!("{path} over HTTP/2");
        withstand(&server, &what, (150, 50), 0, async || http_2(&server, &files).await).await;
    }
    let log = server.stop().1;
    assert!(log.contains("connections hold too much memory"), "{log}");
}

/// What clients send without finishing it, and small responses. All of it is more than the budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_requests_need_little_memory_and_block_no_others() {
    let server = serve(Framework::ANY, 16).await;
    let withstand = async |what, count, bytes: Vec<u8>, is_http_2: bool| {
        let open = async || if is_http_2 { http_2(&server, &bytes).await } else { http_1(&server, &bytes).await };
        withstand(&server, what, (count, 20), 1, open).await;
    };
    let long = "x".repeat(63_000);
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}").into_bytes();
    withstand("unfinished heads", 500, head, false).await;
    let health = get("/health", &token());
    withstand("small responses", 24, requests(200, END_STREAM, &health, &[]), true).await;

    let authorization = format!("Bearer {}", token());
    let post = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/api/tasks"),
        (":authority", "x"),
        ("content-type", "application/json"),
        ("authorization", &authorization),
    ];
    let post: Vec<u8> = post.iter().flat_map(|(name, value)| field(name, value)).collect();
    withstand("slow bodies", 20, requests(200, 0, &post, &[b' '; 300]), true).await;

    // A header of 3.9 kB in the table of the connection. Each further request names it 15 times, with a byte each.
    let mut entry = field("x", &"x".repeat(3900));
    entry[0] = 0x40;
    let first = frame(HEADERS, END_HEADERS, 1, &[&post[..], &entry].concat());
    let further = |number: u32| frame(HEADERS, END_HEADERS, 2 * number + 1, &[&post[..], &[0xbe; 15]].concat());
    withstand("large heads of HTTP/2", 20, first.into_iter().chain((1..200).flat_map(further)).collect(), true).await;

    let more = frame(CONTINUATION, 0, 1, &field("x", &"x".repeat(15_000))).repeat(3);
    withstand("unfinished heads of HTTP/2", 300, [frame(HEADERS, 0, 1, &health), more].concat(), true).await;
    assert_all_is_freed(&server).await;
}
