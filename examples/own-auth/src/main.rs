//! Serves the todo API to users with session cookies: `cargo run -p own-auth`

use std::{env, error::Error, time::Duration};

use own_auth::{Accounts, app, secret};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use todo_core::{clock::SystemClock, store::SqliteStore};
use tokio::net::TcpListener;

const FILE: &str = "own-auth.db";

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the user needs the passwords")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let port = env::var("PORT").unwrap_or_else(|_| "8000".to_owned()).parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let origin = format!("http://localhost:{}", listener.local_addr()?.port());

    // Users, sessions and tasks are in the same file, so that one transaction can delete all three.
    let options = SqliteConnectOptions::new()
        .filename(FILE)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(5));
    let accounts = Accounts::open(SqlitePool::connect_with(options).await?, &origin, SystemClock).await?;
    let tasks = SqliteStore::open_lazy(FILE);
    tasks.migrate().await?;

    for name in ["ann", "bob"] {
        let password = secret()?;
        accounts.set_password(name, &password).await?;
        println!("the password of {name} is {password} until the next start");
    }
    println!("listening on {origin}");
    axum::serve(listener, app(accounts, tasks)).await?;
    Ok(())
}
