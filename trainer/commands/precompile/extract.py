"""The graphs of a run: it is started under graph extraction, where it executes nothing, and its output names them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.commands.precompile.error import PrecompileError
from trainer.errors import ExitCode, Problem
from trainer.trainium.compiled import Graph, graphs

KEY = re.compile(r"MODULE_\w+\+\w+")
"""In lines such as "Extracting graphs (/var/tmp/.../MODULE_1+2/model.hlo_module.pb) for ahead-of-time ..." and "Using a
cached neff at /var/tmp/.../MODULE_1+2/model.neff" (torch-neuronx's neuron_parallel_compile.py; libneuronxla)."""
EXTRACTING = {"NEURON_EXTRACT_GRAPHS_ONLY": "1"}
"""What neuron_parallel_compile sets for its trial run. Under it a run of ours ends after three steps, evaluates once,
and saves nothing (trainer/training/loop.py)."""
LAST = 15
"""Lines of a failed extraction that are shown."""


def extract(command: Sequence[str], cache: Path) -> list[Graph]:
    """Run the command, show what it prints, and return the graphs that it needs. Raises PrecompileError.

    A graph that only an output of another form would name is found by being in the cache and not compiled.
    """
    before = {graph.name for graph in graphs(cache)}
    environment = {**os.environ, **EXTRACTING, "NEURON_COMPILE_CACHE_URL": str(cache)}
    keys, last = set[str](), list[str]()
    try:
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as run:
            assert run.stdout is not None
            for line in run.stdout:
                print(line, end="", flush=True)
                keys |= set(KEY.findall(line))
                last = [*last, line.rstrip()][-LAST:]
    except OSError as error:
        raise PrecompileError(
            Problem("--extract", command[0], f"can be started: {error.strerror}", "name it")
        ) from error
    if run.returncode:
        raise failed(command, run.returncode, last)
    found = [graph for graph in graphs(cache) if graph.key in keys or graph.name not in before]
    if not found:
        rule = f"leaves graphs in {cache}; it left none there and named none"
        remedy = "look at its output above: is backend=neuron, and torch-neuronx installed (scripts/doctor.py)?"
        raise PrecompileError(Problem("extraction", " ".join(command), rule, remedy))
    return found


def failed(command: Sequence[str], code: int, last: Sequence[str]) -> PrecompileError:
    """The extraction's own code, where it is a documented one."""
    rule = f"ends with 0, not with {code}: {' | '.join(last[-3:])}"
    error = PrecompileError(Problem("extraction", " ".join(command), rule, "mend what the run reports above"))
    if code in set(ExitCode):
        error.code = ExitCode(code)
    return error


def command_of(overrides: Sequence[str], root: str, name: str, launch: Sequence[str], processes: int) -> list[str]:
    """The launch of a run under extraction. root: the run's own, in whose .precompile it leaves what it writes.

    launch: words for scripts/launch.py in the place of those for one node with so many processes.
    """
    scripts = Path(__file__).parents[3] / "scripts"
    words = launch or ["--standalone", "--nproc_per_node", str(processes)]
    own = [word for word in overrides if not re.match(r"[+~]*run\.(root|name)=", word)]
    moved = [f"run.root={root}/.precompile", f"run.name={name}"]
    return [sys.executable, str(scripts / "launch.py"), *words, str(scripts / "train.py"), *own, *moved]
