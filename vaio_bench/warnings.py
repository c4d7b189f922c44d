"""Every warning: what was seen, why it matters, what to do. Printed, stored and reported alike.

A warning belongs to a run: it is printed once, kept in the manifest and shown in the report. None
of them changes a figure; some make a verb refuse its verdict, which that verb documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class RunWarning:
    """One warning as it was raised, with the values that were seen."""

    code: str
    seen: str
    why: str
    remedy: str

    def to_dict(self) -> dict[str, str]:
        """The shape kept in a manifest and in every `--json` document."""
        return {"code": self.code, "seen": self.seen, "why": self.why, "remedy": self.remedy}

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.seen}: {self.why}. {self.remedy}."


def line_of(kept: Mapping[str, str]) -> str:
    """A warning as a manifest keeps it, in one line for a terminal."""
    if not {"seen", "why", "remedy"} <= kept.keys():
        return kept.get("text") or kept.get("code", "warning")
    return str(RunWarning(kept.get("code", ""), kept["seen"], kept["why"], kept["remedy"]))


class WarningKind(Enum):
    """Each kind as (what was seen, why it matters, what to do); `{names}` are values seen."""

    NOISY_CPU = (
        "{busy:.0%} of the processors' time went to other programs while nothing ran here",
        "other programs take the processor in the middle of an I/O and lengthen the tail",
        "Stop them, or pin the run to processors of its own",
    )
    BUSY_ROUNDS = (
        "{busy:.0%} of the processors' time went to other programs in the median round, {most:.0%} "
        "in the worst",
        "other programs take the processor in the middle of an I/O and lengthen the tail; what is "
        "late is late because of them, not of the device",
        "Stop them and measure again, or take more rounds and read the noise floor",
    )
    STOLEN_CPU = (
        "the hypervisor withheld {steal:.1%} of the processors' time",
        "a virtual machine that waits for its processor looks like a slow device",
        "Measure on an idle host, or more rounds, and read the noise floor",
    )
    TURBO = (
        "the processor may change its frequency above the nominal one (turbo)",
        "CPU time for an I/O then depends on temperature and on the other cores",
        "Switch it off for CPU figures: `echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo` "
        "or `echo 0 > /sys/devices/system/cpu/cpufreq/boost`",
    )
    GOVERNOR = (
        "the processors' frequency governor is {governor!r}",
        "the clock frequency ramps up and down with the load, and latency with it",
        "Set it to performance: `cpupower frequency-set -g performance`",
    )
    SMT = (
        "the processors' cores run {threads} threads each (SMT)",
        "whatever runs on the sibling thread slows this one",
        "Keep the sibling of a worker's processor idle, or switch SMT off for CPU figures",
    )
    FEW_CPUS = (
        "this process may use {cpus} processor(s)",
        "workers that spin for a deadline, the writer of the rows and the kernel's own work share "
        "them and disturb one another",
        "Use a machine with two processors or more, one of them for each virtual disk",
    )
    SPIN_CROWDED = (
        "policy {policy!r} has {sides} side(s) that look for messages on {cpus} processor(s)",
        "a side that looks on keeps another from answering, and both from the kernel's own work: "
        "what is called hop is then the scheduler's",
        'Give each placed filter and each worker a processor, or say spin = "0s"',
    )
    CLOCK_NOT_INVARIANT = (
        "the time stamp counter is not invariant ({clock_source} is the kernel's clock)",
        "time stamps fall back to the kernel's clock, which costs more for each I/O",
        "Use a machine whose processor flags have constant_tsc and nonstop_tsc",
    )
    PAGE_CACHE = (
        "{target} is opened through the page cache",
        "reads may be answered from memory and writes before they reach the device",
        "Use `--direct` on a file system that allows O_DIRECT, or read the figures as the cache's",
    )
    TARGET_ON_MEMORY = (
        "{target} lies on {file_system}, a file system in memory",
        "it has no device behind it: latencies are those of copying memory",
        "Give a target on the device that is to be measured",
    )
    TARGET_ON_NETWORK = (
        "{target} lies on {file_system}, a file system of the network",
        "the network's noise is part of every latency",
        "Give a local target, or take enough rounds for the noise floor to be read",
    )
    TARGET_ON_OVERLAY = (
        "{target} lies on {file_system}, a container's layered file system",
        "the first write to a block may copy a whole file up",
        "Give a target on a volume of its own",
    )
    LITTLE_SPACE = (
        "{free_bytes} bytes are free for {target}",
        "a run needs room for its target and for its rows, about 60 bytes an I/O",
        "Free some room, or name a target elsewhere",
    )
    URING_DENIED = (
        "the kernel does not allow io_uring here ({reason})",
        "the thread pool (`psync`) is used in its place: more CPU for each I/O",
        "Allow it (`sysctl kernel.io_uring_disabled=0`, or the container's seccomp profile)",
    )
    DEVICE_TOO_SLOW = (
        "{late:.1%} of the I/Os were issued late, p99 {p99_us:.0f} us after they were due",
        "the device cannot keep up with the recorded pace: what is measured is its queue",
        "Use a faster device, a lower `--speed`, or `--pace closed`",
    )
    SLOWED = (
        "{late:.1%} of the I/Os were issued late at the recorded pace",
        "filters that are compared on a device that cannot keep up are compared by its queue",
        "They ran at {speed:g} times the recorded speed here; a faster device takes all of it",
    )
    TARGET_NOT_USED = (
        "{target} is not used: policy {policy!r} ends at an NBD server",
        "the server takes the place of the target, and it alone is measured",
        "Leave `--target` out, or add a policy (or a comparison) that goes to it",
    )
    SERVER_WITHOUT_FLUSH = (
        "policy {policy!r}: {server} offers no flush",
        "flushes and FUA have no effect there, which makes it look faster than a server that "
        "makes data durable",
        "Compare it with servers that offer none either, or start it so that it does",
    )
    REPLICA_ON_SAME_MACHINE = (
        "the replica site is on the machine that is measured",
        "it competes for processor and device, and its link has no distance",
        "Run the replica elsewhere, or take its CPU (reported apart) off the figures",
    )
    RPO_BELOW_ROUND_TRIP = (
        "policy {policy}: the target RPO of {rpo} is below the link's round trip of {rtt}",
        "no source can know in time that a point has arrived, whatever the bandwidth",
        "Ask for a target of several round trips, or use a nearer site",
    )
    REPLICATION_HOLE = (
        "policy {policy!r}: no restore point was being made when the round ended ({reason}), and "
        "{left} were not at the replica",
        "the newest state that can be recovered is from before that, if there is any at all",
        "Give a link that keeps up (`vaio-bench rpo` tells which), or look at why it did not",
    )
    REPLICATION_LEFT = (
        "policy {policy!r}: {points} restore point(s) and {left} were not confirmed by the replica "
        "when the round ended",
        "the run does not wait for them, and they cannot be recovered",
        "Give a longer `drain`, or a link that keeps up (`vaio-bench rpo` tells which)",
    )
    REPLICATION_DOWN = (
        "policy {policy!r}: the link to the replica site was down when the round ended: {why}",
        "nothing was replicated from then on, and the site may not hold what was sent before",
        "Look at the site and at the line; the run's events of kind `link` tell when it broke",
    )
    DEBUG_BUILD = (
        "the compiled module is a debug build",
        "it is many times slower, and results of it are not stored",
        "Build it anew: `make build`",
    )
    NOT_PRECONDITIONED = (
        "the blocks of {target} were never written before the run",
        "the first round pays for their allocation, and the others do not",
        "Add `--precondition` to write the whole file once, or give a file that is full",
    )
    NO_LATENCIES = (
        "{trace} has no latencies from its capture",
        "with `--pace closed` each I/O is taken to have waited for the one before it, and the time "
        "between arrivals stands for the think time",
        "Capture completions as well (blktrace has them), or use `--pace recorded`",
    )
    FIT_TO_WRAPPED = (
        "the trace touches more than the {fit_to} it was fitted to: extents were laid on top of "
        "one another",
        "blocks that were apart share a place, so that hit ratio and RPO verdicts are refused",
        "Give `--fit-to` at least the trace's footprint (`vaio-bench info`)",
    )
    PYTHON_FILTER = (
        "policy {policy!r} has a filter in Python ({use})",
        "each of its callbacks costs microseconds and takes turns with the writer of the rows: its "
        "latency and CPU are Python's, not those of the idea behind it",
        "Read what it does to the data, and write it in C or Rust before judging what it costs",
    )
    FIO_LOG_TIMES = (
        "rows are of fio's logs, whose times are whole milliseconds",
        "latencies are exact, but I/Os of one millisecond have no order among them, and gaps, "
        "rates of short intervals and I/Os in flight cannot be told",
        "Use `vaio-bench replay` where the moment of an I/O matters",
    )
    ROUNDS_LOST = (
        "{lost} round(s) were lost to a filter that crashed, hung or ended its process, or to a "
        "server that went away: {reason}",
        "figures are of the rounds that are left, which what fails now and then flatters",
        "Look at the callback and the I/O that are named, in the run's events too; start the "
        "server again",
    )
    MIXED_BUILDS = (
        "rounds were taken by {builds} builds of the engine",
        "what an I/O costs in the engine itself, CPU first, may differ between them: figures and "
        "intervals are of a mixture",
        "Begin anew with one build",
    )
    POLICY_GIVEN_UP = (
        "policy {policy!r} was given up: its server did not answer in {tried} rounds in a row, and "
        "{untried} round(s) after them were not tried",
        "each would have waited out the server's whole timeout; they count as lost",
        "Start the server again, then `vaio-bench compare --resume` runs what was lost",
    )
    DISKS_LOST = (
        "{lost} disk(s) were lost to a filter that crashed or hung in its own process: {reason}",
        "their I/Os failed from then on, and figures of the round are of the others",
        "Look at the callback and the I/O that are named, in the run's events too",
    )
    FILTER_FAULTS = (
        "policy {policy!r}: filter {layer!r} broke its contract or raised {times} time(s), first: "
        "{first}",
        "what it left undone or did twice counts in the figures as if it were its work",
        "Mend the filter: the run's events of kinds misuse and error have the I/Os",
    )
    CACHE_RECOVERED = (
        "policy {policy!r}: the cache file held {blocks} blocks ({bytes} bytes) that disk {disk} "
        "lacked: an earlier run ended without a clean stop",
        "they were brought to the disk before anything else, so it is not as that run left it, but "
        "as its last flush promised",
        "Nothing, if that run was to end so",
    )
    CACHE_FILE_FAILED = (
        "policy {policy!r}: the cache file failed a {op} (errno {errno})",
        "the cache then works without it for a while: what is read and written goes past it, and "
        "hits and latencies are not those of the cache as it was meant",
        "Look at the device and the file system of the cache file; the gauge cache_file_errors "
        "counts on",
    )
    CACHE_ABOVE_DISK = (
        "policy {policy!r}: a cache of {capacity_bytes} bytes for disk {disk} of {disk_bytes}",
        "nothing is ever evicted: what is missed is what is read for the first time, whatever the "
        "policy and the size",
        "Nothing, if the cache is to hold all; `vaio-bench cache --curve` shows which size does",
    )
    FRAMEWORK_FREE = (
        'policy {policy!r} says framework = "free"',
        "its chain breaks or may break the rules of the framework: no product runs like this",
        "Leave the key out to have the rules checked",
    )
    CLASS_ORDER = (
        "policy {policy!r}: {first_use} ({first_class}) stands before {second_use} "
        "({second_class})",
        "the customary order of classes is the reverse, though no public document fixes it",
        "Change their order, unless it is what you mean to measure",
    )
    SEES_CIPHER_TEXT = (
        "policy {policy!r}: {use} ({filter_class}) stands behind encryption",
        "it sees cipher text: nothing in it can be compressed, searched or found twice",
        "Put it first with allow_filters_before_encryption = true, unless this is what you mean",
    )

    @property
    def code(self) -> str:
        """The word that names it: `noisy-cpu`."""
        return self.name.lower().replace("_", "-")

    def of(self, **seen: object) -> RunWarning:
        """The warning with what was seen filled in.

        Raises:
            KeyError: a value that the text names is not given.
        """
        text, why, remedy = self.value
        return RunWarning(self.code, text.format(**seen), why, remedy)

    @property
    def page(self) -> str:
        """What `vaio-bench explain CODE` prints."""
        text, why, remedy = self.value
        return (
            f"# {self.code}\n\nA warning.\n\n"
            f"## What was seen\n{text}\n\n## Why it matters\n{why}\n\n## What to do\n{remedy}\n"
        )
