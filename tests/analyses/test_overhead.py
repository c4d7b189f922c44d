import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from run_folder import POLICIES, Policy, make_run, write_round

from vaio_bench.analyses.across import overhead_of_runs
from vaio_bench.analyses.overhead import compare_figures, overhead
from vaio_bench.analyses.rounds import RATE_SHARE, round_figures
from vaio_bench.errors import InputError
from vaio_bench.store import open_run

FEW = {name: POLICIES[name] for name in ("direct", "direct-again", "crypt")}
METRICS = {
    f"{family}_{step}_ns"
    for family in ("latency", "response")
    for step in ("p50", "p95", "p99", "p999", "max")
} | {
    "iops",
    "bytes_per_s",
    "rate_achieved",
    "cpu_ns_per_io",
    "cpu_user_ns_per_io",
    "cpu_system_ns_per_io",
    "context_switches_per_io",
}


def constant_round(run: Path, policy: str, round_: int, latency_ns: int, ios: int = 100) -> None:
    """Replace a round's rows by I/Os of one latency, due every microsecond, issued 10 ns late."""
    rows = open_run(run).scan_ios(policy, round_).collect().sort("seq").head(ios).to_arrow()
    due = np.arange(ios) * 1_000
    new = {
        "due_ns": due,
        "submit_ns": due + 10,
        "complete_ns": due + 10 + latency_ns,
        "length_bytes": np.full(ios, 4096),
    }
    for name, values in new.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.int64()))
    write_round(run, policy, round_, rows, parts=3)


def test_the_document_has_the_shape_of_the_contract(tmp_path: Path) -> None:
    found = overhead(make_run(tmp_path / "run", policies=FEW, rounds=6, ios=2_000)).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["baseline"] == "direct"
    assert [policy["name"] for policy in found["policies"]] == ["crypt"]
    metrics = found["policies"][0]["metrics"]
    assert set(metrics) == METRICS
    assert {"baseline", "value", "ratio", "ci_low", "ci_high", "verdict"} <= set(metrics["iops"])
    assert set(found["noise_floor"]) == METRICS
    assert (found["rounds"], found["margin"]) == (6, 0.02)
    p50 = metrics["latency_p50_ns"]
    assert p50["verdict"] == "slower"
    assert p50["ci_low"] < p50["ratio"] < p50["ci_high"]
    assert p50["ratio"] == pytest.approx(p50["value"] / p50["baseline"])
    assert 1.10 < p50["ratio"] < 1.20  # 12 us on a median of 80
    assert metrics["cpu_ns_per_io"]["ratio"] == pytest.approx(24 / 15, rel=0.05)


def test_the_figures_of_constant_rounds_by_hand(tmp_path: Path) -> None:
    policies = {"direct": Policy(), "slow": Policy()}
    run = make_run(tmp_path / "run", policies=policies, rounds=3, ios=100, harness=None)
    for round_, (base, slow) in enumerate([(1_000, 1_100), (2_000, 2_200), (4_000, 4_840)]):
        constant_round(run, "direct", round_, base)
        constant_round(run, "slow", round_, slow)
    metrics = overhead(run).to_dict()["policies"][0]["metrics"]
    latency = metrics["latency_p99_ns"]
    assert latency["baseline"] == pytest.approx(2_000)
    assert latency["ratio"] == pytest.approx((1.1 * 1.1 * 1.21) ** (1 / 3))
    # Logs a, a, 2a with a = ln 1.1: s = a / sqrt(3), error = a / 3, t(2, 0.975) = 4.302653.
    a = math.log(1.1)
    assert latency["ci_high"] == pytest.approx(math.exp(4 / 3 * a + 4.302653 * a / 3), rel=1e-6)
    # The baseline's own rounds are a factor of two apart: nothing can be claimed over that.
    assert latency["verdict"] == "no difference shown"
    # The response time counts from due, 10 ns before submit.
    assert metrics["response_max_ns"]["baseline"] == pytest.approx(
        (1_010 * 2_010 * 4_010) ** (1 / 3)
    )
    # 100 I/Os of 4 KiB from due 0 to the last completion at 99 us + 10 ns + latency.
    rates = [100 / ((99_010 + latency) / 1e9) for latency in (1_000, 2_000, 4_000)]
    assert metrics["iops"]["baseline"] == pytest.approx(np.prod(rates) ** (1 / 3))
    assert metrics["bytes_per_s"]["baseline"] == pytest.approx(
        4096 * np.prod(rates) ** (1 / 3), rel=1e-9
    )


