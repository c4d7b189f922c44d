from collections.abc import Callable
from pathlib import Path

import pytest
from run_folder import POLICIES, make_run, rpo_plan, write_result

from vaio_bench.analyses import timeline
from vaio_bench.store import open_run


@pytest.fixture
def make_example() -> Callable[..., Path]:
    """A run of direct, its A/A pair, crypt and cache on two disks, with a plan and a timeline."""

    def make(path: Path, **changes: object) -> Path:
        settings = {"policies": POLICIES, "rounds": 4, "ios": 1_500, "disks": ("a", "b")}
        run = make_run(path, **(settings | changes))
        write_result(run, "rpo", rpo_plan())
        opened = open_run(run)
        for policy in opened.policies:
            timeline.append_round(run, policy, 0)
        return run

    return make
