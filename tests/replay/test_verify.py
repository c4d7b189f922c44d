"""`--verify`: passes through every chain on whatever the trace does, and fails when it should."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from replay_kit import Io, filters, mixed, policy_file, write_trace

CRYPT = {"use": "crypt", "key": "random"}
CACHE = {"use": "cache", "capacity": "192KiB"}
CHAINS = {
    "direct": "",
    "pass": filters("pass", "pass"),
    "crypt": filters(CRYPT),
    "crypt-4096": filters({**CRYPT, "sector": 4096}),
    "delay": filters({"use": "delay", "read": "30us", "write": "80us"}),
    "throttle": filters({"use": "throttle", "iops": 100_000, "bandwidth": "2GiB/s"}),
    "cache": filters(CACHE),
    "cache-64k": filters({**CACHE, "block": "64KiB"}),
    "cache-crypt": 'framework = "free"\n' + filters(CACHE, CRYPT),
    "crypt-cache": filters(CRYPT, CACHE),
    "all": 'framework = "free"\n'
    + filters("pass", {**CACHE, "block": "512B"}, {**CRYPT, "sector": 4096}, "pass"),
}
WAYS = {
    "mem-virtual": {"backend": "mem", "clock": "virtual"},
    "sim-virtual": {"backend": "sim", "clock": "virtual"},
    "mem-wall": {"backend": "mem", "clock": "wall"},
    "uring": {"backend": "uring", "clock": "wall"},
    "psync": {"backend": "psync", "clock": "wall"},
}


# Where data is modelled, sectors and blocks matter as well.
ALIGNED = [(way, 1) for way in WAYS] + [
    (way, align) for way in ("mem-virtual", "uring") for align in (512, 4096)
]


@pytest.mark.parametrize(("way", "align"), ALIGNED)
@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_gives_back_what_was_written(
    engine: Callable, tmp_path: Path, chain: str, way: str, align: int
) -> None:
    # Some places are read before they are written, and everything overlaps.
    ios = mixed(len(chain) + align, 150, align=align, gap_ns=0)
    text = CHAINS[chain]
    policy = policy_file(tmp_path, text, chain) if text else None
    replayed = engine(
        ios, policy=policy, target=tmp_path / "disk.img", verify=True, pace="asap", **WAYS[way]
    )
    assert replayed.found["mismatches"] == []
    assert replayed.found["errors"] == 0
    assert replayed.found["verified"] is True
    read = sum(io.length for io in ios if io.op == "read")
    assert replayed.found["verified_bytes"] > read // 2
    assert replayed.run.exit == "ok"


@pytest.mark.parametrize(("way", "seed"), [("sim-virtual", 6), ("mem-wall", 4)])
def test_what_a_read_has_fetched_is_not_fetched_again(
    engine: Callable, tmp_path: Path, way: str, seed: int
) -> None:
    """Reads that wait for a block which is evicted on its way, and have fetched its neighbours."""
    ios = [io for io in mixed(seed, 150, align=4096, gap_ns=0)
           if io.op not in ("discard", "write_zeroes")]  # fmt: skip
    policy = policy_file(tmp_path, CHAINS["cache-crypt"], "cache-crypt")
    replayed = engine(ios, policy=policy, verify=True, pace="asap", seed=seed, **WAYS[way])
    assert replayed.found["mismatches"] == []


@pytest.mark.parametrize("backend", ["mem", "uring", "psync"])
def test_data_knobs_are_verified_too(engine: Callable, tmp_path: Path, backend: str) -> None:
    ios = mixed(77, 120, align=512)
    replayed = engine(
        ios, backend=backend, clock="wall", target=tmp_path / "d.img", verify=True,
        compressible=0.5, dedupe=0.3, pace="asap",
    )  # fmt: skip
    assert replayed.found["verified"] is True
    assert replayed.found["verified_bytes"] > 0


@pytest.mark.parametrize("backend", ["uring", "psync"])
def test_odd_lengths_are_counted_where_the_target_wants_blocks(
    engine: Callable, tmp_path: Path, backend: str
) -> None:
    ios = [Io(0, "write", 0, 8192), Io(1, "write", 100, 1), Io(2, "read", 8191, 1)]
    replayed = engine(
        ios, backend=backend, clock="wall", target=tmp_path / "d.img", verify=True, pace="asap"
    )
    if not replayed.run.manifest["target"]["direct"]:
        pytest.skip("requires a file system with O_DIRECT below the temporary folder")
    assert replayed.found["unaligned"] == 2
    assert replayed.found["verified"] is True


def test_ios_without_length_pass(engine: Callable, tmp_path: Path) -> None:
    ios = [Io(i, op, 100, 0) for i, op in enumerate(("read", "write", "discard", "write_zeroes"))]
    ios.append(Io(9, "write", 0, 4096))
    for backend in ("mem", "uring", "psync"):
        replayed = engine(
            ios, backend=backend, clock="wall", target=tmp_path / "d.img", verify=True
        )
        assert replayed.found["errors"] == 0, backend
        assert replayed.found["ios"] == 5


def _corrupt_later(target: Path, offset: int, data: bytes) -> threading.Thread:
    """Changes the target behind the replay's back, once its first write is there."""

    def change() -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if target.exists() and target.stat().st_size >= offset + 4096:
                with target.open("rb") as file:
                    file.seek(offset)
                    if file.read(4096).strip(b"\0"):
                        break
            time.sleep(0.005)
        with target.open("r+b") as file:
            file.seek(offset)
            file.write(data)
            file.flush()

    thread = threading.Thread(target=change)
    thread.start()
    return thread