def test_a_difference_below_the_clocks_resolution_is_none(tmp_path: Path) -> None:
    policies = {"direct": Policy(), "direct-again": Policy(), "pass": Policy()}
    run = make_run(tmp_path / "run", policies=policies, rounds=5, ios=100)
    for round_ in range(5):
        for name, latency_ns in (("direct", 40), ("direct-again", 40), ("pass", 50)):
            constant_round(run, name, round_, latency_ns)
    found = overhead(run).policies["pass"]["latency_p50_ns"]
    # The manifest's clock takes 10 ns to read: both may be 45 ns.
    assert found.interval.ratio == pytest.approx(1.25)
    assert found.interval.low < 1
    assert found.verdict == "no difference shown"


def test_an_equal_policy_is_not_accused(tmp_path: Path) -> None:
    policies = {"direct": Policy(), "direct-again": Policy(), "pass": Policy(["pass", "uring"])}
    found = overhead(make_run(tmp_path / "run", policies=policies, rounds=8, ios=2_000, seed=5))
    words = {metric: each.verdict for metric, each in found.policies["pass"].items()}
    assert not {"slower", "faster"} & set(words.values()), words


def test_without_an_a_a_pair_the_floor_is_the_baselines_scatter(tmp_path: Path) -> None:
    jumpy = {"direct": Policy(round_factor={0: 1.0, 1: 2.0, 2: 0.5, 3: 1.5})}
    policies = jumpy | {"crypt": POLICIES["crypt"]}
    found = overhead(make_run(tmp_path / "run", policies=policies, rounds=4, ios=500))
    assert found.noise_floor == {}
    assert found.to_dict()["noise_floor_from"] == "scatter of the baseline's rounds"
    assert any("no A/A pair" in note for note in found.notes)
    assert found.policies["crypt"]["latency_p50_ns"].verdict == "no difference shown"


def test_a_crooked_a_a_pair_raises_the_floor(tmp_path: Path) -> None:
    crooked = FEW | {"direct-again": Policy(round_factor=dict.fromkeys(range(6), 1.4))}
    found = overhead(make_run(tmp_path / "run", policies=crooked, rounds=6, ios=1_000))
    p50 = found.policies["crypt"]["latency_p50_ns"]
    assert p50.floor is not None
    assert p50.floor > 0.39
    assert p50.verdict == "no difference shown"
    assert any("A/A pair itself differs" in note for note in found.notes)


