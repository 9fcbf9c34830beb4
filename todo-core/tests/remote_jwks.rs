//! Tests remote key sets with an HTTP server that fails in many ways.

#![expect(clippy::unwrap_used, reason = "a test panics to say that it failed")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, header::IF_NONE_MATCH};
use serde_json::{Value, json};
use testkit::{http::Server, tokens::SigningKey};
use todo_core::{
    auth::{
        AuthError, Authenticator as _, FetchError, InvalidSource, JwkSet, JwtVerifier, KeySource, Refusal, RemoteJwks,
        RemoteJwksBuilder,
    },
    clock::{Clock as _, FixedClock, Timestamp},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ISSUER: &str = "https://app.example.com";

/// A key server that counts requests and sends a configurable response.
#[derive(Clone)]
struct KeyServer(Arc<State>);

struct State {
    fetches: AtomicUsize,
    last_request: Mutex<String>,
    response: Mutex<Response>,
    server: Mutex<Option<Server>>,
}

#[derive(Clone)]
enum Response {
    Text(String),
    /// The other response, after a pause.
    Slow(Duration, Box<Response>),
    Hang,
    Close,
}

fn http(status: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    Response::Text(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"))
}

fn jwks(keys: &[(&str, &SigningKey)]) -> Response {
    let keys: Vec<Value> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
    http("200 OK", "content-type: application/json\r\n", &json!({ "keys": keys }).to_string())
}

impl KeyServer {
    async fn start(response: Response) -> Self {
        let own = Self(Arc::new(State {
            fetches: AtomicUsize::new(0),
            last_request: Mutex::default(),
            response: Mutex::new(response),
            server: Mutex::default(),
        }));
        let state = Arc::downgrade(&own.0);
        let server = Server::start(async move |listener: tokio::net::TcpListener| {
            while let Ok((mut connection, _)) = listener.accept().await {
                let Some(state) = state.upgrade() else { return };
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        match connection.read(&mut byte).await {
                            Ok(1) => request.push(byte[0]),
                            _ => return,
                        }
                    }
                    state.fetches.fetch_add(1, Ordering::SeqCst);
                    *state.last_request.lock().unwrap() = String::from_utf8(request).unwrap();
                    let mut response = state.response.lock().unwrap().clone();
                    if let Response::Slow(pause, other) = response {
                        tokio::time::sleep(pause).await;
                        response = *other;
                    }
                    match response {
                        Response::Slow(..) => unreachable!("one pause"),
                        Response::Text(text) => drop(connection.write_all(text.as_bytes()).await),
                        Response::Hang => std::future::pending().await,
                        Response::Close => {}
                    }
                });
            }
        })
        .await;
        *own.0.server.lock().unwrap() = Some(server);
        own
    }

    fn url(&self) -> String {
        format!("http://{}/api/auth/jwks", self.0.server.lock().unwrap().as_ref().unwrap().address())
    }

    fn respond_with(&self, response: Response) {
        *self.0.response.lock().unwrap() = response;
    }

    fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }
}

struct Setup {
    server: KeyServer,
    clock: Arc<FixedClock>,
    keys: RemoteJwks,
    verifier: JwtVerifier,
}

impl Setup {
    async fn new(response: Response) -> Self {
        Self::with(response, |builder| builder).await
    }

    async fn with(response: Response, settings: impl FnOnce(RemoteJwksBuilder) -> RemoteJwksBuilder) -> Self {
        let server = KeyServer::start(response).await;
        let clock = Arc::new(FixedClock::at(Timestamp::from_unix_seconds(1_763_712_000)));
        let keys = settings(RemoteJwks::builder(server.url()).clock(clock.clone())).build().unwrap();
        let source = KeySource::remote(keys.clone()).issuers([ISSUER]).audiences([ISSUER]);
        let verifier = JwtVerifier::builder().source(source).clock(clock.clone()).build().unwrap();
        Self { server, clock, keys, verifier }
    }

    fn advance(&self, seconds: u64) {
        self.clock.set(self.clock.now().plus(Duration::from_secs(seconds)));
    }

    /// A token that is valid for a day.
    fn token(&self, kid: &str, key: &SigningKey) -> String {
        let exp = self.clock.now().unix_seconds() + 86_400;
        key.token(kid, &json!({"sub": "ann", "iss": ISSUER, "aud": ISSUER, "exp": exp}))
    }

    async fn accepts(&self, token: &str) {
        assert_eq!(self.verifier.verify(token).await.unwrap().user_id.as_str(), "ann");
    }

