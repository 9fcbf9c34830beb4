//! Issuer, audience, times and subject.

use super::*;

#[test]
fn the_issuer_must_be_in_the_list() {
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
        assert_rejected(&verifier, &token(json!({ "iss": iss })), Refusal::Issuer);
    }
    assert_rejected(
        &verifier,
        &raw(&json!({ "sub": "ann", "exp": NOW + 1, "iss": null }).to_string()),
        Refusal::Issuer,
    );
}

#[test]
fn an_audience_must_be_in_the_list() {
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
        assert_rejected(&verifier, &token(json!({ "aud": aud })), Refusal::Audience);
    }
}

#[test]
fn issuer_and_audience_are_not_mixed_up() {
    let verifier = at_now([secret().issuers(["issuer"]).audiences(["audience"])]);
    assert_accepted(&verifier, &token(json!({ "iss": "issuer", "aud": "audience" })));
    assert_rejected(&verifier, &token(json!({ "iss": "audience", "aud": "issuer" })), Refusal::Issuer);
    assert_rejected(&verifier, &token(json!({ "iss": "issuer", "aud": "issuer" })), Refusal::Audience);
}

#[test]
fn empty_lists_and_strings_cannot_be_configured() {
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
fn a_source_of_public_keys_needs_issuers_and_audiences() {
    let keys = || jwks(&[SigningKey::es256().jwk("1")]);
    let build = |source| JwtVerifier::builder().source(source).build().err();
    assert_eq!(build(KeySource::jwks(keys())), Some(InvalidSource::NoIssuerOrAudience));
    assert_eq!(build(KeySource::jwks(keys()).issuers([APP])), Some(InvalidSource::NoIssuerOrAudience));
    assert_eq!(build(KeySource::jwks(keys()).any_issuer()), Some(InvalidSource::NoIssuerOrAudience));
    assert_eq!(build(KeySource::jwks(keys()).audiences([APP])), Some(InvalidSource::NoIssuerOrAudience));
    assert_eq!(build(KeySource::jwks(keys()).issuers([APP]).any_audience()), None);
    // Even if another source is valid.
    let both = JwtVerifier::builder().source(secret()).source(KeySource::jwks(keys())).build();
    assert_eq!(both.err(), Some(InvalidSource::NoIssuerOrAudience));
}

#[test]
fn a_token_expires_at_exp_plus_leeway() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let verifier = with_clock([secret()], Arc::clone(&clock));
    let strict = JwtVerifier::builder().source(secret()).clock(Arc::clone(&clock)).leeway(Duration::ZERO).build();
    let strict = strict.expect("the source is valid");
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
fn a_token_becomes_valid_at_nbf_minus_leeway() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let verifier = with_clock([secret()], Arc::clone(&clock));
    let token = token(json!({ "nbf": NOW + 100 }));
    assert_rejected(&verifier, &token, Refusal::NotYetValid);
    clock.set(at(NOW + 70).minus(Duration::from_micros(1)));
    assert_rejected(&verifier, &token, Refusal::NotYetValid);
    clock.set(at(NOW + 70));
    assert_accepted(&verifier, &token);
}

#[test]
fn iat_is_not_checked() {
    let identity = assert_accepted(&by_secret(), &token(json!({ "iat": NOW + 1_000_000 })));
    assert_eq!(identity.issued_at, Some(at(NOW + 1_000_000)));
    assert_eq!(assert_accepted(&by_secret(), &token(json!({ "iat": null }))).issued_at, None);
    assert_accepted(&by_secret(), &token(json!({ "iat": -5 })));
}

#[test]
fn exp_is_required() {
    assert_rejected(&by_secret(), &token(json!({ "exp": null })), Refusal::NoExpiry);
    assert_rejected(
        &by_secret(),
        &token(json!({ "exp": null, "Exp": NOW + 900, "expires": NOW + 900 })),
        Refusal::NoExpiry,
    );
}

