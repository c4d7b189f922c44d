"""The kernel's own account of when reads reached a block device: block_bio_queue events.

An ftrace instance of its own, on the monotonic clock, filtered by device. The buffers are read raw
(layout: events/header_page and events/header_event of tracefs, and the kernel's header
linux/ring_buffer.h), since the text has microseconds and these have nanoseconds.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

_BUFFER_KB = 16 << 10
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_DELTA_BITS = 27


class NoTracefsError(Exception):
    """Tracefs is not to be had here."""


class BioQueueEvents:
    """Records the block_bio_queue events of a device while it is used as a context.

    Raises:
        NoTracefsError: it is neither mounted nor can it be.
    """

    def __init__(self, device: Path) -> None:
        number = os.stat(device).st_rdev
        self._device = os.major(number) << 20 | os.minor(number)
        self._mounted: tempfile.TemporaryDirectory[str] | None = None
        self._root = Path("/sys/kernel/tracing")
        self._instance = self._root

    def __enter__(self) -> BioQueueEvents:
        if not (self._root / "instances").is_dir():
            self._mounted = tempfile.TemporaryDirectory()
            self._root = Path(self._mounted.name)
            mount = ["mount", "-t", "tracefs", "tracefs", str(self._root)]
            if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
                self._mounted.cleanup()
                raise NoTracefsError
        self._instance = self._root / "instances" / f"vaio_bench_{os.getpid()}"
        self._instance.mkdir()
        self._write("trace_clock", "mono")
        self._write("buffer_size_kb", str(_BUFFER_KB))
        self._write("events/block/block_bio_queue/filter", f"dev == {self._device}")
        self._write("events/block/block_bio_queue/enable", "1")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._write("events/block/block_bio_queue/enable", "0")
        self._instance.rmdir()
        if self._mounted is not None:
            subprocess.run(["umount", self._mounted.name], check=True)
            self._mounted.cleanup()

    def _write(self, name: str, text: str) -> None:
        (self._instance / name).write_text(text)

    def clear(self) -> None:
        """Forgets what was recorded so far."""
        self._write("trace", "")

    def take(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times on CLOCK_MONOTONIC in nanoseconds, byte offsets and lengths, in order of time.

        Raises:
            RuntimeError: the buffers were too small: events were lost.
        """
        event = self._instance / "events/block/block_bio_queue"
        fields = {
            match[1]: int(match[2])
            for match in re.finditer(r"(\w+);\s+offset:(\d+);", (event / "format").read_text())
        }
        kind = int((event / "id").read_text())
        times, sectors, counts = [], [], []
        for cpu in sorted((self._instance / "per_cpu").iterdir()):
            if re.search(r"^overrun: [1-9]", (cpu / "stats").read_text(), re.MULTILINE):
                raise RuntimeError(f"events of {cpu.name} were overwritten")
            for page in _pages(cpu / "trace_pipe_raw"):
                for time_ns, record in _records(page):
                    if struct.unpack_from("=H", record)[0] == kind:
                        times.append(time_ns)
                        sectors.append(struct.unpack_from("=Q", record, fields["sector"])[0])
                        counts.append(struct.unpack_from("=I", record, fields["nr_sector"])[0])
        order = np.argsort(np.array(times, dtype=np.int64), kind="stable")
        return (
            np.array(times, dtype=np.int64)[order],
            np.array(sectors, dtype=np.int64)[order] * 512,
            np.array(counts, dtype=np.int64)[order] * 512,
        )


def _pages(pipe: Path) -> Iterator[bytes]:
    size_bytes = os.sysconf("SC_PAGE_SIZE")
    fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while page := os.read(fd, size_bytes):
            yield page
    except BlockingIOError:
        return
    finally:
        os.close(fd)


def _records(page: bytes) -> Iterator[tuple[int, bytes]]:
    """Times and payloads of the events of one page of a ring buffer."""
    time_ns, commit = struct.unpack_from("=QQ", page)
    at, end = 16, 16 + (commit & 0xFFFFF)
    while at < end:
        (head,) = struct.unpack_from("=I", page, at)
        kind, delta = head & 31, head >> 5
        at += 4
        if kind == _PADDING:
            if delta == 0:
                return
            time_ns += delta
            at += struct.unpack_from("=I", page, at)[0]
        elif kind in (_TIME_EXTEND, _TIME_STAMP):
            high = struct.unpack_from("=I", page, at)[0] << _DELTA_BITS
            at += 4
            if kind == _TIME_EXTEND:
                time_ns += high + delta
            else:
                # A full stamp lacks the topmost bits, which do not change within a page.
                time_ns = time_ns >> 59 << 59 | high | delta
        else:
            time_ns += delta
            length = kind * 4
            if kind == 0:
                # The word of the length counts itself.
                length = struct.unpack_from("=I", page, at)[0] - 4
                at += 4
            yield time_ns, page[at : at + length]
            at += length
