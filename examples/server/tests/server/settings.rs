//! Settings, the commands that read them, and their effect.

use http::Method;

use crate::{
    Framework,
    program::{SECRET, Setup, User},
};

#[test]
fn all_mistakes_are_reported_at_once_without_secrets() {
    let setup = Setup::new(Framework::ANY)
        .set("BETTER_AUTH_SECRET", "hunter2345")
        .set("PORT", "80000")
        .set("ALLOWED_ORIGINS", "*")
        .set("DATABASE_URL", "mysql://root:hunter2345@localhost/todo");
    for arguments in [&[][..], &["serve"]] {
        let outcome = setup.run(arguments);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        for part in ["BETTER_AUTH_SECRET", "10 bytes", "PORT", "80000", "ALLOWED_ORIGINS", "\"*\"", "DATABASE_URL"] {
            assert!(outcome.log.contains(part), "{part}: {outcome:?}");
        }
        assert!(!format!("{outcome:?}").contains("hunter2345"), "{outcome:?}");
    }
}

#[test]
fn a_server_without_a_key_does_not_start() {
    let outcome = Setup::new(Framework::ANY).run(&["--port", "0"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.log.contains("BETTER_AUTH_URL: is needed"), "{outcome:?}");
    // It does not create a file either.
    let setup = Setup::new(Framework::ANY).set("BETTER_AUTH_SECRET", "short");
    setup.run(&[]);
    assert_eq!(setup.path().read_dir().expect("a directory").count(), 0);
}

#[tokio::test]
async fn a_flag_has_priority_over_the_environment_and_the_environment_over_the_file() {
    let setup = Setup::new(Framework::ANY).set("PORT", "not a port").set("LOG_FORMAT", "json");
    setup.write(
        ".env",
        &format!("LOG_FORMAT=xml\nPORT=neither\nBETTER_AUTH_SECRET='{SECRET}'\nDATABASE_URL=sqlite://of-the-file.db\n"),
    );
    let server = setup.serve(&["--port", "0"]);
    server.user("ann").use_tasks().await;
    assert!(server.program.log.so_far().starts_with('{'));
    assert!(setup.path().join("of-the-file.db").exists());
}

#[tokio::test]
async fn the_server_accepts_the_tokens_of_the_command_token() {
    let shapes: [&[(&str, &str)]; 5] = [
        &[],
        &[("JWT_ISSUER", "https://a.example,b"), ("JWT_AUDIENCE", "c"), ("JWT_SUBJECT", "user.id")],
        &[("JWT_REQUIRED_SCOPE", "todo:read  todo:write")],
        &[("JWT_HS256", "cookie-cache")],
        &[("BETTER_AUTH_SECRETS", "2:new-new-new-new-new-new-new-new-new,1:old-old-old-old-old-old-old-old-old")],
    ];
    for settings in shapes {
        let setup =
            settings.iter().fold(Setup::with_secret(Framework::ANY), |setup, (name, value)| setup.set(name, value));
        let server = setup.serve(&[]);
        let printed = setup.run(&["token", "--user", "ann"]);
        let ann = User::new(server.address, printed.output.trim());
        let session = User::json(&ann.send(Method::GET, "/api/auth/session", "").await, 200);
        assert_eq!(session["user"]["id"], "ann", "{settings:?}");
        if !settings.is_empty() {
            let rejected = server.user("ann").send(Method::GET, "/api/tasks", "").await;
            let lacks_scope = settings[0].0 == "JWT_REQUIRED_SCOPE";
            assert_eq!(rejected.status(), if lacks_scope { 403 } else { 401 }, "{settings:?}");
            let challenge = rejected.headers()["www-authenticate"].to_str().expect("text");
            assert_eq!(challenge.contains(r#"scope="todo:read todo:write""#), lacks_scope, "{challenge}");
        }
    }
}

#[tokio::test]
async fn tokens_of_a_key_set_in_a_file_are_accepted() {
    let key = testkit::tokens::SigningKey::ed25519();
    let setup = Setup::new(Framework::ANY)
        .set("PORT", "0")
        .set("JWKS_FILE", "jwks.json")
        .set("BETTER_AUTH_URL", "http://localhost:3000/")
        // Every `.env` of Better Auth contains it; with a key set it is not used.
        .set("BETTER_AUTH_SECRET", SECRET);
    setup.write("jwks.json", &serde_json::json!({ "keys": [key.jwk("1")] }).to_string());
    let server = setup.serve(&[]);
    let mut claims = testkit::tokens::claims("ann");
    claims["iss"] = "http://localhost:3000".into();
    claims["aud"] = "http://localhost:3000".into();
    let token = key.token("1", &claims);
    User::new(server.address, &token).use_tasks().await;
    assert_eq!(server.user("ann").send(Method::GET, "/api/tasks", "").await.status(), 401);
}

#[tokio::test]
async fn the_key_set_of_better_auth_is_fetched() {
    let key = testkit::tokens::SigningKey::ed25519();
    let document = serde_json::json!({ "keys": [key.jwk("1")] }).to_string();
    let better_auth = testkit::http::Server::start(async move |listener: tokio::net::TcpListener| {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = connection.read(&mut request).await.expect("a request");
            assert!(request[..length].starts_with(b"GET /api/auth/jwks HTTP/1.1\r\n"));
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", document.len());
            connection.write_all(format!("{head}{document}").as_bytes()).await.expect("it listens");
        }
    })
    .await;
    let origin = format!("http://{}", better_auth.address());
    let setup =
        Setup::new(Framework::ANY).set("PORT", "0").set("BETTER_AUTH_URL", &origin).set("BETTER_AUTH_SECRET", SECRET);
    let server = setup.serve(&[]);
    let mut claims = testkit::tokens::claims("ann");
    claims["iss"] = origin.clone().into();
    claims["aud"] = origin.into();
    User::new(server.address, &key.token("1", &claims)).use_tasks().await;
    // Tokens that the secret signs are rejected.
    assert_eq!(server.user("ann").send(Method::GET, "/api/tasks", "").await.status(), 401);
}

pub(crate) async fn limits_have_the_values_of_their_settings(framework: Framework) {
    let setup = Setup::with_secret(framework).set("BODY_LIMIT", "2048").set("JWT_LEEWAY_SECONDS", "300");
    let server = setup.serve(&[]);
    let ann = server.user("ann");
    let send = async |length: usize| {
        let body = format!("{:<length$}", r#"{"title":"Buy milk"}"#);
        ann.send(Method::POST, "/api/tasks", &body).await
    };
    assert_eq!(send(2048).await.status(), 201);
    assert_eq!(User::json(&send(2049).await, 413)["code"], "payload_too_large");

    for (ago, status) in [(200, 200), (400, 401)] {
        let claims = serde_json::json!({ "sub": "ann", "exp": testkit::tokens::now() - ago });
        let late = User::new(server.address, &testkit::tokens::secret_token(SECRET.as_bytes(), &claims));
        assert_eq!(late.send(Method::GET, "/api/tasks", "").await.status(), status);
    }
}

#[test]
fn the_health_check_fails_unless_the_server_is_ready() {
    let setup = Setup::with_secret(Framework::ANY).set("HOST", "0.0.0.0");
    let server = setup.serve(&[]);
    let port = server.address.port().to_string();
    assert_eq!(setup.run(&["healthcheck", "--port", &port]).code, Some(0));
    drop(server);
    let stopped = setup.run(&["healthcheck", "--port", &port]);
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    assert!(stopped.log.contains("not ready"), "{stopped:?}");
    let stopped = setup.run(&["healthcheck", "--live", "--port", &port]);
    assert!(stopped.code == Some(1) && stopped.log.contains("not alive"), "{stopped:?}");
}

#[tokio::test]
async fn a_server_without_a_key_set_is_alive_but_not_ready() {
    // No server listens on port 1.
    let setup = Setup::new(Framework::ANY).set("PORT", "0").set("BETTER_AUTH_URL", "http://127.0.0.1:1");
    let server = setup.serve(&[]);
    let ann = server.user("ann");
    assert_eq!(ann.send(Method::GET, "/health", "").await.status(), 200);
    let probe = ann.send(Method::GET, "/health/ready", "").await;
    assert_eq!(User::json(&probe, 503)["failed"], serde_json::json!(["keys"]));
    let health = setup.run(&["healthcheck", "--port", &server.address.port().to_string()]);
    assert_eq!(health.code, Some(1), "{health:?}");
    let live = setup.run(&["healthcheck", "--live", "--port", &server.address.port().to_string()]);
    assert_eq!(live.code, Some(0), "{live:?}");
    // With a secret as well, it can verify some tokens.
    let server = setup.set("BETTER_AUTH_SECRET", SECRET).set("JWT_HS256", "sub").serve(&[]);
    assert_eq!(server.user("ann").send(Method::GET, "/health/ready", "").await.status(), 200);
}

pub(crate) async fn a_request_without_a_path_is_404(framework: Framework) {
    let server = Setup::with_secret(framework).serve(&[]);
    let request = b"CONNECT todo.example:443 HTTP/1.1\r\nhost: todo.example\r\nconnection: close\r\n\r\n";
    let response = testkit::http::raw(server.address, request).await;
    let response = String::from_utf8_lossy(&response);
    assert!(response.starts_with("HTTP/1.1 404") && response.contains(r#""code":"not_found""#), "{response}");
}
