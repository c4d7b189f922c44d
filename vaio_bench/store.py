"""Reading run folders: the manifest, the rows of the I/Os, the timeline, events and results.

A run that died leaves parts that are readable and a manifest that says `running`; it opens like
any other. A part without a Parquet footer (its writer died in it) is left out and named in
`Run.unreadable`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import polars as pl
import pyarrow as pa

from vaio_bench import schemas
from vaio_bench.errors import InputError

BASELINE = "direct"


def again_of(baseline: str) -> str:
    """The name under which a baseline runs a second time: the other half of the A/A pair."""
    return f"{baseline}-again"


_PARQUET_MAGIC = b"PAR1"


def part_folder(run: Path, policy: str, round_: int, what: str = "ios") -> Path:
    """The folder of the parts of one round: of rows (`ios`), `gauges` or `histograms`.

    A policy's name is percent-encoded in it.
    """
    # quote() leaves dots alone, and "..", as a folder, would lead out of the run.
    name = quote(policy, safe=" ")
    return run / what / (name.replace(".", "%2E") if name.strip(".") == "" else name) / str(round_)


@dataclass(frozen=True)
class Run:
    """An opened run folder.

    `parts_of` maps (policy, round) to the parts of that round in the order written;
    `histograms_of` those rounds of another tool (fio) that have no rows to the file of their
    latencies; `unreadable` lists parts without a footer.
    """

    path: Path
    manifest: dict[str, Any]
    parts_of: dict[tuple[str, int], list[Path]] = field(repr=False)
    unreadable: tuple[Path, ...] = ()
    histograms_of: dict[tuple[str, int], Path] = field(default_factory=dict, repr=False)

    @property
    def exit(self) -> str:
        """How the run ended: `ok`, `failed: ...`, `interrupted`, or `running` (it died)."""
        return str(self.manifest.get("exit", "running"))

    @property
    def virtual_clock(self) -> bool:
        """Whether time was simulated: such a run charges no CPU and proves no overhead."""
        return self.manifest.get("clock") == "virtual"

    @property
    def clock_ns(self) -> float:
        """How long a reading of the clock took before the run: no time is known better."""
        return float((self.manifest.get("harness") or {}).get("clock_ns") or 0.0)

    @property
    def baseline(self) -> str:
        """The policy that the others are compared with."""
        return str((self.manifest.get("comparison") or {}).get("baseline", BASELINE))

    @property
    def until(self) -> float | None:
        """The width of the median's interval that ended the rounds; None: their number was set."""
        return (self.manifest.get("comparison") or {}).get("until")

    @property
    def warmup_ns(self) -> int:
        """How long after its start a round's I/Os are warm-up."""
        return int((self.manifest.get("warmup") or {}).get("time_ns", 0))

    @cached_property
    def policies(self) -> list[str]:
        """Policies with rounds, in the manifest's order."""
        stored = list(dict.fromkeys(name for name, _ in (*self.parts_of, *self.histograms_of)))
        named = [name for name in self.manifest.get("policies", {}) if name in stored]
        return named + [name for name in stored if name not in named]

    @property
    def attempted(self) -> list[str]:
        """`policies`, and those that lost every round before it left anything."""
        known = [*self.policies, *(str(each["policy"]) for each in self._losses)]
        named = [name for name in self.manifest.get("policies", {}) if name in known]
        return named + [name for name in dict.fromkeys(known) if name not in named]

    def losses(self, policy: str) -> list[dict[str, Any]]:
        """Rounds of `policy` that a filter took with it (keys `round`, `reason`), ascending."""
        own = [each for each in self._losses if each["policy"] == policy]
        return sorted(own, key=lambda each: int(each["round"]))

    @property
    def _losses(self) -> list[dict[str, Any]]:
        return [each for each in self.manifest.get("lost_rounds") or [] if not each.get("warmup")]

    @property
    def policies_with_rows(self) -> list[str]:
        """The policies of which single I/Os are stored; the others are of another tool (fio)."""
        return [name for name in self.policies if any(of == name for of, _ in self.parts_of)]

    def rounds(self, policy: str, *, complete_only: bool = False) -> list[int]:
        """Rounds of `policy` that are stored; `complete_only` leaves out one cut short.

        A round is complete when the manifest has its totals, which are written at its end, and
        it was not stopped.
        """
        stored = {number for name, number in (*self.parts_of, *self.histograms_of)
                  if name == policy}  # fmt: skip
        rounds = sorted(stored)
        if complete_only:
            ended = {number: self.totals(policy, number) for number in rounds}
            return [number for number, of in ended.items() if of and not of.get("stopped")]
        return rounds

    def cut_short(self, policy: str) -> list[int]:
        """Stored rounds of `policy` that did not end, without those that a filter took with it."""
        lost = {int(each["round"]) for each in self.losses(policy)}
        return sorted({*self.rounds(policy)} - {*self.rounds(policy, complete_only=True)} - lost)

    def totals(self, policy: str, round_: int) -> dict[str, Any]:
        """The manifest's totals of one round; empty where it did not end."""
        of_policy = self.manifest.get("totals", {}).get(policy, {})
        found = of_policy.get(str(round_), {})
        return dict(found) if isinstance(found, dict) else {}

    def layers(self, policy: str) -> list[str]:
        """Names of the layers an I/O of `policy` passes, the backend last."""
        policies = self.manifest.get("policies", {})
        return [str(name) for name in policies.get(policy, {}).get("layers", [])]

    def scan_ios(self, policy: str | None = None, round_: int | None = None) -> pl.LazyFrame:
        """The rows (columns of `schemas.IOS`) of the run, of one policy or of one round.

        Raises:
            InputError: there are no such rows.
        """
        parts = [
            part
            for (name, number), parts in self.parts_of.items()
            if policy in (None, name) and round_ in (None, number)
            for part in parts
        ]
        if not parts:
            asked = "" if policy is None else f' for policy "{policy}"'
            asked += "" if round_ is None else f", round {round_ + 1}"
            known = ", ".join(self.policies_with_rows) or "none"
            raise InputError(f"{self.path}: no I/O rows{asked}; policies with rows: {known}")
        return pl.scan_parquet(parts, glob=False)

    def measured_ios(self, policy: str | None = None, round_: int | None = None) -> pl.LazyFrame:
        """As `scan_ios`, without the I/Os that were due in the warm-up."""
        rows = self.scan_ios(policy, round_)
        return rows.filter(pl.col("due_ns") >= self.warmup_ns) if self.warmup_ns else rows

    def pooled_rounds(self, policy: str) -> list[int]:
        """The rounds that stand for `policy` where rounds are put together: the complete ones.

        Of a run that died before any of its rounds was complete, all that there is.
        """
        if any(self.rounds(name, complete_only=True) for name in self.policies):
            return self.rounds(policy, complete_only=True)
        return self.rounds(policy)

    @property
    def pooled_policies(self) -> list[str]:
        """The policies with rows that have such rounds."""
        return [name for name in self.policies_with_rows if self.pooled_rounds(name)]

    def pooled_ios(self, policy: str) -> pl.LazyFrame:
        """The rows of those rounds, without the I/Os that were due in the warm-up.

        Raises:
            InputError: there are no such rows.
        """
        rounds = self.pooled_rounds(policy)
        others = {key: of for key, of in self.parts_of.items() if key[1] in rounds}
        return replace(self, parts_of=others).measured_ios(policy)

    def histogram(self, policy: str, round_: int) -> pl.DataFrame:
        """Latencies (columns of `schemas.HISTOGRAM`) of a round without rows."""
        return pl.read_parquet(self.histograms_of[policy, round_])

    def timeline(self) -> pl.DataFrame:
        """`timeline.parquet` (columns of `schemas.TIMELINE`); no rows where it is absent."""
        return self._table("timeline.parquet", schemas.TIMELINE)

    def events(self) -> pl.DataFrame:
        """`events.parquet` (columns of `schemas.EVENTS`); no rows where it is absent."""
        return self._table("events.parquet", schemas.EVENTS)

    def gauges(self, policy: str, round_: int) -> pl.LazyFrame:
        """What the filters of one round told of each moment (columns of `schemas.GAUGES`).

        A value stands until the next row of its disk, layer and gauge; no rows where the filters
        tell nothing.
        """
        folder = part_folder(self.path, policy, round_, "gauges")
        parts = [
            part
            for part in sorted(folder.glob("part-*.parquet"), key=_part_order)
            if _has_footer(part)
        ]
        if not parts:
            empty = pl.from_arrow(schemas.GAUGES.empty_table())
            assert isinstance(empty, pl.DataFrame)
            return empty.lazy()
        return pl.scan_parquet(parts, glob=False)

    def results(self) -> dict[str, Any]:
        """The documents of `results/<verb>.json`, by verb."""
        found = {}
        for path in sorted((self.path / "results").glob("*.json")):
            found[path.stem] = _read_json(path)
        return found

    def _table(self, name: str, schema: pa.Schema) -> pl.DataFrame:
        path = self.path / name
        if not path.is_file() or not _has_footer(path):
            empty = pl.from_arrow(schema.empty_table())
            assert isinstance(empty, pl.DataFrame)
            return empty
        return pl.read_parquet(path, glob=False)