def test_a_round_cut_short_is_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=FEW, rounds=3, ios=300, exit="running")
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["totals"]["crypt"]["2"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    found = overhead(path)
    assert found.rounds == 2
    assert "policy crypt, round 3: cut short, left out" in found.notes


def test_failed_ios_have_no_part_in_latency(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=FEW, rounds=2, ios=200)
    rows = open_run(path).scan_ios("crypt", 0).collect()
    slowest = (rows["complete_ns"] - rows["submit_ns"]).to_numpy().argmax()
    status = np.zeros(rows.height, np.int32)
    status[slowest] = 5
    table = rows.to_arrow()
    at = table.column_names.index("status")
    write_round(path, "crypt", 0, table.set_column(at, "status", pa.array(status)))
    figures = overhead(path).per_round
    row = figures.filter((figures["policy"] == "crypt") & (figures["round"] == 0)).to_dicts()[0]
    latencies = np.sort((rows["complete_ns"] - rows["submit_ns"]).to_numpy())
    assert row["latency_max_ns"] == latencies[-2]


@pytest.mark.parametrize(
    ("changes", "policies", "margin", "message"),
    [
        ({"clock": "virtual"}, FEW, 0.02, "its clock is virtual"),
        ({}, {"crypt": POLICIES["crypt"]}, 0.02, "holds one policy, crypt, and nothing to compare"),
        ({}, {"direct": Policy()}, 0.02, "holds one policy, direct, and nothing to compare"),
        ({}, {"a": Policy(), "b": Policy()}, 0.02, 'rows of baseline "direct", found: a, b'),
        ({}, {"direct": Policy(), "direct-again": Policy()}, 0.02, "a policy to compare with"),
        ({}, FEW, 0.0, "--margin: expected a share"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path,
    changes: dict[str, object],
    policies: dict[str, Policy],
    margin: float,
    message: str,
) -> None:
    path = make_run(tmp_path / "run", policies=policies, rounds=2, ios=50, **changes)
    with pytest.raises(InputError, match=message):
        overhead(path, margin=margin)


@pytest.mark.parametrize("without", [["direct"], ["direct", "direct-again", "crypt"]])
def test_a_run_that_died_in_its_first_round_is_refused(tmp_path: Path, without: list[str]) -> None:
    path = make_run(tmp_path / "run", policies=FEW, rounds=1, ios=50, exit="running")
    manifest = json.loads((path / "manifest.json").read_text())
    for name in without:  # totals are written at a round's end
        del manifest["totals"][name]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="no round is complete"):
        overhead(path)


def test_a_run_that_was_stopped_after_its_first_loss_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=FEW, rounds=1, ios=50, exit="interrupted")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["totals"] = {}
    manifest["lost_rounds"] = [
        {"policy": "crypt", "round": 0, "warmup": False, "reason": "crashed"}
    ]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="no round is complete both"):
        overhead(path)


def test_runs_apart_are_compared_unpaired_and_say_so(tmp_path: Path) -> None:
    direct = make_run(tmp_path / "a", policies={"direct": Policy()}, rounds=4, ios=500)
    crypt = make_run(
        tmp_path / "b", policies={"crypt": POLICIES["crypt"]}, rounds=5, ios=500, seed=9
    )
    found = overhead_of_runs([direct, crypt])
    assert found.baseline == "a:direct"
    assert list(found.policies) == ["b:crypt"]
    assert not found.paired
    assert "not interleaved" in found.notes[0]
    # Nothing in b tells whether it was the machine.
    assert found.policies["b:crypt"]["latency_p50_ns"].verdict == "no difference shown"
    assert any('b has no rounds of the same "direct"' in note for note in found.notes)
    assert found.policies["b:crypt"]["latency_p50_ns"].interval.ratio == pytest.approx(
        1.15, abs=0.05
    )


def test_runs_of_different_traces_are_refused(tmp_path: Path) -> None:
    direct = make_run(tmp_path / "a", policies={"direct": Policy()}, rounds=2, ios=50)
    other = make_run(tmp_path / "b", policies=FEW, rounds=2, ios=50, trace={"sha256": "0"})
    with pytest.raises(InputError, match="b: expected a run of the same trace"):
        overhead_of_runs([direct, other])


PACED = {"mode": "asap", "speed": 1.0, "depth": 32, "inflight": 64, "conflicts": "order"}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("pacing", {**PACED, "depth": 1}, "its depth is 1, not 32"),
        ("pacing", {**PACED, "conflicts": "allow"}, "its conflicts is allow, not order"),
        ("fit_to", {"size_bytes": 1 << 20}, "its --fit-to is 1048576, not None"),
        ("trace", {"sha256": "a", "skip": 7}, "its skip is 7, not 0"),
    ],
)
def test_runs_of_other_settings_are_refused(
    tmp_path: Path, key: str, value: dict[str, object], told: str
) -> None:
    settings = {"pacing": PACED, "trace": {"sha256": "a", "skip": 0}}
    runs = [
        make_run(tmp_path / name, policies=FEW, rounds=2, ios=50, **changed)
        for name, changed in (("a", settings), ("b", {**settings, key: value}))
    ]
    with pytest.raises(InputError, match=told):
        overhead_of_runs(runs)


