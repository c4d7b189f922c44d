"""`yara`: an inspection filter, as an antivirus filter would be, on the YARA-X engine."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vaio_bench.filters import (
    PASS,
    Answer,
    Context,
    Filter,
    Io,
    Parameters,
    Properties,
    Setting,
    fail,
)

EICAR_RULES = Path(__file__).resolve().parent / "rules" / "eicar.yar"


class YaraParameters(Parameters):
    """The keys of `yara` in a policy."""

    rules: Path = EICAR_RULES
    action: Literal["allow", "block", "alert"] = "alert"
    window: int = Field(default=4096, ge=0, le=1 << 20)
    recent: int = Field(default=64, ge=0, le=4096)


KEPT_BYTES = 16 << 20
"""What an instance remembers of recent writes, at most."""

_Pieces = dict[int, bytes]
"""What is known of the disk: the bytes from an offset on, none over another, oldest first."""


class Yara(Filter):
    """Scans what the guest writes for patterns, and blocks or reports what matches.

    An inspection filter, as an antivirus product on this interface would be.

    A match may span I/Os: with the bytes of a write it sees `window` bytes before and behind them,
    as far as recent writes left them there. Of a write that is partly overwritten, the rest counts.

    ## Parameters
    - `rules`: a file of YARA rules, looked for beside the policy's file, then in the folder of the
      command. By default the EICAR test string alone.
    - `action`: `alert` (default) passes the write and tells of the match in the run's events,
      `block` fails the write with EIO and tells of it, `allow` only counts.
    - `window`: bytes of a neighbouring write that are scanned along, 4096 by default.
    - `recent`: how many writes are remembered for that, 64 by default, and 16 MiB of them at most.

    ## Example
    ```toml
    [[filter]]
    use = "yara"
    rules = "rules.yar"
    action = "block"
    ```

    ## Class and properties
    Class inspection. Transparent; it fails writes with `action = "block"`. It needs the bytes.
    Gauges: `scanned_bytes`, `matched_writes`, `blocked_writes`.

    ## Unsuitable for
    Judging what an inspection product costs: this is Python around a fast engine, and the run says
    so. Files that are not contiguous on the disk, or written out of order beyond the window: it
    knows blocks, not files. YARA modules that parse a whole file (`pe`, `elf`) see parts of one.

    ## Source
    YARA-X (VirusTotal), https://virustotal.github.io/yara-x; the EICAR test file,
    https://www.eicar.org.
    """

    filter_class = "inspection"
    properties = Properties(transparent=True, needs_data=True)
    Parameters = YaraParameters
    reads = ("rules",)

    def __init__(self, parameters: YaraParameters, setting: Setting) -> None:
        """Compiles the rules.

        Raises:
            ValueError: they cannot be read or compiled, or yara-x is not installed.
        """
        super().__init__(parameters, setting)
        try:
            import yara_x
        except ImportError:
            raise ValueError("needs the yara-x package: pip install 'vaio-bench[yara]'") from None
        try:
            source = parameters.rules.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"rules: {parameters.rules}: {error}") from error
        try:
            self._rules = yara_x.compile(source)
        except yara_x.CompileError as error:
            first = " ".join(str(error).split())
            raise ValueError(f"rules: {parameters.rules}: {first}") from error
        self._scanner: Any = None
        self._pieces: _Pieces = {}
        self._counts = {"scanned_bytes": 0, "matched_writes": 0, "blocked_writes": 0}

    def open(self, slots: int) -> None:
        """Forgets what the prefill wrote; a scanner belongs to the thread that makes it."""
        import yara_x

        self._scanner = yara_x.Scanner(self._rules)
        self._pieces = {}
        self._counts = dict.fromkeys(self._counts, 0)

    def close(self, cx: Context) -> None:
        """Lets go of the scanner where it was made: its thread is the only one that may."""
        self._scanner = None

    def io_start(self, cx: Context, io: Io) -> Answer:
        """Scans a write; forgets what another I/O overwrites."""
        if io.op == "write" and io.data is not None:
            return self._write(cx, io, bytes(io.data))
        if io.op in ("write_zeroes", "discard"):
            self._pieces = _without(
                self._pieces, io.offset_bytes, io.offset_bytes + io.length_bytes
            )
        return PASS

    def gauges(self) -> dict[str, int]:
        """What was scanned and found."""
        return dict(self._counts)

    def _write(self, cx: Context, io: Io, data: bytes) -> Answer:
        start, end = io.offset_bytes, io.offset_bytes + len(data)
        pieces = _without(self._pieces, start, end)
        before = _before(pieces, start, self.parameters.window)
        behind = _behind(pieces, end, self.parameters.window)
        self._counts["scanned_bytes"] += len(data)
        action = self.parameters.action
        matched = self._matches(before, data, behind)
        if matched:
            self._counts["matched_writes"] += 1
            if action != "allow":
                place = {"action": action, "io": io.seq, "offset_bytes": start}
                cx.event("match", json.dumps({"rules": matched, **place}))
            if action == "block":
                # What it was to overwrite is still there.
                self._counts["blocked_writes"] += 1
                return fail(errno.EIO)
        self._pieces = pieces
        self._remember(start, data)
        return PASS

    def _remember(self, start: int, data: bytes) -> None:
        window, recent = self.parameters.window, self.parameters.recent
        if not (window and recent and data):
            return
        if len(data) > KEPT_BYTES:
            self._remember(start, data[:window])
            start, data = start + len(data) - window, data[-window:]
        self._pieces[start] = data
        while len(self._pieces) > recent or sum(map(len, self._pieces.values())) > KEPT_BYTES:
            del self._pieces[next(iter(self._pieces))]

    def _matches(self, before: bytes, data: bytes, behind: bytes) -> list[str]:
        """Rules that match with at least a byte of this write; those of a condition alone too."""
        found = []
        low, high = len(before), len(before) + len(data)
        for rule in self._scanner.scan(before + data + behind).matching_rules:
            spans: list[Any] = [match for pattern in rule.patterns for match in pattern.matches]
            touching = [m for m in spans if m.offset < high and m.offset + m.length > low]
            if touching or not spans:
                found.append(rule.identifier)
        return found


def _without(pieces: _Pieces, start: int, end: int) -> _Pieces:
    """What is left of the pieces when this range is overwritten."""
    if not any(at < end and start < at + len(data) for at, data in pieces.items()):
        return pieces
    left = {}
    for at, data in pieces.items():
        if at >= end or at + len(data) <= start:
            left[at] = data
            continue
        if at < start:
            left[at] = data[: start - at]
        if at + len(data) > end:
            left[end] = data[end - at :]
    return left


def _before(pieces: _Pieces, start: int, window: int) -> bytes:
    """So many bytes before an offset, as far as they are known without a gap."""
    ends = {at + len(data): data for at, data in pieces.items()}
    found = b""
    while len(found) < window and (data := ends.get(start - len(found))):
        found = data + found
    return found[len(found) - min(len(found), window) :]


def _behind(pieces: _Pieces, end: int, window: int) -> bytes:
    """So many bytes from an offset on, as far as they are known without a gap."""
    found = b""
    while len(found) < window and (data := pieces.get(end + len(found))):
        found += data
    return found[:window]
