//! Verifies JSON Web Tokens (RFC 7519) as RFC 8725 advises.
//!
//! `jsonwebtoken` is only used for cryptography. Header and claims are parsed here, because by default `jsonwebtoken`
//! accepts an unknown `crit`, a future `nbf`, a missing `aud` or `iss` and an empty `sub`.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::digest;
use http::{header::AUTHORIZATION, request::Parts};
use quick_cache::sync::Cache;

#[cfg(feature = "remote-jwks")]
use super::remote_keys::{JwksStatus, RefreshTask, RemoteJwks};
use super::{
    authenticator::{Authenticator, Identity},
    cookie::TokenCookie,
    credentials::Credentials,
    error::{AuthError, InvalidSource, MAX_TOKEN_BYTES, Refusal},
    rejection_log::RejectionLog,
};
use crate::clock::{Clock, SystemClock};

mod better_auth;
mod claims;
mod rejection;
mod source;
mod token;

pub use claims::Shape;
use claims::VerifiedClaims;
pub(crate) use claims::is_scope_character;
use source::Failure;
pub use source::KeySource;
use token::Token;

/// The number of verified tokens in the cache. At about 300 bytes each, they take about 3 MiB.
const CACHED_TOKENS: usize = 10_000;

/// Verifies JSON Web Tokens, which clients send as bearer tokens in the header `Authorization` (RFC 6750).
///
/// A token is accepted if its signature is valid and:
///
/// - `exp` has not passed and `nbf` is not in the future, both with a leeway; `iat` is not checked
/// - issuer and audience are as configured
/// - the subject is a valid [`UserId`](crate::UserId)
/// - `typ` is absent, `JWT`, `at+jwt` or one of them after `application/`, in any case, and there is no `crit`
/// - it has the [required scopes](KeySource::required_scope), if there are any
/// - header and claims contain no duplicate members
///
/// Why a token is rejected is logged, see [`RejectionLog`].
///
/// Verified tokens are cached, by their SHA-256, as long as they are valid and the keys do not change.
///
/// Clones share the keys and the cache.
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
    rejections: RejectionLog,
    /// By SHA-256 of the token.
    verified: Cache<[u8; 32], Arc<VerifiedToken>>,
}

/// A verified token, and the keys that verified it.
struct VerifiedToken {
    claims: VerifiedClaims,
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
    rejections: RejectionLog,
}

impl JwtVerifierBuilder {
    /// Adds a key source. A token is accepted if one of the sources accepts it.
    ///
    /// The same subject in tokens of two sources is the same user, unless the sources have a
    /// [`user_prefix`](KeySource::user_prefix). [`build`](Self::build) logs a warning if two or more sources have none.
    #[must_use]
    pub fn source(mut self, source: KeySource) -> Self {
        self.sources.push(source);
        self
    }

    /// Reads the token from this cookie if the request has no `Authorization` header. Default: no cookie is read.
    #[must_use]
    pub fn cookie(mut self, cookie: TokenCookie) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// Sets by how much the clocks of issuer and verifier may differ. Default: 30 seconds.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Sets the clock for `exp` and `nbf`. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the log of rejected tokens. Default: [`RejectionLog::shared`].
    #[must_use]
    pub fn rejection_log(mut self, log: RejectionLog) -> Self {
        self.rejections = log;
        self
    }

    /// Returns the verifier.
    ///
    /// # Errors
    ///
    /// See [`InvalidSource`].
    pub fn build(mut self) -> Result<JwtVerifier, InvalidSource> {
        if self.sources.is_empty() {
            return Err(InvalidSource::NoSource);
        }
        self.sources.iter().try_for_each(KeySource::check)?;
        let without_prefix = self.sources.iter().filter(|source| !source.has_user_prefix()).count();
        if without_prefix > 1 {
            tracing::warn!(
                target: "todo_core::auth",
                sources = without_prefix,
                "several key sources have no user prefix: the same subject in tokens of both is the same user. Unless this \
                 is so, set a prefix (KeySource::user_prefix; in todo-server JWKS_USER_PREFIX or JWT_HS256_USER_PREFIX)"
            );
        }
        if let Some(cookie) = &mut self.cookie {
            cookie.rejection_log(self.rejections.clone());
        }
        // Without this, `jsonwebtoken` panics when it is first used in a build that enables both of its back ends. An
        // error means that the host has chosen one already.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Ok(JwtVerifier(Arc::new(Inner {
            sources: self.sources,
            cookie: self.cookie,
            leeway: self.leeway,
            clock: self.clock,
            rejections: self.rejections,
            verified: Cache::new(CACHED_TOKENS),
        })))
    }
}

