//! `todo-server migrate`: migrates the database.

use crate::{
    database::{self, Distribution, Migration},
    failure::Failure,
    settings::{Database, Log, Sources},
    telemetry,
};

/// The first version of the tables with row-level security.
const ROW_SECURITY_VERSION: u32 = 2;

#[expect(clippy::print_stdout, reason = "the result is the output of this command")]
pub(super) async fn run(mut sources: Sources, migration: Migration) -> Result<(), Failure> {
    let database = Database::read(&mut sources);
    let log = Log::read(&mut sources);
    let database = sources.finish(database)?;
    let telemetry = telemetry::install(log)?;
    let steps = database::migrate(&database, &migration).await?;
    telemetry.finish().await;
    for step in &steps {
        println!("{step}");
    }
    match migration.distribution {
        Some(_) if !steps.is_empty() => println!("Start running servers again, so that they know."),
        Some(Distribution::Distributed) => println!("The tables were distributed already. Nothing was changed."),
        Some(Distribution::Undistributed) => println!("The tables were not distributed. Nothing was changed."),
        None => {}
    }
    let version = migration.to.map_or_else(|| "the newest version".to_owned(), |version| format!("version {version}"));
    println!("{} is at {version}", database::migrated_url(&database));
    if matches!(database, Database::Postgres { .. })
        && migration.to.is_some_and(|version| version < ROW_SECURITY_VERSION)
    {
        println!(
            "row-level security is now disabled, and servers with ROW_SECURITY=on cannot use this database; to enable it \
             again: ROW_SECURITY=on todo-server migrate --grant-to <role>"
        );
    }
    Ok(())
}
