//! When the server fetches its key set, and what it sends then.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use serde_json::Value;
use testkit::{
    http::{Client, Server as KeyServer},
    tokens::SigningKey,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    Framework,
    program::{Server, Setup},
};

/// A server that fetches its key set, the key server, and the key.
pub(crate) struct WithKeyServer {
    pub(crate) server: Server,
    key_server: KeyServer,
    key: SigningKey,
    /// The heads of the requests to the key server.
    heads: Arc<Mutex<Vec<String>>>,
}

impl WithKeyServer {
    /// Starts both, the server with the other settings of `setup`.
    pub(crate) async fn serve(setup: Setup) -> Self {
        let key = SigningKey::ed25519();
        let document = serde_json::json!({ "keys": [key.jwk("1")] }).to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let received = heads.clone();
        let key_server = KeyServer::start(async move |listener: TcpListener| {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && connection.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
                received.lock().expect("no panic").push(String::from_utf8(head).expect("text"));
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", document.len());
                let _ = connection.write_all(format!("{head}{document}").as_bytes()).await;
            }
        })
        .await;
        let origin = format!("http://{}", key_server.address());
        let server = setup.set("PORT", "0").set("BETTER_AUTH_URL", &origin).serve(&[]);
        // The server starts the first fetch when it starts to listen.
        while heads.lock().expect("no panic").is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        Self { server, key_server, key, heads }
    }

    /// A token with this key id.
    pub(crate) fn token(&self, kid: &str) -> String {
        let origin = format!("http://{}", self.key_server.address());
        let mut claims = testkit::tokens::claims("the-user");
        claims["iss"] = origin.clone().into();
        claims["aud"] = origin.into();
        self.key.token(kid, &claims)
    }

    /// The value of this header in each fetch.
    pub(crate) fn header(&self, name: &str) -> Vec<Option<String>> {
        let value_in = |head: &String| {
            let mut values = head.lines().filter_map(|line| line.split_once(": ").filter(|(own, _)| *own == name));
            let value = values.next().map(|(_, value)| value.to_owned());
            assert!(values.next().is_none(), "{head}");
            value
        };
        self.heads.lock().expect("no panic").iter().map(value_in).collect()
    }

    /// Sends tokens with an unknown key id, each in another trace, until one of them causes a fetch. Returns the trace
    /// of that request.
    pub(crate) async fn fetch_for_a_request(&self) -> String {
        let token = self.token("unheard of");
        for number in 1_u128..1000 {
            let trace = format!("{:032x}", number << 64 | 0xabc);
            let request = Request::get("/api/tasks")
                .header(AUTHORIZATION, format!("Bearer {token}"))
                .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
                .header("tracestate", "vendor=a-state")
                .body(Bytes::new());
            let response = Client::new(self.server.address).send(request.expect("a request")).await;
            // 503 until then: the key may be a new one, and the minimum interval between two fetches is not over.
            if response.status() == 401 {
                return trace;
            }
            assert_eq!(response.status(), 503);
            sleep(Duration::from_millis(100)).await;
        }
        panic!("the key set is not fetched again");
    }
}

/// The trace id, span id and flags of a `traceparent`.
pub(crate) fn parts(parent: Option<&String>) -> [&str; 3] {
    let parts: Vec<_> = parent.expect("a parent").split('-').collect();
    let ["00", trace, span, flags] = *parts else { panic!("{parts:?}") };
    let is_id = |id: &str, length| {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        id.len() == length && id.bytes().all(is_digit) && id.bytes().any(|byte| byte != b'0')
    };
    assert!(is_id(trace, 32) && is_id(span, 16), "{parts:?}");
    [trace, span, flags]
}

