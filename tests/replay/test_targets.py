"""Targets: nothing of the user's is written to unasked, and what is wrong is told before it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Ended, find_tool
from replay_kit import Io, mixed, write_trace

from vaio_bench import targets
from vaio_bench.errors import InputError

SHM = Path("/dev/shm")
WRITES = [Io(0, "write", 0, 65536), Io(1, "read", 4096, 8192)]
READS = [Io(0, "read", 0, 65536), Io(1, "read", 32768, 4096), Io(2, "flush")]


@contextmanager
def _mounted(folder: Path, kind: str, *options: str) -> Iterator[Path]:
    """A file system in memory at `folder`; skips where it may not be mounted."""
    mount, umount = find_tool("mount"), find_tool("umount")
    folder.mkdir()
    command = [mount or "mount", "-t", kind, *options, kind, folder]
    if not mount or not umount or subprocess.run(command, check=False).returncode:
        pytest.skip(f"requires root that may mount {kind}")
    try:
        yield folder
    finally:
        subprocess.run([umount, folder], check=True)


def _one_line(ended: Ended, status: int) -> str:
    """The one line that a failed command says, on standard error and nowhere else."""
    assert ended.exit_status == status, ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


@pytest.fixture
def writes(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "w.parquet", WRITES)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user's."""
    path = tmp_path / "mine.img"
    path.write_bytes(os.urandom(128 << 10))
    return path


def test_a_file_of_the_users_is_not_overwritten(cli: Callable, writes: Path, mine: Path) -> None:
    before = mine.read_bytes()
    line = _one_line(cli("replay", writes, "--target", mine, "-o", "run"), 2)
    assert str(mine) in line
    assert "--destroy-data" in line
    assert mine.read_bytes() == before
    assert not (mine.parent / "run").exists()


def test_destroy_data_allows_it(engine: Callable, mine: Path) -> None:
    before = mine.read_bytes()
    replayed = engine(
        WRITES, target=mine, backend="psync", clock="wall", destroy_data=True, verify=True
    )
    assert replayed.found["verified"] is True
    after = mine.read_bytes()
    assert after[:65536] != before[:65536]
    assert after[65536:] == before[65536:]


@pytest.mark.parametrize("backend", ["uring", "psync"])
def test_a_trace_that_only_reads_leaves_it_as_it_is(
    engine: Callable, mine: Path, backend: str
) -> None:
    before, mode = mine.read_bytes(), mine.stat().st_mtime_ns
    mine.chmod(0o400)
    replayed = engine(READS, target=mine, backend=backend, clock="wall", verify=True)
    assert replayed.found["errors"] == 0
    assert replayed.found["verified_bytes"] == 0
    assert replayed.found["unverified_bytes"] == 65536 + 4096
    assert mine.read_bytes() == before
    assert mine.stat().st_mtime_ns == mode


