//! What the fuzzers have kept, once more on stable Rust: each seed in `fuzz/seeds` goes through its target.

#[path = "../../testing/fuzz/src/cursor.rs"]
mod cursor;
#[path = "../../testing/fuzz/src/input.rs"]
mod input;
#[path = "../../testing/fuzz/src/respond.rs"]
mod respond;

use std::{fs, path::Path};

fn replay(target: &str, check: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testing/fuzz/seeds").join(target);
    let seeds = fs::read_dir(&seeds).unwrap_or_else(|error| panic!("{}: {error}", seeds.display()));
    let mut count = 0;
    for seed in seeds {
        let path = seed.expect("a file").path();
        let data = fs::read(&path).expect("a file");
        // A panic is to name the seed.
        let outcome = std::panic::catch_unwind(|| check(&data));
        assert!(outcome.is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "there are seeds");
}

#[test]
fn requests_that_were_found_once_are_answered_as_the_model_says() {
    replay("respond", respond::check);
}

#[test]
fn queries_that_were_found_once_are_read_as_the_rules_say() {
    replay("cursor", cursor::check);
}
