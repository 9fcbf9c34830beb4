//! More than the server can or will do: it says so, and goes on for everybody else.

use http::Method;

use crate::program::{Caller, Place};

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_others_are_not() {
    let server = Place::with_secret().set("RATE_LIMIT", "5/24h").serve(&[]);
    let (ann, bob) = (server.caller("ann"), server.caller("bob"));
    let told = |response: &http::Response<bytes::Bytes>, name: &str| {
        response.headers()[name].to_str().expect("text").to_owned()
    };
    for (number, method) in [Method::POST, Method::GET, Method::POST, Method::GET, Method::DELETE].iter().enumerate() {
        let response = ann.send(method.clone(), "/api/tasks", r#"{"title":"Buy milk"}"#).await;
        if *method == Method::DELETE {
            // A method that is not there costs nothing.
            assert_eq!(response.status(), 405);
            assert!(!response.headers().contains_key("ratelimit"));
            continue;
        }
        assert!(response.status().is_success(), "{response:?}");
        assert_eq!(told(&response, "ratelimit-policy"), r#""user";q=5;w=86400"#);
        assert!(told(&response, "ratelimit").starts_with(&format!("\"user\";r={};t=", 4 - number)), "{response:?}");
    }
    // The last one, and one too many.
    assert_eq!(ann.send(Method::GET, "/api/v1/ann/tasks", "").await.status(), 200);
    let refused = ann.send(Method::GET, "/api/auth/session", "").await;
    assert_eq!(Caller::json(&refused, 429)["code"], "rate_limited");
    assert!(told(&refused, "ratelimit").starts_with(r#""user";r=0;"#));
    let seconds: u32 = told(&refused, "retry-after").parse().expect("a number");
    // A fifth of a day.
    assert!((17_000..=17_280).contains(&seconds), "{seconds}");
    assert_eq!(bob.send(Method::GET, "/api/tasks", "").await.status(), 200);
    assert_eq!(ann.send(Method::GET, "/health/ready", "").await.status(), 200);
}

#[tokio::test]
async fn without_a_limit_nobody_hears_of_one() {
    for setting in ["", "off"] {
        let server = Place::with_secret().set("RATE_LIMIT", setting).serve(&[]);
        let ann = server.caller("ann");
        for _ in 0..200 {
            let response = ann.send(Method::GET, "/api/tasks", "").await;
            assert_eq!(response.status(), 200);
            assert!(!response.headers().contains_key("ratelimit"));
        }
    }
}