    async fn rejects(&self, token: &str, refusal: Refusal) {
        match self.verifier.verify(token).await {
            Err(AuthError::Invalid(reason)) => assert_eq!(reason, refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Verifies that the keys are unavailable, and returns when to retry, in seconds.
    async fn unavailable(&self, token: &str) -> u64 {
        match self.verifier.verify(token).await {
            Err(AuthError::Unavailable { retry_after, .. }) => retry_after.as_secs(),
            other => panic!("{other:?}"),
        }
    }

    /// Verifies that the key is not known yet, and returns when to retry, in seconds.
    async fn may_be_new(&self, token: &str) -> u64 {
        match self.verifier.verify(token).await {
            Err(AuthError::KeyMayBeNew { retry_after }) => retry_after.as_secs(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn only_the_first_token_causes_a_fetch() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    assert_eq!(setup.server.fetches(), 0, "nothing is fetched before it is needed");
    for _ in 0..5 {
        setup.accepts(&setup.token("a", &key)).await;
    }
    setup.advance(29);
    setup.accepts(&setup.token("a", &key)).await;
    assert_eq!(setup.server.fetches(), 1);
}

#[tokio::test]
async fn keys_are_fetched_once_the_key_server_responds() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(Response::Close).await;
    let token = setup.token("a", &key);
    assert_eq!(setup.unavailable(&token).await, 10);
    setup.server.respond_with(jwks(&[("a", &key)]));
    setup.advance(4);
    assert_eq!(setup.unavailable(&token).await, 6, "the next fetch is not allowed yet");
    assert_eq!(setup.server.fetches(), 1);
    setup.advance(6);
    setup.accepts(&token).await;
}

#[tokio::test]
async fn a_new_key_is_accepted_at_once() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::es256());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.advance(11);
    setup.server.respond_with(jwks(&[("old", &old), ("new", &new)]));
    setup.accepts(&setup.token("new", &new)).await;
    setup.accepts(&setup.token("old", &old)).await;
    assert_eq!(setup.server.fetches(), 2);
}

#[tokio::test]
async fn an_unknown_key_is_503_while_no_fetch_is_allowed() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.server.respond_with(jwks(&[("new", &new)]));
    setup.advance(3);
    let token = setup.token("new", &new);
    assert_eq!(setup.may_be_new(&token).await, 7);
    setup.advance(7);
    setup.accepts(&token).await;
    setup.advance(10);
    setup.rejects(&setup.token("unheard of", &new), Refusal::UnknownKey).await;
}

#[tokio::test]
async fn concurrent_requests_share_a_fetch() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.advance(11);
    setup.server.respond_with(jwks(&[("new", &new)]));
    let tokens: Vec<_> = (0..100).map(|_| setup.token("new", &new)).collect();
    futures_util::future::join_all(tokens.iter().map(|token| setup.accepts(token))).await;
    assert_eq!(setup.server.fetches(), 2);
}

#[tokio::test]
async fn the_headers_of_the_host_are_sent_with_each_fetch() {
    tokio::task_local! { static CALLER: &'static str; }
    let key = SigningKey::ed25519();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let keys: Arc<Mutex<Option<RemoteJwks>>> = Arc::default();
    let own = keys.clone();
    let setup = Setup::with(jwks(&[("a", &key)]), move |builder| {
        builder.headers(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            // A host may ask for the status in this function.
            assert!(own.lock().unwrap().as_ref().is_none_or(|keys| keys.status().keys <= 1));
            let caller = CALLER.try_with(|caller| *caller).unwrap_or("none");
            let mut secret = HeaderValue::from_static("the-key-of-this-service");
            secret.set_sensitive(true);
            HeaderMap::from_iter([
                (HeaderName::from_static("x-api-key"), secret),
                (HeaderName::from_static("x-caller"), HeaderValue::from_static(caller)),
                (IF_NONE_MATCH, HeaderValue::from_static("\"theirs\"")),
            ])
        })
    })
    .await;
    *keys.lock().unwrap() = Some(setup.keys.clone());
    let last = || setup.server.0.last_request.lock().unwrap().clone();
    let accepted = async |seconds| {
        setup.advance(seconds);
        setup.accepts(&setup.token("a", &key)).await;
    };
    CALLER.scope("ann", accepted(0)).await;
    assert!(last().contains("\r\nx-api-key: the-key-of-this-service\r\nx-caller: ann\r\n"), "{}", last());
    CALLER.scope("bob", accepted(1)).await;
    assert_eq!(
        (asked.load(Ordering::SeqCst), setup.server.fetches()),
        (1, 1),
        "the function is called once for each fetch"
    );

    let offered = json!({ "keys": [key.jwk("a")] }).to_string();
    setup.server.respond_with(http("200 OK", "etag: \"ours\"\r\n", &offered));
    accepted(60).await;
    assert!(last().contains("x-caller: none\r\n") && last().contains("if-none-match: \"theirs\"\r\n"), "{}", last());
    accepted(60).await;
    assert_eq!(last().matches("if-none-match: ").count(), 1, "{}", last());
    assert!(last().contains("if-none-match: \"ours\"\r\n"), "{}", last());
    assert!(!format!("{:?}", setup.keys).contains("the-key"));
}

#[tokio::test]
async fn random_kids_cause_one_fetch_in_ten_seconds() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    let good = setup.token("a", &key);
    setup.accepts(&good).await;
    setup.advance(11);
    let mut refused = (0, 0);
    for number in 0..10_000 {
        match setup.verifier.verify(&setup.token(&format!("random {number}"), &key)).await {
            Err(AuthError::Invalid(Refusal::UnknownKey)) => refused.0 += 1,
            Err(AuthError::KeyMayBeNew { .. }) => refused.1 += 1,
            other => panic!("{other:?}"),
        }
        if number % 100 == 0 {
            setup.accepts(&good).await;
        }
    }
    assert_eq!(refused, (1, 9_999));
    assert_eq!(setup.server.fetches(), 2);
}

