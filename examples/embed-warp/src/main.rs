//! Serves the guest book with the todo API: `BETTER_AUTH_SECRET=... cargo run -p embed-warp`

use std::{env, error::Error};

use embed_warp::{Guests, app};
use todo_core::{TodoService, api::TodoApi, auth::JwtVerifier, store::SqliteStore}; // +
use tokio::net::TcpListener;

fn setting(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set"))
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the user needs the address")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = SqliteStore::open_lazy("tasks.db"); // +
    store.migrate().await?; // +
    let todo = TodoApi::new(TodoService::new(store), JwtVerifier::hs256(setting("BETTER_AUTH_SECRET")?)?); // +
    let app = app(
        Guests::default(),
        todo, // +
    );
    let port = setting("PORT").unwrap_or_else(|_| "8000".to_owned()).parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    warp::serve(app).incoming(listener).run().await;
    Ok(())
}
