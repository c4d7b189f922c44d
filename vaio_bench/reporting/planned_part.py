"""The part that holds the RPO of a run's replication against the planner."""

from __future__ import annotations

from vaio_bench.analyses.planned import STEPS, Planned, planned
from vaio_bench.reporting import words
from vaio_bench.reporting.model import Cell, Section, Table
from vaio_bench.store import Run

_NAMES = {"p95": "p95", "p99": "p99", "max": "worst"}


def add_against_planner(section: Section, run: Run) -> None:
    """Puts a table, and a sentence a policy, into the section on RPO."""
    found = planned(run)
    if not found:
        return
    columns = ["policy", "round", "disk"]
    columns += [text for step in STEPS for text in (f"RPO {_NAMES[step]}", "planner says")]
    rows = [_row(each) for each in found]
    caption = "RPO of the run, and what the planner says of the same writes, link and points"
    section.tables.append(Table(columns, rows, caption=caption))
    for policy in dict.fromkeys(each.policy for each in found):
        own = [each for each in found if each.policy == policy]
        apart = next((each for each in own if not each.agrees), own[0])
        section.notes.append(sentence(apart))


def _row(each: Planned) -> list[Cell | str]:
    row: list[Cell | str] = [each.policy, str(each.round + 1), each.disks]
    for step in STEPS:
        had = each.run_rpo_s[step]
        row += ["no point" if had is None else words.seconds(had)]
        row += [words.seconds(each.planner_rpo_s[step])]
    return row


def sentence(each: Planned) -> str:
    """Whether run and planner agree, and if not, what keeps them apart."""
    if each.agrees:
        return (
            f"{each.policy} had the RPO that the planner says: p95, p99 and the worst moment are "
            "within 5 % or a round trip."
        )
    had, said = each.run_rpo_s["max"], each.planner_rpo_s["max"]
    aged = "no point at times" if had is None else f"points up to {words.seconds(had)} old"
    text = f"{each.policy} had {aged}, the planner says "
    return text + words.seconds(said) + (f": {each.why}." if each.why else ".")
