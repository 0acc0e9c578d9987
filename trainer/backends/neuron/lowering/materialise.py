"""From the meta device to the real one, without losing what neuronx-distributed keeps on parameters as attributes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def materialise(modules: Iterable[nn.Module], device: torch.device) -> None:
    """Give every parameter memory, zeroed, in place. Tied parameters stay one; NxD's marks stay on them.

    ``Module.to`` and ``to_empty`` make new parameters when they leave the meta device, and drop the marks.
    """
    real: dict[nn.Parameter, nn.Parameter] = {}
    for root in modules:
        for module in root.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is None or not parameter.is_meta:
                    continue
                if parameter not in real:
                    values = torch.zeros(parameter.shape, dtype=parameter.dtype, device=device)
                    real[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
                    vars(real[parameter]).update(vars(parameter))
                module._parameters[name] = real[parameter]
