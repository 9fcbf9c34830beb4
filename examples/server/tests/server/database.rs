//! Opening and migrating the database.

use http::Method;
use sqlx::{Connection as _, Executor as _, PgConnection, migrate::Migrate as _};
use testkit::stores::RowSecurityDatabase;
use todo_core::{TaskQuery, UserId, store::TaskStore as _};

use crate::{
    Framework,
    program::{SECRET, Setup, User},
};

pub(crate) async fn postgresql_works_like_sqlite(framework: Framework) {
    let database = testkit::postgres::empty_database().await;
    for name in ["DATABASE_URL", "NEON_DB_URL"] {
        let server = Setup::with_secret(framework).set(name, database.url()).serve(&[]);
        server.user("ann").use_tasks().await;
        assert_eq!(server.stop().0, Some(0));
    }
    let server = Setup::with_secret(framework).set("DATABASE_URL", database.url()).serve(&[]);
    assert_eq!(server.user("ann").all_ids().await.len(), 2);
    assert_eq!(server.user("bob").all_ids().await.len(), 0);
    drop(server);
    database.close().await;
}

#[tokio::test]
async fn migrations_use_the_direct_url() {
    let (database, direct) = (testkit::postgres::empty_database().await, testkit::postgres::empty_database().await);
    let setup =
        Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url()).set("DATABASE_DIRECT_URL", direct.url());
    let migrated = setup.run(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(migrated.output.contains(direct.name()), "{migrated:?}");
    // A second migration changes nothing.
    assert_eq!(setup.run(&["migrate"]).code, Some(0));

    // With two different databases, the one of DATABASE_URL has no tables.
    let outcome = setup.run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("the table todo.tasks does not exist"), "{outcome:?}");
    let swapped = Setup::with_secret(Framework::ANY).set("DATABASE_URL", direct.url()).serve(&[]);
    swapped.user("ann").use_tasks().await;
    drop(swapped);
    database.close().await;
    direct.close().await;
}

#[tokio::test]
async fn with_row_level_security_a_role_that_owns_nothing_can_serve() {
    let secured = RowSecurityDatabase::empty().await;
    let setup = Setup::with_secret(Framework::ANY).set("ROW_SECURITY", "on").set("DATABASE_URL", &secured.app);
    // There are no tables yet, and this role cannot create them.
    let outcome = setup.run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("todo-server migrate --grant-to"), "{outcome:?}");

    // With the owner's URL as well, the server creates them and grants itself access.
    let both = Setup::with_secret(Framework::ANY)
        .set("ROW_SECURITY", "on")
        .set("DATABASE_URL", &secured.app)
        .set("DATABASE_DIRECT_URL", &secured.owner);
    let server = both.serve(&[]);
    server.user("ann").use_tasks().await;
    let ids = server.user("ann").all_ids().await;
    assert_eq!(server.user("bob").all_ids().await.len(), 0);
    assert_eq!(server.stop().0, Some(0));
    // From now on its own URL is enough.
    let server = setup.serve(&[]);
    assert_eq!(server.user("ann").all_ids().await, ids);
    let probe = server.user("ann").send(Method::GET, "/health/ready", "").await;
    assert_eq!(probe.status(), 200);
    drop(server);

    // A statement without an owner fails, and a server with the wrong settings does not start.
    let store = testkit::stores::connect(&secured.app);
    assert!(store.list(&UserId::new("ann").expect("an id"), &TaskQuery::default(), None).await.is_err());
    for (url, row_security, message) in [
        (&*secured.app, "off", "set ROW_SECURITY=on"),
        (&*secured.owner, "on", "may disable row-level security"),
        (secured.database.url(), "on", "is a superuser"),
    ] {
        let outcome =
            Setup::with_secret(Framework::ANY).set("ROW_SECURITY", row_security).set("DATABASE_URL", url).run(&[]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.log.contains(message), "{outcome:?}");
    }
    let outcome = Setup::with_secret(Framework::ANY)
        .set("DATABASE_URL", &secured.app)
        .set("DATABASE_DIRECT_URL", &secured.owner)
        .run(&[]);
    assert!(outcome.code == Some(1) && outcome.log.contains("set ROW_SECURITY=on"), "{outcome:?}");
    // Row-level security does not apply to a superuser, and this server does not ask for it.
    let server = Setup::with_secret(Framework::ANY).set("DATABASE_URL", secured.database.url()).serve(&[]);
    assert_eq!(server.user("ann").all_ids().await, ids);
    drop(server);
    secured.database.close().await;
}

