//! A service with a database of its own, and a client that follows the URLs of the service.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use testkit::http::Server;
use todo_core::{
    UserId,
    auth::{Authenticator, JwtVerifier},
};
use todobackend::{SingleUser, Todos, app};

pub(crate) const SECRET: &str = "only-for-tests-only-for-tests-only-for-tests";

/// The service, and its database.
pub(crate) struct Site {
    server: Server,
    pub(crate) database: String,
}

pub(crate) async fn on_sqlite(case: impl AsyncFnOnce(Site)) {
    let directory = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", directory.path().join("todos.db").display());
    case(Site::with_database(database).await).await;
}

pub(crate) async fn on_postgres(case: impl AsyncFnOnce(Site)) {
    let database = testkit::postgres::empty_database().await;
    case(Site::with_database(database.url().to_owned()).await).await;
    database.close().await;
}

impl Site {
    async fn with_database(database: String) -> Self {
        let server = serve(&database, SingleUser(UserId::new("everybody").unwrap()), None).await;
        Self { server, database }
    }

    /// Serves the same database with a base URL.
    pub(crate) async fn with_base_url(&self, url: &'static str) -> Self {
        let server = serve(&self.database, SingleUser(UserId::new("everybody").unwrap()), Some(url)).await;
        Self { server, database: self.database.clone() }
    }

    /// Serves the same database to users with tokens.
    pub(crate) async fn with_tokens(&self) -> Self {
        let server = serve(&self.database, JwtVerifier::hs256(SECRET).unwrap(), None).await;
        Self { server, database: self.database.clone() }
    }

    pub(crate) fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Sends a request unchanged.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.server.client().send(request).await
    }

    /// Sends a request to the root (an empty URL) or to the URL of a todo, with a JSON body unless it is null.
    pub(crate) async fn request(&self, method: &str, url: &str, body: Value) -> Response<Bytes> {
        self.request_of("", method, url, body).await
    }

    /// Sends a request with a token of this user.
    pub(crate) async fn request_of(&self, user: &str, method: &str, url: &str, body: Value) -> Response<Bytes> {
        let url: Uri =
            if url.is_empty() { format!("http://{}/", self.address()) } else { url.to_owned() }.parse().unwrap();
        assert_eq!((url.scheme_str(), url.authority().unwrap().as_str()), (Some("http"), &*self.address()));
        let mut request = Request::builder().method(method).uri(url.path());
        if !user.is_empty() {
            let token = testkit::tokens::user_token(SECRET.as_bytes(), user);
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Value::Null => Bytes::new(),
            body => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                body.to_string().into()
            }
        };
        self.send(request.body(body).unwrap()).await
    }

    /// Returns the list of todos.
    pub(crate) async fn list(&self) -> Vec<Value> {
        let Value::Array(todos) = shown(&self.request("GET", "", Value::Null).await) else { panic!("no list") };
        todos
    }

    /// Posts a todo and returns the created todo.
    pub(crate) async fn post(&self, todo: Value) -> Value {
        let response = self.request("POST", "", todo).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{response:?}");
        shown(&response)
    }

    pub(crate) async fn patch(&self, todo: &Value, patch: Value) -> Value {
        shown(&self.request("PATCH", url(todo), patch).await)
    }

    /// Reads a todo at its URL.
    pub(crate) async fn get(&self, todo: &Value) -> Value {
        shown(&self.request("GET", url(todo), Value::Null).await)
    }

    /// Executes SQL in the database of the service.
    pub(crate) async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.database.starts_with("sqlite:") {
            let mut connection = SqliteConnection::connect(&self.database).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = PgConnection::connect(&self.database).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        }
    }

    /// Returns the number of stored positions.
    pub(crate) async fn positions(&self) -> i64 {
        let count = "select count(*) from todobackend_order";
        if self.database.starts_with("sqlite:") {
            let mut connection = SqliteConnection::connect(&self.database).await.unwrap();
            sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap()
        } else {
            let mut connection = PgConnection::connect(&self.database).await.unwrap();
            sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap()
        }
    }
}

async fn serve(database: &str, authenticator: impl Authenticator + 'static, base_url: Option<&str>) -> Server {
    let app = app(Todos::open(database).await.unwrap(), authenticator, base_url);
    Server::start(async |listener| axum::serve(listener, app).await.unwrap()).await
}

/// Returns the JSON of a successful response.
#[track_caller]
pub(crate) fn shown(response: &Response<Bytes>) -> Value {
    assert!(response.status().is_success(), "{response:?}");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

pub(crate) fn url(todo: &Value) -> &str {
    todo["url"].as_str().unwrap()
}
