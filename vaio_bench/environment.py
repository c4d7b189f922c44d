"""What a manifest says of the machine, and the warnings that follow from it.

Read from /proc and /sys as the kernel documents them (Documentation/filesystems/proc.rst,
Documentation/admin-guide/pm, Documentation/ABI/stable/sysfs-block); what this machine does not
tell is None. Nothing here changes a setting.
"""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

from vaio_bench import _core, mounts
from vaio_bench.warnings import RunWarning, WarningKind

# Shares of processor time in an idle window above which a machine counts as noisy. A quiet
# two-processor virtual machine shows well under 1 % of either.
NOISY_BUSY_SHARE = 0.05
NOISY_STEAL_SHARE = 0.005
# Room that a run of a million I/Os wants beside its target.
LITTLE_SPACE_BYTES = 256 << 20

_SYS_CPU = Path("/sys/devices/system/cpu")
_VERSIONS_OF = ("numpy", "polars", "pyarrow", "scipy")


def environment(target: str | Path | None = None, quiet_s: float = 0.0) -> dict[str, Any]:
    """The machine, its state of the moment, and the file system below a target.

    Args:
        target: a file, device or folder, which need not exist yet.
        quiet_s: seconds to sit still and watch what others make of the processors; 0 for not.

    Returns:
        A JSON document; units are in the names, None is "not known here".
    """
    return {
        "collected_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "cpu": _cpu(),
        "kernel": _kernel(),
        "load": _load(quiet_s),
        "memory": _memory(),
        "target": None if target is None else mounts.describe(target),
        "versions": _versions(),
    }


def warnings_of(found: dict[str, Any]) -> list[RunWarning]:
    """What in an `environment` document keeps its machine from measuring well."""
    return [
        *_cpu_warnings(found["cpu"], found["load"]),
        *_kernel_warnings(found["cpu"], found["kernel"]),
        *(_target_warnings(found["target"]) if found["target"] else ()),
        *((WarningKind.DEBUG_BUILD.of(),) if found["versions"]["debug_build"] else ()),
    ]


def _cpu_warnings(cpu: dict[str, Any], load: dict[str, Any]) -> list[RunWarning]:
    raised = []
    if (load["busy_share"] or 0) > NOISY_BUSY_SHARE:
        raised.append(WarningKind.NOISY_CPU.of(busy=load["busy_share"]))
    if (load["steal_share"] or 0) > NOISY_STEAL_SHARE:
        raised.append(WarningKind.STOLEN_CPU.of(steal=load["steal_share"]))
    if cpu["turbo"]:
        raised.append(WarningKind.TURBO.of())
    if cpu["governor"] not in (None, "performance"):
        raised.append(WarningKind.GOVERNOR.of(governor=cpu["governor"]))
    if (cpu["threads_per_core"] or 1) > 1:
        raised.append(WarningKind.SMT.of(threads=cpu["threads_per_core"]))
    if cpu["allowed"] < 2:
        raised.append(WarningKind.FEW_CPUS.of(cpus=cpu["allowed"]))
    return raised


def _kernel_warnings(cpu: dict[str, Any], kernel: dict[str, Any]) -> list[RunWarning]:
    raised = []
    if not (cpu["constant_tsc"] and cpu["nonstop_tsc"]):
        raised.append(WarningKind.CLOCK_NOT_INVARIANT.of(clock_source=kernel["clock_source"]))
    if kernel["io_uring"] != "allowed":
        raised.append(WarningKind.URING_DENIED.of(reason=kernel["io_uring"]))
    return raised


def _target_warnings(target: dict[str, Any]) -> list[RunWarning]:
    raised = []
    kinds = {
        "memory": WarningKind.TARGET_ON_MEMORY,
        "network": WarningKind.TARGET_ON_NETWORK,
        "overlay": WarningKind.TARGET_ON_OVERLAY,
    }
    if target["medium"] in kinds:
        kind = kinds[target["medium"]]
        raised.append(kind.of(target=target["path"], file_system=target["file_system"]))
    if target["free_bytes"] is not None and target["free_bytes"] < LITTLE_SPACE_BYTES:
        raised.append(
            WarningKind.LITTLE_SPACE.of(target=target["path"], free_bytes=target["free_bytes"])
        )
    return raised


