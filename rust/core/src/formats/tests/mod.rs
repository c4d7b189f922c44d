//! Decoders on traces built by hand, and on bytes of any kind.

mod blktrace;
mod hostile;
mod log_writes;
mod matching;
mod text;
mod vscsi;

use crate::error::Result;
use crate::formats::input::Input;
use crate::formats::{FORMATS, Format, Options};
use crate::trace::{DecodeReport, TraceIo, TraceSource};

/// What a decoder makes of some files.
#[derive(Debug)]
pub struct Decoded {
    pub ios: Vec<TraceIo>,
    pub disks: Vec<String>,
    pub report: DecodeReport,
}

pub fn format(name: &str) -> &'static dyn Format {
    *FORMATS.iter().find(|f| f.name() == name).expect("a format of this name")
}

pub fn inputs(files: &[&[u8]]) -> Vec<Input> {
    let input = |(i, bytes): (usize, &&[u8])| {
        Input::from_reader(format!("file{i}"), Box::new(std::io::Cursor::new(bytes.to_vec())))
    };
    files.iter().enumerate().map(input).collect()
}

pub fn drain(mut source: Box<dyn TraceSource>, max_rows: usize) -> Result<Decoded> {
    let mut ios = Vec::new();
    while let Some(batch) = source.next_batch(max_rows)? {
        assert!(batch.len() <= max_rows && !batch.is_empty());
        ios.extend((0..batch.len()).map(|i| batch.get(i)));
    }
    Ok(Decoded { ios, disks: source.disks().to_vec(), report: source.report() })
}

pub fn decode(name: &str, files: &[&[u8]], options: &Options) -> Result<Decoded> {
    drain(format(name).open(inputs(files), options)?, 1 << 16)
}

/// The message of a file that must be refused.
pub fn refused(name: &str, file: &[u8]) -> String {
    decode(name, &[file], &Options::default()).expect_err("refused").to_string()
}

pub fn lenient() -> Options {
    Options { skip_bad: true, ..Options::default() }
}

#[test]
fn names_are_unique_and_pages_start_with_them() {
    for (i, format) in FORMATS.iter().enumerate() {
        assert!(format.page().starts_with(&format!("# {}\n", format.name())), "{}", format.name());
        assert!(format.page().contains("vaio-bench import"), "{}: no example", format.name());
        assert!(FORMATS[..i].iter().all(|other| other.name() != format.name()));
    }
}
