"""blktrace and blkparse against real captures and against blkparse itself."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import find_tool, requires
from vaio_bench import import_trace, open_trace

FLUSH_AND_FUA = 16 | 1


def unpacked(traces: Path, name: str, folder: Path) -> Path:
    """The prefix of a capture, decompressed for blkparse."""
    for source in sorted((traces / "own").glob(f"{name}.blktrace.*.zst")):
        with (folder / source.stem).open("wb") as target:
            subprocess.run(["zstd", "-dcq", source], stdout=target, check=True)
    return folder / name


def mix(path: Path) -> dict[str, tuple[int, int]]:
    """I/Os and bytes of each operation."""
    rows = pl.read_parquet(path).with_columns(pl.col("op").cast(pl.String))
    counts = rows.group_by("op").agg(pl.len(), pl.col("length_bytes").sum())
    return {op: (ios, length) for op, ios, length in counts.iter_rows()}


CAPTURES = {
    "oltp": ((267_056, 2_712_076_288), (189_981, 2_385_092_608), 78_152, 134),
    "oltp-8s": ((43_597, 436_342_784), (30_144, 381_911_040), 12_849, 20),
    "pgbench": ((45_715, 468_656_128), (280_610, 4_388_253_696), 107_277, 301),
}
RECORDS = {"oltp": 3_042_973, "oltp-8s": 493_289, "pgbench": 2_289_512}


@pytest.mark.parametrize("name", CAPTURES)
def test_counts_of_real_captures(traces_dir: Path, tmp_path: Path, name: str) -> None:
    reads, writes, flushes, preflush_fua = CAPTURES[name]
    sources = sorted((traces_dir / "own").glob(f"{name}.blktrace.*.zst"))
    trace = tmp_path / "t.parquet"
    imported = import_trace(sources, trace)
    assert imported.format == "blktrace"
    assert imported.records == RECORDS[name]
    assert mix(trace) == {"read": reads, "write": writes, "flush": (flushes, 0)}
    rows = pl.read_parquet(trace)
    both = rows.filter(pl.col("flags") & FLUSH_AND_FUA == FLUSH_AND_FUA)
    assert len(both) == preflush_fua
    assert rows["time_ns"].is_sorted()
    assert rows["time_ns"][0] == 0


def test_last_byte_of_the_oltp_capture(traces_dir: Path, tmp_path: Path) -> None:
    import_trace(traces_dir / "own" / "oltp", tmp_path / "t.parquet")
    rows = pl.read_parquet(tmp_path / "t.parquet")
    assert (rows["offset_bytes"] + rows["length_bytes"]).max() == 1_559_592_960
    assert rows["latency_ns"].null_count() == 0
    assert rows["latency_ns"].min() > 1_000


def events_of(text: str) -> list[list[str]]:
    """The event lines of blkparse's text, as words."""
    lines = (line.split() for line in text.splitlines())
    return [words for words in lines if len(words) > 6 and "," in words[0]]


@requires("blkparse")
@pytest.mark.parametrize(("event", "letter"), [("queue", "Q"), ("issue", "D")])
def test_counts_agree_with_blkparse(
    traces_dir: Path, tmp_path: Path, event: str, letter: str
) -> None:
    prefix = unpacked(traces_dir, "oltp-8s", tmp_path)
    done = subprocess.run(
        [str(find_tool("blkparse")), "-q", "-i", prefix.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted: Counter[tuple[str, int]] = Counter()
    sectors: Counter[tuple[str, int]] = Counter()
    for words in events_of(done.stdout):
        if words[5] != letter:
            continue
        has_data = len(words) > 8 and words[8] == "+"
        is_flush = "F" in words[6] and not has_data
        op = "flush" if is_flush else "write" if "W" in words[6] else "read"
        sync = 2 * ("S" in words[6])
        wanted[op, sync] += 1
        sectors[op, sync] += int(words[9]) if has_data else 0
    import_trace(prefix, tmp_path / "t.parquet", event=event)
    rows = pl.read_parquet(tmp_path / "t.parquet").select(
        pl.col("op").cast(pl.String), pl.col("flags") & 2, "length_bytes"
    )
    got = rows.group_by("op", "flags").agg(pl.len(), pl.col("length_bytes").sum()).rows()
    assert {(op, sync): ios for op, sync, ios, _ in got} == dict(wanted)
    assert {(op, sync): length // 512 for op, sync, _, length in got} == dict(sectors)
    assert len({op for op, *_ in got}) == 3


@requires("blkparse")
def test_text_and_merged_dump_give_the_same_trace(traces_dir: Path, tmp_path: Path) -> None:
    prefix = unpacked(traces_dir, "oltp-8s", tmp_path)
    blkparse = str(find_tool("blkparse"))
    subprocess.run(
        [blkparse, "-q", "-i", prefix.name, "-d", "merged.blktrace.0", "-o", "text"],
        cwd=tmp_path,
        check=True,
    )
    traces = {}
    for name, source in {
        "files": prefix,
        "dump": tmp_path / "merged.blktrace.0",
        "text": tmp_path / "text",
    }.items():
        import_trace(source, tmp_path / f"{name}.parquet")
        traces[name] = pl.read_parquet(tmp_path / f"{name}.parquet")
    assert traces["dump"].equals(traces["files"])
    assert traces["text"].equals(traces["files"])


def test_service_times_of_unmerged_ios(traces_dir: Path, tmp_path: Path) -> None:
    """An independent matching of the requests that carry one bio and are alone in flight."""
    trace = tmp_path / "t.parquet"
    import_trace(traces_dir / "own" / "oltp-8s", trace)
    prefix = unpacked(traces_dir, "oltp-8s", tmp_path)
    events = []
    for path in sorted(tmp_path.glob(f"{prefix.name}.blktrace.*")):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            time, sector = (int.from_bytes(data[at + o : at + o + 8], "little") for o in (8, 16))
            size, action = (int.from_bytes(data[at + o : at + o + 4], "little") for o in (24, 28))
            events.append((time, action & 0xFF, (sector, size, action >> 16 & 2)))
            at += 48 + int.from_bytes(data[at + 46 : at + 48], "little")
    events.sort()
    origin = next(time for time, action, _ in events if action == 1)
    queued: dict[tuple[int, int, int], int] = {}
    issued: dict[tuple[int, int, int], int] = {}
    wanted = {}
    for time, action, key in events:
        if key[1] and action == 1:
            queued[key] = time
        elif action == 7 and key in queued:
            issued[key] = time
        elif action == 8 and key in issued:
            at_offset = (queued.pop(key) - origin, key[0] * 512)
            wanted[at_offset] = time - issued.pop(key)
    rows = pl.read_parquet(trace)
    keys = zip(rows["time_ns"], rows["offset_bytes"], strict=True)
    got = dict(zip(keys, rows["latency_ns"], strict=True))
    assert len(wanted) > 70_000
    different = {at for at, latency in wanted.items() if got[at] != latency}
    assert not different


def test_one_cpu_with_remaps(traces_dir: Path, tmp_path: Path) -> None:
    source = traces_dir / "public" / "nvme-randread.blktrace.0"
    if not source.exists():
        pytest.skip(f"requires {source.name}")
    imported = import_trace(source, tmp_path / "t.parquet")
    assert imported.disks == ["259,0"]
    assert mix(tmp_path / "t.parquet") == {"read": (963, 963 * 4096)}
    with open_trace(tmp_path / "t.parquet") as trace:
        assert trace.metadata["sources"][0]["size_bytes"] == source.stat().st_size
