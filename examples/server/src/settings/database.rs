//! The settings of the database.

use std::time::Duration;

use todo_core::store::{PostgresOptions, PostgresStore, SqliteStore, TlsPolicy};
use url::Url;

use super::{
    Secret, Sources,
    parse::{choice, within},
};
use crate::failure::error_chain;

#[derive(Debug)]
pub(crate) enum Database {
    Sqlite {
        url: String,
        /// Whether no setting names a database.
        is_default: bool,
        /// The maximum number of waiting reads, and of waiting writes, if it is set.
        max_waiting: Option<usize>,
    },
    Postgres {
        /// The setting of the URL.
        name: &'static str,
        url: Secret,
        /// A URL without a pooler, for migrations.
        direct: Option<Secret>,
        /// The URLs of the replicas to read from.
        replicas: Vec<Secret>,
        options: PostgresOptions,
        /// Whether waiting calls are batched into one statement.
        coalesce: bool,
        /// Whether row-level security is used. Then the owner of the tables is another role, the one of `direct`.
        row_security: bool,
    },
}

impl Database {
    /// Returns `None` if a mistake was added to `sources`.
    pub(crate) fn read(sources: &mut Sources) -> Option<Self> {
        let max_waiting = sources.read("DATABASE_MAX_WAITING", within(0..=1_000_000));
        let options = postgres_options(sources, max_waiting);
        let row_security = choice(sources, "ROW_SECURITY", [("off", false), ("on", true)]);
        let coalesce_is_set = sources.get("COALESCE").is_some();
        let coalesce = choice(sources, "COALESCE", [("on", true), ("off", false)]);
        if row_security && coalesce && coalesce_is_set {
            let problem = "cannot be on with ROW_SECURITY=on, since a statement is then limited to one user";
            sources.reject("COALESCE", problem);
        }
        let direct = sources.read("DATABASE_DIRECT_URL", |url| postgres_url(url, &options));
        let name = match (sources.get("DATABASE_URL"), sources.get("NEON_DB_URL")) {
            (Some(url), Some(other)) if url != other => {
                sources.reject("NEON_DB_URL", "differs from DATABASE_URL; set only one of them");
                "DATABASE_URL"
            }
            (None, Some(_)) => "NEON_DB_URL",
            _ => "DATABASE_URL",
        };
        let replicas = sources.read("DATABASE_READ_URL", |urls| replica_urls(urls, &options));
        let replicas = replicas.unwrap_or_default();
        if sources.get(name).is_some_and(is_postgres) {
            let url = sources.read(name, |url| postgres_url(url, &options))?;
            if replicas.contains(&url) {
                sources.reject("DATABASE_READ_URL", format!("has the URL of {name}, which is no replica"));
            }
            let coalesce = coalesce && !row_security;
            return Some(Self::Postgres { name, url, direct, replicas, options, coalesce, row_security });
        }
        for (name, is_used) in [
            ("DATABASE_DIRECT_URL", direct.is_some()),
            ("DATABASE_READ_URL", !replicas.is_empty()),
            ("ROW_SECURITY", row_security),
        ] {
            if is_used {
                sources.reject(name, "has no effect, since DATABASE_URL is not a PostgreSQL URL");
            }
        }
        let is_default = sources.get(name).is_none();
        let url = sources.read(name, sqlite_url);
        let url = if is_default { "sqlite://todo.db".to_owned() } else { url? };
        Some(Self::Sqlite { url, is_default, max_waiting })
    }

    /// The number of files that the database may have open.
    pub(crate) fn open_files(&self) -> usize {
        match self {
            // Each connection has the file, the write-ahead log and its index.
            Self::Sqlite { .. } => 16,
            Self::Postgres { options, replicas, .. } => options.get_max_connections() * (1 + replicas.len()),
        }
    }
}

fn postgres_options(sources: &mut Sources, max_waiting: Option<usize>) -> PostgresOptions {
    let tls = [("verify", TlsPolicy::Verify), ("as-written", TlsPolicy::AsWritten)];
    let mut options = PostgresOptions::default().tls(choice(sources, "DATABASE_TLS", tls));
    // The check at start needs two at the same time.
    if let Some(count) = sources.read("DATABASE_MAX_CONNECTIONS", within(2..=1000)) {
        options = options.max_connections(count);
    }
    let limit = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
    if let Some(seconds) = sources.read("DATABASE_STATEMENT_TIMEOUT_SECONDS", within(0..=3600)) {
        options = options.statement_timeout(limit(seconds));
    }
    if let Some(seconds) = sources.read("DATABASE_LOCK_TIMEOUT_SECONDS", within(0..=3600)) {
        options = options.lock_timeout(limit(seconds));
    }
    match max_waiting {
        Some(count) => options.max_waiting(count),
        None => options,
    }
}

fn sqlite_url(url: &str) -> Result<String, String> {
    if !url.starts_with("sqlite:") {
        return Err("must begin with postgres://, postgresql:// or sqlite://".to_owned());
    }
    // This parses the URL and opens nothing.
    match SqliteStore::from_url(url) {
        Ok(_) => Ok(url.to_owned()),
        Err(error) => Err(format!("cannot be used: {}", error_chain(&error))),
    }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn postgres_url(url: &str, options: &PostgresOptions) -> Result<Secret, String> {
    if !is_postgres(url) {
        return Err("must begin with postgres:// or postgresql://".to_owned());
    }
    // This parses the URL and opens nothing.
    if let Err(error) = PostgresStore::connect_lazy(url, options) {
        let text = error_chain(&error);
        // Other errors name a parameter.
        let hint = if text.contains("it has the form") { format!("; {PASSWORD_HINT}") } else { String::new() };
        return Err(format!("cannot be used: {text}{hint}"));
    }
    // Without a host it is no URL for this parser: libpq's form with a `host` among the parameters.
    if let Ok(parsed) = Url::parse(&with_first_host(url)) {
        // A part of the password before the @ would be used as the host name, and be sent to the log and to name
        // servers.
        if parsed.path().contains('@') {
            return Err(format!("has an @ in its path; {PASSWORD_HINT}"));
        }
        if parsed.fragment().is_some() {
            return Err(format!("has a #; {PASSWORD_HINT}"));
        }
    }
    Ok(Secret::new(url))
}

/// The URL with the first of its hosts only: this parser knows no list of them.
fn with_first_host(url: &str) -> String {
    let start = url.find("://").map_or(0, |colon| colon + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |length| start + length);
    let hosts = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
    let first = url[hosts..end].split(',').next().unwrap_or_default();
    format!("{}{first}{}", &url[..hosts], &url[end..])
}

/// The maximum number of replicas.
pub(crate) const MAX_REPLICAS: usize = 8;

/// URLs between commas.
fn replica_urls(text: &str, options: &PostgresOptions) -> Result<Vec<Secret>, String> {
    let mut urls = Vec::new();
    for url in text.split(',').map(str::trim) {
        // The part after a comma may be one of a password.
        let url = postgres_url(url, options).map_err(|problem| {
            format!("is a list of URLs between commas, of which number {} {problem}", urls.len() + 1)
        })?;
        if urls.contains(&url) {
            return Err(format!("has number {} twice", urls.len() + 1));
        }
        urls.push(url);
    }
    if urls.len() > MAX_REPLICAS {
        return Err(format!("has more than {MAX_REPLICAS} URLs"));
    }
    Ok(urls)
}

const PASSWORD_HINT: &str = "in a password, percent-encode / @ # ? : , and %, or set PGPASSWORD instead";
