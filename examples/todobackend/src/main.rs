//! Serves the public Todo-Backend wire: `cargo run -p todobackend`

use std::{env, error::Error, net::SocketAddr, sync::Arc};

use clap::Parser;
use http::Uri;
use todo_core::{
    UserId,
    auth::{Authenticator, JwtVerifier},
};
use todobackend::{Everybody, Todos, app};
use tokio::net::TcpListener;

/// Serves the public Todo-Backend wire.
///
/// The todos are in the database that `DATABASE_URL` names (`sqlite://...`, `postgres://...`), or else in `todobackend.db`.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Where the public finds this service, for the URLs of todos [default: http:// and the Host of each request].
    #[arg(long, value_name = "URL", value_parser = base_url)]
    base_url: Option<String>,
    /// Asks for a bearer token, signed (HS256) with the secret in `BETTER_AUTH_SECRET`: each user has their own todos.
    #[arg(long)]
    bearer: bool,
}

fn base_url(text: &str) -> Result<String, String> {
    let url: Uri = text.parse().map_err(|_| "it is no URL")?;
    match url.scheme_str() {
        Some("http" | "https") if url.query().is_none() => Ok(text.to_owned()),
        _ => Err("it must be http:// or https://, a host, and perhaps a path".to_owned()),
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
        Arc::new(Everybody(UserId::new("everybody")?))
    };
    let database = env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite://todobackend.db".to_owned());
    let app = app(Todos::open(&database).await?, authenticator, flags.base_url.as_deref());
    let listener = TcpListener::bind(flags.listen).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
