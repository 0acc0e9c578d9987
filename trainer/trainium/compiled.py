"""The cache of compiled graphs on a disk: what it holds of each graph, and what an interrupted compilation leaves.

    neuronxcc-2.23.6484.0+3b612583/                 the compiler's version
      MODULE_16389337710168549518+e30acd3a/         hash of the graph + hash of the compiler's flags
        model.hlo_module.pb                         the graph; older releases: .pb.gz
        compile_flags.json                          a JSON list of flags
        model.neff, then model.done (empty)         the compiled graph, and that it is whole
        model.log                                   or else why there is none: a failure is kept, too
        model.hlo_module.pb.lock                    somebody compiles it

Sources: the listings of a cache in aws-neuron-sdk (tutorials on profiling) and in Hugging Face's public caches of NEFFs
(aws-neuron/optimum-neuron-cache); paths in logs of aws-neuron-sdk issues 872, 1097, release notes 2.19; locks left by
a kill: sdk archive/nxd-training/training-troubleshooting.rst. Nothing of it has been seen on Trainium here.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

VERSION, MODULE = "neuronxcc-", "MODULE_"
HLO, NEFF, DONE, LOG, FLAGS = "model.hlo_module.pb", "model.neff", "model.done", "model.log", "compile_flags.json"
LOCK = f"{HLO}.lock"
WORK = ".precompile-"
"""With the process's id: where scripts/precompile.py keeps what is not whole."""


class State(Enum):
    """What the cache has of a graph."""

    DONE = "compiled"
    FAILED = "failed"
    WAITING = "not compiled"


@dataclass(frozen=True)
class Graph:
    """A graph's directory in the cache."""

    directory: Path

    @property
    def key(self) -> str:
        """Its name in logs: MODULE_... with both hashes."""
        return self.directory.name

    @property
    def name(self) -> str:
        """With the compiler's version: the same in every cache."""
        return f"{self.directory.parent.name}/{self.key}"

    @property
    def hlo(self) -> Path | None:
        """The graph itself."""
        return next((path for name in (HLO, f"{HLO}.gz") if (path := self.directory / name).is_file()), None)

    @property
    def state(self) -> State:
        """A NEFF without model.done may be half of one."""
        if (self.directory / DONE).is_file() and (self.directory / NEFF).is_file():
            return State.DONE
        return State.FAILED if (self.directory / LOG).is_file() else State.WAITING

    @property
    def flags(self) -> list[str]:
        """The compiler's. Raises ValueError or OSError where they cannot be read."""
        found = json.loads((self.directory / FLAGS).read_text(encoding="utf-8"))
        if not isinstance(found, list) or not all(isinstance(flag, str) for flag in found):
            raise ValueError(f"{FLAGS} is no list of words")
        return found

    @property
    def lock(self) -> Path:
        """There while somebody compiles it; and after a kill."""
        return self.directory / LOCK


def graphs(cache: Path) -> list[Graph]:
    """All that have their graph there, in the order of their names; empty for a cache that is not there yet."""
    found = (Graph(path) for path in sorted(cache.glob(f"{VERSION}*/{MODULE}*")) if path.is_dir())
    return [graph for graph in found if graph.hlo is not None]


def is_held(lock: Path, key: str, processes: Path = Path("/proc")) -> bool:
    """Whether a live process has a lock, or a compiler works on the graph. The cache is this machine's own (docs)."""
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    for line in processes.glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if key.encode() in line.read_bytes():
                return True
    return False


def clean(cache: Path) -> Iterator[str]:
    """Remove locks that nobody holds, failures, and NEFFs that are not whole: they compile again. A line each."""
    for work in cache.glob(f"{WORK}*"):
        if not Path("/proc", work.name.removeprefix(WORK)).exists():
            shutil.rmtree(work, ignore_errors=True)
            yield f"{work.name}: removed what a process that was killed had left"
    for directory in sorted(cache.glob(f"{VERSION}*/{MODULE}*")):
        graph = Graph(directory)
        if graph.lock.exists():
            if is_held(graph.lock, graph.key):
                yield f"{graph.key}: is being compiled by another process"
                continue
            graph.lock.unlink(missing_ok=True)
            yield f"{graph.key}: removed a lock that nobody holds"
        if graph.state is not State.DONE:
            for name, what in ((LOG, "a failure that was kept"), (NEFF, "a NEFF that is not whole"), (DONE, "a mark")):
                if (directory / name).exists():
                    (directory / name).unlink()
                    yield f"{graph.key}: removed {what}"
