"""The bar of ``benchmarks/harm.py``: a difference within the noise passes, a larger one fails."""

from __future__ import annotations

import random

import pytest

from benchmarks.harm import Windows


def windows(seed: int, rise_s: float = 0.0, slow_share: float = 0.0) -> Windows:
    """Eight rounds of 200 cycles around 20 ms. With the exporter all are slower, some of them much slower."""
    rng = random.Random(seed)

    def window(rise_s: float, slow_share: float) -> list[float]:
        return [rng.gauss(0.020, 0.002) + rise_s + 0.1 * (rng.random() < slow_share) for _ in range(200)]

    made = Windows(1000)
    made.latencies = {kind: [window(0.0, 0.0) for _ in range(8)] for kind in ("off 1", "off 2")}
    made.latencies["exporter"] = [window(rise_s, slow_share) for _ in range(8)]
    return made


def test_noise_passes() -> None:
    assert sum(windows(seed).within("exporter") for seed in range(6)) >= 5


@pytest.mark.parametrize(("rise_s", "slow_share"), [(0.005, 0.0), (0.0, 0.02), (0.0, 0.01)])
def test_harm_fails(rise_s: float, slow_share: float) -> None:
    assert not any(windows(seed, rise_s, slow_share).within("exporter") for seed in range(3))


def test_the_spread_is_the_largest_difference_of_two_halves() -> None:
    made = Windows(1)
    made.latencies = {"off 1": [[0.001], [0.001]], "off 2": [[0.004], [0.002]]}
    assert made.spreads()["p50"] == pytest.approx(3.0)  # {1, 1} against {4, 2}
    assert made.figures(["off 2"])["longest"] == pytest.approx(4.0)
