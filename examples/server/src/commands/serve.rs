//! `todo-server serve`: serves the API.

use std::time::Duration;

use todo_core::{
    api::TodoApi,
    auth::{JwtVerifier, JwtVerifierBuilder, KeySource, RateLimiter, RefreshTask},
};

use crate::{
    app::{self, App},
    connection::MemoryBudget,
    database::{self, Store},
    failure::{Failure, error_chain},
    metrics,
    serve::{self, StopSignals},
    settings::{Http, Settings, Sources, Tasks},
    telemetry,
};

/// Serves until a stop signal.
pub(super) async fn run(sources: Sources) -> Result<(), Failure> {
    let settings = Settings::read(sources)?;
    let telemetry = telemetry::install(settings.log)?;
    for (name, similar) in &settings.warnings {
        tracing::warn!("{name} in .env is no setting; did you mean {similar}?");
    }
    let mut stop = StopSignals::subscribe()?;
    let store = tokio::select! {
        store = database::open(&settings.database) => store?,
        () = stop.first() => return Ok(()),
    };
    let http = &settings.http;
    let api = Api::new(http, settings.tasks, &store, settings.keys, settings.leeway)?;
    let limit = serve::connection_limit(http.max_connections, settings.database.open_files());
    let memory = MemoryBudget::new(http.connection_memory, limit.max());
    let _metrics = match settings.metrics {
        Some(address) => {
            let observed = metrics::Observed {
                framework: http.framework,
                api: api.todo.clone(),
                store: store.clone(),
                verifier: api.verifier,
                connections: limit.clone(),
                memory: memory.clone(),
            };
            Some(metrics::open(address, observed).await?)
        }
        None => None,
    };
    let listener = serve::listen(settings.address).await?;
    let address = listener.local_addr().unwrap_or(settings.address);
    tracing::info!(%address, framework = ?http.framework, "listening");
    serve::serve(listener, api.app, limit, memory, http.stop(stop, api.todo)).await;
    store.close().await;
    telemetry.finish().await;
    Ok(())
}

/// The API in a framework, with its token verifier.
pub(super) struct Api {
    pub(super) todo: TodoApi,
    pub(super) app: App,
    pub(super) verifier: JwtVerifier,
    /// Refreshes remote key sets until this is dropped.
    _refresh: RefreshTask,
}

impl Api {
    pub(super) fn new(
        http: &Http,
        tasks: Tasks,
        store: &Store,
        keys: Vec<KeySource>,
        leeway: Duration,
    ) -> Result<Self, Failure> {
        let verifier = keys.into_iter().fold(JwtVerifier::builder().leeway(leeway), JwtVerifierBuilder::source);
        let verifier = verifier.build().map_err(|error| Failure::fatal(error_chain(&error)))?;
        let refresh = verifier.spawn_refresh();
        let service = store.service().with_quota(tasks.max_per_user).with_deletions_kept(tasks.deletions_kept);
        let api = TodoApi::new(service, verifier.clone()).with_body_limit(http.body_limit).with_timeout(http.timeout);
        let api = api.with_cache(http.cache * 1024 * 1024);
        let api = if http.require_preconditions { api.require_preconditions() } else { api };
        let api = match http.rate_limit {
            Some(rate) => api.with_gate(RateLimiter::new(rate)),
            None => api,
        };
        Ok(Self { app: app::app(http.framework, api.clone(), &http.cors), todo: api, verifier, _refresh: refresh })
    }
}
