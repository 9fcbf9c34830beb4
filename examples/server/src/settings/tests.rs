use std::{collections::BTreeMap, ffi::OsString};

use super::*;

const SECRET: &str = "correct horse battery staple, twice";

fn environment(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
    let variables: BTreeMap<String, OsString> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    move |name| variables.get(name).cloned()
}

fn sources(variables: &[(&str, &str)]) -> Sources {
    Sources::new(BTreeMap::new(), environment(variables), "")
}

fn read(variables: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    Settings::read(sources(variables))
}

/// The settings of these variables, and a secret.
fn with_secret(variables: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    let mut variables = variables.to_vec();
    variables.push(("BETTER_AUTH_SECRET", SECRET));
    read(&variables)
}

#[track_caller]
fn complaint(variables: &[(&str, &str)]) -> String {
    read(variables).expect_err("a mistake").to_string()
}

fn keys(variables: &[(&str, &str)]) -> Keys {
    Keys::read(&mut sources(variables))
}

#[test]
fn a_secret_is_all_that_has_to_be_set() {
    let settings = with_secret(&[]).expect("good settings");
    assert_eq!(settings.address.to_string(), "127.0.0.1:8000");
    assert_eq!(settings.http.body_limit, 64 * 1024);
    assert_eq!(settings.http.timeout, Duration::from_secs(10));
    assert_eq!(settings.http.origins, ["http://localhost:3000", "http://127.0.0.1:3000"]);
    assert_eq!(settings.leeway, Duration::from_secs(30));
    assert_eq!((settings.log.level, settings.log.json), (LevelFilter::INFO, false));
    assert!(
        matches!(settings.database, Database::Sqlite { url, is_default: true, max_waiting: None } if url == "sqlite://todo.db")
    );
    assert_eq!(settings.keys.len(), 1);
}