/// The same token is not rejected with 503 again and again.
#[tokio::test]
async fn a_key_that_was_missing_in_a_later_set_is_unknown_until_a_newer_set_contains_it() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    let token = setup.token("new", &new);
    for seconds_to_next in (1..10).rev() {
        setup.advance(1);
        assert_eq!(setup.may_be_new(&token).await, seconds_to_next);
    }
    for second in 10..60 {
        setup.advance(1);
        setup.rejects(&token, Refusal::UnknownKey).await;
        if second == 25 {
            // Another key of a stranger may still be new. Other tokens with the missing key are rejected, too.
            assert_eq!(setup.may_be_new(&setup.token("strange", &new)).await, 5);
            setup.rejects(&setup.token("new", &old), Refusal::UnknownKey).await;
        }
    }
    assert!((6..=7).contains(&setup.server.fetches()), "one in ten seconds: {}", setup.server.fetches());
    setup.server.respond_with(jwks(&[("new", &new)]));
    setup.advance(10);
    setup.accepts(&token).await;
    // A key that is removed again is unknown at once.
    setup.server.respond_with(jwks(&[("old", &old)]));
    setup.advance(60);
    setup.rejects(&token, Refusal::UnknownKey).await;
    setup.advance(1);
    setup.rejects(&token, Refusal::UnknownKey).await;
}

/// A fetch that had started before may have missed the key.
#[tokio::test]
async fn a_set_whose_fetch_started_before_the_token_arrived_does_not_make_its_key_unknown() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.advance(11);
    setup.server.respond_with(Response::Slow(Duration::from_millis(200), Box::new(jwks(&[("old", &old)]))));
    let (first, second) = (setup.token("first", &new), setup.token("second", &new));
    let during = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        setup.may_be_new(&second).await
    };
    let ((), wait) = futures_util::future::join(setup.rejects(&first, Refusal::UnknownKey), during).await;
    assert_eq!((wait, setup.server.fetches()), (10, 2));
}

#[tokio::test]
async fn a_bounded_number_of_missing_keys_is_remembered() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    setup.accepts(&setup.token("a", &key)).await;
    let invented: Vec<_> = (0..5_000).map(|number| setup.token(&format!("invented {number}"), &key)).collect();
    for token in &invented {
        setup.may_be_new(token).await;
    }
    setup.advance(10);
    setup.keys.refresh().await.unwrap();
    let mut unknown = 0;
    for token in &invented {
        match setup.verifier.verify(token).await {
            Err(AuthError::Invalid(Refusal::UnknownKey)) => unknown += 1,
            Err(AuthError::KeyMayBeNew { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=1_100).contains(&unknown), "{unknown}");
    assert_eq!(setup.server.fetches(), 2);
}

/// Otherwise any garbage would count as a failure of this service while the key server is down.
#[tokio::test]
async fn a_token_that_is_invalid_with_any_key_is_rejected_although_there_are_no_keys() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(Response::Close).await;
    let now = setup.clock.now().unix_seconds();
    let claims = json!({"sub": "ann", "iss": ISSUER, "aud": ISSUER, "exp": now + 60});
    let changed = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        key.token("a", &claims)
    };
    setup.unavailable(&key.token("a", &claims)).await;
    setup.rejects(&changed("iss", json!("https://elsewhere.example")), Refusal::Issuer).await;
    setup.rejects(&changed("sub", json!(7)), Refusal::Subject).await;
    let expired = setup.verifier.verify(&changed("exp", json!(now - 60))).await;
    assert!(matches!(expired, Err(AuthError::Expired)), "{expired:?}");

    // With another source, too, and also if the token was accepted before.
    setup.server.respond_with(jwks(&[("a", &key)]));
    setup.advance(10);
    setup.accepts(&key.token("a", &claims)).await;
    setup.server.respond_with(Response::Close);
    setup.advance(2 * 3600);
    let expired = setup.verifier.verify(&key.token("a", &claims)).await;
    assert!(matches!(expired, Err(AuthError::Expired)), "{expired:?}");
    let other = "https://other.example";
    let verifier = JwtVerifier::builder()
        .clock(setup.clock.clone())
        .source(KeySource::remote(setup.keys.clone()).issuers([ISSUER]).audiences([ISSUER]))
        .source(
            KeySource::jwks(JwkSet::from_json(&json!({"keys": [key.jwk("1")]}).to_string()).unwrap())
                .issuers([other])
                .audiences([other]),
        )
        .build()
        .unwrap();
    let exp = setup.clock.now().unix_seconds() + 60;
    let forged = SigningKey::ed25519().token("1", &json!({"sub": "ann", "iss": other, "aud": other, "exp": exp}));
    let rejected = verifier.verify(&forged).await;
    assert!(matches!(rejected, Err(AuthError::Invalid(Refusal::Signature))), "{rejected:?}");
}

