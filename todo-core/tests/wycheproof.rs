//! Runs the test vectors of Wycheproof for JSON Web Signatures and Keys. `vectors/wycheproof/SOURCE.md` describes their
//! origin and the vectors with which we disagree.
//!
//! The payloads are not claims (`foo`, for example), so every token is rejected. The reason tells whether the signature
//! was accepted: then the payload is the reason, and the same token is rejected for its signature if other keys are
//! configured.
//!
//! `cargo test --test wycheproof -- --nocapture` shows the counts.

use std::{fmt, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, header::AUTHORIZATION};
use http_body_util::Empty;
use serde_json::{Value, json};
use testkit::tokens::{SigningKey, base64url};
use todo_core::{
    TodoService,
    api::{RESOURCES, TodoApi},
    auth::{AuthError, InvalidJwks, InvalidSource, JwkSet, JwtVerifier, KeySource, Refusal},
    store::MemoryStore,
};

const SIGNATURE: &str = include_str!("vectors/wycheproof/json_web_signature_test.json");
const KEY: &str = include_str!("vectors/wycheproof/json_web_key_test.json");
const CRYPTO: &str = include_str!("vectors/wycheproof/json_web_crypto_test.json");

/// What the verifier does with a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The signature is valid, and the payload is base64url.
    Accepted,
    /// The signature or the payload is not valid.
    Rejected,
    /// The keys cannot be configured.
    NotConfigurable,
}

struct Vector {
    id: u64,
    comment: String,
    valid: bool,
    token: String,
    outcome: Outcome,
}

/// A source with the keys of a group: the public keys, if the group has any.
fn configure(group: &Value) -> Option<KeySource> {
    let keys = group.get("public").or(group.get("private")).expect("keys");
    let set = if keys.get("keys").is_some() { keys.clone() } else { json!({ "keys": [keys] }) };
    let members = set["keys"].as_array().expect("keys");
    let kids: std::collections::BTreeSet<_> = members.iter().map(|key| key["kid"].as_str()).collect();
    // A list of secrets has no `kid`s. A group in which `kid`s matter is configured as a document.
    let secrets = members.iter().all(|key| key["kty"] == "oct" && key["alg"] == "HS256") && kids.len() == members.len();
    if secrets {
        let secrets =
            members.iter().map(|key| URL_SAFE_NO_PAD.decode(key["k"].as_str().expect("k")).expect("base64url"));
        return match KeySource::secrets(secrets) {
            Ok(source) => Some(source),
            Err(error) => {
                assert_eq!(error, InvalidSource::ShortSecret);
                None
            }
        };
    }
    match JwkSet::from_json(&set.to_string()) {
        Ok(keys) => Some(KeySource::jwks(keys).any_issuer().any_audience()),
        Err(error) => {
            assert_eq!(error, InvalidJwks::Secret);
            None
        }
    }
}

/// A source with other keys of the same types and with the same `kid`s.
fn other_keys(group: &Value) -> KeySource {
    static RSA: LazyLock<SigningKey> = LazyLock::new(SigningKey::rsa2048);
    let Some(keys) = group.get("public") else {
        return KeySource::secrets(["no token is signed with this secret of over thirty-two bytes"])
            .expect("the secret is valid");
    };
    let keys = keys.get("keys").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![keys.clone()]);
    let others: Vec<Value> = keys
        .iter()
        .map(|key| {
            let mut other = match key["crv"].as_str() {
                Some("P-521") => SigningKey::es512().jwk(""),
                Some(_) => SigningKey::es256().jwk(""),
                None => RSA.jwk(""),
            };
            other["kid"] = key["kid"].clone();
            if let Some(alg) = key.get("alg").filter(|_| key["kty"] == "RSA") {
                other["alg"] = alg.clone();
            }
            other
        })
        .collect();
    let set = JwkSet::from_json(&json!({ "keys": others }).to_string()).expect("a key set");
    KeySource::jwks(set).any_issuer().any_audience()
}

fn verifier(source: KeySource) -> JwtVerifier {
    JwtVerifier::builder().source(source).build().expect("the source is valid")
}

