"""Cuts a traced model into stages that keep the model's own names."""

import inspect
import math
from dataclasses import dataclass

import torch.fx

from ..parallel_layers import PARALLEL_FUNCTIONS, PARALLEL_MODULES


class _Tracer(torch.fx.Tracer):
    """Does not enter modules whose class name contains, or whose path is, one of ``leaves``."""

    def __init__(self, leaves, **options):
        super().__init__(param_shapes_constant=True, **options)
        self._leaves = leaves

    def is_leaf_module(self, m, module_qualified_name):
        named = any(leaf in type(m).__name__ or leaf == module_qualified_name for leaf in self._leaves)
        return named or super().is_leaf_module(m, module_qualified_name)


@dataclass
class Stage:
    """A part of the model between two cuts.

    module: takes ``inputs`` in order, each a model input's name or (from an earlier stage) a node's name; gives, in
    order, what ``made`` names, or on the last stage the model's output. received, sent: what crosses the cut before
    and after it, in order; what is sent and not made here is passed along.
    """

    module: torch.fx.GraphModule
    inputs: list[str]
    made: list[str]
    received: list[str]
    sent: list[str]


def trace(model, input_names, leaves, functions, modules):
    """The model's forward as a graph, as called with the named inputs alone."""
    parameters = inspect.signature(model.forward).parameters
    unknown = set(input_names) - set(parameters)
    if unknown:
        raise ValueError(f"the model has no input {sorted(unknown)}")
    tracer = _Tracer(
        [*leaves, *(module.__name__ for module in PARALLEL_MODULES)],
        autowrap_modules=(math, *modules),
        autowrap_functions=(*functions, *PARALLEL_FUNCTIONS),
    )
    constants = {name: p.default for name, p in parameters.items() if name not in input_names}
    traced = torch.fx.GraphModule(model, tracer.trace(model, concrete_args=constants))
    traced.graph.eliminate_dead_code()
    return traced


def cut(model, last_layers):
    """Stages of a traced model; each but the last ends with the call of the module of that name."""
    where, stage = {}, 0
    cuts, graph = list(last_layers), model.graph
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        where[node] = stage
        if node.op == "call_module" and cuts and node.target == cuts[0]:
            cuts.pop(0)
            stage += 1
    if cuts:
        raise RuntimeError(f"cut_point {cuts[0]} does not exist in the graph")
    (output,) = (node for node in graph.nodes if node.op == "output")
    where[output] = stage
    reach = {node: max((where[user] for user in node.users), default=0) for node in where}
    crossing = [[node for node in where if where[node] <= s < reach[node]] for s in range(stage)]
    return [
        _stage(model, [n for n in where if where[n] == s], output, (crossing[s - 1 : s] or [[]])[0], crossing[s:])
        for s in range(stage + 1)
    ]


def _stage(model, nodes, output, received, crossing_later):
    inner, copies, inputs = torch.fx.Graph(), {}, []
    for node in nodes:
        for source in node.all_input_nodes:
            if source not in copies and source not in nodes:
                copies[source] = inner.placeholder(source.name)
                inputs.append(source.target if source.op == "placeholder" else source.name)
        if node is not output:
            copies[node] = inner.node_copy(node, lambda n: copies[n])
    if crossing_later:
        sent = crossing_later[0]
        made = [node for node in sent if node in copies and node in nodes]
        inner.output(tuple(copies[node] for node in made))
    else:
        sent = made = []
        inner.output(torch.fx.node.map_arg(output.args[0], lambda n: copies[n]))
    module = torch.fx.GraphModule(model, inner)
    return Stage(module, inputs, *([node.name for node in names] for names in (made, received, sent)))
