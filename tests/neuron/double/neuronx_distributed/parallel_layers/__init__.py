"""What neuronx_distributed.parallel_layers exports, as far as the backend uses it."""

from . import parallel_state
from .grads import clip_grad_norm
from .layers import ColumnParallelLinear, ParallelEmbedding, RowParallelLinear
from .loss_functions import parallel_cross_entropy
from .mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_tensor_model_parallel_region,
    reduce_from_tensor_model_parallel_region,
    scatter_to_tensor_model_parallel_region,
)
from .parallel_state import initialize_model_parallel
from .utils import set_tensor_model_parallel_attributes

PARALLEL_MODULES = [ColumnParallelLinear, RowParallelLinear, ParallelEmbedding]
PARALLEL_FUNCTIONS = [
    parallel_cross_entropy,
    copy_to_tensor_model_parallel_region,
    gather_from_tensor_model_parallel_region,
    reduce_from_tensor_model_parallel_region,
    scatter_to_tensor_model_parallel_region,
]
"""What a pipeline's trace calls and does not enter."""

__all__ = [
    "parallel_state",
    "clip_grad_norm",
    "ColumnParallelLinear",
    "ParallelEmbedding",
    "RowParallelLinear",
    "parallel_cross_entropy",
    "copy_to_tensor_model_parallel_region",
    "gather_from_tensor_model_parallel_region",
    "reduce_from_tensor_model_parallel_region",
    "scatter_to_tensor_model_parallel_region",
    "initialize_model_parallel",
    "set_tensor_model_parallel_attributes",
]
