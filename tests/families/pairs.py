"""transformers' model and ours, with the same random weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch

from tests.families.cases import CLASSES, config
from tests.families.mapping import to_ours
from trainer.batch import IGNORED_LABEL, Batch
from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM
from trainer.models.family import family_of
from trainer.pretrained.config_json import format_of, read_config
from trainer.pretrained.format import FileTensor
from trainer.pretrained.shapes import parameter_shapes

SEQ = 48


class Pair(NamedTuple):
    """One function twice. files: the map between their parameters."""

    model: ModelConfig
    ours: CausalLM
    theirs: Any
    files: tuple[FileTensor, ...]

    def to_ours(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """By canonical name."""
        return to_ours(tensors, self.files, parameter_shapes(self.model))


@lru_cache(maxsize=1)
def pair(family: str, name: str) -> Pair:
    """transformers makes the model; ours is what config.json and the state dict say."""
    described = config(family, name)
    theirs = CLASSES[family][1](described)
    theirs.set_attn_implementation("sdpa")
    randomise(theirs)
    read_family, fields = read_config(described.to_dict())
    assert read_family == family
    model = ModelConfig(family=family, loss_chunk_tokens=24, **fields)
    files = tuple(format_of(family).tensors(model))
    return Pair(model, with_weights(model, to_ours(theirs.state_dict(), files, parameter_shapes(model))), theirs, files)


def with_weights(model: ModelConfig, parameters: dict[str, torch.Tensor]) -> CausalLM:
    """Our model, of which every parameter is given."""
    ours: Any = family_of(model).build()
    ours.materialised()
    ours.load_state_dict(parameters | ({"lm_head.weight": ours.lm_head.weight} if model.tied else {}))
    return ours


def randomise(model: torch.nn.Module, seed: int = 5) -> None:
    """Every parameter is drawn anew: transformers begins with biases of 0 and norms of 1, which hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 2:
                parameter.copy_(drawn / max(parameter.shape[0 if "c_" in name else 1], 1) ** 0.5)
            else:
                parameter.copy_(0.3 * drawn + (0.0 if name.endswith("bias") else 1.0))


def samples(model: ModelConfig, masked: bool) -> Batch:
    """Two samples; masked: of uneven documents, the second with padding."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(0, model.vocab, (2, SEQ), generator=generator)
    labels = torch.randint(0, model.vocab, (2, SEQ), generator=generator)
    if not masked:
        return Batch.undrawn(tokens, labels, torch.arange(SEQ).repeat(2, 1), torch.zeros_like(tokens))
    positions, ids = torch.zeros_like(tokens), torch.full_like(tokens, -1)
    for row, lengths in enumerate([[20, 28], [5, 30, 7]]):
        start = 0
        for document, length in enumerate(lengths):
            positions[row, start : start + length] = torch.arange(length)
            ids[row, start : start + length] = document
            start += length
            labels[row, start - 1] = IGNORED_LABEL
        labels[row, start:] = IGNORED_LABEL
    if model.rope_scaling.kind == "dynamic":
        # transformers stretches by the largest position, we by the sample's length. Documents see differences only.
        positions = torch.arange(SEQ).repeat(2, 1)
    return Batch.undrawn(tokens, labels, positions, ids)


def dense_masks(model: ModelConfig, batch: Batch) -> Any:
    """What transformers is to look at, by its own word for the layers; worked out position by position."""
    row, column = torch.arange(SEQ).view(-1, 1), torch.arange(SEQ).view(1, -1)
    same = batch.document_ids.unsqueeze(-1) == batch.document_ids.unsqueeze(-2)
    full = (same & (column <= row)).unsqueeze(1)
    if model.sliding_window is None:
        return full
    window = full & (row - column < model.sliding_window)
    return {"full_attention": full, "sliding_attention": window} if model.family.startswith("qwen") else window
