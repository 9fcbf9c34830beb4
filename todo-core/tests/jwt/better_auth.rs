//! Session cookies and other tokens of Better Auth.

use super::*;

/// Accepts tokens of this shape that are signed with the secret of the fixtures, at the time of the fixtures.
fn better_auth_secret(shape: Shape) -> JwtVerifier {
    let source = KeySource::secrets([text(&BETTER_AUTH["secret"])]).expect("the secret is valid").shape(shape);
    with_clock([source], FixedClock::at(at(BETTER_AUTH["madeAt"].as_i64().expect("a time"))))
}

#[test]
fn a_session_cookie_of_better_auth_needs_its_own_shape() {
    let cookie = &BETTER_AUTH["sessionCookie"];
    let identity = assert_accepted(&better_auth_secret(Shape::CookieCache), text(&cookie["token"]));
    assert_eq!(identity.user_id.as_str(), cookie["user"]);
    assert_eq!(identity.email.as_deref(), Some("ann@example.com"));
    assert_eq!(identity.name.as_deref(), Some("Ann"));
    assert_rejected(&better_auth_secret(Shape::AccessToken), text(&cookie["token"]), Refusal::Subject);
}

#[test]
fn the_token_of_an_e_mail_link_of_better_auth_is_rejected() {
    let link = text(&BETTER_AUTH["emailLink"]["token"]);
    assert_rejected(&better_auth_secret(Shape::AccessToken), link, Refusal::Subject);
    assert_rejected(&better_auth_secret(Shape::CookieCache), link, Refusal::Subject);
    // Links of other versions, and other links.
    for more in [
        json!({ "email": "ann@example.com", "userId": "ann" }),
        json!({ "email": "ann@example.com", "updateTo": "bob@example.com" }),
        json!({ "email": "ann@example.com", "updateTo": "bob@example.com", "requestType": "change-email-verification" }),
        json!({ "email": "ann@example.com", "userId": "ann", "id": "ann", "user": "ann", "session": "x" }),
    ] {
        let link = token(changed(more, "sub", Value::Null));
        assert_rejected(&by_secret(), &link, Refusal::Subject);
        assert_rejected(&at_now([secret().shape(Shape::CookieCache)]), &link, Refusal::Subject);
    }
}

/// With another subject than `sub`, a link or a session cookie would be a login.
#[test]
fn with_a_secret_another_subject_needs_issuer_and_audience() {
    let secret = || KeySource::secrets([text(&BETTER_AUTH["secret"])]).expect("the secret is valid");
    let clock = || FixedClock::at(at(BETTER_AUTH["madeAt"].as_i64().expect("a time")));
    for subject in ["email", "userId", "updateTo", "id", "user.id", "user.email", "sub.id"] {
        let by = || secret().subject(subject);
        for incomplete in [
            by(),
            by().issuers([APP]),
            by().audiences([APP]),
            by().any_issuer().any_audience(),
            by().any_issuer().audiences([APP]),
            by().issuers([APP]).any_audience(),
        ] {
            let built = JwtVerifier::builder().source(incomplete).build();
            assert_eq!(built.err(), Some(InvalidSource::SubjectOfSecret), "{subject}");
        }
        let verifier = with_clock([by().issuers([APP]).audiences([APP])], clock());
        for other in ["emailLink", "sessionCookie"] {
            assert_rejected(&verifier, text(&BETTER_AUTH[other]["token"]), Refusal::Issuer);
        }
    }
    assert!(JwtVerifier::builder().source(secret().subject("sub")).build().is_ok());
    assert!(JwtVerifier::builder().source(secret().shape(Shape::CookieCache)).build().is_ok());
    let text = InvalidSource::SubjectOfSecret.to_string();
    assert!(text.contains("link"), "{text}");
}

#[test]
fn a_session_cookie_signed_with_the_key_of_access_tokens_is_rejected() {
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
        assert_rejected(&with_clock([source], clock()), text(&cookie["token"]), Refusal::Type);
    }
    // Without `typ`, the audience is rejected.
    let key = SigningKey::ed25519();
    let source = KeySource::jwks(jwks(&[key.jwk("1")])).issuers([APP]).audiences([APP]);
    let token = key.token("1", &claims(json!({ "aud": "better-auth:session-cache", "sid": "x" })));
    assert_rejected(&at_now([source]), &token, Refusal::Audience);
}

