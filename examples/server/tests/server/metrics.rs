//! Metrics for Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
};

use bytes::Bytes;
use http::{Method, Request};
use testkit::http::Client;

use crate::{
    Framework,
    keys::WithKeyServer,
    program::{SECRET, Server, Setup, User, until},
};

/// The metrics of a server, parsed as strictly as Prometheus parses them.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// The type of each family, by name.
    families: BTreeMap<String, String>,
    /// By name and labels, as in the text.
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    pub(crate) async fn of(server: &Server) -> Self {
        Self::at(server.metrics_address()).await
    }

    /// The metrics at the address of their port.
    pub(crate) async fn at(address: SocketAddr) -> Self {
        Self::parse(&scrape(address).await)
    }

    #[track_caller]
    fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        let mut family = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                help.split_once(' ').expect("a name and a help").0.clone_into(&mut family);
                assert!(!metrics.families.contains_key(&family), "{family} twice");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a type");
                assert!(name == family && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
                metrics.families.insert(family.clone(), kind.to_owned());
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let name = series.split('{').next().expect("a name");
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} in {family}"));
                let kind = metrics.families[&family].as_str();
                assert!(suffix.is_empty() || (kind == "histogram" && ["_bucket", "_sum", "_count"].contains(&suffix)));
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let value = value.parse().expect("a number");
                assert!(metrics.samples.insert(series.to_owned(), value).is_none(), "{series} twice");
            }
        }
        metrics
    }

    /// The value of a series, written as in the text.
    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }

    /// The value of a series that must be a count.
    #[track_caller]
    pub(crate) fn count(&self, series: &str) -> u64 {
        let value = self.value(series);
        assert!(value >= 0.0 && value.fract() == 0.0, "{series} is {value}");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and not negative")]
        return value as u64;
    }

    /// The names of all series, for queries.
    fn names(&self) -> BTreeSet<String> {
        let series_of = |(name, kind): (&String, &String)| match kind.as_str() {
            "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).to_vec(),
            _ => vec![name.clone()],
        };
        self.families.iter().flat_map(series_of).collect()
    }

    /// The names of all labels, for queries.
    fn labels(&self) -> BTreeSet<&str> {
        let lists = self.samples.keys().filter_map(|series| series.split_once('{'));
        lists
            .flat_map(|(_, list)| list.split(','))
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| name)
            .collect()
    }
}

async fn scrape(address: SocketAddr) -> String {
    let request = Request::get("/metrics").body(Bytes::new()).expect("a request");
    let response = Client::new(address).send(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(response.into_body().into()).expect("UTF-8")
}

/// Runs `promtool`, the checker of Prometheus.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut tool = Command::new(testkit::programs::find("promtool"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    tool.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = tool.wait_with_output().expect("it ends");
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {printed}");
    printed
}

