"""A database on a file system, recorded with its content, replicated, recovered, and checked.

QEMU's `blklogwrites` records what SQLite on ext4 really writes; the log is replayed with that
content through `cdp` to a site; images of points in mid-run then have to pass the checks of the
file system's and the database's own tools, and hold a state of the database that existed.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import find_tool, requires
from tests.loop_devices import mounted, needs_loop_devices
from tests.replay_kit import Raw, filters, policy_file
from vaio_bench import import_trace, open_trace, recovering, replaying
from vaio_bench.errors import InputError, WorkError
from vaio_bench.runner import Settings
from vaio_bench.store import Run, open_run

SIZE = 24 << 20
ACCOUNTS, EACH, TRANSFERS = 200, 1000, 60


@dataclass(frozen=True)
class Recorded:
    """A trace with its content; rows up to `formatted` made the file system."""

    trace: Path
    formatted: int
    disk: Path


@contextmanager
def logged(folder: Path) -> Iterator[Path]:
    """A file whose writes QEMU records in `log.img`."""
    names = [folder / name for name in ("disk.img", "log.img", "mount.img")]
    for path, size in zip(names, (SIZE, 512 << 20, 0), strict=True):
        path.touch()
        os.truncate(path, size)
    disk, log, mount = names
    process = subprocess.Popen(
        ["qemu-storage-daemon",
         "--blockdev", f"driver=file,node-name=f,filename={disk},discard=unmap",
         "--blockdev", f"driver=file,node-name=l,filename={log}",
         "--blockdev", "driver=blklogwrites,node-name=w,file=f,log=l,log-sector-size=512",
         "--export", f"type=fuse,id=e,node-name=w,mountpoint={mount},writable=on"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(mount) and mount.stat().st_size != SIZE:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"requires FUSE exports: {process.stderr and process.stderr.read()}")
            time.sleep(0.05)
        yield mount
    finally:
        process.terminate()
        process.wait(20)


def entries(log: Path) -> int:
    with log.open("rb") as file:
        return int(struct.unpack("<QQQ", file.read(24))[2])


def work(point: Path) -> None:
    """Transfers between accounts: their sum never changes, and each counts itself."""
    with closing(sqlite3.connect(point / "bank.db", isolation_level=None)) as db:
        db.executescript(
            "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;"
            "BEGIN; CREATE TABLE account(id INTEGER PRIMARY KEY, held INTEGER, pad TEXT);"
            "CREATE TABLE done(n INTEGER); INSERT INTO done VALUES (0); COMMIT; BEGIN;"
        )
        rows = [(number, EACH, "x" * 100) for number in range(ACCOUNTS)]
        db.executemany("INSERT INTO account VALUES (?, ?, ?)", rows)
        db.execute("COMMIT")
        for number in range(TRANSFERS):
            db.execute("BEGIN")
            for step in range(5):
                pair = (number * 7 + step) % ACCOUNTS, (number * 13 + step * 3 + 1) % ACCOUNTS
                db.execute("UPDATE account SET held = held - 5 WHERE id = ?", pair[:1])
                db.execute("UPDATE account SET held = held + 5 WHERE id = ?", pair[1:])
            db.execute("UPDATE done SET n = n + 1")
            db.execute("COMMIT")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    with logged(folder) as mount:
        mkfs = find_tool("mkfs.ext4")
        assert mkfs
        subprocess.run([mkfs, "-q", "-F", str(mount)], check=True)
        os.sync()
        formatted = entries(folder / "log.img")
        with mounted(mount, folder / "mnt") as point:
            work(point)
    trace = folder / "t.parquet"
    found = import_trace([folder / "log.img"], trace)
    assert found.format == "dm-log-writes"
    assert found.ios == entries(folder / "log.img") > formatted > 0
    return Recorded(trace, formatted, folder / "disk.img")


TOOLS = [requires("qemu-storage-daemon"), requires("mkfs.ext4"), requires("e2fsck"),
         needs_loop_devices]  # fmt: skip
pytestmark = TOOLS


def check_file_system(image: Path) -> None:
    """The journal is replayed, as at any mount after a crash; then nothing may be wrong."""
    e2fsck = find_tool("e2fsck")
    assert e2fsck
    subprocess.run(
        [e2fsck, "-E", "journal_only", "-y", str(image)], capture_output=True, check=False
    )
    done = subprocess.run(
        [e2fsck, "-f", "-n", str(image)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def transfers_in(image: Path, folder: Path) -> int | None:
    """How many transfers the database in an image holds, its own checks passed."""
    with mounted(image, folder / "mnt") as point:
        if not (point / "bank.db").exists() or not (point / "bank.db").stat().st_size:
            return None
        with closing(sqlite3.connect(point / "bank.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'done'").fetchall():
                return None
            held, rows = db.execute("SELECT sum(held), count(*) FROM account").fetchone()
            assert (held, rows) in [(ACCOUNTS * EACH, ACCOUNTS), (None, 0)]
            return int(db.execute("SELECT n FROM done").fetchone()[0])


def replicated(recorded: Recorded, tmp_path: Path) -> tuple[Run, Path]:
    link = Raw('{ bandwidth = "1Gbit/s", rtt = "1ms" }')
    use = {"use": "cdp", "rpo": "200ms", "point_interval": "20ms", "link": link}
    replaying.replay(
        recorded.trace, out=tmp_path / "run", target=tmp_path / "t.img",
        policy=policy_file(tmp_path, filters(use)),
        settings=Settings(backend="psync", payload="trace", verify=True),
    )  # fmt: skip
    return open_run(tmp_path / "run"), tmp_path / "run" / "replica" / "chain" / "0" / "store"


def test_images_of_points_in_mid_run_pass_their_own_checks(
    recorded: Recorded, tmp_path: Path
) -> None:
    run, store = replicated(recorded, tmp_path)
    rows = run.scan_ios().filter(pl.col("seq") < recorded.formatted)
    formatted_ns = rows.select(pl.col("complete_ns").max()).collect().item()
    points = recovering.list_points(store)["points"]
    later = [point for point in points if point["cut_ns"] > formatted_ns]
    assert len(later) >= 8
    held = []
    for point in later[:: max(1, len(later) // 8)]:
        image = tmp_path / f"{point['id']}.img"
        found = recovering.recover(store=store, point=point["id"], out=image)
        assert found["checked"]["verified_bytes"] > 0
        os.truncate(image, SIZE)
        shutil.copy(image, tmp_path / "copy.img")
        check_file_system(tmp_path / "copy.img")
        held.append(transfers_in(image, tmp_path))
        image.unlink()
    known = [count for count in held if count is not None]
    assert known == sorted(known)
    assert any(0 < count < TRANSFERS for count in known), held


def test_the_replayed_disk_is_the_recorded_one(recorded: Recorded, tmp_path: Path) -> None:
    target = tmp_path / "t.img"
    found = replaying.replay(
        recorded.trace, out=tmp_path / "run", target=target,
        settings=Settings(backend="psync", payload="trace", pace="asap", verify=True),
    )  # fmt: skip
    assert found["verified"]
    os.truncate(target, SIZE)
    check_file_system(target)
    assert transfers_in(target, tmp_path) == TRANSFERS


def test_content_that_was_changed_is_noticed(recorded: Recorded, tmp_path: Path) -> None:
    trace = tmp_path / "t.parquet"
    shutil.copy(recorded.trace, trace)
    settings = Settings(backend="mem", payload="trace", clock="wall")
    with pytest.raises(InputError, match=r"t\.parquet\.content: expected what the writes"):
        replaying.replay(trace, out=tmp_path / "run", settings=settings)
    shutil.copy(f"{recorded.trace}.content", f"{trace}.content")
    os.truncate(f"{trace}.content", 1 << 20)
    with pytest.raises((InputError, WorkError), match="damaged"):
        replaying.replay(trace, out=tmp_path / "run", settings=settings)
    with open_trace(trace) as opened:
        assert opened.metadata["content"]["rows"] == opened.rows


def test_a_point_of_made_data_fails_by_name(recorded: Recorded, tmp_path: Path) -> None:
    """Were the content not replayed, or not compared, this would pass as well."""
    run, store = replicated(recorded, tmp_path)
    manifest = (run.path / "manifest.json").read_text()
    changed = manifest.replace(f'"content": "{recorded.trace}.content"', '"content": null')
    assert changed != manifest
    (run.path / "manifest.json").write_text(changed)
    with pytest.raises(WorkError, match="not the source's state"):
        recovering.recover(store=store, out=tmp_path / "x.img")
