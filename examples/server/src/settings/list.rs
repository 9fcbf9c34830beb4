//! The list of all settings.

/// What a setting is about. Each command takes the settings of some groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Host,
    Port,
    Http,
    Tasks,
    Database,
    Deletions,
    Keys,
    Log,
    Metrics,
}

/// A setting, as a user sees it. [`super`] reads its value.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The name in the environment and in `.env`.
    pub(crate) name: &'static str,
    /// The flag. Secrets have none, since other users of a machine can see command lines.
    pub(crate) flag: Option<&'static str>,
    pub(crate) group: Group,
    /// The placeholder of the value in a help text.
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

/// Every setting.
#[rustfmt::skip]
pub(crate) const SETTINGS: &[Setting] = &[
    setting(Group::Host, "HOST", Some("host"), "IP", "Address to listen on; in a container 0.0.0.0 [default: 127.0.0.1]"),
    setting(Group::Port, "PORT", Some("port"), "PORT", "Port to listen on; 0 chooses a free one [default: 8000]"),
    setting(Group::Http, "FRAMEWORK", Some("framework"), "NAME", "Web framework: axum, or warp or poem in a build with these features [default: axum]"),
    setting(Group::Http, "ALLOWED_ORIGINS", Some("allowed-origins"), "LIST", "Websites whose scripts may call the API (CORS), separated by commas [default: http://localhost:3000,http://127.0.0.1:3000]"),
    setting(Group::Http, "ALLOWED_HEADERS", Some("allowed-headers"), "LIST", "Further request headers that these scripts may send, separated by commas [default: none]"),
    setting(Group::Http, "ALLOW_CREDENTIALS", Some("allow-credentials"), "on|off", "Whether these scripts may send cookies [default: off]"),
    setting(Group::Http, "BODY_LIMIT", Some("body-limit"), "BYTES", "Maximum body size in bytes; larger bodies are rejected with 413 [default: 65536]"),
    setting(Group::Http, "REQUEST_TIMEOUT_SECONDS", Some("request-timeout-seconds"), "SECONDS", "Maximum duration of a request; after it the response is 503 [default: 10]"),
    setting(Group::Http, "MAX_CONNECTIONS", Some("max-connections"), "COUNT", "Maximum number of open connections; further ones wait [default: 10000]"),
    setting(Group::Http, "CONNECTION_MEMORY_MIB", Some("connection-memory-mib"), "MIB", "Memory for open requests and unread responses of all connections; beyond it, connections whose clients have not read for the longest time are closed [default: 256]"),
    setting(Group::Http, "RATE_LIMIT", Some("rate-limit"), "RATE", "Maximum number of requests per user, such as 100/10s; further ones are rejected with 429 [default: off]"),
    setting(Group::Http, "REQUIRE_PRECONDITIONS", Some("require-preconditions"), "on|off", "Whether changes of single tasks without a precondition, such as If-Match, are rejected with 428 [default: off]"),
    setting(Group::Http, "CACHE_MEGABYTES", Some("cache-megabytes"), "MIB", "Memory for rendered lists, counts and summaries, which are served while nothing has changed; 0 turns it off [default: 16]"),
    setting(Group::Http, "SHUTDOWN_DELAY_SECONDS", Some("shutdown-delay-seconds"), "SECONDS", "After a stop signal, readiness fails at once, and connections are accepted for so long; at least the time in which a proxy notices [default: 0]"),
    setting(Group::Tasks, "MAX_TASKS_PER_USER", Some("max-tasks-per-user"), "COUNT", "Maximum number of tasks of each user; further ones are rejected with 403; 0 is no limit [default: 10000]"),
    setting(Group::Database, "DATABASE_URL", Some("database-url"), "URL", "postgres://... or sqlite://...; set a URL with a password in the environment instead [default: sqlite://todo.db]"),
    setting(Group::Database, "NEON_DB_URL", None, "URL", "Another name for DATABASE_URL"),
    setting(Group::Database, "DATABASE_DIRECT_URL", Some("database-direct-url"), "URL", "The same PostgreSQL database without a pooler, for migrations [default: DATABASE_URL]"),
    setting(Group::Database, "DATABASE_READ_URL", None, "LIST", "Replicas of the PostgreSQL database to read from, URLs separated by commas [default: none]"),
    setting(Group::Database, "DATABASE_TLS", Some("database-tls"), "POLICY", "verify: raise sslmode=require to verify-full; as-written: use the sslmode of the URL [default: verify]"),
    setting(Group::Database, "DATABASE_MAX_CONNECTIONS", Some("database-max-connections"), "COUNT", "PostgreSQL: maximum number of connections [default: 10]"),
    setting(Group::Database, "DATABASE_MAX_WAITING", Some("database-max-waiting"), "COUNT", "Maximum number of calls that wait for a connection; further ones get 503 at once [default: 1024]"),
    setting(Group::Database, "DATABASE_STATEMENT_TIMEOUT_SECONDS", Some("database-statement-timeout-seconds"), "SECONDS", "PostgreSQL: maximum duration of a statement; 0 keeps the setting of the role [default: 5]"),
    setting(Group::Database, "DATABASE_LOCK_TIMEOUT_SECONDS", Some("database-lock-timeout-seconds"), "SECONDS", "PostgreSQL: maximum wait for a lock; 0 keeps the setting of the role [default: 2]"),
    setting(Group::Database, "COALESCE", Some("coalesce"), "on|off", "PostgreSQL: batch waiting calls into one statement [default: on, but off with ROW_SECURITY]"),
    setting(Group::Database, "ROW_SECURITY", Some("row-security"), "on|off", "PostgreSQL: use row-level security; needs a role that does not own the tables [default: off]"),
    setting(Group::Deletions, "DELETIONS_KEPT_DAYS", Some("deletions-kept-days"), "DAYS", "How long clients that follow the changes learn of a deletion; 0 is for ever [default: 30]"),
    setting(Group::Keys, "BETTER_AUTH_URL", Some("better-auth-url"), "URL", "Where Better Auth runs: sets the key set (<url>/api/auth/jwks), the issuer and the audience"),
    setting(Group::Keys, "JWKS_URL", Some("jwks-url"), "URL", "Where the key set is fetched [default: that of BETTER_AUTH_URL]"),
    setting(Group::Keys, "JWKS_ALLOW_HTTP", Some("jwks-allow-http"), "BOOL", "Allow http:// to another machine for the key set [default: false]"),
    setting(Group::Keys, "JWKS_CA_FILE", Some("jwks-ca-file"), "PATH", "Further root certificates for fetching the key set, in PEM format [default: only those of the platform]"),
    setting(Group::Keys, "HTTPS_PROXY", None, "URL", "HTTP proxy for fetching a key set over https; also https_proxy in the environment [default: none]"),
    setting(Group::Keys, "NO_PROXY", None, "LIST", "Hosts, domains and networks that are reached without the proxy, separated by commas; also no_proxy [default: none]"),
    setting(Group::Keys, "JWKS_USER_PREFIX", Some("jwks-user-prefix"), "TEXT", "What is put before the subject of a token that the key set verifies, such as app: [default: none]"),
    setting(Group::Keys, "JWKS_FILE", Some("jwks-file"), "PATH", "A key set in a JSON file, read at start"),
    setting(Group::Keys, "JWT_ISSUER", Some("jwt-issuer"), "LIST", "Accepted values of iss, separated by commas [default: the origin of BETTER_AUTH_URL]"),
    setting(Group::Keys, "JWT_AUDIENCE", Some("jwt-audience"), "LIST", "Accepted values of aud, separated by commas [default: the origin of BETTER_AUTH_URL]"),
    setting(Group::Keys, "JWT_SUBJECT", Some("jwt-subject"), "CLAIM", "Claim with the user's id; a dot leads into an object (user.id) [default: sub]"),
    setting(Group::Keys, "JWT_REQUIRED_SCOPE", Some("jwt-required-scope"), "SCOPES", "Scopes that a token must have, separated by spaces; others are rejected with 403 [default: none]"),
    setting(Group::Keys, "JWT_LEEWAY_SECONDS", Some("jwt-leeway-seconds"), "SECONDS", "Allowed difference between the clocks of issuer and server [default: 30]"),
    setting(Group::Keys, "BETTER_AUTH_SECRET", None, "SECRET", "Shared secret of HS256 tokens, at least 32 bytes"),
    setting(Group::Keys, "BETTER_AUTH_SECRETS", None, "LIST", "Several secrets for rotation: 2:new,1:old"),
    setting(Group::Keys, "JWT_HS256", Some("jwt-hs256"), "SHAPE", "What the secrets sign: sub, cookie-cache or off [default: sub, but off with a key set]"),
    setting(Group::Keys, "JWT_HS256_USER_PREFIX", Some("jwt-hs256-user-prefix"), "TEXT", "What is put before the subject of a token or cookie that a secret verifies [default: none]"),
    setting(Group::Log, "LOG_LEVEL", Some("log-level"), "LEVEL", "error, warn, info, debug, trace or off [default: info]"),
    setting(Group::Log, "LOG_FORMAT", Some("log-format"), "FORMAT", "text or json [default: text]"),
    setting(Group::Metrics, "METRICS_PORT", Some("metrics-port"), "PORT", "Port for Prometheus, at /metrics; 0 chooses a free one [default: none]"),
    setting(Group::Metrics, "METRICS_HOST", Some("metrics-host"), "IP", "Address of the metrics port [default: 127.0.0.1]"),
];
