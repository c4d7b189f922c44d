import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaio_bench.analyses import quantiles


@given(st.lists(st.integers(-3, 10**12), min_size=1, max_size=60), st.floats(0.001, 1.0))
def test_quantiles_are_those_of_numpy(values: list[int], q: float) -> None:
    q = round(q, 3)
    rows = pl.LazyFrame({"v": pl.Series(values, dtype=pl.Int64)})
    found = quantiles.exact_quantiles(rows, pl.col("v"), [q])[()]
    # By the definition itself: numpy's own rounding of q * n differs in the last bit.
    at_or_below = next(
        v
        for v in sorted(values)
        if 1000 * sum(w <= v for w in values) >= round(q * 1000) * len(values)
    )
    assert found == [at_or_below]


def test_quantiles_by_group_at_size() -> None:
    rng = np.random.default_rng(3)
    values = rng.lognormal(11, 1.2, 300_000).astype(np.int64)
    group = rng.integers(0, 3, len(values))
    rows = pl.LazyFrame({"v": values, "g": group})
    ladder = [0.5, 0.95, 0.99, 0.999, 1.0]
    found = quantiles.exact_quantiles(rows, pl.col("v"), ladder, ["g"])
    for key in range(3):
        own = values[group == key]
        assert found[(key,)] == np.quantile(own, ladder, method="inverted_cdf").tolist()


def test_the_distribution_is_exact_at_its_points() -> None:
    values = np.random.default_rng(4).lognormal(11, 1, 50_000).astype(np.int64)
    of = quantiles.distributions(pl.LazyFrame({"v": values}), pl.col("v"))[()]
    x, share = of.ecdf()
    assert of.n == 50_000
    assert of.mean == pytest.approx(values.mean())
    assert share[-1] == 1.0
    assert len(x) < 3_000
    at = len(x) // 2
    assert share[at] == pytest.approx((values <= x[at]).mean(), abs=1e-12)


def test_buckets_order_as_values_do() -> None:
    values = np.concatenate(
        [np.arange(-5, 3_000), 2 ** np.arange(12, 50), 2 ** np.arange(12, 50) - 1]
    )
    frame = pl.DataFrame({"v": np.sort(values)})
    buckets = frame.select(quantiles.bucket_expr(pl.col("v")))["bucket"].to_numpy()
    assert (np.diff(buckets) >= 0).all()


def test_failed_and_dropped_rows_have_no_latency() -> None:
    rows = pl.LazyFrame({"status": [0, 5, 0], "flags": pl.Series([0, 0, 128], dtype=pl.UInt32)})
    assert quantiles.completed(rows).collect().height == 1
