//! The site's door: places for peers that have not shown the key, and what is told of those that
//! are turned away. None of them costs a place of those that have it, and however many come, each
//! has a second for its handshake, and the log one line a second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock::Ns;

/// Peers without the key at one time, and how many are let in within a second. The others wait in
/// the kernel's queue, or try again.
pub const STRANGERS_MAX: usize = 128;
const SECOND_NS: Ns = 1_000_000_000;

/// A peer that has not shown the key: true when it has to make room.
pub type Stranger = Arc<AtomicBool>;

/// Who is at the door.
#[derive(Default)]
pub struct Door {
    /// Oldest first.
    strangers: VecDeque<Stranger>,
    /// When the last ones came, within a second.
    came_ns: VecDeque<Ns>,
    /// Turned away and not told yet, and the last of them.
    untold: u64,
    last: String,
    told_ns: Option<Ns>,
}

impl Door {
    /// Whether another may come in.
    pub fn is_open(&mut self, now: Ns) -> bool {
        while self.came_ns.front().is_some_and(|at| now >= at + SECOND_NS) {
            self.came_ns.pop_front();
        }
        self.came_ns.len() < STRANGERS_MAX
    }

    /// Another comes in. Where there is no place, whoever has been there for longest makes room:
    /// that is more than a second, since so many cannot have come in one.
    pub fn enter(&mut self, now: Ns) -> Stranger {
        self.came_ns.push_back(now);
        if self.strangers.len() >= STRANGERS_MAX
            && let Some(oldest) = self.strangers.pop_front()
        {
            oldest.store(true, Relaxed);
        }
        let stranger = Stranger::default();
        self.strangers.push_back(Arc::clone(&stranger));
        stranger
    }

    /// It is gone, or no stranger any more.
    pub fn leave(&mut self, stranger: &Stranger) {
        self.strangers.retain(|other| !Arc::ptr_eq(other, stranger));
    }

    /// One was turned away.
    pub fn refused(&mut self, what: String) {
        self.untold += 1;
        self.last = what;
    }

    /// The line about those turned away that is due: at once, then one a second.
    pub fn line(&mut self, now: Ns) -> Option<String> {
        let is_early = self.told_ns.is_some_and(|at| now < at + SECOND_NS);
        if self.untold == 0 || is_early {
            return None;
        }
        self.told_ns = Some(now);
        let last = std::mem::take(&mut self.last);
        match std::mem::take(&mut self.untold) - 1 {
            0 => Some(last),
            others => Some(format!("{last} (and {others} more before it)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_stranger_makes_room_after_its_second() {
        let mut door = Door::default();
        let first: Vec<Stranger> = (0..STRANGERS_MAX as u64).map(|i| door.enter(i)).collect();
        assert!(!door.is_open(SECOND_NS - 1));
        assert!(door.is_open(SECOND_NS));
        let _next = door.enter(SECOND_NS);
        assert!(first[0].load(Relaxed) && !first[1].load(Relaxed));
        // Who leaves by itself leaves a place; it has come within this second all the same.
        door.leave(&first[1]);
        assert!(!door.is_open(SECOND_NS));
        assert!(door.is_open(SECOND_NS + 1));
        let _next = door.enter(SECOND_NS + 1);
        assert!(!first[2].load(Relaxed));
    }

    #[test]
    fn many_refusals_are_one_line_a_second() {
        let mut door = Door::default();
        door.refused("a: refused".into());
        assert_eq!(door.line(5).as_deref(), Some("a: refused"));
        for _ in 0..10_000 {
            door.refused("b: refused".into());
            assert_eq!(door.line(6), None);
        }
        let told = "b: refused (and 9999 more before it)";
        assert_eq!(door.line(5 + SECOND_NS).as_deref(), Some(told));
        assert_eq!(door.line(5 + 2 * SECOND_NS), None);
    }
}
