//! Parses a token and verifies its signature (RFC 7515).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;

use crate::{
    auth::{
        error::{AuthError, Refusal},
        key::{Algorithm, Jwk},
    },
    json::{Json, get},
};

/// A token whose header is acceptable.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// In lower case.
    pub(super) typ: Option<&'static str>,
    /// The signed part: header and claims.
    signed: &'a str,
    claims: &'a str,
    signature: &'a str,
}

/// Header and claims of a token as far as they can be read, for the log.
pub(super) fn readable(token: &str) -> [Vec<(String, Json)>; 2] {
    let mut parts = token.split('.');
    [parts.next(), parts.next()].map(|part| part.and_then(|part| object(part).ok()).unwrap_or_default())
}

impl<'a> Token<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        if claims.contains('.') {
            return Err(Refusal::Malformed);
        }
        let header = object(header)?;
        if get(&header, "crit").is_some() || get(&header, "b64").is_some() {
            return Err(Refusal::CriticalExtension);
        }
        let typ = match get(&header, "typ") {
            None => None,
            Some(Json::String(typ)) => Some(accepted_type(typ).ok_or(Refusal::Type)?),
            Some(_) => return Err(Refusal::Type),
        };
        let algorithm = get(&header, "alg").and_then(Json::as_str).and_then(Algorithm::from_name);
        let kid = match get(&header, "kid") {
            None => None,
            Some(Json::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Refusal::Malformed),
        };
        Ok(Self { algorithm: algorithm.ok_or(Refusal::Algorithm)?, kid, typ, signed, claims, signature })
    }

    pub(super) fn claims(&self) -> Result<Vec<(String, Json)>, AuthError> {
        object(self.claims).map_err(AuthError::Invalid)
    }

    pub(super) fn is_signed_with_secret(&self, secret: &DecodingKey) -> bool {
        let algorithm = jsonwebtoken::Algorithm::HS256;
        jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), secret, algorithm).unwrap_or(false)
    }

    /// Verifies the signature with the key that the token names, if there is such a key.
    pub(super) fn check_signature(&self, key: Option<&Jwk>) -> Result<(), AuthError> {
        match key {
            Some(key) if !key.fits(self.algorithm) => Err(AuthError::Invalid(Refusal::UnknownKey)),
            Some(key) if key.verifies(self.algorithm, self.signed.as_bytes(), self.signature) => Ok(()),
            Some(_) => Err(AuthError::Invalid(Refusal::Signature)),
            None => Err(AuthError::Invalid(Refusal::UnknownKey)),
        }
    }
}

/// The type in lower case, if it is accepted. `application/` may be omitted before a type without another slash (RFC
/// 7515, section 4.1.9). Media types are case-insensitive.
fn accepted_type(typ: &str) -> Option<&'static str> {
    const PREFIX: &str = "application/";
    let has_prefix = typ.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let typ = if has_prefix { &typ[PREFIX.len()..] } else { typ };
    ["jwt", "at+jwt"].into_iter().find(|accepted| typ.eq_ignore_ascii_case(accepted))
}

fn object(part: &str) -> Result<Vec<(String, Json)>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)?;
    match Json::parse(&bytes) {
        Ok(value @ Json::Object(_)) => value.into_unambiguous_object().ok_or(Refusal::DuplicateMember),
        Ok(_) | Err(_) => Err(Refusal::Malformed),
    }
}
