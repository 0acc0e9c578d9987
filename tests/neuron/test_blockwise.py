"""Attention block by block of keys against PyTorch's with a dense mask: values and gradients of all that a mask can be.

Blocks have 16 keys here. Bounds are on the largest difference, over the largest value: BF16 has 8 bits.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.neuron.blockwise_worker import BLOCK, CASES, apart, blockwise, dense
from tests.neuron.library import DOUBLE, lazily, over_gloo
from tests.ranks import Outcomes, Task, attempt, run
from tests.recipes.test_full_size import configured
from trainer.trainium import blocks

BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 1e-2}
"""Plain attention's too."""


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", CASES)
def test_it_is_pytorchs_attention(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    assert apart(blockwise(CASES[name], dtype), dense(CASES[name])) < BOUNDS[dtype]


@pytest.mark.slow
def test_it_is_plain_attention(tmp_path: Path) -> None:
    """In BF16 as near to FP64 as plain attention, but that parts of a sum, of each block, are rounded one by one."""
    [found] = run(Task("tests.neuron.blockwise_worker:beside_plain"), tmp_path, over_gloo(DOUBLE))
    assert set(found) == set(CASES)
    for name, (difference, mine, plain, ratio) in found.items():
        assert difference < BOUNDS[torch.float32], name
        assert max(mine, plain) < BOUNDS[torch.bfloat16], name
        assert ratio < 1.25, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["window of documents", pytest.param("two ranks", marks=pytest.mark.long)])
def test_it_is_pytorchs_on_lazy_tensors(name: str, tmp_path: Path) -> None:
    task = Task("tests.neuron.blockwise_worker:on_lazy_tensors", 1, {"name": name}, seconds=300)
    [found] = run(task, tmp_path, lazily(DOUBLE))
    for difference, bound in zip(found, BOUNDS.values(), strict=True):
        assert difference < bound


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """By recomputation and length of the sample, a step's graph."""
    tasks = {
        (kind, seq): Task("tests.neuron.step_graph:graph", 1, {"variant": f"bf16_mixed/{kind}", "seq_len": seq})
        for kind, seq in (("none", 512), ("none", 2048), ("full", 2048))
    }
    return attempt(tasks, tmp_path_factory.mktemp("steps"), lazily(DOUBLE))


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_a_step_of_2048_tokens_has_no_square(recompute: str, steps: Outcomes) -> None:
    """No tensor of its graph has two dims of that length. One of 512 tokens, which is one block, has its scores."""
    assert "f32[1,4,512,512]" in steps["none", 512][0]["squares"]
    [here] = steps[recompute, 2048]
    assert here["squares"] == []
    assert not here["host"]
    assert not here["dynamic"]
    assert here["barriers"] == configured("tiny").model.layers * {"none": 2, "full": 4}[recompute]


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_it_multiplies_strips_from_the_diagonal_down(recompute: str, steps: Outcomes) -> None:
    """512 keys by all queries from theirs on. Two products of the forward pass, four of the backward pass, and there
    the scores once more (Dao et al. 2022, arXiv:2205.14135, appendix B); a recomputed layer runs forward once more, up
    to the feed-forward's last product.
    """
    model, seq = configured("tiny").model, 2048
    head = model.hidden // model.heads
    projections = 2 * model.hidden * (model.heads + model.kv_heads) * head + 2 * model.hidden * model.mlp
    down, vocabulary = model.hidden * model.mlp, model.hidden * 512
    product = 2 * model.layers * model.heads * head * 512 * (2048 + 1536 + 1024 + 512)
    expected = 3 * 2 * seq * (model.layers * (projections + down) + vocabulary) + (2 + 4 + 1) * product
    if recompute == "full":
        expected += 2 * seq * model.layers * projections + 2 * product
    assert steps[recompute, 2048][0]["flops"] == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
@pytest.mark.long
def test_a_compiler_finds_one_block_at_a_time(tmp_path: Path) -> None:
    """By XLA's own report for a CPU, whose compiler drops barriers and computes side by side what it can.

    A block's scores, 4 heads x 512 x 2,048, are 16 MiB; all of a layer's 40, and plain attention keeps 64. A layer
    keeps queries, keys, values and what they were made from, 1 MiB each, and its log-sum-exps.
    """
    used = {}
    for layers in (1, 3):
        dump = tmp_path / str(layers)
        setting = replace(
            lazily(DOUBLE), environment={**lazily(DOUBLE).environment, "XLA_FLAGS": f"--xla_dump_to={dump}"}
        )
        run(Task("tests.neuron.blockwise_worker:run_layers", 1, {"layers": layers}, seconds=300), tmp_path, setting)
        reports = [report.read_text() for report in dump.glob("*memory-usage-report.txt")]
        used[layers] = max(int(re.findall(r"Total bytes used: (\d+)", report)[0]) for report in reports) / 2**20
    assert used[1] < 6 * 16
    assert (used[3] - used[1]) / 2 < 8
