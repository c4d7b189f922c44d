//! Lines of text sources, one file after the other, with their row numbers.

use crate::error::{Error, Result};
use crate::formats::input::Input;

/// A longer line is no trace of ours: a bound, so that a binary file cannot fill the memory.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The lines of several files in order, without their ends (`\n` or `\r\n`).
pub struct Lines {
    inputs: Vec<Input>,
    current: usize,
    /// Row of the last line given, 1-based, within its file.
    row: u64,
    /// Length of the last line with its end: consumed at the next call.
    pending: usize,
    skip_bad: bool,
    /// Why a source was given up early (lenient import only).
    pub given_up: Vec<String>,
}

impl Lines {
    #[must_use]
    pub fn new(inputs: Vec<Input>, skip_bad: bool) -> Self {
        Self { inputs, current: 0, row: 0, pending: 0, skip_bad, given_up: Vec::new() }
    }

    /// Finds the next line, to be had from [`Lines::line`]. `Ok(false)` at the end of all files.
    ///
    /// # Errors
    /// Where a file cannot be read, or has a line of more than 64 KiB.
    #[inline]
    pub fn advance(&mut self) -> Result<bool> {
        while self.current < self.inputs.len() {
            let input = &mut self.inputs[self.current];
            input.consume(self.pending);
            self.pending = 0;
            if let Some(end) = memchr::memchr(b'\n', input.available()) {
                self.pending = end + 1;
                self.row += 1;
                return Ok(true);
            }
            if self.fill_line()? {
                return Ok(true);
            }
            self.current += 1;
            self.row = 0;
        }
        Ok(false)
    }

    /// The slow path of `advance`: more bytes are needed to find the end of the line.
    fn fill_line(&mut self) -> Result<bool> {
        let input = &mut self.inputs[self.current];
        let available = match input.fill(MAX_LINE_BYTES) {
            Ok(available) => available,
            Err(e) if self.skip_bad => {
                self.given_up.push(e.to_string());
                input.give_up();
                input.available()
            }
            Err(e) => return Err(e),
        };
        let end = match memchr::memchr(b'\n', available) {
            Some(end) => end + 1,
            None if available.is_empty() => return Ok(false),
            None if available.len() >= MAX_LINE_BYTES => {
                let row = self.row + 1;
                return Err(Error::input("expected lines of text, got one longer than 64 KiB")
                    .with("file", &input.name)
                    .with("row", row));
            }
            None => available.len(),
        };
        self.pending = end;
        self.row += 1;
        Ok(true)
    }

    /// The line that [`Lines::advance`] found.
    #[must_use]
    #[inline]
    pub fn line(&self) -> &[u8] {
        let Some(input) = self.inputs.get(self.current) else { return &[] };
        let line = &input.available()[..self.pending];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Index of the file of the line.
    #[must_use]
    pub fn file_index(&self) -> usize {
        self.current
    }

    /// An `Input` error at the current line.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> Error {
        let name = self.inputs.get(self.current).map_or("", |i| i.name.as_str());
        Error::input(message).with("file", name).with("row", self.row)
    }
}

/// At most 60 characters of what was found, for a message.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    format!("{short:?}")
}
