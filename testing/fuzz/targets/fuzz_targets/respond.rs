//! Runs `todo_fuzz::respond`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| todo_fuzz::respond::check(data));
