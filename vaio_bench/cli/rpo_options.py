"""The options of `vaio-bench rpo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Link = Annotated[str, typer.Option(help="RATE[,RTT] of the link: 100Mbit/s,20ms.")]
TargetRpo = Annotated[str, typer.Option(help="The RPO to hold.")]
PointInterval = Annotated[
    str | None,
    typer.Option(help="Between two points of CDP; half the target if none; 0: continuous."),
]
SnapshotEvery = Annotated[
    list[str] | None,
    typer.Option(help="Period of a snapshot mode, repeatable; 15min if none."),
]
Granularity = Annotated[str, typer.Option(help="Unit of change tracking.")]
Compression = Annotated[str, typer.Option(help="Share saved before sending.")]
LinkEfficiency = Annotated[str, typer.Option(help="Share of the bandwidth that carries payload.")]
Growth = Annotated[str, typer.Option(help="Share by which writes will grow.")]
Headroom = Annotated[str, typer.Option(help="Share added to the links that the plan proposes.")]
Fold = Annotated[bool, typer.Option("--fold", help="CDP sends each block once a point.")]
Percentile = Annotated[
    str, typer.Option(help="Share of the windows that a rate's percentile covers.")
]
RateWindow = Annotated[str, typer.Option(help="Window in which rates are taken.")]
Group = Annotated[
    list[str] | None,
    typer.Option(help="NAME=DISK,DISK*: disks that replicate together, repeatable."),
]
Retention = Annotated[str, typer.Option(help="How long the site keeps points.")]
OverRetention = Annotated[str, typer.Option(help="Share that the site may keep beyond that.")]
LongTerm = Annotated[
    str | None,
    typer.Option(help="EVERY,KEEP: points that are kept for longer, such as 8h,7d."),
]
InitialBytes = Annotated[
    str | None,
    typer.Option(help="Initial synchronisation; what the trace reaches if none."),
]
InitialSyncWithin = Annotated[str, typer.Option(help="Time for it, for the bandwidth it needs.")]
Outage = Annotated[str, typer.Option(help="Outage to catch up after.")]
Fault = Annotated[
    list[str] | None,
    typer.Option(help="What happens to the link: outage,at=10min,for=30s; repeatable."),
]
Sheets = Annotated[Path | None, typer.Option(help="A folder that gets the plan as CSV tables.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="A run folder that keeps the plan, too."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier plan or sheets.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
