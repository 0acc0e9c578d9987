"""When attention on Trainium is the NKI flash kernel. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.trainium.releases import has_kernels

FLASH_TOKENS = 2048
"""The kernel takes sequences of a multiple of this (neuronx-distributed 0.17.0, kernels/flash_attn.py)."""


FLASH_HEAD = 128
"""The widest head that it takes (NKI's flash_fwd asserts d <= 128, and says that with mixed_precision, which
neuronx-distributed's call passes on, all products are BF16)."""


def why_not_flash(
    seq_len: int,
    documents: bool,
    context_parallel: int,
    precision: str,
    head_dim: int,
    packages: Mapping[str, str],
) -> str | None:
    """Why the kernel does not compute what the model asks for; None where it does: causal attention, no other mask.

    packages: the installed versions; empty for the pinned ones.
    """
    if not has_kernels(packages):
        sdk = "Neuron SDK 2.29 and later: their NKI (0.3 on) has no kernels for trn1's NeuronCore-v2"
        return f"neuronx-cc {packages['neuronx-cc']} is of {sdk}"
    if documents:
        return "data.document_mask: the NKI flash kernel has no document masks"
    if seq_len % FLASH_TOKENS:
        return f"data.seq_len is no multiple of {FLASH_TOKENS}, as the NKI flash kernel wants"
    if context_parallel > 1:
        return "parallel.cp: a rank's queries are two pieces of the sequence, and the NKI flash kernel knows one"
    if precision == "fp32":
        return "precision=fp32: the NKI flash kernel multiplies in BF16, whatever it is given"
    if head_dim > FLASH_HEAD:
        return f"heads of {head_dim}: the NKI flash kernel takes at most {FLASH_HEAD}"
    return None
