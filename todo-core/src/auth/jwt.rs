//! The verifier of JSON Web Tokens (RFC 7519), to the advice of RFC 8725. `jsonwebtoken` does the cryptography; header
//! and claims are read here, because its defaults let pass an unknown `crit`, a future `nbf`, a missing `aud` or `iss`
//! and an empty `sub`.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{header::AUTHORIZATION, request::Parts};
use jsonwebtoken::DecodingKey;
use quick_cache::sync::Cache;

#[cfg(feature = "remote-jwks")]
use super::jwks::{JwksStatus, Look, RefreshTask, RemoteJwks, Unavailable};
use super::{
    AuthError, Authenticator, Identity, TokenCookie,
    jwk::{Algorithm, Jwk, JwkSet},
};
use crate::{
    UserId,
    clock::{Clock, SystemClock, Timestamp},
    json::{Json, get},
};

/// The longest token that is looked at, in bytes. Better Auth's are under 2 KiB; servers cut headers at 8 to 64 KiB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// How many verified tokens are remembered. At about 300 bytes each this is some 3 MiB.
const CACHED_TOKENS: usize = 10_000;

/// The secret that Better Auth signs with in development when none is set. Everybody knows it.
const BETTER_AUTH_DEFAULT_SECRET: &str = "better-auth-secret-12345678901234567890";

/// Why a token is refused. For the log: the caller is told only that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Longer than 16 KiB.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64url, or no JSON objects in them.
    #[error("the token is malformed")]
    Malformed,
    /// A member of header or claims is given twice.
    #[error("a member is given twice")]
    DuplicateMember,
    /// The header asks to understand an extension (`crit`, `b64`), and we know none.
    #[error("the header has a critical extension")]
    CriticalExtension,
    /// `typ` says that it is something else than an access token.
    #[error("the header has another typ")]
    Type,
    /// `alg` is missing, unknown, or no source of keys is configured for it.
    #[error("the algorithm is not accepted")]
    Algorithm,
    /// No key of that name, or one that is not for that algorithm.
    #[error("the key is not known")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the signature does not verify")]
    Signature,
    /// `exp` is missing.
    #[error("the claim exp is missing")]
    NoExpiry,
    /// `exp`, `nbf` or `iat` is no number.
    #[error("a time is not a number")]
    Time,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is missing or another than configured.
    #[error("the issuer is not accepted")]
    Issuer,
    /// `aud` is missing or another than configured.
    #[error("the audience is not accepted")]
    Audience,
    /// The subject is missing, or can be no user's id. E-mail links of Better Auth are such tokens.
    #[error("the subject is missing or unusable")]
    Subject,
    /// The claims of a session cookie without a session, or with that of another user.
    #[error("the session is missing or another user's")]
    Session,
    /// A host's own authenticator has its own reason.
    #[error("{0}")]
    Other(&'static str),
}

impl Refusal {
    /// Its name in metrics: `unknown_key`. It is one of a few, whatever the token holds.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::DuplicateMember => "duplicate_member",
            Self::CriticalExtension => "critical_extension",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::NoExpiry => "no_expiry",
            Self::Time => "time",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::Session => "session",
            Self::Other(_) => "other",
        }
    }
}

/// What the claims of a token look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// An access token: the user is named by one claim (see [`KeySource::subject`]), `email` and `name` may stand
    /// beside it.
    #[default]
    AccessToken,
    /// The session cookie that Better Auth makes with `cookieCache: { strategy: "jwt" }`: the user is `user.id`,
    /// `session.userId` must be the same, and `session.expiresAt` in the future.
    CookieCache,
}

/// Where keys come from, with the rules for the tokens that they sign: issuers, audiences, subject and shape belong to
/// a source, so that a token of one issuer is never judged by the rules of another.
///
/// A token's `alg` only chooses among keys that are made for it: a secret never checks an asymmetric token, and a
/// public key is never taken for a secret.
#[derive(Clone)]
pub struct KeySource {
    keys: Keys,
    /// `None`: not said. `Some(empty)`: any.
    issuers: Option<BTreeSet<String>>,
    audiences: Option<BTreeSet<String>>,
    subject: Vec<String>,
    shape: Shape,
}

