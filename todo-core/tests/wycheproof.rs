//! The vectors of Wycheproof for JSON Web Signatures and Keys. See `vectors/wycheproof/SOURCE.md` for where they are
//! from, and where we disagree with them.
//!
//! Their payloads are `foo` and the like, so no token of theirs ever names a user. That a signature was found good is
//! seen from the reason for which the token is refused then: the payload, where the same token with the keys of somebody
//! else is refused for its signature.
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

/// What becomes of a vector with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The signature is good, and the payload is base64url.
    Accepted,
    /// It is not.
    Refused,
    /// The keys cannot be configured, so nothing is accepted.
    NotConfigurable,
}

struct Vector {
    id: u64,
    comment: String,
    valid: bool,
    token: String,
    verdict: Verdict,
}

/// The keys of a group as they would be configured: public ones only, where there are any.
fn configure(group: &Value) -> Option<KeySource> {
    let keys = group.get("public").or(group.get("private")).expect("keys");
    let set = if keys.get("keys").is_some() { keys.clone() } else { json!({ "keys": [keys] }) };
    let members = set["keys"].as_array().expect("keys");
    let kids: std::collections::BTreeSet<_> = members.iter().map(|key| key["kid"].as_str()).collect();
    // A list of secrets has no names. What depends on names has to be given as a document.
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

/// As many keys of the same kinds and under the same names, but somebody else's.
fn strangers(group: &Value) -> KeySource {
    static RSA: LazyLock<SigningKey> = LazyLock::new(SigningKey::rsa2048);
    let Some(keys) = group.get("public") else {
        return KeySource::secrets(["nobody signs with this secret of over thirty-two bytes"]).expect("a good secret");
    };
    let keys = keys.get("keys").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![keys.clone()]);
    let strangers: Vec<Value> = keys
        .iter()
        .map(|key| {
            let mut stranger = match key["crv"].as_str() {
                Some("P-521") => SigningKey::es512().jwk(""),
                Some(_) => SigningKey::es256().jwk(""),
                None => RSA.jwk(""),
            };
            stranger["kid"] = key["kid"].clone();
            if let Some(alg) = key.get("alg").filter(|_| key["kty"] == "RSA") {
                stranger["alg"] = alg.clone();
            }
            stranger
        })
        .collect();
    let set = JwkSet::from_json(&json!({ "keys": strangers }).to_string()).expect("a key set");
    KeySource::jwks(set).any_issuer().any_audience()
}

fn verifier(source: KeySource) -> JwtVerifier {
    JwtVerifier::builder().source(source).build().expect("a good source")
}

fn refusal(verifier: &JwtVerifier, token: &str) -> Refusal {
    match verifier.verify(token).now_or_never().expect("no key has to be fetched") {
        Err(AuthError::Invalid(refusal)) => refusal,
        other => panic!("{other:?} for {token}"),
    }
}

fn judge(verifier: Option<&JwtVerifier>, strangers: &JwtVerifier, token: &str) -> Verdict {
    let Some(verifier) = verifier else {
        return Verdict::NotConfigurable;
    };
    // How the payload is written is looked at after the signature, and a wrong spelling has no name of its own.
    let payload_is_base64url = token.split('.').nth(1).is_some_and(|payload| URL_SAFE_NO_PAD.decode(payload).is_ok());
    let signature_is_good = match (refusal(verifier, token), refusal(strangers, token)) {
        (Refusal::Malformed, Refusal::Signature) => true,
        (Refusal::Malformed, Refusal::Malformed)
        | (Refusal::Signature | Refusal::UnknownKey | Refusal::Algorithm | Refusal::Type, _) => false,
        other => panic!("{other:?} for {token}"),
    };
    if signature_is_good && payload_is_base64url { Verdict::Accepted } else { Verdict::Refused }
}

fn groups(file: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(file).expect("JSON");
    file["testGroups"].as_array().expect("groups").clone()
}

/// The tests of a group that are tokens, with their text.
fn tokens(group: &Value) -> Vec<(&Value, String)> {
    let tests = group["tests"].as_array().expect("tests").iter();
    // In one or two, the other serialization, which is an object.
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
        let strangers = verifier(strangers(&group));
        for (test, token) in tokens {
            vectors.push(Vector {
                id: test["tcId"].as_u64().expect("a number"),
                comment: format!("{} {}", group["comment"], test["comment"]),
                valid: test["result"] == "valid",
                verdict: judge(ours.as_ref(), &strangers, &token),
                token,
            });
        }
    }
    vectors
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Valid ones.
    accepted: usize,
    /// Invalid ones.
    refused: usize,
    /// Invalid ones whose keys cannot even be configured.
    not_configurable: usize,
    /// Valid ones of an algorithm that we do not claim.
    not_claimed: usize,
    /// Those where we disagree.
    waived: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, refused, not_configurable, not_claimed, waived } = self;
        let all = accepted + refused + not_configurable + not_claimed + waived;
        write!(
            f,
            "{all} vectors: {accepted} valid ones accepted, {refused} invalid ones refused, {not_configurable} invalid \
             ones not even configurable, {not_claimed} valid ones of algorithms that are not claimed, {waived} waived"
        )
    }
}

