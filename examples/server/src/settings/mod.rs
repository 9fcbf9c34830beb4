//! What the settings mean. [`source`] is where their values come from.
//!
//! Reading never stops at the first mistake: whoever starts the server learns all of them at once.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use http::HeaderValue;
use todo_core::{
    auth::{KeySource, Rate},
    store::{PostgresOptions, PostgresStore, SqliteStore, TlsPolicy},
};
use tracing::level_filters::LevelFilter;
use url::Url;

use crate::{app::Framework, keys};

mod source;

pub(crate) use source::{Group, Mistakes, SETTINGS, Setting, Sources, shown};

/// All that `serve` has to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) http: Http,
    pub(crate) database: Database,
    pub(crate) keys: Vec<KeySource>,
    pub(crate) leeway: Duration,
    pub(crate) log: Log,
    /// Where metrics are served, if they are.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Settings {
    pub(crate) const GROUPS: &[Group] =
        &[Group::Host, Group::Port, Group::Http, Group::Database, Group::Keys, Group::Log, Group::Metrics];

    pub(crate) fn read(mut sources: Sources) -> Result<Self, Mistakes> {
        let address = address(&mut sources);
        let http = Http::read(&mut sources);
        let database = Database::read(&mut sources);
        let keys = Keys::read(&mut sources);
        let log = Log::read(&mut sources);
        let metrics = metrics_address(&mut sources);
        let key_sources = keys::key_sources(&keys).unwrap_or_else(|problems| {
            for (name, problem) in problems {
                sources.refuse(name, problem);
            }
            Vec::new()
        });
        let read = http.zip(database).map(|(http, database)| Self {
            address,
            http,
            database,
            keys: key_sources,
            leeway: keys.leeway,
            log,
            metrics,
        });
        sources.finish(read)
    }
}

/// Where the server listens, or is looked for.
pub(crate) fn address(sources: &mut Sources) -> SocketAddr {
    let host = sources.read("HOST", host).unwrap_or(Ipv4Addr::LOCALHOST.into());
    SocketAddr::new(host, port(sources))
}

/// Where metrics are served; nowhere, unless a port is set.
fn metrics_address(sources: &mut Sources) -> Option<SocketAddr> {
    let address = sources.read("METRICS_HOST", host);
    if sources.get("METRICS_HOST").is_some() && sources.get("METRICS_PORT").is_none() {
        sources.refuse("METRICS_HOST", "has no effect without METRICS_PORT");
    }
    let port = sources.read("METRICS_PORT", within(0..=u16::MAX))?;
    Some(SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), port))
}

fn host(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        _ => text.parse::<IpAddr>().map_err(|_| {
            format!("{} is not an IP address; 127.0.0.1 is this machine alone, 0.0.0.0 all its networks", shown(text))
        }),
    }
}

pub(crate) fn port(sources: &mut Sources) -> u16 {
    sources.read("PORT", within(0..=u16::MAX)).unwrap_or(8000)
}

/// How requests are answered.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) framework: Framework,
    /// Websites whose scripts may use the API.
    pub(crate) origins: Vec<HeaderValue>,
    pub(crate) body_limit: usize,
    pub(crate) timeout: Duration,
    pub(crate) max_connections: usize,
    /// How often each user may ask, if there is a limit.
    pub(crate) rate_limit: Option<Rate>,
}

