//! Decoders, one file a format, and the sniffing by content.
//!
//! To add a format: its file with its page on top, one line in [`FORMATS`], one test.

pub mod background;
mod blkevent;
mod blkmatch;
mod blkparse;
mod blktable;
mod blktrace;
pub mod canonical;
mod columns;
pub mod content;
mod csv;
pub mod dm_log_writes;
pub mod input;
mod iolog;
mod lines;
mod numbers;
pub mod order;
mod presets;
mod vscsi;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::error::{Error, Result};
use crate::trace::TraceSource;
use input::{HEAD_BYTES, Input};

/// Which event of a block-layer trace counts as the I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventKind {
    /// As queued by the file system: before merging and splitting.
    #[default]
    Queue,
    /// As issued to the device.
    Issue,
}

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub event: EventKind,
    /// The `--columns` of a text trace.
    pub columns: Option<String>,
    /// Drop and count what is broken, instead of failing.
    pub skip_bad: bool,
}

/// A trace format.
pub trait Format: Sync {
    /// As in `--format`, the page and the file's metadata.
    fn name(&self) -> &'static str;

    /// The doc page, Markdown.
    fn page(&self) -> &'static str;

    /// Whether a source that starts with `head` (up to 64 KiB, decompressed) is of this format.
    fn sniff(&self, head: &[u8]) -> bool;

    /// A decoder over all files of a trace, which may give rows out of order.
    ///
    /// # Errors
    /// `Input` where the files are not of this format or an option is wrong.
    fn open(&self, inputs: Vec<Input>, options: &Options) -> Result<Box<dyn TraceSource>>;
}

/// Every format, in the order in which they are tried: the surest signs first.
pub static FORMATS: &[&dyn Format] = &[
    &blktrace::Blktrace,
    &dm_log_writes::DmLogWrites,
    &iolog::FioIolog,
    &csv::Csv,
    &presets::SYSTOR17,
    &blkparse::Blkparse,
    &presets::MSR,
    &presets::ALIBABA,
    &presets::SPC,
    &presets::TENCENT,
    &presets::FIU,
    &presets::DISKSIM,
    &presets::MQSIM,
    &vscsi::Vscsi,
];

/// The names of all formats, for messages.
#[must_use]
pub fn names() -> String {
    FORMATS.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
}

/// A trace on its way to be read.
pub struct Opened {
    pub format: &'static str,
    pub source: Box<dyn TraceSource>,
    /// Bytes read from the files so far, as they are stored.
    pub bytes_read: Arc<AtomicU64>,
}

/// Opens a trace of one or several files.
///
/// # Errors
/// `Input` where a file cannot be read or its format is not known.
pub fn open(paths: &[PathBuf], format: Option<&str>, options: &Options) -> Result<Opened> {
    let bytes_read = Arc::default();
    let mut inputs = Vec::with_capacity(paths.len());
    for path in paths {
        inputs.push(Input::open(path, &bytes_read)?);
    }
    let format = match format {
        Some(name) => FORMATS.iter().find(|f| f.name() == name).ok_or_else(|| {
            Error::input(format!("unknown format {name:?}, expected one of: {}", names()))
        })?,
        // Columns describe a text trace of no format that could be recognised.
        None if options.columns.is_some() => &(&csv::Csv as &dyn Format),
        None => sniff(&mut inputs)?,
    };
    if options.columns.is_some() && format.name() != "csv" {
        return Err(Error::input(format!(
            "--columns is for --format csv, not for {}",
            format.name()
        )));
    }
    Ok(Opened { format: format.name(), source: format.open(inputs, options)?, bytes_read })
}

/// The format of the first file that holds anything.
fn sniff(inputs: &mut [Input]) -> Result<&'static &'static dyn Format> {
    let mut name = String::new();
    for input in inputs {
        name.clone_from(&input.name);
        let head = input.fill(HEAD_BYTES)?;
        if head.is_empty() {
            continue;
        }
        let head = &head[..head.len().min(HEAD_BYTES)];
        return FORMATS.iter().find(|format| format.sniff(head)).ok_or_else(|| {
            let what = if head.starts_with(b"PAR1") {
                "this is a Parquet file: is it imported already?"
            } else if head.starts_with(b"Histogram: ") {
                "vscsiStats histograms hold no I/Os: expected a trace"
            } else {
                "the format is not recognised"
            };
            Error::input(format!(
                "{what} (--format takes one of: {}; or describe a text file with --columns)",
                names()
            ))
            .with("file", &name)
        });
    }
    Err(Error::input("the file is empty: expected a trace").with("file", name))
}
