"""`--fit-to`: a large disk on a small target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from replay_kit import Io, mixed, rows_of

from vaio_bench.schemas import IoFlag

MIB = 1 << 20
OPS = ("read", "write", "write", "write_zeroes", "flush")


def _spread(seed: int, extents: int, ios: int = 120) -> list[Io]:
    """I/Os of up to 3 MiB over `extents` MiB, far apart: each 1 MiB of them 1 GiB from the next
    third one."""
    found = []
    for io in mixed(seed, ios, reach=extents * MIB, align=512, longest=3 * MIB, ops=OPS):
        group = io.offset // (4 * MIB)
        inside = min(io.offset % (4 * MIB), 4 * MIB - io.length)
        found.append(
            Io(io.time_ns, io.op, group * (1 << 30) + max(inside, 0), io.length, flags=io.flags)
            if io.op != "flush"
            else io
        )
    return found


def _first_touch(ios: list[Io]) -> list[int]:
    extents: dict[int, None] = {}
    for io in ios:
        if io.length and io.op != "discard":
            extents.update(
                dict.fromkeys(range(io.offset // MIB, (io.offset + io.length - 1) // MIB + 1))
            )
    return list(extents)


@pytest.mark.parametrize("size_mib", [64, 7])
def test_places_are_those_of_the_first_touch(
    engine: Callable, tmp_path: Path, size_mib: int
) -> None:
    ios = _spread(1, 40)
    order = _first_touch(ios)
    target = tmp_path / "small.img"
    replayed = engine(
        ios, fit_to_bytes=size_mib * MIB, target=target, backend="psync", clock="wall", pace="asap"
    )
    assert target.stat().st_size == size_mib * MIB
    fit = replayed.run.manifest["fit_to"]
    wrapped = len(order) > size_mib
    assert fit["disks"]["disk"] == {"wrapped": wrapped, "extents": order}
    warned = any("fit" in str(warning) for warning in replayed.found["warnings"])
    assert warned == wrapped
    rows = rows_of(replayed.run)
    place = {extent: (i % size_mib) * MIB for i, extent in enumerate(order)}
    for seq, unsorted in rows.group_by("seq"):
        io = ios[seq[0]]
        pieces = unsorted.sort("trace_offset_bytes")
        if not io.length:
            assert pieces.height == 1
            continue
        at = io.offset
        for offset, on_target, length in pieces.select(
            "trace_offset_bytes", "offset_bytes", "length_bytes"
        ).rows():
            assert offset == at
            # A piece may go on into the next extent where that lies next on the target too.
            for byte in (offset, offset + length - 1):
                expected = place[byte // MIB] + byte % MIB
                assert on_target + (byte - offset) == expected
            at += length
        assert at == io.offset + io.length
        split = (pieces["flags"] & IoFlag.SPLIT) != 0
        assert split.all() if pieces.height > 1 else not split.any()
    assert replayed.found["ios"] == len(ios)
    assert replayed.found["rows"] == rows.height > len(ios)


def test_what_fits_is_verified(engine: Callable) -> None:
    replayed = engine(_spread(2, 30), fit_to_bytes=40 * MIB, verify=True)
    assert replayed.found["verified"] is True
    assert replayed.found["verified_bytes"] > 10 * MIB


def test_what_wrapped_is_verified_too(engine: Callable) -> None:
    """Two places of the disk that share one of the target are one place to the check."""
    replayed = engine(_spread(3, 30), fit_to_bytes=5 * MIB, verify=True)
    assert replayed.found["verified"] is True


def test_a_discard_of_what_nobody_touched_is_a_row_and_no_io(engine: Callable) -> None:
    ios = [Io(0, "write", 0, 4096), Io(1, "discard", 1 << 40, 4096)]
    replayed = engine(ios, fit_to_bytes=2 * MIB)
    rows = rows_of(replayed.run)
    assert rows.height == 2
    assert rows["flags"][1] & IoFlag.DROPPED
    assert replayed.found["dropped"] == 1


def test_an_earlier_target_of_ours_gets_the_size(tmp_path: Path, engine: Callable) -> None:
    ios = _spread(4, 20, 30)
    target = tmp_path / "big.img"
    engine(ios, fit_to_bytes=30 * MIB, target=target, backend="psync", clock="wall")
    engine(ios, fit_to_bytes=8 * MIB, target=target, backend="psync", clock="wall")
    assert target.stat().st_size == 8 * MIB


def test_the_map_is_the_same_for_every_policy(engine: Callable) -> None:
    ios = _spread(5, 30, 60)
    columns = ["seq", "trace_offset_bytes", "offset_bytes", "length_bytes"]
    direct = rows_of(engine(ios, fit_to_bytes=9 * MIB).run).select(columns)
    delayed = rows_of(engine(ios, fit_to_bytes=9 * MIB, policy="delay").run, "delay")
    assert direct.equals(delayed.select(columns))
    assert direct.select((pl.col("offset_bytes") + pl.col("length_bytes")).max()).item() <= 9 * MIB


def test_who_waited_for_an_io_waits_for_its_last_piece(engine: Callable) -> None:
    far = [(4 * at + 1) * MIB for at in range(12)]
    # The second extent of each pair is touched first: they are no neighbours on the target.
    ios = [Io(at, "read", offset, 4096) for at, offset in enumerate(far)]
    ios += [
        Io((at + 1) * 1_000_000, "read", offset - 4096, 4096 + MIB // 2)
        for at, offset in enumerate(far)
    ]
    replayed = engine(ios, fit_to_bytes=64 * MIB, backend="sim", pace="closed")
    rows = rows_of(replayed.run).filter(pl.col("seq") >= len(far))
    parts = rows.group_by("seq", maintain_order=True).agg(
        pl.len(), pl.col("due_ns").min(), first=pl.col("complete_ns").min(),
        last=pl.col("complete_ns").max(),
    )  # fmt: skip
    assert parts["len"].to_list() == [2] * 12
    assert (parts["last"] > parts["first"]).all()
    assert parts["due_ns"].to_list()[1:] == (parts["last"] + 1_000_000).to_list()[:-1]