#[test]
fn times_must_be_numbers() {
    for name in ["exp", "nbf", "iat"] {
        for value in
            [json!("1763712900"), json!("2099-01-01T00:00:00Z"), json!(""), json!([NOW]), json!({}), json!(true)]
        {
            assert_rejected(&by_secret(), &token(json!({ name: value })), Refusal::Time);
        }
        let mut claims = claims(json!({}));
        claims[name] = Value::Null;
        assert_rejected(&by_secret(), &secret_token(SECRET.as_bytes(), &claims), Refusal::Time);
    }
}

#[test]
fn times_may_have_a_fraction_and_are_not_in_milliseconds() {
    let with_exp = |exp: &str| raw(&format!(r#"{{"sub":"ann","exp":{exp}}}"#));
    let half = assert_accepted(&by_secret(), &with_exp(&format!("{NOW}.5")));
    assert_eq!(half.expires_at, Some(Timestamp::from_unix_micros(NOW * 1_000_000 + 500_000)));
    assert_accepted(&by_secret(), &with_exp("1.763712e9"));
    for late in ["9999999999", "99999999999", "99999999999.9"] {
        assert_accepted(&by_secret(), &with_exp(late));
    }
    // Milliseconds would be valid for thousands of years.
    for huge in [
        "100000000000",
        "1763712000000",
        "1e15",
        "9223372036854775807",
        "18446744073709551616",
        "1e300",
        "1.7976931348623157e308",
    ] {
        assert_rejected(&by_secret(), &with_exp(huge), Refusal::Milliseconds);
    }
    for past in ["0", "-0", "0.1", "1e-300", "-1", "-1e18", "-9223372036854775808", "-1e300", "3600"] {
        assert_expired(&by_secret(), &with_exp(past));
    }
    for no_json in ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "0x7fffffff", "01", "+1", "1.", ".5", "1_000"] {
        assert_rejected(&by_secret(), &with_exp(no_json), Refusal::Malformed);
    }
}

#[test]
fn a_token_without_a_valid_subject_is_rejected() {
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
        assert_rejected(&by_secret(), &token(json!({ "sub": sub })), Refusal::Subject);
    }
    // For example the token of a machine, which has an issuer, an audience and a client.
    let key = SigningKey::ed25519();
    let machine = key.token("1", &claims(json!({ "sub": null, "azp": "client", "client_id": "client" })));
    assert_rejected(&by_keys(&[key.jwk("1")]), &machine, Refusal::Subject);
    for sub in ["1", "ann@example.com", "auth0|5f7c", " ann ", "Ann", "\u{1f98a}"] {
        assert_eq!(assert_accepted(&by_secret(), &token(json!({ "sub": sub }))).user_id.as_str(), sub);
    }
}

#[test]
fn the_subject_can_be_another_claim_or_a_nested_one() {
    let by = |path: &str| at_now([secret().subject(path).issuers([APP]).audiences([APP])]);
    let token =
        token(json!({ "id": "1", "user": { "id": "2", "deep": { "er": "3" } }, "users": [{ "id": "4" }], "a.b": "5" }));
    for (path, user) in [("sub", "ann"), ("id", "1"), ("user.id", "2"), ("user.deep.er", "3")] {
        assert_eq!(assert_accepted(&by(path), &token).user_id.as_str(), user, "{path}");
    }
    for path in
        ["ID", "user", "user.deep", "user.id.x", "users.id", "users.0.id", "sub.x", "nothing", "user.nothing", "a.b"]
    {
        assert_rejected(&by(path), &token, Refusal::Subject);
    }
}

#[test]
fn email_and_name_are_ignored_unless_they_are_strings() {
    let identity = assert_accepted(&by_secret(), &token(json!({ "email": "ann@example.com", "name": "Ann" })));
    assert_eq!((identity.email.as_deref(), identity.name.as_deref()), (Some("ann@example.com"), Some("Ann")));
    let identity = assert_accepted(&by_secret(), &token(json!({ "email": 1, "name": ["Ann"] })));
    assert_eq!((identity.email, identity.name), (None, None));
}

