//! Which keys and key sets are used.

use super::*;

#[test]
fn a_key_that_is_not_for_signatures_is_skipped() {
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
        assert_rejected(&at_now([any(set)]), &token, Refusal::UnknownKey);
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
fn a_key_whose_alg_does_not_match_its_type_is_skipped() {
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
fn weak_keys_and_keys_of_unknown_type_are_skipped() {
    for other in NODE["others"].as_array().expect("an array") {
        for jwk in [other["jwk"].clone(), without(other["jwk"].clone(), "alg")] {
            let set = jwks(&[jwk]);
            assert_eq!((set.len(), set.left_out()), (0, 1), "{other}");
            let verifier = at_now([any(set)]);
            let reason = if other["alg"] == "ES256K" { Refusal::Algorithm } else { Refusal::UnknownKey };
            assert_rejected(&verifier, text(&other["token"]), reason);
        }
    }
}

#[test]
fn an_rsa_key_with_an_unsafe_modulus_or_exponent_is_skipped() {
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
fn an_rsa_key_with_the_roca_weakness_is_skipped() {
    let vectors = parse(include_str!("../vectors/wycheproof/json_web_key_test.json"));
    let group =
        vectors["testGroups"].as_array().expect("groups").iter().find(|group| group["comment"] == "jws_rsa_roca_key");
    let set = JwkSet::from_json(&group.expect("a group")["public"].to_string()).expect("a key set");
    assert_eq!((set.len(), set.left_out()), (0, 1));
}

#[test]
fn a_point_that_is_not_on_its_curve_is_skipped() {
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
        // The same bytes, split at another position.
        let [x, y] = ["x", "y"].map(|member| URL_SAFE_NO_PAD.decode(text(&jwk[member])).expect("base64url"));
        let (cut, point) = (x.len() - 1, [x, y].concat());
        let shifted = changed(jwk.clone(), "x", json!(base64url(&point[..cut])));
        assert_eq!(usable(&[changed(shifted, "y", json!(base64url(&point[cut..])))]), 0);
        // The point at infinity, and coordinates of another length.
        let zero = json!(base64url([0; 32]));
        assert_eq!(usable(&[changed(changed(jwk.clone(), "x", zero.clone()), "y", zero)]), 0);
        for x in [format!("AA{}", text(&jwk["x"])), text(&jwk["x"])[2..].to_owned(), format!("{}=", text(&jwk["x"]))] {
            assert_eq!(usable(&[changed(jwk.clone(), "x", json!(x))]), 0, "{x}");
        }
    }
}

#[test]
fn an_ed25519_key_of_another_length_or_curve_is_skipped() {
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
fn an_ed25519_key_of_small_order_is_skipped() {
    // If the key is the neutral element, its encoding followed by zeros is a valid signature of every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": base64url(neutral) });
    let message = format!("{}.{}", base64url(r#"{"alg":"EdDSA","kid":"1"}"#), base64url(claims(json!({})).to_string()));
    let forged = format!("{message}.{}", base64url([neutral, [0; 32]].concat()));
    assert_rejected(&by_keys(std::slice::from_ref(&jwk)), &forged, Refusal::UnknownKey);

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
fn a_key_with_a_duplicate_member_is_skipped() {
    let (one, two) = (SigningKey::es256(), SigningKey::es256());
    for again in
        [r#""crv":"P-256""#, r#""\u0063rv":"P-256""#, r#""kid":"3""#, r#""ext":1,"ext":2"#, r#""a":{"b":1,"b":1}"#]
    {
        let ambiguous = one.jwk("1").to_string().replacen('{', &format!("{{{again},"), 1);
        let set = JwkSet::from_json(&format!(r#"{{"keys":[{ambiguous},{}]}}"#, two.jwk("2"))).expect("a key set");
        assert_eq!((set.len(), set.left_out()), (1, 1), "{again}");
        let verifier = at_now([any(set)]);
        assert_rejected(&verifier, &one.token("1", &claims(json!({}))), Refusal::UnknownKey);
        assert_accepted(&verifier, &two.token("2", &claims(json!({}))));
    }
}

#[test]
fn a_set_with_a_secret_or_private_key_is_rejected() {
    let good = SigningKey::es256().jwk("good");
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        for value in [json!("AAAA"), json!(""), json!(null), json!([])] {
            let set = json!({ "keys": [good, changed(RSA.jwk("1"), member, value)] }).to_string();
            assert_eq!(JwkSet::from_json(&set).err(), Some(InvalidJwks::Secret), "{member}");
            // The same name with an escape sequence.
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
fn a_document_that_is_not_a_key_set_is_rejected() {
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
fn a_set_has_0_to_100_keys() {
    assert!(JwkSet::from_json(r#"{"keys":[]}"#).expect("a key set").is_empty());
    let keys = |count: usize| json!({ "keys": vec![json!({}); count] }).to_string();
    assert_eq!(JwkSet::from_json(&keys(100)).expect("a key set").left_out(), 100);
    assert_eq!(JwkSet::from_json(&keys(101)).err(), Some(InvalidJwks::TooManyKeys));
}

#[test]
fn unknown_members_of_a_key_are_ignored() {
    let key = SigningKey::ed25519();
    let mut jwk = key.jwk("1");
    for (name, value) in [("x5c", json!(["MIIB"])), ("ext", json!(true)), ("exp", json!(1)), ("alg2", json!(null))] {
        jwk[name] = value;
    }
    assert_accepted(&by_keys(&[jwk]), &key.token("1", &claims(json!({}))));
}
