use std::{collections::BTreeMap, ffi::OsString};

use super::{http::origins, *};

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

/// Reads these variables and a valid secret.
fn with_secret(variables: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    let mut variables = variables.to_vec();
    variables.push(("BETTER_AUTH_SECRET", SECRET));
    read(&variables)
}

/// The message about the mistakes in these variables.
#[track_caller]
fn mistakes(variables: &[(&str, &str)]) -> String {
    read(variables).expect_err("mistakes").to_string()
}

fn keys(variables: &[(&str, &str)]) -> Keys {
    Keys::read(&mut sources(variables))
}

#[test]
fn a_secret_is_the_only_required_setting() {
    let settings = with_secret(&[]).expect("valid settings");
    assert_eq!(settings.address.to_string(), "127.0.0.1:8000");
    assert_eq!(settings.http.body_limit, 64 * 1024);
    assert_eq!(settings.http.timeout, Duration::from_secs(10));
    assert_eq!(settings.http.cors.origins, ["http://localhost:3000", "http://127.0.0.1:3000"]);
    assert_eq!(settings.leeway, Duration::from_secs(30));
    assert_eq!((settings.log.level, settings.log.json), (LevelFilter::INFO, false));
    assert!(
        matches!(settings.database, Database::Sqlite { url, is_default: true, max_waiting: None } if url == "sqlite://todo.db")
    );
    assert_eq!(settings.keys.len(), 1);
    assert_eq!(settings.tasks.max_per_user, Some(10_000));
    assert_eq!(settings.tasks.deletions_kept, Some(Duration::from_hours(30 * 24)));
}

#[test]
fn no_limit_of_tasks_and_no_end_of_deletions_are_written_as_0() {
    let tasks = |max, days| with_secret(&[("MAX_TASKS_PER_USER", max), ("DELETIONS_KEPT_DAYS", days)]);
    let none = tasks("0", "0").expect("valid settings").tasks;
    assert_eq!((none.max_per_user, none.deletions_kept), (None, None));
    let some = tasks("5", "1").expect("valid settings").tasks;
    assert_eq!((some.max_per_user, some.deletions_kept), (Some(5), Some(Duration::from_hours(24))));
}

