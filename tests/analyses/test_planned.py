"""The planner against the replication itself: the same trace and link, in virtual time."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_kit import Io, Raw, filters, policy_file, round_here, write_trace

import vaio_bench as vb
from vaio_bench import round_loop, runner
from vaio_bench.analyses.planned import STEPS, planned
from vaio_bench.reporting import link_part
from vaio_bench.reporting.figures import Palette

S, MS, KIB = 10**9, 10**6, 1024
LINK = "100Mbit/s"
LINK_BYTES_PER_S = 12.5e6
# The planner's queue has no end, and neither has this journal.
JOURNAL = Raw('{ memory = "64GiB" }')
BUNDLED = Path(__file__).parents[2] / "traces" / "oltp-8s.blktrace"
INTERVALS = [None, "0s", "130ms"]

Phase = tuple[float, float, int]
"""How long, s; which share of the link is written; the size of a write."""


def writes(phases: Sequence[Phase], seed: int = 1, disks: str = "d") -> list[Io]:
    """Writes that come by chance, at the mean rate of each phase, among reads and flushes."""
    draw, now, end = random.Random(seed), 0.0, 0.0
    found = [Io(0, "read", 0, 4096, disks[0])]
    for lasts, load, size in phases:
        now, end = end, end + lasts
        while load and (now := now + draw.expovariate(load * LINK_BYTES_PER_S / size)) < end:
            at, disk = draw.randrange(1 << 12) * 65536, draw.choice(disks)
            found.append(Io(int(now * S), "write", at, size, disk))
            if draw.random() < 0.02:
                found.append(Io(int(now * S), draw.choice(["read", "flush"]), 0, 0, disk))
    return [*found, Io(int(end * S), "flush", 0, 0, disks[0])]


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_loop, "run_round", round_here)
        patch.setattr(runner._core, "harness_floor", lambda: {"null_ns": 100.0})
        yield


def replicated(folder: Path, trace: Path, *, link: str, **keys: Any) -> Path:
    """Replays through `cdp` over a modelled link: the run folder."""
    use = {"use": "cdp", "rpo": "2s", "journal": JOURNAL, **keys}
    policy = policy_file(folder, filters({**use, "link": Raw(link)}))
    run = folder / "run"
    chosen = vb.Settings(backend="sim", clock="virtual")
    vb.replay(trace, out=run, policy=policy, settings=chosen, force=True)
    return run


def faults_of_policy(faults: Sequence[str]) -> str:
    """What `rpo --fault` takes, as a policy has it."""
    split = ([f"kind={fault}", *more] for fault, *more in (each.split(",") for each in faults))
    pairs = ([word.split("=") for word in words] for words in split)
    tables = (", ".join(f'{key} = "{value}"' for key, value in each) for each in pairs)
    return ", ".join(f"{{ {table} }}" for table in tables)


def check(
    folder: Path,
    trace: Path,
    *,
    rtt: str,
    bandwidth: str = LINK,
    interval: str | None = None,
    faults: Sequence[str] = (),
) -> dict[str, float]:
    """Run and planner are within 5 % or a round trip; gives the planner's RPO."""
    keys = {} if interval is None else {"point_interval": interval}
    link = f'{{ bandwidth = "{bandwidth}", rtt = "{rtt}", faults = [{faults_of_policy(faults)}] }}'
    run = replicated(folder, trace, link=link, **keys)
    plan = vb.rpo(
        trace, link=f"{bandwidth},{rtt}", target_rpo="2s", point_interval=interval,
        snapshot_every=["1h"], faults=faults,
    ).modes[0]  # fmt: skip
    said = {step: plan["rpo_s"][step] for step in STEPS}
    [measured] = vb.run_rpo(run, together=True).found
    had, rtt_s = measured.document["rpo_s"], float(rtt.removesuffix("ms")) / 1e3
    for step in STEPS:
        assert abs(had[step] - said[step]) <= max(0.05 * said[step], rtt_s), (step, had, said)
    assert measured.document["no_restore_point_time"] == 0
    # From the run's own rows the plan is all but the same.
    [beside] = planned(run)
    assert beside.agrees
    assert beside.planner_rpo_s == pytest.approx(said, rel=0.01, abs=rtt_s / 10)
    assert beside.run_rpo_s == {step: had[step] for step in STEPS}
    return said


