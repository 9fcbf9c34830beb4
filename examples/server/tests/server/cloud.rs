//! PostgreSQL in the cloud: behind a pooler, over TLS, suspended while idle.

use std::time::Duration;

use http::Method;
use testkit::{
    pgbouncer::PgBouncer,
    postgres::Server,
    proxy::{Proxy, Traffic},
    tls::Authority,
};

use crate::{
    Framework,
    program::{Setup, User},
};

#[tokio::test]
async fn an_unsafe_pooler_is_rejected_at_start_with_what_to_change() {
    let database = testkit::stores::todo_database().await;
    let pooler = PgBouncer::mixing(database.url());
    let url = pooler.url().replace("anybody@", "anybody:hunter2@");
    let outcome = Setup::with_secret(Framework::ANY).set("DATABASE_URL", &url).run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for hint in ["max_prepared_statements", "1.21", "direct URL"] {
        assert!(outcome.log.contains(hint), "{outcome:?}");
    }
    assert!(!outcome.log.contains("hunter2") && !outcome.output.contains("hunter2"), "{outcome:?}");
}

#[tokio::test]
async fn behind_a_safe_pooler_migrations_use_the_direct_url() {
    let database = testkit::postgres::empty_database().await;
    let pooler = PgBouncer::tracking(database.url());
    let setup = Setup::with_secret(Framework::ANY)
        .set("DATABASE_URL", &pooler.url())
        .set("DATABASE_DIRECT_URL", database.url());
    let server = setup.serve(&[]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    tokio::join!(ann.use_tasks(), bob.use_tasks());
    let (status, log) = server.stop();
    assert_eq!(status, Some(0));
    assert!(log.contains("pooled=true") && !log.contains("set DATABASE_DIRECT_URL"), "{log}");
}

#[tokio::test]
async fn a_certificate_of_a_private_authority_is_rejected_until_the_url_names_the_authority() {
    let authority = Authority::new();
    // `start_local` keeps the settings until the process ends.
    let settings: &'static str = authority.settings_for("localhost").leak();
    let postgres = Server::start_local(settings).await.expect("it starts");
    let postgres = postgres.expect("PostgreSQL is installed (install it with scripts/setup)");
    let password = postgres.url().split([':', '@']).nth(2).expect("a password").to_owned();
    let url = format!("{}?sslmode=require", postgres.url().replace("127.0.0.1", "localhost"));
    let setup = Setup::with_secret(Framework::ANY).set("DATABASE_URL", &url);
    let outcome = setup.run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("UnknownIssuer") && outcome.log.contains("sslrootcert"), "{outcome:?}");
    assert!(!outcome.log.contains("retrying"), "a retry does not help: {outcome:?}");
    assert!(!outcome.log.contains(&password), "{outcome:?}");

    setup.set("DATABASE_TLS", "as-written").serve(&[]).user("ann").use_tasks().await;
    let named = format!("{url}&sslrootcert={}", authority.certificate().display());
    Setup::with_secret(Framework::ANY).set("DATABASE_URL", &named).serve(&[]).user("bob").use_tasks().await;
}

// Multi-threaded, since the proxy must run while the test waits for the program.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_suspended_requests_wait_or_get_503() {
    let database = testkit::postgres::empty_database().await;
    let proxy = Proxy::before(database.url()).await;
    let server = Setup::with_secret(Framework::ANY).set("DATABASE_URL", &proxy.url()).serve(&[]);
    let ann = server.user("ann");
    ann.use_tasks().await;
    let suspend = || {
        proxy.set(Traffic::Held);
        proxy.cut();
    };
    suspend();
    let (response, ()) = tokio::join!(ann.send(Method::GET, "/api/tasks", ""), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        proxy.set(Traffic::Flows);
    });
    assert_eq!(response.status(), 200);
    suspend();
    let response = ann.send(Method::GET, "/api/tasks", "").await;
    assert_eq!(User::json(&response, 503)["code"], "unavailable");
    assert!(response.headers().contains_key("retry-after"));
    proxy.set(Traffic::Flows);
    assert_eq!(ann.send(Method::GET, "/api/tasks", "").await.status(), 200);
}