@functools.cache
def _cpu_info() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; on other architectures its keys differ."""
    info: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    return info


def _cpu() -> dict[str, Any]:
    info = _cpu_info()
    flags = info.get("flags", "").split()
    siblings = _text(_SYS_CPU / "cpu0/topology/thread_siblings_list")
    return {
        "model": info.get("model name") or platform.processor() or platform.machine(),
        "online": os.cpu_count(),
        "allowed": len(os.sched_getaffinity(0)),
        "quota": _cpu_quota(),
        "threads_per_core": None if siblings is None else len(_expand(siblings)),
        "governor": _text(_SYS_CPU / "cpu0/cpufreq/scaling_governor"),
        "turbo": _turbo(),
        "constant_tsc": "constant_tsc" in flags,
        "nonstop_tsc": "nonstop_tsc" in flags,
        "aes": "aes" in flags,
        "vaes": "vaes" in flags,
    }


def _turbo() -> bool | None:
    off = _text(_SYS_CPU / "intel_pstate/no_turbo")
    if off is not None:
        return off == "0"
    boost = _text(_SYS_CPU / "cpufreq/boost")
    return None if boost is None else boost == "1"


def _cpu_quota() -> float | None:
    """Processors that the control group (v2) may use at one time; None without a limit."""
    quota, _, period = (_text(Path("/sys/fs/cgroup/cpu.max")) or "max 1").partition(" ")
    return None if quota == "max" else int(quota) / int(period)


def _kernel() -> dict[str, Any]:
    flags = _cpu_info().get("flags", "").split()
    clock = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return {
        "release": platform.release(),
        "machine": platform.machine(),
        "clock_source": _text(clock),
        "virtualised": "hypervisor" in flags,
        "platform": _text(Path("/sys/class/dmi/id/product_name")),
        "io_uring": _core.uring_refused() or "allowed",
    }


def _load(quiet_s: float) -> dict[str, Any]:
    one, five, fifteen = os.getloadavg()
    busy, steal = processor_use(quiet_s) if quiet_s > 0 else (None, None)
    return {
        "average_1m": one,
        "average_5m": five,
        "average_15m": fifteen,
        "watched_s": quiet_s,
        "busy_share": busy,
        "steal_share": steal,
    }


def processor_use(seconds: float) -> tuple[float, float]:
    """Shares of all processors' time that others used, and that the hypervisor withheld."""
    before = _ticks()
    time.sleep(seconds)
    busy, interrupts, steal, total = _spent_since(before)
    return (busy + interrupts) / total, steal / total


class ProcessorWatch:
    """What others make of the processors from now on, while this program and its children run.

    Interrupts are left out: here they are mostly the run's own I/Os. A child counts as the
    program's own once it has been waited for.
    """

    def __init__(self) -> None:
        self._ticks, self._own_s = _ticks(), _own_s()

    def shares(self) -> tuple[float, float]:
        """Shares of all processors' time: that others used, and that the hypervisor withheld."""
        busy, _interrupts, steal, total = _spent_since(self._ticks)
        own = (_own_s() - self._own_s) * os.sysconf("SC_CLK_TCK")
        return max(busy - own, 0.0) / total, steal / total


def _spent_since(before: list[int]) -> tuple[int, int, int, int]:
    """Ticks by programs and the kernel, by interrupts, withheld, and of all kinds (1 at least)."""
    spent = [late - early for late, early in zip(_ticks(), before, strict=True)]
    user, nice, system, _idle, _iowait, irq, softirq, steal = spent
    return user + nice + system, irq + softirq, steal, max(sum(spent), 1)


def _own_s() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _ticks() -> list[int]:
    """Of all processors: user, nice, system, idle, iowait, irq, softirq, steal."""
    with Path("/proc/stat").open() as stat:
        return [int(value) for value in stat.readline().split()[1:9]]


def _memory() -> dict[str, Any]:
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    limit = _text(Path("/sys/fs/cgroup/memory.max"))
    return {
        "total_bytes": kib["MemTotal"] * 1024,
        "available_bytes": kib["MemAvailable"] * 1024,
        "limit_bytes": None if limit in (None, "max") else int(str(limit)),
    }


def _versions() -> dict[str, Any]:
    return {
        "vaio_bench": _core.VERSION,
        "debug_build": bool(_core.DEBUG_BUILD),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _VERSIONS_OF},
    }


def _text(path: Path) -> str | None:
    """The file's text, or None where this machine has no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _expand(ranges: str) -> list[int]:
    """The kernel's lists of processors: `0-1,8` is 0, 1, 8."""
    numbers: list[int] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