impl Http {
    /// `None`: what is wrong has been noted.
    pub(crate) fn read(sources: &mut Sources) -> Option<Self> {
        let framework = match sources.get("FRAMEWORK") {
            Some(_) => sources.read("FRAMEWORK", Framework::from_name),
            None => match Framework::from_name("axum") {
                Ok(framework) => Some(framework),
                Err(problem) => {
                    sources.refuse("FRAMEWORK", problem);
                    None
                }
            },
        };
        let origins = sources.read("ALLOWED_ORIGINS", origins).unwrap_or_else(|| {
            ["http://localhost:3000", "http://127.0.0.1:3000"].map(HeaderValue::from_static).to_vec()
        });
        let body_limit = sources.read("BODY_LIMIT", within(1024..=16 * 1024 * 1024));
        let timeout = sources.read("REQUEST_TIMEOUT_SECONDS", within(1..=300));
        let max_connections = sources.read("MAX_CONNECTIONS", within(1..=1_000_000));
        let rate_limit = sources.read("RATE_LIMIT", rate_limit).flatten();
        Some(Self {
            framework: framework?,
            origins,
            body_limit: body_limit.unwrap_or(64 * 1024),
            timeout: Duration::from_secs(timeout.unwrap_or(10)),
            max_connections: max_connections.unwrap_or(10_000),
            rate_limit,
        })
    }
}

/// What is logged, and how.
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

/// Where the tasks are.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite {
        url: String,
        /// Nobody named a database.
        is_default: bool,
        /// How many reads and how many writes may wait, if said.
        max_waiting: Option<usize>,
    },
    Postgres {
        url: Hidden,
        /// For migrations, where a pooler stands before the other.
        direct: Option<Hidden>,
        options: PostgresOptions,
        /// Whether calls that wait share a statement.
        coalesce: bool,
        /// Whether row security is the second wall. Then the owner of the tables is another role, who has `direct`.
        row_security: bool,
    },
}

impl Database {
    /// `None`: what is wrong has been noted.
    pub(crate) fn read(sources: &mut Sources) -> Option<Self> {
        let tls = [("verify", TlsPolicy::Verify), ("as-written", TlsPolicy::AsWritten)];
        let mut options = PostgresOptions::default().tls(choice(sources, "DATABASE_TLS", tls));
        // The check at start needs two at once.
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
        let max_waiting = sources.read("DATABASE_MAX_WAITING", within(0..=1_000_000));
        if let Some(count) = max_waiting {
            options = options.max_waiting(count);
        }
        let row_security = choice(sources, "ROW_SECURITY", [("off", false), ("on", true)]);
        let coalesce_is_set = sources.get("COALESCE").is_some();
        let coalesce = choice(sources, "COALESCE", [("on", true), ("off", false)]);
        if row_security && coalesce && coalesce_is_set {
            let problem = "cannot be on together with ROW_SECURITY, where a statement is for one user";
            sources.refuse("COALESCE", problem);
        }
        let direct = sources.read("DATABASE_DIRECT_URL", |url| postgres_url(url, &options));
        let name = match (sources.get("DATABASE_URL"), sources.get("NEON_DB_URL")) {
            (Some(url), Some(other)) if url != other => {
                sources.refuse("NEON_DB_URL", "is another database than DATABASE_URL; set only one of them");
                "DATABASE_URL"
            }
            (None, Some(_)) => "NEON_DB_URL",
            _ => "DATABASE_URL",
        };
        if sources.get(name).is_some_and(is_postgres) {
            let url = sources.read(name, |url| postgres_url(url, &options))?;
            let coalesce = coalesce && !row_security;
            return Some(Self::Postgres { url, direct, options, coalesce, row_security });
        }
        for (name, is_meant) in [("DATABASE_DIRECT_URL", direct.is_some()), ("ROW_SECURITY", row_security)] {
            if is_meant {
                sources.refuse(name, "has no effect, since DATABASE_URL names no PostgreSQL database");
            }
        }
        let is_default = sources.get(name).is_none();
        let url = sources.read(name, sqlite_url);
        let url = if is_default { "sqlite://todo.db".to_owned() } else { url? };
        Some(Self::Sqlite { url, is_default, max_waiting })
    }
}

impl Database {
    /// How many files it may have open.
    pub(crate) fn files(&self) -> usize {
        match self {
            // Each connection has the file, its log and its index.
            Self::Sqlite { .. } => 16,
            Self::Postgres { options, .. } => options.get_max_connections(),
        }
    }
}

