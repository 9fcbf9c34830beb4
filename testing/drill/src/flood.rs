//! One user sends as many requests as possible, while the usual users send theirs: what do the others notice?
//!
//! All programs share the processors of one machine. So the same flood first goes to another server, to see what it takes
//! from the others in that way.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::{
    process::{getpriority_process, setpriority_process},
    thread::gettid,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Failure,
    drills::Drill,
    host::Host,
    load::Load,
    options::Options,
    report::{Row, percentile},
    scene::{UNDISTURBED, by_secret, finish, postgres, with_secret},
    tally::Tally,
};

/// The connections of the flood, and the requests in flight on each: the most that the server allows.
const CONNECTIONS: usize = 6;
const STREAMS: usize = 200;

/// How long the others are measured without the flood, then while another server is flooded, and then with it.
const MEASURED: Duration = Duration::from_secs(20);
const MEASURED_SHORT: Duration = Duration::from_secs(5);
/// How long the load, and then the flood, run before that.
const WARM_UP: Duration = Duration::from_secs(2);

/// The others' 99th percentile may be this many times that without the flood, or with the flood at another server on the
/// same machine, or this many milliseconds, whichever is more.
const MAX_FACTOR: f64 = 2.0;
const MAX_MILLIS: f64 = 50.0;

/// The profile in which the percentile is judged; in others it is only reported.
const RELEASE: &str = "release";

/// The number of tasks for floods that read or change more than one, and their descriptions: as long as the API allows.
const TASKS: usize = 100;
const LONG: &str = "🧀";
const LONG_CHARS: usize = 1000;

/// What the user sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flood {
    /// Toggles of one task, over HTTP/2.
    Toggles,
    /// New tasks.
    Creates,
    /// Pages of 100 long tasks.
    Pages,
    /// Reads, changes and deletions of many tasks.
    ManyTasks,
    /// Toggles of many tasks whose streams are reset after a few milliseconds.
    HangUps,
    /// Toggles of one task, on 1200 connections of HTTP/1.1.
    Connections,
}

/// The server and its database.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Postgres,
    PostgresWithoutBatching,
    Sqlite,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Postgres, Self::PostgresWithoutBatching, Self::Sqlite];

    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::PostgresWithoutBatching => "PostgreSQL, COALESCE=off",
            Self::Sqlite => "SQLite",
        }
    }
}

/// Floods a server in each mode, one after the other.
pub(crate) async fn one_user_floods(options: &Options) -> Result<Row, Failure> {
    let mut all = Row { name: Drill::OneUserFloods.name(), allowed: UNDISTURBED, ..Row::default() };
    for mode in Mode::ALL {
        let row = flood_once(mode, options).await?;
        all.tally.add(row.tally);
        all.notes.extend(row.notes);
        all.failures.extend(row.failures.into_iter().map(|failure| format!("{}: {failure}", mode.name())));
    }
    Ok(all)
}

async fn flood_once(mode: Mode, options: &Options) -> Result<Row, Failure> {
    let drill = Drill::OneUserFloods;
    let folder = options.out.join(drill.name());
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let place = async |name: &str| -> Result<_, Failure> {
        let database = match mode {
            Mode::Sqlite => None,
            Mode::Postgres | Mode::PostgresWithoutBatching => Some(postgres().await?),
        };
        let file = || format!("sqlite://{}", folder.join(name).display());
        let url = database.as_ref().map_or_else(file, |server| server.url().to_owned());
        let mut setup = with_secret(drill, options, &url);
        if matches!(mode, Mode::PostgresWithoutBatching) {
            setup = setup.set("COALESCE", "off");
        }
        let mut host = Host::start(&setup)?;
        host.wait_until_ready().await?;
        Ok((database, setup, host))
    };
    let (_other_database, _, mut other) = place("other.db").await?;
    let (_database, setup, host) = place("todo.db").await?;
    let mut load = Load::new(&[host.address()], &by_secret());
    load.fill().await;
    load.start(options.rate);
    let time = if options.short { MEASURED_SHORT } else { MEASURED };
    sleep(WARM_UP).await;
    let mut total = std::mem::take(&mut *load.tally());
    sleep(time).await;
    let without = std::mem::take(&mut *load.tally());
    // What the flood takes from the others only because it, and whoever answers it, use the same processors.
    let elsewhere = Flooder::start(other.address(), by_secret()("flooder"), options.flood);
    sleep(WARM_UP).await;
    total.add(std::mem::take(&mut *load.tally()));
    sleep(time).await;
    let beside = std::mem::take(&mut *load.tally());
    tokio::task::block_in_place(|| elsewhere.stop())?;
    other.terminate()?;
    other.end().await?;
    let the_user = Flooder::start(host.address(), by_secret()("flooder"), options.flood);
    sleep(WARM_UP).await;
    total.add(std::mem::take(&mut *load.tally()));
    sleep(time).await;
    let with = std::mem::take(&mut *load.tally());
    let memory = host.memory();
    let flooded = tokio::task::block_in_place(|| the_user.stop())?;
    load.stop().await;
    let notes = vec![format!(
        "{}: without the flood {}; with the flood at another server {}; with it {}; the flood: {flooded}; {memory:.0} MiB",
        mode.name(),
        summary(&without),
        summary(&beside),
        summary(&with)
    )];
    let mut failures = flooded.failures;
    let [without_it, elsewhere, after] = [&without, &beside, &with].map(|tally| percentile(&tally.successes, 99));
    let before = without_it.max(elsewhere);
    // A build without optimization, on a machine that does other work too, is too slow for this.
    if options.profile == RELEASE && after > MAX_MILLIS.max(before * MAX_FACTOR) {
        failures.push(format!("the others' 99th percentile rose from {before:.1} to {after:.1} ms"));
    }
    let mut row = finish(drill, &setup, &mut load, vec![host], None, UNDISTURBED, false).await?;
    for tally in [total, without, beside, with] {
        row.tally.add(tally);
    }
    row.notes = notes;
    row.failures.extend(failures);
    Ok(row)
}

