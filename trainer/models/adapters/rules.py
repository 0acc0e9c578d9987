"""The rules of adapters, from the rule of the weight that each stands beside.

weight              A                                  B, and the magnitudes of DoRA
column, kv, head    whole; a part of its gradient's    cut like the weight
                    sum on each rank
row                 cut like the weight                whole; a part of the sum
embedding           cut along the vocabulary (dim 1)   whole; a part of the sum

Nothing has to cross the ranks besides what the linear itself sends: a column's A sees the whole input, and only its
gradient has to be summed, once a step; a row's B A x is a part of the same sum as W x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainer.config.adapters import KINDS
from trainer.parallel.plan import ZEROS, Init, Plan, Rule, normal

ADAPTERS = tuple(f"*.{kind}" for kind in KINDS)
"""Globs of the canonical names of adapters' parameters."""
LENGTHS = Init("lengths")


def adapter_rules(plan: Plan, shapes: Mapping[str, tuple[int, ...]], lr_ratio: float) -> dict[str, Rule]:
    """A rule for each adapter's parameter, by globs like those that the plan has for the weights.

    shapes: of them, by canonical name. lr_ratio: of B's learning rate to A's.
    """
    found: dict[str, Rule] = {}
    for name, shape in shapes.items():
        path, _, kind = name.rpartition(".")
        glob, weight = plan.entry(f"{path}.weight")
        stem = glob.removesuffix(".weight") if glob.endswith(".weight") else path
        if f"{path}.lora_embedding_A" in shapes:
            found[f"{stem}.{kind}"] = _of_embedding(weight, kind, lr_ratio)
        else:
            found[f"{stem}.{kind}"] = _of_linear(weight, kind, shape, lr_ratio)
    return found


def _of_linear(weight: Rule, kind: str, shape: tuple[int, ...], lr_ratio: float) -> Rule:
    if kind == "lora_A":
        # Kaiming's uniform with a = sqrt(5), as torch's own linears begin: the bound is 1 / sqrt(inputs).
        return replace(_inward(weight), init=Init("uniform", shape[1] ** -0.5))
    if kind == "lora_B":
        return replace(_outward(weight), init=ZEROS, lr_scale=lr_ratio)
    return replace(_outward(weight), init=LENGTHS, decay=False)


def _inward(weight: Rule) -> Rule:
    """Of what has the weight's dim 1."""
    if weight.cut == "row":
        return Rule("row", ZEROS, heads=weight.heads)
    return Rule("none", ZEROS, summed=weight.summed if weight.cut == "none" else "always")


def _outward(weight: Rule) -> Rule:
    """Of what has the weight's dim 0."""
    if weight.cut == "row":
        return Rule("none", ZEROS, summed="always")
    return Rule(weight.cut, ZEROS, heads=weight.heads, summed=weight.summed)


def _of_embedding(weight: Rule, kind: str, lr_ratio: float) -> Rule:
    cut = weight.cut == "vocab"
    if kind == "lora_embedding_A":
        return Rule("row", ZEROS) if cut else Rule("none", ZEROS, summed=weight.summed)
    whole = Rule("none", normal(1.0), summed="always" if cut else weight.summed)
    return (
        replace(whole, lr_scale=lr_ratio) if kind == "lora_embedding_B" else replace(whole, init=LENGTHS, decay=False)
    )
