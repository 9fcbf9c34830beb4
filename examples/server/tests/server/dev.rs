//! A first try, on an untouched machine.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, process::Command};

use http::Method;
use serde_json::Value;

use crate::program::{Caller, Place, Program, until};

/// What `dev` says once it serves.
fn greeting(program: &mut Program) -> String {
    until("it greets", || {
        assert!(program.is_running(), "it ended: {}", program.log.so_far());
        Some(program.output.so_far()).filter(|text| text.contains("Ctrl-C"))
    })
}

fn address(greeting: &str) -> SocketAddr {
    let url = greeting.split_whitespace().find_map(|word| word.strip_prefix("http://")).expect("a URL");
    url.trim_end_matches("/api,").parse().expect("an address")
}

fn token(greeting: &str) -> &str {
    greeting.lines().find(|line| line.starts_with("eyJ")).expect("a token")
}

/// The lines that are there to be pasted, as one text.
fn lines_to_paste(greeting: &str) -> String {
    let lines: Vec<_> = greeting.lines().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(lines.len(), 3, "{greeting}");
    lines.join("\n")
}

/// Pastes into a shell that knows nothing, somewhere else, and answers the JSON that comes back.
fn paste(lines: &str) -> Vec<Value> {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let shell = Command::new("bash").args(["-c", lines]).current_dir(&elsewhere).output().expect("bash");
    assert!(shell.status.success(), "{shell:?}");
    assert!(shell.stderr.is_empty(), "{}", String::from_utf8_lossy(&shell.stderr));
    let output = String::from_utf8(shell.stdout).expect("UTF-8");
    output.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[tokio::test]
async fn pasted_lines_create_list_and_complete_a_task_and_it_is_there_after_a_restart() {
    let place = Place::new();
    let mut first = place.spawn(&["dev", "--port", "0"]);
    let text = greeting(&mut first);
    let answers = paste(&lines_to_paste(&text));
    let [created, listed, completed] = answers.as_slice() else {
        panic!("three answers: {answers:?}");
    };
    assert_eq!(listed[0], *created);
    assert_eq!(completed["id"], created["id"]);
    assert_eq!((&created["completed"], &completed["completed"]), (&false.into(), &true.into()));
    // Twice does the same to another task.
    let again = paste(&lines_to_paste(&text));
    assert_eq!(again[1].as_array().map(Vec::len), Some(2));
    assert_eq!((&again[2]["id"], &again[2]["completed"]), (&again[0]["id"], &true.into()));
    first.terminate();
    assert_eq!(first.end().code(), Some(0));

    let mut second = place.spawn(&["dev", "--port", "0"]);
    let later = greeting(&mut second);
    let caller = Caller::new(address(&later), token(&text));
    let listed = Caller::json(&caller.send(Method::GET, "/api/tasks", "").await, 200);
    assert_eq!(listed[1], *completed);
    second.interrupt();
    assert_eq!(second.end().code(), Some(0));
}

#[test]
fn the_secret_is_for_its_owner_and_not_for_git() {
    let place = Place::new();
    let mut program = place.spawn(&["dev", "--port", "0"]);
    let text = greeting(&mut program);
    let home = place.path().join(".todo-dev");
    let mode = |path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(home.clone()), mode(home.join("secret"))), (0o700, 0o600));
    assert_eq!(fs::read_to_string(home.join(".gitignore")).expect("a file"), "*\n");
    let secret = fs::read_to_string(home.join("secret")).expect("a file");
    // 32 bytes.
    assert_eq!(secret.len(), 43);
    assert!(!text.contains(&secret) && !program.log.so_far().contains(&secret));
    let other = Place::new();
    greeting(&mut other.spawn(&["dev", "--port", "0"]));
    assert_ne!(fs::read_to_string(other.path().join(".todo-dev/secret")).expect("a file"), secret);
}

#[tokio::test]
async fn dev_serves_this_machine_and_its_own_file_whatever_is_set() {
    let place = Place::new()
        .set("HOST", "0.0.0.0")
        .set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
        .set("BETTER_AUTH_SECRET", "short")
        .set("BETTER_AUTH_URL", "http://localhost:3000")
        .set("PORT", "0");
    let mut program = place.spawn(&["dev"]);
    let text = greeting(&mut program);
    assert!(address(&text).ip().is_loopback());
    assert!(text.contains("not used by dev: HOST, DATABASE_URL, BETTER_AUTH_URL, BETTER_AUTH_SECRET."), "{text}");
    Caller::new(address(&text), token(&text)).work().await;
    assert!(place.path().join(".todo-dev/todo.db").exists());
}

#[tokio::test]
async fn there_are_tokens_for_other_users() {
    let place = Place::new();
    let none = place.run(&["token", "--user", "bob"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.log.contains("todo-server dev"), "{none:?}");

    let mut program = place.spawn(&["dev", "--port", "0"]);
    let text = greeting(&mut program);
    let minted = place.run(&["token", "--user", "bob|1", "--ttl", "5m"]);
    assert_eq!(minted.code, Some(0), "{minted:?}");
    let bob = Caller::new(address(&text), minted.output.trim());
    let session = Caller::json(&bob.send(Method::GET, "/api/auth/session", "").await, 200);
    assert_eq!(session["user"]["id"], "bob|1");
    let task = bob.work().await;
    let path = format!("/api/tasks/{}", task["id"].as_str().expect("an id"));
    let alice = Caller::new(address(&text), token(&text));
    assert_eq!(alice.send(Method::GET, &path, "").await.status(), 404);
}

#[test]
fn a_port_that_is_taken_is_named_with_a_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let outcome = Place::new().run(&["dev", "--port", &port]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.log.contains(&port) && outcome.log.contains("--port"), "{outcome:?}");
    assert_eq!(outcome.output, "");
}