def open_run(path: str | Path) -> Run:
    """Open the run folder at `path`; reads the manifest and lists the parts, no rows.

    Raises:
        InputError: `path` is no run folder, or its manifest is not one.
    """
    path = Path(path)
    manifest_path = path / "manifest.json"
    if not path.is_dir():
        raise InputError(f"{path}: expected a run folder, found {_what_is(path)}")
    if not manifest_path.is_file():
        raise InputError(f"{path}: expected a run folder, but it holds no manifest.json")
    manifest = _read_json(manifest_path)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{manifest_path}: expected the manifest of a run with a schema_version")
    if version > schemas.RUN_SCHEMA_VERSION:
        raise InputError(
            f"{manifest_path}: schema version {version} is newer than this program's "
            f"{schemas.RUN_SCHEMA_VERSION}"
        )
    parts_of: dict[tuple[str, int], list[Path]] = {}
    unreadable = []
    for part in sorted((path / "ios").glob("*/*/part-*.parquet"), key=_part_order):
        if not part.parent.name.isdigit():
            continue
        if _has_footer(part):
            key = (unquote(part.parent.parent.name), int(part.parent.name))
            parts_of.setdefault(key, []).append(part)
        else:
            unreadable.append(part)
    histograms_of = {}
    for part in sorted((path / "histograms").glob("*/*/part-0.parquet"), key=_part_order):
        key = (unquote(part.parent.parent.name), int(part.parent.name))
        if key not in parts_of and _has_footer(part):
            histograms_of[key] = part
    return Run(path, manifest, parts_of, tuple(unreadable), histograms_of)


def _part_order(part: Path) -> tuple[str, int, int, str]:
    number = part.stem.rpartition("-")[2]
    round_ = part.parent.name
    return (
        part.parent.parent.name,
        int(round_) if round_.isdigit() else -1,
        int(number) if number.isdigit() else -1,
        part.name,
    )


def _what_is(path: Path) -> str:
    return "a file" if path.exists() else "nothing there"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a JSON document: {error}") from error


def _has_footer(path: Path) -> bool:
    """Whether a Parquet file was closed: it then ends in its magic number."""
    with path.open("rb") as file:
        if file.seek(0, 2) < 12:
            return False
        file.seek(-4, 2)
        return file.read(4) == _PARQUET_MAGIC
