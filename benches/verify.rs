//! What it costs to verify a token: seen for the first time, and seen before.
//!
//! A verifier remembers tokens with a public key, so for the first time each measurement takes new ones, and a new
//! verifier when they are used up. HS256 tokens are not remembered.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Bencher, BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use testkit::tokens::{SigningKey, secret_token};
use todo_core::auth::{JwkSet, JwtVerifier, KeySource};

const SECRET: &[u8] = b"a secret of more than thirty-two bytes, for this measurement only";
const TOKENS: usize = 1000;

fn verify(verifier: &JwtVerifier, token: &str) {
    let answer = verifier.verify(black_box(token)).now_or_never();
    assert!(black_box(answer).is_some_and(|answer| answer.is_ok()));
}

/// What Better Auth puts into a token, which is some 600 bytes then.
fn user(number: usize) -> Value {
    let (now, id) = (testkit::tokens::now(), format!("user-{number}-of-thirty-two-letters"));
    json!({
        "iat": now,
        "name": "Ann Example",
        "email": "ann@example.com",
        "emailVerified": true,
        "createdAt": "2025-11-21T08:00:00.000Z",
        "updatedAt": "2025-11-21T08:00:00.000Z",
        "id": id,
        "sub": id,
        "exp": now + 60 * 60,
        "iss": "https://app.example.com",
        "aud": "https://app.example.com",
    })
}

fn verifier(jwk: &Value) -> JwtVerifier {
    let keys = JwkSet::from_json(&json!({ "keys": [jwk] }).to_string()).expect("a key set");
    let app = ["https://app.example.com"];
    JwtVerifier::builder().source(KeySource::jwks(keys).issuers(app).audiences(app)).build().expect("a good source")
}

/// Only the verifications are measured, each of a token that the verifier has not seen.
fn first_time(bencher: &mut Bencher<'_>, jwk: &Value, tokens: &[String]) {
    bencher.iter_custom(|mut left| {
        let mut spent = Duration::ZERO;
        while left > 0 {
            let verifier = verifier(jwk);
            let now = &tokens[..tokens.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            let start = Instant::now();
            for token in now {
                verify(&verifier, token);
            }
            spent += start.elapsed();
            left -= now.len() as u64;
        }
        spent
    });
}

fn public_keys(criterion: &mut Criterion) {
    let rsa = SigningKey::rsa2048;
    let keys = [
        ("EdDSA", SigningKey::ed25519()),
        ("ES256", SigningKey::es256()),
        ("ES384", SigningKey::es384()),
        ("ES512", SigningKey::es512()),
        ("RS256", rsa()),
        ("PS256", rsa()),
    ];
    let mut group = criterion.benchmark_group("verify");
    for (algorithm, key) in &keys {
        let header = json!({ "alg": algorithm, "kid": "1" }).to_string();
        let tokens: Vec<_> =
            (0..TOKENS).map(|number| key.sign(algorithm, &header, &user(number).to_string())).collect();
        let jwk = key.jwk("1");
        group.bench_function(BenchmarkId::new("first time", algorithm), |bencher| first_time(bencher, &jwk, &tokens));
        let verifier = verifier(&jwk);
        group.bench_function(BenchmarkId::new("again", algorithm), |bencher| {
            bencher.iter(|| verify(&verifier, &tokens[0]));
        });
    }
    group.finish();
}

fn secrets(criterion: &mut Criterion) {
    let source = KeySource::secrets([SECRET]).expect("a good secret");
    let verifier = JwtVerifier::builder().source(source).build().expect("a good source");
    let token = secret_token(SECRET, &user(1));
    criterion.bench_function("verify/HS256", |bencher| bencher.iter(|| verify(&verifier, &token)));
}

criterion_group!(benches, public_keys, secrets);
criterion_main!(benches);
