//! What a round is told: one JSON document from Python, checked there, typed here.

use serde::Deserialize;
use serde_json::Value;

use super::feed::Window;
use crate::backends::sim::SimModel;
use crate::backends::target::Direct;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    Uring,
    Psync,
    Mem,
    Null,
    Sim,
    /// Named by the policy, not by an option.
    Nbd,
}

impl BackendKind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Psync => "psync",
            Self::Mem => "mem",
            Self::Null => "null",
            Self::Sim => "sim",
            Self::Nbd => "nbd",
        }
    }

    /// The disks are files.
    #[must_use]
    pub const fn has_targets(self) -> bool {
        matches!(self, Self::Uring | Self::Psync)
    }

    /// What filters keep beside the disk is kept in files.
    #[must_use]
    pub const fn has_files(self) -> bool {
        matches!(self, Self::Uring | Self::Psync | Self::Nbd)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockKind {
    Wall,
    Virtual,
}

/// When an I/O is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Open loop: at its recorded time, whatever the I/Os before it do.
    Recorded,
    /// As soon as fewer than `depth` are in flight.
    Asap,
    /// The recorded think time after the completion of the I/O it waited for.
    Closed,
}

/// What happens to an I/O that overlaps one in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conflicts {
    Order,
    Allow,
    Drop,
}

impl<'de> Deserialize<'de> for Direct {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(serde::de::Error::unknown_variant(other, &["auto", "always", "never"])),
        }
    }
}

/// One filter of the chain as the policy has it.
#[derive(Debug, Clone, Deserialize)]
pub struct FilterSpec {
    /// What the engine builds it by.
    pub name: String,
    /// The policy's word for it, where that is another: it is called so wherever it is told of.
    #[serde(default)]
    pub word: Option<String>,
    pub params: Value,
}

impl FilterSpec {
    #[must_use]
    pub fn word(&self) -> &str {
        self.word.as_deref().unwrap_or(&self.name)
    }
}

/// The NBD server at the end of a policy, as the policy has it.
#[derive(Debug, Clone, Deserialize)]
pub struct ServerSpec {
    pub uri: String,
    pub params: Value,
    /// It served an earlier round: that it is not there is no mistake in the policy.
    #[serde(default)]
    pub was_there: bool,
}

/// One round of one policy.
#[derive(Debug, Clone, Deserialize)]
pub struct Options {
    pub policy: String,
    pub round: i32,
    pub filters: Vec<FilterSpec>,
    pub window: Window,
    /// A file or device for each of the window's disks; empty for backends without targets.
    pub targets: Vec<String>,
    /// The targets are somebody else's and the run only reads them.
    pub read_only: bool,
    pub backend: BackendKind,
    pub direct: Direct,
    pub clock: ClockKind,
    pub pace: Pace,
    /// Recorded time runs this many times as fast.
    pub speed: f64,
    /// I/Os in flight of a worker with `asap`.
    pub depth: usize,
    /// I/Os in flight of a worker at most, with `recorded` and `closed`.
    pub inflight: usize,
    /// A filter of another make that holds I/Os and lets go of none for so long has hung.
    #[serde(default = "hang_ns")]
    pub hang_ns: u64,
    /// How long before a due time the worker stops sleeping and looks at the clock.
    pub spin_ns: u64,
    pub conflicts: Conflicts,
    /// Data is generated and carried even if nothing checks it.
    pub verify: bool,
    pub prefill: bool,
    pub compressible: f64,
    pub dedupe: f64,
    pub seed: u64,
    pub fit_to_bytes: Option<u64>,
    /// The file of what the trace's writes wrote, which they then write again.
    #[serde(default)]
    pub content: Option<std::path::PathBuf>,
    /// Workers at most; each drives its share of the disks.
    pub workers: usize,
    /// A word for this run, policy and round, for what is kept elsewhere.
    #[serde(default)]
    pub run: String,
    #[serde(default)]
    pub sim: Option<SimModel>,
    /// With the backend `nbd`.
    #[serde(default)]
    pub server: Option<ServerSpec>,
}

const fn hang_ns() -> u64 {
    30_000_000_000
}

impl Options {
    /// I/Os in flight of a worker at most.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        match self.pace {
            Pace::Asap => self.depth,
            Pace::Recorded | Pace::Closed => self.inflight,
        }
        .max(1)
    }
}
