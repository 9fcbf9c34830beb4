//! What `JwtVerifier` accepts and what it refuses, and why.
//!
//! The tokens in `fixtures` are made by node's crypto and by a real Better Auth; the wrong ones are made here, each with a
//! signature that is right, so that nothing but its own fault can be the reason.

use std::{collections::BTreeSet, sync::Arc, sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use serde_json::{Map, Value, json};
use testkit::tokens::{HS256_HEADER, SigningKey, base64url, hs256, secret_token, unsigned};
use todo_core::{
    auth::{
        AuthError, Identity, InvalidJwks, InvalidSource, JwkSet, JwtVerifier, JwtVerifierBuilder, KeySource, Refusal,
        Shape,
    },
    clock::{Clock, FixedClock, Timestamp},
};

const NOW: i64 = 1_763_712_000;
const APP: &str = "https://app.example.com";
const SECRET: &str = "a secret of more than thirty-two bytes, for these tests only";

static NODE: LazyLock<Value> = LazyLock::new(|| parse(include_str!("fixtures/tokens.json")));
static BETTER_AUTH: LazyLock<Value> = LazyLock::new(|| parse(include_str!("fixtures/better-auth.json")));

// Making an RSA key takes a moment.
static RSA: LazyLock<SigningKey> = LazyLock::new(SigningKey::rsa2048);

fn parse(json: &str) -> Value {
    serde_json::from_str(json).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn jwks(keys: &[Value]) -> JwkSet {
    JwkSet::from_json(&json!({ "keys": keys }).to_string()).expect("a key set")
}

/// How many keys of these can be used.
fn usable(keys: &[Value]) -> usize {
    jwks(keys).len()
}

fn at_now(sources: impl IntoIterator<Item = KeySource>) -> JwtVerifier {
    with_clock(sources, FixedClock::at(at(NOW)))
}

fn with_clock(sources: impl IntoIterator<Item = KeySource>, clock: impl Clock + 'static) -> JwtVerifier {
    let builder = JwtVerifier::builder().clock(clock);
    sources.into_iter().fold(builder, JwtVerifierBuilder::source).build().expect("good sources")
}

fn secret() -> KeySource {
    KeySource::secrets([SECRET]).expect("a good secret")
}

/// Takes tokens with the secret, and nothing is demanded of issuer and audience.
fn by_secret() -> JwtVerifier {
    at_now([secret()])
}

fn any(keys: JwkSet) -> KeySource {
    KeySource::jwks(keys).any_issuer().any_audience()
}

fn by_keys(keys: &[Value]) -> JwtVerifier {
    at_now([any(jwks(keys))])
}

/// Who the token says its bearer is. The keys are at hand, so it is said at once.
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
fn assert_refused(verifier: &JwtVerifier, token: &str, reason: Refusal) {
    match verify(verifier, token) {
        Err(AuthError::Invalid(refusal)) => assert_eq!(refusal, reason, "{token}"),
        other => panic!("{other:?} instead of {reason:?}: {token}"),
    }
}

#[track_caller]
fn assert_expired(verifier: &JwtVerifier, token: &str) {
    let answer = verify(verifier, token);
    assert!(matches!(answer, Err(AuthError::Expired)), "{answer:?}: {token}");
}

/// Claims that are good, with these beside them or in their place; `null` takes one away.
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

/// A token with the secret and good claims but for these changes.
fn token(changes: Value) -> String {
    secret_token(SECRET.as_bytes(), &claims(changes))
}

/// A token with the secret and these claims, which are taken as they stand.
fn raw(claims: &str) -> String {
    hs256(SECRET.as_bytes(), HS256_HEADER, claims)
}

/// A token with the secret and this header, which is taken as it stands.
fn headed(header: &str) -> String {
    hs256(SECRET.as_bytes(), header, &claims(json!({})).to_string())
}

/// A token with the secret over these two parts, which need not be base64url of anything.
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

// Algorithms

/// Makes a module of this name with a test for each algorithm.
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

for_each_algorithm! { a_token_made_by_node_is_accepted:
eddsa "EdDSA", ed25519 "Ed25519", es256 "ES256", es384 "ES384", es512 "ES512", rs256 "RS256", rs384 "RS384",
rs512 "RS512", ps256 "PS256", ps384 "PS384", ps512 "PS512" }

fn a_token_made_by_node_is_accepted(algorithm: &str) {
    let pair = pair(algorithm);
    let keys = jwks(&[pair["jwk"].clone()]);
    let identity =
        assert_accepted(&at_now([KeySource::jwks(keys).issuers([APP]).audiences([APP])]), text(&pair["token"]));
    assert_eq!(identity.user_id.as_str(), "ann-1");
    assert_eq!(identity.email.as_deref(), Some("ann@example.com"));
    assert_eq!(identity.name.as_deref(), Some("Ann"));
    assert_eq!((identity.issued_at, identity.expires_at), (Some(at(NOW)), Some(at(NOW + 900))));
}

for_each_algorithm! { a_token_made_by_better_auth_is_accepted:
eddsa "EdDSA", ed25519 "Ed25519", es256 "ES256", es384 "ES384", es512 "ES512", rs256 "RS256", rs512 "RS512",
ps256 "PS256", ps512 "PS512" }

fn a_token_made_by_better_auth_is_accepted(algorithm: &str) {
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
fn an_hs256_token_made_by_node_is_accepted() {
    assert_eq!(assert_accepted(&by_secret(), text(&NODE["hs256"])).user_id.as_str(), "ann-1");
}

#[test]
fn other_hmac_algorithms_are_refused_though_the_secret_is_right() {
    for name in ["hs384", "hs512"] {
        assert_refused(&by_secret(), text(&NODE[name]), Refusal::Algorithm);
    }
}

#[test]
fn a_token_of_any_algorithm_is_accepted_from_one_set_and_refused_by_every_other_key() {
    let all: Vec<_> = pairs().iter().map(|pair| pair["jwk"].clone()).collect();
    let all = by_keys(&all);
    for one in pairs() {
        assert_accepted(&all, text(&one["token"]));
        for other in pairs().iter().filter(|other| *other != one) {
            // The other key, under the name of the right one.
            let verifier = by_keys(&[changed(other["jwk"].clone(), "kid", one["jwk"]["kid"].clone())]);
            let same_kind =
                matches!((text(&one["alg"]), text(&other["alg"])), ("EdDSA", "Ed25519") | ("Ed25519", "EdDSA"));
            let reason = if same_kind { Refusal::Signature } else { Refusal::UnknownKey };
            assert_refused(&verifier, text(&one["token"]), reason);
        }
    }
}

#[test]
fn the_kind_of_a_key_decides_if_it_names_no_algorithm() {
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
                assert_refused(&verifier, &token, Refusal::Signature);
            }
        }
    }
}

#[test]
fn a_key_that_names_an_algorithm_is_for_no_other() {
    for named in ["RS256", "PS512"] {
        let verifier = by_keys(&[changed(RSA.jwk("rsa"), "alg", json!(named))]);
        for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
            let header = json!({ "alg": algorithm, "kid": "rsa" }).to_string();
            let token = RSA.sign(algorithm, &header, &claims(json!({})).to_string());
            if algorithm == named {
                assert_accepted(&verifier, &token);
            } else {
                assert_refused(&verifier, &token, Refusal::UnknownKey);
            }
        }
    }
}

