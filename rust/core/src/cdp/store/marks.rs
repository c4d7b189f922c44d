//! Anchors: where recovery may begin in a continuous stream that has no restore point there. Each
//! segment has one at its start, unless that lies in a hole: the state that the segments before it
//! lead to, and so what the base is once they are in it.

use super::{Owner, SegmentFile, StoredPoint, Term};
use crate::cdp::entry::{Entry, Kind};
use crate::clock::Ns;

/// What is known of a stream's state while its entries go by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// The time of the state after the last entry. None inside a resynchronisation, and before the
    /// first point: what is there is no state that ever was.
    state_ns: Option<Ns>,
    /// The newest restore point.
    last_id: u64,
    /// The segment of the last entry.
    segment: u64,
}

impl Marks {
    /// Before the first segment that is not in the base.
    #[must_use]
    pub const fn at_base(owner: &Owner) -> Self {
        Self { state_ns: owner.base_state_ns, last_id: owner.base_id, segment: 0 }
    }

    #[must_use]
    pub const fn state_ns(&self) -> Option<Ns> {
        self.state_ns
    }

    #[must_use]
    pub const fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Takes the next entry of a file: the anchor that lies before it, if it is the first there,
    /// and the restore point that it is.
    pub fn pass(
        &mut self,
        owner: &Owner,
        file: &SegmentFile,
        entry: &Entry,
    ) -> impl Iterator<Item = StoredPoint> + use<> {
        let anchor = self.anchor(owner, file, entry.no);
        self.segment = file.number;
        match entry.kind {
            Kind::Batch => self.state_ns = self.state_ns.map(|ns| ns.max(entry.last_ns)),
            Kind::ResyncBegin => self.state_ns = None,
            Kind::Point { id, cut_ns, .. } => {
                self.state_ns = Some(cut_ns);
                self.last_id = id;
            }
        }
        anchor.into_iter().chain(StoredPoint::of(entry, file.number))
    }

    fn anchor(&self, owner: &Owner, file: &SegmentFile, first_no: u64) -> Option<StoredPoint> {
        let after_no = first_no - 1;
        // In a merged file there is no state but that of its point.
        if file.number == self.segment || file.is_merged || !owner.is_continuous_at(after_no) {
            return None;
        }
        self.state_ns.map(|cut_ns| StoredPoint {
            id: self.last_id,
            cut_ns,
            after_no,
            no: after_no,
            segment: file.number,
            term: Term::Short,
            is_anchor: true,
        })
    }
}
