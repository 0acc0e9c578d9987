"""Variables of the user's that would break a job on Trainium or silently change what it computes. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from trainer.errors import Problem
from trainer.trainium.environment import FLAGS, REFUSED, Job, cache_directory, flag, variables
from trainer.trainium.topology import CORES_OF_A_JOB, CORES_OF_A_NODE, parse_cores, visible

SHARED_FILESYSTEMS = ("nfs", "nfs4", "lustre", "fuse.s3fs", "fuse.mount-s3", "efs")


def contradictions(job: Job, environ: Mapping[str, str], cache_filesystem: str = "") -> Iterator[Problem]:
    """One problem for each variable. cache_filesystem: the kind of the one that holds the compiler's cache."""
    for name, (harmless, why, source) in REFUSED.items():
        if (own := environ.get(name)) is not None and own.lower() not in harmless:
            yield Problem(name, own, f"not set on Trainium: {why} ({source})", f"unset {name}")
    for variable in variables(job):
        if (own := environ.get(variable.name)) is None:
            continue
        if variable.fixed and own != variable.value:
            rule = f"{variable.value}: {variable.reason} ({variable.source})"
            yield Problem(variable.name, own, rule, f"unset {variable.name}: the run sets it")
        elif variable.most is not None and not (own.isdecimal() and 0 <= int(own) <= variable.most):
            rule = f"a number up to {variable.most}: {variable.reason} ({variable.source})"
            yield Problem(variable.name, own, rule, f"unset {variable.name}: the run sets it")
        elif variable.least is not None and not (own.isdecimal() and int(own) >= variable.least):
            rule = f"a number, {variable.least} or more: {variable.reason} ({variable.source})"
            yield Problem(variable.name, own, rule, f"unset {variable.name}: the run sets it")
    yield from _flags(environ.get(FLAGS, ""))
    if cache_filesystem in SHARED_FILESYSTEMS:
        where = cache_directory(environ) or "the compiler's cache"
        key = FLAGS if flag(environ.get(FLAGS, ""), "--cache_dir") else "NEURON_COMPILE_CACHE_URL"
        rule = f"a disk of the node's own: file locks on {cache_filesystem} fail, and the cache breaks"
        remedy = "take --cache_dir out" if key == FLAGS else "unset it"
        yield Problem(key, where, rule, f"{remedy}, or s3://bucket/prefix to share it")


def _flags(own: str) -> Iterator[Problem]:
    try:
        shlex.split(own)
    except ValueError as error:
        yield Problem(FLAGS, own, f"words as a shell takes them ({error})", "close the quote, or take it out")
    cast = flag(own, "--auto-cast")
    if cast not in (None, "none"):
        rule = "--auto-cast none: the compiler would cast what the precision mode keeps in FP32"
        yield Problem(
            FLAGS, own, rule, f"take {f'--auto-cast {cast}'.strip()} out; precision=bf16_mixed says it to the model"
        )
    kind = flag(own, "--model-type")
    if kind not in (None, "transformer"):
        rule = "--model-type transformer: the model is a decoder"
        yield Problem(FLAGS, own, rule, f"take --model-type {kind} out")
    target = flag(own, "--target")
    if target not in (None, "trn1"):
        yield Problem(FLAGS, own, "--target trn1: this is what the graphs run on", f"take --target {target} out")


def visible_cores(environ: Mapping[str, str], per_node: int) -> Problem | int:
    """The first core of the job, or what is wrong with NEURON_RT_VISIBLE_CORES, which torch-xla deals out to ranks."""
    own = environ.get("NEURON_RT_VISIBLE_CORES")
    if not own:
        return 0
    name, cores = "NEURON_RT_VISIBLE_CORES", parse_cores(own)
    if not cores:
        return Problem(name, own, "a core, or a range like 8-15", f"unset {name}: rank i of a node takes core i")
    if cores != list(range(cores[0], cores[0] + len(cores))):
        rule = "neighbours, in order: the runtime connects no others"
        return Problem(name, own, rule, _aligned(cores[0], per_node))
    if len(cores) != per_node:
        rule = f"one core for each of the {per_node} processes of this node"
        fewer = f", or torchrun --nproc_per_node {len(cores)}" if len(cores) in CORES_OF_A_JOB else ""
        return Problem(name, own, rule, f"unset {name}, or {_aligned(cores[0], per_node)}{fewer}")
    return cores[0]


def _aligned(core: int, count: int) -> str:
    """The assignment of as many cores, near this one, that begin where a job may."""
    return visible(max(0, min(core, CORES_OF_A_NODE - count)) // count * count, count)
