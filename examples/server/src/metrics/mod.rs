//! Metrics for Prometheus, on a separate port: requests and their durations, and the state of connections, pools, key
//! sets and the process.
//!
//! A request costs a few atomic additions; everything else is read during a scrape. Label values are constants (path
//! templates, known methods and statuses, reasons), so that clients cannot add series.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use todo_core::{
    api::{CacheStatus, TodoApi},
    auth::JwtVerifier,
    store::{CoalescingStatus, PoolStatus, ReplicaStatus},
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle, time::sleep};

use crate::{
    app::Framework, connection::MemoryBudget, connection_limit::ConnectionLimit, database::Store, failure::Failure,
    serve,
};

pub(crate) mod process;
pub(crate) mod requests;
mod text;

use text::Text;

/// The maximum number of scrapes at a time.
const MAX_SCRAPES: usize = 16;
/// The time limit of a scrape.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose state the metrics show.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) framework: Framework,
    pub(crate) api: TodoApi,
    pub(crate) store: Store,
    pub(crate) verifier: JwtVerifier,
    pub(crate) connections: ConnectionLimit,
    pub(crate) memory: MemoryBudget,
}

/// Serves metrics until this is dropped.
#[derive(Debug)]
pub(crate) struct Endpoint(JoinHandle<()>);

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens the port and serves `/metrics` there.
pub(crate) async fn open(address: SocketAddr, observed: Observed) -> Result<Endpoint, Failure> {
    let listener = serve::bind(address, "METRICS_HOST", "--metrics-port").await?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "metrics are served at /metrics");
    Ok(Endpoint(tokio::spawn(accept(listener, observed))))
}

async fn accept(listener: TcpListener, observed: Observed) {
    let scrapes = Arc::new(Semaphore::new(MAX_SCRAPES));
    loop {
        let Ok(permit) = Arc::clone(&scrapes).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely too many files are open. Other connections will be closed soon.
            sleep(Duration::from_millis(500)).await;
            continue;
        };
        let observed = observed.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| respond(request, observed.clone()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                // One request per connection, so that idle connections hold no permits.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that disconnects early gets no metrics.
            let _ = tokio::time::timeout(SCRAPE_TIMEOUT, connection).await;
            drop(permit);
        });
    }
}