fn sqlite_url(url: &str) -> Result<String, String> {
    if !url.starts_with("sqlite:") {
        return Err("must begin with postgres://, postgresql:// or sqlite://".to_owned());
    }
    // Nothing is opened by this.
    match SqliteStore::from_url(url) {
        Ok(_) => Ok(url.to_owned()),
        Err(error) => Err(format!("cannot be used: {}", causes(&error))),
    }
}

fn is_postgres(url: &str) -> bool {
    let url = url.trim();
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn postgres_url(url: &str, options: &PostgresOptions) -> Result<Hidden, String> {
    if !is_postgres(url) {
        return Err("must begin with postgres:// or postgresql://".to_owned());
    }
    // Nothing is opened by this.
    if let Err(error) = PostgresStore::connect_lazy(url, options) {
        return Err(format!("cannot be used: {}; {ENCODE}", causes(&error)));
    }
    let parsed = Url::parse(url.trim()).map_err(|error| format!("cannot be used: {error}; {ENCODE}"))?;
    // What stands before it would be taken for the host, and told to the log and to whoever answers for names.
    if parsed.path().contains('@') {
        return Err(format!("has an @ where none belongs; {ENCODE}"));
    }
    if parsed.fragment().is_some() {
        return Err(format!("has a # where none belongs; {ENCODE}"));
    }
    // sqlx ignores what it does not know, and so would leave a connection without what was meant to protect it.
    let known =
        ["sslmode", "ssl-mode", "sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];
    for (name, _) in parsed.query_pairs() {
        if name.starts_with("ssl") && !known.contains(&&*name) {
            return Err(format!("has an unknown parameter, {}", shown(&name)));
        }
    }
    Ok(Hidden::new(url))
}

const ENCODE: &str = "in a password, / @ # ? : and % must be percent-encoded, or leave it to PGPASSWORD";

/// An error with what is behind it. An error of the store repeats no URL.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some say themselves what is behind them.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Who may call, and how it is proved.
#[derive(Debug)]
pub(crate) struct Keys {
    /// In the order in which they are given: the first is the newest.
    pub(crate) secrets: Vec<Hidden>,
    /// What the secrets sign; not said: it depends on whether there is a key set.
    pub(crate) hs256: Option<Hs256>,
    pub(crate) jwks_file: Option<PathBuf>,
    pub(crate) jwks_url: Option<Url>,
    /// Whether a key set may be fetched over plain HTTP from another machine.
    pub(crate) jwks_allow_http: bool,
    pub(crate) better_auth_url: Option<Url>,
    /// Empty: not said.
    pub(crate) issuers: Vec<String>,
    /// Empty: not said.
    pub(crate) audiences: Vec<String>,
    pub(crate) subject: Option<String>,
    pub(crate) leeway: Duration,
    /// Whether a key was given that is wrong, so that it is not said again that there is none.
    pub(crate) spoiled: bool,
}

/// What the shared secrets sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hs256 {
    /// Access tokens that name their user by a claim.
    Sub,
    /// The session cookie of Better Auth.
    CookieCache,
    /// Nothing that counts here.
    Off,
}

impl Keys {
    pub(crate) fn read(sources: &mut Sources) -> Self {
        let hs256 = [("sub", Hs256::Sub), ("cookie-cache", Hs256::CookieCache), ("off", Hs256::Off)];
        let is_set = |name| sources.get(name).is_some();
        let (jwks_is_set, better_auth_is_set) = (is_set("JWKS_URL"), is_set("BETTER_AUTH_URL"));
        let secret_is_set = is_set("BETTER_AUTH_SECRET") || is_set("BETTER_AUTH_SECRETS");
        let hs256_is_set = is_set("JWT_HS256");
        let mut keys = Self {
            hs256: hs256_is_set.then(|| choice(sources, "JWT_HS256", hs256)),
            jwks_file: sources.read("JWKS_FILE", |path| Ok(PathBuf::from(path))),
            jwks_url: sources.read("JWKS_URL", http_url),
            jwks_allow_http: choice(sources, "JWKS_ALLOW_HTTP", [("false", false), ("true", true)]),
            better_auth_url: sources.read("BETTER_AUTH_URL", http_url),
            issuers: sources.read("JWT_ISSUER", list).unwrap_or_default(),
            audiences: sources.read("JWT_AUDIENCE", list).unwrap_or_default(),
            subject: sources.read("JWT_SUBJECT", claim),
            ..Self::default()
        };
        if let Some(seconds) = sources.read("JWT_LEEWAY_SECONDS", within(0..=300)) {
            keys.leeway = Duration::from_secs(seconds);
        }
        // What nobody uses need not be good: every `.env` of Better Auth holds its secret.
        let in_use = keys.effective_hs256() != Hs256::Off;
        if in_use {
            keys.secrets = secrets(sources);
        }
        keys.spoiled = (jwks_is_set && keys.jwks_url.is_none())
            || (better_auth_is_set && keys.better_auth_url.is_none())
            || (in_use && secret_is_set && keys.secrets.is_empty());
        keys
    }

    /// What the secrets sign. A key set is meant to be used instead of them.
    pub(crate) fn effective_hs256(&self) -> Hs256 {
        self.hs256.unwrap_or(if self.have_key_set() { Hs256::Off } else { Hs256::Sub })
    }

    pub(crate) fn have_key_set(&self) -> bool {
        self.jwks_file.is_some() || self.jwks_url.is_some() || self.better_auth_url.is_some()
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            hs256: None,
            jwks_file: None,
            jwks_url: None,
            jwks_allow_http: false,
            better_auth_url: None,
            issuers: Vec::new(),
            audiences: Vec::new(),
            subject: None,
            leeway: Duration::from_secs(30),
            spoiled: false,
        }
    }
}

