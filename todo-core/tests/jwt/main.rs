//! Tests which tokens `JwtVerifier` accepts, and with which reason it rejects the others.
//!
//! The tokens in `fixtures` were signed by the crypto module of node and issued by Better Auth. The invalid tokens are
//! created here. Each has a valid signature and a single fault, so that only this fault can be the reason.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use serde_json::{Map, Value, json};
use testkit::tokens::{HS256_HEADER, SigningKey, base64url, hs256, secret_token, unsigned};
use todo_core::{
    auth::{
        AuthError, Authenticator as _, Claim, Identity, InvalidJwks, InvalidSource, JwkSet, JwtVerifier,
        JwtVerifierBuilder, KeySource, Refusal, RejectionLog, Shape, TokenClaims, TokenCookie,
    },
    clock::{Clock, FixedClock, Timestamp},
};

mod algorithms;
mod better_auth;
mod claims;
mod key_sets;
mod kid;
mod logs;
mod parsing;
mod secrets;
mod sources;

const NOW: i64 = 1_763_712_000;
const APP: &str = "https://app.example.com";
const SECRET: &str = "a secret of more than thirty-two bytes, for these tests only";

static NODE: LazyLock<Value> = LazyLock::new(|| parse(include_str!("../fixtures/tokens.json")));
static BETTER_AUTH: LazyLock<Value> = LazyLock::new(|| parse(include_str!("../fixtures/better-auth.json")));

// Shared, because it is slow to create an RSA key.
static RSA: LazyLock<SigningKey> = LazyLock::new(SigningKey::rsa2048);

fn parse(json: &str) -> Value {
    serde_json::from_str(json).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn jwks(keys: &[Value]) -> JwkSet {
    JwkSet::from_json(&json!({ "keys": keys }).to_string()).expect("a key set")
}

/// The number of usable keys among these.
fn usable(keys: &[Value]) -> usize {
    jwks(keys).len()
}

fn at_now(sources: impl IntoIterator<Item = KeySource>) -> JwtVerifier {
    with_clock(sources, FixedClock::at(at(NOW)))
}

fn with_clock(sources: impl IntoIterator<Item = KeySource>, clock: impl Clock + 'static) -> JwtVerifier {
    let builder = JwtVerifier::builder().clock(clock);
    sources.into_iter().fold(builder, JwtVerifierBuilder::source).build().expect("the sources are valid")
}

fn secret() -> KeySource {
    KeySource::secrets([SECRET]).expect("the secret is valid")
}

/// Accepts tokens that are signed with the secret, of any issuer and audience.
fn by_secret() -> JwtVerifier {
    at_now([secret()])
}

fn any(keys: JwkSet) -> KeySource {
    KeySource::jwks(keys).any_issuer().any_audience()
}

fn by_keys(keys: &[Value]) -> JwtVerifier {
    at_now([any(jwks(keys))])
}

/// Verifies a token without waiting, because no key has to be fetched.
fn verify(verifier: &JwtVerifier, token: &str) -> Result<Identity, AuthError> {
    verifier.verify(token).now_or_never().expect("no key has to be fetched")
}

#[track_caller]
fn assert_accepted(verifier: &JwtVerifier, token: &str) -> Identity {
    match verify(verifier, token) {
        Ok(identity) => identity,
        Err(error) => panic!("{error}: {token}"),
    }
}

#[track_caller]
fn assert_rejected(verifier: &JwtVerifier, token: &str, reason: Refusal) {
    match verify(verifier, token) {
        Err(AuthError::Invalid(refusal)) => assert_eq!(refusal, reason, "{token}"),
        other => panic!("{other:?} instead of {reason:?}: {token}"),
    }
}

#[track_caller]
fn assert_expired(verifier: &JwtVerifier, token: &str) {
    let result = verify(verifier, token);
    assert!(matches!(result, Err(AuthError::Expired)), "{result:?}: {token}");
}

/// Valid claims with these changes. `null` removes a claim.
fn claims(changes: Value) -> Value {
    let mut claims = json!({ "sub": "ann", "iat": NOW, "exp": NOW + 900, "iss": APP, "aud": APP });
    let (Value::Object(changes), Some(claims_)) = (changes, claims.as_object_mut()) else { panic!("an object") };
    for (name, value) in changes {
        match value {
            Value::Null => claims_.remove(&name),
            value => claims_.insert(name, value),
        };
    }
    claims
}

/// A token with valid claims and these changes, signed with the secret.
fn token(changes: Value) -> String {
    secret_token(SECRET.as_bytes(), &claims(changes))
}

/// A token with these claims as they are, signed with the secret.
fn raw(claims: &str) -> String {
    hs256(SECRET.as_bytes(), HS256_HEADER, claims)
}

/// A token with this header as it is, signed with the secret.
fn headed(header: &str) -> String {
    hs256(SECRET.as_bytes(), header, &claims(json!({})).to_string())
}

/// A token of these two parts as they are, signed with the secret.
fn assembled(header: &str, claims: &str) -> String {
    use aws_lc_rs::hmac;
    let message = format!("{header}.{claims}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", base64url(signature))
}

fn changed(mut jwk: Value, member: &str, value: Value) -> Value {
    jwk[member] = value;
    jwk
}

fn without(mut jwk: Value, member: &str) -> Value {
    jwk.as_object_mut().expect("an object").remove(member);
    jwk
}

fn pairs() -> &'static [Value] {
    NODE["pairs"].as_array().expect("an array")
}

