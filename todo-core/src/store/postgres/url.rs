//! Reads the URL of a database: what the driver carries out, what protects and is refused, and what has no effect.

use std::{borrow::Cow, env, fs::File, path::Path, str::FromStr as _};

use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use url::Url;

use super::{
    super::error::{SetupError, StoreError},
    options::TlsPolicy,
};

/// The parameters that the driver carries out.
const CARRIED_OUT: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Where the certificates of the platform's authorities are, for `sslrootcert=system`.
const PLATFORM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Reads the URL of a database.
///
/// The driver ignores parameters that it does not know. One that protects is refused instead, in any spelling, since
/// the connection would lack the protection; the names of the others are logged.
pub(super) fn read_url(url: &str, tls: TlsPolicy) -> Result<Vec<PgConnectOptions>, StoreError> {
    let urls = each_server(url)?;
    let read = urls.into_iter().map(|url| read_one(&url, tls)).collect::<Result<Vec<_>, _>>()?;
    // All servers have the same parameters.
    for warning in read.first().iter().flat_map(|(_, warnings)| warnings.iter()) {
        warning.log();
    }
    Ok(read.into_iter().map(|(options, _)| options).collect())
}

/// The same URL for each of its servers: `postgres://ann@a,b:5433/todo` names two.
fn each_server(url: &str) -> Result<Vec<String>, StoreError> {
    let url = url.trim();
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, _)| url.split_at(scheme.len() + 3));
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, servers) =
        authority.rsplit_once('@').map_or(("", authority), |(user, _)| authority.split_at(user.len() + 1));
    let urls: Vec<_> = servers.split(',').map(|server| format!("{scheme}{user}{server}{path}")).collect();
    if urls.len() > 1 {
        if servers.split(',').any(|server| server.is_empty() || server.starts_with(':')) {
            return Err(invalid().into());
        }
        // They would apply to all of them.
        if parse(&urls[0])?.query_pairs().any(|(name, _)| is_host(&name)) {
            return Err(several_hosts());
        }
    }
    Ok(urls)
}

fn is_host(name: &str) -> bool {
    matches!(name, "host" | "hostaddr" | "port")
}

/// What is different from what the URL says.
enum Warning {
    NoEffect(Vec<String>),
    WeakTls,
}

impl Warning {
    fn log(&self) {
        match self {
            Self::NoEffect(names) => tracing::warn!(
                target: "todo_core::store",
                parameters = names.join(", "),
                "parameters of the database URL have no effect"
            ),
            Self::WeakTls => tracing::warn!(
                target: "todo_core::store",
                "sslmode=verify-full is used instead of the sslmode in the database URL, which does not fully check the \
                 server's certificate"
            ),
        }
    }
}

fn read_one(url: &str, tls: TlsPolicy) -> Result<(PgConnectOptions, Vec<Warning>), StoreError> {
    let mut url = parse(url)?;
    if url.query().is_some_and(|query| query.contains('@')) {
        // The query may be a part of a password that contains a question mark.
        return Err(invalid().into());
    }
    let mut without_effect = Vec::new();
    let mut kept = Vec::new();
    let mut uses_platform_roots = false;
    for (name, value) in url.query_pairs() {
        match effect(&name, &value)? {
            Effect::CarriedOut if matches!(&*name, "sslrootcert" | "ssl-root-cert") && value == "system" => {
                uses_platform_roots = true;
                kept.push((name.into_owned(), platform_roots()?));
            }
            Effect::CarriedOut => {
                if is_file(&name) {
                    check_file(&name, &value)?;
                }
                kept.push((name.into_owned(), value.into_owned()));
            }
            Effect::Default => {}
            Effect::None => without_effect.push(name.into_owned()),
        }
    }
    if uses_platform_roots && !kept.iter().any(|(name, _)| name == "sslmode" || name == "ssl-mode") {
        // As libpq does (PostgreSQL manual, section 34.19.1).
        kept.push(("sslmode".to_owned(), "verify-full".to_owned()));
    }
    // The driver would log the values of unknown parameters, which may be secrets.
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    let options = PgConnectOptions::from_str(url.as_str())
        .map_err(|error| SetupError::new("a parameter in the URL of the database is not valid").with_source(error))?;
    // PgBouncer refuses this parameter unless it is configured otherwise. It changes how floating-point numbers are
    // written as text, and there are none.
    let options = options.disable_statement_logging().extra_float_digits(None);
    let mut warnings = Vec::new();
    if !without_effect.is_empty() {
        warnings.push(Warning::NoEffect(without_effect));
    }
    let options = match (options.get_ssl_mode(), tls) {
        (PgSslMode::Require | PgSslMode::VerifyCa, TlsPolicy::Verify) => {
            warnings.push(Warning::WeakTls);
            options.ssl_mode(PgSslMode::VerifyFull)
        }
        _ => options,
    };
    Ok((options, warnings))
}

fn invalid() -> SetupError {
    SetupError::new("the URL of the database is not valid; it has the form postgres://user:password@host:port/database")
}

