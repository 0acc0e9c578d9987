"""One compilation: the compiler's process, in a directory of its own, and its NEFF put into the cache whole."""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from trainer.files import sync
from trainer.run.orphans import end_with_parent
from trainer.trainium.compiled import DONE, HLO, LOG, NEFF, Graph, State

WRAPPERS = ("--cache_dir", "--retry_failed_compilation", "--no_cache", "--log_level")
"""Flags of the wrapper around the compiler, which the compiler does not know."""
WORDS = 300
"""Characters of the compiler's last lines that a report shows."""


def command_of(compiler: Sequence[str], graph: Graph, hlo: Path, neff: Path) -> list[str]:
    """As torch-neuronx's wrapper starts it (its log: "Call compiler with cmd: ..."). Raises as Graph.flags does."""
    flags = [flag for flag in graph.flags if flag.partition("=")[0] not in WRAPPERS]
    target = [] if any(flag.startswith("--target") for flag in flags) else ["--target=trn1"]
    return [*compiler, "compile", "--framework=XLA", str(hlo), "--output", str(neff), *target, *flags, "--verbose=35"]


@dataclass
class Compilation:
    """Of one graph, at work. Raises as ``command_of`` does, OSError where it cannot start, Busy where it must not."""

    graph: Graph
    compiler: Sequence[str]
    work: Path
    """An empty place on the cache's disk: a NEFF gets its name by a rename."""
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._lock = _take(self.graph.lock)
        try:
            self._begin()
        except BaseException:
            self._leave()
            raise

    def _begin(self) -> None:
        here = self.work / self.graph.key
        here.mkdir(parents=True, exist_ok=True)
        stored = self.graph.hlo
        assert stored is not None  # of every graph that was found
        hlo, self._neff = here / f"model.{self.graph.key}.{HLO.partition('.')[2]}", here / NEFF
        with gzip.open(stored) if stored.suffix == ".gz" else open(stored, "rb") as source, open(hlo, "wb") as target:
            shutil.copyfileobj(source, target)
        self._output = here / "output.txt"
        with open(self._output, "wb") as output:
            command = command_of(self.compiler, self.graph, hlo, self._neff)
            self._process = subprocess.Popen(
                command,
                cwd=here,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,  # kill -9 of this process leaves no compiler that works for nobody
            )

    @property
    def ended(self) -> bool:
        """Whether the compiler has ended."""
        return self._process.poll() is not None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started

    @property
    def was_killed(self) -> bool:
        """Whether it ended for want of memory: by SIGKILL, or as neuronx-cc says of a part of itself, F137."""
        return self._process.returncode in (-signal.SIGKILL, 137) or "F137" in self.words()

    def words(self) -> str:
        """Its last words."""
        text = self._output.read_text(encoding="utf-8", errors="replace").strip()
        return " ".join(text[-WORDS:].split())

    def finish(self) -> str:
        """Put the NEFF into the cache; why there is none, else empty. The compiler has ended."""
        code = self._process.returncode
        try:
            if code:
                how = f"killed by signal {-code}" if code < 0 else f"exit {code}"
                return f"{how}: {self.words() or 'it said nothing'}"
            if not self._neff.is_file() or not self._neff.stat().st_size:
                return "exit 0, and no NEFF"
            publish(self.graph, self._neff)
            return ""
        except OSError as error:
            return f"its NEFF cannot be kept: {error.strerror}"
        finally:
            self._leave()

    def stop(self) -> None:
        """End the compiler and all that it has started; what was there before stays. Nothing after ``finish``."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._leave()

    def _leave(self) -> None:
        shutil.rmtree(self.work / self.graph.key, ignore_errors=True)
        if not self._lock.closed:  # else it may be another process's by now
            self.graph.lock.unlink(missing_ok=True)
            self._lock.close()


class Busy(Exception):
    """Another process compiles the graph."""


def _take(lock: Path) -> IO[bytes]:
    """The lock that other compilers of this machine respect, held as long as the file is open. Raises Busy, OSError."""
    file = open(lock, "ab")  # noqa: SIM115 - held until the compilation ends
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Busy from None
    return file


def publish(graph: Graph, neff: Path) -> None:
    """A NEFF of the cache's disk gets its name, and only then the mark that it is whole. Raises OSError."""
    sync(neff)
    os.replace(neff, graph.directory / NEFF)
    (graph.directory / LOG).unlink(missing_ok=True)
    (graph.directory / DONE).touch()
    sync(graph.directory)
    assert graph.state is State.DONE
