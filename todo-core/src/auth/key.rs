//! Public keys (RFC 7517). They are parsed strictly: a key with an unexpected member or value is not used.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;

use crate::json::{Json, get};

/// The supported signature algorithms (RFC 7518, section 3.1, RFC 8037, RFC 9864).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    Hs256,
    EdDsa,
    Es256,
    Es384,
    Es512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
}

impl Algorithm {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            // `Ed25519` is the name in RFC 9864 for `EdDSA` with the curve Ed25519.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            _ => return None,
        })
    }
}

/// The key itself, by family.
#[derive(Clone, Debug)]
enum Material {
    Ed25519(DecodingKey),
    P256(DecodingKey),
    P384(DecodingKey),
    /// `jsonwebtoken` does not support ES512, so this key is used with aws-lc directly.
    P521(ParsedPublicKey),
    Rsa(DecodingKey),
}

/// A public key for signatures.
#[derive(Clone, Debug)]
pub(crate) struct Jwk {
    pub(crate) kid: Option<String>,
    /// The only algorithm of the key, if the key names one.
    alg: Option<Algorithm>,
    material: Material,
}

impl Jwk {
    /// Whether this key may verify signatures of this algorithm. The key decides this, not the token.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        let family = match self.material {
            Material::Ed25519(_) => algorithm == A::EdDsa,
            Material::P256(_) => algorithm == A::Es256,
            Material::P384(_) => algorithm == A::Es384,
            Material::P521(_) => algorithm == A::Es512,
            Material::Rsa(_) => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
        };
        family && self.alg.is_none_or(|own| own == algorithm)
    }

    /// Whether `signature` (base64url) is a signature of `message` with this key.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        use jsonwebtoken::Algorithm as J;
        if !self.fits(algorithm) {
            return false;
        }
        let (key, algorithm) = match (&self.material, algorithm) {
            (Material::P521(key), _) => {
                return URL_SAFE_NO_PAD
                    .decode(signature)
                    .is_ok_and(|signature| signature.len() == 132 && key.verify_sig(message, &signature).is_ok());
            }
            (Material::Ed25519(key), _) => (key, J::EdDSA),
            (Material::P256(key), _) => (key, J::ES256),
            (Material::P384(key), _) => (key, J::ES384),
            (Material::Rsa(key), Algorithm::Rs256) => (key, J::RS256),
            (Material::Rsa(key), Algorithm::Rs384) => (key, J::RS384),
            (Material::Rsa(key), Algorithm::Rs512) => (key, J::RS512),
            (Material::Rsa(key), Algorithm::Ps256) => (key, J::PS256),
            (Material::Rsa(key), Algorithm::Ps384) => (key, J::PS384),
            (Material::Rsa(key), Algorithm::Ps512) => (key, J::PS512),
            (Material::Rsa(_), _) => return false,
        };
        jsonwebtoken::crypto::verify(signature, message, key, algorithm).unwrap_or(false)
    }
}

impl Jwk {
    /// Returns the key, or `None` if it cannot be used.
    pub(super) fn parse(members: &[(String, Json)]) -> Option<Self> {
        let text = |name| get(members, name).map(Json::as_str);
        // `text("kid")` is `None` if the member is absent, and `Some(None)` if it is not a string.
        let kid = match text("kid") {
            None => None,
            Some(kid) => Some(kid?.to_owned()),
        };
        let alg = match text("alg") {
            None => None,
            Some(name) => Some(Algorithm::from_name(name?)?),
        };
        if let Some(purpose) = text("use")
            && purpose? != "sig"
        {
            return None;
        }
        if let Some(operations) = get(members, "key_ops") {
            let Json::Array(operations) = operations else {
                return None;
            };
            if !operations.iter().any(|operation| operation.as_str() == Some("verify")) {
                return None;
            }
        }
        let bytes = |name| URL_SAFE_NO_PAD.decode(text(name)??).ok();
        let material = match (text("kty")??, text("crv")) {
            ("OKP", Some(Some("Ed25519"))) => {
                let x = <[u8; 32]>::try_from(bytes("x")?).ok()?;
                if has_small_order(x) {
                    return None;
                }
                Material::Ed25519(DecodingKey::from_ed_der(&x))
            }
            ("EC", Some(Some(curve))) => {
                let (algorithm, width): (&'static dyn VerificationAlgorithm, usize) = match curve {
                    "P-256" => (&ECDSA_P256_SHA256_FIXED, 32),
                    "P-384" => (&ECDSA_P384_SHA384_FIXED, 48),
                    "P-521" => (&ECDSA_P521_SHA512_FIXED, 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if (x.len(), y.len()) != (width, width) {
                    return None;
                }
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                // This fails for a point that is not on the curve.
                let parsed = ParsedPublicKey::new(algorithm, &point).ok()?;
                match curve {
                    "P-256" => Material::P256(DecodingKey::from_ec_der(&point)),
                    "P-384" => Material::P384(DecodingKey::from_ec_der(&point)),
                    _ => Material::P521(parsed),
                }
            }
            ("RSA", _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
                let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
                // An exponent of 1 accepts every signature, an even exponent is invalid, and a large one is slow.
                let exponent_fits = (1..=4).contains(&e.len()) && e.last()? & 1 == 1 && e != [1];
                if !(2048..=8192).contains(&bits) || !exponent_fits || is_roca(n) {
                    return None;
                }
                Material::Rsa(DecodingKey::from_rsa_raw_components(n, e))
            }
            _ => return None,
        };
        let key = Self { kid, alg, material };
        // The `alg` of a key may be of another family than the key.
        if key.alg.is_some_and(|alg| !key.fits(alg)) { None } else { Some(key) }
    }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]
}

/// Whether an Ed25519 key is one of the eight points of small order, for which anyone can create signatures.
fn has_small_order(mut y: [u8; 32]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\
           \xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
        *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\
           \x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
    ];
    // Clear the sign bit of the x-coordinate.
    y[31] &= 0x7f;
    let [first, middle @ .., last] = y;
    let is_0_or_1 = first <= 1 && middle == [0; 30] && last == 0;
    // With p = 2^255 - 19: p - 1, and the non-canonical encodings p and p + 1 of 0 and 1.
    let is_near_p = (0xec..=0xee).contains(&first) && middle == [0xff; 30] && last == 0x7f;
    is_0_or_1 || is_near_p || ORDER_8.contains(&y)
}

/// Whether an RSA modulus has the weakness of keys from Infineon chips, which can be factored (ROCA, CVE-2017-15361):
/// its remainder modulo every small prime is a power of 65537. A random modulus matches with a probability of 2^-167.
fn is_roca(n: &[u8]) -> bool {
    // For moduli of 2048 bits and more, the chips used at least these primes.
    let mut primes = (3..=701_u32).step_by(2).filter(|n| (3..*n).step_by(2).all(|divisor| n % divisor != 0));
    primes.all(|prime| {
        let rest = n.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        while power != rest {
            power = power * (65537 % prime) % prime;
            if power == 1 {
                return false;
            }
        }
        true
    })
}
