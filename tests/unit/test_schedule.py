"""Learning-rate schedules against their closed forms."""

from __future__ import annotations

import math

import pytest

from trainer.config.groups.schedule import ScheduleConfig
from trainer.optim.schedule import learning_rate

PEAK, STEPS, WARMUP = 2e-3, 1000, 100


def rate(config: ScheduleConfig, step: int) -> float:
    return learning_rate(config, PEAK, step, STEPS, WARMUP)


@pytest.mark.parametrize("kind", ["cosine", "wsd", "linear", "constant", "multistep"])
def test_warm_up_is_linear_and_never_zero(kind: str) -> None:
    config = ScheduleConfig(kind=kind)
    assert rate(config, 0) == pytest.approx(PEAK / WARMUP)
    assert rate(config, 49) == pytest.approx(PEAK / 2)
    assert rate(config, 99) == pytest.approx(PEAK)


def test_cosine() -> None:
    config = ScheduleConfig(kind="cosine", min_ratio=0.1)
    assert rate(config, 100) == pytest.approx(PEAK)
    assert rate(config, 550) == pytest.approx(PEAK * 0.55)
    assert rate(config, 775) == pytest.approx(PEAK * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.75))))
    assert rate(config, 1000) == pytest.approx(PEAK * 0.1)


def test_linear_and_constant() -> None:
    assert rate(ScheduleConfig(kind="linear", min_ratio=0.0), 550) == pytest.approx(PEAK / 2)
    assert rate(ScheduleConfig(kind="linear", min_ratio=0.5), 1000) == pytest.approx(PEAK / 2)
    assert {rate(ScheduleConfig(kind="constant"), s) for s in range(100, 1000, 50)} == {PEAK}


def test_wsd_is_flat_and_then_falls_in_a_line() -> None:
    config = ScheduleConfig(kind="wsd", decay_fraction=0.2, min_ratio=0.1)
    assert rate(config, 500) == PEAK
    assert rate(config, 800) == PEAK
    assert rate(config, 900) == pytest.approx(PEAK * 0.55)
    assert rate(config, 1000) == pytest.approx(PEAK * 0.1)
    assert rate(ScheduleConfig(kind="wsd", decay_fraction=0.0), 999) == PEAK


def test_deepseek_multistep() -> None:
    """x0.316 at 80 % and again at 90 % of training (arXiv:2401.02954, section 2.3)."""
    config = ScheduleConfig(kind="multistep", milestones=[0.8, 0.9], factor=0.316)
    assert rate(config, 799) == PEAK
    assert rate(config, 800) == pytest.approx(PEAK * 0.316)
    assert rate(config, 899) == pytest.approx(PEAK * 0.316)
    assert rate(config, 900) == pytest.approx(PEAK * 0.316**2)
    assert rate(config, 999) == pytest.approx(PEAK * 0.0999, rel=1e-3), "a tenth of the peak, as the paper says"
