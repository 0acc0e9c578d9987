"""What NxD's layers give in a rank, as JSON: run once on the original and once on the double (test_double_agrees.py).

Written against NxD's documented interface alone, and with the arguments that keep clear of its defects.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from neuronx_distributed.parallel_layers import layers, mappings, parallel_cross_entropy

from tests.neuron.agree_model import BATCH, DTYPES, HIDDEN, SEQUENCE, VOCAB, WIDE, draw, marked, start, told


def dtypes(tp: int) -> list[tuple[str, torch.dtype]]:
    """BF16 at TP 2 only: gloo's order of a sum depends on an element's place, which shows from three ranks on."""
    return [(word, dtype) for word, dtype in DTYPES.items() if tp == 2 or word == "fp32"]


def measured(layer: torch.nn.Module, x: torch.Tensor, seed: int) -> dict[str, Any]:
    """Output, every gradient, every parameter and its marks."""
    x = x.clone()
    if x.is_floating_point():
        x.requires_grad_()
    y = layer(x)
    y.backward(draw(seed, *y.shape, dtype=y.dtype))
    found = {"output": told(y), "input gradient": told(x.grad)}
    for name, parameter in layer.named_parameters():
        found |= {name: told(parameter), f"{name} gradient": told(parameter.grad), f"{name} marks": marked(parameter)}
    return found


def sequence_styles() -> list[tuple[str, dict[str, Any]]]:
    """Without sequence parallelism, and with it along either dim."""
    off: tuple[str, dict[str, Any]] = ("whole", {})
    return [off, *((f"sp{dim}", {"sequence_parallel_enabled": True, "sequence_dimension": dim}) for dim in (0, 1))]


def linears(tp: int) -> dict[str, Any]:
    """Both linear layers in every style, and their options."""
    state = start(tensor_model_parallel_size=tp)
    rank = state.get_tensor_model_parallel_rank()
    found = {}

    def cell(name: str, build: Any, *shape: int, cut: int | None = None) -> None:
        torch.manual_seed(5)
        layer = build()
        x = draw(1, *shape, dtype=layer.weight.dtype)
        found[name] = measured(layer, x if cut is None else x.chunk(tp, cut)[rank].contiguous(), seed=2 + rank)

    for (style, sequence), (word, dtype), wide in itertools.product(sequence_styles(), dtypes(tp), (False, True)):
        cut = sequence.get("sequence_dimension")
        # Without sequence parallelism NxD needs reduce_dtype = dtype (its defect input_gradient_not_reduced).
        shared = {"dtype": dtype, "reduce_dtype": torch.float32 if wide else dtype, **sequence}
        if cut is not None or not wide or dtype == torch.float32:
            build = lambda kw=shared: layers.ColumnParallelLinear(HIDDEN, WIDE, gather_output=False, **kw)  # noqa: E731
            cell(f"column {style} {word} {wide}", build, BATCH * 4, SEQUENCE, HIDDEN, cut=cut)
        build = lambda kw=shared: layers.RowParallelLinear(WIDE, HIDDEN, input_is_parallel=True, **kw)  # noqa: E731
        cell(f"row {style} {word} {wide}", build, BATCH * 4, SEQUENCE, WIDE // tp)
    shape = (BATCH, SEQUENCE, HIDDEN)
    cell("column gathers", lambda: layers.ColumnParallelLinear(HIDDEN, WIDE), *shape)
    cell("column stride", lambda: layers.ColumnParallelLinear(HIDDEN, WIDE, bias=False, stride=2), *shape)
    ones = torch.nn.init.ones_
    cell(
        "column init", lambda: layers.ColumnParallelLinear(HIDDEN, WIDE, gather_output=False, init_method=ones), *shape
    )
    cell("row scatters", lambda: layers.RowParallelLinear(HIDDEN, WIDE, bias=False), *shape)
    cell(
        "row unreduced",
        lambda: layers.RowParallelLinear(WIDE, HIDDEN, bias=False, input_is_parallel=True, reduce_output=False),
        BATCH,
        SEQUENCE,
        WIDE // tp,
    )
    return found


def embeddings(tp: int) -> dict[str, Any]:
    """The embedding, cut along either dim, and the vocabulary-parallel loss."""
    state = start(tensor_model_parallel_size=tp)
    rank = state.get_tensor_model_parallel_rank()
    ids = torch.randint(0, VOCAB, (BATCH, SEQUENCE), generator=torch.Generator().manual_seed(3))
    found = {}
    styles: list[tuple[str, dict[str, Any]]] = [
        *sequence_styles(),
        ("hidden", {"shard_across_embedding": True}),
        ("kept apart", {"collect_output": False}),
        ("padding", {"padding_idx": int(ids[0, 0]) or 1}),
    ]
    for (style, options), (word, dtype) in itertools.product(styles, dtypes(tp)):
        torch.manual_seed(6)
        embedding = layers.ParallelEmbedding(VOCAB, HIDDEN, dtype=dtype, **options)
        found[f"embedding {style} {word}"] = measured(embedding, ids, seed=4 + rank)
    with torch.device("meta"):
        found["on meta"] = marked(layers.ParallelEmbedding(VOCAB, HIDDEN).weight) | marked(
            layers.ColumnParallelLinear(HIDDEN, WIDE, gather_output=False).bias
        )
    logits = draw(7, BATCH, SEQUENCE, VOCAB).chunk(tp, -1)[rank].clone().requires_grad_()
    targets = ids.clone()
    targets[0, :2] = -100
    loss = parallel_cross_entropy(logits * 3.0, targets)
    loss.backward(draw(8, BATCH, SEQUENCE))
    found["loss"] = {"loss": told(loss), "gradient": told(logits.grad)}
    return found


def regions(tp: int) -> dict[str, Any]:
    """The autograd functions at the borders of the tensor-parallel region."""
    state = start(tensor_model_parallel_size=tp)
    rank = state.get_tensor_model_parallel_rank()
    cases: dict[str, Any] = {
        f"{name} {dim}": lambda x, name=name, dim=dim: getattr(mappings, name)(x, dim)
        for name in (
            "scatter_to_sequence_parallel_region",
            "gather_from_sequence_parallel_region",
            "reduce_scatter_to_sequence_parallel_region",
            "gather_from_tensor_model_parallel_region_with_dim",
        )
        for dim in (0, 1)
    }
    cases |= {
        f"{name}_tensor_model_parallel_region": getattr(mappings, f"{name}_tensor_model_parallel_region")
        for name in ("copy_to", "reduce_from", "gather_from", "scatter_to")
    }
    cases["gather, not summed back"] = lambda x: mappings.gather_from_sequence_parallel_region(x, 1, False)
    found = {}
    for name, region in cases.items():
        x = draw(20 + rank, 8, 8, 8).requires_grad_()
        y = region(x * 1.0)  # not a leaf: the original reduces in place
        y.backward(draw(30 + rank, *y.shape))
        found[name] = {"output": told(y), "gradient": told(x.grad)}
    return found
