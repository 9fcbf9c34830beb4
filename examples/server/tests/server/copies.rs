//! `todo-server user export` and `user import`.

use std::{fmt::Write as _, io::Write as _};

use http::Method;
use serde_json::Value;
use testkit::stores::RowSecurityDatabase;

use crate::{
    Framework,
    program::{Outcome, Setup},
};

/// The JSON of a task of this owner, with all fields.
fn task(owner: &str, number: usize) -> String {
    let due = [
        r#""2026-12-01""#,
        r#""2026-12-01T17:00:00""#,
        r#""2026-10-25T02:30:00+01:00[Europe/Berlin]""#,
        r#""2026-12-01T16:00:00Z""#,
        "null",
    ][number % 5];
    let (completed, completed_at) =
        if number.is_multiple_of(3) { (true, r#""2026-11-02T08:00:00.000001Z""#) } else { (false, "null") };
    let priority = ["null", r#""low""#, r#""urgent""#][number % 3];
    let list = ["null", r#""Groceries 🧀""#][number % 2];
    let tags = ["[]", r#"["home","NULL","\"{}\\"]"#][number % 2];
    let metadata = ["{}", r#"{"a":{"é":[1.5e-7,18446744073709551615,null]},"b":"\n"}"#][number % 2];
    format!(
        "{{\"id\":\"019aa3f0-5c00-7000-8000-{number:012}\",\"user_id\":\"{owner}\",\"title\":\"Number {number} \\\"🦀\\\"\",\
         \"description\":\"\\u0001\u{2028}\\n{number}\",\"completed\":{completed},\"completed_at\":{completed_at},\
         \"due\":{due},\"priority\":{priority},\"list\":{list},\"tags\":{tags},\"position\":\"a{number:03}V\",\
         \"metadata\":{metadata},\"created_at\":\"2026-11-01T08:00:00.123456Z\",\
         \"updated_at\":\"2026-11-03T08:00:00.000000Z\",\"version\":{}}}",
        number + 1
    )
}

fn lines(owner: &str, numbers: impl IntoIterator<Item = usize>) -> String {
    numbers.into_iter().fold(String::new(), |mut lines, number| {
        let _ = writeln!(lines, "{}", task(owner, number));
        lines
    })
}

fn export(setup: &Setup, user: &str) -> String {
    let outcome = setup.run_with(&["user", "export", user], b"");
    assert_eq!((outcome.code, &*outcome.log), (Some(0), ""), "{outcome:?}");
    outcome.output
}

fn import(setup: &Setup, user: &str, input: impl AsRef<[u8]>) -> Outcome {
    setup.run_with(&["user", "import", user], input.as_ref())
}

#[track_caller]
fn imported(outcome: &Outcome, expected: &str) {
    assert_eq!((outcome.code, &*outcome.output, &*outcome.log), (Some(0), expected, ""), "{outcome:?}");
}

/// The message of an import that has failed.
#[track_caller]
fn rejected(outcome: &Outcome) -> &str {
    assert_eq!((outcome.code, &*outcome.output), (Some(1), ""), "{outcome:?}");
    outcome.log.split_once("todo_server::failure: ").expect("a line of the log").1.trim_end()
}

fn migrated(setup: Setup) -> Setup {
    assert_eq!(setup.run(&["migrate"]).code, Some(0));
    setup
}

/// Exports a user with more tasks than a page and a batch have, deletes them, imports them again, and to another user.
async fn tasks_are_copied_unchanged(setup: Setup) {
    let (of_ann, of_bob) = (lines("ann", 0..450), lines("bob", 0..3));
    imported(&import(&setup, "ann", &of_ann), "imported 450 tasks of \"ann\"\n");
    imported(&import(&setup, "bob", &of_bob), "imported 3 tasks of \"bob\"\n");
    let exported = export(&setup, "ann");
    assert!(exported == of_ann, "the first lines: {}", &exported[..2000]);

    assert_eq!(setup.run(&["user", "erase", "ann"]).output, "erased 450 tasks of \"ann\"\n");
    assert_eq!(export(&setup, "ann"), "");
    imported(&import(&setup, "ann", &exported), "imported 450 tasks of \"ann\"\n");
    assert!(export(&setup, "ann") == exported);
    imported(&import(&setup, "carl \"x\"", &exported), "imported 450 tasks of \"carl \\\"x\\\"\"\n");
    assert!(export(&setup, "carl \"x\"") == exported.replace(r#""user_id":"ann""#, r#""user_id":"carl \"x\"""#));
    assert_eq!(export(&setup, "bob"), of_bob);

    // The lines are what the API returns.
    let server = setup.serve(&[]);
    let newest = server.user("ann").send(Method::GET, "/api/tasks?limit=1", "").await;
    assert_eq!(newest.body(), &format!("[{}]", task("ann", 449)));
    let created = server.user("new").send(Method::POST, "/api/tasks", r#"{"title":"x","due":"2026-12-01"}"#).await;
    assert_eq!(export(&setup, "new").trim_end(), created.body());
    let found = server.user("ann").send(Method::GET, "/api/tasks/count?q=NUMBER%2044&completed=true", "").await;
    assert_eq!(serde_json::from_slice::<Value>(found.body()).expect("JSON")["count"], 3);
}

#[tokio::test]
async fn tasks_are_copied_unchanged_in_sqlite() {
    tasks_are_copied_unchanged(migrated(Setup::with_secret(Framework::ANY))).await;
}

#[tokio::test]
async fn tasks_are_copied_unchanged_in_postgresql() {
    let database = testkit::stores::todo_database().await;
    tasks_are_copied_unchanged(Setup::with_secret(Framework::ANY).set("DATABASE_URL", database.url())).await;
    database.close().await;
}

#[tokio::test]
async fn tasks_are_copied_unchanged_with_row_level_security() {
    let secured = RowSecurityDatabase::migrated().await;
    let setup = Setup::with_secret(Framework::ANY).set("ROW_SECURITY", "on").set("DATABASE_URL", &secured.app);
    tasks_are_copied_unchanged(setup).await;
    secured.database.close().await;
}

#[test]
fn an_import_stops_at_a_wrong_line_and_says_how_to_go_on() {
    let setup = migrated(Setup::new(Framework::ANY));
    let input = lines("ann", 0..250);
    let wrong = input.replace("Number 220 ", &"secret ".repeat(40));
    assert_eq!(
        rejected(&import(&setup, "ann", &wrong)),
        "line 221: title must have at most 200 characters. 200 tasks of the lines before line 201 were imported, and nothing \
         else. To go on, import the corrected input from line 201 on: tail -n +201"
    );
    assert_eq!(export(&setup, "ann"), lines("ann", 0..200));
    // The advice works.
    let rest: String = input.split_inclusive('\n').skip(200).collect();
    imported(&import(&setup, "ann", &rest), "imported 50 tasks of \"ann\"\n");
    assert_eq!(export(&setup, "ann"), input);

    // The second batch has an id that exists.
    let again = lines("ann", (300..420).chain([7]).chain(421..425));
    assert_eq!(
        rejected(&import(&setup, "ann", &again)),
        "line 121: the user already has a task with this id. 100 tasks of the lines before line 101 were imported, and \
         nothing else. To go on, import the corrected input from line 101 on: tail -n +101"
    );
    assert_eq!(export(&setup, "ann"), lines("ann", (0..250).chain(300..400)));
}

#[test]
fn nothing_is_imported_of_a_batch_with_a_wrong_line() {
    let setup = migrated(Setup::new(Framework::ANY));
    let (first, second) = (task("ann", 1), task("ann", 2));
    let long = format!("{}{}", " ".repeat(64 * 1024), first);
    for (line, expected) in [
        ("secret", "the text is not valid JSON: expected value at byte 1"),
        ("[\"secret\"]", "the text is not a JSON object"),
        (&first[..300], "the text is not valid JSON: it ends too early"),
        (&format!("{first}{second}"), "the text is not valid JSON: trailing characters at byte "),
        (&format!("\u{feff}{first}"), "the text is not valid JSON: expected value at byte 1"),
        (&first.replace("\"title\"", "\"secret\""), "member 3 is unknown; title is required"),
        (&first.replace("\"ann\"", "\"secret\""), "user_id must be the same in all lines"),
        (&first.replace("\"ann\"", "null"), "user_id must be a string"),
        (
            &first.replace("\"version\":2", "\"version\":\"secret\""),
            "version must be a whole number from 1 to 9007199254740991",
        ),
        (&second, "id must not be that of line 1"),
        (&long, "it is longer than 64 KiB"),
    ] {
        let outcome = import(&setup, "ann", format!("{second}\n{line}\n{first}\n"));
        let message = rejected(&outcome);
        assert!(message.starts_with(&format!("line 2: {expected}")), "{message}");
        assert!(message.ends_with("; nothing was imported") && !message.contains("secret"), "{message}");
    }
    let bytes = [second.as_bytes(), b"\n\xff\xfe{\0}\0\n"].concat();
    let message = "line 2: the text is not UTF-8: byte 1 is invalid; nothing was imported";
    assert_eq!(rejected(&import(&setup, "ann", bytes)), message);
    assert_eq!(export(&setup, "ann"), "");
}

#[test]
fn an_import_reads_what_editors_and_other_systems_write() {
    let setup = migrated(Setup::new(Framework::ANY));
    imported(&import(&setup, "ann", ""), "imported 0 tasks of \"ann\"\n");
    imported(&import(&setup, "ann", "\n \r\n"), "imported 0 tasks of \"ann\"\n");
    let input = format!("\u{feff}{}\r\n\r\n{}", task("ann", 1), task("ann", 2));
    imported(&import(&setup, "ann", input), "imported 2 tasks of \"ann\"\n");
    assert_eq!(export(&setup, "ann"), lines("ann", 1..3));
    // The limit of a line counts neither of the characters at its end.
    let mut longest = task("ann", 3);
    longest += &" ".repeat(64 * 1024 - longest.len());
    imported(&import(&setup, "ann", longest.clone() + "\r\n"), "imported 1 task of \"ann\"\n");
    let message = "line 1: it is longer than 64 KiB; nothing was imported";
    assert_eq!(rejected(&import(&setup, "bob", longest + " \r\n")), message);
}

#[test]
fn a_line_without_an_end_is_not_read_into_memory() {
    let setup = migrated(Setup::new(Framework::ANY));
    let (mut program, mut input) = setup.spawn_piped(&["user", "import", "ann"]);
    // More would follow. The program ends without waiting for it.
    input.write_all(&vec![b'{'; 70 * 1024]).expect("the program reads");
    assert_eq!(program.end().code(), Some(1));
    assert!(program.log.whole().contains("line 1: it is longer than 64 KiB; nothing was imported"));
}

#[cfg(target_os = "linux")]
#[test]
fn an_export_that_cannot_be_written_fails() {
    let setup = migrated(Setup::new(Framework::ANY));
    imported(&import(&setup, "ann", lines("ann", 0..3)), "imported 3 tasks of \"ann\"\n");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device without space");
    let outcome = setup.command(&["user", "export", "ann"]).stdout(full).output().expect("it runs");
    assert_eq!(outcome.status.code(), Some(1));
    let log = String::from_utf8_lossy(&outcome.stderr);
    assert!(log.contains("cannot write to standard output") && log.contains("not complete"), "{log}");
}
