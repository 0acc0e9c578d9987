"""Counts compiled graphs in the compiler's own cache, independently of our code."""

from __future__ import annotations

from pathlib import Path

from trainer.commands.smoke.page import SKIP, Line, judged


def compiled(cache: Path) -> set[str]:
    """Names of the graphs in a compilation cache that were compiled.

    AWS's layout (pytorch-neuron-parallel-compile.rst): <cache>/neuronxcc-<version>/MODULE_<graph>+<flags>/model.neff.
    """
    return {neff.parent.name for neff in cache.glob("neuronxcc-*/MODULE_*/model.neff")}


def line(first: set[str], again: set[str], dry: bool) -> Line:
    """Whether running the same job again compiles no new graph. first, again: the cache after each run."""
    name, wanted = "graphs of tiny-32", "some, and the same run again none"
    if dry:
        return Line(name, SKIP, "the native backend compiles nothing", wanted)
    new = len(again - first)
    return judged(name, bool(first) and not new, f"{len(first)} compiled, {new} more the second time", wanted)
