//! The laws that can be tested of an NBD server: from outside, on the wall clock.

use std::sync::Arc;

use super::bed::{Bed, DISK_BYTES, Plan};
use super::{Finding, LAWS, Outcome, READS_AND_WRITES, Seen, plan};
use crate::backends::nbd::{Nbd, Server, Settings, Uri};
use crate::clock::{Clock, WallClock, monotonic_ns};
use crate::error::{Error, Result};
use crate::io::Op;

/// Slots of a bed, and parts of its I/Os.
const SLOTS: usize = 1024;

/// Tests what can be tested. The first 256 KiB of the export are overwritten.
///
/// # Errors
/// When nobody is there, or the export is too small or read-only.
pub fn certify_server(uri: &str, params: &serde_json::Value, seed: u64) -> Result<Vec<Finding>> {
    let uri = Uri::parse(uri).map_err(Error::input)?;
    let settings = Settings::parse(params).map_err(|faults| {
        Error::input(faults.first().map_or(String::new(), |f| format!("{}: {}", f.path, f.message)))
    })?;
    let server = Server::connect(&uri, settings)?;
    if server.export.read_only || server.export.size_bytes < DISK_BYTES {
        let words = format!("expected an export of {DISK_BYTES} bytes or more that can be written");
        return Err(Error::input(words).with("file", &uri));
    }
    drop(server);
    let test = |plan: &[Plan]| -> Seen {
        let server = Server::connect(&uri, settings)?;
        let backend = Box::new(Nbd::new(vec![server], Arc::default(), SLOTS)?);
        let clock = Clock::Wall(WallClock::since(monotonic_ns()));
        let mut bed = Bed::new(Vec::new(), backend, clock, false)?;
        bed.run(plan, u64::MAX >> 1)?;
        bed.read_all()?;
        Ok(bed.wrong)
    };
    let discards = [(Op::Read, 0), (Op::Write, 0), (Op::Discard, 0), (Op::WriteZeroes, 0)];
    Ok(LAWS
        .iter()
        .map(|(law, says, _)| {
            let seen = match *law {
                "read_after_write" => test(&plan(seed, 2000, 4096, READS_AND_WRITES)),
                "unaligned_edges" => test(&plan(seed ^ 1, 2000, 512, READS_AND_WRITES)),
                "discard_then_zeroes" => test(&plan(seed ^ 2, 1500, 512, &discards)),
                _ => return Finding { law, says, outcome: Outcome::NotTested, detail: why(law) },
            };
            let wrong = seen.unwrap_or_else(|error| Some(error.to_string()));
            let outcome = if wrong.is_some() { Outcome::Broken } else { Outcome::Held };
            Finding { law, says, outcome, detail: wrong.unwrap_or_default() }
        })
        .collect())
}

fn why(law: &str) -> String {
    match law {
        "transparent" | "may_answer" | "may_defer" | "reorders" | "changes_length"
        | "unit_bytes" | "children_per_io" | "background_ios" | "persists" | "contract" => {
            "a server declares nothing, and is asked for nothing but I/O"
        }
        "determinism" => "a server runs on the wall clock",
        "completion_scope" => "the server's own chain is not to be seen from here",
        "short_io" | "errors_pass_up" => {
            "what is below the server cannot be made to fail from here"
        }
        _ => "a server's device cannot be made to lose its power from here",
    }
    .to_owned()
}
