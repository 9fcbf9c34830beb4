//! The README shows the manifest and the program of this crate, and the program works.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use testkit::{http::Client, tokens};

const SECRET: &str = "only-for-tests-only-for-tests-only-for-tests";

/// The fenced code block that follows a line.
fn block<'a>(page: &'a str, line: &str) -> &'a str {
    let after = page.split_once(line).unwrap_or_else(|| panic!("the README has the line {line}")).1;
    let after = after.split_once("```").expect("a block begins").1;
    after.split_once('\n').and_then(|(_, code)| code.split_once("```")).expect("a block ends").0
}

#[test]
fn the_readme_shows_this_crate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [readme, manifest, program] = ["../../README.md", "Cargo.toml", "src/main.rs"]
        .map(|file| fs::read_to_string(folder.join(file)).expect("the file can be read"));
    // A reader has the library beside the service.
    let shown = manifest.split_once("\n# Only for the test").expect("the manifest has a part for this test").0;
    assert_eq!(block(&readme, "`Cargo.toml`:"), shown.replace("../../todo-", "../todo/todo-"));
    assert_eq!(block(&readme, "`src/main.rs`:"), program);
}

#[test]
fn the_versions_in_the_comments_are_those_of_the_workspace() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [manifest, workspace] = ["Cargo.toml", "../../Cargo.toml"]
        .map(|file| fs::read_to_string(folder.join(file)).expect("the file can be read"));
    let mut compared = 0;
    for line in manifest.lines().filter(|line| !line.contains("path =")) {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((name, version)) = line.split_once(" = ").filter(|(_, version)| version.contains('"')) else {
            continue;
        };
        if name == "name" || name == "edition" {
            continue;
        }
        let version = version.split('"').nth(1).expect("a version in quotes");
        let ours =
            workspace.lines().find(|line| line.starts_with(&format!("{name} = "))).expect("a dependency of ours");
        assert!(ours.contains(&format!("\"{version}\"")), "{name}: the workspace has {ours}");
        compared += 1;
    }
    assert_eq!(compared, 9);
}

/// The program itself, which ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_serves_the_api_and_its_own_route() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut program = Command::new(env!("CARGO_BIN_EXE_my-service"))
        .current_dir(directory.path())
        .env("ADDRESS", "127.0.0.1:0")
        .env("BETTER_AUTH_SECRET", SECRET)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = program.stdout.take().expect("its output");
    let _program = Program(program);
    let line = BufReader::new(output).lines().next().expect("a line").expect("text");
    let client =
        Client::new(line.strip_prefix("listening on http://").expect("an address").parse().expect("an address"));

    let token = format!("Bearer {}", tokens::user_token(SECRET.as_bytes(), "alice"));
    let get = |path: &str| Request::get(path).header("authorization", &token).body(Bytes::new()).expect("a request");
    let me = client.send(get("/me")).await;
    assert_eq!((me.status(), me.body().as_ref()), (StatusCode::OK, &b"Hello alice\n"[..]));
    let tasks = client.send(get("/api/v1/tasks")).await;
    assert_eq!((tasks.status(), tasks.body().as_ref()), (StatusCode::OK, &b"[]"[..]));
    let anonymous = client.send(Request::get("/me").body(Bytes::new()).expect("a request")).await;
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
}

/// What the program prints when it cannot start.
fn failure(prepare: impl FnOnce(&mut Command)) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let mut program = Command::new(env!("CARGO_BIN_EXE_my-service"));
    program.current_dir(directory.path()).env("BETTER_AUTH_SECRET", SECRET).env("RUST_BACKTRACE", "0");
    prepare(&mut program);
    let output = program.output().expect("it starts");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// In sentences, and not as Rust writes an error for programmers, such as `Os { code: 98, .. }`.
#[test]
fn a_program_that_cannot_start_says_why() {
    let no_secret = failure(|program| _ = program.env_remove("BETTER_AUTH_SECRET"));
    assert!(no_secret.starts_with("Error: BETTER_AUTH_SECRET is not set\n"), "{no_secret}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let in_use = failure(|program| _ = program.env("ADDRESS", &address));
    assert!(in_use.starts_with(&format!("Error: {address}\n")), "{in_use}");
    assert!(in_use.contains("Address already in use") && !in_use.contains("Os {"), "{in_use}");

    let short_secret = failure(|program| _ = program.env("BETTER_AUTH_SECRET", "short"));
    assert!(short_secret.starts_with("Error: ") && short_secret.contains(' '), "{short_secret}");
    assert!(!short_secret.contains(['{', '(']), "{short_secret}");

    // A folder where the file of the tasks would be.
    let no_file = failure(|program| {
        let folder = program.get_current_dir().expect("a directory").join("tasks.db");
        fs::create_dir(folder).expect("a folder");
    });
    assert!(no_file.starts_with("Error: the SQLite file cannot be opened"), "{no_file}");
}
