//! What a source needs of the way to its replica. Two things implement it: a modelled link with
//! the replica at its far end, in virtual time, and a TLS connection on the wall clock.

use super::frame::Frame;
use crate::backends::waker::Waker;
use crate::clock::Ns;

/// What a link has to tell.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected: frames may be sent.
    Up,
    /// Not connected any more, and why. What was sent may or may not have arrived.
    Down(String),
    /// As `Down`: whoever answered has another key than this end.
    Stranger(String),
    /// A frame from the far end, and how long it was on its way.
    Frame { frame: Frame, one_way_ns: Ns },
}

/// A confirmation that names no points.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// When it came.
    pub at_ns: Ns,
    pub received_no: u64,
    pub durable_no: u64,
    pub one_way_ns: Ns,
}

/// A way to the replica. Frames arrive in their order, or the link goes down.
pub trait Link: Send {
    /// Begins to connect; `Up` or `Down` follows.
    fn connect(&mut self, now: Ns);

    /// Breaks the connection; a `Down` follows.
    fn reset(&mut self, now: Ns, why: &str);

    /// Takes a frame for sending.
    fn send(&mut self, now: Ns, frame: Frame);

    /// Whether another entry is needed to keep the line busy.
    fn wants(&self, now: Ns) -> bool;

    /// Appends what has happened by `now`.
    fn poll(&mut self, now: Ns, out: &mut Vec<LinkEvent>);

    /// Whether `poll` has anything new to give, or the line wants more.
    fn is_ready(&self) -> bool {
        false
    }

    /// When a model will next have something to tell.
    fn next_event_ns(&self) -> Option<Ns> {
        None
    }

    /// Takes a confirmation without points that came before `before_ns`, where it is what came
    /// next: for a source that is not in a hurry, and spares `poll`'s look at everything.
    fn take_ack(&mut self, before_ns: Ns) -> Option<Ack> {
        let _ = before_ns;
        None
    }

    /// As `next_event_ns`, but for what `take_ack` gives.
    fn next_news_ns(&self) -> Option<Ns> {
        self.next_event_ns()
    }

    /// When a model will want another entry, if not already when it was last looked at.
    fn wants_at_ns(&self) -> Option<Ns> {
        None
    }

    /// Not shaped while the disks are seeded before the run; counted is from then on.
    fn shape(&mut self, on: bool, now: Ns) {
        let _ = (on, now);
    }

    /// What ends the worker's sleep when there is something to tell.
    fn wake_by(&mut self, waker: Waker) {
        let _ = waker;
    }

    /// Ends the connection in good order and gives what the link has counted, as JSON.
    fn close(&mut self, now: Ns) -> serde_json::Value {
        let _ = now;
        serde_json::Value::Null
    }
}
