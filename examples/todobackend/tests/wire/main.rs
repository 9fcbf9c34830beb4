//! The Todo-Backend wire over real sockets, on both databases: first the sixteen behaviours of the public
//! specification, one test each, then what it does not speak of.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

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

/// The cases on one database, a fresh one for each. The list of cases is here and nowhere else.
macro_rules! cases {
    ($with_site:path) => {
        cases! { @ $with_site, specification;
            the_root_answers,
            a_post_is_answered_with_the_todo,
            the_root_can_be_deleted,
            after_that_the_list_is_empty,
            a_posted_todo_is_in_the_list,
            a_new_todo_is_not_completed,
            a_new_todo_has_a_url,
            its_url_answers_with_the_todo,
            the_urls_in_the_list_lead_to_the_todos,
            a_patch_changes_the_title,
            a_patch_changes_the_completion,
            what_was_changed_stays_changed,
            a_todo_is_deleted_at_its_url,
            a_todo_can_be_posted_with_an_order,
            a_patch_changes_the_order,
            a_changed_order_is_remembered,
        }
        cases! { @ $with_site, more;
            parallel_posts_are_all_kept,
            the_list_is_in_order,
            a_patch_leaves_what_it_does_not_name,
            an_order_can_be_taken_away,
            a_todo_can_be_sent_back_as_it_came,
            without_a_place_there_is_no_task,
            without_a_task_there_is_no_place,
            a_missing_todo_gets_no_place,
            places_go_with_their_tasks,
            wrong_input_is_named,
            what_is_not_there_is_missed,
            any_page_may_call,
            urls_follow_the_host_of_the_request,
            urls_follow_the_base_url_if_there_is_one,
            tokens_keep_users_apart,
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

/// The program itself, which is ended with the test.
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
async fn the_program_keeps_todos_in_a_file() {
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
fn the_program_refuses_flags_that_it_cannot_follow() {
    let directory = tempfile::tempdir().unwrap();
    for (flags, reason) in [
        (&["--bearer"][..], "BETTER_AUTH_SECRET"),
        (&["--base-url", "todo.example"], "http:// or https://"),
        (&["--base-url", "https://todo.example/?x"], "http:// or https://"),
    ] {
        let output = program(directory.path(), flags).output().unwrap();
        assert!(!output.status.success(), "{flags:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(reason), "{said}");
    }
}
