"""LoRA on an embedding: rows of W + s (B A)^T."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from trainer.lookup import lookup
from trainer.models.adapters.lora import Lora, over_lengths, total
from trainer.models.embedding import Embedding


class LoraEmbedding(Embedding):
    """An embedding and its adapter, without dropout, as PEFT has it.

    lora_embedding_A: [rank, vocab]; lora_embedding_B: [size, rank]; lora_magnitude_vector: [size], with DoRA the length
    of each column of the table. A lowering that cuts the vocabulary replaces ``find`` (tokens, table -> rows, zeros for
    the tokens of other ranks) and ``total``.
    """

    find: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    total: Callable[[torch.Tensor], torch.Tensor]
    lora_magnitude_vector: nn.Parameter | None

    def __init__(self, embedding: nn.Embedding, lora: Lora) -> None:
        """Takes over the embedding's parameter."""
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.weight, self.scale = embedding.weight, lora.scale
        self.lora_embedding_A = nn.Parameter(embedding.weight.new_empty(lora.rank, embedding.num_embeddings))
        self.lora_embedding_B = nn.Parameter(embedding.weight.new_empty(embedding.embedding_dim, lora.rank))
        magnitudes = nn.Parameter(embedding.weight.new_empty(embedding.embedding_dim)) if lora.dora else None
        self.register_parameter("lora_magnitude_vector", magnitudes)
        self.find, self.total = lookup, total

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """int64 [...] -> [..., size]; where the vocabulary is cut, this rank's part of a sum."""
        added = F.linear(self.find(tokens, self.lora_embedding_A.T), self.lora_embedding_B) * self.scale
        rows = self.find(tokens, self.weight) + added
        return rows if self.lora_magnitude_vector is None else self.share() * rows

    def share(self) -> torch.Tensor:
        """[size]: the magnitudes over the lengths of the columns; only the magnitudes have a gradient."""
        assert self.lora_magnitude_vector is not None
        with torch.no_grad():
            squares = self.total(self.merged().float().square().sum(dim=0))
        return over_lengths(self.lora_magnitude_vector, squares)

    def merged(self) -> torch.Tensor:
        """W + s (B A)^T, [vocab, size]."""
        return self.weight + self.scale * (self.lora_embedding_B @ self.lora_embedding_A).T