/// The success rate and the times of the others.
#[expect(clippy::cast_precision_loss, reason = "a float represents such a number of requests exactly")]
fn summary(tally: &Tally) -> String {
    let failed = tally.unavailable.len() as u64 + tally.wrong + tally.lost + tally.connections_lost + tally.timed_out;
    format!(
        "{:.2} % of {} requests succeeded, p50 {:.1} ms, p99 {:.1} ms",
        100.0 * (tally.requests - failed) as f64 / tally.requests.max(1) as f64,
        tally.requests,
        percentile(&tally.successes, 50),
        percentile(&tally.successes, 99)
    )
}

/// What the flood has got.
#[derive(Debug, Default)]
struct Flooded {
    /// The responses by status; 0 is a request that was given up.
    statuses: BTreeMap<u16, u64>,
    /// Broken connections.
    broken: u64,
    failures: Vec<String>,
}

impl std::fmt::Display for Flooded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counted = self.statuses.iter().map(|(status, count)| match status {
            0 => format!("{count} given up"),
            _ => format!("{count} responses {status}"),
        });
        let mut counted: Vec<_> = counted.collect();
        if self.broken > 0 {
            counted.push(format!("{} broken connections", self.broken));
        }
        f.write_str(&counted.join(", "))
    }
}

/// The user who floods, in a thread with a runtime of its own: the requests of the others must not wait in this
/// program.
struct Flooder {
    stopping: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Flooded, Failure>>,
}

impl Flooder {
    fn start(server: SocketAddr, token: String, flood: Flood) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let shared = stopping.clone();
        let thread = thread::spawn(move || {
            yield_to_others()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(server, token, flood, shared))
        });
        Self { stopping, thread }
    }

    /// Waits for the responses to all requests in flight.
    fn stop(self) -> Result<Flooded, Failure> {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the flood has panicked")?
    }
}

/// Gives this thread a lower priority. Someone who floods a server has a machine of their own, and takes no time from
/// the server or from the others.
fn yield_to_others() -> Result<(), Failure> {
    let nice = getpriority_process(None)?;
    setpriority_process(Some(gettid()), nice + 5)?;
    Ok(())
}

/// What all clients of the flood share.
struct Client {
    server: SocketAddr,
    token: String,
    flood: Flood,
    /// The tasks that exist at the start.
    tasks: Vec<String>,
    stopping: Arc<AtomicBool>,
    flooded: Mutex<Flooded>,
}

async fn run(server: SocketAddr, token: String, flood: Flood, stopping: Arc<AtomicBool>) -> Result<Flooded, Failure> {
    let mut client = Client { server, token, flood, tasks: Vec::new(), stopping, flooded: Mutex::default() };
    let connection = client.http2().await?;
    let count = if matches!(flood, Flood::Toggles | Flood::Connections) { 1 } else { TASKS };
    for number in 0..count {
        let description = if count == 1 { String::new() } else { LONG.repeat(LONG_CHARS) };
        let body = json!({ "title": format!("Task {number}"), "description": description });
        let (status, body) = exchange(&connection, client.request(Method::POST, "/api/tasks", Some(&body))).await?;
        let id = serde_json::from_slice::<Value>(&body)?["id"].as_str().map(str::to_owned);
        client.tasks.push(id.ok_or_else(|| format!("the user who floods cannot create a task: {status}"))?);
    }
    let client = Arc::new(client);
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS * STREAMS {
        // A connection for each client, or one for many.
        if flood == Flood::Connections {
            clients.spawn(client.clone().on_http1(number));
        } else if number % STREAMS == 0 {
            clients.spawn(client.clone().on_http2(number));
        }
    }
    clients.join_all().await;
    let mut flooded = std::mem::take(&mut *client.flooded.lock().unwrap_or_else(PoisonError::into_inner));
    if matches!(flood, Flood::Toggles | Flood::Connections) && flooded.broken == 0 {
        let path = format!("/api/tasks/{}", client.tasks[0]);
        let (_, body) = exchange(&client.http2().await?, client.request(Method::GET, &path, None)).await?;
        let version = serde_json::from_slice::<Value>(&body)?["version"].as_u64().unwrap_or_default();
        let toggles = flooded.statuses.get(&200).copied().unwrap_or_default();
        if version != toggles + 1 {
            flooded.failures.push(format!("{toggles} successful toggles made version {version}"));
        }
    }
    Ok(flooded)
}

