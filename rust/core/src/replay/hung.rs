//! A filter that lets go of nothing that it holds: which, since what, and what it costs.
//!
//! A callback that does not return is another matter: the process that started the round sees it
//! in the record of foreign filters, and ends the round from outside.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::json;

use super::chain::place_in_policy;
use super::options::Options;
use super::worker::{Phase, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::filters::foreign;
use crate::hop;
use crate::pipeline::{Event, Holding};

/// Whether the filter of a layer is of another make, here or behind a hop.
pub(super) fn is_foreign(options: &Options, layer: usize) -> bool {
    let name = |layer: usize| options.filters.get(layer).map_or("", |spec| spec.name.as_str());
    match name(layer) {
        hop::LAYER => foreign::is_meant(name(layer + 1)),
        own => foreign::is_meant(own),
    }
}

impl Worker {
    /// A filter of another make that lets go of nothing for too long ends the round, or its disk
    /// alone where it has a process of its own.
    ///
    /// # Errors
    /// `Hung`, with the filter, the callback and the I/O; an event tells the same.
    pub(super) fn look_for_hung(&mut self) -> Result<()> {
        self.look_for_failed()?;
        let Some(holding) = self.pipeline.find_hung() else { return Ok(()) };
        let how = format!("let go of no I/O in {} s", self.options.hang_ns as f64 / 1e9);
        let reason = self.words(&holding, &how, false);
        if self.pipeline.give_up(holding.disk, holding.layer, &detail(&holding, &reason)) {
            return Ok(());
        }
        // By now it may know what it is at.
        self.look_for_failed()?;
        Err(self.hung(&holding, &how))
    }

    /// A filter that says itself that it cannot do its work ends the round.
    ///
    /// # Errors
    /// `Hung` with the filter and its words where it is of another make, else `Input`.
    fn look_for_failed(&mut self) -> Result<()> {
        let Some((disk, layer, why)) = self.pipeline.failed() else { return Ok(()) };
        if !is_foreign(&self.options, layer.into()) {
            return Err(Error::input(why));
        }
        let own = usize::from(layer)
            + usize::from(self.options.filters[layer as usize].name == hop::LAYER);
        let name = self.options.filters[own].word();
        let place = place_in_policy(&self.options, own);
        let disk_name = &self.shared.disk_names[self.disks[disk as usize] as usize];
        let detail = |reason: &str| json!({ "reason": reason, "callback": null, "io": null });
        if self.pipeline.give_up(disk, layer, &detail(&why).to_string()) {
            return Ok(());
        }
        let reason = format!("filter[{place}] {name:?} {why} of disk {disk_name}");
        let detail = detail(&reason).to_string();
        Err(self.end_by(disk, own as u8, reason, detail))
    }

    /// Nothing is to come any more, and I/Os are under way.
    pub(super) fn stuck(&mut self) -> Error {
        if let Err(error) = self.look_for_failed() {
            return error;
        }
        match self.pipeline.any_holding() {
            Some(holding) if is_foreign(&self.options, holding.layer.into()) => {
                self.hung(&holding, "it waits for nothing")
            }
            Some(holding) => Error::failed(self.words(&holding, "it waits for nothing", true)),
            None => Error::failed(format!("{} I/Os wait for nothing", self.in_flight)),
        }
    }

    /// A filter sets timers for one moment of virtual time without end: no I/O is to blame.
    pub(super) fn stormed(&mut self, disk: u16, layer: u8) -> Error {
        let name = self.options.filters[layer as usize].word();
        let reason = format!(
            "filter[{}] {name:?} hung (it sets timers for one moment without end) in timer (disk \
             {})",
            place_in_policy(&self.options, layer.into()),
            self.shared.disk_names[self.disks[disk as usize] as usize],
        );
        let detail = json!({ "reason": reason, "callback": "timer", "io": null }).to_string();
        self.end_by(disk, layer, reason, detail)
    }

    /// I/Os that are under way long after the stop.
    pub(super) fn overdue(&self) -> Error {
        let late = format!("{} I/Os did not complete within 30 s of the stop", self.in_flight);
        Error::failed(match self.pipeline.any_holding() {
            Some(holding) => format!("{late}: {}", self.words(&holding, "30 s", true)),
            None => late,
        })
    }

    fn hung(&mut self, holding: &Holding, how: &str) -> Error {
        let reason = self.words(holding, how, true);
        let layer = holding.layer + u8::from(self.is_hop(holding));
        let detail = detail(holding, &reason);
        self.end_by(holding.disk, layer, reason, detail)
    }

    /// The round ends by a filter, told by an event.
    fn end_by(&mut self, disk: u16, layer: u8, reason: String, detail: String) -> Error {
        let at_ns = self.pipeline.core.clock.now();
        let event = Event { at_ns, disk, layer, kind: "filter_hang", detail };
        self.pipeline.core.events.push(event);
        self.send_events();
        // The other workers have nothing to wait for.
        self.shared.stop.store(true, Relaxed);
        Error::new(ErrorKind::Hung, reason)
    }

    fn is_hop(&self, holding: &Holding) -> bool {
        self.options.filters[holding.layer as usize].name == hop::LAYER
    }

    fn words(&self, holding: &Holding, how: &str, names_filter: bool) -> String {
        let layer = holding.layer as usize + usize::from(self.is_hop(holding));
        let disk = &self.shared.disk_names[self.disks[holding.disk as usize] as usize];
        let Holding { op, offset_bytes, length_bytes, ios, .. } = *holding;
        let more = if ios > 1 { format!(", and {} more", ios - 1) } else { String::new() };
        let io = match (self.phase, seq_of(holding)) {
            (_, Some(seq)) => format!("I/O {seq}"),
            (Phase::Prefill, None) => "an I/O of the prefill".to_owned(),
            (_, None) => "an I/O that is not of the trace".to_owned(),
        };
        let what = format!(
            "hung ({how}) after {} of {io} ({} of {length_bytes} bytes at offset {offset_bytes} of \
             {disk}){more}",
            callback(holding),
            op.name(),
        );
        if names_filter {
            let name = self.options.filters[layer].word();
            format!("filter[{}] {name:?} {what}", place_in_policy(&self.options, layer))
        } else {
            what
        }
    }
}

const fn callback(holding: &Holding) -> &'static str {
    if holding.is_up { "io_complete" } else { "io_start" }
}

/// Its number in the trace: a prefill's has none.
fn seq_of(holding: &Holding) -> Option<u64> {
    Some(holding.seq).filter(|seq| *seq != u64::MAX)
}

fn detail(holding: &Holding, reason: &str) -> String {
    let io = seq_of(holding);
    json!({ "reason": reason, "callback": callback(holding), "io": io }).to_string()
}
