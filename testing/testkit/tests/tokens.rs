//! Another implementation accepts the tokens.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, jwk::Jwk};
use serde_json::{Value, json};
use testkit::tokens::{self, SigningKey};

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

/// The claims, if the signature is right and the token has not expired.
fn verified(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<Value> {
    decode(token, key, &Validation::new(algorithm)).ok().map(|token| token.claims)
}

fn parts(token: &str) -> Vec<Vec<u8>> {
    token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect()
}

#[test]
fn user_token_is_valid_for_an_hour() {
    let token = tokens::user_token(SECRET, "ann");
    let claims = verified(&token, &DecodingKey::from_secret(SECRET), Algorithm::HS256).unwrap();
    assert_eq!(claims["sub"], "ann");
    let left = claims["exp"].as_i64().unwrap() - tokens::now();
    assert!((3590..=3600).contains(&left), "{left} seconds");
    assert_eq!(verified(&token, &DecodingKey::from_secret(b"another secret"), Algorithm::HS256), None);
}

#[test]
fn header_and_claims_are_signed_as_they_are_written() {
    let (header, claims) = (r#"{ "crit":["b64"], "alg":"HS256","alg":"none" }"#, r#"{"sub":"ann", "sub":"bob"}"#);
    let token = tokens::hs256(SECRET, header, claims);
    let parts = parts(&token);
    assert_eq!(parts[..2], [header.as_bytes(), claims.as_bytes()]);
    let (message, _) = token.rsplit_once('.').unwrap();
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let expected = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    assert_eq!(tokens::base64url(&parts[2]), expected);
}

#[test]
fn unsigned_token_ends_with_a_dot() {
    assert_eq!(tokens::unsigned(r#"{"alg":"none"}"#, "{}"), "eyJhbGciOiJub25lIn0.e30.");
}

#[test]
fn key_set_members_verify_what_their_keys_sign() {
    let cases = [
        (SigningKey::ed25519(), vec![("EdDSA", Algorithm::EdDSA)]),
        (SigningKey::es256(), vec![("ES256", Algorithm::ES256)]),
        (SigningKey::es384(), vec![("ES384", Algorithm::ES384)]),
        (
            SigningKey::rsa2048(),
            vec![
                ("RS256", Algorithm::RS256),
                ("RS384", Algorithm::RS384),
                ("RS512", Algorithm::RS512),
                ("PS256", Algorithm::PS256),
                ("PS384", Algorithm::PS384),
                ("PS512", Algorithm::PS512),
            ],
        ),
    ];
    let claims = tokens::claims("ann");
    for (key, algorithms) in &cases {
        let jwk = key.jwk("first");
        assert_eq!(jwk["kid"], "first");
        let public = DecodingKey::from_jwk(&serde_json::from_value::<Jwk>(jwk).unwrap()).unwrap();
        for (name, algorithm) in algorithms {
            let token = key.sign(name, &json!({ "alg": name }).to_string(), &claims.to_string());
            assert_eq!(verified(&token, &public, *algorithm).as_ref(), Some(&claims), "{name}");
            let (message, signature) = token.rsplit_once('.').unwrap();
            let forged = format!("{}.{}.{signature}", message.split('.').next().unwrap(), tokens::base64url("{}"));
            assert_eq!(verified(&forged, &public, *algorithm), None, "{name}");
        }
        let valid = key.token("first", &claims);
        assert_eq!(verified(&valid, &public, algorithms[0].1).as_ref(), Some(&claims));
        assert_eq!(jsonwebtoken::decode_header(&valid).unwrap().kid.as_deref(), Some("first"));
    }
}

#[test]
fn es512_verifies_too() {
    let key = SigningKey::es512();
    let jwk = key.jwk("first");
    assert_eq!((&jwk["kty"], &jwk["crv"], &jwk["alg"]), (&json!("EC"), &json!("P-521"), &json!("ES512")));
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let token = key.token("first", &tokens::claims("ann"));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert_eq!(signature.len(), 132);
    UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).verify(message.as_bytes(), &signature).unwrap();
}

#[test]
fn rsa_key_has_2048_bits_and_the_usual_exponent() {
    let jwk = SigningKey::rsa2048().jwk("first");
    assert_eq!(URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap().len(), 256);
    assert_eq!(jwk["e"], "AQAB");
}

#[test]
#[should_panic = "does not sign with ES512"]
fn a_key_does_not_sign_with_the_algorithm_of_another_key() {
    let _ = SigningKey::es256().sign("ES512", "{}", "{}");
}