#[derive(Clone)]
enum Keys {
    Secrets(Vec<DecodingKey>),
    Jwks(JwkSet),
    #[cfg(feature = "remote-jwks")]
    Remote(RemoteJwks),
}

impl Keys {
    /// Whether these keys are for signatures of this kind at all.
    fn are_for(&self, algorithm: Algorithm) -> bool {
        matches!(self, Self::Secrets(_)) == (algorithm == Algorithm::Hs256)
    }
}

/// Why a [`JwtVerifier`] cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSource {
    /// No source of keys.
    #[error("no source of keys is given")]
    NoSource,
    /// A secret is shorter than HS256 demands (RFC 7518, section 3.2).
    #[error("a shared secret must have at least 32 bytes")]
    ShortSecret,
    /// A secret that everybody knows.
    #[error("the secret is Better Auth's public development default, which everybody knows")]
    PublicSecret,
    /// A list of secrets, issuers or audiences is empty, or holds an empty text, which would match the tokens of a
    /// misconfigured issuer.
    #[error("a list of secrets, issuers or audiences is empty or holds an empty text")]
    Empty,
    /// The URL of a key set or of an issuer is none, or is `http://` to another machine without leave.
    #[error("the URL must be https, or http to this machine, or be allowed explicitly")]
    Url,
    /// The client that fetches key sets cannot be made: the platform has no root certificates, say.
    #[error("no HTTP client can be made")]
    Client,
    /// Public keys sign more than access tokens (Better Auth: session cookies too), and only issuer and audience tell
    /// them apart.
    #[error("a source of public keys needs issuers and audiences, or any_issuer() and any_audience()")]
    NoIssuerOrAudience,
}