#[tokio::test]
async fn a_failed_fetch_for_an_unknown_key_is_no_failure_while_there_are_keys() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    setup.accepts(&setup.token("a", &key)).await;
    setup.server.respond_with(Response::Close);
    setup.advance(10);
    assert_eq!(setup.may_be_new(&setup.token("b", &key)).await, 10);
    assert_eq!(setup.server.fetches(), 2);
}

#[tokio::test]
async fn a_token_with_invalid_claims_causes_no_fetch() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    setup.accepts(&setup.token("a", &key)).await;
    setup.advance(11);
    let now = setup.clock.now().unix_seconds();
    let foreign = json!({"sub": "ann", "iss": "https://elsewhere.example", "aud": ISSUER, "exp": now + 60});
    setup.rejects(&key.token("b", &foreign), Refusal::Issuer).await;
    let old = json!({"sub": "ann", "iss": ISSUER, "aud": ISSUER, "exp": now - 60});
    assert!(matches!(setup.verifier.verify(&key.token("b", &old)).await, Err(AuthError::Expired)));
    assert_eq!(setup.server.fetches(), 1);
}

#[tokio::test]
async fn a_removed_key_is_rejected_within_a_minute() {
    let (removed, kept) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("removed", &removed), ("kept", &kept)])).await;
    let (token, other) = (setup.token("removed", &removed), setup.token("kept", &kept));
    setup.accepts(&token).await;
    setup.accepts(&other).await;
    setup.server.respond_with(jwks(&[("kept", &kept)]));
    setup.advance(29);
    setup.accepts(&token).await;
    setup.advance(31);
    // First a token that is in the cache, then one that is not.
    setup.rejects(&token, Refusal::UnknownKey).await;
    setup.advance(10);
    setup.rejects(&setup.token("removed", &removed), Refusal::UnknownKey).await;
    setup.accepts(&other).await;
}

#[tokio::test]
async fn a_key_that_was_replaced_under_the_same_kid_is_rejected() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("1", &old)])).await;
    let token = setup.token("1", &old);
    setup.accepts(&token).await;
    setup.server.respond_with(jwks(&[("1", &new)]));
    setup.advance(60);
    setup.rejects(&token, Refusal::Signature).await;
    setup.accepts(&setup.token("1", &new)).await;
}

#[tokio::test]
async fn keys_are_used_for_an_hour_of_outage_and_then_unavailable() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    let token = setup.token("a", &key);
    setup.accepts(&token).await;
    setup.server.respond_with(Response::Close);
    for _ in 0..59 {
        setup.advance(60);
        setup.accepts(&token).await;
        setup.accepts(&setup.token("a", &key)).await;
    }
    setup.advance(60);
    assert!(setup.unavailable(&token).await >= 1);
    // An unknown key may be new.
    assert!(setup.unavailable(&setup.token("b", &key)).await >= 1);
    setup.server.respond_with(jwks(&[("a", &key)]));
    setup.advance(10);
    setup.accepts(&token).await;
}

#[tokio::test]
async fn at_most_one_request_waits_for_a_key_server_that_hangs() {
    let key = SigningKey::ed25519();
    let setup = Setup::with(jwks(&[("a", &key)]), |keys| keys.timeout(Duration::from_millis(300))).await;
    let tokens: Vec<_> = (0..50).map(|_| setup.token("a", &key)).collect();
    setup.accepts(&tokens[0]).await;
    setup.server.respond_with(Response::Hang);
    for seconds in [30, 10, 10, 10, 10, 10] {
        setup.advance(seconds);
        // One request waits for the fetch. The others use the keys that are there.
        let served = Mutex::new(Vec::new());
        let start = Instant::now();
        futures_util::future::join_all(tokens.iter().map(async |token| {
            setup.accepts(token).await;
            served.lock().unwrap().push(start.elapsed());
        }))
        .await;
        let waited = served.lock().unwrap().iter().filter(|time| **time >= Duration::from_millis(250)).count();
        assert!(waited <= 1, "{waited} waited");
    }
    assert_eq!(setup.server.fetches(), 7);
}

#[tokio::test]
async fn a_fetch_goes_on_if_its_first_request_is_dropped() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.advance(11);
    setup.server.respond_with(jwks(&[("new", &new)]));
    // One request starts the fetch and is dropped.
    let dropped = setup.token("dropped", &new);
    assert!(futures_util::FutureExt::now_or_never(setup.verifier.verify(&dropped)).is_none());
    // The next request that needs the keys waits for the same fetch.
    setup.accepts(&setup.token("new", &new)).await;
    assert_eq!(setup.server.fetches(), 2);
}

