//! Runs `todo_fuzz::jwks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| todo_fuzz::jwks::check(data));
