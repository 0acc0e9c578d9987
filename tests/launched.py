"""scripts/generate.py and scripts/eval.py in the ranks of a launch, or in this process: functions for tests.ranks."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import trainer.evaluation.chat
import trainer.evaluation.exact
import trainer.evaluation.result
import trainer.evaluation.text
import trainer.generation.fast
import trainer.training.trust  # noqa: F401 - what the commands import, once for all ranks
from tests.harness import ROOT
from trainer.commands import command_line
from trainer.models.decoder import Decoder

Run = Callable[..., tuple[int, str, str]]
"""A command in this process: from its arguments to its exit code, standard output and standard error."""


def script(name: str) -> ModuleType:
    """A command's script, as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def starve() -> None:
    """From now on rank 1 has no memory for its third pass through a model."""
    original, passes = Decoder.forward, itertools.count(1)

    def forward(self: Decoder, *given: Any) -> Any:
        if os.environ["RANK"] == "1" and next(passes) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 128 bytes")
        return original(self, *given)

    Decoder.forward = forward  # type: ignore[method-assign]


def command(name: str, arguments: list[list[str]], stdin: str = "") -> dict[str, Any]:
    """Its exit code, what it printed, and its seconds. arguments: by rank; the last ones count for all others too."""
    rank = int(os.environ.get("RANK", "0"))
    before, start = sys.stdin, time.monotonic()
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [f"{name}.py", *arguments[min(rank, len(arguments) - 1)]]
    sys.stdin = SimpleNamespace(buffer=io.BytesIO(stdin.encode("latin-1")), isatty=lambda: False)  # type: ignore[assignment]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            module = script(name)
            code = command_line.run(module.parser(), module.act)
    finally:
        sys.stdin = before
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seconds": time.monotonic() - start}


def assert_one_report(ranks: list[dict[str, Any]], code: int, reporter: int, said: str, longest: float) -> None:
    """Both ranks of a launch end with the code, and one of them tells the one problem.

    said: words of it. longest: seconds that a rank may take.
    """
    told = [rank["err"] for rank in ranks]
    print(*told, sep="\n")
    assert [rank["code"] for rank in ranks] == [code, code]
    assert said in told[reporter]
    assert sum(text.count("rule:") for text in told) == told[reporter].count("rule:") == 1
    assert f"(exit {code})" in told[1 - reporter]
    assert "Traceback" not in "".join(told)
    assert max(rank["seconds"] for rank in ranks) < longest
