//! What happens to a link, and how policies write it, for the filter and for the planner:
//! `{ kind = "outage", at = "10s", for = "5s" }`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::clock::Ns;
use crate::filters::ParamError;
use crate::units::{ByteRate, Time};

/// What happens to a link, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing passes until then; what is on its way arrives later.
    Outage {
        from_ns: Ns,
        to_ns: Ns,
    },
    /// The connection breaks; what is on its way is lost.
    Reset {
        at_ns: Ns,
    },
    /// The site crashes, and is there again later: what was not durable is lost.
    Restart {
        at_ns: Ns,
        back_ns: Ns,
    },
    Bandwidth {
        at_ns: Ns,
        bytes_per_s: f64,
    },
    Rtt {
        at_ns: Ns,
        rtt_ns: Ns,
    },
}

impl Fault {
    pub(super) const fn at_ns(&self) -> Ns {
        match *self {
            Self::Outage { from_ns, .. } => from_ns,
            Self::Reset { at_ns }
            | Self::Restart { at_ns, .. }
            | Self::Bandwidth { at_ns, .. }
            | Self::Rtt { at_ns, .. } => at_ns,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultParams {
    pub kind: FaultKind,
    at: Time,
    #[serde(rename = "for")]
    lasts: Option<Time>,
    bandwidth: Option<ByteRate>,
    rtt: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    Outage,
    Reset,
    Restart,
    Bandwidth,
    Rtt,
}

/// The faults, in their order; `efficiency` is the share of a bandwidth that is left for data.
///
/// # Errors
/// What each lacks, at `faults[i].key`.
pub fn read(given: &[FaultParams], efficiency: f64) -> Result<Vec<Fault>, Vec<ParamError>> {
    let mut wrong = Vec::new();
    let mut faults = Vec::with_capacity(given.len());
    for (i, fault) in given.iter().enumerate() {
        match fault.read(efficiency) {
            Ok(fault) => faults.push(fault),
            Err((key, expected)) => {
                let path = format!("faults[{i}].{key}");
                wrong.push(ParamError::new(path, format!("expected {expected}")));
            }
        }
    }
    if wrong.is_empty() { Ok(faults) } else { Err(wrong) }
}

impl FaultParams {
    const fn read(&self, efficiency: f64) -> Result<Fault, (&'static str, &'static str)> {
        let Time(at_ns) = self.at;
        match (self.kind, self.lasts, self.bandwidth, self.rtt) {
            (FaultKind::Outage, Some(Time(lasts)), ..) => {
                Ok(Fault::Outage { from_ns: at_ns, to_ns: at_ns.saturating_add(lasts) })
            }
            (FaultKind::Restart, Some(Time(lasts)), ..) => {
                Ok(Fault::Restart { at_ns, back_ns: at_ns.saturating_add(lasts) })
            }
            (FaultKind::Reset, ..) => Ok(Fault::Reset { at_ns }),
            (FaultKind::Bandwidth, _, Some(ByteRate(bytes_per_s)), _) => {
                Ok(Fault::Bandwidth { at_ns, bytes_per_s: bytes_per_s * efficiency })
            }
            (FaultKind::Rtt, _, _, Some(Time(rtt_ns))) => Ok(Fault::Rtt { at_ns, rtt_ns }),
            (FaultKind::Outage | FaultKind::Restart, ..) => {
                Err(("for", "how long it lasts, such as \"5s\""))
            }
            (FaultKind::Bandwidth, ..) => Err(("bandwidth", "a rate such as \"10Mbit/s\"")),
            (FaultKind::Rtt, ..) => Err(("rtt", "a time such as \"200ms\"")),
        }
    }
}
