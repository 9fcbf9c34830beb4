//! The settings of the keys that verify tokens. [`crate::key_sources`] makes key sources from them.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use todo_core::auth::{InvalidSource, KeySource};
use url::Url;

use super::{
    Secret, Sources,
    parse::{choice, claim, http_url, list, scopes, user_prefix, within},
};

#[derive(Debug)]
pub(crate) struct Keys {
    /// In the given order; the first is the newest.
    pub(crate) secrets: Vec<Secret>,
    /// What the secrets sign, if it is set. See [`Keys::effective_hs256`].
    pub(crate) hs256: Option<Hs256>,
    pub(crate) jwks_file: Option<PathBuf>,
    pub(crate) jwks_url: Option<Url>,
    /// Whether the key set may be fetched from another machine over plain HTTP.
    pub(crate) jwks_allow_http: bool,
    /// Root certificates for fetching the key set.
    pub(crate) jwks_ca_file: Option<PathBuf>,
    /// A proxy for fetching the key set, and the hosts that are reached without it.
    pub(crate) proxy: Option<Secret>,
    pub(crate) no_proxy: Option<String>,
    pub(crate) better_auth_url: Option<Url>,
    /// Empty if not set.
    pub(crate) issuers: Vec<String>,
    /// Empty if not set.
    pub(crate) audiences: Vec<String>,
    pub(crate) subject: Option<String>,
    /// What is put before the subjects of tokens that the key set or a secret verifies.
    pub(crate) jwks_user_prefix: Option<String>,
    pub(crate) hs256_user_prefix: Option<String>,
    /// Scopes separated by single spaces.
    pub(crate) required_scope: Option<String>,
    pub(crate) leeway: Duration,
    /// Whether a key is set but invalid. Then the mistake that there is no key is not reported as well.
    pub(crate) has_invalid_key: bool,
}

/// What the shared secrets sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hs256 {
    /// Access tokens with a claim for the user.
    Sub,
    /// The session cookie of Better Auth.
    CookieCache,
    /// Nothing that this server accepts.
    Off,
}

impl Keys {
    pub(crate) fn read(sources: &mut Sources) -> Self {
        let hs256 = [("sub", Hs256::Sub), ("cookie-cache", Hs256::CookieCache), ("off", Hs256::Off)];
        let is_set = |name| sources.get(name).is_some();
        let (jwks_is_set, better_auth_is_set) = (is_set("JWKS_URL"), is_set("BETTER_AUTH_URL"));
        let secret_is_set = is_set("BETTER_AUTH_SECRET") || is_set("BETTER_AUTH_SECRETS");
        let hs256_is_set = is_set("JWT_HS256");
        let mut keys = Self {
            hs256: hs256_is_set.then(|| choice(sources, "JWT_HS256", hs256)),
            jwks_file: sources.read("JWKS_FILE", |path| Ok(PathBuf::from(path))),
            jwks_url: sources.read("JWKS_URL", http_url),
            jwks_allow_http: choice(sources, "JWKS_ALLOW_HTTP", [("false", false), ("true", true)]),
            jwks_ca_file: sources.read("JWKS_CA_FILE", |path| Ok(PathBuf::from(path))),
            proxy: sources.get("HTTPS_PROXY").map(Secret::new),
            no_proxy: sources.get("NO_PROXY").map(str::to_owned),
            better_auth_url: sources.read("BETTER_AUTH_URL", http_url),
            jwks_user_prefix: sources.read("JWKS_USER_PREFIX", user_prefix),
            hs256_user_prefix: sources.read("JWT_HS256_USER_PREFIX", user_prefix),
            issuers: sources.read("JWT_ISSUER", list).unwrap_or_default(),
            audiences: sources.read("JWT_AUDIENCE", list).unwrap_or_default(),
            subject: sources.read("JWT_SUBJECT", claim),
            required_scope: sources.read("JWT_REQUIRED_SCOPE", scopes),
            ..Self::default()
        };
        if let Some(seconds) = sources.read("JWT_LEEWAY_SECONDS", within(0..=300)) {
            keys.leeway = Duration::from_secs(seconds);
        }
        // A secret that is not used need not be valid: every `.env` of Better Auth contains its secret.
        let secrets_are_used = keys.effective_hs256() != Hs256::Off;
        if secrets_are_used {
            keys.secrets = secrets(sources);
        }
        keys.has_invalid_key = (jwks_is_set && keys.jwks_url.is_none())
            || (better_auth_is_set && keys.better_auth_url.is_none())
            || (secrets_are_used && secret_is_set && keys.secrets.is_empty());
        keys
    }