impl KeySource {
    /// Shared secrets, for HS256. Each is the bytes of the text as they are; several are for rotation, and a token may
    /// be signed with any of them.
    ///
    /// # Errors
    ///
    /// There is none, or one is shorter than 32 bytes or known to everybody.
    pub fn secrets<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, InvalidSource> {
        let mut keys = Vec::new();
        for secret in secrets {
            let secret = secret.as_ref();
            if secret == BETTER_AUTH_DEFAULT_SECRET.as_bytes() {
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

    /// Public keys that do not change while the program runs.
    ///
    /// [`issuers`](Self::issuers) and [`audiences`](Self::audiences) must be given too.
    #[must_use]
    pub fn jwks(keys: JwkSet) -> Self {
        Self::new(Keys::Jwks(keys))
    }

    /// Public keys that are fetched from their issuer and kept up to date.
    ///
    /// [`issuers`](Self::issuers) and [`audiences`](Self::audiences) must be given too.
    #[cfg(feature = "remote-jwks")]
    #[must_use]
    pub fn remote(keys: RemoteJwks) -> Self {
        Self::new(Keys::Remote(keys))
    }

    /// What Better Auth with its `jwt` plugin issues at this base URL (its `baseURL`, or `BETTER_AUTH_URL`): keys from
    /// `<url>/api/auth/jwks`, issuer and audience the origin of the URL.
    ///
    /// If the URL has a path, that is where Better Auth is mounted, and the keys come from `<url>/jwks`. If the keys are
    /// to be had under another URL than the public one, say within a network of containers, use
    /// [`remote`](Self::remote) with [`issuers`](Self::issuers) and [`audiences`](Self::audiences).
    ///
    /// # Errors
    ///
    /// [`InvalidSource::Url`]: the URL is none, or is `http://` to another machine.
    #[cfg(feature = "remote-jwks")]
    pub fn better_auth(base_url: &str) -> Result<Self, InvalidSource> {
        let (jwks_url, origin) = better_auth_urls(base_url)?;
        Ok(Self::remote(RemoteJwks::builder(jwks_url).build()?).issuers([origin.clone()]).audiences([origin]))
    }

    fn new(keys: Keys) -> Self {
        Self { keys, issuers: None, audiences: None, subject: vec!["sub".to_owned()], shape: Shape::AccessToken }
    }

    /// Demands that `iss` is there and is one of these, to the letter.
    #[must_use]
    pub fn issuers<S: Into<String>>(mut self, issuers: impl IntoIterator<Item = S>) -> Self {
        self.issuers = Some(listed(issuers));
        self
    }

    /// Takes tokens whatever their `iss`.
    #[must_use]
    pub fn any_issuer(mut self) -> Self {
        self.issuers = Some(BTreeSet::new());
        self
    }

    /// Demands that `aud` is there and one of its values is one of these, to the letter.
    #[must_use]
    pub fn audiences<S: Into<String>>(mut self, audiences: impl IntoIterator<Item = S>) -> Self {
        self.audiences = Some(listed(audiences));
        self
    }

    /// Takes tokens whatever their `aud`.
    #[must_use]
    pub fn any_audience(mut self) -> Self {
        self.audiences = Some(BTreeSet::new());
        self
    }

    /// The claim that names the user, if it is not `sub`; a dot leads into an object (`user.id`).
    #[must_use]
    pub fn subject(mut self, path: &str) -> Self {
        self.subject = path.split('.').map(str::to_owned).collect();
        self
    }

    /// What the claims look like, if not like an access token's.
    #[must_use]
    pub fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        if shape == Shape::CookieCache {
            return self.subject("user.id");
        }
        self
    }

    fn check(&self) -> Result<(), InvalidSource> {
        let lists = [&self.issuers, &self.audiences];
        // `listed` puts an empty text for an empty list.
        if lists.into_iter().flatten().any(|list| list.contains("")) || self.subject.iter().any(String::is_empty) {
            return Err(InvalidSource::Empty);
        }
        if !matches!(self.keys, Keys::Secrets(_)) && lists.into_iter().any(Option::is_none) {
            return Err(InvalidSource::NoIssuerOrAudience);
        }
        Ok(())
    }

    /// Judges a token whose algorithm is one of this source's. The number is the generation of the keys. `conclusive`
    /// says that they were fetched for this token already.
    #[cfg_attr(
        not(feature = "remote-jwks"),
        expect(clippy::unused_async, unused_variables, reason = "only remote keys are fetched")
    )]
    async fn judge(
        &self,
        token: &Token<'_>,
        conclusive: bool,
        now: Timestamp,
        leeway: Duration,
    ) -> Result<(Verified, u64), AuthError> {
        let generation = match &self.keys {
            Keys::Secrets(secrets) => {
                if !secrets.iter().any(|secret| token.is_signed_with(secret)) {
                    return Err(AuthError::Invalid(Refusal::Signature));
                }
                0
            }
            Keys::Jwks(keys) => {
                token.check_signature(keys.find(token.kid.as_deref(), token.algorithm))?;
                0
            }
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => {
                let mut look = remote.current().await?;
                look.conclusive |= conclusive;
                let find = |look: &Look| {
                    let key = look.snapshot.keys.find(token.kid.as_deref(), token.algorithm);
                    key.map(|key| token.check_signature(Some(key)))
                };
                let mut checked = find(&look);
                if checked.is_none() && !look.conclusive {
                    // A fetch is not spent on a token that no key could make good.
                    self.check_claims(&token.claims()?, now, leeway)?;
                    look = remote.newer(&look.snapshot).await?;
                    checked = find(&look);
                }
                match checked {
                    Some(checked) => checked?,
                    None if look.conclusive => return Err(AuthError::Invalid(Refusal::UnknownKey)),
                    // It may be a key that is newer than the set.
                    None => return Err(remote.paused().into()),
                }
                look.snapshot.generation
            }
        };
        Ok((self.check_claims(&token.claims()?, now, leeway)?, generation))
    }

    /// Whether there are keys to judge by, without looking further.
    fn is_usable(&self) -> bool {
        match &self.keys {
            Keys::Secrets(_) | Keys::Jwks(_) => true,
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => remote.status().usable,
        }
    }

    /// Which keys count now, as a number that grows when they change, and whether they were fetched just now.
    #[cfg_attr(not(feature = "remote-jwks"), expect(clippy::unused_async, reason = "only remote keys are fetched"))]
    async fn generation(&self) -> Result<(u64, bool), AuthError> {
        match &self.keys {
            Keys::Secrets(_) | Keys::Jwks(_) => Ok((0, true)),
            #[cfg(feature = "remote-jwks")]
            Keys::Remote(remote) => {
                let look = remote.current().await?;
                Ok((look.snapshot.generation, look.conclusive))
            }
        }
    }

