"""A user's own source and optimizer, through the real entry point."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import harness
from tests.selection import long

pytestmark = pytest.mark.slow

MINE = '''
import torch
from pydoc_data.topics import topics


def documents(count, length=300):
    return [text[:length] for _, text in sorted(topics.items())[:count]]


def broken():
    return [b"bytes"]


class Lion(torch.optim.Optimizer):
    """arXiv:2302.06675, algorithm 2."""

    def __init__(self, params, lr, beta1=0.9, beta2=0.99):
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                update = (group["beta1"] * m + (1 - group["beta1"]) * p.grad).sign()
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
                m.mul_(group["beta2"]).add_(p.grad, alpha=1 - group["beta2"])
'''


WHOLE = '''

class Whole(torch.optim.Optimizer):
    """Divides each matrix's gradient by its norm: an update that a part of the matrix does not know."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad / (p.grad.norm() + 1e-6), alpha=group["lr"])


class Claimed(Whole):
    elementwise = True
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE + WHOLE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    harness.write_corpus(tmp_path / "corpus")
    return tmp_path


SOURCE = "data.sources=[{kind: plugin, _target_: mine.documents, options: {count: 40}}]"
OPTIMIZERS: dict[str, list[str]] = {
    "lion": ["optim.name=mine:Lion", "optim.options={beta1: 0.95}", "optim.lr=3e-4"],
    "sgd": ["optim.name=torch.optim:SGD", "optim.options={momentum: 0.9}", "optim.lr=0.1"],
    "adam": ["optim.name=torch.optim:AdamW", "optim.options={betas: [0.9, 0.95]}"],
}


@pytest.mark.parametrize("optimizer", ["sgd", *long("lion")])
def test_a_plugged_in_optimizer_learns_and_resumes_bitwise(mine: Path, optimizer: str) -> None:
    common = [*harness.SMALL, SOURCE, *OPTIMIZERS[optimizer], "precision=bf16_mixed", "precision.cpu_fallback=null"]
    assert harness.train(mine, [*common, "run.name=straight"]).code == 0
    done = harness.train(mine, [*common, "run.name=cut", "train.stop_after_steps=9"])
    assert done.code == 0, done.output
    done = harness.train(mine, [*common, "run.name=cut"])
    assert "resuming cut from step 9" in done.output
    straight, cut = (harness.records(mine / "runs" / name) for name in ("straight", "cut"))
    assert straight[-1]["loss"] < 0.97 * straight[0]["loss"]
    assert [(s["loss"], s["grad_norm"]) for s in straight] == [(s["loss"], s["grad_norm"]) for s in cut]
    harness.assert_same_checkpoint(
        *(mine / "runs" / name / "checkpoints" / "step-00000020" for name in ("straight", "cut"))
    )


@pytest.mark.long
def test_torchs_adamw_as_a_plug_in_gives_our_curve(mine: Path) -> None:
    """The same formula by another road: clipping, decay by name and bias correction agree."""
    plug = [*OPTIMIZERS["adam"], "run.name=plug"]
    for more in (["run.name=ours"], plug):
        done = harness.train(mine, [*harness.SMALL, SOURCE, "precision=fp32", *more])
        assert done.code == 0, done.output
    harness.assert_same_curve(harness.records(mine / "runs" / "ours"), harness.records(mine / "runs" / "plug"))


@pytest.mark.long
def test_an_optimizer_of_whole_matrices_is_refused_where_they_are_cut(mine: Path) -> None:
    """With data parallelism alone it gives the single process's curve; on shards it would silently be another."""
    common = [*harness.SMALL, SOURCE, "precision=fp32", "train.steps=6", "optim.lr=1e-2"]
    whole = [*common, "optim.name=mine:Whole"]
    for name, processes, layout in (("one", 1, []), ("two", 2, [])):
        done = harness.train(mine, [*whole, f"run.name={name}", *layout], processes)
        assert done.code == 0, done.output
    harness.assert_same_curve(harness.records(mine / "runs" / "one"), harness.records(mine / "runs" / "two"))
    for name, layout in (("tp", ["parallel.tp=2"]), ("zero", ["parallel.zero=1"])):
        harness.train(mine, [*whole, f"run.name={name}", *layout], 2)
        ended = json.loads((mine / "runs" / name / "exit.json").read_text())
        assert ended["code"] == 3
        assert ended["problems"][0]["key"] == "optim.name"
        assert "parallel.tp=1 parallel.zero=0" in ended["problems"][0]["remedy"]
    done = harness.train(mine, [*common, "optim.name=mine:Claimed", "run.name=claimed", "parallel.tp=2"], 2)
    assert done.code == 0, done.output


def test_a_plugged_in_source_is_known_by_its_documents(mine: Path) -> None:
    common = [*harness.SMALL, SOURCE, "precision=fp32"]
    assert harness.train(mine, [*common, "train.stop_after_steps=2"]).code == 0
    (mine / "mine.py").write_text(MINE.replace("[:count]", "[1:count]"))
    done = harness.train(mine, common)
    assert done.code == 3
    assert "trained on other content" in done.output


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        (["optim.name=nowhere:Lion"], 3, "PYTHONPATH"),
        (["optim.name=Lion"], 3, "module:maker"),
        (["optim.name=torch.optim:NAdam"], 3, "element-wise"),
        (["data.sources=[{kind: plugin, _target_: mine.broken}]"], 4, "yields documents"),
        *long(
            (["optim.name=mine:Lyon"], 3, "Lyon"),
            (["optim.name=mine:Lion", "optim.options={nope: 1}"], 3, "takes its options"),
            (["optim.options={beta: 1}"], 3, "module:maker"),
            (["data.sources=[{kind: plugin}]"], 3, "_target_"),
            (["data.sources=[{kind: plugin, _target_: mine.documents}]"], 3, "takes its options"),
        ),
    ],
)
def test_mistakes_of_a_plug_in_are_explained(mine: Path, overrides: list[str], code: int, words: str) -> None:
    done = harness.train(mine, [*harness.SMALL, SOURCE, *overrides])
    assert done.code == code, done.output
    assert words in done.output
    assert "Traceback" not in done.output