WORKLOADS: dict[str, tuple[list[Phase], str, bool]] = {
    # name: phases, round trip, whether the target of 2 s is missed.
    "idle most of the time": ([(1, 0.01, 4 * KIB), (4, 0, 0), (1, 0.01, 4 * KIB)], "5ms", False),
    "steady": ([(5, 0.5, 4 * KIB)], "20ms", False),
    "bursty": ([(3, 0.3, 8 * KIB), (2, 3, 8 * KIB), (8, 0.4, 8 * KIB)], "20ms", True),
    "falling behind slowly": ([(8, 1.05, 8 * KIB)], "5ms", False),
    "falling behind fast": ([(6, 2, 32 * KIB)], "5ms", True),
    "the smallest writes": ([(1.5, 1.3, 512)], "5ms", False),
    "sizes of all kinds": ([(0.5, 0.6, 512), (2, 2.5, 64 * KIB), (4, 0.7, 4 * KIB)], "10ms", True),
}


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_run_has_what_the_planner_says(
    tmp_path: Path, workload: str, interval: str | None
) -> None:
    phases, rtt, misses = WORKLOADS[workload]
    trace = write_trace(tmp_path / "t.parquet", writes(phases))
    said = check(tmp_path, trace, rtt=rtt, interval=interval)
    assert (said["max"] > 2) == misses


@pytest.mark.parametrize("interval", ["0s", None])
def test_disks_that_share_points_are_planned_as_one(tmp_path: Path, interval: str | None) -> None:
    phases = [(3, 0.4, 4 * KIB), (1, 3, 16 * KIB), (4, 0.3, 4 * KIB)]
    trace = write_trace(tmp_path / "t.parquet", writes(phases, disks="abc"))
    check(tmp_path, trace, rtt="10ms", interval=interval)
    assert planned(tmp_path / "run")[0].disks == "3 disks"


@pytest.mark.parametrize("bandwidth", ["10Mbit/s", "2Gbit/s"])
def test_slow_and_fast_lines(tmp_path: Path, bandwidth: str) -> None:
    share = vb.units.parse_rate_bps(bandwidth, "") / 8 / LINK_BYTES_PER_S
    lasts = 3 / max(1.0, share / 2)
    phases = [(lasts, 0.5 * share, 4 * KIB), (lasts, 1.4 * share, 8 * KIB)]
    trace = write_trace(tmp_path / "t.parquet", writes(phases))
    check(tmp_path, trace, rtt="5ms", bandwidth=bandwidth, interval="0s")


