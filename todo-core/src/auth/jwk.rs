//! Public keys from a JWK set (RFC 7517), read strictly: what is odd about a key is a reason not to use it.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;

use crate::json::{Json, get};

/// The signature algorithms that a token may name (RFC 7518, section 3.1, RFC 8037, RFC 9864).
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
            // RFC 9864 gives `EdDSA` with the curve Ed25519 a name of its own.
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

/// A key that checks signatures, of one family.
#[derive(Clone, Debug)]
enum Material {
    Ed25519(DecodingKey),
    P256(DecodingKey),
    P384(DecodingKey),
    /// `jsonwebtoken` has no ES512, so this one goes to aws-lc directly.
    P521(ParsedPublicKey),
    Rsa(DecodingKey),
}

/// One key of a set.
#[derive(Clone, Debug)]
pub(crate) struct Jwk {
    pub(crate) kid: Option<String>,
    /// The one algorithm that the key says it is for.
    alg: Option<Algorithm>,
    material: Material,
}

impl Jwk {
    /// Whether this key may check a signature of this algorithm: the key decides, never the token.
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

    /// Whether `signature` (base64url) is this key's over `message`.
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

/// The public keys of one issuer, from a JWK set document (RFC 7517, section 5).
///
/// A key that cannot be used is left out and the others count: an unknown `kty` or `crv`, `use` other than `sig`,
/// `key_ops` without `verify`, an `alg` that does not fit its kind, RSA under 2048 bits or of the kind that can be
/// factored (ROCA), a point that is not on its curve or of small order, a member given twice. `alg` may be missing; then
/// the kind of key decides. Symmetric keys (`oct`) are never used: a secret has no place in a public document.
///
/// ```
/// use todo_core::auth::JwkSet;
///
/// let set = JwkSet::from_json(r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1",
///     "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#)?;
/// assert_eq!(set.len(), 1);
/// # Ok::<(), todo_core::auth::InvalidJwks>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: Vec<Jwk>,
    left_out: usize,
}

/// Why a document is no JWK set that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJwks {
    /// It is not a JSON object with an array `keys` of objects.
    #[error("is not a JWK set")]
    NotJwks,
    /// It holds a secret or a private key: whoever reads it can sign, so nothing that it signs counts.
    #[error("holds a secret or private key, which must never be published")]
    Secret,
    /// Two keys have the same `kid`, so a token does not say which it means.
    #[error("holds two keys with the same kid")]
    DuplicateKid,
    /// It holds more keys than anybody needs.
    #[error("holds more than 100 keys")]
    TooManyKeys,
}

/// Members that only a private or a symmetric key has (RFC 7518, section 6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl JwkSet {
    /// Reads a document. A set without keys is one that checks nothing, not an error.
    ///
    /// # Errors
    ///
    /// See [`InvalidJwks`].
    pub fn from_json(document: &str) -> Result<Self, InvalidJwks> {
        let document = Json::parse(document.as_bytes()).map_err(|_| InvalidJwks::NotJwks)?;
        let Json::Object(members) = document else {
            return Err(InvalidJwks::NotJwks);
        };
        let mut found = members.into_iter().filter(|(name, _)| name == "keys").map(|(_, value)| value);
        let (Some(Json::Array(values)), None) = (found.next(), found.next()) else {
            return Err(InvalidJwks::NotJwks);
        };
        if values.len() > 100 {
            return Err(InvalidJwks::TooManyKeys);
        }
        let mut set = Self::default();
        let mut kids = std::collections::BTreeSet::new();
        for value in values {
            let Json::Object(members) = &value else {
                return Err(InvalidJwks::NotJwks);
            };
            if PRIVATE_MEMBERS.iter().any(|name| get(members, name).is_some()) {
                return Err(InvalidJwks::Secret);
            }
            if let Some(kid) = value.get("kid").and_then(Json::as_str)
                && !kids.insert(kid.to_owned())
            {
                return Err(InvalidJwks::DuplicateKid);
            }
            match value.into_unambiguous_object().and_then(|members| read_key(&members)) {
                Some(key) => set.keys.push(key),
                None => set.left_out += 1,
            }
        }
        Ok(set)
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys of the document were left out, because they cannot be used.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The key that a token means. Without `kid` there must be no choice.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Jwk> {
        match kid {
            Some(kid) => self.keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            None => {
                let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
                fitting.next().filter(|_| fitting.next().is_none())
            }
        }
    }
}

fn read_key(members: &[(String, Json)]) -> Option<Jwk> {
    let text = |name| get(members, name).map(Json::as_str);
    // `text("kid")`: absent is None, present but no string is Some(None) and spoils the key.
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
            // Refuses a point that is not on the curve.
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
            // An exponent of 1 verifies everything, an even one is no RSA key, a huge one burns time.
            let exponent_fits = (1..=4).contains(&e.len()) && e.last()? & 1 == 1 && e != [1];
            if !(2048..=8192).contains(&bits) || !exponent_fits || is_roca(n) {
                return None;
            }
            Material::Rsa(DecodingKey::from_rsa_raw_components(n, e))
        }
        _ => return None,
    };
    let key = Jwk { kid, alg, material };
    // An `alg` of another family than the key.
    if key.alg.is_some_and(|alg| !key.fits(alg)) { None } else { Some(key) }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]
}

/// Whether an Ed25519 key is one of the eight points for which anybody can write signatures.
fn has_small_order(mut y: [u8; 32]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\
           \xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
        *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\
           \x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
    ];
    // The sign of the other coordinate.
    y[31] &= 0x7f;
    let [first, middle @ .., last] = y;
    let is_0_or_1 = first <= 1 && middle == [0; 30] && last == 0;
    // With p = 2^255 - 19: p - 1, and 0 and 1 written as p and p + 1.
    let is_near_p = (0xec..=0xee).contains(&first) && middle == [0xff; 30] && last == 0x7f;
    is_0_or_1 || is_near_p || ORDER_8.contains(&y)
}

/// Whether an RSA modulus is one that Infineon's chips made, which can be factored (ROCA, CVE-2017-15361): its rest by
/// every small prime is a power of 65537. By chance that is so once in 2^167.
fn is_roca(n: &[u8]) -> bool {
    // For moduli of 2048 bits and more, the chips used these primes at least.
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
