//! Signature algorithms.

use super::*;

/// Creates a module with a test for each algorithm.
macro_rules! for_each_algorithm {
    ($check:ident: $($name:ident $algorithm:literal),+) => {
        mod $check {
            $(#[test]
            fn $name() {
                super::$check($algorithm);
            })+
        }
    };
}

for_each_algorithm! { a_token_signed_by_node_is_accepted:
eddsa "EdDSA", ed25519 "Ed25519", es256 "ES256", es384 "ES384", es512 "ES512", rs256 "RS256", rs384 "RS384",
rs512 "RS512", ps256 "PS256", ps384 "PS384", ps512 "PS512" }

fn a_token_signed_by_node_is_accepted(algorithm: &str) {
    let pair = pair(algorithm);
    let keys = jwks(&[pair["jwk"].clone()]);
    let identity =
        assert_accepted(&at_now([KeySource::jwks(keys).issuers([APP]).audiences([APP])]), text(&pair["token"]));
    assert_eq!(identity.user_id.as_str(), "ann-1");
    assert_eq!(identity.email.as_deref(), Some("ann@example.com"));
    assert_eq!(identity.name.as_deref(), Some("Ann"));
    assert_eq!((identity.issued_at, identity.expires_at), (Some(at(NOW)), Some(at(NOW + 900))));
}

for_each_algorithm! { a_token_issued_by_better_auth_is_accepted:
eddsa "EdDSA", ed25519 "Ed25519", es256 "ES256", es384 "ES384", es512 "ES512", rs256 "RS256", rs512 "RS512",
ps256 "PS256", ps512 "PS512" }

fn a_token_issued_by_better_auth_is_accepted(algorithm: &str) {
    let all = BETTER_AUTH["tokens"].as_array().expect("an array");
    let made = all.iter().find(|made| made["alg"] == algorithm).expect("a token of the algorithm");
    let keys = JwkSet::from_json(&made["jwks"].to_string()).expect("a key set");
    let clock = FixedClock::at(at(BETTER_AUTH["madeAt"].as_i64().expect("a time")));
    let base_url = text(&BETTER_AUTH["baseURL"]);
    let source = KeySource::jwks(keys).issuers([base_url]).audiences([base_url]);
    let identity = assert_accepted(&with_clock([source], clock), text(&made["token"]));
    assert_eq!(identity.user_id.as_str(), made["user"]);
    assert_eq!(identity.email.as_deref(), Some("ann@example.com"));
}

#[test]
fn an_hs256_token_signed_by_node_is_accepted() {
    assert_eq!(assert_accepted(&by_secret(), text(&NODE["hs256"])).user_id.as_str(), "ann-1");
}

#[test]
fn hs384_and_hs512_are_rejected() {
    for name in ["hs384", "hs512"] {
        assert_rejected(&by_secret(), text(&NODE[name]), Refusal::Algorithm);
    }
}

#[test]
fn a_token_is_only_accepted_with_its_own_key() {
    let all: Vec<_> = pairs().iter().map(|pair| pair["jwk"].clone()).collect();
    let all = by_keys(&all);
    for one in pairs() {
        assert_accepted(&all, text(&one["token"]));
        for other in pairs().iter().filter(|other| *other != one) {
            // Another key with the `kid` of the right one.
            let verifier = by_keys(&[changed(other["jwk"].clone(), "kid", one["jwk"]["kid"].clone())]);
            let same_kind =
                matches!((text(&one["alg"]), text(&other["alg"])), ("EdDSA", "Ed25519") | ("Ed25519", "EdDSA"));
            let reason = if same_kind { Refusal::Signature } else { Refusal::UnknownKey };
            assert_rejected(&verifier, text(&one["token"]), reason);
        }
    }
}

#[test]
fn a_key_without_alg_verifies_all_algorithms_of_its_type() {
    for pair in pairs() {
        let verifier = by_keys(&[without(pair["jwk"].clone(), "alg")]);
        assert_accepted(&verifier, text(&pair["token"]));
    }
    let verifier = by_keys(&[RSA.jwk("rsa")]);
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let header = json!({ "alg": algorithm, "kid": "rsa" }).to_string();
        assert_accepted(&verifier, &RSA.sign(algorithm, &header, &claims(json!({})).to_string()));
        for other in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
            if other != algorithm {
                let token = RSA.sign(other, &header, &claims(json!({})).to_string());
                assert_rejected(&verifier, &token, Refusal::Signature);
            }
        }
    }
}

#[test]
fn a_key_with_alg_verifies_only_this_algorithm() {
    for named in ["RS256", "PS512"] {
        let verifier = by_keys(&[changed(RSA.jwk("rsa"), "alg", json!(named))]);
        for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
            let header = json!({ "alg": algorithm, "kid": "rsa" }).to_string();
            let token = RSA.sign(algorithm, &header, &claims(json!({})).to_string());
            if algorithm == named {
                assert_accepted(&verifier, &token);
            } else {
                assert_rejected(&verifier, &token, Refusal::UnknownKey);
            }
        }
    }
}