def test_a_file_of_an_odd_size_serves_a_trace_that_ends_in_it(
    engine: Callable, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.img"
    odd.write_bytes(bytes(range(250)) * 20)
    ios = [Io(0, "read", 0, 4096), Io(1, "read", 4000, 1000)]
    found = engine(ios, target=odd, backend="psync", clock="wall", direct="never").found
    assert found["errors"] == 0
    changed = engine(
        [*ios, Io(2, "write", 4900, 100)], target=odd, backend="psync", clock="wall",
        direct="never", destroy_data=True, verify=True,
    )  # fmt: skip
    assert changed.found["errors"] == 0
    assert odd.stat().st_size == 5000


def test_a_trace_that_reaches_past_the_target(here: Callable, tmp_path: Path, mine: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", [Io(0, "read", 131072, 1)])
    before = mine.read_bytes()
    for more in ([], ["--destroy-data"]):
        line = _one_line(here("replay", trace, "--target", mine, "-o", "run", *more), 2)
        assert "reaches to byte 131073 of disk disk, the target has 131072" in line
        assert str(mine) in line
    assert mine.read_bytes() == before


def test_an_earlier_target_of_ours_grows(engine: Callable, tmp_path: Path) -> None:
    target = tmp_path / "ours.img"
    for reach in (65536, 1 << 20):
        found = engine(
            [Io(0, "write", reach - 4096, 4096)], target=target, backend="psync", clock="wall"
        ).found
        assert found["errors"] == 0
        assert target.stat().st_size == reach


def test_a_file_that_took_the_place_of_ours_is_the_users(
    here: Callable, engine: Callable, tmp_path: Path, writes: Path, mine: Path
) -> None:
    target = tmp_path / "ours.img"
    engine(WRITES, target=target, backend="psync", clock="wall")
    os.replace(mine, target)
    line = _one_line(here("replay", writes, "--target", target, "-o", "run"), 2)
    assert "did not make" in line


def test_what_is_no_file_is_told(here: Callable, writes: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in ("pipe", "/dev/null"):
        line = _one_line(here("replay", writes, "--target", target, "-o", "run"), 2)
        assert target in line
        assert "expected a regular file or a block device" in line


@pytest.fixture
def locked(mine: Path) -> Iterator[Path]:
    """A file that cannot be written to, even by root."""
    if os.geteuid() == 0:
        chattr = find_tool("chattr")
        if not chattr or subprocess.run([chattr, "+i", mine], check=False).returncode:
            pytest.skip("requires chattr +i on the temporary folder's file system, as root")
        yield mine
        subprocess.run([chattr, "-i", mine], check=True)
    else:
        mine.chmod(0o400)
        yield mine


def test_no_permission(here: Callable, writes: Path, locked: Path) -> None:
    line = _one_line(here("replay", writes, "--target", locked, "-o", "run", "--destroy-data"), 2)
    assert str(locked) in line
    assert "permitted" in line or "denied" in line


def test_a_missing_folder(here: Callable, writes: Path) -> None:
    line = _one_line(here("replay", writes, "--target", "none/here.img", "-o", "run"), 2)
    assert "none/here.img" in line
    assert "No such file or directory" in line


def test_no_target(here: Callable, writes: Path) -> None:
    line = _one_line(here("replay", writes, "-o", "run"), 2)
    assert "--target" in line


def _refuses_direct(folder: Path) -> bool:
    probe = folder / f"vaio-bench-test-{os.getpid()}.probe"
    probe.write_bytes(bytes(4096))
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return True
    finally:
        probe.unlink()
    return False


@pytest.fixture
def memory_file(tmp_path: Path) -> Iterator[Path]:
    """A path on a file system that refuses O_DIRECT: tmpfs before Linux 6.6, or ramfs."""
    if SHM.is_dir() and os.access(SHM, os.W_OK) and _refuses_direct(SHM):
        path = SHM / f"vaio-bench-test-{os.getpid()}.img"
        yield path
        path.unlink(missing_ok=True)
        return
    with _mounted(tmp_path / "memory", "ramfs") as folder:
        if not _refuses_direct(folder):
            pytest.skip("requires a file system that refuses O_DIRECT")
        yield folder / "t.img"


def test_direct_refused(here: Callable, writes: Path, memory_file: Path) -> None:
    ended = here("replay", writes, "--target", memory_file, "-o", "run", "--direct")
    line = _one_line(ended, 2)
    assert "O_DIRECT" in line
    assert str(memory_file) in line


def test_direct_where_it_can_be(engine: Callable, memory_file: Path) -> None:
    replayed = engine(WRITES, target=memory_file, backend="psync", clock="wall", verify=True)
    assert replayed.found["direct"] is False
    assert replayed.found["verified"] is True
    warnings = [warning["code"] for warning in replayed.run.manifest["warnings"]]
    assert any("cache" in code for code in warnings), warnings


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with _mounted(tmp_path / "small", "tmpfs", "-o", "size=8m") as folder:
        yield folder


def test_a_target_that_does_not_fit_leaves_nothing(
    here: Callable, tmp_path: Path, small_disk: Path
) -> None:
    trace = write_trace(tmp_path / "t.parquet", [Io(0, "write", 20 << 20, 4096)])
    ended = here("replay", trace, "--target", small_disk / "t.img", "-o", "run")
    line = _one_line(ended, 1)
    assert "No space left" in line
    assert "--fit-to" in line
    assert "t.img" in line
    assert list(small_disk.iterdir()) == []
    assert not (tmp_path / "run").exists()


def test_disks_that_do_not_fit_together_leave_nothing(
    here: Callable, tmp_path: Path, small_disk: Path
) -> None:
    ios = [Io(0, "write", (5 << 20) - 4096, 4096, disk) for disk in ("a", "b")]
    trace = write_trace(tmp_path / "t.parquet", ios)
    ended = here("replay", trace, "--target", small_disk / "disks", "-o", "run")
    assert "No space left" in _one_line(ended, 1)
    assert list(small_disk.rglob("*.img")) == []


def test_ctrl_c_while_targets_are_made_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, of: int) -> None:
        if done > 2 << 20:
            raise KeyboardInterrupt

    needs = [targets.Need(disk, 1, 2 << 20, exact=False) for disk in ("a", "b")]
    with pytest.raises(KeyboardInterrupt):
        targets.prepare(
            tmp_path / "d", needs, writes=True, destroy_data=False, precondition=True,
            progress=interrupt,
        )  # fmt: skip
    assert list((tmp_path / "d").iterdir()) == []


def test_rows_that_do_not_fit(here: Callable, tmp_path: Path, small_disk: Path) -> None:
    trace = tmp_path / "many.parquet"
    write_trace(trace, [Io(i * 977, "read", i * 7919 % 9973 * 512, 512) for i in range(150_000)])
    (small_disk / "filler").write_bytes(bytes(7 << 20))
    free = shutil.disk_usage(small_disk).free
    assert free < 2 << 20
    ended = here(
        "replay", trace, "-o", small_disk / "run", "--backend", "sim", "--pace", "asap",
        "--clock", "virtual",
    )  # fmt: skip
    line = _one_line(ended, 1)
    assert "No space left" in line or "cannot write" in line
    # A run of which no row could be kept leaves no folder, and what else is there alone.
    assert not (small_disk / "run").exists()
    assert (small_disk / "filler").stat().st_size == 7 << 20


def test_a_disk_that_fills_up_is_an_io_error(engine: Callable, small_disk: Path) -> None:
    # A sparse file of the user's, larger than the file system has room for.
    target = small_disk / "sparse.img"
    with target.open("wb") as file:
        file.truncate(16 << 20)
    ios = [Io(i, "write", i << 16, 1 << 16) for i in range(256)]
    replayed = engine(
        ios, target=target, backend="psync", clock="wall", destroy_data=True, verify=True,
        pace="asap",
    )  # fmt: skip
    rows = replayed.run.scan_ios().collect()
    failed = rows.filter(rows["status"] != 0)
    assert failed["status"].unique().to_list() == [28]
    assert 0 < failed.height < rows.height
    assert replayed.found["errors"] == failed.height
    assert replayed.found["mismatches"] == []
    assert "No space left" in replayed.found["told_errors"][0]
    assert replayed.run.exit.startswith(f"failed: {failed.height} I/O errors")


def test_prefill_makes_reads_of_unwritten_places_work(engine: Callable, tmp_path: Path) -> None:
    ios = mixed(51, 60, ops=("read",), align=512)
    target = tmp_path / "new.img"
    replayed = engine(ios, target=target, backend="psync", clock="wall", verify=True)
    assert replayed.found["verified"] is True
    assert replayed.found["unverified_bytes"] == 0
    # The reads, and once more everything that was prefilled.
    assert replayed.found["verified_bytes"] > sum(io.length for io in ios)
    touched = bytearray(1 << 20)
    for io in ios:
        touched[io.offset : io.offset + io.length] = b"\1" * io.length
    image = target.read_bytes()
    for at in range(0, 1 << 20, 4096):
        if not any(touched[at : at + 4096]):
            assert not any(image[at : at + 4096])


def test_too_small_for_root_only_by_the_rest(engine: Callable, mine: Path) -> None:
    with pytest.raises(InputError, match="reaches to byte 131584"):
        engine([Io(0, "read", 131072, 512)], target=mine, backend="psync", clock="wall")


@pytest.mark.parametrize("backend", ["uring", "psync"])
@pytest.mark.parametrize("odd", [1, 1000, 4095])
def test_the_end_of_a_file_of_odd_size_is_written_and_read(
    engine: Callable, tmp_path: Path, backend: str, odd: int
) -> None:
    """O_DIRECT cannot reach what lies behind the last whole block."""
    target = tmp_path / "odd.img"
    size = (64 << 10) + odd
    target.write_bytes(bytes(size))
    ios = [
        Io(0, "write", 0, size),
        Io(1, "read", size - odd - 4096, 4096 + odd),
        Io(2, "write", size - 1, 1),
        Io(3, "read", size - 1, 1),
        Io(4, "write_zeroes", size - odd - 100, 50 + odd),
        Io(5, "write", size - odd - 4096, 4096),
        Io(6, "read", 0, size),
    ]
    settings = {"backend": backend, "clock": "wall", "direct": "always", "verify": True}
    replayed = engine(ios, target=target, destroy_data=True, **settings)
    assert replayed.found["errors"] == 0
    assert replayed.found["verified"] is True
    assert target.stat().st_size == size


def test_a_file_system_without_marks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "getxattr", refuse)
    monkeypatch.setattr(os, "setxattr", refuse)
    need = [targets.Need("disk", 4096, 4096, exact=False)]
    path = tmp_path / "t.img"
    targets.prepare(path, need, writes=True, destroy_data=False, precondition=False)
    with pytest.raises(InputError, match=r"keeps no extended attributes.*--destroy-data"):
        targets.prepare(path, need, writes=True, destroy_data=False, precondition=False)
