//! Whose replica a store is: the disks, and the runs whose streams it holds one after the other.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{LongTerm, Store, at, copy_sparse, lock, name_terms};
use crate::cdp::frame::{Held, Hello, VERSION};
use crate::clock::Ns;
use crate::error::{Error, Result};

/// Whose replica a store is, in `store.json`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    pub version: u32,
    /// The newest run; empty while an adopted store has none.
    pub run: String,
    pub disks: Vec<String>,
    pub disk_bytes: Vec<u64>,
    /// Every instant between entries is a point.
    pub continuous: bool,
    /// Number of the first segment that is not in the base.
    #[serde(default)]
    pub first_segment: u64,
    /// Segments before this one offer no points: they are being taken into the base.
    #[serde(default)]
    pub first_offered: u64,
    /// Number of the newest segment: a journal that ends before it has lost its end.
    #[serde(default)]
    pub newest_segment: u64,
    /// How far the journal was durable is noted beside it.
    #[serde(default)]
    pub notes_durable: bool,
    /// The last entry that is in the base, where that is known.
    #[serde(default)]
    pub base_no: Option<u64>,
    /// When the newest point was cut that is in the base.
    #[serde(default)]
    pub base_ns: Option<Ns>,
    /// Its number.
    #[serde(default)]
    pub base_id: u64,
    /// The time of the state that the first segment which offers any begins with; none in a hole.
    #[serde(default)]
    pub base_state_ns: Option<Ns>,
    /// Which points are kept for longer.
    #[serde(default)]
    pub long_term: Option<LongTerm>,
    /// A name that outlives runs: sources of the same name go on here.
    #[serde(default)]
    pub stream: String,
    /// The runs, oldest first.
    #[serde(default)]
    pub epochs: Vec<Epoch>,
}

/// The part of the stream that one run sent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Epoch {
    pub run: String,
    /// Its first entry.
    pub from_no: u64,
    /// The run's start in the stream's time.
    pub stream_ns: Ns,
    /// Every instant between its entries is a point; as the owner's where it is not said.
    #[serde(default)]
    pub continuous: Option<bool>,
}

impl Epoch {
    fn of(hello: &Hello, from_no: u64, stream_ns: Ns) -> Self {
        let continuous = Some(hello.continuous);
        Self { run: hello.run.clone(), from_no, stream_ns, continuous }
    }
}

impl Owner {
    /// The run that sent an entry.
    #[must_use]
    pub fn epoch_of(&self, no: u64) -> Epoch {
        // A store of before there were several runs in one.
        let run = || self.run.clone();
        let only = || Epoch { run: run(), from_no: 1, stream_ns: 0, continuous: None };
        self.epoch_at(no).cloned().unwrap_or_else(only)
    }

    fn epoch_at(&self, no: u64) -> Option<&Epoch> {
        self.epochs.iter().rev().find(|epoch| epoch.from_no <= no)
    }

    /// Whether every instant around an entry is a point, unless it lies in a hole.
    #[must_use]
    pub fn is_continuous_at(&self, no: u64) -> bool {
        self.epoch_at(no).and_then(|epoch| epoch.continuous).unwrap_or(self.continuous)
    }

    /// Any of it.
    #[must_use]
    pub fn is_continuous_somewhere(&self) -> bool {
        self.continuous || self.epochs.iter().any(|epoch| epoch.continuous == Some(true))
    }
}

impl Store {
    /// The source whose replica this becomes, or is; what is held that it has not sent.
    ///
    /// # Errors
    /// `Input` when the store is another's.
    pub fn claim(&mut self, hello: &Hello) -> Result<Option<Held>> {
        let Some(owner) = self.owner.clone() else {
            let first = Epoch::of(hello, 1, 0);
            self.settle(owner_of(hello, vec![first], None), hello)?;
            return Ok(None);
        };
        if owner.run.is_empty() {
            fits(&owner, hello)?;
            let first = Epoch::of(hello, 1, 0);
            self.settle(owner_of(hello, vec![first], Some(&owner)), hello)?;
            return Ok(Some(self.held(0)));
        }
        let is_new = hello.first && hello.acked_no == 0;
        let epoch = owner.epoch_of(u64::MAX);
        let goes_on = !hello.stream.is_empty() && hello.stream == owner.stream;
        let is_same = owner.run == hello.run;
        if !(is_same || is_new && goes_on) {
            return Err(Error::input(format!(
                "the store holds the replica of run {}, not of {}{}: expected a folder of its own, \
                 or the same `stream` in both",
                owner.run,
                hello.run,
                if hello.stream.is_empty() { "" } else { ", and is of another stream" }
            )));
        }
        if owner.disks != hello.disks {
            return Err(Error::input("the store holds the replica of other disks"));
        }
        if !is_new {
            self.retention = (hello.retention_ns, hello.retention_bytes);
            return Ok(None);
        }
        // It greeted before, and never had the answer.
        if is_same && self.received_no + 1 == epoch.from_no {
            self.retention = (hello.retention_ns, hello.retention_bytes);
            let is_empty = self.received_no == 0 && !self.has_base();
            return Ok((!is_empty).then(|| self.held(epoch.stream_ns)));
        }
        if !goes_on {
            return Err(Error::input("the store already holds a replica of this run"));
        }
        fits(&owner, hello)?;
        self.forget_scratch()?;
        let stream_ns = self.end_ns + 1;
        let mut epochs = owner.epochs.clone();
        epochs.push(Epoch::of(hello, self.received_no + 1, stream_ns));
        self.settle(owner_of(hello, epochs, Some(&owner)), hello)?;
        Ok(Some(self.held(stream_ns)))
    }

