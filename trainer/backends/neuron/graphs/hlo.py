"""What a graph in HLO text does: matrix multiplies, collectives in order, host transfers, dynamic shapes.

The grammar is XLA's text format (openxla.org/xla/operation_semantics and xla/hlo/parser), of which this reads what
torch_xla prints: with or without ``%`` and operand shapes. Imports neither torch nor torch_xla.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

COLLECTIVES = frozenset(
    {"all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast"}
)
POINT_TO_POINT = frozenset({"send", "recv"})
HOST = frozenset({"infeed", "outfeed"})
HOST_CALL = re.compile(r"callback|MoveToHost|MoveToDevice|host", re.IGNORECASE)
"""Custom calls that leave the device: Python callbacks and annotations that place memory on the host."""

_BITS = {"pred": 8, "c64": 64, "c128": 128, "token": 0, "opaque": 0, "s4": 4, "u4": 4, "s2": 2, "u2": 2}
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{[^}]*\})?")


@dataclass(frozen=True)
class Shape:
    """dtype as HLO spells it (f32, bf16, s64, pred) and dims; an unknown or bounded dim makes it dynamic."""

    dtype: str
    dims: tuple[int, ...]
    dynamic: bool = False

    @property
    def bytes(self) -> int:
        """Size in memory, without padding."""
        bits = _BITS.get(self.dtype)
        if bits is None:
            bits = int(re.findall(r"\d+", self.dtype)[0])
        return (prod(self.dims) * bits + 7) // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(dim) for dim in self.dims)}]"


@dataclass(frozen=True)
class MatMul:
    """lhs [batch, m, k] times rhs [batch, k, n] in any order of dims."""

    lhs: Shape
    rhs: Shape
    result: Shape
    batch: int
    m: int
    n: int
    k: int

    @property
    def flops(self) -> int:
        """A multiplication and an addition for every product."""
        return 2 * self.batch * self.m * self.n * self.k


@dataclass(frozen=True)
class Collective:
    """One collective as this rank issues it.

    operands: the rank's inputs, without torch_xla's ordering token. groups: replica groups, empty for one group of
    all; pairs (source, target) of a collective-permute. channel: of a send or recv.
    """

    kind: str
    operands: tuple[Shape, ...]
    groups: tuple[tuple[int, ...], ...] = ()
    channel: int | None = None

    @property
    def size(self) -> int:
        """Ranks in a group; 0 for all of them. Of a collective-permute, the number of pairs."""
        if self.kind == "collective-permute":
            return len(self.groups)
        return len(self.groups[0]) if self.groups else 0

    @property
    def dtype(self) -> str:
        """The operands' dtype, or several joined by a plus."""
        return "+".join(dict.fromkeys(shape.dtype for shape in self.operands))

    @property
    def bytes(self) -> int:
        """Bytes of the rank's inputs."""
        return sum(shape.bytes for shape in self.operands)


@dataclass
class Graph:
    """A whole module. ``ops`` counts instructions by opcode, those of called computations included.

    A loop's body counts once: its trip count is not in the text. outputs: what the entry returns, flattened.
    constants: scalars as dtype[] and literal, in order.
    host: instructions that move data to or from the host. dynamic: instructions whose shape is not static.
    """

    ops: Counter[str] = field(default_factory=Counter)
    parameters: tuple[Shape, ...] = ()
    outputs: tuple[Shape, ...] = ()
    constants: list[str] = field(default_factory=list)
    matmuls: list[MatMul] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)
    host: list[str] = field(default_factory=list)
    custom_calls: list[str] = field(default_factory=list)
    dynamic: list[str] = field(default_factory=list)

    @property
    def flops(self) -> int:
        """FLOPs of all matrix multiplies."""
        return sum(matmul.flops for matmul in self.matmuls)


@dataclass(frozen=True)
class Instruction:
    """One instruction, read from HLO or StableHLO text."""

    name: str
    opcode: str
    operands: tuple[Shape, ...]
    results: tuple[Shape, ...]
    attributes: str


def matmul(
    lhs: Shape, rhs: Shape, result: Shape, batch: tuple[int, ...], left: tuple[int, ...], right: tuple[int, ...]
) -> MatMul:
    """A MatMul from the lhs's batch dims and each side's contracted dims."""
    batches = prod(lhs.dims[dim] for dim in batch)
    k = prod(lhs.dims[dim] for dim in left)
    m, n = prod(lhs.dims) // (batches * k), prod(rhs.dims) // (batches * prod(rhs.dims[dim] for dim in right))
    return MatMul(lhs, rhs, result, batches, m, n, k)


