"""From a configuration to compiled graphs: clean, extract, say what misses, fetch, compile, share, report."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.commands.precompile.error import PrecompileError
from trainer.commands.precompile.extract import command_of, extract
from trainer.commands.precompile.pool import GIB_EACH, Limits, Pool
from trainer.commands.precompile.store import Store, is_url
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.launchers.asking import ELSEWHERE, world_of
from trainer.rules.check import problems_of
from trainer.rules.quantities import backend_name
from trainer.run.world import World
from trainer.trainium.compiled import WORK, Graph, State, clean
from trainer.trainium.environment import CACHE, FLAGS, cache_directory, flag


@dataclass(frozen=True)
class Options:
    """The command's own flags (docs/precompile.md)."""

    compiler: str = "neuronx-cc"
    extract: str | None = None
    launch: str = ""
    store: str | None = None
    jobs: int | None = None
    gib: int | None = None
    retries: int | None = None
    dry: bool = False


def places(options: Options) -> tuple[Path, Store | None]:
    """The local cache, and the shared one. Raises PrecompileError where the user's variables do not let it be local."""
    named = cache_directory(os.environ) or CACHE
    if not is_url(named):
        return Path(named), Store(options.store) if options.store else None
    if flag(os.environ.get(FLAGS, ""), "--cache_dir"):
        rule = "graphs are compiled on this machine's own disk first"
        remedy = f"take --cache_dir out of {FLAGS}, and NEURON_COMPILE_CACHE_URL={named}"
        raise PrecompileError(Problem("--cache_dir", named, rule, remedy))
    return Path(CACHE), Store(options.store or named)


def act(config: Config, overrides: Sequence[str], options: Options, world: World) -> Iterator[str]:
    """Lines about all of it. Raises PrecompileError that names every graph without a NEFF, and StorageError."""
    try:
        yield from _act(config, overrides, options, world)
    except OSError as error:
        rule = f"can be read and written: {error.strerror}"
        remedy = "make room or restore access, then give the same command again: what is compiled stays"
        raise PrecompileError(Problem("cache", str(error.filename), rule, remedy)) from error


def _act(config: Config, overrides: Sequence[str], options: Options, world: World) -> Iterator[str]:
    there = world_of(config, world)
    if (name := backend_name(config, there)) != "neuron":
        rule = "neuron: no other backend compiles graphs before it runs"
        raise PrecompileError(Problem("backend.name", name, rule, "backend=neuron, or just train"))
    if problems := problems_of(config, there, ELSEWHERE):
        raise ConfigError(problems)
    cache, store = places(options)
    yield from clean(cache)
    graphs = _extracted(config, overrides, options, cache, there.local_size or 1)
    missing = [graph for graph in graphs if graph.state is not State.DONE]
    shared = [graph for graph in missing if store is not None and store.has(graph)]
    todo = [graph for graph in missing if graph not in shared]
    limits = Limits.of(options.jobs, float(options.gib or GIB_EACH), 1 if options.retries is None else options.retries)
    yield from outlook(graphs, shared, todo, limits, cache, store)
    if options.dry:
        return
    if store is not None:
        yield from store.fetch(shared)
    todo = [graph for graph in missing if graph.state is not State.DONE]
    pool = Pool(shlex.split(options.compiler), cache / f"{WORK}{os.getpid()}", limits)
    yield from pool.compile(todo)
    compiled = [graph for graph in todo if graph.state is State.DONE]
    if store is not None:
        yield from store.send(compiled)
    without = [graph for graph in graphs if graph.state is not State.DONE]
    if without:
        raise PrecompileError([_problem(graph, pool) for graph in without])
    yield f"all {len(graphs)} graphs are in {cache}"


def _extracted(config: Config, overrides: Sequence[str], options: Options, cache: Path, processes: int) -> list[Graph]:
    name = str(config.run.name)
    command = command_of(overrides, config.run.root, name, shlex.split(options.launch), processes)
    left = Path(config.run.root, ".precompile", name)
    shutil.rmtree(left, ignore_errors=True)  # of an extraction that was killed: the run would resume
    try:
        return extract(shlex.split(options.extract) if options.extract else command, cache)
    finally:
        shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):  # another extraction's is there
            left.parent.rmdir()


def outlook(
    graphs: Sequence[Graph],
    shared: Sequence[Graph],
    todo: Sequence[Graph],
    limits: Limits,
    cache: Path,
    store: Store | None,
) -> Iterator[str]:
    """What will miss, before an hour is spent on it."""
    here = len(graphs) - len(shared) - len(todo)
    place = f", {len(shared)} in {store.url}" if store is not None else ""
    yield f"{len(graphs)} graphs: {here} compiled in {cache}{place}, {len(todo)} to compile"
    for graph in todo:
        hlo = graph.hlo
        size = hlo.stat().st_size / 2**20 if hlo is not None else 0.0
        yield f"  {graph.name}  {size:.2f} MiB"
    if todo:
        yield f"at most {limits.jobs} at once, {limits.gib:g} GiB each ({limits.available():.0f} GiB are available)"


def _problem(graph: Graph, pool: Pool) -> Problem:
    if graph in pool.busy:
        rule = f"another process, which has the lock of {graph.directory}, has not finished it"
        return Problem(graph.key, None, rule, "wait for it, and give the same command again")
    rule = f"compiles: {pool.failures.get(graph.key, 'it was not reached')}"
    remedy = (
        "with fewer at once (--jobs 1) if memory ran out; else NEURON_CC_FLAGS=-O1, or a smaller graph (parallel.tp, "
    )
    remedy += f"train.microbatch); its graph is {graph.hlo}"
    return Problem(graph.key, None, rule, remedy)
