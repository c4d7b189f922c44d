"""The same state of the targets before each round: no round inherits what another left.

What a round reads before it writes it is prefilled by the engine, through the chain. The rest is
done here: ranges that the round before gave back (discards, write_zeroes) are written again, dirty
pages reach the device, and the page cache forgets the file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from vaio_bench import targets
from vaio_bench.errors import WorkError

_ZEROS = bytes(1 << 20)

# How the manifest tells it, by what was done.
_SYNCED = "dirty pages written back, page cache of the target dropped"
_FILLED = "ranges discarded or zeroed by the round before written with zeros again"
_PREFILLED = "what the trace reads before it writes it is written through the chain"
_LEFT = "what is written before it is read keeps the bytes of the round before"
_MODEL = "the modelled device starts empty"
_SERVER = "an NBD server's export is as the round before left it"


def description(
    paths: Sequence[str], *, fills: bool, prefills: bool, servers: bool = False
) -> dict[str, object]:
    """What a manifest says of the state in which each round starts."""
    server = [_SERVER] if servers else []
    if not paths:
        done = server or [_MODEL]
        return {"before_each_round": done, "fresh_process": True, "left_alone": None}
    done = [*([_FILLED] if fills else []), _SYNCED, *([_PREFILLED] if prefills else []), *server]
    left = _LEFT if prefills else None
    return {"before_each_round": done, "fresh_process": True, "left_alone": left}


def restore(paths: Sequence[str], *, fills: bool) -> int:
    """Brings the targets into the state in which every round starts.

    Args:
        paths: files or devices.
        fills: write zeros over the holes of the files that this tool made.

    Returns:
        How many bytes were filled.

    Raises:
        WorkError: a target is gone, or the disk is full.
    """
    filled = 0
    for path in paths:
        try:
            filled += _restore_one(path, fills=fills and targets.is_ours(Path(path)))
        except OSError as error:
            raise WorkError(f"{path}: cannot prepare it for a round: {error.strerror}") from None
    return filled


def _restore_one(path: str, *, fills: bool) -> int:
    fd = os.open(path, os.O_RDWR if fills else os.O_RDONLY)
    try:
        filled = 0
        if fills and stat.S_ISREG(os.fstat(fd).st_mode):
            for start, end in _holes(fd):
                for at in range(start, end, len(_ZEROS)):
                    os.pwrite(fd, memoryview(_ZEROS)[: min(len(_ZEROS), end - at)], at)
                filled += end - start
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return filled
    finally:
        os.close(fd)


def _holes(fd: int) -> Iterator[tuple[int, int]]:
    """Ranges without written blocks: holes, and what is allocated but was never written."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        start = os.lseek(fd, at, os.SEEK_HOLE)
        if start >= size:
            return
        try:
            at = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            at = size
        yield start, at