/// Counts what is as the vectors say. What is not must be among the waivers, and they must all be needed.
fn count(name: &str, vectors: &[Vector], waivers: &[(u64, Verdict)], not_claimed: &[u64]) -> Counts {
    let mut counts = Counts::default();
    for vector in vectors {
        let Vector { id, comment, valid, token, verdict } = vector;
        if let Some((_, expected)) = waivers.iter().find(|(waived, _)| waived == id) {
            assert_eq!(verdict, expected, "{id} {comment}: {token}");
            assert_ne!(*valid, *verdict == Verdict::Accepted, "{id} {comment} needs no waiver");
            counts.waived += 1;
            continue;
        }
        match (valid, verdict) {
            (true, Verdict::Accepted) => counts.accepted += 1,
            (true, Verdict::NotConfigurable) if not_claimed.contains(id) => counts.not_claimed += 1,
            (false, Verdict::Refused) => counts.refused += 1,
            (false, Verdict::NotConfigurable) => counts.not_configurable += 1,
            _ => panic!("{id} {comment} is said to be valid: {valid}, and is {verdict:?}: {token}"),
        }
    }
    #[expect(clippy::print_stdout, reason = "for whoever wants to see them")]
    {
        println!("{name}: {counts}");
    }
    counts
}

#[test]
fn signatures_are_judged_as_wycheproof_does() {
    let waivers = [
        // The key is for another algorithm than the header names, or for one that does not exist.
        (346, Verdict::Refused),
        (350, Verdict::Refused),
        (347, Verdict::Refused),
        (351, Verdict::Refused),
        // The same token and key as in 357, which is valid.
        (367, Verdict::Accepted),
        (370, Verdict::Accepted),
        // A letter that is none of base64url.
        (372, Verdict::Refused),
        (373, Verdict::Refused),
    ];
    let counts = count("json_web_signature", &run(SIGNATURE), &waivers, &[]);
    assert_eq!(counts, Counts { accepted: 40, refused: 353, waived: 8, ..Counts::default() });
}

#[test]
fn keys_are_judged_as_wycheproof_does() {
    let counts = count("json_web_key", &run(KEY), &[], &[14, 15]);
    let expected = Counts { accepted: 3, refused: 11, not_configurable: 10, not_claimed: 2, waived: 0 };
    assert_eq!(counts, expected);
}

#[test]
fn the_tokens_among_the_older_vectors_are_judged_as_wycheproof_does() {
    let counts = count("json_web_crypto", &run(CRYPTO), &[], &[]);
    assert_eq!(counts, Counts { accepted: 4, refused: 44, not_configurable: 1, ..Counts::default() });
}

#[test]
fn the_contradiction_for_which_two_waivers_are_needed_is_there() {
    let vectors = run(SIGNATURE);
    let token = |id| &vectors.iter().find(|vector| vector.id == id).expect("the vector").token;
    assert_eq!(token(357), token(367));
    assert_eq!(token(357), token(370));
}

/// The yardstick of these tests: it must be able to tell.
#[test]
fn a_good_signature_is_told_from_a_wrong_one() {
    let key = SigningKey::es256();
    let group = json!({ "public": key.jwk("1") });
    let ours = configure(&group).map(verifier);
    let strangers = verifier(strangers(&group));
    let good = key.sign("ES256", r#"{"alg":"ES256","kid":"1"}"#, "foo");
    assert_eq!(judge(ours.as_ref(), &strangers, &good), Verdict::Accepted);
    let (signed, _) = good.rsplit_once('.').expect("a signature");
    assert_eq!(judge(ours.as_ref(), &strangers, &format!("{signed}.{}", base64url([1; 64]))), Verdict::Refused);
    assert_eq!(judge(ours.as_ref(), &strangers, &good.replacen('.', ".A", 1)), Verdict::Refused);
    assert_eq!(judge(ours.as_ref(), &strangers, "foo"), Verdict::Refused);
}

#[tokio::test]
async fn no_token_of_wycheproof_lets_anybody_in() {
    let mut answered = 0;
    for group in [SIGNATURE, KEY, CRYPTO].into_iter().flat_map(groups) {
        // Where the keys cannot be configured, the server has others.
        let verifier = verifier(configure(&group).unwrap_or_else(|| strangers(&group)));
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
                assert!(!response.body().is_empty());
            }
            answered += 1;
        }
    }
    assert_eq!(answered, 401 + 26 + 49);
}
