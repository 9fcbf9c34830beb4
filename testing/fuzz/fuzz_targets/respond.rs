//! See `src/respond.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| todo_fuzz::respond(data));
