//! Employees and their tasks are committed and rolled back together, in both databases.

#![expect(clippy::unwrap_used, reason = "a failure fails the test")]

use join_transaction::{BoxError, Staff};

const CHECKLIST: [&str; 2] = ["Sign the contract", "Fetch the keys"];

/// Returns the names of the employees, and the titles of their tasks from the newest to the oldest.
async fn written(staff: &Staff) -> Vec<(String, Vec<String>)> {
    let mut written = Vec::new();
    for (id, name) in staff.employees().await.unwrap() {
        let tasks = staff.tasks(&id).await.unwrap();
        written.push((name, tasks.iter().map(|task| task.title.to_string()).collect()));
    }
    written
}

fn with_checklist(name: &str) -> (String, Vec<String>) {
    (name.to_owned(), CHECKLIST.iter().rev().map(ToString::to_string).collect())
}

async fn a_rollback_discards_both_and_a_commit_keeps_both(staff: Staff) {
    let hiring = staff.hire("Ann", &CHECKLIST).await.unwrap();
    let ann = hiring.employee.clone();
    hiring.rollback().await.unwrap();
    assert_eq!(written(&staff).await, []);
    assert_eq!(staff.tasks(&ann).await.unwrap(), []);

    staff.hire("Ann", &CHECKLIST).await.unwrap().commit().await.unwrap();
    assert_eq!(written(&staff).await, [with_checklist("Ann")]);
}

async fn neither_is_visible_before_the_commit(staff: Staff) {
    let hiring = staff.hire("Ann", &CHECKLIST).await.unwrap();
    assert_eq!(written(&staff).await, []);
    assert_eq!(staff.tasks(&hiring.employee).await.unwrap(), []);
    let ann = hiring.employee.clone();
    hiring.commit().await.unwrap();
    assert_eq!(staff.tasks(&ann).await.unwrap().len(), 2);
}

async fn a_dropped_hiring_is_rolled_back(staff: Staff) {
    let ann = staff.hire("Ann", &CHECKLIST).await.unwrap().employee;
    // The connection is usable again, without an open transaction.
    staff.hire("Bob", &CHECKLIST).await.unwrap().commit().await.unwrap();
    assert_eq!(written(&staff).await, [with_checklist("Bob")]);
    let bob = staff.employees().await.unwrap().remove(0).0;
    assert!(ann == bob || staff.tasks(&ann).await.unwrap().is_empty());
}

async fn an_invalid_entry_rolls_everything_back(staff: Staff) {
    let error: BoxError = staff.hire("Ann", &["Sign the contract", " ", "Meet the team"]).await.unwrap_err();
    assert_eq!(error.to_string(), "must not be blank");
    assert_eq!(written(&staff).await, []);
    staff.hire("Bob", &CHECKLIST).await.unwrap().commit().await.unwrap();
    assert_eq!(written(&staff).await, [with_checklist("Bob")]);
}

/// Generates a test with a new database for each case.
macro_rules! cases {
    ($with_staff:path) => { cases! { @ $with_staff;
        a_rollback_discards_both_and_a_commit_keeps_both, neither_is_visible_before_the_commit,
        a_dropped_hiring_is_rolled_back, an_invalid_entry_rolls_everything_back } };
    (@ $with_staff:path; $($case:ident),+) => { $(
        #[tokio::test]
        async fn $case() { $with_staff(super::$case).await }
    )+ };
}

mod sqlite {
    use super::Staff;

    async fn with_staff(case: impl AsyncFnOnce(Staff)) {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", directory.path().join("staff.db").display());
        case(Staff::open(&url).await.expect("a database")).await;
    }

    cases!(with_staff);
}

mod postgres {
    use super::Staff;

    async fn with_staff(case: impl AsyncFnOnce(Staff)) {
        let database = testkit::postgres::empty_database().await;
        case(Staff::open(database.url()).await.expect("a database")).await;
        database.close().await;
    }

    cases!(with_staff);
}

#[test]
fn the_program_prints_each_step() {
    let program =
        std::process::Command::new(env!("CARGO_BIN_EXE_join-transaction")).env_remove("DATABASE_URL").output();
    let output = String::from_utf8(program.unwrap().stdout).unwrap();
    let expected = "at first: 0 employees, 0 tasks\n\
        hired and rolled back: 0 employees, 0 tasks\n\
        hired and committed: 1 employees, 3 tasks\n";
    assert_eq!(output, expected);
}
