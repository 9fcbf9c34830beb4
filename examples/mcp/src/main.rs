//! Serves the tools: `BETTER_AUTH_SECRET=... cargo run -p mcp`

use std::{
    env,
    error::Error,
    io::{self, IsTerminal as _},
};

use axum::http::Uri;
use mcp::{Addresses, app};
use todo_core::{
    TodoService,
    api::TodoApi,
    auth::{JwtVerifier, KeySource, RateLimiter},
    store::{MemoryStore, PostgresOptions, PostgresStore},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let setting = |name: &str| env::var(name).ok();
    let filter = setting("RUST_LOG").unwrap_or_else(|| "info,rmcp=warn".to_owned());
    tracing_subscriber::fmt().with_ansi(io::stdout().is_terminal()).with_env_filter(filter).init();
    let port = setting("PORT").unwrap_or_else(|| "8000".to_owned()).parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    let endpoint: Uri = setting("MCP_URL").unwrap_or_else(|| format!("http://{address}/mcp")).parse()?;

    let authorization_server = setting("BETTER_AUTH_URL");
    let keys = match &authorization_server {
        // A token must be meant for this server; one for another service of the same issuer is rejected.
        Some(issuer) => KeySource::better_auth(issuer)?.audiences([endpoint.to_string()]),
        None => KeySource::secrets([
            setting("BETTER_AUTH_SECRET").ok_or("BETTER_AUTH_URL or BETTER_AUTH_SECRET is needed")?
        ])?,
    };
    let service = match setting("DATABASE_URL") {
        Some(url) => {
            let store = PostgresStore::connect_lazy(&url, &PostgresOptions::default())?;
            store.migrate().await?;
            TodoService::new(store)
        }
        None => TodoService::new(MemoryStore::new()),
    };
    let todo = TodoApi::new(service, JwtVerifier::builder().source(keys).build()?)
        .with_gate(RateLimiter::new("100/10s".parse()?));

    tracing::info!("listening on http://{address}{}", endpoint.path());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    axum::serve(listener, app(todo, &Addresses { endpoint, authorization_server }))
        // Requests that have begun end first.
        .with_graceful_shutdown(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        })
        .await?;
    Ok(())
}