#[test]
fn a_required_scope_is_a_list_of_scopes_and_not_for_session_cookies() {
    let build = |source: KeySource| JwtVerifier::builder().source(source).build().err();
    for wrong in ["", " ", "todo ", " todo", "todo  other", "to\"do", "to\\do", "t\u{f6}do", "to\tdo", "to\ndo"] {
        assert_eq!(build(secret().required_scope(wrong)), Some(InvalidSource::Scope), "{wrong:?}");
    }
    for good in ["todo", "todo:read todo:write", "https://a.example/todo", "!#[]~"] {
        assert_eq!(build(secret().required_scope(good)), None, "{good}");
    }
    assert_eq!(build(secret().shape(Shape::CookieCache).required_scope("todo")), Some(InvalidSource::Scope));
}

#[test]
fn only_a_token_that_is_valid_otherwise_lacks_a_scope() {
    let key = SigningKey::es256();
    let scoped = any(jwks(&[key.jwk("1")])).required_scope("todo:read todo:write");
    // The first source needs no scope, and does not vouch for the tokens of the second one.
    let verifier = at_now([secret(), scoped]);
    let verify = |claims: &Value| verify(&verifier, &key.token("1", claims));
    let lacking = verify(&claims(json!({ "scope": "todo:read" })));
    assert!(
        matches!(&lacking, Err(AuthError::InsufficientScope { required }) if **required == *"todo:read todo:write"),
        "{lacking:?}"
    );
    for scope in [json!("todo:write x todo:read"), json!(["todo:read", "todo:write"])] {
        let token = key.token("1", &claims(json!({ "scope": scope })));
        for _ in 0..2 {
            assert_accepted(&verifier, &token);
        }
    }
    assert!(matches!(verify(&claims(json!({ "exp": NOW - 900 }))), Err(AuthError::Expired)));
    assert!(matches!(verify(&claims(json!({ "sub": null }))), Err(AuthError::Invalid(Refusal::Subject))));
    let forged = SigningKey::es256().token("1", &claims(json!({})));
    assert_rejected(&verifier, &forged, Refusal::Signature);
    assert_rejected(&verifier, &key.token("2", &claims(json!({}))), Refusal::UnknownKey);
    assert_accepted(&verifier, &token(json!({})));
}

#[test]
fn a_gate_can_read_the_claims_of_clients_and_delegation() {
    let key = SigningKey::es256();
    let verifier = at_now([any(jwks(&[key.jwk("1")])).keep_claims(["sid", "amr"])]);
    let of_client = claims(json!({
        "sub": "client-7", "azp": "client-7", "client_id": "client-7", "scope": "todo openid",
        "act": { "sub": "billing", "act": { "sub": "cron" } }, "cnf": { "jkt": "thumb" },
        "sid": 7, "amr": ["pwd", "otp"], "secret": "not kept",
    }));
    let header = r#"{"alg":"ES256","typ":"AT+JWT","kid":"1"}"#;
    let token = key.sign("ES256", header, &of_client.to_string());
    for _ in 0..2 {
        let claims = assert_accepted(&verifier, &token).claims;
        let text = |name| claims.get(name).and_then(Claim::as_str);
        assert_eq!(
            (text("azp"), text("client_id"), claims.typ()),
            (Some("client-7"), Some("client-7"), Some("at+jwt"))
        );
        let act = claims.get("act").expect("it is kept");
        assert_eq!(act.get("sub").and_then(Claim::as_str), Some("billing"));
        assert_eq!(act.get("act").and_then(|act| act.get("sub")?.as_str()), Some("cron"));
        assert_eq!(claims.get("cnf").and_then(|cnf| cnf.get("jkt")?.as_str()), Some("thumb"));
        assert_eq!(claims.get("sid").and_then(Claim::as_f64), Some(7.0));
        let methods: Vec<_> = claims.get("amr").expect("it is kept").items().filter_map(Claim::as_str).collect();
        assert_eq!(methods, ["pwd", "otp"]);
        assert!(claims.has_scope("openid") && !claims.has_scope("open") && !claims.has_scope("todo openid"));
        assert!(claims.get("secret").is_none() && claims.get("sub").is_none());
    }
    // The usual token has none of them.
    let usual = assert_accepted(&by_secret(), &self::token(json!({}))).claims;
    assert!(TokenClaims::KEPT.iter().all(|name| usual.get(name).is_none()));
}
