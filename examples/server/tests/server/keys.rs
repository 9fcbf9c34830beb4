//! What a key server sees of us.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
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
    net::TcpListener,
    time::sleep,
};

use crate::program::{Place, Server};

/// A server that fetches its keys, and who signs with one of them.
pub(crate) struct Fetched {
    pub(crate) server: Server,
    key_server: KeyServer,
    key: SigningKey,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Fetched {
    /// The place says the rest.
    pub(crate) async fn serve(place: Place) -> Self {
        let key = SigningKey::ed25519();
        let document = serde_json::json!({ "keys": [key.jwk("1")] }).to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let key_server = KeyServer::start(async move |listener: TcpListener| {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && connection.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
                seen.lock().expect("no panic").push(String::from_utf8(head).expect("text"));
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", document.len());
                let _ = connection.write_all(format!("{head}{document}").as_bytes()).await;
            }
        })
        .await;
        let origin = format!("http://{}", key_server.address());
        let server = place.set("PORT", "0").set("BETTER_AUTH_URL", &origin).serve(&[]);
        // The first fetch is the server's own. It begins when it listens, and so may we.
        while heads.lock().expect("no panic").is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        Self { server, key_server, key, heads }
    }

    /// A token that names this key.
    pub(crate) fn token(&self, kid: &str) -> String {
        let origin = format!("http://{}", self.key_server.address());
        let mut claims = testkit::tokens::claims("the-user");
        claims["iss"] = origin.clone().into();
        claims["aud"] = origin.into();
        self.key.token(kid, &claims)
    }

    /// What each fetch said under this name.
    pub(crate) fn told(&self, name: &str) -> Vec<Option<String>> {
        let of = |head: &String| {
            let mut values = head.lines().filter_map(|line| line.split_once(": ").filter(|(own, _)| *own == name));
            let value = values.next().map(|(_, value)| value.to_owned());
            assert!(values.next().is_none(), "{head}");
            value
        };
        self.heads.lock().expect("no panic").iter().map(of).collect()
    }

    /// Asks with an unknown key, each time in another trace, until the keys were fetched for that. Answers the trace
    /// in which they were.
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
            // Before it is 503: a key that is not known may be a new one, and the pause between two fetches is not over.
            if response.status() == 401 {
                return trace;
            }
            assert_eq!(response.status(), 503);
            sleep(Duration::from_millis(100)).await;
        }
        panic!("the keys are not fetched again");
    }
}

/// Trace and part of a `traceparent`, and whether it is recorded.
pub(crate) fn parts(parent: Option<&String>) -> [&str; 3] {
    let parts: Vec<_> = parent.expect("a parent").split('-').collect();
    let ["00", trace, part, flags] = *parts else { panic!("{parts:?}") };
    let is_name = |name: &str, length| {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        name.len() == length && name.bytes().all(is_digit) && name.bytes().any(|byte| byte != b'0')
    };
    assert!(is_name(trace, 32) && is_name(part, 16), "{parts:?}");
    [trace, part, flags]
}

#[tokio::test]
async fn a_fetch_belongs_to_the_trace_of_the_request_that_needs_it_or_to_one_of_its_own() {
    let fetched = Fetched::serve(Place::new().set("LOG_FORMAT", "json")).await;
    let trace = fetched.fetch_for_a_request().await;
    let (parents, states) = (fetched.told("traceparent"), fetched.told("tracestate"));
    assert_eq!(parents.len(), 2, "{parents:?}");
    // The first is the server's own, and recorded by nobody.
    let [own, part, flags] = parts(parents[0].as_ref());
    assert_eq!((flags, &states[0]), ("00", &None));
    let [of_request, other_part, flags] = parts(parents[1].as_ref());
    assert_eq!((of_request, flags, states[1].as_deref()), (&*trace, "01", Some("vendor=a-state")));
    assert!(own != of_request && part != other_part && other_part != "b7ad6b7169203331", "{parents:?}");
    assert_eq!(fetched.told("authorization"), [None, None]);

    let log = fetched.server.stop().1;
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let answered: Vec<_> = lines.filter(|line| line["code"] == "token_invalid").collect();
    assert_eq!(answered.len(), 1, "{log}");
    assert_eq!(answered[0]["spans"][0]["trace_id"], *trace);
}
