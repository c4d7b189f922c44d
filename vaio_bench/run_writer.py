"""Writing run folders: parts of rows that close as they go, and a manifest that tells the truth.

Everything is written aside and renamed: a run that dies at any moment leaves readable parts and a
manifest that says `running`, or why it ended.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vaio_bench import schemas
from vaio_bench.errors import InputError, WorkError
from vaio_bench.store import Run, open_run, part_folder

PART_AGE_S = 4.0
PART_ROWS = 4 << 20
ROW_GROUP_ROWS = 1 << 20

# Names have few values: a dictionary. Times and offsets have too many, but their differences fit
# in a few bits: packed, they leave lz4 next to nothing to do. Against plain values this takes a
# third off the time of writing and more than half off the size. BYTE_STREAM_SPLIT would be faster
# still, but older readers know it for floats alone.
_ENCODING: dict[str, Any] = {
    "compression": "lz4",
    "use_dictionary": ["policy", "disk", "op"],
    "column_encoding": dict.fromkeys(
        [
            "seq",
            "trace_offset_bytes",
            "offset_bytes",
            "due_ns",
            "submit_ns",
            "complete_ns",
            "self_ns.list.element",
            "cpu_ns.list.element",
        ],
        "DELTA_BINARY_PACKED",
    ),
    "write_statistics": ["complete_ns", "due_ns", "seq"],
    # As many rows as the engine hands over at a time.
    "write_batch_size": 1 << 16,
    "store_schema": True,
}

# What a run folder is made of.
_ENTRIES = (
    "manifest.json",
    "ios",
    "gauges",
    "histograms",
    "fio",
    "trace.iolog",
    "trace.parquet",
    "replica",
    "warmup",
    "results",
    "timeline.parquet",
    "events.parquet",
    ".black-box",
)

# Few rows, of names that repeat.
GAUGES_ENCODING: dict[str, Any] = {"compression": "zstd", "store_schema": True}

# What the disks held before the trace: sectors that ascend, and digests that nothing packs.
BASE_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["disk"],
    "column_encoding": {"sector": "DELTA_BINARY_PACKED", "sum": "PLAIN"},
}


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document aside, then renames it into place.

    Raises:
        WorkError: the disk is full or the folder is gone.
    """
    aside = path.with_name(path.name + ".partial")
    try:
        aside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WorkError(f"{path}: cannot write: {error.strerror}") from None


def write_table(path: Path, table: pa.Table, **encoding: Any) -> None:
    """Writes a table aside, then renames it into place; `encoding` goes to `pq.write_table`.

    Raises:
        WorkError: the disk is full or the folder is gone.
    """
    aside = path.with_name(path.name + ".partial")
    try:
        pq.write_table(table, aside, **encoding)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WorkError(f"{path}: cannot write: {error}") from None


class PartWriter:
    """The parts of one round: `part-0.parquet`, `part-1.parquet`, ... in `folder`."""

    def __init__(self, folder: Path, *, by_age: bool, encoding: dict[str, Any] = _ENCODING) -> None:
        """`by_age` closes a part after some seconds; without it, by its rows alone.

        The folder is made with the first part; `encoding` are arguments of `pq.ParquetWriter`.
        """
        self.folder = folder
        self.by_age = by_age
        self._encoding = encoding
        self.rows = 0
        self._parts = 0
        self._writer: pq.ParquetWriter | None = None
        self._part_rows = 0
        self._opened = 0.0

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends a batch.

        Raises:
            WorkError: the disk is full; the parts closed before are kept.
        """
        try:
            if self._writer is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(self._aside(), batch.schema, **self._encoding)
                self._opened = time.monotonic()
            self._writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
            self.rows += batch.num_rows
            self._part_rows += batch.num_rows
            self.close_if_due()
        except OSError as error:
            self._abandon()
            raise WorkError(f"{self.folder}: cannot write the run's rows: {error}") from None

    def close_if_due(self) -> None:
        """Closes the part that is old or large enough; call it now and then."""
        aged = self.by_age and time.monotonic() - self._opened >= PART_AGE_S
        if self._writer is not None and (aged or self._part_rows >= PART_ROWS):
            self.close()

    def close(self) -> None:
        """Closes the open part, if any, and gives it its name."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.close()
            os.replace(self._aside(), self.folder / f"part-{self._parts}.parquet")
        except OSError as error:
            self._aside().unlink(missing_ok=True)
            raise WorkError(f"{self.folder}: cannot write the run's rows: {error}") from None
        self._parts += 1
        self._part_rows = 0

    def _aside(self) -> Path:
        return self.folder / f"part-{self._parts}.parquet.partial"

    def _abandon(self) -> None:
        self._writer = None
        self._aside().unlink(missing_ok=True)


