"""The step's graph on XLA's CPU: what it multiplies, in which precision, and that it never leaves the device."""

from __future__ import annotations

import pytest

from tests.neuron.library import DOUBLE, lazily
from tests.ranks import Outcomes, Task, attempt
from tests.recipes.test_full_size import configured
from trainer.config.arithmetic import flops_per_token

VARIANTS = ["fp32/none", "bf16_mixed/none", "bf16/none", "bf16_mixed/full"]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(True, marks=pytest.mark.nxd, id="source"),
        pytest.param(False, marks=pytest.mark.slow, id="double"),
    ],
)
def graphs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    source = request.getfixturevalue("nxd_source") if request.param else DOUBLE
    tasks = {variant: Task("tests.neuron.step_graph:graph", 1, {"variant": variant}) for variant in VARIANTS}
    return attempt(tasks, tmp_path_factory.mktemp("graphs"), lazily(source))


def forward() -> tuple[int, int, int]:
    """FLOPs of a microbatch's forward pass, twice a multiplication: of the layers without their last product, which is
    the feed-forward's; of that; and of the head. Attention multiplies the whole square of positions.
    """
    config = configured("tiny")
    model, tokens = config.model, config.train.microbatch * config.data.seq_len
    head = model.head_dim or model.hidden // model.heads
    projections = 2 * model.hidden * (model.heads + model.kv_heads) * head + 2 * model.hidden * model.mlp
    scores_and_values = 2 * model.heads * head * config.data.seq_len
    layers = 2 * tokens * model.layers * (projections + scores_and_values)
    down = 2 * tokens * model.layers * model.mlp * model.hidden
    return layers, down, 2 * tokens * model.hidden * model.vocab


@pytest.mark.parametrize("variant", ["fp32/none", "bf16_mixed/none", "bf16/none"])
def test_it_multiplies_what_the_model_asks_for(graphs: Outcomes, variant: str) -> None:
    """A backward pass takes two products for each of the forward's (Kaplan et al. 2020, arXiv:2001.08361, 2.1)."""
    assert graphs[variant][0]["flops"] == pytest.approx(3 * sum(forward()), rel=0.01)


def test_the_formula_is_the_projects() -> None:
    """But for attention, of which a causal model needs half."""
    config = configured("tiny")
    model, seq = config.model, config.data.seq_len
    head = model.head_dim or model.hidden // model.heads
    unseen = 6 * model.layers * model.heads * head * seq
    tokens = config.train.microbatch * seq
    assert 3 * sum(forward()) == (flops_per_token(model, seq) + unseen) * tokens


def test_recomputation_is_one_forward_more(graphs: Outcomes) -> None:
    """Of the layers, up to their last product, which the backward pass does not look at."""
    extra = graphs["bf16_mixed/full"][0]["flops"] - graphs["bf16_mixed/none"][0]["flops"]
    assert extra == pytest.approx(forward()[0], rel=0.01)


@pytest.mark.parametrize("variant", VARIANTS)
def test_products_have_the_models_dtype_and_the_rest_is_fp32(graphs: Outcomes, variant: str) -> None:
    """Softmax, loss, rotary tables and the norms' statistics are FP32 in every mode (the numerics contract)."""
    [here] = graphs[variant]
    assert here["dtypes"] == ["f32" if variant.startswith("fp32") else "bf16"]
    for function in ("exponential", "log", "cosine", "sine", "rsqrt"):
        assert here["functions"][function] == ["f32"], function


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_stays_on_the_device(graphs: Outcomes, variant: str) -> None:
    """ZeRO-1's collectives are there even where it has nobody to share with: NxD does not ask."""
    [here] = graphs[variant]
    assert not here["host"]
    assert not here["dynamic"]
    assert here["ranks"] == [1]
