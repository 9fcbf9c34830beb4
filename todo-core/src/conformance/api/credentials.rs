//! Credentials: missing, bad, expired and revoked ones.

use serde_json::json;

use super::{
    App,
    client::{Client, ON_A_TASK, UNKNOWN_ID, anonymous, client},
    fixture::{now, sign, sign_scoped, token},
};

/// No header, another scheme, or a scheme without a token: the challenge names no error (RFC 6750, section 3.1).
pub async fn a_missing_credential_is_unauthenticated(app: &dyn App) {
    for authorization in [None, Some("Basic YW5uOmFubg=="), Some("Bearer"), Some("Bearer "), Some("Bearerx"), Some("")]
    {
        let client = Client { app, authorization: authorization.map(str::to_owned) };
        client.get("/tasks").await.unauthenticated();
        client.get("/auth/session").await.unauthenticated();
        client.get("/ann/tasks").await.unauthenticated();
    }
    // A token in the query is not accepted (RFC 6750, section 2.3, discourages it).
    let anonymous = anonymous(app);
    anonymous.get(&format!("/tasks?access_token={}", token("ann"))).await.unauthenticated();
}

/// Two credentials are ambiguous, even if they are equal.
pub async fn two_credentials_are_unauthenticated(app: &dyn App) {
    let ann = client(app, "ann");
    for other in ["ann", "bob"] {
        let other = format!("Bearer {}", token(other));
        ann.request("GET", "/api/v1/tasks", &[("authorization", &other)], b"").await.unauthenticated();
    }
}

/// RFC 9110, section 11.1.
pub async fn the_bearer_scheme_is_case_insensitive(app: &dyn App) {
    for scheme in ["bearer", "BEARER", "Bearer ", "bEaReR"] {
        let ann = Client { app, authorization: Some(format!("{scheme} {}", token("ann"))) };
        ann.get("/tasks").await.ok(200);
    }
}

/// A token that is malformed, signed with another key or without a user gets the same response.
pub async fn a_bad_token_is_invalid(app: &dyn App) {
    let good = token("ann");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let other_key = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &json!({"sub": "ann", "exp": now() + 60}),
        &jsonwebtoken::EncodingKey::from_secret(b"another secret of thirty-two bytes"),
    );
    let bad = [
        "nonsense".to_owned(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{good}.x"),
        format!("{good} x"),
        format!("{header}.{claims}A.{signature}"),
        format!("eyJhbGciOiJub25lIn0.{claims}."),
        format!("{header}.{claims}.{}", signature.to_lowercase()),
        other_key.unwrap(),
        sign(&json!({"exp": now() + 60})),
        sign(&json!({"sub": "", "exp": now() + 60})),
        sign(&json!({"sub": 1, "exp": now() + 60})),
        sign(&json!({"sub": "a\u{0}", "exp": now() + 60})),
        sign(&json!({"sub": "ann"})),
        sign(&json!({"sub": "ann", "exp": "tomorrow"})),
        sign(&json!({"sub": "ann", "exp": now() + 60, "nbf": now() + 50})),
        sign(&json!({"sub": "ann", "exp": (now() + 60) * 1000})),
    ];
    for token in bad {
        let ann = Client { app, authorization: Some(format!("Bearer {token}")) };
        ann.get("/tasks").await.token_invalid();
    }
}

/// A real token may be too long, for example with an image of the user in its claims. Its user can do something about it.
pub async fn a_token_that_is_too_long_is_told_the_limit(app: &dyn App) {
    let long = sign(&json!({"sub": "ann", "exp": now() + 60, "image": "x".repeat(13_000)}));
    let ann = Client { app, authorization: Some(format!("Bearer {long}")) };
    let reply = ann.get("/tasks").await;
    reply.problem(401, "Unauthorized", "token_invalid", "The token is longer than 16384 bytes.");
    assert_eq!(
        reply.header("www-authenticate"),
        r#"Bearer error="invalid_token", error_description="The token is longer than 16384 bytes.""#
    );
}

/// The code of an expired token differs from that of an invalid one, so that a client knows to fetch a new token.
pub async fn an_expired_token_has_its_own_code(app: &dyn App) {
    let ann =
        Client { app, authorization: Some(format!("Bearer {}", sign(&json!({"sub": "ann", "exp": now() - 60})))) };
    let reply = ann.get("/tasks").await;
    reply.problem(401, "Unauthorized", "token_expired", "The token has expired.");
    assert_eq!(
        reply.header("www-authenticate"),
        r#"Bearer error="invalid_token", error_description="The token has expired.""#
    );
    // The verifier allows for clocks that differ by a few seconds.
    let ann = Client {
        app,
        authorization: Some(format!("Bearer {}", sign(&json!({"sub": "ann", "exp": now() - 5, "nbf": now() + 5})))),
    };
    ann.get("/tasks").await.ok(200);
}

