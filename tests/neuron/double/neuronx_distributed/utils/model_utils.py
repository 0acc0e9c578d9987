"""Moving a model without losing what NxD keeps on its parameters: ties and marks."""

from contextlib import contextmanager

import torch
from torch import nn

_MARKS = (
    "tensor_model_parallel",
    "partition_dim",
    "partition_stride",
    "num_partitions",
    "sequence_parallel_enabled",
    "shared",
)


@contextmanager
def _preserved(model):
    """Tie again what was tied, and mark again what lost its marks, when the block has replaced parameters."""
    names = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    yield
    for parameter, (first, *others) in names.items():
        kept = model.get_parameter(first)
        for mark in _MARKS:
            if hasattr(parameter, mark) and not hasattr(kept, mark):
                setattr(kept, mark, getattr(parameter, mark))
        for other in others:
            owner, _, leaf = other.rpartition(".")
            setattr(model.get_submodule(owner), leaf, kept)


def move_model_to_device(model, device):
    with _preserved(model):
        model.to(device)


def reinit_model(model, device, param_init_fn):
    """Empty every parameter on the device, module by module, and have each module's own filled by the function."""
    with _preserved(model), torch.no_grad():
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    empty = torch.empty_like(parameter, device=device)
                    module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
            param_init_fn(module, device)
