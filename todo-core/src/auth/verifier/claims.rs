//! Checks the claims of a token (RFC 7519, section 4).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    UserId,
    auth::{
        authenticator::{HostValue, Identity},
        error::{AuthError, InvalidSource, Refusal},
        token_claims::{TokenClaims, has_scope},
    },
    clock::Timestamp,
    json::{Json, get},
};

/// The layout of the claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// An access token. One claim contains the user id (see [`KeySource::subject`](super::KeySource::subject)). The
    /// claims `email` and `name` are optional.
    #[default]
    AccessToken,
    /// The session cookie of Better Auth with `cookieCache: { strategy: "jwt" }`. `user.id` is the user id,
    /// `session.userId` must be the same, and `session.expiresAt` must be in the future.
    CookieCache,
}

/// The maximum length of a prefix for user ids.
const MAX_PREFIX_CHARS: usize = 100;

/// From this number on, `exp` is in milliseconds: in seconds, it would be in the year 5138.
const FIRST_MILLISECONDS: i64 = 100_000_000_000;

/// The requirements of a key source for the claims of its tokens.
#[derive(Clone)]
pub(super) struct ClaimRules {
    /// `None` if not configured. An empty set accepts any issuer.
    pub(super) issuers: Option<BTreeSet<String>>,
    /// `None` if not configured. An empty set accepts any audience.
    pub(super) audiences: Option<BTreeSet<String>>,
    /// The path to the user id.
    pub(super) subject: Vec<String>,
    /// What is put before the subject.
    pub(super) user_prefix: Option<Arc<str>>,
    pub(super) shape: Shape,
    /// The scopes that a token must have, separated by spaces.
    pub(super) required_scope: Option<Arc<str>>,
    /// The names of the claims that are kept for gates, in addition to [`TokenClaims::KEPT`].
    pub(super) kept: Vec<String>,
}

impl ClaimRules {
    /// Checks the configuration.
    pub(super) fn check_config(&self, has_public_keys: bool) -> Result<(), InvalidSource> {
        let lists = [&self.issuers, &self.audiences];
        // `listed` turns an empty list into an empty string.
        if lists.into_iter().flatten().any(|list| list.contains("")) || self.subject.iter().any(String::is_empty) {
            return Err(InvalidSource::Empty);
        }
        if has_public_keys && lists.into_iter().any(Option::is_none) {
            return Err(InvalidSource::NoIssuerOrAudience);
        }
        // Better Auth signs the links in e-mails with its secret. They have no `sub`, no `iss` and no `aud`, but claims
        // like `email` and `userId`. A session cookie is also signed with it, and has `user.id`.
        let requires = |list: &Option<BTreeSet<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let may_be_a_link = self.shape == Shape::AccessToken && self.subject != ["sub"];
        if !has_public_keys && may_be_a_link && !lists.into_iter().all(requires) {
            return Err(InvalidSource::SubjectOfSecret);
        }
        if let Some(prefix) = &self.user_prefix
            && (UserId::new(prefix.clone()).is_err() || prefix.chars().count() > MAX_PREFIX_CHARS)
        {
            return Err(InvalidSource::UserPrefix);
        }
        if let Some(scopes) = &self.required_scope {
            let is_scope = |scope: &str| !scope.is_empty() && scope.chars().all(is_scope_character);
            if self.shape == Shape::CookieCache || !scopes.split(' ').all(is_scope) {
                return Err(InvalidSource::Scope);
            }
        }
        Ok(())
    }

    /// Checks the claims of a token, except for its scope.
    pub(super) fn check(
        &self,
        claims: &[(String, Json)],
        typ: Option<&'static str>,
        now: Timestamp,
        leeway: Duration,
    ) -> Result<VerifiedClaims, AuthError> {
        let refuse = |refusal| Err(AuthError::Invalid(refusal));
        if !self.accepts_issuer(claims) {
            return refuse(Refusal::Issuer);
        }
        if !accepts(self.audiences.as_ref(), get(claims, "aud"), true) {
            return refuse(Refusal::Audience);
        }
        let not_before = moment(claims, "nbf")?;
        let issued_at = moment(claims, "iat")?;
        let Some(mut expires_at) = moment(claims, "exp")? else {
            return refuse(Refusal::NoExpiry);
        };
        if expires_at >= Timestamp::from_unix_seconds(FIRST_MILLISECONDS) {
            return refuse(Refusal::Milliseconds);
        }

        let Some(subject) = self.subject_in(claims).and_then(Json::as_str) else {
            return refuse(Refusal::Subject);
        };
        let Some(user_id) = self.user_id(subject) else {
            return refuse(Refusal::Subject);
        };
        let profile = match self.shape {
            Shape::AccessToken => None,
            Shape::CookieCache => {
                let session = get(claims, "session");
                let member = |name| session.and_then(|session| session.get(name));
                let session_expires_at = match member("expiresAt") {
                    Some(Json::String(text)) => text.parse().ok(),
                    Some(Json::Number(millis)) => Some(seconds_to_moment(millis.as_f64() / 1000.0)),
                    _ => None,
                };
                let Some(session_expires_at) = session_expires_at else {
                    return refuse(Refusal::Session);
                };
                if member("userId").and_then(Json::as_str) != Some(subject) {
                    return refuse(Refusal::Session);
                }
                expires_at = expires_at.min(session_expires_at);
                get(claims, "user")
            }
        };
        let text = |name| {
            let value = match self.shape {
                Shape::AccessToken => get(claims, name),
                Shape::CookieCache => profile.and_then(|profile| profile.get(name)),
            };
            value.and_then(Json::as_str).map(str::to_owned)
        };
        let verified = VerifiedClaims {
            identity: Identity {
                user_id,
                issued_at,
                expires_at: Some(expires_at),
                email: text("email"),
                name: text("name"),
                claims: TokenClaims::keep(claims, &self.kept, typ),
                value: HostValue::default(),
            },
            not_before,
            expires_at,
        };
        verified.check_time(now, leeway)?;
        Ok(verified)
    }

