"""The shares of the sources: their weights, and the stages that change them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.run.world import World


def mixing(config: Config, world: World) -> Iterator[Problem]:
    """Every weight is one, every mixture draws from some source, and every source is drawn from some time."""
    sources, stages = config.data.sources, config.data.stages
    drawn = {name for stage in stages for name, weight in stage.weights.items() if weight > 0}
    for index, source in enumerate(sources):
        key, weight = f"data.sources.{index}.weight", source.weight
        if not (math.isfinite(weight) and weight >= 0):
            yield Problem(key, weight, "a finite number, 0 or more", "set it relative to the other sources'")
        elif not weight and source.name not in drawn:
            rule = "above 0, or some stage of data.stages draws from the source"
            yield Problem(key, weight, rule, "drop the source to leave it out")
    now = {source.name: source.weight for source in sources}
    if sources and all(weight == 0 and name in drawn for name, weight in now.items()):
        yield Problem("data.sources", list(now), "one has a weight above 0 to begin with", "give one a weight")
    yield from _stages(config, now)


def _stages(config: Config, now: dict[str, float]) -> Iterator[Problem]:
    length, before = _length(config), 0
    for index, stage in enumerate(config.data.stages):
        key = f"data.stages.{index}"
        if stage.from_tokens <= before:
            rule = f"more than {before:,}, where the one before it begins" if index else "more than 0"
            yield Problem(f"{key}.from_tokens", stage.from_tokens, rule, "list the stages in the order of training")
        if length is not None and stage.from_tokens >= length:
            rule = f"less than the {length:,} tokens of training"
            yield Problem(f"{key}.from_tokens", stage.from_tokens, rule, "let it begin earlier, or drop it")
        before = max(before, stage.from_tokens)
        for name, weight in stage.weights.items():
            if name not in now:
                rule = f"names of data.sources: {', '.join(now)}"
                yield Problem(f"{key}.weights", name, rule, "correct the name")
            elif not (math.isfinite(weight) and weight >= 0):
                yield Problem(f"{key}.weights.{name}", weight, "a finite number, 0 or more", "0 lets the source rest")
        now = {**now, **{name: weight for name, weight in stage.weights.items() if name in now}}
        if not stage.weights:
            yield Problem(f"{key}.weights", {}, "what changes: weights by source", "name a source, or drop the stage")
        elif not any(weight > 0 for weight in now.values()):
            yield Problem(f"{key}.weights", stage.weights, "one source is left to draw from", "give one a weight")


def _length(config: Config) -> int | None:
    """Tokens of training, where they are said."""
    train = config.train
    return train.tokens if train.tokens is not None else train.steps and train.steps * train.tokens_per_step
