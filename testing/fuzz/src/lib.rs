//! What the fuzz targets check. `todo-core` and `todo-server` put the seeds through the same functions in their tests.

#[expect(dead_code, reason = "of the server's files only a part is used")]
// Its own tests are not found from here.
#[rustfmt::skip]
#[path = "../../../examples/server/src/connection.rs"]
mod connection;
#[expect(dead_code, reason = "of the server's files only a part is used")]
#[path = "../../../examples/server/src/crowd.rs"]
mod crowd;
mod cursor;
mod input;
mod respond;
mod wire;

/// Queries, cursors and pages.
pub fn cursor(data: &[u8]) {
    cursor::check(data);
}

/// Requests of two users.
pub fn respond(data: &[u8]) {
    respond::check(data);
}

/// Bytes into a connection.
pub fn wire(data: &[u8]) {
    wire::check(data);
}
