//! Sets of public keys (RFC 7517, section 5).

use std::collections::BTreeSet;

use super::key::{Algorithm, Jwk};
use crate::json::{Json, get};

/// The public keys of an issuer, parsed from a JWK set document (RFC 7517, section 5).
///
/// Keys that cannot be used are skipped: keys with an unknown `kty` or `crv`, a `use` other than `sig`, `key_ops`
/// without `verify`, or an `alg` of another key type; RSA keys of less than 2048 bits, or with a modulus that can be
/// factored (ROCA); points that are not on their curve or have a small order; keys with a duplicate member. If `alg` is
/// missing, the type of the key decides. A document with a symmetric key (`oct`) or a private key is rejected, because
/// such a key must not be published.
///
/// ```
/// use todo_core::auth::JwkSet;
///
/// let set = JwkSet::from_json(r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1",
///     "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#)?;
/// assert_eq!(set.len(), 1);
/// # Ok::<(), todo_core::auth::InvalidJwks>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: Vec<Jwk>,
    left_out: usize,
}

/// Why a document cannot be used as a JWK set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJwks {
    /// The document is not a JSON object with an array `keys` of objects.
    #[error("is not a JWK set")]
    NotJwks,
    /// The document contains a secret or private key. Everyone who can read it could sign tokens.
    #[error("contains a secret or private key, which must never be published")]
    Secret,
    /// Two keys have the same `kid`, so that a token does not identify its key.
    #[error("contains two keys with the same kid")]
    DuplicateKid,
    /// The document contains more than 100 keys.
    #[error("contains more than 100 keys")]
    TooManyKeys,
}

/// The members of private and symmetric keys (RFC 7518, section 6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl JwkSet {
    /// Parses a document. A set without keys is valid; it verifies no token.
    ///
    /// # Errors
    ///
    /// See [`InvalidJwks`].
    pub fn from_json(document: &str) -> Result<Self, InvalidJwks> {
        let document = Json::parse(document.as_bytes()).map_err(|_| InvalidJwks::NotJwks)?;
        let Json::Object(members) = document else {
            return Err(InvalidJwks::NotJwks);
        };
        let mut found = members.into_iter().filter(|(name, _)| name == "keys").map(|(_, value)| value);
        let (Some(Json::Array(values)), None) = (found.next(), found.next()) else {
            return Err(InvalidJwks::NotJwks);
        };
        if values.len() > 100 {
            return Err(InvalidJwks::TooManyKeys);
        }
        let mut set = Self::default();
        let mut kids = BTreeSet::new();
        for value in values {
            let Json::Object(members) = &value else {
                return Err(InvalidJwks::NotJwks);
            };
            if PRIVATE_MEMBERS.iter().any(|name| get(members, name).is_some()) {
                return Err(InvalidJwks::Secret);
            }
            if let Some(kid) = value.get("kid").and_then(Json::as_str)
                && !kids.insert(kid.to_owned())
            {
                return Err(InvalidJwks::DuplicateKid);
            }
            match value.into_unambiguous_object().and_then(|members| Jwk::parse(&members)) {
                Some(key) => set.keys.push(key),
                None => set.left_out += 1,
            }
        }
        Ok(set)
    }

    /// Returns the number of usable keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the set has no usable key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the number of keys in the document that were skipped because they cannot be used.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The `kid`s of the usable keys.
    pub(super) fn ids(&self) -> Vec<&str> {
        self.keys.iter().map(|key| key.kid.as_deref().unwrap_or("(no kid)")).collect()
    }

    /// Returns the key for a token. Without `kid`, there must be exactly one key for the algorithm.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Jwk> {
        match kid {
            Some(kid) => self.keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            None => {
                let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
                fitting.next().filter(|_| fitting.next().is_none())
            }
        }
    }
}
