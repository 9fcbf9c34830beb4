//! A token from a cookie: which cookie counts, and for whose writes.

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
async fn a_cookie_counts_for_reads_and_for_writes_of_the_sites_own_pages() {
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
            let refused = user(&verifier, method, &headers).await;
            assert!(matches!(refused, Err(AuthError::ForeignOrigin)), "{method} {headers:?}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn a_site_over_https_trusts_only_the_cookie_that_nobody_else_can_set() {
    let cookie = format!("better-auth.session_data={}", token("planted"));
    let missing = user(&verifier(APP), "GET", &[("cookie", &cookie)]).await;
    assert!(matches!(missing, Err(AuthError::Missing)), "{missing:?}");
    let local = verifier("http://localhost:3000");
    assert_eq!(user(&local, "GET", &[("cookie", &cookie)]).await.unwrap(), "planted");
    let both = format!("{cookie}; __Secure-better-auth.session_data={}", token("ann"));
    assert_eq!(user(&local, "GET", &[("cookie", &both)]).await.unwrap(), "ann");
}

#[tokio::test]
async fn a_cookie_that_was_split_is_put_together() {
    let verifier = verifier(APP);
    let token = token("ann");
    let name = "__Secure-better-auth.session_data";
    let (one, two) = token.split_at(100);
    let split = format!("{name}.1={two}; {name}.0={one}");
    assert_eq!(user(&verifier, "GET", &[("cookie", &split)]).await.unwrap(), "ann");
    // In several headers too, as HTTP/2 sends them.
    let (first, second) = (format!("{name}.0={one}"), format!("{name}.1={two}"));
    assert_eq!(user(&verifier, "GET", &[("cookie", &first), ("cookie", &second)]).await.unwrap(), "ann");
    let gap = format!("{name}.0={one}; {name}.2={two}");
    let refused = user(&verifier, "GET", &[("cookie", &gap)]).await;
    assert!(matches!(refused, Err(AuthError::Invalid(Refusal::Malformed | Refusal::Signature))), "{refused:?}");
}

#[tokio::test]
async fn of_two_cookies_with_one_name_none_counts() {
    let name = "__Secure-better-auth.session_data";
    let cookie = format!("{name}={}; {name}={}", token("ann"), token("bob"));
    let refused = user(&verifier(APP), "GET", &[("cookie", &cookie)]).await;
    assert!(matches!(refused, Err(AuthError::Missing)), "{refused:?}");
}

#[tokio::test]
async fn a_bearer_token_goes_before_a_cookie_even_if_it_is_bad() {
    let verifier = verifier(APP);
    let cookie = format!("__Secure-better-auth.session_data={}", token("ann"));
    let bearer = format!("Bearer {}", token("bob"));
    let headers = [("cookie", cookie.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(user(&verifier, "POST", &headers).await.unwrap(), "bob");
    let headers = [("cookie", cookie.as_str()), ("authorization", "Bearer nonsense")];
    let refused = user(&verifier, "GET", &headers).await;
    assert!(matches!(refused, Err(AuthError::Invalid(Refusal::Malformed))), "{refused:?}");
}

#[tokio::test]
async fn without_leave_a_cookie_is_nothing() {
    let source = KeySource::secrets([SECRET]).unwrap().shape(Shape::CookieCache);
    let verifier = JwtVerifier::builder().source(source).build().unwrap();
    let cookie = format!("__Secure-better-auth.session_data={}", token("ann"));
    let missing = user(&verifier, "GET", &[("cookie", &cookie)]).await;
    assert!(matches!(missing, Err(AuthError::Missing)), "{missing:?}");
}