fn several_hosts() -> StoreError {
    let text = "the URL of the database names several hosts among its parameters; write them as \
                postgres://user@host:port,host:port/database";
    SetupError::new(text).into()
}

fn parse(url: &str) -> Result<Url, StoreError> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // A URL without a host is not valid, but libpq and Google Cloud SQL use it with a `host` among the parameters.
    let url = match url.split_once("@/") {
        Some((before, after)) if host.is_empty() => Cow::Owned(format!("{before}@localhost/{after}")),
        _ => Cow::Borrowed(url),
    };
    let parsed = Url::parse(&url).map_err(|error| invalid().with_source(error))?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(invalid().into());
    }
    Ok(parsed)
}

/// What becomes of a parameter.
enum Effect {
    CarriedOut,
    /// None, but the parameter asks only for what happens anyway.
    Default,
    None,
}

fn effect(name: &str, value: &str) -> Result<Effect, StoreError> {
    if CARRIED_OUT.contains(&name) || (name.starts_with("options[") && name.ends_with(']')) {
        if is_host(name) && value.contains(',') {
            return Err(several_hosts());
        }
        return Ok(Effect::CarriedOut);
    }
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let value = value.trim().to_lowercase();
    // A parameter that is carried out, in another spelling.
    if let Some(right) = CARRIED_OUT.iter().find(|own| own.replace(['-', '_'], "") == plain) {
        let text = format!("the URL of the database has the parameter {}; write it as {right}", shown(name));
        return Err(SetupError::new(text).into());
    }
    Ok(match &*plain {
        "sslnegotiation" if value == "postgres" => Effect::Default,
        // Every URL of Neon has channel_binding, which the driver does not support. With any sslnegotiation the
        // connection is encrypted; one of them saves a round trip.
        "channelbinding" | "sslsni" | "sslcompression" | "sslnegotiation" => Effect::None,
        "sslcertmode" | "gssencmode" if matches!(&*value, "allow" | "prefer" | "disable") => Effect::None,
        "targetsessionattrs" if matches!(&*value, "any" | "read-write" | "primary") => Effect::Default,
        "ssl" if matches!(&*value, "false" | "0" | "off" | "no") => Effect::None,
        _ if ["ssl", "tls", "gssenc", "require", "scram"].iter().any(|word| plain.contains(word)) => {
            let text = format!(
                "the URL of the database has the parameter {}, which is not supported; remove it, and use sslmode=verify-full \
                 and sslrootcert for a connection that is encrypted to a server that is checked",
                shown(name)
            );
            return Err(SetupError::new(text).into());
        }
        _ => Effect::None,
    })
}

/// A name for a message.
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(40).collect::<String>())
}

fn is_file(name: &str) -> bool {
    name.starts_with("ssl") && !matches!(name, "sslmode" | "ssl-mode")
}

fn check_file(name: &str, path: &str) -> Result<(), StoreError> {
    match File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = format!("the file {path:?}, which {name} in the URL of the database names, cannot be read");
            Err(SetupError::new(text).with_source(error).into())
        }
    }
}

