"""What CI leaves out of the slow tests: further cases of what a case beside them shows already."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def long(*cases: Any) -> list[Any]:
    """Cases of a test, a tuple for several parameters, for ``make test-long`` alone."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases]


def in_ci(cases: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """All cases in their order; those that are not kept are long."""
    cases = list(cases)
    assert all(case in cases for case in kept), "a case that CI keeps is none"
    return [case if case in kept else long(case)[0] for case in cases]
