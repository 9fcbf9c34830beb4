//! Keys, with the requirements for the tokens that they sign.

#[cfg(feature = "remote-jwks")]
use std::sync::Arc;
use std::{collections::BTreeSet, fmt, time::Duration};

use jsonwebtoken::DecodingKey;

use super::{
    better_auth,
    claims::{ClaimRules, Shape, VerifiedClaims, listed},
    token::Token,
};
#[cfg(feature = "remote-jwks")]
use crate::auth::remote_keys::{RemoteJwks, Snapshot};
use crate::{
    auth::{
        error::{AuthError, InvalidSource, Refusal},
        key::Algorithm,
        key_set::JwkSet,
        rejection_log::shown,
    },
    clock::Timestamp,
};

/// Keys, and what is required of the tokens that are signed with them.
///
/// Issuers, audiences, subject and shape belong to a source, so that a token of one issuer is never verified with the
/// rules of another.
///
/// The `alg` of a token only selects among keys of this algorithm. A shared secret never verifies a token with an
/// asymmetric algorithm, and a public key is never used as a secret.
#[derive(Clone)]
pub struct KeySource {
    keys: Keys,
    rules: ClaimRules,
}

#[derive(Clone)]
enum Keys {
    Secrets(Vec<DecodingKey>),
    Jwks(JwkSet),
    #[cfg(feature = "remote-jwks")]
    Remote(RemoteJwks),
}

impl KeySource {
    /// Returns a source of shared secrets, for HS256.
    ///
    /// The bytes of each string are used as they are. Several secrets allow rotation: a token may be signed with any of
    /// them.
    ///
    /// # Errors
    ///
    /// If there is no secret, or one is shorter than 32 bytes or publicly known.
    pub fn secrets<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, InvalidSource> {
        let mut keys = Vec::new();
        for secret in secrets {
            let secret = secret.as_ref();
            if secret == better_auth::DEFAULT_SECRET.as_bytes() {
                return Err(InvalidSource::PublicSecret);
            }
            if secret.len() < 32 {
                return Err(InvalidSource::ShortSecret);
            }
            keys.push(DecodingKey::from_secret(secret));
        }
        if keys.is_empty() {
            return Err(InvalidSource::Empty);
        }
        Ok(Self::new(Keys::Secrets(keys)))
    }

    /// Returns a source of public keys that do not change while the program runs.
    ///
    /// [`issuers`](Self::issuers) and [`audiences`](Self::audiences) are required.
    #[must_use]
    pub fn jwks(keys: JwkSet) -> Self {
        Self::new(Keys::Jwks(keys))
    }

    /// Returns a source of public keys that are fetched from their issuer and kept up to date.
    ///
    /// [`issuers`](Self::issuers) and [`audiences`](Self::audiences) are required.
    #[cfg(feature = "remote-jwks")]
    #[must_use]
    pub fn remote(keys: RemoteJwks) -> Self {
        Self::new(Keys::Remote(keys))
    }

    /// Returns a source for the tokens of Better Auth and its `jwt` plugin.
    ///
    /// The base URL is the `baseURL` of Better Auth (`BETTER_AUTH_URL`). The keys are fetched from
    /// `<url>/api/auth/jwks`, and issuer and audience are the origin of the URL. If the URL has a path, Better Auth is
    /// mounted there, and the keys are fetched from `<url>/jwks`.
    ///
    /// If the keys have another address than the public URL, for example within a container network, use
    /// [`remote`](Self::remote) with [`issuers`](Self::issuers) and [`audiences`](Self::audiences).
    ///
    /// # Errors
    ///
    /// [`InvalidSource::Url`], if the URL is invalid, or is `http://` to another machine.
    #[cfg(feature = "remote-jwks")]
    pub fn better_auth(base_url: &str) -> Result<Self, InvalidSource> {
        let (jwks_url, origin) = better_auth::addresses(base_url)?;
        Ok(Self::remote(RemoteJwks::builder(jwks_url).build()?).issuers([origin.clone()]).audiences([origin]))
    }

