//! A host that knows its users by a cookie, and the test case of what its handlers get from the authenticator.

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderValue, Request, StatusCode,
    header::{CONTENT_TYPE, COOKIE, ORIGIN, WWW_AUTHENTICATE},
    request::Parts,
};
use todo_core::{
    TodoService, UserId,
    api::TodoApi,
    auth::{AllowedOrigins, AuthError, Authenticator, Credentials, Identity},
    store::MemoryStore,
};

use crate::http::Server;

/// The website of the host.
const SITE: &str = "https://todo.example";

/// What the host knows of a user.
#[derive(Debug)]
pub struct Account {
    /// What the user pays for.
    pub plan: String,
}

/// The user is the value of the cookie `user`.
#[derive(Debug)]
struct Sessions(AllowedOrigins);

#[async_trait]
impl Authenticator for Sessions {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        let cookie = head.headers.get(COOKIE).and_then(|cookie| cookie.to_str().ok()?.strip_prefix("user="));
        let user = cookie.and_then(|user| UserId::new(user).ok()).ok_or(AuthError::Missing)?;
        self.0.check(&head.method, &head.headers)?;
        let plan = format!("the plan of {user}");
        Ok(Identity::new(user).with_value(Account { plan }))
    }

    fn credentials(&self) -> Credentials {
        Credentials::cookie("user").missing("Sign in at /login.").challenge(HeaderValue::from_static("Session"))
    }
}

/// The API of the host.
#[must_use]
pub fn api() -> TodoApi {
    TodoApi::new(TodoService::new(MemoryStore::new()), Sessions(AllowedOrigins::new([SITE])))
}

/// Checks a host that has mounted this [`api`] at `/api/v1`, and that responds to `GET /plan` and `POST /plan` with the
/// plan of the caller's [`Account`].
///
/// # Panics
///
/// If it does not respond so.
pub async fn check(server: &Server) {
    let client = server.client();
    let send = async |method: &str, path: &str, headers: &[(http::HeaderName, &'static str)]| {
        let mut request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let body = if path == "/api/v1/tasks" && method == "POST" { r#"{"title":"Buy milk"}"# } else { "" };
        let response = client.send(request.body(Bytes::from_static(body.as_bytes())).expect("a request")).await;
        let challenge = response.headers().get(WWW_AUTHENTICATE).cloned();
        (response.status(), challenge, String::from_utf8_lossy(response.body()).into_owned())
    };
    let (ann, own, foreign) = ((COOKIE, "user=ann"), (ORIGIN, SITE), (ORIGIN, "https://evil.example"));
    let (status, _, body) = send("GET", "/plan", std::slice::from_ref(&ann)).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "the plan of ann"));
    for (path, created) in [("/plan", StatusCode::OK), ("/api/v1/tasks", StatusCode::CREATED)] {
        assert_eq!(send("POST", path, &[ann.clone(), own.clone()]).await.0, created, "{path}");
        for headers in [std::slice::from_ref(&ann), &[ann.clone(), foreign.clone()]] {
            let (status, challenge, body) = send("POST", path, headers).await;
            assert_eq!((status, challenge), (StatusCode::FORBIDDEN, None), "{path} {headers:?}");
            assert!(body.contains(r#""code":"forbidden""#), "{body}");
        }
    }
    // The host's handler and the API have the same 401.
    let of_host = send("GET", "/plan", &[]).await;
    assert_eq!((of_host.0, of_host.1.clone()), (StatusCode::UNAUTHORIZED, Some(HeaderValue::from_static("Session"))));
    assert!(of_host.2.contains(r#""detail":"Sign in at /login.""#), "{}", of_host.2);
    assert_eq!(send("GET", "/api/v1/tasks", &[]).await, of_host);
}
