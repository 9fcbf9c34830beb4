//! The users and sessions of the host, in its own tables.

use std::{error::Error, fmt, num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    error::Unspecified,
    pbkdf2, rand,
};
use axum::http::{HeaderMap, Method, header::COOKIE as COOKIE_HEADER, request::Parts};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sqlx::{Executor as _, SqlitePool};
use todo_core::{
    TodoService, UserId,
    auth::{AllowedOrigins, AuthError, Authenticator, Credentials, Gate, GateError, Identity, Refusal, Verdict},
    clock::{Clock, Timestamp},
    store::SqliteStore,
};
use tokio::task::JoinError;

type BoxError = Box<dyn Error + Send + Sync>;

/// The name of the cookie. With the prefix `__Host-`, other hosts of the domain cannot set it (RFC 6265bis, section
/// 4.1.3.2).
pub const COOKIE: &str = "__Host-session";

/// How long a session lasts.
const SESSION: Duration = Duration::from_hours(12);

/// The number of iterations that OWASP recommends for PBKDF2 with SHA-256.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("it is not zero");

const SCHEMA: &str = "
    create table if not exists users (
        name text primary key,
        salt blob not null,
        iterations integer not null,
        password blob not null,
        disabled integer not null default 0,
        signed_out_at integer not null default 0
    ) strict;
    create table if not exists sessions (
        token_hash blob primary key,
        user text not null references users (name) on delete cascade,
        issued_at integer not null,
        expires_at integer not null
    ) strict;
";

/// Users and sessions. Cloning is cheap, and clones share the database.
#[derive(Clone)]
pub struct Accounts {
    pool: SqlitePool,
    clock: Arc<dyn Clock>,
    origins: AllowedOrigins,
    iterations: NonZeroU32,
}

