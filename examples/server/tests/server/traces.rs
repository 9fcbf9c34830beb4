//! The traces that a collector of OpenTelemetry receives.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use testkit::http::{Client, Server as Collector};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    Framework,
    keys::{WithKeyServer, parts},
    program::{SECRET, Setup},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";

/// A request to the collector: head and body.
type Export = (String, Vec<u8>);

/// A collector that keeps everything it receives.
async fn collector() -> (Collector, Arc<Mutex<Vec<Export>>>) {
    let exports = Arc::new(Mutex::new(Vec::new()));
    let received = exports.clone();
    let collector = Collector::start(async move |listener: TcpListener| {
        while let Ok((mut connection, _)) = listener.accept().await {
            let received = received.clone();
            tokio::spawn(async move {
                while let Some(export) = read(&mut connection).await {
                    received.lock().expect("no panic").push(export);
                    let response =
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                    connection.write_all(response).await.expect("it listens");
                }
            });
        }
    })
    .await;
    (collector, exports)
}

async fn read(connection: &mut TcpStream) -> Option<Export> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    connection.read_exact(&mut body).await.expect("a body");
    Some((head, body))
}

/// The fields of a Protocol Buffers message that contain bytes: messages, texts and ids.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = message.split_first().expect("a byte");
            *message = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                varint(&mut message);
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)).expect("a length"),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = message.split_at(length);
        message = rest;
        if key & 7 == 2 {
            fields.push((key >> 3, value));
        }
    }
    fields
}

