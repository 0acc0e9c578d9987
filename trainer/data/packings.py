"""How documents become samples: the ways that data.packing names."""

from __future__ import annotations

from typing import NamedTuple

from trainer.data.best_fit import FittedSamples
from trainer.data.packing import PackedSamples
from trainer.data.stream import TokenStream


class Packing(NamedTuple):
    """kind: data.packing. long_documents: data.long_documents."""

    kind: str = "contiguous"
    long_documents: str = "split"

    def samples(
        self, tokens: TokenStream, seq_len: int, document_mask: bool, part: tuple[int, int] | None = None
    ) -> PackedSamples | FittedSamples:
        """The samples of a stream, or of a part of it (``PackedSamples``). Raises DataError."""
        if self.kind == "best_fit":
            return FittedSamples(tokens, seq_len, self.long_documents, part)
        return PackedSamples(tokens, seq_len, document_mask, part)


CONTIGUOUS = Packing()