impl Keys {
    /// One shared secret, and nothing else said.
    pub(crate) fn of_secret(secret: Hidden) -> Self {
        Self { secrets: vec![secret], ..Self::default() }
    }

    /// Issuer and audience of the tokens of Better Auth: scheme, host and port, in lower case and without a default
    /// port, whatever path its address has.
    pub(crate) fn better_auth_origin(&self) -> Option<String> {
        let url = self.better_auth_url.as_ref()?;
        Some(url.origin().ascii_serialization())
    }

    /// Where Better Auth publishes its keys. It appends `/api/auth` to an address without a path, and to no other.
    pub(crate) fn better_auth_jwks_url(&self) -> Option<String> {
        let url = self.better_auth_url.as_ref()?;
        let path = match url.path().trim_end_matches('/') {
            "" => "/api/auth",
            path => path,
        };
        Some(format!("{}{path}/jwks", url.origin().ascii_serialization()))
    }
}

/// The shared secrets. With a list, the single one has no say: Better Auth signs nothing with it any more.
fn secrets(sources: &mut Sources) -> Vec<Hidden> {
    let Some(list) = sources.get("BETTER_AUTH_SECRETS") else {
        // Not trimmed: Better Auth takes it to the letter.
        let Some(secret) = sources.get("BETTER_AUTH_SECRET").map(Hidden::new) else {
            return Vec::new();
        };
        return match judge(&secret) {
            Ok(()) => vec![secret],
            Err(problem) => {
                sources.refuse("BETTER_AUTH_SECRET", problem);
                Vec::new()
            }
        };
    };
    let mut secrets = Vec::new();
    let mut problems = Vec::new();
    let mut versions = std::collections::BTreeSet::new();
    for (position, entry) in (1..).zip(list.split(',')) {
        let Some((version, secret)) = entry.split_once(':') else {
            problems.push(format!("entry {position} is not <version>:<secret>"));
            continue;
        };
        let (Ok(version), secret) = (version.trim().parse::<u32>(), Hidden::new(secret.trim())) else {
            problems.push(format!("the version of entry {position} is not a number"));
            continue;
        };
        if !versions.insert(version) {
            problems.push(format!("version {version} is there twice"));
        }
        match judge(&secret) {
            Ok(()) => secrets.push(secret),
            Err(problem) => problems.push(format!("version {version} {problem}")),
        }
    }
    for problem in problems {
        sources.refuse("BETTER_AUTH_SECRETS", problem);
    }
    secrets
}

