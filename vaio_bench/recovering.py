"""`site` and `recover` as functions: a replica site that listens, and images out of its store."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from vaio_bench import _core, catalogue
from vaio_bench.errors import InputError, WorkError
from vaio_bench.run_writer import write_result
from vaio_bench.store import Run, open_run, part_folder
from vaio_bench.units import parse_size, parse_time_ns

_OPS = ("read", "write", "flush", "discard", "write_zeroes")
_CHANGES = ("write", "write_zeroes", "discard")


def serve_site(
    *,
    listen: str,
    store: str | Path,
    key: str,
    capacity: str | int = 0,
    segment: str | int = "64MiB",
    adopt: Sequence[str | Path] = (),
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Runs a replica site until `stop` says so.

    Args:
        listen: `HOST:PORT`; port 0 takes any that is free.
        store: folder of the store; made if it is not there.
        key: `file:PATH` or `env:NAME` of the shared key.
        capacity: bytes that the journal may take; 0 for what the disk has.
        segment: size of a file of the journal, the unit of retention.
        adopt: images, one a disk, that a new store starts from: a source is compared with them
            and sends what differs. They are copied.
        say: called with every line of the log, the first of which tells the address.
        stop: asked several times a second.

    Returns:
        `cpu_s`, `received_bytes`, `points` and `journal_bytes`.

    Raises:
        InputError: store, key or address cannot be used.
    """
    if adopt:
        _core.adopt_images(str(store), key, [Path(image) for image in adopt])
    site = _core.Site(
        listen,
        str(store),
        key,
        parse_size(capacity, "capacity"),
        parse_size(segment, "segment"),
    )
    say(f"listening on {site.address}")
    if adopt:
        say(f"starts from a copy of {', '.join(str(image) for image in adopt)}")
    while not stop():
        line = site.next_line(0.2)
        if line is not None:
            say(line)
    found: dict[str, Any] = json.loads(site.stop())
    return {"listened": site.address, "store": str(store), **found}


def list_points(store: str | Path) -> dict[str, Any]:
    """What a store offers: `run`, `disks`, `continuous`, `stream`, `epochs`, `points`, `damage`.

    A point has `id`, `cut_ns` and `kind`: `short` (all are kept for a time) or `long` (one of every
    interval, for longer). `epochs` are the runs whose streams it holds one after the other: `run`,
    `from_no` (the first entry) and `stream_ns` (when the run started, in the time of the cuts).
    `instants` is None, or `from_ns` and `to_ns`: a continuous stream offers every time between the
    two as well, but in holes and between long-term points.

    Raises:
        InputError: the folder is no store.
    """
    found: dict[str, Any] = json.loads(_core.store_offer(str(store)))
    return found


