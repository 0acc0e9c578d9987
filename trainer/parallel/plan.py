"""The sharding plan: a table {parameter glob: rule} that stands beside a plain model.

A rule says everything about a parameter that the lowerings, the initialiser, the optimizer and the reductions need;
nobody decides by the ending of a name.

cut     which dim is cut over the tensor-parallel ranks
vocab   0: rows of the embedding and of the head
column  0: output features; with ``heads``, between query heads
row     1: input features; with ``heads``, between query heads
kv      0: between key-value heads, which are replicated where there are fewer of them than ranks
none    none: every tensor-parallel rank holds the whole parameter

summed    when the gradient on one tensor-parallel rank is a part of a sum over all of them
never     it is whole on every rank (or the parameter is cut)
sequence  under sequence parallelism: a norm between blocks sees this rank's part of the sequence
always    a norm or an adapter inside a cut block sees this rank's heads or features only
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from trainer.errors import ConfigError, Problem
from trainer.parallel.heads import Heads
from trainer.parallel.placement import Placement, Uncuttable, cut, even, key_value_heads, query_heads, whole

Cut = Literal["vocab", "column", "row", "kv", "none"]
Summed = Literal["never", "sequence", "always"]
FROZEN = "model.frozen"
WHERE = "the model's sharding plan (trainer/models/sharding.py)"


@dataclass(frozen=True)
class Init:
    """Initial values: normal with this standard deviation, uniform between +-std, ones, zeros, or lengths of the rows
    (of an embedding, columns) of the weight that the parameter stands beside.
    """

    kind: Literal["normal", "uniform", "ones", "zeros", "lengths"]
    std: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind}({self.std:g})" if self.kind in ("normal", "uniform") else self.kind


ONES, ZEROS = Init("ones"), Init("zeros")


def normal(std: float) -> Init:
    """Normal around 0 with standard deviation ``std``."""
    return Init("normal", std)


@dataclass(frozen=True)
class Rule:
    """Everything about a parameter.

    cut, summed: see the module's table. init: its initial values. decay: whether weight decay applies. heads: the cut
    (column or row) runs between query heads. trainable: no, and it has no gradient, master or moments; gradients flow
    through it to what stands before it. lr_scale: its learning rate over that of the others.
    """

    cut: Cut
    init: Init
    decay: bool = True
    summed: Summed = "never"
    heads: bool = False
    trainable: bool = True
    lr_scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.cut} (heads)" if self.heads else self.cut

    @property
    def dim(self) -> int | None:
        """The dim that is cut, if any."""
        return {"vocab": 0, "column": 0, "kv": 0, "row": 1}.get(self.cut)

    def is_partial(self, tp: int, sequence: bool) -> bool:
        """Whether each of ``tp`` ranks has a part of the gradient's sum. sequence: sequence parallelism is on."""
        summed = self.summed == "always" or (self.summed == "sequence" and sequence)
        return tp > 1 and summed and self.trainable


def matrix(cut: Cut, std: float, heads: bool = False) -> Rule:
    """A weight matrix: normal, decays."""
    return Rule(cut, normal(std), heads=heads)


def bias(cut: Cut = "none", heads: bool = False) -> Rule:
    """A bias: zeros, no decay. Uncut, it stands between blocks, as that of a LayerNorm does."""
    return Rule(cut, ZEROS, decay=False, summed="sequence" if cut == "none" else "never", heads=heads)


