"""rpo_sheets: an RPO plan as tables, for spreadsheets and for people with other tools.

One CSV a table: `inputs`, `modes`, `bandwidth` (needed for a share of the time), `frontier` (RPO at
other bandwidths), `daily` (the worst RPO of each day at these), `violations`, `folding`, `loads`,
`exceeded` (limits of products), `capacity` (initial sync, catching up, journal), `initial_sync`
(its time by bandwidth), `faults` and `outages` of the link, and `lag`. Units are in the columns'
names; every figure is one of the document of `rpo --json`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench.analyses.rpo import mode_name
from vaio_bench.errors import InputError, WorkError


def sheets(document: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """The tables of a plan, by name; those without rows are left out."""
    tables = {
        "inputs": _inputs(document),
        "modes": [_mode_row(mode) for mode in document["modes"]],
        "bandwidth": [
            {"mode": mode_name(mode), "time_in_target_percent": share, "bandwidth_bps": bps}
            for mode in document["modes"]
            for share, bps in mode["bandwidth_for_target_bps"].items()
        ],
        "frontier": [_frontier_row(mode, at) for mode, at in _frontiers(document)],
        "daily": [
            {"mode": mode_name(mode), "bandwidth_bps": at["bandwidth_bps"], "day": day + 1,
             "rpo_max_s": peak}
            for mode, at in _frontiers(document)
            for day, peak in enumerate(at["daily_peak_s"])
        ],
        "violations": [
            {"mode": mode_name(mode), **each}
            for mode in document["modes"]
            for each in mode["violations"]
        ],
        "folding": document["folding"],
        "loads": [_load_row(load) for load in document["loads"]],
        "exceeded": [
            {"kind": load["kind"], "name": load["name"], **each}
            for load in document["loads"]
            for each in load["exceeded"]
        ],
        "capacity": [
            {"what": what, "figure": figure, "value": None if value is None else float(value)}
            for what, found in _capacity(document)
            for figure, value in found.items()
            if not isinstance(value, list | dict)
        ],
        "initial_sync": document["initial_sync"]["at"],
        "faults": document["inputs"]["faults"],
        "outages": document["outages"],
        "lag": [
            {"mode": mode_name(mode), "time_s": at, "rpo_s": rpo, "exposure_s": exposure}
            for mode in document["modes"]
            for at, rpo, exposure in zip(*mode["series"].values(), strict=True)
        ],
    }  # fmt: skip
    return {
        name: pl.DataFrame(rows, infer_schema_length=None) for name, rows in tables.items() if rows
    }


def write_sheets(
    document: dict[str, Any], folder: str | Path, *, force: bool = False
) -> list[Path]:
    """Writes `<table>.csv` for each table; a folder that is not there is made.

    Raises:
        InputError: one of the files is there (without `force`), or the folder is a file.
        WorkError: the disk is full.
    """
    folder, made = Path(folder), sheets(document)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the sheets, found a file")
    paths = {name: folder / f"{name}.csv" for name in made}
    there = next((path for path in paths.values() if path.exists()), None)
    if there is not None and not force:
        raise InputError(f"{there}: the file exists (--force replaces it)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in paths.items():
            aside = path.with_name(path.name + ".partial")
            made[name].write_csv(aside)
            os.replace(aside, path)
    except OSError as error:
        raise WorkError(f"{folder}: cannot write the sheets: {error.strerror}") from None
    return list(paths.values())


def _capacity(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    kept = document["journal"]["long_term"]
    found = [(what, document[what]) for what in ("initial_sync", "catch_up", "journal")]
    return [*found, ("long_term", kept)] if kept else found


def _frontiers(document: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(mode, at) for mode in document["modes"] for at in mode["frontier"]]


def _inputs(document: dict[str, Any]) -> list[dict[str, str]]:
    given = {
        "trace": document["trace"],
        **{f"link_{name}": value for name, value in document["link"].items()},
        "target_s": document["target_s"],
        "duration_s": document["duration_s"],
        "ios": document["ios"],
        "writes": document["writes"],
        **{name: value for name, value in document["inputs"].items()
           if name not in ("groups", "faults")},
        **{f"group {each['name']}": " ".join(each["disks"])
           for each in document["inputs"]["groups"]},
        **(document["sizing"] or {}),
    }  # fmt: skip
    return [{"input": name, "value": str(value)} for name, value in given.items()]


def _mode_row(mode: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"mode": mode_name(mode)}
    for key, name in (("rpo_s", "rpo"), ("exposure_s", "exposure")):
        row |= {f"{name}_{step}_s": value for step, value in mode[key].items()}
    holds = mode["achievable_rpo_s"].items()
    row |= {f"rpo_for_{share}_percent_s": value for share, value in holds}
    counted = ["met_time", "met_sessions", "no_restore_point_time", "violations_count"]
    counted += ["backlog_bytes_max", "sent_bytes", "written_bytes"]
    return row | {name: mode[name] for name in counted}


def _frontier_row(mode: dict[str, Any], at: dict[str, Any]) -> dict[str, Any]:
    counted = ("met_time", "violations_count", "violations_s", "violation_s_max")
    return {
        "mode": mode_name(mode),
        "bandwidth_bps": at["bandwidth_bps"],
        "holds": at.get("holds"),
        **{f"rpo_{step}_s": value for step, value in at["rpo_s"].items()},
        **{name: at[name] for name in counted},
    }


def _load_row(load: dict[str, Any]) -> dict[str, Any]:
    row = {name: load[name] for name in ("kind", "name", "reads", "writes", "read_bytes")}
    row |= {"written_bytes": load["written_bytes"], "disks": " ".join(load["disks"])}
    for rate in ("written_bytes_per_s", "write_iops", "iops"):
        row |= {f"{rate}_{step}": value for step, value in load[rate].items()}
    row["sum_of_peaks_bytes_per_s"] = load["sum_of_peaks_bytes_per_s"]
    needed = load["bandwidth_for_target_bps"].items()
    return row | {f"target_for_{share}_percent_bps": bps for share, bps in needed}
