//! What logs and debug output contain.

use super::*;

#[test]
fn debug_output_contains_no_secret_token_or_address() {
    let key = SigningKey::ed25519();
    let claims = claims(json!({
        "email": "ann@example.com", "name": "Ann Example", "azp": "the-client", "act": { "sub": "the-service" },
    }));
    let source = any(jwks(&[key.jwk("1")]));
    let builder = JwtVerifier::builder().source(secret()).source(source.clone()).clock(FixedClock::at(at(NOW)));
    let mut shown = vec![format!("{builder:?} {:?} {source:?} {:?}", secret(), jwks(&[key.jwk("1")]))];
    let verifier = builder.build().expect("the sources are valid");
    let token = key.token("1", &claims);
    let identity = assert_accepted(&verifier, &token);
    let claim = identity.claims.get("act").expect("it is kept");
    shown.push(format!("{verifier:?} {verifier:#?} {identity:?} {identity:#?} {:?} {claim:?}", identity.claims));
    let tokens = [token, secret_token(SECRET.as_bytes(), &claims), secret_token(b"wrong", &claims), "a.b.c".to_owned()];
    for token in &tokens {
        let result = verify(&verifier, token);
        shown.push(format!(
            "{result:?} {result:#?} {}",
            result.as_ref().err().map(ToString::to_string).unwrap_or_default()
        ));
    }
    let (short, public) = ("a short secret", "better-auth-secret-12345678901234567890");
    for error in [KeySource::secrets([short]).err(), JwtVerifier::hs256(public).err()] {
        let error = error.expect("an error");
        shown.push(format!("{error} {error:?}"));
    }
    let shown = shown.concat();
    let bytes = format!("{:?}", SECRET.as_bytes());
    let spellings = [SECRET, bytes.trim_matches(['[', ']']), &base64url(SECRET)];
    for hidden in
        ["ann@example.com", "Ann Example", "the-client", "the-service", short, public].into_iter().chain(spellings)
    {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
    for part in tokens.iter().flat_map(|token| token.split('.')).filter(|part| part.len() > 1) {
        assert!(!shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.contains("1 secrets") && shown.contains("1 public keys"), "{shown}");
}

/// Logs with a limit of its own, at a time that does not pass.
fn logging(source: KeySource) -> JwtVerifier {
    let clock = || FixedClock::at(at(NOW));
    let builder = JwtVerifier::builder().clock(clock()).rejection_log(RejectionLog::new(clock()));
    builder.source(source).build().expect("the source is valid")
}

/// The lines about one token, and a check that they contain no part of it and no other claim.
fn lines_about(source: KeySource, token: &str) -> String {
    let log = log::of(|| assert!(verify(&logging(source), token).is_err(), "{token}"));
    let parts = token.split('.').filter(|part| part.len() > 40);
    for hidden in parts.chain([SECRET, "ann@example.com", "\"ann\"", "the-private-claim"]) {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
    log
}

#[test]
fn the_log_says_what_was_expected_and_what_came() {
    let key = SigningKey::ed25519();
    let app = || KeySource::jwks(jwks(&[key.jwk("the-key"), SigningKey::es256().jwk("another")]));
    let app = || app().issuers([APP, "https://second.example.com"]).audiences(["todo"]);
    let claims = |changes: Value| {
        let mut all = claims(json!({ "aud": "todo", "email": "ann@example.com", "x": "the-private-claim" }));
        let Value::Object(changes) = changes else { panic!("an object") };
        all.as_object_mut().expect("an object").extend(changes);
        all
    };
    let signed = |changes: Value| key.token("the-key", &claims(changes));
    let headed = |header: Value| key.sign("EdDSA", &header.to_string(), &claims(json!({})).to_string());
    let padding = "x".repeat(2_000);
    let cases: &[(String, &[&str])] = &[
        (
            signed(json!({ "iss": "http://localhost:3000" })),
            &[
                "reason=\"issuer\"",
                "the issuer is not accepted",
                "expected=\"https://app.example.com, https://second.example.com\"",
                "iss=\"http://localhost:3000\"",
                "aud=\"todo\"",
                "typ=\"JWT\"",
                "alg=\"EdDSA\"",
                "kid=\"the-key\"",
            ],
        ),
        (signed(json!({ "iss": 7 })), &["iss=\"(a number)\""]),
        (signed(json!({ "aud": ["a", "b"] })), &["reason=\"audience\"", "expected=\"todo\"", "aud=\"a, b\""]),
        (signed(json!({ "aud": "" })), &["aud=\"(empty)\""]),
        (signed(json!({ "aud": null })), &["aud=\"(null)\""]),
        (signed(json!({ "sub": 1234 })), &["reason=\"subject\"", "in the claim sub", "subject=\"(a number)\""]),
        (signed(json!({ "sub": "" })), &["subject=\"(empty)\""]),
        (signed(json!({ "exp": NOW * 1000 })), &["reason=\"milliseconds\"", "in milliseconds", "exp in seconds"]),
        (signed(json!({ "exp": 3600 })), &["reason=\"expired\"", "this one is before 2001"]),
        (signed(json!({ "exp": NOW - 60 })), &["reason=\"expired\"", "exp in the future"]),
        (signed(json!({ "nbf": NOW + 60 })), &["reason=\"not_yet_valid\""]),
        (signed(json!({ "nbf": "soon" })), &["reason=\"time\"", "in the claim nbf, not (a text)"]),
        (
            headed(json!({ "alg": "EdDSA", "typ": "better-auth.session-cache+jwt", "kid": "the-key" })),
            &["reason=\"type\"", "expected=\"none, JWT or at+jwt\"", "typ=\"better-auth.session-cache+jwt\""],
        ),
        (
            headed(json!({ "alg": "EdDSA", "kid": "of-another-server" })),
            &["reason=\"unknown_key\"", "a key of the key set: the-key, another", "kid=\"of-another-server\""],
        ),
        (
            SigningKey::ed25519().token("the-key", &claims(json!({}))),
            &["reason=\"signature\"", "a signature with the key of this kid"],
        ),
        (
            secret_token(SECRET.as_bytes(), &claims(json!({}))),
            &["reason=\"algorithm\"", "no shared secret is used", "alg=\"HS256\"", "iss=\"https://app.example.com\""],
        ),
        (
            headed(json!({ "alg": format!("ES256K\n{padding}"), "kid": "the-key" })),
            &["reason=\"algorithm\"", "alg=\"ES256K\\\\u{a}xxxx", "xxx...\""],
        ),
        (
            "Dn1kTqPWw3VQ0aZ5oJ8bXrYc7LmUe2Hs".to_owned(),
            &["reason=\"malformed\"", "not 32 characters with 0 dots; a session token is no JSON Web Token"],
        ),
        (
            signed(json!({ "image": "x".repeat(20_000) })),
            &["reason=\"too_long\"", "at most 16384 bytes, not 27", "image"],
        ),
    ];
    for (token, expected) in cases {
        let log = lines_about(app(), token);
        for expected in *expected {
            assert!(log.contains(expected), "{expected} not in {log}");
        }
        assert!(log.starts_with("INFO ") && log.lines().all(|line| line.len() < 250), "{log}");
    }

    let of_cookie = || secret().shape(Shape::CookieCache);
    let hs256 = |claims: Value| secret_token(SECRET.as_bytes(), &claims);
    let without_session = hs256(json!({ "user": { "id": "ann" }, "exp": NOW + 9 }));
    assert!(lines_about(of_cookie(), &without_session).contains("the same in session.userId"));
    let log = lines_about(secret(), &key.token("the-key", &claims(json!({}))));
    assert!(log.contains("HS256; no key set is configured"), "{log}");
    let log = lines_about(secret(), &secret_token(b"another secret of more than 32 bytes", &claims(json!({}))));
    assert!(log.contains("a signature with the shared secret"), "{log}");
    let log = lines_about(app().required_scope("todo:read"), &signed(json!({ "scope": "the-private-claim" })));
    assert!(log.contains("reason=\"insufficient_scope\"") && log.contains("the scope todo:read"), "{log}");
}

/// A token of one source is judged by that source, whatever the order.
#[test]
fn the_log_names_the_source_whose_issuer_the_token_states() {
    let (one, two) = (SigningKey::ed25519(), SigningKey::ed25519());
    let source = |key: &SigningKey, kid: &str, name: &str| {
        KeySource::jwks(jwks(&[key.jwk(kid)])).issuers([name]).audiences([name])
    };
    for is_reversed in [false, true] {
        let mut sources = [source(&one, "1", "one"), source(&two, "2", "two")];
        if is_reversed {
            sources.reverse();
        }
        let log = RejectionLog::new(FixedClock::at(at(NOW)));
        let builder = JwtVerifier::builder().clock(FixedClock::at(at(NOW))).rejection_log(log);
        let verifier = sources.into_iter().fold(builder, JwtVerifierBuilder::source).build().expect("valid sources");
        let unknown = claims(json!({ "iss": "two", "aud": "two" }));
        let log = log::of(|| assert_rejected(&verifier, &one.token("3", &unknown), Refusal::UnknownKey));
        assert!(log.contains("a key of the key set: 2"), "{log}");
        let foreign = claims(json!({ "iss": "three", "aud": "two" }));
        let log = log::of(|| assert_rejected(&verifier, &two.token("2", &foreign), Refusal::Issuer));
        assert!(log.contains("expected=\"two\""), "{log}");
    }
}

#[test]
fn a_minute_has_at_most_twenty_lines_and_the_next_one_counts_the_others() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let builder = JwtVerifier::builder().clock(Arc::clone(&clock)).rejection_log(RejectionLog::new(Arc::clone(&clock)));
    let verifier = builder.source(secret().issuers([APP]).audiences([APP])).build().expect("the source is valid");
    let wrong: Vec<String> = (0..20_i64)
        .flat_map(|number| {
            [
                token(json!({ "iss": format!("https://{number}.example") })),
                token(json!({ "aud": format!("{number}") })),
                token(json!({ "sub": number })),
                token(json!({ "exp": number })),
                token(json!({ "nbf": NOW + 1000 + number })),
                secret_token(b"another secret of more than 32 bytes", &claims(json!({ "x": number }))),
            ]
        })
        .collect();
    let log = log::of(|| wrong.iter().for_each(|token| assert!(verify(&verifier, token).is_err())));
    let infos = |log: &str| log.lines().filter(|line| line.starts_with("INFO ")).count();
    assert_eq!(infos(&log), 20, "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("DEBUG ")).count(), 100, "{log}");
    for reason in ["issuer", "audience", "subject"] {
        let lines = log.split("INFO ").filter(|line| line.contains(&format!("reason=\"{reason}\"")));
        assert!(lines.count() >= 3, "{reason}: {log}");
    }
    clock.set(at(NOW + 60));
    let log = log::of(|| assert!(verify(&verifier, &wrong[0]).is_err()));
    assert!(log.contains("left_out=100"), "{log}");
}

/// Without them, the operator sees only that requests have no token.
#[test]
fn the_log_says_what_is_wrong_with_a_header_or_cookie_that_has_no_token() {
    let cookie = TokenCookie::new("session", [APP]);
    let clock = || FixedClock::at(at(NOW));
    let log_of = |method: &str, headers: &[(&str, &str)]| {
        let builder = JwtVerifier::builder().source(secret().shape(Shape::CookieCache)).cookie(cookie.clone());
        let verifier = builder.clock(clock()).rejection_log(RejectionLog::new(clock())).build().expect("a source");
        let mut request = http::Request::builder().method(method).uri("/tasks");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).expect("a request").into_parts().0;
        log::of(|| assert!(verifier.authenticate(&head).now_or_never().expect("no key is fetched").is_err()))
    };
    for (headers, expected) in [
        (&[("authorization", "Basic c2VjcmV0LXRoaW5n")][..], "the scheme of the Authorization header is not Bearer"),
        (&[("authorization", "eyJhbGciOi")], "the Authorization header has no scheme"),
        (&[("authorization", "Bearer ")], "no token after Bearer"),
        (&[("authorization", "Bearer a"), ("authorization", "Bearer b")], "several Authorization headers"),
        (&[("cookie", "session=abcdefgh")], "lacks the prefix __Secure-"),
        (&[("cookie", "__Secure-session=abcdefgh; __Secure-session=ijklmnop")], "several cookies of the name"),
        (&[("cookie", "__Secure-session=")], "the cookie is empty"),
    ] {
        let log = log_of("GET", headers);
        assert!(log.starts_with("INFO ") && log.contains("reason=\"missing\"") && log.contains(expected), "{log}");
        assert!(!["c2VjcmV0", "eyJhbGci", "abcdefgh"].iter().any(|hidden| log.contains(hidden)), "{log}");
    }
    for anonymous in [&[][..], &[("cookie", "other=1")]] {
        assert_eq!(log_of("GET", anonymous), "");
    }
    let foreign = [("cookie", "__Secure-session=abcdefgh"), ("origin", "https://evil.example/\"x")];
    let log = log_of("POST", &foreign);
    assert!(log.contains("reason=\"foreign_origin\"") && log.contains("expected=\"https://app.example.com\""), "{log}");
    assert!(log.contains("origin=\"https://evil.example/\\\"x\"") && !log.contains("abcdefgh"), "{log}");
}

#[test]
fn several_sources_without_a_prefix_are_a_warning() {
    let key = SigningKey::ed25519();
    let keys = || any(jwks(&[key.jwk("1")]));
    let log_of = |sources: [KeySource; 2]| log::of(|| drop(at_now(sources)));
    assert!(log_of([keys(), secret()]).contains("several key sources have no user prefix"));
    assert_eq!(log_of([keys(), secret().user_prefix("s:")]), "");
    assert_eq!(log::of(|| drop(at_now([keys()]))), "");
}

mod log {
    use std::{
        fmt::{Debug, Write as _},
        sync::{Arc, Mutex, PoisonError},
    };

    use tracing::{Event, Metadata, Subscriber, field, span};

    /// Returns what this thread logs during `work`.
    pub(super) fn of(work: impl FnOnce()) -> String {
        // Otherwise a test without a subscriber could switch the events of this crate off for all threads: tracing asks only
        // the thread that comes across an event first, as long as there is only one subscriber.
        static EVERYWHERE: std::sync::Once = std::sync::Once::new();
        EVERYWHERE
            .call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).expect("no other"));
        let lines = Arc::new(Mutex::new(String::new()));
        tracing::subscriber::with_default(Lines(Arc::clone(&lines)), work);
        lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    struct Lines(Arc<Mutex<String>>);

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
            span.record(&mut Line(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)));
            span::Id::from_u64(1)
        }

        fn event(&self, event: &Event<'_>) {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(lines, "{} {}", event.metadata().level(), event.metadata().target());
            event.record(&mut Line(&mut lines));
        }

        fn record(&self, _: &span::Id, values: &span::Record<'_>) {
            values.record(&mut Line(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)));
        }

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    struct Line<'a>(&'a mut String);

    impl field::Visit for Line<'_> {
        fn record_debug(&mut self, field: &field::Field, value: &dyn Debug) {
            let _ = writeln!(self.0, "{field}={value:?}");
        }
    }
}