#[test]
fn a_flag_has_priority_over_the_environment_and_the_environment_over_the_file() {
    let flags = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    let port = |flag: &[(&'static str, &str)], variable: &[(&str, &str)], file| {
        let mut sources = Sources::new(flags(flag), environment(variable), file);
        let port = port(&mut sources);
        sources.finish(Some(port)).expect("valid settings")
    };
    assert_eq!(port(&[("PORT", "1")], &[("PORT", "2")], "PORT=3"), 1);
    assert_eq!(port(&[], &[("PORT", "2")], "PORT=3"), 2);
    assert_eq!(port(&[], &[], "\u{feff}# a comment\nexport PORT='3' # and another\n"), 3);
    assert_eq!(port(&[], &[], "PORT=3\nPORT=4"), 4, "the last line counts, as in a shell");
    assert_eq!(port(&[], &[("PORT", "")], "PORT=3"), 8000, "cancelled");
}

#[test]
fn all_mistakes_are_reported_at_once_without_secrets() {
    let message = mistakes(&[
        ("HOST", "example.com"),
        ("PORT", "eighty"),
        ("FRAMEWORK", "rocket"),
        ("ALLOWED_ORIGINS", "*"),
        ("BODY_LIMIT", "-1"),
        ("REQUEST_TIMEOUT_SECONDS", "0"),
        ("MAX_CONNECTIONS", "0"),
        ("CONNECTION_MEMORY_MIB", "0"),
        ("RATE_LIMIT", "100 per second"),
        ("REQUIRE_PRECONDITIONS", "yes"),
        ("CACHE_MEGABYTES", "-1"),
        ("MAX_TASKS_PER_USER", "-1"),
        ("DELETIONS_KEPT_DAYS", "36501"),
        ("DATABASE_URL", "mysql://root:hunter2@db/todo"),
        ("DATABASE_TLS", "none"),
        ("DATABASE_MAX_CONNECTIONS", "1"),
        ("DATABASE_MAX_WAITING", "-1"),
        ("DATABASE_STATEMENT_TIMEOUT_SECONDS", "5s"),
        ("DATABASE_LOCK_TIMEOUT_SECONDS", "3601"),
        ("METRICS_PORT", "70000"),
        ("METRICS_HOST", "metrics.example"),
        ("DATABASE_DIRECT_URL", "postgres://root:hunter2@db:port/todo"),
        ("DATABASE_READ_URL", "postgres://root:p,hunter2@db/todo"),
        ("BETTER_AUTH_SECRET", "hunter2"),
        ("JWT_LEEWAY_SECONDS", "301"),
        ("JWT_SUBJECT", "user."),
        ("JWT_REQUIRED_SCOPE", "to\"do"),
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
        "CONNECTION_MEMORY_MIB",
        "RATE_LIMIT",
        "REQUIRE_PRECONDITIONS",
        "CACHE_MEGABYTES",
        "MAX_TASKS_PER_USER",
        "DELETIONS_KEPT_DAYS",
        "DATABASE_URL",
        "DATABASE_TLS",
        "DATABASE_MAX_CONNECTIONS",
        "DATABASE_MAX_WAITING",
        "DATABASE_STATEMENT_TIMEOUT_SECONDS",
        "DATABASE_LOCK_TIMEOUT_SECONDS",
        "METRICS_PORT",
        "METRICS_HOST",
        "DATABASE_DIRECT_URL",
        "DATABASE_READ_URL",
        "BETTER_AUTH_SECRET",
        "JWT_LEEWAY_SECONDS",
        "JWT_SUBJECT",
        "JWT_REQUIRED_SCOPE",
        "JWT_AUDIENCE",
        "LOG_LEVEL",
        "LOG_FORMAT",
    ] {
        assert!(message.contains(&format!("\n  {name} (environment): ")), "{name}: {message}");
    }
    assert!(message.contains("30 settings are wrong"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn an_invalid_line_of_the_file_is_reported_by_its_number() {
    let sources =
        Sources::new(BTreeMap::new(), environment(&[]), "PORT=1\nBETTER_AUTH_SECRET=open sesame\nLOG_LEVEL=warn\n");
    let message = sources.finish(Some(())).expect_err("mistakes").to_string();
    assert!(message.contains(".env: line 2"), "{message}");
    assert!(!message.contains("sesame"), "{message}");
}

#[test]
fn a_value_that_is_not_utf8_is_a_mistake() {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = |name: &str| (name == "LOG_LEVEL").then(|| OsString::from_vec(vec![0xff]));
        let message = Sources::new(BTreeMap::new(), bytes, "").finish(Some(())).expect_err("mistakes");
        assert!(message.to_string().contains("LOG_LEVEL (environment): is not UTF-8"));
    }
}

#[test]
fn debug_shows_no_secrets() {
    let settings = with_secret(&[("DATABASE_URL", "postgres://todo:hunter2@db/todo?password=hunter2")]);
    let debug = format!("{:?}", settings.expect("valid settings"));
    assert!(debug.contains("postgres") || debug.contains("Postgres"), "{debug}");
    assert!(!debug.contains("hunter2") && !debug.contains(SECRET), "{debug}");
    let debug = format!("{:?}", keys(&[("BETTER_AUTH_SECRET", SECRET)]));
    assert!(!debug.contains(SECRET), "{debug}");
}

#[test]
fn settings_without_a_key_are_rejected() {
    assert!(mistakes(&[]).contains("BETTER_AUTH_URL: is needed"));
    assert!(mistakes(&[("BETTER_AUTH_SECRET", SECRET), ("JWT_HS256", "off")]).contains("JWT_HS256"));
    for shape in ["sub", "cookie-cache"] {
        assert!(mistakes(&[("JWT_HS256", shape)]).contains("needs BETTER_AUTH_SECRET"));
    }
    // The short secret is the only mistake that is reported.
    let short = mistakes(&[("BETTER_AUTH_SECRET", "short"), ("JWT_HS256", "sub")]);
    assert!(short.contains("a setting is wrong") && short.contains("5 bytes"), "{short}");
}

#[test]
fn a_secret_must_be_long_and_not_public() {
    assert!(mistakes(&[("BETTER_AUTH_SECRET", &"x".repeat(31))]).contains("31 bytes"));
    assert!(read(&[("BETTER_AUTH_SECRET", &"x".repeat(32))]).is_ok());
    let public = "better-auth-secret-12345678901234567890";
    assert!(mistakes(&[("BETTER_AUTH_SECRET", public)]).contains("is the public default of Better Auth"));
}

#[test]
fn a_list_of_secrets_has_the_format_of_better_auth() {
    let (new, old) = ("n".repeat(32), format!("{}:with=colons", "o".repeat(32)));
    let list = format!("2: {new} ,1:{old}");
    let both = keys(&[("BETTER_AUTH_SECRETS", &list), ("BETTER_AUTH_SECRET", SECRET)]);
    let revealed: Vec<_> = both.secrets.iter().map(Secret::reveal).collect();
    assert_eq!(revealed, [new.as_str(), old.as_str()]);

    let message = mistakes(&[("BETTER_AUTH_SECRETS", &format!("{new},x:{new},3:short,4:{new},4:{old}"))]);
    for problem in ["entry 1 is not", "entry 2 is not a number", "version 3 has 5 bytes", "version 4 appears twice"] {
        assert!(message.contains(problem), "{problem}: {message}");
    }
    assert!(!message.contains(&new), "{message}");
}

#[test]
fn a_key_set_replaces_the_secret_by_default() {
    let hs256 = |name, value| keys(&[("BETTER_AUTH_SECRET", "short"), (name, value)]).effective_hs256();
    assert_eq!(hs256("PORT", "1"), Hs256::Sub);
    assert_eq!(hs256("BETTER_AUTH_URL", "http://localhost:3000"), Hs256::Off);
    assert_eq!(hs256("JWKS_URL", "http://localhost:3000/jwks"), Hs256::Off);
    assert_eq!(hs256("JWKS_FILE", "jwks.json"), Hs256::Off);
    let explicit = keys(&[("JWKS_FILE", "jwks.json"), ("JWT_HS256", "Sub"), ("BETTER_AUTH_SECRET", SECRET)]);
    assert_eq!((explicit.effective_hs256(), explicit.secrets.len()), (Hs256::Sub, 1));
}

#[test]
fn better_auth_has_its_origin_as_issuer_and_its_key_set_below_its_path() {
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
            let message = mistakes(&[(name, wrong)]);
            assert!(message.contains(name) && !message.contains("u:p"), "{message}");
            assert!(message.contains("a setting is wrong"), "{message}");
        }
    }
}

#[test]
fn a_key_set_from_another_machine_needs_https_or_explicit_permission() {
    for url in ["http://localhost:3000", "http://127.0.0.1:3000", "https://a.example"] {
        assert_eq!(read(&[("BETTER_AUTH_URL", url)]).expect(url).keys.len(), 1);
    }
    let internal = "http://web:3000/api/auth/jwks";
    let elsewhere = [("BETTER_AUTH_URL", "https://a.example"), ("JWKS_URL", internal)];
    let rejected = mistakes(&elsewhere);
    assert!(rejected.contains("JWKS_URL") && rejected.contains("JWKS_ALLOW_HTTP"), "{rejected}");
    let allowed = [elsewhere.as_slice(), &[("JWKS_ALLOW_HTTP", "true")]].concat();
    let debug = format!("{:?}", read(&allowed).expect("valid settings").keys);
    assert!(debug.contains(internal) && debug.contains("\"https://a.example\""), "{debug}");
    // Without BETTER_AUTH_URL, issuer and audience have no default.
    let bare = mistakes(&[("JWKS_URL", "https://a.example/jwks")]);
    assert!(bare.contains("JWT_ISSUER") && bare.contains("JWT_AUDIENCE"), "{bare}");
    // With a key set, a secret is used only if JWT_HS256 is set.
    let both = [("BETTER_AUTH_URL", "https://a.example"), ("BETTER_AUTH_SECRET", SECRET)];
    assert_eq!(read(&both).expect("valid settings").keys.len(), 1);
    let both = [both.as_slice(), &[("JWT_HS256", "cookie-cache")]].concat();
    assert_eq!(read(&both).expect("valid settings").keys.len(), 2);
}

#[test]
fn a_key_set_in_a_file_needs_issuer_and_audience() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    write(key);
    let bare = mistakes(&[("JWKS_FILE", path)]);
    assert!(bare.contains("JWT_ISSUER") && bare.contains("JWT_AUDIENCE"), "{bare}");
    assert!(read(&[("JWKS_FILE", path), ("BETTER_AUTH_URL", "http://localhost:3000")]).is_ok());
    let explicit = [("JWKS_FILE", path), ("JWT_ISSUER", "https://a.example, b"), ("JWT_AUDIENCE", "c")];
    let settings = read(&explicit).expect("valid settings");
    let debug = format!("{:?}", settings.keys);
    for text in ["\"https://a.example\"", "\"b\"", "\"c\""] {
        assert!(debug.contains(text), "{debug}");
    }
    for (content, problem) in [("[]", "is not a JWK set"), (r#"{"keys":[]}"#, "no usable key")] {
        write(content);
        assert!(mistakes(&explicit).contains(problem), "{content}");
    }
    assert!(mistakes(&[("JWKS_FILE", "/nowhere")]).contains("cannot be read"));
    assert!(
        mistakes(&[("JWKS_FILE", path), ("JWKS_URL", "https://a.example")])
            .contains("cannot be combined with JWKS_FILE")
    );
}

#[test]
fn a_setting_without_effect_is_a_mistake() {
    for name in ["JWT_ISSUER", "JWT_AUDIENCE", "JWT_SUBJECT", "JWT_REQUIRED_SCOPE"] {
        let settings = [("JWT_HS256", "cookie-cache"), (name, "x"), ("BETTER_AUTH_SECRET", SECRET)];
        assert!(mistakes(&settings).contains(name));
        let others = ["JWT_ISSUER", "JWT_AUDIENCE"].map(|name| (name, "y"));
        assert!(with_secret(&[&[(name, "x")], &others[..]].concat()).is_ok(), "{name}");
    }
    assert!(with_secret(&[("JWT_HS256", "cookie-cache")]).is_ok());
    let direct = [("DATABASE_DIRECT_URL", "postgres://localhost/todo"), ("BETTER_AUTH_SECRET", SECRET)];
    assert!(mistakes(&direct).contains("DATABASE_DIRECT_URL (environment): has no effect"));
    let replica = [("DATABASE_READ_URL", "postgres://localhost/todo"), ("BETTER_AUTH_SECRET", SECRET)];
    assert!(mistakes(&replica).contains("DATABASE_READ_URL (environment): has no effect"));
    let row_security = [("ROW_SECURITY", "on"), ("BETTER_AUTH_SECRET", SECRET)];
    assert!(mistakes(&row_security).contains("ROW_SECURITY (environment): has no effect"));
}

/// The links in e-mails of Better Auth are signed with the same secret.
#[test]
fn a_secret_with_another_subject_needs_issuer_and_audience() {
    let both = [("JWT_ISSUER", "https://a.example"), ("JWT_AUDIENCE", "https://a.example")];
    for subject in ["email", "userId", "user.id"] {
        for given in [&[][..], &both[..1], &both[1..]] {
            for key_set in [&[][..], &[("BETTER_AUTH_URL", "https://a.example"), ("JWT_HS256", "sub")]] {
                let secret = [("BETTER_AUTH_SECRET", SECRET), ("JWT_SUBJECT", subject)];
                let message = mistakes(&[&secret, given, key_set].concat());
                assert!(message.contains("JWT_SUBJECT") && message.contains("link"), "{message}");
            }
        }
        assert!(with_secret(&[&[("JWT_SUBJECT", subject)], &both[..]].concat()).is_ok());
        // Without the secret, the key set has issuer and audience.
        assert!(read(&[("BETTER_AUTH_URL", "https://a.example"), ("JWT_SUBJECT", subject)]).is_ok());
    }
    assert!(with_secret(&[("JWT_SUBJECT", "sub")]).is_ok());
}

#[test]
fn replicas_are_urls_between_commas() {
    let url = ("DATABASE_URL", "postgres://todo:hunter2@one/todo");
    let read = |urls| match with_secret(&[url, ("DATABASE_READ_URL", urls)]).map(|settings| settings.database) {
        Ok(Database::Postgres { replicas, .. }) => replicas.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(read("postgres://todo:hunter2@two/todo"), 1);
    assert_eq!(read("postgres://todo:hunter%2C2@two/todo, postgresql://todo@three:5433/todo?sslmode=disable"), 2);
    let many = ["postgres://db/todo"; 2].join(",");
    let nine: Vec<_> = (0..9).map(|number| format!("postgres://replica{number}/todo")).collect();
    for (urls, problem) in [
        ("postgres://todo:hunter2@one/todo", "has the URL of DATABASE_URL"),
        (&many, "number 2 twice"),
        (&nine.join(","), "more than 8"),
        ("postgres://two/todo,", "number 2 must begin with postgres://"),
        ("postgres://todo:hun,ter2@two/todo", "percent-encode"),
        ("postgres://todo:hunter2@two:port/todo", "number 1 cannot be used"),
        ("sqlite://copy.db", "number 1 must begin with postgres://"),
    ] {
        let message = mistakes(&[url, ("DATABASE_READ_URL", urls), ("BETTER_AUTH_SECRET", SECRET)]);
        assert!(message.contains("DATABASE_READ_URL (environment)") && message.contains(problem), "{message}");
        assert!(!message.contains("hunter2") && !message.contains("ter2"), "{message}");
    }
}

#[test]
fn row_level_security_disables_statement_batching() {
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
    assert!(mistakes(&both).contains("COALESCE (environment): cannot be on with ROW_SECURITY"));
}

#[test]
fn the_url_chooses_the_database() {
    let database = |name, url| with_secret(&[(name, url)]).map(|settings| settings.database);
    for name in ["DATABASE_URL", "NEON_DB_URL"] {
        for url in ["postgres://todo@localhost/todo", "postgresql:///todo?host=/run/postgresql"] {
            assert!(matches!(database(name, url), Ok(Database::Postgres { .. })), "{url}");
        }
        for url in ["sqlite://a.db", "sqlite:///var/lib/a.db", "sqlite:a.db?mode=rwc"] {
            assert!(matches!(database(name, url), Ok(Database::Sqlite { is_default: false, .. })), "{url}");
        }
        for url in ["todo.db", "mysql://a/b", "sqlite::memory:", "sqlite://a.db?mode=ro", "postgres://localhost:x/y"] {
            let message = database(name, url).expect_err(url).to_string();
            assert!(message.contains(name), "{message}");
        }
    }
    let (one, other) = ("postgres://localhost/a", "postgres://localhost/b");
    assert!(with_secret(&[("DATABASE_URL", one), ("NEON_DB_URL", one)]).is_ok());
    let both = [("DATABASE_URL", one), ("NEON_DB_URL", other), ("BETTER_AUTH_SECRET", SECRET)];
    assert!(mistakes(&both).contains("NEON_DB_URL"));
}

#[test]
fn a_masked_url_has_no_password() {
    for (url, masked) in [
        ("postgres://todo:hunter2@db:5432/todo?password=hunter2", "postgres://todo:***@db:5432/todo"),
        ("postgres://todo@db/todo#hunter2", "postgres://todo@db/todo"),
        ("hunter2", "(not a URL)"),
    ] {
        assert_eq!(Secret::new(url).masked_url(), masked);
    }
}

#[test]
fn a_password_that_is_not_percent_encoded_is_rejected_without_printing_it() {
    for url in [
        "postgres://todo:12/hunter2@127.0.0.1:5432/todo",
        "postgres://todo:se@hunter2/x@127.0.0.1:5432/todo",
        "postgres://todo:hunter2#w@127.0.0.1/todo",
        "postgres://todo:p@ss/hunter2#w@127.0.0.1/todo",
        "postgres://todo:hunter2?w@127.0.0.1/todo",
        "postgres://todo:hunter2/w@127.0.0.1/todo",
    ] {
        let message = mistakes(&[("DATABASE_URL", url), ("BETTER_AUTH_SECRET", SECRET)]);
        assert!(message.contains("percent-encode") && message.contains("PGPASSWORD"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(with_secret(&[("DATABASE_URL", "postgres://todo:p%2Fw%23d@127.0.0.1/todo?sslmode=disable")]).is_ok());
}

#[test]
fn a_misspelt_tls_parameter_is_rejected() {
    let url = "postgres://todo@db/todo?sslmod=require";
    let message = mistakes(&[("DATABASE_URL", url), ("BETTER_AUTH_SECRET", SECRET)]);
    assert!(message.contains("sslmod"), "{message}");
}

#[test]
fn quotes_and_white_space_around_a_value_are_rejected() {
    let https = "https://auth.example.com";
    for name in SETTINGS.iter().map(|setting| setting.name) {
        for value in [format!("\"{https}\""), format!("'{https}'"), format!("{https}\n"), format!(" {https}")] {
            let message = mistakes(&[(name, &value)]);
            let expected = if value.contains(['"', '\'']) { "is in quotes" } else { "white space" };
            let line = message.lines().find(|line| line.contains(&format!("  {name} "))).unwrap_or_default();
            assert!(line.contains(expected), "{name}={value:?}: {message}");
        }
    }
    let message = mistakes(&[("JWT_ISSUER", "a,\"b\"")]);
    assert!(message.contains("the entry") && message.contains("is in quotes"), "{message}");
    let secret = mistakes(&[("BETTER_AUTH_SECRET", &format!("{SECRET}\n"))]);
    assert!(!secret.contains("horse"), "{secret}");
}

#[test]
fn a_name_in_the_file_that_is_nearly_a_setting_is_reported() {
    let file = "ALLOWED_ORIGIN=x\nJWT_ISSUR=x\nNEXT_PUBLIC_URL=x\nbetter_auth_url=x\nHOME=x\nPORT=1\n";
    let warnings = Sources::new(BTreeMap::new(), environment(&[]), file).warnings();
    let expected =
        [("ALLOWED_ORIGIN", "ALLOWED_ORIGINS"), ("JWT_ISSUR", "JWT_ISSUER"), ("better_auth_url", "BETTER_AUTH_URL")];
    assert_eq!(warnings, expected.map(|(name, similar)| (name.to_owned(), similar)));
}

#[test]
fn a_database_url_without_a_host_may_have_it_among_its_parameters() {
    let url = "postgresql://u:p@/todo?host=/cloudsql/project:region:name";
    assert!(with_secret(&[("DATABASE_URL", url)]).is_ok());
}

#[test]
fn an_origin_has_the_format_of_browsers() {
    let valid = "http://localhost:3000,https://app.example.com,https://[::1]:8443,capacitor://localhost";
    assert_eq!(origins(valid).map(|origins| origins.len()), Ok(4));
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
        ("https://a.example,,https://b.example", "empty entry"),
    ] {
        match origins(wrong) {
            Err(problem) => assert!(problem.contains(hint) && !problem.contains("hunter2"), "{problem}"),
            Ok(_) => panic!("{wrong} is accepted"),
        }
    }
    let two = origins("http://a.example/,http://b.example/").expect_err("two mistakes");
    assert!(two.contains("a.example?") && two.contains("b.example?"), "{two}");
}

#[test]
fn quoted_values_are_short_and_have_no_passwords() {
    assert_eq!(quoted("a\n\"b\""), r#""a\n\"b\"""#);
    assert_eq!(quoted("https://u:p@h/x"), r#""https://***@h/x""#);
    assert_eq!(quoted("https://@h"), r#""https://***@h""#);
    assert_eq!(quoted(&"ü".repeat(200)).chars().count(), 82);
}

const EXAMPLE: &str = include_str!("../../../../.env.example");

#[test]
fn the_example_file_names_every_setting_once() {
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
fn the_example_file_is_complete_except_for_the_secret() {
    let message = Settings::read(Sources::new(BTreeMap::new(), environment(&[]), EXAMPLE)).expect_err("mistakes");
    let message = message.to_string();
    assert!(message.contains("a setting is wrong") && message.contains("BETTER_AUTH_SECRET"), "{message}");
    let filled = EXAMPLE.replace("BETTER_AUTH_SECRET=\n", &format!("BETTER_AUTH_SECRET='{SECRET}'\n"));
    assert!(Settings::read(Sources::new(BTreeMap::new(), environment(&[]), &filled)).is_ok());
}

#[test]
fn every_value_of_the_example_file_is_valid_by_itself() {
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
        Tasks::read(&mut sources);
        Database::read(&mut sources);
        Keys::read(&mut sources);
        Log::read(&mut sources);
        if let Err(mistakes) = sources.finish(Some(())) {
            let message = mistakes.to_string();
            // The file says that this setting is for PostgreSQL only.
            let is_of_postgres = matches!(name, "DATABASE_DIRECT_URL" | "DATABASE_READ_URL");
            assert!(is_of_postgres && message.contains("has no effect"), "{message}");
        }
    }
}