    fn check_claims(&self, claims: &[(String, Json)], now: Timestamp, leeway: Duration) -> Result<Verified, AuthError> {
        let refuse = |refusal| Err(AuthError::Invalid(refusal));
        if !accepts(self.issuers.as_ref(), get(claims, "iss"), false) {
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

        let subject = self
            .subject
            .split_first()
            .and_then(|(first, rest)| rest.iter().try_fold(get(claims, first)?, |value, name| value.get(name)));
        let Some(user_id) = subject.and_then(Json::as_str).and_then(|id| UserId::new(id).ok()) else {
            return refuse(Refusal::Subject);
        };
        let profile = match self.shape {
            Shape::AccessToken => None,
            Shape::CookieCache => {
                let session = get(claims, "session");
                let member = |name| session.and_then(|session| session.get(name));
                let ends = match member("expiresAt") {
                    Some(Json::String(text)) => text.parse().ok(),
                    Some(Json::Number(millis)) => Some(seconds_to_moment(millis / 1000.0)),
                    _ => None,
                };
                let Some(ends) = ends else {
                    return refuse(Refusal::Session);
                };
                if member("userId").and_then(Json::as_str) != Some(user_id.as_str()) {
                    return refuse(Refusal::Session);
                }
                expires_at = expires_at.min(ends);
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
        let verified = Verified {
            identity: Identity {
                user_id,
                issued_at,
                expires_at: Some(expires_at),
                email: text("email"),
                name: text("name"),
            },
            not_before,
            expires_at,
        };
        verified.check_time(now, leeway)?;
        Ok(verified)
    }
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
            .field("issuers", &self.issuers)
            .field("audiences", &self.audiences)
            .field("subject", &self.subject.join("."))
            .field("shape", &self.shape)
            .finish()
    }
}

/// The texts as a set. An empty list becomes one that `check` refuses, not one that accepts all.
fn listed<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> BTreeSet<String> {
    let mut set: BTreeSet<String> = texts.into_iter().map(Into::into).collect();
    if set.is_empty() {
        set.insert(String::new());
    }
    set
}

/// Whether a claim is in the list; `None` or an empty list accepts all. `aud` may be several texts, `iss` only one.
fn accepts(list: Option<&BTreeSet<String>>, claim: Option<&Json>, several: bool) -> bool {
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return true;
    };
    match claim {
        Some(Json::String(text)) => list.contains(text),
        Some(Json::Array(texts)) if several => {
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
        Some(Json::Number(seconds)) => Ok(Some(seconds_to_moment(*seconds))),
        Some(_) => Err(AuthError::Invalid(Refusal::Time)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates, as the range of times does")]
fn seconds_to_moment(seconds: f64) -> Timestamp {
    Timestamp::from_unix_micros((seconds * 1_000_000.0) as i64)
}

/// A token whose signature and claims were found good.
#[derive(Debug)]
struct Verified {
    identity: Identity,
    not_before: Option<Timestamp>,
    expires_at: Timestamp,
}

impl Verified {
    fn check_time(&self, now: Timestamp, leeway: Duration) -> Result<(), AuthError> {
        if now >= self.expires_at.plus(leeway) {
            return Err(AuthError::Expired);
        }
        if self.not_before.is_some_and(|not_before| now < not_before.minus(leeway)) {
            return Err(AuthError::Invalid(Refusal::NotYetValid));
        }
        Ok(())
    }
}

/// A token taken apart, its header read and found acceptable.
struct Token<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    /// Header and claims, as they were signed.
    signed: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        if claims.contains('.') {
            return Err(Refusal::Malformed);
        }
        let header = object(header)?;
        if get(&header, "crit").is_some() || get(&header, "b64").is_some() {
            return Err(Refusal::CriticalExtension);
        }
        match get(&header, "typ") {
            None => {}
            Some(Json::String(typ)) if ["jwt", "at+jwt"].contains(&typ.to_ascii_lowercase().as_str()) => {}
            Some(_) => return Err(Refusal::Type),
        }
        let algorithm = get(&header, "alg").and_then(Json::as_str).and_then(Algorithm::from_name);
        let kid = match get(&header, "kid") {
            None => None,
            Some(Json::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Refusal::Malformed),
        };
        Ok(Self { algorithm: algorithm.ok_or(Refusal::Algorithm)?, kid, signed, claims, signature })
    }

    fn claims(&self) -> Result<Vec<(String, Json)>, AuthError> {
        object(self.claims).map_err(AuthError::Invalid)
    }

    fn is_signed_with(&self, secret: &DecodingKey) -> bool {
        let algorithm = jsonwebtoken::Algorithm::HS256;
        jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), secret, algorithm).unwrap_or(false)
    }

    fn check_signature(&self, key: Option<&Jwk>) -> Result<(), AuthError> {
        match key {
            Some(key) if !key.fits(self.algorithm) => Err(AuthError::Invalid(Refusal::UnknownKey)),
            Some(key) if key.verifies(self.algorithm, self.signed.as_bytes(), self.signature) => Ok(()),
            Some(_) => Err(AuthError::Invalid(Refusal::Signature)),
            None => Err(AuthError::Invalid(Refusal::UnknownKey)),
        }
    }
}

fn object(part: &str) -> Result<Vec<(String, Json)>, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)?;
    match Json::parse(&bytes) {
        Ok(value @ Json::Object(_)) => value.into_unambiguous_object().ok_or(Refusal::DuplicateMember),
        Ok(_) | Err(_) => Err(Refusal::Malformed),
    }
}

