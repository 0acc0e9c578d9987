"""Fine-tuning, full or by adapters: what is trained is said, and then everything is assembled as for pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from recipes import pretrain
from trainer.checkpoint.names import checkpoints
from trainer.config.adapters import scale_of
from trainer.config.schema import Config
from trainer.errors import ExitCode
from trainer.models.family import Family, family_of, shapes_of
from trainer.rules.derived import Derived
from trainer.run.directory import CHECKPOINTS, run_path
from trainer.run.world import World

ANEW = "begins anew    optimizer, schedule, step and order of the data: only weights are taken over"


def run(config: Config, derived: Derived, world: World, overrides: list[str]) -> ExitCode:
    """Run to the end, or resume, or say that it is done. Collective over the ranks of this launch."""
    family = family_of(config.model, config.adapter)
    if not world.rank:
        print("\n".join(trained(config, family)), flush=True)
        if not checkpoints(run_path(config) / CHECKPOINTS):  # else this launch resumes, and takes all of it over
            print(ANEW, flush=True)
    return pretrain.run(config, derived, world, overrides)


def trained(config: Config, family: Family) -> Iterator[str]:
    """Lines about what has a gradient."""
    shapes = shapes_of(family)
    rules = family.plan.match(shapes)
    every, learnt = (
        sum(map(prod, sizes)) for sizes in (shapes.values(), [s for n, s in shapes.items() if rules[n].trainable])
    )
    adapter = config.adapter
    kind = "all of it" if learnt == every else f"{learnt / every:.2%}"
    yield f"trained        {learnt:,} of {every:,} parameters ({kind})"
    if adapter.kind == "lora":
        name = "DoRA" if adapter.dora else "LoRA"
        faster = f", B at {adapter.lr_ratio:g} times the learning rate" if adapter.lr_ratio != 1 else ""
        count = sum(name.endswith((".lora_A", ".lora_embedding_A")) for name in shapes)
        yield f"adapter        {name} of rank {adapter.rank}, scale {scale_of(adapter):g}, on {count:,} modules{faster}"