    /// One shared secret, with defaults for everything else.
    pub(crate) fn from_secret(secret: Secret) -> Self {
        Self { secrets: vec![secret], ..Self::default() }
    }

    /// What the secrets sign. By default a key set replaces them.
    pub(crate) fn effective_hs256(&self) -> Hs256 {
        self.hs256.unwrap_or(if self.have_key_set() { Hs256::Off } else { Hs256::Sub })
    }

    pub(crate) fn have_key_set(&self) -> bool {
        self.jwks_file.is_some() || self.jwks_url.is_some() || self.better_auth_url.is_some()
    }

    /// Issuer and audience of the tokens of Better Auth: scheme, host and port of its URL, in lower case and without a
    /// default port.
    pub(crate) fn better_auth_origin(&self) -> Option<String> {
        let url = self.better_auth_url.as_ref()?;
        Some(url.origin().ascii_serialization())
    }

    /// Where Better Auth serves its key set. It adds `/api/auth` only to a URL without a path.
    pub(crate) fn better_auth_jwks_url(&self) -> Option<String> {
        let url = self.better_auth_url.as_ref()?;
        let path = match url.path().trim_end_matches('/') {
            "" => "/api/auth",
            path => path,
        };
        Some(format!("{}{path}/jwks", url.origin().ascii_serialization()))
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            hs256: None,
            jwks_file: None,
            jwks_url: None,
            jwks_allow_http: false,
            jwks_ca_file: None,
            proxy: None,
            no_proxy: None,
            better_auth_url: None,
            issuers: Vec::new(),
            audiences: Vec::new(),
            subject: None,
            jwks_user_prefix: None,
            hs256_user_prefix: None,
            required_scope: None,
            leeway: Duration::from_secs(30),
            has_invalid_key: false,
        }
    }
}

/// The shared secrets. A list replaces the single secret, since Better Auth then no longer signs with that one.
fn secrets(sources: &mut Sources) -> Vec<Secret> {
    let Some(list) = sources.get("BETTER_AUTH_SECRETS") else {
        // Not trimmed, since Better Auth does not trim it either.
        let Some(secret) = sources.get("BETTER_AUTH_SECRET").map(Secret::new) else {
            return Vec::new();
        };
        return match check(&secret) {
            Ok(()) => vec![secret],
            Err(problem) => {
                sources.reject("BETTER_AUTH_SECRET", problem);
                Vec::new()
            }
        };
    };
    let mut secrets = Vec::new();
    let mut problems = Vec::new();
    let mut versions = BTreeSet::new();
    for (position, entry) in (1..).zip(list.split(',')) {
        let Some((version, secret)) = entry.split_once(':') else {
            problems.push(format!("entry {position} is not <version>:<secret>"));
            continue;
        };
        let (Ok(version), secret) = (version.trim().parse::<u32>(), Secret::new(secret.trim())) else {
            problems.push(format!("the version of entry {position} is not a number"));
            continue;
        };
        if !versions.insert(version) {
            problems.push(format!("version {version} appears twice"));
        }
        match check(&secret) {
            Ok(()) => secrets.push(secret),
            Err(problem) => problems.push(format!("version {version} {problem}")),
        }
    }
    for problem in problems {
        sources.reject("BETTER_AUTH_SECRETS", problem);
    }
    secrets
}

/// Checks a secret with the rules of `todo-core`.
fn check(secret: &Secret) -> Result<(), String> {
    match KeySource::secrets([secret.reveal()]) {
        Ok(_) => Ok(()),
        Err(InvalidSource::ShortSecret) => Err(format!(
            "has {} bytes and needs at least 32; make one with: openssl rand -base64 32",
            secret.reveal().len()
        )),
        Err(InvalidSource::PublicSecret) => {
            Err("is the public default of Better Auth; make another one with: openssl rand -base64 32".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}