def recover(
    *,
    store: str | Path,
    out: str | Path,
    point: int | None = None,
    at: str | None = None,
    run: str | Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Writes the image of a state, and compares it with what the source had acknowledged.

    Args:
        store: folder of the replica's store.
        out: the image; for a group of disks a folder that gets one an each.
        point: number of a restore point; neither `point` nor `at`: the newest.
        at: a time since the run's start such as `90s`: the newest state of then.
        run: the run whose rows tell what the state was; by default the one the store lies in.
        force: replace what is at `out`.

    Returns:
        `point`, `kind`, `cut_ns`, `is_instant` (a state of a continuous stream after that point),
        `rto_ns`, `images`, `damage`, and `checked`: `verified_bytes` and `unverified_bytes` (of an
        instant also where a write was under way), or None and the reason in `unchecked_why`:
        without a run, below filters that change data, or with data that follow the contents that
        the trace names.

    Raises:
        InputError: no such point, or it lies behind a damaged record.
        WorkError: the image is not the source's state; the first difference is named.
    """
    out = Path(out)
    if out.exists() and not force:
        raise InputError(f"{out}: is there already; --force replaces it")
    at_ns = None if at is None else parse_time_ns(at, "--at")
    found: dict[str, Any] = json.loads(_core.recover(str(store), str(out), point, at_ns))
    epoch = found["epoch"]
    told = _round_of(Path(store)) if run is None else _round_in(Path(run), epoch["run"], store)
    found["checked"], found["unchecked_why"] = None, "name the source's run with --run"
    if told is not None:
        found["unchecked_why"] = _not_told(told[0]) or _changed_above(told[0], told[1])
        if found["unchecked_why"] is None:
            found["checked"] = check(found, list_points(store)["disks"], *told)
    return found


def _not_told(run: Run) -> str | None:
    """Why a run's rows do not tell what was written."""
    if not run.manifest["data"].get("contents"):
        return None
    return (
        "its data follow the contents that the trace names, which rows do not keep: to compare, "
        "replay with --no-content"
    )


def _changed_above(run: Run, policy: str) -> str | None:
    """Why a replica need not be what the rows tell: they are written above all filters."""
    for each in run.manifest["policies"][policy]["filters"]:
        name = each["use"]
        if name == "cdp":
            break
        if not catalogue.declared(name, each["params"]).get("transparent", False):
            return f"{name} stands above cdp: what it sent down is not known from the run's rows"
    return None


AGES = 5


def rto_by_age(store: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Recovers points from the newest to the oldest, one after the other, and times each.

    The images go next to the store and away again. Where the store lies in a run folder, what was
    found is kept in its `results/rto.json`, for the report.

    Args:
        store: folder of the replica's store.
        force: replace what an earlier call kept.

    Returns:
        `store`, `run`, `image_bytes` (of all disks together), `damage` (what ends the journal
        early, or None) and `points`, newest first: `point`, `kind`, `age_ns` (before the newest),
        `cut_ns` and `rto_ns`.

    Raises:
        InputError: no store, no point in it, or an earlier result without `force`.
    """
    store = Path(store)
    offer = list_points(store)
    points = offer["points"]
    if not points:
        raise InputError(f"{store}: expected restore points, it has none")
    told = _round_of(store)
    kept = None if told is None else told[0].path / "results" / "rto.json"
    if kept is not None and kept.exists() and not force:
        raise InputError(f"{kept}: the file exists (--force replaces it)")
    last = len(points) - 1
    steps = range(min(AGES, len(points)))
    chosen = [points[last - round(last * step / max(len(steps) - 1, 1))] for step in steps]
    rows, image_bytes = [], 0
    with tempfile.TemporaryDirectory(dir=store.resolve().parent, prefix=".rto-") as folder:
        for each in chosen:
            out = Path(folder) / "image"
            found = json.loads(_core.recover(str(store), str(out), each["id"], None))
            images = [Path(image) for image in found["images"]]
            image_bytes = sum(image.stat().st_size for image in images)
            for image in images:
                image.unlink()
            age_ns = points[last]["cut_ns"] - each["cut_ns"]
            rows.append(
                {"point": each["id"], "kind": each["kind"], "age_ns": age_ns,
                 "cut_ns": each["cut_ns"], "rto_ns": found["rto_ns"]}
            )  # fmt: skip
    document = {
        "store": str(store), "run": offer["run"], "image_bytes": image_bytes,
        "damage": offer["damage"], "points": rows,
    }  # fmt: skip
    if told is not None:
        write_result(told[0].path, "rto", document)
    return document


def _round_of(store: Path) -> tuple[Run, str, int] | None:
    """The run that a store lies in: `RUN/replica/POLICY/ROUND/store`."""
    parts = store.resolve().parents
    if len(parts) < 4 or parts[2].name != "replica" or not (parts[3] / "manifest.json").is_file():
        return None
    return open_run(parts[3]), unquote(parts[1].name), int(parts[0].name)


def _round_in(path: Path, word: str, store: str | Path) -> tuple[Run, str, int]:
    run = open_run(path)
    found = [(run, name, number) for name in run.policies for number in run.rounds(name)
             if f"{run.manifest['id']}/{name}/{number}" == word]  # fmt: skip
    if not found:
        raise InputError(f"{path}: holds no round whose replica is in {store}")
    return found[0]


def _base_of(run: Run, policy: str, round_: int, disk: int) -> pl.DataFrame | None:
    """Digests of what a disk held before the trace, where the round noted them."""
    parts = sorted(
        (part_folder(run.path, policy, round_, "replica") / "base").glob("part-*.parquet"),
        key=lambda part: int(part.stem.removeprefix("part-")),
    )
    if not parts:
        return None
    rows = pl.scan_parquet(parts).filter(pl.col("disk") == disk)
    return rows.select("sector", "sum").collect()


def check(
    found: dict[str, Any], disks: list[str], run: Run, policy: str, round_: int
) -> dict[str, int]:
    """Compares recovered images with what the source had acknowledged.

    Args:
        found: what `recover` gave: `images`, `point`, `cut_ns`, `is_instant` and `epoch`.
        disks: names of the store's disks.
        run: the source's run, whose data are made.
        policy: its policy.
        round_: its round.

    Returns:
        `verified_bytes` and `unverified_bytes`.

    Raises:
        WorkError: an image is not the source's state; the first difference is named.
    """
    data, seed = run.manifest["data"], run.manifest["seed"]
    cut_ns = min(found["cut_ns"] - found["epoch"]["stream_ns"], (1 << 63) - 1)
    total = {"verified_bytes": 0, "unverified_bytes": 0}
    told = pl.col("complete_ns") <= cut_ns
    # Replication has a write a moment before the guest is told of it: between restore points such
    # a one may be in the state already.
    under_way = pl.lit(found["is_instant"]) & (pl.col("submit_ns") <= cut_ns)
    for number, (disk, image) in enumerate(zip(disks, found["images"], strict=True)):
        op = pl.col("op").cast(pl.String)
        code = op.replace_strict(_OPS, range(len(_OPS)), return_dtype=pl.Int64).alias("op")
        rows = (
            run.scan_ios(policy, round_)
            .filter(
                pl.col("disk").cast(pl.String) == disk,
                pl.col("status") == 0,
                told | under_way,
                op.is_in(_CHANGES),
            )
            # What may be there or not stands for nothing that is known.
            .with_columns(op=pl.when(told).then(op).otherwise(pl.lit("discard")))
            .sort("complete_ns", maintain_order=True)
            .select(
                code, *(pl.col(n).cast(pl.Int64) for n in ("offset_bytes", "length_bytes", "seq"))
            )
            .collect()
        )
        compared = json.loads(
            _core.compare_image(
                image,
                rows,
                disk,
                seed,
                data["compressible"],
                data["dedupe"],
                _base_of(run, policy, round_, number),
                data.get("content"),
            )
        )
        if compared["mismatch"]:
            raise WorkError(
                f"{image}: not the source's state at point {found['point']}: disk {disk}, "
                f"{compared['mismatch']}"
            )
        for name in total:
            total[name] += compared[name]
    return total
