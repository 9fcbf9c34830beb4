//! Authentication: identifies the caller of a request, and rejects callers that may not use the API.
//!
//! 1. An [`Authenticator`] identifies the caller. [`JwtVerifier`] verifies JSON Web Tokens, for example those of Better
//!    Auth. A host with sessions of its own implements the trait.
//! 2. [`Gate`]s then accept or reject the request: for disabled users, revoked credentials and rate limits.
//!    `RateLimiter` (feature `rate-limit`) is such a gate.

mod allowed_origins;
mod authenticator;
mod cookie;
mod credentials;
mod error;
mod gate;
mod key;
mod key_set;
mod quota;
#[cfg(feature = "rate-limit")]
mod rate_limit;
mod rejection_log;
#[cfg(feature = "remote-jwks")]
mod remote_keys;
mod token_claims;
mod verifier;

pub use allowed_origins::AllowedOrigins;
pub use authenticator::{Authenticator, Identity};
pub use cookie::TokenCookie;
pub use credentials::Credentials;
#[cfg(feature = "openapi")]
pub(crate) use credentials::Scheme;
pub use error::{AuthError, InvalidSource, Refusal};
pub(crate) use gate::Gates;
pub use gate::{Gate, GateError, Verdict};
pub use key_set::{InvalidJwks, JwkSet};
pub use quota::Quota;
#[cfg(feature = "rate-limit")]
pub use rate_limit::{InvalidRate, Rate, RateLimiter};
pub use rejection_log::RejectionLog;
#[cfg(feature = "remote-jwks")]
pub use remote_keys::{FetchError, JwksStatus, RefreshTask, RemoteJwks, RemoteJwksBuilder};
pub use token_claims::{Claim, TokenClaims};
pub(crate) use verifier::is_scope_character;
pub use verifier::{JwtVerifier, JwtVerifierBuilder, KeySource, Shape};
