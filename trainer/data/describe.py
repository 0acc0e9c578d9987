"""What a corpus amounts to, for people."""

from __future__ import annotations

import numpy as np

from trainer.data.corpus import Corpus

AT_ONCE = 1 << 16
"""Tokens that are counted together."""


def describe(corpus: Corpus) -> list[str]:
    """What there is to learn from, and what general compressors make of the held-out documents."""
    about = " (estimated)" if corpus.estimated else ""
    lines = [
        f"  {kind} text  {part.documents:,} documents, {part.tokens:,} tokens, {part.bytes / 1e6:,.1f} MB{marked}"
        for kind, part, marked in (("training", corpus.train_part, about), ("held-out", corpus.heldout_part, ""))
    ]
    spoken = _spoken(corpus)
    written = corpus.heldout_part.bytes
    if abs(spoken - written) > 0.005 * written:
        lines.append(
            f"  this tokenizer is not lossless: its tokens stand for {spoken:,} bytes of {written:,} held out;"
            " bits per byte are those of what the tokens say"
        )
    zlib, xz = corpus.zlib_bits_per_byte, corpus.xz_bits_per_byte
    if zlib is not None and xz is not None:
        lines.append(f"  held-out documents compressed whole, bits/byte: zlib -9 {zlib:.3f}, xz -6 {xz:.3f}")
    return lines


def _spoken(corpus: Corpus) -> int:
    """Bytes that the held-out tokens stand for."""
    sizes = np.array([len(piece) for piece in corpus.tokenizer.token_bytes])
    starts = range(0, corpus.heldout.total, AT_ONCE)
    return sum(int(sizes[corpus.heldout.slice(start, start + AT_ONCE)].sum()) for start in starts)


def compressor_references(corpus: Corpus) -> dict[str, float | None]:
    """Bits per byte of general compressors on whole held-out documents: they see more context than a window."""
    return {
        "zlib_bits_per_byte_whole_files": corpus.zlib_bits_per_byte,
        "xz_bits_per_byte_whole_files": corpus.xz_bits_per_byte,
    }
