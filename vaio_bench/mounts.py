"""Where a target lies: its file system, mount options, device and I/O scheduler.

/proc/self/mountinfo as in proc_pid_mountinfo(5); /sys/dev/block as in the kernel's
Documentation/ABI/stable/sysfs-block.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEDIA = {
    "memory": {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"},
    "network": {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "virtiofs"},
    "overlay": {"overlay", "aufs"},
}


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo."""

    device: str
    """`major:minor`; major 0 has no device behind it."""
    point: str
    file_system: str
    source: str
    options: str


def describe(target: str | Path) -> dict[str, Any]:
    """What lies below a target.

    Args:
        target: a file, folder or block device; a file that does not exist yet is described by
            its nearest folder that does.

    Returns:
        `path`, `exists`, `kind` (file, folder, block device), `medium` (device, memory, network,
        overlay), `file_system`, `mount_point`, `mount_options`, `free_bytes`, and `device`: None,
        or its name, scheduler, sizes in bytes and properties.
    """
    path = Path(target).resolve()
    there = next(place for place in (path, *path.parents) if place.exists())
    status = there.stat()
    if stat.S_ISBLK(status.st_mode):
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        return {
            "path": str(target),
            "exists": True,
            "kind": "block device",
            "medium": "device",
            "file_system": None,
            "mount_point": None,
            "mount_options": None,
            "free_bytes": None,
            "device": _device(number),
        }
    mount = mount_of(there)
    space = os.statvfs(there)
    media = [medium for medium, names in MEDIA.items() if mount.file_system in names]
    return {
        "path": str(target),
        "exists": path.exists(),
        "kind": "folder" if path.is_dir() else "file",
        "medium": media[0] if media else "device",
        "file_system": mount.file_system,
        "mount_point": mount.point,
        "mount_options": mount.options,
        "free_bytes": space.f_bavail * space.f_frsize,
        "device": _device(mount.device),
    }


def mount_of(path: Path, mountinfo: str | None = None) -> Mount:
    """The mount that a path (absolute, without symbolic links) lies on."""
    text = mountinfo or Path("/proc/self/mountinfo").read_text()
    mounts = [_parse(line) for line in text.splitlines()]
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    # Mounts may cover one another: the last of the longest is the one that is seen.
    return max(above, key=lambda mount: len(Path(mount.point).parts) * 1e6 + mounts.index(mount))


def _parse(line: str) -> Mount:
    fields, _, rest = line.partition(" - ")
    _id, _parent, device, _root, point, options = fields.split()[:6]
    # The file system's own options may be missing, and its source holds no space: it is escaped.
    file_system, source, super_options = [*rest.split(" ", 2), ""][:3]
    both = dict.fromkeys([*options.split(","), *super_options.split(",")])
    return Mount(device, _unescape(point), file_system, _unescape(source), ",".join(both))


def _unescape(text: str) -> str:
    r"""Spaces and the like are written in octal: `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _device(number: str) -> dict[str, Any] | None:
    folder = Path("/sys/dev/block") / number
    if not folder.exists():
        return None
    folder = folder.resolve()
    # A partition has no queue of its own.
    disk = folder if (folder / "queue").is_dir() else folder.parent
    chosen = re.search(r"\[(.+?)\]", _read(disk / "queue/scheduler") or "")
    return {
        "name": folder.name,
        "disk": disk.name,
        "model": _read(disk / "device/model"),
        "size_bytes": _number(folder / "size", 512),
        "scheduler": chosen[1] if chosen else None,
        "rotational": _read(disk / "queue/rotational") == "1",
        "write_cache": _read(disk / "queue/write_cache"),
        "logical_block_bytes": _number(disk / "queue/logical_block_size"),
        "physical_block_bytes": _number(disk / "queue/physical_block_size"),
        "max_io_bytes": _number(disk / "queue/max_sectors_kb", 1024),
    }


def _number(path: Path, unit: int = 1) -> int | None:
    text = _read(path)
    return None if text is None else int(text) * unit


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
