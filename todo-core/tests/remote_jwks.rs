//! Key sets that are fetched, from a real HTTP server that misbehaves in every way.

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
        AuthError, Authenticator as _, FetchError, InvalidSource, JwtVerifier, KeySource, Refusal, RemoteJwks,
        RemoteJwksBuilder,
    },
    clock::{Clock as _, FixedClock, Timestamp},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ISSUER: &str = "https://app.example.com";

/// A key server: how often it was asked, and what it answers.
#[derive(Clone)]
struct KeyServer(Arc<State>);

struct State {
    fetches: AtomicUsize,
    last_request: Mutex<String>,
    answer: Mutex<Answer>,
    server: Mutex<Option<Server>>,
}

#[derive(Clone)]
enum Answer {
    Text(String),
    Hang,
    Close,
}

fn http(status: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Text(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"))
}

fn jwks(keys: &[(&str, &SigningKey)]) -> Answer {
    let keys: Vec<Value> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
    http("200 OK", "content-type: application/json\r\n", &json!({ "keys": keys }).to_string())
}

impl KeyServer {
    async fn start(answer: Answer) -> Self {
        let own = Self(Arc::new(State {
            fetches: AtomicUsize::new(0),
            last_request: Mutex::default(),
            answer: Mutex::new(answer),
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
                    let answer = state.answer.lock().unwrap().clone();
                    match answer {
                        Answer::Text(text) => drop(connection.write_all(text.as_bytes()).await),
                        Answer::Hang => std::future::pending().await,
                        Answer::Close => {}
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

    fn answer(&self, answer: Answer) {
        *self.0.answer.lock().unwrap() = answer;
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
    async fn new(answer: Answer) -> Self {
        Self::with(answer, |builder| builder).await
    }

    async fn with(answer: Answer, settings: impl FnOnce(RemoteJwksBuilder) -> RemoteJwksBuilder) -> Self {
        let server = KeyServer::start(answer).await;
        let clock = Arc::new(FixedClock::at(Timestamp::from_unix_seconds(1_763_712_000)));
        let keys = settings(RemoteJwks::builder(server.url()).clock(clock.clone())).build().unwrap();
        let source = KeySource::remote(keys.clone()).issuers([ISSUER]).audiences([ISSUER]);
        let verifier = JwtVerifier::builder().source(source).clock(clock.clone()).build().unwrap();
        Self { server, clock, keys, verifier }
    }

    fn advance(&self, seconds: u64) {
        self.clock.set(self.clock.now().plus(Duration::from_secs(seconds)));
    }

    /// A token that is good for a day.
    fn token(&self, kid: &str, key: &SigningKey) -> String {
        let exp = self.clock.now().unix_seconds() + 86_400;
        key.token(kid, &json!({"sub": "ann", "iss": ISSUER, "aud": ISSUER, "exp": exp}))
    }

    async fn accepts(&self, token: &str) {
        assert_eq!(self.verifier.verify(token).await.unwrap().user_id.as_str(), "ann");
    }

    async fn refuses(&self, token: &str, refusal: Refusal) {
        match self.verifier.verify(token).await {
            Err(AuthError::Invalid(reason)) => assert_eq!(reason, refusal),
            other => panic!("{other:?}"),
        }
    }

    /// After how many seconds to come back.
    async fn unavailable(&self, token: &str) -> u64 {
        match self.verifier.verify(token).await {
            Err(AuthError::Unavailable { retry_after, .. }) => retry_after.as_secs(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_first_token_fetches_the_set_and_others_do_not() {
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
async fn a_start_does_not_need_the_key_server() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(Answer::Close).await;
    let token = setup.token("a", &key);
    assert_eq!(setup.unavailable(&token).await, 10);
    setup.server.answer(jwks(&[("a", &key)]));
    setup.advance(4);
    assert_eq!(setup.unavailable(&token).await, 6, "not asked again so soon");
    assert_eq!(setup.server.fetches(), 1);
    setup.advance(6);
    setup.accepts(&token).await;
}

#[tokio::test]
async fn a_new_key_counts_at_once() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::es256());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.advance(11);
    setup.server.answer(jwks(&[("old", &old), ("new", &new)]));
    setup.accepts(&setup.token("new", &new)).await;
    setup.accepts(&setup.token("old", &old)).await;
    assert_eq!(setup.server.fetches(), 2);
}

#[tokio::test]
async fn a_new_key_within_the_pause_is_not_called_invalid() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.server.answer(jwks(&[("new", &new)]));
    setup.advance(3);
    let token = setup.token("new", &new);
    assert_eq!(setup.unavailable(&token).await, 7);
    setup.advance(7);
    setup.accepts(&token).await;
    setup.advance(10);
    setup.refuses(&setup.token("unheard of", &new), Refusal::UnknownKey).await;
}

#[tokio::test]
async fn all_who_wait_share_one_fetch() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.advance(11);
    setup.server.answer(jwks(&[("new", &new)]));
    let tokens: Vec<_> = (0..100).map(|_| setup.token("new", &new)).collect();
    futures_util::future::join_all(tokens.iter().map(|token| setup.accepts(token))).await;
    assert_eq!(setup.server.fetches(), 2);
}

#[tokio::test]
async fn the_host_adds_headers_to_each_fetch_as_they_are_then() {
    tokio::task_local! { static CALLER: &'static str; }
    let key = SigningKey::ed25519();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let keys: Arc<Mutex<Option<RemoteJwks>>> = Arc::default();
    let own = keys.clone();
    let setup = Setup::with(jwks(&[("a", &key)]), move |builder| {
        builder.headers(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            // A host may look at the set meanwhile.
            assert!(own.lock().unwrap().as_ref().is_none_or(|keys| keys.status().keys <= 1));
            let caller = CALLER.try_with(|caller| *caller).unwrap_or("nobody");
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
    assert_eq!((asked.load(Ordering::SeqCst), setup.server.fetches()), (1, 1), "only for a fetch");

    let offered = json!({ "keys": [key.jwk("a")] }).to_string();
    setup.server.answer(http("200 OK", "etag: \"ours\"\r\n", &offered));
    accepted(60).await;
    assert!(last().contains("x-caller: nobody\r\n") && last().contains("if-none-match: \"theirs\"\r\n"), "{}", last());
    accepted(60).await;
    assert_eq!(last().matches("if-none-match: ").count(), 1, "{}", last());
    assert!(last().contains("if-none-match: \"ours\"\r\n"), "{}", last());
    assert!(!format!("{:?}", setup.keys).contains("the-key"));
}

#[tokio::test]
async fn random_kids_cause_one_fetch_in_ten_seconds_and_disturb_nobody() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    let good = setup.token("a", &key);
    setup.accepts(&good).await;
    setup.advance(11);
    let mut refused = (0, 0);
    for number in 0..10_000 {
        match setup.verifier.verify(&setup.token(&format!("random {number}"), &key)).await {
            Err(AuthError::Invalid(Refusal::UnknownKey)) => refused.0 += 1,
            Err(AuthError::Unavailable { .. }) => refused.1 += 1,
            other => panic!("{other:?}"),
        }
        if number % 100 == 0 {
            setup.accepts(&good).await;
        }
    }
    assert_eq!(refused, (1, 9_999));
    assert_eq!(setup.server.fetches(), 2);
}

#[tokio::test]
async fn a_fetch_is_not_spent_on_a_token_that_no_key_makes_good() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    setup.accepts(&setup.token("a", &key)).await;
    setup.advance(11);
    let now = setup.clock.now().unix_seconds();
    let foreign = json!({"sub": "ann", "iss": "https://elsewhere.example", "aud": ISSUER, "exp": now + 60});
    setup.refuses(&key.token("b", &foreign), Refusal::Issuer).await;
    let old = json!({"sub": "ann", "iss": ISSUER, "aud": ISSUER, "exp": now - 60});
    assert!(matches!(setup.verifier.verify(&key.token("b", &old)).await, Err(AuthError::Expired)));
    assert_eq!(setup.server.fetches(), 1);
}

#[tokio::test]
async fn a_removed_key_stops_counting_within_a_minute() {
    let (removed, kept) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("removed", &removed), ("kept", &kept)])).await;
    let (token, other) = (setup.token("removed", &removed), setup.token("kept", &kept));
    setup.accepts(&token).await;
    setup.accepts(&other).await;
    setup.server.answer(jwks(&[("kept", &kept)]));
    setup.advance(29);
    setup.accepts(&token).await;
    setup.advance(31);
    // The very token that was remembered as good, and one that was not.
    setup.refuses(&token, Refusal::UnknownKey).await;
    setup.advance(10);
    setup.refuses(&setup.token("removed", &removed), Refusal::UnknownKey).await;
    setup.accepts(&other).await;
}

#[tokio::test]
async fn a_key_that_was_replaced_under_its_name_does_not_count() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("1", &old)])).await;
    let token = setup.token("1", &old);
    setup.accepts(&token).await;
    setup.server.answer(jwks(&[("1", &new)]));
    setup.advance(60);
    setup.refuses(&token, Refusal::Signature).await;
    setup.accepts(&setup.token("1", &new)).await;
}

#[tokio::test]
async fn an_outage_is_survived_for_an_hour_and_is_no_401_after() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    let token = setup.token("a", &key);
    setup.accepts(&token).await;
    setup.server.answer(Answer::Close);
    for _ in 0..59 {
        setup.advance(60);
        setup.accepts(&token).await;
        setup.accepts(&setup.token("a", &key)).await;
    }
    setup.advance(60);
    assert!(setup.unavailable(&token).await >= 1);
    // An unknown key may be a new one.
    assert!(setup.unavailable(&setup.token("b", &key)).await >= 1);
    setup.server.answer(jwks(&[("a", &key)]));
    setup.advance(10);
    setup.accepts(&token).await;
}

#[tokio::test]
async fn a_key_server_that_hangs_makes_nobody_wait_twice() {
    let key = SigningKey::ed25519();
    let setup = Setup::with(jwks(&[("a", &key)]), |keys| keys.timeout(Duration::from_millis(300))).await;
    let tokens: Vec<_> = (0..50).map(|_| setup.token("a", &key)).collect();
    setup.accepts(&tokens[0]).await;
    setup.server.answer(Answer::Hang);
    for seconds in [30, 10, 10, 10, 10, 10] {
        setup.advance(seconds);
        // One of them waits for the fetch; the others are served meanwhile.
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
async fn a_caller_who_goes_away_does_not_end_the_fetch() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("old", &old)])).await;
    setup.accepts(&setup.token("old", &old)).await;
    setup.advance(11);
    setup.server.answer(jwks(&[("new", &new)]));
    // A stranger starts the fetch, and hangs up before the answer.
    let stranger = setup.token("stranger", &new);
    assert!(futures_util::FutureExt::now_or_never(setup.verifier.verify(&stranger)).is_none());
    // It goes on with whoever needs it next.
    setup.accepts(&setup.token("new", &new)).await;
    assert_eq!(setup.server.fetches(), 2);
}

