//! What a server has rendered is served while the database says that it is current: with several servers, after SQL of
//! the host, and with row-level security.

use http::{Method, header::ETAG};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use testkit::stores::RowSecurityDatabase;

use crate::{
    Framework,
    metrics::Metrics,
    program::{Server, Setup, User},
};

const READS: [&str; 4] = ["/api/tasks", "/api/tasks?limit=1&sort=title", "/api/tasks/count", "/api/tasks/summary"];

/// The bodies of all reads, each read twice by this server.
async fn read(server: &Server, user: &str) -> Vec<Value> {
    let user = server.user(user);
    let mut bodies = Vec::new();
    for path in READS {
        let [first, second] = [user.send(Method::GET, path, "").await, user.send(Method::GET, path, "").await];
        assert_eq!((first.body(), &first.headers()[ETAG]), (second.body(), &second.headers()[ETAG]), "{path}");
        bodies.push(User::json(&second, 200));
    }
    bodies
}

/// Two servers and the SQL of a host change the same tasks in turn.
async fn changes_are_seen(servers: [&Server; 2], host: &mut PgConnection) {
    let [one, two] = servers;
    let create = r#"{"title":"Buy milk","list":"Groceries"}"#;
    for round in 0..3 {
        for (writer, reader) in [(one, two), (two, one)] {
            let task = User::json(&writer.user("ann").send(Method::POST, "/api/tasks", create).await, 201);
            let path = format!("/api/tasks/{}", task["id"].as_str().expect("an id"));
            let created = read(reader, "ann").await;
            assert_eq!(created[0][0], task, "round {round}");
            assert_eq!(created, read(writer, "ann").await);

            let changed = writer.user("ann").send(Method::PATCH, &path, r#"{"title":"Buy bread"}"#).await;
            assert_eq!(read(reader, "ann").await[0][0], User::json(&changed, 200));

            // Neither server knows of this.
            host.execute("update todo.tasks set title = 'Of the host', list = 'Host' where user_id = 'ann'")
                .await
                .expect("rights");
            for server in servers {
                let bodies = read(server, "ann").await;
                assert_eq!(bodies[0][0]["title"], "Of the host");
                assert_eq!(bodies[3]["lists"][0]["name"], "Host");
            }
            host.execute("delete from todo.tasks where user_id = 'ann' and title = 'Of the host'")
                .await
                .expect("rights");
            for server in servers {
                assert_eq!(read(server, "ann").await[..3], [json!([]), json!([]), json!({"count": 0})]);
            }
            assert_eq!(read(reader, "bob").await[2], json!({"count": 0}));
        }
    }
    for server in servers {
        let metrics = Metrics::of(server).await;
        assert!(metrics.count(r#"todo_cache_reads_total{result="hit"}"#) > 100, "the second reads");
        assert!(metrics.count(r#"todo_cache_reads_total{result="miss"}"#) > 50, "the changes");
        assert!(metrics.count("todo_cache_bytes") > 0);
    }
}

#[tokio::test]
async fn a_cache_is_never_stale_with_two_servers_and_sql_of_the_host() {
    let database = testkit::postgres::empty_database().await;
    let setup = Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url());
    let servers = [(); 2].map(|()| setup.serve(&["--metrics-port", "0"]));
    let mut host = PgConnection::connect(database.url()).await.expect("a connection");
    changes_are_seen([&servers[0], &servers[1]], &mut host).await;
    drop(servers);
    host.close().await.expect("open");
    database.close().await;
}

#[tokio::test]
async fn a_cache_is_never_stale_with_row_level_security() {
    let secured = RowSecurityDatabase::empty().await;
    let setup = Setup::with_secret(Framework::ANY)
        .set("ROW_SECURITY", "on")
        .set("DATABASE_URL", &secured.app)
        .set("DATABASE_DIRECT_URL", &secured.owner);
    let servers = [(); 2].map(|()| setup.serve(&["--metrics-port", "0"]));
    // A superuser, to whom row-level security does not apply.
    let mut host = PgConnection::connect(secured.database.url()).await.expect("a connection");
    changes_are_seen([&servers[0], &servers[1]], &mut host).await;
    drop(servers);
    host.close().await.expect("open");
    secured.database.close().await;
}

/// Of 64 writers who have read the same version, one wins, at whichever server, and both servers then list what the
/// winner has written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_with_the_same_version_one_wins() {
    let database = testkit::postgres::empty_database().await;
    let setup = Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url());
    let servers = [(); 2].map(|()| setup.serve(&["--metrics-port", "0"]));
    let task = User::json(&servers[0].user("ann").send(Method::POST, "/api/tasks", r#"{"title":"Read"}"#).await, 201);
    let path = format!("/api/tasks/{}", task["id"].as_str().expect("an id"));
    for version in 1..=5 {
        let writers = (0..64).map(|number| {
            let (ann, path) = (servers[number % 2].user("ann"), path.clone());
            tokio::spawn(async move {
                // A change of nothing is accepted and keeps the version, so no writer writes what it wrote before.
                let title = format!("Writer {number} of version {version}");
                let body = json!({"title": title, "version": version}).to_string();
                let response = ann.send(Method::PATCH, &path, &body).await;
                let body: Value = serde_json::from_slice(response.body()).expect("JSON");
                match response.status().as_u16() {
                    200 => Some(body),
                    status => {
                        // The first calls of a user wait, and those beyond the limit are rejected.
                        assert!(
                            (status == 409 && body["current"]["version"] == version + 1) || status == 429,
                            "{body}"
                        );
                        None
                    }
                }
            })
        });
        let mut won = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            won.extend(writer.await.expect("a response"));
        }
        assert_eq!(won.len(), 1, "version {version}: {won:?}");
        for server in &servers {
            assert_eq!(read(server, "ann").await[0], json!(won), "version {version}");
        }
    }
    drop(servers);
    database.close().await;
}

#[tokio::test]
async fn without_megabytes_nothing_is_kept() {
    let server = Setup::with_secret(Framework::ANY).set("CACHE_MEGABYTES", "0").serve(&["--metrics-port", "0"]);
    server.user("ann").use_tasks().await;
    read(&server, "ann").await;
    let metrics = Metrics::of(&server).await;
    assert_eq!(metrics.count(r#"todo_cache_reads_total{result="hit"}"#), 0);
    assert_eq!(metrics.count("todo_cache_bytes"), 0);
}
