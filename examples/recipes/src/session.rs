//! Users known by a session of the host.

// recipe
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, header::COOKIE, request::Parts};
use sqlx::PgPool;
use todo_core::{
    UserId,
    auth::{AllowedOrigins, AuthError, Authenticator, Credentials, Identity},
};

/// Finds the user in your table `sessions (token_hash bytea primary key, user_id text, expires_at timestamptz)`.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// Your database.
    pub pool: PgPool,
    /// Your site: `AllowedOrigins::new(["https://todo.example"])`.
    pub origins: AllowedOrigins,
}

#[async_trait]
impl Authenticator for Sessions {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        let token = session_cookie(&head.headers).ok_or(AuthError::Missing)?; // 401
        // CSRF: browsers also send the cookie with requests of other sites, but then `Origin` names the other site.
        self.origins.check(&head.method, &head.headers)?; // 403
        let select = "select user_id from sessions where token_hash = sha256($1) and expires_at > now()";
        let user: Option<String> =
            sqlx::query_scalar(select).bind(token.as_bytes()).fetch_optional(&self.pool).await.map_err(unavailable)?;
        let user = UserId::new(user.ok_or(AuthError::Expired)?); // 401
        Ok(Identity::new(user.map_err(unavailable)?))
    }

    /// For the 401, and for `/openapi.json`.
    fn credentials(&self) -> Credentials {
        Credentials::cookie("__Host-session").missing("Sign in first.")
    }
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let mut headers = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    headers.find_map(|header| header.split(';').find_map(|cookie| cookie.trim().strip_prefix("__Host-session=")))
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> AuthError {
    AuthError::Unavailable { retry_after: Duration::from_secs(1), source: Box::new(error) } // 503
}
// end
