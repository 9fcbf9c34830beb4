//! Tests tokens in cookies: which cookie is read, and from which origins writes are accepted.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use http::{Request, request::Parts};
use serde_json::json;
use todo_core::auth::{AuthError, Authenticator as _, JwtVerifier, KeySource, Refusal, Shape, TokenCookie};

const SECRET: &str = "a secret of thirty-two bytes or more";
const APP: &str = "https://app.example.com";

fn verifier(origin: &str) -> JwtVerifier {
    JwtVerifier::builder()
        .source(KeySource::secrets([SECRET]).unwrap().shape(Shape::CookieCache))
        .cookie(TokenCookie::new("better-auth.session_data", [origin]))
        .build()
        .unwrap()
}

fn token(user: &str) -> String {
    let now = testkit::tokens::now();
    let claims = json!({
        "session": {"userId": user, "expiresAt": (now + 600) * 1000},
        "user": {"id": user, "email": "ann@example.com"},
        "exp": now + 300,
    });
    testkit::tokens::secret_token(SECRET.as_bytes(), &claims)
}

fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/tasks");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

async fn user(verifier: &JwtVerifier, method: &str, headers: &[(&str, &str)]) -> Result<String, AuthError> {
    verifier.authenticate(&head(method, headers)).await.map(|identity| identity.user_id.to_string())
}

#[tokio::test]
async fn a_cookie_is_accepted_for_reads_and_for_writes_of_the_own_origin() {
    let verifier = verifier(APP);
    let cookie = format!("theme=dark; __Secure-better-auth.session_data={}; x=y", token("ann"));
    assert_eq!(user(&verifier, "GET", &[("cookie", &cookie)]).await.unwrap(), "ann");
    assert_eq!(user(&verifier, "POST", &[("cookie", &cookie), ("origin", APP)]).await.unwrap(), "ann");
    let foreign: [&[(&str, &str)]; 6] = [
        &[],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://app.example.com")],
        &[("origin", "https://app.example.com.evil.example")],
        &[("origin", APP), ("origin", "https://evil.example")],
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for headers in foreign {
            let headers = [headers, &[("cookie", cookie.as_str())]].concat();
            let rejected = user(&verifier, method, &headers).await;
            assert!(matches!(rejected, Err(AuthError::ForeignOrigin)), "{method} {headers:?}: {rejected:?}");
        }
    }
}

#[tokio::test]
async fn with_https_only_the_cookie_with_the_secure_prefix_is_read() {
    let cookie = format!("better-auth.session_data={}", token("planted"));
    let missing = user(&verifier(APP), "GET", &[("cookie", &cookie)]).await;
    assert!(matches!(missing, Err(AuthError::Missing)), "{missing:?}");
    let local = verifier("http://localhost:3000");
    assert_eq!(user(&local, "GET", &[("cookie", &cookie)]).await.unwrap(), "planted");
    let both = format!("{cookie}; __Secure-better-auth.session_data={}", token("ann"));
    assert_eq!(user(&local, "GET", &[("cookie", &both)]).await.unwrap(), "ann");
}

#[tokio::test]
async fn a_split_cookie_is_joined() {
    let verifier = verifier(APP);
    let token = token("ann");
    let name = "__Secure-better-auth.session_data";
    let (one, two) = token.split_at(100);
    let split = format!("{name}.1={two}; {name}.0={one}");
    assert_eq!(user(&verifier, "GET", &[("cookie", &split)]).await.unwrap(), "ann");
    // HTTP/2 clients send several `cookie` headers.
    let (first, second) = (format!("{name}.0={one}"), format!("{name}.1={two}"));
    assert_eq!(user(&verifier, "GET", &[("cookie", &first), ("cookie", &second)]).await.unwrap(), "ann");
    let gap = format!("{name}.0={one}; {name}.2={two}");
    let rejected = user(&verifier, "GET", &[("cookie", &gap)]).await;
    assert!(matches!(rejected, Err(AuthError::Invalid(Refusal::Malformed | Refusal::Signature))), "{rejected:?}");
}

#[tokio::test]
async fn two_cookies_with_the_same_name_are_rejected() {
    let name = "__Secure-better-auth.session_data";
    let cookie = format!("{name}={}; {name}={}", token("ann"), token("bob"));
    let rejected = user(&verifier(APP), "GET", &[("cookie", &cookie)]).await;
    assert!(matches!(rejected, Err(AuthError::Missing)), "{rejected:?}");
}

#[tokio::test]
async fn a_cookie_is_ignored_if_there_is_a_bearer_token() {
    let verifier = verifier(APP);
    let cookie = format!("__Secure-better-auth.session_data={}", token("ann"));
    let bearer = format!("Bearer {}", token("bob"));
    let headers = [("cookie", cookie.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(user(&verifier, "POST", &headers).await.unwrap(), "bob");
    let headers = [("cookie", cookie.as_str()), ("authorization", "Bearer nonsense")];
    let rejected = user(&verifier, "GET", &headers).await;
    assert!(matches!(rejected, Err(AuthError::Invalid(Refusal::Malformed))), "{rejected:?}");
}

#[tokio::test]
async fn cookies_are_ignored_by_default() {
    let source = KeySource::secrets([SECRET]).unwrap().shape(Shape::CookieCache);
    let verifier = JwtVerifier::builder().source(source).build().unwrap();
    let cookie = format!("__Secure-better-auth.session_data={}", token("ann"));
    let missing = user(&verifier, "GET", &[("cookie", &cookie)]).await;
    assert!(matches!(missing, Err(AuthError::Missing)), "{missing:?}");
}