#[test]
fn a_flag_comes_before_the_environment_and_that_before_the_file() {
    let flags = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    let port = |flag: &[(&'static str, &str)], variable: &[(&str, &str)], file| {
        let mut sources = Sources::new(flags(flag), environment(variable), file);
        let port = port(&mut sources);
        sources.finish(Some(port)).expect("good settings")
    };
    assert_eq!(port(&[("PORT", "1")], &[("PORT", "2")], "PORT=3"), 1);
    assert_eq!(port(&[], &[("PORT", "2")], "PORT=3"), 2);
    assert_eq!(port(&[], &[], "\u{feff}# a comment\nexport PORT='3' # and another\n"), 3);
    assert_eq!(port(&[], &[], "PORT=3\nPORT=4"), 4, "as shells have it");
    assert_eq!(port(&[], &[("PORT", "")], "PORT=3"), 8000, "taken back");
}

#[test]
fn all_mistakes_are_told_at_once_and_no_secret_is() {
    let complaint = complaint(&[
        ("HOST", "example.com"),
        ("PORT", "eighty"),
        ("FRAMEWORK", "rocket"),
        ("ALLOWED_ORIGINS", "*"),
        ("BODY_LIMIT", "-1"),
        ("REQUEST_TIMEOUT_SECONDS", "0"),
        ("MAX_CONNECTIONS", "0"),
        ("RATE_LIMIT", "100 per second"),
        ("DATABASE_URL", "mysql://root:hunter2@db/todo"),
        ("DATABASE_TLS", "none"),
        ("DATABASE_MAX_CONNECTIONS", "1"),
        ("DATABASE_MAX_WAITING", "-1"),
        ("DATABASE_STATEMENT_TIMEOUT_SECONDS", "5s"),
        ("DATABASE_LOCK_TIMEOUT_SECONDS", "3601"),
        ("METRICS_PORT", "70000"),
        ("METRICS_HOST", "metrics.example"),
        ("DATABASE_DIRECT_URL", "postgres://root:hunter2@db:port/todo"),
        ("BETTER_AUTH_SECRET", "hunter2"),
        ("JWT_LEEWAY_SECONDS", "301"),
        ("JWT_SUBJECT", "user."),
        ("JWT_AUDIENCE", "a,,b"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ]);
    for name in [
        "HOST",
        "PORT",
        "FRAMEWORK",
        "ALLOWED_ORIGINS",
        "BODY_LIMIT",
        "REQUEST_TIMEOUT_SECONDS",
        "MAX_CONNECTIONS",
        "RATE_LIMIT",
        "DATABASE_URL",
        "DATABASE_TLS",
        "DATABASE_MAX_CONNECTIONS",
        "DATABASE_MAX_WAITING",
        "DATABASE_STATEMENT_TIMEOUT_SECONDS",
        "DATABASE_LOCK_TIMEOUT_SECONDS",
        "METRICS_PORT",
        "METRICS_HOST",
        "DATABASE_DIRECT_URL",
        "BETTER_AUTH_SECRET",
        "JWT_LEEWAY_SECONDS",
        "JWT_SUBJECT",
        "JWT_AUDIENCE",
        "LOG_LEVEL",
        "LOG_FORMAT",
    ] {
        assert!(complaint.contains(&format!("\n  {name} (environment): ")), "{name}: {complaint}");
    }
    assert!(complaint.contains("23 settings are wrong"), "{complaint}");
    assert!(!complaint.contains("hunter2"), "{complaint}");
}

#[test]
fn a_line_that_cannot_be_read_is_named_and_not_shown() {
    let sources =
        Sources::new(BTreeMap::new(), environment(&[]), "PORT=1\nBETTER_AUTH_SECRET=open sesame\nLOG_LEVEL=warn\n");
    let complaint = sources.finish(Some(())).expect_err("a mistake").to_string();
    assert!(complaint.contains(".env: line 2"), "{complaint}");
    assert!(!complaint.contains("sesame"), "{complaint}");
}

#[test]
fn what_is_not_utf8_is_a_mistake() {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = |name: &str| (name == "LOG_LEVEL").then(|| OsString::from_vec(vec![0xff]));
        let complaint = Sources::new(BTreeMap::new(), bytes, "").finish(Some(())).expect_err("a mistake");
        assert!(complaint.to_string().contains("LOG_LEVEL (environment): is not UTF-8"));
    }
}

#[test]
fn nothing_secret_is_in_the_debug_form() {
    let settings = with_secret(&[("DATABASE_URL", "postgres://todo:hunter2@db/todo?password=hunter2")]);
    let debug = format!("{:?}", settings.expect("good settings"));
    assert!(debug.contains("postgres") || debug.contains("Postgres"), "{debug}");
    assert!(!debug.contains("hunter2") && !debug.contains(SECRET), "{debug}");
    let debug = format!("{:?}", keys(&[("BETTER_AUTH_SECRET", SECRET)]));
    assert!(!debug.contains(SECRET), "{debug}");
}

#[test]
fn a_server_without_a_key_is_refused() {
    assert!(complaint(&[]).contains("BETTER_AUTH_URL: is needed"));
    assert!(complaint(&[("BETTER_AUTH_SECRET", SECRET), ("JWT_HS256", "off")]).contains("JWT_HS256"));
    for shape in ["sub", "cookie-cache"] {
        assert!(complaint(&[("JWT_HS256", shape)]).contains("needs BETTER_AUTH_SECRET"));
    }
    // Once is enough.
    let short = complaint(&[("BETTER_AUTH_SECRET", "short"), ("JWT_HS256", "sub")]);
    assert!(short.contains("a setting is wrong") && short.contains("5 bytes"), "{short}");
}

#[test]
fn a_secret_must_be_long_and_not_known_to_everybody() {
    assert!(complaint(&[("BETTER_AUTH_SECRET", &"x".repeat(31))]).contains("31 bytes"));
    assert!(read(&[("BETTER_AUTH_SECRET", &"x".repeat(32))]).is_ok());
    let public = "better-auth-secret-12345678901234567890";
    assert!(complaint(&[("BETTER_AUTH_SECRET", public)]).contains("everybody knows"));
}

#[test]
fn a_list_of_secrets_is_read_as_better_auth_does() {
    let (new, old) = ("n".repeat(32), format!("{}:with=colons", "o".repeat(32)));
    let list = format!("2: {new} ,1:{old}");
    let both = keys(&[("BETTER_AUTH_SECRETS", &list), ("BETTER_AUTH_SECRET", SECRET)]);
    let revealed: Vec<_> = both.secrets.iter().map(Hidden::reveal).collect();
    assert_eq!(revealed, [new.as_str(), old.as_str()]);

    let complaint = complaint(&[("BETTER_AUTH_SECRETS", &format!("{new},x:{new},3:short,4:{new},4:{old}"))]);
    for problem in ["entry 1 is not", "entry 2 is not a number", "version 3 has 5 bytes", "version 4 is there twice"] {
        assert!(complaint.contains(problem), "{problem}: {complaint}");
    }
    assert!(!complaint.contains(&new), "{complaint}");
}

#[test]
fn a_key_set_takes_the_place_of_the_secret() {
    let hs256 = |name, value| keys(&[("BETTER_AUTH_SECRET", "short"), (name, value)]).effective_hs256();
    assert_eq!(hs256("PORT", "1"), Hs256::Sub);
    assert_eq!(hs256("BETTER_AUTH_URL", "http://localhost:3000"), Hs256::Off);
    assert_eq!(hs256("JWKS_URL", "http://localhost:3000/jwks"), Hs256::Off);
    assert_eq!(hs256("JWKS_FILE", "jwks.json"), Hs256::Off);
    let explicit = keys(&[("JWKS_FILE", "jwks.json"), ("JWT_HS256", "Sub"), ("BETTER_AUTH_SECRET", SECRET)]);
    assert_eq!((explicit.effective_hs256(), explicit.secrets.len()), (Hs256::Sub, 1));
}

#[test]
fn better_auth_is_its_origin_and_publishes_keys_below_its_path() {
    for (url, origin, jwks) in [
        ("http://localhost:3000", "http://localhost:3000", "http://localhost:3000/api/auth/jwks"),
        ("http://localhost:3000/", "http://localhost:3000", "http://localhost:3000/api/auth/jwks"),
        ("https://App.Example.com:443", "https://app.example.com", "https://app.example.com/api/auth/jwks"),
        ("https://a.example/api/auth", "https://a.example", "https://a.example/api/auth/jwks"),
        ("https://a.example/api/auth/", "https://a.example", "https://a.example/api/auth/jwks"),
        ("http://a.example:80/app", "http://a.example", "http://a.example/app/jwks"),
    ] {
        let keys = keys(&[("BETTER_AUTH_URL", url)]);
        assert_eq!(keys.better_auth_origin().as_deref(), Some(origin), "{url}");
        assert_eq!(keys.better_auth_jwks_url().as_deref(), Some(jwks), "{url}");
    }
    for wrong in ["localhost:3000", "ftp://a.example", "https://", "https://u:p@a.example", "https://a.example/?x", "a"]
    {
        for name in ["BETTER_AUTH_URL", "JWKS_URL"] {
            let complaint = complaint(&[(name, wrong)]);
            assert!(complaint.contains(name) && !complaint.contains("u:p"), "{complaint}");
            assert!(complaint.contains("a setting is wrong"), "{complaint}");
        }
    }
}

#[test]
fn a_key_set_that_is_fetched_comes_over_https_or_by_explicit_leave() {
    for url in ["http://localhost:3000", "http://127.0.0.1:3000", "https://a.example"] {
        assert_eq!(read(&[("BETTER_AUTH_URL", url)]).expect(url).keys.len(), 1);
    }
    let inside = "http://web:3000/api/auth/jwks";
    let elsewhere = [("BETTER_AUTH_URL", "https://a.example"), ("JWKS_URL", inside)];
    let refused = complaint(&elsewhere);
    assert!(refused.contains("JWKS_URL") && refused.contains("JWKS_ALLOW_HTTP"), "{refused}");
    let allowed = [elsewhere.as_slice(), &[("JWKS_ALLOW_HTTP", "true")]].concat();
    let debug = format!("{:?}", read(&allowed).expect("good settings").keys);
    assert!(debug.contains(inside) && debug.contains("\"https://a.example\""), "{debug}");
    // Without Better Auth, somebody has to say who the issuer is.
    let bare = complaint(&[("JWKS_URL", "https://a.example/jwks")]);
    assert!(bare.contains("JWT_ISSUER") && bare.contains("JWT_AUDIENCE"), "{bare}");
    // A secret beside it counts only if it is said what for.
    let both = [("BETTER_AUTH_URL", "https://a.example"), ("BETTER_AUTH_SECRET", SECRET)];
    assert_eq!(read(&both).expect("good settings").keys.len(), 1);
    let both = [both.as_slice(), &[("JWT_HS256", "cookie-cache")]].concat();
    assert_eq!(read(&both).expect("good settings").keys.len(), 2);
}

#[test]
fn a_key_set_in_a_file_needs_issuer_and_audience() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    write(key);
    let bare = complaint(&[("JWKS_FILE", path)]);
    assert!(bare.contains("JWT_ISSUER") && bare.contains("JWT_AUDIENCE"), "{bare}");
    assert!(read(&[("JWKS_FILE", path), ("BETTER_AUTH_URL", "http://localhost:3000")]).is_ok());
    let explicit = [("JWKS_FILE", path), ("JWT_ISSUER", "https://a.example, b"), ("JWT_AUDIENCE", "c")];
    let settings = read(&explicit).expect("good settings");
    let debug = format!("{:?}", settings.keys);
    for text in ["\"https://a.example\"", "\"b\"", "\"c\""] {
        assert!(debug.contains(text), "{debug}");
    }
    for (content, problem) in [("[]", "is not a JWK set"), (r#"{"keys":[]}"#, "no key that can be used")] {
        write(content);
        assert!(complaint(&explicit).contains(problem), "{content}");
    }
    assert!(complaint(&[("JWKS_FILE", "/nowhere")]).contains("cannot be read"));
    assert!(complaint(&[("JWKS_FILE", path), ("JWKS_URL", "https://a.example")]).contains("excludes JWKS_FILE"));
}

#[test]
fn what_would_have_no_effect_is_a_mistake() {
    for name in ["JWT_ISSUER", "JWT_AUDIENCE", "JWT_SUBJECT"] {
        let settings = [("JWT_HS256", "cookie-cache"), (name, "x"), ("BETTER_AUTH_SECRET", SECRET)];
        assert!(complaint(&settings).contains(name));
        assert!(with_secret(&[(name, "x")]).is_ok(), "{name}");
    }
    assert!(with_secret(&[("JWT_HS256", "cookie-cache")]).is_ok());
    let direct = [("DATABASE_DIRECT_URL", "postgres://localhost/todo"), ("BETTER_AUTH_SECRET", SECRET)];
    assert!(complaint(&direct).contains("DATABASE_DIRECT_URL (environment): has no effect"));
    let row_security = [("ROW_SECURITY", "on"), ("BETTER_AUTH_SECRET", SECRET)];
    assert!(complaint(&row_security).contains("ROW_SECURITY (environment): has no effect"));
}

#[test]
fn row_security_takes_the_place_of_shared_statements() {
    let url = ("DATABASE_URL", "postgres://localhost/todo");
    let read = |settings: &[_]| match with_secret(settings).map(|settings| settings.database) {
        Ok(Database::Postgres { coalesce, row_security, .. }) => (coalesce, row_security),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&[url]), (true, false));
    assert_eq!(read(&[url, ("ROW_SECURITY", "off"), ("COALESCE", "on")]), (true, false));
    assert_eq!(read(&[url, ("ROW_SECURITY", "on")]), (false, true));
    assert_eq!(read(&[url, ("ROW_SECURITY", "on"), ("COALESCE", "off")]), (false, true));
    let both = [url, ("ROW_SECURITY", "on"), ("COALESCE", "on"), ("BETTER_AUTH_SECRET", SECRET)];
    assert!(complaint(&both).contains("COALESCE (environment): cannot be on together with ROW_SECURITY"));
}

