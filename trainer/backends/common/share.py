"""Which positions of a sample a context-parallel rank has, and which of those between blocks.

A rank holds one chunk from the front of a sample and its mirror image from the back, so that causal attention costs
every rank the same (Brandon et al. 2023, arXiv:2311.09431, balance a ring in a like manner; Llama 3, arXiv:2407.21783,
section 3.3.2, cuts and gathers so).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from trainer.backends.common.visible import Visible
from trainer.batch import Batch
from trainer.parallel.mesh import Mesh


@dataclass(frozen=True)
class Share:
    """This rank's positions of a sample: chunks ``rank`` and ``2 * ranks - 1 - rank`` of ``2 * ranks``.

    part, parts: of these, the part between blocks, where sequence parallelism cuts once more.
    """

    rank: int
    ranks: int
    part: int = 0
    parts: int = 1

    @classmethod
    def of_rank(cls, mesh: Mesh, sequence: bool) -> Share:
        """A rank's positions. sequence: sequence parallelism is on."""
        part, parts = (mesh.coordinate("tp"), mesh.tp) if sequence else (0, 1)
        return cls(mesh.coordinate("cp"), mesh.cp, part, parts)

    def indices(self, seq: int, rank: int | None = None) -> torch.Tensor:
        """int64 [seq / ranks]: the positions that a rank (this one by default) holds, in order."""
        if self.ranks == 1:
            return torch.arange(seq)
        chunk = seq // (2 * self.ranks)
        mine = self.rank if rank is None else rank
        return torch.cat(
            [torch.arange(first * chunk, (first + 1) * chunk) for first in (mine, 2 * self.ranks - 1 - mine)]
        )

    def gathered(self, seq: int) -> torch.Tensor:
        """int64 [seq]: the positions of all ranks, in the order in which gathering puts them."""
        return torch.cat([self.indices(seq, rank) for rank in range(self.ranks)])

    def of(self, batch: Batch) -> Batch:
        """This rank's part of a microbatch. The document ids stay whole: the mask needs those of all of attention's
        keys. Dropout's keys are those between blocks.
        """
        if self.ranks * self.parts == 1:
            return batch
        tokens, labels, positions, document_ids, keys = batch
        if self.ranks > 1:
            kept = self.indices(tokens.shape[1])
            tokens, labels, positions, keys = (field[:, kept] for field in (tokens, labels, positions, keys))
        keys = keys.chunk(self.parts, dim=1)[self.part]
        return Batch(tokens, labels, positions, document_ids, keys)

    def _indices_on(self, seq: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """``indices`` and ``gathered``, on a device; on XLA each new tensor would be another transfer."""
        if device.type != "xla":
            return self.indices(seq), self.gathered(seq)
        return _on_xla(self, seq, device)

    def visible(self, document_ids: torch.Tensor, window: int | None = None) -> Visible:
        """[batch, seq] ids of whole samples -> what this rank's queries may look at, keys in gathered order.

        window: as trainer.models.attention.document_mask has it.
        """
        queries, keys = self._indices_on(document_ids.shape[1], document_ids.device)
        if self.ranks == 1:
            return Visible(document_ids, document_ids, queries, keys, window, ordered=True)
        return Visible(document_ids[:, queries], document_ids[:, keys], queries, keys, window, ordered=False)

    def mask(self, document_ids: torch.Tensor, window: int | None = None) -> torch.Tensor:
        """The same as a tensor: bool [batch, 1, seq / ranks, seq]."""
        return self.visible(document_ids, window).mask()


@lru_cache
def _on_xla(share: Share, seq: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return share.indices(seq).to(device), share.gathered(seq).to(device)
