"""torch_xla's comparison of traces: it raises at the Python line whose operation differs from all known traces.

torch_xla.compile(max_different_graphs=N) uses it: a tree of a session's traces, compared while operations are recorded,
so before anything is compiled. A large graph costs Neuron's compiler tens of minutes.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
import torch_xla

_UNBOUNDED = 1 << 30
_DIVERGED = "Maximum number of different graphs"
_EXECUTED = "Unexpected execution happens inside the compiled function"
_NODE = re.compile(r"^(?:\[[^\]]*\] )?([\w:]+), xla_shape=([^,{]*(?:,\d+)*\])")
_LIBRARIES = tuple(str(Path(module.__file__).parent) for module in (torch, torch_xla) if module.__file__)
_INTERNAL = ("neuronx_distributed", "torch_neuronx", "contextlib.py")
_HERE = Path(__file__).parent
_WATCHES = tuple(str(path) for path in (_HERE / "trace.py", _HERE / "guard.py", _HERE.with_name("device.py")))


class Watch:
    """Watches the operations of a phase, from construction to ``end``."""

    def __init__(self, session: str, learn: bool) -> None:
        """learn: accept new traces; otherwise a new one raises an error that ``diverged`` recognises."""
        self._session, self._open = session, True
        torch_xla._XLAC._dynamic_shape_detector_set_max_different_graphs(_UNBOUNDED if learn else 1)
        torch_xla._XLAC._dynamic_shape_detector_start_session(session)

    def end(self) -> None:
        """Stop watching, once. Raises what ``diverged`` recognises if the trace ends before the known ones."""
        if self._open:
            self._open = False
            torch_xla._XLAC._dynamic_shape_detector_end_session()

    def abandon(self) -> None:
        """Stop watching after an error, and forget the session's traces."""
        with contextlib.suppress(RuntimeError):  # an error has ended the session already
            torch_xla._XLAC._dynamic_shape_detector_end_session()
        torch_xla._XLAC._dynamic_shape_detector_remove_session(self._session)


@dataclass(frozen=True)
class Divergence:
    """Where a trace differs from the known ones. shape: same operation, other shape. constant: both are the same."""

    text: str
    shape: bool = False
    constant: bool = False


def diverged(error: BaseException) -> Divergence | None:
    """How the trace differs from the known ones, from the watch's error; None for any other error."""
    text = str(error)
    if not isinstance(error, RuntimeError) or _DIVERGED not in text:
        return None
    got = re.search(r"^Got: (.*)$", text, re.MULTILINE)
    known = [_node(line) for line in re.findall(r"^(?:Expected:| +-) (.*)$", text, re.MULTILINE)]
    if not got:
        return Divergence(f"ends where the compiled ones go on with {' or '.join(known) or 'more'}")
    new, old = _node(got[1]), " or ".join(known)
    if not known:
        return Divergence(f"goes on with {new} where the compiled ones end")
    if new == old:
        return Divergence(f"has {new} with another constant, exponent or operand", constant=True)
    return Divergence(f"has {new} in place of {old}", shape=new.split()[0] == old.split()[0])


def _node(text: str) -> str:
    """``aten::mul f32[1,8]``, from torch_xla's description of an operation."""
    found = _NODE.match(text)
    return f"{found[1]} {found[2]}" if found else text.strip() or "nothing"


def executed(error: BaseException) -> bool:
    """Whether the error says that a graph was about to be launched where none may be."""
    return isinstance(error, RuntimeError) and _EXECUTED in str(error)


def where(error: BaseException) -> str:
    """The deepest line of the traceback outside PyTorch, the Neuron libraries and the watches, ``file:line (code)``."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if not _library(frame.filename)]
    if not ours:
        return "the phase's end"
    frame = ours[-1]
    return f"{frame.filename}:{frame.lineno} ({(frame.line or '').strip()})"


def _library(path: str) -> bool:
    return path.startswith(_LIBRARIES) or any(name in path for name in _INTERNAL) or path in ("<string>", *_WATCHES)
