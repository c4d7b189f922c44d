//! What the two sides say to each other. Fields that a kind does not name are not looked at.

use super::ring::Message;

/// From the chain's side. `b` is its time, `disk` the I/O's; each is answered by one [`ANSWER`].
pub(super) const START: u8 = 1;
/// `io` and `status`.
pub(super) const COMPLETE: u8 = 2;
/// A child: `io` and `status`.
pub(super) const CHILD_DONE: u8 = 3;
pub(super) const ABORT: u8 = 4;
/// `a` is the token.
pub(super) const TIMER: u8 = 5;
/// `a` slots.
pub(super) const OPEN: u8 = 6;
pub(super) const CLOSE: u8 = 7;
pub(super) const END: u8 = 8;
pub(super) const POLL: u8 = 9;
/// Answered by [`GAUGE`]s and one [`GAUGED`] first.
pub(super) const ASK_GAUGES: u8 = 10;
pub(super) const STOP: u8 = 11;
/// `code` is the event's, `a` its size in bytes; the text before it is its words.
pub(super) const LIFE: u8 = 12;

/// From the far side. A callback is over: `io` is whom its time is booked to, from `a` to `b`;
/// `code` what it answered, `flags` as below.
pub(super) const ANSWER: u8 = 32;
/// A child `io` of `root` (or of none) with its bytes at `data`; `a` is its tag, `status` the
/// auxiliary device or -1; at `b`.
pub(super) const FORK: u8 = 33;
/// `io`, at `b`.
pub(super) const RESUME: u8 = 34;
/// `io` with `status`, at `b`.
pub(super) const FINISH: u8 = 35;
/// `a` blocks, `b` hits of `io`.
pub(super) const COUNT: u8 = 36;
/// At `a`, token `b`.
pub(super) const SET_TIMER: u8 = 37;
/// At `a`; the text before it is its kind, a line end, its detail.
pub(super) const EVENT: u8 = 38;
/// As ANSWER, of what the far side did of its own accord.
pub(super) const STATE: u8 = 39;
/// The text before it says why the filter cannot do its work.
pub(super) const FAILURE: u8 = 40;
/// The filter is built.
pub(super) const READY: u8 = 41;
/// The text before it is the name, `a` the value.
pub(super) const GAUGE: u8 = 42;
/// What the far side has used: user ns, system ns, and switches of both kinds in the long fields.
pub(super) const GAUGED: u8 = 43;
/// A piece of text for the message that follows.
pub(super) const TEXT: u8 = 44;

/// What belongs to the last ANSWER has been said.
pub(super) const OVER: u8 = 45;

/// Codes of an ANSWER.
pub(super) const PASS: u8 = 0;
pub(super) const DONE: u8 = 1;
pub(super) const FAIL: u8 = 2;
pub(super) const DEFER: u8 = 3;
/// The callback was none that answers.
pub(super) const TOLD: u8 = 4;

/// It tells by `status` whether it could do what a [`LIFE`] asked.
pub(super) const DID: u8 = 5;

/// Flags of an ANSWER: the filter is busy; the I/O waits for children; an [`OVER`] follows.
pub(super) const BUSY: u32 = 1;
pub(super) const HAS_CHILDREN: u32 = 2;
pub(super) const MORE: u32 = 4;

/// Bytes of text in one message.
const PIECE: usize = 48;

/// Text as messages.
pub(super) fn pieces(text: &[u8]) -> impl Iterator<Item = Message> + '_ {
    text.chunks(PIECE).map(|piece| {
        let mut bytes = [0; PIECE];
        bytes[..piece.len()].copy_from_slice(piece);
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
            u64::from_le_bytes(word)
        };
        Message {
            code: piece.len() as u8,
            offset_bytes: word(0),
            length_bytes: word(1),
            a: word(2),
            b: word(3),
            data: word(4),
            data_bytes: word(5) as u32,
            root: (word(5) >> 32) as u32,
            ..Message::of(TEXT)
        }
    })
}

/// Puts a piece behind those before it.
pub(super) fn gather(text: &mut Vec<u8>, piece: &Message) {
    let last = u64::from(piece.data_bytes) | u64::from(piece.root) << 32;
    let words = [piece.offset_bytes, piece.length_bytes, piece.a, piece.b, piece.data, last];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    text.extend_from_slice(&bytes[..(piece.code as usize).min(PIECE)]);
}

/// The text that was gathered; the next begins.
pub(super) fn take(text: &mut Vec<u8>) -> String {
    String::from_utf8_lossy(&std::mem::take(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_length_arrives_whole() {
        for length in [0, 1, 47, 48, 49, 1000] {
            let text: String = (0..length).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
            let mut gathered = Vec::new();
            for piece in pieces(text.as_bytes()) {
                gather(&mut gathered, &piece);
            }
            assert_eq!(take(&mut gathered), text);
        }
    }
}