/// A stranger sends an unknown key id and disconnects while the keys are fetched for it, again and again.
#[tokio::test]
async fn a_removed_key_is_rejected_in_time_although_clients_disconnect_during_fetches() {
    let (removed, kept) = (SigningKey::ed25519(), SigningKey::ed25519());
    let both = [("removed", &removed), ("kept", &kept)];
    for (number, server_is_slow) in [false, true, true].into_iter().enumerate() {
        let setup = Setup::with(jwks(&both), |keys| keys.timeout(Duration::from_millis(200))).await;
        let token = setup.token("removed", &removed);
        setup.accepts(&token).await;
        setup.server.respond_with(jwks(&both[1..]));
        for hang_up in 0..2 {
            setup.advance(11);
            let strange = setup.token(&format!("strange {hang_up}"), &kept);
            let mut request = std::pin::pin!(setup.verifier.verify(&strange));
            if server_is_slow {
                // It disconnects while the key server has the request, or before.
                setup.server.respond_with(Response::Slow(Duration::from_millis(80), Box::new(jwks(&both[1..]))));
                let wait = Duration::from_millis(if number == 1 { 40 } else { 0 });
                assert!(tokio::time::timeout(wait, &mut request).await.is_err());
            } else {
                assert!(futures_util::FutureExt::now_or_never(request.as_mut()).is_none());
            }
            // No request polls the fetch for longer than its time limit.
            tokio::time::sleep(Duration::from_millis(300)).await;
            setup.advance(19);
            setup.keys.refresh().await.unwrap();
        }
        assert_eq!(setup.keys.status().failures, 0);
        setup.advance(10);
        setup.rejects(&token, Refusal::UnknownKey).await;
    }
}

/// By the clock of the keys, the fetch should have ended long ago.
#[tokio::test]
async fn a_fetch_older_than_its_timeout_is_replaced() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.advance(11);
    setup.server.respond_with(Response::Hang);
    let dropped = setup.token("dropped", &new);
    let waited = tokio::time::timeout(Duration::from_millis(100), setup.verifier.verify(&dropped)).await;
    assert!(waited.is_err());
    setup.server.respond_with(jwks(&[("new", &new)]));
    // The timeout is 5 seconds. The pause between two fetches does not apply to a fetch that was lost.
    setup.advance(7);
    setup.accepts(&setup.token("new", &new)).await;
    assert_eq!(setup.server.fetches(), 3);
}

/// A host may have more than one runtime.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_in_another_runtime_does_not_delay_the_next_one() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    for is_shut_down in [true, false] {
        let setup = Setup::with(jwks(&[("old", &old)]), |keys| keys.timeout(Duration::from_millis(200))).await;
        setup.accepts(&setup.token("old", &old)).await;
        setup.advance(11);
        setup.server.respond_with(jwks(&[("new", &new)]));
        let (verifier, dropped) = (setup.verifier.clone(), setup.token("dropped", &new));
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                assert!(futures_util::FutureExt::now_or_never(verifier.verify(&dropped)).is_none());
            });
            // Kept, but not driven.
            (!is_shut_down).then_some(runtime)
        });
        let runtime = other.join().unwrap();
        setup.accepts(&setup.token("new", &new)).await;
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test]
async fn an_empty_set_is_a_valid_response() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[])).await;
    let token = setup.token("a", &key);
    setup.rejects(&token, Refusal::UnknownKey).await;
    assert_eq!(setup.may_be_new(&setup.token("b", &key)).await, 10);
    setup.server.respond_with(jwks(&[("a", &key)]));
    setup.advance(10);
    setup.accepts(&token).await;
    // An empty set also replaces the previous keys.
    setup.server.respond_with(jwks(&[]));
    setup.advance(60);
    assert!(setup.verifier.verify(&token).await.is_err());
}

#[tokio::test]
async fn a_failed_fetch_keeps_the_last_keys() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    let token = setup.token("a", &key);
    setup.accepts(&token).await;
    let huge = format!(r#"{{"keys":[],"padding":"{}"}}"#, "x".repeat(1024 * 1024));
    let Response::Text(elsewhere) = jwks(&[]) else { unreachable!() };
    let elsewhere = KeyServer::start(Response::Text(elsewhere)).await;
    let responses = [
        http("200 OK", "", "<html>"),
        http("200 OK", "", "[]"),
        http("200 OK", "", r#"{"keys":{}}"#),
        http("200 OK", "", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
        http("200 OK", "", &huge),
        http("302 Found", &format!("location: {}\r\n", elsewhere.url()), ""),
        http("404 Not Found", "", ""),
        http("500 Internal Server Error", "", ""),
        Response::Close,
    ];
    for response in responses {
        setup.server.respond_with(response);
        setup.advance(60);
        assert!(setup.keys.refresh().await.is_err());
        setup.accepts(&token).await;
    }
    assert_eq!(elsewhere.fetches(), 0, "redirects are not followed");
}

/// What this thread logs while this runs.
async fn logged(run: impl AsyncFnOnce()) -> String {
    // Otherwise a test without a subscriber could switch the events of this crate off for all threads: tracing asks only
    // the thread that comes across an event first, as long as there is only one subscriber.
    static EVERYWHERE: std::sync::Once = std::sync::Once::new();
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    EVERYWHERE.call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).expect("no other"));
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    run().await;
    drop(guard);
    let log = log.0.lock().unwrap().clone();
    String::from_utf8(log).unwrap()
}

