//! The files and block devices that a run reads and writes: opening, sizes, alignment.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::filters::Auxiliary;

/// How to open a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// O_DIRECT where the file allows it.
    Auto,
    /// O_DIRECT or nothing.
    Always,
    /// Through the page cache.
    Never,
}

/// An open target and what the file itself says of it.
#[derive(Debug)]
pub struct Target {
    pub file: File,
    pub path: PathBuf,
    pub direct: bool,
    pub is_block_device: bool,
    pub size_bytes: u64,
    /// A number that no other file has: of its inode, or of the block device itself.
    pub id: u64,
    /// Offsets and lengths must be multiples of this: asked of the file, 1 through the cache.
    pub offset_align: u64,
    /// Memory must be a multiple of this.
    pub memory_align: u64,
    /// Through the page cache, for what lies behind the last whole block of a file of odd size:
    /// O_DIRECT cannot reach it.
    tail: Option<File>,
}

impl Target {
    /// Opens an existing file or block device.
    ///
    /// # Errors
    /// `Input` when it cannot be opened, or when `Direct::Always` is refused.
    pub fn open(path: &Path, writable: bool, direct: Direct) -> Result<Self> {
        // The kernel gives a device to one such claim alone: never to a run what is mounted.
        let is_device = std::fs::metadata(path).is_ok_and(|of| of.file_type().is_block_device());
        let exclusive = if is_device && writable { libc::O_EXCL } else { 0 };
        let with = |flags| {
            OpenOptions::new()
                .read(true)
                .write(writable)
                .custom_flags(flags | exclusive | libc::O_CLOEXEC)
                .open(path)
        };
        let fail = |source: std::io::Error| {
            let what = match source.raw_os_error() {
                Some(libc::EBUSY) => "the device is in use: mounted, or part of another",
                _ => "cannot open the target",
            };
            Error::input(what).with("file", path.display()).caused_by(source)
        };
        let (file, is_direct) = match direct {
            Direct::Never => (with(0).map_err(fail)?, false),
            Direct::Always | Direct::Auto => match with(libc::O_DIRECT) {
                Ok(file) => (file, true),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && direct == Direct::Auto => {
                    (with(0).map_err(fail)?, false)
                }
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                    return Err(Error::input(
                        "the file system refuses O_DIRECT (--direct); use --buffered, or a file \
                         on a disk file system",
                    )
                    .with("file", path.display()));
                }
                Err(e) => return Err(fail(e)),
            },
        };
        let metadata = file.metadata().map_err(fail)?;
        let is_block_device = metadata.file_type().is_block_device();
        let size_bytes =
            if is_block_device { device_size(&file).map_err(fail)? } else { metadata.len() };
        let of_inode = [metadata.dev(), metadata.ino()];
        let words = if is_block_device { [metadata.rdev(), 0] } else { of_inode };
        let (memory_align, offset_align) =
            if is_direct { direct_alignment(&file, is_block_device) } else { (1, 1) };
        let is_odd = is_direct && !is_block_device && size_bytes % offset_align != 0;
        let tail = if is_odd { Some(with(0).map_err(fail)?) } else { None };
        Ok(Self {
            file,
            tail,
            path: path.to_owned(),
            direct: is_direct,
            is_block_device,
            size_bytes,
            id: xxh3_64(&words.map(u64::to_le_bytes).concat()),
            offset_align,
            memory_align,
        })
    }

    /// Opens a filter's own file, or makes it: a file that this tool did not make is not touched.
    ///
    /// # Errors
    /// `Input` when it cannot be made or opened, is too small, or is somebody else's.
    pub fn open_auxiliary(path: &Path, what: &Auxiliary, direct: Direct) -> Result<Self> {
        let fail = |words: &str| {
            Error::input(format!("the {}: {words}", what.name)).with("file", path.display())
        };
        let made = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        match made {
            Ok(file) => {
                // All of its room now: a run that has begun must not find the disk full.
                let sized = allocate(&file, what.size_bytes).and_then(|()| mark(&file, what.name));
                if let Err(e) = sized {
                    let _ = std::fs::remove_file(path);
                    let bytes = what.size_bytes;
                    return Err(fail(&format!("cannot make it, of {bytes} bytes")).caused_by(e));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if !is_marked(path, what.name) {
                    let words = "expected one that vaio-bench made for this, or a new name; what \
                                 is there is something else and is left alone";
                    return Err(fail(words));
                }
            }
            Err(e) => return Err(fail("cannot make it").caused_by(e)),
        }
        let target = Self::open(path, true, direct)?;
        if target.size_bytes < what.size_bytes {
            let (needs, has) = (what.size_bytes, target.size_bytes);
            return Err(fail(&format!("expected {needs} bytes or more, it has {has}")));
        }
        Ok(target)
    }

    /// The run that wrote to the file last; 0 where none has, or where no attribute is kept.
    #[must_use]
    pub fn writer(&self) -> u64 {
        let mut value = [0_u8; 8];
        // SAFETY: at most as many bytes are written as `value` has.
        let length = unsafe {
            let (to, size) = (value.as_mut_ptr().cast(), value.len());
            libc::fgetxattr(self.fd(), WRITER.as_ptr(), to, size)
        };
        if length == 8 { u64::from_le_bytes(value) } else { 0 }
    }

    /// Tells later runs who wrote to the file; a device or file system without attributes cannot.
    pub fn sign(&self, writer: u64) {
        let value = writer.to_le_bytes();
        // SAFETY: a name that ends in NUL, and a value of the length that is given.
        unsafe {
            let (from, size) = (value.as_ptr().cast(), value.len());
            libc::fsetxattr(self.fd(), WRITER.as_ptr(), from, size, 0);
        }
    }

    /// The descriptor for a request that ends at `end_bytes`, where O_DIRECT cannot serve it.
    #[must_use]
    pub fn tail_fd(&self, end_bytes: u64) -> Option<RawFd> {
        let whole_bytes = self.size_bytes - self.size_bytes % self.offset_align;
        self.tail.as_ref().filter(|_| end_bytes > whole_bytes).map(AsRawFd::as_raw_fd)
    }

    /// Ranges, from and to, that hold anything: all of it where the file system does not tell.
    #[must_use]
    pub fn extents(&self) -> Vec<(u64, u64)> {
        let seek = |from: u64, whence| {
            // SAFETY: an open descriptor and numbers; nothing reads at the file's own position.
            let found = unsafe { libc::lseek(self.fd(), from as libc::off_t, whence) };
            u64::try_from(found).ok()
        };
        let size = self.size_bytes;
        if self.is_block_device || size == 0 {
            return vec![(0, size)];
        }
        let mut extents = Vec::new();
        let mut at = 0;
        while at < size {
            let Some(from) = seek(at, libc::SEEK_DATA) else {
                let is_end = std::io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO);
                return if is_end { extents } else { vec![(0, size)] };
            };
            let to = seek(from, libc::SEEK_HOLE).map_or(size, |to| to.min(size));
            extents.push((from, to));
            at = to.max(from + 1);
        }
        extents
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// The extended attribute that says whose a file is, as on targets, and on a filter's own file
/// what it is: neither is taken for the other.
const MARK: &std::ffi::CStr = c"user.vaio_bench";

/// Of a target: a number of the run that wrote to it last.
const WRITER: &std::ffi::CStr = c"user.vaio_bench.writer";

fn mark(file: &File, what: &str) -> std::io::Result<()> {
    // SAFETY: a name that ends in NUL, and a value of the length that is given.
    let code = unsafe {
        libc::fsetxattr(file.as_raw_fd(), MARK.as_ptr(), what.as_ptr().cast(), what.len(), 0)
    };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn is_marked(path: &Path, what: &str) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut value = [0_u8; 64];
    // SAFETY: at most as many bytes are written as `value` has.
    let length = unsafe {
        libc::fgetxattr(file.as_raw_fd(), MARK.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    usize::try_from(length).is_ok_and(|length| &value[..length] == what.as_bytes())
}

/// Makes the file as large, with room for all of it where the file system can.
fn allocate(file: &File, bytes: u64) -> std::io::Result<()> {
    // Asked before: a file system may take all that it has before it says that it is not enough.
    // SAFETY: statvfs is plain data.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a descriptor of our own, and a place for the answer.
    let is_known = unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut found) } == 0;
    if is_known && bytes > found.f_bavail * found.f_frsize {
        return Err(std::io::Error::from_raw_os_error(libc::ENOSPC));
    }
    // SAFETY: a descriptor of our own.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) {
        return file.set_len(bytes);
    }
    Err(error)
}

