//! `DATABASE_READ_URL`, with a standby whose replay is paused.

use http::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use testkit::postgres::{self, Standby};

use crate::{
    Framework,
    metrics::Metrics,
    program::{Server, Setup, User},
};

async fn lists(server: &Server) -> Value {
    User::json(&server.user("ann").send(Method::GET, "/api/tasks", "").await, 200)
}

async fn reads(server: &Server, result: &str) -> u64 {
    Metrics::of(server).await.count(&format!(r#"todo_replica_reads_total{{result="{result}"}}"#))
}

async fn is_true(url: &str, query: &'static str) {
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    let look = async {
        while !sqlx::query_scalar::<_, bool>(query).fetch_one(&mut connection).await.expect("a row") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), look).await.expect(query);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_to_the_replica_unless_it_is_behind() {
    let settings = "wal_level = replica\nhot_standby = on";
    let primary = postgres::Server::start_local(settings).await.expect("it starts").expect("run scripts/setup");
    let (primary, standby) = tokio::task::spawn_blocking(|| {
        let standby = Standby::of(&primary).expect("it starts");
        (primary, standby)
    })
    .await
    .expect("no panic");
    let setup = Setup::with_secret(Framework::ANY)
        .set("METRICS_PORT", "0")
        .set("DATABASE_URL", primary.url())
        .set("DATABASE_READ_URL", standby.url());
    let servers = [(); 2].map(|()| setup.serve(&[]));
    for server in &servers {
        let begun = std::time::Instant::now();
        while Metrics::of(server).await.count("todo_replicas_usable") == 0 {
            assert!(begun.elapsed().as_secs() < 30, "the replica is not read");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    let [one, two] = &servers;
    let create = r#"{"title":"Buy milk"}"#;
    let task = User::json(&one.user("ann").send(Method::POST, "/api/tasks", create).await, 201);
    let path = format!("/api/tasks/{}", task["id"].as_str().expect("an id"));
    for server in &servers {
        for _ in 0..3 {
            assert_eq!(lists(server).await, json!([task]));
        }
    }
    assert_eq!(reads(two, "failed").await, 0);

    let mut on_standby = PgConnection::connect(standby.url()).await.expect("a connection");
    let same = "select pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn()";
    is_true(standby.url(), same).await;
    assert_eq!(lists(two).await, json!([task]));
    assert!(reads(two, "replica").await > 0);
    on_standby.execute("select pg_wal_replay_pause()").await.expect("a superuser");
    is_true(standby.url(), "select pg_get_wal_replay_pause_state() = 'paused'").await;
    let changed = one.user("ann").send(Method::PATCH, &path, r#"{"title":"Buy bread"}"#).await;
    let changed = User::json(&changed, 200);
    for _ in 0..3 {
        assert_eq!(lists(one).await, json!([changed]), "who stays sees their own write");
    }
    let page = User::json(&one.user("ann").send(Method::GET, "/api/tasks/changes", "").await, 200);
    let since = format!("/api/tasks/changes?since={}", page["next"].as_str().expect("a token"));
    assert_eq!(lists(two).await, json!([task]), "who moves and brings nothing may not");
    let page = User::json(&two.user("ann").send(Method::GET, &since, "").await, 200);
    assert_eq!(page["changes"], json!([]), "who brings a token is told the truth");
    assert_eq!(lists(two).await, json!([changed]), "and nobody goes back");
    assert!(reads(one, "behind").await > 0 && reads(two, "behind").await > 0);

    // The readiness probe does not depend on the replica.
    tokio::task::spawn_blocking(|| standby.stop()).await.expect("no panic");
    for _ in 0..10 {
        assert_eq!(lists(two).await, json!([changed]));
    }
    assert_eq!(two.user("ann").send(Method::GET, "/health/ready", "").await.status(), 200);
    drop(servers);
    tokio::task::spawn_blocking(|| primary.stop()).await.expect("no panic");
}