#[tokio::test]
async fn an_empty_set_is_an_answer() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[])).await;
    let token = setup.token("a", &key);
    setup.refuses(&token, Refusal::UnknownKey).await;
    assert_eq!(setup.unavailable(&token).await, 10, "a newer key may exist by now");
    setup.server.answer(jwks(&[("a", &key)]));
    setup.advance(10);
    setup.accepts(&token).await;
    // It replaces what was there, as any set does.
    setup.server.answer(jwks(&[]));
    setup.advance(60);
    assert!(setup.verifier.verify(&token).await.is_err());
}

#[tokio::test]
async fn what_is_no_key_set_leaves_the_last_good_one() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    let token = setup.token("a", &key);
    setup.accepts(&token).await;
    let huge = format!(r#"{{"keys":[],"padding":"{}"}}"#, "x".repeat(1024 * 1024));
    let Answer::Text(elsewhere) = jwks(&[]) else { unreachable!() };
    let elsewhere = KeyServer::start(Answer::Text(elsewhere)).await;
    let answers = [
        http("200 OK", "", "<html>"),
        http("200 OK", "", "[]"),
        http("200 OK", "", r#"{"keys":{}}"#),
        http("200 OK", "", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
        http("200 OK", "", &huge),
        http("302 Found", &format!("location: {}\r\n", elsewhere.url()), ""),
        http("404 Not Found", "", ""),
        http("500 Internal Server Error", "", ""),
        Answer::Close,
    ];
    for answer in answers {
        setup.server.answer(answer);
        setup.advance(60);
        assert!(setup.keys.refresh().await.is_err());
        setup.accepts(&token).await;
    }
    assert_eq!(elsewhere.fetches(), 0, "redirects are not followed");
}

#[tokio::test]
async fn a_key_server_that_is_overrun_is_left_alone_as_long_as_it_asks() {
    let key = SigningKey::ed25519();
    for header in ["x-retry-after", "Retry-After"] {
        let setup = Setup::new(http("429 Too Many Requests", &format!("{header}: 45\r\n"), "{}")).await;
        let token = setup.token("a", &key);
        assert_eq!(setup.unavailable(&token).await, 45);
        setup.server.answer(jwks(&[("a", &key)]));
        setup.advance(44);
        assert_eq!(setup.unavailable(&token).await, 1);
        assert_eq!(setup.server.fetches(), 1);
        setup.advance(1);
        setup.accepts(&token).await;
    }
    // But not for ever.
    let setup = Setup::new(http("429 Too Many Requests", "retry-after: 86400\r\n", "")).await;
    assert_eq!(setup.unavailable(&setup.token("a", &key)).await, 300);
}

#[tokio::test]
async fn conditional_requests_are_used_where_they_are_offered() {
    let key = SigningKey::ed25519();
    let body = json!({"keys": [key.jwk("a")]}).to_string();
    let setup =
        Setup::new(http("200 OK", "etag: \"v1\"\r\nlast-modified: Sat, 21 Nov 2026 06:00:00 GMT\r\n", &body)).await;
    let token = setup.token("a", &key);
    setup.accepts(&token).await;
    assert!(!setup.server.0.last_request.lock().unwrap().contains("if-none-match"));
    setup.server.answer(http("304 Not Modified", "", ""));
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
async fn issuers_with_the_same_kid_are_not_mixed_up() {
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
async fn a_task_keeps_the_set_up_to_date_until_its_handle_is_dropped() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let server = KeyServer::start(jwks(&[("old", &old)])).await;
    let keys = RemoteJwks::builder(server.url())
        .max_age(Duration::from_millis(300))
        .pause(Duration::from_millis(10))
        .build()
        .unwrap();
    let task = keys.spawn_refresh();
    wait_for(|| server.fetches() >= 3).await;
    server.answer(jwks(&[("new", &new)]));
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
    panic!("it did not happen");
}

#[tokio::test]
async fn a_host_may_drive_the_refresh() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(jwks(&[("a", &key)])).await;
    setup.keys.refresh().await.unwrap();
    assert!(matches!(setup.keys.refresh().await, Err(FetchError::Paused(wait)) if wait == Duration::from_secs(10)));
    setup.accepts(&setup.token("a", &key)).await;
    assert_eq!(setup.server.fetches(), 1);
}

#[tokio::test]
async fn a_clock_that_goes_backwards_does_not_keep_an_old_set() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let setup = Setup::new(jwks(&[("a", &old)])).await;
    let token = setup.token("a", &old);
    setup.accepts(&token).await;
    setup.server.answer(jwks(&[("b", &new)]));
    setup.clock.set(setup.clock.now().minus(Duration::from_hours(24)));
    setup.refuses(&token, Refusal::UnknownKey).await;
    setup.accepts(&setup.token("b", &new)).await;
}

#[test]
fn keys_come_over_https_or_from_this_machine() {
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
}

#[test]
fn a_proxy_of_the_environment_is_not_asked_for_keys() {
    // The environment of a process is given to it at its start, so this program runs once more. Nobody listens there.
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = again.args(["--exact", "the_first_token_fetches_the_set_and_others_do_not"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[tokio::test]
async fn the_status_tells_how_old_the_set_is_and_how_often_it_was_fetched() {
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
    setup.server.answer(jwks(&[("1", &key)]));
    setup.keys.refresh().await.unwrap();
    setup.advance(20);
    assert_eq!(seen(status()), (Some(20), true, 1, 2, 1));
    setup.server.answer(Answer::Close);
    setup.keys.refresh().await.unwrap_err();
    assert_eq!(seen(status()), (Some(20), true, 1, 3, 2));
    setup.advance(3600);
    assert_eq!(seen(status()), (Some(3620), false, 1, 3, 2), "too old to count");
}

#[tokio::test]
async fn a_verifier_is_ready_while_it_has_a_usable_set_and_fetches_the_first_itself() {
    let key = SigningKey::ed25519();
    let setup = Setup::new(Answer::Close).await;
    let unavailable = |ready: Result<(), AuthError>| matches!(ready, Err(AuthError::Unavailable { .. }));
    assert!(unavailable(setup.verifier.ready().await), "never fetched");
    setup.server.answer(jwks(&[("1", &key)]));
    setup.advance(10);
    setup.verifier.ready().await.unwrap();
    assert_eq!(setup.server.fetches(), 2);
    // It is no reason for a fetch that somebody probes.
    setup.advance(50 * 60);
    setup.server.answer(Answer::Close);
    setup.verifier.ready().await.unwrap();
    assert_eq!(setup.server.fetches(), 2);
    setup.advance(11 * 60);
    assert!(unavailable(setup.verifier.ready().await), "too old to count");
    let secret = KeySource::secrets(["a secret of thirty-two bytes or more"]).unwrap();
    let remote = KeySource::remote(setup.keys.clone()).issuers([ISSUER]).audiences([ISSUER]);
    JwtVerifier::builder().source(remote).source(secret).build().unwrap().ready().await.unwrap();
}