#[tokio::test]
async fn a_failed_fetch_is_logged_with_address_status_and_cause() {
    let not_found = http("404 Not Found", "content-type: text/html\r\n", "<html>");
    let html = http("200 OK", "content-type: text/html; charset=utf-8\r\n", "<!doctype html>");
    let plain = http("200 OK", "", "{}");
    let redirect = |location: &str| http("308 Permanent Redirect", &format!("location: {location}\r\n"), "");
    let elsewhere = "https://user:pw@login.example.com/sign-in?next=secret#fragment";
    let secret_key = http("200 OK", "", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#);
    let cases = [
        (not_found, "the key server responded with status 404"),
        (html, "is not a JWK set; its content type is text/html; charset=utf-8"),
        (plain, "is not a JWK set; its content type is (none)"),
        (secret_key, "contains a secret or private key, which must never be published"),
        (redirect("/api/auth/jwks/"), "status 308, a redirect to http://127.0.0.1:PORT/api/auth/jwks/, which is not"),
        (redirect(elsewhere), "a redirect to https://login.example.com/sign-in, which is not followed"),
        (redirect("http://["), "the key server responded with status 308"),
        (http("200 OK", "", &" ".repeat(1024 * 1024 + 1)), "the key set is larger than 1 MiB"),
        (Response::Close, "the key server cannot be reached: connection closed before message completed"),
        (jwks(&[]), "the key set has no usable key"),
    ];
    for (response, expected) in cases {
        let server = KeyServer::start(response).await;
        let port = server.url().split([':', '/']).nth(4).unwrap().to_owned();
        let url = server.url().replace("http://", "http://user:the-password@") + "?key=the-secret#fragment";
        let keys = RemoteJwks::builder(url).build().unwrap();
        let source = KeySource::remote(keys.clone()).issuers([ISSUER]).audiences([ISSUER]);
        let verifier = JwtVerifier::builder().source(source).build().unwrap();
        let log = logged(async || drop(keys.refresh().await)).await;
        let expected = expected.replace("PORT", &port);
        assert!(log.contains("WARN") && log.contains(&expected), "{expected} not in {log}");
        assert!(log.contains(&format!("url=\"http://127.0.0.1:{port}/api/auth/jwks\"")), "{log}");
        assert!(
            !["the-password", "the-secret", "fragment", "pw@", "next="].iter().any(|part| log.contains(part)),
            "{log}"
        );
        assert_eq!(log.lines().count(), 1, "{log}");
        // The requests that fail because of it name the cause, too.
        if verifier.key_sets().next().unwrap().failures > 0 {
            let claims = json!({"sub": "ann", "iss": ISSUER, "aud": ISSUER, "exp": testkit::tokens::now() + 60});
            let error = verifier.verify(&SigningKey::ed25519().token("a", &claims)).await.unwrap_err();
            let AuthError::Unavailable { source, .. } = error else { panic!("{error:?}") };
            let cause = std::error::Error::source(&*source).unwrap().to_string();
            assert!(source.to_string().contains("/api/auth/jwks") && cause.contains(&expected), "{source}: {cause}");
        }
    }
}

#[tokio::test]
async fn a_key_server_that_cannot_be_reached_is_logged_with_the_innermost_cause_once() {
    for (url, cause) in [
        // Nothing listens there.
        ("http://127.0.0.1:9/jwks", "Connection refused (os error 111)"),
        ("https://name.invalid/jwks", "failed to lookup address information"),
        ("https://127.0.0.1:9/jwks", "Connection refused (os error 111)"),
    ] {
        let keys = RemoteJwks::builder(url).build().unwrap();
        let log = logged(async || drop(keys.refresh().await)).await;
        let expected = format!("the key set cannot be fetched: the key server cannot be reached: {cause}");
        assert!(log.contains(&expected) && log.contains(url), "{log}");
        assert_eq!(log.matches(cause).count(), 1, "{log}");
    }
    // The time limit of a fetch.
    let server = KeyServer::start(Response::Hang).await;
    let keys = RemoteJwks::builder(server.url()).timeout(Duration::from_millis(100)).build().unwrap();
    let log = logged(async || drop(keys.refresh().await)).await;
    assert!(log.contains("the key server cannot be reached: operation timed out"), "{log}");
}

#[test]
fn the_time_of_a_pause_is_that_which_is_left() {
    let paused = FetchError::Paused(Duration::from_millis(9660)).to_string();
    assert_eq!(paused, "the next fetch is allowed in 9.66s");
}

/// A host name that only the proxy knows, and a certificate of an authority that only this key set trusts.
#[tokio::test]
async fn keys_are_fetched_through_a_proxy_from_a_server_with_a_certificate_of_a_private_authority() {
    let key = SigningKey::ed25519();
    let authority = testkit::tls::Authority::new();
    let document = json!({ "keys": [key.jwk("a")] }).to_string();
    let server = authority.serve("auth.corp.invalid", "/api/auth/jwks", &document);
    let proxy = testkit::http_proxy::HttpProxy::before(server.address()).await;
    let root = std::fs::read(authority.certificate()).unwrap();
    let url = "https://auth.corp.invalid/api/auth/jwks";
    let address = format!("http://user:the-password@{}", proxy.address());
    let builder = || RemoteJwks::builder(url).proxy(&address).add_root_certificates(root.clone());
    assert!(!format!("{:?}", builder()).contains("the-password"));

    let keys = builder().build().unwrap();
    let log = logged(async || keys.refresh().await.unwrap()).await;
    assert_eq!(keys.status().keys, 1);
    let expected = format!("url=\"{url}\" proxy=\"http://{}/\" keys=1", proxy.address());
    assert!(log.contains(&expected) && !log.contains("the-password"), "{log}");
    let [head] = &proxy.heads()[..] else { panic!("one tunnel") };
    assert!(head.starts_with("CONNECT auth.corp.invalid:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic "), "{head}");

    // Each of the two is needed.
    let untrusted = RemoteJwks::builder(url).proxy(&address).build().unwrap();
    let error = untrusted.refresh().await.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate: UnknownIssuer"), "{error}");
    let direct = RemoteJwks::builder(url).add_root_certificates(root.clone()).build().unwrap();
    let error = direct.refresh().await.unwrap_err().to_string();
    assert!(error.contains("failed to lookup address information"), "{error}");
    // A certificate for another host.
    let other = RemoteJwks::builder("https://other.corp.invalid/api/auth/jwks").proxy(&address);
    let error = other.add_root_certificates(root).build().unwrap().refresh().await.unwrap_err().to_string();
    assert!(error.contains("not valid for name \"other.corp.invalid\""), "{error}");
}

#[test]
fn a_proxy_and_root_certificates_must_be_valid() {
    let builder = || RemoteJwks::builder("https://a.example/jwks");
    for proxy in ["http://proxy:3128", "https://proxy.example", "http://u:p@proxy:3128/", "proxy:3128", "10.0.0.1:3128"]
    {
        assert!(builder().proxy(proxy).build().is_ok(), "{proxy}");
    }
    for proxy in ["", "http://", "socks5://proxy:1080", "ftp://proxy", "http://pro xy"] {
        assert_eq!(builder().proxy(proxy).build().err(), Some(InvalidSource::Proxy), "{proxy}");
    }
    for pem in ["", "a certificate", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"] {
        assert_eq!(builder().add_root_certificates(pem).build().err(), Some(InvalidSource::RootCertificates), "{pem}");
    }
}

#[tokio::test]
async fn retry_after_of_the_key_server_is_honoured() {
    let key = SigningKey::ed25519();
    for header in ["x-retry-after", "Retry-After"] {
        let setup = Setup::new(http("429 Too Many Requests", &format!("{header}: 45\r\n"), "{}")).await;
        let token = setup.token("a", &key);
        assert_eq!(setup.unavailable(&token).await, 45);
        setup.server.respond_with(jwks(&[("a", &key)]));
        setup.advance(44);
        assert_eq!(setup.unavailable(&token).await, 1);
        assert_eq!(setup.server.fetches(), 1);
        setup.advance(1);
        setup.accepts(&token).await;
    }
    // The wait is limited to 5 minutes.
    let setup = Setup::new(http("429 Too Many Requests", "retry-after: 86400\r\n", "")).await;
    assert_eq!(setup.unavailable(&setup.token("a", &key)).await, 300);
}

#[tokio::test]
async fn requests_are_conditional_if_the_key_server_supports_it() {
    let key = SigningKey::ed25519();
    let body = json!({"keys": [key.jwk("a")]}).to_string();
    let setup =
        Setup::new(http("200 OK", "etag: \"v1\"\r\nlast-modified: Sat, 21 Nov 2026 06:00:00 GMT\r\n", &body)).await;
    let token = setup.token("a", &key);
    setup.accepts(&token).await;
    assert!(!setup.server.0.last_request.lock().unwrap().contains("if-none-match"));
    setup.server.respond_with(http("304 Not Modified", "", ""));
    for _ in 0..3 {
        setup.advance(60);
        setup.accepts(&token).await;
        let request = setup.server.0.last_request.lock().unwrap().to_lowercase();
        assert!(
            request.contains("if-none-match: \"v1\"") && request.contains("if-modified-since: sat, 21"),
            "{request}"
        );
    }
    assert_eq!(setup.server.fetches(), 4);
}

#[tokio::test]
async fn keys_of_issuers_with_the_same_kid_are_not_mixed_up() {
    let (ours, theirs) = (SigningKey::ed25519(), SigningKey::ed25519());
    let servers = [KeyServer::start(jwks(&[("1", &ours)])).await, KeyServer::start(jwks(&[("1", &theirs)])).await];
    let other = "https://other.example.com";
    let mut builder = JwtVerifier::builder();
    for (server, issuer) in servers.iter().zip([ISSUER, other]) {
        let keys = RemoteJwks::builder(server.url()).build().unwrap();
        builder = builder.source(KeySource::remote(keys).issuers([issuer]).audiences([issuer]));
    }
    let verifier = builder.build().unwrap();
    let token = |key: &SigningKey, issuer| {
        key.token("1", &json!({"sub": "ann", "iss": issuer, "aud": issuer, "exp": testkit::tokens::now() + 60}))
    };
    assert!(verifier.verify(&token(&ours, ISSUER)).await.is_ok());
    assert!(verifier.verify(&token(&theirs, other)).await.is_ok());
    assert!(verifier.verify(&token(&theirs, ISSUER)).await.is_err());
    assert!(verifier.verify(&token(&ours, other)).await.is_err());
}

#[tokio::test]
async fn the_refresh_task_runs_until_its_handle_is_dropped() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let server = KeyServer::start(jwks(&[("old", &old)])).await;
    let keys = RemoteJwks::builder(server.url())
        .max_age(Duration::from_millis(300))
        .pause(Duration::from_millis(10))
        .build()
        .unwrap();
    let task = keys.spawn_refresh();
    wait_for(|| server.fetches() >= 3).await;
    server.respond_with(jwks(&[("new", &new)]));
    let seen = server.fetches();
    wait_for(|| server.fetches() > seen).await;
    drop(task);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let seen = server.fetches();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(server.fetches(), seen);
}