async fn respond(request: Request<Incoming>, observed: Observed) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.uri().path(), request.method()) {
        ("/metrics", &(Method::GET | Method::HEAD)) => {
            // The metrics of the process are read from files.
            match tokio::task::spawn_blocking(move || render(&observed)).await {
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

/// All metrics as text.
fn render(observed: &Observed) -> String {
    let mut text = Text::default();
    let framework = observed.framework.name();
    text.family("todo_build_info", "gauge", "Version and framework of this program; always 1.");
    text.sample("todo_build_info", &[("version", env!("CARGO_PKG_VERSION")), ("framework", framework)], 1);
    requests::render(&mut text);
    text.family("todo_connections", "gauge", "Open connections of clients.");
    text.sample("todo_connections", &[], observed.connections.open());
    text.family("todo_connections_max", "gauge", "Maximum number of open connections of clients.");
    text.sample("todo_connections_max", &[], observed.connections.max());
    text.family("todo_event_streams", "gauge", "Open streams of events.");
    text.sample("todo_event_streams", &[], observed.api.open_streams());
    memory(&mut text, &observed.memory);
    pools(&mut text, &observed.store.pools());
    let name = "todo_store_writes_failing";
    text.family(name, "gauge", "Whether the database accepts no writes: it is read-only, or its disk is full.");
    text.sample(name, &[], u8::from(observed.api.service().writes_are_failing()));
    coalescing(&mut text, observed.store.coalescing());
    replicas(&mut text, observed.store.replicas());
    cache(&mut text, observed.api.cache_status());
    key_set(&mut text, &observed.verifier);
    process::render(&mut text);
    text.into_string()
}

/// The memory that clients hold.
fn memory(text: &mut Text, budget: &MemoryBudget) {
    let name = "todo_connection_memory_bytes";
    text.family(name, "gauge", "Memory of open requests and unread responses.");
    text.sample(name, &[], budget.held());
    let name = "todo_connection_memory_max_bytes";
    text.family(name, "gauge", "Memory of open requests and unread responses beyond which connections are closed.");
    text.sample(name, &[], budget.limit());
    let name = "todo_connections_closed_for_memory_total";
    text.family(name, "counter", "Connections closed because requests and unread responses held too much memory.");
    text.sample(name, &[], budget.closed_connections());
}

fn pools(text: &mut Text, pools: &[(&'static str, PoolStatus)]) {
    let mut metric = |name, kind, help, value: fn(&PoolStatus) -> u64| {
        text.family(name, kind, help);
        for (pool, status) in pools {
            text.sample(name, &[("pool", pool)], value(status));
        }
    };
    metric("todo_store_connections", "gauge", "Open connections to the database.", |status| to_u64(status.size));
    metric("todo_store_connections_idle", "gauge", "Idle connections to the database.", |status| to_u64(status.idle));
    metric("todo_store_connections_max", "gauge", "Maximum number of connections to the database.", |status| {
        to_u64(status.max_size)
    });
    metric("todo_store_waiting", "gauge", "Calls that wait for a connection.", |status| to_u64(status.waiting));
    metric("todo_store_waiting_max", "gauge", "Maximum number of calls that wait for a connection.", |status| {
        to_u64(status.max_waiting)
    });
    metric("todo_store_refused_total", "counter", "Calls rejected because too many were waiting.", |status| {
        status.refused
    });
}

/// Statement batching, if the store does it.
fn coalescing(text: &mut Text, status: Option<CoalescingStatus>) {
    let Some(status) = status else { return };
    text.family("todo_coalescing_calls_total", "counter", "Calls with a statement of their own, and calls in a batch.");
    for (how, count) in [("alone", status.alone), ("joined", status.joined)] {
        text.sample("todo_coalescing_calls_total", &[("how", how)], count);
    }
    text.family("todo_coalescing_batches_total", "counter", "Statements for a batch of calls.");
    text.sample("todo_coalescing_batches_total", &[], status.batches);
    text.family("todo_coalescing_waiting", "gauge", "Calls that wait for a batch.");
    text.sample("todo_coalescing_waiting", &[], status.waiting);
    text.family("todo_coalescing_refused_total", "counter", "Calls rejected because too many were waiting.");
    text.sample("todo_coalescing_refused_total", &[], status.refused);
}

/// Reads from replicas, if there are any.
fn replicas(text: &mut Text, status: Option<ReplicaStatus>) {
    let Some(status) = status else { return };
    let name = "todo_replica_reads_total";
    let help = "Reads that a replica has served; and those that the primary has served because the replica was behind, because \
                it has failed, and without asking a replica.";
    text.family(name, "counter", help);
    for (result, count) in [
        ("replica", status.from_replica),
        ("behind", status.behind),
        ("failed", status.failed),
        ("primary", status.from_primary),
    ] {
        text.sample(name, &[("result", result)], count);
    }
    text.family("todo_replicas", "gauge", "Replicas in the settings.");
    text.sample("todo_replicas", &[], status.replicas);
    text.family("todo_replicas_usable", "gauge", "Replicas that are read now.");
    text.sample("todo_replicas_usable", &[], status.usable);
}

/// The cache of rendered responses.
fn cache(text: &mut Text, status: CacheStatus) {
    let name = "todo_cache_reads_total";
    text.family(name, "counter", "Lists, counts and summaries that were in the cache and current, and those rendered.");
    text.sample(name, &[("result", "hit")], status.hits);
    text.sample(name, &[("result", "miss")], status.misses);
    text.family("todo_cache_bytes", "gauge", "Memory of the cache of rendered responses.");
    text.sample("todo_cache_bytes", &[], status.bytes);
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The remote key set. The settings allow at most one.
fn key_set(text: &mut Text, verifier: &JwtVerifier) {
    let Some(status) = verifier.key_sets().next() else { return };
    if let Some(age) = status.age {
        text.family(
            "todo_key_set_age_seconds",
            "gauge",
            "Time since the start of the last successful fetch of the key set.",
        );
        text.sample("todo_key_set_age_seconds", &[], age.as_secs_f64());
    }
    text.family("todo_key_set_usable", "gauge", "Whether the key set can verify tokens.");
    text.sample("todo_key_set_usable", &[], u8::from(status.usable));
    text.family("todo_key_set_keys", "gauge", "Keys in the key set.");
    text.sample("todo_key_set_keys", &[], status.keys);
    text.family("todo_key_set_fetches_total", "counter", "Fetches of the key set.");
    text.sample("todo_key_set_fetches_total", &[], status.fetches);
    text.family("todo_key_set_fetch_failures_total", "counter", "Failed fetches of the key set.");
    text.sample("todo_key_set_fetch_failures_total", &[], status.failures);
}
