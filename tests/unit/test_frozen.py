"""Frozen parameters: what a plan refuses, what a rank no longer holds, and gradients that flow through."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.unit.test_fake_step import MESH, MODEL, piece
from tests.unit.test_model import documents
from trainer.backends.native.backend import NativeBackend
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.optim import OptimConfig
from trainer.errors import ConfigError
from trainer.models.decoder import CausalLM
from trainer.models.family import family_of
from trainer.models.initialise import Initialiser
from trainer.models.loss import summed_cross_entropy
from trainer.models.sharding import sharding_plan
from trainer.optim.adamw import MixedPrecisionAdamW
from trainer.parallel.mesh import Mesh
from trainer.rehearsal.rehearse import rehearse_rank

HALF = ["model.embed_tokens.weight", "model.layers.0.*", "model.layers.1.self_attn.*", "*.2.self_attn.[kv]_proj.*"]
"""Of MODEL: half of its elements, to a percent."""


def backend_of(frozen: list[str], precision: str) -> NativeBackend:
    family = family_of(replace(MODEL, frozen=frozen))
    backend = NativeBackend(
        Mesh(0),
        lambda parameters, rules, mode, counted: MixedPrecisionAdamW(parameters, rules, OptimConfig(), mode, counted),
        60.0,
    )
    backend.setup()
    backend.shard(family.build, family.plan, precision)
    backend.load_initial(Initialiser(family.plan, 7))
    return backend


@pytest.mark.parametrize(
    ("frozen", "told"),
    [
        (["model.layers.9.*"], "each glob matches a parameter"),
        (["*"], "a parameter is left to train"),
        (["model.*", "lm_head.weight"], "a parameter is left to train"),
        (["model.embed_token.weight"], "a glob such as model.embed_tokens.weight"),
    ],
)
def test_globs_that_say_nothing_or_everything_are_mistakes(frozen: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        family_of(replace(MODEL, frozen=frozen))


def test_adapters_that_are_all_frozen_are_told_by_the_key_that_does_it() -> None:
    with pytest.raises(ConfigError, match="a parameter is left to train") as raised:
        family_of(replace(MODEL, frozen=["*.lora_[AB]"]), AdapterConfig(kind="lora", rank=2))
    assert [problem.key for problem in raised.value.problems] == ["model.frozen"]


def test_a_tied_head_is_named_by_its_embedding() -> None:
    tied = replace(MODEL, tied=True)
    assert not family_of(replace(tied, frozen=["*.embed_tokens.*"])).plan.rule("model.embed_tokens.weight").trainable
    with pytest.raises(ConfigError, match=r"model\.embed_tokens\.weight, to which the head is tied"):
        family_of(replace(tied, frozen=["lm_head.weight"]))


@pytest.mark.parametrize("precision", ["fp32", "bf16_mixed", "bf16"])
def test_half_frozen_is_half_the_optimizer(precision: str) -> None:
    """Measured by the storages that are alive, of gradients, moments and masters."""
    plan = sharding_plan(MODEL)
    with torch.device("meta"):
        counts = {name: p.numel() for name, p in CausalLM(MODEL).named_parameters()}
    rules = plan.freezing(HALF, counts).match(counts)
    share = sum(count for name, count in counts.items() if rules[name].trainable) / sum(counts.values())
    assert 0.49 < share < 0.51

    alone = replace(MESH, rank=0, tp=1, dp=1)
    whole = rehearse_rank(piece(precision, 2), alone).static
    half = rehearse_rank(replace(piece(precision, 2), plan=plan.freezing(HALF, counts)), alone).static
    assert half.parameters == whole.parameters, "in the dtype of the computation, frozen or not"
    assert half.optimizer == pytest.approx(share * whole.optimizer, rel=1e-3)
    assert half.gradients == pytest.approx(share * whole.gradients, rel=0.1)  # whole rows of 16,384 elements


@pytest.mark.parametrize("precision", ["fp32", "bf16_mixed"])
def test_frozen_parameters_stay_and_the_others_get_the_gradients_that_they_had(precision: str) -> None:
    """Plain autograd of the model that nobody froze is the reference."""
    whole, half = backend_of([], precision), backend_of(HALF, precision)
    before = {name: placed.tensor.clone() for name, placed in half.store().model.items()}
    batch = documents(MODEL)
    for backend in (whole, half):
        backend.forward_backward([batch], 1 / 90)
    trained = half._optimizer.masters
    assert 0 < len(trained) < len(before)
    for name in trained:
        assert torch.equal(half._optimizer.gradient(name), whole._optimizer.gradient(name)), name
    half.clip_and_apply(1e-3)
    after = half.store().model
    assert list(after) == list(before) == list(whole.store().model)
    for name, placed in after.items():
        assert torch.equal(placed.tensor, before[name]) == (name not in trained), name
    dtypes = {placed.tensor.dtype for name, placed in after.items() if name not in trained}
    assert dtypes == {torch.float32 if precision == "fp32" else torch.bfloat16}


def test_the_loss_works_out_only_the_gradients_that_are_wanted() -> None:
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(12, 8, generator=draw), torch.randn(20, 8, generator=draw)
    labels = torch.randint(0, 20, (12,), generator=draw)
    found = {}
    for wanted in ((True, True), (True, False), (False, True)):
        hidden, head = (v.clone().requires_grad_(w) for v, w in zip(values, wanted, strict=True))
        summed_cross_entropy(hidden, head, labels, 5).backward()
        found[wanted] = hidden.grad, head.grad
    assert found[True, False][1] is None
    assert found[False, True][0] is None
    assert torch.equal(found[True, False][0], found[True, True][0])
    assert torch.equal(found[False, True][1], found[True, True][1])


def test_a_rank_may_have_nothing_to_train() -> None:
    optimizer = MixedPrecisionAdamW({}, {}, OptimConfig(), "bf16_mixed")
    norm = optimizer.squared_norm().sqrt()
    assert norm == 0
    assert bool(optimizer.update(1e-3, norm))
    assert (optimizer.updates, optimizer.moments()) == (1, {})
    assert not bool(optimizer.update(1e-3, torch.tensor(float("nan"))))
    assert optimizer.updates == 1
