"""The one dispatch mode that sees every operator of a rehearsed step: collectives, FLOPs and memory in one pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.rehearsal.collectives import Ledger
from trainer.rehearsal.flops import FlopCounter
from trainer.rehearsal.memory import LiveBytes
from trainer.rehearsal.shortcut import Shortcut

_DEVICE = torch.ops.prim.device.default

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
        return self.ledger.recorder(func) or self.flops.recorder(func)