impl JwtVerifier {
    /// Starts building a verifier. It needs at least one [source](JwtVerifierBuilder::source).
    #[must_use]
    pub fn builder() -> JwtVerifierBuilder {
        JwtVerifierBuilder {
            sources: Vec::new(),
            cookie: None,
            leeway: Duration::from_secs(30),
            clock: Arc::new(SystemClock),
            rejections: RejectionLog::shared(),
        }
    }

    /// Returns a verifier of HS256 tokens with one shared secret. The user id is in `sub`.
    ///
    /// # Errors
    ///
    /// If the secret is shorter than 32 bytes or publicly known.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self, InvalidSource> {
        Self::builder().source(KeySource::secrets([secret])?).build()
    }

    /// Returns a verifier of the tokens of Better Auth and its `jwt` plugin. See [`KeySource::better_auth`].
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
    /// [`InvalidSource::Url`], if the URL is invalid, or is `http://` to another machine.
    #[cfg(feature = "remote-jwks")]
    pub fn better_auth(base_url: &str) -> Result<Self, InvalidSource> {
        Self::builder().source(KeySource::better_auth(base_url)?).build()
    }

    /// Starts tasks that refresh all remote key sets until the returned handle is dropped. Without them, one request
    /// every 30 seconds waits for a fetch. See [`RemoteJwks::spawn_refresh`].
    #[cfg(feature = "remote-jwks")]
    pub fn spawn_refresh(&self) -> RefreshTask {
        self.remote_keys().map(RemoteJwks::spawn_refresh).fold(RefreshTask::default(), RefreshTask::join)
    }

    /// Returns the state of each remote key set, for metrics. This does not fetch keys.
    #[cfg(feature = "remote-jwks")]
    pub fn key_sets(&self) -> impl Iterator<Item = JwksStatus> {
        self.remote_keys().map(RemoteJwks::status)
    }

    #[cfg(feature = "remote-jwks")]
    fn remote_keys(&self) -> impl Iterator<Item = &RemoteJwks> {
        self.0.sources.iter().filter_map(KeySource::remote_keys)
    }

    /// Verifies a token and returns its user. Logs why a token is rejected, see [`RejectionLog`].
    ///
    /// # Errors
    ///
    /// [`AuthError::Expired`], if the token is valid except for its time. [`AuthError::Unavailable`], if the keys
    /// cannot be fetched, and [`AuthError::KeyMayBeNew`], if they cannot be fetched again yet. Otherwise
    /// [`AuthError::Invalid`].
    pub async fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        self.verify_silently(token).await.map_err(|rejected| {
            let source = rejected.source.map(|number| &self.0.sources[number]);
            rejection::report(&self.0.rejections, &rejected.error, token, source, &self.0.sources);
            rejected.error
        })
    }

    async fn verify_silently(&self, token: &str) -> Result<Identity, Rejected> {
        let inner = &*self.0;
        let now = inner.clock.now();
        let invalid = |refusal| Rejected { error: AuthError::Invalid(refusal), source: None };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid(Refusal::TooLong));
        }
        // The cache is read before the token is parsed, because parsing takes longer, even for HS256.
        let hash = sha256(token);
        let mut fetched = None;
        if let Some(known) = inner.verified.get(&hash) {
            let by_source = |error| Rejected { error, source: Some(known.source) };
            let (generation, is_fresh) = match inner.sources[known.source].generation().await {
                Ok(current) => current,
                Err(error) => {
                    // A token that has expired is not rejected because of the keys.
                    known.claims.check_time(now, inner.leeway).map_err(by_source)?;
                    return Err(by_source(error));
                }
            };
            if generation == known.generation {
                known.claims.check_time(now, inner.leeway).map_err(by_source)?;
                return Ok(known.claims.identity.clone());
            }
            fetched = is_fresh.then_some(known.source);
        }
        let parsed = Token::parse(token).map_err(invalid)?;
        let mut closest: Option<(Progress, Rejected)> = None;
        for (number, source) in inner.sources.iter().enumerate() {
            if !source.is_for(parsed.algorithm) {
                continue;
            }
            match source.verify(&parsed, fetched == Some(number), now, inner.leeway).await {
                Ok((claims, generation)) => {
                    let identity = claims.identity.clone();
                    inner.verified.insert(hash, Arc::new(VerifiedToken { claims, source: number, generation }));
                    return Ok(identity);
                }
                Err(failure) => {
                    let progress = Progress::of(&failure, source, &parsed);
                    if closest.as_ref().is_none_or(|(closest, _)| progress > *closest) {
                        closest = Some((progress, Rejected { error: failure.error, source: Some(number) }));
                    }
                }
            }
        }
        Err(closest.map_or_else(|| invalid(Refusal::Algorithm), |(_, rejected)| rejected))
    }
}

