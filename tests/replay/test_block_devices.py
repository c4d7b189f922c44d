"""Block devices as targets: loop devices, which need root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Ended, find_tool, requires
from tests.loop_devices import loop_device, needs_loop_devices
from tests.replay_kit import Io, mixed, write_trace
from vaio_bench.store import open_run

pytestmark = needs_loop_devices
SIZE = 8 << 20


@pytest.fixture(params=["512", "4096"])
def device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    file = tmp_path / "device.img"
    file.touch()
    os.truncate(file, SIZE)
    with loop_device(file, "--sector-size", request.param) as made:
        yield made


@pytest.mark.parametrize("backend", ["psync", "uring"])
def test_every_operation_and_what_it_leaves(
    tmp_path: Path, here: Callable[..., Ended], device: Path, backend: str
) -> None:
    write_trace(tmp_path / "t.parquet", mixed(7, 400, reach=4 << 20, align=512))
    words = ("--backend", backend, "--pace", "asap", "--depth", "8", "--verify", "-o", "run")
    ended = here(
        "replay", "t.parquet", "--target", device, *words, "--destroy-data", "--direct", "--json"
    )
    assert ended.exit_status == 0, ended.stderr
    found = ended.document
    assert (found["errors"], found["verified"]) == (0, True)
    assert found["verified_bytes"] > 1 << 20
    target = open_run("run").manifest["target"]
    sector = int(Path(f"/sys/block/{device.name}/queue/logical_block_size").read_text())
    assert target["alignment"] >= sector
    assert (found["unaligned"] > 0) == (sector == 4096)
    assert open_run("run").manifest["environment"]["target"]["kind"] == "block device"


def test_nothing_is_written_unasked(
    tmp_path: Path, here: Callable[..., Ended], device: Path
) -> None:
    write_trace(tmp_path / "t.parquet", [Io(0, "write", 0, 4096)])
    ended = here("replay", "t.parquet", "--target", device, "-o", "run")
    assert ended.exit_status == 2
    assert "block device" in ended.stderr
    assert "--destroy-data" in ended.stderr
    assert device.read_bytes() == bytes(SIZE)


def test_a_device_is_as_large_as_it_is(
    tmp_path: Path, here: Callable[..., Ended], device: Path
) -> None:
    write_trace(tmp_path / "t.parquet", [Io(0, "write", SIZE - 4096, 8192)])
    ended = here("replay", "t.parquet", "--target", device, "-o", "run", "--destroy-data")
    assert ended.exit_status == 2
    assert f"the target has {SIZE}" in ended.stderr


@requires("mkfs.ext4")
def test_a_mounted_device_is_left_alone(
    tmp_path: Path, here: Callable[..., Ended], device: Path
) -> None:
    subprocess.run([find_tool("mkfs.ext4") or "", "-q", "-F", str(device)], check=True)
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", "-t", "ext4", str(device), str(tmp_path / "mnt")], check=True)
    try:
        write_trace(tmp_path / "t.parquet", [Io(0, "write", 0, 4096)])
        ended = here("replay", "t.parquet", "--target", device, "-o", "run", "--destroy-data")
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)
    assert ended.exit_status == 2
    assert "in use: mounted" in ended.stderr


@requires("fio")
def test_fio_replays_there_too(tmp_path: Path, here: Callable[..., Ended], device: Path) -> None:
    write_trace(tmp_path / "t.parquet", mixed(3, 200, reach=4 << 20, align=4096))
    ended = here("fio", "replay", "t.parquet", "--target", device, "--depth", "4", "--rounds", "2",
                 "--destroy-data", "-o", "run", "--json")  # fmt: skip
    assert ended.exit_status == 0, ended.stderr
    assert ended.document["left_out"]["discard"] > 0
    assert ended.document["equal"]