/// Every role that may connect can take an advisory lock.
#[tokio::test]
async fn a_role_that_may_only_connect_cannot_keep_a_server_from_starting() {
    let mut secured = RowSecurityDatabase::empty().await;
    let setup = Setup::with_secret(Framework::ANY)
        .set("ROW_SECURITY", "on")
        .set("DATABASE_URL", &secured.app)
        .set("DATABASE_DIRECT_URL", &secured.owner);
    assert_eq!(setup.serve(&[]).stop().0, Some(0));
    let url = secured.database.add_role("stranger", "").await;
    let mut stranger = PgConnection::connect(&url).await.expect("it may connect");
    // The lock of sqlx's migrations, and ours.
    stranger.lock().await.expect("a lock");
    let ours = "select pg_advisory_lock(hashtextextended(what, 0)) from unnest(array[
        'todo-core migrations in \"todo\".\"tasks\"', 'todo-core grants in todo']) as what";
    sqlx::query(ours).execute(&mut stranger).await.expect("locks");
    let server = setup.serve(&[]);
    server.user("ann").use_tasks().await;
    drop(server);
    secured.database.close().await;
}

/// Once enabled, row-level security applies to running servers as well.
#[tokio::test]
async fn a_failed_start_does_not_enable_row_level_security() {
    let secured = RowSecurityDatabase::empty().await;
    let running = Setup::with_secret(Framework::ANY).set("DATABASE_URL", &secured.owner).serve(&[]);
    running.user("ann").use_tasks().await;
    for (url, message) in
        [(secured.database.url(), "is a superuser"), (&*secured.owner, "may disable row-level security")]
    {
        let outcome = Setup::with_secret(Framework::ANY)
            .set("ROW_SECURITY", "on")
            .set("DATABASE_URL", url)
            .set("DATABASE_DIRECT_URL", &secured.owner)
            .run(&[]);
        assert!(outcome.code == Some(1) && outcome.log.contains(message), "{outcome:?}");
        assert!(outcome.log.contains("DATABASE_DIRECT_URL of the owner"), "{outcome:?}");
        assert!(!running.user("ann").all_ids().await.is_empty());
    }
    drop(running);
    secured.database.close().await;
}

#[tokio::test]
async fn the_owner_migrates_in_both_directions_and_grants_access() {
    let secured = RowSecurityDatabase::empty().await;
    let owner = Setup::new(Framework::ANY).set("ROW_SECURITY", "on").set("DATABASE_URL", &secured.owner);
    let migrate = |arguments: &[&str], code: i32, text: &str| {
        let outcome = owner.run(&[&["migrate"], arguments].concat());
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert!(outcome.output.contains(text) || outcome.log.contains(text), "{arguments:?}: {outcome:?}");
    };
    let app = secured.role("app");
    migrate(&["--grant-to", &app], 0, "is at the newest version");
    let setup = Setup::with_secret(Framework::ANY).set("ROW_SECURITY", "on").set("DATABASE_URL", &secured.app);
    let server = setup.serve(&[]);
    server.user("ann").use_tasks().await;
    let ids = server.user("ann").all_ids().await;
    drop(server);

    migrate(&["--to", "1"], 0, "row-level security is now disabled");
    assert_eq!(setup.run(&[]).code, Some(1));
    migrate(&["--to", "0"], 1, "there are tasks");
    migrate(&["--to", "7"], 1, "there is no version 7");
    migrate(&["--to", "x"], 2, "--to");
    migrate(&["--delete-all-tasks"], 2, "--to");
    migrate(&["--grant-to", "public"], 1, "is not the name of a role");
    migrate(&["--grant-to", &app], 0, "is at the newest version");
    let server = setup.serve(&[]);
    assert_eq!(server.user("ann").all_ids().await, ids);
    drop(server);
    migrate(&["--to", "0", "--delete-all-tasks"], 0, "is at version 0");
    migrate(&["--grant-to", &app], 0, "is at the newest version");
    assert_eq!(setup.serve(&[]).user("ann").all_ids().await.len(), 0);
    secured.database.close().await;
}

