//! Minting tokens, for those who have the secret anyway.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use todo_core::{
    UserId,
    clock::{Clock as _, SystemClock},
};

use crate::{
    failure::Failure,
    settings::{Hidden, Hs256, Keys},
};

/// A token of this user that a server with these settings takes.
pub(crate) fn mint(keys: &Keys, user: &UserId, lifetime: Duration) -> Result<String, Failure> {
    let Some(secret) = keys.secrets.first() else {
        return Err(Failure::fatal(
            "there is no secret to sign with: set BETTER_AUTH_SECRET (beside a key set also JWT_HS256=sub), or start \
             `todo-server dev` here once and use --dev",
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
            put(&mut claims, path, user.as_str().into());
            if let Some(issuer) = keys.issuers.first() {
                claims.insert("iss".to_owned(), issuer.as_str().into());
            }
            if let Some(audience) = keys.audiences.first() {
                claims.insert("aud".to_owned(), audience.as_str().into());
            }
        }
    }
    claims.insert("iat".to_owned(), now.unix_seconds().into());
    claims.insert("exp".to_owned(), expires.unix_seconds().into());
    Ok(sign(secret, &Value::Object(claims)))
}

/// Puts a value where a path of names leads.
fn put(claims: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            claims.insert(path.to_owned(), value);
        }
        Some((name, rest)) => {
            let inner = claims.entry(name).or_insert_with(|| json!({}));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// A JSON Web Token (RFC 7519) with HS256. The secret is its bytes as they are, as Better Auth has it.
fn sign(secret: &Hidden, claims: &Value) -> String {
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A length of time as people write it: `90s`, `15m`, `12h`, `30d`.
pub(crate) fn lifetime(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)) {
        // A hundred years are enough, and dates stay dates.
        Some(seconds @ 1..=3_155_760_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("write a number and a unit: 90s, 15m, 12h or 30d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_a_number_and_a_unit() {
        let seconds = |text| lifetime(text).map(|lifetime| lifetime.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("30d"), Ok(2_592_000));
        for wrong in ["", "15", "m", "0s", "-1m", "1.5h", "1 h", "1w", "99999999999d", "99999999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
