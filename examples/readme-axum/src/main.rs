use anyhow::Context as _;
use axum::{Router, extract::FromRef, routing::get};
use todo_axum::CurrentUser;
use todo_core::{TodoService, api::TodoApi, auth::JwtVerifier, store::SqliteStore};

#[derive(Clone, FromRef)]
struct AppState {
    todo: TodoApi, // `CurrentUser` needs it
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let store = SqliteStore::open_lazy("tasks.db");
    store.migrate().await?;
    // With Better Auth: JwtVerifier::better_auth("https://app.example.com")?
    let secret = std::env::var("BETTER_AUTH_SECRET").context("BETTER_AUTH_SECRET is not set")?;
    let todo = TodoApi::new(TodoService::new(store), JwtVerifier::hs256(secret)?);

    let app = Router::new()
        .route("/me", get(me)) // your own routes
        .nest("/api/v1", todo_axum::router(todo.clone()))
        .with_state(AppState { todo });

    let address = std::env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:8000".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await.context(address)?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Your own handler. Without a valid token the response is the same 401 as from the API.
async fn me(CurrentUser(user): CurrentUser) -> String {
    format!("Hello {}\n", user.user_id)
}
