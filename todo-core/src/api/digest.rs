use aws_lc_rs::digest::{SHA256, digest};

/// The first 64 bits of SHA-256: enough to tell users and queries apart by mistake, and no secret.
pub(super) fn short_digest(text: &str) -> [u8; 8] {
    let mut start = [0; 8];
    start.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()).for_each(|(start, byte)| *start = *byte);
    start
}
