"""The decoder: plain PyTorch, no parallelism in it. Names are those of Hugging Face's Llama."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.batch import IGNORED_LABEL
from trainer.config.arithmetic import head_dim, layer_has_window
from trainer.config.groups.model import ModelConfig
from trainer.models.attention import Attention, Context, document_mask
from trainer.models.dropout import Dropout, locate
from trainer.models.embedding import Embedding
from trainer.models.feedforward import feed_forward
from trainer.models.loss import HeadLoss
from trainer.models.norm import NORMS
from trainer.models.rotary import Rotary


@dataclass(frozen=True)
class Parts:
    """What a family may put in the place of the decoder's own parts.

    attention: made from the ModelConfig. norm: made from (size, eps), maps [..., size] to the same shape and dtype;
    None: the one that model.norm names.
    """

    attention: Callable[[ModelConfig], nn.Module] = Attention
    norm: Callable[[int, float], nn.Module] | None = None

    def make_norm(self, config: ModelConfig) -> nn.Module:
        """A norm between blocks."""
        return (self.norm or NORMS[config.norm])(config.hidden, config.norm_eps)


PARTS = Parts()


class DecoderLayer(nn.Module):
    """Attention and feed-forward, joined as model.block says."""

    def __init__(self, config: ModelConfig, parts: Parts, index: int) -> None:
        super().__init__()
        self.block, self.windowed, self.draws_within = config.block, layer_has_window(config, index), False
        self.self_attn = parts.attention(config)
        self.mlp = feed_forward(config)
        if config.block != "post":
            self.input_layernorm = parts.make_norm(config)
        if config.block != "parallel_one_norm":
            self.post_attention_layernorm = parts.make_norm(config)
        if config.block == "post":
            self.post_feedforward_layernorm = parts.make_norm(config)
        self.self_attn_dropout = Dropout(config.dropout, config.hidden)
        self.mlp_dropout = Dropout(config.dropout, config.hidden)

    def forward(self, x: torch.Tensor, context: Context) -> torch.Tensor:
        """[batch, seq, hidden] -> the same shape."""
        if self.draws_within:
            tell(self, context.within, context.keys)
        if self.windowed:
            context = context._replace(mask=context.window)
        if self.block == "pre":
            x = x + self._attention(self.input_layernorm(x), context)
            return x + self._feed_forward(self.post_attention_layernorm(x), context)
        if self.block == "post":
            x = x + self.self_attn_dropout(self.post_attention_layernorm(self.self_attn(x, context)), context.keys)
            return x + self.mlp_dropout(self.post_feedforward_layernorm(self.mlp(x)), context.keys)
        normed = self.input_layernorm(x)
        other = normed if self.block == "parallel_one_norm" else self.post_attention_layernorm(x)
        return x + self._attention(normed, context) + self._feed_forward(other, context)

    def _attention(self, x: torch.Tensor, context: Context) -> torch.Tensor:
        return self.self_attn_dropout(self.self_attn(x, context), context.keys)

    def _feed_forward(self, x: torch.Tensor, context: Context) -> torch.Tensor:
        return self.mlp_dropout(self.mlp(x), context.keys)


class Decoder(nn.Module):
    """Embeddings, layers, final norm. A pipeline stage keeps some of the layers under their global names and may
    lack the embeddings or the norm, which are None there. A lowering that cuts the sequence replaces ``mask``; one that
    cuts it between blocks, ``part``, and ``within``, which makes keys between blocks those within them.

    draws_within: something within blocks draws by the keys: an adapter's dropout.
    """

    mask: Callable[[torch.Tensor, int | None], torch.Tensor]
    part: Callable[[torch.Tensor], torch.Tensor]
    within: Callable[[torch.Tensor], torch.Tensor]

    def __init__(self, config: ModelConfig, parts: Parts = PARTS) -> None:
        super().__init__()
        self.window, self.learned = config.sliding_window, config.position == "learned"
        self.embed_tokens: nn.Embedding | None = Embedding(config.vocab, config.hidden)
        self.embed_positions = Embedding(config.max_positions, config.hidden) if self.learned else None
        self.embed_dropout = Dropout(config.dropout, config.hidden)
        # A ModuleDict, not a list: layer "17" is still called that on the stage that holds it.
        self.layers = nn.ModuleDict({str(i): DecoderLayer(config, parts, i) for i in range(config.layers)})
        self.norm: nn.Module | None = parts.make_norm(config)
        self.rotary = Rotary.of(config, head_dim(config))
        self.mask, self.part, self.within = document_mask, whole, whole
        self.draws_within = False

    def embed(self, tokens: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens and positions, each [batch, seq] -> [batch, seq, hidden], or this rank's part between blocks."""
        assert self.embed_tokens is not None
        x = self.embed_tokens(tokens)
        if self.embed_positions is not None:
            x = x + self.embed_positions(self.part(positions))
        return self.embed_dropout(x, keys)

    def context(self, positions: torch.Tensor, document_ids: torch.Tensor, keys: torch.Tensor | None = None) -> Context:
        """What a layer needs to know of the samples, worked out once for all layers."""
        cosines, sines = (None, None) if self.learned else self.rotary(positions)
        kinds = {bool(layer.windowed) for layer in self.layers.values()}
        mask = self.mask(document_ids, None) if False in kinds else None
        window = self.mask(document_ids, self.window) if True in kinds else None
        return Context(cosines, sines, mask, positions, document_ids, keys, window, self.keys_within(keys))

    def keys_within(self, keys: torch.Tensor | None) -> torch.Tensor | None:
        """Those of all positions that a rank has within blocks; None where nothing there draws."""
        return self.within(keys) if self.draws_within and keys is not None else None

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        document_ids: torch.Tensor,
        keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens [batch, seq] (or a previous stage's [batch, seq, hidden]) -> [batch, seq, hidden]."""
        if self.embed_tokens is not None:
            x = self.embed(x, positions, keys)
        context = self.context(positions, document_ids, keys)
        for layer in self.layers.values():
            x = layer(x, context)
        return self.norm(x) if self.norm is not None else x


def whole(positions: torch.Tensor) -> torch.Tensor:
    """Between blocks a rank has all positions that it has within them."""
    return positions


def tell(module: nn.Module, within: torch.Tensor | None, between: torch.Tensor | None) -> None:
    """Give the keys of the samples at hand to the modules within that draw by them: linears take no other argument.

    A lowering whose linears take activations as they are between blocks has set ``between_blocks`` on them.
    """
    for each in module.modules():
        if hasattr(each, "keys"):
            listening: Any = each
            listening.keys = between if getattr(each, "between_blocks", False) else within


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
            self.model.embed_tokens = self.model.embed_positions = None
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
        if self.lm_head is None:
            return hidden, count
        if self.model.draws_within:
            tell(self.lm_head, self.model.keys_within(keys), keys)
        return self.loss(hidden, self.lm_head, labels), count

    def logits(self, tokens: torch.Tensor, positions: torch.Tensor, document_ids: torch.Tensor) -> torch.Tensor:
        """FP32 [batch, seq, vocab], or activations without a head. For sampling and tests: training never builds it."""
        hidden: torch.Tensor = self.model(tokens, positions, document_ids)
        if self.lm_head is None:
            return hidden
        tell(self.lm_head, None, None)  # nothing is dropped
        return self.lm_head(hidden).float()