/// Why a token is not accepted, and by which source, if one of them could have accepted it.
struct Rejected {
    error: AuthError,
    source: Option<usize>,
}

/// How much of a token a source accepted. The error is that of the source with the most.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Progress {
    is_signed: bool,
    /// Whether the token states an issuer of the source.
    is_of_issuer: bool,
    checks: u8,
}

impl Progress {
    fn of(failure: &Failure, source: &KeySource, token: &Token<'_>) -> Self {
        let checks = match &failure.error {
            AuthError::Invalid(Refusal::UnknownKey) => 0,
            AuthError::Invalid(Refusal::Signature) => 1,
            // A source without the key might have accepted the token.
            AuthError::KeyMayBeNew { .. } => 2,
            AuthError::Unavailable { .. } => 3,
            AuthError::Invalid(_) => 4,
            _ => 5,
        };
        let is_of_issuer = token.claims().is_ok_and(|claims| source.rules().accepts_issuer(&claims));
        Self { is_signed: failure.is_signed, is_of_issuer, checks }
    }
}

fn sha256(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[async_trait]
impl Authenticator for JwtVerifier {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        let rejections = &self.0.rejections;
        if let Some(cookie) = &self.0.cookie
            && !head.headers.contains_key(AUTHORIZATION)
        {
            let token = match cookie.token(head) {
                Ok(Some(token)) => token,
                Ok(None) | Err(AuthError::Missing) => {
                    if let Some(problem) = cookie.problem(head) {
                        rejection::report_unread(rejections, &AuthError::Missing, problem);
                    }
                    return Err(AuthError::Missing);
                }
                Err(error) => return Err(error),
            };
            return self.verify(&token).await;
        }
        match bearer_token(head) {
            Ok(token) => self.verify(token).await,
            Err((error, problem)) => {
                // Without a header, the request is anonymous, which is normal.
                if let Some(problem) = problem {
                    rejection::report_unread(rejections, &error, problem);
                }
                Err(error)
            }
        }
    }

    fn credentials(&self) -> Credentials {
        match &self.0.cookie {
            Some(cookie) => Credentials::bearer().or(Credentials::cookie(cookie.full_name())),
            None => Credentials::bearer(),
        }
    }

    /// Succeeds if one source has usable keys. Fetches the keys if no source has any: otherwise a server that gets no
    /// requests before it is ready would never become ready.
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

/// Returns the token of the only `Authorization` header, or the error and what is wrong with the header. The scheme
/// `Bearer` is case-insensitive (RFC 9110, section 11.1).
fn bearer_token(head: &Parts) -> Result<&str, (AuthError, Option<&'static str>)> {
    let missing = |problem| Err((AuthError::Missing, Some(problem)));
    let mut headers = head.headers.get_all(AUTHORIZATION).iter();
    let header = match (headers.next(), headers.next()) {
        (None, _) => return Err((AuthError::Missing, None)),
        (Some(header), None) => header,
        (Some(_), Some(_)) => return missing("there are several Authorization headers"),
    };
    let Ok(header) = header.to_str() else {
        let problem = "the Authorization header contains other characters than visible ASCII";
        return Err((AuthError::Invalid(Refusal::Malformed), Some(problem)));
    };
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    let token = token.trim_matches(' ');
    match (scheme.eq_ignore_ascii_case("bearer"), token.is_empty()) {
        (true, false) => Ok(token),
        (true, true) => missing("there is no token after Bearer in the Authorization header"),
        (false, false) => missing("the scheme of the Authorization header is not Bearer"),
        (false, true) => missing("the Authorization header has no scheme; it must be: Bearer, a space, and the token"),
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
