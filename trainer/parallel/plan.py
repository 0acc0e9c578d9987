"""The sharding plan: a table {parameter glob: rule} that stands beside a plain model.

style      which dim is cut over the tensor-parallel ranks
vocab      0: rows of the embedding and of the head
column     0: output features; with ``heads``, between query heads
row        1: input features; with ``heads``, between query heads
kv         0: between key-value heads, which are replicated where there are fewer of them than ranks
norm       none; under sequence parallelism its gradient is summed over the ranks
replicate  none
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from trainer.errors import ConfigError, Problem
from trainer.parallel.heads import Heads
from trainer.parallel.placement import Placement, Uncuttable, cut, even, key_value_heads, query_heads, whole

Style = Literal["vocab", "column", "row", "kv", "norm", "replicate"]
WHERE = "the model's sharding plan (trainer/models/sharding.py)"


@dataclass(frozen=True)
class Rule:
    """How a parameter is cut. ``heads``: the cut, of style column or row, runs between query heads."""

    style: Style
    heads: bool = False

    def __str__(self) -> str:
        return f"{self.style} (heads)" if self.heads else self.style

    @property
    def dim(self) -> int | None:
        """The dim that is cut, if any."""
        return {"vocab": 0, "column": 0, "kv": 0, "row": 1}.get(self.style)


@dataclass(frozen=True)
class Plan:
    """A model's rules by glob over canonical parameter names, and what else a lowering must know of the model.

    Paths of modules: loss computes head and loss (a vocabulary-parallel lowering replaces its ``chunk_loss``); decoder
    makes the attention mask (context parallelism replaces its ``mask``); layers holds the layers by their numbers.
    """

    rules: Mapping[str, Rule]
    heads: Heads
    loss: str = "loss"
    head: str = "lm_head"
    decoder: str = "model"
    embedding: str = "model.embed_tokens"
    layers: str = "model.layers"

    def match(self, names: Iterable[str]) -> dict[str, Rule]:
        """The one rule of each parameter. Raises ConfigError naming every parameter that has none or several."""
        problems, matched = [], {}
        for name in names:
            globs = [glob for glob in self.rules if fnmatchcase(name, glob)]
            if len(globs) == 1:
                matched[name] = self.rules[globs[0]]
            elif globs:
                rule = f"one rule of the sharding plan matches each parameter; here: {', '.join(globs)}"
                problems.append(Problem(name, f"matched {len(globs)} times", rule, f"narrow the globs in {WHERE}"))
            else:
                rule = "a rule of the sharding plan matches each parameter"
                problems.append(Problem(name, "not in the plan", rule, f"add a rule for it to {WHERE}"))
        if problems:
            raise ConfigError(problems)
        return matched

    def place(self, shapes: Mapping[str, tuple[int, ...]], tp: int, rank: int) -> dict[str, Placement]:
        """What tensor-parallel rank ``rank`` of ``tp`` holds of each parameter, by canonical name.

        shapes: of the global parameters. Raises ConfigError naming every parameter that the plan forgets, matches
        twice, or cannot cut.
        """
        problems, placed = [], {}
        for name, rule in self.match(shapes).items():
            try:
                placed[name] = self._place(name, rule, shapes[name], tp, rank)
            except Uncuttable as error:
                cutting = f"style {rule} cuts dim {rule.dim} over {tp} ranks: {error.rule}"
                problems.append(Problem(name, tuple(shapes[name]), cutting, error.remedy))
        if problems:
            raise ConfigError(problems)
        return placed

    def _place(self, name: str, rule: Rule, shape: tuple[int, ...], tp: int, rank: int) -> Placement:
        dim = rule.dim
        if dim is None:
            return whole(name, shape, copy=rank)
        if dim >= len(shape):
            raise Uncuttable(f"the parameter has a dim {dim}", f"give it another style in {WHERE}")
        if rule.heads:
            extent, segments = query_heads(shape[dim], self.heads, tp, rank)
        elif rule.style == "kv":
            extent, segments = key_value_heads(shape[dim], self.heads, tp, rank)
        else:
            extent, segments = even(shape[dim], tp, rank)
        return cut(name, shape, dim, extent, segments)
