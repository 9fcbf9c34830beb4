//! Streams of events: over both versions of HTTP, from several servers, and to clients of all kinds.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use testkit::{
    proxy::{Proxy, Traffic},
    tokens::{HS256_HEADER, hs256, now, user_token},
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    Framework,
    metrics::Metrics,
    program::{PATIENCE, SECRET, Server, Setup, User},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Http {
    One,
    Two,
}

/// An open stream.
struct Events {
    body: Incoming,
    /// What was received of the next event.
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Event {
    id: String,
    changes: Value,
    /// All bytes of the event.
    text: String,
}

/// Sends a request for events. A connection of its own, as long as the body of the response is read.
async fn ask(server: &Server, http: Http, token: &str, path: &str, last: Option<&str>) -> http::Response<Incoming> {
    let stream = TokioIo::new(TcpStream::connect(server.address).await.expect("a connection"));
    let target = if http == Http::One { path.to_owned() } else { format!("http://{}{path}", server.address) };
    let mut request = Request::get(target).header("authorization", format!("Bearer {token}"));
    if http == Http::One {
        request = request.header("host", "x");
    }
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    match http {
        Http::One => {
            let (mut sender, driver) = http1::handshake(stream).await.expect("a connection");
            tokio::spawn(driver);
            sender.send_request(request).await.expect("a response")
        }
        Http::Two => {
            let client = http2::Builder::new(TokioExecutor::new());
            let (mut sender, driver) = client.handshake(stream).await.expect("a connection");
            tokio::spawn(driver);
            sender.send_request(request).await.expect("a response")
        }
    }
}

impl Events {
    /// Opens a stream. Returns its first event, and the headers of the response.
    async fn open(server: &Server, http: Http, token: &str, last: Option<&str>) -> (Self, Event, HeaderMap) {
        let response = ask(server, http, token, "/api/v1/tasks/events", last).await;
        let status = response.status();
        let (head, body) = response.into_parts();
        let mut events = Self { body, text: String::new() };
        assert_eq!(status, 200);
        let first = events.next().await.expect("the first event");
        assert!(first.text.starts_with("retry: 3000\nevent: changes\n"), "{first:?}");
        (events, first, head.headers)
    }

    async fn open_for(server: &Server, user: &str, last: Option<&str>) -> (Self, Event) {
        let (events, first, _) = Self::open(server, Http::One, &user_token(SECRET.as_bytes(), user), last).await;
        (events, first)
    }

    /// The next block that is no comment; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if block != ":" {
                    return Some(block);
                }
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("a frame in time")?;
            let data = frame.expect("the connection is open").into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&data).expect("ASCII"));
        }
    }

    async fn next(&mut self) -> Option<Event> {
        let text = self.block().await?;
        let (head, data) = text.split_once("\ndata: ").expect(&text);
        let id = head.rsplit_once("event: changes\nid: ").expect(&text).1.to_owned();
        let page: Value = serde_json::from_str(data).expect(&text);
        assert_eq!(page["next"], id, "{text}");
        Some(Event { id, changes: page["changes"].clone(), text })
    }

    async fn next_within(&mut self, time: Duration) -> Event {
        timeout(time, self.next()).await.expect("in time").expect("it is open")
    }
}

async fn create(user: &User, title: &str) -> Value {
    User::json(&user.send(Method::POST, "/api/tasks", &json!({"title": title}).to_string()).await, 201)
}

