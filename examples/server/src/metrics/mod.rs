//! What a Prometheus server gets to see, on a port of its own: how requests end and how long they take, and the state
//! of pools, key sets and the process.
//!
//! Counting costs a request a few atomic additions; everything else is done when somebody looks. Labels come from
//! closed sets (path templates, known methods and statuses, reasons), so that no caller can make new series.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use todo_core::{
    auth::JwtVerifier,
    store::{CoalescingStatus, PoolStatus},
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle, time::sleep};

use crate::{app::Framework, crowd::Crowd, database::Store, failure::Failure, serve};

pub(crate) mod process;
pub(crate) mod requests;
mod text;

use text::Text;

/// How many may look at once.
const SCRAPERS: usize = 16;
/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked for its state.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    pub(crate) framework: Framework,
    pub(crate) store: Store,
    pub(crate) verifier: JwtVerifier,
    pub(crate) crowd: Crowd,
}

/// A task that serves metrics until this is dropped.
#[derive(Debug)]
pub(crate) struct Endpoint(JoinHandle<()>);

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens the port and serves `/metrics` there.
pub(crate) async fn open(address: SocketAddr, subjects: Subjects) -> Result<Endpoint, Failure> {
    let listener = serve::bind(address, "METRICS_HOST", "--metrics-port").await?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "metrics are served at /metrics");
    Ok(Endpoint(tokio::spawn(accept(listener, subjects))))
}

async fn accept(listener: TcpListener, subjects: Subjects) {
    let scrapers = Arc::new(Semaphore::new(SCRAPERS));
    loop {
        let Ok(place) = Arc::clone(&scrapers).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely too many open files. Others close soon.
            sleep(Duration::from_millis(500)).await;
            continue;
        };
        let subjects = subjects.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, subjects.clone()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                // One question each: nobody keeps a place that he does not use.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Who breaks off has no metrics, and that is all.
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, subjects: Subjects) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.uri().path(), request.method()) {
        ("/metrics", &(Method::GET | Method::HEAD)) => {
            // Looking at the process reads files.
            match tokio::task::spawn_blocking(move || render(&subjects)).await {
                Ok(text) => (StatusCode::OK, text),
                Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
            }
        }
        ("/metrics", _) => (StatusCode::METHOD_NOT_ALLOWED, "GET /metrics\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "GET /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// All metrics, in the text format of Prometheus.
fn render(subjects: &Subjects) -> String {
    let mut text = Text::default();
    let framework = subjects.framework.name();
    text.family("todo_build_info", "gauge", "Which program this is; always 1.");
    text.sample("todo_build_info", &[("version", env!("CARGO_PKG_VERSION")), ("framework", framework)], 1);
    requests::render(&mut text);
    text.family("todo_connections", "gauge", "Open connections of callers.");
    text.sample("todo_connections", &[], subjects.crowd.open());
    text.family("todo_connections_max", "gauge", "How many there may be.");
    text.sample("todo_connections_max", &[], subjects.crowd.limit());
    pools(&mut text, &subjects.store.pools());
    coalescing(&mut text, subjects.store.coalescing());
    key_set(&mut text, &subjects.verifier);
    process::render(&mut text);
    text.into_string()
}

fn pools(text: &mut Text, pools: &[(&'static str, PoolStatus)]) {
    let mut metric = |name, kind, help, value: fn(&PoolStatus) -> u64| {
        text.family(name, kind, help);
        for (pool, status) in pools {
            text.sample(name, &[("pool", pool)], value(status));
        }
    };
    metric("todo_store_connections", "gauge", "Open connections to the database.", |status| wide(status.size));
    metric("todo_store_connections_idle", "gauge", "Open connections that nobody uses.", |status| wide(status.idle));
    metric("todo_store_connections_max", "gauge", "How many connections there may be.", |status| wide(status.max_size));
    metric("todo_store_waiting", "gauge", "Calls that wait for a connection.", |status| wide(status.waiting));
    metric("todo_store_waiting_max", "gauge", "How many calls may wait.", |status| wide(status.max_waiting));
    metric("todo_store_refused_total", "counter", "Calls refused because too many were waiting already.", |status| {
        status.refused
    });
}

/// How calls share statements. Only some stores do that.
fn coalescing(text: &mut Text, status: Option<CoalescingStatus>) {
    let Some(status) = status else { return };
    text.family("todo_coalescing_calls_total", "counter", "Calls by themselves, and those that shared a statement.");
    for (how, count) in [("alone", status.alone), ("joined", status.joined)] {
        text.sample("todo_coalescing_calls_total", &[("how", how)], count);
    }
    text.family("todo_coalescing_batches_total", "counter", "Statements that were shared.");
    text.sample("todo_coalescing_batches_total", &[], status.batches);
    text.family("todo_coalescing_waiting", "gauge", "Calls that wait for a statement.");
    text.sample("todo_coalescing_waiting", &[], status.waiting);
    text.family("todo_coalescing_refused_total", "counter", "Calls refused because too many were waiting already.");
    text.sample("todo_coalescing_refused_total", &[], status.refused);
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The key set that is fetched. The settings allow at most one.
fn key_set(text: &mut Text, verifier: &JwtVerifier) {
    let Some(status) = verifier.key_sets().next() else { return };
    if let Some(age) = status.age {
        text.family("todo_key_set_age_seconds", "gauge", "Time since the last good fetch of the key set began.");
        text.sample("todo_key_set_age_seconds", &[], age.as_secs_f64());
    }
    text.family("todo_key_set_usable", "gauge", "Whether tokens can be judged by the key set.");
    text.sample("todo_key_set_usable", &[], u8::from(status.usable));
    text.family("todo_key_set_keys", "gauge", "Keys in the key set.");
    text.sample("todo_key_set_keys", &[], status.keys);
    text.family("todo_key_set_fetches_total", "counter", "Fetches of the key set that have begun.");
    text.sample("todo_key_set_fetches_total", &[], status.fetches);
    text.family("todo_key_set_fetch_failures_total", "counter", "Fetches of the key set that failed.");
    text.sample("todo_key_set_fetch_failures_total", &[], status.failures);
}
