"""What a disk holds before replication begins gets to the replica, whatever breaks meanwhile."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.replay.test_replication import KEY, details, site, store_of
from tests.replay_kit import Raw, filters, mixed, policy_file, write_trace
from vaio_bench import recovering, replaying
from vaio_bench.errors import InputError, WorkError
from vaio_bench.runner import Settings
from vaio_bench.store import open_run

MILLISECOND = 1_000_000
DISK = 16 << 20


def disk_of(path: Path, seed: int) -> Path:
    """A disk of somebody's: a third of it data, the rest zeroes."""
    draw = random.Random(seed)
    content = bytearray(DISK)
    for at in range(0, DISK, 64 << 10):
        if draw.random() < 0.33:
            content[at : at + (40 << 10)] = draw.randbytes(40 << 10)
    path.write_bytes(content)
    return path


def trace_of(tmp_path: Path, seed: int = 1, ios: int = 1200, *, reads: bool = True) -> Path:
    """I/Os of the disk's first half; without reads nothing is prefilled."""
    ops = ("write", "write", "write_zeroes", "flush", "read")
    found = mixed(seed, ios, reach=8 << 20, align=512, gap_ns=2 * MILLISECOND,
                  ops=ops if reads else ops[:-1])  # fmt: skip
    return write_trace(tmp_path / f"{seed}-{ios}.parquet", found)


def replay(
    tmp_path: Path, source: Path, name: str, target: Path, link: str = "", **keys: Any
) -> Path:
    link = f'{{ bandwidth = "800Mbit/s"{link} }}'
    policy = policy_file(
        tmp_path, filters({"use": "cdp", "rpo": "300ms", "link": Raw(link), **keys})
    )
    replaying.replay(
        source, out=tmp_path / name, target=target, policy=policy,
        settings=Settings(backend="psync", destroy_data=True),
    )  # fmt: skip
    return tmp_path / name


def totals(run: Path, round_: int = 0) -> dict[str, Any]:
    [found] = [
        json.loads(detail)
        for kind, number, detail in open_run(run)
        .events()
        .select("kind", "round", "detail")
        .iter_rows()
        if kind == "replication_totals" and number == round_
    ]
    return dict(found["source"])


def recover_all(store: Path, out: Path, run: Path, newest: Path | None = None) -> int:
    """Recovers every point of a run, each compared with its source; the newest with a file."""
    word = f"{open_run(run).manifest['id']}/chain/0"
    offer = recovering.list_points(store)
    [epoch] = [n for n, epoch in enumerate(offer["epochs"]) if epoch["run"] == word]
    ends = [epoch["from_no"] for epoch in offer["epochs"][epoch + 1 :]] + [1 << 62]
    points = [point["id"] for point in offer["points"]
              if offer["epochs"][epoch]["from_no"] <= point["no"] < ends[0]]  # fmt: skip
    for point in points:
        found = recovering.recover(store=store, out=out, point=point, run=run, force=True)
        assert found["checked"]["verified_bytes"] == DISK
        assert found["checked"]["unverified_bytes"] == 0
    if newest is not None:
        assert out.read_bytes() == newest.read_bytes()
    return len(points)


