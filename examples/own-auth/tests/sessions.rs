//! Sessions of the host over real sockets: sign-in, sign-out, expiry and cookies.

use std::{
    io::{BufRead as _, BufReader},
    num::NonZeroU32,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use own_auth::{Accounts, COOKIE, app};
use serde_json::{Value, json};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tempfile::TempDir;
use testkit::{
    http::{Client, Server},
    tokens,
};
use todo_core::{
    clock::{Clock as _, FixedClock, Timestamp},
    store::SqliteStore,
};

const ORIGIN: &str = "https://todo.example";

struct Host {
    server: Server,
    accounts: Accounts,
    clock: Arc<FixedClock>,
    pool: SqlitePool,
    _directory: TempDir,
}

impl Host {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("host.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePool::connect_with(options).await.expect("a database");
        let clock = Arc::new(FixedClock::at(Timestamp::from_unix_seconds(1_750_000_000)));
        let accounts = Accounts::open(pool.clone(), ORIGIN, clock.clone()).await.expect("tables");
        // One iteration, so that the tests are fast.
        let accounts = accounts.with_iterations(NonZeroU32::MIN);
        for name in ["ann", "bob"] {
            accounts.set_password(name, &password(name)).await.expect("a user");
        }
        let tasks = SqliteStore::open_lazy(path);
        tasks.migrate().await.expect("a table");
        let app = app(accounts.clone(), tasks);
        let server =
            Server::start(async |listener| axum::serve(listener, app).await.expect("the listener accepts")).await;
        Self { server, accounts, clock, pool, _directory: directory }
    }

    fn browser(&self) -> Browser {
        Browser { client: self.server.client(), cookie: None, origin: Some(ORIGIN) }
    }

    /// A browser with a session of this user.
    async fn browser_of(&self, name: &str) -> Browser {
        let mut browser = self.browser();
        let response = browser.login(name, &password(name)).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        browser
    }

    fn wait(&self, seconds: u64) {
        self.clock.set(self.clock.now().plus(Duration::from_secs(seconds)));
    }
}

fn password(name: &str) -> String {
    format!("correct horse of {name}")
}

/// Stores cookies and sends the origin of its page.
struct Browser {
    client: Client,
    cookie: Option<String>,
    origin: Option<&'static str>,
}

impl Browser {
    async fn send(&mut self, method: &str, path: &str, body: Option<Value>) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, format!("theme=dark; {COOKIE}={cookie}"));
        }
        if let Some(origin) = self.origin.filter(|_| method != "GET") {
            request = request.header(header::ORIGIN, origin);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let response = self.client.send(request.body(body.into()).expect("a request")).await;
        if let Some(cookie) = new_cookie(response.headers()) {
            self.cookie = Some(cookie).filter(|cookie| !cookie.is_empty());
        }
        response
    }

    async fn login(&mut self, name: &str, password: &str) -> Response<Bytes> {
        self.send("POST", "/login", Some(json!({ "name": name, "password": password }))).await
    }

    async fn add(&mut self, title: &str) -> Response<Bytes> {
        self.send("POST", "/api/v1/tasks", Some(json!({ "title": title }))).await
    }

    async fn tasks(&mut self) -> Response<Bytes> {
        self.send("GET", "/api/v1/tasks", None).await
    }

    async fn titles(&mut self) -> Vec<String> {
        let response = self.tasks().await;
        assert_eq!(response.status(), StatusCode::OK);
        let tasks: Vec<Value> = serde_json::from_slice(response.body()).expect("a list");
        tasks.iter().map(|task| task["title"].as_str().expect("a title").to_owned()).collect()
    }
}

/// Returns the value of the cookie, and checks its attributes.
fn new_cookie(headers: &HeaderMap) -> Option<String> {
    let set = headers.get(header::SET_COOKIE)?.to_str().expect("text");
    let (cookie, attributes) = set.split_once("; ").expect("attributes");
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(attributes.split("; ").any(|own| own == attribute), "{set}");
    }
    Some(cookie.strip_prefix(COOKIE)?.strip_prefix('=')?.to_owned())
}

#[track_caller]
fn assert_rejected(response: &Response<Bytes>, status: StatusCode, code: &str) {
    assert_eq!(response.status(), status, "{response:?}");
    let problem: Value = serde_json::from_slice(response.body()).expect("a problem");
    assert_eq!(problem["code"], code);
}

