//! Several key sources, and the cache of verified tokens.

use super::{better_auth::cookie, *};

#[test]
fn every_source_applies_its_own_rules() {
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
        assert_rejected(&verifier, &signed(&one, "two"), Refusal::Issuer);
        assert_rejected(&verifier, &signed(&two, "one"), Refusal::Issuer);
        assert_rejected(&verifier, &signed(&one, "three"), Refusal::Issuer);
        assert_rejected(&verifier, &token(json!({ "iss": "one", "aud": "one" })), Refusal::Issuer);
        let mixed = one.token("1", &claims(json!({ "iss": "one", "aud": "two" })));
        assert_rejected(&verifier, &mixed, Refusal::Audience);
    }
}

#[test]
fn two_shapes_can_share_a_secret() {
    for verifier in
        [at_now([secret(), secret().shape(Shape::CookieCache)]), at_now([secret().shape(Shape::CookieCache), secret()])]
    {
        assert_accepted(&verifier, &token(json!({})));
        assert_accepted(&verifier, &cookie(json!({}), json!({})));
        assert!(verify(&verifier, &cookie(json!({ "userId": "bob" }), json!({}))).is_err());
        let link = token(json!({ "sub": null, "userId": "ann", "email": "ann@example.com" }));
        assert_rejected(&verifier, &link, Refusal::Subject);
    }
}

#[test]
fn the_error_is_that_of_the_source_that_accepted_most_of_the_token() {
    let (known, unknown) = (SigningKey::es256(), SigningKey::es256());
    let keys = || any(jwks(&[known.jwk("1")]));
    let others = || any(jwks(&[SigningKey::es256().jwk("2")]));
    for verifier in [at_now([secret(), keys(), others()]), at_now([others(), keys(), secret()])] {
        assert_rejected(&verifier, &known.token("3", &claims(json!({}))), Refusal::UnknownKey);
        assert_rejected(&verifier, &unknown.token("1", &claims(json!({}))), Refusal::Signature);
        assert_rejected(&verifier, &known.token("1", &claims(json!({ "exp": null }))), Refusal::NoExpiry);
        assert_expired(&verifier, &known.token("1", &claims(json!({ "exp": NOW - 900 }))));
    }
}

#[test]
fn the_times_of_a_cached_token_are_checked_again() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let key = SigningKey::ed25519();
    let verifier = with_clock([any(jwks(&[key.jwk("1")]))], Arc::clone(&clock));
    let token = key.token("1", &claims(json!({ "nbf": NOW, "exp": NOW + 100 })));
    let first = assert_accepted(&verifier, &token);
    assert_eq!(assert_accepted(&verifier, &token), first);
    clock.set(at(NOW + 130));
    assert_expired(&verifier, &token);
    // If the clock goes backwards, a cached token is treated like a new one.
    clock.set(at(NOW - 31));
    assert_rejected(&verifier, &token, Refusal::NotYetValid);
    clock.set(at(NOW + 50));
    assert_eq!(assert_accepted(&verifier, &token), first);
}

#[test]
fn a_rejected_token_is_not_cached() {
    let clock = Arc::new(FixedClock::at(at(NOW)));
    let key = SigningKey::ed25519();
    let verifier = with_clock([any(jwks(&[key.jwk("1")]))], Arc::clone(&clock));
    let token = key.token("1", &claims(json!({ "nbf": NOW + 100 })));
    assert_rejected(&verifier, &token, Refusal::NotYetValid);
    clock.set(at(NOW + 100));
    assert_accepted(&verifier, &token);
}

#[test]
fn verifiers_have_separate_caches() {
    let (one, two) = (SigningKey::ed25519(), SigningKey::ed25519());
    let token = one.token("1", &claims(json!({})));
    let trusting = by_keys(&[one.jwk("1")]);
    assert_accepted(&trusting, &token);
    assert_rejected(&by_keys(&[two.jwk("1")]), &token, Refusal::Signature);
    let for_others = at_now([KeySource::jwks(jwks(&[one.jwk("1")])).issuers([APP]).audiences(["other"])]);
    assert_rejected(&for_others, &token, Refusal::Audience);
    // Clones share their cache and their keys.
    assert_accepted(&trusting.clone(), &token);
}

#[test]
fn the_cache_matches_the_whole_token() {
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
        assert_rejected(&verifier, &format!("{signed_by_ann}.{signature_of_bob}"), Refusal::Signature);
        assert_rejected(&verifier, &format!("{signed_by_bob}.{signature_of_ann}"), Refusal::Signature);
        assert_rejected(&verifier, &format!("{signed_by_ann}."), Refusal::Signature);
    }
}

#[test]
fn the_same_subject_of_two_sources_is_two_users_if_they_have_prefixes() {
    let (shop, forum) = (SigningKey::ed25519(), SigningKey::ed25519());
    let source =
        |key: &SigningKey, name: &str| KeySource::jwks(jwks(&[key.jwk("1")])).issuers([name]).audiences([name]);
    let signed = |key: &SigningKey, name: &str, sub: &str| {
        key.token("1", &claims(json!({ "iss": name, "aud": name, "sub": sub })))
    };
    let user = |verifier: &JwtVerifier, token: &str| assert_accepted(verifier, token).user_id.to_string();
    let without = at_now([source(&shop, "shop"), source(&forum, "forum")]);
    assert_eq!(user(&without, &signed(&shop, "shop", "1")), user(&without, &signed(&forum, "forum", "1")));

    let cookies = || secret().shape(Shape::CookieCache).user_prefix("c|");
    let prefixed = at_now([
        source(&shop, "shop").user_prefix("shop:"),
        source(&forum, "forum").user_prefix("f\u{f6}:"),
        cookies(),
    ]);
    // The second time from the cache.
    for _ in 0..2 {
        assert_eq!(user(&prefixed, &signed(&shop, "shop", "1")), "shop:1");
        assert_eq!(user(&prefixed, &signed(&forum, "forum", "1")), "f\u{f6}:1");
        assert_eq!(user(&prefixed, &cookie(json!({}), json!({}))), "c|ann");
    }
    // The prefix counts for the length, and is no subject itself.
    let (fits, too_long) = ("x".repeat(250), "x".repeat(251));
    assert_eq!(user(&prefixed, &signed(&shop, "shop", &fits)).len(), 255);
    for sub in [&too_long, ""] {
        assert_rejected(&prefixed, &signed(&shop, "shop", sub), Refusal::Subject);
    }
    let other = cookie(json!({ "userId": "c|ann" }), json!({}));
    assert_rejected(&at_now([cookies()]), &other, Refusal::Session);
}

#[test]
fn a_prefix_is_short_and_not_empty() {
    let build = |prefix: &str| JwtVerifier::builder().source(secret().user_prefix(prefix)).build().err();
    for wrong in ["", "a\u{0}b", &"x".repeat(101)] {
        assert_eq!(build(wrong), Some(InvalidSource::UserPrefix), "{wrong:?}");
    }
    for good in [":", &"\u{fc}".repeat(100)] {
        assert_eq!(build(good), None, "{good}");
    }
}
