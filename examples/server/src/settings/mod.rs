//! Settings and their meaning. [`SETTINGS`] lists them, [`Sources`] has their values.
//!
//! Reading continues after a mistake, so that all mistakes are reported at once.

mod database;
mod http;
mod keys;
mod list;
mod parse;
mod secret;
mod sources;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use todo_core::{TodoService, auth::KeySource};
use tracing::level_filters::LevelFilter;

use crate::key_sources::key_sources;

pub(crate) use self::{
    database::{Database, MAX_REPLICAS},
    http::Http,
    keys::{Hs256, Keys},
    list::{Group, SETTINGS, Setting},
    secret::Secret,
    sources::{Mistakes, Sources, quoted},
};

use self::parse::{choice, host, within};

/// The settings of the command `serve`.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) http: Http,
    pub(crate) tasks: Tasks,
    pub(crate) database: Database,
    pub(crate) keys: Vec<KeySource>,
    pub(crate) leeway: Duration,
    pub(crate) log: Log,
    /// Where metrics are served, if they are.
    pub(crate) metrics: Option<SocketAddr>,
    /// Names in `.env` that are no settings, each with the similar name of a setting.
    pub(crate) warnings: Vec<(String, &'static str)>,
}

impl Settings {
    pub(crate) const GROUPS: &[Group] = &[
        Group::Host,
        Group::Port,
        Group::Http,
        Group::Tasks,
        Group::Database,
        Group::Deletions,
        Group::Keys,
        Group::Log,
        Group::Metrics,
    ];

    pub(crate) fn read(mut sources: Sources) -> Result<Self, Mistakes> {
        let address = address(&mut sources);
        let http = Http::read(&mut sources);
        let tasks = Tasks::read(&mut sources);
        let database = Database::read(&mut sources);
        let keys = Keys::read(&mut sources);
        let log = Log::read(&mut sources);
        let metrics = metrics_address(&mut sources);
        let warnings = sources.warnings();
        let key_sources = key_sources(&keys).unwrap_or_else(|problems| {
            for (name, problem) in problems {
                sources.reject(name, problem);
            }
            Vec::new()
        });
        let read = http.zip(database).map(|(http, database)| Self {
            address,
            http,
            tasks,
            database,
            keys: key_sources,
            leeway: keys.leeway,
            log,
            metrics,
            warnings,
        });
        sources.finish(read)
    }
}

/// The address of the API.
pub(crate) fn address(sources: &mut Sources) -> SocketAddr {
    let host = sources.read("HOST", host).unwrap_or(Ipv4Addr::LOCALHOST.into());
    SocketAddr::new(host, port(sources))
}

pub(crate) fn port(sources: &mut Sources) -> u16 {
    sources.read("PORT", within(0..=u16::MAX)).unwrap_or(8000)
}

/// The address of the metrics, if a port is set.
fn metrics_address(sources: &mut Sources) -> Option<SocketAddr> {
    let address = sources.read("METRICS_HOST", host);
    if sources.get("METRICS_HOST").is_some() && sources.get("METRICS_PORT").is_none() {
        sources.reject("METRICS_HOST", "has no effect without METRICS_PORT");
    }
    let port = sources.read("METRICS_PORT", within(0..=u16::MAX))?;
    Some(SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), port))
}

/// What users may have, and for how long their deletions are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks {
    /// The maximum number of tasks of each user, if there is one.
    pub(crate) max_per_user: Option<u64>,
    /// For ever, if it is `None`.
    pub(crate) deletions_kept: Option<Duration>,
}

impl Tasks {
    pub(crate) fn read(sources: &mut Sources) -> Self {
        let max = sources.read("MAX_TASKS_PER_USER", within(0..=1_000_000_000));
        let max = max.unwrap_or(TodoService::MAX_TASKS_PER_USER);
        Self { max_per_user: (max > 0).then_some(max), deletions_kept: deletions_kept(sources) }
    }
}

/// How long deletions are kept; `None` is for ever.
pub(crate) fn deletions_kept(sources: &mut Sources) -> Option<Duration> {
    match sources.read("DELETIONS_KEPT_DAYS", within(0..=MAX_DAYS)) {
        Some(0) => None,
        Some(days) => Some(Duration::from_hours(24 * days)),
        None => Some(TodoService::DELETIONS_KEPT),
    }
}

/// A hundred years.
pub(crate) const MAX_DAYS: u64 = 36_500;

/// The settings of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    pub(crate) level: LevelFilter,
    pub(crate) json: bool,
}

impl Log {
    pub(crate) fn read(sources: &mut Sources) -> Self {
        let levels = [
            ("info", LevelFilter::INFO),
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
            ("off", LevelFilter::OFF),
        ];
        Self {
            level: choice(sources, "LOG_LEVEL", levels),
            json: choice(sources, "LOG_FORMAT", [("text", false), ("json", true)]),
        }
    }
}

#[cfg(test)]
mod tests;