type Http2 = http2::SendRequest<Full<Bytes>>;

async fn exchange(connection: &Http2, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
    let response = connection.clone().send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

impl Client {
    async fn connect(&self) -> Result<TokioIo<TcpStream>, Failure> {
        let stream = TcpStream::connect(self.server).await;
        let stream = stream.map_err(|error| format!("the flood cannot connect to {}: {error}", self.server))?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }

    async fn http2(&self) -> Result<Http2, Failure> {
        let (connection, driver) = http2::handshake(TokioExecutor::new(), self.connect().await?).await?;
        tokio::spawn(driver);
        Ok(connection)
    }

    fn runs(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed)
    }

    fn count(&self, status: u16) {
        let mut flooded = self.flooded.lock().unwrap_or_else(PoisonError::into_inner);
        *flooded.statuses.entry(status).or_default() += 1;
    }

    fn count_broken(&self) {
        self.flooded.lock().unwrap_or_else(PoisonError::into_inner).broken += 1;
    }

    /// Floods on one connection of HTTP/2, and opens a new one when it breaks.
    async fn on_http2(self: Arc<Self>, first: usize) {
        while self.runs() {
            let Ok(connection) = self.http2().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let mut streams = JoinSet::new();
            for number in first..first + STREAMS {
                let (client, connection) = (self.clone(), connection.clone());
                streams.spawn(async move {
                    let mut turn = number;
                    while client.runs() && client.exchange_once(&connection, turn).await.is_ok() {
                        turn += STREAMS + 1;
                    }
                });
            }
            streams.join_all().await;
            if self.runs() {
                self.count_broken();
            }
        }
    }

    async fn exchange_once(&self, connection: &Http2, turn: usize) -> Result<(), Failure> {
        let request = self.next_request(turn);
        let patience =
            if self.flood == Flood::HangUps { Duration::from_millis(turn as u64 % 16) } else { Duration::MAX };
        match timeout(patience, exchange(connection, request)).await {
            Ok(response) => self.count(response?.0.as_u16()),
            Err(_) => self.count(0),
        }
        Ok(())
    }

    /// Floods on one connection of HTTP/1.1, with one request at a time.
    async fn on_http1(self: Arc<Self>, number: usize) {
        while self.runs() {
            if self.until_it_breaks(number).await.is_err() && self.runs() {
                self.count_broken();
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn until_it_breaks(&self, number: usize) -> Result<(), Failure> {
        let (mut connection, driver) = http1::handshake(self.connect().await?).await?;
        tokio::spawn(driver);
        while self.runs() {
            let mut request = self.next_request(number);
            // HTTP/1.1 has the path alone in its request line.
            *request.uri_mut() = request.uri().path().parse()?;
            request.headers_mut().insert(header::HOST, HeaderValue::from_static("127.0.0.1"));
            let response = connection.send_request(request).await?;
            let status = response.status().as_u16();
            response.into_body().collect().await?;
            self.count(status);
        }
        Ok(())
    }

    fn next_request(&self, turn: usize) -> Request<Full<Bytes>> {
        let path = format!("/api/tasks/{}", self.tasks[turn % self.tasks.len()]);
        match self.flood {
            Flood::Toggles | Flood::HangUps | Flood::Connections => {
                self.request(Method::PATCH, &format!("{path}/complete"), None)
            }
            Flood::Creates => self.request(Method::POST, "/api/tasks", Some(&json!({ "title": "One more" }))),
            Flood::Pages => self.request(Method::GET, "/api/tasks?limit=100", None),
            Flood::ManyTasks => match turn / 7 % 8 {
                0 => self.request(Method::DELETE, &path, None),
                1 => self.request(Method::POST, "/api/tasks", Some(&json!({ "title": "One more" }))),
                2..5 => self.request(Method::PATCH, &path, Some(&json!({ "title": format!("Task {turn}") }))),
                _ => self.request(Method::GET, &path, None),
            },
        }
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        request.body(Full::new(body)).unwrap_or_else(|_| unreachable!("its parts are valid"))
    }
}
