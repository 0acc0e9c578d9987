"""Activation recomputation, on whatever device the tensors are."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.utils.checkpoint


def checkpoint(function: Callable[..., torch.Tensor], x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """``function(x, *others)`` now, and again in the backward pass instead of keeping what it made.

    torch_xla's own version puts optimization barriers around the second run, without which the compiler would merge it
    with the first and keep everything. Reentrant, so x has to require grad (freeze.py sees to it); a layer's dropout is
    a function of its inputs, so no generator has to be set back.
    """
    if x.device.type != "xla":
        result = torch.utils.checkpoint.checkpoint(function, x, *others, use_reentrant=True, preserve_rng_state=False)
    else:
        from torch_xla.utils.checkpoint import checkpoint as with_barriers

        def run(*inputs: torch.Tensor) -> torch.Tensor:
            """Not a module's method: torch_xla would put the module's weights behind the barrier too, in place, and the
            graph of every microbatch would write all of them.
            """
            return function(*inputs)

        result = with_barriers(run, x, *others, use_reentrant=True, preserve_rng_state=False)
    assert isinstance(result, torch.Tensor)
    return result


def apart(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The same tensors, of which the compiler does not know that it has computed with them before, and which are there
    only when all of them are: what is computed with them is computed then, and is no longer kept than that needs.
    """
    if tensors[0].device.type != "xla":
        return list(tensors)
    from torch_xla.core.xla_model import optimization_barrier_

    copies = [tensor.clone() for tensor in tensors]  # it works in place; these are other names of the same values
    optimization_barrier_(copies)
    return copies
