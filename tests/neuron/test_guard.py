"""Mistakes in a step on the real lazy tensors, each caught with a message that names it; and a step without any."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from tests.neuron.library import LAZY
from tests.ranks import Outcomes, Setting, Task, attempt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed"),
]

# By scenario of lazy_step.py: the phase, the steps before it was noticed, and what the message must say.
CAUGHT: dict[str, tuple[str, int, list[str]]] = {
    "BatchSize": ("forward-backward", 4, ["int64[2, 4] on cpu -> int64[3, 4]", "self.loss(", "pad the batch"]),
    "SequenceLength": ("forward-backward", 4, ["int64[2, 4] on cpu -> int64[2, 5]", "self.loss(", "pad the batch"]),
    "Microbatches": ("forward-backward", 4, ["len(tokens): 2 -> 3"]),
    "LearningRateOne": ("optimizer", 5, ["lr: 0.5 -> 1.0", "0, 1 or -1", "momentum * -self.lr", "device tensor"]),
    "LearningRateZero": ("optimizer", 5, ["lr: 0.5 -> 0.0", "0, 1 or -1", "momentum * -self.lr", "device tensor"]),
    "Exponent": ("forward-backward", 4, ["exponent: 2.0 -> 3.0", "aten::pow", "** self.exponent"]),
    "Precision": ("forward-backward", 4, ["torch.float32 -> torch.bfloat16", "bf16[2,4,16]"]),
    "EvaluationShape": ("evaluation", 6, ["samples: 2 -> 1", "s64[1,4] in place of aten::expand s64[2,4]"]),
    "Item": ("forward-backward", 2, ["host read", "if loss.item() > 1e9", "Deferred"]),
    "Print": ("forward-backward", 2, ["host read", 'print(f"loss {loss}")', "Deferred"]),
    "DataBranch": ("forward-backward", 2, ["host read", "if loss > 0", "Deferred"]),
    "FinishedRead": ("forward-backward", 3, ["host read(s)", "occurrence 3 makes", "Deferred"]),
    "FirstMicrobatch": (
        "forward-backward",
        4,
        ["aten::add", "loss.backward()", "all state made before the first step"],
    ),
    "StepBranch": ("optimizer", 5, ["has aten::clamp", "self.momentum[0].clamp_", "no branch on a step number"]),
    "Shorter": ("optimizer", 5, ["ends where the compiled ones go on with aten::clamp", "device.sync()"]),
    "LateState": ("optimizer", 5, ["goes on with aten::expand f32[7]", "torch.ones(7", "all state made before"]),
    "KeptAlive": ("forward-backward", 5, ["outputs: 8 -> 9, with f32[]", "keep the same tensors alive"]),
    "Elsewhere": ("forward-backward", 5, ["with f32[16,8]", "multiply", "compute nothing between phases"]),
}
WORKER = "tests.neuron.lazy_step"
AFTERWARDS = {"KeptAlive", "Elsewhere"}
"""The trace is the known one: seen by the counters, when the graph has been compiled. All others are seen before."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All scenarios, and which there are."""
    tasks = {name: Task(f"{WORKER}:play", 1, {"mistake": name}) for name in (*CAUGHT, None)}
    return attempt({**tasks, "names": Task(f"{WORKER}:names")}, tmp_path_factory.mktemp("lazy"), Setting(LAZY))


def test_every_scenario_is_expected(outcomes: Outcomes) -> None:
    [names] = outcomes["names"]
    assert set(names) == set(CAUGHT)


@pytest.mark.parametrize("name", CAUGHT)
def test_a_mistake_is_named(outcomes: Outcomes, name: str) -> None:
    phase, steps, words = CAUGHT[name]
    [outcome] = outcomes[name]
    assert outcome["message"], outcome
    assert (outcome["code"], outcome["steps"]) == (3, steps)
    assert f"1. phase {phase} = " in outcome["message"]
    assert [word for word in words if word not in outcome["message"]] == []


@pytest.mark.parametrize("name", sorted(set(CAUGHT) - AFTERWARDS))
def test_nothing_is_compiled_for_a_mistake(outcomes: Outcomes, name: str) -> None:
    """Warm-up's graphs are all there are: one a phase, and one more where a read cuts forward-backward in two."""
    cut = name in ("Item", "Print", "DataBranch")
    assert outcomes[name][0]["graphs"] == {"forward-backward": 1 + cut, "optimizer": 1, "evaluation": 1}


def eager_losses(steps: int) -> list[float]:
    """lazy_step's training, written again for eager PyTorch on the CPU."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9), []
    for number in range(1, steps + 1):
        loss = 2 * (model(torch.full((2, 4), number % 16)) ** 2).mean() * 0.05  # two equal microbatches
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_clean_loop(outcomes: Outcomes) -> None:
    """30 steps: two graphs a step and one for evaluation, nothing outside; each step's own loss arrives."""
    [clean] = outcomes[None]
    assert clean["message"] is None, clean
    assert clean["steps"] == 30
    once = {"forward-backward": 1, "optimizer": 1, "evaluation": 1}
    assert clean["graphs"] == clean["launches"] == once
    assert clean["outside"] == [0, 0]
    assert clean["losses"] == pytest.approx(eager_losses(30), rel=1e-4)
