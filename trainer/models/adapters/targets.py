"""Which modules get an adapter: adapter.targets on a model."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from torch import nn

from trainer.config.adapters import ALL_LINEAR, is_targeted
from trainer.errors import ConfigError, Problem
from trainer.parallel.plan import Plan

KEY = "adapter.targets"


def targeted(model: nn.Module, plan: Plan, targets: Iterable[str]) -> tuple[str, ...]:
    """Paths of the modules, in the model's order.

    all-linear: every linear within the layers, as PEFT has it, which leaves out the head. A target with a dot or a
    wildcard is a glob of whole paths; another is the last part of a path.
    Raises ConfigError for each target that matches no linear and no embedding of tokens.
    """
    known = {path: module for path, module in model.named_modules() if _can(path, module, plan)}
    linears = [path for path, module in known.items() if isinstance(module, nn.Linear) and path != plan.head]
    found: set[str] = set()
    problems = []
    for target in targets:
        matched = linears if target == ALL_LINEAR else [path for path in known if is_targeted(path, target)]
        found.update(matched)
        if not matched:
            problems.append(_unmatched(target, known))
    if problems:
        raise ConfigError(problems)
    return tuple(path for path in known if path in found)


def _can(path: str, module: nn.Module, plan: Plan) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Embedding) and path == plan.embedding)


def _unmatched(target: str, known: Iterable[str]) -> Problem:
    names = list(dict.fromkeys(path.rpartition(".")[2] for path in known))
    near = get_close_matches(target.rpartition(".")[2], names, n=1, cutoff=0.0)
    rule = "names a linear of the model or its embedding of tokens, by its name or a glob of its path"
    remedy = f"{ALL_LINEAR}, or {', '.join(names)}" + (f"; nearest {near[0]}" if near else "")
    return Problem(KEY, target, rule, remedy)
