"""Dropout against a reference in Python integers: rate, scale, independence; and who else draws is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.test_fake_step import MESH, MODEL, piece
from trainer.batch import NO_DRAW
from trainer.config.groups.model import ModelConfig
from trainer.data.draws import draw_keys, draw_keys_into
from trainer.errors import ConfigError
from trainer.models.decoder import CausalLM
from trainer.models.dropout import Dropout, locate, mixed
from trainer.models.family import Family, family_of
from trainer.models.sharding import sharding_plan
from trainer.rehearsal.rehearse import rehearse_rank

SIZE, TOKENS = 96, 4000


def lowbias32(x: int) -> int:
    """Wellons' hash of 32 bits, as published, without a sign."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def splitmix64(state: int, count: int) -> list[int]:
    """As published, in integers of any size."""
    found = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def located(p: float, place: str = "model.layers.3.mlp_dropout", size: int = SIZE) -> Dropout:
    dropout = Dropout(p, size)
    dropout.place = place
    return dropout


def keys(seed: int = 1, number: int = 0, tokens: int = TOKENS) -> torch.Tensor:
    return torch.from_numpy(draw_keys(seed, number, tokens)).unsqueeze(0)


def test_the_hash_is_the_published_one() -> None:
    values = [0, 1, -1, 2**31 - 1, -(2**31), *np.random.default_rng(3).integers(-(2**31), 2**31, 500).tolist()]
    ours = mixed(torch.tensor(values, dtype=torch.int32)).tolist()
    assert [value % 2**32 for value in ours] == [lowbias32(value % 2**32) for value in values]


def test_keys_are_the_published_stream() -> None:
    start = int.from_bytes(hashlib.blake2b(b"7|draws|41", digest_size=8).digest(), "little")
    assert draw_keys(7, 41, 50).tolist() == [value >> 33 for value in splitmix64(start, 50)]
    several = np.empty((3, 50), np.int64)
    draw_keys_into(7, 40, several)
    assert several[1].tolist() == draw_keys(7, 41, 50).tolist()
    assert several[2].tolist() == draw_keys(7, 42, 50).tolist()
    assert (
        len({*draw_keys(7, 41, 500).tolist(), *draw_keys(7, 42, 500).tolist(), *draw_keys(8, 41, 500).tolist()}) > 1498
    )


def test_a_mask_is_the_one_that_integers_give() -> None:
    dropout, some = located(0.3), keys(tokens=5)
    number = int.from_bytes(hashlib.blake2b(dropout.place.encode(), digest_size=4).digest(), "little")
    out = dropout(torch.ones(1, 5, SIZE), some)
    for token, key in enumerate(some[0].tolist()):
        hashes = [lowbias32(key ^ lowbias32(feature ^ number)) % 2**31 for feature in range(SIZE)]
        expected = [0.0 if value < round(0.3 * 2**31) else 1 / 0.7 for value in hashes]
        assert out[0, token].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_rate_is_p_for_every_token_and_feature(p: float) -> None:
    dropped = (located(p)(torch.ones(1, TOKENS, SIZE), keys()) == 0)[0].double()
    for rates, draws in ((dropped.mean(), dropped.numel()), (dropped.mean(0), TOKENS), (dropped.mean(1), SIZE)):
        # Six standard deviations of a binomial share: for some thousand of them, a chance of 1e-5.
        assert float((rates - p).abs().max()) < 6 * (p * (1 - p) / draws) ** 0.5


def test_places_samples_and_seeds_are_independent() -> None:
    def dropped(place: str = "a", seed: int = 1, number: int = 0) -> torch.Tensor:
        return (located(0.5, place)(torch.ones(1, TOKENS, SIZE), keys(seed, number)) == 0).double().flatten()

    first = dropped()
    for other in (dropped(place="b"), dropped(seed=2), dropped(number=1), first.roll(1), first.roll(SIZE)):
        # Of independent halves, half agree.
        assert abs(float((first == other).double().mean()) - 0.5) < 6 * 0.5 / first.numel() ** 0.5


def test_nothing_is_dropped_without_a_draw() -> None:
    x, some = torch.randn(1, 6, SIZE), keys(tokens=6)
    some[0, 3:] = NO_DRAW
    assert torch.equal(located(0.5)(x, some)[0, 3:], x[0, 3:])
    assert torch.equal(located(0.5)(x, None), x)
    assert torch.equal(located(0.0)(x, some), x)


def test_the_backward_pass_has_the_same_mask() -> None:
    x = torch.randn(1, 8, SIZE, requires_grad=True)
    out = located(0.4)(x, keys(tokens=8))
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x, out)


def test_no_mask_is_kept_for_the_backward_pass() -> None:
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        located(0.4)(torch.randn(1, 8, SIZE, requires_grad=True), keys(tokens=8))
    assert [tuple(tensor.shape) for tensor in kept] == [(1, 8)]


def test_nearly_everything_can_be_dropped() -> None:
    assert (located(1 - 1e-12)(torch.ones(1, 50, SIZE), keys(tokens=50)) == 0).all()


@pytest.mark.parametrize("shape", [(1, 6, SIZE // 2), (1, 3, SIZE)])
def test_a_cut_activation_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="whole activations between blocks"):
        located(0.5)(torch.ones(shape), keys(tokens=6))


def test_a_place_is_the_path() -> None:
    with torch.device("meta"):
        model = CausalLM(MODEL)
    locate(model)
    places = [module.place for module in model.modules() if isinstance(module, Dropout)]
    assert places[:3] == ["model.embed_dropout", "model.layers.0.self_attn_dropout", "model.layers.0.mlp_dropout"]
    assert len(set(places)) == 1 + 2 * MODEL.layers


class Added(CausalLM):
    """Adds dropouts after the decoder has told its own their places."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        for layer in self.model.layers.values():
            layer.mlp_dropout = Dropout(0.1, config.hidden)


def with_added(config: ModelConfig) -> Family:
    return Family(lambda: Added(config), sharding_plan(config))


def test_a_dropout_of_a_subclass_is_told_its_place() -> None:
    with torch.device("meta"):
        model = family_of(replace(MODEL, family=f"{__name__}:with_added")).build()
    places = [module.place for module in model.modules() if isinstance(module, Dropout)]
    assert len(set(places)) == 1 + 2 * MODEL.layers


def test_a_dropout_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="knows its place"):
        Dropout(0.1, SIZE)(torch.ones(1, 5, SIZE), keys(tokens=5))


class Drawing(CausalLM):
    """A model that uses torch's own dropout, as most code in the world does."""

    def logits(self, *args: torch.Tensor) -> torch.Tensor:
        return super().logits(*args)

    def forward(self, *args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, count = super().forward(*args)
        return nn.functional.dropout(loss, 0.1), count


def with_a_module(config: object) -> Family:
    def build() -> nn.Module:
        model = CausalLM(MODEL)
        model.model.add_module("noise", nn.Dropout(0.1))
        return model

    return Family(build, sharding_plan(MODEL))


def test_a_module_that_draws_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"model\.noise is torch's Dropout"):
        family_of(replace(MODEL, family=f"{__name__}:with_a_module"))


def test_a_function_that_draws_is_found_in_the_rehearsal() -> None:
    with pytest.raises(ConfigError, match="draws from torch's generator"):
        rehearse_rank(replace(piece(), build=lambda: Drawing(MODEL)), MESH)
