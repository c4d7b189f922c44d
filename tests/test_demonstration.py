"""The demo's choice of a pace, without a device: lateness is as the test says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vaio_bench
from vaio_bench import demonstration
from vaio_bench.runner import Settings


@dataclass
class Told:
    late: float

    def totals(self, policy: str, round_: int) -> dict[str, Any]:
        assert (policy, round_) == ("direct", 0)
        return {"lateness": {"late_share": self.late}}


@pytest.mark.parametrize(
    ("kept_from", "expected"),
    [(1.0, [1.0]), (0.3, [1.0, 0.5, 0.25]), (0.01, list(demonstration.SPEEDS))],
)
def test_the_recorded_pace_is_tried_first_and_slower_ones_until_one_is_kept(
    monkeypatch: pytest.MonkeyPatch, kept_from: float, expected: list[float]
) -> None:
    ran: list[Settings] = []

    def replay(*_: object, settings: Settings, **more: object) -> None:
        ran.append(settings)

    def late(_: Path) -> Told:
        return Told(0.0 if ran[-1].speed <= kept_from else ran[-1].speed / 2)

    monkeypatch.setattr(vaio_bench, "replay", replay)
    monkeypatch.setattr(demonstration, "open_run", late)
    tried = demonstration.try_paces(Path("t"), Path("i"), Path("o"), None)
    assert [speed for speed, _ in tried] == expected
    assert [each.speed for each in ran] == expected
    # As long in time at every speed.
    seconds = [(each.limit or 0) / each.speed for each in ran]
    assert seconds == pytest.approx([demonstration.TRIED_IOS] * len(ran))
    words = demonstration.told(tried)
    assert f"compared at {expected[-1]:g} times" in words[-1]


def test_a_slower_pace_that_is_kept_no_better_ends_the_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares = iter([0.5, 0.1, 0.3])
    monkeypatch.setattr(vaio_bench, "replay", lambda *_, **__: None)
    monkeypatch.setattr(demonstration, "open_run", lambda _: Told(next(shares)))
    monkeypatch.setattr(demonstration, "SPEEDS", (1.0, 0.5, 0.25, 0.125))
    tried = demonstration.try_paces(Path("t"), Path("i"), Path("o"), None)
    assert tried == [(1.0, 0.5), (0.5, 0.1), (0.25, 0.3)]
    assert demonstration.chosen_speed(tried) == 0.5
