//! The tokens with which clients say how far they have followed the changes of their tasks.

use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use super::digest::short_digest;
use crate::{
    TaskId, UserId,
    store::{Revision, SyncPoint},
};

/// A point in the changes of one owner.
///
/// The text is base64url of a version byte, the start of the digest of the owner, two revisions and perhaps the id of
/// a task. A point has exactly one text. It is no secret and proves nothing: the store checks the point, and the caller
/// of a request is always the owner whose changes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SyncToken {
    owner: [u8; 8],
    point: SyncPoint,
}

/// The text is not a token of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a token from an earlier response")]
pub(super) struct NotAToken;

const VERSION: u8 = 1;
/// Of a token with an id, in bytes.
const MAX_BYTES: usize = 1 + 8 + 8 + 8 + 16;
/// The maximum number of characters.
#[cfg(feature = "openapi")]
pub(super) const MAX_CHARS: usize = (MAX_BYTES * 8).div_ceil(6);

impl SyncToken {
    pub(super) fn new(owner: &UserId, point: SyncPoint) -> Self {
        Self { owner: short_digest(owner.as_str()), point }
    }

    /// The point, if the token is one of this owner.
    pub(super) fn point_of(self, owner: &UserId) -> Option<SyncPoint> {
        (self.owner == short_digest(owner.as_str())).then_some(self.point)
    }

    pub(super) fn text(self) -> String {
        let mut bytes = Vec::with_capacity(MAX_BYTES);
        bytes.push(VERSION);
        bytes.extend(self.owner);
        bytes.extend(self.point.revision.get().to_be_bytes());
        bytes.extend(self.point.begun.get().to_be_bytes());
        if let Some(id) = self.point.id {
            bytes.extend(id.as_uuid().as_bytes());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

impl FromStr for SyncToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        fn revision(bytes: [u8; 8]) -> Option<Revision> {
            Some(i64::from_be_bytes(bytes)).filter(|number| *number >= 0).map(Revision::new)
        }
        fn read(bytes: &[u8]) -> Option<SyncToken> {
            let (&[VERSION], rest) = bytes.split_first_chunk()? else { return None };
            let (owner, rest) = rest.split_first_chunk()?;
            let (last, rest) = rest.split_first_chunk()?;
            let (begun, rest) = rest.split_first_chunk()?;
            let id = match rest {
                [] => None,
                id => Some(TaskId::from(Uuid::from_bytes(id.try_into().ok()?))),
            };
            let point = SyncPoint { revision: revision(*last)?, id, begun: revision(*begun)? };
            Some(SyncToken { owner: *owner, point })
        }
        // Strict: without padding, and the bits after the last byte are 0.
        URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| read(&bytes)).ok_or(NotAToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::new(id).expect("a user id")
    }

    fn point(revision: i64, id: Option<u128>, begun: i64) -> SyncPoint {
        let id = id.map(|id| TaskId::from(Uuid::from_u128(id)));
        SyncPoint { revision: Revision::new(revision), id, begun: Revision::new(begun) }
    }

    #[test]
    fn tokens_are_read_as_they_are_written() {
        for point in [
            SyncPoint::default(),
            point(1, None, 0),
            point(1_763_712_000_000_000, Some(u128::MAX), 1_763_712_000_000_000),
            point(i64::MAX, Some(0), i64::MAX),
        ] {
            let text = SyncToken::new(&user("ann"), point).text();
            let token: SyncToken = text.parse().expect(&text);
            assert_eq!(token.point_of(&user("ann")), Some(point), "{text}");
            assert_eq!(token.point_of(&user("bob")), None, "{text}");
            #[cfg(feature = "openapi")]
            assert!(text.len() <= MAX_CHARS, "{text}");
        }
    }

    #[test]
    fn a_token_of_version_1_has_this_text() {
        let text = SyncToken::new(&user("ann"), point(258, Some(7), 3)).text();
        assert_eq!(text, "AUmRXg19S0AuAAAAAAAAAQIAAAAAAAAAAwAAAAAAAAAAAAAAAAAAAAc");
    }

    #[test]
    fn other_texts_are_not_tokens() {
        let good = SyncToken::new(&user("ann"), point(5, None, 3)).text();
        let bytes = URL_SAFE_NO_PAD.decode(&good).expect("base64url");
        let encoded = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        for text in [
            String::new(),
            "x".to_owned(),
            "%00".to_owned(),
            good.clone() + "=",
            // The same bytes with other bits after the last one.
            good[..good.len() - 1].to_owned() + "x",
            " ".to_owned() + &good,
            good.replace('A', "+"),
            encoded(&|bytes| bytes[0] = 2),
            encoded(&|bytes| bytes[9] = 0x80),
            encoded(&|bytes| bytes[17] = 0x80),
            encoded(&|bytes| bytes.truncate(24)),
            encoded(&|bytes| bytes.push(0)),
            encoded(&|bytes| bytes.extend([0; 15])),
            encoded(&|bytes| bytes.extend([0; 17])),
        ] {
            assert_eq!(text.parse::<SyncToken>(), Err(NotAToken), "{text}");
        }
        assert!(encoded(&|bytes| bytes.extend([0; 16])).parse::<SyncToken>().is_ok());
    }
}
