"""`cache` with `file`: the same hits, real files, hosts that die, and files that do not fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from replay_kit import child_of

import vaio_bench as vb
from vaio_bench.errors import InputError

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCK = 4096
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def keys(file: Path | str, **more: str) -> str:
    """A filter's table."""
    table = {"capacity": "512KiB", "file": str(file), **more}
    return "\n".join(['use = "cache"', *(f'{key} = "{value}"' for key, value in table.items())])


@pytest.mark.parametrize("write_policy", ["through", "back", "around"])
def test_in_virtual_time_it_hits_what_a_cache_in_memory_hits(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    mixed_ios: list[Any],
    write_policy: str,
) -> None:
    # Slow enough that nothing waits for a place in the file.
    trace = write_trace([(at * 20_000, *io) for at, *io in mixed_ios])
    memory = f'use = "cache"\ncapacity = "512KiB"\nwrite_policy = "{write_policy}"'
    file = f'{memory}\nfile = "c"'
    found = [replay(trace, policy, pace="recorded", depth=32) for policy in (memory, file)]
    hits = [each.rows["hit_blocks"].to_list() for each in found]
    assert hits[0] == hits[1]
    assert sum(hits[0]) > 1000
    assert all(each.summary["verified"] for each in found)


@pytest.mark.parametrize("backend", ["uring", "psync"])
@pytest.mark.parametrize("block", ["4KiB", "64KiB"])
@pytest.mark.parametrize("write_policy", ["through", "back", "around"])
def test_real_files_give_back_what_was_written(
    write_trace: Callable[..., Path],
    replay: Callable[..., Any],
    mixed_ios: list[Any],
    tmp_path: Path,
    write_policy: str,
    block: str,
    backend: str,
) -> None:
    more = {"destage_after": "5ms"} if write_policy == "back" else {}
    table = keys(tmp_path / "cache", write_policy=write_policy, block=block, **more)
    for _ in range(2):
        # The second finds the file that the first left.
        target = tmp_path / "disk.img"
        found = replay(write_trace(mixed_ios), table, target=target, depth=32, backend=backend)
        assert found.summary["verified"] is True
        assert found.summary["errors"] == 0
        assert found.rows["hit_blocks"].sum() > 0


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `vaio-bench replay` and gives what it printed."""

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _line(*args), cwd=tmp_path, env=_env(), capture_output=True, text=True, check=False
        )

    return run


def _line(*args: str | Path) -> list[str]:
    start = [sys.executable, "-c", "from vaio_bench.cli import main; main()", "replay"]
    return [*start, *map(str, args)]


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _policy(folder: Path, table: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(f"[[filter]]\n{table}\n", encoding="utf-8")
    return path


def _has_records(file: Path) -> bool:
    return file.exists() and any(file.read_bytes()[BLOCK : 2 * BLOCK][24:512])


def _killed(folder: Path, trace: Path) -> None:
    """A replay through a write-back cache whose host dies when the map names dirty blocks."""
    table = keys("cache", capacity="4MiB", write_policy="back", destage_after="1h")
    line = _line(trace, "--target", "disk.img", "--policy", _policy(folder, table), "-o", "killed")
    process = subprocess.Popen(line, cwd=folder, env=_env(), stderr=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 60
    while not _has_records(folder / "cache"):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(child_of(process), signal.SIGKILL)
    process.wait()


def _events(run: Path) -> pl.DataFrame:
    return vb.open_run(run).events()


BLOCKS = 400


@pytest.fixture
def written_once(write_trace: Callable[..., Path]) -> Path:
    """Twenty seconds of writes, each block once and in order, every fourth behind a flush."""
    ios: list[tuple[int, str, int, int]] = []
    for block in range(BLOCKS):
        ios.append((block * 50_000_000, "write", block * BLOCK, BLOCK))
        if block % 4 == 3:
            ios.append((block * 50_000_000 + 40_000_000, "flush", 0, 0))
    return write_trace(ios)


def test_what_was_flushed_outlives_kill_9(
    written_once: Path, command: Command, tmp_path: Path
) -> None:
    direct = command(written_once, "--target", "direct.img", "--pace", "asap", "-o", "direct")
    assert direct.returncode == 0, direct.stderr
    _killed(tmp_path, written_once)
    disk = tmp_path / "disk.img"
    assert not any(disk.read_bytes()), "all that is dirty is in the file"
    # Any cache on the file brings it to the disk: here one that reads, behind its back.
    policy = _policy(tmp_path, keys("cache", capacity="1MiB"))
    reads = tmp_path / "reads.parquet"
    table = tmp_path / "reads.csv"
    beyond = f"0,read,{BLOCKS * BLOCK},{BLOCK}"
    table.write_text(f"time_ns,op,offset_bytes,length_bytes\n{beyond}\n", encoding="utf-8")
    vb.import_trace(table, reads)
    again = command(reads, "--target", "disk.img", "--policy", policy, "-o", "again")
    assert again.returncode == 0, again.stderr
    told = _events(tmp_path / "again").filter(pl.col("kind") == "cache_recovered")
    [detail] = [json.loads(text) for text in told["detail"]]
    got, right = disk.read_bytes(), (tmp_path / "direct.img").read_bytes()
    there = [
        got[at : at + BLOCK] == right[at : at + BLOCK] for at in range(0, BLOCKS * BLOCK, BLOCK)
    ]
    assert sum(there) == detail["blocks"] >= 1
    assert there == sorted(there, reverse=True), "in the order in which they were written"
    assert not any(got[sum(there) * BLOCK : BLOCKS * BLOCK])
    assert "cache-recovered" in json.dumps(
        json.loads((tmp_path / "again" / "manifest.json").read_text(encoding="utf-8"))["warnings"]
    )


def test_replication_above_it_sends_what_only_the_file_held(
    written_once: Path, command: Command, tmp_path: Path
) -> None:
    _killed(tmp_path, written_once)
    disk = tmp_path / "disk.img"
    assert not any(disk.read_bytes()), "the file system knows of holes alone"
    policy = tmp_path / "both.toml"
    cdp = 'use = "cdp"\nrpo = "5s"\nlink = { bandwidth = "1Gbit/s" }'
    # A cache that is asked to keep nothing dirty brings what it finds to the disk all the same.
    tables = (cdp, keys("cache", write_policy="through"))
    policy.write_text("\n".join(f"[[filter]]\n{table}" for table in tables), encoding="utf-8")
    end = write_canonical(tmp_path, f"0,write,{BLOCKS * BLOCK - BLOCK},{BLOCK}")
    done = command(end, "--target", "disk.img", "--policy", policy, "--destroy-data", "-o", "both")
    assert done.returncode == 0, done.stderr
    store = tmp_path / "both" / "replica" / "both" / "0" / "store"
    vb.recover(store=store, out=tmp_path / "x.img")
    assert any(disk.read_bytes()[:BLOCK])
    assert (tmp_path / "x.img").read_bytes() == disk.read_bytes()


def write_canonical(folder: Path, row: str) -> Path:
    """A trace of one I/O."""
    table = folder / "one.csv"
    table.write_text(f"time_ns,op,offset_bytes,length_bytes\n{row}\n", encoding="utf-8")
    vb.import_trace(table, folder / "one.parquet")
    return folder / "one.parquet"


def test_a_cache_that_holds_what_a_target_lacks_keeps_to_that_target(
    written_once: Path, command: Command, tmp_path: Path
) -> None:
    _killed(tmp_path, written_once)
    policy = tmp_path / "policy.toml"
    fast = ("--pace", "asap", "--policy", policy)
    other = command(written_once, "--target", "other.img", *fast, "-o", "other")
    assert other.returncode == 2
    assert "blocks that another target lacks" in other.stderr
    # Somebody writes to its own target meanwhile.
    own = ("--target", "disk.img")
    assert command(written_once, *own, "--pace", "asap", "-o", "b").returncode == 0
    before = (tmp_path / "disk.img").read_bytes()
    late = command(written_once, *own, *fast, "-o", "late")
    assert late.returncode == 2
    assert "its target lacked before another run wrote there; remove the file" in late.stderr
    assert (tmp_path / "disk.img").read_bytes() == before
    (tmp_path / "cache").unlink()
    assert command(written_once, *own, *fast, "-o", "ok").returncode == 0


def test_a_clean_stop_leaves_all_on_the_target(
    written_once: Path, command: Command, tmp_path: Path
) -> None:
    table = keys("cache", write_policy="back", destage_after="1h")
    policy = _policy(tmp_path, table)
    for name, more in (("direct", ()), ("back", ("--policy", policy))):
        target = ("--target", f"{name}.img", "--pace", "asap")
        assert command(written_once, *target, *more, "-o", name).returncode == 0
    images = [(tmp_path / f"{name}.img").read_bytes() for name in ("direct", "back")]
    assert images[0] == images[1]
    gauges = vb.open_run(tmp_path / "back").gauges("policy", 0).collect()
    names = set(gauges["gauge"].cast(pl.String))
    assert {"dirty_bytes", "dirty_oldest_ns", "cache_file_errors"} <= names


@pytest.fixture
def some(write_trace: Callable[..., Path]) -> Path:
    """A few writes and reads."""
    return write_trace([(i * 1000, "write", i * BLOCK, BLOCK) for i in range(8)])


def _refused(folder: Path, trace: Path, replay: Callable[..., Any], table: str) -> str:
    with pytest.raises(InputError) as raised:
        replay(trace, table, target=folder / "disk.img", verify=False)
    return str(raised.value)


def test_a_file_of_somebody_else_is_left_alone(
    some: Path, replay: Callable[..., Any], tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"precious" * 1_000_000)
    words = _refused(tmp_path, some, replay, keys(theirs))
    assert "theirs: the cache file: expected one that vaio-bench made for this" in words
    assert theirs.read_bytes() == b"precious" * 1_000_000
    # Nor is a target taken for a cache file, or a cache file for a target.
    replay(some, target=tmp_path / "target.img", verify=False)
    words = _refused(tmp_path, some, replay, keys(tmp_path / "target.img"))
    assert "expected one that vaio-bench made for this" in words
    replay(some, keys(tmp_path / "cache"), target=tmp_path / "disk.img", verify=False)
    with pytest.raises(InputError, match="would overwrite a file that this tool did not make"):
        replay(some, target=tmp_path / "cache", verify=False)


def test_the_target_is_no_cache_file(
    some: Path, replay: Callable[..., Any], tmp_path: Path
) -> None:
    replay(some, keys(tmp_path / "cache"), target=tmp_path / "disk.img", verify=False)
    os.link(tmp_path / "cache", tmp_path / "same")
    with pytest.raises(InputError, match="in use already"):
        replay(
            some,
            f"{keys(tmp_path / 'cache')}\n[[filter]]\n{keys(tmp_path / 'same')}\n"
            '[policy]\nframework = "free"',
            target=tmp_path / "disk.img",
            verify=False,
        )
    words = _refused(tmp_path, some, replay, keys(tmp_path / "disk.img"))
    assert "the cache file" in words


def test_a_file_that_is_too_small_or_torn(
    some: Path, replay: Callable[..., Any], tmp_path: Path
) -> None:
    file, target = tmp_path / "cache", tmp_path / "disk.img"
    replay(some, keys(file, write_policy="back"), target=target, verify=False)
    words = _refused(tmp_path, some, replay, keys(file, capacity="64MiB"))
    assert "cache: the cache file: expected " in words
    assert " bytes or more, it has " in words
    with file.open("r+b") as opened:
        opened.seek(17)
        opened.write(b"torn")
    before = file.read_bytes()
    words = _refused(tmp_path, some, replay, keys(file))
    assert "its header is damaged" in words
    assert file.read_bytes() == before


def test_a_disk_too_full_for_the_file(
    some: Path, replay: Callable[..., Any], tmp_path: Path
) -> None:
    words = _refused(
        tmp_path, some, replay, keys(tmp_path / "cache", capacity="1TiB", block="1MiB")
    )
    assert "cache: the cache file: cannot make it, of " in words
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"capacity": "0B"}, "expected 1 to 2147483632 blocks of 4096 bytes, got 0 bytes"),
        ({"block": "6KiB"}, "expected a power of two from 4KiB with a file to 1MiB, got 6144"),
        ({"block": "512B"}, "expected a power of two from 4KiB with a file to 1MiB, got 512"),
        ({"eviction": "s3fifo"}, 'did you mean "s3-fifo"?'),
        ({"read_ahead": "1MiB"}, "read_ahead: expected none with a file"),
        ({"file": ""}, "file: expected a path"),
    ],
)
def test_wrong_keys_are_named(
    some: Path,
    replay: Callable[..., Any],
    tmp_path: Path,
    table: dict[str, str],
    words: str,
) -> None:
    file = table.pop("file", str(tmp_path / "cache"))
    assert words in _refused(tmp_path, some, replay, keys(file, **table))
