"""From the plain model to neuronx-distributed's layers, on the meta device, by the sharding plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from neuronx_distributed.parallel_layers.utils import set_tensor_model_parallel_attributes
from torch import nn

from trainer.backends.base import BuildModel
from trainer.backends.common.mean_square import MeanSquare
from trainer.backends.common.share import Share
from trainer.backends.neuron.lowering.adapters import Adapters, lowered_rules
from trainer.backends.neuron.lowering.attention import GatheredAttention, Masks, attend, flash_attend
from trainer.backends.neuron.lowering.freeze import freeze
from trainer.backends.neuron.lowering.layers import Layers
from trainer.backends.neuron.lowering.linears import Linears
from trainer.backends.neuron.lowering.local import Local, fuse
from trainer.backends.neuron.lowering.model import LoweredLM
from trainer.backends.neuron.lowering.seams import SequencePart, total_over_ranks, whole_sequence
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan, Rule


@dataclass(frozen=True)
class Options:
    """What the lowering has to know besides the plan.

    recompute: activations are kept for a layer's input only, in every ``recompute_every``-th layer. flash: attention by
    the NKI kernel. share: this rank's positions, and the group, under context parallelism. pipeline: it will be cut.
    """

    tp: int
    tp_rank: int
    sequence: bool
    dtype: torch.dtype
    recompute: bool = False
    recompute_every: int = 1
    flash: bool = False
    share: tuple[Any, Any] | None = None
    pipeline: bool = False


@dataclass(frozen=True)
class Lowered:
    """The model on meta, what each of its parameters is made of (by its name there), and their rules."""

    model: LoweredLM
    locals: Mapping[str, Local]
    rules: Mapping[str, Rule]


def lower(build: BuildModel, plan: Plan, options: Options) -> Lowered:
    """The whole model: a pipeline cuts it afterwards. Raises ConfigError when the plan does not fit."""
    with torch.device("meta"):
        model: Any = build()
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    placements = plan.place(shapes, options.tp, options.tp_rank)
    layers = Layers(options.tp, options.sequence, options.dtype)
    rules = lowered_rules(plan, plan.match(placements))
    adapters = Adapters(placements, rules, options.tp, options.sequence and options.tp > 1)
    locals_ = {name: fuse([name], placements, rules) for name in placements}
    linears = Linears(placements, rules, layers, locals_, adapters)
    for path, module in list(model.named_modules()):
        if hasattr(module, "project"):
            linears.columns(module, path, ("q_proj", "k_proj", "v_proj"), "qkv_proj", "project")
            linears.row(module, path, "o_proj")
        elif hasattr(module, "gate_and_up"):
            linears.columns(module, path, ("gate_proj", "up_proj"), "gate_up_proj", "gate_and_up")
            linears.row(module, path, "down_proj")
        elif hasattr(module, "up"):
            linears.column(module, path, "up_proj")
            linears.row(module, path, "down_proj")
        elif hasattr(module, "mean_square"):
            _cut_norm(module, placements[f"{path}.weight"], options.tp)
    _lower_vocabulary(model, layers, adapters)
    if options.sequence and options.tp > 1:
        model.model.part, model.model.within = SequencePart(), whole_sequence
    _attend(model, options)
    model.to(options.dtype)
    _mark(model, rules, layers)
    lowered = LoweredLM(model, _recomputed(model, options))
    kept = {name: locals_[name] for name, _ in lowered.named_parameters()}
    if model.config.tied:  # a pipeline's last stage has a second copy, by this name
        kept["lm_head.weight"] = replace(locals_["model.embed_tokens.weight"], copy=True)
    of_kept = {name: rules[local.pieces[0].name] for name, local in kept.items()}
    freeze(lowered, of_kept, options.pipeline)
    return Lowered(lowered, kept, of_kept)


def _cut_norm(module: Any, placement: Placement, tp: int) -> None:
    """A norm over all heads, of which a rank has some. Without NxD's marks the norm of all gradients would pass over it
    on every rank but the first.
    """
    module.weight = nn.Parameter(torch.empty(placement.local_shape, device="meta"))
    set_tensor_model_parallel_attributes(module.weight, True, 0, 1, num_partitions=tp)
    if tp > 1:
        module.mean_square = MeanSquare.over(placement, total_over_ranks)


def _lower_vocabulary(model: Any, layers: Layers, adapters: Adapters) -> None:
    vocab, hidden = model.config.vocab, model.config.hidden
    plain, model.model.embed_tokens = model.model.embed_tokens, layers.embedding(vocab, hidden)
    if hasattr(plain, "lora_embedding_A"):
        adapters.embedding("model.embed_tokens", plain, model.model.embed_tokens)
    head, model.lm_head = model.lm_head, layers.column(hidden, vocab // layers.tp)
    if hasattr(head, "lora_A"):
        adapters.head("lm_head", head, model.lm_head)
    if model.config.tied:
        model.lm_head.weight = model.model.embed_tokens.weight


def _attend(model: Any, options: Options) -> None:
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "attend")]
    share, group = options.share or (Share(0, 1), None)
    model.model.mask = Masks(share)
    for module in modules:
        module.attend = flash_attend if options.flash else attend
    if group is not None:
        model.model.rotary.parts = share.ranks
        for module in modules:
            module.attend = GatheredAttention(module.attend, group)


def _mark(model: nn.Module, rules: Mapping[str, Rule], layers: Layers) -> None:
    """What is not cut, and has a partial gradient under sequence parallelism: NxD's own tools look for this mark."""
    for name, parameter in model.named_parameters():
        if name in rules and rules[name].dim is None:
            partial = layers.sequence and layers.tp > 1 and rules[name].summed == "sequence"
            parameter.sequence_parallel_enabled = partial  # type: ignore[attr-defined]


def _recomputed(model: Any, options: Options) -> frozenset[str]:
    if not options.recompute:
        return frozenset()
    return frozenset(name for name in model.model.layers if int(name) % options.recompute_every == 0)
