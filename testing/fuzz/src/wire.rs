//! Any bytes into a connection of the server, in any pieces, over a pipe and by a clock that leaps.
//!
//! It never panics and always comes to an end. Of HTTP/1.1, what comes back is exactly the answers that were given, in
//! their order, and after them at most one refusal by hyper. Of HTTP/2, it is whole frames.

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
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use todo_core::{
    TodoService, UserId,
    api::{ApiError, TodoApi, problem},
    auth::{AuthError, Authenticator, Identity},
    store::MemoryStore,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split},
    time::{sleep, timeout},
};
use tower::ServiceExt as _;

use crate::connection::{Activity, Limited, builder};

const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const STATUSES: [u16; 14] = [200, 201, 204, 400, 401, 403, 404, 405, 413, 415, 422, 503, 431, 414];

/// `Bearer alice` is Alice, so that bytes that chance has changed can still be a credential.
#[derive(Debug)]
struct ByName;

#[async_trait::async_trait]
impl Authenticator for ByName {
    async fn authenticate(&self, head: &Parts) -> Result<Identity, AuthError> {
        let value = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let name = value.and_then(|value| value.strip_prefix("Bearer "));
        name.and_then(|name| UserId::new(name).ok()).map(Identity::new).ok_or(AuthError::Missing)
    }
}

/// An answer, as it left the API.
#[derive(Debug)]
struct Given {
    method: Method,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The first byte says how the client behaves, the second how it cuts the rest into pieces.
pub(crate) fn check(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(converse(data));
}

async fn converse(data: &[u8]) {
    let [flags, size, sent @ ..] = data else { return };
    let (ours, theirs) = duplex(if flags & 1 == 0 { 64 * 1024 } else { 64 });
    let given = Arc::new(Mutex::new(Vec::new()));

    let api = TodoApi::new(TodoService::new(MemoryStore::new()), ByName).with_body_limit(1000);
    let app = Router::new()
        .nest("/api/v1", todo_axum::router(api.clone()))
        .merge(todo_axum::probes(api))
        .fallback(async || problem(ApiError::NotFound).map(axum::body::Body::from));
    let activity = Arc::new(Activity::default());
    let stream = TokioIo::new(Limited::new(theirs, activity.clone()));
    let service = service_fn(|request: Request<Incoming>| {
        let busy = activity.begin(request.version());
        let (app, given, method) = (app.clone(), given.clone(), request.method().clone());
        async move {
            let Ok(response) = app.oneshot(request).await;
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("it is there").to_bytes();
            let (status, headers) = (head.status, head.headers.clone());
            assert!(STATUSES.contains(&status.as_u16()), "{status}");
            given.lock().expect("no panic").push(Given { method, status, headers, body: body.clone() });
            drop(busy);
            Ok::<_, Infallible>(Response::from_parts(head, Full::new(body)))
        }
    });
    let served = async {
        // Whatever it breaks off with.
        let _ = builder().serve_connection(stream, service).into_owned().await;
    };

    let (mut reader, mut writer) = split(ours);
    let asking = async {
        for piece in sent.chunks(if *size == 0 { sent.len().max(1) } else { usize::from(*size) }) {
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
    let hearing = async {
        if flags & 8 != 0 {
            sleep(Duration::from_secs(5)).await;
        }
        let _ = reader.read_to_end(&mut received).await;
    };
    let whole = join3(served, asking, hearing);
    assert!(timeout(Duration::from_hours(1), whole).await.is_ok(), "it hangs");

    let given = given.lock().expect("no panic");
    if sent.starts_with(HTTP_2) {
        assert_frames(&received);
    } else {
        assert_answers(&given, &received);
    }
}

/// Frames of HTTP/2 (RFC 9113, section 4.1), the first of them settings.
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

fn assert_answers(given: &[Given], mut bytes: &[u8]) {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    for answer in given {
        let mut head = Head::read(&mut bytes).unwrap_or_else(|| panic!("no answer for {answer:?}: {shown:?}"));
        while head.status == 100 {
            head = Head::read(&mut bytes).unwrap_or_else(|| panic!("no answer for {answer:?}: {shown:?}"));
        }
        assert_eq!(head.status, answer.status.as_u16(), "{answer:?}: {shown:?}");
        let by_hyper = ["date", "connection", "transfer-encoding"];
        let ours: Vec<_> = head.headers.iter().filter(|(name, _)| !by_hyper.contains(&name.as_str())).collect();
        // axum gives every answer a length, and hyper takes it away from those that may have none.
        let has_length = |name: &http::HeaderName| *name != header::CONTENT_LENGTH || answer.status != 204;
        let given: Vec<_> = answer.headers.iter().filter(|(name, _)| has_length(name)).collect();
        assert_eq!(ours.len(), given.len(), "{answer:?}: {shown:?}");
        for ((name, value), (own_name, own_value)) in ours.iter().zip(given) {
            assert_eq!((name.as_str(), value.as_bytes()), (own_name.as_str(), own_value.as_bytes()), "{shown:?}");
        }
        if answer.method != Method::HEAD {
            assert!(bytes.starts_with(&answer.body), "{answer:?}: {shown:?}");
            bytes = &bytes[answer.body.len()..];
        }
    }
    // What hyper cannot read, it refuses, and ends.
    if !bytes.is_empty() {
        let mut head = Head::read(&mut bytes).expect(&shown);
        while head.status == 100 && !bytes.is_empty() {
            head = Head::read(&mut bytes).expect(&shown);
        }
        assert!(matches!(head.status, 100 | 400 | 414 | 431), "{shown:?}");
        assert!(bytes.is_empty(), "{shown:?}");
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
