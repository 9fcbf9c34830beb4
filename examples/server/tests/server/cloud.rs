//! PostgreSQL as it is in the cloud: behind a pooler, encrypted, asleep.

use std::time::Duration;

use http::Method;
use testkit::{
    pgbouncer::PgBouncer,
    postgres::Server,
    proxy::{Proxy, Traffic},
    tls::Authority,
};

use crate::program::{Caller, Place};

#[tokio::test]
async fn a_pooler_that_mixes_statements_is_refused_at_start_with_what_to_change() {
    let database = testkit::stores::todo_database().await;
    let pooler = PgBouncer::mixing(database.url());
    let url = pooler.url().replace("anybody@", "anybody:hunter2@");
    let outcome = Place::with_secret().set("DATABASE_URL", &url).run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for what_helps in ["max_prepared_statements", "1.21", "direct URL"] {
        assert!(outcome.log.contains(what_helps), "{outcome:?}");
    }
    assert!(!outcome.log.contains("hunter2") && !outcome.output.contains("hunter2"), "{outcome:?}");
}

#[tokio::test]
async fn behind_a_pooler_that_tracks_statements_it_migrates_over_the_direct_address() {
    let database = testkit::postgres::empty_database().await;
    let pooler = PgBouncer::tracking(database.url());
    let place = Place::with_secret().set("DATABASE_URL", &pooler.url()).set("DATABASE_DIRECT_URL", database.url());
    let server = place.serve(&[]);
    let (ann, bob) = (server.caller("ann"), server.caller("bob"));
    tokio::join!(ann.work(), bob.work());
    let (status, log) = server.stop();
    assert_eq!(status, Some(0));
    assert!(log.contains("pooled=true") && !log.contains("go around it"), "{log}");
}

#[tokio::test]
async fn a_certificate_of_a_private_authority_is_refused_at_start_until_it_is_named() {
    let authority = Authority::new();
    // As long as the process.
    let settings: &'static str = authority.settings_for("localhost").leak();
    let postgres = Server::start_local(settings).await.expect("it starts");
    let postgres = postgres.expect("PostgreSQL is installed (apt-get install postgresql)");
    let password = postgres.url().split([':', '@']).nth(2).expect("a password").to_owned();
    let url = format!("{}?sslmode=require", postgres.url().replace("127.0.0.1", "localhost"));
    let place = Place::with_secret().set("DATABASE_URL", &url);
    let outcome = place.run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("UnknownIssuer") && outcome.log.contains("sslrootcert"), "{outcome:?}");
    assert!(!outcome.log.contains("trying again"), "that would not help: {outcome:?}");
    assert!(!outcome.log.contains(&password), "{outcome:?}");

    place.set("DATABASE_TLS", "as-written").serve(&[]).caller("ann").work().await;
    let named = format!("{url}&sslrootcert={}", authority.certificate().display());
    Place::with_secret().set("DATABASE_URL", &named).serve(&[]).caller("bob").work().await;
}

// The proxy works while the program is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_sleeps_requests_wait_or_are_told_when_to_come_back() {
    let database = testkit::postgres::empty_database().await;
    let proxy = Proxy::before(database.url()).await;
    let server = Place::with_secret().set("DATABASE_URL", &proxy.url()).serve(&[]);
    let ann = server.caller("ann");
    ann.work().await;
    let sleeps = || {
        proxy.set(Traffic::Held);
        proxy.cut();
    };
    sleeps();
    let (answer, ()) = tokio::join!(ann.send(Method::GET, "/api/tasks", ""), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        proxy.set(Traffic::Flows);
    });
    assert_eq!(answer.status(), 200);
    sleeps();
    let answer = ann.send(Method::GET, "/api/tasks", "").await;
    assert_eq!(Caller::json(&answer, 503)["code"], "unavailable");
    assert!(answer.headers().contains_key("retry-after"));
    proxy.set(Traffic::Flows);
    assert_eq!(ann.send(Method::GET, "/api/tasks", "").await.status(), 200);
}
