//! What reaches filters beside I/O: their place, the life of the virtual disk, and the giving up of
//! an I/O.

use std::cmp::Reverse;

use super::Pipeline;
use crate::error::Result;
use crate::filters::{Cx, Lifecycle};
use crate::io::Status;
use crate::slab::IoId;

/// Timers that are called at one look at the clock.
const TIMERS_MAX: u32 = 100_000;

impl Pipeline {
    /// Brings filters that are placed elsewhere to their place. Call once, before `open`, on the
    /// thread that drives the pipeline.
    ///
    /// # Errors
    /// `Input` when a filter cannot be built there, `Failed` when there is no such place.
    pub fn place(&mut self) -> Result<()> {
        for instance in self.chains.iter_mut() {
            let (disk, layer) = (instance.disk, instance.layer);
            instance.filter.place(&mut Cx { core: &mut self.core, layer, disk })?;
        }
        Ok(())
    }

    /// What filters have used of the machine in other processes.
    #[must_use]
    pub fn used_elsewhere(&self) -> crate::usage::Used {
        let mut sum = [0; 4];
        for instance in self.chains.instances() {
            for (sum, used) in sum.iter_mut().zip(instance.filter.used_elsewhere()) {
                *sum += used;
            }
        }
        sum
    }

    /// Tells every filter of a disk, top to bottom; gives the layers that refused, with why.
    /// Background I/Os that this starts are done when the pipeline `is_idle`.
    pub fn tell(&mut self, disk: u16, event: Lifecycle<'_>) -> Vec<(u8, Status)> {
        let mut refused = Vec::new();
        for layer in 0..self.filters {
            let mut cx = Cx { core: &mut self.core, layer: layer as u8, disk };
            let filter = self.chains.get(disk as usize, layer);
            if let Err(status) = filter.lifecycle(&mut cx, event) {
                refused.push((layer as u8, status));
            }
        }
        self.run_actions();
        refused
    }

    /// Calls the filters whose timers are due. In virtual time a filter can set one after the other
    /// for this very moment: there is an end to that, see [`Pipeline::storm`].
    pub(super) fn fire_timers(&mut self) {
        let now = self.core.clock.now();
        for _ in 0..TIMERS_MAX {
            if self.core.timers.peek().is_none_or(|Reverse((at, ..))| *at > now) {
                return;
            }
            let Some(Reverse((_, _, disk, layer, token))) = self.core.timers.pop() else { return };
            let mut cx = Cx { core: &mut self.core, layer, disk };
            self.chains.get(disk as usize, layer as usize).timer(&mut cx, token);
            self.run_actions();
        }
        self.watch.storm = self.core.timers.peek().map(|Reverse(timer)| (timer.2, timer.3));
    }

    /// Tells the filter that holds an I/O that the driver gives it up. It is done when the filter
    /// has finished it, as every I/O; false where no filter holds it, but the backend.
    pub fn abort(&mut self, id: IoId) -> bool {
        let io = self.core.slab.io(id);
        let (layer, disk) = (io.layer, io.disk);
        if layer as usize >= self.filters {
            return false;
        }
        let mut cx = Cx { core: &mut self.core, layer, disk };
        self.chains.get(disk as usize, layer as usize).io_abort(&mut cx, id);
        self.run_actions();
        true
    }
}
