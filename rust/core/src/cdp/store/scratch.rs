//! What a store holds after its whole journal, for a source that compares: its digests are those of
//! one state, since which everything is in the stream.

use std::path::PathBuf;

use super::{Images, Store, at, copy_sparse, scan, segment_path};
use crate::cdp::frame::{Ask, digest};
use crate::error::{Error, Result};

impl Store {
    /// Makes the images. Where there is no room for them nothing is compared, and all is sent.
    pub(super) fn prepare_scratch(&mut self) {
        self.compared = self.build().ok();
        if self.compared.is_none() {
            let _ = self.forget_scratch();
        }
    }

    fn build(&self) -> Result<Images> {
        let disks = self.owner.as_ref().map_or(0, |owner| owner.disks.len());
        if self.segments.is_empty() {
            return Images::open(&self.dir.join("base"), disks);
        }
        let folder = self.scratch();
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
        let mut files = Vec::new();
        for disk in 0..disks {
            let name = format!("{disk}.img");
            files.push(copy_sparse(&self.dir.join("base").join(&name), &folder.join(&name))?);
        }
        let mut images = Images::of(files);
        for segment in &self.segments {
            let path = segment_path(&self.dir, segment.number);
            if let Some(damage) = scan(&path, false, |entry, _| images.apply(entry).map(|()| true))?
            {
                return Err(Error::failed(format!("byte {}: {}", damage.byte, damage.what))
                    .with("file", path.display()));
            }
        }
        Ok(images)
    }

    fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    pub(super) fn can_compare(&self) -> bool {
        self.compared.is_some() || self.segments.is_empty()
    }

    /// Digests of blocks. A site that was restarted makes the images anew.
    pub(super) fn digests(&mut self, ask: Ask) -> Result<Vec<u128>> {
        if self.compared.is_none() {
            self.compared = Some(self.build()?);
        }
        let Some(images) = &self.compared else { return Ok(Vec::new()) };
        let mut data = Vec::new();
        ask.blocks()
            .map(|(from, length)| {
                data.clear();
                data.resize(length as usize, 0);
                images.read(ask.disk, from, &mut data)?;
                Ok(digest(&data))
            })
            .collect()
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
