"""Tensor parallelism on gloo: the plain model with this rank's part of each parameter, and collectives at its seams.

Plain tensors and not DTensor: replicated, permuted and padded heads are no DTensor placement, and its dispatch costs a
small CPU run half its speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from trainer.backends.common.mean_square import MeanSquare
from trainer.backends.common.vocabulary import rows_here
from trainer.backends.native.lowering.collectives import all_gather, enter, gather, leave, scatter
from trainer.backends.native.lowering.regather import gathering
from trainer.backends.native.lowering.vocabulary import VocabularyChunkLoss, VocabularyEmbedding
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan, Rule

SEQUENCE_DIM = 1
"""Of activations [batch, seq, hidden]."""


@dataclass(frozen=True)
class Seam:
    """The two ends of a tensor-parallel block. sequence: between blocks each rank keeps a part of the sequence."""

    group: dist.ProcessGroup
    sequence: bool

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """Activations as they are between blocks -> the whole sequence on every rank."""
        return gather(x, SEQUENCE_DIM, self.group) if self.sequence else enter(x, self.group)

    def leave(self, x: torch.Tensor) -> torch.Tensor:
        """Parts of a sum -> activations as they are between blocks."""
        return scatter(x, SEQUENCE_DIM, self.group) if self.sequence else leave(x, self.group)

    def gathered_again(self, x: torch.Tensor) -> torch.Tensor:
        """What ``enter`` gave, without gradient."""
        return all_gather(x, SEQUENCE_DIM, self.group)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Parts of a sum -> the sum, without gradient."""
        whole = x.clone()
        dist.all_reduce(whole, group=self.group)
        return whole

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """Parts of a sum -> the sum, by which every rank goes on with what is its own: gradients add up too."""
        return enter(leave(x, self.group), self.group)

    def part(self, x: torch.Tensor) -> torch.Tensor:
        """This rank's part, between blocks, of what is the same on every rank: [batch, seq, ...]."""
        return x.chunk(dist.get_world_size(self.group), SEQUENCE_DIM)[dist.get_rank(self.group)]

    def entering(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A forward pre-hook: the first argument enters."""
        return (self.enter(args[0]), *args[1:])

    def leaving(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        """A forward hook: the output leaves."""
        return self.leave(output)


def lower(
    model: nn.Module, plan: Plan, placements: Mapping[str, Placement], seam: Seam, recomputed: Callable[[str], bool]
) -> None:
    """Cut the model's parameters, which are on the meta device, and connect its parts over the seam, in place.

    placements: by the names that the parameters have in this model. recomputed: whether the module at a path is made
    again in the backward pass as it is, gathering and all.
    """
    rules = plan.match(placements)
    cut_parameters(model, placements)
    for linear in row_linears(model, rules):
        linear.register_forward_hook(seam.leaving)
        _bias_last(linear)
    for path in blocks(rules):
        block = model.get_submodule(path)
        if seam.sequence and not recomputed(path):
            gathering(block, seam.enter, seam.gathered_again)
        else:
            block.register_forward_pre_hook(seam.entering)
    _cut_vocabulary(model, plan, placements, seam)
    _cut_adapters(model, placements, seam)
    norms: list[tuple[str, Any]] = [(path, m) for path, m in model.named_modules() if hasattr(m, "mean_square")]
    for path, module in norms:
        module.mean_square = MeanSquare.over(placements[f"{path}.weight"], seam.total)
    if seam.sequence:
        decoder: Any = model.get_submodule(plan.decoder)
        decoder.part = seam.part
        decoder.within = seam.gathered_again


def row_linears(model: nn.Module, rules: Mapping[str, Rule]) -> list[Any]:
    """Those that end a block: what they give is a part of a sum, that of an adapter included."""
    paths = dict.fromkeys(name.rpartition(".")[0] for name, rule in rules.items() if rule.cut == "row")
    modules = [model.get_submodule(path) for path in paths]
    return [module for module in modules if isinstance(module, nn.Linear)]


def _bias_last(linear: Any) -> None:
    """A linear adds its bias to the ranks' sum, whose hook is there already: before it, every rank would add one."""
    if linear.bias is not None:
        if hasattr(linear, "bias_later"):
            linear.bias_later = True
        else:
            linear.forward = lambda x: F.linear(x, linear.weight)
        linear.register_forward_hook(lambda _, __, summed: summed + linear.bias)


def blocks(rules: Mapping[str, Rule]) -> list[str]:
    """Modules whose own linears are cut by output (self_attn, mlp): their input enters once for all of them."""
    columns = [name for name, rule in rules.items() if rule.cut in ("column", "kv")]
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


def _cut_vocabulary(model: nn.Module, plan: Plan, placements: Mapping[str, Placement], seam: Seam) -> None:
    """The embedding looks up its own rows; the loss meets over them; logits, wanted for sampling only, are gathered."""
    first_rows = [
        placements[name].boxes[0].offsets[0] for name, rule in plan.match(placements).items() if rule.cut == "vocab"
    ]
    embedding, head = submodule(model, plan.embedding), submodule(model, plan.head)
    if embedding is not None and hasattr(embedding, "find"):  # with an adapter, whose part is of the same sum
        embedding.find = lambda tokens, table: rows_here(tokens, table, first_rows[0])
        embedding.register_forward_hook(seam.leaving)
    elif embedding is not None:
        parent, _, name = plan.embedding.rpartition(".")
        cut = VocabularyEmbedding(embedding.weight, first_rows[0], seam.leave)
        setattr(model.get_submodule(parent), name, cut)
    if head is not None:
        loss: Any = model.get_submodule(plan.loss)
        loss.register_forward_pre_hook(seam.entering)
        loss.chunk_loss = VocabularyChunkLoss(seam.group, first_rows[-1])
        # The loss takes the head's weight; the head itself is called for logits only.
        head.register_forward_pre_hook(seam.entering)
        head.register_forward_hook(lambda _, __, logits: all_gather(logits, -1, seam.group))


def _cut_adapters(model: nn.Module, placements: Mapping[str, Placement], seam: Seam) -> None:
    """Where dim 1 is cut, lengths are sums over the ranks, and dropout has to know which features are here."""
    for path, module in model.named_modules():
        adapter: Any = module
        kind = "lora_A" if hasattr(module, "lora_A") else "lora_embedding_A"
        if not hasattr(module, kind) or (placement := placements[f"{path}.{kind}"]).whole:
            continue
        adapter.total = seam.sum
        if kind == "lora_A":
            adapter.dropout.cut(placement.runs(dim=1))


def submodule(model: nn.Module, path: str) -> Any:
    """The module at a dotted path; None where a pipeline stage lacks it."""
    parent, _, name = path.rpartition(".")
    return getattr(model.get_submodule(parent), name, None)