#[tokio::test]
async fn a_file_can_be_migrated_in_both_directions() {
    let setup = Setup::with_secret(Framework::ANY);
    setup.serve(&[]).user("ann").use_tasks().await;
    let rejected = setup.run(&["migrate", "--to", "0"]);
    assert!(rejected.code == Some(1) && rejected.log.contains("there are tasks"), "{rejected:?}");
    assert_eq!(setup.serve(&[]).user("ann").all_ids().await.len(), 1);
    assert_eq!(setup.run(&["migrate", "--to", "0", "--delete-all-tasks"]).code, Some(0));
    let rejected = setup.run(&["migrate", "--grant-to", "somebody"]);
    assert!(rejected.code == Some(1) && rejected.log.contains("SQLite has no roles"), "{rejected:?}");
    assert_eq!(setup.serve(&[]).user("ann").all_ids().await.len(), 0);
}

#[test]
fn an_unreachable_database_is_retried_and_then_reported_without_its_password() {
    let setup = Setup::with_secret(Framework::ANY)
        .set("DATABASE_URL", "postgres://todo:hunter2@127.0.0.1:1/todo?password=hunter2");
    let outcome = setup.run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.log.matches("retrying").count(), 1, "{outcome:?}");
    assert!(outcome.log.contains("start the database, or correct its URL"), "{outcome:?}");
    assert!(outcome.log.contains("postgres://todo:***@127.0.0.1:1/todo"), "{outcome:?}");
    assert!(!outcome.log.contains("hunter2") && !outcome.log.contains(SECRET), "{outcome:?}");
}

/// Mistakes that do not go away: the server ends at once, names the setting and the database, and says what to change.
#[tokio::test]
async fn a_mistake_in_the_database_is_reported_at_once_with_its_setting() {
    let mut database = testkit::postgres::empty_database().await;
    let stranger = database.add_role("stranger", "").await;
    let name = database.name().to_owned();
    let mut owner = PgConnection::connect(database.url()).await.expect("a connection");
    let execute = async |owner: &mut PgConnection, statement: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(owner).await.expect("done");
    };
    execute(&mut owner, format!("revoke connect on database \"{name}\" from public")).await;
    execute(&mut owner, format!("create database \"{name}_closed\" allow_connections false")).await;
    let pooler_url = database.url().to_owned();
    let pooler = tokio::task::spawn_blocking(move || testkit::pgbouncer::PgBouncer::tracking(&pooler_url)).await;
    let pooler = pooler.expect("a pooler");
    let other_server = Setup::with_secret(Framework::ANY).serve(&[]);
    let url = |change: &dyn Fn(&mut url::Url)| {
        let mut url = url::Url::parse(database.url()).expect("a URL");
        change(&mut url);
        url.to_string()
    };
    let direct = format!("{}_missing", database.url());
    for (setting, url, problem) in [
        ("DATABASE_URL", url(&|url| url.set_path("nowhere")), "the database does not exist; create it"),
        ("NEON_DB_URL", url(&|url| url.set_path("nowhere")), "database \"nowhere\" does not exist"),
        ("DATABASE_DIRECT_URL", direct, "the database does not exist"),
        ("DATABASE_URL", url(&|url| url.set_username("nobody").expect("a name")), "correct the user or the password"),
        ("DATABASE_URL", stranger, "grant the role of the URL connect on the database"),
        ("DATABASE_URL", url(&|url| url.set_path(&format!("{name}_closed"))), "the database accepts no connections"),
        (
            "DATABASE_URL",
            url(&|url| url.set_query(Some("options=-c nonsense=1"))),
            "rejected the connection; correct the URL",
        ),
        ("DATABASE_URL", url(&|url| url.set_query(Some("options=-c work_mem=much"))), "invalid value for parameter"),
        ("DATABASE_URL", url(&|url| url.set_query(Some("sslmode=verify-full&sslrootcert=/no/ca.pem"))), "/no/ca.pem"),
        ("DATABASE_URL", format!("postgres://todo@{}/todo", other_server.address), "is not a PostgreSQL server"),
        ("DATABASE_URL", pooler.url().replace("/pooled", "/nowhere"), "PgBouncer has no such database"),
    ] {
        let mut setup = Setup::with_secret(Framework::ANY).set(setting, &url);
        if setting == "DATABASE_DIRECT_URL" {
            setup = setup.set("DATABASE_URL", database.url());
        }
        let begun = std::time::Instant::now();
        let outcome = setup.run(&[]);
        assert!(matches!(outcome.code, Some(1 | 2)), "{url}: {outcome:?}");
        assert!(outcome.log.contains(problem) && outcome.log.contains(setting), "{url}: {outcome:?}");
        assert!(!outcome.log.contains("retrying"), "{url}: {outcome:?}");
        assert!(begun.elapsed().as_secs() < 8, "{url}: {:?}", begun.elapsed());
        // Each cause once.
        let line = outcome.log.lines().find(|line| line.contains(problem)).expect("a line");
        assert!(line.len() < 700 && line.matches("cannot connect to").count() <= 1, "{line}");
    }
    execute(&mut owner, format!("drop database \"{name}_closed\"")).await;
    database.close().await;
}

