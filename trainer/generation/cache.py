"""Keys and values of what has been read, so that the next token costs one row of the model and not all of them.

The cache takes the place of two seams of the plain decoder, ``Attention.attend`` and ``Decoder.mask``; everything else
is the model that is trained. Its tensors have one shape from the first token to the last.

Prompts of a batch end together: a shorter one begins with padding, and positions count from its own first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from trainer.errors import ConfigError, Problem
from trainer.generation.opened import Opened
from trainer.models.attention import Context, attend

PADDING = 0
"""An id that stands where there is no token; nothing looks at it."""


class Cache:
    """Of one batch; to be used in a ``with`` block, behind which the model is as it was.

    length: slots of a row, those of padding included.
    """

    def __init__(self, opened: Opened, prompts: Sequence[Sequence[int]], length: int) -> None:
        self._decoder, self._head, self._vocab = opened.decoder, opened.head, opened.model.vocab
        self._modules: list[Any] = [module for module in self._decoder.modules() if hasattr(module, "attend")]
        if not self._modules:
            rule = "attention is trainer.models.attention.Attention, or has its seam ``attend``"
            raise ConfigError(Problem("model.family", opened.model.family, rule, "see docs/extending.md"))
        # A row that has ended goes on beside the others: learned positions may have no row for what it says there.
        self._last = opened.window - 1
        self._prompts, self.length, self.read = prompts, length, 0
        longest = max(map(len, prompts))
        assert min(map(len, prompts)) > 0, "a prompt has a token"
        assert longest <= length
        self.padding = [longest - len(prompt) for prompt in prompts]
        """Slots before each row's first token."""
        self.device = next(self._decoder.parameters()).device
        self.first = torch.tensor(self.padding, device=self.device).unsqueeze(1)
        # On a device that compiles a graph, every step looks at all slots; elsewhere at those that are filled.
        self._static = self.device.type not in ("cpu", "cuda")
        self.slots = torch.empty(0)
        self._tokens = torch.empty((len(prompts), 0), dtype=torch.int64, device=self.device)
        scaling = opened.model.rope_scaling
        self._stretched = scaling.original_max_positions if scaling.kind == "dynamic" else None
        """Length from which on a row's angles change with every token."""

    def __enter__(self) -> Cache:
        self._before = [module.attend for module in self._modules], self._decoder.mask, self._decoder.rotary
        for module in self._modules:
            module.attend = LayerCache(self)
        self._decoder.mask = self._mask
        if self._stretched is not None:
            self._decoder.rotary = _ByOwnLength(self, self._decoder.rotary)
        return self

    def __exit__(self, *_: object) -> None:
        attends, self._decoder.mask, rotary = self._before
        for module, before in zip(self._modules, attends, strict=True):
            module.attend = before
        self._decoder.rotary = rotary

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that are read."""
        return [self.read - padding for padding in self.padding]

    @property
    def reach(self) -> int:
        """Slots that are looked at."""
        return self.length if self._static else self.read

    def prefill(self) -> torch.Tensor:
        """Read the prompts. Logits of the token after each, FP32 [batch, vocab]."""
        longest = max(map(len, self._prompts))
        rows = [[PADDING] * (longest - len(prompt)) + list(prompt) for prompt in self._prompts]
        return self.forward(torch.tensor(rows, device=self.device))

    @torch.inference_mode()
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read more tokens, int64 [batch, n], into the next n slots. Logits after the last: FP32 [batch, vocab]."""
        self.read += tokens.shape[1]
        assert self.read <= self.length, "the cache is full"
        if self._stretched is not None:
            tokens = self._again(tokens, self._stretched)
        self.slots = torch.arange(self.read - tokens.shape[1], self.read, device=self.device)
        positions = self.slots - self.first
        document_ids = torch.where(positions < 0, -1, 0)
        hidden = self._decoder(tokens, positions.clamp(0, self._last), document_ids)
        logits = self._head(hidden[:, -1:])[:, 0]
        # Rows that no id has are padding of a vocabulary that ranks share.
        return logits[:, : self._vocab].float()

    def _again(self, tokens: torch.Tensor, context: int) -> torch.Tensor:
        """Under dynamic scaling: the whole text, once a row is longer than the original context; the tokens until then.

        Other angles are other activations in every layer behind the first, so no cache can be put right. transformers
        keeps what it has: there, text with its cache is not text without.
        """
        self._tokens = torch.cat((self._tokens, tokens), dim=1)
        return self._tokens if max(self.lengths) > context else tokens

    def put(self, kept: torch.Tensor, new: torch.Tensor) -> None:
        """Write [batch, heads, n, size] into the slots that are being read."""
        if self._static:
            kept.index_copy_(2, self.slots, new)
        else:
            kept[:, :, self.read - new.shape[2] : self.read] = new

    def _mask(self, document_ids: torch.Tensor, window: int | None) -> torch.Tensor | None:
        """In the place of trainer.models.attention.document_mask: bool [batch, 1, n, reach]; None: all slots.

        Padding looks at itself, so that no row of the softmax is empty.
        """
        reaching = window is None or window >= self.read
        if len(self.slots) == 1 and reaching and not any(self.padding) and not self._static:
            return None
        keys = torch.arange(self.reach, device=self.device)
        distance = self.slots.unsqueeze(1) - keys
        near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        live = keys >= self.first
        return (near & live.unsqueeze(1) | (distance == 0)).unsqueeze(1)


