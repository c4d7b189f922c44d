//! What a store holds after its journal, for a source that compares: its digests are those of one
//! state, since which everything is in the stream. What the journal changed is laid over the base.

use std::path::PathBuf;

use super::{Images, Store, at, scan};
use crate::cdp::entry::Kind;
use crate::cdp::fold::Covered;
use crate::cdp::frame::{Ask, digest};
use crate::error::{Error, Result};
use crate::filters::DataMode;

/// The state after an entry.
pub(super) struct Compared {
    /// That entry.
    no: u64,
    base: Images,
    over: Images,
    /// What of `over` counts, by disk.
    covered: Vec<Covered>,
}

impl Compared {
    /// Retention may take segments into the base meanwhile: what they change is covered.
    fn read(&self, disk: u16, offset_bytes: u64, data: &mut [u8]) -> Result<()> {
        self.base.read(disk, offset_bytes, data)?;
        let Some(covered) = self.covered.get(disk as usize) else { return Ok(()) };
        for (from, to) in covered.within(offset_bytes, offset_bytes + data.len() as u64) {
            let range = (from - offset_bytes) as usize..(to - offset_bytes) as usize;
            self.over.read(disk, from, &mut data[range])?;
        }
        Ok(())
    }
}

impl Store {
    fn build(&mut self) -> Result<Compared> {
        self.write_out().map_err(|_| Error::failed("the journal cannot be written"))?;
        let disks = self.owner.as_ref().map_or(0, |owner| owner.disks.len());
        let folder = self.scratch();
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
        let base = Images::open(&self.dir.join("base"), disks)?;
        let mut over = Images::open(&folder, disks)?;
        let mut covered: Vec<Covered> = (0..disks).map(|_| Covered::default()).collect();
        for segment in &self.segments {
            let path = &segment.file.path;
            let damage = scan(path, false, |entry, _| {
                over.apply(entry)?;
                if entry.kind != Kind::Batch {
                    return Ok(true);
                }
                for record in entry.records(DataMode::Bytes) {
                    let record = record?;
                    let end = record.offset_bytes + record.length_bytes;
                    if let Some(covered) = covered.get_mut(record.disk as usize) {
                        covered.add(record.offset_bytes, end, |_, _| {});
                    }
                }
                Ok(true)
            })?;
            if let Some(damage) = damage {
                return Err(Error::failed(format!("byte {}: {}", damage.byte, damage.what))
                    .with("file", path.display()));
            }
        }
        Ok(Compared { no: self.received_no, base, over, covered })
    }

    fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    /// Digests of blocks. Where there is no room for what they are read from there are none, and
    /// the source sends all.
    pub(super) fn digests(&mut self, ask: Ask) -> Result<Vec<u128>> {
        if self.compared.is_none() {
            match self.build() {
                Ok(compared) => self.compared = Some(compared),
                Err(error) => {
                    let _ = self.forget_scratch();
                    return Err(error);
                }
            }
        }
        let Some(compared) = &self.compared else { return Ok(Vec::new()) };
        let mut data = Vec::new();
        ask.blocks()
            .map(|(from, length)| {
                data.clear();
                data.resize(length as usize, 0);
                compared.read(ask.disk, from, &mut data)?;
                Ok(digest(&data))
            })
            .collect()
    }

    /// A resynchronisation begins with entry `no`: a state of before it may lack what the stream
    /// had until then.
    pub(super) fn begin_comparing(&mut self, no: u64) -> Result<()> {
        match &self.compared {
            Some(compared) if compared.no + 1 != no => self.forget_scratch(),
            _ => Ok(()),
        }
    }

    pub(super) fn forget_scratch(&mut self) -> Result<()> {
        self.compared = None;
        let folder = self.scratch();
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(at(&folder))?;
        }
        Ok(())
    }
}
