"""cache-curves: whole miss-ratio curves, their knee, and which cache to buy.

## What it does

`cache --curve` adds, to the sizes asked for, the hit ratio at all sizes up to the footprint:

- *lru*: exact at every size from one pass (Mattson's stack, over a Fenwick tree); discards
  included. Beside it SHARDS, which tracks a sample of the blocks: at a fixed rate of 1 %, and with
  a fixed number of 8,192 blocks, eight salts each. Shown are the mean over the salts, its error
  against the exact curve, and the error bar that the salts' spread gives (2.36 standard errors of
  the mean: 95 % by Student's t).
- *the others*: simulated at 24 sizes; beyond 131,072 distinct blocks on a sample of about 65,536
  of them (`--sample`), with caches as much smaller, as miniature simulations do. lru runs on the
  same sample, and its error against the exact curve is the error given for the sample.
- *write-around* is no stack algorithm: lru is then simulated like the others.

## What the figures mean

- *knee*: the point of the curve farthest above the line from its start to its end, both axes
  scaled to 1 (Kneedle). None where it is nowhere a tenth above: there size buys hits evenly.
- *size for 90 %*: the smallest size tried that hits 90 % of what a cache of the whole footprint
  would.
- *recommendation*: the policy that a cache can run (not belady) with the smallest size for 90 %.
  Policies within 5 % of that size, or within the sample's error in hit ratio, count as equal; of
  these the simplest is taken.

## References

Satopaa et al., 'Finding a kneedle in a haystack', ICDCSW '11; Waldspurger et al., FAST '15
(SHARDS) and ATC '17 (miniature simulations); Mattson et al. 1970.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vaio_bench import _core
from vaio_bench.errors import InputError
from vaio_bench.units import format_size, parse_share

_LRU_POINTS = 200
_POINTS = 24
_SALTS = list(range(1, 9))
_RATE = 0.01
_SAMPLE_BLOCKS = 8192
# A cache must be as many sampled blocks for a sample to say anything of it.
_LEAST_BLOCKS = 10
# Beyond the first number of distinct blocks, curves are simulated on about the second.
_ALL_BLOCKS = 1 << 17
_SOME_BLOCKS = 1 << 16
# Student's t for eight salts, two-sided 95 %.
_T_95 = 2.365
_ENOUGH = 0.9
_EQUAL_SIZE = 1.05
_LEAST_KNEE = 0.1
# From the simplest on: what is taken of equals.
_SIMPLEST_FIRST = ("fifo", "lru", "clock", "sieve", "slru", "2q", "s3-fifo", "arc")

Progress = Callable[[str, int, int], object]
Point = tuple[float, float]


def curves(
    engine: _core.CacheTrace,
    summary: dict[str, Any],
    names: Sequence[str],
    marked: Sequence[int],
    document: dict[str, Any],
    *,
    sample: str | float | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """The curves of some policies, as `curves`, `shards`, `working_set` and `recommendation`.

    Args:
        engine: The trace.
        summary: What its first pass found.
        names: Policies.
        marked: Capacities, in blocks, that each curve must have.
        document: What is known so far.
        sample: Share of the blocks to simulate on; None: as many as are worth it.
        progress: Called with (what is done, how much, of how much).

    Raises:
        InputError: `sample` is no share above zero.
    """
    blocks = [stream["unique_blocks"] for stream in summary["streams"]]
    requests = sum(stream["requests"] for stream in summary["streams"])
    rate = _rate(sample, sum(blocks))
    fine = _grid(max(blocks), _LRU_POINTS, marked)
    plan = {"salts": _SALTS, "rate": _RATE, "blocks": _SAMPLE_BLOCKS}
    told = _phase(progress, "lru's curve")
    lru = json.loads(engine.lru_curve(fine, json.dumps(plan), told))
    exact = np.array([hits[0] for hits in lru["exact"]]) / max(requests, 1)
    is_stack = document["write_policy"] != "around"
    found: dict[str, Any] = {"working_set": _working_set(lru["working_set"], document)}
    if is_stack:
        found["shards"] = _shards(lru, exact, np.array(fine), document["block_bytes"])
    coarse = _grid(max(blocks), _POINTS, marked)
    simulated = [name for name in names if name != "lru" or not is_stack]
    control = ["lru"] if rate < 1 and is_stack and "lru" not in simulated else []
    ratios = _simulated(engine, summary, [*simulated, *control], coarse, rate, document, progress)
    error = None
    if control:
        at_coarse = np.interp(coarse, fine, exact)
        away = np.abs(np.array(ratios["lru"]) - at_coarse)
        error = {"mean": float(away.mean()), "max": float(away.max())}
    found["curves"] = []
    for name in names:
        if name == "lru" and is_stack:
            sizes, values, how = fine, exact.tolist(), {"method": "exact", "rate": 1.0}
        else:
            method = "simulated" if rate == 1 else "sampled"
            sizes, values, how = coarse, ratios[name], {"method": method, "rate": rate}
            how["error"] = error
        found["curves"].append(_curve(name, sizes, values, how, document["block_bytes"]))
    found["recommendation"] = recommendation(found["curves"], document["footprint_bytes"])
    return found


def _phase(progress: Progress | None, what: str) -> Callable[[int], object] | None:
    return (lambda done: progress(what, done, 0)) if progress else None


def _rate(sample: str | float | None, blocks: int) -> float:
    if sample is None:
        return 1.0 if blocks <= _ALL_BLOCKS else _SOME_BLOCKS / blocks
    rate = parse_share(sample, "--sample")
    if not 0 < rate <= 1:
        raise InputError(f'--sample: expected a share above zero, up to 1, got "{sample}"')
    return rate


def _grid(blocks: int, points: int, marked: Sequence[int]) -> list[int]:
    """Capacities from a thousandth of the blocks to all, evenly by ratio, and those marked."""
    even = np.geomspace(max(1, blocks / 1000), blocks, points)
    capacities = {max(1, round(at)) for at in even} | {at for at in marked if at <= blocks}
    return sorted(capacities)


def _simulated(
    engine: _core.CacheTrace,
    summary: dict[str, Any],
    names: Sequence[str],
    capacities: Sequence[int],
    rate: float,
    document: dict[str, Any],
    progress: Progress | None,
) -> dict[str, list[float]]:
    """Hit ratios of each policy at each capacity (each stream has a cache of it)."""
    streams = [at for at, each in enumerate(summary["streams"]) if each["unique_blocks"]]
    requests = sum(stream["requests"] for stream in summary["streams"])
    jobs = [
        {"policy": name, "stream": at, "capacity": max(1, round(capacity * rate))}
        for name in names
        for capacity in capacities
        for at in streams
    ]
    told = _phase(progress, "curves of the others")
    text, seed = json.dumps(jobs), document["seed"]
    if rate == 1:
        reports = json.loads(engine.simulate(text, seed, told))
    else:
        reports = json.loads(engine.simulate_sample(text, seed, rate, 1, told))
    misses: dict[str, list[float]] = {}
    each = iter(reports)
    for name in names:
        for _ in capacities:
            own = [next(each) for _ in streams]
            missed = sum(report["requests"] - report["hits"] for report in own)
            # What the sample has too few or too many of is booked to the hits, as in SHARDS-adj.
            misses.setdefault(name, []).append(missed / rate / max(requests, 1))
    return {name: [min(1.0, max(0.0, 1 - ratio)) for ratio in of] for name, of in misses.items()}


def _shards(
    lru: dict[str, Any], exact: np.ndarray, capacities: np.ndarray, block_bytes: int
) -> list[dict[str, Any]]:
    found = []
    for key, method in (("fixed_rate", "fixed rate"), ("fixed_size", "fixed size")):
        if not lru[key]:
            continue
        rate = _RATE if key == "fixed_rate" else float(np.mean(lru["fixed_size_rates"]))
        told = capacities * rate >= _LEAST_BLOCKS
        if not told.any():
            continue
        by_salt = np.array(lru[key])
        mean = by_salt.mean(axis=0)
        bar = (_T_95 * by_salt.std(axis=0, ddof=1) / math.sqrt(len(by_salt)))[told]
        away = np.abs(mean - exact)[told]
        found.append(
            {
                "method": method,
                "rate": rate,
                "salts": len(by_salt),
                "hit_ratio": mean.tolist(),
                "error_mean": float(away.mean()),
                "error_max": float(away.max()),
                "error_bar": float(bar.mean()),
                "error_bar_max": float(bar.max()),
                "error_mean_of_one_salt": float(np.abs(by_salt - exact)[:, told].mean()),
                "from_bytes": int(capacities[told][0] * block_bytes),
            }
        )
    return found


def _working_set(buckets: list[list[int]], document: dict[str, Any]) -> dict[str, Any]:
    block_bytes = document["block_bytes"]
    new = np.cumsum([bucket[1] for bucket in buckets]) * block_bytes
    return {
        "window_s": document["series"]["time_s"][0],
        "time_s": document["series"]["time_s"],
        "bytes": [bucket[0] * block_bytes for bucket in buckets],
        "footprint_bytes": new.tolist(),
    }


def _curve(
    name: str, capacities: Sequence[int], ratios: list[float], how: dict[str, Any], block: int
) -> dict[str, Any]:
    sizes = [capacity * block for capacity in capacities]
    points = list(zip(sizes, ratios, strict=True))
    found = knee(points)
    enough = size_for(points, _ENOUGH)
    return {
        "policy": name,
        **how,
        "size_bytes": sizes,
        "hit_ratio": ratios,
        "knee": None if found is None else {"size_bytes": found[0], "hit_ratio": found[1]},
        "size_for_90_percent_bytes": enough,
    }


def knee(points: Sequence[Point]) -> Point | None:
    """The point (size, hit ratio) farthest above the chord; None where there is no bend.

    Args:
        points: In order of size.
    """
    top = max((ratio for _, ratio in points), default=0.0)
    if not points or top <= 0:
        return None
    largest = points[-1][0]
    best = max(points, key=lambda point: point[1] / top - point[0] / largest)
    return best if best[1] / top - best[0] / largest >= _LEAST_KNEE else None


def size_for(points: Sequence[Point], share: float) -> float | None:
    """The smallest size that hits `share` of what the best size does; None without any hit."""
    top = max((ratio for _, ratio in points), default=0.0)
    if top <= 0:
        return None
    return next(size for size, ratio in points if ratio >= share * top)


def recommendation(found: Sequence[dict[str, Any]], footprint_bytes: int) -> dict[str, Any] | None:
    """Which policy and size to take, and why; None where nothing is ever hit."""
    able = [each for each in found if each["policy"] != "belady" and each["hit_ratio"]]
    top = max((max(each["hit_ratio"]) for each in able), default=0.0)
    if top <= 0:
        return None
    need = {}
    for each in able:
        points = zip(each["size_bytes"], each["hit_ratio"], strict=True)
        size = next((size for size, ratio in points if ratio >= _ENOUGH * top), None)
        if size is not None:
            need[each["policy"]] = size
    least = min(need.values())
    margin = max(((each.get("error") or {}).get("mean", 0.0) for each in able), default=0.0)
    by_name = {each["policy"]: each for each in able}

    def is_equal(name: str) -> bool:
        at_least = np.interp(least, by_name[name]["size_bytes"], by_name[name]["hit_ratio"])
        return bool(need[name] <= _EQUAL_SIZE * least or at_least >= _ENOUGH * top - margin)

    order = [*_SIMPLEST_FIRST, *need]
    policy = min((name for name in need if is_equal(name)), key=order.index)
    size, share = need[policy], need[policy] / footprint_bytes
    ratio = float(np.interp(size, by_name[policy]["size_bytes"], by_name[policy]["hit_ratio"]))
    reason = (
        f"{policy} with {format_size(size)} ({share:.1%} of the footprint) hits {ratio:.1%} of the "
        f"requests, {ratio / top:.0%} of what any size can"
    )
    if policy != "lru" and "lru" in need:
        reason += f"; lru needs {format_size(need['lru'])} for 90 %"
    equals = [name for name in need if name != policy and is_equal(name)]
    if equals:
        reason += f"; {', '.join(equals)} are no better by what this can tell"
    return {"policy": policy, "size_bytes": size, "hit_ratio": ratio, "reason": reason}


def answer(document: dict[str, Any]) -> str:
    """What to take from a study, in a sentence or two."""
    parts = []
    for size in dict.fromkeys(each["size"] for each in document["results"]):
        own = [each for each in document["results"] if each["size"] == size]
        able = [each for each in own if each["policy"] != "belady" and each["requests"]]
        if not able:
            continue
        best = max(able, key=lambda each: each["hits"])
        most = "hits most," if len(able) > 1 else "hits"
        text = f"at {size} {best['policy']} {most} {best['hit_ratio']:.1%} of the requests"
        others = [each for each in own if each["policy"] in ("lru", "belady") and each != best]
        beside = [f"{each['policy']} {each['hit_ratio']:.1%}" for each in others]
        parts.append(text + (f" ({', '.join(beside)})" if beside else ""))
    sentences = ["; ".join(parts)] if parts else []
    advice = document.get("recommendation")
    if advice:
        sentences.append(f"for 90 % of the best hit ratio: {advice['reason']}")
    return ". ".join(text[0].upper() + text[1:] for text in sentences)
