//! A service on a database of its own, and clients that follow the URLs that it gives out.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use testkit::http::Server;
use todo_core::{
    UserId,
    auth::{Authenticator, JwtVerifier},
};
use todobackend::{Everybody, Todos, app};

pub(crate) const SECRET: &str = "only-for-tests-only-for-tests-only-for-tests";

/// The service, and its database.
pub(crate) struct Site {
    server: Server,
    pub(crate) database: String,
}

pub(crate) async fn on_sqlite(case: impl AsyncFnOnce(Site)) {
    let directory = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", directory.path().join("todos.db").display());
    case(Site::over(database).await).await;
}

pub(crate) async fn on_postgres(case: impl AsyncFnOnce(Site)) {
    let database = testkit::postgres::empty_database().await;
    case(Site::over(database.url().to_owned()).await).await;
    database.close().await;
}

impl Site {
    async fn over(database: String) -> Self {
        let server = serve(&database, Everybody(UserId::new("everybody").unwrap()), None).await;
        Self { server, database }
    }

    /// The same todos, under a URL that requests do not know.
    pub(crate) async fn with_base_url(&self, url: &'static str) -> Self {
        let server = serve(&self.database, Everybody(UserId::new("everybody").unwrap()), Some(url)).await;
        Self { server, database: self.database.clone() }
    }

    /// The same database, for users with tokens.
    pub(crate) async fn with_tokens(&self) -> Self {
        let server = serve(&self.database, JwtVerifier::hs256(SECRET).unwrap(), None).await;
        Self { server, database: self.database.clone() }
    }

    pub(crate) fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.server.client().send(request).await
    }

    /// Sends a request to the root (an empty text) or to the URL of a todo, with JSON if there is any.
    pub(crate) async fn request(&self, method: &str, url: &str, body: Value) -> Response<Bytes> {
        self.request_of("", method, url, body).await
    }

    /// The same by a user with a token.
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

    /// The todos in the list.
    pub(crate) async fn list(&self) -> Vec<Value> {
        let Value::Array(todos) = shown(&self.request("GET", "", Value::Null).await) else { panic!("no list") };
        todos
    }

    /// Posts a todo and answers what it became.
    pub(crate) async fn post(&self, todo: Value) -> Value {
        let response = self.request("POST", "", todo).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{response:?}");
        shown(&response)
    }

    pub(crate) async fn patch(&self, todo: &Value, patch: Value) -> Value {
        shown(&self.request("PATCH", url(todo), patch).await)
    }

    /// Asks for a todo at its URL.
    pub(crate) async fn get(&self, todo: &Value) -> Value {
        shown(&self.request("GET", url(todo), Value::Null).await)
    }

    /// Changes the database behind the back of the service.
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

    /// How many places in the order are written down.
    pub(crate) async fn places(&self) -> i64 {
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

/// What a successful answer shows.
#[track_caller]
pub(crate) fn shown(response: &Response<Bytes>) -> Value {
    assert!(response.status().is_success(), "{response:?}");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

pub(crate) fn url(todo: &Value) -> &str {
    todo["url"].as_str().unwrap()
}
