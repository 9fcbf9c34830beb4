//! Any text as a key set.
//!
//! `serde_json` sees the same keys, and the verifier accepts a token only if the key set contains the key that signed
//! it.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use serde_json::Value;
use todo_core::{
    auth::{AuthError, InvalidJwks, JwkSet, JwtVerifier, KeySource},
    clock::{FixedClock, Timestamp},
};

/// Tokens of every algorithm, and the keys that signed them.
static FIXTURES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../todo-core/tests/fixtures/tokens.json")).expect("JSON")
});

/// Checks a key set.
///
/// # Panics
///
/// If a property of [this module](self) does not hold.
pub fn check(data: &[u8]) {
    let Ok(document) = std::str::from_utf8(data) else { return };
    let set = match JwkSet::from_json(document) {
        Ok(set) => set,
        Err(InvalidJwks::NotJwks) => return,
        Err(InvalidJwks::Secret | InvalidJwks::DuplicateKid | InvalidJwks::TooManyKeys) => {
            assert!(serde_json::from_str::<Value>(document).is_ok());
            return;
        }
        Err(error) => panic!("an error without a check: {error:?}"),
    };
    let value: Value = serde_json::from_str(document).expect("an accepted key set is JSON");
    assert_eq!(value["keys"].as_array().expect("an array").len(), set.len() + set.left_out());
    #[expect(clippy::len_zero, reason = "the two must agree")]
    let has_no_keys = set.len() == 0;
    assert_eq!(set.is_empty(), has_no_keys);
    assert!(set.len() + set.left_out() <= 100);
    let debug = format!("{set:?}");
    assert!(debug.len() < 1000 + 10 * document.len());

    let clock = FixedClock::at(Timestamp::from_unix_seconds(FIXTURES["issuedAt"].as_i64().expect("a time")));
    let source = KeySource::jwks(set).any_issuer().any_audience();
    let verifier = JwtVerifier::builder().source(source).clock(clock).build().expect("a valid source");
    for pair in FIXTURES["pairs"].as_array().expect("an array") {
        let token = pair["token"].as_str().expect("a text");
        match verifier.verify(token).now_or_never().expect("no fetch is needed") {
            Ok(identity) => {
                assert_eq!(identity.user_id.as_str(), "ann-1");
                // The seeds contain the keys of the fixtures.
                let member = if pair["jwk"]["kty"] == "RSA" { "n" } else { "x" };
                let number = |key: &Value| URL_SAFE_NO_PAD.decode(key[member].as_str()?).ok();
                let signed_by = number(&pair["jwk"]).expect("base64url");
                let mut keys = value["keys"].as_array().expect("an array").iter();
                assert!(keys.any(|key| number(key).is_some_and(|number| number.ends_with(&signed_by))), "{token}");
            }
            Err(AuthError::Invalid(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