#[tokio::test]
async fn signed_in_users_have_tasks() {
    let host = Host::start().await;
    let mut ann = host.browser();
    assert_rejected(&ann.tasks().await, StatusCode::UNAUTHORIZED, "unauthenticated");
    assert_eq!(ann.login("ann", &password("ann")).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(ann.add("Buy milk").await.status(), StatusCode::CREATED);
    assert_eq!(ann.titles().await, ["Buy milk"]);
    let me = ann.send("GET", "/me", None).await;
    assert_eq!((me.status(), &me.body()[..]), (StatusCode::OK, &b"ann"[..]));
    let session = ann.send("GET", "/api/v1/auth/session", None).await;
    let session: Value = serde_json::from_slice(session.body()).unwrap();
    let ends = host.clock.now().plus(Duration::from_hours(12));
    assert_eq!(session, json!({ "user": { "id": "ann" }, "expires_at": ends.to_string() }));
}

/// A page can show the sentence, and no browser asks for a password because of the challenge.
#[tokio::test]
async fn a_401_says_how_to_sign_in() {
    let host = Host::start().await;
    let mut browser = host.browser();
    for path in ["/api/v1/tasks", "/me"] {
        let response = browser.send("GET", path, None).await;
        assert_rejected(&response, StatusCode::UNAUTHORIZED, "unauthenticated");
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Cookie", "{path}");
        let problem: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(problem["detail"], "Sign in at /login.", "{path}");
    }
    let mut ann = host.browser_of("ann").await;
    host.wait(13 * 60 * 60);
    let problem: Value = serde_json::from_slice(ann.tasks().await.body()).unwrap();
    assert_eq!(problem["detail"], "The session has expired.");
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_get_no_cookie() {
    let host = Host::start().await;
    let mut browser = host.browser();
    host.accounts.set_disabled("bob", true).await.unwrap();
    for (name, password) in [("ann", "guessed"), ("ann", ""), ("eve", ""), ("eve", "x"), ("bob", &password("bob"))] {
        let response = browser.login(name, password).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{name} {password}");
        assert_eq!(browser.cookie, None);
    }
}

#[tokio::test]
async fn invalid_and_repeated_cookies_are_rejected() {
    let host = Host::start().await;
    let mut browser = host.browser_of("ann").await;
    let good = browser.cookie.take().unwrap();
    for invalid in ["", "x", &"0".repeat(64), &good[1..]] {
        browser.cookie = Some(invalid.to_owned());
        assert_rejected(&browser.tasks().await, StatusCode::UNAUTHORIZED, "token_invalid");
    }
    browser.cookie = Some(format!("{good}; {COOKIE}={good}"));
    assert_rejected(&browser.tasks().await, StatusCode::UNAUTHORIZED, "unauthenticated");
    browser.cookie = Some(good);
    assert_eq!(browser.titles().await, [""; 0]);
}

#[tokio::test]
async fn users_see_their_own_tasks_only() {
    let host = Host::start().await;
    let (mut ann, mut bob) = (host.browser_of("ann").await, host.browser_of("bob").await);
    let created = ann.add("Ann's").await;
    bob.add("Bob's").await;
    assert_eq!(ann.titles().await, ["Ann's"]);
    assert_eq!(bob.titles().await, ["Bob's"]);
    let path = format!("/api/v1/{}", created.headers()[header::LOCATION].to_str().unwrap());
    assert_eq!(ann.send("GET", &path, None).await.status(), StatusCode::OK);
    assert_rejected(&bob.send("GET", &path, None).await, StatusCode::NOT_FOUND, "task_not_found");
    assert_rejected(&bob.send("DELETE", &path, None).await, StatusCode::NOT_FOUND, "task_not_found");
    assert_rejected(&bob.send("GET", "/api/v1/ann/tasks", None).await, StatusCode::FORBIDDEN, "forbidden");
}

#[tokio::test]
async fn signing_out_ends_this_session_at_once() {
    let host = Host::start().await;
    let (mut here, mut there) = (host.browser_of("ann").await, host.browser_of("ann").await);
    let stolen = here.cookie.clone();
    assert_eq!(here.send("POST", "/logout", None).await.status(), StatusCode::NO_CONTENT);
    // The browser has deleted the cookie, and the service has deleted the session.
    assert_rejected(&here.tasks().await, StatusCode::UNAUTHORIZED, "unauthenticated");
    here.cookie = stolen;
    assert_rejected(&here.tasks().await, StatusCode::UNAUTHORIZED, "token_invalid");
    assert_eq!(there.tasks().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn signing_out_everywhere_ends_all_earlier_sessions() {
    let host = Host::start().await;
    let (mut here, mut there) = (host.browser_of("ann").await, host.browser_of("ann").await);
    let mut bob = host.browser_of("bob").await;
    host.wait(1);
    assert_eq!(here.send("POST", "/logout/everywhere", None).await.status(), StatusCode::NO_CONTENT);
    for browser in [&mut here, &mut there] {
        assert_rejected(&browser.tasks().await, StatusCode::UNAUTHORIZED, "token_revoked");
        // The host's own handler uses the same gate.
        assert_rejected(&browser.send("GET", "/me", None).await, StatusCode::UNAUTHORIZED, "token_revoked");
    }
    assert_eq!(bob.tasks().await.status(), StatusCode::OK);
    let mut again = host.browser_of("ann").await;
    assert_eq!(again.tasks().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_disabled_user_is_rejected_from_the_next_request_on() {
    let host = Host::start().await;
    let (mut ann, mut bob) = (host.browser_of("ann").await, host.browser_of("bob").await);
    assert_eq!(ann.tasks().await.status(), StatusCode::OK);
    host.accounts.set_disabled("ann", true).await.unwrap();
    assert_rejected(&ann.tasks().await, StatusCode::UNAUTHORIZED, "token_revoked");
    assert_rejected(&ann.add("Add a task").await, StatusCode::UNAUTHORIZED, "token_revoked");
    assert_eq!(bob.tasks().await.status(), StatusCode::OK);
    host.accounts.set_disabled("ann", false).await.unwrap();
    assert_eq!(ann.titles().await, [""; 0]);
}

#[tokio::test]
async fn a_deleted_user_is_rejected() {
    let host = Host::start().await;
    let mut ann = host.browser_of("ann").await;
    // The session still exists, as on a replica that lags behind.
    sqlx::raw_sql("pragma foreign_keys = off; delete from users where name = 'ann'; pragma foreign_keys = on")
        .execute(&host.pool)
        .await
        .unwrap();
    assert_rejected(&ann.tasks().await, StatusCode::UNAUTHORIZED, "token_revoked");
}

#[tokio::test]
async fn sessions_expire() {
    let host = Host::start().await;
    let mut ann = host.browser_of("ann").await;
    host.wait(12 * 60 * 60 - 1);
    assert_eq!(ann.tasks().await.status(), StatusCode::OK);
    host.wait(1);
    assert_rejected(&ann.tasks().await, StatusCode::UNAUTHORIZED, "token_expired");
}

#[tokio::test]
async fn writes_from_other_sites_are_rejected() {
    let host = Host::start().await;
    let mut ann = host.browser_of("ann").await;
    assert_eq!(ann.add("From our page").await.status(), StatusCode::CREATED);
    for origin in [
        Some("https://evil.example"),
        Some("null"),
        Some("https://todo.example.evil"),
        Some("http://todo.example"),
        None,
    ] {
        ann.origin = origin;
        assert_rejected(&ann.add("From another page").await, StatusCode::FORBIDDEN, "forbidden");
        assert_rejected(&ann.send("POST", "/logout", None).await, StatusCode::FORBIDDEN, "forbidden");
        assert_rejected(&ann.login("ann", &password("ann")).await, StatusCode::FORBIDDEN, "forbidden");
        assert_eq!(ann.titles().await, ["From our page"]);
    }
}

#[tokio::test]
async fn stored_hashes_are_not_usable_as_credentials() {
    let host = Host::start().await;
    let ann = host.browser_of("ann").await;
    let stored: Vec<Vec<u8>> = sqlx::query_scalar(
        "select token_hash from sessions union all select password from users union all select salt from users",
    )
    .fetch_all(&host.pool)
    .await
    .unwrap();
    assert_eq!(stored.len(), 5);
    let (cookie, password) = (ann.cookie.unwrap(), password("ann"));
    for hash in stored {
        assert_eq!(hash.len(), 32);
        assert_ne!(tokens::base64url(&hash), cookie);
        assert!(!password.as_bytes().starts_with(&hash[..8]));
    }
}

#[tokio::test]
async fn somebody_who_signs_up_is_signed_in() {
    let host = Host::start().await;
    let mut carol = host.browser();
    let account = json!({ "name": "carol", "password": password("carol") });
    assert_eq!(carol.send("POST", "/signup", Some(account.clone())).await.status(), StatusCode::CREATED);
    assert_eq!(carol.add("Buy milk").await.status(), StatusCode::CREATED);
    assert_eq!(carol.titles().await, ["Buy milk"]);
    assert_eq!(host.browser_of("carol").await.titles().await, ["Buy milk"]);

    // Nobody can take over an account by signing up with its name.
    let mut thief = host.browser();
    let others = json!({ "name": "carol", "password": "another long password" });
    assert_eq!(thief.send("POST", "/signup", Some(others)).await.status(), StatusCode::CONFLICT);
    assert_eq!(thief.cookie, None);
    assert_eq!(carol.tasks().await.status(), StatusCode::OK);
    assert_eq!(host.browser_of("carol").await.tasks().await.status(), StatusCode::OK);

    for (name, password) in [("", "a long enough password"), ("dave", "too short"), ("dave", "")] {
        let wrong = json!({ "name": name, "password": password });
        let response = thief.send("POST", "/signup", Some(wrong)).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{name}");
    }
    thief.origin = Some("https://evil.example");
    let of_another_site = json!({ "name": "dave", "password": "a long enough password" });
    assert_rejected(&thief.send("POST", "/signup", Some(of_another_site)).await, StatusCode::FORBIDDEN, "forbidden");
}

/// The number of rows of a user in each table.
async fn rows_of(host: &Host, user: &str) -> [i64; 3] {
    let count = "select (select count(*) from users where name = $1), (select count(*) from sessions where user = $1), \
                 (select count(*) from todo_tasks where user_id = $1)";
    let (users, sessions, tasks) = sqlx::query_as(count).bind(user).fetch_one(&host.pool).await.expect("counts");
    [users, sessions, tasks]
}

#[tokio::test]
async fn deleting_an_account_deletes_its_sessions_and_tasks() {
    let host = Host::start().await;
    let (mut here, mut there, mut bob) =
        (host.browser_of("ann").await, host.browser_of("ann").await, host.browser_of("bob").await);
    for title in ["One", "Two"] {
        here.add(title).await;
        bob.add(title).await;
    }
    assert_eq!(rows_of(&host, "ann").await, [1, 2, 2]);
    let cookie = here.cookie.clone();
    assert_eq!(here.send("DELETE", "/account", None).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(here.cookie, None);
    assert_eq!(rows_of(&host, "ann").await, [0, 0, 0]);
    assert_eq!(rows_of(&host, "bob").await, [1, 1, 2]);
    // The cookies of the account do not work any more.
    here.cookie = cookie;
    for browser in [&mut here, &mut there] {
        assert_rejected(&browser.tasks().await, StatusCode::UNAUTHORIZED, "token_invalid");
        assert_rejected(&browser.add("Later").await, StatusCode::UNAUTHORIZED, "token_invalid");
    }
    assert_eq!(here.login("ann", &password("ann")).await.status(), StatusCode::FORBIDDEN);
    // Another account with this name has other tasks.
    here.cookie = None;
    let again = json!({ "name": "ann", "password": password("ann") });
    assert_eq!(here.send("POST", "/signup", Some(again)).await.status(), StatusCode::CREATED);
    assert_eq!(here.titles().await, [""; 0]);
}

#[tokio::test]
async fn if_the_tasks_cannot_be_deleted_the_account_stays() {
    let host = Host::start().await;
    let mut ann = host.browser_of("ann").await;
    ann.add("Buy milk").await;
    let fault = "create trigger fault before delete on todo_tasks begin select raise(abort, 'a fault'); end";
    sqlx::raw_sql(fault).execute(&host.pool).await.unwrap();
    assert_rejected(&ann.send("DELETE", "/account", None).await, StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert_eq!(rows_of(&host, "ann").await, [1, 1, 1]);
    assert_eq!(ann.titles().await, ["Buy milk"]);
    // From another site, it does not even begin.
    ann.origin = Some("https://evil.example");
    assert_rejected(&ann.send("DELETE", "/account", None).await, StatusCode::FORBIDDEN, "forbidden");
}

/// The program, which is killed at the end of the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_prints_the_passwords() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_own-auth"));
    let mut program =
        Program(command.current_dir(directory.path()).env("PORT", "0").stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let password = lines.next().unwrap().split(' ').nth(5).unwrap().to_owned();
    let origin = lines.nth(1).unwrap().strip_prefix("listening on ").unwrap().to_owned();
    let address = origin.replace("http://localhost", "127.0.0.1").parse().unwrap();
    let mut ann = Browser { client: Client::new(address), cookie: None, origin: Some(origin.leak()) };
    assert_eq!(ann.login("ann", &password).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(ann.add("Buy milk").await.status(), StatusCode::CREATED);
    assert_eq!(ann.titles().await, ["Buy milk"]);
}