@settings(max_examples=12, deadline=None)
@given(
    phases=st.lists(
        st.tuples(
            st.sampled_from([0.2, 0.5, 1.5]),
            st.sampled_from([0, 0.1, 0.6, 0.9, 1.1, 2, 4]),
            st.sampled_from([512, 4 * KIB, 16 * KIB, 256 * KIB]),
        ),
        min_size=1,
        max_size=4,
    ).filter(lambda phases: any(load for _, load, _ in phases)),
    rtt=st.sampled_from(["5ms", "20ms", "200ms"]),
    interval=st.sampled_from(INTERVALS),
    faults=st.lists(
        st.builds(
            "outage,at={}ms,for={}ms".format, st.integers(0, 3000), st.sampled_from([1, 40, 700])
        )
        | st.builds(
            "bandwidth,at={}ms,bandwidth={}Mbit/s".format,
            st.integers(0, 3000),
            st.sampled_from([30, 60, 200]),
        )
        | st.builds("reset,at={}ms".format, st.integers(0, 3000)),
        max_size=3,
    ),
    seed=st.integers(0, 1000),
)
def test_any_small_workload(
    *, phases: list[Phase], rtt: str, interval: str | None, faults: list[str], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trace = write_trace(Path(folder) / "t.parquet", writes(phases, seed)[:4000])
        check(Path(folder), trace, rtt=rtt, interval=interval, faults=faults)


@pytest.mark.parametrize("interval", ["0s", None])
@pytest.mark.parametrize("bandwidth", ["300Mbit/s", "1Gbit/s"])
def test_the_bundled_trace(tmp_path: Path, bandwidth: str, interval: str | None) -> None:
    sources = sorted(BUNDLED.parent.glob(f"{BUNDLED.name}.*"))
    vb.import_trace(sources, tmp_path / "t.parquet")
    check(tmp_path, tmp_path / "t.parquet", rtt="20ms", bandwidth=bandwidth, interval=interval)


@pytest.mark.parametrize(
    ("source", "bandwidth"),
    [
        ("public/cloudPhysicsIO.vscsi", "10Mbit/s"),
        ("public/cloudPhysicsIO.vscsi", "100Mbit/s"),
        ("public/msr-cambridge1-sample.csv", "1Mbit/s"),
        pytest.param("own/pgbench.blktrace.*", "500Mbit/s", marks=pytest.mark.slow),
    ],
)
def test_real_traces(tmp_path: Path, traces_dir: Path, source: str, bandwidth: str) -> None:
    sources = sorted(traces_dir.glob(source))
    if not sources:
        pytest.skip(f"requires {source} in VAIO_BENCH_TRACES")
    vb.import_trace(sources, tmp_path / "t.parquet")
    for interval in ("0s", None):
        check(tmp_path, tmp_path / "t.parquet", rtt="20ms", bandwidth=bandwidth, interval=interval)
        shutil.rmtree(tmp_path / "run")


FAULTS = {
    "an outage": ["outage,at=2s,for=1500ms"],
    "an outage that is given up": ["outage,at=1s,for=11s"],
    "two outages": ["outage,at=1s,for=500ms", "outage,at=3s,for=700ms"],
    "outages that overlap": ["outage,at=1s,for=800ms", "outage,at=1500ms,for=700ms"],
    "an outage within another": ["outage,at=1s,for=1500ms", "outage,at=1500ms,for=700ms"],
    "a reset": ["reset,at=2s"],
    "resets in a row": ["reset,at=2s", "reset,at=2050ms", "reset,at=2120ms"],
    "a restart": ["restart,at=2s,for=1s"],
    "a restart within an outage": ["outage,at=1s,for=1s", "restart,at=1500ms,for=100ms"],
    "less bandwidth": ["bandwidth,at=1s,bandwidth=30Mbit/s", "bandwidth,at=3s,bandwidth=200Mbit/s"],
    "less bandwidth within an outage": [
        "outage,at=1s,for=1s", "bandwidth,at=1500ms,bandwidth=50Mbit/s",
        "bandwidth,at=4s,bandwidth=90Mbit/s",
    ],
    "a longer way": ["rtt,at=2s,rtt=300ms", "outage,at=4s,for=500ms", "rtt,at=5s,rtt=1ms"],
}  # fmt: skip


@pytest.mark.parametrize("interval", ["0s", None])
@pytest.mark.parametrize("faults", FAULTS)
def test_the_run_has_what_the_planner_says_of_a_line_with_faults(
    tmp_path: Path, faults: str, interval: str | None
) -> None:
    lasts = 15 if "given up" in faults else 6
    trace = write_trace(tmp_path / "t.parquet", writes([(lasts, 0.4, 8 * KIB)]))
    said = check(tmp_path, trace, rtt="20ms", interval=interval, faults=FAULTS[faults])
    assert said["max"] > 0.1


def test_a_confirmation_that_an_outage_holds_up_ages_no_point(tmp_path: Path) -> None:
    """The point of 2 s arrives at 2.1 s: its confirmation is on its way as the outage begins."""
    trace = write_trace(tmp_path / "t.parquet", writes([(4, 0.05, 4 * KIB)]))
    faults = ["outage,at=2150ms,for=600ms"]
    check(tmp_path, trace, rtt="200ms", interval="1s", faults=faults)
    [measured] = vb.run_rpo(tmp_path / "run").found
    assert measured.document["rpo_s"]["max"] == pytest.approx(1.1, abs=0.01)


def test_an_outage_that_ends_between_two_attempts_lasts_until_the_next(tmp_path: Path) -> None:
    """Given up after 1 s, and tried at 2.1, 4.3, 8.7 s, the last for 8 s, and then at 17.5 s."""
    trace = write_trace(tmp_path / "t.parquet", writes([(20, 0.05, 8 * KIB)]))
    fault = '{ kind = "outage", at = "1s", for = "15800ms" }'
    link = f'{{ bandwidth = "{LINK}", rtt = "2ms", timeout = "1s", faults = [{fault}] }}'
    [beside] = planned(replicated(tmp_path, trace, link=link, point_interval="0s"))
    assert beside.planner_rpo_s["max"] == pytest.approx(16.5, abs=0.03)
    assert beside.run_rpo_s["max"] == pytest.approx(beside.planner_rpo_s["max"], abs=0.03)


def test_a_window_too_small_for_a_longer_way_is_told(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", writes([(2, 0.5, 8 * KIB)]))
    fault = '{ kind = "rtt", at = "1s", rtt = "500ms" }'
    link = f'{{ bandwidth = "{LINK}", rtt = "20ms", window = "1MiB", faults = [{fault}] }}'
    [beside] = planned(replicated(tmp_path, trace, link=link, point_interval="0s"))
    assert "window was too small" in str(beside.why)
    assert beside.rtt_s == 0.5


def test_lags_too_short_for_continuous_points_are_told(tmp_path: Path) -> None:
    """Without a round trip lags are a millisecond, and points are told a millisecond apart."""
    trace = write_trace(tmp_path / "t.parquet", writes([(3, 0.5, 4 * KIB)]))
    link = f'{{ bandwidth = "{LINK}", rtt = "0ms" }}'
    run = replicated(tmp_path, trace, link=link, point_interval="0s")
    [beside] = planned(run)
    plan = vb.rpo(trace, link=LINK, target_rpo="1ms", point_interval="0s")
    assert plan.modes[0]["resolution_s"] == pytest.approx(0.002)
    assert any("continuous points can be told" in warning for warning in plan.warnings)
    assert beside.why == "continuous points are told to within 2 ms"
    assert not beside.agrees
    for step in STEPS:
        assert 0 <= beside.run_rpo_s[step] - beside.planner_rpo_s[step] <= 0.002
    assert "resolution_s" not in vb.rpo(trace, link=LINK).modes[0]


def test_an_outage_is_caught_up_when_the_planner_says(tmp_path: Path) -> None:
    """The link is down for the three seconds in which most is written."""
    phases = [(3, 0.2, 8 * KIB), (3, 0.7, 8 * KIB), (8, 0.3, 8 * KIB)]
    trace = write_trace(tmp_path / "t.parquet", writes(phases))
    plan = vb.rpo(trace, link=f"{LINK},20ms", outage="3s", point_interval="0s").document
    catch_up = plan["catch_up"]
    began_s = catch_up["from_s"]
    fault = f'{{ kind = "outage", at = "{began_s}s", for = "3s" }}'
    link = f'{{ bandwidth = "{LINK}", rtt = "20ms", faults = [{fault}] }}'
    run = replicated(tmp_path, trace, link=link, point_interval="0s")
    [measured] = vb.run_rpo(run).found
    series = measured.document["series"]
    behind = [at for at, rpo in zip(series["time_s"], series["rpo_s"], strict=True) if rpo > 0.1]
    assert min(behind) == pytest.approx(began_s, abs=0.2)
    assert max(behind) == pytest.approx(began_s + 3 + catch_up["seconds"], rel=0.05)
    assert measured.document["rpo_s"]["max"] == pytest.approx(3, abs=0.06)
    [beside] = planned(run)
    assert beside.agrees
    assert beside.why is None


def test_what_the_planner_knows_of_a_policy(tmp_path: Path) -> None:
    """Folding, compression and the link's efficiency are the planner's, too."""
    trace = write_trace(tmp_path / "t.parquet", writes([(4, 1.5, 4 * KIB)]))
    link = f'{{ bandwidth = "{LINK}", rtt = "10ms", efficiency = 0.8, compression_ratio = 0.6 }}'
    run = replicated(tmp_path, trace, link=link, compression="lz4", folding=Raw("true"))
    [beside] = planned(run)
    assert beside.agrees, beside
    assert beside.planner_rpo_s["max"] > 1.1
    assert json.loads(json.dumps(beside.to_dict()))["agrees"] is True


def test_snapshots_are_held_against_the_planner_too(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", writes([(6, 0.4, 8 * KIB)]))
    use = {"use": "snapshot", "every": "1s", "granularity": "64KiB"}
    link = Raw(f'{{ bandwidth = "{LINK}", rtt = "10ms" }}')
    policy = policy_file(tmp_path, filters({**use, "link": link}))
    chosen = vb.Settings(backend="sim", clock="virtual")
    vb.replay(trace, out=tmp_path / "run", policy=policy, settings=chosen)
    [beside] = planned(tmp_path / "run")
    assert beside.mode == "snapshot"
    assert beside.agrees, beside


def test_a_bounded_journal_is_told_apart(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", writes([(2, 3, 16 * KIB), (4, 0.1, 4 * KIB)]))
    link = f'{{ bandwidth = "{LINK}", rtt = "20ms" }}'
    run = replicated(tmp_path, trace, link=link, journal=Raw('{ memory = "4MiB" }'))
    [beside] = planned(run)
    assert "journal has an end" in str(beside.why)


def test_no_plan_without_verdict_or_replication(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", writes([(0.2, 0.5, 4 * KIB)]))
    link = Raw(f'{{ bandwidth = "{LINK}" }}')
    policy = policy_file(tmp_path, filters({"use": "cdp", "rpo": "2s", "link": link}))
    chosen: dict[str, Any] = {"backend": "sim", "clock": "virtual"}
    vb.replay(trace, out=tmp_path / "a", policy=policy, settings=vb.Settings(pace="asap", **chosen))
    vb.replay(trace, out=tmp_path / "b", policy="pass", settings=vb.Settings(**chosen))
    assert planned(tmp_path / "a") == planned(tmp_path / "b") == []


def test_replay_and_report_say_both(tmp_path: Path, here: Callable[..., Any]) -> None:
    trace = write_trace(tmp_path / "t.parquet", writes([(2, 2, 16 * KIB), (4, 0.3, 8 * KIB)]))
    use = {"use": "cdp", "rpo": "500ms", "journal": JOURNAL}
    link = Raw(f'{{ bandwidth = "{LINK}", rtt = "20ms" }}')
    policy = policy_file(tmp_path, filters({**use, "link": link}))
    run = tmp_path / "run"
    told = here("replay", trace, "--policy", policy, "--clock", "virtual", "--backend", "sim",
                "-o", run)  # fmt: skip
    assert told.exit_status == 0, told.stderr
    assert "the planner says 2." in told.stdout
    assert "apart" not in told.stdout
    opened = vb.open_run(run)
    assert opened.timeline()["mode"].unique().to_list() == ["normal"]
    [lag, backlog, used] = link_part.charts(opened, None, Palette())
    titles = [chart.title for chart in (lag, backlog, used)]
    assert here("report", run, "-o", tmp_path / "r.html").exit_status == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for text in (*titles, "what the planner says of the same writes", "Distribution of the run"):
        assert text.replace("'", "&#39;") in page, text


def test_the_link_is_used_up_to_its_bandwidth_and_no_further(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.parquet", writes([(2, 2, 16 * KIB), (4, 0.3, 8 * KIB)]))
    run = replicated(tmp_path, trace, link=f'{{ bandwidth = "{LINK}", rtt = "20ms" }}')
    at_s, arrived = link_part.arrived(vb.open_run(run), "chain")
    spans = at_s[1:] - at_s[:-1]
    rates = (arrived[1:] - arrived[:-1])[spans > 0] / spans[spans > 0]
    # Headers are counted with the points, and take nothing of the line.
    assert 0.95 * LINK_BYTES_PER_S < max(rates) < 1.005 * LINK_BYTES_PER_S
