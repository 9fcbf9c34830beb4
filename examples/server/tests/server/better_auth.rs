//! Ways to misconfigure Better Auth or the server, with tokens as Better Auth issues them: the log names the cause of each
//! at the default level, without the token or its claims.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use serde_json::{Value, json};
use testkit::{
    http::{Client, Server as KeyServer},
    http_proxy::HttpProxy,
    tls::Authority,
    tokens::{SigningKey, base64url, hs256, now},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::sleep,
};

use crate::{
    Framework,
    metrics::Metrics,
    program::{PATIENCE, Server, Setup, User},
};

const SECRET: &str = "the-secret-of-better-auth-which-the-server-does-not-use";
const KID: &str = "oFJQ2GaVmV0oZZ1sN6yT8cLkD3xWbR4e";
const USER: &str = "qY7LZ0oUuVw2mT5sK9xEjR3nD8bG1cHf";
const E_MAIL: &str = "ann@mail.example";

/// Better Auth: a key, and an HTTP server whose responses a test can change.
struct BetterAuth {
    key: SigningKey,
    /// The response to `GET /api/auth/jwks`.
    response: Arc<Mutex<String>>,
    server: KeyServer,
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

fn key_set(keys: &[Value]) -> String {
    response("200 OK", "content-type: application/json\r\n", &json!({ "keys": keys }).to_string())
}

impl BetterAuth {
    async fn start() -> Self {
        let key = SigningKey::ed25519();
        let response = Arc::new(Mutex::new(key_set(&[key.jwk(KID)])));
        let current = response.clone();
        let server = KeyServer::start(async move |listener: TcpListener| {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && connection.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
                let is_known = head.starts_with(b"GET /api/auth/jwks ");
                let text = current.lock().expect("no panic").clone();
                let text = if is_known { text } else { self::response("404 Not Found", "", "") };
                let _ = connection.write_all(text.as_bytes()).await;
            }
        })
        .await;
        Self { key, response, server }
    }

    fn respond_with(&self, response: String) {
        *self.response.lock().expect("no panic") = response;
    }

    fn origin(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The claims of `/api/auth/token`, in the order of Better Auth, with these changes. `null` removes a claim.
    fn claims(&self, changes: &Value) -> Value {
        let created = "2026-11-20T09:30:00.000Z";
        let mut claims = json!({
            "iat": now(), "name": "Ann of the claims", "email": E_MAIL, "emailVerified": false, "image": null,
            "createdAt": created, "updatedAt": created, "id": USER, "sub": USER, "exp": now() + 900,
            "iss": self.origin(), "aud": self.origin(),
        });
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => claims.as_object_mut().expect("an object").remove(name).map(drop),
                value => claims.as_object_mut().expect("an object").insert(name.clone(), value.clone()).map(drop),
            };
        }
        claims
    }

    /// A token with the header of Better Auth, which has no `typ`.
    fn token(&self, changes: &Value) -> String {
        self.signed(&json!({ "alg": "EdDSA", "kid": KID }), changes)
    }

    fn signed(&self, header: &Value, changes: &Value) -> String {
        self.key.sign("EdDSA", &header.to_string(), &self.claims(changes).to_string())
    }
}

