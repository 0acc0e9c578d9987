"""The windows of a text that evaluation scores, and their zlib size."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property

from trainer.batch import IGNORED_LABEL, Batch
from trainer.data.packing import Sample, collate, padding_sample
from trainer.data.packings import CONTIGUOUS, Packing
from trainer.data.stream import TokenStream
from trainer.data.tokenizer import Tokenizer

AT_ONCE = 1 << 16
"""Tokens that are counted together."""
COUNTED = 4 << 20
"""Tokens that are counted at the most: a start does not depend on the size of the corpus."""


class HeldoutWindows:
    """Samples spread evenly over a text: the same ones at every evaluation and on every layout."""

    def __init__(
        self,
        tokens: TokenStream,
        token_bytes: Sequence[bytes],
        seq_len: int,
        document_mask: bool,
        windows: int,
        packing: Packing = CONTIGUOUS,
        written: float = 1.0,
    ) -> None:
        """token_bytes: of each id. windows: number of windows; all samples, if there are fewer.

        written: bytes of the text for each that its tokens stand for; more than 1 where some of it has no token.
        packing: that of training, so that a document is scored as one is trained on: whole, or cut at the same places.
        """
        self._token_bytes, self._written = token_bytes, written
        self._seq_len = seq_len
        packed = packing.samples(tokens, seq_len, document_mask)
        count = min(windows, len(packed))
        self._samples: list[Sample] = [packed[i * len(packed) // count] for i in range(count)]

    def __len__(self) -> int:
        return len(self._samples)

    def batches(self, microbatch: int, dp_rank: int, dp_size: int) -> list[Batch]:
        """This rank's share, in batches of `microbatch` rows: the same number and shape on every rank.

        Padding rows at the end have no targets (labels IGNORED_LABEL, document_ids -1, tokens 0).
        """
        count = -(-len(self._samples) // (microbatch * dp_size))
        rows = count * microbatch
        own = self._samples[dp_rank * rows : (dp_rank + 1) * rows]
        own = own + [padding_sample(self._seq_len)] * (rows - len(own))
        return [collate(own[i : i + microbatch]) for i in range(0, rows, microbatch)]

    @cached_property
    def target_bytes(self) -> int:
        """Bytes of text of all targets: the divisor that turns a loss sum into bits per byte."""
        return round(self._written * self._spoken)

    @cached_property
    def _spoken(self) -> int:
        """Bytes that the targets stand for by themselves."""
        return sum(len(text) for text in self.texts())

    def texts(self) -> list[bytes]:
        """The bytes of each window's targets."""
        pieces = (sample.labels[sample.labels != IGNORED_LABEL] for sample in self._samples)
        return [b"".join(self._token_bytes[token] for token in ids) for ids in pieces]

    def zlib_bits_per_byte(self) -> float | None:
        """zlib -9 on the targets of these windows, each compressed separately; None without any text."""
        compressed = sum(len(zlib.compress(text, 9)) for text in self.texts() if text)
        return 8 * compressed / self._spoken if self._spoken else None


def spoken_bytes(tokens: TokenStream, tokenizer: Tokenizer) -> int:
    """Bytes that all tokens of a text stand for; of more than COUNTED tokens by the first of them."""
    sizes, counted = tokenizer.token_sizes, min(tokens.total, COUNTED)
    starts = range(0, counted, AT_ONCE)
    found = sum(int(sizes[tokens.slice(start, min(start + AT_ONCE, counted))].sum()) for start in starts)
    return found * tokens.total // counted if counted else 0


def written_for_spoken(tokens: TokenStream, tokenizer: Tokenizer, written: int | None) -> float:
    """Bytes of a text for each that its tokens stand for. written: bytes of the text; None where they are not known.

    1 but where the tokenizer may lack tokens for some of it: then a score in bits per byte counts what it left out.
    """
    if written is None or tokenizer.unknown is None:
        return 1.0
    spoken = spoken_bytes(tokens, tokenizer)
    return written / spoken if spoken else 1.0