    fn new(keys: Keys) -> Self {
        let rules = ClaimRules {
            issuers: None,
            audiences: None,
            subject: vec!["sub".to_owned()],
            user_prefix: None,
            shape: Shape::AccessToken,
            required_scope: None,
            kept: Vec::new(),
        };
        Self { keys, rules }
    }

    /// Requires that the claim `iss` is one of these issuers. They are compared byte by byte.
    #[must_use]
    pub fn issuers<S: Into<String>>(mut self, issuers: impl IntoIterator<Item = S>) -> Self {
        self.rules.issuers = Some(listed(issuers));
        self
    }

    /// Accepts tokens with any `iss`, or none.
    #[must_use]
    pub fn any_issuer(mut self) -> Self {
        self.rules.issuers = Some(BTreeSet::new());
        self
    }

    /// Requires that a value of the claim `aud` is one of these audiences. They are compared byte by byte.
    #[must_use]
    pub fn audiences<S: Into<String>>(mut self, audiences: impl IntoIterator<Item = S>) -> Self {
        self.rules.audiences = Some(listed(audiences));
        self
    }

    /// Accepts tokens with any `aud`, or none.
    #[must_use]
    pub fn any_audience(mut self) -> Self {
        self.rules.audiences = Some(BTreeSet::new());
        self
    }

    /// Sets the claim that contains the user id. A dot separates the names of nested objects (`user.id`). Default:
    /// `sub`.
    ///
    /// With [shared secrets](Self::secrets), another claim than `sub` needs [`issuers`](Self::issuers) and
    /// [`audiences`](Self::audiences), since Better Auth signs the links in its e-mails with the same secret, and their
    /// claims contain an e-mail address and a user id ([`InvalidSource::SubjectOfSecret`]).
    ///
    /// ```
    /// use todo_core::auth::{InvalidSource, JwtVerifier, KeySource};
    ///
    /// let by_id = || KeySource::secrets(["at least thirty-two bytes of secret"]).map(|source| source.subject("id"));
    /// let incomplete = JwtVerifier::builder().source(by_id()?).build();
    /// assert_eq!(incomplete.err(), Some(InvalidSource::SubjectOfSecret));
    /// let app = ["https://app.example.com"];
    /// JwtVerifier::builder().source(by_id()?.issuers(app).audiences(app)).build()?;
    /// # Ok::<(), InvalidSource>(())
    /// ```
    #[must_use]
    pub fn subject(mut self, path: &str) -> Self {
        self.rules.subject = path.split('.').map(str::to_owned).collect();
        self
    }

    /// Sets a text that is put before each subject: the id of the user is the prefix and the subject. Default: none.
    ///
    /// Two sources may have tokens with the same subject for different people: the user `1` of one application is not
    /// the user `1` of another. Without prefixes, they are the same user here, and see each other's tasks. Give each
    /// source a prefix, or all but one. End the prefix with a character that no subject contains, such as `:`; otherwise
    /// the subject `a1` without a prefix is the subject `1` with the prefix `a`.
    ///
    /// The prefix has 1 to 100 characters. It is a part of the ids in the database, so do not change it later.
    ///
    /// ```
    /// use todo_core::auth::{InvalidSource, JwkSet, JwtVerifier, KeySource};
    ///
    /// # let (keys_of_shop, keys_of_forum) = (JwkSet::default(), JwkSet::default());
    /// let source = |keys, app: &str| KeySource::jwks(keys).issuers([app]).audiences([app]);
    /// let verifier = JwtVerifier::builder()
    ///     .source(source(keys_of_shop, "https://shop.example").user_prefix("shop:"))
    ///     .source(source(keys_of_forum, "https://forum.example").user_prefix("forum:"))
    ///     .build()?;
    /// # Ok::<(), InvalidSource>(())
    /// ```
    #[must_use]
    pub fn user_prefix(mut self, prefix: &str) -> Self {
        self.rules.user_prefix = Some(prefix.into());
        self
    }

