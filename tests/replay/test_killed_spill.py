"""A source that is killed while its spill file holds what the site lacks, and the one after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import polars as pl

from tests.replay.test_initial_sync import disk_of, totals
from tests.replay.test_kills import VAIO, children
from tests.replay.test_replication import KEY, details, site
from tests.replay_kit import Io, Raw, filters, policy_file, write_trace
from vaio_bench import _core, recovering

GAP_NS = 1_000_000
REACH = 8 << 20
DISK = 16 << 20


def command(folder: Path, trace: Path, run: str, seed: int, address: str, faults: str) -> list[str]:
    """A replay onto the disk: the same stream each time, and the same spill file."""
    link = f'{{ bandwidth = "400Mbit/s", site = "{address}", key = "file:{folder / "key"}", ' \
           f'timeout = "2s"{faults} }}'  # fmt: skip
    journal = f'{{ memory = "1MiB", spill = "64MiB", file = "{folder / "spill"}" }}'
    policy = policy_file(folder, filters({
        "use": "cdp", "rpo": "200ms", "link": Raw(link), "stream": "a disk", "drain": "60s",
        "batch": "16KiB", "journal": Raw(journal),
    }))  # fmt: skip
    return [*VAIO, "replay", str(trace), "--target", str(folder / "disk.img"), "--policy",
            str(policy), "-o", str(folder / run), "--backend", "psync", "--inflight", "1",
            "--destroy-data", "--quiet", "--seed", str(seed), "--buffered"]  # fmt: skip


def acknowledged(run: Path) -> int:
    """Writes that the killed run's rows tell of: those of its last moments are not among them."""
    parts = list(run.glob("ios/*/*/part-*.parquet"))
    return pl.read_parquet(parts).filter(pl.col("status") == 0).height if parts else 0


def test_what_only_the_spill_file_had_is_on_the_disk_and_is_compared(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    disk = disk_of(tmp_path / "disk.img", 21)
    held = disk.read_bytes()
    ios = [Io(n * GAP_NS, "write", block_of(n), 4096) for n in range(60_000)]
    trace = write_trace(tmp_path / "t.parquet", ios)
    beyond = [Io(n * GAP_NS, "write", REACH + (n << 12), 4096) for n in range(200)]
    late = write_trace(tmp_path / "late.parquet", beyond)
    with site(tmp_path) as (address, _, _):
        outage = ', faults = [{ kind = "outage", at = "1s", for = "600s" }]'
        source = subprocess.Popen(command(tmp_path, trace, "killed", 1, address, outage))
        spill, deadline = tmp_path / "spill", time.monotonic() + 60
        while not has_content(spill) or acknowledged(tmp_path / "killed") < REACH >> 12:
            assert source.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for pid in [*children(source.pid), source.pid]:
            os.kill(pid, signal.SIGKILL)
        source.wait()
        count = acknowledged(tmp_path / "killed")
        before = recovering.list_points(tmp_path / "store")["points"]
        # An asynchronous source promises the guest its disk, and the site the last point.
        assert max(point["cut_ns"] for point in before) < 2_000_000_000 < count * GAP_NS
        then = disk.read_bytes()
        assert is_on_disk(tmp_path, then, count, held)

        done = subprocess.run(command(tmp_path, late, "next", 2, address, ""), check=False)
        assert done.returncode == 0
        store = tmp_path / "store"
        offer = recovering.list_points(store)
        assert {point["id"] for point in before} < {point["id"] for point in offer["points"]}
        assert len(offer["epochs"]) == 2
        recovering.recover(store=store, out=tmp_path / "x.img", run=tmp_path / "next")
        image = (tmp_path / "x.img").read_bytes()
        assert image == disk.read_bytes()
        assert image[:REACH] == then[:REACH], "what the guest was told is written"
        # What differs is said, and no more is sent: the rest of the disk is the replica's already.
        found = totals(tmp_path / "next")
        assert 0 < found["initial_sent_bytes"] <= REACH + (200 << 12)
        assert found["initial_sent_bytes"] + found["initial_equal_bytes"] == DISK
        assert details(tmp_path / "next", "initial_sync")[0]["sent_bytes"] > 0
        for point in before[-3:]:
            recovering.recover(
                store=store, out=tmp_path / "x.img", run=tmp_path / "killed", point=point["id"],
                force=True,
            )  # fmt: skip


def has_content(file: Path) -> bool:
    """Whether records were written to it."""
    return file.exists() and any(file.read_bytes()[: 1 << 20])


def block_of(number: int) -> int:
    """Where the trace's write of that number goes: all blocks, one after the other."""
    return number * 7919 % (REACH >> 12) << 12


def is_state(image: Path, content: bytes, numbers: range) -> bool:
    """Whether a disk is what these writes left."""
    image.write_bytes(content)
    rows = pl.DataFrame({
        "op": [1] * len(numbers), "offset_bytes": [block_of(number) for number in numbers],
        "length_bytes": [4096] * len(numbers), "seq": list(numbers),
    })  # fmt: skip
    told = json.loads(_core.compare_image(str(image), rows, "disk", 1, 0.0, 0.0))
    return told["mismatch"] is None


def is_on_disk(folder: Path, content: bytes, count: int, held: bytes) -> bool:
    """The disk holds all writes that rows tell of, and some after those: a state of the trace."""
    # Every block of the first half was written, none of the second.
    assert content[REACH:] == held[REACH:]
    # The first after them that is not there: the blocks before it are each their latest write's.
    there, absent = count, count + (REACH >> 12)
    while absent - there > 1:
        middle = (there + absent) // 2
        at = block_of(middle - 1)
        only = bytes(at) + content[at : at + 4096] + bytes(REACH - at - 4096)
        if is_state(folder / "then.img", only, range(middle - 1, middle)):
            there = middle
        else:
            absent = middle
    return is_state(folder / "then.img", content[:REACH], range(there))
