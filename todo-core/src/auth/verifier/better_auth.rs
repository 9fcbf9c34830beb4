//! The conventions of Better Auth.

#[cfg(feature = "remote-jwks")]
use crate::auth::error::InvalidSource;

/// The secret with which Better Auth signs during development if none is configured. It is public.
pub(super) const DEFAULT_SECRET: &str = "better-auth-secret-12345678901234567890";

/// Returns the URL of the key set for a base URL, and the origin (RFC 6454), which is the issuer and the audience.
#[cfg(feature = "remote-jwks")]
pub(super) fn addresses(base_url: &str) -> Result<(String, String), InvalidSource> {
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

#[cfg(all(test, feature = "remote-jwks"))]
mod tests {
    use super::*;

    #[test]
    fn the_issuer_is_the_origin_and_the_keys_are_below_the_mount() {
        let expected = [
            ("https://app.example.com", "https://app.example.com/api/auth/jwks", "https://app.example.com"),
            ("https://APP.example.com:443/", "https://app.example.com/api/auth/jwks", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000/api/auth/jwks", "http://localhost:3000"),
            ("http://localhost:3000/api/auth", "http://localhost:3000/api/auth/jwks", "http://localhost:3000"),
            ("https://a.example/auth/", "https://a.example/auth/jwks", "https://a.example"),
        ];
        for (base_url, jwks, origin) in expected {
            assert_eq!(addresses(base_url), Ok((jwks.to_owned(), origin.to_owned())), "{base_url}");
        }
        for invalid in
            ["", "app.example.com", "https://", "https://a.example?x", "https://a.example#x", "https://u:p@a.example"]
        {
            assert_eq!(addresses(invalid), Err(InvalidSource::Url), "{invalid}");
        }
    }
}
