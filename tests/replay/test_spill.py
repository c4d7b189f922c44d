"""A journal that spills: real files, and every point is still the source's state."""

from __future__ import annotations

from pathlib import Path

from tests.replay.test_initial_sync import disk_of, recover_all, replay, totals, trace_of
from tests.replay.test_replication import details, store_of
from tests.replay_kit import Raw

OUTAGE = ', faults = [{ kind = "outage", at = "100ms", for = "2500ms" }]'


def test_what_an_outage_leaves_in_the_spill_file_arrives_later(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk.img", 7)
    run = replay(
        tmp_path, trace_of(tmp_path, 7), "run", disk, OUTAGE, batch="64KiB", drain="60s",
        journal=Raw('{ memory = "4MiB", spill = "256MiB" }'),
    )  # fmt: skip
    assert not details(run, "hole")
    found = totals(run)
    assert found["spilled_bytes"] > 1 << 20
    assert recover_all(store_of(run), tmp_path / "x.img", run, disk) >= 3
    assert not list(run.rglob("spill"))


def test_a_small_spill_file_is_followed_by_the_next_step(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk.img", 8)
    run = replay(
        tmp_path, trace_of(tmp_path, 8), "run", disk, OUTAGE, batch="64KiB", drain="60s",
        journal=Raw(f'{{ memory = "4MiB", spill = "1MiB", file = "{tmp_path / "log"}" }}'),
        degrade="spill-backpressure-bitmap", backpressure="50ms",
    )  # fmt: skip
    modes = [mode["mode"] for mode in details(run, "mode")]
    assert modes[:2] == ["backpressure", "bitmap"]
    assert totals(run)["spilled_bytes"] > 0
    assert recover_all(store_of(run), tmp_path / "x.img", run, disk) >= 2
    # A file that the policy names is the user's to remove.
    assert (tmp_path / "log").stat().st_size >= 1 << 20
