"""Hit ratio of a run: what a cache filter answered, counted from the rows' flags and blocks.

A block request is one block touched by one I/O, the unit of `cache --json`; an I/O is a hit when
every block of it was one. Rows that touched no block (no cache in the chain, flushes) are not
requests.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from vaio_bench.analyses import quantiles
from vaio_bench.schemas import IoFlag
from vaio_bench.store import Run, open_run


@dataclass(frozen=True)
class Hits:
    """Counts of one round; the ratios follow from them and are None without requests.

    `hit_bytes` takes from each I/O the share of its bytes that its hit blocks are of its blocks.
    """

    policy: str
    round: int
    reads: int
    read_hits: int
    read_partial_hits: int
    writes: int
    write_hits: int
    blocks: int
    hit_blocks: int
    read_blocks: int
    read_hit_blocks: int
    bytes: int
    hit_bytes: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the ratios."""
        return asdict(self) | {
            "read_hit_ratio": _ratio(self.read_hits, self.reads),
            "write_hit_ratio": _ratio(self.write_hits, self.writes),
            "block_hit_ratio": _ratio(self.hit_blocks, self.blocks),
            "read_block_hit_ratio": _ratio(self.read_hit_blocks, self.read_blocks),
            "byte_hit_ratio": _ratio(self.hit_bytes, self.bytes),
        }


def hits(run: Run | str | Path) -> list[Hits]:
    """Counts of each policy and complete round in which a cache was asked; empty where none was."""
    run = run if isinstance(run, Run) else open_run(run)
    read, write = (_is("read"), _is("write") | _is("write_zeroes"))
    hit, partial = _flag(IoFlag.HIT), _flag(IoFlag.PARTIAL_HIT)
    hit_bytes = pl.col("length_bytes") * pl.col("hit_blocks") / pl.col("blocks")
    found: list[Hits] = []
    for policy in run.pooled_policies:
        counted = (
            quantiles.completed(run.scan_ios(policy))
            .filter((pl.col("blocks") > 0) & pl.col("round").is_in(run.pooled_rounds(policy)))
            .group_by("round")
            .agg(
                read.sum().alias("reads"),
                (read & hit).sum().alias("read_hits"),
                (read & partial).sum().alias("read_partial_hits"),
                write.sum().alias("writes"),
                (write & hit).sum().alias("write_hits"),
                pl.col("blocks").sum(),
                pl.col("hit_blocks").sum(),
                pl.col("blocks").filter(read).sum().alias("read_blocks"),
                pl.col("hit_blocks").filter(read).sum().alias("read_hit_blocks"),
                pl.col("length_bytes").sum().alias("bytes"),
                hit_bytes.sum().alias("hit_bytes"),
            )
            .sort("round")
            .collect(engine="streaming")
        )
        found += [Hits(policy=policy, **row) for row in counted.to_dicts()]
    return found


def refused(run: Run) -> str | None:
    """Why no hit-ratio verdict may be given for `run`, or None.

    Where `--fit-to` laid extents on top of one another, blocks that were apart share a place.
    """
    fit_to = run.manifest.get("fit_to")
    if isinstance(fit_to, dict) and fit_to.get("wrapped"):
        return "the trace was folded onto a smaller target and wrapped: blocks share places"
    return None


def _is(op: str) -> pl.Expr:
    return pl.col("op").cast(pl.String) == op


def _flag(flag: IoFlag) -> pl.Expr:
    return (pl.col("flags").cast(pl.Int64) & int(flag)) != 0


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
