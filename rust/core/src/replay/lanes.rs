//! In virtual time, the order in which I/Os go down to filters that answer from what they hold.
//!
//! What such a filter hits depends on the order in which it is asked. Where an I/O waits for one
//! that it overlaps, those behind it wait, too, so that a run counts what a simulation of the
//! trace counts; those behind a write with preflush wait for that flush. Not so on the wall clock:
//! it would add to latencies that are measured there.

use std::collections::VecDeque;

use crate::filters::{Properties, Scope};
use crate::slab::IoId;

#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: IoId,
    /// Overlaps an I/O in flight, or one before it that waits.
    is_blocked: bool,
}

/// I/Os that wait, in the order of the trace.
#[derive(Debug, Clone, Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    /// A write that has begun with its preflush.
    flushing: Option<IoId>,
}

/// A lane a disk, or one for all.
pub(super) struct Lanes {
    /// None where each I/O starts as soon as it can.
    lanes: Vec<Lane>,
    is_group: bool,
}

impl Lanes {
    /// For filters that say this of themselves; `keeps_order` where time is virtual.
    pub fn new(declared: &[Properties], disks: usize, keeps_order: bool) -> Self {
        let asks = |scope| declared.iter().any(|p| p.may_answer && p.scope == scope);
        let is_group = asks(Scope::Group);
        let count = match keeps_order {
            false => 0,
            true if is_group => 1,
            true if asks(Scope::Disk) => disks,
            true => 0,
        };
        Self { lanes: vec![Lane::default(); count], is_group }
    }

    fn lane(&mut self, disk: u16) -> Option<&mut Lane> {
        let at = if self.is_group { 0 } else { usize::from(disk) };
        self.lanes.get_mut(at)
    }

    /// An I/O comes: does it wait? `is_blocked` where it must in any case.
    #[inline]
    pub fn waits(&mut self, id: IoId, disk: u16, is_blocked: bool) -> bool {
        match self.lane(disk) {
            Some(lane) if is_blocked || lane.flushing.is_some() || !lane.waiting.is_empty() => {
                lane.waiting.push_back(Waiting { id, is_blocked });
                true
            }
            _ => is_blocked,
        }
    }

    /// Nothing that it overlaps is in its way any more.
    pub fn unblock(&mut self, id: IoId, disk: u16) {
        let Some(lane) = self.lane(disk) else { return };
        if let Some(waiting) = lane.waiting.iter_mut().find(|waiting| waiting.id == id) {
            waiting.is_blocked = false;
        }
    }

    /// The next I/O of the disk's lane that may start now.
    pub fn next(&mut self, disk: u16) -> Option<IoId> {
        let lane = self.lane(disk).filter(|lane| lane.flushing.is_none())?;
        lane.waiting.front().filter(|first| !first.is_blocked)?;
        lane.waiting.pop_front().map(|first| first.id)
    }

    /// A write starts that goes down when its preflush is done.
    pub fn flushes(&mut self, id: IoId, disk: u16) {
        if let Some(lane) = self.lane(disk) {
            lane.flushing = Some(id);
        }
    }

    /// The write's preflush is done.
    pub fn flushed(&mut self, id: IoId, disk: u16) {
        if let Some(lane) = self.lane(disk).filter(|lane| lane.flushing == Some(id)) {
            lane.flushing = None;
        }
    }

    pub const fn is_used(&self) -> bool {
        !self.lanes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(scope: Scope) -> Properties {
        Properties { may_answer: true, scope, ..Properties::TRANSPARENT }
    }

    #[test]
    fn who_comes_after_one_that_waits_waits() {
        let mut lanes = Lanes::new(&[asked(Scope::Disk)], 2, true);
        assert!(!lanes.waits(0, 0, false));
        assert!(lanes.waits(1, 0, true));
        assert!(lanes.waits(2, 0, false));
        assert!(lanes.waits(3, 0, true));
        assert!(!lanes.waits(4, 1, false), "another disk has a lane of its own");
        assert_eq!(lanes.next(0), None);
        lanes.unblock(3, 0);
        assert_eq!(lanes.next(0), None, "not before those in front of it");
        lanes.unblock(1, 0);
        let mut started = || lanes.next(0);
        assert_eq!([started(), started(), started(), started()], [Some(1), Some(2), Some(3), None]);
        lanes.flushes(5, 1);
        assert!(lanes.waits(6, 1, false));
        assert_eq!(lanes.next(1), None);
        lanes.flushed(5, 1);
        assert_eq!(lanes.next(1), Some(6));
    }

    #[test]
    fn a_cache_of_a_group_has_one_lane_and_others_have_none() {
        let mut lanes = Lanes::new(&[asked(Scope::Group)], 2, true);
        assert!(lanes.waits(0, 0, true));
        assert!(lanes.waits(1, 1, false));
        let declared = [asked(Scope::Disk)];
        for mut lanes in [Lanes::new(&declared, 1, false), Lanes::new(&[], 1, true)] {
            assert!(lanes.waits(0, 0, true));
            assert!(!lanes.waits(1, 0, false));
        }
    }
}
