"""Tensor parallelism on gloo: the plain model with this rank's part of each parameter, and collectives at its seams.

Plain tensors and not DTensor: replicated, permuted and padded heads are no DTensor placement, and its dispatch costs a
small CPU run half its speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.distributed as dist
from torch import nn

from trainer.backends.native.collectives import enter, gather_last_dim, leave
from trainer.backends.native.vocabulary import VocabularyChunkLoss, VocabularyEmbedding
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan


def lower(model: nn.Module, plan: Plan, placements: Mapping[str, Placement], group: dist.ProcessGroup) -> None:
    """Cut the model's parameters, which are on the meta device, and connect its parts over the group, in place."""
    rules = plan.match(placements)
    first_row = 0
    cut_parameters(model, placements)
    for name, rule in rules.items():
        path, _, kind = name.rpartition(".")
        if kind == "bias":
            continue
        if rule.style == "vocab":
            first_row = placements[name].boxes[0].offsets[0]
            _cut_vocabulary(model, path, first_row, group)
        elif rule.style == "row":
            model.get_submodule(path).register_forward_hook(_leaving(group))
    for path in blocks(rules):
        model.get_submodule(path).register_forward_pre_hook(_entering(group))
    loss: Any = model.get_submodule(plan.loss)
    loss.register_forward_pre_hook(_entering(group))
    loss.chunk_loss = VocabularyChunkLoss(group, first_row)


def blocks(rules: Mapping[str, Any]) -> list[str]:
    """Modules whose own linears are cut by output (self_attn, mlp): their input enters once for all of them."""
    columns = [name for name, rule in rules.items() if rule.style in ("column", "kv")]
    return list(dict.fromkeys(name.rpartition(".")[0].rpartition(".")[0] for name in columns))


def cut_parameters(model: nn.Module, placements: Mapping[str, Placement]) -> None:
    """Give every parameter its local shape; a tied one stays one parameter under all its names."""
    smaller: dict[nn.Parameter, nn.Parameter] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if name in placements and parameter not in smaller:
            smaller[parameter] = nn.Parameter(parameter.new_empty(placements[name].local_shape))
        path, _, kind = name.rpartition(".")
        setattr(model.get_submodule(path), kind, smaller[parameter])
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape


def _cut_vocabulary(model: nn.Module, path: str, first_row: int, group: dist.ProcessGroup) -> None:
    module = model.get_submodule(path)
    if isinstance(module, nn.Embedding):
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, VocabularyEmbedding(module.weight, first_row, group))
    else:  # the head: called for logits only, since the loss takes its weight
        module.register_forward_hook(lambda _, __, logits: gather_last_dim(logits, group))


def _entering(group: dist.ProcessGroup) -> Callable[[nn.Module, Any], Any]:
    return lambda _, args: (enter(args[0], group), *args[1:])


def _leaving(group: dist.ProcessGroup) -> Callable[[nn.Module, Any, Any], Any]:
    return lambda _, __, output: leave(output, group)
