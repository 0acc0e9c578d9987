"""What a corpus amounts to, for people."""

from __future__ import annotations

from trainer.data.corpus import Corpus
from trainer.data.heldout import spoken_bytes


def describe(corpus: Corpus) -> list[str]:
    """What there is to learn from, and what general compressors make of the held-out documents."""
    about = " (estimated)" if corpus.estimated else ""
    lines = [
        f"  {kind} text  {part.documents:,} documents, {part.tokens:,} tokens, {part.bytes / 1e6:,.1f} MB{marked}"
        for kind, part, marked in (("training", corpus.train_part, about), ("held-out", corpus.heldout_part, ""))
    ]
    spoken = spoken_bytes(corpus.heldout, corpus.tokenizer)
    written = corpus.heldout_part.bytes
    if abs(spoken - written) > 0.005 * written:
        said = "what the tokens say" if corpus.tokenizer.unknown is None else "the text"
        lines.append(
            f"  this tokenizer is not lossless: its tokens stand for {spoken:,} bytes of {written:,} held out;"
            f" bits per byte are those of {said}"
        )
    zlib, xz = corpus.zlib_bits_per_byte, corpus.xz_bits_per_byte
    if zlib is not None and xz is not None:
        lines.append(f"  held-out documents compressed whole, bits/byte: zlib -9 {zlib:.3f}, xz -6 {xz:.3f}")
    return lines


def compressor_references(corpus: Corpus) -> dict[str, float | None]:
    """Bits per byte of general compressors on whole held-out documents: they see more context than a window."""
    return {
        "zlib_bits_per_byte_whole_files": corpus.zlib_bits_per_byte,
        "xz_bits_per_byte_whole_files": corpus.xz_bits_per_byte,
    }