    /// The claim with the subject.
    pub(super) fn subject_in<'a>(&self, claims: &'a [(String, Json)]) -> Option<&'a Json> {
        let (first, rest) = self.subject.split_first()?;
        rest.iter().try_fold(get(claims, first)?, |value, name| value.get(name))
    }

    /// The user with this subject.
    fn user_id(&self, subject: &str) -> Option<UserId> {
        match &self.user_prefix {
            // The prefix alone would be a valid id.
            Some(_) if subject.is_empty() => None,
            Some(prefix) => UserId::new(format!("{prefix}{subject}")).ok(),
            None => UserId::new(subject).ok(),
        }
    }

    /// Whether a token of this issuer may be from this source.
    pub(super) fn accepts_issuer(&self, claims: &[(String, Json)]) -> bool {
        accepts(self.issuers.as_ref(), get(claims, "iss"), false)
    }

    /// Checks the scope of a token that is valid otherwise, so that 403 is never the response to a forged token.
    pub(super) fn check_scope(&self, claims: &[(String, Json)]) -> Result<(), AuthError> {
        match &self.required_scope {
            Some(required) if !required.split(' ').all(|scope| has_scope(claims, scope)) => {
                Err(AuthError::InsufficientScope { required: required.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// RFC 6749, section 3.3.
pub(crate) fn is_scope_character(character: char) -> bool {
    matches!(character, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e')
}

/// Claims that were accepted. Only their time has to be checked again.
#[derive(Debug)]
pub(super) struct VerifiedClaims {
    pub(super) identity: Identity,
    not_before: Option<Timestamp>,
    expires_at: Timestamp,
}

impl VerifiedClaims {
    pub(super) fn check_time(&self, now: Timestamp, leeway: Duration) -> Result<(), AuthError> {
        if now >= self.expires_at.plus(leeway) {
            return Err(AuthError::Expired);
        }
        if self.not_before.is_some_and(|not_before| now < not_before.minus(leeway)) {
            return Err(AuthError::Invalid(Refusal::NotYetValid));
        }
        Ok(())
    }
}

/// The strings as a set. An empty list becomes a set that [`ClaimRules::check_config`] rejects, because an empty set
/// would accept all tokens.
pub(super) fn listed<S: Into<String>>(strings: impl IntoIterator<Item = S>) -> BTreeSet<String> {
    let mut set: BTreeSet<String> = strings.into_iter().map(Into::into).collect();
    if set.is_empty() {
        set.insert(String::new());
    }
    set
}

/// Whether a claim is in the list. `None` and an empty list accept every claim. `aud` may be an array, `iss` may not.
fn accepts(list: Option<&BTreeSet<String>>, claim: Option<&Json>, may_be_array: bool) -> bool {
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return true;
    };
    match claim {
        Some(Json::String(text)) => list.contains(text),
        Some(Json::Array(texts)) if may_be_array => {
            texts.iter().all(|text| text.as_str().is_some())
                && texts.iter().filter_map(Json::as_str).any(|text| list.contains(text))
        }
        _ => false,
    }
}

/// A NumericDate (RFC 7519, section 2), which may have a fraction.
fn moment(claims: &[(String, Json)], name: &str) -> Result<Option<Timestamp>, AuthError> {
    match get(claims, name) {
        None => Ok(None),
        Some(Json::Number(seconds)) => Ok(Some(seconds_to_moment(seconds.as_f64()))),
        Some(_) => Err(AuthError::Invalid(Refusal::Time)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and so does the range of timestamps")]
fn seconds_to_moment(seconds: f64) -> Timestamp {
    Timestamp::from_unix_micros((seconds * 1_000_000.0) as i64)
}
