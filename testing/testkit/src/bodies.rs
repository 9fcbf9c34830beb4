//! Requests whose body declares its length, or arrives in chunks.

use std::net::SocketAddr;

use crate::http::raw;

/// How a request says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By the header `content-length`.
    Length,
    /// By `transfer-encoding: chunked`, in two chunks.
    Chunks,
}

/// Creates a task with a title of this many letters at `/api/v1/tasks`, for the user of a token from
/// `todo_core::conformance::api`, and returns the bytes of the response as text.
///
/// # Panics
///
/// If there is no whole response in UTF-8.
pub async fn create_task(address: SocketAddr, title_length: usize, framing: Framing) -> String {
    let body = format!(r#"{{"title":"{}"}}"#, "x".repeat(title_length));
    let body = match framing {
        Framing::Length => format!("content-length: {}\r\n\r\n{body}", body.len()),
        Framing::Chunks => {
            let (first, rest) = body.split_at(10);
            let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
            format!("transfer-encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk(first), chunk(rest))
        }
    };
    let token = todo_core::conformance::api::token("ann");
    let request = format!(
        "POST /api/v1/tasks HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n{body}"
    );
    String::from_utf8(raw(address, request.as_bytes()).await).expect("UTF-8")
}
