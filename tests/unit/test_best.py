"""The best checkpoint: by which evaluation it is known, and that it stays."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from trainer.checkpoint.names import checkpoints, step_of
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import Best, TrainState
from trainer.checkpoint.strict_json import Unsound
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.observe.records import EvaluationRecord, SetRecord
from trainer.parallel.boxes import Store
from trainer.training.best import best_of, exhausted


def records(loss: float, acc: float = 0.5) -> list[EvaluationRecord | SetRecord]:
    return [
        EvaluationRecord(0, 0, loss, loss / 2, 3.0, 0.1, ""),
        SetRecord(0, 0, "wiki", {"loss": 2 * loss, "bits_per_byte": loss}, 0.1),
        SetRecord(0, 0, "quiz", {"acc": acc}, 0.1),
    ]


def walk(wanted: str, values: list[tuple[float, float]]) -> list[int | None]:
    """The best step after each evaluation."""
    best: Best | None = None
    found: list[int | None] = []
    for step, (loss, acc) in enumerate(values, 1):
        best = best_of(wanted, records(loss, acc), step, best)
        found.append(None if best is None else best.step)
    return found


def test_less_loss_and_more_accuracy_are_better_and_an_equal_one_is_not() -> None:
    losses = [(3.0, 0.1), (2.0, 0.4), (2.0, 0.4), (2.5, 0.3), (1.0, 0.6)]
    for metric in ("heldout/loss", "heldout/bits_per_byte", "wiki/loss", "wiki/bits_per_byte", "quiz/acc"):
        assert walk(metric, losses) == [1, 2, 2, 2, 5], metric


def test_what_is_not_finite_is_never_best() -> None:
    nan = math.nan
    assert walk("heldout/loss", [(nan, 0.1), (2.0, 0.1), (nan, 0.1), (-math.inf, 0.1)]) == [None, 2, 2, 2]
    assert walk("quiz/acc", [(1.0, nan), (1.0, 0.0)]) == [None, 2]


def test_another_metrics_best_counts_for_nothing() -> None:
    before = Best("heldout/loss", 0.1, 7)
    assert best_of("wiki/loss", records(3.0), 9, before) == Best("wiki/loss", 6.0, 9)
    assert best_of("wiki/loss", [], 9, before) is None
    assert best_of("heldout/loss", records(3.0), 9, before) == before


def test_retention_keeps_the_best_beside_the_newest(tmp_path: Path) -> None:
    saver = Saver(tmp_path, 2, "", {})
    best = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 6, 7: 6}
    kept = {}
    for step, at in best.items():
        saver.save(Store({}, {}), TrainState(step=step, best=Best("heldout/loss", 1.0, at)))
        kept[step] = [step_of(path) for path in checkpoints(tmp_path)]
    assert kept == {1: [1], 2: [2, 1], 3: [3, 2], 4: [4, 3, 2], 5: [5, 4, 2], 6: [6, 5], 7: [7, 6]}


def test_the_best_is_part_of_a_checkpoint_and_may_be_missing_in_an_older_one() -> None:
    state = TrainState(step=4, updates=4, best=Best("quiz/acc", 0.25, 3))
    value = state.to_json()
    assert value["best"] == {"metric": "quiz/acc", "value": 0.25, "step": 3}
    assert TrainState.from_json(value, state.data_json()) == state
    del value["best"]
    assert TrainState.from_json(value, state.data_json()).best is None


@pytest.mark.parametrize(
    "best", [[], {"metric": "a/loss"}, {"metric": 1, "value": 1, "step": 1}, {"metric": "a", "value": "1", "step": 1},
             {"metric": "a", "value": True, "step": 1}, {"metric": "a", "value": 1.0, "step": -1}]
)  # fmt: skip
def test_a_damaged_best_is_unsound(best: object) -> None:
    value = TrainState(step=1, updates=1).to_json() | {"best": best}
    with pytest.raises(Unsound):
        TrainState.from_json(value, TrainState().data_json())


def test_patience_counts_evaluations_since_the_best_one() -> None:
    config = EvaluationConfig(every_steps=10, best="heldout/loss", patience=3)
    best = Best("heldout/loss", 1.0, 20)
    assert [step for step in range(20, 61, 10) if exhausted(config, step, best)] == [50, 60]
    assert not exhausted(config, 60, None)
    assert not exhausted(config, 60, Best("wiki/loss", 1.0, 20)), "what was best by another metric counts for nothing"
    assert not exhausted(EvaluationConfig(every_steps=10, best="heldout/loss"), 10_000, best)
