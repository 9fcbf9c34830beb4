//! `todo-server dev`, on a machine without settings.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, process::Command};

use http::Method;
use serde_json::Value;

use crate::{
    Framework,
    program::{Program, Setup, User, until},
};

/// The instructions that `dev` prints once it accepts connections.
fn instructions(program: &mut Program) -> String {
    until("it prints instructions", || {
        assert!(program.is_running(), "it ended: {}", program.log.so_far());
        Some(program.output.so_far()).filter(|text| text.contains("/complete"))
    })
}

/// The URL on the line with this label.
fn url<'a>(instructions: &'a str, label: &str) -> &'a str {
    let line = instructions.lines().find_map(|line| line.strip_prefix(label)).expect(label);
    line.trim()
}

fn address(instructions: &str) -> SocketAddr {
    let url = url(instructions, "The API:").strip_prefix("http://").expect("a URL");
    url.strip_suffix("/api/v1").expect("the mount").parse().expect("an address")
}

fn token(instructions: &str) -> &str {
    instructions.lines().find_map(|line| line.strip_prefix("TOKEN=")).expect("a token")
}

/// The lines to paste: the token once, then the commands, which use it as a variable.
fn lines_to_paste(instructions: &str) -> String {
    let is_command = |line: &&str| line.starts_with("TOKEN=") || line.starts_with("curl ");
    let lines: Vec<_> = instructions.lines().filter(is_command).collect();
    assert_eq!(lines.len(), 4, "{instructions}");
    assert_eq!(instructions.matches(token(instructions)).count(), 1, "{instructions}");
    lines.join("\n")
}

/// Pastes the lines into a shell in another directory. Returns the JSON that they print.
fn paste(lines: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().expect("a directory");
    let shell = Command::new("sh").args(["-c", lines]).current_dir(&directory).output().expect("a shell");
    assert!(shell.status.success(), "{shell:?}");
    assert!(shell.stderr.is_empty(), "{}", String::from_utf8_lossy(&shell.stderr));
    let output = String::from_utf8(shell.stdout).expect("UTF-8");
    output.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[tokio::test]
async fn the_printed_commands_create_list_and_complete_a_task_that_a_restart_keeps() {
    let setup = Setup::new(Framework::ANY);
    let mut first = setup.spawn(&["dev", "--port", "0"]);
    let text = instructions(&mut first);
    let responses = paste(&lines_to_paste(&text));
    let [created, listed, completed] = responses.as_slice() else {
        panic!("not three responses: {responses:?}");
    };
    assert_eq!(listed[0], *created);
    assert_eq!(completed["id"], created["id"]);
    assert_eq!((&created["completed"], &completed["completed"]), (&false.into(), &true.into()));
    // A second time, they create and complete another task.
    let again = paste(&lines_to_paste(&text));
    assert_eq!(again[1].as_array().map(Vec::len), Some(2));
    assert_eq!((&again[2]["id"], &again[2]["completed"]), (&again[0]["id"], &true.into()));
    first.terminate();
    assert_eq!(first.end().code(), Some(0));

    let mut second = setup.spawn(&["dev", "--port", "0"]);
    let later = instructions(&mut second);
    let alice = User::new(address(&later), token(&text));
    let listed = User::json(&alice.send(Method::GET, "/api/v1/tasks", "").await, 200);
    assert_eq!(listed[1], *completed);
    second.interrupt();
    assert_eq!(second.end().code(), Some(0));
}

#[tokio::test]
async fn the_documentation_is_where_dev_says() {
    let setup = Setup::new(Framework::ANY);
    let mut program = setup.spawn(&["dev", "--port", "0"]);
    let text = instructions(&mut program);
    let docs = url(&text, "Its documentation:");
    assert_eq!(docs, format!("http://{}/docs", address(&text)));
    let page = User::new(address(&text), token(&text)).send(Method::GET, "/docs", "").await;
    assert_eq!(page.status(), 200);
    let document = User::new(address(&text), token(&text)).send(Method::GET, "/openapi.json", "").await;
    let document = User::json(&document, 200);
    // The commands use the same mount as the document.
    assert!(document["paths"].get("/api/v1/tasks").is_some(), "{document}");
}

#[test]
fn only_the_owner_can_read_the_secret_and_git_ignores_it() {
    let setup = Setup::new(Framework::ANY);
    let mut program = setup.spawn(&["dev", "--port", "0"]);
    let text = instructions(&mut program);
    let home = setup.path().join(".todo-dev");
    let mode = |path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!((mode(home.clone()), mode(home.join("secret"))), (0o700, 0o600));
    assert_eq!(fs::read_to_string(home.join(".gitignore")).expect("a file"), "*\n");
    let secret = fs::read_to_string(home.join("secret")).expect("a file");
    // 32 bytes.
    assert_eq!(secret.len(), 43);
    assert!(!text.contains(&secret) && !program.log.so_far().contains(&secret));
    let other = Setup::new(Framework::ANY);
    instructions(&mut other.spawn(&["dev", "--port", "0"]));
    assert_ne!(fs::read_to_string(other.path().join(".todo-dev/secret")).expect("a file"), secret);
}

#[tokio::test]
async fn dev_ignores_host_database_and_keys() {
    let setup = Setup::new(Framework::ANY)
        .set("HOST", "0.0.0.0")
        .set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .set("BETTER_AUTH_SECRET", "short")
        .set("BETTER_AUTH_URL", "http://localhost:3000")
        .set("PORT", "0");
    let mut program = setup.spawn(&["dev"]);
    let text = instructions(&mut program);
    assert!(address(&text).ip().is_loopback());
    assert!(text.contains("dev ignores them: HOST, DATABASE_URL, BETTER_AUTH_URL, BETTER_AUTH_SECRET."), "{text}");
    User::new(address(&text), token(&text)).use_tasks().await;
    assert!(setup.path().join(".todo-dev/todo.db").exists());
}

#[tokio::test]
async fn dev_accepts_tokens_for_other_users() {
    let setup = Setup::new(Framework::ANY);
    let none = setup.run(&["token", "--user", "bob"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.log.contains("todo-server dev"), "{none:?}");

    let mut program = setup.spawn(&["dev", "--port", "0"]);
    let text = instructions(&mut program);
    let printed = setup.run(&["token", "--user", "bob|1", "--ttl", "5m"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let bob = User::new(address(&text), printed.output.trim());
    let session = User::json(&bob.send(Method::GET, "/api/auth/session", "").await, 200);
    assert_eq!(session["user"]["id"], "bob|1");
    let task = bob.use_tasks().await;
    let path = format!("/api/tasks/{}", task["id"].as_str().expect("an id"));
    let alice = User::new(address(&text), token(&text));
    assert_eq!(alice.send(Method::GET, &path, "").await.status(), 404);
}

#[test]
fn a_port_in_use_is_reported_with_the_flag_to_change_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let outcome = Setup::new(Framework::ANY).run(&["dev", "--port", &port]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains(&port) && outcome.log.contains("--port"), "{outcome:?}");
    assert_eq!(outcome.output, "");
}
