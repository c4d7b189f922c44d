"""What foreign filters of another process were doing when it died, or stopped moving.

A filter in a shared library or in Python may crash or hang; its process then cannot tell. Before
each of its callbacks the engine notes it in a file that both processes map (layout:
`rust/core/src/black_box.rs`); this module reads that file from the other side.
"""

from __future__ import annotations

import signal
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vaio_bench import _core

HANG_S = 30.0
"""A callback that takes longer than this has hung, unless a run says otherwise."""

_RECORD = struct.Struct("<QQQQIIIIIIQ")
_NO_IO = (1 << 64) - 1
_STAND_IN = "hop"


@dataclass(frozen=True)
class Doing:
    """A callback of a foreign filter that has not returned."""

    layer: int
    """The filter's place in its policy, from 0."""
    disk: int
    """The disk's place in the run, from 0."""
    callback: str
    moves: int
    signal: int
    seq: int | None
    """The I/O's number in the trace, where the callback is about one."""
    op: str
    offset_bytes: int
    length_bytes: int
    ios: int
    """How many I/Os it is about, or 0: `seq` is the first of a batch, `last_seq` the last."""
    last_seq: int

    def told(self, how: str, filters: Sequence[str], disks: Sequence[str]) -> str:
        """`filter[0] "so:x.so" hung in io_start of I/O 17 (write of 512 bytes at offset ...)`.

        `filters` are the names of the engine's layers, stand-ins of placed filters included.
        """
        disk = f"disk {disks[self.disk]}" if self.disk < len(disks) else "no disk"
        return f"{named(self.layer, filters)} {how} in {self.words(disk)}"

    def words(self, disk: str | None = None) -> str:
        """`io_start of I/O 17 (write of 512 bytes at offset 4096)`."""
        if self.ios == 0:
            return self.callback if disk is None else f"{self.callback} ({disk})"
        where = f"offset {self.offset_bytes}" + (f" of {disk}" if disk is not None else "")
        io = f"{self.op} of {self.length_bytes} bytes at {where}"
        if self.seq is None:
            # As those of a prefill.
            many = "an I/O that is" if self.ios == 1 else f"{self.ios} I/Os that are"
            return f"{self.callback} of {many} not of the trace ({io})"
        if self.ios > 1:
            which = f"{self.ios} I/Os from {self.seq} to {self.last_seq}"
            return f"{self.callback} of {which} (the first: {io})"
        return f"{self.callback} of I/O {self.seq} ({io})"


def named(layer: int, filters: Sequence[str]) -> str:
    """`filter[0] "so:x.so"`: by its place in the policy; `filters` as for `Doing.told`."""
    number = layer - sum(name == _STAND_IN for name in filters[:layer])
    return f'filter[{number}] "{filters[layer]}"'


def read(file: Path) -> list[Doing]:
    """The callbacks that are under way; one that a deadly signal came in is alone.

    A file that is not there tells of nothing.
    """
    try:
        content = file.read_bytes()
    except OSError:
        return []
    names, ops = _core.black_box_words()
    found = []
    for at in range(0, len(content) - _RECORD.size + 1, _RECORD.size):
        fields = _RECORD.unpack_from(content, at)
        moves, seq, offset, length, callback, op, layer, disk, number, ios, last = fields
        if layer == 0:
            break
        if moves % 2:
            io = None if seq == _NO_IO else seq
            name = names[callback] if callback < len(names) else "?"
            op_name = ops[op] if op < len(ops) else "?"
            shown = (io, op_name, offset, length, ios, last)
            found.append(Doing(layer - 1, disk, name, moves, number, *shown))
    return [doing for doing in found if doing.signal] or found


def signal_name(number: int) -> str:
    """`SIGSEGV`, or the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class HangWatch:
    """Looks at the file now and then: which callback has not returned for too long?"""

    def __init__(self, file: Path, hang_s: float = HANG_S) -> None:
        self._file = file
        self._hang_s = hang_s
        self._since: dict[tuple[int, int, int], float] = {}

    def look(self) -> Doing | None:
        """The callback that hangs, if one does. Call every second or so."""
        now = time.monotonic()
        doing = {(d.layer, d.disk, d.moves): d for d in read(self._file)}
        self._since = {key: self._since.get(key, now) for key in doing}
        late = [key for key, since in self._since.items() if now - since > self._hang_s]
        return doing[late[0]] if late else None
