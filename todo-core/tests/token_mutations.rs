//! Property tests: a token that was changed in any way is rejected.
//!
//! The second form of an ECDSA signature is the only exception, and random changes do not find it (see
//! `jwt/algorithms.rs`).

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use futures_util::FutureExt as _;
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};
use testkit::tokens::{SigningKey, base64url, hs256};
use todo_core::{
    auth::{AuthError, JwkSet, JwtVerifier, KeySource, Refusal},
    clock::{FixedClock, Timestamp},
};

const NOW: i64 = 1_763_712_000;
const SECRET: &str = "a secret of more than thirty-two bytes, for these tests only";

fn claims(user: &str) -> Value {
    json!({ "iat": NOW, "name": "Änn", "sub": user, "exp": NOW + 900, "iss": "issuer", "aud": ["audience"] })
}

fn header(algorithm: &str) -> Value {
    json!({ "alg": algorithm, "typ": "JWT", "kid": "1" })
}

/// A change to the text of a token.
#[derive(Clone, Debug)]
enum Mutation {
    FlipBit(Index, u8),
    Replace(Index, char),
    Insert(Index, char),
    Remove(Index, Index),
    Truncate(Index),
    Behead(Index),
    Repeat(Index, Index),
    ChangeCase(Index),
    ChangeCaseOfAll,
    /// Two parts are exchanged.
    SwapParts(Index, Index),
    /// One part is replaced by that of another valid token.
    TakePart(Index),
    /// Header or claims are encoded in another way.
    Respell(bool, Spelling),
    /// The unused bits in the last character of a part are changed.
    SpareBits(Index, u8),
}

#[derive(Clone, Copy, Debug)]
enum Spelling {
    Pretty,
    Spaced,
    Reordered,
    Escaped,
    Padded,
    StandardAlphabet,
    FloatTimes,
}

fn visible_or_any() -> impl Strategy<Value = char> {
    prop_oneof![
        6 => prop::char::range('!', '~'),
        2 => prop::sample::select(vec![' ', '\t', '\n', '\0', '.', '=', '+', '/', '%']),
        1 => any::<char>(),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation as M;
    let spelling = prop::sample::select(vec![
        Spelling::Pretty,
        Spelling::Spaced,
        Spelling::Reordered,
        Spelling::Escaped,
        Spelling::Padded,
        Spelling::StandardAlphabet,
        Spelling::FloatTimes,
    ]);
    prop_oneof![
        4 => (any::<Index>(), 0..7_u8).prop_map(|(at, bit)| M::FlipBit(at, bit)),
        4 => (any::<Index>(), visible_or_any()).prop_map(|(at, letter)| M::Replace(at, letter)),
        3 => (any::<Index>(), visible_or_any()).prop_map(|(at, letter)| M::Insert(at, letter)),
        2 => any::<(Index, Index)>().prop_map(|(from, to)| M::Remove(from, to)),
        2 => any::<Index>().prop_map(M::Truncate),
        1 => any::<Index>().prop_map(M::Behead),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| M::Repeat(from, to)),
        2 => any::<Index>().prop_map(M::ChangeCase),
        1 => Just(M::ChangeCaseOfAll),
        1 => any::<(Index, Index)>().prop_map(|(one, two)| M::SwapParts(one, two)),
        1 => any::<Index>().prop_map(M::TakePart),
        3 => (any::<bool>(), spelling).prop_map(|(header, spelling)| M::Respell(header, spelling)),
        2 => (any::<Index>(), 1..16_u8).prop_map(|(part, bits)| M::SpareBits(part, bits)),
    ]
}

impl Mutation {
    fn apply(&self, token: &str, other: &str) -> String {
        let mut letters: Vec<char> = token.chars().collect();
        if letters.is_empty() {
            return String::new();
        }
        let length = letters.len();
        let range = |one: &Index, two: &Index| {
            let (one, two) = (one.index(length), two.index(length));
            one.min(two)..one.max(two) + 1
        };
        let swap_case = |letter: char| {
            if letter.is_ascii_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
        };
        match self {
            Self::FlipBit(at, bit) => {
                let letter = &mut letters[at.index(length)];
                *letter = char::from_u32(u32::from(*letter) ^ (1 << bit)).unwrap_or('?');
            }
            Self::Replace(at, letter) => letters[at.index(length)] = *letter,
            Self::Insert(at, letter) => letters.insert(at.index(length + 1), *letter),
            Self::Remove(from, to) => drop(letters.drain(range(from, to))),
            Self::Truncate(at) => letters.truncate(at.index(length)),
            Self::Behead(at) => drop(letters.drain(..=at.index(length))),
            Self::Repeat(from, to) => {
                let repeated = letters[range(from, to)].to_vec();
                let at = range(from, to).end;
                letters.splice(at..at, repeated);
            }
            Self::ChangeCase(at) => letters[at.index(length)] = swap_case(letters[at.index(length)]),
            Self::ChangeCaseOfAll => letters.iter_mut().for_each(|letter| *letter = swap_case(*letter)),
            Self::SwapParts(..) | Self::TakePart(_) | Self::Respell(..) | Self::SpareBits(..) => {
                let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
                self.apply_to_parts(&mut parts, other);
                return parts.join(".");
            }
        }
        letters.into_iter().collect()
    }