pub(crate) async fn a_read_only_database_is_ready_and_says_that_writes_fail(framework: Framework) {
    let database = testkit::postgres::empty_database().await;
    let server = Setup::with_secret(framework).set("DATABASE_URL", database.url()).set("METRICS_PORT", "0").serve(&[]);
    let ann = server.user("ann");
    ann.use_tasks().await;
    let mut owner = PgConnection::connect(database.url()).await.expect("a connection");
    let state = async || {
        let probe = User::json(&ann.send(Method::GET, "/health/ready", "").await, 200);
        let metrics = crate::metrics::Metrics::at(server.metrics_address()).await;
        (probe["writes"].as_str().expect("a state").to_owned(), metrics.count("todo_store_writes_failing"))
    };
    assert_eq!(state().await, ("ok".to_owned(), 0));
    for (value, status, writes, failing) in [("on", 503, "failing", 1), ("off", 201, "ok", 0)] {
        let name = database.name();
        let statements = format!(
            "alter database \"{name}\" set default_transaction_read_only = {value};
             select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut owner).await.expect("done");
        // A read finds that the connections are dead.
        assert_eq!(ann.all_ids().await.len(), 1);
        let response = ann.send(Method::POST, "/api/tasks", r#"{"title":"Another"}"#).await;
        assert_eq!(response.status(), status, "{:?}", response.body());
        assert_eq!(state().await, (writes.to_owned(), failing));
    }
    drop(server);
    drop(owner);
    database.close().await;
}

#[test]
fn a_file_that_the_server_creates_belongs_to_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let setup = Setup::with_secret(Framework::ANY);
    let server = setup.serve(&[]);
    for name in ["todo.db", "todo.db-wal", "todo.db-shm"] {
        let mode = std::fs::metadata(setup.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}: {mode:o}");
    }
    drop(server);
}

#[test]
fn a_file_that_cannot_be_opened_is_reported_at_once() {
    let outcome = Setup::with_secret(Framework::ANY).set("DATABASE_URL", "sqlite://nowhere/todo.db").run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("sqlite://nowhere/todo.db"), "{outcome:?}");
    assert!(outcome.log.contains("create the folder that contains it"), "{outcome:?}");
}

#[tokio::test]
async fn an_error_is_logged_with_its_cause_and_the_id_of_its_request() {
    let database = testkit::postgres::empty_database().await;
    let setup = Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url()).set("LOG_LEVEL", "error");
    let server = setup.serve_on_known_port();
    let name = database.name().to_owned();
    database.close().await;
    let response = server.user("ann").send(Method::GET, "/api/tasks", "").await;
    assert_eq!(response.status(), 503);
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let log = server.stop().1;
    let line = log.lines().find(|line| line.contains(&format!("request{{id={id} trace_id="))).expect(&log);
    assert!(line.contains("ERROR") && line.contains(&name), "{line}");
}

#[tokio::test]
async fn while_the_database_is_away_the_server_is_alive_but_not_ready() {
    let database = testkit::postgres::empty_database().await;
    let server = Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url()).serve(&[]);
    let ann = server.user("ann");
    ann.use_tasks().await;
    database.close().await;
    assert_eq!(ann.send(Method::GET, "/health", "").await.status(), 200);
    let probe = User::json(&ann.send(Method::GET, "/health/ready", "").await, 503);
    assert_eq!(probe["failed"], serde_json::json!(["store"]));
    let response = ann.send(Method::GET, "/api/tasks", "").await;
    let problem = User::json(&response, 503);
    assert_eq!(problem["code"], "unavailable");
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_database_without_a_statement_timeout_is_a_warning() {
    let database = testkit::postgres::empty_database().await;
    let setup = Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url());
    let (_, log) = setup.serve(&[]).stop();
    assert!(!log.contains("statements have no time limit"), "{log}");
    let (_, log) = setup.serve(&["--database-statement-timeout-seconds", "0"]).stop();
    assert!(log.contains("statements have no time limit"), "{log}");
    database.close().await;
}

