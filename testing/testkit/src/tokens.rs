//! Valid and invalid tokens for tests.
//!
//! Header and claims are text that is signed as it is, so that a test can make duplicate members, `crit`, a missing
//! `alg` or text that is no JSON. The signature is always valid; a test can change it afterwards.

use std::fmt;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The header of a valid HS256 token.
pub const HS256_HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Seconds since 1970, from which `exp` and other claims are computed.
///
/// # Panics
///
/// If the clock of this machine is before 1970.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(crate::since_1970().as_secs()).expect("the clock is not in a distant future")
}

/// Encodes bytes in base64url without padding, as in tokens and key sets.
#[must_use]
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The claims of a user's token that is issued now and valid for an hour.
#[must_use]
pub fn claims(sub: &str) -> Value {
    json!({ "sub": sub, "iat": now(), "exp": now() + 60 * 60 })
}

/// A token signed with a secret, whatever the header says.
#[must_use]
pub fn hs256(secret: &[u8], header_json: &str, claims_json: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    compact(header_json, claims_json, |message| hmac::sign(&key, message).as_ref().to_vec())
}

/// A token with these [`claims`], or any others, signed with a secret.
#[must_use]
pub fn secret_token(secret: &[u8], claims: &Value) -> String {
    hs256(secret, HS256_HEADER, &claims.to_string())
}

/// A token of this user, signed with a secret and valid for an hour.
#[must_use]
pub fn user_token(secret: &[u8], sub: &str) -> String {
    secret_token(secret, &claims(sub))
}

/// A token without a signature: `alg` is `none`, or whatever the header says.
#[must_use]
pub fn unsigned(header_json: &str, claims_json: &str) -> String {
    compact(header_json, claims_json, |_| Vec::new())
}

fn compact(header_json: &str, claims_json: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64url(header_json), base64url(claims_json));
    let signature = base64url(sign(message.as_bytes()));
    message + "." + &signature
}

/// The private key of an issuer. Every constructor generates a new key.
pub struct SigningKey(Kind);

enum Kind {
    Ed25519(Ed25519KeyPair),
    Ec { curve: &'static str, algorithm: &'static str, key: EcdsaKeyPair },
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// A key for `EdDSA`, also named `Ed25519`.
    ///
    /// # Panics
    ///
    /// If no key can be generated.
    #[must_use]
    pub fn ed25519() -> Self {
        Self(Kind::Ed25519(Ed25519KeyPair::generate().expect("a key can be generated")))
    }

    /// A key for `ES256`.
    ///
    /// # Panics
    ///
    /// If no key can be generated.
    #[must_use]
    pub fn es256() -> Self {
        Self::ec("P-256", "ES256", &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    /// A key for `ES384`.
    ///
    /// # Panics
    ///
    /// If no key can be generated.
    #[must_use]
    pub fn es384() -> Self {
        Self::ec("P-384", "ES384", &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    /// A key for `ES512`.
    ///
    /// # Panics
    ///
    /// If no key can be generated.
    #[must_use]
    pub fn es512() -> Self {
        Self::ec("P-521", "ES512", &ECDSA_P521_SHA512_FIXED_SIGNING)
    }

    /// A key for `RS256`, `RS384`, `RS512`, `PS256`, `PS384` and `PS512`. Generating it takes a moment.
    ///
    /// # Panics
    ///
    /// If no key can be generated.
    #[must_use]
    pub fn rsa2048() -> Self {
        Self(Kind::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be generated")))
    }

    fn ec(curve: &'static str, algorithm: &'static str, signing: &'static EcdsaSigningAlgorithm) -> Self {
        let key = EcdsaKeyPair::generate(signing).expect("a key can be generated");
        Self(Kind::Ec { curve, algorithm, key })
    }

    /// The algorithm of the key; for RSA, which has several, `RS256`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match &self.0 {
            Kind::Ed25519(_) => "EdDSA",
            Kind::Ec { algorithm, .. } => algorithm,
            Kind::Rsa(_) => "RS256",
        }
    }

    /// The public key as a member of a key set, with `kid`, and with `alg` unless the key is RSA and so has several
    /// algorithms.
    #[must_use]
    pub fn jwk(&self, kid: &str) -> Value {
        match &self.0 {
            Kind::Ed25519(key) => json!({
                "kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key()), "alg": "EdDSA", "kid": kid,
            }),
            Kind::Ec { curve, algorithm, key } => {
                // A byte for "uncompressed", then both coordinates.
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y), "alg": algorithm, "kid": kid })
            }
            Kind::Rsa(key) => {
                // A sequence of two integers, with a leading zero where they would be negative.
                let (sequence, _) = der_value(key.public_key().as_ref());
                let (n, rest) = der_value(sequence);
                let (e, _) = der_value(rest);
                let [n, e] = [n, e].map(|integer| base64url(integer.strip_prefix(&[0]).unwrap_or(integer)));
                json!({ "kty": "RSA", "n": n, "e": e, "kid": kid })
            }
        }
    }

    /// A token signed with this key and this algorithm, whatever the header says.
    ///
    /// # Panics
    ///
    /// If the key does not have this algorithm.
    #[must_use]
    pub fn sign(&self, algorithm: &str, header_json: &str, claims_json: &str) -> String {
        compact(header_json, claims_json, |message| self.signature(algorithm, message))
    }

    /// A valid token with these [`claims`], or any others.
    #[must_use]
    pub fn token(&self, kid: &str, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm(), "typ": "JWT", "kid": kid });
        self.sign(self.algorithm(), &header.to_string(), &claims.to_string())
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match (&self.0, algorithm) {
            (Kind::Ed25519(key), "EdDSA" | "Ed25519") => key.sign(message).as_ref().to_vec(),
            (Kind::Ec { algorithm: own, key, .. }, _) if *own == algorithm => {
                key.sign(&random, message).expect("signing works").as_ref().to_vec()
            }
            (Kind::Rsa(key), _) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => panic!("an RSA key does not sign with {algorithm}"),
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature).expect("signing works");
                signature
            }
            _ => panic!("a key for {} does not sign with {algorithm}", self.algorithm()),
        }
    }
}

/// The content of the first DER value in these bytes, and the bytes after it.
fn der_value(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = match der[1] {
        short @ ..0x80 => (usize::from(short), &der[2..]),
        long => {
            let (length, rest) = der[2..].split_at(usize::from(long & 0x7f));
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
    };
    rest.split_at(length)
}

/// Without the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.algorithm()).finish()
    }
}
