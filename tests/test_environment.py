"""What a manifest says of the machine, and the warnings that follow."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vaio_bench import environment, mounts
from vaio_bench.warnings import WarningKind

MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 22 0:25 / /tmp rw,nosuid - tmpfs tmpfs rw,size=1024k
31 22 254:17 /sub /data\\040disk rw,noatime master:2 - xfs /dev/vdb1 rw,attr2
32 22 0:30 / /net rw - nfs4 server:/share rw,vers=4.2
33 31 0:31 / /data\\040disk rw - overlay overlay rw,lowerdir=/l
"""


@pytest.fixture
def quiet() -> dict[str, Any]:
    """A machine with nothing to warn about."""
    return {
        "cpu": {
            "governor": "performance",
            "turbo": False,
            "threads_per_core": 1,
            "allowed": 4,
            "constant_tsc": True,
            "nonstop_tsc": True,
        },
        "kernel": {"clock_source": "tsc", "io_uring": "allowed"},
        "load": {"busy_share": 0.001, "steal_share": 0.0},
        "target": None,
        "versions": {"debug_build": False},
    }


def test_describes_this_machine(tmp_path: Path) -> None:
    found = environment.environment(tmp_path / "new" / "target.img", quiet_s=0.05)
    json.dumps(found, allow_nan=False)
    assert found["cpu"]["allowed"] == len(os.sched_getaffinity(0))
    assert found["kernel"]["release"] == os.uname().release
    assert 0 <= found["load"]["busy_share"] <= 1
    assert 0 < found["memory"]["available_bytes"] <= found["memory"]["total_bytes"]
    target = found["target"]
    assert not target["exists"]
    assert target["medium"] in {"device", *mounts.MEDIA}
    assert tmp_path.resolve().is_relative_to(target["mount_point"])
    assert target["free_bytes"] > 0


def test_a_quiet_machine_raises_nothing(quiet: dict[str, Any]) -> None:
    assert environment.warnings_of(quiet) == []


@pytest.mark.parametrize(
    ("part", "key", "value", "code"),
    [
        ("cpu", "governor", "powersave", "governor"),
        ("cpu", "turbo", True, "turbo"),
        ("cpu", "threads_per_core", 2, "smt"),
        ("cpu", "allowed", 1, "few-cpus"),
        ("cpu", "nonstop_tsc", False, "clock-not-invariant"),
        ("kernel", "io_uring", "io_uring_setup: EPERM", "uring-denied"),
        ("load", "busy_share", 0.3, "noisy-cpu"),
        ("load", "steal_share", 0.02, "stolen-cpu"),
        ("versions", "debug_build", True, "debug-build"),
    ],
)
def test_each_finding_has_its_warning(
    quiet: dict[str, Any], part: str, key: str, value: object, code: str
) -> None:
    found = copy.deepcopy(quiet)
    found[part][key] = value
    assert [warning.code for warning in environment.warnings_of(found)] == [code]


@pytest.mark.parametrize(
    ("target", "codes"),
    [
        ({"medium": "device", "file_system": "ext4", "free_bytes": 1 << 40}, []),
        ({"medium": "device", "file_system": "ext4", "free_bytes": 1 << 20}, ["little-space"]),
        ({"medium": "memory", "file_system": "tmpfs", "free_bytes": 1 << 40}, ["target-on-memory"]),
        ({"medium": "network", "file_system": "nfs", "free_bytes": None}, ["target-on-network"]),
        ({"medium": "overlay", "file_system": "overlay", "free_bytes": 0},
         ["target-on-overlay", "little-space"]),
    ],
)  # fmt: skip
def test_targets(quiet: dict[str, Any], target: dict[str, Any], codes: list[str]) -> None:
    found = quiet | {"target": {"path": "t.img", **target}}
    raised = environment.warnings_of(found)
    assert [warning.code for warning in raised] == codes
    assert all("t.img" in warning.seen for warning in raised)


@pytest.mark.parametrize(
    ("path", "point", "file_system", "device"),
    [
        ("/data disk/x", "/data disk", "overlay", "0:31"),
        ("/data diskette", "/", "ext4", "254:1"),
        ("/tmp", "/tmp", "tmpfs", "0:25"),
        ("/net/a/b", "/net", "nfs4", "0:30"),
    ],
)
def test_the_mount_that_is_seen(path: str, point: str, file_system: str, device: str) -> None:
    mount = mounts.mount_of(Path(path), MOUNTINFO)
    assert (mount.point, mount.file_system, mount.device) == (point, file_system, device)


def test_mount_options_are_both_kinds() -> None:
    assert mounts.mount_of(Path("/x"), MOUNTINFO).options == "rw,relatime,errors=remount-ro"


def test_every_warning_says_all_three() -> None:
    for kind in WarningKind:
        seen, why, remedy = kind.value
        assert all([seen, why, remedy])
        assert not remedy.endswith("."), kind
        assert kind.code in kind.page


def test_a_warning_needs_its_values() -> None:
    warning = WarningKind.GOVERNOR.of(governor="ondemand")
    assert warning.seen == "the processors' frequency governor is 'ondemand'"
    with pytest.raises(KeyError):
        WarningKind.GOVERNOR.of()
