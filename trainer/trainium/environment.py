"""Every variable of a job that the Neuron runtime, the compiler and XLA read: value, reason and source. No torch.

Sources: `sdk` is github.com/aws-neuron/aws-neuron-sdk at 81ce03a; `nxd` is neuronx-distributed 0.17.0; `torch-xla` is
2.9.0. Nothing here was run on Trainium.
"""

from __future__ import annotations

import ctypes
import os
import shlex
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

CACHE = "/var/tmp/neuron-compile-cache"
FLAGS = "NEURON_CC_FLAGS"
BUCKET_MB = 130
"""Of one collective over gradients or weights; above 140 losses became NaN (neuronx-distributed trainer/trainer.py)."""
ROOT_PORT = 62182
"""Port of the runtime's first meeting, as torch-xla chooses it."""
LAST_RUNTIME_WITH_ASYNC = (2, 33)
_ENVVARS = "sdk archive/nxd-training/torch-neuron-envvars.rst"
_RUNTIME = "sdk neuron-runtime/guides/configuration-guide.rst"
_EFA = "sdk frameworks/torch/torch-neuronx/setup-trn1-multi-node-execution.rst"

COMPILE_SECONDS = 7200.0
"""Longer than the first compilation of our largest graphs is said to take: up to an hour (aws-neuron-sdk issue 646)."""


@dataclass(frozen=True)
class Job:
    """What the variables depend on."""

    nodes: int = 1
    first_core: int = 0
    """Core of the first process of a node: above 0 where several jobs share it."""
    precision: str = "bf16_mixed"
    timeout_seconds: float = 600.0
    runtime: str | None = None
    """Version of aws-neuronx-runtime-lib; None where unknown: then the pinned release's is assumed."""


@dataclass(frozen=True)
class Variable:
    """One variable of the environment."""

    name: str
    value: str
    reason: str
    source: str
    fixed: bool = False
    """Another value of the user's would contradict the configuration or fail."""
    most: int | None = None
    """Largest value of the user's that is harmless."""
    least: int | None = None
    """Smallest one."""


@dataclass(frozen=True)
class Settled:
    """What is set, and what the user should hear about it."""

    values: Mapping[str, str]
    notes: tuple[str, ...]


def patience_seconds(asked: float) -> float:
    """How long a rank waits for another: backend.timeout_seconds, and never less than a first compilation may take.

    Ranks compile apart: graphs differ between pipeline stages, and caches between nodes.
    """
    return max(asked, COMPILE_SECONDS)


def variables(job: Job) -> tuple[Variable, ...]:
    """All variables of a job on trn1."""
    found = [*_framework(), *_compiler(), *_runtime(job), *_buckets()]
    return (*found, *(_network() if job.nodes > 1 else []))


def _framework() -> list[Variable]:
    return [
        Variable(
            "PJRT_DEVICE", "NEURON", "the device; nxd compares with exactly this word", "torch-xla runtime.py", True
        ),
        Variable(
            "MALLOC_ARENA_MAX",
            "64",
            "32 processes share the host's memory: glibc keeps fewer arenas in each (mallopt does it in the process)",
            "github.com/huggingface/optimum-neuron, its training examples",
            least=1,
        ),
    ]


def _compiler() -> list[Variable]:
    flags = (
        "a decoder; every cast is the model's own, FP32 stays FP32; a failed compilation is tried again and not taken"
        " from the cache"
    )
    return [
        Variable(
            FLAGS,
            "--model-type=transformer --auto-cast=none --retry_failed_compilation",
            flags,
            "sdk compiler/neuronx-cc/api-reference-guide/index.rst",
        ),
        Variable("NEURON_COMPILE_CACHE_URL", CACHE, "compiled graphs, on this machine's own disk", _ENVVARS),
        Variable("NEURON_FUSE_SOFTMAX", "1", "softmax as one operation that the compiler knows", _ENVVARS),
        Variable("NEURON_CUSTOM_SILU", "1", "SiLU as one operation that the compiler knows", _ENVVARS),
    ]