def without_token(kind: str, operands: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Drop the scalar by which torch_xla orders collectives, last in their tuples (csrc/cross_replica_reduces.cpp)."""
    chained = kind in ("all-reduce", "all-gather", "reduce-scatter") and len(operands) > 1 and not operands[-1].dims
    return operands[:-1] if chained else operands


def note(graph: Graph, instruction: Instruction) -> None:
    """Count an instruction, its dynamic shapes and host transfers: the part common to HLO and StableHLO."""
    graph.ops[instruction.opcode] += 1
    if any(shape.dynamic for shape in instruction.results):
        graph.dynamic.append(f"{instruction.opcode} {instruction.name}: {', '.join(map(str, instruction.results))}")
    elif instruction.opcode in ("set-dimension-size", "dynamic-reshape"):
        graph.dynamic.append(f"{instruction.opcode} {instruction.name}")
    if instruction.opcode in HOST:
        graph.host.append(f"{instruction.opcode} {instruction.name}")


def note_custom_call(graph: Graph, name: str, target: str) -> None:
    """Record a custom call, also as a host transfer if its target's name says so."""
    graph.custom_calls.append(target)
    if HOST_CALL.search(target):
        graph.host.append(f"custom-call {name} to {target}")


def parse(text: str) -> Graph:
    """Read a module of HLO text. Raises ValueError for other text."""
    if "HloModule" not in text:
        raise ValueError(f"not HLO text: it begins with {text[:60]!r}")
    graph, entry = Graph(), False
    shapes: dict[str, tuple[Shape, ...]] = {}
    parameters: dict[int, Shape] = {}
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            entry = line.startswith("ENTRY")
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        instruction, arguments = _instruction(found[1], found[2], shapes)
        shapes[instruction.name] = instruction.results
        note(graph, instruction)
        if entry and line.lstrip().startswith("ROOT "):
            graph.outputs = instruction.results
        if instruction.opcode == "parameter" and entry:
            parameters[int(arguments)] = instruction.results[0]
        elif instruction.opcode == "constant" and instruction.results and not instruction.results[0].dims:
            graph.constants.append(f"{instruction.results[0]} {arguments}")
        else:
            _note_special(graph, instruction)
    graph.parameters = tuple(parameters[index] for index in sorted(parameters))
    return graph


def _instruction(name: str, rest: str, shapes: Mapping[str, tuple[Shape, ...]]) -> tuple[Instruction, str]:
    """A line's right-hand side, ``type opcode(arguments), attributes``, and the arguments as written."""
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    arguments, attributes = rest[len(opcode) + 1 : close], rest[close + 1 :]
    operands: list[Shape] = []
    if opcode not in ("constant", "parameter"):
        written = read_shapes(arguments)
        # Where arguments have no shapes, look them up by name.
        names = re.findall(r"%?([\w.\-]+)", arguments) if not written else []
        operands = list(written) or [shape for operand in names for shape in shapes.get(operand, ())]
    return Instruction(name, opcode, tuple(operands), read_shapes(kind), attributes), arguments


def _note_special(graph: Graph, instruction: Instruction) -> None:
    attributes, opcode = instruction.attributes, instruction.opcode.removesuffix("-start")
    if opcode == "dot":
        lhs, rhs = instruction.operands
        batch, left, right = (
            _numbers(attributes, f"{key}_dims") for key in ("lhs_batch", "lhs_contracting", "rhs_contracting")
        )
        graph.matmuls.append(matmul(lhs, rhs, instruction.results[0], batch, left, right))
    elif opcode in COLLECTIVES:
        operands = without_token(opcode, instruction.operands)
        graph.collectives.append(Collective(opcode, operands, _groups(attributes)))
    elif opcode in POINT_TO_POINT:
        if "is_host_transfer=true" in attributes:
            graph.host.append(f"{opcode} {instruction.name}")
            return
        moved = instruction.operands if opcode == "send" else instruction.results
        channel = re.search(r"channel_id=(\d+)", attributes)
        tensors = tuple(shape for shape in moved[:1] if shape.dtype != "token")
        graph.collectives.append(Collective(opcode, tensors, channel=int(channel[1]) if channel else None))
    elif opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', attributes)
        note_custom_call(graph, instruction.name, target[1] if target else "?")


def read_shapes(text: str) -> tuple[Shape, ...]:
    """Every array shape in a piece of HLO text, tuples flattened; tokens have no brackets and are left out."""
    shapes = []
    for dtype, dims in _SHAPE.findall(text):
        sizes = [size for size in dims.split(",") if size]
        dynamic = any(not size.isdigit() for size in sizes)
        numbers = tuple(int(re.sub(r"\D", "", size) or 0) for size in sizes)
        shapes.append(Shape(dtype, numbers, dynamic))
    return tuple(shapes)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis at ``start`` closes; literals in quotes are skipped."""
    depth, quoted = 0, False
    for index in range(start, len(text)):
        character = text[index]
        if character == '"' and text[index - 1] != "\\":
            quoted = not quoted
        elif not quoted and character in "()":
            depth += 1 if character == "(" else -1
            if depth == 0:
                return index
    raise ValueError(f"a parenthesis stays open in {text[:80]!r}")


def _numbers(attributes: str, key: str) -> tuple[int, ...]:
    found = re.search(rf"\b{key}=\{{([\d,]*)\}}", attributes)
    return tuple(int(number) for number in found[1].split(",") if number) if found else ()


def _groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    """replica_groups or source_target_pairs, listed or as an iota: ``[2,4]<=[8]`` or ``[4,2]<=[2,4]T(1,0)``."""
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)*)\}", attributes)
    if listed:
        return tuple(tuple(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", listed[1]))
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if not iota:
        return ()
    dims = [int(size) for size in iota[2].split(",")]
    order = [int(dim) for dim in iota[3].split(",")] if iota[3] else list(range(len(dims)))
    strides = [prod(dims[dim + 1 :]) for dim in range(len(dims))]
    ranks = [0]
    for dim in order:
        ranks = [rank + index * strides[dim] for rank in ranks for index in range(dims[dim])]
    width = int(iota[1].split(",")[-1])
    return tuple(tuple(ranks[start : start + width]) for start in range(0, len(ranks), width))
