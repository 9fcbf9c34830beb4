//! Hires an employee twice, rolls back the first time and commits the second: `cargo run -p join-transaction`

use std::env;

use join_transaction::{BoxError, Staff};

const CHECKLIST: [&str; 3] = ["Sign the contract", "Fetch the keys", "Meet the team"];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let file = format!("sqlite://{}", directory.path().join("staff.db").display());
    let staff = Staff::open(&env::var("DATABASE_URL").unwrap_or(file)).await?;
    report(&staff, "at first").await?;
    staff.hire("Ann", &CHECKLIST).await?.rollback().await?;
    report(&staff, "hired and rolled back").await?;
    staff.hire("Ann", &CHECKLIST).await?.commit().await?;
    report(&staff, "hired and committed").await
}

#[expect(clippy::print_stdout, reason = "the output is the purpose of the program")]
async fn report(staff: &Staff, when: &str) -> Result<(), BoxError> {
    let employees = staff.employees().await?;
    let mut tasks = 0;
    for (employee, _) in &employees {
        tasks += staff.tasks(employee).await?.len();
    }
    println!("{when}: {} employees, {tasks} tasks", employees.len());
    Ok(())
}