class RunWriter:
    """A run folder being written: its manifest and its events."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._events: list[dict[str, Any]] = []
        self._made: list[Path] = []

    @classmethod
    def reopen(cls, run: Run) -> RunWriter:
        """The writer of a run that is there, to add rounds to it."""
        writer = cls(run.path, dict(run.manifest))
        writer._events = run.events().to_dicts()
        return writer

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from writing this run meanwhile; a process that dies lets go.

        Raises:
            InputError: another process is writing it.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path}: another process is writing this run") from None
            except OSError as error:
                # A file system without locks: nothing keeps two writers apart there.
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
            yield
        finally:
            os.close(fd)

    def forget_rounds(self, numbers: Sequence[int]) -> None:
        """Removes what there is of some rounds, of every policy: they are to be run again.

        Rounds that were lost are forgotten in any case, those of the warm-up too: they are missing.
        """
        self.manifest.pop("lost_rounds", None)
        if not numbers:
            return
        disks = self.manifest.pop("lost_disks", [])
        if others := [each for each in disks if each["round"] not in numbers]:
            self.manifest["lost_disks"] = others
        for name in self.manifest["policies"]:
            for number in numbers:
                for what in ("ios", "gauges", "histograms", "replica"):
                    shutil.rmtree(part_folder(self.path, name, number, what), ignore_errors=True)
                self.manifest["totals"].get(name, {}).pop(str(number), None)
        self._events = [event for event in self._events if event["round"] not in numbers]
        self._write_events()
        path = self.path / "timeline.parquet"
        if path.is_file():
            kept = open_run(self.path).timeline()
            kept = kept.filter(~kept["round"].is_in(list(numbers)))
            write_table(path, kept.to_arrow().cast(schemas.TIMELINE), compression="zstd")
        self.save()

    @staticmethod
    def check(path: Path, *, force: bool) -> None:
        """Whether a run can be made at `path`; changes nothing.

        Raises:
            InputError: something is there already; with `force` it may be a run, which nobody
                writes at the moment.
        """
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: expected a folder for the run, found a file")
        if not path.is_dir() or not any(path.iterdir()):
            return
        if not (path / "manifest.json").is_file():
            raise InputError(f"{path}: the folder holds something that is not a run")
        if not force:
            raise InputError(f"{path}: holds a run already; --force replaces it")
        # Many programs keep a manifest.json: only a folder that reads as a run goes.
        with RunWriter(path, open_run(path).manifest).held():
            pass

    @classmethod
    def create(cls, path: Path, manifest: dict[str, Any]) -> RunWriter:
        """Makes the folder with a manifest that says `running`.

        An earlier run in it goes, and nothing else: a trace, a target or a report that somebody
        put there is theirs. Call `check` before.

        Raises:
            InputError: the folder cannot be made.
        """
        _remove_run(path)
        made = [each for each in (path.absolute(), *path.absolute().parents) if not each.exists()]
        try:
            (path / "ios").mkdir(parents=True)
        except OSError as error:
            raise InputError(f"{path}: cannot make the run folder: {error.strerror}") from None
        writer = cls(path, {**manifest, "exit": "running"})
        writer._made = made
        writer.save()
        return writer

    @property
    def is_empty(self) -> bool:
        """Whether no round has left anything: no totals, no event or row, no reason of a loss."""
        known = self.manifest
        if known["totals"] or known["warmup"]["totals"] or known.get("lost_rounds"):
            return False
        if self._events:
            return False
        return not any(self.path.rglob("part-*.parquet"))

    def discard(self) -> None:
        """Takes the run away again, with the folders that were made for it."""
        _remove_run(self.path)
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    def save(self) -> None:
        """Writes the manifest as it stands."""
        write_json(self.path / "manifest.json", self.manifest)

    def add_totals(self, policy: str, round_: int, totals: dict[str, Any]) -> None:
        """Keeps the totals of a round that has ended."""
        self.manifest.setdefault("totals", {}).setdefault(policy, {})[str(round_)] = totals
        self.save()

    @property
    def events(self) -> list[dict[str, Any]]:
        """All that are kept (keys of `schemas.EVENTS`)."""
        return self._events

    def add_events(self, events: list[dict[str, Any]]) -> None:
        """Keeps events (keys of `schemas.EVENTS`) and writes events.parquet anew."""
        if not events and (self.path / "events.parquet").exists():
            return
        self._events += events
        self._write_events()

    def _write_events(self) -> None:
        table = pa.Table.from_pylist(self._events, schema=schemas.EVENTS)
        write_table(self.path / "events.parquet", table)

    def end(self, exit_: str) -> None:
        """Says how the run ended: `ok`, `interrupted` or `failed: ...`."""
        self.manifest["exit"] = exit_
        self.save()


def _remove_run(path: Path) -> None:
    for name in _ENTRIES:
        entry = path / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def write_result(run: Path, verb: str, document: dict[str, Any]) -> None:
    """Keeps what a verb found in `results/<verb>.json` of a run folder."""
    (run / "results").mkdir(exist_ok=True)
    write_json(run / "results" / f"{verb}.json", document)
