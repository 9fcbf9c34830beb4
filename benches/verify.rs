//! The cost of verifying a token: the first time, and from the cache.
//!
//! A verifier caches tokens. So each measurement of a first time uses a new token, and a new verifier after all tokens
//! have been used.

mod settings;

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

/// The claims of Better Auth, for a token of about 600 bytes.
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

fn verifier(keys: &KeySource) -> JwtVerifier {
    let app = ["https://app.example.com"];
    let source = keys.clone().issuers(app).audiences(app);
    JwtVerifier::builder().source(source).build().expect("a valid source")
}

/// Measures only the verifications, each of a token that is not in the cache.
fn first_time(bencher: &mut Bencher<'_>, keys: &KeySource, tokens: &[String]) {
    bencher.iter_custom(|mut left| {
        let mut spent = Duration::ZERO;
        while left > 0 {
            let verifier = verifier(keys);
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

fn tokens(sign: impl Fn(&Value) -> String) -> Vec<String> {
    (0..TOKENS).map(|number| sign(&user(number))).collect()
}

fn public_key(algorithm: &'static str, key: &SigningKey) -> (&'static str, KeySource, Vec<String>) {
    let keys = JwkSet::from_json(&json!({ "keys": [key.jwk("1")] }).to_string()).expect("a key set");
    let header = json!({ "alg": algorithm, "kid": "1" }).to_string();
    (algorithm, KeySource::jwks(keys), tokens(|claims| key.sign(algorithm, &header, &claims.to_string())))
}

fn verification(criterion: &mut Criterion) {
    let secret = KeySource::secrets([SECRET]).expect("a valid secret");
    let rsa = SigningKey::rsa2048();
    let algorithms = [
        ("HS256", secret, tokens(|claims| secret_token(SECRET, claims))),
        public_key("EdDSA", &SigningKey::ed25519()),
        public_key("ES256", &SigningKey::es256()),
        public_key("ES384", &SigningKey::es384()),
        public_key("ES512", &SigningKey::es512()),
        public_key("RS256", &rsa),
        public_key("PS256", &rsa),
    ];
    let mut group = criterion.benchmark_group("verify");
    for (algorithm, keys, tokens) in &algorithms {
        group.bench_function(BenchmarkId::new("first time", algorithm), |bencher| first_time(bencher, keys, tokens));
        let verifier = verifier(keys);
        group.bench_function(BenchmarkId::new("again", algorithm), |bencher| {
            bencher.iter(|| verify(&verifier, &tokens[0]));
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = settings::short(); targets = verification);
criterion_main!(benches);
