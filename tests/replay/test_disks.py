"""Traces of several disks: chosen, kept apart, and in files of names that any disk may have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from replay_kit import Io, mixed, rows_of

from vaio_bench.errors import InputError
from vaio_bench.targets import escape

ODD = ("a/b", "with space", "..", ".hidden", "50%", "über", "-n", "x" * 80)


def test_every_disk_has_a_file_of_its_own(engine: Callable, tmp_path: Path) -> None:
    ios = mixed(31, 200, disks=ODD)
    folder = tmp_path / "disks"
    replayed = engine(ios, target=folder, backend="uring", clock="wall", verify=True, pace="asap")
    assert replayed.found["verified"] is True
    files = sorted(path.name for path in folder.iterdir())
    assert len(files) == len(ODD)
    assert sorted(unquote(name.removesuffix(".img")) for name in files) == sorted(ODD)
    assert all("/" not in name and not name.startswith(".") for name in files)
    rows = replayed.run.scan_ios().collect()
    assert sorted(rows["disk"].cast(str).unique().to_list()) == sorted(ODD)
    by_seq = rows.sort("seq")
    assert by_seq["disk"].cast(str).to_list() == [io.disk for io in ios]
    assert set(replayed.run.timeline()["disk"].unique().to_list()) == set(ODD)


def test_escaped_names_never_collide() -> None:
    names = [*ODD, "a%2Fb", "%2Ehidden", "", "%", "A/B", "."]
    assert len({escape(name) for name in names}) == len(names)


@pytest.mark.parametrize("clock", ["wall", "virtual"])
def test_a_hundred_disks_and_more(engine: Callable, clock: str) -> None:
    names = [f"disk{i:03}" for i in range(130)]
    ios = [Io(i * 100, "write", i // 130 * 4096, 4096, names[i % 130]) for i in range(520)]
    ios += [Io(10**6, "read", 0, 4 * 4096, name) for name in names]
    replayed = engine(ios, backend="mem", clock=clock, verify=True)
    assert replayed.found["verified"] is True
    assert replayed.found["verified_bytes"] == 2 * 520 * 4096
    rows = replayed.run.scan_ios().collect()
    counts = rows.group_by("disk").len()
    assert counts.height == 130
    assert counts["len"].unique().to_list() == [5]


def test_a_hundred_files(engine: Callable, tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(110)]
    ios = [Io(0, op, 0, 4096, name) for op in ("write", "read") for name in names]
    replayed = engine(
        ios, target=tmp_path / "d", backend="psync", clock="wall", verify=True, pace="asap"
    )
    assert replayed.found["verified"] is True
    assert len(list((tmp_path / "d").iterdir())) == 110


def test_disk_chooses(engine: Callable, tmp_path: Path) -> None:
    ios = mixed(32, 90, disks=("a", "b", "c"))
    chosen = [i for i, io in enumerate(ios) if io.disk in ("c", "a")]
    target = tmp_path / "folder"
    replayed = engine(
        ios, disks=("c", "a"), skip=3, limit=20, target=target, backend="psync", clock="wall"
    )
    rows = replayed.run.scan_ios().collect().sort("seq")
    assert rows["seq"].to_list() == chosen[3:23]
    assert sorted(path.name for path in target.iterdir()) == ["a.img", "c.img"]
    single = tmp_path / "single.img"
    rows = rows_of(engine(ios, disks=("b",), target=single, backend="psync", clock="wall").run)
    assert rows["disk"].unique().to_list() == ["b"]
    assert single.is_file()


def test_a_disk_that_the_trace_lacks_is_told(engine: Callable) -> None:
    with pytest.raises(InputError, match=r"--disk: .* has no disk z, but a, b"):
        engine([Io(0, "read", 0, 512, "a"), Io(0, "read", 0, 512, "b")], disks=("z",))


def test_a_disk_named_twice_is_one(engine: Callable) -> None:
    ios = mixed(33, 30, align=512, disks=("a", "b"))
    run = engine(ios, disks=("a", "a")).run
    assert run.scan_ios().collect().height == sum(io.disk == "a" for io in ios)


def test_several_disks_do_not_go_into_a_file(engine: Callable, tmp_path: Path) -> None:
    target = tmp_path / "one.img"
    target.write_bytes(b"mine")
    with pytest.raises(InputError, match="2 disks: expected a folder"):
        engine(
            [Io(0, "read", 0, 512, "a"), Io(0, "read", 0, 512, "b")],
            target=target, backend="psync", clock="wall",
        )  # fmt: skip
    assert target.read_bytes() == b"mine"
