"""The part that holds the hits of a run against a simulation of the same requests."""

from __future__ import annotations

from vaio_bench.analyses.simulated import Simulated, simulated
from vaio_bench.reporting import words
from vaio_bench.reporting.model import Cell, Section, Table
from vaio_bench.store import Run


def add_against_simulation(section: Section, run: Run) -> None:
    """Puts a table, and a sentence a policy, into the section on hit ratios."""
    found = simulated(run)
    if not found:
        return
    columns = ["policy", "round", "eviction policy", "cache size", "of requests", "simulated"]
    columns += ["difference", "of whole I/Os", "simulated", "difference"]
    rows = [_row(each) for each in found]
    caption = "Hits of the run, and of a simulation of the same requests"
    section.tables.append(Table(columns, rows, caption=caption))
    section.notes += dict.fromkeys(sentence(each) for each in found)


def _row(each: Simulated) -> list[Cell | str]:
    of = each.to_dict()
    return [
        each.policy,
        str(each.round),
        each.eviction,
        words.size(each.capacity_bytes),
        words.share(of["hit_ratio"]),
        words.share(of["simulated_hit_ratio"]),
        _points(of["difference"]),
        words.share(of["io_hit_ratio"]),
        words.share(of["simulated_io_hit_ratio"]),
        _points(of["io_difference"]),
    ]


def _points(difference: float | None) -> str:
    if difference is None:
        return words.share(None)
    return "none" if difference == 0 else f"{100 * difference:+.3f} points"


def sentence(each: Simulated) -> str:
    """Whether run and simulation agree, and if not, why."""
    if each.is_same is None:
        return f"{each.policy} is not held against a simulation: {each.why}."
    if each.is_same:
        return (
            f"{each.policy}: the run hit exactly what a simulation of {each.eviction} at "
            f"{words.size(each.capacity_bytes)} does, {words.count(each.hits)} of "
            f"{words.count(each.requests)} requests and {words.count(each.io_hits)} of "
            f"{words.count(each.ios)} I/Os."
        )
    points = _points(each.to_dict()["difference"])
    return (
        f"{each.policy}: the run hit {words.count(each.hits)} requests, a simulation of the same "
        f"{words.count(each.simulated_hits)} ({points})" + (f": {each.why}." if each.why else ".")
    )