    const fn held(&self, stream_ns: Ns) -> Held {
        Held { last_id: self.marks.last_id(), stream_ns }
    }

    fn settle(&mut self, owner: Owner, hello: &Hello) -> Result<()> {
        write_owner(&self.dir, &owner)?;
        self.retention = (hello.retention_ns, hello.retention_bytes);
        name_terms(&mut self.points, owner.long_term, owner.base_ns);
        self.owner = Some(owner);
        Ok(())
    }

    fn has_base(&self) -> bool {
        self.dir.join("base").join("0.img").exists()
    }
}

fn owner_of(hello: &Hello, epochs: Vec<Epoch>, before: Option<&Owner>) -> Owner {
    Owner {
        version: hello.version,
        run: hello.run.clone(),
        disks: hello.disks.clone(),
        disk_bytes: hello.disk_bytes.clone(),
        continuous: hello.continuous,
        first_segment: before.map_or(0, |owner| owner.first_segment),
        first_offered: before.map_or(0, |owner| owner.first_offered),
        newest_segment: before.map_or(0, |owner| owner.newest_segment),
        notes_durable: before.is_some_and(|owner| owner.notes_durable),
        base_no: before.map_or(Some(0), |owner| owner.base_no),
        base_ns: before.and_then(|owner| owner.base_ns),
        base_id: before.map_or(0, |owner| owner.base_id),
        base_state_ns: before.and_then(|owner| owner.base_state_ns),
        long_term: hello.long_term,
        stream: hello.stream.clone(),
        epochs,
    }
}

/// What is held has to lie within the source's disks.
fn fits(owner: &Owner, hello: &Hello) -> Result<()> {
    if owner.disk_bytes.len() != hello.disks.len() {
        let (has, needs) = (owner.disk_bytes.len(), hello.disks.len());
        return Err(Error::input(format!("the store holds {has} disks, the source has {needs}")));
    }
    for (i, (held, disk)) in owner.disk_bytes.iter().zip(&hello.disk_bytes).enumerate() {
        if held > disk {
            return Err(Error::input(format!(
                "the store holds {held} bytes of disk {}, which has {disk} now",
                hello.disks[i]
            )));
        }
    }
    Ok(())
}

/// Makes a store whose replica is what these images hold, one a disk: the first source that comes
/// is compared with them, and sends what differs. The images are copied.
///
/// # Errors
/// `Input` when the folder is in use or an image cannot be read.
pub fn adopt(dir: &Path, images: &[PathBuf]) -> Result<()> {
    let is_empty = std::fs::read_dir(dir).map_or(true, |mut within| within.next().is_none());
    if !is_empty {
        return Err(Error::input("--adopt: expected a new folder").with("file", dir.display()));
    }
    let done = copy_in(dir, images);
    if done.is_err() {
        // Half of it is no store, and would be in the way of the next attempt.
        let _ = std::fs::remove_dir_all(dir);
    }
    done
}

fn copy_in(dir: &Path, images: &[PathBuf]) -> Result<()> {
    for folder in ["journal", "base"] {
        std::fs::create_dir_all(dir.join(folder)).map_err(at(dir))?;
    }
    let _lock = lock(dir)?;
    let mut disk_bytes = Vec::new();
    for (disk, image) in images.iter().enumerate() {
        let wrong = |words| Error::input(words).with("file", image.display());
        let found = std::fs::metadata(image)
            .map_err(|e| wrong("--adopt: cannot read the image").caused_by(e))?;
        if !found.is_file() {
            return Err(wrong("--adopt: expected a file"));
        }
        disk_bytes.push(found.len());
        copy_sparse(image, &dir.join("base").join(format!("{disk}.img")))?
            .sync_all()
            .map_err(at(dir))?;
    }
    let owner = Owner {
        version: VERSION,
        run: String::new(),
        disks: Vec::new(),
        disk_bytes,
        continuous: false,
        first_segment: 0,
        first_offered: 0,
        newest_segment: 0,
        notes_durable: false,
        base_no: Some(0),
        base_ns: None,
        base_id: 0,
        base_state_ns: None,
        long_term: None,
        stream: String::new(),
        epochs: Vec::new(),
    };
    write_owner(dir, &owner)
}

/// What `store.json` says, if there is one.
///
/// # Errors
/// `Input` when it is not this tool's.
pub fn read_owner(dir: &Path) -> Result<Option<Owner>> {
    let path = dir.join("store.json");
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| {
            Error::input(format!("expected a replica store: {e}")).with("file", path.display())
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(&path)(e)),
    }
}

pub(super) fn write_owner(dir: &Path, owner: &Owner) -> Result<()> {
    put_owner(dir, owner).map_err(at(&dir.join("store.json")))
}

/// As `write_owner`, for whom a full disk is one that may have room again.
pub(super) fn put_owner(dir: &Path, owner: &Owner) -> std::io::Result<()> {
    let (path, aside) = (dir.join("store.json"), dir.join("store.json.partial"));
    let mut file = File::create(&aside)?;
    file.write_all(serde_json::json!(owner).to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, &path)?;
    File::open(dir)?.sync_all()
}