/// Sends a request with this `Authorization`. Returns status and body.
async fn get(server: &Server, path: &str, authorization: &str) -> (u16, String) {
    let request = Request::get(path).header(AUTHORIZATION, authorization).body(Bytes::new()).expect("a request");
    let response = Client::new(server.address).send(request).await;
    (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
}

/// Waits until the log has a line with all of these texts. Returns the line.
async fn line_with(server: &Server, texts: &[&str]) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = server.program.log.so_far();
        if let Some(line) = log.lines().find(|line| texts.iter().all(|text| line.contains(text))) {
            return line.to_owned();
        }
        assert!(Instant::now() < deadline, "no line with {texts:?} in {log}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What is misconfigured, the `Authorization` of a request, the code of its response, and texts in the line of the log.
type Case = (&'static str, String, &'static str, Vec<String>);

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Tokens of the app with wrong claims.
fn wrong_claims(app: &BetterAuth) -> Vec<Case> {
    let expected = format!("expected=\"{}\"", app.origin());
    let avatar = format!("data:image/png;base64,{}", "iVBORw0K".repeat(2_000));
    vec![
        (
            "baseURL is another one than BETTER_AUTH_URL of the server",
            bearer(&app.token(&json!({ "iss": "https://app.example.com", "aud": "https://app.example.com" }))),
            "token_invalid",
            texts(&["reason=\"issuer\"", &expected, "iss=\"https://app.example.com\""]),
        ),
        (
            "no baseURL: the issuer is the Host header of a server-side call",
            bearer(&app.token(&json!({ "iss": "", "aud": "" }))),
            "token_invalid",
            texts(&["reason=\"issuer\"", &expected, "iss=\"(empty)\""]),
        ),
        (
            "jwt: { audience: .. } is set, JWT_AUDIENCE is not",
            bearer(&app.token(&json!({ "aud": "my-api" }))),
            "token_invalid",
            texts(&["reason=\"audience\"", &expected, "aud=\"my-api\""]),
        ),
        (
            "getSubject returns a number",
            bearer(&app.token(&json!({ "sub": 4711 }))),
            "token_invalid",
            texts(&["reason=\"subject\"", "in the claim sub", "subject=\"(a number)\""]),
        ),
        (
            "definePayload contains the image of the user, a data URI",
            bearer(&app.token(&json!({ "image": avatar }))),
            "token_invalid",
            texts(&["reason=\"too_long\"", "at most 16384 bytes", "an image of the user"]),
        ),
        (
            "expirationTime: 3600, a time in 1970",
            bearer(&app.token(&json!({ "exp": 3600 }))),
            "token_expired",
            texts(&["reason=\"expired\"", "this one is before 2001, so it may be a lifetime"]),
        ),
        (
            "definePayload sets exp in milliseconds",
            bearer(&app.token(&json!({ "exp": (now() + 900) * 1000 }))),
            "token_invalid",
            texts(&["reason=\"milliseconds\"", "exp in seconds since 1970"]),
        ),
    ]
}

/// Other tokens than those of the app for an API.
fn wrong_tokens(app: &BetterAuth, of_another_app: &BetterAuth) -> Vec<Case> {
    let origin = app.origin();
    let cookie = json!({ "alg": "EdDSA", "kid": KID, "typ": "better-auth.session-cache+jwt" });
    let key_set = format!("a signature with the key of this kid in the key set at {origin}/api/auth/jwks");
    vec![
        (
            "the session token of sign-in instead of the token of /api/auth/token",
            bearer("Dn1kTqPWw3VQ0aZ5oJ8bXrYc7LmUe2Hs"),
            "token_invalid",
            texts(&["reason=\"malformed\"", "32 characters with 0 dots", "a session token is no JSON Web Token"]),
        ),
        (
            "a token that other code has signed with BETTER_AUTH_SECRET",
            bearer(&hs256(SECRET.as_bytes(), r#"{"alg":"HS256"}"#, &app.claims(&json!({})).to_string())),
            "token_invalid",
            texts(&["reason=\"algorithm\"", "no shared secret is used", "alg=\"HS256\""]),
        ),
        (
            "the cookie of sessionCookieCache instead of a token",
            bearer(&app.signed(&cookie, &json!({ "aud": "better-auth:session-cache" }))),
            "token_invalid",
            texts(&["reason=\"type\"", "expected=\"none, JWT or at+jwt\"", "typ=\"better-auth.session-cache+jwt\""]),
        ),
        (
            "an access token of the OAuth provider plugin, whose issuer has the path /api/auth",
            bearer(&app.signed(
                &json!({ "alg": "EdDSA", "kid": KID, "typ": "at+jwt" }),
                &json!({ "iss": format!("{origin}/api/auth") }),
            )),
            "token_invalid",
            texts(&["reason=\"issuer\"", "/api/auth\" aud=", "typ=\"at+jwt\""]),
        ),
        (
            "a key with this kid, but of another deployment",
            bearer(&of_another_app.token(&json!({ "iss": origin, "aud": origin }))),
            "token_invalid",
            texts(&["reason=\"signature\"", &key_set, KID]),
        ),
        (
            "the page sends the token without the word Bearer",
            app.token(&json!({})),
            "unauthenticated",
            texts(&["reason=\"missing\"", "the Authorization header has no scheme"]),
        ),
        (
            "the page sends HTTP Basic",
            format!("Basic {}", base64url("ann:secret-of-ann")),
            "unauthenticated",
            texts(&["reason=\"missing\"", "the scheme of the Authorization header is not Bearer"]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_cause_of_each_misconfiguration() {
    let app = BetterAuth::start().await;
    let server = Setup::new(Framework::ANY)
        .set("PORT", "0")
        .set("BETTER_AUTH_URL", &app.origin())
        // As in every `.env` of Better Auth.
        .set("BETTER_AUTH_SECRET", SECRET)
        .serve(&[]);
    assert_eq!(get(&server, "/api/tasks", &bearer(&app.token(&json!({})))).await.0, 200);
    let cases = [wrong_claims(&app), wrong_tokens(&app, &BetterAuth::start().await)].concat();
    let mut excerpt = String::new();
    for (what, authorization, code, texts) in &cases {
        let (status, body) = get(&server, "/api/tasks", authorization).await;
        assert!(status == 401 && body.contains(&format!(r#""code":"{code}""#)), "{what}: {status} {body}");
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let line = line_with(&server, &texts).await;
        assert!(line.contains(" INFO ") && line.contains("rejected"), "{what}: {line}");
        let _ = writeln!(excerpt, "{what}:\n  {line}");
    }
    // The caller can do something about it.
    let (_, too_long) = get(&server, "/api/tasks", &bearer(&"x".repeat(20_000))).await;
    assert!(too_long.contains(r#""detail":"The token is longer than 16384 bytes.""#), "{too_long}");
    // The path names the user by another claim than `sub`.
    let token = bearer(&app.token(&json!({})));
    assert_eq!(get(&server, &format!("/api/{}/tasks", E_MAIL.replace('@', "%40")), &token).await.0, 403);
    let line = line_with(&server, &["reason=\"other_user\"", "the path names another user than the token"]).await;
    let _ = writeln!(excerpt, "the path has the e-mail address, the token the id:\n  {line}");

    let log = server.stop().1;
    for hidden in [USER, E_MAIL, "Ann of", "iVBORw0K", "4711", SECRET, "secret-of-ann", &base64url(SECRET)[..20]] {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
    for token in cases.iter().flat_map(|(_, authorization, ..)| authorization.split(['.', ' '])) {
        assert!(token.len() < 20 || !log.contains(token), "{token} in {log}");
    }
    print_excerpt(&excerpt);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_cause_of_each_key_set_that_cannot_be_fetched() {
    let app = BetterAuth::start().await;
    let url = format!("url=\"{}/api/auth/jwks\"", app.origin());
    let html = "content-type: text/html; charset=utf-8\r\n";
    let redirect = |location: &str| response("308 Permanent Redirect", &format!("location: {location}\r\n"), "");
    let cases = [
        (
            "trailingSlash of Next.js",
            redirect("/api/auth/jwks/"),
            format!("status 308, a redirect to {}/api/auth/jwks/, which is not followed", app.origin()),
        ),
        (
            "a page for signing in protects the key set",
            response("302 Found", "location: https://sso.example.com/login?return=a-secret\r\n", ""),
            "a redirect to https://sso.example.com/login, which".to_owned(),
        ),
        ("basePath, or another jwksPath", response("404 Not Found", html, "<html>"), "status 404".to_owned()),
        (
            "the host of the page instead of that of Better Auth",
            response("200 OK", html, "<!doctype html>"),
            "is not a JWK set; its content type is text/html; charset=utf-8".to_owned(),
        ),
        ("the secret was changed", response("500 Internal Server Error", "", ""), "status 500".to_owned()),
        ("no key is published any more", key_set(&[]), "the key set has no usable key".to_owned()),
        (
            "only keys that are too weak",
            key_set(&[json!({ "kty": "RSA", "kid": "1", "n": base64url([0xff; 128]), "e": "AQAB" })]),
            "left_out=1".to_owned(),
        ),
    ];
    let mut excerpt = String::new();
    for (what, response, expected) in cases {
        app.respond_with(response);
        let server = Setup::new(Framework::ANY).set("PORT", "0").set("BETTER_AUTH_URL", &app.origin()).serve(&[]);
        let line = line_with(&server, &[" WARN ", &url, &expected]).await;
        let status = get(&server, "/api/tasks", &format!("Bearer {}", app.token(&json!({})))).await.0;
        assert!(status == 503, "{what}: {status}");
        let log = server.stop().1;
        assert!(!log.contains("a-secret") && !log.contains(E_MAIL), "{what}: {log}");
        // An empty set is an answer: the key may be new, and this is no failure of the server.
        let is_failure = !line.contains("no usable key");
        assert_eq!(log.contains(" ERROR "), is_failure, "{what}: {log}");
        if is_failure {
            let error = log.lines().find(|line| line.contains(" ERROR ")).expect("a line");
            assert!(error.contains("/api/auth/jwks") && error.contains(&expected), "{what}: {error}");
        }
        let _ = writeln!(excerpt, "{what}:\n  {line}");
    }
    for (what, url, expected) in [
        ("nothing listens there", "http://127.0.0.1:9", "cannot be reached: Connection refused (os error 111)"),
        ("a misspelled host", "https://app.example.invalid", "cannot be reached: failed to lookup address information"),
    ] {
        let server = Setup::new(Framework::ANY).set("PORT", "0").set("BETTER_AUTH_URL", url).serve(&[]);
        let line = line_with(&server, &[" WARN ", url, expected]).await;
        let _ = writeln!(excerpt, "{what}:\n  {line}");
    }
    print_excerpt(&excerpt);
}

/// In a company, the key server has a certificate of a private authority, and only the proxy reaches it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_through_the_proxy_of_the_environment_and_with_a_private_authority() {
    let key = SigningKey::ed25519();
    let authority = Authority::new();
    let document = json!({ "keys": [key.jwk("1")] }).to_string();
    let keys = authority.serve("auth.corp.invalid", "/api/auth/jwks", &document);
    let proxy = HttpProxy::before(keys.address()).await;
    let root = authority.certificate();
    let (root, address) = (root.to_str().expect("UTF-8"), format!("http://todo:the-password@{}", proxy.address()));
    let setup = || Setup::new(Framework::ANY).set("PORT", "0").set("BETTER_AUTH_URL", "https://auth.corp.invalid");
    let mut claims = testkit::tokens::claims("ann");
    claims["iss"] = "https://auth.corp.invalid".into();
    claims["aud"] = "https://auth.corp.invalid".into();
    let token = key.token("1", &claims);
    for (proxy_variable, certificates) in
        [("HTTPS_PROXY", "JWKS_CA_FILE"), ("https_proxy", "SSL_CERT_FILE"), ("HTTPS_PROXY", "SSL_CERT_FILE")]
    {
        let server = setup()
            .set(proxy_variable, &address)
            .set("NO_PROXY", "localhost,db.corp.invalid")
            .set(certificates, root)
            .serve(&[]);
        User::new(server.address, &token).use_tasks().await;
        let log = server.stop().1;
        let expected = format!("proxy=\"http://{}/\"", proxy.address());
        assert!(log.contains(&expected) && !log.contains("the-password"), "{log}");
    }
    // A file in `.env`, as a container mounts it.
    let with_file = setup();
    with_file.write(".env", &format!("HTTPS_PROXY='{address}'\nJWKS_CA_FILE=ca.pem\n"));
    with_file.write("ca.pem", &std::fs::read_to_string(root).expect("a file"));
    User::new(with_file.serve(&[]).address, &token).use_tasks().await;
    let tunnels = proxy.heads();
    assert!(tunnels.len() >= 4 && tunnels.iter().all(|head| head.starts_with("CONNECT auth.corp.invalid:443 ")));

    let with_proxy = || setup().set("HTTPS_PROXY", &address);
    for (setup, cause) in [
        (with_proxy(), "invalid peer certificate: UnknownIssuer"),
        (setup().set("JWKS_CA_FILE", root), "failed to lookup address information"),
        (with_proxy().set("NO_PROXY", ".corp.invalid"), "failed to lookup address information"),
        (with_proxy().set("no_proxy", "*"), "failed to lookup address information"),
        (setup().set("HTTPS_PROXY", "127.0.0.1:9"), "Connection refused (os error 111)"),
    ] {
        let server = setup.serve(&[]);
        line_with(&server, &[" WARN ", "url=\"https://auth.corp.invalid/api/auth/jwks\"", cause]).await;
        assert!(!server.stop().1.contains("the-password"));
    }
    for (name, value, expected) in [
        ("JWKS_CA_FILE", "/nowhere/ca.pem", "JWKS_CA_FILE (environment): /nowhere/ca.pem cannot be read: No such file"),
        (
            "JWKS_CA_FILE",
            "/dev/null",
            "JWKS_CA_FILE (environment): /dev/null cannot be used: the root certificates must",
        ),
        (
            "HTTPS_PROXY",
            "socks5://u:the-password@proxy",
            "HTTPS_PROXY (environment): \"socks5://***@proxy\" cannot be used",
        ),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE and SSL_CERT_DIR"),
    ] {
        let outcome = setup().set(name, value).run(&[]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.log.contains(expected) && !outcome.log.contains("the-password"), "{outcome:?}");
    }
}

/// A bad token is not 503 again and again, and an invented key id does not look like a failure of the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_an_unknown_key_becomes_401_and_is_no_error() {
    let app = BetterAuth::start().await;
    let setup = Setup::new(Framework::ANY).set("PORT", "0").set("METRICS_PORT", "0");
    let server = setup.set("BETTER_AUTH_URL", &app.origin()).serve(&[]);
    assert_eq!(get(&server, "/api/tasks", &format!("Bearer {}", app.token(&json!({})))).await.0, 200);
    let with_kid = |kid: &str| format!("Bearer {}", app.signed(&json!({ "alg": "EdDSA", "kid": kid }), &json!({})));
    let bad = with_kid("of-a-key-that-does-not-exist");
    let mut statuses = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(25) {
        let status = get(&server, "/api/tasks", &bad).await.0;
        statuses.push(status);
        sleep(Duration::from_millis(250)).await;
    }
    let unavailable = statuses.iter().filter(|status| **status == 503).count();
    assert!(statuses[..unavailable].iter().all(|status| *status == 503), "{statuses:?}");
    assert!(statuses[unavailable..].iter().all(|status| *status == 401), "{statuses:?}");
    assert!((1..=44).contains(&unavailable), "{unavailable} of {}", statuses.len());
    // Each invented key may be a new one.
    for number in 0..30 {
        assert_eq!(get(&server, "/api/tasks", &with_kid(&format!("invented-{number}"))).await.0, 503);
    }
    let metrics = Metrics::of(&server).await;
    let of_reason = |reason: &str| metrics.count(&format!("todo_auth_refusals_total{{reason=\"{reason}\"}}"));
    let count = |count: usize| u64::try_from(count).expect("a count");
    assert_eq!(of_reason("key_may_be_new"), count(unavailable) + 30);
    assert_eq!(of_reason("unknown_key"), count(statuses.len() - unavailable));
    assert_eq!(of_reason("unavailable"), 0);
    let log = server.stop().1;
    assert!(!log.contains(" ERROR ") && !log.contains(" WARN "), "{log}");
    for reason in ["key_may_be_new", "unknown_key"] {
        let of_reason = format!("reason=\"{reason}\"");
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&of_reason)).collect();
        assert!((1..=5).contains(&lines.len()), "{reason}: {log}");
        let keys = format!("a key of the key set at {}/api/auth/jwks: {KID}", app.origin());
        assert!(lines.iter().all(|line| line.contains(&keys)), "{lines:?}");
    }
}

/// Two applications with serial ids: the user 1 of one is not the user 1 of the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_subject_of_two_key_sources_is_two_users_with_prefixes() {
    let app = BetterAuth::start().await;
    let of_keys = app.token(&json!({ "sub": "1", "id": "1" }));
    let of_secret = testkit::tokens::secret_token(SECRET.as_bytes(), &app.claims(&json!({ "sub": "1" })));
    let setup = || {
        let setup = Setup::new(Framework::ANY).set("PORT", "0").set("BETTER_AUTH_URL", &app.origin());
        setup.set("BETTER_AUTH_SECRET", SECRET).set("JWT_HS256", "sub")
    };
    let users = async |server: &Server| {
        let mut users = Vec::new();
        for token in [&of_keys, &of_secret] {
            let (status, body) = get(server, "/api/auth/session", &format!("Bearer {token}")).await;
            assert_eq!(status, 200, "{body}");
            let session: Value = serde_json::from_str(&body).expect("JSON");
            users.push(session["user"]["id"].as_str().expect("an id").to_owned());
        }
        users
    };
    let warning = "several key sources have no user prefix";
    let without = setup().serve(&[]);
    assert_eq!(users(&without).await, ["1", "1"]);
    let log = without.stop().1;
    let line = log.lines().find(|line| line.contains(warning)).expect(&log);
    assert!(line.contains(" WARN ") && line.contains("JWKS_USER_PREFIX"), "{line}");

    let with = setup().set("JWKS_USER_PREFIX", "app:").set("JWT_HS256_USER_PREFIX", "old:").serve(&[]);
    assert_eq!(users(&with).await, ["app:1", "old:1"]);
    assert!(!with.stop().1.contains(warning));
    let one = setup().set("JWKS_USER_PREFIX", "app:").serve(&["--jwt-hs256-user-prefix", "old:"]);
    assert_eq!(users(&one).await, ["app:1", "old:1"]);
    for (name, other) in [("JWKS_USER_PREFIX", "BETTER_AUTH_SECRET"), ("JWT_HS256_USER_PREFIX", "BETTER_AUTH_URL")] {
        let value = if other == "BETTER_AUTH_URL" { app.origin() } else { SECRET.to_owned() };
        let outcome = Setup::new(Framework::ANY).set(other, &value).set(name, "x:").run(&[]);
        assert!(
            outcome.code == Some(2) && outcome.log.contains(&format!("{name} (environment): has no effect")),
            "{outcome:?}"
        );
    }
}

/// Shown with `cargo test -- --nocapture`.
#[expect(clippy::print_stdout, reason = "the excerpt is for people")]
fn print_excerpt(excerpt: &str) {
    println!("{excerpt}");
}
