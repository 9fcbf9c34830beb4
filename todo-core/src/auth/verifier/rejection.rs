//! Logs why a token is rejected: the reason, what was expected and what came.
//!
//! Of the header, a line contains `typ`, `alg` and `kid`, and of the claims `iss` and `aud`; of the subject only what
//! kind of value it is. Nothing else of a token is logged.

use std::{collections::BTreeSet, fmt};

use super::{KeySource, token::readable};
use crate::{
    UserId,
    auth::{
        error::{AuthError, MAX_TOKEN_BYTES, Refusal},
        key::Algorithm,
        rejection_log::{RejectionLog, shown},
    },
    json::{Json, get},
};

/// Logs why a token is rejected. `source` is the one that accepted most of the token, if one could have accepted it.
pub(super) fn report(
    log: &RejectionLog,
    error: &AuthError,
    token: &str,
    source: Option<&KeySource>,
    sources: &[KeySource],
) {
    // The API logs this as an error.
    if matches!(error, AuthError::Unavailable { .. }) {
        return;
    }
    let reason = error.reason();
    let Some(left_out) = log.take(reason) else {
        tracing::debug!(target: "todo_core::auth", reason, "a token was rejected: {}", Reason(error));
        return;
    };
    let [header, claims] = readable(token);
    let expected = expected(error, token, &claims, source, sources);
    let subject = matches!(error, AuthError::Invalid(Refusal::Subject)).then(|| {
        let subject = source.and_then(|source| source.rules().subject_in(&claims));
        subject.map_or("(none)", kind)
    });
    // Claims that cannot be read have no members.
    let claim = |name| came(get(&claims, name)).or_else(|| (!claims.is_empty()).then(|| "(none)".to_owned()));
    tracing::info!(
        target: "todo_core::auth",
        reason,
        expected,
        subject,
        iss = claim("iss"),
        aud = claim("aud"),
        typ = came(get(&header, "typ")),
        alg = came(get(&header, "alg")),
        kid = came(get(&header, "kid")),
        left_out = left_out.count(),
        "a token was rejected: {}",
        Reason(error)
    );
}

/// Logs why a request that should have a token has none that can be read.
pub(super) fn report_unread(log: &RejectionLog, error: &AuthError, problem: &'static str) {
    let reason = error.reason();
    match log.take(reason) {
        Some(left_out) => {
            let left_out = left_out.count();
            tracing::info!(target: "todo_core::auth", reason, left_out, "a request was rejected: {problem}");
        }
        None => tracing::debug!(target: "todo_core::auth", reason, "a request was rejected: {problem}"),
    }
}

/// The text of an error, without what all texts begin with.
struct Reason<'a>(&'a AuthError);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            AuthError::Invalid(refusal) => refusal.fmt(f),
            error => error.fmt(f),
        }
    }
}

/// What a token should be like, as far as this explains the error.
fn expected(
    error: &AuthError,
    token: &str,
    claims: &[(String, Json)],
    source: Option<&KeySource>,
    sources: &[KeySource],
) -> Option<String> {
    let rules = source.map(KeySource::rules);
    let listed = |list: Option<&BTreeSet<String>>| {
        let list: Vec<_> = list?.iter().map(String::as_str).collect();
        Some(shown(&list.join(", ")))
    };
    match error {
        AuthError::Expired => Some(expiry(claims)),
        AuthError::InsufficientScope { required } => Some(format!("the scope {}", shown(required))),
        AuthError::KeyMayBeNew { .. } => source.and_then(KeySource::shown_keys),
        AuthError::Invalid(refusal) => match refusal {
            Refusal::TooLong => Some(format!(
                "at most {MAX_TOKEN_BYTES} bytes, not {}; an image of the user in the claims makes a token long",
                token.len()
            )),
            Refusal::Malformed => Some(format!(
                "three parts of base64url between dots, not {} characters with {} dots{}",
                token.len(),
                token.matches('.').count(),
                if token.contains('.') { "" } else { "; a session token is no JSON Web Token" }
            )),
            Refusal::Type => Some("none, JWT or at+jwt".to_owned()),
            Refusal::Algorithm => Some(algorithms(sources)),
            Refusal::UnknownKey => source.and_then(KeySource::shown_keys),
            Refusal::Signature => Some(match source.and_then(KeySource::shown_key_set) {
                Some(set) => format!("a signature with the key of this kid in {set}"),
                None => "a signature with the shared secret".to_owned(),
            }),
            Refusal::Issuer => listed(rules?.issuers.as_ref()),
            Refusal::Audience => listed(rules?.audiences.as_ref()),
            Refusal::Subject => {
                let path = rules?.subject.join(".");
                Some(format!("a text of 1 to {} characters in the claim {}", UserId::MAX_CHARS, shown(&path)))
            }
            Refusal::Milliseconds => Some("exp in seconds since 1970".to_owned()),
            Refusal::Time => {
                let is_wrong = |name: &&str| !matches!(get(claims, name), None | Some(Json::Number(_)));
                let wrong = ["exp", "nbf", "iat"].into_iter().find(is_wrong)?;
                Some(format!("a number in the claim {wrong}, not {}", get(claims, wrong).map_or("(none)", kind)))
            }
            Refusal::Session => Some("user.id, the same in session.userId, and session.expiresAt".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

/// How long ago a token has expired, but not when exactly, since that is a claim.
fn expiry(claims: &[(String, Json)]) -> String {
    // The first tokens of this kind were made long after 2001.
    let is_ancient = match get(claims, "exp") {
        Some(Json::Number(seconds)) => seconds.as_f64() < 1e9,
        _ => false,
    };
    if is_ancient {
        "exp in seconds since 1970; this one is before 2001, so it may be a lifetime".to_owned()
    } else {
        "exp in the future".to_owned()
    }
}

/// The algorithms of all sources.
fn algorithms(sources: &[KeySource]) -> String {
    let has = |algorithm| sources.iter().any(|source| source.is_for(algorithm));
    let public = "EdDSA, ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384 or PS512";
    match (has(Algorithm::Hs256), has(Algorithm::EdDsa)) {
        (true, true) => format!("HS256, {public}"),
        (true, false) => "HS256; no key set is configured".to_owned(),
        (false, _) => format!("{public}; no shared secret is used"),
    }
}

/// What came: a text, texts, or what kind of value it is.
fn came(value: Option<&Json>) -> Option<String> {
    Some(match value? {
        Json::String(text) if text.is_empty() => "(empty)".to_owned(),
        Json::String(text) => shown(text),
        Json::Array(items) if items.iter().all(|item| item.as_str().is_some()) => {
            shown(&items.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(", "))
        }
        other => kind(other).to_owned(),
    })
}

/// What kind of value it is.
fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "(null)",
        Json::Bool(_) => "(a boolean)",
        Json::Number(_) => "(a number)",
        Json::String(text) if text.is_empty() => "(empty)",
        Json::String(_) => "(a text)",
        Json::Array(_) => "(an array)",
        Json::Object(_) => "(an object)",
    }
}