fn platform_roots() -> Result<String, StoreError> {
    // As OpenSSL does, which libpq uses.
    let chosen = env::var("SSL_CERT_FILE").ok();
    let mut known = chosen.into_iter().chain(PLATFORM_ROOTS.map(str::to_owned));
    known.find(|path| Path::new(path).is_file()).ok_or_else(|| {
        let text = "sslrootcert=system in the URL of the database needs the certificates of this platform, which were not \
                    found; install the package ca-certificates, or name their file in SSL_CERT_FILE";
        SetupError::new(text).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str, tls: TlsPolicy) -> PgSslMode {
        read_url(url, tls).expect("a URL")[0].get_ssl_mode()
    }

    fn refused(url: &str) -> String {
        match read_url(url, TlsPolicy::Verify) {
            Err(StoreError::Setup(mistake)) => mistake.to_string(),
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn require_becomes_verify_full_unless_the_policy_is_as_written() {
        let url = "postgres://u:p@db.example/todo";
        for weak in ["require", "verify-ca"] {
            let url = format!("{url}?sslmode={weak}&channel_binding=require");
            assert!(matches!(mode(&url, TlsPolicy::Verify), PgSslMode::VerifyFull), "{weak}");
        }
        assert!(matches!(mode(&format!("{url}?sslmode=require"), TlsPolicy::AsWritten), PgSslMode::Require));
        assert!(matches!(mode(url, TlsPolicy::Verify), PgSslMode::Prefer));
    }

    #[test]
    fn the_error_for_a_wrong_url_does_not_repeat_the_url() {
        let error = read_url("postgres://ann:hunter2@db:port/todo", TlsPolicy::Verify).expect_err("no URL");
        assert!(matches!(error, StoreError::Setup(_)), "{error:?}");
        let text = format!("{error:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_part_of_a_password_is_not_taken_for_a_parameter() {
        for url in ["postgres://ann:1?hunter2@db/todo", "postgres://ann:1?a&ssl-hunter2@db/todo"] {
            let text = refused(url);
            assert!(!text.contains("hunter"), "{text}");
        }
    }

    #[test]
    fn a_parameter_that_protects_is_carried_out_or_refused_in_any_spelling() {
        for (name, value) in [
            ("SSLMODE", "verify-full"),
            ("Sslmode", "require"),
            ("sslMode", "require"),
            ("ssl_mode", "require"),
            ("SSL-Mode", "verify-full"),
            ("sslRootCert", "/ca.pem"),
            ("ssl", "true"),
            ("tls", "true"),
            ("sslaccept", "strict"),
            ("require_auth", "scram-sha-256"),
            ("requirepeer", "postgres"),
            ("requiressl", "1"),
            ("ssl_min_protocol_version", "TLSv1.3"),
            ("sslcrl", "/crl.pem"),
            ("sslcrldir", "/crl"),
            ("sslcertmode", "require"),
            ("gssencmode", "require"),
            ("SSL Mode", "Require"),
            ("sslfactory", "x"),
            ("sslpassword", "x"),
        ] {
            let mut url = Url::parse("postgres://u:p@db/todo").expect("a URL");
            url.query_pairs_mut().append_pair(name, value);
            let text = refused(url.as_str());
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn other_parameters_are_accepted() {
        for parameter in [
            "channel_binding=require",
            "sslnegotiation=direct",
            "sslsni=1",
            "gssencmode=disable",
            "target_session_attrs=read-write",
            "connect_timeout=10",
            "keepalives=1",
            "schema=public",
            "connection_limit=5",
            "pgbouncer=true",
            "pool_timeout=10",
            "statement_cache_size=0",
            "ssl=false",
            "options[search_path]=todo",
        ] {
            let url = format!("postgres://u:p@db/todo?{parameter}");
            assert!(read_url(&url, TlsPolicy::Verify).is_ok(), "{parameter}");
        }
    }

    #[test]
    fn several_servers_have_the_same_parameters() {
        let url = "postgres://ann:a,b@a,b:5433,[::1]:5434/todo?sslmode=require&application_name=x";
        let servers = read_url(url, TlsPolicy::Verify).expect("a URL");
        let places: Vec<_> = servers.iter().map(|server| (server.get_host(), server.get_port())).collect();
        assert_eq!(places, [("a", 5432), ("b", 5433), ("[::1]", 5434)]);
        for server in servers {
            assert_eq!((server.get_username(), server.get_database()), ("ann", Some("todo")));
            assert_eq!(server.get_application_name(), Some("x"));
            assert!(matches!(server.get_ssl_mode(), PgSslMode::VerifyFull));
        }
        assert_eq!(read_url("postgres://a,b/todo", TlsPolicy::Verify).expect("a URL").len(), 2);
    }

    #[test]
    fn a_server_without_a_name_is_rejected_beside_others() {
        for url in
            ["postgres://u:p@a,,b/todo", "postgres://u:p@a,/todo", "postgres://u:p@,a/todo", "postgres://a,:1/todo"]
        {
            assert!(refused(url).contains("it has the form"), "{url}");
        }
    }

    #[test]
    fn hosts_may_be_among_the_parameters_but_not_several() {
        let options = read_url("postgresql://u:p@/todo?host=/cloudsql/project:region:name", TlsPolicy::Verify);
        let socket = options.expect("a URL")[0].get_socket().cloned();
        assert_eq!(socket.as_deref(), Some(Path::new("/cloudsql/project:region:name")));
        for url in [
            "postgres://u:p@/todo?host=a,b",
            "postgres://u:p@a/todo?port=1,2",
            "postgres://u:p@a,b/todo?host=c",
            "postgres://u:p@a,b/todo?port=1",
        ] {
            assert!(refused(url).contains("several hosts"), "{url}");
        }
    }

    #[test]
    fn a_wrong_value_of_a_parameter_is_named() {
        let error = read_url("postgres://u:p@db/todo?sslmode=verify", TlsPolicy::Verify).expect_err("no mode");
        let text = format!("{error:?}");
        assert!(text.contains("a parameter in the URL") && text.contains("verify"), "{text}");
    }

    #[test]
    fn certificates_must_exist() {
        for name in ["sslrootcert", "ssl-ca", "sslcert", "sslkey"] {
            let text = refused(&format!("postgres://u:p@db/todo?sslmode=verify-full&{name}=/no/such/file.pem"));
            assert!(text.contains(name) && text.contains("/no/such/file.pem"), "{text}");
        }
    }

    #[test]
    fn the_root_certificates_of_the_platform_imply_a_full_check() {
        match read_url("postgres://u:p@db/todo?sslrootcert=system", TlsPolicy::AsWritten) {
            Ok(options) => assert!(matches!(options[0].get_ssl_mode(), PgSslMode::VerifyFull)),
            Err(error) => assert!(error.to_string().contains("ca-certificates"), "{error}"),
        }
    }
}
