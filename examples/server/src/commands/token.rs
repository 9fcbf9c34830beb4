//! `todo-server token`: prints a token of a user.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use todo_core::{
    UserId,
    clock::{Clock as _, SystemClock},
};

use super::dev;
use crate::{
    cli::TokenOptions,
    failure::Failure,
    settings::{Group, Hs256, Keys, Secret, Sources},
};

/// Prints a token, signed with the first secret of the settings, or with that of `dev`.
#[expect(clippy::print_stdout, reason = "the token is the output of this command")]
pub(super) fn run(mut sources: Sources, options: &TokenOptions) -> Result<(), Failure> {
    // If keys are set, the secret of `dev` is not used, even if these keys cannot sign.
    let keys = if options.dev || sources.names_in(&[Group::Keys]).is_empty() {
        dev::existing_secret()?.map(Keys::from_secret).unwrap_or_default()
    } else {
        let keys = Keys::read(&mut sources);
        sources.finish(Some(keys))?
    };
    println!("{}", sign_token(&keys, &options.user, options.lifetime)?);
    Ok(())
}

/// A token of this user that a server with these settings accepts.
pub(super) fn sign_token(keys: &Keys, user: &UserId, lifetime: Duration) -> Result<String, Failure> {
    let Some(secret) = keys.secrets.first() else {
        return Err(Failure::fatal(
            "there is no secret to sign with: set BETTER_AUTH_SECRET (with a key set also JWT_HS256=sub), or start \
             `todo-server dev` in this directory once and use --dev",
        ));
    };
    let now = SystemClock.now();
    let expires = now.plus(lifetime);
    let mut claims = Map::new();
    match keys.effective_hs256() {
        Hs256::CookieCache => {
            claims.insert("session".to_owned(), json!({ "userId": user.as_str(), "expiresAt": expires.to_string() }));
            claims.insert("user".to_owned(), json!({ "id": user.as_str() }));
        }
        Hs256::Sub | Hs256::Off => {
            let path = keys.subject.as_deref().unwrap_or("sub");
            insert_at(&mut claims, path, user.as_str().into());
            if let Some(issuer) = keys.issuers.first() {
                claims.insert("iss".to_owned(), issuer.as_str().into());
            }
            if let Some(audience) = keys.audiences.first() {
                claims.insert("aud".to_owned(), audience.as_str().into());
            }
            if let Some(scopes) = &keys.required_scope {
                claims.insert("scope".to_owned(), scopes.as_str().into());
            }
        }
    }
    claims.insert("iat".to_owned(), now.unix_seconds().into());
    claims.insert("exp".to_owned(), expires.unix_seconds().into());
    Ok(sign(secret, &Value::Object(claims)))
}

/// Inserts a value at a path of names, such as `user.id`.
fn insert_at(claims: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            claims.insert(path.to_owned(), value);
        }
        Some((name, rest)) => {
            let inner = claims.entry(name).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                insert_at(inner, rest, value);
            }
        }
    }
}

/// A JSON Web Token (RFC 7519) with HS256. The key is the bytes of the secret, as in Better Auth.
fn sign(secret: &Secret, claims: &Value) -> String {
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
