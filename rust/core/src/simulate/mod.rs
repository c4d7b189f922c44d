//! What caches of many policies and sizes would hit, from one pass over a trace.
//!
//! [`requests`] turns I/Os into requests for blocks, numbered in the order in which they first
//! appear, in chunks of bounded size; [`work`] hands the chunks to consumers on all cores. A
//! consumer is a simulated [`cache`], the [`stack`] that gives LRU's hits at every size, a sample
//! of it ([`shards`]) or the [`working_set`]. Caches run the policies of [`crate::eviction`]: the
//! objects that the `cache` filter runs.

pub mod cache;
pub mod contents;
mod dirty;
mod ids;
pub mod requests;
pub mod sample;
pub mod shards;
pub mod stack;
pub mod trace;
pub mod work;
mod working_set;

pub use trace::{Setting, SimulatedTrace};

/// Buckets of time that series are counted in.
pub const BUCKETS: usize = 240;
