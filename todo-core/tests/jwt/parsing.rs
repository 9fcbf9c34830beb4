//! How tokens are parsed, and their headers.

use super::*;

#[test]
fn a_token_has_at_most_16_kib() {
    let sized = |filler: usize| token(json!({ "filler": "x".repeat(filler) }));
    let limit = 16 * 1024;
    // Not every length occurs in base64, so this is the longest token that fits.
    let fits =
        (12_000..12_288).map(sized).filter(|token| token.len() <= limit).max_by_key(String::len).expect("a token fits");
    assert!(fits.len() >= limit - 2, "{}", fits.len());
    assert_accepted(&by_secret(), &fits);
    let over = (12_000..12_300).map(sized).find(|token| token.len() > limit).expect("a token is too long");
    assert!(over.len() <= limit + 4, "{}", over.len());
    assert_rejected(&by_secret(), &over, Refusal::TooLong);
    for huge in ["a".repeat(50_000_000), ".".repeat(50_000_000), format!("{}{}", token(json!({})), "A".repeat(limit))] {
        let result = verify(&by_secret(), &huge);
        assert!(matches!(result, Err(AuthError::Invalid(Refusal::TooLong))));
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
        assert_rejected(&by_secret(), &wrong, Refusal::Malformed);
    }
    assert_rejected(&by_secret(), &format!("{header}..{signature}"), Refusal::Signature);
    assert_rejected(&by_secret(), &assembled(header, ""), Refusal::Malformed);
    assert_accepted(&by_secret(), &good);
}

/// The same bytes in base64url that is not canonical.
fn non_canonical(part: &str) -> Vec<String> {
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
    // Unused bits of the last character that are not zero.
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
fn only_canonical_base64url_is_accepted() {
    let claims = claims(json!({}));
    // Contents of every length modulo 3, so that the last character has 0, 2 and 4 unused bits.
    for filler in ["", "1", "12"] {
        let header = base64url(json!({ "alg": "HS256", "x": filler }).to_string());
        let payload = base64url(changed(claims.clone(), "x", json!(filler)).to_string());
        let good = assembled(&header, &payload);
        assert_accepted(&by_secret(), &good);
        for header in non_canonical(&header) {
            assert_rejected(&by_secret(), &assembled(&header, &payload), Refusal::Malformed);
        }
        for payload in non_canonical(&payload) {
            assert_rejected(&by_secret(), &assembled(&header, &payload), Refusal::Malformed);
        }
    }
    // The standard alphabet has other characters for `-` and `_`.
    let header = base64url("{\"alg\":\"HS256\",\"x\":\"???~~~~\"}");
    assert!(header.contains('_') && header.contains('-'), "{header}");
    let payload = base64url(claims.to_string());
    assert_accepted(&by_secret(), &assembled(&header, &payload));
    let other = header.replace('_', "/").replace('-', "+");
    assert_rejected(&by_secret(), &assembled(&other, &payload), Refusal::Malformed);
}

#[test]
fn only_canonical_base64url_is_accepted_in_signatures() {
    let all = pairs().iter().map(|pair| pair["jwk"].clone()).collect::<Vec<_>>();
    let verifier = at_now([secret(), any(jwks(&all))]);
    for token in pairs().iter().map(|pair| &pair["token"]).chain([&NODE["hs256"]]) {
        let (signed, signature) = text(token).rsplit_once('.').expect("a signature");
        assert_accepted(&verifier, text(token));
        for changed in non_canonical(signature) {
            assert_rejected(&verifier, &format!("{signed}.{changed}"), Refusal::Signature);
        }
    }
}

#[test]
fn a_signature_of_another_length_is_rejected() {
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
            assert_rejected(&verifier, &format!("{signed}.{}", base64url(wrong)), Refusal::Signature);
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
        assert_rejected(&by_secret(), &assembled(&base64url(wrong), &payload), Refusal::Malformed);
        assert_rejected(&by_secret(), &assembled(&header, &base64url(wrong)), Refusal::Malformed);
    }
    // White space is allowed in JSON.
    assert_accepted(&by_secret(), &raw(&format!(" \t\r\n{:#} ", claims(json!({})))));
}

#[test]
fn deeply_nested_json_is_rejected() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let claims_with = |value: &str| {
        let claims = claims(json!({})).to_string();
        format!("{},\"x\":{value}}}", claims.strip_suffix('}').expect("an object"))
    };
    assert_accepted(&by_secret(), &raw(&claims_with(&nested(100))));
    assert_accepted(&by_secret(), &headed(&format!(r#"{{"alg":"HS256","x":{}}}"#, nested(100))));
    for depth in [128, 1000, 4000] {
        assert_rejected(&by_secret(), &raw(&claims_with(&nested(depth))), Refusal::Malformed);
        assert_rejected(
            &by_secret(),
            &headed(&format!(r#"{{"alg":"HS256","x":{}}}"#, nested(depth))),
            Refusal::Malformed,
        );
        let objects = format!("{}1{}", r#"{"x":"#.repeat(depth.min(2000)), "}".repeat(depth.min(2000)));
        assert_rejected(&by_secret(), &raw(&claims_with(&objects)), Refusal::Malformed);
        assert_rejected(&by_secret(), &raw(&"[".repeat(depth)), Refusal::Malformed);
    }
}

#[test]
fn a_duplicate_member_is_rejected() {
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
        assert_rejected(&by_secret(), &headed(header), Refusal::DuplicateMember);
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
        assert_rejected(&by_secret(), &raw(&claims.replacen('{', &format!("{{{again},"), 1)), Refusal::DuplicateMember);
    }
    // The same name in two objects is no duplicate, and names are case-sensitive.
    assert_accepted(
        &by_secret(),
        &token(json!({ "a": { "sub": 1 }, "b": [{ "sub": 1 }, { "sub": 2 }], "Sub": "bob" })),
    );
}

#[test]
fn critical_extensions_are_rejected() {
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
        // This is checked before the algorithm.
        r#"{"alg":"none","crit":["exp"]}"#,
    ] {
        assert_rejected(&by_secret(), &headed(header), Refusal::CriticalExtension);
    }
    // An unencoded payload, as `b64` allows it.
    let header = base64url(r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#);
    assert_rejected(&by_secret(), &assembled(&header, r#"{"sub":"ann","exp":9999999999}"#), Refusal::CriticalExtension);
}

#[test]
fn typ_must_be_absent_or_that_of_an_access_token() {
    let with_prefix = ["application/at+jwt", "Application/At+Jwt", "APPLICATION/JWT"];
    for typ in ["JWT", "jwt", "Jwt", "at+jwt", "AT+JWT"].into_iter().chain(with_prefix) {
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
        "application/",
        "application/ jwt",
        "application/application/jwt",
        "application/jwt/x",
        "application\u{fc}jwt",
        "text/jwt",
        "/jwt",
    ];
    let values = [json!(null), json!(1), json!(["JWT"]), json!({ "JWT": true }), json!(false)];
    for typ in texts.into_iter().map(Value::from).chain(values) {
        assert_rejected(&by_secret(), &headed(&json!({ "alg": "HS256", "typ": typ }).to_string()), Refusal::Type);
    }
    // `cty` is ignored.
    assert_accepted(&by_secret(), &headed(r#"{"alg":"HS256","cty":"JWT"}"#));
}
