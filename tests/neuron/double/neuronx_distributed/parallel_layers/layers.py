"""Linear layers and the embedding, cut over TP. Activations are [sequence, batch, hidden] or [batch, sequence, hidden].

On the CPU every rank draws the whole FP32 weight from the global generator and keeps its part, as NxD does: one seed
gives one model at every TP size. On the meta device nothing is drawn.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .mappings import (
    copy_reducing_in,
    gather_from_tensor_model_parallel_region,
    gather_reducing_in,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
    scatter_to_tensor_model_parallel_region,
)
from .parallel_state import get_tensor_model_parallel_group
from .utils import set_tensor_model_parallel_attributes


def _divide(size, parts):
    assert size % parts == 0, f"{size} is not divisible by {parts}"
    return size // parts


def _refuse(**options):
    wanted = [name for name, value in options.items() if value]
    if wanted:
        raise NotImplementedError(f"the double has no {', '.join(wanted)}")


def _mark(parameter, dim, stride, group, rank_ordering):
    set_tensor_model_parallel_attributes(parameter, True, dim, stride, group.size(), rank_ordering)


def _parameter(shape, dim, stride, group, init, device, dtype, rank_ordering):
    """This rank's part of a weight that is cut along ``dim`` in ``stride`` interleaved pieces."""
    parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
    _mark(parameter, dim, stride, group, rank_ordering)
    if parameter.device.type == "cpu":
        whole = torch.empty([size * group.size() if i == dim else size for i, size in enumerate(shape)])
        init(whole)
        pieces = whole.to(dtype).split(_divide(shape[dim], stride), dim)[group.rank() :: group.size()]
        parameter.data.copy_(torch.cat(pieces, dim))
    elif parameter.device.type != "meta":
        init(parameter.data)
    return parameter


class _Linear(nn.Module):
    """What the two linear layers share."""

    def __init__(self, sizes, dtypes, stride, init_method, sequence, group, skip_bias):
        super().__init__()
        (self.input_size, self.output_size), (self.dtype, reduce_dtype) = sizes, dtypes
        self.stride, self.arg_init_method, self.skip_bias_add = stride, init_method, skip_bias
        self.tensor_parallel_group = get_tensor_model_parallel_group() if group is None else group
        self.reduce_dtype = self.dtype if reduce_dtype is None else reduce_dtype
        self.sequence_parallel_enabled, self.sequence_dimension = sequence
        if self.sequence_parallel_enabled and self.sequence_dimension is None:
            self.sequence_dimension = 0

    def _init_weight(self, weight):
        if self.arg_init_method is None:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        else:
            self.arg_init_method(weight)

    def _new_weight(self, shape, dim, device, rank_ordering):
        self.weight = _parameter(
            shape, dim, self.stride, self.tensor_parallel_group, self._init_weight, device, self.dtype, rank_ordering
        )
        self.device = self.weight.device

    def _new_bias(self, wanted, size):
        self.register_parameter("bias", None)
        if wanted:
            self.bias = nn.Parameter(torch.empty(size, device=self.device, dtype=self.dtype))
            if self.device.type != "meta":
                bound = 1 / math.sqrt(self.weight.shape[1])
                nn.init.uniform_(self.bias, -bound, bound)

    def _with_bias(self, output):
        if self.skip_bias_add:
            return output, self.bias
        return output if self.bias is None else output + self.bias


class ColumnParallelLinear(_Linear):
    """Each rank holds rows of the weight [output / tp, input] and makes its part of the output."""

    def __init__(
        self, input_size, output_size, bias=True, gather_output=True, dtype=torch.float32, device=None, stride=1,
        init_method=None, sequence_parallel_enabled=False, sequence_dimension=None, keep_master_weight=False,
        skip_bias_add=False, pad=False, pad_alignment_size_per_rank=1, keep_padded_output=False,
        tensor_model_parallel_group=None, reduce_dtype=torch.float32, rank_ordering=None,
    ):  # fmt: skip
        _refuse(keep_master_weight=keep_master_weight, pad=pad)
        sizes, dtypes = (input_size, output_size), (dtype, reduce_dtype)
        sequence = sequence_parallel_enabled, sequence_dimension
        super().__init__(sizes, dtypes, stride, init_method, sequence, tensor_model_parallel_group, skip_bias_add)
        self.gather_output = gather_output
        self.output_size_per_partition = _divide(output_size, self.tensor_parallel_group.size())
        self._new_weight((self.output_size_per_partition, input_size), 0, device, rank_ordering)
        self._new_bias(bias, output_size if gather_output else self.output_size_per_partition)
        if bias and not gather_output:
            _mark(self.bias, 0, stride, self.tensor_parallel_group, rank_ordering)

    def forward(self, input, slice_indices=None):
        """[..., input] (or under sequence parallelism its part of the sequence) -> [..., output or output / tp]."""
        assert slice_indices is None, "the double multiplies by whole weights"
        group = self.tensor_parallel_group
        if self.sequence_parallel_enabled:
            x = gather_reducing_in(input, self.sequence_dimension, group, self.reduce_dtype)
        else:
            x = copy_reducing_in(input, group, self.reduce_dtype)
        output = F.linear(x, self.weight)
        if self.gather_output:
            assert not self.sequence_parallel_enabled
            output = gather_from_tensor_model_parallel_region(output, group)
        return self._with_bias(output)


