"""Gradients over several axes: their norm, and sums over TP and the data axes."""

import torch
import torch_xla.core.xla_model as xm

from . import parallel_state as ps
from .collectives import all_reduce


def get_grad_norm(parameters, norm_type=2, zero1_optimizer=False, zero1_optimizer_groups=None, force_spmd=True):
    """2-norm [1] of the whole model's gradient: parts over TP and PP added, replicas and tied copies counted once.

    zero1_optimizer_groups: replica groups over which the parameters given are parts as well.
    """
    if norm_type != 2 or not force_spmd or zero1_optimizer != (zero1_optimizer_groups is not None):
        raise NotImplementedError("the double has the 2-norm alone, with replica groups exactly under ZeRO-1")
    parameters = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    total = torch.zeros(1, dtype=parameters[0].dtype, device=parameters[0].device)
    for parameter in parameters:
        if parameter.grad is None or getattr(parameter, "shared", False):
            continue
        square = parameter.grad.detach().norm() ** 2
        cut = getattr(parameter, "tensor_model_parallel", False)
        total = total + (square if cut else square / ps.get_tensor_model_parallel_size())
    total = all_reduce(total, ps.get_tensor_model_parallel_group())
    total = all_reduce(total, ps.get_pipeline_model_parallel_group())
    if zero1_optimizer_groups is not None:
        xm.all_reduce("sum", [total], groups=zero1_optimizer_groups, pin_layout=False)
    return total.sqrt()


def clip_grads_with_norm(parameters, total_norm, max_norm):
    """Scale the gradients down in place where the norm exceeds ``max_norm``. No branch on the value."""
    factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
    return total_norm


def clip_grad_norm(
    parameters, max_norm, norm_type=2, zero1_optimizer=False, zero1_optimizer_groups=None, force_spmd=True
):
    parameters = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    norm = get_grad_norm(parameters, norm_type, zero1_optimizer, zero1_optimizer_groups, force_spmd)
    return clip_grads_with_norm(parameters, norm, max_norm)


def bucket_allreduce_gradients(grads_list, reduce_over_ep_group=False):
    """Average in place over the data axes (DP and CP)."""
    if reduce_over_ep_group:
        raise NotImplementedError("the double has no expert parallelism")
    group = ps.get_expert_data_parallel_group()
    for grad in grads_list:
        grad.copy_(all_reduce(grad / group.size(), group))


def allreduce_sequence_parallel_gradients(optimizer):
    """Sum over TP, in place, the gradients of parameters that saw their part of the sequence alone."""
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        grad = parameter.grad if parameter.grad is not None else getattr(parameter, "main_grad", None)
        if getattr(parameter, "sequence_parallel_enabled", False) and grad is not None:
            grad.copy_(all_reduce(grad, ps.get_tensor_model_parallel_group()))
