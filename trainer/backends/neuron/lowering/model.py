"""The lowered model: the plain decoder's parts, connected so that neuronx-distributed can trace and cut them.

A layer makes its own attention context from positions and document ids: what crosses a pipeline's stages is then one
tensor, and the ids are inputs that every stage has. The compiler merges what layers of a stage have in common.
"""

from __future__ import annotations

from typing import Any

import torch
from neuronx_distributed.parallel_layers import parallel_cross_entropy
from neuronx_distributed.parallel_layers.mappings import gather_from_tensor_model_parallel_region
from torch import nn

from trainer.backends.neuron.lowering.recompute import checkpoint
from trainer.batch import IGNORED_LABEL

INPUTS = ("tokens", "labels", "positions", "document_ids", "keys", "weights")
"""Of ``forward``: what a pipeline hands to its stages, each cut into microbatches along dim 0."""


class LoweredLayer(nn.Module):
    """A decoder layer that takes ids instead of a context. recompute: keep its input only, for the backward pass."""

    def __init__(self, layer: nn.Module, decoder: Any, recompute: bool) -> None:
        super().__init__()
        for name, child in layer.named_children():
            self.add_module(name, child)
        # Not registered: layers share the rotary table and the mask, and a stage must not own another's parameters.
        self.__dict__["context"] = decoder.context
        self.__dict__["compute"] = layer.forward
        self.recompute = recompute

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, document_ids: torch.Tensor, keys: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[batch, seq, hidden] -> the same shape."""
        others = (positions, document_ids) if keys is None else (positions, document_ids, keys)
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._forward, x, *others)
        return self._forward(x, *others)

    def _forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        context: Any = self.__dict__["context"](*others)
        result: torch.Tensor = self.__dict__["compute"](x, context)
        return result


class TokenLoss(nn.Module):
    """Summed cross-entropy of the targets by NxD's vocabulary-parallel loss, times the samples' common weight."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """logits: [batch, seq, vocab / tp]; labels: [batch, seq]; weights: FP32 [batch], all equal. FP32 scalar.

        NxD's loss sums exponentials in the logits' dtype and overwrites them, so it gets an FP32 copy.
        """
        losses = parallel_cross_entropy(logits.float().clone(), labels)
        targets = labels != IGNORED_LABEL
        return torch.where(targets, losses, torch.zeros_like(losses)).sum() * weights[0]


class LoweredDecoder(nn.Module):
    """Embedding, layers and final norm, under the plain decoder's names."""

    def __init__(self, decoder: Any, recomputed: frozenset[str]) -> None:
        super().__init__()
        self.embed_tokens, self.embed_dropout = decoder.embed_tokens, decoder.embed_dropout
        self.embed_positions, self.part = decoder.embed_positions, decoder.part
        self.layers = nn.ModuleDict(
            {name: LoweredLayer(layer, decoder, name in recomputed) for name, layer in decoder.layers.items()}
        )
        self.norm = decoder.norm
        self.__dict__["rotary"] = decoder.rotary

    def derive_buffers(self, device: torch.device) -> None:
        """Fill the rotary table, FP32, on the device."""
        rotary: Any = self.__dict__["rotary"]
        rotary.inverse_frequencies = torch.empty_like(rotary.inverse_frequencies, device="cpu")
        rotary.derive_buffers()
        rotary.inverse_frequencies = rotary.inverse_frequencies.to(device)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        document_ids: torch.Tensor,
        keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[batch, seq] -> [batch, seq, hidden]."""
        x: torch.Tensor = self.embed_tokens(tokens)
        if self.embed_positions is not None:
            x = x + self.embed_positions(self.part(positions))
        x = self.embed_dropout(x, keys)
        for layer in self.layers.values():
            x = layer(x, positions, document_ids, keys)
        normed: torch.Tensor = self.norm(x)
        return normed


class LoweredLM(nn.Module):
    """Decoder, head and loss; parameters go by the names of the plain model, but for what the lowering fused."""

    def __init__(self, model: Any, recomputed: frozenset[str]) -> None:
        super().__init__()
        self.model = LoweredDecoder(model.model, recomputed)
        self.lm_head, self.adapted_head = model.lm_head, hasattr(model.lm_head, "lora_A")
        self.loss = TokenLoss()

    def forward(
        self,
        tokens: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor,
        document_ids: torch.Tensor,
        keys: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """The fields of a Batch, and FP32 weights [batch] -> the weighted sum of the loss (nats), FP32 scalar."""
        hidden = self.model(tokens, positions, document_ids, keys)
        loss: torch.Tensor = self.loss(self.head(hidden, keys), labels, weights)
        return loss

    def head(self, hidden: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        """This rank's logits. With an adapter the head is called with the keys, by which that drops."""
        logits: torch.Tensor = self.lm_head(hidden, keys) if self.adapted_head else self.lm_head(hidden)
        return logits

    def logits(self, tokens: torch.Tensor, positions: torch.Tensor, document_ids: torch.Tensor) -> torch.Tensor:
        """FP32 [batch, seq, vocab] on every tensor-parallel rank."""
        local = self.head(self.model(tokens, positions, document_ids), None)
        whole: torch.Tensor = gather_from_tensor_model_parallel_region(local)
        return whole.float()