class RowParallelLinear(_Linear):
    """Each rank holds columns of the weight [output, input / tp]; the outputs are summed."""

    def __init__(
        self, input_size, output_size, bias=True, input_is_parallel=False, dtype=torch.float32, device=None,
        stride=1, init_method=None, sequence_parallel_enabled=False, sequence_dimension=None,
        keep_master_weight=False, skip_bias_add=False, pad=False, reduce_output=True,
        tensor_model_parallel_group=None, reduce_dtype=torch.float32, tile_cc=False, rank_ordering=None,
    ):  # fmt: skip
        _refuse(keep_master_weight=keep_master_weight, pad=pad, tile_cc=tile_cc)
        if sequence_parallel_enabled and not input_is_parallel:
            raise RuntimeError("To enable `sequence_parallel_enabled`, `input_is_parallel` must be `True`")
        sizes, dtypes = (input_size, output_size), (dtype, reduce_dtype)
        sequence = sequence_parallel_enabled, sequence_dimension
        super().__init__(sizes, dtypes, stride, init_method, sequence, tensor_model_parallel_group, skip_bias_add)
        self.input_is_parallel, self.reduce_output = input_is_parallel, reduce_output
        self.input_size_per_partition = _divide(input_size, self.tensor_parallel_group.size())
        self._new_weight((output_size, self.input_size_per_partition), 1, device, rank_ordering)
        self._new_bias(bias, output_size)
        if bias:
            self.bias.sequence_parallel_enabled = sequence_parallel_enabled

    def forward(self, input_, slice_indices=None):
        """[..., input / tp] (or input) -> [..., output], under sequence parallelism its part of the sequence."""
        assert slice_indices is None, "the double multiplies by whole weights"
        group = self.tensor_parallel_group
        x = input_ if self.input_is_parallel else scatter_to_tensor_model_parallel_region(input_, group)
        output = F.linear(x, self.weight)
        if self.reduce_output:
            dtype, output = output.dtype, output.to(self.reduce_dtype)
            if self.sequence_parallel_enabled:
                output = reduce_scatter_to_sequence_parallel_region(output, self.sequence_dimension, group, dtype)
            else:
                output = reduce_from_tensor_model_parallel_region(output, group)
            output = output.to(dtype)
        return self._with_bias(output)


class ParallelEmbedding(nn.Module):
    """An embedding cut along the vocabulary, or with ``shard_across_embedding`` along the hidden dim."""

    def __init__(
        self, num_embeddings, embedding_dim, padding_idx=None, max_norm=None, norm_type=2.0,
        scale_grad_by_freq=False, sparse=False, init_method=nn.init.normal_, device=None, dtype=torch.float32,
        shard_across_embedding=False, pad=False, sequence_parallel_enabled=False, tensor_model_parallel_group=None,
        use_spmd_rank=False, sequence_dimension=None, tile_cc=False, rank_ordering=None, collect_output=True,
    ):  # fmt: skip
        super().__init__()
        _refuse(pad=pad, use_spmd_rank=use_spmd_rank, tile_cc=tile_cc)
        group = tensor_model_parallel_group or get_tensor_model_parallel_group()
        self.tensor_model_parallel_group, self.tensor_model_parallel_size = group, group.size()
        self.num_embeddings, self.embedding_dim, self.dtype = num_embeddings, embedding_dim, dtype
        self.shard_across_embedding, self.collect_output = shard_across_embedding, collect_output
        self.sequence_parallel_enabled, self.sequence_dim = sequence_parallel_enabled, sequence_dimension
        self._options = max_norm, norm_type, scale_grad_by_freq, sparse
        dim = int(shard_across_embedding)
        shape = [num_embeddings, embedding_dim]
        shape[dim] = _divide(shape[dim], group.size())
        self.start_index = 0 if shard_across_embedding else group.rank() * shape[0]
        local = None if padding_idx is None else padding_idx - self.start_index
        self.padding_idx = local if local is not None and 0 <= local < shape[0] else None
        self.weight = _parameter(shape, dim, 1, group, init_method, device, dtype, rank_ordering)

    def forward(self, input_):
        """Ids [batch, sequence] -> [batch, sequence, hidden], with sequence parallelism [sequence / tp, batch, hidden].

        With sequence_dimension=1 under sequence parallelism each rank gets the whole sequence, not yet summed: NxD
        leaves the reduction along that dim to the caller.
        """
        group, rows = self.tensor_model_parallel_group, self.weight.shape[0]
        if self.shard_across_embedding:
            out = F.embedding(input_.long(), self.weight, self.padding_idx, *self._options)
            return gather_from_tensor_model_parallel_region(out, group) if self.collect_output else out
        local = input_.long() - self.start_index
        inside = (local >= 0) & (local < rows)
        out = F.embedding(local * inside, self.weight, self.padding_idx, *self._options)
        if group.size() > 1:
            out = out * inside.unsqueeze(-1).to(out.dtype)
        if not self.collect_output or (self.sequence_parallel_enabled and self.sequence_dim):
            return out
        if self.sequence_parallel_enabled:
            return reduce_scatter_to_sequence_parallel_region(out.transpose(0, 1).contiguous(), 0, group)
        return reduce_from_tensor_model_parallel_region(out, group)