def _runtime(job: Job) -> list[Variable]:
    pure = job.precision == "bf16"
    mode = f"precision.mode={job.precision}"
    why = "an update smaller than a BF16 step survives on average" if pure else "FP32 masters need none"
    found = [Variable("NEURON_RT_STOCHASTIC_ROUNDING_EN", "1" if pure else "0", f"{mode}: {why}", _ENVVARS, True)]
    if pure:
        found.append(Variable("NEURON_RT_STOCHASTIC_ROUNDING_SEED", "0", "the same rounding in every run", _ENVVARS))
    seconds = str(round(patience_seconds(job.timeout_seconds)))
    patience = (
        "a rank waits for one that still compiles, which takes an hour or more; the documents disagree on the default"
    )
    found.append(Variable("NEURON_RT_EXEC_TIMEOUT", seconds, patience, _RUNTIME, least=round(COMPILE_SECONDS)))
    if has_async(job.runtime):
        ahead = "steps wait in a queue on the device; more than 3 can exhaust its memory; no longer read from 2.33 on"
        found.append(Variable("NEURON_RT_ASYNC_EXEC_MAX_INFLIGHT_REQUESTS", "3", ahead, _RUNTIME, most=3))
    if job.first_core:
        port = ROOT_PORT + job.first_core
        why = f"another job of this node has torch-xla's own port {ROOT_PORT}"
        found.append(Variable("NEURON_RT_ROOT_COMM_ID", f"localhost:{port}", why, "torch-xla _internal/neuron.py"))
    return found


def has_async(runtime: str | None) -> bool:
    """Whether the runtime still reads NEURON_RT_ASYNC_EXEC_MAX_INFLIGHT_REQUESTS."""
    parts = (runtime or "2.30").split(".")
    return tuple(int(part) if part.isdecimal() else 0 for part in parts[:2]) < LAST_RUNTIME_WITH_ASYNC


def _buckets() -> list[Variable]:
    cap, source = str(BUCKET_MB), "nxd trainer/trainer.py, note on P148368176"
    gather = "ZeRO's gatherings and reductions, MB: above 140 losses became NaN"
    reduce = "sums of gradients, MB: the same limit; nxd's own default is 512"
    return [
        Variable("ALL_GATHER_REDUCE_SCATTER_BUCKET_CAP_MB", cap, gather, source, most=BUCKET_MB),
        Variable("ALLREDUCE_BUCKET_CAP_MB", cap, reduce, source, most=BUCKET_MB),
    ]


def _network() -> list[Variable]:
    fork = "Linux before 5.15 refuses to exchange between nodes without it"
    return [
        Variable("FI_PROVIDER", "efa", "nodes exchange over EFA", _EFA, True),
        Variable("FI_EFA_USE_DEVICE_RDMA", "1", "straight between the device memories of two nodes", _EFA, True),
        Variable("FI_EFA_FORK_SAFE", "1", fork, "sdk neuron-runtime/nrt-troubleshoot.rst", True),
    ]


REFUSED: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "XLA_USE_BF16": ((), "casts behind the model's back; AWS ends its support", _ENVVARS),
    "XLA_DOWNCAST_BF16": ((), "casts behind the model's back, and changes nxd's masters and buckets", _ENVVARS),
    "XLA_USE_FP16": ((), "casts behind the model's back", "torch-xla __init__.py"),
    "XLA_DOWNCAST_FP16": ((), "casts behind the model's back", "torch-xla __init__.py"),
    "XLA_DISABLE_FUNCTIONALIZATION": (("0", "false"), "torch-xla 2.9 aborts", "torch-xla, its check at start-up"),
    "XLA_USE_SPMD": (
        ("0",),
        "torch-xla would take all cores of the node for one process",
        "torch-xla _internal/neuron.py",
    ),
    "NXD_CPU_MODE": (("0",), "nxd would do its arithmetic on the CPU", "nxd utils/__init__.py"),
    "NEURONCORE_NUM_DEVICES": ((), "is of xmp.spawn; torchrun has --nproc_per_node", _ENVVARS),
    "NEURON_PLATFORM_TARGET_OVERRIDE": (("trn1",), "nxd would lay its groups out for another chip", "torch-neuronx"),
    "NEURON_LOGICAL_NC_CONFIG": (("1",), "joins cores of trn2; trn1 has none to join", "nxd utils/utils.py"),
}
"""Variables that the user must not have set, with the values that are harmless all the same."""

