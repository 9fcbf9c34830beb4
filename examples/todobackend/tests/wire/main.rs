//! The Todo-Backend API over real sockets, with both databases: first the sixteen behaviours of the public
//! specification, then what the specification leaves open.

#![expect(clippy::unwrap_used, reason = "a failure fails the test")]

mod more;
mod site;
mod specification;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use testkit::http::Client;

/// Generates a test with a new database for each case. This is the only list of cases.
macro_rules! cases {
    ($with_site:path) => {
        cases! { @ $with_site, specification;
            the_root_responds,
            a_post_returns_the_todo,
            the_root_can_be_deleted,
            deleting_the_root_empties_the_list,
            a_posted_todo_is_in_the_list,
            a_new_todo_is_not_completed,
            a_new_todo_has_a_url,
            the_url_returns_the_todo,
            the_urls_in_the_list_return_the_todos,
            a_patch_changes_the_title,
            a_patch_changes_the_completion,
            changes_are_stored,
            a_todo_can_be_deleted_at_its_url,
            a_todo_can_be_posted_with_an_order,
            a_patch_changes_the_order,
            a_changed_order_is_stored,
        }
        cases! { @ $with_site, more;
            parallel_posts_are_all_kept,
            the_list_is_sorted_by_order,
            a_patch_does_not_change_absent_members,
            an_order_can_be_removed,
            a_received_todo_can_be_sent_back,
            a_failed_position_rolls_back_the_task,
            a_failed_task_rolls_back_the_position,
            a_missing_todo_gets_no_position,
            positions_are_deleted_with_their_tasks,
            invalid_input_is_rejected,
            unknown_paths_are_not_found,
            all_origins_are_allowed,
            urls_contain_the_host_of_the_request,
            urls_start_with_the_base_url,
            users_with_tokens_are_separated,
        }
    };
    (@ $with_site:path, $module:ident; $($case:ident,)+) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() { $with_site(crate::$module::$case).await }
    )+ };
}

mod sqlite {
    cases!(crate::site::on_sqlite);
}

mod postgres {
    cases!(crate::site::on_postgres);
}

/// The program, which is killed at the end of the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(directory: &Path, flags: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_todobackend"));
    program.current_dir(directory).args(flags).env("NO_COLOR", "1").env_remove("DATABASE_URL");
    program.env_remove("BETTER_AUTH_SECRET").stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

#[tokio::test]
async fn the_program_stores_todos_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    for expected in [1, 2] {
        let mut program = Program(program(directory.path(), &["--listen", "127.0.0.1:0"]).spawn().unwrap());
        let line = BufReader::new(program.0.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let client = Client::new(line.split_once("http://").unwrap().1.parse().unwrap());
        let post = Request::post("/").header("content-type", "application/json");
        let posted = client.send(post.body(r#"{"title":"Buy milk"}"#.into()).unwrap()).await;
        assert_eq!(posted.status(), 201);
        let listed = client.send(Request::get("/").body(Bytes::new()).unwrap()).await;
        assert_eq!(serde_json::from_slice::<Vec<Value>>(listed.body()).unwrap().len(), expected);
    }
    assert!(directory.path().join("todobackend.db").exists());
}

#[test]
fn the_program_rejects_invalid_flags() {
    let directory = tempfile::tempdir().unwrap();
    for (flags, reason) in [
        (&["--bearer"][..], "BETTER_AUTH_SECRET"),
        (&["--base-url", "todo.example"], "http:// or https://"),
        (&["--base-url", "https://todo.example/?x"], "http:// or https://"),
    ] {
        let output = program(directory.path(), flags).output().unwrap();
        assert!(!output.status.success(), "{flags:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(reason), "{stderr}");
    }
}