/// Verifies JSON Web Tokens, as bearer tokens in the header `Authorization` (RFC 6750).
///
/// What it demands of a token, beside a good signature: `exp` not passed and `nbf` not in the future (both within a
/// leeway), issuer and audience as configured, a subject that can be a [`UserId`], `typ` absent, `JWT` or `at+jwt`, no
/// `crit`, nothing twice. `iat` is not judged. Clones are the same verifier.
///
/// ```
/// use todo_core::auth::{JwtVerifier, KeySource};
///
/// let verifier = JwtVerifier::builder()
///     .source(KeySource::secrets(["at least thirty-two bytes of secret"])?.issuers(["https://app.example.com"]))
///     .build()?;
/// # Ok::<(), todo_core::auth::InvalidSource>(())
/// ```
#[derive(Clone)]
pub struct JwtVerifier(Arc<Inner>);

struct Inner {
    sources: Vec<KeySource>,
    cookie: Option<TokenCookie>,
    leeway: Duration,
    clock: Arc<dyn Clock>,
    remembered: Cache<[u8; 32], Arc<Remembered>>,
}

/// A token that was found good, and by which keys.
struct Remembered {
    verified: Verified,
    source: usize,
    generation: u64,
}

/// Builds a [`JwtVerifier`].
#[derive(Debug)]
pub struct JwtVerifierBuilder {
    sources: Vec<KeySource>,
    cookie: Option<TokenCookie>,
    leeway: Duration,
    clock: Arc<dyn Clock>,
}

impl JwtVerifierBuilder {
    /// Adds a source of keys. A token is good if one source says so.
    #[must_use]
    pub fn source(mut self, source: KeySource) -> Self {
        self.sources.push(source);
        self
    }

    /// Takes the token from this cookie if there is no `Authorization` header. Default: from no cookie.
    #[must_use]
    pub fn cookie(mut self, cookie: TokenCookie) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// By how much the clocks of issuer and verifier may differ. Default: 30 seconds.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The clock by which tokens begin and end. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The verifier.
    ///
    /// # Errors
    ///
    /// See [`InvalidSource`].
    pub fn build(self) -> Result<JwtVerifier, InvalidSource> {
        if self.sources.is_empty() {
            return Err(InvalidSource::NoSource);
        }
        self.sources.iter().try_for_each(KeySource::check)?;
        // `jsonwebtoken` panics at first use if a build enables both of its back ends and nobody chose. Another that
        // is installed already is the host's choice.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Ok(JwtVerifier(Arc::new(Inner {
            sources: self.sources,
            cookie: self.cookie,
            leeway: self.leeway,
            clock: self.clock,
            remembered: Cache::new(CACHED_TOKENS),
        })))
    }
}