    /// Requires these scopes, separated by spaces, in the claim `scope` of each token. A valid token without one of
    /// them is rejected with 403 `insufficient_scope` (RFC 6750, section 3.1). Default: none is required.
    ///
    /// The claim is a text with spaces (RFC 8693, RFC 9068) or an array of texts; without a claim `scope`, the claim
    /// `scp` counts. The tokens of Better Auth's `jwt` plugin have no scope; those of its OAuth provider do.
    ///
    /// ```
    /// use todo_core::auth::{AuthError, JwtVerifier, KeySource};
    ///
    /// let keys = KeySource::secrets(["at least thirty-two bytes of secret"])?.required_scope("todo:read todo:write");
    /// let verifier = JwtVerifier::builder().source(keys).build()?;
    /// # Ok::<(), todo_core::auth::InvalidSource>(())
    /// ```
    #[must_use]
    pub fn required_scope(mut self, scopes: &str) -> Self {
        self.rules.required_scope = Some(scopes.into());
        self
    }

    /// Keeps these claims of each token for [gates](crate::auth::Gate), in addition to
    /// [`TokenClaims::KEPT`](crate::auth::TokenClaims::KEPT). Default: none.
    ///
    /// They are kept in memory as long as the verified token is cached, so name only those that a gate reads.
    #[must_use]
    pub fn keep_claims<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.rules.kept.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets the layout of the claims. Default: [`Shape::AccessToken`].
    #[must_use]
    pub fn shape(mut self, shape: Shape) -> Self {
        self.rules.shape = shape;
        if shape == Shape::CookieCache {
            return self.subject("user.id");
        }
        self
    }

    /// Checks the configuration.
    pub(super) fn check(&self) -> Result<(), InvalidSource> {
        self.rules.check_config(!matches!(self.keys, Keys::Secrets(_)))
    }

    pub(super) fn has_user_prefix(&self) -> bool {
        self.rules.user_prefix.is_some()
    }

    pub(super) fn rules(&self) -> &ClaimRules {
        &self.rules
    }

    /// The key set for the log. `None` for secrets.
    pub(super) fn shown_key_set(&self) -> Option<String> {
        match &self.keys {
            Keys::Secrets(_) => None,
            Keys::Jwks(_) => Some("the key set".to_owned()),
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => Some(format!("the key set at {}", remote.shown_url())),
        }
    }

    /// The key set and the ids of its keys for the log. `None` for secrets.
    pub(super) fn shown_keys(&self) -> Option<String> {
        let set = self.shown_key_set()?;
        let ids = |keys: &JwkSet| match keys.ids().join(", ") {
            ids if ids.is_empty() => "none".to_owned(),
            ids => shown(&ids),
        };
        let ids = match &self.keys {
            Keys::Secrets(_) => return None,
            Keys::Jwks(keys) => ids(keys),
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => ids(&remote.snapshot().keys),
        };
        Some(format!("a key of {set}: {ids}"))
    }

    /// The keys, if they are fetched.
    #[cfg(feature = "remote-jwks")]
    pub(super) fn remote_keys(&self) -> Option<&RemoteJwks> {
        match &self.keys {
            Keys::Remote(remote) => Some(remote),
            Keys::Secrets(_) | Keys::Jwks(_) => None,
        }
    }

