"""Source, site and link are killed again and again, with SIGKILL, while a disk is replicated.

The source's writes complete one after the other, so a state of the disk is what it held at the
start of the run and a number of writes. After every kill each point that the store lists is
recovered: it has to be such a state, of the time of its cut, and no point listed before may be
missing that retention keeps. A source that was killed is started again, and goes on with the same
store; the site merges its journal between long-term points meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.replay.test_initial_sync import disk_of
from tests.replay.test_replication import KEY
from tests.replay_kit import Io, Raw, filters, policy_file, write_trace
from vaio_bench import _core, recovering
from vaio_bench.errors import InputError

GAP_NS = 2_000_000
VAIO = [sys.executable, "-c", "from vaio_bench.cli import main; main()"]
REACH = 2 << 20
RETENTION_NS = 1_000_000_000


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class World:
    """The three processes, the disk, and what is known of every run of the source."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw = folder, random.Random(seed)
        self.image = folder / "x.img"
        self.disk = disk_of(folder / "disk.img", seed)
        os.truncate(self.disk, 2 * REACH)
        self.store, key = folder / "store", folder / "key"
        key.write_text(KEY)
        site_port, self.line_port = free_port(), free_port()
        self.site_command = [*VAIO, "site", "--store", str(self.store), "--key", f"file:{key}",
                             "--listen", f"127.0.0.1:{site_port}", "--quiet",
                             "--segment", "64KiB"]  # fmt: skip
        self.line_command = [sys.executable, str(Path(__file__).with_name("line.py")),
                             str(self.line_port), str(site_port)]  # fmt: skip
        draw = random.Random(seed)
        self.ios = [
            Io(n * GAP_NS, "write", draw.randrange(0, (REACH >> 9) - 64) << 9,
               draw.choice((1, 8, 8, 16, 64)) << 9)
            for n in range(60_000)
        ]  # fmt: skip
        self.trace = write_trace(folder / "t.parquet", self.ios)
        self.rows = pl.DataFrame({
            "op": [1] * len(self.ios),
            "offset_bytes": [io.offset for io in self.ios],
            "length_bytes": [io.length for io in self.ios],
            "seq": range(len(self.ios)),
        })  # fmt: skip
        link = f'{{ bandwidth = "200Mbit/s", rtt = "2ms", site = "127.0.0.1:{self.line_port}", ' \
               f'key = "file:{key}", timeout = "1s" }}'  # fmt: skip
        self.policy = policy_file(folder, filters({
            "use": "cdp", "rpo": "100ms", "link": Raw(link), "stream": "a disk", "drain": "60s",
            "batch": "16KiB", "journal": Raw('{ memory = "512KiB", spill = "1MiB" }'),
            "retention": "1s", "long_term": Raw('{ every = "500ms", retention = "1h" }'),
        }))  # fmt: skip
        self.runs: list[Path] = []
        self.starts: list[bytes] = []
        self.known: dict[int, int] = {}
        self.contents: dict[int, tuple[dict[str, Any], bytes]] = {}
        self.killed: Counter[str] = Counter()
        self.merged = 0
        self.site, self.line = start(self.site_command), start(self.line_command)
        self.source = self.start_source()

    def start_source(self) -> subprocess.Popen[bytes]:
        run = self.folder / f"run-{len(self.runs)}"
        self.runs.append(run)
        self.starts.append(self.disk.read_bytes())
        return start([*VAIO, "replay", str(self.trace), "--target", str(self.disk), "--policy",
                      str(self.policy), "-o", str(run), "--backend", "psync", "--inflight", "1",
                      "--destroy-data", "--quiet", "--seed", str(len(self.runs)),
                      "--buffered"])  # fmt: skip

    def kill(self, what: str) -> None:
        """Kills one of the three, looks at the store, and starts it again."""
        self.killed[what] += 1
        if what == "source":
            for pid in [*children(self.source.pid), self.source.pid]:
                os.kill(pid, signal.SIGKILL)
            self.source.wait()
            deadline = time.monotonic() + 10
            while self.is_written() and time.monotonic() < deadline:
                time.sleep(0.01)
            self.look()
            self.source = self.start_source()
            return
        process = self.site if what == "site" else self.line
        process.kill()
        process.wait()
        self.look()
        if what == "site":
            self.site = start(self.site_command)
        else:
            self.line = start(self.line_command)

    def is_written(self) -> bool:
        """Whether any process still has the disk open: a killed one takes a moment to go."""
        for fd in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if os.readlink(fd) == str(self.disk):
                    return True
            except OSError:
                continue
        return False

    def look(self) -> None:
        """Every point that the store lists now is a state of its time; none is missing."""
        if not (self.store / "store.json").exists():
            return
        offer = recovering.list_points(self.store)
        self.find_lost(offer)
        for point in offer["points"]:
            if point["id"] not in self.known:
                with contextlib.suppress(InputError):
                    # Retention may give up a point that is old by the time it is its turn.
                    self.known[point["id"]] = self.check(point, offer)
                    self.contents[point["id"]] = (point, sha256(self.image.read_bytes()).digest())
        self.find_lost(recovering.list_points(self.store))

    def await_points(self) -> None:
        """Until the source under way has brought two points, or for half a minute."""
        deadline = time.monotonic() + 30
        points = len(self.known)
        while len(self.known) < points + 2 and time.monotonic() < deadline:
            time.sleep(0.2)
            self.look()

    def find_lost(self, offer: dict[str, Any]) -> None:
        """Every point seen before is there still, but short-term ones that are old."""
        ids = {point["id"] for point in offer["points"]}
        newest_ns = max((point["cut_ns"] for point in offer["points"]), default=0)
        for number, (point, _) in self.contents.items():
            is_old = point["cut_ns"] + RETENTION_NS < newest_ns
            assert number in ids or (is_old and point["kind"] == "short"), f"lost: {point}"

    def look_again(self) -> int:
        """Whatever was merged meanwhile, what is left of all that was seen is what it was."""
        found = 0
        for point in recovering.list_points(self.store)["points"]:
            if point["id"] in self.contents:
                recovering.recover(store=self.store, out=self.image, point=point["id"], force=True)
                was = self.contents[point["id"]][1]
                assert sha256(self.image.read_bytes()).digest() == was, point
                found += 1
        return found

    def check(self, point: dict[str, Any], offer: dict[str, Any]) -> int:
        """How many writes of its run a point's state holds."""
        image = self.folder / "y.img"
        found = recovering.recover(store=self.store, out=self.image, point=point["id"], force=True)
        epoch = found["epoch"]
        [number] = [
            n
            for n, run in enumerate(self.runs)
            if (run / "manifest.json").exists()
            and epoch["run"] == f"{json.loads((run / 'manifest.json').read_text())['id']}/chain/0"
        ]
        since_ns = point["cut_ns"] - epoch["stream_ns"]
        # None completes before it is due; how late it may be, the machine decides.
        most = min(len(self.ios), since_ns // GAP_NS + 1)
        content, held = self.image.read_bytes(), self.starts[number]
        for count in range(most, max(-1, most - 3000), -1):
            if self.is_state(image, content, held, number, count):
                return count
        raise AssertionError(f"point {point} of run {number} offers a state that never was")

    def is_state(self, image: Path, content: bytes, held: bytes, number: int, count: int) -> bool:
        last = self.ios[count - 1] if count else None
        rows = self.rows[:count]
        written = bytearray(len(held) >> 9)
        for io in self.ios[:count]:
            first, sectors = io.offset >> 9, io.length >> 9
            written[first : first + sectors] = b"\1" * sectors
        # What no write touched is what the disk held; the rest is the last write there.
        for sector, is_written in enumerate(written):
            at = sector << 9
            if not is_written and content[at : at + 512] != held[at : at + 512]:
                return False
        only = bytearray(content)
        for sector, is_written in enumerate(written):
            if not is_written:
                only[sector << 9 : (sector + 1) << 9] = bytes(512)
        image.write_bytes(only)
        told = json.loads(_core.compare_image(str(image), rows, "disk", number + 1, 0.0, 0.0))
        return last is None or told["mismatch"] is None

    def end(self) -> None:
        """The last run is stopped in good order: its newest point is the disk itself."""
        self.source.send_signal(signal.SIGINT)
        assert self.source.wait(90) == 130
        self.look()
        newest = recovering.recover(store=self.store, out=self.folder / "x.img", force=True)
        assert (self.folder / "x.img").read_bytes() == self.disk.read_bytes()
        run = self.runs[-1]
        assert recovering.recover(
            store=self.store, out=self.folder / "x.img", run=run, force=True
        )["checked"]["verified_bytes"] == 2 * REACH  # fmt: skip
        assert newest["point"] == max(self.known)
        assert self.look_again() >= 5
        self.merged = len(list((self.store / "journal").glob("*.from-*.seg")))

    def stop(self) -> None:
        for process in (self.source, self.line, self.site):
            for pid in [*children(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def live_through(folder: Path, kills: int, seed: int) -> World:
    world = World(folder, seed)
    try:
        for n in range(kills):
            what = "source" if n % 5 == 4 else world.draw.choice(("site", "line"))
            # How long a source takes to start and to be in step, the machine says: most are left
            # alone until their first points are there, the others die before.
            if n % 5 == 0 and world.draw.random() < 0.8:
                world.await_points()
            time.sleep(world.draw.uniform(0.1, 1.0))
            world.kill(what)
        world.await_points()
        world.end()
    finally:
        world.stop()
    return world


def test_ten_kills(tmp_path: Path) -> None:
    world = live_through(tmp_path, 10, 1)
    assert world.killed["source"] == 2
    assert sum(world.killed.values()) == 10
    assert len(world.known) >= 5
    assert world.merged >= 1
    # States inside a run, not only those at its start.
    assert sum(count > 0 for count in world.known.values()) >= 3


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_two_hundred_kills(tmp_path: Path) -> None:
    world = live_through(tmp_path, 200, 2)
    assert world.killed["source"] == 40
    assert min(world.killed.values()) >= 40
    assert len(world.known) >= 200
    assert sum(count > 0 for count in world.known.values()) >= 100
