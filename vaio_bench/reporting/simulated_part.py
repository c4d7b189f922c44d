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
    for policy in dict.fromkeys(each.policy for each in found):
        section.notes.append(sentence([each for each in found if each.policy == policy]))


def _row(each: Simulated) -> list[Cell | str]:
    of = each.to_dict()
    return [
        each.policy,
        str(each.round + 1),
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


def sentence(rounds: list[Simulated]) -> str:
    """Whether the rounds of a policy agree with a simulation, and if not, by how much and why."""
    first = rounds[0]
    if first.is_same is None:
        return f"{first.policy} is not held against a simulation: {first.why}."
    what = f"a simulation of {first.eviction} at {words.size(first.capacity_bytes)}"
    if all(each.is_same for each in rounds):
        return (
            f"{first.policy} hit exactly what {what} does: {words.count(first.hits)} of "
            f"{words.count(first.requests)} requests, {words.count(first.io_hits)} of "
            f"{words.count(first.ios)} I/Os."
        )
    apart = sorted((each.to_dict()["difference"] for each in rounds), key=abs)
    why = next((each.why for each in rounds if each.why), None)
    upto = "" if len(rounds) == 1 else "up to "
    text = f"{first.policy} hit {upto}{_points(apart[-1])} other than {what} of the same requests"
    return text + (f": {why}." if why else ".")
