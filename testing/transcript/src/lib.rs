//! The same bytes everywhere: a thousand requests, replayed over real sockets against axum, warp and poem.
//!
//! Each framework serves the same API as its users would, through its own server, over a store, a clock and a source of
//! ids that begin alike. Each is sent the same bytes in the same order. What comes back must be equal: the status
//! line, the body, all headers but `date` and `server`, their order, and whether the connection can be used afterwards.
//!
//! - [`cases`] is what is sent: every path and method with everything that can be wrong, made from the route table; and
//!   what no well-behaved client would send, written by hand.
//! - [`apps`] is what it is sent to.
//! - [`wire`] sends it, to the letter, and reads what comes back.
//! - [`compare`] finds what differs, and knows what a framework forces.
//!
//! A difference names the request, what of the answer differs, and what each framework said. To see one, change a
//! header in an adapter and run `cargo test -p todo-transcript`.

pub mod apps;
pub mod cases;
pub mod compare;
pub mod wire;

pub use cases::Case;
pub use wire::Transcript;
