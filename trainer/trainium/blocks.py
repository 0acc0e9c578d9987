"""When attention on Trainium that is not the NKI flash kernel goes through its keys in blocks, and how large. No torch.

Why 512: it is the widest product that a PSUM bank takes (2 KiB in each of 128 partitions: 512 FP32 scores of a query;
AWS Neuron documentation, NKI, "NeuronCore-v2 architecture"), so a narrower block would not fill the matrix unit. Wider
ones overflow SBUF (24 MiB): a head's scores for a block are 4,096 queries x 512 x (4 FP32 + 2 BF16) bytes = 12 MiB,
which with 1,024 keys would be all of it. Blocks that overflow go through HBM, at 410 GB/s a core. And the diagonal's
blocks, of which half is not seen, cost 512 / seq_len more than the triangle: an eighth at 4,096.
"""

from __future__ import annotations

BLOCK = 512
"""Keys of a block; the last one of a sample may be shorter."""


def is_blockwise(seq_len: int) -> bool:
    """Whether a sample has more than one block. One block is what plain attention computes, with a mask that layers
    share and without a second look at the scores in the backward pass.
    """
    return seq_len > BLOCK