impl JwtVerifier {
    /// Begins a verifier without any source of keys.
    #[must_use]
    pub fn builder() -> JwtVerifierBuilder {
        JwtVerifierBuilder {
            sources: Vec::new(),
            cookie: None,
            leeway: Duration::from_secs(30),
            clock: Arc::new(SystemClock),
        }
    }

    /// A verifier of HS256 tokens that name their user in `sub`, with one shared secret.
    ///
    /// # Errors
    ///
    /// The secret is shorter than 32 bytes or known to everybody.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self, InvalidSource> {
        Self::builder().source(KeySource::secrets([secret])?).build()
    }

    /// A verifier of what Better Auth with its `jwt` plugin issues at this base URL. See [`KeySource::better_auth`].
    ///
    /// ```
    /// use todo_core::auth::JwtVerifier;
    ///
    /// let verifier = JwtVerifier::better_auth("https://app.example.com")?;
    /// # Ok::<(), todo_core::auth::InvalidSource>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidSource::Url`]: the URL is none, or is `http://` to another machine.
    #[cfg(feature = "remote-jwks")]
    pub fn better_auth(base_url: &str) -> Result<Self, InvalidSource> {
        Self::builder().source(KeySource::better_auth(base_url)?).build()
    }

    /// Starts tasks that keep all remote key sets up to date as long as the handle lives. Without them, one request in
    /// half a minute waits for a fetch. See [`RemoteJwks::spawn_refresh`].
    #[cfg(feature = "remote-jwks")]
    pub fn spawn_refresh(&self) -> RefreshTask {
        let remotes = self.0.sources.iter().filter_map(|source| match &source.keys {
            Keys::Remote(remote) => Some(remote.spawn_refresh()),
            Keys::Secrets(_) | Keys::Jwks(_) => None,
        });
        remotes.fold(RefreshTask::default(), RefreshTask::join)
    }

    /// The state of each key set that is fetched, for metrics. It waits for nothing and fetches nothing.
    #[cfg(feature = "remote-jwks")]
    pub fn key_sets(&self) -> impl Iterator<Item = JwksStatus> {
        self.0.sources.iter().filter_map(|source| match &source.keys {
            Keys::Remote(remote) => Some(remote.status()),
            Keys::Secrets(_) | Keys::Jwks(_) => None,
        })
    }

    /// Who a token says its bearer is.
    ///
    /// # Errors
    ///
    /// [`AuthError::Expired`] if nothing is wrong but the time, [`AuthError::Unavailable`] if the keys cannot be had,
    /// else [`AuthError::Invalid`].
    pub async fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        let result = self.judge(token).await;
        if let Err(error) = &result {
            tracing::debug!(target: "todo_core::auth", %error, "a token is refused");
        }
        result
    }

    async fn judge(&self, token: &str) -> Result<Identity, AuthError> {
        let inner = &*self.0;
        let now = inner.clock.now();
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Invalid(Refusal::TooLong));
        }
        // Before it is so much as parsed: to take a token apart costs more than to look it up, for HS256 too.
        let hash = sha256(token);
        let mut fetched = None;
        if let Some(remembered) = inner.remembered.get(&hash) {
            let (generation, conclusive) = inner.sources[remembered.source].generation().await?;
            if generation == remembered.generation {
                remembered.verified.check_time(now, inner.leeway)?;
                return Ok(remembered.verified.identity.clone());
            }
            fetched = conclusive.then_some(remembered.source);
        }
        let parsed = Token::parse(token).map_err(AuthError::Invalid)?;
        // What the source with which the token came furthest had to say.
        let mut refusal = AuthError::Invalid(Refusal::Algorithm);
        for (number, source) in inner.sources.iter().enumerate() {
            if !source.keys.are_for(parsed.algorithm) {
                continue;
            }
            match source.judge(&parsed, fetched == Some(number), now, inner.leeway).await {
                Ok((verified, generation)) => {
                    let identity = verified.identity.clone();
                    let remembered = Remembered { verified, source: number, generation };
                    inner.remembered.insert(hash, Arc::new(remembered));
                    return Ok(identity);
                }
                Err(error) if progress(&error) > progress(&refusal) => refusal = error,
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

/// How far a token came before it was refused.
fn progress(error: &AuthError) -> u8 {
    match error {
        AuthError::Invalid(Refusal::Algorithm) => 0,
        AuthError::Invalid(Refusal::UnknownKey) => 1,
        AuthError::Invalid(Refusal::Signature) => 2,
        // A source that cannot be asked might have accepted it.
        AuthError::Unavailable { .. } => 3,
        AuthError::Invalid(_) => 4,
        _ => 5,
    }
}

/// Where Better Auth shows its keys, and what it calls itself (RFC 6454).
#[cfg(feature = "remote-jwks")]
fn better_auth_urls(base_url: &str) -> Result<(String, String), InvalidSource> {
    let mut url = reqwest::Url::parse(base_url).map_err(|_| InvalidSource::Url)?;
    if !url.has_host() || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(InvalidSource::Url);
    }
    let origin = url.origin().ascii_serialization();
    let mount = match url.path().trim_end_matches('/') {
        "" => "/api/auth".to_owned(),
        path => path.to_owned(),
    };
    url.set_path(&format!("{mount}/jwks"));
    Ok((url.into(), origin))
}

fn sha256(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[async_trait]
impl Authenticator for JwtVerifier {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        if let Some(cookie) = &self.0.cookie
            && !head.headers.contains_key(AUTHORIZATION)
        {
            let token = cookie.token(head)?.ok_or(AuthError::Missing)?;
            return self.verify(&token).await;
        }
        self.verify(bearer_token(head)?).await
    }

    /// One source with usable keys is enough. A key set that was never fetched is fetched now: without this, a server
    /// that gets no requests before it is ready would never be.
    async fn ready(&self) -> Result<(), AuthError> {
        let mut ready = Ok(());
        if self.0.sources.iter().any(KeySource::is_usable) {
            return ready;
        }
        for source in &self.0.sources {
            ready = source.generation().await.map(|_| ());
            if ready.is_ok() {
                break;
            }
        }
        ready
    }
}

/// The token of the one `Authorization` header, whose scheme is `Bearer` in any case (RFC 9110, section 11.1).
fn bearer_token(head: &Parts) -> Result<&str, AuthError> {
    let mut headers = head.headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Err(AuthError::Missing);
    };
    let header = header.to_str().map_err(|_| AuthError::Invalid(Refusal::Malformed))?;
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(AuthError::Missing);
    }
    Ok(token)
}