#[test]
fn eddsa_and_ed25519_are_the_same_algorithm() {
    let key = SigningKey::ed25519();
    for in_key in ["EdDSA", "Ed25519"] {
        let verifier = by_keys(&[changed(key.jwk("1"), "alg", json!(in_key))]);
        for in_header in ["EdDSA", "Ed25519"] {
            let header = json!({ "alg": in_header, "kid": "1" }).to_string();
            assert_accepted(&verifier, &key.sign("EdDSA", &header, &claims(json!({})).to_string()));
        }
    }
}

#[test]
fn a_missing_or_unknown_algorithm_is_rejected() {
    let claims = claims(json!({})).to_string();
    let verifier = at_now([secret(), any(jwks(&[RSA.jwk("rsa")]))]);
    let names = ["none", "None", "NONE", "nOnE", "", "null", "hs256", "HS256 ", "HS256\u{0}", "es256", "ES256K", "HS1"];
    let values = [json!(null), json!(256), json!(["HS256"]), json!({ "HS256": "HS256" }), json!(true)];
    for alg in names.into_iter().map(Value::from).chain(values) {
        let header = json!({ "alg": alg, "typ": "JWT", "kid": "rsa" }).to_string();
        assert_rejected(&verifier, &unsigned(&header, &claims), Refusal::Algorithm);
        assert_rejected(&verifier, &hs256(SECRET.as_bytes(), &header, &claims), Refusal::Algorithm);
        assert_rejected(&verifier, &RSA.sign("RS256", &header, &claims), Refusal::Algorithm);
    }
    assert_rejected(&verifier, &hs256(SECRET.as_bytes(), r#"{"typ":"JWT"}"#, &claims), Refusal::Algorithm);
    assert_rejected(&verifier, &hs256(SECRET.as_bytes(), "{}", &claims), Refusal::Algorithm);
}

#[test]
fn an_empty_or_zero_signature_is_rejected_for_every_algorithm() {
    let keys = any(jwks(&pairs().iter().map(|pair| pair["jwk"].clone()).collect::<Vec<_>>()));
    let verifier = at_now([secret(), keys]);
    for token in pairs().iter().map(|pair| &pair["token"]).chain([&NODE["hs256"]]) {
        let (signed, signature) = text(token).rsplit_once('.').expect("a signature");
        assert_rejected(&verifier, &format!("{signed}."), Refusal::Signature);
        // Only zeros, in the right length.
        let zeros = base64url(vec![0; signature.len() * 3 / 4]);
        assert_rejected(&verifier, &format!("{signed}.{zeros}"), Refusal::Signature);
    }
}

#[test]
fn a_public_key_is_never_used_as_a_secret() {
    for confusion in NODE["confusions"].as_array().expect("an array") {
        let keys = any(jwks(&[pair(text(&confusion["key"]))["jwk"].clone()]));
        assert_rejected(&at_now([keys.clone()]), text(&confusion["token"]), Refusal::Algorithm);
        assert_rejected(&at_now([keys.clone(), secret()]), text(&confusion["token"]), Refusal::Signature);
        assert_rejected(&at_now([secret(), keys]), text(&confusion["token"]), Refusal::Signature);
    }
}

#[test]
fn a_secret_never_verifies_an_asymmetric_algorithm() {
    for pair in pairs() {
        let header = json!({ "alg": pair["alg"], "kid": pair["jwk"]["kid"] }).to_string();
        let token = hs256(SECRET.as_bytes(), &header, &claims(json!({})).to_string());
        assert_rejected(&by_secret(), &token, Refusal::Algorithm);
        assert_rejected(&at_now([secret(), any(jwks(&[pair["jwk"].clone()]))]), &token, Refusal::Signature);
    }
}

/// If `(r, s)` is an ECDSA signature, then so is `(r, -s)`: anyone who has a token can create a second one. RFC 7518
/// allows both forms and issuers use both, so both are accepted. The second token has the same claims and the same
/// expiry.
#[test]
fn both_forms_of_an_es256_signature_have_the_same_claims() {
    // The order of P-256.
    let order: Vec<u8> = [
        [0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        [0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51],
    ]
    .concat();
    let pair = pair("ES256");
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let verifier = with_clock([any(jwks(&[pair["jwk"].clone()]))], Arc::clone(&clock));
    let (signed, signature) = text(&pair["token"]).rsplit_once('.').expect("a signature");
    let mut signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let mut borrow = false;
    for (s, n) in signature[32..].iter_mut().zip(&order).rev() {
        let (difference, under) = n.overflowing_sub(*s);
        let (difference, under_again) = difference.overflowing_sub(u8::from(borrow));
        (*s, borrow) = (difference, under || under_again);
    }
    let second = format!("{signed}.{}", base64url(signature));
    assert_ne!(second, text(&pair["token"]));

    let first = assert_accepted(&verifier, text(&pair["token"]));
    assert_eq!(assert_accepted(&verifier, &second), first);
    clock.set(at(NOW + 930));
    assert_expired(&verifier, &second);
    assert_expired(&verifier, text(&pair["token"]));
    // With changed claims, both signatures are invalid.
    let other = second.replacen('.', ".e30", 1);
    assert_rejected(&verifier, &other, Refusal::Signature);
}
