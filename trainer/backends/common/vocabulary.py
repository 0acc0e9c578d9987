"""An embedding of which a rank holds some rows: what it can look up."""

from __future__ import annotations

import torch

from trainer.lookup import lookup


def rows_here(tokens: torch.Tensor, weight: torch.Tensor, first: int) -> torch.Tensor:
    """int64 [...] -> [..., hidden]: the rows of the tokens that this rank has, zeros for the others.

    weight: [rows here, hidden], the embedding's rows from ``first`` on. Over the ranks the results add up to all rows.
    """
    local = tokens - first
    here = (local >= 0) & (local < weight.shape[0])
    rows = lookup(local.where(here, 0), weight)
    return rows * here.unsqueeze(-1).to(rows.dtype)