fn refusal(verifier: &JwtVerifier, token: &str) -> Refusal {
    match verifier.verify(token).now_or_never().expect("no key has to be fetched") {
        Err(AuthError::Invalid(refusal)) => refusal,
        other => panic!("{other:?} for {token}"),
    }
}

fn outcome(verifier: Option<&JwtVerifier>, others: &JwtVerifier, token: &str) -> Outcome {
    let Some(verifier) = verifier else {
        return Outcome::NotConfigurable;
    };
    // A payload that is not base64url is rejected after the signature, with the same reason as one that is not JSON.
    let payload_is_base64url = token.split('.').nth(1).is_some_and(|payload| URL_SAFE_NO_PAD.decode(payload).is_ok());
    let signature_is_good = match (refusal(verifier, token), refusal(others, token)) {
        (Refusal::Malformed, Refusal::Signature) => true,
        (Refusal::Malformed, Refusal::Malformed)
        | (Refusal::Signature | Refusal::UnknownKey | Refusal::Algorithm | Refusal::Type, _) => false,
        other => panic!("{other:?} for {token}"),
    };
    if signature_is_good && payload_is_base64url { Outcome::Accepted } else { Outcome::Rejected }
}

fn groups(file: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(file).expect("JSON");
    file["testGroups"].as_array().expect("groups").clone()
}

/// The tests of a group that are tokens, with their text.
fn tokens(group: &Value) -> Vec<(&Value, String)> {
    let tests = group["tests"].as_array().expect("tests").iter();
    // Some have the JSON serialization, which is an object.
    let text = |jws: &Value| jws.as_str().map_or_else(|| jws.to_string(), str::to_owned);
    tests.filter_map(|test| test.get("jws").map(|jws| (test, text(jws)))).collect()
}

fn run(file: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for group in groups(file) {
        let tokens = tokens(&group);
        if tokens.is_empty() {
            continue;
        }
        let ours = configure(&group).map(verifier);
        let others = verifier(other_keys(&group));
        for (test, token) in tokens {
            vectors.push(Vector {
                id: test["tcId"].as_u64().expect("a number"),
                comment: format!("{} {}", group["comment"], test["comment"]),
                valid: test["result"] == "valid",
                outcome: outcome(ours.as_ref(), &others, &token),
                token,
            });
        }
    }
    vectors
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Valid vectors that are accepted.
    accepted: usize,
    /// Invalid vectors that are rejected.
    rejected: usize,
    /// Invalid vectors whose keys cannot be configured.
    not_configurable: usize,
    /// Valid vectors of an algorithm that is not supported.
    unsupported: usize,
    /// Vectors with which we disagree.
    waived: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, rejected, not_configurable, unsupported, waived } = self;
        let all = accepted + rejected + not_configurable + unsupported + waived;
        write!(
            f,
            "{all} vectors: {accepted} valid and accepted, {rejected} invalid and rejected, {not_configurable} invalid \
             and not configurable, {unsupported} valid of unsupported algorithms, {waived} waived"
        )
    }
}

/// Counts the vectors whose outcome is as expected. Every other vector needs a waiver, and every waiver is needed.
fn count(name: &str, vectors: &[Vector], waivers: &[(u64, Outcome)], unsupported: &[u64]) -> Counts {
    let mut counts = Counts::default();
    for vector in vectors {
        let Vector { id, comment, valid, token, outcome } = vector;
        if let Some((_, expected)) = waivers.iter().find(|(waived, _)| waived == id) {
            assert_eq!(outcome, expected, "{id} {comment}: {token}");
            assert_ne!(*valid, *outcome == Outcome::Accepted, "{id} {comment} needs no waiver");
            counts.waived += 1;
            continue;
        }
        match (valid, outcome) {
            (true, Outcome::Accepted) => counts.accepted += 1,
            (true, Outcome::NotConfigurable) if unsupported.contains(id) => counts.unsupported += 1,
            (false, Outcome::Rejected) => counts.rejected += 1,
            (false, Outcome::NotConfigurable) => counts.not_configurable += 1,
            _ => panic!("{id} {comment}: valid is {valid}, but the outcome is {outcome:?}: {token}"),
        }
    }
    #[expect(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!("{name}: {counts}");
    }
    counts
}

