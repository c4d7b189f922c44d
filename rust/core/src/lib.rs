//! How one I/O travels, in the order of the modules below.
//!
//! A decoder ([`formats`]) gives [`trace`] batches. The [`replay`] schedule says when an I/O is
//! due; its worker takes a slot ([`slab`]), fills the payload ([`payload`]), takes the range
//! lock ([`rangelock`]) and hands the slot to the [`pipeline`], the only file that walks a chain
//! of [`filters`] down to a backend ([`backends`]) and back up. One row of [`record`] keeps it.

pub mod backends;
pub mod base_sums;
pub mod black_box;
pub mod catalogue;
pub mod cdp;
pub mod clock;
pub mod contents;
pub mod error;
pub mod eviction;
pub mod filters;
pub mod formats;
pub mod gauges;
pub mod hop;
pub mod int_map;
pub mod io;
pub mod laws;
pub mod payload;
pub mod pipeline;
pub mod planner;
pub mod profile;
pub mod rangelock;
pub mod recency;
pub mod record;
pub mod replay;
pub mod simulate;
pub mod slab;
pub mod trace;
pub mod trace_arrow;
pub mod units;
pub mod usage;
pub mod version_map;
pub mod xts;