#[test]
fn the_url_decides_which_database() {
    let database = |name, url| with_secret(&[(name, url)]).map(|settings| settings.database);
    for name in ["DATABASE_URL", "NEON_DB_URL"] {
        for url in ["postgres://todo@localhost/todo", "postgresql:///todo?host=/run/postgresql"] {
            assert!(matches!(database(name, url), Ok(Database::Postgres { .. })), "{url}");
        }
        for url in ["sqlite://a.db", "sqlite:///var/lib/a.db", "sqlite:a.db?mode=rwc"] {
            assert!(matches!(database(name, url), Ok(Database::Sqlite { is_default: false, .. })), "{url}");
        }
        for url in ["todo.db", "mysql://a/b", "sqlite::memory:", "sqlite://a.db?mode=ro", "postgres://localhost:x/y"] {
            let complaint = database(name, url).expect_err(url).to_string();
            assert!(complaint.contains(name), "{complaint}");
        }
    }
    let (one, other) = ("postgres://localhost/a", "postgres://localhost/b");
    assert!(with_secret(&[("DATABASE_URL", one), ("NEON_DB_URL", one)]).is_ok());
    let both = [("DATABASE_URL", one), ("NEON_DB_URL", other), ("BETTER_AUTH_SECRET", SECRET)];
    assert!(complaint(&both).contains("NEON_DB_URL"));
}