pub(crate) async fn requests_rejections_pools_keys_and_the_process_are_counted(framework: Framework) {
    let fetching = WithKeyServer::serve(Setup::new(framework).set("METRICS_PORT", "0")).await;
    let (server, token) = (&fetching.server, fetching.token("1"));
    let ann = User::new(server.address, &token);
    ann.use_tasks().await;
    assert_eq!(ann.send(Method::GET, "/api/the-user/tasks", "").await.status(), 200);
    assert_eq!(ann.send(Method::GET, "/nothing/here", "").await.status(), 404);
    assert_eq!(ann.send(Method::from_bytes(b"BREW").expect("a method"), "/api/tasks", "").await.status(), 405);
    // A token of another key, no token, a malformed token.
    assert_eq!(server.user("bob").send(Method::GET, "/api/tasks", "").await.status(), 401);
    for _ in 0..2 {
        let anonymous = Request::get("/api/tasks").body(Bytes::new()).expect("a request");
        assert_eq!(Client::new(server.address).send(anonymous).await.status(), 401);
    }
    assert_eq!(User::new(server.address, "x").send(Method::GET, "/api/tasks", "").await.status(), 401);
    // A rejected body is not a rejected token.
    assert_eq!(ann.send(Method::POST, "/api/tasks", "{").await.status(), 400);

    let text = scrape(server.metrics_address()).await;
    for secret in ["the-user", "Buy milk", &*token, "BREW", "nothing/here"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    promtool(&["check", "metrics"], &text);
    let metrics = Metrics::parse(&text);
    for (series, value) in [
        (r#"http_requests_total{route="/api/tasks",method="POST",status="201"}"#, 1.0),
        (r#"http_requests_total{route="/api/tasks",method="POST",status="400"}"#, 1.0),
        (r#"http_requests_total{route="/api/v1/tasks",method="GET",status="200"}"#, 1.0),
        (r#"http_requests_total{route="/api/tasks/{id}/complete",method="PATCH",status="200"}"#, 1.0),
        (r#"http_requests_total{route="/api/{user_id}/tasks",method="GET",status="200"}"#, 1.0),
        (r#"http_requests_total{route="/api/tasks",method="GET",status="401"}"#, 4.0),
        (r#"http_requests_total{route="/api/tasks",method="other",status="405"}"#, 1.0),
        (r#"http_requests_total{route="unknown",method="GET",status="404"}"#, 1.0),
        (r#"http_request_duration_seconds_count{route="/api/tasks",method="GET"}"#, 4.0),
        (r#"http_request_duration_seconds_bucket{route="/api/tasks",method="GET",le="+Inf"}"#, 4.0),
        ("http_requests_in_flight", 0.0),
        (r#"todo_auth_refusals_total{reason="missing"}"#, 2.0),
        (r#"todo_auth_refusals_total{reason="malformed"}"#, 1.0),
        // HS256, and there is no secret.
        (r#"todo_auth_refusals_total{reason="algorithm"}"#, 1.0),
        (r#"todo_auth_refusals_total{reason="signature"}"#, 0.0),
        (r#"todo_store_connections_max{pool="writer"}"#, 1.0),
        (r#"todo_store_connections{pool="writer"}"#, 1.0),
        (r#"todo_store_waiting_max{pool="readers"}"#, 1024.0),
        (r#"todo_store_refused_total{pool="readers"}"#, 0.0),
        ("todo_key_set_usable", 1.0),
        ("todo_key_set_keys", 1.0),
        ("todo_key_set_fetches_total", 1.0),
        ("todo_key_set_fetch_failures_total", 0.0),
    ] {
        assert!((metrics.value(series) - value).abs() < 1e-9, "{series} is {}", metrics.value(series));
    }
    assert!(metrics.value("todo_key_set_age_seconds") < 60.0);
    assert!(metrics.value(r#"http_request_duration_seconds_sum{route="/api/tasks",method="GET"}"#) > 0.0);
    let build = format!(r#"todo_build_info{{version="{}",framework="{}"}}"#, env!("CARGO_PKG_VERSION"), framework.0);
    assert!(metrics.value(&build) > 0.0);
    if cfg!(target_os = "linux") {
        let bytes = 1e6..1e9;
        assert!(bytes.contains(&metrics.value("process_resident_memory_bytes")), "{text}");
        assert!((5.0..1000.0).contains(&metrics.value("process_open_fds")), "{text}");
        assert!(metrics.value("process_max_fds") > metrics.value("process_open_fds"));
        let age = f64::from(u32::try_from(testkit::tokens::now()).expect("before 2106"))
            - metrics.value("process_start_time_seconds");
        assert!((0.0..300.0).contains(&age), "{age}");
    }
}

/// A server on a new PostgreSQL database.
async fn on_postgres(coalesce: &str) -> (testkit::postgres::TestDatabase, Server) {
    let database = testkit::postgres::empty_database().await;
    let setup = Setup::with_secret(Framework::ANY).set("METRICS_PORT", "0").set("COALESCE", coalesce);
    let server = setup.set("DATABASE_URL", database.url()).serve(&[]);
    (database, server)
}

#[tokio::test]
async fn each_call_is_counted_as_alone_or_joined() {
    let (_database, server) = on_postgres("on").await;
    let counts = async || {
        let text = scrape(server.metrics_address()).await;
        promtool(&["check", "metrics"], &text);
        let metrics = Metrics::parse(&text);
        for name in ["todo_coalescing_waiting", "todo_coalescing_refused_total"] {
            assert_eq!(metrics.count(name), 0, "{text}");
        }
        let calls = ["alone", "joined"].map(|how| format!(r#"todo_coalescing_calls_total{{how="{how}"}}"#));
        (calls.map(|series| metrics.count(&series)), metrics.count("todo_coalescing_batches_total"))
    };
    // Calls one after the other do not wait.
    for _ in 0..3 {
        assert_eq!(server.user("ann").send(Method::GET, "/api/tasks", "").await.status(), 200);
    }
    assert_eq!(counts().await, ([3, 0], 0));
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..32 {
        let caller = server.user(&format!("user {number}"));
        callers.spawn(async move { caller.send(Method::GET, "/api/tasks", "").await.status() });
    }
    for status in callers.join_all().await {
        assert_eq!(status, 200);
    }
    let ([alone, joined], batches) = counts().await;
    assert_eq!(alone + joined, 35);
    assert!(batches * 2 <= joined, "{batches} of {joined}");

    let (_database, without) = on_postgres("off").await;
    assert!(!scrape(without.metrics_address()).await.contains("coalescing"));
}

pub(crate) async fn a_request_whose_client_disconnects_is_counted_as_abandoned(framework: Framework) {
    let server = Setup::with_secret(framework).set("METRICS_PORT", "0").serve(&[]);
    let head = format!(
        "POST /api/tasks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\
         authorization: Bearer {}\r\n\r\n{{",
        testkit::tokens::user_token(SECRET.as_bytes(), "ann")
    );
    let mut stream = std::net::TcpStream::connect(server.address).expect("a connection");
    stream.write_all(head.as_bytes()).expect("a connection");
    let in_flight = async || Metrics::of(&server).await.value("http_requests_in_flight");
    while in_flight().await < 1.0 {}
    drop(stream);
    while in_flight().await > 0.0 {}
    let metrics = Metrics::of(&server).await;
    // Some frameworks notice the end of the body first, and make a response that is not sent.
    let abandoned = r#"http_requests_abandoned_total{route="/api/tasks",method="POST"}"#;
    let rejected = r#"http_requests_total{route="/api/tasks",method="POST",status="400"}"#;
    let count = |series: &str| metrics.samples.get(series).copied().unwrap_or_default();
    assert!((count(abandoned) + count(rejected) - 1.0).abs() < 1e-9, "{metrics:?}");
}

#[tokio::test]
async fn metrics_are_served_on_their_own_port_only() {
    let server = Setup::with_secret(Framework::ANY).set("METRICS_PORT", "0").serve(&[]);
    let status = async |address, method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Bytes::new()).expect("a request");
        Client::new(address).send(request).await.status().as_u16()
    };
    assert_eq!(status(server.address, "GET", "/metrics").await, 404, "the port of the API has no metrics");
    assert!(server.metrics_address().ip().is_loopback());
    assert_eq!(status(server.metrics_address(), "GET", "/metrics").await, 200);
    assert_eq!(status(server.metrics_address(), "HEAD", "/metrics").await, 200);
    assert_eq!(status(server.metrics_address(), "POST", "/metrics").await, 405);
    assert_eq!(status(server.metrics_address(), "GET", "/api/tasks").await, 404);

    // Silent connections block no others.
    let silent: Vec<_> =
        (0..15).map(|_| std::net::TcpStream::connect(server.metrics_address()).expect("a connection")).collect();
    assert_eq!(status(server.metrics_address(), "GET", "/metrics").await, 200);
    drop(silent);

    let in_use = Setup::with_secret(Framework::ANY).set("METRICS_PORT", &server.address.port().to_string()).run(&[]);
    assert_eq!(in_use.code, Some(1), "{in_use:?}");
    assert!(in_use.log.contains("--metrics-port"), "{in_use:?}");
    let without_effect = Setup::with_secret(Framework::ANY).set("METRICS_HOST", "127.0.0.1").run(&[]);
    assert_eq!(without_effect.code, Some(2), "{without_effect:?}");

    let mut without = Setup::with_secret(Framework::ANY).serve(&[]);
    without.user("ann").use_tasks().await;
    without.program.terminate();
    assert!(
        until("its end", || (!without.program.is_running()).then(|| without.program.log.whole()))
            .lines()
            .all(|line| !line.contains("metrics"))
    );
}

/// A file of `deploy/` at the root of the repository.
fn deployed(name: &str) -> String {
    fs::read_to_string(format!("{}/../../deploy/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

/// Every query of the dashboard, at any depth.
fn queries_of_dashboard(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|value| queries_of_dashboard(value, found)),
        serde_json::Value::Object(members) => {
            found.extend(members.get("expr").and_then(serde_json::Value::as_str).map(str::to_owned));
            members.values().for_each(|value| queries_of_dashboard(value, found));
        }
        _ => {}
    }
}

/// Every query of the rules. A query may continue on lines with more indentation.
fn queries_of_rules(rules: &str) -> Vec<String> {
    let mut queries: Vec<String> = Vec::new();
    let mut deeper_than = None;
    for line in rules.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(query) = line.trim_start().strip_prefix("expr:") {
            queries.push(query.trim().trim_end_matches('|').to_owned());
            deeper_than = Some(indent);
        } else if deeper_than.is_some_and(|outer| indent > outer) {
            queries.last_mut().expect("a query").push_str(line);
        } else {
            deeper_than = None;
        }
    }
    queries
}

/// Strangers who invent key ids cause 503, but do not wake anyone.
#[test]
fn invented_key_ids_do_not_fire_the_alert_on_errors() {
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(folder.path().join("alerts.yml"), deployed("prometheus/alerts.yml")).expect("a file");
    // Per minute: requests that succeed, requests with 503, and of these, tokens with an invented key id.
    for (name, failing, invented, fires) in [("strangers", 600, 600, false), ("failures", 600, 540, true)] {
        let test = format!(
            r#"
rule_files: [alerts.yml]
tests:
  - interval: 1m
    input_series:
      - series: 'http_requests_total{{job="todo",route="/api/tasks",method="GET",status="200"}}'
        values: '0+600x30'
      - series: 'http_requests_total{{job="todo",route="/api/tasks",method="GET",status="503"}}'
        values: '0+{failing}x30'
      - series: 'todo_auth_refusals_total{{job="todo",reason="key_may_be_new"}}'
        values: '0+{invented}x30'
    promql_expr_test:
      - expr: 'count(ALERTS{{alertname="TodoErrors",alertstate="firing"}}) or vector(0)'
        eval_time: 20m
        exp_samples: [{{value: {}}}]
"#,
            u8::from(fires)
        );
        let file = folder.path().join(format!("{name}.yml"));
        fs::write(&file, test).expect("a file");
        promtool(&["test", "rules", file.to_str().expect("UTF-8")], "");
    }
}

/// The names of metrics and of labels in a query.
fn names_in(query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    const WORDS: [&str; 7] = ["sum", "max", "rate", "changes", "histogram_quantile", "absent", "or"];
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let (mut word, mut in_text, mut in_labels, mut after_by) = (String::new(), false, false, false);
    for character in query.chars().chain([' ']) {
        if in_text {
            in_text = character != '"';
        } else if character.is_ascii_alphanumeric() || "_$.".contains(character) {
            word.push(character);
        } else {
            let word = std::mem::take(&mut word);
            let is_name = word.starts_with(|first: char| first.is_ascii_alphabetic());
            if word == "by" {
                after_by = true;
            } else if is_name && in_labels {
                labels.insert(word);
            } else if is_name && !WORDS.contains(&&*word) {
                metrics.insert(word);
            }
            match character {
                '"' => in_text = true,
                '{' => in_labels = true,
                '(' if after_by => (in_labels, after_by) = (true, false),
                '}' | ')' => in_labels = false,
                _ => {}
            }
        }
    }
    (metrics, labels)
}

#[test]
fn names_in_a_query_are_found() {
    let query =
        r#"histogram_quantile(0.95, sum by (job, le) (rate(a_bucket{job="b c", route!~"/d.*"}[5m]))) / up > 0.2"#;
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names_in(query), (set(&["a_bucket", "up"]), set(&["job", "le", "route"])));
}

#[tokio::test]
async fn dashboard_and_rules_use_exactly_the_existing_metrics() {
    let fetching = WithKeyServer::serve(Setup::new(Framework::ANY).set("METRICS_PORT", "0")).await;
    User::new(fetching.server.address, &fetching.token("1")).use_tasks().await;
    let metrics = Metrics::of(&fetching.server).await;
    let database = testkit::postgres::empty_database().await;
    let setup = Setup::with_secret(Framework::ANY).set("METRICS_PORT", "0").set("DATABASE_URL", database.url());
    // A replica that is not read, since it is the primary.
    let replica = format!("{}?application_name=replica", database.url());
    let on_postgres = setup.set("DATABASE_READ_URL", &replica).serve(&[]);
    let on_postgres = Metrics::of(&on_postgres).await;
    let mut known = metrics.names();
    known.extend(on_postgres.names());
    // Prometheus adds this one itself.
    known.insert("up".to_owned());
    let mut labels = metrics.labels();
    labels.extend(on_postgres.labels());
    labels.extend(["job", "instance"]);

    let rules = deployed("prometheus/alerts.yml");
    let mut queries = queries_of_rules(&rules);
    assert!(queries.len() >= 10, "{queries:?}");
    let dashboard = serde_json::from_str(&deployed("grafana/todo.json")).expect("JSON");
    queries_of_dashboard(&dashboard, &mut queries);
    assert!(queries.len() >= 40, "{queries:?}");
    let mut used = BTreeSet::new();
    for query in &queries {
        let (names, matched) = names_in(query);
        assert!(!names.is_empty(), "{query}");
        assert!(names.is_subset(&known), "{query}: unknown metrics {:?}", names.difference(&known));
        assert!(matched.iter().all(|label| labels.contains(&**label)), "{query}: {matched:?}");
        used.extend(names);
    }
    // Each metric is on the dashboard or in a rule.
    let unused: Vec<_> = known.difference(&used).filter(|name| !name.contains("virtual")).collect();
    assert_eq!(unused, [""; 0]);
    // promtool checks the syntax. The queries of the dashboard become rules, with the variable of Grafana replaced.
    let mut as_rules = vec!["groups:\n  - name: dashboard\n    rules:\n".to_owned()];
    as_rules.extend(queries.iter().enumerate().map(|(number, query)| {
        let query = serde_json::json!(query.replace("$__rate_interval", "5m"));
        format!("      - record: dashboard:query{number}\n        expr: {query}\n")
    }));
    let directory = tempfile::tempdir().expect("a directory");
    for (name, rules) in [("alerts.yml", rules), ("dashboard.yml", as_rules.concat())] {
        let file = directory.path().join(name);
        fs::write(&file, rules).expect("a file");
        promtool(&["check", "rules", file.to_str().expect("UTF-8")], "");
    }
}