#[test]
fn eddsa_and_ed25519_are_two_names_of_one_algorithm() {
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
fn a_header_without_an_algorithm_that_is_known_is_refused() {
    let claims = claims(json!({})).to_string();
    let verifier = at_now([secret(), any(jwks(&[RSA.jwk("rsa")]))]);
    let names = ["none", "None", "NONE", "nOnE", "", "null", "hs256", "HS256 ", "HS256\u{0}", "es256", "ES256K", "HS1"];
    let values = [json!(null), json!(256), json!(["HS256"]), json!({ "HS256": "HS256" }), json!(true)];
    for alg in names.into_iter().map(Value::from).chain(values) {
        let header = json!({ "alg": alg, "typ": "JWT", "kid": "rsa" }).to_string();
        assert_refused(&verifier, &unsigned(&header, &claims), Refusal::Algorithm);
        assert_refused(&verifier, &hs256(SECRET.as_bytes(), &header, &claims), Refusal::Algorithm);
        assert_refused(&verifier, &RSA.sign("RS256", &header, &claims), Refusal::Algorithm);
    }
    assert_refused(&verifier, &hs256(SECRET.as_bytes(), r#"{"typ":"JWT"}"#, &claims), Refusal::Algorithm);
    assert_refused(&verifier, &hs256(SECRET.as_bytes(), "{}", &claims), Refusal::Algorithm);
}

#[test]
fn an_empty_signature_is_refused_for_every_algorithm() {
    let keys = any(jwks(&pairs().iter().map(|pair| pair["jwk"].clone()).collect::<Vec<_>>()));
    let verifier = at_now([secret(), keys]);
    for token in pairs().iter().map(|pair| &pair["token"]).chain([&NODE["hs256"]]) {
        let (signed, signature) = text(token).rsplit_once('.').expect("a signature");
        assert_refused(&verifier, &format!("{signed}."), Refusal::Signature);
        // Nothing but zeros, in the right length.
        let zeros = base64url(vec![0; signature.len() * 3 / 4]);
        assert_refused(&verifier, &format!("{signed}.{zeros}"), Refusal::Signature);
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    for confusion in NODE["confusions"].as_array().expect("an array") {
        let keys = any(jwks(&[pair(text(&confusion["key"]))["jwk"].clone()]));
        assert_refused(&at_now([keys.clone()]), text(&confusion["token"]), Refusal::Algorithm);
        assert_refused(&at_now([keys.clone(), secret()]), text(&confusion["token"]), Refusal::Signature);
        assert_refused(&at_now([secret(), keys]), text(&confusion["token"]), Refusal::Signature);
    }
}

#[test]
fn a_secret_never_checks_an_asymmetric_token() {
    for pair in pairs() {
        let header = json!({ "alg": pair["alg"], "kid": pair["jwk"]["kid"] }).to_string();
        let token = hs256(SECRET.as_bytes(), &header, &claims(json!({})).to_string());
        assert_refused(&by_secret(), &token, Refusal::Algorithm);
        assert_refused(&at_now([secret(), any(jwks(&[pair["jwk"].clone()]))]), &token, Refusal::Signature);
    }
}

// Which key

#[test]
fn keys_that_the_header_brings_along_are_ignored() {
    let (trusted, strangers) = (SigningKey::ed25519(), SigningKey::ed25519());
    let verifier = by_keys(&[trusted.jwk("known")]);
    let claims = claims(json!({})).to_string();
    let members = [
        ("jwk", strangers.jwk("known")),
        ("jku", json!("http://127.0.0.1:9/jwks.json")),
        ("x5u", json!("file:///etc/ssl/certs/ca.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("c3RyYW5nZXI")),
    ];
    for (name, value) in members {
        let header = |kid: &str| json!({ "alg": "EdDSA", "kid": kid, name: value }).to_string();
        assert_refused(&verifier, &strangers.sign("EdDSA", &header("known"), &claims), Refusal::Signature);
        assert_refused(&verifier, &strangers.sign("EdDSA", &header("own"), &claims), Refusal::UnknownKey);
        assert_accepted(&verifier, &trusted.sign("EdDSA", &header("known"), &claims));
        // A stranger's key does not help where there is none at all.
        assert_refused(&by_keys(&[]), &strangers.sign("EdDSA", &header("known"), &claims), Refusal::UnknownKey);
    }
}

#[test]
fn a_kid_is_compared_and_nothing_else() {
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
        assert_refused(&verifier, &key.token(kid, &claims(json!({}))), Refusal::UnknownKey);
        assert_accepted(&by_keys(&[key.jwk(kid)]), &key.token(kid, &claims(json!({}))));
    }
    assert_accepted(&verifier, &key.token("1", &claims(json!({}))));
}

#[test]
fn a_kid_that_is_no_text_is_refused() {
    let key = SigningKey::es256();
    for kid in [json!(1), json!(null), json!(["1"]), json!({}), json!(true)] {
        let header = json!({ "alg": "ES256", "kid": kid }).to_string();
        let token = key.sign("ES256", &header, &claims(json!({})).to_string());
        assert_refused(&by_keys(&[key.jwk("1")]), &token, Refusal::Malformed);
        assert_eq!(usable(&[changed(key.jwk("1"), "kid", kid)]), 0);
    }
}

#[test]
fn a_kid_leads_a_secret_to_no_file() {
    // The trick: a path to a file whose content is known, here none, as the key.
    let claims = claims(json!({})).to_string();
    for kid in ["/dev/null", "../../../../../../dev/null", "x' UNION SELECT '"] {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        assert_refused(&by_secret(), &hs256(b"", &header, &claims), Refusal::Signature);
        assert_accepted(&by_secret(), &hs256(SECRET.as_bytes(), &header, &claims));
    }
}

#[test]
fn without_a_kid_there_must_be_no_choice() {
    let (one, two) = (SigningKey::es256(), SigningKey::es256());
    let token = one.sign("ES256", r#"{"alg":"ES256"}"#, &claims(json!({})).to_string());
    let nameless = |key: &SigningKey| without(key.jwk(""), "kid");
    assert_accepted(&by_keys(&[one.jwk("1")]), &token);
    assert_accepted(&by_keys(&[nameless(&one)]), &token);
    assert_accepted(&by_keys(&[one.jwk("1"), RSA.jwk("2"), SigningKey::es384().jwk("3")]), &token);
    assert_refused(&by_keys(&[one.jwk("1"), two.jwk("2")]), &token, Refusal::UnknownKey);
    assert_refused(&by_keys(&[nameless(&one), nameless(&two)]), &token, Refusal::UnknownKey);
    assert_refused(&by_keys(&[RSA.jwk("1")]), &token, Refusal::UnknownKey);
    assert_refused(&by_keys(&[]), &token, Refusal::UnknownKey);
    // A name that the key does not have.
    assert_refused(&by_keys(&[nameless(&one)]), &one.token("1", &claims(json!({}))), Refusal::UnknownKey);
}

#[test]
fn two_keys_of_one_name_make_the_set_unusable() {
    let keys = [SigningKey::es256().jwk("1"), SigningKey::ed25519().jwk("1")];
    assert_eq!(JwkSet::from_json(&json!({ "keys": keys }).to_string()).err(), Some(InvalidJwks::DuplicateKid));
    // Written differently.
    let written = json!({ "keys": keys }).to_string().replacen(r#""kid":"1""#, r#""kid":"\u0031""#, 1);
    assert_eq!(JwkSet::from_json(&written).err(), Some(InvalidJwks::DuplicateKid));
}

// What makes a key unusable

#[test]
fn a_key_for_something_else_than_signatures_is_left_out() {
    let key = SigningKey::es256();
    let token = key.token("1", &claims(json!({})));
    let left_out = [
        ("use", json!("enc")),
        ("use", json!("")),
        ("use", json!("SIG")),
        ("use", json!(["sig"])),
        ("use", json!(null)),
        ("key_ops", json!([])),
        ("key_ops", json!(["encrypt"])),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!(["Verify"])),
        ("key_ops", json!("verify")),
        ("key_ops", json!(null)),
        ("key_ops", json!([["verify"]])),
    ];
    for (member, value) in left_out {
        let set = jwks(&[changed(key.jwk("1"), member, value.clone())]);
        assert_eq!((set.len(), set.left_out()), (0, 1), "{member} {value}");
        assert_refused(&at_now([any(set)]), &token, Refusal::UnknownKey);
    }
    for (member, value) in
        [("use", json!("sig")), ("key_ops", json!(["verify"])), ("key_ops", json!(["sign", "verify"]))]
    {
        assert_accepted(&by_keys(&[changed(key.jwk("1"), member, value)]), &token);
    }
    let contradictory = changed(changed(key.jwk("1"), "use", json!("sig")), "key_ops", json!(["encrypt"]));
    assert_eq!(usable(&[contradictory]), 0);
}

#[test]
fn a_key_whose_algorithm_contradicts_its_kind_is_left_out() {
    let kinds =
        [SigningKey::ed25519().jwk("1"), SigningKey::es256().jwk("1"), SigningKey::es512().jwk("1"), RSA.jwk("1")];
    let foreign = [
        ["ES256", "RS256", "HS256"],
        ["ES384", "EdDSA", "HS256"],
        ["ES256", "ES521", "PS256"],
        ["EdDSA", "HS256", "RSA-OAEP"],
    ];
    for (jwk, foreign) in kinds.into_iter().zip(foreign) {
        assert_eq!(usable(std::slice::from_ref(&jwk)), 1);
        for alg in foreign.into_iter().chain(["none", "", "A256GCM"]).map(Value::from).chain([json!(null), json!(7)]) {
            assert_eq!(usable(&[changed(jwk.clone(), "alg", alg.clone())]), 0, "{alg} for {jwk}");
        }
    }
}

#[test]
fn keys_of_node_that_are_too_weak_or_of_unknown_kind_are_left_out() {
    for other in NODE["others"].as_array().expect("an array") {
        for jwk in [other["jwk"].clone(), without(other["jwk"].clone(), "alg")] {
            let set = jwks(&[jwk]);
            assert_eq!((set.len(), set.left_out()), (0, 1), "{other}");
            let verifier = at_now([any(set)]);
            let reason = if other["alg"] == "ES256K" { Refusal::Algorithm } else { Refusal::UnknownKey };
            assert_refused(&verifier, text(&other["token"]), reason);
        }
    }
}

#[test]
fn an_rsa_key_has_a_modulus_and_an_exponent_that_are_sound() {
    let jwk = RSA.jwk("1");
    let number = |bytes: &[u8]| json!(base64url(bytes));
    for e in [&[][..], &[0], &[1], &[0, 1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1], &[0xff; 256]] {
        assert_eq!(usable(&[changed(jwk.clone(), "e", number(e))]), 0, "{e:?}");
    }
    let odd = |bytes: usize, first: u8| {
        let mut n = vec![0xa5; bytes];
        n[0] = first;
        number(&n)
    };
    for n in [number(&[]), number(&[0; 256]), odd(255, 0xff), odd(256, 0x7f), odd(1025, 1), json!(null), json!(5)] {
        assert_eq!(usable(&[changed(jwk.clone(), "n", n.clone())]), 0, "{n}");
    }
    for member in ["n", "e"] {
        assert_eq!(usable(&[without(jwk.clone(), member)]), 0);
    }
    assert_eq!(usable(&[changed(jwk.clone(), "n", odd(256, 0x80))]), 1);
    assert_eq!(usable(&[changed(jwk, "e", number(&[3]))]), 1);
}

#[test]
fn an_rsa_key_that_can_be_factored_is_left_out() {
    let vectors = parse(include_str!("vectors/wycheproof/json_web_key_test.json"));
    let group =
        vectors["testGroups"].as_array().expect("groups").iter().find(|group| group["comment"] == "jws_rsa_roca_key");
    let set = JwkSet::from_json(&group.expect("a group")["public"].to_string()).expect("a key set");
    assert_eq!((set.len(), set.left_out()), (0, 1));
}

#[test]
fn a_point_lies_on_the_curve_that_the_key_names() {
    for key in [SigningKey::es256(), SigningKey::es384(), SigningKey::es512()] {
        let jwk = without(key.jwk("1"), "alg");
        assert_eq!(usable(std::slice::from_ref(&jwk)), 1);
        for curve in ["P-256", "P-384", "P-521", "secp256k1", "p-256", "Ed25519", ""] {
            assert_eq!(
                usable(&[changed(jwk.clone(), "crv", json!(curve))]),
                usize::from(jwk["crv"] == curve),
                "{curve}"
            );
        }
        let swapped = changed(changed(jwk.clone(), "x", jwk["y"].clone()), "y", jwk["x"].clone());
        assert_eq!(usable(&[swapped]), 0, "off the curve");
        let other = match key.algorithm() {
            "ES256" => SigningKey::es256(),
            "ES384" => SigningKey::es384(),
            _ => SigningKey::es512(),
        };
        assert_eq!(usable(&[changed(jwk.clone(), "y", other.jwk("1")["y"].clone())]), 0, "off the curve");
        for (member, value) in
            [("kty", json!("RSA")), ("kty", json!("OKP")), ("kty", json!("ec")), ("kty", json!(null))]
        {
            assert_eq!(usable(&[changed(jwk.clone(), member, value)]), 0);
        }
        for member in ["kty", "crv", "x", "y"] {
            assert_eq!(usable(&[without(jwk.clone(), member)]), 0, "without {member}");
        }
        // The same bytes, cut elsewhere.
        let [x, y] = ["x", "y"].map(|member| URL_SAFE_NO_PAD.decode(text(&jwk[member])).expect("base64url"));
        let (cut, point) = (x.len() - 1, [x, y].concat());
        let shifted = changed(jwk.clone(), "x", json!(base64url(&point[..cut])));
        assert_eq!(usable(&[changed(shifted, "y", json!(base64url(&point[cut..])))]), 0);
        // The point at infinity, and coordinates of another width.
        let zero = json!(base64url([0; 32]));
        assert_eq!(usable(&[changed(changed(jwk.clone(), "x", zero.clone()), "y", zero)]), 0);
        for x in [format!("AA{}", text(&jwk["x"])), text(&jwk["x"])[2..].to_owned(), format!("{}=", text(&jwk["x"]))] {
            assert_eq!(usable(&[changed(jwk.clone(), "x", json!(x))]), 0, "{x}");
        }
    }
}

#[test]
fn an_ed25519_key_is_32_bytes_of_that_curve() {
    let jwk = without(SigningKey::ed25519().jwk("1"), "alg");
    assert_eq!(usable(std::slice::from_ref(&jwk)), 1);
    for x in [vec![], vec![7; 31], vec![7; 33], vec![7; 57]] {
        assert_eq!(usable(&[changed(jwk.clone(), "x", json!(base64url(x)))]), 0);
    }
    for curve in ["X25519", "Ed448", "ed25519", "P-256", ""] {
        assert_eq!(usable(&[changed(jwk.clone(), "crv", json!(curve))]), 0, "{curve}");
    }
    assert_eq!(usable(&[changed(jwk.clone(), "kty", json!("EC"))]), 0);
    assert_eq!(usable(&[changed(jwk, "x", json!("+".repeat(43)))]), 0, "not base64url");
}

#[test]
fn an_ed25519_key_of_small_order_is_left_out() {
    // With the neutral element as key, its own encoding and a zero are a signature of everything.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": base64url(neutral) });
    let message = format!("{}.{}", base64url(r#"{"alg":"EdDSA","kid":"1"}"#), base64url(claims(json!({})).to_string()));
    let forged = format!("{message}.{}", base64url([neutral, [0; 32]].concat()));
    assert_refused(&by_keys(std::slice::from_ref(&jwk)), &forged, Refusal::UnknownKey);

    let eight = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for hex in eight {
        let mut x: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")).collect();
        assert_eq!(usable(&[changed(jwk.clone(), "x", json!(base64url(&x)))]), 0, "{hex}");
        x[31] |= 0x80;
        assert_eq!(usable(&[changed(jwk.clone(), "x", json!(base64url(&x)))]), 0, "{hex} with the other sign");
    }
}

#[test]
fn a_key_with_a_member_given_twice_is_left_out_and_the_others_count() {
    let (one, two) = (SigningKey::es256(), SigningKey::es256());
    for again in
        [r#""crv":"P-256""#, r#""\u0063rv":"P-256""#, r#""kid":"3""#, r#""ext":1,"ext":2"#, r#""a":{"b":1,"b":1}"#]
    {
        let ambiguous = one.jwk("1").to_string().replacen('{', &format!("{{{again},"), 1);
        let set = JwkSet::from_json(&format!(r#"{{"keys":[{ambiguous},{}]}}"#, two.jwk("2"))).expect("a key set");
        assert_eq!((set.len(), set.left_out()), (1, 1), "{again}");
        let verifier = at_now([any(set)]);
        assert_refused(&verifier, &one.token("1", &claims(json!({}))), Refusal::UnknownKey);
        assert_accepted(&verifier, &two.token("2", &claims(json!({}))));
    }
}

#[test]
fn a_set_with_a_secret_or_private_member_is_refused_as_a_whole() {
    let good = SigningKey::es256().jwk("good");
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        for value in [json!("AAAA"), json!(""), json!(null), json!([])] {
            let set = json!({ "keys": [good, changed(RSA.jwk("1"), member, value)] }).to_string();
            assert_eq!(JwkSet::from_json(&set).err(), Some(InvalidJwks::Secret), "{member}");
            // Written differently.
            let written = set
                .replace(&format!(r#""{member}":"#), &format!(r#""\u{:04x}{}":"#, member.as_bytes()[0], &member[1..]));
            assert_ne!(written, set);
            assert_eq!(JwkSet::from_json(&written).err(), Some(InvalidJwks::Secret), "{member}");
        }
    }
    let oct = json!({ "kty": "oct", "alg": "HS256", "kid": "1", "k": base64url(SECRET) });
    assert_eq!(JwkSet::from_json(&json!({ "keys": [good, oct] }).to_string()).err(), Some(InvalidJwks::Secret));
    assert_eq!(usable(&[json!({ "kty": "oct", "alg": "HS256", "kid": "1" })]), 0);
}

#[test]
fn what_is_no_key_set_is_refused() {
    let key = SigningKey::es256().jwk("1");
    for document in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"keys":null}"#.to_owned(),
        r#"{"keys":{}}"#.to_owned(),
        r#"{"keys":[1]}"#.to_owned(),
        r#"{"keys":[[]]}"#.to_owned(),
        r#"{"Keys":[]}"#.to_owned(),
        r#"{"keys":[],"keys":[]}"#.to_owned(),
        r#"{"keys":[],"\u006beys":[]}"#.to_owned(),
        r#"{"keys":[]} x"#.to_owned(),
        "\u{feff}{\"keys\":[]}".to_owned(),
        key.to_string(),
        json!([key]).to_string(),
        format!(r#"{{"keys":[{key},"text"]}}"#),
        format!(r#"{{"keys":{}"#, "[".repeat(100_000)),
        "<!doctype html>".to_owned(),
    ] {
        assert_eq!(JwkSet::from_json(&document).err(), Some(InvalidJwks::NotJwks), "{document:.80}");
    }
}

#[test]
fn a_set_may_be_empty_and_is_not_endless() {
    assert!(JwkSet::from_json(r#"{"keys":[]}"#).expect("a key set").is_empty());
    let keys = |count: usize| json!({ "keys": vec![json!({}); count] }).to_string();
    assert_eq!(JwkSet::from_json(&keys(100)).expect("a key set").left_out(), 100);
    assert_eq!(JwkSet::from_json(&keys(101)).err(), Some(InvalidJwks::TooManyKeys));
}

#[test]
fn members_of_a_key_that_are_not_known_do_no_harm() {
    let key = SigningKey::ed25519();
    let mut jwk = key.jwk("1");
    for (name, value) in [("x5c", json!(["MIIB"])), ("ext", json!(true)), ("exp", json!(1)), ("alg2", json!(null))] {
        jwk[name] = value;
    }
    assert_accepted(&by_keys(&[jwk]), &key.token("1", &claims(json!({}))));
}

// How a token is written

#[test]
fn a_token_may_have_16_kib_and_no_byte_more() {
    let sized = |filler: usize| token(json!({ "filler": "x".repeat(filler) }));
    let limit = 16 * 1024;
    // The three lengths that four characters of base64 may stand for are not all met: the greatest that fits.
    let fits =
        (12_000..12_288).map(sized).filter(|token| token.len() <= limit).max_by_key(String::len).expect("one fits");
    assert!(fits.len() >= limit - 2, "{}", fits.len());
    assert_accepted(&by_secret(), &fits);
    let over = (12_000..12_300).map(sized).find(|token| token.len() > limit).expect("one does not");
    assert!(over.len() <= limit + 4, "{}", over.len());
    assert_refused(&by_secret(), &over, Refusal::TooLong);
    for huge in ["a".repeat(50_000_000), ".".repeat(50_000_000), format!("{}{}", token(json!({})), "A".repeat(limit))] {
        let answer = verify(&by_secret(), &huge);
        assert!(matches!(answer, Err(AuthError::Invalid(Refusal::TooLong))));
    }
}

#[test]
fn a_token_has_three_parts() {
    let good = token(json!({}));
    let [header, claims, signature] = *good.split('.').collect::<Vec<_>>() else { panic!("three parts") };
    for wrong in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "....".to_owned(),
        header.to_owned(),
        format!("{header}.{claims}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{header}..{claims}.{signature}"),
        format!("{header}.{claims}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{good}.{header}.{claims}"),
        format!(r#"{{"protected":"{header}","payload":"{claims}","signature":"{signature}"}}"#),
    ] {
        assert_refused(&by_secret(), &wrong, Refusal::Malformed);
    }
    assert_refused(&by_secret(), &format!("{header}..{signature}"), Refusal::Signature);
    assert_refused(&by_secret(), &assembled(header, ""), Refusal::Malformed);
    assert_accepted(&by_secret(), &good);
}

/// The same bytes in base64url with something about it that is not allowed.
fn sloppily_encoded(part: &str) -> Vec<String> {
    let mut all = vec![
        format!("{part}="),
        format!("{part}=="),
        format!("{part} "),
        format!(" {part}"),
        format!("{part}\n"),
        format!("{part}\r\n"),
        format!("{}\n{}", &part[..8], &part[8..]),
        format!("{}?{}", &part[..8], &part[8..]),
        format!("{}\u{0}{}", &part[..8], &part[8..]),
        format!("{part}ß"),
        format!("{part}%3D"),
        format!("{part}A"),
    ];
    // Bits after the last byte that are not zero.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last =
        part.bytes().last().and_then(|last| alphabet.iter().position(|letter| *letter == last)).expect("base64url");
    let spare = match part.len() % 4 {
        2 => 1..16,
        3 => 1..4,
        _ => 0..0,
    };
    all.extend(spare.map(|bits| format!("{}{}", &part[..part.len() - 1], char::from(alphabet[last | bits]))));
    all
}

#[test]
fn base64url_has_one_spelling() {
    let claims = claims(json!({}));
    // Contents of every length modulo 3, so that there are spare bits of every kind.
    for filler in ["", "1", "12"] {
        let header = base64url(json!({ "alg": "HS256", "x": filler }).to_string());
        let payload = base64url(changed(claims.clone(), "x", json!(filler)).to_string());
        let good = assembled(&header, &payload);
        assert_accepted(&by_secret(), &good);
        for header in sloppily_encoded(&header) {
            assert_refused(&by_secret(), &assembled(&header, &payload), Refusal::Malformed);
        }
        for payload in sloppily_encoded(&payload) {
            assert_refused(&by_secret(), &assembled(&header, &payload), Refusal::Malformed);
        }
    }
    // Letters of the other alphabet stand for the same bits: here both of them.
    let header = base64url("{\"alg\":\"HS256\",\"x\":\"???~~~~\"}");
    assert!(header.contains('_') && header.contains('-'), "{header}");
    let payload = base64url(claims.to_string());
    assert_accepted(&by_secret(), &assembled(&header, &payload));
    let other = header.replace('_', "/").replace('-', "+");
    assert_refused(&by_secret(), &assembled(&other, &payload), Refusal::Malformed);
}

#[test]
fn a_signature_has_one_spelling() {
    let all = pairs().iter().map(|pair| pair["jwk"].clone()).collect::<Vec<_>>();
    let verifier = at_now([secret(), any(jwks(&all))]);
    for token in pairs().iter().map(|pair| &pair["token"]).chain([&NODE["hs256"]]) {
        let (signed, signature) = text(token).rsplit_once('.').expect("a signature");
        assert_accepted(&verifier, text(token));
        for sloppy in sloppily_encoded(signature) {
            assert_refused(&verifier, &format!("{signed}.{sloppy}"), Refusal::Signature);
        }
    }
}

#[test]
fn a_signature_has_one_length() {
    let all = pairs().iter().map(|pair| pair["jwk"].clone()).collect::<Vec<_>>();
    let verifier = at_now([secret(), any(jwks(&all))]);
    for token in pairs().iter().map(|pair| &pair["token"]).chain([&NODE["hs256"]]) {
        let (signed, signature) = text(token).rsplit_once('.').expect("a signature");
        let bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let (half, zero) = (bytes.len() / 2, vec![0]);
        for wrong in [
            [&bytes[..], &zero].concat(),
            [&zero, &bytes[..]].concat(),
            [&zero, &bytes[..half], &zero, &bytes[half..]].concat(),
            bytes[1..].to_vec(),
            bytes[..bytes.len() - 1].to_vec(),
            bytes[..half].to_vec(),
            [&bytes[..], &bytes[..]].concat(),
        ] {
            assert_refused(&verifier, &format!("{signed}.{}", base64url(wrong)), Refusal::Signature);
        }
    }
}

#[test]
fn header_and_claims_are_json_objects_in_utf_8() {
    let (header, payload) = (base64url(HS256_HEADER), base64url(claims(json!({})).to_string()));
    for wrong in [
        &b""[..],
        b"null",
        b"7",
        b"\"text\"",
        b"[]",
        b"[{}]",
        b"{",
        b"{}{}",
        b"{} x",
        b"{'alg':'HS256'}",
        b"{\"alg\":\"HS256\",}",
        b"{\"alg\":\"HS256\"}\0",
        b"\xef\xbb\xbf{\"alg\":\"HS256\"}",
        b"{\"alg\":\"HS256\",\"x\":\"\xff\"}",
        b"{\"alg\":\"HS256\",\"x\":\"\xc0\xaf\"}",
        b"{\"alg\":\"HS256\",\"x\":\"\xed\xa0\x80\"}",
        b"{\"alg\":\"HS256\",\"x\":\"\\ud800\"}",
        b"{\"alg\":\"HS256\",\"x\":\"\\x41\"}",
        b"{\"alg\":\"HS256\",\"x\":\"\n\"}",
        b"{\"alg\":\"HS256\",\"x\":NaN}",
        b"{\"alg\":\"HS256\",\"x\":01}",
        b"{\"alg\":\"HS256\",\"x\":1e999}",
        b"/**/{\"alg\":\"HS256\"}",
        b"{\0\"\0a\0\"\0:\x001\0}\0",
    ] {
        assert_refused(&by_secret(), &assembled(&base64url(wrong), &payload), Refusal::Malformed);
        assert_refused(&by_secret(), &assembled(&header, &base64url(wrong)), Refusal::Malformed);
    }
    // White space around and within is JSON too, and the signature is over the text as it is.
    assert_accepted(&by_secret(), &raw(&format!(" \t\r\n{:#} ", claims(json!({})))));
}

#[test]
fn deep_json_is_refused_and_overflows_nothing() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let claims_with = |value: &str| {
        let claims = claims(json!({})).to_string();
        format!("{},\"x\":{value}}}", claims.strip_suffix('}').expect("an object"))
    };
    assert_accepted(&by_secret(), &raw(&claims_with(&nested(100))));
    assert_accepted(&by_secret(), &headed(&format!(r#"{{"alg":"HS256","x":{}}}"#, nested(100))));
    for depth in [128, 1000, 4000] {
        assert_refused(&by_secret(), &raw(&claims_with(&nested(depth))), Refusal::Malformed);
        assert_refused(
            &by_secret(),
            &headed(&format!(r#"{{"alg":"HS256","x":{}}}"#, nested(depth))),
            Refusal::Malformed,
        );
        let objects = format!("{}1{}", r#"{"x":"#.repeat(depth.min(2000)), "}".repeat(depth.min(2000)));
        assert_refused(&by_secret(), &raw(&claims_with(&objects)), Refusal::Malformed);
        assert_refused(&by_secret(), &raw(&"[".repeat(depth)), Refusal::Malformed);
    }
}

#[test]
fn a_member_given_twice_is_refused() {
    for header in [
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256","kid":"1","kid":"2"}"#,
        r#"{"alg":"HS256","k\u0069d":"1","kid":"1"}"#,
        r#"{"alg":"HS256","x":{"y":1,"y":2}}"#,
        r#"{"alg":"HS256","jwk":[{"a":{"b":1,"b":1}}]}"#,
        r#"{"alg":"HS256","crit":[],"crit":["b64"]}"#,
    ] {
        assert_refused(&by_secret(), &headed(header), Refusal::DuplicateMember);
    }
    let claims = claims(json!({})).to_string();
    for again in [
        r#""sub":"bob""#,
        r#""\u0073ub":"bob""#,
        r#""exp":9999999999"#,
        r#""e\u0078p":1"#,
        r#""aud":"x""#,
        r#""user":{"id":"ann","id":"bob"}"#,
        r#""list":[[{"a":1,"\u0061":2}]]"#,
    ] {
        assert_refused(&by_secret(), &raw(&claims.replacen('{', &format!("{{{again},"), 1)), Refusal::DuplicateMember);
    }
    // One name in two objects is not given twice, and names are case-sensitive.
    assert_accepted(
        &by_secret(),
        &token(json!({ "a": { "sub": 1 }, "b": [{ "sub": 1 }, { "sub": 2 }], "Sub": "bob" })),
    );
}

// The header

#[test]
fn critical_extensions_are_refused() {
    for header in [
        r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":["http://example.com/x"],"http://example.com/x":1}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":"alg"}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","b64":true}"#,
        r#"{"alg":"HS256","\u0063rit":["exp"]}"#,
        // Also before it is asked whether the algorithm is one of ours.
        r#"{"alg":"none","crit":["exp"]}"#,
    ] {
        assert_refused(&by_secret(), &headed(header), Refusal::CriticalExtension);
    }
    // A payload that is not encoded, as `b64` would have it.
    let header = base64url(r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#);
    assert_refused(&by_secret(), &assembled(&header, r#"{"sub":"ann","exp":9999999999}"#), Refusal::CriticalExtension);
}

#[test]
fn typ_is_absent_or_that_of_an_access_token() {
    for typ in ["JWT", "jwt", "Jwt", "at+jwt", "AT+JWT"] {
        assert_accepted(&by_secret(), &headed(&json!({ "alg": "HS256", "typ": typ }).to_string()));
    }
    let texts = [
        "",
        " JWT",
        "JWT ",
        "jwt\u{0}",
        "JWS",
        "JOSE",
        "JOSE+JSON",
        "id+jwt",
        "logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "better-auth.session-cache+jwt",
        "application/better-auth.session-cache+jwt",
    ];
    let values = [json!(null), json!(1), json!(["JWT"]), json!({ "JWT": true }), json!(false)];
    for typ in texts.into_iter().map(Value::from).chain(values) {
        assert_refused(&by_secret(), &headed(&json!({ "alg": "HS256", "typ": typ }).to_string()), Refusal::Type);
    }
    // `cty` says what is within, which is nobody's business here.
    assert_accepted(&by_secret(), &headed(r#"{"alg":"HS256","cty":"JWT"}"#));
}

// Issuer and audience

#[test]
fn the_issuer_is_one_of_the_list_to_the_letter() {
    let verifier = at_now([secret().issuers([APP, "https://second.example.com"])]);
    assert_accepted(&verifier, &token(json!({})));
    assert_accepted(&verifier, &token(json!({ "iss": "https://second.example.com" })));
    for iss in [
        json!(null),
        json!(""),
        json!("https://app.example.com/"),
        json!("https://APP.example.com"),
        json!("http://app.example.com"),
        json!("https://app.example.com "),
        json!("https://app.example.co"),
        json!("https://app.example.com.evil.example"),
        json!("https://app.example.com,https://second.example.com"),
        json!([APP]),
        json!([APP, "https://second.example.com"]),
        json!({ APP: APP }),
        json!(1),
        json!(true),
    ] {
        assert_refused(&verifier, &token(json!({ "iss": iss })), Refusal::Issuer);
    }
    assert_refused(&verifier, &raw(&json!({ "sub": "ann", "exp": NOW + 1, "iss": null }).to_string()), Refusal::Issuer);
}

#[test]
fn one_of_the_audiences_is_one_of_the_list_to_the_letter() {
    let verifier = at_now([secret().audiences([APP, "todo"])]);
    for aud in
        [json!(APP), json!("todo"), json!([APP]), json!(["x", "todo"]), json!(["todo", "todo"]), json!(["", "todo"])]
    {
        assert_accepted(&verifier, &token(json!({ "aud": aud })));
    }
    for aud in [
        json!(null),
        json!(""),
        json!([]),
        json!([""]),
        json!(["x"]),
        json!("TODO"),
        json!("todo "),
        json!("x todo"),
        json!([["todo"]]),
        json!(["todo", 1]),
        json!(["todo", null]),
        json!({ "todo": true }),
        json!(1),
        json!("better-auth:session-cache"),
    ] {
        assert_refused(&verifier, &token(json!({ "aud": aud })), Refusal::Audience);
    }
}

#[test]
fn the_issuer_is_no_audience_and_the_audience_no_issuer() {
    let verifier = at_now([secret().issuers(["issuer"]).audiences(["audience"])]);
    assert_accepted(&verifier, &token(json!({ "iss": "issuer", "aud": "audience" })));
    assert_refused(&verifier, &token(json!({ "iss": "audience", "aud": "issuer" })), Refusal::Issuer);
    assert_refused(&verifier, &token(json!({ "iss": "issuer", "aud": "issuer" })), Refusal::Audience);
}

#[test]
fn empty_texts_are_never_configured() {
    let keys = || jwks(&[SigningKey::es256().jwk("1")]);
    let build = |source| JwtVerifier::builder().source(source).build().err();
    for list in [&[][..], &[""], &["x", ""]] {
        assert_eq!(build(secret().issuers(list.to_vec())), Some(InvalidSource::Empty));
        assert_eq!(build(secret().audiences(list.to_vec())), Some(InvalidSource::Empty));
        assert_eq!(build(KeySource::jwks(keys()).issuers(list.to_vec()).any_audience()), Some(InvalidSource::Empty));
    }
    for path in ["", ".", "user.", ".id", "user..id"] {
        assert_eq!(build(secret().subject(path)), Some(InvalidSource::Empty), "{path}");
    }
    assert_eq!(KeySource::secrets(<[&str; 0]>::default()).err(), Some(InvalidSource::Empty));
    assert_eq!(JwtVerifier::builder().build().err(), Some(InvalidSource::NoSource));
}

#[test]
fn a_source_of_public_keys_says_whose_tokens_it_takes() {
    let keys = || jwks(&[SigningKey::es256().jwk("1")]);
    let build = |source| JwtVerifier::builder().source(source).build().err();
    assert_eq!(build(KeySource::jwks(keys())), Some(InvalidSource::NoIssuerOrAudience));
    assert_eq!(build(KeySource::jwks(keys()).issuers([APP])), Some(InvalidSource::NoIssuerOrAudience));
    assert_eq!(build(KeySource::jwks(keys()).any_issuer()), Some(InvalidSource::NoIssuerOrAudience));
    assert_eq!(build(KeySource::jwks(keys()).audiences([APP])), Some(InvalidSource::NoIssuerOrAudience));
    assert_eq!(build(KeySource::jwks(keys()).issuers([APP]).any_audience()), None);
    // Also if another source before it is right.
    let both = JwtVerifier::builder().source(secret()).source(KeySource::jwks(keys())).build();
    assert_eq!(both.err(), Some(InvalidSource::NoIssuerOrAudience));
}

// Times

#[test]
fn a_token_ends_at_exp_and_the_leeway() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let verifier = with_clock([secret()], Arc::clone(&clock));
    let strict = JwtVerifier::builder().source(secret()).clock(Arc::clone(&clock)).leeway(Duration::ZERO).build();
    let strict = strict.expect("a good source");
    let token = token(json!({ "exp": NOW + 100 }));
    let microsecond = Duration::from_micros(1);
    for (verifier, end) in [(&verifier, at(NOW + 130)), (&strict, at(NOW + 100))] {
        clock.set(end.minus(microsecond));
        assert_accepted(verifier, &token);
        clock.set(end);
        assert_expired(verifier, &token);
        clock.set(end.plus(Duration::from_hours(1)));
        assert_expired(verifier, &token);
    }
}

#[test]
fn a_token_begins_at_nbf_less_the_leeway() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let verifier = with_clock([secret()], Arc::clone(&clock));
    let token = token(json!({ "nbf": NOW + 100 }));
    assert_refused(&verifier, &token, Refusal::NotYetValid);
    clock.set(at(NOW + 70).minus(Duration::from_micros(1)));
    assert_refused(&verifier, &token, Refusal::NotYetValid);
    clock.set(at(NOW + 70));
    assert_accepted(&verifier, &token);
}

#[test]
fn iat_is_not_judged() {
    let identity = assert_accepted(&by_secret(), &token(json!({ "iat": NOW + 1_000_000 })));
    assert_eq!(identity.issued_at, Some(at(NOW + 1_000_000)));
    assert_eq!(assert_accepted(&by_secret(), &token(json!({ "iat": null }))).issued_at, None);
    assert_accepted(&by_secret(), &token(json!({ "iat": -5 })));
}

#[test]
fn exp_is_required() {
    assert_refused(&by_secret(), &token(json!({ "exp": null })), Refusal::NoExpiry);
    assert_refused(
        &by_secret(),
        &token(json!({ "exp": null, "Exp": NOW + 900, "expires": NOW + 900 })),
        Refusal::NoExpiry,
    );
}

#[test]
fn a_time_is_a_number() {
    for name in ["exp", "nbf", "iat"] {
        for value in
            [json!("1763712900"), json!("2099-01-01T00:00:00Z"), json!(""), json!([NOW]), json!({}), json!(true)]
        {
            assert_refused(&by_secret(), &token(json!({ name: value })), Refusal::Time);
        }
        let mut claims = claims(json!({}));
        claims[name] = Value::Null;
        assert_refused(&by_secret(), &secret_token(SECRET.as_bytes(), &claims), Refusal::Time);
    }
}

#[test]
fn a_time_may_have_a_fraction_and_any_size() {
    let with_exp = |exp: &str| raw(&format!(r#"{{"sub":"ann","exp":{exp}}}"#));
    let half = assert_accepted(&by_secret(), &with_exp(&format!("{NOW}.5")));
    assert_eq!(half.expires_at, Some(Timestamp::from_unix_micros(NOW * 1_000_000 + 500_000)));
    assert_accepted(&by_secret(), &with_exp("1.763712e9"));
    let last = Some(Timestamp::from_unix_micros(i64::MAX));
    for huge in
        ["253402300800", "1e15", "9223372036854775807", "18446744073709551616", "1e300", "1.7976931348623157e308"]
    {
        assert_eq!(assert_accepted(&by_secret(), &with_exp(huge)).expires_at, last, "{huge}");
    }
    for past in ["0", "-0", "0.1", "1e-300", "-1", "-1e18", "-9223372036854775808", "-1e300", "3600"] {
        assert_expired(&by_secret(), &with_exp(past));
    }
    for no_json in ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "0x7fffffff", "01", "+1", "1.", ".5", "1_000"] {
        assert_refused(&by_secret(), &with_exp(no_json), Refusal::Malformed);
    }
}

// The subject

#[test]
fn a_token_without_a_usable_subject_is_refused() {
    let long = "x".repeat(256);
    for sub in [
        json!(null),
        json!(""),
        json!("a\u{0}b"),
        json!(long),
        json!(1),
        json!(["ann"]),
        json!({ "id": "ann" }),
        json!(true),
    ] {
        assert_refused(&by_secret(), &token(json!({ "sub": sub })), Refusal::Subject);
    }
    // A machine's token, say: it has an issuer, an audience and a client.
    let key = SigningKey::ed25519();
    let machine = key.token("1", &claims(json!({ "sub": null, "azp": "client", "client_id": "client" })));
    assert_refused(&by_keys(&[key.jwk("1")]), &machine, Refusal::Subject);
    for sub in ["1", "ann@example.com", "auth0|5f7c", " ann ", "Ann", "\u{1f98a}"] {
        assert_eq!(assert_accepted(&by_secret(), &token(json!({ "sub": sub }))).user_id.as_str(), sub);
    }
}

#[test]
fn the_subject_may_be_another_claim_or_lie_within_one() {
    let by = |path: &str| at_now([secret().subject(path)]);
    let token =
        token(json!({ "id": "1", "user": { "id": "2", "deep": { "er": "3" } }, "users": [{ "id": "4" }], "a.b": "5" }));
    for (path, user) in [("sub", "ann"), ("id", "1"), ("user.id", "2"), ("user.deep.er", "3")] {
        assert_eq!(assert_accepted(&by(path), &token).user_id.as_str(), user, "{path}");
    }
    for path in
        ["ID", "user", "user.deep", "user.id.x", "users.id", "users.0.id", "sub.x", "nothing", "user.nothing", "a.b"]
    {
        assert_refused(&by(path), &token, Refusal::Subject);
    }
}

#[test]
fn email_and_name_are_texts_or_left_out() {
    let identity = assert_accepted(&by_secret(), &token(json!({ "email": "ann@example.com", "name": "Ann" })));
    assert_eq!((identity.email.as_deref(), identity.name.as_deref()), (Some("ann@example.com"), Some("Ann")));
    let identity = assert_accepted(&by_secret(), &token(json!({ "email": 1, "name": ["Ann"] })));
    assert_eq!((identity.email, identity.name), (None, None));
}

// Secrets

#[test]
fn a_token_may_be_signed_with_any_of_the_secrets() {
    let secrets =
        [SECRET, "the one before it, of thirty-two bytes or more", "and the one before that, of at least so many"];
    let verifier = at_now([KeySource::secrets(secrets).expect("good secrets")]);
    for secret in secrets {
        assert_accepted(&verifier, &secret_token(secret.as_bytes(), &claims(json!({}))));
    }
    for other in [secrets.concat().as_str(), &secrets.join(","), &SECRET.to_uppercase(), &format!("{SECRET}\n"), ""] {
        assert_refused(&verifier, &secret_token(other.as_bytes(), &claims(json!({}))), Refusal::Signature);
    }
}

#[test]
fn a_secret_is_the_bytes_of_its_text() {
    // Not what it stands for if it is base64.
    let encoded = base64url(SECRET);
    let verifier =
        JwtVerifier::builder().source(KeySource::secrets([&encoded]).expect("good")).clock(FixedClock::at(at(NOW)));
    let verifier = verifier.build().expect("a good source");
    assert_accepted(&verifier, &secret_token(encoded.as_bytes(), &claims(json!({}))));
    assert_refused(&verifier, &token(json!({})), Refusal::Signature);
}

#[test]
fn a_secret_has_32_bytes_and_is_not_known_to_everybody() {
    assert_eq!(KeySource::secrets([[7; 31]]).err(), Some(InvalidSource::ShortSecret));
    assert!(KeySource::secrets([[7; 32]]).is_ok());
    assert_eq!(KeySource::secrets([&[7; 32][..], &[7; 31]]).err(), Some(InvalidSource::ShortSecret));
    assert_eq!(KeySource::secrets([""]).err(), Some(InvalidSource::ShortSecret));
    assert_eq!(JwtVerifier::hs256("too short").err(), Some(InvalidSource::ShortSecret));

    let public = "better-auth-secret-12345678901234567890";
    assert_eq!(KeySource::secrets([public]).err(), Some(InvalidSource::PublicSecret));
    assert_eq!(KeySource::secrets([SECRET, public]).err(), Some(InvalidSource::PublicSecret));
    assert_eq!(JwtVerifier::hs256(public).err(), Some(InvalidSource::PublicSecret));
}

// What Better Auth signs beside access tokens

/// Takes what Better Auth signs with its secret in this shape, when the fixtures were made.
fn better_auth_secret(shape: Shape) -> JwtVerifier {
    let source = KeySource::secrets([text(&BETTER_AUTH["secret"])]).expect("a good secret").shape(shape);
    with_clock([source], FixedClock::at(at(BETTER_AUTH["madeAt"].as_i64().expect("a time"))))
}

#[test]
fn the_session_cookie_of_better_auth_is_accepted_in_its_own_shape_only() {
    let cookie = &BETTER_AUTH["sessionCookie"];
    let identity = assert_accepted(&better_auth_secret(Shape::CookieCache), text(&cookie["token"]));
    assert_eq!(identity.user_id.as_str(), cookie["user"]);
    assert_eq!(identity.email.as_deref(), Some("ann@example.com"));
    assert_eq!(identity.name.as_deref(), Some("Ann"));
    assert_refused(&better_auth_secret(Shape::AccessToken), text(&cookie["token"]), Refusal::Subject);
}

#[test]
fn an_e_mail_link_of_better_auth_is_no_login() {
    let link = text(&BETTER_AUTH["emailLink"]["token"]);
    assert_refused(&better_auth_secret(Shape::AccessToken), link, Refusal::Subject);
    assert_refused(&better_auth_secret(Shape::CookieCache), link, Refusal::Subject);
    // Other versions and other links.
    for more in [
        json!({ "email": "ann@example.com", "userId": "ann" }),
        json!({ "email": "ann@example.com", "updateTo": "bob@example.com" }),
        json!({ "email": "ann@example.com", "updateTo": "bob@example.com", "requestType": "change-email-verification" }),
        json!({ "email": "ann@example.com", "userId": "ann", "id": "ann", "user": "ann", "session": "x" }),
    ] {
        let link = token(changed(more, "sub", Value::Null));
        assert_refused(&by_secret(), &link, Refusal::Subject);
        assert_refused(&at_now([secret().shape(Shape::CookieCache)]), &link, Refusal::Subject);
    }
}

#[test]
fn the_session_cookie_that_is_signed_with_the_key_of_tokens_is_refused() {
    let cookie = &BETTER_AUTH["sessionCookieByKey"];
    let keys = JwkSet::from_json(&cookie["jwks"].to_string()).expect("a key set");
    let base_url = text(&BETTER_AUTH["baseURL"]);
    let clock = || FixedClock::at(at(BETTER_AUTH["madeAt"].as_i64().expect("a time")));
    let sources = [
        KeySource::jwks(keys.clone()).issuers([base_url]).audiences([base_url]),
        any(keys.clone()),
        any(keys).shape(Shape::CookieCache),
    ];
    for source in sources {
        assert_refused(&with_clock([source], clock()), text(&cookie["token"]), Refusal::Type);
    }
    // If the type were missing, the audience would still tell.
    let key = SigningKey::ed25519();
    let source = KeySource::jwks(jwks(&[key.jwk("1")])).issuers([APP]).audiences([APP]);
    let token = key.token("1", &claims(json!({ "aud": "better-auth:session-cache", "sid": "x" })));
    assert_refused(&at_now([source]), &token, Refusal::Audience);
}

#[test]
fn an_access_token_for_another_audience_is_refused() {
    let key = SigningKey::es256();
    let verifier =
        at_now([KeySource::jwks(jwks(&[key.jwk("1")])).issuers([APP]).audiences(["https://todo.example.com"])]);
    let sign = |aud: Value| {
        let header = r#"{"alg":"ES256","typ":"at+jwt","kid":"1"}"#;
        key.sign("ES256", header, &claims(json!({ "aud": aud, "scope": "todo", "client_id": "c" })).to_string())
    };
    assert_accepted(&verifier, &sign(json!("https://todo.example.com")));
    assert_accepted(&verifier, &sign(json!([APP, "https://todo.example.com"])));
    assert_refused(&verifier, &sign(json!("https://other.example.com")), Refusal::Audience);
    assert_refused(&verifier, &sign(json!(["https://other.example.com", APP])), Refusal::Audience);
    assert_refused(&verifier, &sign(json!(null)), Refusal::Audience);
}

/// The claims of a session cookie with these changes within `session` and `user`.
fn cookie(session: Value, user: Value) -> String {
    let merge = |mut base: Map<String, Value>, changes: Value| {
        let Value::Object(changes) = changes else { return changes };
        for (name, value) in changes {
            match value {
                Value::Null => base.remove(&name),
                value => base.insert(name, value),
            };
        }
        Value::Object(base)
    };
    let object = |value: Value| value.as_object().expect("an object").clone();
    let good_session = object(json!({ "userId": "ann", "expiresAt": "2025-11-28T08:00:00.000Z", "token": "opaque" }));
    let good_user = object(json!({ "id": "ann", "name": "Ann", "email": "ann@example.com" }));
    secret_token(
        SECRET.as_bytes(),
        &json!({
            "session": merge(good_session, session),
            "user": merge(good_user, user),
            "updatedAt": NOW * 1000,
            "version": "1",
            "iat": NOW,
            "exp": NOW + 300,
        }),
    )
}

fn by_cookie() -> JwtVerifier {
    at_now([secret().shape(Shape::CookieCache)])
}

#[test]
fn a_session_cookie_names_its_user_twice_alike() {
    let identity = assert_accepted(&by_cookie(), &cookie(json!({}), json!({})));
    assert_eq!(identity.user_id.as_str(), "ann");
    for session in [
        json!({ "userId": "bob" }),
        json!({ "userId": "Ann" }),
        json!({ "userId": "" }),
        json!({ "userId": ["ann"] }),
        json!({ "userId": { "id": "ann" } }),
        json!({ "userId": null }),
        json!({ "userId": null, "user_id": "ann" }),
        json!([]),
        json!("ann"),
        Value::Null,
    ] {
        assert_refused(&by_cookie(), &cookie(session, json!({})), Refusal::Session);
    }
    for user in [
        json!({ "id": null }),
        json!({ "id": "" }),
        json!({ "id": 1 }),
        json!([{ "id": "ann" }]),
        json!("ann"),
        Value::Null,
    ] {
        assert_refused(&by_cookie(), &cookie(json!({}), user), Refusal::Subject);
    }
    assert_refused(&by_cookie(), &cookie(json!({ "userId": 1 }), json!({ "id": 1 })), Refusal::Subject);
    // No falling back to a subject of another kind.
    assert_refused(&by_cookie(), &token(json!({ "userId": "ann" })), Refusal::Subject);
}

#[test]
fn a_session_cookie_ends_with_its_session_or_its_own_time() {
    let ends = |value: Value| cookie(json!({ "expiresAt": value }), json!({}));
    let expires = |token: &str| assert_accepted(&by_cookie(), token).expires_at;
    assert_eq!(expires(&ends(json!("2025-11-28T08:00:00.000Z"))), Some(at(NOW + 300)));
    assert_eq!(expires(&ends(json!("2025-11-21T08:01:40.000Z"))), Some(at(NOW + 100)));
    assert_eq!(expires(&ends(json!("2025-11-21T10:01:40+02:00"))), Some(at(NOW + 100)));
    assert_eq!(expires(&ends(json!((NOW + 100) * 1000))), Some(at(NOW + 100)));
    assert_eq!(expires(&ends(json!((NOW + 7 * 86_400) * 1000))), Some(at(NOW + 300)));
    // The leeway counts here too.
    assert_accepted(&by_cookie(), &ends(json!("2025-11-21T07:59:31.000Z")));
    for past in [
        json!("2025-11-21T07:59:30.000Z"),
        json!("1970-01-01T00:00:00Z"),
        json!((NOW - 30) * 1000),
        json!(0),
        json!(-1),
    ] {
        assert_expired(&by_cookie(), &ends(past));
    }
    // Seconds where milliseconds belong are long ago.
    assert_expired(&by_cookie(), &ends(json!(NOW + 100)));
    for wrong in
        [json!(null), json!(""), json!("tomorrow"), json!("2025-11-28"), json!("1764316800000"), json!(true), json!({})]
    {
        assert_refused(&by_cookie(), &ends(wrong), Refusal::Session);
    }
    // The session is good, the cookie is old.
    let clock = FixedClock::at(at(NOW + 330));
    assert_expired(&with_clock([secret().shape(Shape::CookieCache)], clock), &cookie(json!({}), json!({})));
}

#[test]
fn a_session_cookie_gives_name_and_e_mail_of_its_user() {
    let token = cookie(json!({ "name": "no", "email": "no" }), json!({ "email": null }));
    let identity = assert_accepted(&by_cookie(), &token);
    assert_eq!((identity.name.as_deref(), identity.email), (Some("Ann"), None));
}

// Several sources

#[test]
fn every_source_judges_its_tokens_by_its_own_rules() {
    let (one, two) = (SigningKey::ed25519(), SigningKey::ed25519());
    let source =
        |key: &SigningKey, name: &str| KeySource::jwks(jwks(&[key.jwk("1")])).issuers([name]).audiences([name]);
    for verifier in [
        at_now([source(&one, "one"), source(&two, "two"), secret().issuers(["three"])]),
        at_now([secret().issuers(["three"]), source(&two, "two"), source(&one, "one")]),
    ] {
        let signed = |key: &SigningKey, name: &str| key.token("1", &claims(json!({ "iss": name, "aud": name })));
        assert_accepted(&verifier, &signed(&one, "one"));
        assert_accepted(&verifier, &signed(&two, "two"));
        assert_accepted(&verifier, &token(json!({ "iss": "three" })));
        assert_refused(&verifier, &signed(&one, "two"), Refusal::Issuer);
        assert_refused(&verifier, &signed(&two, "one"), Refusal::Issuer);
        assert_refused(&verifier, &signed(&one, "three"), Refusal::Issuer);
        assert_refused(&verifier, &token(json!({ "iss": "one", "aud": "one" })), Refusal::Issuer);
        let mixed = one.token("1", &claims(json!({ "iss": "one", "aud": "two" })));
        assert_refused(&verifier, &mixed, Refusal::Audience);
    }
}

#[test]
fn two_shapes_may_share_one_secret() {
    for verifier in
        [at_now([secret(), secret().shape(Shape::CookieCache)]), at_now([secret().shape(Shape::CookieCache), secret()])]
    {
        assert_accepted(&verifier, &token(json!({})));
        assert_accepted(&verifier, &cookie(json!({}), json!({})));
        assert!(verify(&verifier, &cookie(json!({ "userId": "bob" }), json!({}))).is_err());
        let link = token(json!({ "sub": null, "userId": "ann", "email": "ann@example.com" }));
        assert_refused(&verifier, &link, Refusal::Subject);
    }
}

#[test]
fn the_refusal_is_that_of_the_source_with_which_the_token_came_furthest() {
    let (known, unknown) = (SigningKey::es256(), SigningKey::es256());
    let keys = || any(jwks(&[known.jwk("1")]));
    let others = || any(jwks(&[SigningKey::es256().jwk("2")]));
    for verifier in [at_now([secret(), keys(), others()]), at_now([others(), keys(), secret()])] {
        assert_refused(&verifier, &known.token("3", &claims(json!({}))), Refusal::UnknownKey);
        assert_refused(&verifier, &unknown.token("1", &claims(json!({}))), Refusal::Signature);
        assert_refused(&verifier, &known.token("1", &claims(json!({ "exp": null }))), Refusal::NoExpiry);
        assert_expired(&verifier, &known.token("1", &claims(json!({ "exp": NOW - 900 }))));
    }
}

// What is remembered

#[test]
fn a_remembered_token_ends_by_the_clock() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let key = SigningKey::ed25519();
    let verifier = with_clock([any(jwks(&[key.jwk("1")]))], Arc::clone(&clock));
    let token = key.token("1", &claims(json!({ "nbf": NOW, "exp": NOW + 100 })));
    let first = assert_accepted(&verifier, &token);
    assert_eq!(assert_accepted(&verifier, &token), first);
    clock.set(at(NOW + 130));
    assert_expired(&verifier, &token);
    // A clock that is set back makes it neither better nor worse than a new one.
    clock.set(at(NOW - 31));
    assert_refused(&verifier, &token, Refusal::NotYetValid);
    clock.set(at(NOW + 50));
    assert_eq!(assert_accepted(&verifier, &token), first);
}

#[test]
fn a_refused_token_is_not_remembered() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let key = SigningKey::ed25519();
    let verifier = with_clock([any(jwks(&[key.jwk("1")]))], Arc::clone(&clock));
    let token = key.token("1", &claims(json!({ "nbf": NOW + 100 })));
    assert_refused(&verifier, &token, Refusal::NotYetValid);
    clock.set(at(NOW + 100));
    assert_accepted(&verifier, &token);
}

#[test]
fn what_one_verifier_remembers_another_does_not_trust() {
    let (one, two) = (SigningKey::ed25519(), SigningKey::ed25519());
    let token = one.token("1", &claims(json!({})));
    let trusting = by_keys(&[one.jwk("1")]);
    assert_accepted(&trusting, &token);
    assert_refused(&by_keys(&[two.jwk("1")]), &token, Refusal::Signature);
    let for_others = at_now([KeySource::jwks(jwks(&[one.jwk("1")])).issuers([APP]).audiences(["other"])]);
    assert_refused(&for_others, &token, Refusal::Audience);
    // A clone is the same verifier.
    assert_accepted(&trusting.clone(), &token);
}

#[test]
fn a_remembered_token_vouches_for_no_other() {
    for key in [SigningKey::ed25519(), SigningKey::es256(), SigningKey::es512()] {
        let verifier = by_keys(&[key.jwk("1")]);
        let ann = key.token("1", &claims(json!({ "sub": "ann" })));
        let bob = key.token("1", &claims(json!({ "sub": "bob" })));
        for _ in 0..2 {
            assert_eq!(assert_accepted(&verifier, &ann).user_id.as_str(), "ann");
            assert_eq!(assert_accepted(&verifier, &bob).user_id.as_str(), "bob");
        }
        let (signed_by_ann, signature_of_ann) = ann.rsplit_once('.').expect("a signature");
        let (signed_by_bob, signature_of_bob) = bob.rsplit_once('.').expect("a signature");
        assert_refused(&verifier, &format!("{signed_by_ann}.{signature_of_bob}"), Refusal::Signature);
        assert_refused(&verifier, &format!("{signed_by_bob}.{signature_of_ann}"), Refusal::Signature);
        assert_refused(&verifier, &format!("{signed_by_ann}."), Refusal::Signature);
    }
}

/// ECDSA takes the negative of `s` as well as `s`: whoever has a token can write it in a second way. RFC 7518 demands
/// nothing here and issuers make both, so both count; but the second says the same of the same user, to the same end.
#[test]
fn the_second_way_to_write_an_es256_token_says_the_same() {
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
    // A changed claim is still a wrong signature in either way.
    let other = second.replacen('.', ".e30", 1);
    assert_refused(&verifier, &other, Refusal::Signature);
}

// What can be read

#[test]
fn no_debug_text_shows_a_secret_a_token_or_an_address() {
    let key = SigningKey::ed25519();
    let claims = claims(json!({ "email": "ann@example.com", "name": "Ann Example" }));
    let source = any(jwks(&[key.jwk("1")]));
    let builder = JwtVerifier::builder().source(secret()).source(source.clone()).clock(FixedClock::at(at(NOW)));
    let mut shown = vec![format!("{builder:?} {:?} {source:?} {:?}", secret(), jwks(&[key.jwk("1")]))];
    let verifier = builder.build().expect("good sources");
    let token = key.token("1", &claims);
    let identity = assert_accepted(&verifier, &token);
    shown.push(format!("{verifier:?} {verifier:#?} {identity:?} {identity:#?}"));
    let tokens = [token, secret_token(SECRET.as_bytes(), &claims), secret_token(b"wrong", &claims), "a.b.c".to_owned()];
    for token in &tokens {
        let answer = verify(&verifier, token);
        shown.push(format!(
            "{answer:?} {answer:#?} {}",
            answer.as_ref().err().map(ToString::to_string).unwrap_or_default()
        ));
    }
    let (short, public) = ("a short secret", "better-auth-secret-12345678901234567890");
    for error in [KeySource::secrets([short]).err(), JwtVerifier::hs256(public).err()] {
        let error = error.expect("refused");
        shown.push(format!("{error} {error:?}"));
    }
    let shown = shown.concat();
    let bytes = format!("{:?}", SECRET.as_bytes());
    let spellings = [SECRET, bytes.trim_matches(['[', ']']), &base64url(SECRET)];
    for hidden in ["ann@example.com", "Ann Example", short, public].into_iter().chain(spellings) {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
    for part in tokens.iter().flat_map(|token| token.split('.')).filter(|part| part.len() > 1) {
        assert!(!shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.contains("1 secrets") && shown.contains("1 public keys"), "{shown}");
}

#[test]
fn the_log_names_the_reason_and_nothing_of_the_token() {
    let token = token(json!({ "email": "ann@example.com", "exp": null }));
    let log = log::of(|| {
        let verifier = by_secret();
        assert_refused(&verifier, &token, Refusal::NoExpiry);
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

    /// All that this thread logs while it does so.
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

/// A token for each reason, so that none is forgotten and none is there for nothing.
#[test]
fn every_reason_for_refusal_occurs() {
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
        (Refusal::Time, token(json!({ "exp": "soon" }))),
        (Refusal::NotYetValid, token(json!({ "nbf": NOW + 31 }))),
        (Refusal::Issuer, token(json!({ "iss": null }))),
        (Refusal::Audience, token(json!({ "aud": null }))),
        (Refusal::Subject, token(json!({ "sub": null }))),
        (Refusal::Session, key.token("1", &cookie)),
    ];
    let verifier = at_now(sources());
    let mut seen: BTreeSet<String> = ["Other".to_owned()].into(); // is for hosts
    for (reason, token) in occurring {
        assert_refused(&verifier, &token, reason);
        seen.insert(format!("{reason:?}"));
    }
    // The enum may grow, so the list of its variants is read where they are written.
    let source = include_str!("../src/auth/jwt.rs");
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