#[test]
fn a_database_is_named_without_its_password() {
    for (url, masked) in [
        ("postgres://todo:hunter2@db:5432/todo?password=hunter2", "postgres://todo:***@db:5432/todo"),
        ("postgres://todo@db/todo#hunter2", "postgres://todo@db/todo"),
        ("hunter2", "(not a URL)"),
    ] {
        assert_eq!(Hidden::new(url).as_masked_url(), masked);
    }
}

#[test]
fn a_password_that_is_not_encoded_is_refused_and_not_repeated() {
    for url in [
        "postgres://todo:12/hunter2@127.0.0.1:5432/todo",
        "postgres://todo:se@hunter2/x@127.0.0.1:5432/todo",
        "postgres://todo:hunter2#w@127.0.0.1/todo",
        "postgres://todo:p@ss/hunter2#w@127.0.0.1/todo",
        "postgres://todo:hunter2?w@127.0.0.1/todo",
        "postgres://todo:hunter2/w@127.0.0.1/todo",
    ] {
        let complaint = complaint(&[("DATABASE_URL", url), ("BETTER_AUTH_SECRET", SECRET)]);
        assert!(complaint.contains("percent-encoded") && complaint.contains("PGPASSWORD"), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
    assert!(with_secret(&[("DATABASE_URL", "postgres://todo:p%2Fw%23d@127.0.0.1/todo?sslmode=disable")]).is_ok());
}

#[test]
fn a_misspelt_parameter_of_tls_is_refused() {
    let url = "postgres://todo@db/todo?sslmod=require";
    let complaint = complaint(&[("DATABASE_URL", url), ("BETTER_AUTH_SECRET", SECRET)]);
    assert!(complaint.contains("sslmod"), "{complaint}");
}

#[test]
fn an_origin_is_written_as_browsers_do() {
    let taken = "http://localhost:3000,https://app.example.com,https://[::1]:8443,capacitor://localhost";
    assert_eq!(origins(taken).map(|origins| origins.len()), Ok(4));
    for (wrong, hint) in [
        ("*", "every website"),
        ("null", "is not an origin"),
        ("localhost:3000", "is not an origin"),
        ("//localhost", "is not an origin"),
        ("https://", "is not an origin"),
        ("https://app.example.com/", "mean https://app.example.com?"),
        ("https://App.Example.com", "mean https://app.example.com?"),
        ("https://app.example.com:443", "mean https://app.example.com?"),
        ("https://app.example.com/path", "mean https://app.example.com?"),
        ("https://app.example.com?x", "mean https://app.example.com?"),
        ("https://app.example.com#x", "mean https://app.example.com?"),
        ("https://u:hunter2@app.example.com", "mean https://app.example.com?"),
        ("https://*.example.com", "one by one"),
        ("https://a.example,,https://b.example", "empty text"),
    ] {
        match origins(wrong) {
            Err(problem) => assert!(problem.contains(hint) && !problem.contains("hunter2"), "{problem}"),
            Ok(_) => panic!("{wrong} is taken"),
        }
    }
    let two = origins("http://a.example/,http://b.example/").expect_err("two mistakes");
    assert!(two.contains("a.example?") && two.contains("b.example?"), "{two}");
}

#[test]
fn values_in_messages_are_short_and_without_passwords() {
    assert_eq!(shown("a\n\"b\""), r#""a\n\"b\"""#);
    assert_eq!(shown("https://u:p@h/x"), r#""https://***@h/x""#);
    assert_eq!(shown("https://@h"), r#""https://***@h""#);
    assert_eq!(shown(&"ü".repeat(200)).chars().count(), 82);
}

const EXAMPLE: &str = include_str!("../../../../.env.example");

#[test]
fn the_example_names_every_setting_once() {
    let lines = EXAMPLE.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    let mut named: Vec<_> = lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'))
        .collect();
    named.sort_unstable();
    let mut settings: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    settings.sort_unstable();
    assert_eq!(named, settings);
}

#[test]
fn the_example_lacks_nothing_but_a_secret() {
    let complaint = Settings::read(Sources::new(BTreeMap::new(), environment(&[]), EXAMPLE)).expect_err("a mistake");
    let complaint = complaint.to_string();
    assert!(complaint.contains("a setting is wrong") && complaint.contains("BETTER_AUTH_SECRET"), "{complaint}");
    let filled = EXAMPLE.replace("BETTER_AUTH_SECRET=\n", &format!("BETTER_AUTH_SECRET='{SECRET}'\n"));
    assert!(Settings::read(Sources::new(BTreeMap::new(), environment(&[]), &filled)).is_ok());
}

#[test]
fn every_value_of_the_example_is_good_by_itself() {
    for line in EXAMPLE.lines() {
        let Some((name, value)) = line.strip_prefix('#').and_then(|line| line.split_once('=')) else {
            continue;
        };
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            continue;
        };
        let mut sources = sources(&[(setting.name, value)]);
        address(&mut sources);
        Http::read(&mut sources);
        Database::read(&mut sources);
        Keys::read(&mut sources);
        Log::read(&mut sources);
        if let Err(mistakes) = sources.finish(Some(())) {
            let complaint = mistakes.to_string();
            // It says so itself.
            assert!(name == "DATABASE_DIRECT_URL" && complaint.contains("has no effect"), "{complaint}");
        }
    }
}
