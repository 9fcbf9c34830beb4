//! Acknowledged writes survive a SIGKILL of the server.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    Framework,
    program::{SECRET, Setup},
};

const WRITERS: u32 = 8;
/// The rate of all writers together.
const WRITES_PER_SECOND: u32 = 200;

/// The ids of the created tasks, and the number of requests.
#[derive(Default)]
struct Written {
    ids: Mutex<Vec<String>>,
    requests: AtomicUsize,
}

/// Creates tasks until the connection breaks.
async fn write(address: SocketAddr, written: Arc<Written>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let token = testkit::tokens::user_token(SECRET.as_bytes(), "ann");
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    let mut pace = interval(Duration::from_secs(1) * WRITERS / WRITES_PER_SECOND);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let request = Request::post("/api/tasks")
            .header("host", "x")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(br#"{"title":"Buy milk"}"#)))?;
        written.requests.fetch_add(1, Ordering::Relaxed);
        let response = connection.send_request(request).await?;
        assert_eq!(response.status(), 201);
        let body = response.into_body().collect().await?.to_bytes();
        let task: Value = serde_json::from_slice(&body)?;
        let id = task["id"].as_str().ok_or("a task has an id")?.to_owned();
        written.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}

/// Kills the server while it writes, starts it again, and reads every task.
#[expect(clippy::print_stdout, reason = "--nocapture shows the numbers")]
async fn assert_no_acknowledged_write_is_lost(setup: &Setup) {
    let mut server = setup.serve(&[]);
    let written = Arc::new(Written::default());
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(server.address, written.clone()));
    }
    sleep(Duration::from_secs(2)).await;
    server.program.kill();
    while let Some(ended) = writers.join_next().await {
        let error = ended.expect("no panic").expect_err("it writes until the connection breaks");
        assert!(!error.to_string().contains("has an id"), "{error}");
    }

    let acknowledged = std::mem::take(&mut *written.ids.lock().unwrap_or_else(PoisonError::into_inner));
    let requests = written.requests.load(Ordering::Relaxed);
    // A slow machine writes less, but too few writes would show nothing.
    assert!(acknowledged.len() >= 50, "{} of {requests} writes were acknowledged", acknowledged.len());
    assert!(requests > acknowledged.len(), "no write was in progress when the server was killed");

    let again = setup.serve(&[]);
    let kept: HashSet<_> = again.user("ann").all_ids().await.into_iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !kept.contains(*id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());
    assert!(kept.len() <= requests, "{} tasks after {requests} writes", kept.len());
    println!("{requests} writes, {} acknowledged, {} kept, 0 lost", acknowledged.len(), kept.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_on_sqlite() {
    let setup = Setup::with_secret(Framework::ANY);
    assert_no_acknowledged_write_is_lost(&setup).await;
    let header = std::fs::read(setup.path().join("todo.db")).expect("a file");
    // "File format write version" and "read version": 2 is the write-ahead log.
    assert_eq!(header[18..20], [2, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_on_postgresql() {
    let database = testkit::postgres::empty_database().await;
    let setup = Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url());
    assert_no_acknowledged_write_is_lost(&setup).await;
    let log = setup.serve(&[]).stop().1;
    assert!(log.contains("durable=true"), "fsync and synchronous_commit are on: {log}");
    database.close().await;
}