    fn apply_to_parts(&self, parts: &mut [String], other: &str) {
        let count = parts.len();
        match self {
            Self::SwapParts(one, two) => parts.swap(one.index(count), two.index(count)),
            Self::TakePart(at) => {
                if let Some(part) = other.split('.').nth(at.index(count)) {
                    part.clone_into(&mut parts[at.index(count)]);
                }
            }
            Self::Respell(is_header, spelling) => {
                let part = &mut parts[usize::from(!is_header && count > 1)];
                let respelt = spelling.apply(part);
                *part = respelt;
            }
            Self::SpareBits(at, bits) => {
                let part = &mut parts[at.index(count)];
                let spare = match part.len() % 4 {
                    2 => 0b1111,
                    3 => 0b11,
                    _ => 0,
                };
                let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                if let Some(value) = part.chars().last().and_then(|last| alphabet.find(last)) {
                    part.pop();
                    part.push(char::from(alphabet.as_bytes()[value ^ usize::from(bits & spare)]));
                }
            }
            _ => {}
        }
    }
}

impl Spelling {
    /// Encodes the same JSON in another way.
    fn apply(self, part: &str) -> String {
        let Some(bytes) = URL_SAFE_NO_PAD.decode(part).ok() else { return part.to_owned() };
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { return part.to_owned() };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match self {
            Self::Pretty => base64url(format!("{value:#}")),
            Self::Spaced => base64url(format!("{text} ")),
            Self::Reordered => {
                let members = value.as_object().into_iter().flatten();
                let mut members: Vec<_> = members.map(|(name, value)| format!("{}:{value}", json!(name))).collect();
                members.reverse();
                base64url(format!("{{{}}}", members.join(",")))
            }
            Self::Escaped => base64url(text.replacen('a', "\\u0061", 1)),
            Self::Padded => URL_SAFE.encode(bytes),
            Self::StandardAlphabet => STANDARD_NO_PAD.encode(bytes),
            Self::FloatTimes => base64url(text.replace(&NOW.to_string(), &format!("{NOW}.0"))),
        }
    }
}

/// A verifier, and valid tokens of two users.
struct Case {
    verifier: JwtVerifier,
    ann: String,
    bob: String,
}

impl Case {
    fn new(source: KeySource, sign: impl Fn(&Value) -> String) -> Self {
        let source = source.issuers(["issuer"]).audiences(["audience"]);
        let clock = FixedClock::at(Timestamp::from_unix_seconds(NOW));
        let verifier = JwtVerifier::builder().source(source).clock(clock).build().expect("the source is valid");
        let [ann, bob] = ["ann", "bob"].map(|user| sign(&claims(user)));
        Self { verifier, ann, bob }
    }

    fn of_key(key: &SigningKey) -> Self {
        let keys = JwkSet::from_json(&json!({ "keys": [key.jwk("1")] }).to_string()).expect("a key set");
        let header = header(key.algorithm()).to_string();
        Self::new(KeySource::jwks(keys), |claims| key.sign(key.algorithm(), &header, &claims.to_string()))
    }

    fn check(&self, cases: u32) {
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(mutations in prop::collection::vec(mutation(), 1..4))| {
            let mutated = mutations.iter().fold(self.ann.clone(), |token, mutation| mutation.apply(&token, &self.bob));
            let result = self.verifier.verify(&mutated).now_or_never().expect("no key has to be fetched");
            match result {
                Ok(identity) => {
                    let user = if mutated == self.ann { "ann" } else { "bob" };
                    prop_assert!([&self.ann, &self.bob].contains(&&mutated), "{mutated} is accepted");
                    prop_assert_eq!(identity.user_id.as_str(), user);
                }
                // The reason is always the form, the key or the signature, because claims are checked after them.
                Err(AuthError::Invalid(
                    Refusal::TooLong
                    | Refusal::Malformed
                    | Refusal::DuplicateMember
                    | Refusal::CriticalExtension
                    | Refusal::Type
                    | Refusal::Algorithm
                    | Refusal::UnknownKey
                    | Refusal::Signature,
                )) => prop_assert_ne!(&mutated, &self.ann),
                other => prop_assert!(false, "{other:?} for {mutated}"),
            }
        });
    }
}

#[test]
fn no_changed_hs256_token_is_accepted() {
    let source = KeySource::secrets([SECRET]).expect("the secret is valid");
    Case::new(source, |claims| hs256(SECRET.as_bytes(), &header("HS256").to_string(), &claims.to_string())).check(3000);
}

#[test]
fn no_changed_eddsa_token_is_accepted() {
    Case::of_key(&SigningKey::ed25519()).check(2000);
}

#[test]
fn no_changed_es256_token_is_accepted() {
    Case::of_key(&SigningKey::es256()).check(2000);
}

#[test]
fn no_changed_rs256_token_is_accepted() {
    Case::of_key(&SigningKey::rsa2048()).check(2000);
}

#[test]
fn a_token_with_any_bit_flipped_is_rejected() {
    let key = SigningKey::ed25519();
    let case = Case::of_key(&key);
    let letters = case.ann.as_bytes();
    for at in 0..letters.len() {
        for bit in 0..7 {
            let mut changed = letters.to_vec();
            changed[at] ^= 1 << bit;
            let changed = String::from_utf8(changed).expect("ASCII");
            let result = case.verifier.verify(&changed).now_or_never().expect("no key has to be fetched");
            assert!(matches!(result, Err(AuthError::Invalid(_))), "{result:?} for bit {bit} of byte {at}: {changed}");
        }
    }
}
