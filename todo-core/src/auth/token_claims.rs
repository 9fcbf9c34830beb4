//! The claims of a token that gates may read.

use std::{fmt, sync::Arc};

use crate::json::{Json, get};

/// The claims of a token that say for whom and by whom the token may be used, for a [`Gate`](super::Gate).
///
/// A token need not stand for a user who is present. An OAuth server also issues tokens to clients: for the client
/// itself (a machine client, whose `sub` may be the id of the client), for a client that acts for a user (`azp` or
/// `client_id`, `scope`), for a service that acts in place of a user (`act`, RFC 8693), or bound to a key that the
/// client has to prove (`cnf`, RFC 7800). [`JwtVerifier`](super::JwtVerifier) accepts all of them if issuer, audience
/// and subject fit. It does not check `cnf`. A gate decides which of them may use the API:
///
/// ```
/// use todo_core::auth::{Claim, Gate, GateError, Identity, Verdict};
///
/// /// Rejects machine clients, tokens of services that act in place of a user, and tokens that are bound to a key.
/// #[derive(Debug)]
/// struct OnlyUsers;
///
/// #[async_trait::async_trait]
/// impl Gate for OnlyUsers {
///     async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
///         let claims = &identity.claims;
///         let user = identity.user_id.as_str();
///         let is_client = |name| claims.get(name).and_then(Claim::as_str) == Some(user);
///         let is_bound = ["act", "cnf"].into_iter().any(|name| claims.get(name).is_some());
///         let rejected = is_client("azp") || is_client("client_id") || is_bound;
///         Ok(if rejected { Verdict::Deny } else { Verdict::Allow })
///     }
/// }
/// ```
///
/// The claims of [`KEPT`](Self::KEPT) are kept, and those that
/// [`KeySource::keep_claims`](super::KeySource::keep_claims) adds. The `Debug` output contains none of them.
#[derive(Clone, Default, PartialEq)]
pub struct TokenClaims {
    typ: Option<&'static str>,
    /// `None` if the token has none of the claims, as usual. Clones share the claims.
    members: Option<Arc<[(String, Json)]>>,
}

// JSON has no number that differs from itself.
impl Eq for TokenClaims {}

impl TokenClaims {
    /// The claims that are kept by default.
    pub const KEPT: [&'static str; 6] = ["azp", "client_id", "scope", "scp", "act", "cnf"];

    /// Reads claims from a JSON object, for an authenticator of the host or for the test of a gate. All of them are
    /// kept. `None` if the text is not a JSON object, or has a duplicate member.
    ///
    /// ```
    /// use todo_core::{UserId, auth::{Claim, Identity, TokenClaims}};
    ///
    /// let mut identity = Identity::new(UserId::new("ann")?);
    /// let claims = TokenClaims::from_json(r#"{"azp": "the-app", "act": {"sub": "billing"}}"#);
    /// identity.claims = claims.unwrap_or_default();
    /// let service = identity.claims.get("act").and_then(|act| act.get("sub")?.as_str());
    /// assert_eq!(service, Some("billing"));
    /// assert!(!format!("{identity:?}").contains("billing"));
    /// # Ok::<(), todo_core::InvalidValue>(())
    /// ```
    #[must_use]
    pub fn from_json(object: &str) -> Option<Self> {
        let members = Json::parse(object.as_bytes()).ok()?.into_unambiguous_object()?;
        Some(Self { typ: None, members: Some(members.into()) })
    }

    /// Keeps the claims with these names.
    pub(super) fn keep(claims: &[(String, Json)], names: &[String], typ: Option<&'static str>) -> Self {
        let is_kept = |name: &str| Self::KEPT.contains(&name) || names.iter().any(|kept| kept == name);
        let mut kept = claims.iter().filter(|(name, _)| is_kept(name)).peekable();
        let members = kept.peek().is_some().then(|| kept.cloned().collect());
        Self { typ, members }
    }

    /// Returns a claim. `None` if the token does not have the claim, or if it is not kept.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Claim<'_>> {
        get(self.members.as_deref()?, name).map(Claim)
    }

    /// Returns the `typ` of the header in lower case: `jwt`, `at+jwt` (RFC 9068, the access token of an OAuth server)
    /// or `None`.
    #[must_use]
    pub fn typ(&self) -> Option<&'static str> {
        self.typ
    }

    /// Whether the token has this scope. See [`KeySource::required_scope`](super::KeySource::required_scope).
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.members.as_deref().is_some_and(|claims| has_scope(claims, scope))
    }
}

/// Whether the claims contain this scope: in `scope`, or in `scp` if there is no `scope`. Both are a text with spaces
/// (RFC 8693, section 4.2) or, at some issuers, an array of texts.
pub(super) fn has_scope(claims: &[(String, Json)], scope: &str) -> bool {
    match get(claims, "scope").or_else(|| get(claims, "scp")) {
        Some(Json::String(scopes)) => scopes.split(' ').any(|own| own == scope),
        Some(Json::Array(scopes)) => scopes.iter().any(|own| own.as_str() == Some(scope)),
        _ => false,
    }
}

impl fmt::Debug for TokenClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClaims").finish_non_exhaustive()
    }
}

/// The value of a claim: a JSON value. The `Debug` output does not contain it.
#[derive(Clone, Copy, PartialEq)]
pub struct Claim<'a>(&'a Json);

impl<'a> Claim<'a> {
    /// Returns the text, if this is a text.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        self.0.as_str()
    }

    /// Returns the number, if this is a number.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match self.0 {
            Json::Number(number) => Some(number.as_f64()),
            _ => None,
        }
    }

    /// Returns the boolean, if this is one.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.0 {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns a member, if this is an object with this member.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Self> {
        self.0.get(name).map(Self)
    }

    /// Returns the items, if this is an array. Otherwise there are none.
    pub fn items(self) -> impl Iterator<Item = Self> {
        let items: &[Json] = match self.0 {
            Json::Array(items) => items,
            _ => &[],
        };
        items.iter().map(Self)
    }
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim")
    }
}
