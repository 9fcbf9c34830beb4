//! Where the values of settings come from, and what is wrong with them.

use std::{collections::BTreeMap, ffi::OsString, fmt, fs, io};

/// What a setting is about. A command takes the settings of some groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Host,
    Port,
    Http,
    Database,
    Keys,
    Log,
    Metrics,
}

/// A setting as its user sees it. What its value means is in [`super`].
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name in the environment and in `.env`.
    pub(crate) name: &'static str,
    /// Its flag; none for secrets, since everybody on a machine can see command lines.
    pub(crate) flag: Option<&'static str>,
    pub(crate) group: Group,
    /// What stands for the value in a help text.
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
}

const fn setting(
    group: Group,
    name: &'static str,
    flag: Option<&'static str>,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, flag, group, value, help }
}

/// Every setting there is.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    setting(Group::Host, "HOST", Some("host"), "IP", "Address to listen on [default: 127.0.0.1; in a container 0.0.0.0 is needed]"),
    setting(Group::Port, "PORT", Some("port"), "PORT", "Port to listen on; 0 means a free one [default: 8000]"),
    setting(Group::Http, "FRAMEWORK", Some("framework"), "NAME", "Web framework that serves the API: axum, or warp or poem in builds with these features [default: axum]"),
    setting(Group::Http, "ALLOWED_ORIGINS", Some("allowed-origins"), "LIST", "Websites whose scripts may use the API, separated by commas [default: http://localhost:3000,http://127.0.0.1:3000]"),
    setting(Group::Http, "BODY_LIMIT", Some("body-limit"), "BYTES", "Largest body of a request [default: 65536]"),
    setting(Group::Http, "REQUEST_TIMEOUT_SECONDS", Some("request-timeout-seconds"), "SECONDS", "How long a request may take [default: 10]"),
    setting(Group::Http, "MAX_CONNECTIONS", Some("max-connections"), "COUNT", "Most connections at once; others wait until there is room [default: 10000]"),
    setting(Group::Http, "RATE_LIMIT", Some("rate-limit"), "RATE", "How often each user may ask, such as 100/10s; more is answered 429 [default: off]"),
    setting(Group::Database, "DATABASE_URL", Some("database-url"), "URL", "postgres://... or sqlite://...; give passwords by the environment [default: sqlite://todo.db]"),
    setting(Group::Database, "NEON_DB_URL", None, "URL", "Another name of DATABASE_URL"),
    setting(Group::Database, "DATABASE_DIRECT_URL", Some("database-direct-url"), "URL", "The database without a pooler before it, for migrations [default: DATABASE_URL]"),
    setting(Group::Database, "DATABASE_TLS", Some("database-tls"), "POLICY", "verify: raise sslmode=require to verify-full; as-written: do as the URL says [default: verify]"),
    setting(Group::Database, "DATABASE_MAX_CONNECTIONS", Some("database-max-connections"), "COUNT", "Most connections to PostgreSQL [default: 10]"),
    setting(Group::Database, "DATABASE_MAX_WAITING", Some("database-max-waiting"), "COUNT", "Most calls that wait for a connection; more are answered 503 at once [default: 1024]"),
    setting(Group::Database, "DATABASE_STATEMENT_TIMEOUT_SECONDS", Some("database-statement-timeout-seconds"), "SECONDS", "PostgreSQL: how long a statement may run; 0: as the role has it [default: 5]"),
    setting(Group::Database, "DATABASE_LOCK_TIMEOUT_SECONDS", Some("database-lock-timeout-seconds"), "SECONDS", "PostgreSQL: how long a statement may wait for a lock; 0: as the role has it [default: 2]"),
    setting(Group::Database, "COALESCE", Some("coalesce"), "on|off", "Let calls that wait for PostgreSQL share a statement [default: on, but off with ROW_SECURITY]"),
    setting(Group::Database, "ROW_SECURITY", Some("row-security"), "on|off", "PostgreSQL: a second wall between users, for a role that does not own the tables [default: off]"),
    setting(Group::Keys, "BETTER_AUTH_URL", Some("better-auth-url"), "URL", "Where Better Auth runs: its key set is at <url>/api/auth/jwks, its origin is issuer and audience"),
    setting(Group::Keys, "JWKS_URL", Some("jwks-url"), "URL", "Where the key set is fetched, if elsewhere"),
    setting(Group::Keys, "JWKS_ALLOW_HTTP", Some("jwks-allow-http"), "BOOL", "Fetch the key set over plain HTTP from another machine too [default: false]"),
    setting(Group::Keys, "JWKS_FILE", Some("jwks-file"), "PATH", "A key set that does not change, as a JSON file"),
    setting(Group::Keys, "JWT_ISSUER", Some("jwt-issuer"), "LIST", "What `iss` may be, separated by commas [default: the origin of BETTER_AUTH_URL]"),
    setting(Group::Keys, "JWT_AUDIENCE", Some("jwt-audience"), "LIST", "What `aud` may be, separated by commas [default: the origin of BETTER_AUTH_URL]"),
    setting(Group::Keys, "JWT_SUBJECT", Some("jwt-subject"), "CLAIM", "The claim that names the user; a dot leads into an object [default: sub]"),
    setting(Group::Keys, "JWT_LEEWAY_SECONDS", Some("jwt-leeway-seconds"), "SECONDS", "By how much clocks may differ [default: 30]"),
    setting(Group::Keys, "BETTER_AUTH_SECRET", None, "SECRET", "Shared secret of HS256 tokens, at least 32 bytes"),
    setting(Group::Keys, "BETTER_AUTH_SECRETS", None, "LIST", "Several, for rotation: 2:new,1:old"),
    setting(Group::Keys, "JWT_HS256", Some("jwt-hs256"), "SHAPE", "What secrets sign: sub, cookie-cache or off [default: sub, but off if there is a key set]"),
    setting(Group::Log, "LOG_LEVEL", Some("log-level"), "LEVEL", "error, warn, info, debug, trace or off [default: info]"),
    setting(Group::Log, "LOG_FORMAT", Some("log-format"), "FORMAT", "text or json [default: text]"),
    setting(Group::Metrics, "METRICS_PORT", Some("metrics-port"), "PORT", "Port for Prometheus, at /metrics; 0 means a free one [default: none]"),
    setting(Group::Metrics, "METRICS_HOST", Some("metrics-host"), "IP", "Address of that port [default: 127.0.0.1]"),
];

