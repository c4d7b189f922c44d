"""The part on what the caches of a run really brought: hit ratio beside latency gained."""

from __future__ import annotations

from vaio_bench.analyses.gained import Gained, gained
from vaio_bench.reporting import words
from vaio_bench.reporting.model import Cell, Section, Table
from vaio_bench.store import Run


def add_gained(section: Section, run: Run) -> None:
    """Puts a table and a sentence a policy into the section on hit ratios."""
    found = gained(run)
    if not found:
        return
    columns = ["policy", "reads that hit", "a hit takes", "in part", "a miss", "all reads"]
    columns += ["all writes", "reads without it", "writes without it", "gained on reads"]
    rows: list[list[Cell | str]] = [_row(each) for each in found]
    caption = "What it brought: mean latencies of the run"
    section.tables.append(Table([*columns, "on writes"], rows, caption=caption))
    section.notes += [_sentence(each) for each in found]


def _row(each: Gained) -> list[Cell | str]:
    share = each.hit_reads / each.reads if each.reads else None
    times = [each.hit_ns, each.partial_ns, each.miss_ns, each.read_ns, each.write_ns]
    times += [each.baseline_read_ns, each.baseline_write_ns]
    return [
        each.policy,
        words.share(share),
        *[words.duration(time) for time in times],
        words.share(each.read_gain),
        words.share(each.write_gain),
    ]


def _sentence(each: Gained) -> str:
    if each.baseline is None or each.read_gain is None:
        return (
            f"What {each.policy} gained is not known: the run has no other policy whose reads to "
            "hold against its own."
        )
    share = words.share(each.hit_reads / each.reads)
    way = "less" if each.read_gain >= 0 else "more"
    text = (
        f"With {each.policy} {share} of the reads hit, and a read took "
        f"{words.duration(each.read_ns)} on average, {words.share(abs(each.read_gain))} {way} than "
        f"the {words.duration(each.baseline_read_ns)} of {each.baseline}."
    )
    if each.miss_ns is not None and each.baseline_read_ns and each.miss_ns > each.baseline_read_ns:
        extra = each.miss_ns - each.baseline_read_ns
        text += f" A miss costs {words.duration(extra)} more than a read without the cache."
    return text
