"""The one dispatch mode that sees every operator of a rehearsed step: collectives, FLOPs and memory in one pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.errors import ConfigError
from trainer.models.dropout import drawn
from trainer.rehearsal.collectives import Ledger
from trainer.rehearsal.flops import FlopCounter
from trainer.rehearsal.memory import LiveBytes
from trainer.rehearsal.shortcut import Shortcut

_DEVICE = torch.ops.prim.device.default

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
Record = Callable[[Any, Any], None]


class Watch(TorchDispatchMode):
    """Enter it inside ``fake``, so that it sees operators first."""

    def __init__(self, fake: FakeTensorMode, ledger: Ledger, flops: FlopCounter, memory: LiveBytes) -> None:
        super().__init__()
        self.fake, self._shortcut = fake, Shortcut(fake)
        self.ledger, self.flops, self.memory = ledger, flops, memory
        self._records: dict[Any, Record | None] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Watch:
        self._stack.enter_context(self.memory.watching_resizes())
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._stack.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE:  # autograd asks for it twice an operator, and the mode is slow
            return args[0].fake_device
        result = self._shortcut(func, args, kwargs or {})
        try:
            record = self._records[func]
        except KeyError:
            record = self._records[func] = self._recorder(func)
        if record is not None:
            record(args, result)
        self.memory.see(result)
        return result

    def _recorder(self, func: Any) -> Record | None:
        # Attention's kernel has the tag but takes no dropout on the CPU: with some, other operators run.
        if torch.Tag.nondeterministic_seeded in func.tags and func.overloadpacket is not ATTENTION:
            return self._refuse_in_a_step(func)
        return self.ledger.recorder(func) or self.flops.recorder(func)

    def _refuse_in_a_step(self, func: Any) -> Record:
        """Modules draw when they are made, which means nothing; a draw in a step is another one in every layout."""

        def refuse(args: Any, result: Any) -> None:
            if self.ledger.phase == "forward_backward":
                raise ConfigError(drawn("the model", f"{func} in its step draws from torch's generator"))

        return refuse
