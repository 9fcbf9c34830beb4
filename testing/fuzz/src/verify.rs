//! Any token, in the whole verifier.
//!
//! The verifier accepts a token only with a signature of one of its keys, and only with valid claims. A second
//! verification, which may use the cache, has the same result.

use std::sync::LazyLock;

use arbitrary::Unstructured;
use aws_lc_rs::{
    hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, header};
use serde_json::{Value, json};
use todo_core::{
    auth::{
        AuthError, Authenticator as _, Identity, JwkSet, JwtVerifier, JwtVerifierBuilder, KeySource, Shape, TokenCookie,
    },
    clock::{FixedClock, Timestamp},
};

const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for these tests only";
const VALID_CLAIMS: &str = r#"{"sub":"ann","exp":9999999999}"#;
const APP: &str = "https://app.example.com";
const LEEWAY: f64 = 30.0;

/// Tokens of every algorithm. Their private keys no longer exist.
static FIXTURES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../todo-core/tests/fixtures/tokens.json")).expect("JSON")
});
static FIXTURE_TOKENS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let pairs = FIXTURES["pairs"].as_array().expect("an array").iter();
    pairs.map(|pair| pair["token"].as_str().expect("a text")).collect()
});
static NOW: LazyLock<i64> = LazyLock::new(|| FIXTURES["issuedAt"].as_i64().expect("a time"));

static SECRET_KEY: LazyLock<hmac::Key> = LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, SECRET));
static ED25519_KEY: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed of 32 bytes"));

/// Verifiers with any issuer and audience, with certain ones, for session cookies, and with another claim as subject.
static VERIFIERS: LazyLock<[JwtVerifier; 4]> = LazyLock::new(|| {
    let mut keys: Vec<Value> =
        FIXTURES["pairs"].as_array().expect("an array").iter().map(|pair| pair["jwk"].clone()).collect();
    let x = URL_SAFE_NO_PAD.encode(ED25519_KEY.public_key());
    keys.push(json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ours", "x": x }));
    let keys = JwkSet::from_json(&json!({ "keys": keys }).to_string()).expect("a key set");
    let secrets =
        || KeySource::secrets([&b"another secret that signs no token here"[..], SECRET]).expect("valid secrets");
    let keys = || KeySource::jwks(keys.clone()).any_issuer().any_audience();
    let build = |sources: [KeySource; 2]| {
        let cookie = TokenCookie::new("session", [APP]);
        let builder = JwtVerifier::builder().cookie(cookie).clock(FixedClock::at(Timestamp::from_unix_seconds(*NOW)));
        sources.into_iter().fold(builder, JwtVerifierBuilder::source).build().expect("valid sources")
    };
    [
        build([secrets(), keys()]),
        build([secrets(), keys()].map(|source| source.issuers([APP, "other"]).audiences([APP]))),
        build([secrets(), keys()].map(|source| source.shape(Shape::CookieCache))),
        build([secrets(), keys()].map(|source| source.subject("user.id").issuers([APP, "other"]).audiences([APP]))),
    ]
});

/// Checks a token or the headers with it. The first byte of `data` chooses what the rest is, the second the verifier
/// and the key.
///
/// # Panics
///
/// If a property of [this module](self) does not hold.
pub fn check(data: &[u8]) {
    let &[mode, flags, ref rest @ ..] = data else { return };
    let number = usize::from(flags & 3);
    match mode % 8 {
        // The text of a token.
        0 => check_token(number, &String::from_utf8_lossy(rest)),
        // Header and claims as JSON, signed.
        1 => {
            let mut parts = rest.splitn(2, |byte| *byte == 0);
            let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            check_token(number, &signed(flags, header, claims));
        }
        // Claims as JSON, with a valid header.
        2 => check_token(number, &signed(flags, valid_header(flags).as_bytes(), rest)),
        // Claims with known names and almost valid values, signed.
        3 => {
            let claims = claims(&mut Unstructured::new(rest)).unwrap_or_else(|_| "{}".to_owned());
            check_token(number, &signed(flags, valid_header(flags).as_bytes(), claims.as_bytes()));
        }
        // A token of the fixtures with some bytes changed.
        4 => {
            let mut token = FIXTURE_TOKENS[usize::from(flags >> 2) % FIXTURE_TOKENS.len()].as_bytes().to_vec();
            for change in rest.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % token.len();
                token[at] = change[2];
            }
            check_token(number, &String::from_utf8_lossy(&token));
        }
        // Valid claims with any signature.
        5 => {
            let valid = signed(flags & 4, valid_header(flags).as_bytes(), VALID_CLAIMS.as_bytes());
            let other = FIXTURE_TOKENS[usize::from(flags >> 4) % FIXTURE_TOKENS.len()];
            let (message, _) =
                if flags & 8 == 0 { valid.as_str() } else { other }.rsplit_once('.').expect("a signature");
            let mut signature = String::from_utf8_lossy(rest).into_owned();
            if number >= 2 {
                signature = URL_SAFE_NO_PAD.encode(rest);
            }
            check_token(0, &format!("{message}.{signature}"));
        }
        // The headers of a request.
        6 => check_headers(number, &header::AUTHORIZATION, rest),
        _ => check_headers(number, &header::COOKIE, rest),
    }
}

