"""The shell script of a job, as far as engines agree: environment, the user's lines, the command of one node."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import Problem
from trainer.files import write_atomically
from trainer.launchers.base import LaunchError
from trainer.launchers.environment import shell
from trainer.launchers.request import Request

ROOT = Path(__file__).parents[2]
"""The tree of this project, in which scripts/ lies."""
LAUNCH = "scripts/launch.py"
ALONE = ("--standalone",)
"""Arguments of scripts/launch.py where there is one node: no other has to find it."""


def prologue(request: Request, config: LauncherConfig) -> Iterator[str]:
    """Lines of bash before the command: directory, environment, the user's own."""
    yield f"cd {shlex.quote(str(request.working_directory))} || exit 3"
    yield ""
    yield "# The tree that this was submitted from goes before an installed one."
    yield f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"
    yield ""
    yield "# The environment; environment.json has the source of each line."
    yield from shell(request.environment)
    if config.setup:
        yield ""
        yield "# launcher.setup"
        yield from config.setup


def command(request: Request, config: LauncherConfig, meeting: tuple[str, ...]) -> str:
    """The command of a node, as bash takes it; a task's own arguments come after it.

    meeting: torchrun's arguments by which nodes find each other, quoted already.
    """
    words = [shlex.quote(config.python or sys.executable)]
    if request.processes > 1 or request.nodes > 1:  # one process needs no launcher, which takes seconds to start
        words += [in_tree(LAUNCH), *meeting, f"--nproc_per_node {request.processes}"]
    script, *arguments = request.command
    return " ".join([*words, in_tree(script), *(shlex.quote(argument) for argument in arguments)])


def in_tree(script: str) -> str:
    """A script of this project by its whole path, quoted."""
    return shlex.quote(str(ROOT / script))


def keep(directory: Path, files: Mapping[str, str]) -> None:
    """Write rendered files. Raises LaunchError where the directory does not take them."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(directory / name, content)
    except OSError as error:
        rule = f"takes the rendered files ({error.strerror})"
        raise LaunchError(Problem("run.root", str(directory), rule, "make room or restore access")) from None


def printed(path: Path, whole: bool) -> Iterator[str]:
    """The lines of an output file; none where there is none yet.

    whole: with a last one that is not ended: nobody writes to it any more.
    """
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            if line.endswith("\n") or whole:
                yield line.rstrip("\r\n")


def words(arguments: tuple[str, ...]) -> str:
    """Arguments as bash takes them."""
    return " ".join(map(shlex.quote, arguments))


def unreadable(text: str) -> Iterator[Problem]:
    """What bash says about a script without running it: a mistake in launcher.setup."""
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        rule = f"lines that bash reads ({' '.join(done.stderr.split())})"
        yield Problem("launcher.setup", "the rendered script", rule, "correct launcher.setup")