fn device_size(file: &File) -> std::io::Result<u64> {
    const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
    let mut size = 0u64;
    // SAFETY: the request writes one u64 to the given place.
    if unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut size) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(size)
}

/// `(memory, offset)` alignment that O_DIRECT asks for: `statx` with STATX_DIOALIGN (Linux 6.1),
/// the logical sector size of a block device before that, 4096 where neither tells.
fn direct_alignment(file: &File, is_block_device: bool) -> (u64, u64) {
    const STATX_DIOALIGN: u32 = 0x2000;
    // SAFETY: statx is plain data.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path with AT_EMPTY_PATH means the descriptor itself; `statx` is valid.
    let code = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            STATX_DIOALIGN,
            &raw mut statx,
        )
    };
    if code == 0 && statx.stx_mask & STATX_DIOALIGN != 0 && statx.stx_dio_offset_align > 0 {
        let memory = u64::from(statx.stx_dio_mem_align).max(1).next_power_of_two();
        return (memory, u64::from(statx.stx_dio_offset_align));
    }
    if is_block_device {
        const BLKSSZGET: libc::c_ulong = 0x1268;
        let mut sector: libc::c_int = 0;
        // SAFETY: the request writes one int to the given place.
        if unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET, &raw mut sector) } == 0 && sector > 0 {
            return (512, sector as u64);
        }
    }
    (4096, 4096)
}
