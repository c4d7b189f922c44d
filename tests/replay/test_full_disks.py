"""File systems that are full: of the site's store, and of the journal's spill file."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import requires
from tests.loop_devices import mounted, needs_loop_devices, small_disk
from tests.replay.test_initial_sync import disk_of, recover_all, replay, totals, trace_of
from tests.replay.test_replication import details, site, store_of
from tests.replay.test_spill import OUTAGE
from tests.replay_kit import Raw
from vaio_bench import recovering
from vaio_bench.errors import InputError

MIB = 1 << 20


EXT4 = pytest.param("ext4", marks=[needs_loop_devices, requires("mkfs.ext4"), pytest.mark.slow])


@pytest.fixture(params=["tmpfs", EXT4])
def disk_of_the_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    if request.param == "tmpfs":
        with small_disk(tmp_path / "site", 64) as point:
            yield point
        return
    file = tmp_path / "ext4.img"
    file.touch()
    os.truncate(file, 64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(file)], check=True)
    with mounted(file, tmp_path / "site") as point:
        yield point


def fill(folder: Path, leave_bytes: int) -> Path:
    """A file that leaves so much room."""
    free = os.statvfs(folder)
    size = free.f_bavail * free.f_frsize - leave_bytes
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return folder / "filler"


def test_a_full_disk_at_the_site_degrades_the_source_until_there_is_room(
    tmp_path: Path, disk_of_the_site: Path
) -> None:
    disk, source = disk_of(tmp_path / "disk.img", 11), trace_of(tmp_path, 11, reads=False)
    with site(disk_of_the_site) as (address, _, lines):
        # What the disk holds fits, what the trace writes does not.
        filler = fill(disk_of_the_site, 9 * MIB)
        freed = threading.Thread(target=free_once_full, args=(filler,), daemon=True)
        freed.start()
        link = f', site = "{address}", key = "file:{disk_of_the_site / "key"}"'
        run = replay(tmp_path, source, "run", disk, link, drain="60s")
        freed.join(60)
        assert not filler.exists()
        hole = details(run, "hole")[0]
        assert hole["reason"] == "store full"
        assert [mode["mode"] for mode in details(run, "mode")][:2] == ["bitmap", "resync"]
        # The site lives, nothing that it confirmed is lost, and the newest state is the disk's.
        told = {point["id"] for point in details(run, "restore_point")}
        store = disk_of_the_site / "store"
        assert told <= {point["id"] for point in recovering.list_points(store)["points"]}
        assert recover_all(store, tmp_path / "x.img", run, disk) >= 2
    assert any("the store is full" in line for line in lines), lines


def free_once_full(filler: Path) -> None:
    """Gives the room back some time after there is none."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        free = os.statvfs(filler.parent)
        if free.f_bavail * free.f_frsize < MIB:
            break
        time.sleep(0.02)
    time.sleep(1)
    filler.unlink()


def test_a_spill_file_has_its_room_or_the_run_does_not_start(
    tmp_path: Path,
) -> None:
    disk = disk_of(tmp_path / "disk.img", 12)
    source = trace_of(tmp_path, 12, reads=False)
    keys: dict[str, Any] = {"batch": "64KiB", "drain": "60s"}
    with small_disk(tmp_path / "small", 24) as small:
        spill = small / "spill"
        with pytest.raises(InputError, match="spill file: cannot make it"):
            replay(
                tmp_path, source, "refused", disk, OUTAGE, **keys,
                journal=Raw(f'{{ memory = "4MiB", spill = "64MiB", file = "{spill}" }}'),
            )  # fmt: skip
        # Its room is taken before the run: whoever fills the disk later takes none of it.
        told = threading.Thread(target=fill_once_there, args=(spill,), daemon=True)
        told.start()
        run = replay(
            tmp_path, source, "run", disk, OUTAGE, **keys,
            journal=Raw(f'{{ memory = "4MiB", spill = "16MiB", file = "{spill}" }}'),
        )  # fmt: skip
        told.join(60)
        assert (small / "filler").exists()
        assert totals(run)["spilled_bytes"] > MIB
        assert not details(run, "hole")
        assert not details(run, "fault")
        assert recover_all(store_of(run), tmp_path / "x.img", run, disk) >= 3


def fill_once_there(spill: Path) -> None:
    """Takes all the room that the spill file has left."""
    deadline = time.monotonic() + 60
    while not spill.exists() or spill.stat().st_blocks * 512 < 16 * MIB:
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
    fill(spill.parent, 0)
