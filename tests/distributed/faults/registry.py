"""Faults by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from trainer.rules.derived import Derived

Fault = Callable[[Derived], Derived]
FAULTS: dict[str, Fault] = {}


def fault(break_it: Callable[[], None]) -> Callable[[], None]:
    """Register a fault that patches code."""

    def inject_it(derived: Derived) -> Derived:
        break_it()
        return derived

    FAULTS[break_it.__name__] = inject_it
    return break_it


def cut_fault(change: Callable[[Sequence[range]], tuple[range, ...]]) -> Callable[[Sequence[range]], tuple[range, ...]]:
    """Register a fault in the stages' layers."""
    FAULTS[change.__name__] = lambda derived: replace(derived, stages=change(derived.stages))
    return change


def inject(name: str, derived: Derived) -> Derived:
    """Break this process's lowering; nothing for an empty name."""
    return FAULTS[name](derived) if name else derived


def after(owner: type, method: str, more: Callable[..., None]) -> None:
    """Do ``more`` with the same arguments after a method."""
    original = getattr(owner, method)

    def both(self: Any, *args: Any, **options: Any) -> Any:
        result = original(self, *args, **options)
        more(self, *args, **options)
        return result

    setattr(owner, method, both)


def nothing(*args: Any, **options: Any) -> None:
    """In place of a piece that is left out."""


def same(x: Any, *args: Any) -> Any:
    """In place of a piece that should have changed its argument."""
    return x