#[test]
fn signatures_have_the_expected_outcome() {
    let waivers = [
        // The key is for another algorithm than the header names, or for one that does not exist.
        (346, Outcome::Rejected),
        (350, Outcome::Rejected),
        (347, Outcome::Rejected),
        (351, Outcome::Rejected),
        // The same token and key as in vector 357, which is valid.
        (367, Outcome::Accepted),
        (370, Outcome::Accepted),
        // A character that is not base64url.
        (372, Outcome::Rejected),
        (373, Outcome::Rejected),
    ];
    let counts = count("json_web_signature", &run(SIGNATURE), &waivers, &[]);
    assert_eq!(counts, Counts { accepted: 40, rejected: 353, waived: 8, ..Counts::default() });
}

#[test]
fn keys_have_the_expected_outcome() {
    let counts = count("json_web_key", &run(KEY), &[], &[14, 15]);
    let expected = Counts { accepted: 3, rejected: 11, not_configurable: 10, unsupported: 2, waived: 0 };
    assert_eq!(counts, expected);
}

#[test]
fn tokens_of_the_older_vectors_have_the_expected_outcome() {
    let counts = count("json_web_crypto", &run(CRYPTO), &[], &[]);
    assert_eq!(counts, Counts { accepted: 4, rejected: 44, not_configurable: 1, ..Counts::default() });
}

#[test]
fn two_waivers_contradict_a_valid_vector() {
    let vectors = run(SIGNATURE);
    let token = |id| &vectors.iter().find(|vector| vector.id == id).expect("the vector").token;
    assert_eq!(token(357), token(367));
    assert_eq!(token(357), token(370));
}

/// Tests [`outcome`], on which the other tests rely.
#[test]
fn valid_and_invalid_signatures_have_different_outcomes() {
    let key = SigningKey::es256();
    let group = json!({ "public": key.jwk("1") });
    let ours = configure(&group).map(verifier);
    let others = verifier(other_keys(&group));
    let good = key.sign("ES256", r#"{"alg":"ES256","kid":"1"}"#, "foo");
    assert_eq!(outcome(ours.as_ref(), &others, &good), Outcome::Accepted);
    let (signed, _) = good.rsplit_once('.').expect("a signature");
    assert_eq!(outcome(ours.as_ref(), &others, &format!("{signed}.{}", base64url([1; 64]))), Outcome::Rejected);
    assert_eq!(outcome(ours.as_ref(), &others, &good.replacen('.', ".A", 1)), Outcome::Rejected);
    assert_eq!(outcome(ours.as_ref(), &others, "foo"), Outcome::Rejected);
}

#[tokio::test]
async fn no_token_of_wycheproof_authenticates_a_request() {
    let mut tested = 0;
    for group in [SIGNATURE, KEY, CRYPTO].into_iter().flat_map(groups) {
        // If the keys cannot be configured, other keys are used.
        let verifier = verifier(configure(&group).unwrap_or_else(|| other_keys(&group)));
        let api = TodoApi::new(TodoService::new(MemoryStore::new()), verifier);
        for (test, token) in tokens(&group) {
            let header = HeaderValue::try_from(format!("Bearer {token}")).expect("visible letters");
            for resource in RESOURCES {
                let path =
                    resource.path.replace("{id}", "01900000-0000-7000-8000-000000000000").replace("{user_id}", "ann");
                let request = Request::get(&path).header(AUTHORIZATION, &header).body(Empty::<Bytes>::new());
                let response = api.respond(resource, request.expect("a request")).await;
                let expected = if resource.operation(&http::Method::GET).is_some() { 401 } else { 405 };
                assert_eq!(response.status(), expected, "{path} {test}");
                assert!(!response.into_body().into_bytes().expect("no stream").is_empty());
            }
            tested += 1;
        }
    }
    assert_eq!(tested, 401 + 26 + 49);
}
