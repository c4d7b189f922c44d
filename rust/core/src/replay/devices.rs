//! The NBD servers that stand in for the disks.

use std::io;

use super::options::{BackendKind, Options};
use super::scan::DiskScan;
use crate::backends::nbd::{Server, Settings, Uri};
use crate::error::{Error, ErrorKind, Result};

/// Connects to the server of each of these disks; none for other backends.
///
/// # Errors
/// `Input` when the policy's filter is wrong, nobody is there, or the export is too small or
/// read-only; `Failed` when a server cannot be understood or does not answer in time. Where the
/// server was there before, `ServerSilent` for the last of these and `ServerLost` for the others.
pub(super) fn servers(options: &Options, disks: &[(u16, DiskScan)]) -> Result<Vec<Server>> {
    if options.backend != BackendKind::Nbd {
        return Ok(Vec::new());
    }
    let Some(spec) = &options.server else {
        return Err(Error::input("the backend nbd needs a policy that names a server"));
    };
    let settings = Settings::parse(&spec.params).map_err(|faults| {
        let first = faults.first().map_or(String::new(), |f| format!("{}: {}", f.path, f.message));
        Error::input(first)
    })?;
    let uri = Uri::parse(&spec.uri).map_err(Error::input)?;
    let names = &options.window.disks;
    if names.len() > 1 && !uri.names_disk() {
        return Err(Error::input(format!(
            "the trace has {} disks: expected {{disk}} in the URI for a disk's name, or --disk to \
             replay one of them",
            names.len()
        ))
        .with("file", &uri));
    }
    let lost = |error: Error| {
        let timed_out = |source: &io::Error| source.kind() == io::ErrorKind::TimedOut;
        let is_silent = error.kind == ErrorKind::ServerSilent;
        let kind = match spec.was_there {
            true if is_silent || error.source.as_ref().is_some_and(timed_out) => {
                ErrorKind::ServerSilent
            }
            true => ErrorKind::ServerLost,
            false if is_silent => ErrorKind::Failed,
            false => error.kind,
        };
        Error { kind, ..error }
    };
    disks
        .iter()
        .map(|(disk, found)| {
            let name = &names[*disk as usize];
            let server = Server::connect(&uri.of_disk(name), settings)?;
            let export = &server.export;
            let wrong = |words: String| Err(Error::input(words).with("file", &export.uri));
            if found.reach_bytes > export.size_bytes {
                return wrong(format!(
                    "the trace reaches to byte {} of disk {name}, the server has {}; use a larger \
                     export or --fit-to",
                    found.reach_bytes, export.size_bytes
                ));
            }
            if export.read_only && !options.read_only {
                return wrong("the server's export is read-only, and the trace writes".to_owned());
            }
            Ok(server)
        })
        .collect::<Result<_>>()
        .map_err(lost)
}
