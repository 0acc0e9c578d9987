"""A real model in a rank, for test_smollm2.py."""

from __future__ import annotations

from dataclasses import replace

import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from recipes.parts import make_backend
from tests import harness
from trainer.batch import Batch
from trainer.commands import entry
from trainer.config.compose import to_config
from trainer.models.decoder import CausalLM
from trainer.models.sharding import sharding_plan
from trainer.parallel.boxes import Box
from trainer.rules.derived import derive
from trainer.run.world import World


def loss(tp: int) -> float:
    """SmolLM2's loss on the tokens in the working directory, cut over ``tp`` processes."""
    entry.register_schema()
    # The model alone: recipe=smollm2_135m pretrains it, on shorter contexts with another rotary base.
    with initialize_config_dir(str(harness.ROOT / "conf"), version_base="1.3"):
        config = to_config(compose("train", overrides=["recipe=tiny", "model=smollm2_135m", f"parallel.tp={tp}"]))
    world = World.from_environment()
    backend = make_backend(config, derive(config, world), world)
    backend.setup()
    config = replace(config, precision=replace(config.precision, mode="fp32"))
    backend.shard(lambda: CausalLM(config.model), sharding_plan(config.model), "fp32")
    weights, batch = load_file("weights.safetensors"), load_file("batch.safetensors")

    def value(box: Box) -> torch.Tensor:
        """The box's part of the real weight."""
        assert tuple(weights[box.name].shape) == box.shape
        return weights[box.name][tuple(slice(o, o + n) for o, n in zip(box.offsets, box.sizes, strict=True))]

    backend.load_initial(value)
    tokens, labels = batch["tokens"], batch["labels"]
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    total, targets = backend.evaluate([Batch.undrawn(tokens, labels, positions, torch.zeros_like(tokens))])
    backend.close()
    return total / targets
