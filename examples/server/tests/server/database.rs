//! PostgreSQL behind the server.

use http::Method;

use crate::program::{Caller, Place, SECRET};

#[tokio::test]
async fn on_postgresql_it_does_the_same() {
    let database = testkit::postgres::empty_database().await;
    for name in ["DATABASE_URL", "NEON_DB_URL"] {
        let server = Place::with_secret().set(name, database.url()).serve(&[]);
        server.caller("ann").work().await;
        assert_eq!(server.stop().0, Some(0));
    }
    let server = Place::with_secret().set("DATABASE_URL", database.url()).serve(&[]);
    assert_eq!(server.caller("ann").all_ids().await.len(), 2);
    assert_eq!(server.caller("bob").all_ids().await.len(), 0);
    drop(server);
    database.close().await;
}

#[tokio::test]
async fn migrations_take_the_direct_address() {
    let (database, direct) = (testkit::postgres::empty_database().await, testkit::postgres::empty_database().await);
    let place = Place::with_secret().set("DATABASE_URL", database.url()).set("DATABASE_DIRECT_URL", direct.url());
    let migrated = place.run(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(migrated.output.contains(direct.name()), "{migrated:?}");
    // Twice is as good as once.
    assert_eq!(place.run(&["migrate"]).code, Some(0));

    // The tables are in one database and the tasks are looked for in the other, which no sane setting would do.
    let server = place.serve(&[]);
    let response = server.caller("ann").send(Method::GET, "/api/tasks", "").await;
    assert_eq!(Caller::json(&response, 500)["code"], "internal");
    let swapped = Place::with_secret().set("DATABASE_URL", direct.url()).serve(&[]);
    swapped.caller("ann").work().await;
    drop((server, swapped));
    database.close().await;
    direct.close().await;
}

#[test]
fn a_database_that_does_not_answer_is_waited_for_and_then_named_without_its_password() {
    let place = Place::with_secret().set("DATABASE_URL", "postgres://todo:hunter2@127.0.0.1:1/todo?password=hunter2");
    let outcome = place.run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("trying again"), "{outcome:?}");
    assert!(outcome.log.contains("postgres://todo:***@127.0.0.1:1/todo"), "{outcome:?}");
    assert!(!outcome.log.contains("hunter2") && !outcome.log.contains(SECRET), "{outcome:?}");
}

#[test]
fn a_file_that_cannot_be_opened_is_named_at_once() {
    let outcome = Place::with_secret().set("DATABASE_URL", "sqlite://nowhere/todo.db").run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("sqlite://nowhere/todo.db"), "{outcome:?}");
}

#[tokio::test]
async fn an_error_is_in_the_log_with_its_cause_and_the_name_of_its_request() {
    let database = testkit::postgres::empty_database().await;
    let place = Place::with_secret().set("DATABASE_URL", database.url()).set("LOG_LEVEL", "error");
    let server = place.serve_silently();
    let name = database.name().to_owned();
    database.close().await;
    let response = server.caller("ann").send(Method::GET, "/api/tasks", "").await;
    assert_eq!(response.status(), 503);
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let log = server.stop().1;
    let line = log.lines().find(|line| line.contains(&format!("request{{id={id} trace_id="))).expect(&log);
    assert!(line.contains("ERROR") && line.contains(&name), "{line}");
}

#[tokio::test]
async fn a_database_that_goes_away_is_not_a_server_that_does() {
    let database = testkit::postgres::empty_database().await;
    let server = Place::with_secret().set("DATABASE_URL", database.url()).serve(&[]);
    let ann = server.caller("ann");
    ann.work().await;
    database.close().await;
    assert_eq!(ann.send(Method::GET, "/health", "").await.status(), 200);
    let probe = Caller::json(&ann.send(Method::GET, "/health/ready", "").await, 503);
    assert_eq!(probe["failed"], serde_json::json!(["store"]));
    let response = ann.send(Method::GET, "/api/tasks", "").await;
    let problem = Caller::json(&response, 503);
    assert_eq!(problem["code"], "unavailable");
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_statement_that_may_run_for_ever_is_worth_a_warning() {
    let database = testkit::postgres::empty_database().await;
    let place = Place::with_secret().set("DATABASE_URL", database.url());
    let (_, log) = place.serve(&[]).stop();
    assert!(!log.contains("may run for ever"), "{log}");
    let (_, log) = place.serve(&["--database-statement-timeout-seconds", "0"]).stop();
    assert!(log.contains("may run for ever"), "{log}");
    database.close().await;
}
