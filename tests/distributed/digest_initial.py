"""Under torchrun: build the backend as the recipe does, and write a digest of each initial weight."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from recipes.pretrain import build_backend
from trainer.config import Config, ModelConfig, PrecisionConfig
from trainer.derive import derive
from trainer.models.initialise import Initialiser
from trainer.world import World

config = Config(model=ModelConfig(hidden=64, layers=2, mlp=96, vocab=512, tied=True), precision=PrecisionConfig("fp32"))
config = replace(config, train=replace(config.train, steps=1))
world = World.from_environment()
backend = build_backend(config, derive(config, world), world)
backend.load_initial(Initialiser(config.model, seed=11))
digests = {
    name: hashlib.sha256(placed.tensor.numpy().tobytes()).hexdigest() for name, placed in backend.store().model.items()
}
(Path(sys.argv[1]) / f"{world.rank}.json").write_text(json.dumps(digests))
backend.close()
