"""Live bytes: the storages that operators return, each until it is freed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor


class LiveBytes:
    """Live bytes of the storages seen, and the peak since ``restart``.

    It misses what a kernel allocates and frees inside one operator, and an allocator's rounding.
    """

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}

    def see(self, result: Any) -> None:
        """Count the tensors in an operator's result, except those on the meta device, which have no memory."""
        if isinstance(result, torch.Tensor):
            if isinstance(result, DTensor):
                result = result._local_tensor  # its own storage has the global size, and no memory
            if isinstance(result, FakeTensor) and result.fake_device.type == "meta":
                return
            storage = result.untyped_storage()
            if storage._cdata not in self._known:
                self._add(storage, storage.nbytes())
        elif isinstance(result, (list, tuple)):
            for part in result:
                self.see(part)

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count neither these tensors, which were allocated before, nor views of them."""
        for tensor in tensors:
            self._add(tensor.untyped_storage(), 0)

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        self._known[key] = (weakref.ref(storage, self._forgetter(key)), size)
        self._grow(size)

    def _forgetter(self, key: int) -> Callable[[Any], None]:
        known = self._known

        def forget(_: Any) -> None:
            self.live -= known.pop(key)[1]

        return forget

    def _grow(self, size: int) -> None:
        self.live += size
        if self.live > self.peak:
            self.peak = self.live

    def restart(self) -> int:
        """Reset the peak to the live bytes, and return them."""
        self.peak = self.live
        return self.live

    @contextmanager
    def watching_resizes(self) -> Iterator[None]:
        """Count storage resizes too, which are no operators: FSDP2 allocates and frees gathered weights by them."""
        original = torch.UntypedStorage.resize_

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            done = original(storage, size)
            if (entry := self._known.get(storage._cdata)) is not None:
                self._known[storage._cdata] = (entry[0], size)
                self._grow(size - entry[1])
            return done

        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.UntypedStorage.resize_ = original  # type: ignore[method-assign]


def storage_bytes(tensors: Iterable[torch.Tensor], seen: set[int]) -> int:
    """Bytes of the tensors' storages, each once; those in ``seen`` are left out, new ones are added to it."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            total += storage.nbytes()
    return total
