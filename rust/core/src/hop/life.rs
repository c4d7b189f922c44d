//! The life of the virtual disk, told over the hop, and waited for.

use serde_json::Value;

use super::ring::Message;
use super::words::LIFE;
use crate::filters::Lifecycle;
use crate::io::Status;

/// An event as a message, and the words that go before it.
pub(super) fn told(event: Lifecycle<'_>) -> (Message, Vec<u8>) {
    let (code, bytes, text) = match event {
        Lifecycle::Message(text) => (0, 0, text.to_vec()),
        Lifecycle::Stun => (1, 0, Vec::new()),
        Lifecycle::Unstun => (2, 0, Vec::new()),
        Lifecycle::Snapshot(name) => (3, 0, name.into()),
        Lifecycle::Consolidate => (4, 0, Vec::new()),
        Lifecycle::Clone(name) => (5, 0, name.into()),
        Lifecycle::Resize(bytes) => (6, bytes, Vec::new()),
        Lifecycle::Migrate(to) => (7, 0, to.into()),
        Lifecycle::Configure(params) => (8, 0, params.to_string().into_bytes()),
    };
    (Message { code, a: bytes, ..Message::of(LIFE) }, text)
}

/// The event of a message, as it was told.
pub(super) fn heard(
    message: &Message,
    text: &[u8],
    tell: impl FnOnce(Lifecycle<'_>) -> Result<(), Status>,
) -> Result<(), Status> {
    let words = String::from_utf8_lossy(text);
    match message.code {
        0 => tell(Lifecycle::Message(text)),
        1 => tell(Lifecycle::Stun),
        2 => tell(Lifecycle::Unstun),
        3 => tell(Lifecycle::Snapshot(&words)),
        4 => tell(Lifecycle::Consolidate),
        5 => tell(Lifecycle::Clone(&words)),
        6 => tell(Lifecycle::Resize(message.a)),
        7 => tell(Lifecycle::Migrate(&words)),
        8 => tell(Lifecycle::Configure(&serde_json::from_slice(text).unwrap_or(Value::Null))),
        _ => Err(libc::EINVAL),
    }
}
