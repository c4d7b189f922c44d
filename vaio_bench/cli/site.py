"""`vaio-bench site`: the far end of a replication, which keeps what a `cdp` filter sends.

    head -c 32 /dev/urandom | base64 > key
    vaio-bench site --store STORE --key file:key --listen 0.0.0.0:7100

and in the policy of the source, on another machine with the same key:

    link = { bandwidth = "100Mbit/s", rtt = "20ms", site = "HOST:7100", key = "file:key" }

A policy whose link names no `site` needs none of this: on the wall clock each round starts one of
its own on loopback, with its store in the run folder.

## What it does

Listens, and lets in who shows the shared key in a TLS handshake. One source writes at a time; its
entries are appended to a journal, and are confirmed when they are on stable storage. A store is
that of one run, or with `stream` in the policy of one stream, which the next run goes on with. What
the policy's `retention` and `long_term` ask for is done here, beside the source: the journal is
merged into the base image, and long-term points are kept.

`--capacity` bounds the journal: a source of a full store marks blocks, and resynchronises when
there is room again. `--segment` is the size of a file of the journal, and what retention removes at
once. `--adopt` lets a new store start from images, one a disk: for replicating back after a
recovery, when only what differs is sent. The site ends with SIGTERM or Ctrl-C, or with
`--until-eof` when its standard input ends, and tells its points, processor time and bytes with
`--json`.

## What comes of it

`vaio-bench recover --store STORE` lists the points and writes images, also while the site runs.
"""

from __future__ import annotations

import json
import select
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command()
    def site(
        *,
        store: Annotated[Path, typer.Option(help="Folder of the replica's store.")],
        key: Annotated[str, typer.Option(help="The shared key: file:PATH or env:NAME.")],
        listen: Annotated[str, typer.Option(help="HOST:PORT; port 0: any.")] = "127.0.0.1:7100",
        capacity: Annotated[
            str, typer.Option(help="What the journal may take; 0: what the disk has.")
        ] = "0B",
        segment: Annotated[
            str, typer.Option(help="Size of a file of the journal, the unit of retention.")
        ] = "64MiB",
        adopt: Annotated[
            list[Path] | None,
            typer.Option(
                help="Image, one a disk, that a new store starts from: only what differs "
                "is sent. For replicating back after a recovery."
            ),
        ] = None,
        until_eof: Annotated[
            bool, typer.Option("--until-eof", help="End when standard input ends.")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No log on stderr.")] = False,
    ) -> None:
        """Receives the replica of a run, from sources that have the shared key."""
        from vaio_bench.recovering import serve_site

        told_to_end = []
        signal.signal(signal.SIGTERM, lambda *_: told_to_end.append(True))

        def stop() -> bool:
            eof = until_eof and select.select([sys.stdin], [], [], 0)[0] and not sys.stdin.read(1)
            return bool(told_to_end) or bool(eof)

        def say(line: str) -> None:
            if not quiet:
                print(f"vaio-bench site: {line}", file=sys.stderr, flush=True)

        found = serve_site(
            listen=listen, store=store, key=key, capacity=capacity, segment=segment, say=say,
            stop=stop, adopt=adopt or (),
        )  # fmt: skip
        if as_json:
            print(json.dumps(found))
        else:
            print(f"{found['points']} restore points in {store}")
