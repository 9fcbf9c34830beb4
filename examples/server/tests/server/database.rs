//! PostgreSQL behind the server.

use http::Method;
use testkit::stores::WalledDatabase;
use todo_core::{TaskQuery, UserId, store::TaskStore as _};

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
    let outcome = place.run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("the table todo.tasks does not exist"), "{outcome:?}");
    let swapped = Place::with_secret().set("DATABASE_URL", direct.url()).serve(&[]);
    swapped.caller("ann").work().await;
    drop(swapped);
    database.close().await;
    direct.close().await;
}

#[tokio::test]
async fn with_row_security_it_works_as_a_role_that_owns_nothing() {
    let walled = WalledDatabase::empty().await;
    let place = Place::with_secret().set("ROW_SECURITY", "on").set("DATABASE_URL", &walled.app);
    // Nobody has made the tables yet, and this role may not.
    let outcome = place.run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("todo-server migrate --grant-to"), "{outcome:?}");

    // Who has the owner's address too makes them and lets itself in.
    let both = Place::with_secret()
        .set("ROW_SECURITY", "on")
        .set("DATABASE_URL", &walled.app)
        .set("DATABASE_DIRECT_URL", &walled.owner);
    let server = both.serve(&[]);
    server.caller("ann").work().await;
    let ids = server.caller("ann").all_ids().await;
    assert_eq!(server.caller("bob").all_ids().await.len(), 0);
    assert_eq!(server.stop().0, Some(0));
    // The other does not need it any more.
    let server = place.serve(&[]);
    assert_eq!(server.caller("ann").all_ids().await, ids);
    let probe = server.caller("ann").send(Method::GET, "/health/ready", "").await;
    assert_eq!(probe.status(), 200);
    drop(server);

    // The table shows nothing to those who name no owner, and the others are told what is wrong.
    let store = testkit::stores::connect(&walled.app);
    assert!(store.list(&UserId::new("ann").expect("an id"), &TaskQuery::default()).await.is_err());
    for (url, row_security, complaint) in [
        (&*walled.app, "off", "set ROW_SECURITY=on"),
        (&*walled.owner, "on", "may disable row-level security"),
        (walled.database.url(), "on", "is a superuser"),
    ] {
        let outcome = Place::with_secret().set("ROW_SECURITY", row_security).set("DATABASE_URL", url).run(&[]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.log.contains(complaint), "{outcome:?}");
    }
    let outcome =
        Place::with_secret().set("DATABASE_URL", &walled.app).set("DATABASE_DIRECT_URL", &walled.owner).run(&[]);
    assert!(outcome.code == Some(1) && outcome.log.contains("set ROW_SECURITY=on"), "{outcome:?}");
    // Row security does not apply to this one, and it does not say that it should.
    let server = Place::with_secret().set("DATABASE_URL", walled.database.url()).serve(&[]);
    assert_eq!(server.caller("ann").all_ids().await, ids);
    drop(server);
    walled.database.close().await;
}

/// Once it is on, it holds for servers that run without it, too.
#[tokio::test]
async fn a_start_that_is_refused_does_not_turn_row_security_on() {
    let walled = WalledDatabase::empty().await;
    let running = Place::with_secret().set("DATABASE_URL", &walled.owner).serve(&[]);
    running.caller("ann").work().await;
    for (url, complaint) in
        [(walled.database.url(), "is a superuser"), (&*walled.owner, "may disable row-level security")]
    {
        let outcome = Place::with_secret()
            .set("ROW_SECURITY", "on")
            .set("DATABASE_URL", url)
            .set("DATABASE_DIRECT_URL", &walled.owner)
            .run(&[]);
        assert!(outcome.code == Some(1) && outcome.log.contains(complaint), "{outcome:?}");
        assert!(outcome.log.contains("DATABASE_DIRECT_URL of the owner"), "{outcome:?}");
        assert!(!running.caller("ann").all_ids().await.is_empty());
    }
    drop(running);
    walled.database.close().await;
}

#[tokio::test]
async fn the_owner_migrates_there_and_back_and_lets_others_in() {
    let walled = WalledDatabase::empty().await;
    let owner = Place::new().set("ROW_SECURITY", "on").set("DATABASE_URL", &walled.owner);
    let migrate = |arguments: &[&str], code: i32, text: &str| {
        let outcome = owner.run(&[&["migrate"], arguments].concat());
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert!(outcome.output.contains(text) || outcome.log.contains(text), "{arguments:?}: {outcome:?}");
    };
    let app = walled.role("app");
    migrate(&["--grant-to", &app], 0, "is at the newest version");
    let place = Place::with_secret().set("ROW_SECURITY", "on").set("DATABASE_URL", &walled.app);
    let server = place.serve(&[]);
    server.caller("ann").work().await;
    let ids = server.caller("ann").all_ids().await;
    drop(server);

    migrate(&["--to", "1"], 0, "row security, if it was on, is off now");
    assert_eq!(place.run(&[]).code, Some(1));
    migrate(&["--to", "0"], 1, "there are tasks");
    migrate(&["--to", "7"], 1, "there is no version 7");
    migrate(&["--to", "x"], 2, "--to");
    migrate(&["--delete-all-tasks"], 2, "--to");
    migrate(&["--grant-to", "public"], 1, "is not the name of a role");
    migrate(&["--grant-to", &app], 0, "is at the newest version");
    let server = place.serve(&[]);
    assert_eq!(server.caller("ann").all_ids().await, ids);
    drop(server);
    migrate(&["--to", "0", "--delete-all-tasks"], 0, "is at version 0");
    migrate(&["--grant-to", &app], 0, "is at the newest version");
    assert_eq!(place.serve(&[]).caller("ann").all_ids().await.len(), 0);
    walled.database.close().await;
}

#[tokio::test]
async fn a_file_goes_there_and_back_too() {
    let place = Place::with_secret();
    place.serve(&[]).caller("ann").work().await;
    let refused = place.run(&["migrate", "--to", "0"]);
    assert!(refused.code == Some(1) && refused.log.contains("there are tasks"), "{refused:?}");
    assert_eq!(place.serve(&[]).caller("ann").all_ids().await.len(), 1);
    assert_eq!(place.run(&["migrate", "--to", "0", "--delete-all-tasks"]).code, Some(0));
    let refused = place.run(&["migrate", "--grant-to", "somebody"]);
    assert!(refused.code == Some(1) && refused.log.contains("SQLite has no roles"), "{refused:?}");
    assert_eq!(place.serve(&[]).caller("ann").all_ids().await.len(), 0);
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