impl Accounts {
    /// Opens the accounts in this database, for a service with this origin (`https://todo.example`). Creates missing
    /// tables.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub async fn open(pool: SqlitePool, origin: &str, clock: impl Clock + 'static) -> Result<Self, sqlx::Error> {
        pool.execute(SCHEMA).await?;
        Ok(Self { pool, clock: Arc::new(clock), origins: AllowedOrigins::new([origin]), iterations: ITERATIONS })
    }

    /// Sets the iterations of PBKDF2 for new passwords.
    #[must_use]
    pub fn with_iterations(mut self, iterations: NonZeroU32) -> Self {
        self.iterations = iterations;
        self
    }

    /// Adds a user, or changes the password of an existing one.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub async fn set_password(&self, name: &str, password: &str) -> Result<(), BoxError> {
        let salt = random()?;
        let hash = derive(salt, self.iterations, password.to_owned()).await?;
        sqlx::query(
            "insert into users (name, salt, iterations, password) values ($1, $2, $3, $4)
             on conflict do update set salt = excluded.salt, iterations = excluded.iterations,
                 password = excluded.password",
        )
        .bind(name)
        .bind(&salt[..])
        .bind(self.iterations.get())
        .bind(&hash[..])
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Adds a user. Returns `false`, and changes nothing, if there is a user with this name.
    pub(crate) async fn sign_up(&self, name: &UserId, password: String) -> Result<bool, AuthError> {
        let salt = random().map_err(unavailable)?;
        let hash = derive(salt, self.iterations, password).await.map_err(unavailable)?;
        let insert =
            "insert into users (name, salt, iterations, password) values ($1, $2, $3, $4) on conflict do nothing";
        let inserted = sqlx::query(insert)
            .bind(name.as_str())
            .bind(&salt[..])
            .bind(self.iterations.get())
            .bind(&hash[..])
            .execute(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(inserted.rows_affected() == 1)
    }

    /// Deletes a user, their sessions and their tasks in one transaction, and returns a cookie that replaces the
    /// browser's. `tasks` is the store of the service, in the same file.
    pub(crate) async fn delete(
        &self,
        user: &UserId,
        tasks: &SqliteStore,
        service: &TodoService,
    ) -> Result<String, AuthError> {
        let delete = async {
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            // The sessions go with the user.
            sqlx::query("delete from users where name = $1").bind(user.as_str()).execute(&mut *transaction).await?;
            let joined = tasks.in_transaction(transaction).await?;
            service.with_store(joined.clone()).for_user(user.clone()).erase().await?;
            let transaction = joined.take().await.ok_or("the transaction was taken before")?;
            Ok::<_, BoxError>(transaction.commit().await?)
        };
        delete.await.map_err(unavailable)?;
        Ok(set_cookie("", Duration::ZERO))
    }

    /// Disables or enables a user.
    ///
    /// # Errors
    ///
    /// The database fails.
    pub async fn set_disabled(&self, name: &str, disabled: bool) -> Result<(), sqlx::Error> {
        sqlx::query("update users set disabled = $2 where name = $1")
            .bind(name)
            .bind(disabled)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Starts a session and returns its cookie, or `None` if the name or the password is wrong.
    pub(crate) async fn begin_session(&self, name: &str, password: String) -> Result<Option<String>, AuthError> {
        let user: Option<(Vec<u8>, u32, Vec<u8>)> =
            sqlx::query_as("select salt, iterations, password from users where name = $1 and not disabled")
                .bind(name)
                .fetch_optional(&self.pool)
                .await
                .map_err(unavailable)?;
        // An unknown name takes as long as a wrong password, so that the time does not reveal which names exist.
        let (salt, iterations, expected) = user.unwrap_or_default();
        let iterations = NonZeroU32::new(iterations).unwrap_or(self.iterations);
        let given = derive(salt.try_into().unwrap_or_default(), iterations, password).await.map_err(unavailable)?;
        if verify_slices_are_equal(&given, &expected).is_err() {
            return Ok(None);
        }
        let token = secret().map_err(unavailable)?;
        let now = self.clock.now();
        sqlx::query("insert into sessions (token_hash, user, issued_at, expires_at) values ($1, $2, $3, $4)")
            .bind(hash(&token))
            .bind(name)
            .bind(now.unix_micros())
            .bind(now.plus(SESSION).unix_micros())
            .execute(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(Some(set_cookie(&token, SESSION)))
    }

    /// Ends the session of this request and returns a cookie that replaces the browser's.
    pub(crate) async fn end_session(&self, headers: &HeaderMap) -> Result<String, AuthError> {
        let token = session_token(headers)?;
        sqlx::query("delete from sessions where token_hash = $1")
            .bind(hash(token))
            .execute(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(set_cookie("", Duration::ZERO))
    }

    /// Ends all sessions of a user that started before now.
    pub(crate) async fn end_all_sessions(&self, user: &UserId) -> Result<(), AuthError> {
        sqlx::query("update users set signed_out_at = $2 where name = $1")
            .bind(user.as_str())
            .bind(self.clock.now().unix_micros())
            .execute(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    /// Checks that a write comes from a page of the service, which browsers state in the header `Origin`.
    pub(crate) fn check_origin(&self, method: &Method, headers: &HeaderMap) -> Result<(), AuthError> {
        self.origins.check(method, headers)
    }
}

/// The row of the user of a session, which the gate and the host's handlers need too.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) is_disabled: bool,
    pub(crate) signed_out_at: Timestamp,
}

/// Finds the user of the session.
#[async_trait]
impl Authenticator for Accounts {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        let token = session_token(&head.headers)?;
        self.check_origin(&head.method, &head.headers)?;
        let session: Option<(String, i64, i64, Option<bool>, Option<i64>)> = sqlx::query_as(
            "select user, issued_at, expires_at, disabled, signed_out_at
             from sessions left join users on users.name = sessions.user where token_hash = $1",
        )
        .bind(hash(token))
        .fetch_optional(&self.pool)
        .await
        .map_err(unavailable)?;
        let Some((user, issued_at, expires_at, is_disabled, signed_out_at)) = session else {
            return Err(AuthError::Invalid(Refusal::Other("unknown session")));
        };
        let expires_at = Timestamp::from_unix_micros(expires_at);
        if expires_at <= self.clock.now() {
            return Err(AuthError::Expired);
        }
        let user_id = UserId::new(user).map_err(|_| AuthError::Invalid(Refusal::Subject))?;
        let mut identity = Identity::new(user_id);
        if let (Some(is_disabled), Some(signed_out_at)) = (is_disabled, signed_out_at) {
            let signed_out_at = Timestamp::from_unix_micros(signed_out_at);
            identity = identity.with_value(Account { is_disabled, signed_out_at });
        }
        identity.issued_at = Some(Timestamp::from_unix_micros(issued_at));
        identity.expires_at = Some(expires_at);
        Ok(identity)
    }

    fn credentials(&self) -> Credentials {
        Credentials::cookie(COOKIE).missing("Sign in at /login.")
    }
}

/// Rejects deleted and disabled users, and sessions that started before the last sign-out everywhere.
#[async_trait]
impl Gate for Accounts {
    async fn judge(&self, identity: &Identity) -> Result<Verdict, GateError> {
        let Some(account) = identity.value::<Account>() else { return Ok(Verdict::Deny) };
        let is_revoked = identity.issued_before(account.signed_out_at);
        Ok(if account.is_disabled || is_revoked { Verdict::Deny } else { Verdict::Allow })
    }
}

/// Hides the database.
impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("origins", &self.origins).finish_non_exhaustive()
    }
}

/// Returns the value of the cookie. Two cookies are ambiguous and are rejected.
fn session_token(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut tokens = headers
        .get_all(COOKIE_HEADER)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => Ok(token),
        _ => Err(AuthError::Missing),
    }
}

fn set_cookie(token: &str, lasts: Duration) -> String {
    format!("{COOKIE}={token}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax", lasts.as_secs())
}

/// The hash of a token that is stored, so that a reader of the table cannot use the session.
fn hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

/// The hash of a password that is stored. It is slow on purpose, so it runs on a blocking thread.
async fn derive(salt: [u8; 32], iterations: NonZeroU32, password: String) -> Result<[u8; 32], JoinError> {
    tokio::task::spawn_blocking(move || {
        let mut hash = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut hash);
        hash
    })
    .await
}

/// Returns a random text for a token or an initial password.
///
/// # Errors
///
/// The system has no randomness.
pub fn secret() -> Result<String, Unspecified> {
    Ok(URL_SAFE_NO_PAD.encode(random()?))
}

fn random() -> Result<[u8; 32], Unspecified> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// The error of a request that cannot be authenticated because the database fails.
fn unavailable(source: impl Into<BoxError>) -> AuthError {
    AuthError::Unavailable { retry_after: Duration::from_secs(1), source: source.into() }
}