fn field(message: &[u8], number: u64) -> &[u8] {
    fields(message).into_iter().find(|(own, _)| *own == number).map_or(&[], |(_, value)| value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[derive(Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    /// Names and encoded values.
    attributes: Vec<(String, Vec<u8>)>,
}

/// The spans of an export. The field numbers are from `opentelemetry/proto/trace/v1/trace.proto`.
fn spans(export: &[u8]) -> Vec<Span> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let inner = |messages: Vec<&'_ [u8]>, number: u64| -> Vec<Vec<u8>> {
        let fields = messages.into_iter().flat_map(fields);
        fields.filter(|(own, _)| *own == number).map(|(_, value)| value.to_vec()).collect()
    };
    let resources = inner(vec![export], 1);
    let scopes = inner(resources.iter().map(Vec::as_slice).collect(), 2);
    let spans = inner(scopes.iter().map(Vec::as_slice).collect(), 2);
    let span = |span: &Vec<u8>| Span {
        trace: hex(field(span, 1)),
        id: hex(field(span, 2)),
        parent: hex(field(span, 4)),
        name: text(field(span, 5)),
        attributes: inner(vec![span], 9).iter().map(|pair| (text(field(pair, 1)), field(pair, 2).to_vec())).collect(),
    };
    spans.iter().map(span).collect()
}

pub(crate) async fn a_request_and_its_call_of_the_store_are_exported(framework: Framework) {
    let (collector, exports) = collector().await;
    let setup = Setup::with_secret(framework)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address()))
        .set("LOG_FORMAT", "json");
    let server = setup.serve(&[]);
    let token = testkit::tokens::user_token(SECRET.as_bytes(), "the-user");
    let send = async |parent: Option<&str>, path: &str| {
        let request = Request::post(path)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header("content-type", "application/json");
        let request = parent.into_iter().fold(request, |request, parent| request.header("traceparent", parent));
        let request = request.body(Bytes::from_static(br#"{"title":"Buy milk"}"#)).expect("a request");
        Client::new(server.address).send(request).await.status().as_u16()
    };
    assert_eq!(send(Some(&format!("00-{TRACE}-{CLIENT_SPAN}-01")), "/api/the-user/tasks").await, 201);
    assert_eq!(send(Some("nonsense"), "/api/tasks").await, 201);
    // A request whose client does not record its trace is not exported.
    assert_eq!(send(Some(&format!("00-{}-{CLIENT_SPAN}-00", TRACE.replace('0', "1"))), "/api/tasks").await, 201);
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");

    let exports = exports.lock().expect("no panic");
    assert!(!exports.is_empty(), "{log}");
    for (head, body) in exports.iter() {
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
        let body = String::from_utf8_lossy(body);
        for secret in ["the-user", "Buy milk", &*token, SECRET] {
            assert!(!body.contains(secret), "{secret}");
        }
        assert!(body.contains("todo-server"), "the name of the service");
    }
    let spans: Vec<_> = exports.iter().flat_map(|(_, body)| spans(body)).collect();
    let of = |trace: &str, name: &str| {
        let found = spans.iter().find(|span| span.trace == trace && span.name == name);
        found.unwrap_or_else(|| panic!("no {name} in {trace}: {spans:#?}"))
    };
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let request = of(TRACE, "POST /api/{user_id}/tasks");
    assert_eq!(request.parent, CLIENT_SPAN);
    let store = of(TRACE, "store");
    assert_eq!(store.parent, request.id);
    let attribute = |span: &Span, name: &str| {
        let found = span.attributes.iter().find(|(own, _)| own == name);
        found.unwrap_or_else(|| panic!("no {name} in {span:?}")).1.clone()
    };
    // AnyValue: a text is field 1; a number is field 3, as a varint.
    assert_eq!(field(&attribute(request, "http.route"), 1), b"/api/{user_id}/tasks");
    assert_eq!(field(&attribute(request, "http.request.method"), 1), b"POST");
    assert_eq!(attribute(request, "http.response.status_code"), [3 << 3, 0xc9, 1], "201");
    assert_eq!(field(&attribute(store, "operation"), 1), b"insert");

    // The request without a valid parent began a trace, whose id is in the log.
    let own = spans.iter().find(|span| span.trace != TRACE && span.name == "POST /api/tasks").expect("a span");
    assert_eq!(own.parent, "");
    assert_eq!(of(&own.trace, "store").parent, own.id);
    assert!(log.contains(&format!(r#""trace_id":"{}""#, own.trace)), "{log}");
    assert!(log.contains(&format!(r#""trace_id":"{TRACE}""#)), "{log}");
}

pub(crate) async fn a_fetch_of_keys_is_a_child_of_the_exported_span(framework: Framework) {
    let (collector, exports) = collector().await;
    let endpoint = format!("http://{}", collector.address());
    let fetching = WithKeyServer::serve(Setup::new(framework).set("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)).await;
    let trace = fetching.fetch_for_a_request().await;
    let (parents, states) = (fetching.header("traceparent"), fetching.header("tracestate"));
    assert_eq!(fetching.server.stop().0, Some(0));
    let [of_request, span, flags] = parts(parents.last().expect("a fetch").as_ref());
    assert_eq!((of_request, flags, states.last()), (&*trace, "01", Some(&Some("vendor=a-state".to_owned()))));
    let exports = exports.lock().expect("no panic");
    let mut spans = exports.iter().flat_map(|(_, body)| spans(body));
    let request = spans.find(|span| span.trace == trace).expect("it is exported");
    assert_eq!((span, &*request.parent), (&*request.id, CLIENT_SPAN));
}

/// Method and trace state may be thousands of characters of arbitrary text.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_is_short_in_exported_spans() {
    let (collector, exports) = collector().await;
    let endpoint = format!("http://{}", collector.address());
    let server = Setup::with_secret(Framework::ANY).set("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).serve(&[]);
    for (method, state) in [("X".repeat(4000), "a=1".to_owned()), ("GET".to_owned(), format!("a={}", "x".repeat(250)))]
    {
        // Each member is valid. The whole list may have 512 characters.
        let entries = (0..100).map(|number| format!("key{number}{state}")).collect::<Vec<_>>().join(",");
        let request = Request::builder()
            .method(&*method)
            .uri("/api/tasks")
            .header("traceparent", format!("00-{TRACE}-{CLIENT_SPAN}-01"))
            .header("tracestate", entries)
            .header("user-agent", "x".repeat(4000))
            .body(Bytes::new());
        let status = Client::new(server.address).send(request.expect("a request")).await.status();
        assert!(status.is_client_error(), "{status}");
    }
    assert_eq!(server.stop().0, Some(0));
    let exports = exports.lock().expect("no panic");
    let size: usize = exports.iter().map(|(_, body)| body.len()).sum();
    assert!((100..3000).contains(&size), "{size} bytes");
    let names: Vec<_> = exports.iter().flat_map(|(_, body)| spans(body)).map(|span| span.name).collect();
    assert_eq!(names, ["other /api/tasks", "GET /api/tasks"]);
}

#[tokio::test]
async fn the_server_works_without_its_collector() {
    // No collector listens on port 1.
    let server = Setup::with_secret(Framework::ANY).set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").serve(&[]);
    server.user("ann").use_tasks().await;
    assert_eq!(server.stop().0, Some(0));
}
