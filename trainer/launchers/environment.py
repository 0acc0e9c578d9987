"""The environment of a job: every variable and limit that is set for it, each with its reason. No torch.

Those of Trainium are trainer.trainium.environment's; a run sets them itself too. Here they are rendered, so that
whatever else the job starts has them, and so that they can be read before it runs.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from trainer.config.schema import Config
from trainer.rules.neuron import job
from trainer.rules.quantities import backend_name
from trainer.run.world import World
from trainer.trainium.environment import Variable, variables

FILE = "environment.json"
"""Name of the file beside the rendered ones that records the environment."""


@dataclass(frozen=True)
class Limit:
    """A limit of the shell (ulimit) that is raised as far as the node allows."""

    flag: str
    reason: str


LIMITS = (
    Limit("n", "open files: each rank keeps sockets to the others, and the memory-mapped shards of its text"),
    Limit("l", "locked memory: EFA registers the buffers that it sends from, and they must stay in memory"),
)
PYTHON = (
    Variable("PYTHONUNBUFFERED", "1", "a line of the log is there when it is printed", "Python's own manual"),
    Variable(
        "PYTHONFAULTHANDLER", "1", "a fault in a library's C code leaves the stack of Python in the log", "the same"
    ),
)
OWN = "yours: launcher.environment"


def block(config: Config, world: World) -> tuple[Variable, ...]:
    """The variables of a job with this configuration. world: the processes that it will have."""
    ours = [*PYTHON]
    if backend_name(config, world) == "neuron" and not world.neuron_on_cpu:
        ours += variables(job(config, world))
    own = config.launcher.environment
    kept = [replace(v, value=own[v.name], reason=f"{OWN}; ours is {v.value}") if v.name in own else v for v in ours]
    names = {variable.name for variable in ours}
    return (*kept, *(Variable(name, value, OWN, "the command line or a recipe") for name, value in own.items()
                     if name not in names))  # fmt: skip


def shell(environment: tuple[Variable, ...]) -> Iterator[str]:
    """Lines of bash that set it, each after its reason."""
    for limit in LIMITS:
        yield f"# {limit.reason}"
        yield f'ulimit -S -{limit.flag} "$(ulimit -H -{limit.flag})"'
    for variable in environment:
        yield f"# {variable.reason}"
        yield f"export {variable.name}={shlex.quote(variable.value)}"


def recorded(environment: tuple[Variable, ...]) -> str:
    """What is kept of it beside the rendered files: JSON."""
    keys = ("name", "value", "reason", "source")
    values: Mapping[str, object] = {
        "variables": [{key: asdict(variable)[key] for key in keys} for variable in environment],
        "limits": [{"ulimit": limit.flag, "value": "hard", "reason": limit.reason} for limit in LIMITS],
    }
    return json.dumps(values, indent=2) + "\n"


def explained(environment: tuple[Variable, ...]) -> Iterator[str]:
    """Lines for people."""
    for variable in environment:
        yield f"  {variable.name}={variable.value}  {variable.reason} ({variable.source})"
    for limit in LIMITS:
        yield f"  ulimit -{limit.flag} to the hard limit  {limit.reason}"
