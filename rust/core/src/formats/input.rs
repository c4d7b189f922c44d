//! A source file as a stream of plain bytes: compression undone, position kept, errors placed.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes that a format may look at to recognise itself.
pub const HEAD_BYTES: usize = 64 * 1024;
/// One read: large enough that system calls vanish, small enough for the L2 cache.
const CHUNK_BYTES: usize = 512 * 1024;
/// What many programs for Windows put before UTF-8 text. It is no part of the first field.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An opened source: plain bytes, whatever compression the file has.
pub struct Input {
    /// As the user wrote it, for messages.
    pub name: String,
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Position of `buffer[start]` in the plain bytes.
    offset: u64,
    ended: bool,
}

impl Input {
    /// Opens `path` and undoes its compression, which is recognised by content. What is read from
    /// the file is counted in `bytes_read`.
    ///
    /// # Errors
    /// `Input` where the file cannot be opened or is a folder.
    pub fn open(path: &Path, bytes_read: &Arc<AtomicU64>) -> Result<Self> {
        let name = path.display().to_string();
        let failed =
            |e: std::io::Error| Error::input("cannot be read").with("file", &name).caused_by(e);
        let mut file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(Error::input("expected a trace file, got a folder").with("file", &name));
        }
        let mut magic = Vec::with_capacity(8);
        Read::by_ref(&mut file).take(8).read_to_end(&mut magic).map_err(failed)?;
        let counted = Counted { file, bytes_read: Arc::clone(bytes_read) };
        // Smaller than our own buffer, which plain files are then read straight into.
        let rest = BufReader::with_capacity(CHUNK_BYTES / 8, counted);
        let whole = std::io::Cursor::new(magic.clone()).chain(rest);
        let reader = decompressed(&magic, whole).map_err(failed)?;
        Ok(Self::from_reader(name, reader))
    }

    /// Plain bytes from any reader, under a name for messages.
    #[must_use]
    pub fn from_reader(name: String, reader: Box<dyn Read + Send>) -> Self {
        Self { name, reader, buffer: Vec::new(), start: 0, end: 0, offset: 0, ended: false }
    }

    /// The bytes read and not yet consumed.
    #[must_use]
    #[inline]
    pub fn available(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Position of the first available byte in the plain bytes of this source.
    #[must_use]
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.end - self.start);
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Tries to have at least `bytes` available; fewer only at the end of the source.
    ///
    /// # Errors
    /// `Input` at damaged compressed data, `Failed` where the file system failed.
    #[inline]
    pub fn fill(&mut self, bytes: usize) -> Result<&[u8]> {
        if self.end - self.start < bytes && !self.ended {
            self.refill(bytes)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Takes the source as ended where it is: lenient import of damaged compressed data.
    pub fn give_up(&mut self) {
        self.ended = true;
    }

    #[cold]
    fn refill(&mut self, bytes: usize) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let at_start = self.offset == 0;
        let bytes = if at_start { bytes + BYTE_ORDER_MARK.len() } else { bytes };
        let wanted = bytes.max(CHUNK_BYTES);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted.next_power_of_two(), 0);
        }
        while self.end < bytes {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => self.end += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.read_error(e)),
            }
        }
        if at_start && self.buffer[..self.end].starts_with(BYTE_ORDER_MARK) {
            self.consume(BYTE_ORDER_MARK.len());
        }
        Ok(())
    }

    fn read_error(&self, e: std::io::Error) -> Error {
        let at = self.offset + (self.end - self.start) as u64;
        let error = match e.raw_os_error() {
            Some(_) => Error::failed("cannot be read"),
            // The decoders of compressed data have no errno: their complaint is about the data.
            None => Error::input("the compressed data is damaged or ends early"),
        };
        error.with("file", &self.name).with("byte", at).caused_by(e)
    }
}

/// A file that counts what is read, for a progress display.
struct Counted {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

fn decompressed<R>(magic: &[u8], reader: R) -> std::io::Result<Box<dyn Read + Send>>
where
    R: std::io::BufRead + Send + 'static,
{
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(reader))
        }
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
            Box::new(bzip2::bufread::MultiBzDecoder::new(reader))
        }
        _ => Box::new(reader),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_all(path: &Path) -> Result<Vec<u8>> {
        let mut input = Input::open(path, &Arc::default())?;
        let mut all = Vec::new();
        loop {
            let got = input.fill(1)?.to_vec();
            if got.is_empty() {
                return Ok(all);
            }
            input.consume(got.len());
            all.extend(got);
        }
    }

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file
    }

    fn packed(plain: &[u8]) -> [Vec<u8>; 4] {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(plain).expect("gz");
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(plain).expect("xz");
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(plain).expect("bz2");
        [
            gz.finish().expect("gz"),
            zstd::stream::encode_all(plain, 1).expect("zst"),
            xz.finish().expect("xz"),
            bz.finish().expect("bz2"),
        ]
    }

    #[test]
    fn every_compression_is_undone_also_in_several_members() {
        let plain: Vec<u8> = (0..300_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        assert_eq!(read_all(written(&plain).path()).expect("plain"), plain);
        for bytes in packed(&plain) {
            assert_eq!(read_all(written(&bytes).path()).expect("packed"), plain);
            let twice = [bytes.clone(), bytes].concat();
            assert_eq!(read_all(written(&twice).path()).expect("twice").len(), 2 * plain.len());
        }
    }

    #[test]
    fn damaged_compression_names_file_and_byte() {
        let plain: Vec<u8> = (0..300_000u32).flat_map(|i| (i * 2_654_435).to_le_bytes()).collect();
        for bytes in packed(&plain) {
            let cut = written(&bytes[..bytes.len() / 2]);
            let error = read_all(cut.path()).expect_err("cut").to_string();
            assert!(error.contains(": byte ") && error.contains("damaged"), "{error}");
        }
    }
}
