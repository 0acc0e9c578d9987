"""When attention on Trainium is the NKI flash kernel. No torch."""

from __future__ import annotations

FLASH_TOKENS = 2048
"""The kernel takes sequences of a multiple of this (neuronx-distributed 0.17.0, kernels/flash_attn.py)."""


def why_plain(seq_len: int, documents: bool, context_parallel: int) -> str | None:
    """Why the kernel does not compute what the model asks for; None where it does: causal attention, no other mask."""
    if documents:
        return "data.document_mask: the NKI flash kernel has no document masks"
    if seq_len % FLASH_TOKENS:
        return f"data.seq_len is no multiple of {FLASH_TOKENS}, as the NKI flash kernel wants"
    if context_parallel > 1:
        return "parallel.cp: a rank's queries are two pieces of the sequence, and the NKI flash kernel knows one"
    return None
