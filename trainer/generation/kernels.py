"""kernels.cpp, compiled for this machine when a process first asks for it: decoding on a CPU at the speed of memory.

A C++ compiler needs about a second for it, as it includes nothing of torch's; nothing is left on the disk. torch 2.9.1
itself reads weights at half of memory's speed for one row; BF16 ones for 8 rows, on a CPU without instructions for
BF16, at a fifteenth.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
SECONDS = 60
MANY = 128
"""Rows from which on a matrix is worth being widened for torch's product: then sums take the time, and not memory."""


@cache
def kernels() -> Kernels | None:
    """None where there is no C++ compiler, or none that can; everything works without."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as place:
            made = f"{place}/kernels.so"
            command = [*shlex.split(compiler), *FLAGS, "-o", made, str(SOURCE)]
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
            return Kernels(ctypes.CDLL(made))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


class Layer(ctypes.Structure):
    """A pre-norm layer of RMSNorm, grouped-query attention and a gated feed-forward, as kernels.cpp has it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("before", "qkv", "qkv_bias", "q_norm", "k_norm", "o", "o_bias")),
        *((name, ctypes.c_void_p) for name in ("between", "gate_up", "gate_up_bias", "down", "down_bias")),
        *((name, ctypes.c_int64) for name in ("hidden", "mlp", "queries", "keys", "size")),
        ("eps", ctypes.c_float),
    )


class Place(ctypes.Structure):
    """What the attention of one new token of each row needs to know, as kernels.cpp has it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("kept", "cosines", "sines", "mask")),
        *((name, ctypes.c_int64) for name in ("batch", "length", "slot")),
    )


class Kernels:
    """Of FP32 activations and BF16 or FP32 matrices, [out, in] and contiguous; without gradients."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        steps: list[Any] = [ctypes.POINTER(Layer), ctypes.POINTER(Place), pointer]
        self._linear, self._step = {}, {}
        for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float32, "float32")):
            linear, step = getattr(library, f"linear_{name}"), getattr(library, f"step_{name}")
            linear.argtypes, linear.restype = [pointer] * 4 + [number] * 3, None
            step.argtypes, step.restype = steps, None
            self._linear[dtype], self._step[dtype] = linear, step

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        """F.linear. bias: FP32."""
        out, given = weight.shape
        rows = x.numel() // given
        if rows >= MANY:
            return F.linear(x, weight.float(), bias)
        x, y = x.contiguous(), x.new_empty((*x.shape[:-1], out))
        at = None if bias is None else bias.data_ptr()
        self._linear[weight.dtype](weight.data_ptr(), at, x.data_ptr(), y.data_ptr(), rows, given, out)
        return y

    def step(self, dtype: torch.dtype, layer: Layer, place: Place, x: torch.Tensor) -> torch.Tensor:
        """A new token of each row, [batch, 1, hidden], through a layer, whose matrices have this dtype."""
        x = x.clone(memory_format=torch.contiguous_format)
        self._step[dtype](layer, place, x.data_ptr())
        return x