fn valid_header(flags: u8) -> String {
    let typ = if flags & 8 == 0 { r#","typ":"JWT""# } else { "" };
    if flags & 4 == 0 {
        format!(r#"{{"alg":"HS256"{typ}}}"#)
    } else {
        format!(r#"{{"alg":"EdDSA","kid":"ours"{typ}}}"#)
    }
}

/// A token of these parts. The flags choose the secret or the Ed25519 key.
fn signed(flags: u8, header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = if flags & 4 == 0 {
        URL_SAFE_NO_PAD.encode(hmac::sign(&SECRET_KEY, message.as_bytes()))
    } else {
        URL_SAFE_NO_PAD.encode(ED25519_KEY.sign(message.as_bytes()))
    };
    format!("{message}.{signature}")
}

fn check_token(number: usize, token: &str) {
    let verifier = &VERIFIERS[number];
    let verify = || verifier.verify(token).now_or_never().expect("no fetch is needed");
    let result = verify();
    match &result {
        Ok(identity) => assert_valid(number, token, identity),
        Err(AuthError::Invalid(_)) => {}
        // The verifier checks the signature before the expiry.
        Err(AuthError::Expired) => assert!(is_signed(token), "{token}"),
        Err(error) => panic!("{error}"),
    }
    // The cache changes nothing.
    assert_eq!(format!("{result:?}"), format!("{:?}", verify()));
}

fn is_signed(token: &str) -> bool {
    let Some((message, signature)) = token.rsplit_once('.') else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    let public = UnparsedPublicKey::new(&ED25519, ED25519_KEY.public_key().as_ref());
    hmac::verify(&SECRET_KEY, message.as_bytes(), &signature).is_ok()
        || public.verify(message.as_bytes(), &signature).is_ok()
        || FIXTURE_TOKENS.iter().any(|fixture| {
            let (fixture_message, fixture_signature) = fixture.rsplit_once('.').expect("a signature");
            let fixture_signature = URL_SAFE_NO_PAD.decode(fixture_signature).expect("base64url");
            // An ECDSA signature has a second valid form, which differs in its second half.
            let half = fixture_signature.len() / 2;
            fixture_message == message
                && fixture_signature.len() == signature.len()
                && fixture_signature[..half] == signature[..half]
        })
}

/// Checks the accepted token with other means.
fn assert_valid(number: usize, token: &str, identity: &Identity) {
    assert!(is_signed(token), "{token}");
    assert!(token.len() <= 16 * 1024);
    let parts: Vec<Value> = token
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON"))
        .collect();
    let [header, claims] = parts.as_slice() else { panic!("three parts") };
    assert!(header.get("crit").is_none() && header.get("b64").is_none(), "{header}");
    let typ = header.get("typ").map(|typ| typ.as_str().expect("a text").to_ascii_lowercase());
    assert!(matches!(typ.as_deref(), None | Some("jwt" | "at+jwt")), "{header}");
    assert!(header["alg"] != "none", "{header}");

    #[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^52")]
    let now = *NOW as f64;
    assert!(claims["exp"].as_f64().expect("a number") + LEEWAY > now, "{claims}");
    if let Some(not_before) = claims.get("nbf") {
        assert!(not_before.as_f64().expect("a number") - LEEWAY <= now, "{claims}");
    }
    assert!(identity.expires_at.is_some());
    let user = identity.user_id.as_str();
    assert!(!user.is_empty() && !user.contains('\0'));
    let subject = if number >= 2 { &claims["user"]["id"] } else { &claims["sub"] };
    assert_eq!(subject, user);
    if number % 2 == 1 {
        assert!([APP, "other"].iter().any(|issuer| claims["iss"] == *issuer), "{claims}");
        let audiences = claims["aud"].as_array();
        assert!(claims["aud"] == APP || audiences.is_some_and(|all| all.contains(&json!(APP))), "{claims}");
    }
    if number == 2 {
        assert_eq!(claims["session"]["userId"], user);
        assert!(claims["session"]["expiresAt"].is_string() || claims["session"]["expiresAt"].is_number());
    }
}

fn check_headers(number: usize, name: &header::HeaderName, rest: &[u8]) {
    let mut request = Request::new(());
    for value in rest.split(|byte| *byte == b'\n') {
        // `$` is replaced by a valid token, which the fuzzer could not find.
        let value = String::from_utf8_lossy(value).replace('$', FIXTURE_TOKENS[0]);
        let Ok(value) = HeaderValue::try_from(value) else { return };
        request.headers_mut().append(name.clone(), value);
    }
    if number >= 2 {
        *request.method_mut() = Method::POST;
    }
    let (head, ()) = request.into_parts();
    let result = VERIFIERS[number % 2].authenticate(&head).now_or_never().expect("no fetch is needed");
    if let Ok(identity) = result {
        assert_eq!(identity.user_id.as_str(), "ann-1");
        assert!(*name == header::AUTHORIZATION || head.method == Method::GET);
    }
}

/// Claims with known names and almost valid values.
fn claims(u: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let mut members = Vec::new();
    if u.ratio(3, 4)? {
        members.push(format!(r#""exp":{}"#, *NOW + 900));
        members.push(r#""sub":"ann","iss":"https://app.example.com","aud":["https://app.example.com"]"#.to_owned());
    }
    if u.ratio(1, 2)? {
        members.push(r#""user":{"id":"ann"},"session":{"userId":"ann","expiresAt":"2099-01-01T00:00:00Z"}"#.to_owned());
    }
    for _ in 0..u.int_in_range(0..=6)? {
        let names = ["exp", "nbf", "iat", "iss", "aud", "sub", "user", "session", "email", "name", "id", "\\u0065xp"];
        members.push(format!(r#""{}":{}"#, u.choose(&names)?, value(u, 3)?));
    }
    let at = u.choose_index(members.len() + 1)?.min(members.len());
    members.rotate_left(at);
    Ok(format!("{{{}}}", members.join(",")))
}

fn value(u: &mut Unstructured<'_>, depth: u32) -> arbitrary::Result<String> {
    let texts = [APP, "other", "", "ann", "bob", "a\0b", "2099-01-01T00:00:00.000Z", "1970-01-01T00:00:00Z", "2099"];
    Ok(match u.int_in_range(0..=if depth == 0 { 5 } else { 8 })? {
        0 => json!(u.choose(&texts)?).to_string(),
        1 => (*NOW + i64::from(u.int_in_range(-100..=100_i8)?)).to_string(),
        2 => ((*NOW + i64::from(u.int_in_range(-100..=100_i8)?)) * 1000).to_string(),
        3 => format!("{:?}", f64::from_bits(u.arbitrary()?)).replace("inf", "1e308").replace("NaN", "0.5"),
        4 => (*u.choose(&["null", "true", "1e300", "-1", "0", "[]", "{}", "9223372036854775808"])?).to_owned(),
        5 => json!(u.arbitrary::<&str>()?).to_string(),
        6 => format!("[{},{}]", value(u, depth - 1)?, value(u, depth - 1)?),
        7 => {
            let names = ["id", "userId", "expiresAt", "email", "name"];
            let (one, two) = (u.choose(&names)?, u.choose(&names)?);
            format!(r#"{{"{one}":{},"{two}":{}}}"#, value(u, depth - 1)?, value(u, depth - 1)?)
        }
        _ => format!(
            r#"{{"id":{},"userId":{},"expiresAt":{}}}"#,
            value(u, depth - 1)?,
            value(u, depth - 1)?,
            value(u, depth - 1)?
        ),
    })
}
