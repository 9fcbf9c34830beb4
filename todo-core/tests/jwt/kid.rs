//! How the key of a token is found.

use super::*;

#[test]
fn keys_in_the_header_are_ignored() {
    let (trusted, untrusted) = (SigningKey::ed25519(), SigningKey::ed25519());
    let verifier = by_keys(&[trusted.jwk("known")]);
    let claims = claims(json!({})).to_string();
    let members = [
        ("jwk", untrusted.jwk("known")),
        ("jku", json!("http://127.0.0.1:9/jwks.json")),
        ("x5u", json!("file:///etc/ssl/certs/ca.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("c3RyYW5nZXI")),
    ];
    for (name, value) in members {
        let header = |kid: &str| json!({ "alg": "EdDSA", "kid": kid, name: value }).to_string();
        assert_rejected(&verifier, &untrusted.sign("EdDSA", &header("known"), &claims), Refusal::Signature);
        assert_rejected(&verifier, &untrusted.sign("EdDSA", &header("own"), &claims), Refusal::UnknownKey);
        assert_accepted(&verifier, &trusted.sign("EdDSA", &header("known"), &claims));
        // The key in the header does not help if the set is empty either.
        assert_rejected(&by_keys(&[]), &untrusted.sign("EdDSA", &header("known"), &claims), Refusal::UnknownKey);
    }
}

#[test]
fn a_kid_is_only_compared() {
    let key = SigningKey::es256();
    let verifier = by_keys(&[key.jwk("1")]);
    let long = "1".repeat(11_000);
    for kid in [
        "",
        " 1",
        "1 ",
        "01",
        "1\u{0}",
        "../../../../dev/null",
        "1' OR '1'='1",
        "key.pem|id",
        "http://[::1]/",
        "\u{ff11}",
        &long,
    ] {
        assert_rejected(&verifier, &key.token(kid, &claims(json!({}))), Refusal::UnknownKey);
        assert_accepted(&by_keys(&[key.jwk(kid)]), &key.token(kid, &claims(json!({}))));
    }
    assert_accepted(&verifier, &key.token("1", &claims(json!({}))));
}

#[test]
fn a_kid_must_be_a_string() {
    let key = SigningKey::es256();
    for kid in [json!(1), json!(null), json!(["1"]), json!({}), json!(true)] {
        let header = json!({ "alg": "ES256", "kid": kid }).to_string();
        let token = key.sign("ES256", &header, &claims(json!({})).to_string());
        assert_rejected(&by_keys(&[key.jwk("1")]), &token, Refusal::Malformed);
        assert_eq!(usable(&[changed(key.jwk("1"), "kid", kid)]), 0);
    }
}

#[test]
fn a_kid_does_not_select_a_file_as_secret() {
    // The attack: `kid` is the path of a file with known content, here an empty one.
    let claims = claims(json!({})).to_string();
    for kid in ["/dev/null", "../../../../../../dev/null", "x' UNION SELECT '"] {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        assert_rejected(&by_secret(), &hs256(b"", &header, &claims), Refusal::Signature);
        assert_accepted(&by_secret(), &hs256(SECRET.as_bytes(), &header, &claims));
    }
}

#[test]
fn a_token_without_kid_needs_exactly_one_matching_key() {
    let (one, two) = (SigningKey::es256(), SigningKey::es256());
    let token = one.sign("ES256", r#"{"alg":"ES256"}"#, &claims(json!({})).to_string());
    let nameless = |key: &SigningKey| without(key.jwk(""), "kid");
    assert_accepted(&by_keys(&[one.jwk("1")]), &token);
    assert_accepted(&by_keys(&[nameless(&one)]), &token);
    assert_accepted(&by_keys(&[one.jwk("1"), RSA.jwk("2"), SigningKey::es384().jwk("3")]), &token);
    assert_rejected(&by_keys(&[one.jwk("1"), two.jwk("2")]), &token, Refusal::UnknownKey);
    assert_rejected(&by_keys(&[nameless(&one), nameless(&two)]), &token, Refusal::UnknownKey);
    assert_rejected(&by_keys(&[RSA.jwk("1")]), &token, Refusal::UnknownKey);
    assert_rejected(&by_keys(&[]), &token, Refusal::UnknownKey);
    // The token has a `kid`, and the key has none.
    assert_rejected(&by_keys(&[nameless(&one)]), &one.token("1", &claims(json!({}))), Refusal::UnknownKey);
}

#[test]
fn a_set_with_a_duplicate_kid_is_rejected() {
    let keys = [SigningKey::es256().jwk("1"), SigningKey::ed25519().jwk("1")];
    assert_eq!(JwkSet::from_json(&json!({ "keys": keys }).to_string()).err(), Some(InvalidJwks::DuplicateKid));
    // The same name with an escape sequence.
    let written = json!({ "keys": keys }).to_string().replacen(r#""kid":"1""#, r#""kid":"\u0031""#, 1);
    assert_eq!(JwkSet::from_json(&written).err(), Some(InvalidJwks::DuplicateKid));
}
