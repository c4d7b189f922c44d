"""Replication on the wall clock: real sockets, a site of its own, and recovery to the bit."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.replay_kit import Io, Raw, filters, mixed, policy_file, write_trace
from vaio_bench import recovering, replaying
from vaio_bench.errors import InputError, WorkError
from vaio_bench.runner import Settings
from vaio_bench.store import open_run

MILLISECOND = 1_000_000
KEY = "an agreed word of some length"


def trace(tmp_path: Path, ios: int = 2000, seed: int = 1) -> Path:
    """A second or so of mixed I/O, overwrites among it."""
    path = tmp_path / f"{ios}-{seed}.parquet"
    if not path.exists():
        found = mixed(seed, ios, reach=8 << 20, align=512, gap_ns=2 * MILLISECOND)
        write_trace(path, found)
    return path


def replay(tmp_path: Path, source: Path, link: str, **keys: Any) -> Path:
    policy = policy_file(
        tmp_path, filters({"use": "cdp", "rpo": "400ms", "link": Raw(link), **keys})
    )
    replaying.replay(
        source, out=tmp_path / "run", target=tmp_path / "disk.img", policy=policy,
        settings=Settings(backend="psync"), force=True,
    )  # fmt: skip
    return tmp_path / "run"


def store_of(run: Path) -> Path:
    return run / "replica" / "chain" / "0" / "store"


def details(run: Path, kind: str) -> list[dict[str, Any]]:
    events = open_run(run).events()
    of_kind = events.filter(events["kind"] == kind)
    return [json.loads(detail) for detail in of_kind["detail"]]


@contextmanager
def site(tmp_path: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str], list[str]]]:
    """A site in a process of its own: its address, the process, and the lines of its log."""
    key = tmp_path / "key"
    key.write_text(KEY)
    process = subprocess.Popen(
        [sys.executable, "-c", "from vaio_bench.cli import main; main()", "site", "--listen",
         "127.0.0.1:0", "--store", str(tmp_path / "store"), "--key", f"file:{key}", *options],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr
    first = process.stderr.readline()
    if "listening on" not in first:
        process.kill()
        raise AssertionError(first)
    lines: list[str] = []
    try:
        yield first.rsplit(" ", 1)[1].strip(), process, lines
    finally:
        process.terminate()
        lines += process.stderr.read().splitlines()
        process.wait(10)


@pytest.mark.parametrize("keys", [{}, {"compression": "lz4", "folding": "yes"}, {"mode": "sync"}])
def test_every_point_is_the_source_then(tmp_path: Path, keys: dict[str, Any]) -> None:
    if "folding" in keys:
        keys = {**keys, "folding": Raw("true")}
    run = replay(tmp_path, trace(tmp_path), '{ bandwidth = "400Mbit/s", rtt = "4ms" }', **keys)
    points = recovering.list_points(store_of(run))["points"]
    told = {point["id"] for point in details(run, "restore_point")}
    assert len(told) >= 4
    assert told <= {point["id"] for point in points}
    for point in points:
        found = recovering.recover(store=store_of(run), point=point["id"],
                                   out=tmp_path / f"{point['id']}.img")  # fmt: skip
        assert found["checked"]["verified_bytes"] > 0
    # Discards give the range back; all else is the disk itself.
    assert found["rto_ns"] > 0
    totals = open_run(run).totals("chain", 0)
    assert totals["replica"]["cpu_s"] > 0


def test_a_difference_is_named(tmp_path: Path) -> None:
    run = replay(tmp_path, trace(tmp_path, 400), '{ bandwidth = "400Mbit/s" }')
    rows = open_run(run).scan_ios("chain", 0).collect()
    assert rows.height
    # The store is of this run, the payload of another seed: nothing fits.
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["seed"] += 1
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WorkError, match=r"not the source's state at point \d+: disk disk, offset"):
        recovering.recover(store=store_of(run), out=tmp_path / "x.img")


def test_below_encryption_a_replica_is_recovered_and_not_compared(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    link = Raw('{ bandwidth = "400Mbit/s" }')
    chain = filters({"use": "crypt", "key": "random"}, {"use": "cdp", "rpo": "400ms", "link": link})
    replaying.replay(
        trace(tmp_path, 300), out=tmp_path / "run", target=tmp_path / "disk.img",
        policy=policy_file(tmp_path, chain), settings=Settings(backend="psync"), force=True,
    )  # fmt: skip
    image = tmp_path / "x.img"
    told = cli("recover", "--store", store_of(tmp_path / "run"), "--latest", "-o", image)
    assert told.exit_status == 0
    assert "not compared with the source: crypt stands above cdp" in told.stdout
    written = (tmp_path / "disk.img").read_bytes()
    assert image.read_bytes() == written, "the cipher text of the disk itself"


@pytest.mark.parametrize(
    ("above", "is_compared"),
    [
        ({"use": "throttle", "iops": 100_000}, True),
        ({"use": "cache", "capacity": "1MiB"}, True),
        ({"use": "cache", "capacity": "1MiB", "write_policy": "back"}, False),
    ],
    ids=["throttle", "through", "back"],
)
def test_what_changes_nothing_above_cdp_leaves_the_comparison(
    tmp_path: Path, above: dict[str, Any], is_compared: bool
) -> None:
    cdp = {"use": "cdp", "rpo": "400ms", "link": Raw('{ bandwidth = "400Mbit/s" }')}
    policy = policy_file(tmp_path, 'framework = "free"\n' + filters(above, cdp))
    replaying.replay(
        trace(tmp_path, 300), out=tmp_path / "run", target=tmp_path / "disk.img",
        policy=policy, settings=Settings(backend="psync"), force=True,
    )  # fmt: skip
    found = recovering.recover(store=store_of(tmp_path / "run"), out=tmp_path / "x.img")
    assert (found["checked"] is not None) == is_compared, found["unchecked_why"]


def test_a_damaged_record_ends_recovery_at_the_last_good_point(tmp_path: Path) -> None:
    run = replay(tmp_path, trace(tmp_path), '{ bandwidth = "400Mbit/s" }')
    before = recovering.list_points(store_of(run))["points"]
    [segment] = (store_of(run) / "journal").glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    segment.write_bytes(content)
    offer = recovering.list_points(store_of(run))
    assert 0 < len(offer["points"]) < len(before)
    assert "checksum" in offer["damage"]["what"] or "header" in offer["damage"]["what"]
    found = recovering.recover(store=store_of(run), out=tmp_path / "x.img")
    assert found["point"] == offer["points"][-1]["id"]
    assert str(segment.name) in found["damage"]
    with pytest.raises(InputError, match="the journal is damaged"):
        recovering.recover(store=store_of(run), point=before[-1]["id"], out=tmp_path / "y.img")


def test_a_site_takes_only_who_has_the_key(tmp_path: Path) -> None:
    with site(tmp_path) as (address, _, lines):
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as garbage:
            garbage.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
            garbage.settimeout(10)
            try:
                while garbage.recv(4096):
                    pass
            except ConnectionError:
                pass
        silent = socket.create_connection((host, int(port)))
        wrong = tmp_path / "wrong"
        wrong.write_text("quite another word, of any length")
        link = f'{{ bandwidth = "1Gbit/s", site = "{address}", key = "file:{wrong}" }}'
        # Time does not mend that: it is told at once.
        with pytest.raises(InputError, match="refuses this run: it has another key"):
            replay(tmp_path, trace(tmp_path, 50), link)
        silent.settimeout(10)
        assert silent.recv(1) == b""
        silent.close()
        # And it still works for who has it.
        link = f'{{ bandwidth = "1Gbit/s", site = "{address}", key = "file:{tmp_path / "key"}" }}'
        run = replay(tmp_path, trace(tmp_path, 200), link)
        assert details(run, "restore_point")
    refused = [line for line in lines if "refused" in line]
    assert any("TLS" in line for line in refused), lines
    assert any("said nothing" in line for line in refused), lines


def test_the_store_of_another_run_is_refused(tmp_path: Path) -> None:
    with site(tmp_path) as (address, _, _):
        link = f'{{ bandwidth = "1Gbit/s", site = "{address}", key = "file:{tmp_path / "key"}" }}'
        replay(tmp_path, trace(tmp_path, 100), link)
        with pytest.raises(InputError, match="holds the replica of run"):
            replay(tmp_path, trace(tmp_path, 100), link)


def test_a_full_store_degrades_the_source_and_loses_nothing_it_confirmed(tmp_path: Path) -> None:
    with site(tmp_path, "--capacity", "10MiB") as (address, _, lines):
        link = f'{{ bandwidth = "1Gbit/s", site = "{address}", key = "file:{tmp_path / "key"}" }}'
        run = replay(tmp_path, trace(tmp_path), link)
    assert next(mode["mode"] for mode in details(run, "mode")) == "bitmap"
    assert details(run, "hole")[0]["reason"] == "store full"
    assert any("full" in line for line in lines)
    told = details(run, "restore_point")
    for point in told[-2:]:
        found = recovering.recover(store=tmp_path / "store", run=run, point=point["id"],
                                   out=tmp_path / f"{point['id']}.img")  # fmt: skip
        assert found["checked"]["verified_bytes"] > 0


def test_a_source_waits_for_a_site_that_is_not_there_yet(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "key").write_text(KEY)
    link = (
        f'{{ bandwidth = "1Gbit/s", site = "127.0.0.1:{port}", key = "file:{tmp_path / "key"}" }}'
    )
    policy = policy_file(tmp_path, filters({"use": "cdp", "rpo": "400ms", "link": Raw(link)}))
    replayed = subprocess.Popen(
        [sys.executable, "-c", "from vaio_bench.cli import main; main()", "replay",
         str(trace(tmp_path, 50)), "--target", str(tmp_path / "disk.img"), "--policy", str(policy),
         "-o", str(tmp_path / "run"), "--backend", "psync", "--quiet"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    # The target is made just before replication begins: the source then asks for its site.
    while not (tmp_path / "disk.img").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with site(tmp_path, "--listen", f"127.0.0.1:{port}"):
        assert replayed.wait(60) == 0
    assert len(details(tmp_path / "run", "restore_point")) >= 1


def test_a_site_without_room_for_the_initial_synchronisation_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * (8 << 20))
    with site(tmp_path, "--capacity", "2MiB") as (address, _, _):
        link = f'{{ bandwidth = "1Gbit/s", site = "{address}", key = "file:{tmp_path / "key"}" }}'
        policy = policy_file(tmp_path, filters({"use": "cdp", "rpo": "400ms", "link": Raw(link)}))
        with pytest.raises((InputError, WorkError), match="store is full: expected room"):
            replaying.replay(
                trace(tmp_path), out=tmp_path / "run", target=tmp_path / "disk.img", policy=policy,
                settings=Settings(backend="psync", destroy_data=True),
            )  # fmt: skip


def test_long_term_points_outlive_the_others_and_are_the_source_then(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    run = replay(
        tmp_path, trace(tmp_path), '{ bandwidth = "400Mbit/s" }', retention="200ms",
        long_term=Raw('{ every = "200ms", retention = "1h" }'), point_interval="20ms",
        compression="lz4",
    )  # fmt: skip
    store = store_of(run)
    points = recovering.list_points(store)["points"]
    long = [point["cut_ns"] for point in points if point["kind"] == "long"]
    intervals = [cut // (200 * MILLISECOND) for cut in long]
    assert intervals == sorted(set(intervals))
    assert len(long) >= 4
    # Dense at the end, sparse before: what lay in between is merged.
    assert len(points) < len(details(run, "restore_point")) - 10
    assert len(list((store / "journal").glob("*.from-*.seg"))) >= 2
    for point in points:
        found = recovering.recover(store=store, point=point["id"], out=tmp_path / "x.img",
                                   force=True)  # fmt: skip
        assert (found["kind"], found["checked"] is not None) == (point["kind"], True)
    told = cli("recover", "--store", store).stdout.splitlines()
    assert told[1].startswith("epoch 1: run ")
    assert sum(line.endswith("long-term") for line in told) == len(long)


@pytest.mark.parametrize("compares", [True, False])
def test_after_a_hole_only_what_differs_is_sent(tmp_path: Path, compares: bool) -> None:
    # 4 KiB of each block of 64 are written while nothing goes out and memory is full.
    ios = [Io(n * MILLISECOND, "write", n * 7919 % 2000 * (64 << 10) % (32 << 20), 4096)
           for n in range(1500)]  # fmt: skip
    link = (
        '{ bandwidth = "400Mbit/s", faults = [{ kind = "outage", at = "200ms", for = "900ms" }] }'
    )
    run = replay(
        tmp_path, write_trace(tmp_path / "t.parquet", ios), link, drain="60s",
        journal=Raw('{ memory = "512KiB" }'), checksums=Raw("true" if compares else "false"),
    )  # fmt: skip
    [hole] = details(run, "hole")
    sent, compared = hole["resync_bytes"], hole["resync_compared_bytes"]
    if compares:
        assert compared >= 16 * sent // 2 > 0
        assert hole["resync_equal_bytes"] == compared - sent
    else:
        assert (compared, hole["resync_equal_bytes"]) == (0, 0)
        assert sent >= 8 << 20
    told = [point["id"] for point in details(run, "restore_point")]
    for point in (told[0], told[-1]):
        recovering.recover(store=store_of(run), point=point, out=tmp_path / "x.img", force=True)
    assert (tmp_path / "x.img").read_bytes() == (tmp_path / "disk.img").read_bytes()
    assert not (store_of(run) / "scratch").exists()


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def await_listening(port: int) -> None:
    """How long a site takes to be there, the machine says."""
    deadline = time.monotonic() + 60
    while not is_listening(port) and time.monotonic() < deadline:
        time.sleep(0.05)


def kill_and_recover(tmp_path: Path, kills: int, every_s: float) -> None:
    """A site that is killed again and again, each time that it has been up, and the source goes on.

    The trace is longer than the kills take, so that they end on any machine while it runs.
    """
    ios = int(kills * every_s * 2000)
    source = write_trace(
        tmp_path / "t.parquet", mixed(3, ios, reach=8 << 20, align=512, gap_ns=2 * MILLISECOND)
    )
    command = [sys.executable, "-c", "from vaio_bench.cli import main; main()", "site", "--store",
               str(tmp_path / "store"), "--key", f"file:{tmp_path / 'key'}", "--quiet"]  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "key").write_text(KEY)
    command += ["--listen", f"127.0.0.1:{port}"]

    link = f'{{ bandwidth = "400Mbit/s", rtt = "2ms", site = "127.0.0.1:{port}", ' \
           f'key = "file:{tmp_path / "key"}" }}'  # fmt: skip
    policy = policy_file(
        tmp_path, filters({"use": "cdp", "rpo": "200ms", "link": Raw(link), "drain": "60s"})
    )
    current = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # A source gives up where no site is there at its start.
    await_listening(port)
    replayed = subprocess.Popen(
        [sys.executable, "-c", "from vaio_bench.cli import main; main()", "replay", str(source),
         "--target", str(tmp_path / "disk.img"), "--policy", str(policy), "-o",
         str(tmp_path / "run"), "--backend", "psync", "--speed", "0.1", "--quiet"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "store" / "store.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    try:
        for _ in range(kills):
            time.sleep(every_s)
            current.kill()
            current.wait()
            current = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            await_listening(port)
        assert replayed.poll() is None
        replayed.send_signal(signal.SIGINT)
        assert replayed.wait(300) == 130
    finally:
        replayed.kill()
        current.terminate()
        current.wait()
    run = tmp_path / "run"
    told = {point["id"] for point in details(run, "restore_point")}
    points = {point["id"] for point in recovering.list_points(tmp_path / "store")["points"]}
    assert told <= points, "a confirmed point is lost"
    assert len(told) > kills
    for point in sorted(points)[1 :: max(1, len(points) // 12)]:
        recovering.recover(
            store=tmp_path / "store", run=run, point=point, out=tmp_path / "x.img", force=True
        )
    newest = recovering.recover(store=tmp_path / "store", run=run, out=tmp_path / "l.img")
    assert newest["checked"]["verified_bytes"] > 0


def test_a_site_killed_ten_times_loses_no_confirmed_point(tmp_path: Path) -> None:
    kill_and_recover(tmp_path, 10, 0.5)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_site_killed_two_hundred_times_loses_no_confirmed_point(tmp_path: Path) -> None:
    kill_and_recover(tmp_path, 200, 0.5)


def test_points_are_listed_and_wrong_requests_refused(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    run = replay(tmp_path, trace(tmp_path, 400), '{ bandwidth = "400Mbit/s" }')
    store = store_of(run)
    listed = cli("recover", "--store", store, "--json")
    points = listed.document["points"]
    assert points
    wrong = cli("recover", "--store", store, "--point", "9999", "-o", tmp_path / "x.img")
    assert wrong.exit_status == 2
    assert "--point: expected one of" in wrong.stderr
    assert not (tmp_path / "x.img").exists()
    assert cli("recover", "--store", tmp_path, "-o", "x", "--latest").exit_status == 2
    right = cli("recover", "--store", store, "--latest", "-o", tmp_path / "x.img", "--json")
    assert right.document["checked"]["verified_bytes"] > 0
    again = cli("recover", "--store", store, "--latest", "-o", tmp_path / "x.img")
    assert again.exit_status == 2


def test_recovery_is_timed_by_age_and_reported(tmp_path: Path, cli: Callable[..., Any]) -> None:
    run = replay(tmp_path, trace(tmp_path, 400), '{ bandwidth = "400Mbit/s" }')
    store = store_of(run)
    before = sorted(store.parent.iterdir())
    aged = cli("recover", "--store", store, "--by-age", "--json").document
    cuts = {point["id"]: point["cut_ns"] for point in recovering.list_points(store)["points"]}
    newest, *_, oldest = aged["points"]
    assert (newest["age_ns"], newest["cut_ns"]) == (0, max(cuts.values()))
    assert oldest["cut_ns"] == min(cuts.values())
    assert oldest["age_ns"] == newest["cut_ns"] - oldest["cut_ns"]
    assert all(cuts[each["point"]] == each["cut_ns"] for each in aged["points"])
    assert all(each["rto_ns"] > 0 for each in aged["points"])
    assert sorted(store.parent.iterdir()) == before, "no image stays"
    assert cli("recover", "--store", store, "--by-age").exit_status == 2, "kept already"
    told = cli("recover", "--store", store, "--by-age", "--force").stdout.splitlines()
    assert len(told) == 1 + len(aged["points"])
    assert cli("report", run, "-o", tmp_path / "r.html").exit_status == 0
    assert "Recovery time (RTO)" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_zero_bandwidth_and_small_journals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"filter\[0\].link.bandwidth"):
        replay(tmp_path, trace(tmp_path, 10), '{ bandwidth = "0Mbit/s" }')
    one = write_trace(tmp_path / "one.parquet", [Io(0, "write", 0, 1 << 20)])
    with pytest.raises(InputError, match="the largest write"):
        replay(tmp_path, one, '{ bandwidth = "1Gbit/s" }', journal=Raw('{ memory = "512KiB" }'))
