//! All that is tested of the program with axum, with poem.

#![cfg(unix)]

const FRAMEWORK: &str = "poem";

#[path = "../server/cors.rs"]
mod cors;
#[path = "../server/database.rs"]
mod database;
#[path = "../server/dev.rs"]
mod dev;
#[path = "../server/docs.rs"]
mod docs;
#[path = "../server/durability.rs"]
mod durability;
#[path = "../server/keys.rs"]
mod keys;
#[path = "../server/logs.rs"]
mod logs;
#[path = "../server/metrics.rs"]
mod metrics;
#[path = "../server/overload.rs"]
mod overload;
#[path = "../server/program.rs"]
mod program;
#[path = "../server/settings.rs"]
mod settings;
#[path = "../server/stopping.rs"]
mod stopping;
#[cfg(feature = "otel")]
#[path = "../server/traces.rs"]
mod traces;
