//! Continuous replication: what a `cdp` filter captures, sends, and what the far end keeps of it.
//!
//! The source ([`source`]) turns completed writes into one numbered stream of entries ([`entry`]):
//! batches of writes, restore points, marks of a resynchronisation. The replica ([`replica`])
//! takes entries in their order, each once, into a vault, and says how far it has got; so a
//! connection may break anywhere and goes on where the replica stands. Both are state machines
//! without clock, file or socket. A link ([`link`]) carries their frames: a modelled one
//! ([`model`]), with the replica at its far end, in virtual time.

pub mod channel;
pub mod dial;
pub mod dirty;
pub mod entry;
pub mod faults;
pub mod fold;
pub mod frame;
pub mod journal;
pub mod key;
pub mod line;
pub mod link;
pub mod model;
pub mod recovery;
pub mod replica;
pub mod site;
pub mod source;
pub mod spill;
pub mod store;
pub mod tcp;
pub mod tls;
pub mod vault;
pub mod verify;