class _ByOwnLength(nn.Module):
    """In the place of the rotary embedding under dynamic scaling: each row's angles are those of its own length."""

    def __init__(self, cache: Cache, rotary: Any) -> None:
        super().__init__()
        self._cache, self._frequencies = cache, rotary.frequencies

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As trainer.models.rotary.Rotary."""
        frequencies = torch.stack([self._frequencies(length) for length in self._cache.lengths]).to(positions.device)
        angles = (positions.float().unsqueeze(-1) * frequencies.unsqueeze(1)).unsqueeze(1)
        return angles.cos(), angles.sin()


class LayerCache:
    """Keys and values of a layer, [batch, 2 * key-value heads here, length, head_dim]; in the place of ``attend``."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._kept: torch.Tensor | None = None

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, context: Context) -> torch.Tensor:
        """As trainer.models.attention.attend, where k and v are those of the new tokens alone."""
        return self.together(q, torch.cat((k, v), dim=1), context)

    def together(self, q: torch.Tensor, new: torch.Tensor, context: Context) -> torch.Tensor:
        """The same for keys and values in one tensor, [batch, 2 * key-value heads, n, head_dim]."""
        cache, kept = self._cache, self.kept(new)
        cache.put(kept, new)
        keys, values = kept.narrow(2, 0, cache.reach).chunk(2, dim=1)
        if q.shape[2] > 1:
            return attend(q, keys, values, context)
        return attend_once(q, keys, values, context.mask)

    def kept(self, like: torch.Tensor) -> torch.Tensor:
        """The tensor of them all, which the first call makes like a [batch, 2 * key-value heads, any, head_dim]."""
        if self._kept is None:
            # Zeros: what is masked is multiplied by 0 all the same.
            self._kept = like.new_zeros((*like.shape[:2], self._cache.length, like.shape[3]))
        return self._kept

    @property
    def slot(self) -> int:
        """The last one that is filled."""
        return self._cache.read - 1


def attend_once(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention of one query a head, [batch, heads, 1, head_dim]. mask: bool [batch, 1, 1, keys]; None: to all.

    Heads that share keys stand in for a sequence of queries: keys and values are not copied for each of them.
    """
    batch, heads, _, size = q.shape
    grouped = q.reshape(batch, keys.shape[1], heads // keys.shape[1], size)
    return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask).reshape(batch, heads, 1, size)