/// From where a value was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Flag(&'static str),
    Environment,
    File,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment => f.write_str("environment"),
            Self::File => f.write_str(".env"),
        }
    }
}

/// What is wrong with one setting. It never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mistake {
    name: &'static str,
    layer: Option<Layer>,
    problem: String,
}

/// Everything that is wrong with the settings, to be told at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistakes(Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "todo-server: a setting is wrong:")?,
            count => writeln!(f, "todo-server: {count} settings are wrong:")?,
        }
        for Mistake { name, layer, problem } in &self.0 {
            write!(f, "\n  {name}")?;
            if let Some(layer) = layer {
                write!(f, " ({layer})")?;
            }
            write!(f, ": {problem}")?;
        }
        Ok(())
    }
}

/// The values of the settings, and the mistakes found so far.
///
/// A flag counts before the environment, and that before `.env` in the current directory. The first of them that has
/// the setting at all decides: `NAME=` in the environment takes back what `.env` says.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    values: BTreeMap<&'static str, (Layer, String)>,
    mistakes: Vec<Mistake>,
}

impl Sources {
    /// The settings of this process. The environment is read, never written.
    pub(crate) fn of_process(flags: BTreeMap<&'static str, String>) -> Self {
        let (file, unreadable) = match fs::read_to_string(".env") {
            Ok(text) => (text, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), None),
            Err(error) => (String::new(), Some(error)),
        };
        let mut sources = Self::new(flags, |name| std::env::var_os(name), &file);
        if let Some(error) = unreadable {
            sources.add(".env", None, format!("cannot be read: {error}"));
        }
        sources
    }

    /// The settings that these layers hold; `file` is the text of a `.env`.
    pub(crate) fn new(
        mut flags: BTreeMap<&'static str, String>,
        environment: impl Fn(&str) -> Option<OsString>,
        file: &str,
    ) -> Self {
        let mut sources = Self::default();
        let mut file = sources.parse_file(file);
        for setting in SETTINGS {
            let name = setting.name;
            let flag = setting.flag.and_then(|flag| Some((Layer::Flag(flag), Ok(flags.remove(name)?))));
            let variable = || Some((Layer::Environment, environment(name)?.into_string()));
            let line = || Some((Layer::File, Ok(file.remove(name)?)));
            match flag.or_else(variable).or_else(line) {
                Some((layer, Ok(value))) if !value.is_empty() => {
                    sources.values.insert(name, (layer, value));
                }
                Some((layer, Err(_))) => sources.add(name, Some(layer), "is not UTF-8"),
                Some((_, Ok(_))) | None => {}
            }
        }
        sources
    }

    fn parse_file(&mut self, text: &str) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for pair in dotenvy::from_read_iter(text.as_bytes()) {
            match pair {
                Ok((name, value)) => {
                    values.insert(name, value);
                }
                // The error repeats the line, which may hold a secret.
                Err(dotenvy::Error::LineParse(line, _)) => {
                    let first = line.lines().next().unwrap_or_default();
                    let number = text.lines().position(|line| line.ends_with(first)).map_or(0, |at| at + 1);
                    let problem = format!(
                        "line {number} is not NAME=value; a value with spaces, # or $ needs 'single quotes' around it"
                    );
                    self.add(".env", None, problem);
                }
                Err(_) => self.add(".env", None, "cannot be read"),
            }
        }
        values
    }

    /// The value of a setting as it was written, if there is one.
    pub(crate) fn get(&self, name: &'static str) -> Option<&str> {
        debug_assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name} is listed");
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    /// What `parse` makes of a setting, if it is there and right. What `parse` says against it is noted.
    pub(crate) fn read<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.get(name)?.trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.refuse(name, problem);
                None
            }
        }
    }

    /// Notes that a setting is wrong, or that it is missing.
    pub(crate) fn refuse(&mut self, name: &'static str, problem: impl Into<String>) {
        let layer = self.values.get(name).map(|(layer, _)| *layer);
        self.add(name, layer, problem);
    }

    fn add(&mut self, name: &'static str, layer: Option<Layer>, problem: impl Into<String>) {
        self.mistakes.push(Mistake { name, layer, problem: problem.into() });
    }

    /// The settings of these groups that are set.
    pub(crate) fn names_in(&self, groups: &[Group]) -> Vec<&'static str> {
        let settings = SETTINGS.iter().filter(|setting| groups.contains(&setting.group));
        settings.map(|setting| setting.name).filter(|name| self.values.contains_key(name)).collect()
    }

    /// What was read, if nothing was wrong. It is `None` only if something was.
    pub(crate) fn finish<T>(self, read: Option<T>) -> Result<T, Mistakes> {
        match read {
            Some(read) if self.mistakes.is_empty() => Ok(read),
            _ => Err(Mistakes(self.mistakes)),
        }
    }
}

/// A value in a message: quoted, not too long, and without the password that a URL may hold.
pub(crate) fn shown(value: &str) -> String {
    let masked = match (value.find("://"), value.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}***{}", &value[..scheme + 3], &value[at..]),
        _ => value.to_owned(),
    };
    if masked.chars().count() > 80 {
        format!("{:?}", masked.chars().take(77).chain("...".chars()).collect::<String>())
    } else {
        format!("{masked:?}")
    }
}
