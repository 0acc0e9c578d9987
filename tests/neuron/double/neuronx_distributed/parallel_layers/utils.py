"""The marks that say how a parameter is cut over TP."""

_MARKS = ("tensor_model_parallel", "partition_dim", "partition_stride", "num_partitions")


def set_tensor_model_parallel_attributes(tensor, is_parallel, dim, stride, num_partitions=-1, rank_ordering=None):
    """Mark once; a second time is an AssertionError, as in NxD."""
    assert not any(hasattr(tensor, mark) for mark in _MARKS), "the tensor carries TP marks already"
    if num_partitions == -1:
        raise NotImplementedError("pass num_partitions: NxD warns that its default may be wrong")
    for mark, value in zip(_MARKS, (is_parallel, dim, stride, num_partitions), strict=True):
        setattr(tensor, mark, value)
    tensor.rank_ordering = rank_ordering
