"""Reads a graph as hlo.py does, from StableHLO: the only text that torch_xla gives for *all* pending tensors.

Grammar: openxla.org/stablehlo/spec; this reads what torch_xla 2.9 prints.
"""

from __future__ import annotations

import re

from trainer.backends.neuron.graphs import hlo
from trainer.backends.neuron.graphs.hlo import COLLECTIVES, POINT_TO_POINT, Collective, Graph, Instruction, Shape

_OPERATION = re.compile(r'^\s*(?:(%[\w]+)(?::\d+)? = )?"?stablehlo\.(\w+)"?')
_TENSOR = re.compile(r"tensor<([^<>]*(?:<[^<>]*>)?[^<>]*)>")
_INTEGER = re.compile(r"^(u?)i(\d+)$")
_PAIRS = re.compile(r"(?:replica_groups|source_target_pairs) = dense<(.*?)> : tensor<([\dx]*)xi64>")


def parse(text: str) -> Graph:
    """Read a module of StableHLO text. Raises ValueError for other text."""
    if "func.func @main" not in text:
        raise ValueError(f"not StableHLO text: it begins with {text[:60]!r}")
    graph = Graph()
    open_regions: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("func.func @main"):
            arguments, _, returned = stripped.partition(") -> ")
            graph.parameters, graph.outputs = read_tensors(arguments), read_tensors(returned)
        elif stripped.endswith("({"):
            open_regions.append(stripped)
        elif stripped.startswith("})") and open_regions:
            _note(graph, open_regions.pop() + stripped)
        elif _OPERATION.match(stripped):
            _note(graph, stripped)
    return graph


def _note(graph: Graph, line: str) -> None:
    found = _OPERATION.match(line)
    if not found:
        return
    opcode = found[2].replace("_", "-")
    operands, results = _signature(line)
    instruction = Instruction(found[1] or "", opcode, operands, results, line)
    hlo.note(graph, instruction)
    if opcode in ("dot-general", "dot"):
        batch, left, right = _dot_dims(opcode, line, operands)
        graph.matmuls.append(hlo.matmul(operands[0], operands[1], results[0], batch, left, right))
    elif opcode in COLLECTIVES:
        graph.collectives.append(Collective(opcode, hlo.without_token(opcode, operands), _groups(line)))
    elif opcode in POINT_TO_POINT:
        _note_point_to_point(graph, instruction)
    elif opcode == "custom-call":
        target = re.search(r"custom_call @([\w.\-]+)", line)
        hlo.note_custom_call(graph, instruction.name, target[1] if target else "?")
    elif opcode == "constant" and results:
        literal = re.search(r"dense<(.*)> : ", line)
        # A constant that fills a tensor is a scalar and a broadcast in HLO.
        if literal and "[" not in literal[1] and '"' not in literal[1]:
            graph.constants.append(f"{results[0]} {literal[1]}")


def _note_point_to_point(graph: Graph, instruction: Instruction) -> None:
    line = instruction.attributes
    if "is_host_transfer = true" in line:
        graph.host.append(f"{instruction.opcode} {instruction.name}")
        return
    moved = instruction.operands if instruction.opcode == "send" else instruction.results
    channel = re.search(r"handle = (\d+)", line)
    graph.collectives.append(Collective(instruction.opcode, moved[:1], channel=int(channel[1]) if channel else None))


def _signature(line: str) -> tuple[tuple[Shape, ...], tuple[Shape, ...]]:
    """Operand and result shapes: ``(types) -> types``, or one type for all of them."""
    _, arrow, after = line.rpartition(" -> ")
    if arrow:
        before = line[: line.rindex(" -> ")]
        return read_tensors(before[before.rindex(" : (") :] if " : (" in before else ""), read_tensors(after)
    _, _, only = line.rpartition(" : ")
    shapes = read_tensors(only)
    return shapes, shapes


def _dot_dims(
    opcode: str, line: str, operands: tuple[Shape, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    if opcode == "dot":  # vectors and matrices only: the last dim of the left with the first of the right
        return (), (len(operands[0].dims) - 1,), (0,)
    batch = re.search(r"batching_dims = \[([\d, ]*)\]", line)
    contracting = re.search(r"contracting_dims = \[([\d, ]*)\] x \[([\d, ]*)\]", line)
    return (
        _numbers(batch[1]) if batch else (),
        _numbers(contracting[1]) if contracting else (),
        _numbers(contracting[2]) if contracting else (),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number.strip())


def _groups(line: str) -> tuple[tuple[int, ...], ...]:
    found = _PAIRS.search(line)
    if not found:
        return ()
    literal, dims = found[1], [int(dim) for dim in found[2].split("x") if dim]
    numbers = [int(number) for number in re.findall(r"-?\d+", literal)]
    rows, width = dims if len(dims) == 2 else (1, len(numbers))
    if len(numbers) == 1 and rows * width > 1:  # a splat
        numbers *= rows * width
    return tuple(tuple(numbers[row * width : (row + 1) * width]) for row in range(rows))


def read_tensors(text: str) -> tuple[Shape, ...]:
    """Every ``tensor<...>`` in a piece of StableHLO text."""
    shapes = []
    for inside in _TENSOR.findall(text):
        type_, _, encoding = inside.partition(",")
        *dims, dtype = type_.strip().split("x")
        sizes = tuple(int(dim) if dim.isdigit() else 0 for dim in dims)
        dynamic = "?" in type_ or "bounds" in encoding
        shapes.append(Shape(_dtype(dtype), sizes, dynamic))
    return tuple(shapes)


def _dtype(name: str) -> str:
    """HLO's name of a StableHLO dtype."""
    integer = _INTEGER.match(name)
    if not integer:
        return name
    return "pred" if integer[2] == "1" else ("u" if integer[1] else "s") + integer[2]
