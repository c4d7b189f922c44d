//! The files and block devices that a run reads and writes: opening, sizes, alignment.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
                let sized = file.set_len(what.size_bytes).and_then(|()| mark(&file));
                if let Err(e) = sized {
                    let _ = std::fs::remove_file(path);
                    return Err(fail("cannot make it").caused_by(e));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                if !is_marked(path) {
                    return Err(fail("expected a file that vaio-bench made, or a new name"));
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

/// The extended attribute that says whose a file is, as on targets.
const MARK: &std::ffi::CStr = c"user.vaio_bench";

fn mark(file: &File) -> std::io::Result<()> {
    // SAFETY: a name that ends in NUL, and one byte of value.
    let code =
        unsafe { libc::fsetxattr(file.as_raw_fd(), MARK.as_ptr(), c"1".as_ptr().cast(), 1, 0) };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn is_marked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    // SAFETY: asks for the size of the value alone.
    unsafe { libc::fgetxattr(file.as_raw_fd(), MARK.as_ptr(), std::ptr::null_mut(), 0) > 0 }
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