def test_the_floor_between_runs_is_what_their_baselines_lie_apart(tmp_path: Path) -> None:
    slow = {name: Policy(round_factor=dict.fromkeys(range(6), 2.0)) for name in FEW}
    backends = [{"used": used} for used in ("uring", "psync")]
    runs = [
        make_run(tmp_path / name, policies=policies, rounds=6, ios=500, seed=seed, backend=backend)
        for seed, (name, policies, backend) in enumerate(
            zip("ab", (FEW, {**slow, "crypt": slow["direct"]}), backends, strict=True)
        )
    ]
    found = overhead_of_runs(runs)
    # The A/A pairs are in no comparison, each run's own policies are held against its own floor.
    assert list(found.policies) == ["a:crypt", "b:direct", "b:crypt"]
    own, other = (found.policies[name]["latency_p50_ns"] for name in ("a:crypt", "b:crypt"))
    assert own.floor is not None
    assert own.floor < 0.1
    assert own.verdict == "slower"
    # The whole machine took twice as long in the second run.
    assert other.interval.ratio == pytest.approx(2, rel=0.1)
    assert other.floor == found.noise_floor["latency_p50_ns"] > 0.9
    assert other.verdict == "no difference shown"
    assert any("differs from a in its backend (psync, not uring)" in note for note in found.notes)
    assert found.to_dict()["noise_floor_from"] == "the baselines of the runs"


def test_no_cpu_is_told_of_a_policy_with_a_server(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=FEW, rounds=3, ios=50)
    before = overhead(path)
    assert not any("NBD server" in note for note in before.notes)
    assert "cpu_ns_per_io" in before.policies["crypt"]
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["policies"]["crypt"]["servers"] = [{"uri": "nbd://host"}]
    (path / "manifest.json").write_text(json.dumps(manifest))
    found = overhead(path)
    told = [note for note in found.notes if "NBD server" in note]
    assert len(told) == 2
    assert "policy crypt are not told" in told[0]
    assert told[1].startswith("policy crypt: an NBD server's export is not set back between rounds")
    metrics = found.policies["crypt"]
    assert "latency_p50_ns" in metrics
    assert not [name for name in metrics if "cpu" in name or "switches" in name]


def test_a_figure_of_zero_is_told(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", policies=FEW, rounds=3, ios=50)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["totals"]["crypt"]["1"]["cpu_user_ns"] = 0
    for of in manifest["totals"]["direct"].values():
        of["context_switches"] = 0
    for of in manifest["totals"]["crypt"].values():
        of["cpu_system_ns"] = 0
    (path / "manifest.json").write_text(json.dumps(manifest))
    found = overhead(path)
    assert "cpu_user_ns_per_io" not in found.policies["crypt"]
    assert "cpu_user_ns_per_io: crypt has 0 in round 2: there is no ratio to tell" in found.notes
    # However many they are, they are one note.
    [line] = [note for note in found.notes if note.startswith("0 in every round")]
    assert "cpu_system_ns_per_io of crypt; context_switches_per_io of direct" in line


def test_a_rate_is_known_no_better_than_its_run_time(tmp_path: Path) -> None:
    figures = round_figures(open_run(make_run(tmp_path / "run", policies=FEW, rounds=4, ios=50)))
    # 4 rounds of 10 ms by a tool that counts whole ones, and of 11 ms by one that knows.
    rates = {"direct": 100.0, "direct-again": 100.0, "crypt": 110.0}
    exact = figures.with_columns(iops=pl.col("policy").replace_strict(rates))
    told = compare_figures(exact, ["crypt"], "direct", 0.02).policies["crypt"]["iops"]
    assert told.verdict == "faster"
    share = pl.when(pl.col("policy") == "crypt").then(0.05)
    rounded = exact.with_columns(share.alias(RATE_SHARE), iops=pl.col("iops").replace(110, 104))
    found = compare_figures(rounded, ["crypt"], "direct", 0.02).policies["crypt"]["iops"]
    assert found.interval.ratio == pytest.approx(1.04)
    assert found.interval.low < 1
    assert found.verdict == "no difference shown"