/// The statements of the owner that give `todo_app` rights.
async fn as_owner(secured: &RowSecurityDatabase, statement: &str) {
    let mut connection = PgConnection::connect(&secured.owner).await.expect("a connection");
    let statement = statement.replace("@app", &secured.role("app"));
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await.expect("the owner may do this");
}

#[tokio::test]
async fn a_role_that_may_only_read_and_write_rows_can_serve() {
    let secured = RowSecurityDatabase::empty().await;
    let owner = Setup::new(Framework::ANY).set("DATABASE_URL", &secured.owner);
    assert_eq!(owner.run(&["migrate"]).code, Some(0));
    let app = Setup::with_secret(Framework::ANY).set("DATABASE_URL", &secured.app);
    // Each step grants what the last message has named, and only what it has named.
    let mut seen = Vec::new();
    for grant in [
        "grant usage on schema todo to @app",
        "grant select on todo.tasks_migrations to @app",
        "grant select, insert, update on todo.tasks to @app",
        "grant delete on todo.tasks to @app",
        "grant select, insert, update, delete on todo.tasks_owners to @app",
        "grant select, delete on todo.tasks_deleted to @app",
    ] {
        let outcome = app.run(&[]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(!outcome.log.contains("ROW_SECURITY"), "{outcome:?}");
        let ledger = outcome.log.contains("may not read todo.tasks_migrations");
        let rows = outcome.log.contains("may not read and change the table todo.tasks")
            && outcome
                .log
                .contains("delete on todo.tasks and todo.tasks_owners, and select and delete on todo.tasks_deleted");
        assert!(ledger || rows, "{outcome:?}");
        seen.push(ledger);
        as_owner(&secured, grant).await;
    }
    assert_eq!(seen, [true, true, false, false, false, false]);
    let server = app.serve(&[]);
    server.user("ann").use_tasks().await;
    assert_eq!(server.stop().0, Some(0));

    // It cannot migrate, and says so.
    assert_eq!(owner.run(&["migrate", "--to", "1"]).code, Some(0));
    let outcome = app.run(&[]);
    assert!(outcome.code == Some(1) && outcome.log.contains("may not migrate the tables"), "{outcome:?}");
    // The command grants the same.
    as_owner(&secured, "revoke all on all tables in schema todo from @app").await;
    assert_eq!(owner.run(&["migrate", "--grant-to", &secured.role("app")]).code, Some(0));
    app.serve(&[]).user("ann").use_tasks().await;
    secured.database.close().await;
}

#[tokio::test]
async fn a_first_start_without_the_right_to_create_a_schema_names_only_this() {
    let secured = RowSecurityDatabase::empty().await;
    let outcome = Setup::with_secret(Framework::ANY).set("DATABASE_URL", &secured.app).run(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains("may not migrate the tables"), "{outcome:?}");
    assert!(!outcome.log.contains("ROW_SECURITY") && !outcome.log.contains("does not exist"), "{outcome:?}");
    secured.database.close().await;
}

/// The output of `todo-server user ..`, which must succeed.
fn user_command(setup: &Setup, arguments: &[&str]) -> String {
    let outcome = setup.run(&[&["user"], arguments].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.output
}

/// Erases and moves tasks while a server runs.
async fn users_can_be_erased_and_moved(setup: Setup) {
    let server = setup.serve(&[]);
    let (guest, ann, bob) = (server.user("guest"), server.user("ann"), server.user("bob"));
    for user in [&guest, &guest, &ann, &bob] {
        user.use_tasks().await;
    }
    let (of_guest, of_ann) = (guest.all_ids().await, ann.all_ids().await);
    assert_eq!(user_command(&setup, &["move", "guest", "ann"]), "moved 2 tasks from \"guest\" to \"ann\"\n");
    assert_eq!(ann.all_ids().await.len(), 3);
    assert!(of_guest.iter().chain(&of_ann).all(|id| id.len() == 36));
    assert_eq!(guest.all_ids().await, Vec::<String>::new());
    assert_eq!(user_command(&setup, &["move", "guest", "ann"]), "moved 0 tasks from \"guest\" to \"ann\"\n");
    assert_eq!(user_command(&setup, &["erase", "ann"]), "erased 3 tasks of \"ann\"\n");
    assert_eq!(ann.all_ids().await, Vec::<String>::new());
    assert_eq!(user_command(&setup, &["erase", "ann"]), "erased 0 tasks of \"ann\"\n");
    assert_eq!(bob.all_ids().await.len(), 1);
    assert_eq!(user_command(&setup, &["erase", "bob"]), "erased 1 task of \"bob\"\n");
}

#[tokio::test]
async fn an_operator_erases_and_moves_users_in_sqlite() {
    users_can_be_erased_and_moved(Setup::with_secret(Framework::ANY)).await;
}

#[tokio::test]
async fn an_operator_erases_and_moves_users_in_postgresql() {
    let database = testkit::postgres::empty_database().await;
    users_can_be_erased_and_moved(Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url())).await;
    database.close().await;
}

#[tokio::test]
async fn an_operator_erases_and_moves_users_with_row_level_security() {
    let secured = RowSecurityDatabase::migrated().await;
    let setup = Setup::with_secret(Framework::ANY).set("ROW_SECURITY", "on").set("DATABASE_URL", &secured.app);
    users_can_be_erased_and_moved(setup).await;
    secured.database.close().await;
}

#[tokio::test]
async fn tasks_whose_ids_are_taken_are_not_moved_but_counted() {
    let database = testkit::stores::todo_database().await;
    let mut connection = PgConnection::connect(database.url()).await.expect("a connection");
    let tasks = "insert into todo.tasks (user_id, id, title, created_at, updated_at)
        select owner, ('01900000-0000-7000-8000-00000000000' || n)::uuid, 'Of ' || owner, now(), now()
        from unnest(array['guest', 'ann']) as owner, generate_series(1, 3) as n where owner = 'guest' or n = 2";
    connection.execute(tasks).await.expect("rows");
    let setup = Setup::new(Framework::ANY).set("DATABASE_URL", database.url());
    let output = user_command(&setup, &["move", "guest", "ann"]);
    let expected =
        "moved 2 tasks from \"guest\" to \"ann\"; \"guest\" keeps 1 task, since \"ann\" has tasks with the same ids\n";
    assert_eq!(output, expected);
    database.close().await;
}

#[tokio::test]
async fn the_number_of_tasks_of_a_user_is_limited() {
    let setup = Setup::with_secret(Framework::ANY).set("MAX_TASKS_PER_USER", "2");
    let server = setup.serve(&[]);
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let create = async |user: &User, body: &'static str| user.send(Method::POST, "/api/tasks", body).await;
    let one = r#"{"title":"Read the map"}"#;
    let three = r#"[{"title":"a"},{"title":"b"},{"title":"c"}]"#;
    let rejected = create(&ann, three).await;
    let text = String::from_utf8_lossy(rejected.body()).into_owned();
    assert!(rejected.status() == 403 && text.contains(r#""code":"quota_exceeded""#), "{text}");
    for user in [&ann, &bob] {
        assert_eq!(create(user, one).await.status(), 201);
        assert_eq!(create(user, one).await.status(), 201);
        assert_eq!(create(user, one).await.status(), 403);
    }
    // An operator is not limited.
    let exported = setup.run(&["user", "export", "ann"]);
    assert_eq!(exported.output.lines().count(), 2, "{exported:?}");
    let line = exported.output.lines().next().expect("a task");
    let third = line.replacen(&line[7..43], "019aa3f0-5c00-7000-8000-000000000003", 1);
    let imported = setup.run_with(&["user", "import", "ann"], third.as_bytes());
    assert_eq!(imported.output, "imported 1 task of \"ann\"\n", "{imported:?}");
    // A task less makes room.
    for id in ann.all_ids().await.into_iter().take(2) {
        assert_eq!(ann.send(Method::DELETE, &format!("/api/tasks/{id}"), "").await.status(), 204);
    }
    assert_eq!(create(&ann, one).await.status(), 201);
    assert_eq!(server.stop().0, Some(0));
    // No limit.
    let server = setup.set("MAX_TASKS_PER_USER", "0").serve(&[]);
    assert_eq!(create(&server.user("bob"), three).await.status(), 201);
}

/// Deletions of two users are forgotten once they are old enough, and tokens can be expired.
async fn an_operator_reaches_all_users(setup: Setup, operator: Setup) {
    let server = setup.serve(&[]);
    for user in ["ann", "bob"].map(|user| server.user(user)) {
        user.use_tasks().await;
        user.use_tasks().await;
        let id = user.all_ids().await.swap_remove(0);
        assert_eq!(user.send(Method::DELETE, &format!("/api/tasks/{id}"), "").await.status(), 204);
    }
    let run = |arguments: &[&str]| {
        let outcome = operator.run(arguments);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.output
    };
    assert_eq!(run(&["purge"]), "forgot 0 deletions\n");
    assert_eq!(run(&["purge", "--older-than", "1"]), "forgot 0 deletions\n");
    let forgot = run(&["purge", "--older-than", "0"]);
    let count: u32 = forgot.split(' ').nth(1).and_then(|count| count.parse().ok()).expect("a number");
    assert!(count >= 2, "{forgot}");
    assert_eq!(run(&["purge", "--older-than", "0"]), "forgot 0 deletions\n");
    assert_eq!(run(&["expire-sync-tokens"]), "expired the sync tokens of 2 users\n");
    assert_eq!(server.user("ann").all_ids().await.len(), 1, "tasks stay");
    assert_eq!(server.stop().0, Some(0));
}

#[tokio::test]
async fn an_operator_reaches_all_users_in_sqlite() {
    let setup = Setup::with_secret(Framework::ANY);
    let path = format!("sqlite://{}", setup.path().join("todo.db").display());
    an_operator_reaches_all_users(setup, Setup::new(Framework::ANY).set("DATABASE_URL", &path)).await;
}

#[tokio::test]
async fn an_operator_reaches_all_users_in_postgresql() {
    let database = testkit::postgres::empty_database().await;
    let set = |setup: Setup| setup.set("DATABASE_URL", database.url());
    an_operator_reaches_all_users(set(Setup::with_secret(Framework::ANY)), set(Setup::new(Framework::ANY))).await;
    database.close().await;
}

#[tokio::test]
async fn with_row_level_security_an_operator_needs_a_role_that_sees_all_users() {
    let secured = RowSecurityDatabase::migrated().await;
    let as_role = |url: &str| Setup::with_secret(Framework::ANY).set("ROW_SECURITY", "on").set("DATABASE_URL", url);
    for url in [&secured.app, &secured.owner] {
        for command in [&["purge"][..], &["expire-sync-tokens"]] {
            let outcome = as_role(url).run(command);
            assert_eq!((outcome.code, &*outcome.output), (Some(1), ""), "{outcome:?}");
            assert!(outcome.log.contains("BYPASSRLS") && !outcome.log.contains("set ROW_SECURITY"), "{outcome:?}");
        }
    }
    an_operator_reaches_all_users(as_role(&secured.app), as_role(secured.database.url())).await;
    secured.database.close().await;
}

#[test]
fn deletions_that_are_kept_for_ever_are_forgotten_only_by_their_age() {
    let setup = Setup::new(Framework::ANY).set("DELETIONS_KEPT_DAYS", "0");
    assert_eq!(setup.run(&["migrate"]).code, Some(0));
    let outcome = setup.run(&["purge"]);
    assert!(outcome.code == Some(1) && outcome.log.contains("--older-than"), "{outcome:?}");
    assert_eq!(setup.run(&["purge", "--older-than", "400"]).output, "forgot 0 deletions\n");
    assert_eq!(setup.run(&["purge", "--older-than", "36501"]).code, Some(2));
}

#[test]
fn a_command_about_a_user_changes_no_other_database() {
    let setup = Setup::new(Framework::ANY);
    for command in [
        &["user", "erase", "ann"][..],
        &["user", "export", "ann"],
        &["user", "import", "ann"],
        &["purge"],
        &["expire-sync-tokens"],
    ] {
        let outcome = setup.run(command);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.log.contains("todo.db"), "{outcome:?}");
    }
    assert_eq!(std::fs::read_dir(setup.path()).expect("a directory").count(), 0, "no file was created");
    for (arguments, text) in [
        (&["user"][..], "Usage"),
        (&["user", "erase"], "<ID>"),
        (&["user", "erase", ""], "ID"),
        (&["user", "move", "ann"], "<TO>"),
        (&["user", "export"], "<ID>"),
        (&["user", "import", ""], "ID"),
        (&["user", "move", "ann", "ann"], "the same user"),
    ] {
        let outcome = setup.run(arguments);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.log.contains(text), "{outcome:?}");
    }
}
