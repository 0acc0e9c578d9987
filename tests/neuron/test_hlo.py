"""Graphs whose matrix multiplies and collectives are counted by hand; and HLO text that a CPU never prints."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from tests.neuron.library import LAZY
from tests.ranks import Setting, Task, run
from trainer.backends.neuron.graphs import hlo
from trainer.backends.neuron.graphs.hlo import Collective, Shape

BOTH = ("tensors", "pending")
"""From the HLO of some tensors, and from the StableHLO of all that is pending."""


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the program in lowered.py, in a process of its own: torch_xla's state stays out of this one."""
    if importlib.util.find_spec("torch_xla") is None:  # importing it here would bring its state into this process
        pytest.skip("torch_xla is not installed")
    [found] = run(Task("tests.neuron.lowered:read"), tmp_path_factory.mktemp("lowered"), Setting(LAZY))
    return dict(found)


@pytest.mark.parametrize("text", BOTH)
@pytest.mark.parametrize(("graph", "dtype"), [("linear", "f32"), ("linear-bf16", "bf16")])
def test_a_linear_layer_is_three_multiplies(lowered: dict[str, Any], graph: str, dtype: str, text: str) -> None:
    """y = x w^T is [3, 8] by [8, 4]; dx is [3, 4] by [4, 8]; dw is [8, 3] by [3, 4]: 2 * 3 * 4 * 8 FLOPs each."""
    multiplies = lowered[graph][text]["matmuls"]
    assert [one[:3] for one in multiplies] == [[dtype] * 3] * 3
    assert sorted(one[3:7] for one in multiplies) == [[1, 3, 4, 8], [1, 3, 8, 4], [1, 8, 4, 3]]
    assert [one[7] for one in multiplies] == [192] * 3


@pytest.mark.parametrize("text", BOTH)
def test_batches_multiply_the_flops(lowered: dict[str, Any], text: str) -> None:
    """Five times [2, 3] by [3, 4], whichever way the right side lies: 2 * 5 * 2 * 4 * 3."""
    assert [one[3:] for one in lowered["batched"][text]["matmuls"]] == [[5, 2, 4, 3, 240]] * 2


@pytest.mark.parametrize("text", BOTH)
def test_collectives_in_program_order(lowered: dict[str, Any], text: str) -> None:
    """Bytes as handed in: BF16 [16, 4] is 128; two FP32 vectors of 3 and 5 are 32; gathered over 8 it is 1024.

    torch_xla's ordering token, a scalar of its own in each tuple, is not among them.
    """
    assert lowered["collectives"][text]["collectives"] == [
        ["all-reduce", 8, "bf16", 128, 4],
        ["all-reduce", 32, "f32", 32, 1],
        ["all-gather", 8, "bf16", 128, 4],
        ["reduce-scatter", 8, "bf16", 1024, 4],
        ["collective-permute", 8, "bf16", 128, 8],
    ]


@pytest.mark.parametrize("text", BOTH)
def test_all_to_all_has_no_token(lowered: dict[str, Any], text: str) -> None:
    """Eight slices of FP32 [1, 2]; torch_xla has no StableHLO for it, and the pending graph is read all the same."""
    assert lowered["all-to-all"][text]["collectives"] == [["all-to-all", 8, "f32", 64, 4]]


@pytest.mark.parametrize("text", BOTH)
def test_nothing_of_it_is_on_the_host_or_dynamic(lowered: dict[str, Any], text: str) -> None:
    for graph in ("linear", "batched", "collectives", "all-to-all"):
        assert lowered[graph][text]["host"] == lowered[graph][text]["dynamic"] == []


def test_lowering_runs_nothing(lowered: dict[str, Any]) -> None:
    assert lowered["executed"] == 0


def module(*lines: str) -> str:
    return "\n".join(
        ["HloModule m", "", "ENTRY %m (p0.1: f32[4,4]) -> f32[4,4] {", *(f"  {one}" for one in lines), "}"]
    )


def test_groups_written_as_an_iota() -> None:
    """[2,4]<=[8] counts up by rows; [4,2]<=[2,4]T(1,0) walks the transposed grid: ranks 4 apart meet."""
    text = module(
        "%p0.1 = f32[4,4]{1,0} parameter(0)",
        "%a = f32[4,4]{1,0} all-reduce(f32[4,4]{1,0} %p0.1), replica_groups=[2,4]<=[8], to_apply=%add",
        "ROOT %b = f32[4,4]{1,0} all-reduce(%a), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add",
    )
    rows, columns = hlo.parse(text).collectives
    assert rows.groups == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert columns.groups == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert columns.operands == (Shape("f32", (4, 4)),)  # named without its shape


def test_what_goes_to_the_host() -> None:
    text = module(
        "%p0.1 = f32[4,4]{1,0} parameter(0)",
        "%t = token[] after-all()",
        "%o = token[] outfeed(f32[4,4]{1,0} %p0.1, token[] %t)",
        '%c = f32[] custom-call(f32[4,4]{1,0} %p0.1), custom_call_target="xla_python_cpu_callback"',
        '%k = f32[4,4]{1,0} custom-call(f32[4,4]{1,0} %p0.1), custom_call_target="AwsNeuronCustomNativeKernel"',
        "%s = (f32[4,4], u32[], token[]) send(f32[4,4] %p0.1, token[] %t), channel_id=1, is_host_transfer=true",
        "ROOT %d = (f32[4,4]{1,0}, u32[], token[]) send(f32[4,4]{1,0} %p0.1, token[] %t), channel_id=7",
    )
    graph = hlo.parse(text)
    assert graph.host == ["outfeed o", "custom-call c to xla_python_cpu_callback", "send s"]
    assert graph.custom_calls == ["xla_python_cpu_callback", "AwsNeuronCustomNativeKernel"]
    assert graph.collectives == [Collective("send", (Shape("f32", (4, 4)),), channel=7)]


def test_bounded_shapes_are_dynamic() -> None:
    graph = hlo.parse(module("ROOT %n = s64[<=16,2]{1,0} custom-thing(f32[4,4]{1,0} %p0.1)"))
    assert graph.dynamic == ["custom-thing n: s64[16,2]"]


@pytest.mark.parametrize(("dtype", "expected"), [("pred", 6), ("bf16", 12), ("f8e4m3fn", 6), ("s4", 3), ("c64", 48)])
def test_bytes_of_a_shape(dtype: str, expected: int) -> None:
    """Six elements."""
    assert Shape(dtype, (2, 3)).bytes == expected