/// Whether a secret is good enough, in the opinion of who will use it.
fn judge(secret: &Hidden) -> Result<(), String> {
    use todo_core::auth::InvalidSource;
    match KeySource::secrets([secret.reveal()]) {
        Ok(_) => Ok(()),
        Err(InvalidSource::ShortSecret) => Err(format!(
            "has {} bytes and needs at least 32; `openssl rand -base64 32` makes one",
            secret.reveal().len()
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// A text that is not for every eye. Neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(String);

impl Hidden {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// A URL without its password and its query, which may hold another.
    pub(crate) fn as_masked_url(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else {
            return "(not a URL)".to_owned();
        };
        if url.password().is_some() {
            let _ = url.set_password(Some("***"));
        }
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A number between two others.
fn within<T>(range: RangeInclusive<T>) -> impl FnOnce(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{} is not a number from {} to {}", shown(text), range.start(), range.end())),
    }
}

/// One of several words; the first is the default.
fn choice<T: Copy, const N: usize>(sources: &mut Sources, name: &'static str, choices: [(&str, T); N]) -> T {
    let chosen = sources.read(name, |text| match choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(*value),
        None => {
            let words = choices.map(|(word, _)| word).join(", ");
            Err(format!("{} is none of: {words}", shown(text)))
        }
    });
    chosen.unwrap_or(choices[0].1)
}

/// Texts between commas.
fn list(text: &str) -> Result<Vec<String>, String> {
    let texts: Vec<_> = text.split(',').map(|text| text.trim().to_owned()).collect();
    if texts.iter().any(String::is_empty) {
        return Err(format!("{} has an empty text between its commas", shown(text)));
    }
    Ok(texts)
}

fn claim(path: &str) -> Result<String, String> {
    if path.split('.').any(str::is_empty) {
        return Err(format!("{} is not the name of a claim", shown(path)));
    }
    Ok(path.to_owned())
}

fn http_url(text: &str) -> Result<Url, String> {
    let wrong = |problem: &str| Err(format!("{} {problem}", shown(text)));
    let Ok(url) = Url::parse(text) else {
        return wrong("is not a URL");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong("must begin with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("must not hold a user or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("must not have a query or a fragment");
    }
    Ok(url)
}

fn origins(text: &str) -> Result<Vec<HeaderValue>, String> {
    let (mut origins, mut problems) = (Vec::new(), Vec::new());
    for text in list(text)? {
        match origin(&text) {
            Ok(origin) => origins.push(origin),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(origins) } else { Err(problems.join("; ")) }
}

fn rate_limit(text: &str) -> Result<Option<Rate>, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| format!("{} is neither off nor a rate: {error}", shown(text)))
}

/// A website as browsers name it in the header `Origin`.
fn origin(text: &str) -> Result<HeaderValue, String> {
    if text == "*" {
        return Err("\"*\" would let every website use the API; list the ones that may".to_owned());
    }
    if text.contains('*') {
        return Err(format!("{} is a pattern; list the origins one by one", shown(text)));
    }
    let example = "is not an origin, such as https://app.example.com";
    let host = Url::parse(text).ok().filter(Url::has_host);
    let Some(url) = host else {
        return Err(format!("{} {example}", shown(text)));
    };
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let canonical = format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default());
    if text != canonical {
        return Err(format!("{} {example}: did you mean {canonical}?", shown(text)));
    }
    HeaderValue::try_from(canonical).map_err(|_| format!("{} {example}", shown(text)))
}

#[cfg(test)]
mod tests;
