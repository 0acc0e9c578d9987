"""What a run stands on: which weights it leaves to its base, and how a resume finds them again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests import directories
from trainer.backends.common.peers import Peers
from trainer.backends.native.backend import NativeBackend
from trainer.checkpoint.base import without
from trainer.checkpoint.index import read_index
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.groups.optim import OptimConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.models.family import Family, family_of
from trainer.optim.adamw import MixedPrecisionAdamW
from trainer.parallel.mesh import Mesh
from trainer.pretrained.source import open_source
from trainer.run.directory import RunDirectory, config_yaml
from trainer.run.world import World
from trainer.training.base import Standing, stand, together
from trainer.training.initial import initial_weights
from trainer.training.resume import resume_or_initialise

FROZEN = ["model.layers.0.*", "model.embed_tokens.weight"]
LORA = AdapterConfig(kind="lora", rank=2, targets=["q_proj"], also_train=["*norm.weight"])
FILLED = 7.0


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    monkeypatch.chdir(tmp_path)
    return directories.write(Path("base"))


class Launch:
    """One launch of a run, up to its first step."""

    def __init__(self, precision: str = "fp32", adapter: AdapterConfig | None = None, **model: Any) -> None:
        dimensions = open_source("base").model if Path("base").exists() else open_source("elsewhere").model
        self.config = Config(
            task="pretrain",
            model=replace(dimensions, **({"init_from": "base"} | model)),
            adapter=adapter or AdapterConfig(),
        )
        self.family: Family = family_of(self.config.model, self.config.adapter)
        self.directory = RunDirectory(Path("run"), None)
        self.backend = NativeBackend(Mesh(0), _optimizer, 60.0)
        self.backend.setup()
        peers = Peers(dist.HashStore())
        self.standing: Standing | None = stand(
            self.config, self.family, self.directory.checkpoints, World(), peers, self.backend
        )
        self.backend.shard(self.family.build, self.family.plan, precision)

    def begin(self) -> TrainState:
        """Initial weights, or those of the newest checkpoint."""
        for placed in self.backend.store().model.values():
            placed.tensor.fill_(FILLED)
        mesh = self.backend.mesh
        return resume_or_initialise(
            self.directory,
            self.backend,
            lambda: initial_weights(self.config, self.family, mesh, {}, self.standing),
            0,
            100,
            {},
            [],
            {},
            self.standing,
        )

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: placed.tensor.clone() for name, placed in self.backend.store().model.items()}

    def save(self, state: TrainState, whole: bool = False) -> Path:
        """whole: with all weights, and no word of a base, as earlier versions did."""
        state.step += 1
        state.rng = self.backend.rng_state()
        store = self.backend.store()
        if whole:
            state.base = None
        elif self.standing is not None:
            store = without(store, self.standing.names)
        saver = Saver(self.directory.checkpoints, 0, config_yaml(self.config, Path("run")), {})
        return saver.save(store, state)


def _optimizer(parameters: Any, rules: Any, mode: str, counted: Any) -> MixedPrecisionAdamW:
    return MixedPrecisionAdamW(parameters, rules, OptimConfig(), mode, counted)


@pytest.mark.parametrize("precision", ["fp32", "bf16_mixed"])
@pytest.mark.parametrize("kind", ["frozen", "lora"])
def test_what_is_not_trained_is_read_from_the_base_again(
    base: dict[str, torch.Tensor], precision: str, kind: str
) -> None:
    given: dict[str, Any] = {"frozen": FROZEN} if kind == "frozen" else {"adapter": LORA}
    first = Launch(precision, **given)
    state = first.begin()
    checkpoint = first.save(state)
    held, before = set(read_index(checkpoint / "model")), first.weights()
    trained = {name for name, rule in first.family.plan.match(before).items() if rule.trainable}
    assert held == trained
    assert held < set(before)
    assert set(json.loads((checkpoint / "state.json").read_text())["base"]["files"]) == {
        "config.json",
        "model.safetensors",
    }
    second = Launch(precision, **given)
    second.begin()
    after = second.weights()
    assert after.keys() == before.keys()
    assert all(torch.equal(values, before[name]) for name, values in after.items())
    compute = torch.float32 if precision == "fp32" else torch.bfloat16
    for name in set(base) - trained:
        assert torch.equal(after[name], base[name].to(compute)), name


def test_a_checkpoint_that_holds_all_of_it_resumes_without_the_base() -> None:
    """Of an earlier version: and so do the checkpoints after it."""
    first = Launch(frozen=FROZEN)
    first.save(first.begin(), whole=True)
    before = first.weights()
    Path("base").rename("elsewhere")
    second = Launch(frozen=FROZEN)
    assert second.standing is None
    state = second.begin()
    assert all(torch.equal(values, before[name]) for name, values in second.weights().items())
    assert set(read_index(second.save(state) / "model")) == set(before)


def test_what_was_trained_once_and_is_frozen_now_stays_stored() -> None:
    first = Launch(frozen=FROZEN)
    state = first.begin()
    first.save(state)
    more = [*FROZEN, "model.norm.weight"]
    second = Launch(frozen=more)
    state = second.begin()
    assert "model.norm.weight" in read_index(second.save(state) / "model")
    third = Launch(frozen=FROZEN[:1])
    with pytest.raises(ConfigError, match=r"restore model\.frozen and adapter"):
        third.begin()


def test_another_base_is_refused_and_one_that_moved_is_named_anew() -> None:
    first = Launch(frozen=FROZEN)
    first.save(first.begin())
    before = first.weights()
    Path("base").rename("elsewhere")
    with pytest.raises(ConfigError, match="says where it is now"):
        Launch(frozen=FROZEN)
    second = Launch(frozen=FROZEN, init_from="elsewhere")
    state = second.begin()
    assert state.base is not None
    assert state.base.path == "elsewhere"
    assert all(torch.equal(values, before[name]) for name, values in second.weights().items())
    data = bytearray(Path("elsewhere/model.safetensors").read_bytes())
    data[-1] ^= 1
    Path("elsewhere/model.safetensors").write_bytes(data)
    third = Launch(frozen=FROZEN, init_from="elsewhere")
    with pytest.raises(ConfigError, match=r"model\.safetensors has another SHA-256"):
        third.begin()


def test_nothing_is_hashed_where_everything_is_trained_or_drawn() -> None:
    assert Launch().standing is None
    drawn = ModelConfig(hidden=16, layers=1, heads=2, kv_heads=2, mlp=16, vocab=32, frozen=["model.norm.weight"])
    backend = NativeBackend(Mesh(0), _optimizer, 60.0)
    backend.setup()
    config, peers = Config(task="pretrain", model=drawn), Peers(dist.HashStore())
    assert stand(config, family_of(drawn), Path("none"), World(), peers, backend) is None


def test_ranks_whose_bases_differ_in_a_byte_are_named() -> None:
    """Their headers are the same, and so is what is compared at the start of a launch."""
    source, peers = open_source("base"), Peers(dist.HashStore(), 0, 4)
    mine: list[dict[str, list[object]]] = [{"config.json": [3, "a"]}, {"model.safetensors": [5, "b"]}]
    assert list(together(mine * 2, source, peers)) == ["config.json", "model.safetensors"]
    with pytest.raises(ConfigError, match=r"model\.safetensors of rank 3 is not that of rank 1"):
        together([*mine, mine[0], {"model.safetensors": [5, "c"]}], source, peers)