def test_what_a_disk_held_is_in_every_point(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk.img", 1)
    half = disk.read_bytes()[DISK // 2 :]
    data = sum(any(half[at : at + 65536]) for at in range(0, len(half), 65536)) << 16
    run = replay(tmp_path, trace_of(tmp_path), "run", disk)
    assert recover_all(store_of(run), tmp_path / "x.img", run, disk) >= 3
    found = totals(run)
    # The trace does not touch the second half: what holds zeroes there is not sent.
    assert data <= found["initial_sent_bytes"] <= data + DISK // 2
    assert found["initial_equal_bytes"] >= DISK // 2 - data
    assert details(run, "initial_sync")[0]["of_bytes"] == DISK
    # The run begins in sync: there is no hole in it.
    assert not details(run, "hole")


def test_a_changed_byte_of_what_was_never_written_is_found(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk.img", 2)
    run = replay(tmp_path, trace_of(tmp_path, ios=200), "run", disk)
    at = next(at for at in range(9 << 20, DISK, 65536) if any(disk.read_bytes()[at : at + 512]))
    found = recovering.recover(store=store_of(run), out=tmp_path / "x.img")
    assert found["checked"]["unverified_bytes"] == 0
    content = bytearray((tmp_path / "x.img").read_bytes())
    content[at] ^= 1
    (tmp_path / "x.img").write_bytes(content)
    offer = recovering.list_points(store_of(run))
    with pytest.raises(WorkError, match=f"offset {at}: expected what the disk held before"):
        recovering.check(found, offer["disks"], open_run(run), "chain", 0)


def test_every_round_starts_from_what_the_one_before_left(tmp_path: Path) -> None:
    policy = policy_file(
        tmp_path,
        filters({"use": "cdp", "rpo": "300ms", "link": Raw('{ bandwidth = "800Mbit/s" }'),
                 # A journal that a burst fills: blocks are read again, with what was there.
                 "journal": Raw('{ memory = "400KiB" }')}),
    )  # fmt: skip
    run = tmp_path / "run"
    replaying.replay(
        trace_of(tmp_path), out=run, target=tmp_path / "disk.img", policy=policy, rounds=2,
        settings=Settings(backend="psync"),
    )  # fmt: skip
    for round_ in (0, 1):
        store = run / "replica" / "chain" / str(round_) / "store"
        points = recovering.list_points(store)["points"]
        assert len(points) >= 2
        for point in points:
            found = recovering.recover(store=store, out=tmp_path / "x.img", point=point["id"],
                                       force=True)  # fmt: skip
            assert found["checked"]["unverified_bytes"] == 0
    assert (tmp_path / "x.img").read_bytes() == (tmp_path / "disk.img").read_bytes()


@pytest.mark.parametrize("holds", ["data", "nothing"])
def test_a_prefill_of_many_pieces_is_in_every_point(tmp_path: Path, holds: str) -> None:
    disk = tmp_path / "disk.img"
    if holds == "data":
        disk_of(disk, 7)
    else:
        disk.touch()
        os.truncate(disk, DISK)
    # More pieces than are in flight at a time: the disk must not be read before the last of them.
    ios = mixed(7, 1200, reach=8 << 20, align=4096, longest=4096, gap_ns=MILLISECOND,
                ops=("read", "write"))  # fmt: skip
    run = replay(tmp_path, write_trace(tmp_path / "scattered.parquet", ios), "run", disk)
    assert recover_all(store_of(run), tmp_path / "x.img", run, disk) >= 1
    # One state before the trace, and it is what the trace starts on.
    points = recovering.list_points(store_of(run))["points"]
    assert [point["cut_ns"] for point in points].count(0) == 1


def test_during_the_run_it_is_a_hole_and_real_load(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk.img", 3)
    run = replay(tmp_path, trace_of(tmp_path), "run", disk, initial_sync="during")
    hole = details(run, "hole")[0]
    assert hole["reason"] == "initial sync"
    assert hole["from_ns"] == 0 < hole["to_ns"]
    cuts = [point["cut_ns"] for point in details(run, "restore_point")]
    assert min(cuts) >= hole["to_ns"]
    done = [step["done_bytes"] for step in details(run, "syncing")]
    assert done == sorted(done)
    assert len(done) >= 5
    assert recover_all(store_of(run), tmp_path / "x.img", run, disk) >= 2


@contextmanager
def streamed(tmp_path: Path, *options: str) -> Iterator[tuple[str, str]]:
    """A site, and what a policy says to go on with it: the link's rest, and its address."""
    with site(tmp_path, *options) as (address, _, _):
        yield f', site = "{address}", key = "file:{tmp_path / "key"}"', address


def test_the_next_run_of_a_stream_sends_only_what_differs(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    disk = disk_of(tmp_path / "disk.img", 4)
    with streamed(tmp_path) as (link, _):
        first = replay(tmp_path, trace_of(tmp_path), "first", disk, link, stream="a stream")
        # Between the runs somebody changes the disk: nothing told the filter.
        content = bytearray(disk.read_bytes())
        content[12 << 20 : (12 << 20) + 5] = b"hello"
        disk.write_bytes(content)
        second = replay(
            tmp_path,
            trace_of(tmp_path, 2, 600, reads=False),
            "second",
            disk,
            link,
            stream="a stream",
        )
    found = totals(second)
    assert 0 < found["initial_sent_bytes"] <= 64 << 10
    assert found["initial_equal_bytes"] > DISK // 2
    store = tmp_path / "store"
    assert [epoch["from_no"] > 1 for epoch in recovering.list_points(store)["epochs"]] == [
        False,
        True,
    ]
    assert recover_all(store, tmp_path / "x.img", second, disk) >= 2
    assert recover_all(store, tmp_path / "x.img", first) >= 3
    assert not (store / "scratch").exists()
    told = cli("recover", "--store", store).stdout
    since_s = recovering.list_points(store)["epochs"][1]["stream_ns"] / 1e9
    assert "stream a stream" in told
    assert f"epoch 1: run {open_run(first).manifest['id']}/chain/0\n" in told
    assert f"epoch 2 since {since_s:.3f}s: run {open_run(second).manifest['id']}" in told


def test_another_stream_and_another_run_are_refused(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk.img", 5)
    with streamed(tmp_path) as (link, _):
        trace = trace_of(tmp_path, ios=100)
        replay(tmp_path, trace, "first", disk, link, stream="a stream")
        with pytest.raises(InputError, match="and is of another stream"):
            replay(tmp_path, trace, "second", disk, link, stream="other")
        with pytest.raises(InputError, match="holds the replica of run"):
            replay(tmp_path, trace, "third", disk, link)


def test_after_a_failover_only_the_difference_goes_back(tmp_path: Path) -> None:
    old = disk_of(tmp_path / "old.img", 6)
    there = replay(tmp_path, trace_of(tmp_path), "there", old)
    points = recovering.list_points(store_of(there))["points"]
    recovered = tmp_path / "new.img"
    recovering.recover(store=store_of(there), out=recovered, point=points[len(points) // 2]["id"])
    was, now = old.read_bytes(), recovered.read_bytes()
    parts = [at for at in range(0, DISK, 4096) if was[at : at + 4096] != now[at : at + 4096]]
    # The old disk is the new replica's: a source that lives on what was recovered.
    with streamed(tmp_path, "--adopt", str(old)) as (link, _):
        back = replay(tmp_path, trace_of(tmp_path, 3, 400, reads=False), "back", recovered, link)
    found = totals(back)
    assert found["initial_sent_bytes"] == len(parts) << 12 > 0
    assert found["initial_equal_bytes"] == DISK - (len(parts) << 12)
    assert recover_all(tmp_path / "store", tmp_path / "x.img", back, recovered) >= 2
    assert KEY not in (tmp_path / "store" / "store.json").read_text()


def test_a_site_that_cannot_start_adopts_nothing(tmp_path: Path, cli: Callable[..., Any]) -> None:
    old, store = tmp_path / "old.img", tmp_path / "store"
    old.write_bytes(bytes(8192))
    wrong = cli(
        "site", "--listen", "127.0.0.1:0", "--store", store, "--adopt", old, "--key", "env:NONE"
    )
    assert wrong.exit_status == 2
    assert "--key" in wrong.stderr
    assert not store.exists()