WATCHED = ("NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES", "XLA_ENABLE_PARAM_ALIASING", "NEURON_EXTRACT_GRAPHS_ONLY")
"""Variables of the user's that are recorded and left alone."""
EVERY = variables(Job(nodes=2, first_core=8, precision="bf16"))
"""The job that has every variable."""
NAMES = tuple(dict.fromkeys([*(v.name for v in EVERY), *REFUSED, *WATCHED]))
"""Every variable that this project knows of; none of them is a secret."""


def settle(job: Job, environ: Mapping[str, str]) -> Settled:
    """The values to set. A user's own value stays where it is harmless (trainer.trainium.contradictions says where)."""
    values, notes = {}, []
    for variable in variables(job):
        own = environ.get(variable.name)
        values[variable.name] = variable.value
        if variable.name == FLAGS and own:
            values[FLAGS] = merged_flags(variable.value, own)
        elif own is not None and not variable.fixed:
            values[variable.name] = own
        if own is not None and own != variable.value:
            notes.append(f"{variable.name}={values[variable.name]} is yours; the project's is {variable.value}")
    name = "NEURON_RT_ASYNC_EXEC_MAX_INFLIGHT_REQUESTS"
    if name in environ and name not in values:
        notes.append(f"{name} has no effect: runtime {job.runtime} no longer reads it")
    if environ.get("XLA_ENABLE_PARAM_ALIASING") == "0":
        notes.append("XLA_ENABLE_PARAM_ALIASING=0 is yours: it takes more device memory and is slower")
    return Settled(values, tuple(notes))


def merged_flags(ours: str, own: str) -> str:
    """The user's compiler flags, and those of ours that they do not set themselves."""
    theirs = {word.partition("=")[0] for word in words(own)}
    return " ".join([*(flag for flag in ours.split() if flag.partition("=")[0] not in theirs), own.strip()])


def flag(flags: str, name: str) -> str | None:
    """The value of a compiler flag, given as --name=value or --name value; None where it is not there."""
    found = words(flags)
    for number, word in enumerate(found):
        key, equals, value = word.partition("=")
        if key == name:
            return value if equals else (found[number + 1] if number + 1 < len(found) else "")
    return None


def words(flags: str) -> list[str]:
    """Compiler flags, taken apart as a shell does; where a quote is left open, at spaces."""
    try:
        return shlex.split(flags)
    except ValueError:
        return flags.split()


def cache_directory(environ: Mapping[str, str]) -> str | None:
    """Where the user keeps compiled graphs: --cache_dir goes before the variable."""
    return flag(environ.get(FLAGS, ""), "--cache_dir") or environ.get("NEURON_COMPILE_CACHE_URL")


def apply(settled: Settled, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables. Call before torch_xla is imported: it and the runtime read them once."""
    environ.update(settled.values)
    if (arenas := settled.values["MALLOC_ARENA_MAX"]).isdecimal():
        limit_arenas(int(arenas))


def limit_arenas(count: int) -> bool:
    """Cap glibc's arenas in this process, which read MALLOC_ARENA_MAX before Python began. False without glibc."""
    m_arena_max = -8  # malloc.h
    try:
        return bool(ctypes.CDLL(None).mallopt(m_arena_max, count))
    except (OSError, AttributeError):
        return False


def recorded(environ: Mapping[str, str]) -> dict[str, str]:
    """What a run's environment.json keeps: the variables of NAMES that are set."""
    return {name: environ[name] for name in NAMES if name in environ}
