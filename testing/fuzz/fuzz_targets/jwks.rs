//! Reading a key set never panics, and whatever keys come of it let nobody in with a token that they did not sign.

#![no_main]

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use todo_core::{
    auth::{AuthError, InvalidJwks, JwkSet, JwtVerifier, KeySource},
    clock::{FixedClock, Timestamp},
};

/// Tokens of every algorithm, and the keys that signed them.
static NODE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../todo-core/tests/fixtures/tokens.json")).expect("JSON"));

fuzz_target!(|document: &str| -> Corpus {
    let set = match JwkSet::from_json(document) {
        Ok(set) => set,
        Err(InvalidJwks::NotJwks) => return Corpus::Keep,
        Err(InvalidJwks::Secret | InvalidJwks::DuplicateKid | InvalidJwks::TooManyKeys) => {
            assert!(serde_json::from_str::<Value>(document).is_ok());
            return Corpus::Keep;
        }
        Err(error) => panic!("what is {error:?}?"),
    };
    // serde_json must see the same keys.
    let value: Value = serde_json::from_str(document).expect("what was read is JSON");
    assert_eq!(value["keys"].as_array().expect("an array").len(), set.len() + set.left_out());
    assert_eq!(set.is_empty(), set.len() == 0);
    assert!(set.len() + set.left_out() <= 100);
    let debug = format!("{set:?}");
    assert!(debug.len() < 1000 + 10 * document.len());

    let clock = FixedClock::at(Timestamp::from_unix_seconds(NODE["issuedAt"].as_i64().expect("a time")));
    let source = KeySource::jwks(set).any_issuer().any_audience();
    let verifier = JwtVerifier::builder().source(source).clock(clock).build().expect("a good source");
    for pair in NODE["pairs"].as_array().expect("an array") {
        let token = pair["token"].as_str().expect("a text");
        match verifier.verify(token).now_or_never().expect("no key has to be fetched") {
            Ok(identity) => {
                assert_eq!(identity.user_id.as_str(), "ann-1");
                // The seeds have the right keys, and they may have been kept.
                let member = if pair["jwk"]["kty"] == "RSA" { "n" } else { "x" };
                let number = |key: &Value| URL_SAFE_NO_PAD.decode(key[member].as_str()?).ok();
                let right = number(&pair["jwk"]).expect("base64url");
                let mut keys = value["keys"].as_array().expect("an array").iter();
                assert!(keys.any(|key| number(key).is_some_and(|number| number.ends_with(&right))), "{token}");
            }
            Err(AuthError::Invalid(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    Corpus::Keep
});
