"""Cross-entropy of logits whose vocabulary is cut over TP."""

import torch

from .collectives import all_reduce
from .parallel_state import get_tensor_model_parallel_group


def parallel_cross_entropy(vocab_parallel_logits, target, label_smoothing=0.0):
    """Logits [..., vocabulary / tp], targets [...] -> FP32 [...], the same on every rank of the group.

    A target outside the vocabulary picks a logit of zero after the maximum is taken off: finite and meaningless.
    """
    if label_smoothing:
        raise NotImplementedError("NxD's label smoothing is wrong under TP, so the double has none")
    return _CrossEntropy.apply(vocab_parallel_logits, target)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, target):
        group = get_tensor_model_parallel_group()
        x = logits.float()
        x = x - all_reduce(x.amax(-1), group, "max").unsqueeze(-1)
        local = target - group.rank() * x.shape[-1]
        inside = ((local >= 0) & (local < x.shape[-1])).float()
        local = local.clamp(0, x.shape[-1] - 1).unsqueeze(-1)
        picked = all_reduce(x.gather(-1, local).squeeze(-1) * inside, group)
        exponentials = x.exp()
        total = all_reduce(exponentials.sum(-1), group)
        ctx.save_for_backward(exponentials / total.unsqueeze(-1), local, inside)
        ctx.dtype = logits.dtype
        return total.log() - picked

    @staticmethod
    def backward(ctx, gradient):
        softmax, local, inside = ctx.saved_tensors
        difference = softmax.scatter_add(-1, local, -inside.unsqueeze(-1))
        return (difference * gradient.unsqueeze(-1)).to(ctx.dtype), None