def test_a_place_changed_behind_the_replay_is_named(cli: Callable, tmp_path: Path) -> None:
    # Written at once, read back a second later: the change falls in between.
    ios = [
        Io(0, "write", 0, 16384, "boot"),
        Io(0, "write", 65536, 4096, "boot"),
        Io(1_500_000_000, "read", 0, 16384, "boot"),
    ]
    trace, target = write_trace(tmp_path / "t.parquet", ios), tmp_path / "d.img"
    change = _corrupt_later(target, 8192, b"\xa5" * 512)
    ended = cli("replay", trace, "--target", target, "-o", "run", "--verify", "--buffered")
    change.join()
    assert ended.exit_status == 1
    lines = ended.stderr.splitlines()
    assert len(lines) == 1
    for word in ("disk boot", "offset 8192", "expected write 0", "found data not written by"):
        assert word in lines[0]
    assert "WRONG" in ended.stdout


@pytest.mark.parametrize(
    ("data", "found"),
    [(bytes(512), "found zeroes"), (None, "write 0 of offset 0")],
    ids=["zeroes", "misplaced"],
)
def test_the_final_sweep_names_what_it_found(
    engine: Callable, tmp_path: Path, data: bytes | None, found: str
) -> None:
    # Nothing reads: only the sweep at the end can tell.
    target = tmp_path / "d.img"
    ios = [
        Io(0, "write", 0, 4096),
        Io(0, "write", 65536, 4096),
        Io(1_000_000_000, "write", 131072, 4096),
    ]
    if data is None:
        # The first sector of the first write: what it holds follows from seed and disk alone.
        engine(ios[:1], target=tmp_path / "first.img", backend="psync", clock="wall")
        data = (tmp_path / "first.img").read_bytes()[:512]
    change = _corrupt_later(target, 65536, data)
    replayed = engine(
        ios, target=target, backend="psync", clock="wall", verify=True, direct="never"
    )
    change.join()
    assert replayed.found["verified"] is False
    assert replayed.run.exit.startswith("failed: 0 I/O errors, 1 mismatches")
    [told] = replayed.found["mismatches"]
    assert told.startswith("disk disk: offset 65536: expected write 1")
    assert found in told
    assert told.endswith("(final sweep)")


def test_a_crossed_wire_between_disks_is_named(engine: Callable, tmp_path: Path) -> None:
    """Both disks on one file, by a link: each finds the other's data in its place."""
    folder = tmp_path / "disks"
    folder.mkdir()
    ios = [Io(0, "write", 0, 4096, disk) for disk in ("a", "b")]
    engine(ios, target=folder, backend="psync", clock="wall")
    (folder / "b.img").unlink()
    (folder / "b.img").hardlink_to(folder / "a.img")
    replayed = engine(ios, target=folder, backend="psync", clock="wall", verify=True)
    assert replayed.found["verified"] is False
    assert any("of another disk" in told for told in replayed.found["mismatches"])


def test_verify_without_data_is_refused(cli: Callable, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", mixed(1, 10))
    ended = cli("replay", trace, "-o", "run", "--backend", "null", "--verify")
    assert ended.exit_status == 2
    assert ended.stdout == ""
    assert "null backend keeps no data" in ended.stderr