def norm(summed: Summed = "sequence") -> Rule:
    """The weight of a norm: ones, no decay. summed: "always" for a norm inside a cut block, such as QK norm."""
    return Rule("none", ONES, decay=False, summed=summed)


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
    hidden: int = 0
    """Width of the activations that travel between layers and pipeline stages."""
    frozen: tuple[str, ...] = ()
    """Globs of the parameters that are not trained, whatever their rules say."""
    trained: tuple[str, ...] = ("*",)
    """Globs of the parameters that are trained, unless they are frozen; with adapters, theirs."""
    adapters: Mapping[str, Rule] = field(default_factory=dict)
    """Rules of adapters' parameters, by glob; they come before ``rules``, whose globs may be wide."""

    def adding(self, rules: Mapping[str, Rule]) -> Plan:
        """This plan with more rules, or others for the same globs."""
        return replace(self, rules={**self.rules, **rules})

    def freezing(self, globs: Iterable[str], names: Iterable[str]) -> Plan:
        """This plan with the parameters that match not trained. names: all canonical names of the model.

        Raises ConfigError where a glob matches nothing, or nothing is left to train.
        """
        names, globs = list(names), tuple(globs)
        problems = []
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in names):
                near = get_close_matches(glob, names, n=1, cutoff=0.0)[0]
                if fnmatchcase(f"{self.head}.weight", glob):  # tied
                    near = f"{self.embedding}.weight, to which the head is tied"
                remedy = f"a glob such as {near}; scripts/plan.py prints all names"
                problems.append(Problem(FROZEN, glob, "each glob matches a parameter of the model", remedy))
        if all(any(fnmatchcase(name, glob) for glob in globs) for name in names):
            rule = f"a parameter is left to train; the globs match all {len(names)}"
            problems.append(Problem(FROZEN, list(globs), rule, "leave one of them out"))
        if problems:
            raise ConfigError(problems)
        return replace(self, frozen=globs)

    def rule(self, name: str) -> Rule:
        """The one rule of a parameter. Raises ConfigError where it has none or several."""
        return self.match([name])[name]

    def match(self, names: Iterable[str]) -> dict[str, Rule]:
        """The one rule of each parameter. Raises ConfigError naming every parameter that has none or several."""
        problems, matched = [], {}
        for name in names:
            table, globs = self._globs(name)
            if len(globs) == 1:
                found = table[globs[0]]
                matched[name] = found if self._trains(name) else replace(found, trainable=False)
            elif globs:
                rule = f"one rule of the sharding plan matches each parameter; here: {', '.join(globs)}"
                problems.append(Problem(name, f"matched {len(globs)} times", rule, f"narrow the globs in {WHERE}"))
            else:
                rule = "a rule of the sharding plan matches each parameter"
                problems.append(Problem(name, "not in the plan", rule, f"add a rule for it to {WHERE}"))
        if problems:
            raise ConfigError(problems)
        return matched

    def _globs(self, name: str) -> tuple[Mapping[str, Rule], list[str]]:
        """The table that a parameter is in, and the globs there that match it."""
        if own := [glob for glob in self.adapters if fnmatchcase(name, glob)]:
            return self.adapters, own
        return self.rules, [glob for glob in self.rules if fnmatchcase(name, glob)]

    def adapts(self, name: str) -> bool:
        """Whether a parameter is an adapter's."""
        return any(fnmatchcase(name, glob) for glob in self.adapters)

    def entry(self, name: str) -> tuple[str, Rule]:
        """The glob and the rule of a parameter that has one."""
        table, globs = self._globs(name)
        return globs[0], table[globs[0]]

    def _trains(self, name: str) -> bool:
        trained = any(fnmatchcase(name, glob) for glob in self.trained)
        return trained and not any(fnmatchcase(name, glob) for glob in self.frozen)

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
                cutting = f"cut {rule} cuts dim {rule.dim} over {tp} ranks: {error.rule}"
                problems.append(Problem(name, tuple(shapes[name]), cutting, error.remedy))
        if problems:
            raise ConfigError(problems)
        return placed

    def _place(self, name: str, rule: Rule, shape: tuple[int, ...], tp: int, rank: int) -> Placement:
        dim = rule.dim
        if dim is None:
            return whole(name, shape, copy=rank)
        if dim >= len(shape):
            raise Uncuttable(f"the parameter has a dim {dim}", f"give it another cut in {WHERE}")
        if rule.heads:
            extent, segments = query_heads(shape[dim], self.heads, tp, rank)
        elif rule.cut == "kv":
            extent, segments = key_value_heads(shape[dim], self.heads, tp, rank)
        else:
            extent, segments = even(shape[dim], tp, rank)
        return cut(name, shape, dim, extent, segments)
