//! What has been answered is kept, also if the server is killed in the middle of its work.

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

use crate::program::{Place, SECRET};

const WRITERS: u32 = 8;
/// Of all writers together.
const WRITES_PER_SECOND: u32 = 200;

/// The tasks whose creation was answered, and how many were asked for.
#[derive(Default)]
struct Written {
    ids: Mutex<Vec<String>>,
    asked: AtomicUsize,
}

/// Creates tasks at its pace, until the connection breaks.
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
        written.asked.fetch_add(1, Ordering::Relaxed);
        let response = connection.send_request(request).await?;
        assert_eq!(response.status(), 201);
        let body = response.into_body().collect().await?.to_bytes();
        let task: Value = serde_json::from_slice(&body)?;
        let id = task["id"].as_str().ok_or("a task has an id")?.to_owned();
        written.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}

/// Kills the server while it writes, starts it again and looks for every task.
#[expect(clippy::print_stdout, reason = "the numbers are worth seeing with --nocapture")]
async fn nothing_answered_is_lost(place: &Place) {
    let mut server = place.serve(&[]);
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

    let answered = std::mem::take(&mut *written.ids.lock().unwrap_or_else(PoisonError::into_inner));
    let asked = written.asked.load(Ordering::Relaxed);
    // A slow machine writes less; too little would show nothing.
    assert!(answered.len() >= 100, "{} of {asked} writes were answered", answered.len());
    assert!(asked > answered.len(), "no write was under way when the server was killed");

    let again = place.serve(&[]);
    let kept: HashSet<_> = again.caller("ann").all_ids().await.into_iter().collect();
    let lost: Vec<_> = answered.iter().filter(|id| !kept.contains(*id)).collect();
    assert!(lost.is_empty(), "{} of {} answered writes are lost: {lost:?}", lost.len(), answered.len());
    assert!(kept.len() <= asked, "{} tasks of {asked} writes", kept.len());
    println!("{asked} writes asked, {} answered, {} kept, 0 lost", answered.len(), kept.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_nothing_answered_is_lost() {
    let place = Place::with_secret();
    nothing_answered_is_lost(&place).await;
    let header = std::fs::read(place.path().join("todo.db")).expect("a file");
    // "File format write version" and "read version": 2 is WAL.
    assert_eq!(header[18..20], [2, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_nothing_answered_is_lost() {
    let database = testkit::postgres::empty_database().await;
    let place = Place::with_secret().set("DATABASE_URL", database.url());
    nothing_answered_is_lost(&place).await;
    let log = place.serve(&[]).stop().1;
    assert!(log.contains("durable=true"), "fsync and synchronous_commit are on: {log}");
    database.close().await;
}
