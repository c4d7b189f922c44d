//! What the source asks for, and the events that its words become.

use serde_json::{Value, json};

use super::{Cdp, Cx, Ns, OK, Output};

impl Cdp {
    /// Does what the source asks for.
    pub(super) fn act(&mut self, cx: &mut Cx<'_>) {
        if self.source.outputs.is_empty() {
            return;
        }
        let mut outputs = std::mem::take(&mut self.source.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Release { no } => {
                    while let Some(io) = self.waiters.take_to(no) {
                        cx.finish(io, OK);
                    }
                }
                Output::ReleaseAll => {
                    while let Some(io) = self.waiters.take_to(u64::MAX) {
                        cx.finish(io, OK);
                    }
                }
                Output::Fatal { message } => {
                    cx.event("replication_refused", json!({"reason": message}).to_string());
                    self.fatal = Some(message);
                }
                Output::Synced { to_ns, of_bytes, sent_bytes, equal_bytes } => {
                    let detail = json!({
                        "of_bytes": of_bytes, "sent_bytes": sent_bytes,
                        "equal_bytes": equal_bytes, "took_ns": to_ns - self.began_ns,
                    });
                    if self.opened > 1 {
                        cx.event_for_all("initial_sync", &detail.to_string());
                    } else {
                        self.synced = Some(detail);
                    }
                }
                told if self.opened > 1 || self.settings.config.data != cx.data_mode() => {
                    self.tell(cx, told);
                }
                told => self.tell_once_started(cx, told),
            }
        }
        if self.source.outputs.is_empty() {
            self.source.outputs = outputs;
        }
    }

    /// What was counted, and what of it no replica has confirmed at the end of the run.
    pub(super) fn totals(&mut self, now: Ns) -> Value {
        let source = &self.source;
        let left = json!({
            "points": source.unconfirmed_points(),
            "bytes": source.backlog_bytes(),
            "hole": source.open_hole().map(|(_, reason)| reason),
            "down": (!source.is_up()).then_some(&source.last_trouble),
        });
        json!({"source": source.counts(), "left": left, "link": self.link.close(now)})
    }

    /// Before the trace starts only trouble is worth telling.
    fn tell_once_started(&self, cx: &mut Cx<'_>, told: Output) {
        if matches!(told, Output::Link { .. }) {
            self.tell(cx, told);
        }
    }

    fn tell(&self, cx: &mut Cx<'_>, told: Output) {
        let (kind, detail) = match told {
            Output::Point { id, cut_ns, recoverable_ns, bytes } => {
                let (cut, at) = (cx.since_start(cut_ns), cx.since_start(recoverable_ns));
                if cut < 0 {
                    return;
                }
                let detail = json!({
                    "id": id, "cut_ns": cut, "recoverable_ns": at, "bytes": bytes
                });
                ("restore_point", detail)
            }
            Output::Hole { from_ns, to_ns, reason, resync } => {
                let from = cx.since_start(from_ns).max(0);
                let detail = json!({
                    "from_ns": from, "to_ns": cx.since_start(to_ns), "reason": reason,
                    "resync_bytes": resync.sent_bytes,
                    "resync_compared_bytes": resync.compared_bytes,
                    "resync_equal_bytes": resync.equal_bytes,
                });
                ("hole", detail)
            }
            Output::Syncing { done_bytes, of_bytes, sent_bytes, equal_bytes } => {
                let detail = json!({
                    "done_bytes": done_bytes, "of_bytes": of_bytes, "sent_bytes": sent_bytes,
                    "equal_bytes": equal_bytes,
                });
                ("syncing", detail)
            }
            Output::SpillFailed { status } => {
                let error = std::io::Error::from_raw_os_error(status);
                let what = format!("the journal's spill file cannot be written: {error}");
                ("fault", json!({ "what": what }))
            }
            Output::Mode(mode) => ("mode", json!({"mode": mode.name()})),
            Output::Link { up: true, .. } => ("link", json!({"state": "up"})),
            Output::Link { up: false, why } => ("link", json!({"state": "down", "why": why})),
            Output::Release { .. }
            | Output::ReleaseAll
            | Output::Synced { .. }
            | Output::Fatal { .. } => return,
        };
        cx.event_for_all(kind, &detail.to_string());
    }
}
