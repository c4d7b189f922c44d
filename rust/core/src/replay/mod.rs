//! Replay: a trace, a schedule, a chain and a backend become rows.
//!
//! [`feed`] reads the trace, [`scan`] looks through it once before the run, [`plan`] turns it into
//! phases (prefill, the trace itself, the final sweep), [`worker`] drives the pipeline of its
//! disks through them, [`run`] starts the workers and collects what they send.

mod chain;
mod devices;
pub mod feed;
pub mod fit;
pub mod floor;
mod hung;
mod idle;
mod kit;
mod lanes;
pub mod options;
pub mod oracle;
mod outcome;
pub mod plan;
pub mod run;
pub mod scan;
pub mod totals;
pub mod worker;