fn pair(algorithm: &str) -> &'static Value {
    pairs().iter().find(|pair| pair["alg"] == algorithm).expect("a pair for the algorithm")
}

/// Every variant of [`Refusal`] has a token that is rejected with it.
#[test]
fn every_refusal_occurs() {
    let key = SigningKey::es256();
    let sources = || [secret().issuers([APP]).audiences([APP]), any(jwks(&[key.jwk("1")])).shape(Shape::CookieCache)];
    let cookie = json!({ "user": { "id": "ann" }, "exp": NOW + 9 });
    let (signed, _) =
        key.token("1", &claims(json!({}))).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("parts");
    let occurring = [
        (Refusal::TooLong, "x".repeat(16_385)),
        (Refusal::Malformed, "x".to_owned()),
        (Refusal::DuplicateMember, headed(r#"{"alg":"HS256","alg":"HS256"}"#)),
        (Refusal::CriticalExtension, headed(r#"{"alg":"HS256","crit":["x"]}"#)),
        (Refusal::Type, headed(r#"{"alg":"HS256","typ":"x"}"#)),
        (Refusal::Algorithm, headed(r#"{"alg":"none"}"#)),
        (Refusal::UnknownKey, key.token("2", &claims(json!({})))),
        (Refusal::Signature, format!("{signed}.AAAA")),
        (Refusal::NoExpiry, token(json!({ "exp": null }))),
        (Refusal::Milliseconds, token(json!({ "exp": 100_000_000_000_i64 }))),
        (Refusal::Time, token(json!({ "exp": "soon" }))),
        (Refusal::NotYetValid, token(json!({ "nbf": NOW + 31 }))),
        (Refusal::Issuer, token(json!({ "iss": null }))),
        (Refusal::Audience, token(json!({ "aud": null }))),
        (Refusal::Subject, token(json!({ "sub": null }))),
        (Refusal::Session, key.token("1", &cookie)),
    ];
    let verifier = at_now(sources());
    let mut seen: BTreeSet<String> = ["Other".to_owned()].into(); // only for hosts
    for (reason, token) in occurring {
        assert_rejected(&verifier, &token, reason);
        seen.insert(format!("{reason:?}"));
    }
    // The list of variants is read from the source, so that a new variant needs a token here.
    let source = include_str!("../../src/auth/error.rs");
    let (_, body) = source.split_once("pub enum Refusal {").expect("the enum");
    let (body, _) = body.split_once("\n}").expect("its end");
    let variants: BTreeSet<String> = body
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with(char::is_uppercase))
        .map(|line| line.split(['(', ',', ' ']).next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(seen, variants);
}
