"""The files and devices that a replay reads and writes: made, checked, never taken by mistake.

A target that this tool made carries the extended attribute `user.vaio_bench`; it belongs to the
inode, so a file of the user's that takes the place of one of ours is not taken for it. The engine
signs each target that it writes to (`user.vaio_bench.writer`), so that a cache file with newer data
for it can tell whether somebody wrote there meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vaio_bench.errors import InputError, WorkError

_MARK = "user.vaio_bench"
_ZEROS = bytes(1 << 20)
SIZE_ALIGN_BYTES = 4096
# A larger file is not filled with zeros beforehand unless asked: it would take minutes.
PRECONDITION_MAX_BYTES = 8 << 30


@dataclass(frozen=True)
class Need:
    """What a disk's target must hold."""

    disk: str
    reach_bytes: int
    """First byte behind all that the trace touches: no target may be smaller."""
    size_bytes: int
    """Of a file that is made."""
    exact: bool
    """The size was asked for (`--fit-to`): a file of ours gets exactly this."""


@dataclass(frozen=True)
class Prepared:
    """Targets that are ready."""

    paths: list[str]
    created: list[str]
    preconditioned: bool
    """Every block of the files that were made was written once."""


def paths_for(target: Path, disks: Sequence[str]) -> list[Path]:
    """One path a disk: the target itself for one disk, `<escaped name>.img` in it for several."""
    if len(disks) == 1 and not target.is_dir():
        return [target]
    if target.exists() and not target.is_dir():
        raise InputError(
            f"{target}: the trace has {len(disks)} disks: expected a folder to hold one file a "
            "disk, or --disk to replay one of them"
        )
    return [target / f"{escape(disk)}.img" for disk in disks]


def escape(disk: str) -> str:
    """A disk's name as a file name: percent-encoded, and never hidden or empty."""
    name = quote(disk, safe=" ,=+@")
    return f"%2E{name[1:]}" if name.startswith(".") else name or "%"


def is_ours(path: Path) -> bool:
    """Whether this tool made the file as a target; False where that cannot be told."""
    try:
        # A filter's own file (a cache file, a redo log) carries its name in place of the 1.
        return os.getxattr(path, _MARK) == b"1"
    except OSError:
        return False


def _keeps_no_mark(path: Path) -> bool:
    try:
        os.getxattr(path, _MARK)
    except OSError as error:
        return error.errno == errno.ENOTSUP
    return False


