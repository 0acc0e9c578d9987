"""The decoder: plain PyTorch, no parallelism in it. Names are those of Hugging Face's Llama."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from trainer.batch import IGNORED_LABEL
from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig
from trainer.models.attention import Attention, Context, document_mask
from trainer.models.dropout import Dropout, locate
from trainer.models.embedding import Embedding
from trainer.models.feedforward import FeedForward
from trainer.models.loss import HeadLoss
from trainer.models.norm import RMSNorm
from trainer.models.rotary import Rotary


@dataclass(frozen=True)
class Parts:
    """What a family may put in the place of the decoder's own parts.

    attention: made from the ModelConfig. norm: made from (size, eps); maps [..., size] to the same shape and dtype.
    """

    attention: Callable[[ModelConfig], nn.Module] = Attention
    norm: Callable[[int, float], nn.Module] = RMSNorm


PARTS = Parts()


class DecoderLayer(nn.Module):
    """Pre-norm residual block: attention, then feed-forward."""

    def __init__(self, config: ModelConfig, parts: Parts) -> None:
        super().__init__()
        self.self_attn = parts.attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = parts.norm(config.hidden, config.norm_eps)
        self.post_attention_layernorm = parts.norm(config.hidden, config.norm_eps)
        self.self_attn_dropout = Dropout(config.dropout, config.hidden)
        self.mlp_dropout = Dropout(config.dropout, config.hidden)

    def forward(self, x: torch.Tensor, context: Context) -> torch.Tensor:
        """[batch, seq, hidden] -> the same shape."""
        x = x + self.self_attn_dropout(self.self_attn(self.input_layernorm(x), context), context.keys)
        return x + self.mlp_dropout(self.mlp(self.post_attention_layernorm(x)), context.keys)


class Decoder(nn.Module):
    """Embedding, layers, final norm. A pipeline stage keeps some of the layers under their global names and may
    lack the embedding or the norm, which are None there. A lowering that cuts the sequence replaces ``mask``.
    """

    mask: Callable[[torch.Tensor], torch.Tensor]

    def __init__(self, config: ModelConfig, parts: Parts = PARTS) -> None:
        super().__init__()
        self.embed_tokens: nn.Embedding | None = Embedding(config.vocab, config.hidden)
        self.embed_dropout = Dropout(config.dropout, config.hidden)
        # A ModuleDict, not a list: layer "17" is still called that on the stage that holds it.
        self.layers = nn.ModuleDict({str(i): DecoderLayer(config, parts) for i in range(config.layers)})
        self.norm: nn.Module | None = parts.norm(config.hidden, config.norm_eps)
        self.rotary = Rotary.of(config, head_dim(config))
        self.mask = document_mask

    def context(self, positions: torch.Tensor, document_ids: torch.Tensor, keys: torch.Tensor | None = None) -> Context:
        """What a layer needs to know of the samples, worked out once for all layers."""
        cosines, sines = self.rotary(positions)
        return Context(cosines, sines, self.mask(document_ids), positions, document_ids, keys)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        document_ids: torch.Tensor,
        keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens [batch, seq] (or a previous stage's [batch, seq, hidden]) -> [batch, seq, hidden]."""
        if self.embed_tokens is not None:
            x = self.embed_dropout(self.embed_tokens(x), keys)
        context = self.context(positions, document_ids, keys)
        for layer in self.layers.values():
            x = layer(x, context)
        return self.norm(x) if self.norm is not None else x


class CausalLM(nn.Module):
    """A decoder with its head and its loss: the loss is inside, so that a pipeline's last stage owns it.

    A pipeline stage (``keep_stage``) takes and gives activations [batch, seq, hidden] where it lacks the embedding or
    the head.
    """

    def __init__(self, config: ModelConfig, parts: Parts = PARTS) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config, parts)
        self.lm_head: nn.Linear | None = nn.Linear(config.hidden, config.vocab, bias=False)
        self.loss = HeadLoss(config.loss_chunk_tokens)
        self._tie()
        locate(self)

    def _tie(self) -> None:
        if self.config.tied and self.lm_head is not None and self.model.embed_tokens is not None:
            self.lm_head.weight = self.model.embed_tokens.weight

    def keep_stage(self, layers: range) -> None:
        """Drop everything but these layers, the embedding before the first and the norm and head after the last."""
        self.model.layers = nn.ModuleDict({str(i): self.model.layers[str(i)] for i in layers})
        if layers.start > 0:
            self.model.embed_tokens = None
        if layers.stop < self.config.layers:
            self.model.norm = self.lm_head = None

    def canonical_names(self) -> dict[str, str]:
        """Canonical name of each parameter by its name here: a tied head without its embedding goes by the latter's."""
        names = {name: name for name, _ in self.named_parameters()}
        if self.config.tied and "lm_head.weight" in names:
            names["lm_head.weight"] = "model.embed_tokens.weight"
        return names

    def materialised(self) -> None:
        """To be called when the module left the meta device: leaving it unties weights and empties buffers."""
        self._tie()
        self.model.rotary.derive_buffers()

    def forward(
        self,
        tokens: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor,
        document_ids: torch.Tensor,
        keys: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The fields of a Batch -> sum of the targets' cross-entropy (FP32 scalar, nats), their number (int64 scalar).

        Without a head, the activations stand in the loss's place. Plain tensors, not a Batch: pipelines cut a batch
        along its tensors.
        """
        hidden, count = self.model(tokens, positions, document_ids, keys), (labels != IGNORED_LABEL).sum()
        return (hidden if self.lm_head is None else self.loss(hidden, self.lm_head, labels)), count

    def logits(self, tokens: torch.Tensor, positions: torch.Tensor, document_ids: torch.Tensor) -> torch.Tensor:
        """FP32 [batch, seq, vocab], or activations without a head. For sampling and tests: training never builds it."""
        hidden: torch.Tensor = self.model(tokens, positions, document_ids)
        return hidden if self.lm_head is None else self.lm_head(hidden).float()
