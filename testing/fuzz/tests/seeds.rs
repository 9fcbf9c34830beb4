//! Runs every check with its seeds, which the fuzzer has found.

use std::{fs, path::Path};

#[track_caller]
fn run_seeds(target: &str, check: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let seeds = fs::read_dir(&seeds).unwrap_or_else(|error| panic!("{}: {error}", seeds.display()));
    let mut count = 0;
    for seed in seeds {
        let path = seed.expect("a file").path();
        let data = fs::read(&path).expect("a file");
        let outcome = std::panic::catch_unwind(|| check(&data));
        assert!(outcome.is_ok(), "the check fails for {}", path.display());
        count += 1;
    }
    assert!(count > 0, "{target} has no seeds");
}

#[test]
fn queries_and_cursors_are_read_as_the_rules_say() {
    run_seeds("cursor", todo_fuzz::cursor::check);
}

#[test]
fn keys_of_a_key_set_accept_only_tokens_that_they_signed() {
    run_seeds("jwks", todo_fuzz::jwks::check);
}

#[test]
fn responses_are_those_of_the_model() {
    run_seeds("respond", todo_fuzz::respond::check);
}

#[test]
fn only_correctly_signed_tokens_with_valid_claims_are_accepted() {
    run_seeds("verify", todo_fuzz::verify::check);
}

#[test]
fn a_connection_carries_whole_responses_in_order() {
    run_seeds("wire", todo_fuzz::wire::check);
}
