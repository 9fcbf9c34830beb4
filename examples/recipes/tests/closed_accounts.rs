//! The recipe of closed accounts: their tokens are rejected at once, and their tasks are deleted.

use axum::Router;
use bytes::Bytes;
use http::{Request, StatusCode, header::AUTHORIZATION};
use recipes::closed_accounts::ClosedAccounts;
use sqlx::{Executor as _, PgPool};
use testkit::{http::Server, tokens};
use todo_core::{
    NewTask, TaskQuery, Title, TodoService, UserId, api::TodoApi, auth::JwtVerifier, store::PostgresStore,
};

const SECRET: &str = "a secret of this test, long enough";

#[tokio::test]
async fn a_token_of_a_closed_account_is_rejected_from_the_next_request_on() {
    let database = testkit::postgres::empty_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone());
    store.migrate().await.unwrap();
    pool.execute("create table closed_accounts (user_id text primary key)").await.unwrap();
    let service = TodoService::new(store.clone());
    let accounts = ClosedAccounts { pool: pool.clone() };
    let todo = TodoApi::new(service.clone(), JwtVerifier::hs256(SECRET).unwrap()).with_gate(accounts.clone());
    let app: Router = Router::new().merge(todo_axum::router(todo));
    let server = Server::start(async |listener| axum::serve(listener, app).await.unwrap()).await;
    let client = server.client();
    let tasks = async |user: &str| {
        let token = format!("Bearer {}", tokens::user_token(SECRET.as_bytes(), user));
        let request = Request::get("/tasks").header(AUTHORIZATION, token).body(Bytes::new()).unwrap();
        client.send(request).await
    };
    let [ann, bob] = ["ann", "bob"].map(|name| UserId::new(name).unwrap());
    for user in [&ann, &bob] {
        for title in ["One", "Two"] {
            service.for_user(user.clone()).create(NewTask::new(Title::new(title).unwrap())).await.unwrap();
        }
    }
    assert_eq!(tasks("ann").await.status(), StatusCode::OK);
    assert_eq!(accounts.close(&store, &service, ann.clone()).await.unwrap(), 2);
    let rejected = tasks("ann").await;
    assert_eq!(rejected.status(), StatusCode::UNAUTHORIZED);
    assert!(String::from_utf8_lossy(rejected.body()).contains("token_revoked"));
    assert_eq!(service.for_user(ann).list(&TaskQuery::default()).await.unwrap().tasks, []);
    assert_eq!(tasks("bob").await.status(), StatusCode::OK);
    assert_eq!(service.for_user(bob).list(&TaskQuery::default()).await.unwrap().tasks.len(), 2);
    pool.close().await;
    database.close().await;
}
