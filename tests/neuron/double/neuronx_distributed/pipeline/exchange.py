"""What crosses from stage to stage over gloo: activations forward, their gradients backward.

Sends do not block, receives do; tags keep messages of different stages and microbatches apart, so that any order of
work that respects the data's own order ends. Shapes are told once, through the store, and have to stay.
"""

import itertools
import json

import torch
import torch.distributed as dist
from torch.utils import _pytree as pytree

from ..parallel_layers import parallel_state as ps

_VALUES = 64
"""Tensors that may cross one cut."""
_FORWARD, _BACKWARD = 0, 1
_GENERATIONS = itertools.count()
"""Numbers of the shapes told so far, over all models of the process; the same on every rank."""


class Exchange:
    """Messages between neighbouring pipeline ranks, for batches of one shape."""

    def __init__(self, microbatches):
        self._microbatches = microbatches
        self._group = ps.get_pipeline_model_parallel_group()
        self._next, self._previous = (
            ps.get_pipeline_model_parallel_next_rank(),
            ps.get_pipeline_model_parallel_prev_rank(),
        )
        self._layouts, self._sending, self._generation = {}, [], 0

    def forget(self):
        """Shapes may change from here on. Every rank of the pipeline has to say so."""
        self._layouts.clear()
        self._generation = next(_GENERATIONS)

    def _tag(self, cut, microbatch, index, direction):
        return ((cut * self._microbatches + microbatch) * _VALUES + index) * 2 + direction

    def _send(self, tensor, rank, tag):
        tensor = tensor.detach().contiguous()
        self._sending.append((dist.isend(tensor, rank, self._group, tag), tensor))

    def _key(self, rank, cut, training):
        return f"double/{rank}/{self._generation}/{cut}/{training}"

    def send(self, cut, microbatch, values, training):
        """Values across a cut: tensors, Python constants, or tuples, lists and dicts of them."""
        leaves, structure = pytree.tree_flatten(values)
        layout = [_layout(leaf) for leaf in leaves], pytree.treespec_dumps(structure)
        key = self._key(dist.get_rank(), cut, training)
        if key not in self._layouts:
            self._layouts[key] = layout
            dist.distributed_c10d._get_default_store().set(key, json.dumps(layout))
        if self._layouts[key] != layout:
            raise RuntimeError(f"what crosses cut {cut} was {self._layouts[key]} at first and is {layout} now")
        for index, tensor in enumerate(leaf for leaf in leaves if isinstance(leaf, torch.Tensor)):
            self._send(tensor, self._next, self._tag(cut, microbatch, index, _FORWARD))

    def receive(self, cut, microbatch, training):
        """The values, and those of their tensors that want a gradient."""
        key = self._key(self._previous, cut, training)
        if key not in self._layouts:
            self._layouts[key] = json.loads(dist.distributed_c10d._get_default_store().get(key))
        entries, structure = self._layouts[key]
        leaves, wanting = [], []
        for entry in entries:
            if "constant" in entry:
                leaves.append(entry["constant"])
                continue
            tensor = torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]))
            index = sum(isinstance(leaf, torch.Tensor) for leaf in leaves)
            dist.recv(tensor, self._previous, self._group, self._tag(cut, microbatch, index, _FORWARD))
            leaves.append(tensor.requires_grad_(entry["gradient"]))
            wanting += [tensor] if entry["gradient"] else []
        return pytree.tree_unflatten(leaves, pytree.treespec_loads(structure)), wanting

    def send_gradients(self, cut, microbatch, tensors):
        for index, tensor in enumerate(tensors):
            if tensor.grad is None:
                raise RuntimeError(f"nothing used tensor {index} that came across cut {cut}")
            self._send(tensor.grad, self._previous, self._tag(cut, microbatch, index, _BACKWARD))

    def receive_gradients(self, cut, microbatch, tensors):
        gradients = [torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in tensors]
        for index, gradient in enumerate(gradients):
            dist.recv(gradient, self._next, self._group, self._tag(cut, microbatch, index, _BACKWARD))
        return gradients

    def finish(self):
        """Wait until everything sent has left."""
        for work, _ in self._sending:
            work.wait()
        self._sending.clear()


def _layout(leaf):
    if not isinstance(leaf, torch.Tensor):
        return {"constant": leaf}
    if leaf.dim() == 0:
        raise ValueError("scalars cannot cross stages on a device: give the tensor a dim")
    dtype = str(leaf.dtype).removeprefix("torch.")
    return {"shape": list(leaf.shape), "dtype": dtype, "gradient": leaf.requires_grad}