#[cfg(feature = "remote-jwks")]
impl From<Unavailable> for AuthError {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable { retry_after: unavailable.retry_after, source: Box::new(unavailable.error) }
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier")
            .field("sources", &self.0.sources)
            .field("leeway", &self.0.leeway)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "remote-jwks"))]
mod tests {
    use super::*;

    #[test]
    fn better_auth_calls_itself_by_its_origin_and_shows_its_keys_below_its_mount() {
        let expected = [
            ("https://app.example.com", "https://app.example.com/api/auth/jwks", "https://app.example.com"),
            ("https://APP.example.com:443/", "https://app.example.com/api/auth/jwks", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000/api/auth/jwks", "http://localhost:3000"),
            ("http://localhost:3000/api/auth", "http://localhost:3000/api/auth/jwks", "http://localhost:3000"),
            ("https://a.example/auth/", "https://a.example/auth/jwks", "https://a.example"),
        ];
        for (base_url, jwks, origin) in expected {
            assert_eq!(better_auth_urls(base_url), Ok((jwks.to_owned(), origin.to_owned())), "{base_url}");
        }
        for wrong in
            ["", "app.example.com", "https://", "https://a.example?x", "https://a.example#x", "https://u:p@a.example"]
        {
            assert_eq!(better_auth_urls(wrong), Err(InvalidSource::Url), "{wrong}");
        }
        assert!(matches!(JwtVerifier::better_auth("http://app.example.com"), Err(InvalidSource::Url)));
    }
}