#[test]
fn an_access_token_for_another_audience_is_rejected() {
    let key = SigningKey::es256();
    let verifier =
        at_now([KeySource::jwks(jwks(&[key.jwk("1")])).issuers([APP]).audiences(["https://todo.example.com"])]);
    let sign = |aud: Value| {
        let header = r#"{"alg":"ES256","typ":"at+jwt","kid":"1"}"#;
        key.sign("ES256", header, &claims(json!({ "aud": aud, "scope": "todo", "client_id": "c" })).to_string())
    };
    assert_accepted(&verifier, &sign(json!("https://todo.example.com")));
    assert_accepted(&verifier, &sign(json!([APP, "https://todo.example.com"])));
    assert_rejected(&verifier, &sign(json!("https://other.example.com")), Refusal::Audience);
    assert_rejected(&verifier, &sign(json!(["https://other.example.com", APP])), Refusal::Audience);
    assert_rejected(&verifier, &sign(json!(null)), Refusal::Audience);
}

/// A session cookie with these changes to `session` and `user`.
pub(super) fn cookie(session: Value, user: Value) -> String {
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
fn the_session_and_the_user_of_a_cookie_must_match() {
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
        assert_rejected(&by_cookie(), &cookie(session, json!({})), Refusal::Session);
    }
    for user in [
        json!({ "id": null }),
        json!({ "id": "" }),
        json!({ "id": 1 }),
        json!([{ "id": "ann" }]),
        json!("ann"),
        Value::Null,
    ] {
        assert_rejected(&by_cookie(), &cookie(json!({}), user), Refusal::Subject);
    }
    assert_rejected(&by_cookie(), &cookie(json!({ "userId": 1 }), json!({ "id": 1 })), Refusal::Subject);
    // The subject of an access token is not accepted instead.
    assert_rejected(&by_cookie(), &token(json!({ "userId": "ann" })), Refusal::Subject);
}

#[test]
fn a_session_cookie_expires_with_its_session_or_its_exp() {
    let ends = |value: Value| cookie(json!({ "expiresAt": value }), json!({}));
    let expires = |token: &str| assert_accepted(&by_cookie(), token).expires_at;
    assert_eq!(expires(&ends(json!("2025-11-28T08:00:00.000Z"))), Some(at(NOW + 300)));
    assert_eq!(expires(&ends(json!("2025-11-21T08:01:40.000Z"))), Some(at(NOW + 100)));
    assert_eq!(expires(&ends(json!("2025-11-21T10:01:40+02:00"))), Some(at(NOW + 100)));
    assert_eq!(expires(&ends(json!((NOW + 100) * 1000))), Some(at(NOW + 100)));
    assert_eq!(expires(&ends(json!((NOW + 7 * 86_400) * 1000))), Some(at(NOW + 300)));
    // The leeway applies here too.
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
    // A time in seconds instead of milliseconds is in the past.
    assert_expired(&by_cookie(), &ends(json!(NOW + 100)));
    for wrong in
        [json!(null), json!(""), json!("tomorrow"), json!("2025-11-28"), json!("1764316800000"), json!(true), json!({})]
    {
        assert_rejected(&by_cookie(), &ends(wrong), Refusal::Session);
    }
    // The session is valid, but the cookie has expired.
    let clock = FixedClock::at(at(NOW + 330));
    assert_expired(&with_clock([secret().shape(Shape::CookieCache)], clock), &cookie(json!({}), json!({})));
}

#[test]
fn name_and_e_mail_of_a_session_cookie_come_from_its_user() {
    let token = cookie(json!({ "name": "no", "email": "no" }), json!({ "email": null }));
    let identity = assert_accepted(&by_cookie(), &token);
    assert_eq!((identity.name.as_deref(), identity.email), (Some("Ann"), None));
}
