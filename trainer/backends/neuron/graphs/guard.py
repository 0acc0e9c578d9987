"""Raises an error for a graph that would compile after warm-up, with the phase and what changed.

On Trainium a compilation in mid-run stalls all ranks for minutes, and graphs that differ between ranks hang them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from trainer.backends.neuron.device import before_sync, execution
from trainer.backends.neuron.graphs import counters, trace
from trainer.backends.neuron.graphs.counters import Counts
from trainer.backends.neuron.graphs.difference import Signature, changes, graph_changes, signature
from trainer.backends.neuron.graphs.hlo import Graph
from trainer.backends.neuron.graphs.pending import pending_graph
from trainer.backends.neuron.graphs.trace import Divergence
from trainer.errors import ExitCode, Problem, RunError

ONE_SHAPE = "hand every step the same shapes and dtypes: pad the batch, and drop or pad the last one"
NO_SCALARS = "keep what changes from step to step in a device tensor, never in a Python number"
NO_BRANCH = "do the same in every step: no branch on a step number or on data, all state made before the first step"
NO_READS = "read nothing in a step (.item(), print, if tensor, .cpu()): hand scalars to Deferred and read them later"
NO_LEAKS = "keep the same tensors alive across steps and compute nothing between phases: both join the graph"


class GraphError(RunError):
    """A step asked for a graph that warm-up did not compile, or read the device in mid-step."""

    code = ExitCode.CONFIG
    title = "a step left the graphs that warm-up compiled"


@dataclass
class Phase:
    """The guard's record of a phase.

    graphs: distinct graphs compiled in it, including warm-up. launches, reads: of the last occurrence. signature,
    graph: of the last occurrence without an error.
    """

    occurrences: int = 0
    graphs: int = 0
    launches: int = 0
    reads: int = 0
    signature: Signature = field(default_factory=dict)
    graph: Graph | None = None


class CompileGuard:
    """Watches the phases of a step. One guard a process; phases do not nest.

        with guard.phase("forward-backward", {"batch": microbatches, "scale": scale}):
            ...
            device.sync()

    The first ``warm_up`` occurrences of a phase may compile. Later ones may not: a different trace raises GraphError at
    the operation that differs, before the compiler starts; so does a read of a tensor that is not computed yet. At the
    phase's end the counters find the rest: the same trace with other tensors kept alive, a graph cut elsewhere, a read
    of a finished tensor.
    """

    def __init__(
        self,
        warm_up: int = 2,
        on_graph: Callable[[str, Graph], None] | None = None,
        keep_graphs: bool = False,
    ) -> None:
        """on_graph: called in warm-up before each launch with the graph about to run, e.g. to compare its
        collectives between ranks. keep_graphs: lower every occurrence, to tell how a late graph differs where the trace
        does not say; costs a lowering each step, so for tests and small models."""
        self.warm_up = warm_up
        self.phases: dict[str, Phase] = {}
        self._on_graph = on_graph
        self._keep_graphs = keep_graphs
        self._inside = Counts(0, 0, 0, 0)
        self._began = counters.now()

    @contextlib.contextmanager
    def phase(
        self, name: str, inputs: Mapping[str, object] | None = None, reads: int = 0, cuts_itself: bool = False
    ) -> Iterator[None]:
        """Watch the code inside, which ends in device.sync().

        inputs: tensors and Python values that the phase depends on, by name, nested to any depth; errors report their
        changes. reads: transfers to the host that the phase may make. cuts_itself: the code inside launches graphs by
        other means than device.sync, as neuronx-distributed's pipeline does; the number of launches must still be the
        same. Raises GraphError.
        """
        phase = self.phases.setdefault(name, Phase())
        armed, handed, before = phase.occurrences >= self.warm_up, signature(inputs or {}), counters.now()
        seen: list[Graph] = []
        watch = trace.Watch(name, learn=not armed)

        def launching() -> None:
            self._look(name, armed, seen)
            if not cuts_itself:  # the trace is complete: say so before it is compiled
                watch.end()

        try:
            with execution(allowed=not armed or cuts_itself or reads > 0), before_sync(launching):
                yield
            watch.end()
        except BaseException as error:
            watch.abandon()
            problem = self._explain(name, phase, handed, error) if armed else None
            if problem is None:
                raise
            raise GraphError(problem) from error
        self._account(name, phase, handed, counters.now().since(before), seen, reads if armed else None)

    def _look(self, name: str, armed: bool, seen: list[Graph]) -> None:
        """Before a launch: lower the pending graph, for on_graph in warm-up or for keep_graphs."""
        if not self._keep_graphs and (armed or self._on_graph is None):
            return
        graph = pending_graph()
        seen.append(graph)
        if self._on_graph is not None and not armed:
            self._on_graph(name, graph)

    def _explain(self, name: str, phase: Phase, handed: Signature, error: BaseException) -> Problem | None:
        """The Problem for an error that a watch raised in the phase; None for any other error."""
        number = phase.occurrences + 1
        if trace.executed(error):
            rule = f"a step runs no graph before its end; occurrence {number} reads a tensor at {trace.where(error)}"
            return Problem(f"phase {name}", "a host read in the step", rule, NO_READS)
        how = trace.diverged(error)
        if how is None:
            return None
        changed = changes(phase.signature, handed)
        rule = f"no new graph after {self.warm_up} occurrences; number {number} {how.text}, at {trace.where(error)}"
        value = _joined(changed) or "other operations on the same inputs"
        return Problem(f"phase {name}", value, rule, _remedy(changed, how))

    def _account(
        self, name: str, phase: Phase, handed: Signature, spent: Counts, seen: list[Graph], reads: int | None
    ) -> None:
        """Record a finished phase's counts, and raise for problems in them. reads: allowed ones, None in warm-up."""
        problems = [] if reads is None else list(self._late(name, phase, handed, spent, seen, reads))
        phase.occurrences += 1
        phase.graphs += spent.compiled
        phase.launches, phase.reads = spent.launched, spent.read
        self._inside = _sum(self._inside, spent)
        if problems:
            raise GraphError(problems)
        phase.signature = handed
        phase.graph = seen[-1] if seen else phase.graph

    def _late(
        self, name: str, phase: Phase, handed: Signature, spent: Counts, seen: list[Graph], reads: int
    ) -> Iterator[Problem]:
        key, number = f"phase {name}", phase.occurrences + 1
        if spent.read > reads:
            rule = f"{reads} reads of the device in this phase; occurrence {number} makes {spent.read}"
            if fallbacks := counters.host_fallbacks():
                rule += f"; operations that ran on the host: {', '.join(fallbacks)}"
            yield Problem(key, f"{spent.read - reads} host read(s) in the step", rule, NO_READS)
        if spent.compiled:
            # The trace is known, so the operations are the same: the live tensors or earlier pending work differ.
            changed = []
            if phase.graph is not None and seen:
                changed += graph_changes(phase.graph, seen[-1])
            rule = f"no new graph after {self.warm_up} occurrences; number {number} compiled {spent.compiled}"
            yield Problem(key, _joined(changed) or "the same operations, with other tensors alive", rule, NO_LEAKS)
        elif spent.launched != phase.launches:
            rule = f"a constant number of graphs in a phase; occurrence {number} runs another number"
            yield Problem(key, f"{phase.launches} -> {spent.launched} graphs run", rule, NO_BRANCH)

    def graphs(self) -> dict[str, int]:
        """Distinct graphs compiled in each phase so far; constant after warm-up."""
        return {name: phase.graphs for name, phase in self.phases.items()}

    def summary(self) -> str:
        """One line to print: the graphs compiled in each phase, and how often the phase ran."""
        phases = [f"{name} {phase.graphs} (run {phase.occurrences} x)" for name, phase in self.phases.items()]
        return f"graphs compiled: {', '.join(phases)}; outside {self.outside().compiled}"

    def launches(self) -> dict[str, int]:
        """Graphs run in each phase's last occurrence: in steady state, the graphs of a step."""
        return {name: phase.launches for name, phase in self.phases.items()}

    def outside(self) -> Counts:
        """Counts outside all phases since the guard was made; a correct loop compiles and runs nothing there."""
        total = counters.now().since(self._began)
        inside = self._inside
        return Counts(
            total.compiled - inside.compiled,
            total.launched - inside.launched,
            max(0, total.read - inside.read),
            total.scalars - inside.scalars,
        )


def _sum(a: Counts, b: Counts) -> Counts:
    return Counts(a.compiled + b.compiled, a.launched + b.launched, a.read + b.read, a.scalars + b.scalars)


def _joined(changed: list[str], most: int = 4) -> str:
    more = f"; and {len(changed) - most} more" if len(changed) > most else ""
    return "; ".join(changed[:most]) + more


def _remedy(changed: list[str], how: Divergence) -> str:
    """Chosen by the changed inputs and by the operation that differs."""
    if how.constant or any("part of the graph" in change for change in changed):
        return NO_SCALARS
    return ONE_SHAPE if how.shape else NO_BRANCH
