//! Any bytes sent into a connection of the server, in any pieces.
//!
//! The connection always ends. Over HTTP/1.1 the client receives exactly the responses of the API, in order, and after
//! them at most one response with which hyper rejects unreadable bytes. Over HTTP/2 it receives whole frames.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use futures_util::future::join3;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use todo_core::{
    TodoService, UserId,
    api::{ApiError, TodoApi, problem},
    auth::{AuthError, Authenticator, Identity},
    store::MemoryStore,
};
use todo_server::connection::{ConnectionServer, RequestBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split},
    time::{sleep, timeout},
};
use tower::ServiceExt as _;

const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const STATUSES: [u16; 16] = [200, 201, 204, 400, 401, 403, 404, 405, 408, 410, 413, 415, 422, 503, 431, 414];

/// Accepts the user's id as a token, so that the fuzzer can write valid tokens.
#[derive(Debug)]
struct TokenIsUserId;

#[async_trait::async_trait]
impl Authenticator for TokenIsUserId {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        let value = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let name = value.and_then(|value| value.strip_prefix("Bearer "));
        name.and_then(|name| UserId::new(name).ok()).map(Identity::new).ok_or(AuthError::Missing)
    }
}

/// A response of the API.
#[derive(Debug)]
struct Sent {
    method: Method,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Checks a connection. The first byte chooses how the client behaves, the second the size of the pieces in which it
/// sends the rest.
///
/// # Panics
///
/// If a property of [this module](self) does not hold.
pub fn check(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(connect(data));
}

async fn connect(data: &[u8]) {
    let [flags, size, bytes @ ..] = data else { return };
    let (client, stream) = duplex(if flags & 1 == 0 { 64 * 1024 } else { 64 });
    let sent = Arc::new(Mutex::new(Vec::new()));

    let api = TodoApi::new(TodoService::new(MemoryStore::new()), TokenIsUserId).with_body_limit(1000);
    let app = Router::new()
        .nest("/api/v1", todo_axum::router(api.clone()))
        .merge(todo_axum::probes(api))
        .fallback(async || problem(ApiError::NotFound).map(axum::body::Body::from));
    let log = sent.clone();
    let connection = ConnectionServer::default().serve(stream, move |request: Request<RequestBody>| {
        let (app, log, method) = (app.clone(), log.clone(), request.method().clone());
        async move {
            let Ok(response) = app.oneshot(request).await;
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let (status, headers) = (head.status, head.headers.clone());
            assert!(STATUSES.contains(&status.as_u16()), "{status}");
            log.lock().expect("no panic").push(Sent { method, status, headers, body: body.clone() });
            Ok::<_, Infallible>(Response::from_parts(head, Full::new(body)))
        }
    });
    let serving = async {
        // The connection may end with any error.
        let _ = connection.await;
    };

    let (mut reader, mut writer) = split(client);
    let writing = async {
        for piece in bytes.chunks(if *size == 0 { bytes.len().max(1) } else { usize::from(*size) }) {
            if writer.write_all(piece).await.is_err() {
                break;
            }
            if flags & 2 != 0 {
                sleep(Duration::from_millis(700)).await;
            }
        }
        if flags & 4 != 0 {
            let _ = writer.shutdown().await;
        }
        writer
    };
    let mut received = Vec::new();
    let reading = async {
        if flags & 8 != 0 {
            sleep(Duration::from_secs(5)).await;
        }
        let _ = reader.read_to_end(&mut received).await;
    };
    let all = join3(serving, writing, reading);
    assert!(timeout(Duration::from_hours(1), all).await.is_ok(), "the connection does not end");

    let sent = sent.lock().expect("no panic");
    if bytes.starts_with(HTTP_2) {
        assert_frames(&received);
    } else {
        assert_responses(&sent, &received);
    }
}

/// Whole frames of HTTP/2 (RFC 9113, section 4.1), of which the first is SETTINGS.
fn assert_frames(mut bytes: &[u8]) {
    let mut first = true;
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(9).expect("a whole head of a frame");
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        assert!(head[3] <= 9, "a frame of type {}", head[3]);
        assert!(!first || head[3] == 4);
        first = false;
        bytes = rest.get(length..).expect("a whole frame");
    }
}

/// The bytes are these responses, and at most one response of hyper.
fn assert_responses(sent: &[Sent], mut bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for response in sent {
        let mut head = Head::read(&mut bytes).unwrap_or_else(|| panic!("no bytes for {response:?}: {text:?}"));
        while head.status == 100 {
            head = Head::read(&mut bytes).unwrap_or_else(|| panic!("no bytes for {response:?}: {text:?}"));
        }
        assert_eq!(head.status, response.status.as_u16(), "{response:?}: {text:?}");
        let added_by_hyper = ["date", "connection", "transfer-encoding"];
        let received: Vec<_> =
            head.headers.iter().filter(|(name, _)| !added_by_hyper.contains(&name.as_str())).collect();
        // axum sets a length for every response, and hyper removes it from a 204.
        let has_length = |name: &http::HeaderName| *name != header::CONTENT_LENGTH || response.status != 204;
        let expected: Vec<_> = response.headers.iter().filter(|(name, _)| has_length(name)).collect();
        assert_eq!(received.len(), expected.len(), "{response:?}: {text:?}");
        for ((name, value), (expected_name, expected_value)) in received.iter().zip(expected) {
            assert_eq!(
                (name.as_str(), value.as_bytes()),
                (expected_name.as_str(), expected_value.as_bytes()),
                "{text:?}"
            );
        }
        if response.method != Method::HEAD {
            assert!(bytes.starts_with(&response.body), "{response:?}: {text:?}");
            bytes = &bytes[response.body.len()..];
        }
    }
    // hyper rejects unreadable bytes and closes the connection.
    if !bytes.is_empty() {
        let mut head = Head::read(&mut bytes).expect(&text);
        while head.status == 100 && !bytes.is_empty() {
            head = Head::read(&mut bytes).expect(&text);
        }
        assert!(matches!(head.status, 100 | 400 | 414 | 431), "{text:?}");
        assert!(bytes.is_empty(), "{text:?}");
    }
}

struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        *bytes = &bytes[end + 4..];
        let mut lines = text.split("\r\n");
        let (version, rest) = lines.next()?.split_at_checked(9)?;
        assert!(matches!(version, "HTTP/1.1 " | "HTTP/1.0 "), "{version}");
        let status = rest.get(..3)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let is_token = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (is_token && !name.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
        };
        Some(Self { status, headers: lines.map(header).collect::<Option<_>>()? })
    }
}