    /// Whether the source has keys for this kind of algorithm.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        matches!(self.keys, Keys::Secrets(_)) == (algorithm == Algorithm::Hs256)
    }

    /// Whether there are keys now, without fetching them.
    pub(super) fn is_usable(&self) -> bool {
        match &self.keys {
            Keys::Secrets(_) | Keys::Jwks(_) => true,
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => remote.status().usable,
        }
    }

    /// Returns the generation of the current keys, and whether the keys were fetched for this call.
    #[cfg_attr(not(feature = "remote-jwks"), expect(clippy::unused_async, reason = "only remote keys are fetched"))]
    pub(super) async fn generation(&self) -> Result<(u64, bool), AuthError> {
        match &self.keys {
            Keys::Secrets(_) | Keys::Jwks(_) => Ok((0, true)),
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => {
                let current = remote.current().await?;
                Ok((current.snapshot.generation, current.is_fresh))
            }
        }
    }

    /// Verifies a token for whose algorithm this source [is](Self::is_for). Returns its claims and the generation of
    /// the keys. `is_fresh` says that the keys have already been fetched for this token.
    #[cfg_attr(
        not(feature = "remote-jwks"),
        expect(clippy::unused_async, unused_variables, reason = "only remote keys are fetched")
    )]
    pub(super) async fn verify(
        &self,
        token: &Token<'_>,
        is_fresh: bool,
        now: Timestamp,
        leeway: Duration,
    ) -> Result<(VerifiedClaims, u64), Failure> {
        let unsigned = |error| Failure { error, is_signed: false };
        let generation = match &self.keys {
            Keys::Secrets(secrets) => {
                if !secrets.iter().any(|secret| token.is_signed_with_secret(secret)) {
                    return Err(unsigned(AuthError::Invalid(Refusal::Signature)));
                }
                0
            }
            Keys::Jwks(keys) => {
                token.check_signature(keys.find(token.kid.as_deref(), token.algorithm)).map_err(unsigned)?;
                0
            }
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => {
                let snapshot = self.keys_for(remote, token, is_fresh, now, leeway).await.map_err(unsigned)?;
                let key = snapshot.keys.find(token.kid.as_deref(), token.algorithm);
                token.check_signature(key).map_err(unsigned)?;
                snapshot.generation
            }
        };
        let signed = |error| Failure { error, is_signed: true };
        let claims = token.claims().map_err(signed)?;
        let verified = self.rules.check(&claims, token.typ, now, leeway).map_err(signed)?;
        self.rules.check_scope(&claims).map_err(signed)?;
        Ok((verified, generation))
    }

    /// Returns keys that contain the key of this token, if there are such keys.
    #[cfg(feature = "remote-jwks")]
    async fn keys_for(
        &self,
        remote: &RemoteJwks,
        token: &Token<'_>,
        is_fresh: bool,
        now: Timestamp,
        leeway: Duration,
    ) -> Result<Arc<Snapshot>, AuthError> {
        // A token that is invalid with any key is not rejected because of the keys, and they are not fetched for it.
        let check = || self.rules.check(&token.claims()?, token.typ, now, leeway);
        let current = match remote.current().await {
            Ok(current) => current,
            Err(error) => {
                check()?;
                return Err(error);
            }
        };
        let (kid, algorithm) = (token.kid.as_deref(), token.algorithm);
        if current.snapshot.keys.find(kid, algorithm).is_some() {
            return Ok(current.snapshot);
        }
        check()?;
        remote.find_newer(&current.snapshot, is_fresh || current.is_fresh, kid, algorithm).await
    }
}

/// Why a source does not accept a token.
pub(super) struct Failure {
    pub(super) error: AuthError,
    /// Whether a key of the source has signed the token.
    pub(super) is_signed: bool,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = match &self.keys {
            Keys::Secrets(keys) => format!("{} secrets", keys.len()),
            Keys::Jwks(keys) => format!("{} public keys", keys.len()),
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => format!("{remote:?}"),
        };
        f.debug_struct("KeySource")
            .field("keys", &keys)
            .field("issuers", &self.rules.issuers)
            .field("audiences", &self.rules.audiences)
            .field("subject", &self.rules.subject.join("."))
            .field("user_prefix", &self.rules.user_prefix)
            .field("shape", &self.rules.shape)
            .field("required_scope", &self.rules.required_scope)
            .finish()
    }
}
