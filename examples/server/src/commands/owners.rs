//! `todo-server purge` and `todo-server expire-sync-tokens`: what is done for all users.

use std::time::Duration;

use todo_core::{
    clock::{Clock as _, SystemClock},
    store::StoreError,
};

use crate::{
    database::{self, Writer},
    failure::{Failure, error_chain},
    settings::{Database, Log, Sources, deletions_kept},
    telemetry,
};

/// Forgets old deletions. `days`: their age, if it is not the one of the setting.
#[expect(clippy::print_stdout, reason = "the result is the output of this command")]
pub(super) async fn purge(mut sources: Sources, days: Option<u64>) -> Result<(), Failure> {
    let database = Database::read(&mut sources);
    let kept = deletions_kept(&mut sources);
    let log = Log::read(&mut sources);
    let database = sources.finish(database)?;
    let telemetry = telemetry::install(log)?;
    let Some(kept) = days.map(|days| Duration::from_hours(24 * days)).or(kept) else {
        let text =
            "DELETIONS_KEPT_DAYS=0 keeps deletions for ever; name an age with --older-than to forget some of them";
        return Err(Failure::fatal(text.to_owned()));
    };
    let store = database::open_for_all_users(&database).await?;
    let before = SystemClock.now().minus(kept);
    let count = match store.writer() {
        Writer::Sqlite(store) => store.purge_all(before).await,
        Writer::Postgres(store) => store.purge_all(before).await,
    };
    store.close().await;
    let count = count.map_err(|error| failed(&error))?;
    telemetry.finish().await;
    println!("forgot {count} {}", if count == 1 { "deletion" } else { "deletions" });
    Ok(())
}

/// Makes all clients that follow changes begin again.
#[expect(clippy::print_stdout, reason = "the result is the output of this command")]
pub(super) async fn expire_sync_tokens(mut sources: Sources) -> Result<(), Failure> {
    let database = Database::read(&mut sources);
    let log = Log::read(&mut sources);
    let database = sources.finish(database)?;
    let telemetry = telemetry::install(log)?;
    let store = database::open_for_all_users(&database).await?;
    let count = match store.writer() {
        Writer::Sqlite(store) => store.expire_sync_points().await,
        Writer::Postgres(store) => store.expire_sync_points().await,
    };
    store.close().await;
    let count = count.map_err(|error| failed(&error))?;
    telemetry.finish().await;
    println!("expired the sync tokens of {count} {}", if count == 1 { "user" } else { "users" });
    Ok(())
}

fn failed(error: &StoreError) -> Failure {
    let hint = match error {
        // Nothing was done, and the text says what to change.
        StoreError::Setup(_) => "",
        _ => "; some of it may have been done, and it is safe to run it again",
    };
    Failure::fatal(format!("{}{hint}", error_chain(error)))
}
