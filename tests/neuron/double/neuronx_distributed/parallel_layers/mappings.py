"""What happens to activations where they enter and leave the tensor-parallel region, forward and backward."""

import torch

from .collectives import all_gather, all_reduce, reduce_scatter, split
from .parallel_state import get_tensor_model_parallel_group


class _Region(torch.autograd.Function):
    """One operation forward, another on the gradient."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.back = backward
        return forward(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.back(gradient), None, None


def _group(process_group):
    return get_tensor_model_parallel_group() if process_group is None else process_group


def _reduced(group, dtype):
    """A sum over the group, taken in ``dtype`` (None: the tensor's own)."""
    return lambda x: all_reduce(x.to(dtype or x.dtype), group).to(x.dtype)


def copy_to_tensor_model_parallel_region(input_, process_group=None):
    return copy_reducing_in(input_, _group(process_group), None)


def copy_reducing_in(x, group, dtype):
    """The input as it is; its gradient summed over the group in ``dtype``."""
    return _Region.apply(x, lambda x: x.view_as(x), _reduced(group, dtype))


def reduce_from_tensor_model_parallel_region(input_, process_group=None):
    group = _group(process_group)
    return _Region.apply(input_, lambda x: all_reduce(x, group), lambda g: g)


def gather_from_tensor_model_parallel_region(input_, process_group=None):
    group = _group(process_group)
    return _Region.apply(input_, lambda x: all_gather(x, -1, group), lambda g: split(g, -1, group))


def gather_from_tensor_model_parallel_region_with_dim(input_, gather_dim, process_group=None):
    return gather_from_sequence_parallel_region(input_, gather_dim, False, process_group)


def scatter_to_tensor_model_parallel_region(input_, process_group=None):
    group = _group(process_group)
    return _Region.apply(input_, lambda x: split(x, -1, group), lambda g: all_gather(g, -1, group))


def scatter_to_sequence_parallel_region(input_, sequence_dimension=0, process_group=None):
    group, dim = _group(process_group), sequence_dimension
    return _Region.apply(input_, lambda x: split(x, dim, group), lambda g: all_gather(g, dim, group))


def gather_from_sequence_parallel_region(
    input_, sequence_dimension=0, to_model_parallel=True, process_group=None, tile_cc=False
):
    """to_model_parallel: whether the ranks go on to compute different things, so that gradients are summed."""
    if tile_cc:
        raise NotImplementedError("the double has no NKI collectives")
    group, dim = _group(process_group), sequence_dimension
    if to_model_parallel:
        return gather_reducing_in(input_, dim, group, None)
    return _Region.apply(input_, lambda x: all_gather(x, dim, group), lambda g: split(g, dim, group))


def gather_reducing_in(x, dim, group, dtype):
    """The whole sequence; its gradient summed over the group in ``dtype`` and cut again."""
    return _Region.apply(
        x,
        lambda x: all_gather(x, dim, group),
        lambda g: reduce_scatter(g.to(dtype or g.dtype), dim, group).to(g.dtype),
    )


def reduce_scatter_to_sequence_parallel_region(input_, sequence_dimension=0, process_group=None, dtype=None):
    """dtype: that of the gradient on its way through the gather (None: as it comes)."""
    group, dim = _group(process_group), sequence_dimension
    return _Region.apply(
        input_,
        lambda x: reduce_scatter(x, dim, group),
        lambda g: all_gather(g.to(dtype or g.dtype), dim, group).to(g.dtype),
    )