def prepare(
    target: Path,
    needs: Sequence[Need],
    *,
    writes: bool,
    destroy_data: bool,
    precondition: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Checks the targets that exist and makes those that do not.

    Args:
        target: a file, block device or folder.
        needs: one a disk.
        writes: whether the replay will write (its trace, or a prefill).
        destroy_data: the user allows the contents of what exists to be overwritten.
        precondition: write every block of a new file once, so that no round pays for allocation.
        progress: called with (bytes written, bytes in all) meanwhile.

    Raises:
        InputError: a target is too small, cannot be opened, or is not ours to write to.
        WorkError: a file cannot be made: the disk is full.
    """
    paths = paths_for(target, [need.disk for need in needs])
    existing = [path.exists() for path in paths]
    for path, need, exists in zip(paths, needs, existing, strict=True):
        if exists:
            _check(path, need, writes=writes, destroy_data=destroy_data)
    if paths[0] != target:
        _make_folder(target)
    missing = [
        (path, need)
        for path, need, exists in zip(paths, needs, existing, strict=True)
        if not exists
    ]
    created: list[Path] = []
    try:
        _make(missing, created, precondition=precondition, progress=progress)
    except BaseException:
        # All or nothing, Ctrl-C included: half of the targets is of no use and takes room.
        for path in created:
            path.unlink(missing_ok=True)
        raise
    names = [str(path) for path in created]
    return Prepared([str(path) for path in paths], names, precondition or not created)


@contextmanager
def held(paths: Sequence[str], *, writes: bool) -> Iterator[None]:
    """Keeps other runs off these files meanwhile; runs that only read share them.

    A process that dies lets go.

    Raises:
        InputError: another run has one of them.
    """
    ours: set[tuple[int, int]] = set()
    with ExitStack() as opened:
        for path in map(Path, paths):
            # A device is claimed by the engine, as by a mount: locks on it are udev's as well.
            if path.is_block_device():
                continue
            fd = _open(path, os.O_RDWR if writes else os.O_RDONLY)
            opened.callback(os.close, fd)
            # Two of the run's own disks may be one file, by a link.
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) not in ours:
                _lock(fd, path, writes=writes)
                ours.add((status.st_dev, status.st_ino))
        yield


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags)
    except OSError as error:
        if flags & os.O_EXCL and error.errno == errno.EBUSY:
            raise InputError(
                f"{path}: the device is in use: mounted, part of another, or the target of "
                "another run; a run would overwrite it"
            ) from None
        raise InputError(f"{path}: cannot open the target: {error.strerror}") from None


def _lock(fd: int, path: Path, *, writes: bool) -> None:
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if writes else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{path}: it is the target of another run at this moment; name another, or wait"
        ) from None
    except OSError as error:
        # A file system without locks: nothing keeps two runs apart there.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise InputError(f"{path}: cannot lock the target: {error.strerror}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot make the folder of targets: {error.strerror}") from None


def _make(
    missing: Sequence[tuple[Path, Need]],
    created: list[Path],
    *,
    precondition: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Makes the files and appends each to `created` as soon as it is there."""
    total = sum(need.size_bytes for _, need in missing)
    done = 0
    for path, need in missing:
        _create(path, need.size_bytes)
        created.append(path)
        if not precondition:
            continue
        for written in _fill(path, need.size_bytes):
            done += written
            if progress:
                progress(done, total)


def _check(path: Path, need: Need, *, writes: bool, destroy_data: bool) -> None:
    # A device that is mounted, or part of another, is given to nobody who claims it.
    claim = os.O_EXCL if writes and path.is_block_device() else 0
    fd = _open(path, (os.O_RDWR if writes else os.O_RDONLY) | claim)
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise InputError(f"{path}: expected a regular file or a block device")
        if stat.S_ISREG(mode):
            _lock(fd, path, writes=writes)
        ours = stat.S_ISREG(mode) and is_ours(path)
        if writes and not ours and not destroy_data:
            what = "file that this tool did not make"
            if stat.S_ISBLK(mode):
                what = "block device"
            elif _keeps_no_mark(path):
                what = (
                    "file that it may have made or not (its file system keeps no extended "
                    "attributes, by which that is told)"
                )
            raise InputError(
                f"{path}: the replay would overwrite a {what}; name a new file, or add "
                "--destroy-data if its contents may go"
            )
        size = os.lseek(fd, 0, os.SEEK_END)
        if ours and writes:
            if size < need.size_bytes:
                _allocate(fd, path, need.size_bytes)
            elif need.exact:
                os.ftruncate(fd, need.size_bytes)
        elif size < need.reach_bytes:
            raise InputError(
                f"{path}: the trace reaches to byte {need.reach_bytes} of disk {need.disk}, the "
                f"target has {size}; use a larger one or --fit-to"
            )
    finally:
        os.close(fd)


def _create(path: Path, size_bytes: int) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot make the target: {error.strerror}") from None
    try:
        _allocate(fd, path, size_bytes)
        try:
            os.setxattr(path, _MARK, b"1")
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _allocate(fd: int, path: Path, size_bytes: int) -> None:
    try:
        if size_bytes:
            os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            # Larger than any file may be, or than the device: folding is the way out.
            raise WorkError(
                f"{path}: cannot allocate {size_bytes} bytes for the target: {error.strerror} "
                "(--fit-to folds the trace onto a smaller one)"
            ) from None
        os.ftruncate(fd, size_bytes)


def _fill(path: Path, size_bytes: int) -> Iterator[int]:
    """Writes zeros over the whole file and yields the bytes of each step."""
    fd = os.open(path, os.O_WRONLY)
    try:
        for offset in range(0, size_bytes, len(_ZEROS)):
            length = min(len(_ZEROS), size_bytes - offset)
            os.pwrite(fd, memoryview(_ZEROS)[:length], offset)
            yield length
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise WorkError(f"{path}: cannot write the new target: {error.strerror}") from None
    finally:
        os.close(fd)
