//! What a collector of traces is told.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use testkit::http::{Client, Server as Collector};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    keys::{Fetched, parts},
    program::{Place, SECRET},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A request to the collector: its head and its body.
type Export = (String, Vec<u8>);

/// Takes whatever is exported to it.
async fn collector() -> (Collector, Arc<Mutex<Vec<Export>>>) {
    let exports = Arc::new(Mutex::new(Vec::new()));
    let taken = exports.clone();
    let collector = Collector::start(async move |listener: TcpListener| {
        while let Ok((mut connection, _)) = listener.accept().await {
            let taken = taken.clone();
            tokio::spawn(async move {
                while let Some(export) = read(&mut connection).await {
                    taken.lock().expect("no panic").push(export);
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                    connection.write_all(answer).await.expect("it listens");
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

/// The fields of a message of Protocol Buffers that hold bytes: messages, texts and identifiers.
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
    /// Names and what stands in their values, as bytes.
    attributes: Vec<(String, Vec<u8>)>,
}

/// The numbers are those of `opentelemetry/proto/trace/v1/trace.proto`.
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

// To stop the server is to wait for it, and meanwhile it talks to the collector.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_call_of_the_store_are_told_to_the_collector() {
    let (collector, exports) = collector().await;
    let place = Place::with_secret()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address()))
        .set("LOG_FORMAT", "json");
    let server = place.serve(&[]);
    let token = testkit::tokens::user_token(SECRET.as_bytes(), "the-user");
    let ask = async |parent: Option<&str>, path: &str| {
        let request = Request::post(path)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header("content-type", "application/json");
        let request = parent.into_iter().fold(request, |request, parent| request.header("traceparent", parent));
        let request = request.body(Bytes::from_static(br#"{"title":"Buy milk"}"#)).expect("a request");
        Client::new(server.address).send(request).await.status().as_u16()
    };
    assert_eq!(ask(Some(&format!("00-{TRACE}-{CALLER}-01")), "/api/the-user/tasks").await, 201);
    assert_eq!(ask(Some("nonsense"), "/api/tasks").await, 201);
    // A caller that records nothing wants nothing recorded.
    assert_eq!(ask(Some(&format!("00-{}-{CALLER}-00", TRACE.replace('0', "1"))), "/api/tasks").await, 201);
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
    assert_eq!(request.parent, CALLER);
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

    // The other one began a trace of its own, under the name that is in the log.
    let own = spans.iter().find(|span| span.trace != TRACE && span.name == "POST /api/tasks").expect("a span");
    assert_eq!(own.parent, "");
    assert_eq!(of(&own.trace, "store").parent, own.id);
    assert!(log.contains(&format!(r#""trace_id":"{}""#, own.trace)), "{log}");
    assert!(log.contains(&format!(r#""trace_id":"{TRACE}""#)), "{log}");
}

/// The fetch is a part of what is recorded of the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_of_keys_goes_on_in_the_span_of_its_request() {
    let (collector, exports) = collector().await;
    let endpoint = format!("http://{}", collector.address());
    let fetched = Fetched::serve(Place::new().set("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)).await;
    let trace = fetched.fetch_for_a_request().await;
    let (parents, states) = (fetched.told("traceparent"), fetched.told("tracestate"));
    assert_eq!(fetched.server.stop().0, Some(0));
    let [of_request, part, flags] = parts(parents.last().expect("a fetch").as_ref());
    assert_eq!((of_request, flags, states.last()), (&*trace, "01", Some(&Some("vendor=a-state".to_owned()))));
    let exports = exports.lock().expect("no panic");
    let mut spans = exports.iter().flat_map(|(_, body)| spans(body));
    let request = spans.find(|span| span.trace == trace).expect("it is recorded");
    assert_eq!((part, &*request.parent), (&*request.id, CALLER));
}

#[tokio::test]
async fn a_collector_that_is_away_disturbs_nobody() {
    // Nobody listens there.
    let server = Place::with_secret().set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").serve(&[]);
    server.caller("ann").work().await;
    assert_eq!(server.stop().0, Some(0));
}