pub(crate) async fn a_fetch_of_keys_is_in_the_trace_of_the_request_that_needs_it(framework: Framework) {
    let fetching = WithKeyServer::serve(Setup::new(framework).set("LOG_FORMAT", "json")).await;
    let trace = fetching.fetch_for_a_request().await;
    let (parents, states) = (fetching.header("traceparent"), fetching.header("tracestate"));
    assert_eq!(parents.len(), 2, "{parents:?}");
    // The first fetch is in a trace of its own, which is not recorded.
    let [own, span, flags] = parts(parents[0].as_ref());
    assert_eq!((flags, &states[0]), ("00", &None));
    let [of_request, other_span, flags] = parts(parents[1].as_ref());
    assert_eq!((of_request, flags, states[1].as_deref()), (&*trace, "01", Some("vendor=a-state")));
    assert!(own != of_request && span != other_span && other_span != "b7ad6b7169203331", "{parents:?}");
    assert_eq!(fetching.header("authorization"), [None, None]);

    let log = fetching.server.stop().1;
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let responses: Vec<_> = lines.filter(|line| line["code"] == "token_invalid").collect();
    assert_eq!(responses.len(), 1, "{log}");
    assert_eq!(responses[0]["spans"][0]["trace_id"], *trace);
}

/// Otherwise the keys of that fetch would never arrive, and the next fetch would fail in its place.
#[tokio::test]
async fn a_client_that_disconnects_does_not_keep_a_removed_key_valid() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::ed25519());
    let document = |kid: &str, key: &SigningKey| serde_json::json!({ "keys": [key.jwk(kid)] }).to_string();
    let key_set = Arc::new(Mutex::new((document("old", &old), 0)));
    let state = key_set.clone();
    let key_server = KeyServer::start(async move |listener: TcpListener| {
        while let Ok((mut connection, _)) = listener.accept().await {
            let state = state.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && connection.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
                let document = {
                    let mut state = state.lock().expect("no panic");
                    state.1 += 1;
                    state.0.clone()
                };
                sleep(Duration::from_millis(200)).await;
                let length = document.len();
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                let _ = connection.write_all(format!("{head}{document}").as_bytes()).await;
            });
        }
    })
    .await;
    let fetches = || key_set.lock().expect("no panic").1;
    let origin = format!("http://{}", key_server.address());
    let server = Setup::new(Framework::ANY).set("PORT", "0").set("BETTER_AUTH_URL", &origin).serve(&[]);
    let token = |kid: &str, key: &SigningKey| {
        let mut claims = testkit::tokens::claims("ann");
        claims["iss"] = origin.clone().into();
        claims["aud"] = origin.clone().into();
        key.token(kid, &claims)
    };
    let status = async |token: &str| {
        let request = Request::get("/api/tasks").header(AUTHORIZATION, format!("Bearer {token}")).body(Bytes::new());
        Client::new(server.address).send(request.expect("a request")).await.status().as_u16()
    };
    let of_old = token("old", &old);
    assert_eq!(status(&of_old).await, 200);
    assert_eq!(fetches(), 1);

    // Unknown key ids, until one of them causes a fetch. That client disconnects before the key server responds.
    let strange =
        format!("GET /api/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", token("strange", &new));
    let deadline = Instant::now() + Duration::from_secs(20);
    while fetches() == 1 {
        assert!(Instant::now() < deadline, "the key set is not fetched again");
        let mut connection = TcpStream::connect(server.address).await.expect("a connection");
        connection.write_all(strange.as_bytes()).await.expect("a connection");
        // A 503, or nothing yet.
        let _ = timeout(Duration::from_millis(100), connection.read_u8()).await;
    }
    sleep(Duration::from_millis(500)).await;
    key_set.lock().expect("no panic").0 = document("new", &new);
    // The next fetch is allowed ten seconds after the last one.
    sleep(Duration::from_millis(9700)).await;
    assert_eq!(status(&token("new", &new)).await, 200);
    // It may be a new key, and the keys may not be fetched again yet.
    assert_eq!(status(&of_old).await, 503);
    assert_eq!(fetches(), 3);
}
