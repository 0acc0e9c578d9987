"""Under torchrun: build the backend as the recipe does, and write a digest of each initial weight."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from recipes.pretrain import make_backend
from trainer.config import Config, ModelConfig, PrecisionConfig
from trainer.derive import derive
from trainer.models.decoder import CausalLM
from trainer.models.initialise import Initialiser
from trainer.models.sharding import sharding_plan
from trainer.world import World

precision = sys.argv[2]
config = Config(
    model=ModelConfig(hidden=64, layers=2, mlp=96, vocab=512, tied=True), precision=PrecisionConfig(precision)
)
config = replace(config, train=replace(config.train, steps=1))
world = World.from_environment()
backend = make_backend(config, derive(config, world), world)
backend.setup()
backend.shard(lambda: CausalLM(config.model), sharding_plan(config.model), precision)
backend.load_initial(Initialiser(config.model, seed=11))
tensors = {f"master {name}": placed.tensor for name, placed in backend.store().model.items()}
tensors |= {f"model {name}": p.detach().float() for name, p in backend.model.named_parameters()}
digests = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()}
(Path(sys.argv[1]) / f"{world.rank}.json").write_text(json.dumps(digests))
backend.close()