async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition did not become true");
}

#[tokio::test]
async fn a_host_can_refresh_the_keys() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    setup.keys.refresh().await.unwrap();
    assert!(matches!(setup.keys.refresh().await, Err(FetchError::Paused(wait)) if wait == Duration::from_secs(10)));
    setup.accepts(&setup.token("a", &key)).await;
    assert_eq!(setup.server.fetches(), 1);
}

#[tokio::test]
async fn the_keys_are_fetched_if_the_clock_goes_backwards() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("a", &old)])).await;
    let token = setup.token("a", &old);
    setup.accepts(&token).await;
    setup.server.respond_with(jwks(&[("b", &new)]));
    setup.clock.set(setup.clock.now().minus(Duration::from_hours(24)));
    setup.rejects(&token, Refusal::UnknownKey).await;
    setup.accepts(&setup.token("b", &new)).await;
}

#[test]
fn http_to_another_machine_must_be_allowed() {
    let build = |url: &str| RemoteJwks::builder(url).build().map(|_| ());
    for good in ["https://a.example/jwks", "http://localhost:3000/x", "http://127.0.0.1/x", "http://[::1]:3000/x"] {
        assert_eq!(build(good), Ok(()), "{good}");
    }
    for wrong in [
        "http://a.example/jwks",
        "http://localhost.example/",
        "http://10.0.0.1/",
        "ftp://localhost/",
        "file:///x",
        "jwks",
        "",
    ] {
        assert_eq!(build(wrong), Err(InvalidSource::Url), "{wrong}");
    }
    assert!(RemoteJwks::builder("http://auth.internal:3000/jwks").allow_insecure_http().build().is_ok());
    assert!(matches!(JwtVerifier::better_auth("http://a.example"), Err(InvalidSource::Url)));
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    // The environment is set at the start of a process, so this test starts its program again. The proxy does not
    // exist.
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = again.args(["--exact", "only_the_first_token_causes_a_fetch"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[tokio::test]
async fn the_status_contains_age_and_fetches() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(http("500 Internal Server Error", "", "")).await;
    let status = || setup.verifier.key_sets().next().unwrap();
    let seen = |status: todo_core::auth::JwksStatus| {
        (status.age.map(|age| age.as_secs()), status.usable, status.keys, status.fetches, status.failures)
    };
    assert_eq!(seen(status()), (None, false, 0, 0, 0));
    setup.keys.refresh().await.unwrap_err();
    assert_eq!(seen(status()), (None, false, 0, 1, 1));
    setup.advance(10);
    setup.server.respond_with(jwks(&[("1", &key)]));
    setup.keys.refresh().await.unwrap();
    setup.advance(20);
    assert_eq!(seen(status()), (Some(20), true, 1, 2, 1));
    setup.server.respond_with(Response::Close);
    setup.keys.refresh().await.unwrap_err();
    assert_eq!(seen(status()), (Some(20), true, 1, 3, 2));
    setup.advance(3600);
    assert_eq!(seen(status()), (Some(3620), false, 1, 3, 2), "the keys are too old");
}

#[tokio::test]
async fn a_verifier_is_ready_if_it_has_keys_or_can_fetch_them() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(Response::Close).await;
    let unavailable = |ready: Result<(), AuthError>| matches!(ready, Err(AuthError::Unavailable { .. }));
    assert!(unavailable(setup.verifier.ready().await), "never fetched");
    setup.server.respond_with(jwks(&[("1", &key)]));
    setup.advance(10);
    setup.verifier.ready().await.unwrap();
    assert_eq!(setup.server.fetches(), 2);
    // A probe does not cause a fetch while there are usable keys.
    setup.advance(50 * 60);
    setup.server.respond_with(Response::Close);
    setup.verifier.ready().await.unwrap();
    assert_eq!(setup.server.fetches(), 2);
    setup.advance(11 * 60);
    assert!(unavailable(setup.verifier.ready().await), "the keys are too old");
    let secret = KeySource::secrets(["a secret of thirty-two bytes or more"]).unwrap();
    let remote = KeySource::remote(setup.keys.clone()).issuers([ISSUER]).audiences([ISSUER]);
    JwtVerifier::builder().source(remote).source(secret).build().unwrap().ready().await.unwrap();
}
