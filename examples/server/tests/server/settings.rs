//! What the program says to wrong settings, and which of several counts.

use http::Method;

use crate::program::{Caller, Place, SECRET};

#[test]
fn every_mistake_is_told_at_once_and_the_secret_is_not() {
    let place = Place::new()
        .set("BETTER_AUTH_SECRET", "hunter2345")
        .set("PORT", "80000")
        .set("ALLOWED_ORIGINS", "*")
        .set("DATABASE_URL", "mysql://root:hunter2345@localhost/todo");
    for arguments in [&[][..], &["serve"]] {
        let outcome = place.run(arguments);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        for part in ["BETTER_AUTH_SECRET", "10 bytes", "PORT", "80000", "ALLOWED_ORIGINS", "\"*\"", "DATABASE_URL"] {
            assert!(outcome.log.contains(part), "{part}: {outcome:?}");
        }
        assert!(!format!("{outcome:?}").contains("hunter2345"), "{outcome:?}");
    }
}

#[test]
fn a_server_without_a_key_does_not_start() {
    let outcome = Place::new().run(&["--port", "0"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.log.contains("BETTER_AUTH_URL: is needed"), "{outcome:?}");
    // Not even a file is made.
    let place = Place::new().set("BETTER_AUTH_SECRET", "short");
    place.run(&[]);
    assert_eq!(place.path().read_dir().expect("a directory").count(), 0);
}

#[tokio::test]
async fn a_flag_comes_before_the_environment_and_that_before_the_file() {
    let place = Place::new().set("PORT", "not a port").set("LOG_FORMAT", "json");
    place.write(
        ".env",
        &format!("LOG_FORMAT=xml\nPORT=neither\nBETTER_AUTH_SECRET='{SECRET}'\nDATABASE_URL=sqlite://of-the-file.db\n"),
    );
    let server = place.serve(&["--port", "0"]);
    server.caller("ann").work().await;
    assert!(server.program.log.so_far().starts_with('{'));
    assert!(place.path().join("of-the-file.db").exists());
}

#[tokio::test]
async fn a_token_of_the_command_is_one_that_the_server_takes() {
    let shapes: [&[(&str, &str)]; 4] = [
        &[],
        &[("JWT_ISSUER", "https://a.example,b"), ("JWT_AUDIENCE", "c"), ("JWT_SUBJECT", "user.id")],
        &[("JWT_HS256", "cookie-cache")],
        &[("BETTER_AUTH_SECRETS", "2:new-new-new-new-new-new-new-new-new,1:old-old-old-old-old-old-old-old-old")],
    ];
    for settings in shapes {
        let place = settings.iter().fold(Place::with_secret(), |place, (name, value)| place.set(name, value));
        let server = place.serve(&[]);
        let minted = place.run(&["token", "--user", "ann"]);
        let caller = Caller::new(server.address, minted.output.trim());
        let session = Caller::json(&caller.send(Method::GET, "/api/auth/session", "").await, 200);
        assert_eq!(session["user"]["id"], "ann", "{settings:?}");
        if !settings.is_empty() {
            assert_eq!(server.caller("ann").send(Method::GET, "/api/tasks", "").await.status(), 401, "{settings:?}");
        }
    }
}

#[tokio::test]
async fn a_key_set_in_a_file_lets_its_issuer_in() {
    let key = testkit::tokens::SigningKey::ed25519();
    let place = Place::new()
        .set("PORT", "0")
        .set("JWKS_FILE", "jwks.json")
        .set("BETTER_AUTH_URL", "http://localhost:3000/")
        // As in every `.env` of Better Auth; beside a key set it counts for nothing.
        .set("BETTER_AUTH_SECRET", SECRET);
    place.write("jwks.json", &serde_json::json!({ "keys": [key.jwk("1")] }).to_string());
    let server = place.serve(&[]);
    let mut claims = testkit::tokens::claims("ann");
    claims["iss"] = "http://localhost:3000".into();
    claims["aud"] = "http://localhost:3000".into();
    let token = key.token("1", &claims);
    Caller::new(server.address, &token).work().await;
    assert_eq!(server.caller("ann").send(Method::GET, "/api/tasks", "").await.status(), 401);
}

#[tokio::test]
async fn better_auth_is_asked_for_its_keys() {
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
    let place = Place::new().set("PORT", "0").set("BETTER_AUTH_URL", &origin).set("BETTER_AUTH_SECRET", SECRET);
    let server = place.serve(&[]);
    let mut claims = testkit::tokens::claims("ann");
    claims["iss"] = origin.clone().into();
    claims["aud"] = origin.into();
    Caller::new(server.address, &key.token("1", &claims)).work().await;
    // The secret beside it signs nothing that counts.
    assert_eq!(server.caller("ann").send(Method::GET, "/api/tasks", "").await.status(), 401);
}

#[tokio::test]
async fn limits_are_what_they_are_set_to() {
    let place = Place::with_secret().set("BODY_LIMIT", "2048").set("JWT_LEEWAY_SECONDS", "300");
    let server = place.serve(&[]);
    let ann = server.caller("ann");
    let send = async |length: usize| {
        let body = format!("{:<length$}", r#"{"title":"Buy milk"}"#);
        ann.send(Method::POST, "/api/tasks", &body).await
    };
    assert_eq!(send(2048).await.status(), 201);
    assert_eq!(Caller::json(&send(2049).await, 413)["code"], "payload_too_large");

    for (ago, status) in [(200, 200), (400, 401)] {
        let claims = serde_json::json!({ "sub": "ann", "exp": testkit::tokens::now() - ago });
        let late = Caller::new(server.address, &testkit::tokens::secret_token(SECRET.as_bytes(), &claims));
        assert_eq!(late.send(Method::GET, "/api/tasks", "").await.status(), status);
    }
}

#[test]
fn the_health_check_says_whether_the_server_is_ready() {
    let place = Place::with_secret().set("HOST", "0.0.0.0");
    let server = place.serve(&[]);
    let port = server.address.port().to_string();
    assert_eq!(place.run(&["healthcheck", "--port", &port]).code, Some(0));
    drop(server);
    let gone = place.run(&["healthcheck", "--port", &port]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert!(gone.log.contains("not ready"), "{gone:?}");
}

#[tokio::test]
async fn a_server_whose_keys_cannot_be_fetched_is_alive_and_not_ready() {
    // Nobody listens there.
    let place = Place::new().set("PORT", "0").set("BETTER_AUTH_URL", "http://127.0.0.1:1");
    let server = place.serve(&[]);
    let anybody = server.caller("ann");
    assert_eq!(anybody.send(Method::GET, "/health", "").await.status(), 200);
    let probe = anybody.send(Method::GET, "/health/ready", "").await;
    assert_eq!(Caller::json(&probe, 503)["failed"], serde_json::json!(["keys"]));
    let health = place.run(&["healthcheck", "--port", &server.address.port().to_string()]);
    assert_eq!(health.code, Some(1), "{health:?}");
    // With a secret beside it, there are tokens that it can judge.
    let server = place.set("BETTER_AUTH_SECRET", SECRET).set("JWT_HS256", "sub").serve(&[]);
    assert_eq!(server.caller("ann").send(Method::GET, "/health/ready", "").await.status(), 200);
}

#[tokio::test]
async fn a_request_without_a_path_is_answered_like_any_other() {
    let server = Place::with_secret().serve(&[]);
    let request = b"CONNECT todo.example:443 HTTP/1.1\r\nhost: todo.example\r\nconnection: close\r\n\r\n";
    let answer = testkit::http::raw(server.address, request).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains(r#""code":"not_found""#), "{answer}");
}