pub(crate) async fn changes_are_streamed_over_both_versions_of_http(framework: Framework) {
    let server = Setup::with_secret(framework).set("METRICS_PORT", "0").serve(&[]);
    let (ann, token) = (server.user("ann"), user_token(SECRET.as_bytes(), "ann"));
    let before = create(&ann, "Before").await;
    let (mut one, first, headers) = Events::open(&server, Http::One, &token, None).await;
    let (mut two, same, headers_of_two) = Events::open(&server, Http::Two, &token, None).await;
    assert_eq!((&first.changes, &first), (&json!([{"task": before}]), &same));
    for headers in [&headers, &headers_of_two] {
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(headers["x-accel-buffering"] == "no" && !headers.contains_key("content-length"), "{headers:?}");
    }
    assert_eq!(Metrics::of(&server).await.count("todo_event_streams"), 2);

    let during = create(&ann, "During").await;
    let event = one.next_within(Duration::from_secs(1)).await;
    assert_eq!(event.changes, json!([{"task": during}]));
    assert_eq!(two.next_within(Duration::from_secs(1)).await, event);
    // A client that comes back gets what it has missed, and nothing else.
    drop((one, two));
    let path = format!("/api/tasks/{}", during["id"].as_str().expect("an id"));
    assert_eq!(ann.send(Method::DELETE, &path, "").await.status(), 204);
    for http in [Http::One, Http::Two] {
        let (_, missed, _) = Events::open(&server, http, &token, Some(&event.id)).await;
        assert_eq!(missed.changes, json!([{"deleted": during["id"]}]));
    }
    // The token of another user.
    let bob = user_token(SECRET.as_bytes(), "bob");
    let response = ask(&server, Http::One, &bob, "/api/bob/tasks/events", Some(&event.id)).await;
    assert_eq!(response.status(), 410);
    while Metrics::of(&server).await.count("todo_event_streams") > 0 {
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn a_stop_ends_streams_in_good_order(framework: Framework) {
    let mut server = Setup::with_secret(framework).serve(&[]);
    let token = user_token(SECRET.as_bytes(), "ann");
    let (mut one, ..) = Events::open(&server, Http::One, &token, None).await;
    let (mut two, ..) = Events::open(&server, Http::Two, &token, None).await;
    let began = Instant::now();
    server.program.terminate();
    for events in [&mut one, &mut two] {
        let last = events.block().await.expect("a last block");
        let retry: u32 = last.strip_prefix("retry: ").expect(&last).parse().expect("a number");
        assert!((2000..=4000).contains(&retry), "{retry}");
        assert_eq!(events.block().await, None);
    }
    assert_eq!(server.program.end().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let log = server.program.log.whole();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_another_server_arrive_within_two_seconds() {
    let database = testkit::postgres::empty_database().await;
    let setup = || Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url());
    let (here, there) = (setup().serve(&[]), setup().serve(&[]));
    let (mut events, first) = Events::open_for(&here, "ann", None).await;
    assert_eq!(first.changes, json!([]));
    let mut last = first.id;
    for number in 0..3 {
        let task = create(&there.user("ann"), &format!("Task {number}")).await;
        let event = events.next_within(Duration::from_secs(2)).await;
        assert_eq!(event.changes, json!([{"task": task}]));
        last = event.id;
    }
    // And those of this server at once: sooner than the next question for revisions, most of the time.
    let began = Instant::now();
    for number in 0..5 {
        let task = create(&here.user("ann"), &format!("Here {number}")).await;
        assert_eq!(events.next_within(Duration::from_secs(1)).await.changes, json!([{"task": task}]));
    }
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    // The other server goes on where this one has ended.
    let (_, missed) = Events::open_for(&there, "ann", Some(&last)).await;
    assert_eq!(missed.changes.as_array().expect("changes").len(), 5);
    drop((events, here, there));
    database.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_outlast_a_database_that_cannot_be_reached() {
    let database = testkit::postgres::empty_database().await;
    let proxy = Proxy::before(database.url()).await;
    let here = Setup::with_secret(Framework::ANY).set("DATABASE_URL", &proxy.url()).serve(&[]);
    let there = Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url()).serve(&[]);
    let (mut events, _) = Events::open_for(&here, "ann", None).await;
    proxy.set(Traffic::Refused);
    proxy.cut();
    let task = create(&there.user("ann"), "Meanwhile").await;
    sleep(Duration::from_secs(4)).await;
    proxy.set(Traffic::Flows);
    assert_eq!(events.next_within(PATIENCE).await.changes, json!([{"task": task}]));
    let log = here.program.log.so_far();
    assert_eq!(log.matches("cannot ask for revisions").count(), 1, "{log}");
    drop((events, here, there));
    database.close().await;
}

/// `scripts/check-sync` runs it.
#[test]
fn the_code_of_the_documentation_is_that_of_the_file() {
    let (page, code) = (include_str!("../../../../docs/sync.md"), include_str!("../../../../docs/sync.js"));
    let (_, code) = code.split_once('\n').expect("a first line");
    assert!(page.contains(&format!("```js\n{code}```")), "docs/sync.js has the code of docs/sync.md");
}

/// How often [`a_client_that_comes_back_again_and_again_misses_nothing`] comes back.
fn returns() -> usize {
    std::env::var("STREAM_RETURNS").map_or(500, |returns| returns.parse().expect("a number"))
}

/// `STREAM_RETURNS=10000 cargo test --test server a_client_that_comes_back` comes back more often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_again_and_again_misses_nothing() {
    let database = testkit::postgres::empty_database().await;
    let setup = || Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url()).set("METRICS_PORT", "0");
    let servers = [setup().serve(&[]), setup().serve(&[])];
    let ann = servers[0].user("ann");
    let (mut last, mut seen, mut written) = (None::<String>, Vec::new(), Vec::new());
    for number in 0..returns() {
        if number % 3 == 0 {
            written.push(json!({"task": create(&ann, &format!("Task {number}")).await}));
        }
        // Over HTTP/1.1 and 2, to each server in turn.
        let http = if number % 4 < 2 { Http::One } else { Http::Two };
        let token = user_token(SECRET.as_bytes(), "ann");
        let (_, event, _) = Events::open(&servers[number % 2], http, &token, last.as_deref()).await;
        seen.extend_from_slice(event.changes.as_array().expect("changes"));
        last = Some(event.id);
    }
    assert!(seen == written, "{} changes instead of {}", seen.len(), written.len());
    for server in &servers {
        while Metrics::of(server).await.count("todo_event_streams") > 0 {
            sleep(Duration::from_millis(5)).await;
        }
        if let Some(peak) = server.program.peak_memory() {
            assert!(peak < 100 * 1024 * 1024, "streams that have ended hold memory: {peak} bytes");
        }
    }
    drop(servers);
    database.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_token() {
    let server = Setup::with_secret(Framework::ANY).set("JWT_LEEWAY_SECONDS", "0").serve(&[]);
    let token = hs256(SECRET.as_bytes(), HS256_HEADER, &json!({"sub": "ann", "exp": now() + 3}).to_string());
    let (mut events, ..) = Events::open(&server, Http::One, &token, None).await;
    assert_eq!(timeout(Duration::from_secs(6), events.block()).await, Ok(None));
    assert_eq!(ask(&server, Http::One, &token, "/api/tasks/events", None).await.status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_at_most_16_streams() {
    let server = Setup::with_secret(Framework::ANY).serve(&[]);
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(Events::open_for(&server, "ann", None).await);
    }
    let token = user_token(SECRET.as_bytes(), "ann");
    let response = ask(&server, Http::One, &token, "/api/tasks/events", None).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "15");
    Events::open_for(&server, "bob", None).await;
    // A client that goes away makes room.
    open.pop();
    let began = Instant::now();
    while ask(&server, Http::One, &token, "/api/tasks/events", None).await.status() != 200 {
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(5)).await;
    }
}
