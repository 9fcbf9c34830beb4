//! Serves the public Todo-Backend API: `cargo run -p todobackend`

use std::{env, error::Error, net::SocketAddr, sync::Arc};

use clap::Parser;
use http::Uri;
use todo_core::{
    UserId,
    auth::{Authenticator, JwtVerifier},
};
use todobackend::{SingleUser, Todos, app};
use tokio::net::TcpListener;

/// Serves the public Todo-Backend API.
///
/// The todos are stored in the database at `DATABASE_URL` (`sqlite://...`, `postgres://...`), by default in
/// `todobackend.db`.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// The public URL of the service, for the URLs of todos [default: http:// and the Host of each request].
    #[arg(long, value_name = "URL", value_parser = base_url)]
    base_url: Option<String>,
    /// Requires a bearer token signed (HS256) with the secret in `BETTER_AUTH_SECRET`; each user has their own todos.
    #[arg(long)]
    bearer: bool,
}

fn base_url(text: &str) -> Result<String, String> {
    let url: Uri = text.parse().map_err(|_| "not a URL")?;
    match url.scheme_str() {
        Some("http" | "https") if url.query().is_none() => Ok(text.to_owned()),
        _ => Err("must be http:// or https:// with a host and an optional path".to_owned()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let flags = Flags::parse();
    tracing_subscriber::fmt().init();
    let authenticator: Arc<dyn Authenticator> = if flags.bearer {
        let secret = env::var("BETTER_AUTH_SECRET").map_err(|_| "--bearer needs BETTER_AUTH_SECRET")?;
        Arc::new(JwtVerifier::hs256(secret)?)
    } else {
        Arc::new(SingleUser(UserId::new("everybody")?))
    };
    let database = env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://todobackend.db".to_owned());
    let app = app(Todos::open(&database).await?, authenticator, flags.base_url.as_deref());
    let listener = TcpListener::bind(flags.listen).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
