"""Layouts share one state: initial weights are bitwise equal, and each layout reads the others' checkpoints bitwise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests import harness
from tests.distributed.test_layouts import HEADS, LAYOUTS

pytestmark = pytest.mark.slow

EXCHANGED = ["one", "tp2", "tp4", "dp2-tp2"]
"""Between them: no cut, replicated heads, padding, and two axes; with 9 query and 3 key-value heads."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of 13 steps in every layout, with a checkpoint at step 10."""
    cwd = tmp_path_factory.mktemp("exchange")
    harness.write_corpus(cwd / "corpus")
    for layout in EXCHANGED:
        processes, tp = LAYOUTS[layout]
        overrides = [*harness.SMALL, *HEADS["9/3"], "data.sources=[{paths: [corpus]}]", "precision=fp32"]
        overrides += [f"run.name={layout}", f"parallel.tp={tp}", "checkpoint.every_steps=10", "checkpoint.keep=0"]
        done = harness.train(cwd, [*overrides, "train.stop_after_steps=13"], processes)
        assert done.code == 0, done.output
    return cwd


def work(cwd: Path, job: str, config: Path, layout: str, *more: str) -> Path:
    """Run worker.py in a layout; where it left its findings."""
    processes, tp = LAYOUTS[layout]
    out = cwd / f"{job}-{config.parent.name}-{layout}"
    out.mkdir()
    arguments = [job, str(config), str(tp), str(out), *more]
    harness.work(Path(__file__).with_name("worker.py"), arguments, processes, cwd)
    return out


@pytest.mark.parametrize("precision", ["fp32", "bf16_mixed"])
def test_initial_parameters_are_bitwise_equal(workspace: Path, precision: str) -> None:
    """Every box of every rank, replicas included, is the single process's slice of it."""
    config = workspace / "runs" / "one" / "config.yaml"
    if precision != "fp32":
        text = config.read_text().replace("mode: fp32", f"mode: {precision}")
        config = workspace / precision / "config.yaml"
        config.parent.mkdir()
        config.write_text(text)
    (alone,) = work(workspace, "initial", config, "one").glob("*.safetensors")
    one = {key.partition("@")[0]: values for key, values in load_file(alone).items()}
    for layout in ("tp2", "tp4", "dp2-tp2") if precision == "fp32" else ("tp4",):
        ranks = sorted(work(workspace, "initial", config, layout).glob("*.safetensors"))
        assert len(ranks) == LAYOUTS[layout][0]
        for rank in ranks:
            seen = set()
            for key, values in load_file(rank).items():
                name, _, offsets = key.partition("@")
                place = tuple(slice(int(o), int(o) + n) for o, n in zip(offsets.split(","), values.shape, strict=True))
                assert torch.equal(values, one[name][place]), (layout, key)
                seen.add(name)
            assert seen <= one.keys()


def whole_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors put together from their chunks, each index written exactly once."""
    tensors = {}
    for part in ("model", "optimizer"):
        for name, entry in json.loads((checkpoint / part / "index.json").read_text())["tensors"].items():
            tensor, covered = torch.full(entry["shape"], math.nan), 0
            for chunk in entry["chunks"]:
                place = tuple(slice(o, o + n) for o, n in zip(chunk["offsets"], chunk["sizes"], strict=True))
                with safe_open(checkpoint / part / chunk["file"], framework="pt") as reader:
                    tensor[place] = reader.get_tensor(chunk["key"])
                covered += math.prod(chunk["sizes"])
            assert covered == tensor.numel()
            assert not tensor.isnan().any(), name
            tensors[f"{part} {name}"] = tensor
    return tensors


@pytest.mark.parametrize("layout", EXCHANGED)
def test_each_layout_reads_the_others_bitwise_and_goes_on(workspace: Path, layout: str) -> None:
    runs = [workspace / "runs" / source for source in EXCHANGED]
    sources = [run / "checkpoints" / "step-00000010" for run in runs]
    straight = harness.records(workspace / "runs" / "one")[10:13]
    out = work(workspace, "reload", runs[0] / "config.yaml", layout, *map(str, sources))
    for index, source in enumerate(sources):
        expected = whole_tensors(source)
        actual = whole_tensors(out / str(index) / "step-00000010")
        assert expected.keys() == actual.keys()
        assert len(expected) == 3 * (3 + 2 * 12)
        assert any(name.startswith("optimizer exp_avg_sq") and values.any() for name, values in expected.items())
        for name in expected:
            assert torch.equal(expected[name], actual[name]), (EXCHANGED[index], name)
        harness.assert_same_curve(straight, json.loads((out / str(index) / "curve.json").read_text()))


def test_a_gradient_that_is_not_finite_on_one_rank_touches_nothing(workspace: Path) -> None:
    for layout in ("tp4", "dp2-tp2"):
        work(workspace, "poison", workspace / "runs" / "one" / "config.yaml", layout)
