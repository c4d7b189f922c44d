"""Loop devices and small disks for tests that run as root: given back whatever happens."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import find_tool


def _works() -> bool:
    if os.geteuid() != 0 or find_tool("losetup") is None:
        return False
    free = subprocess.run(["losetup", "-f"], capture_output=True, text=True, check=False)
    return free.returncode == 0 and Path(free.stdout.strip()).exists()


needs_loop_devices = pytest.mark.skipif(not _works(), reason="requires root and loop devices")


@contextmanager
def loop_device(file: Path, *options: str) -> Iterator[Path]:
    """The file as a block device."""
    made = subprocess.run(
        ["losetup", "-f", "--show", *options, str(file)], capture_output=True, text=True, check=True
    )
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", str(device)], check=False)


@contextmanager
def mounted(file: Path, point: Path) -> Iterator[Path]:
    """The file system in a file; its journal is replayed by that."""
    point.mkdir(exist_ok=True)
    with loop_device(file) as device:
        subprocess.run(["mount", "-t", "ext4", str(device), str(point)], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", str(point)], check=True)


@contextmanager
def small_disk(point: Path, megabytes: int) -> Iterator[Path]:
    """A file system of so many MiB, in memory; skips where none can be mounted."""
    point.mkdir()
    size = f"size={megabytes}m"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "none", str(point)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("requires root, to mount a small file system")
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)
