//! Compares the responses of axum, warp and poem to the same thousand requests, byte for byte and over real sockets.
//!
//! Each framework serves the same API through its own server, with a store, a clock and an id generator that start in
//! the same state. Each receives the same bytes in the same order. Their responses must be equal: the status line, the
//! body, all headers except `date` and `server`, the order of the headers, and whether the connection stays open.
//!
//! - [`cases`] has the requests: each operation with each of its errors, generated from the route table, and requests
//!   that no correct client sends, written by hand.
//! - [`apps`] has the servers.
//! - [`wire`] sends the bytes and reads the responses.
//! - [`compare`] finds the differences, and lists those that a framework forces.
//!
//! A difference is reported with the request, the part that differs and both values. To see one, change a header in an
//! adapter and run `cargo test -p todo-transcript`.

pub mod apps;
pub mod cases;
pub mod compare;
pub mod wire;

pub use cases::Case;
pub use wire::Transcript;
