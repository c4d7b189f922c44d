"""Any trace at all: the target ends up as a plain model of a disk says, and runs repeat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from replay_kit import FUA, PREFLUSH, Io, Raw, filters, mixed, policy_file

SIZE = 64 << 10
# One engine and folder serve all examples: each run has names of its own.
SETTINGS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def ios(draw: st.DrawFn) -> list[Io]:
    time, found = 0, []
    unit = draw(st.sampled_from([1, 512, 4096]))
    for _ in range(draw(st.integers(1, 25))):
        time += draw(st.integers(0, 60_000))
        op = draw(st.sampled_from(("read", "write", "write", "flush", "discard", "write_zeroes")))
        if op == "flush":
            found.append(Io(time, op))
            continue
        offset = draw(st.integers(0, SIZE // unit - 1)) * unit
        length = draw(st.integers(1, min(24 << 10, SIZE - offset) // unit)) * unit
        flags = draw(st.sampled_from([0, FUA, PREFLUSH, FUA | PREFLUSH])) if op == "write" else 0
        found.append(Io(time, op, offset, length, flags=flags))
    return found


def _writer_of_bytes(trace: list[Io]) -> list[int | None]:
    """Of each byte: the sequence number of its last write, -1 for zeroes, None when unknown."""
    disk: list[int | None] = [None] * SIZE
    for seq, io in enumerate(trace):
        if io.op in ("write", "write_zeroes", "discard"):
            what = {"write": seq, "write_zeroes": -1, "discard": None}[io.op]
            disk[io.offset : io.offset + io.length] = [what] * io.length
    return disk


@SETTINGS
@given(trace=ios(), depth=st.integers(1, 32), backend=st.sampled_from(["uring", "psync"]))
def test_a_file_ends_as_the_model_says(
    engine: Callable, tmp_path_factory: pytest.TempPathFactory, trace: list[Io], depth: int,
    backend: str,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    full = [*trace, Io(trace[-1].time_ns, "write_zeroes", SIZE, 4096)]
    target = folder / "t.img"
    replayed = engine(
        full, target=target, backend=backend, clock="wall", pace="asap", depth=depth, verify=True
    )
    assert replayed.found["verified"] is True
    assert replayed.found["errors"] == 0
    image = target.read_bytes()
    # What write `seq` alone leaves: every byte of a write follows from its place and number.
    alone: dict[int, bytes] = {}
    for at, seq in enumerate(_writer_of_bytes(trace)):
        if seq == -1:
            assert image[at] == 0
        elif seq is not None:
            if seq not in alone:
                io = trace[seq]
                single = folder / f"{seq}.img"
                engine(
                    full, skip=seq, limit=1, target=single, backend="psync", clock="wall",
                    precondition=False,
                )  # fmt: skip
                alone[seq] = single.read_bytes()[: io.offset + io.length]
            assert image[at] == alone[seq][at], (at, seq)


_LINK = Raw('{ bandwidth = "1Gbit/s", rtt = "1ms" }')
# The built-in filters, each in the ways that take different roads through it.
KINDS = {
    "pass": {"use": "pass"},
    "delay": {"use": "delay", "read": "70us", "write": "20us"},
    "throttle": {"use": "throttle", "iops": 20_000},
    "crypt": {"use": "crypt", "key": "random"},
    "crypt of 4 KiB": {"use": "crypt", "key": "random", "sector": 4096},
    "cache": {"use": "cache", "capacity": "16KiB"},
    "write-back": {"use": "cache", "capacity": "32KiB", "write_policy": "back"},
    "write-around": {"use": "cache", "capacity": "16KiB", "write_policy": "around"},
    "read ahead": {"use": "cache", "capacity": "32KiB", "read_ahead": "16KiB"},
    "dedup": {"use": "cache", "capacity": "32KiB", "dedup": Raw("true")},
    "cache file": {"use": "cache", "capacity": "64KiB", "file": "through.cache"},
    "write-back file": {
        "use": "cache", "capacity": "64KiB", "file": "back.cache", "write_policy": "back"
    },
    "snapshot": {"use": "snapshot", "every": "200us", "redo": "copy-on-write", "link": _LINK},
    "cdp": {"use": "cdp", "rpo": "5s", "point_interval": "200us", "link": _LINK},
}  # fmt: skip


# Trace and disk end within a unit of crypt, which is whole in the cache below.
@example(trace=[Io(0, "read", 0, 1)], chain=["crypt", "cache"], backend="mem", seed=0)
# The units of a write's first and last part, and what lies between, are in one block of the cache.
@example(trace=[Io(0, "write", 5000, 3000)], chain=["crypt", "write-back"], backend="sim", seed=0)
@SETTINGS
@given(
    trace=ios(),
    chain=st.lists(st.sampled_from(sorted(KINDS)), unique=True, max_size=4),
    backend=st.sampled_from(["mem", "sim"]),
    seed=st.integers(0, 1 << 32),
)
def test_any_chain_is_transparent_and_repeats_to_the_byte(
    engine: Callable, tmp_path_factory: pytest.TempPathFactory, trace: list[Io], chain: list[str],
    backend: str, seed: int,
) -> None:  # fmt: skip
    uses = [KINDS[name] for name in chain]
    text = 'framework = "free"\n' + filters(*uses)
    policy = policy_file(tmp_path_factory.mktemp("policy"), text) if chain else None
    runs = []
    for _ in range(2):
        replayed = engine(trace, policy=policy, backend=backend, seed=seed, verify=True)
        assert replayed.found["verified"] is True
        assert replayed.found["errors"] == 0
        runs.append(replayed.run.scan_ios().collect())
    assert runs[0].equals(runs[1])
    assert (runs[0]["self_ns"].list.sum() == runs[0]["complete_ns"] - runs[0]["submit_ns"]).all()


@pytest.mark.parametrize("pace", ["recorded", "asap", "closed"])
def test_the_seed_decides(engine: Callable, tmp_path: Path, pace: str) -> None:
    trace = mixed(41, 200, align=512, disks=("a", "b"))
    delay = tmp_path / "d.toml"
    delay.write_text(
        '[[filter]]\nuse = "delay"\nread = { distribution = "exponential", mean = "50us" }\n'
    )

    def rows(seed: int) -> pl.DataFrame:
        run = engine(trace, policy=delay, backend="sim", pace=pace, seed=seed).run
        return run.scan_ios().collect()

    first = rows(1)
    assert first.equals(rows(1))
    other = rows(2)
    assert not first["complete_ns"].equals(other["complete_ns"])
    assert first["offset_bytes"].sort().equals(other["offset_bytes"].sort())


def test_the_seed_decides_the_data(engine: Callable, tmp_path: Path) -> None:
    trace = [Io(0, "write", 0, 65536)]
    images = []
    for number, seed in enumerate((1, 1, 2)):
        target = tmp_path / f"{number}.img"
        engine(trace, target=target, backend="psync", clock="wall", seed=seed)
        images.append(target.read_bytes())
    assert images[0] == images[1]
    same = sum(a == b for a, b in zip(images[0], images[2], strict=True))
    assert same < 65536 // 100
