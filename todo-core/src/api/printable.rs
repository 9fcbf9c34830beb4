//! Texts of the client in texts of the server.

/// The maximum length in characters.
const MAX: usize = 50;

/// A text of the client as it may stand in a response or a log line: visible ASCII characters and spaces, at most
/// fifty.
pub(super) fn printable(text: &[u8]) -> String {
    let visible = |byte: &u8| if (b' '..=b'~').contains(byte) && *byte != b'`' { char::from(*byte) } else { '?' };
    let mut shown: String = text.iter().take(MAX).map(visible).collect();
    if text.len() > MAX {
        shown.push_str("...");
    }
    shown
}
