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

#[test]
fn the_log_contains_the_reason_and_no_part_of_the_token() {
    let token = token(json!({ "email": "ann@example.com", "exp": null }));
    let log = log::of(|| {
        let verifier = by_secret();
        assert_rejected(&verifier, &token, Refusal::NoExpiry);
        assert_expired(&verifier, &self::token(json!({ "exp": 1 })));
    });
    assert!(log.contains("the claim exp is missing") && log.contains("the credential has expired"), "{log}");
    for hidden in token.split('.').chain([SECRET, "ann@example.com", "\"ann\""]) {
        assert!(!log.contains(hidden), "{hidden} in {log}");
    }
}

mod log {
    use std::{
        fmt::{Debug, Write as _},
        sync::{Arc, Mutex, PoisonError},
    };

    use tracing::{Event, Metadata, Subscriber, field, span};

    /// Returns what this thread logs during `work`.
    pub(super) fn of(work: impl FnOnce()) -> String {
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
            event.record(&mut Line(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)));
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