/// 403 with a challenge that names the scope, so that a client knows which scope to ask for (RFC 6750, section 3.1).
pub async fn a_token_without_a_required_scope_is_forbidden(app: &dyn App) {
    let bearer = |claims| Client { app, authorization: Some(format!("Bearer {}", sign_scoped(&claims))) };
    for (name, scope) in [
        ("other", json!("todo:read todo:write")),
        ("scope", json!("")),
        ("scope", json!("todo:read")),
        ("scope", json!("todo:write todo:readall")),
        ("scope", json!(["todo:read"])),
        ("scope", json!(["todo:read todo:write"])),
        ("scope", json!({"todo:read": true, "todo:write": true})),
        ("scope", json!(null)),
    ] {
        let client = bearer(json!({"sub": "ann", "exp": now() + 60, name: scope}));
        for reply in [
            client.get("/tasks").await,
            client.get("/bob/tasks").await,
            client.send_text("POST", "/tasks", "{").await,
            client.get("/auth/session").await,
        ] {
            reply.problem(403, "Forbidden", "insufficient_scope", "The token lacks a required scope.");
            assert_eq!(
                reply.header("www-authenticate"),
                r#"Bearer error="insufficient_scope", error_description="The token lacks a required scope.", scope="todo:read todo:write""#
            );
        }
    }
    for (name, scope) in [
        ("scope", json!("todo:write openid todo:read")),
        ("scope", json!(["todo:read", "todo:write"])),
        ("scp", json!(["todo:read", "todo:write"])),
        ("scp", json!("todo:read todo:write")),
    ] {
        bearer(json!({"sub": "ann", "exp": now() + 60, name: scope})).get("/tasks").await.ok(200);
    }
    // A token that is not valid gets 401, whatever its scope.
    let expired = bearer(json!({"sub": "ann", "exp": now() - 60})).get("/tasks").await;
    expired.problem(401, "Unauthorized", "token_expired", "The token has expired.");
}

/// A gate can reject a user, or all tokens issued before a time.
pub async fn a_token_rejected_by_the_gate_is_revoked(app: &dyn App) {
    for user in ["disabled", "signed-out"] {
        let reply = client(app, user).get("/tasks").await;
        reply.problem(401, "Unauthorized", "token_revoked", "The token has been revoked.");
        assert_eq!(
            reply.header("www-authenticate"),
            r#"Bearer error="invalid_token", error_description="The token has been revoked.""#
        );
    }
    let bearer = |claims| Client { app, authorization: Some(format!("Bearer {}", sign(&claims))) };
    bearer(json!({"sub": "signed-out", "exp": now() + 600, "iat": now() + 120})).get("/tasks").await.ok(200);
    // A token without `iat` is rejected, because its age is unknown.
    let reply = bearer(json!({"sub": "signed-out", "exp": now() + 600})).get("/tasks").await;
    assert_eq!(reply.json()["code"], "token_revoked");
}

/// Without a credential, a response reveals neither whether a task exists nor whether a body is valid.
pub async fn the_credential_is_checked_right_after_path_and_method(app: &dyn App) {
    let task = client(app, "ann").create("Ann's").await;
    let anonymous = anonymous(app);
    for shape in ["", "/ann"] {
        for (method, end, body) in ON_A_TASK {
            for id in [task["id"].as_str().unwrap(), UNKNOWN_ID, "no-uuid"] {
                anonymous.send_text(method, &format!("{shape}/tasks/{id}{end}"), body).await.unauthenticated();
            }
        }
        anonymous.get(&format!("{shape}/tasks?limit=0")).await.unauthenticated();
        anonymous.send_text("POST", &format!("{shape}/tasks"), "{").await.unauthenticated();
        anonymous.bare("DELETE", &format!("{shape}/tasks?all=true")).await.unauthenticated();
        let guest = json!({"from_token": token("ann")});
        anonymous.send("POST", &format!("{shape}/tasks/transfer"), &guest).await.unauthenticated();
    }
    assert_eq!(anonymous.bare("PUT", "/tasks").await.status, 405);
    anonymous.get("/tasks/").await.trailing_slash();
}
