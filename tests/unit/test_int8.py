"""INT8 out and in: the quantiser's closed form, what stands in the files, what is read back, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.families.checkpoints import save_run
from tests.families.mapping import to_theirs
from tests.unit.test_export import LLAMA, MODELS, held, weights
from trainer.commands.export_hf import export_hf
from trainer.commands.import_hf import import_directory
from trainer.config.groups.model import ModelConfig
from trainer.errors import ConfigError
from trainer.parallel.boxes import Box, whole_box
from trainer.pretrained import rows
from trainer.pretrained.config_json import format_of
from trainer.pretrained.export import export
from trainer.pretrained.int8 import ALL, LINEAR, TOKENS, is_quantised, scale_name
from trainer.pretrained.int8_rows import rounded, scales_of
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.source import open_source
from trainer.pretrained.weights import weights_of

DOWN = "model.layers.0.mlp.down_proj.weight"


def quantised(matrix: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole matrix at once. channels: their dim."""
    largest = matrix.abs().amax(dim=1 - channels, keepdim=True)
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return torch.round(matrix / scale).to(torch.int8), scale


def test_the_closed_form() -> None:
    """Half goes to even; the range is symmetric; zeros, and what no FP32 scale reaches, have scale 1."""
    matrix = torch.tensor([[127.0, 0.5, 1.5, -2.5, -127.0], [0.0, 0.0, 0.0, -0.0, 0.0], [-254.0, 1.0, 3.0, 2.0, 253.0]])
    scales = scales_of(matrix.abs().amax(dim=1, keepdim=True))
    assert scales.tolist() == [[1.0], [1.0], [2.0]]
    wanted = [[127, 0, 2, -2, -127], [0] * 5, [-127, 0, 2, 1, 126]]
    assert rounded(matrix, scales).tolist() == wanted
    tiny = torch.tensor([[1e-45, 0.0]])
    assert scales_of(tiny.abs().amax(dim=1, keepdim=True)).tolist() == [[1.0]]
    assert rounded(tiny, scales_of(tiny.abs().amax(dim=1, keepdim=True))).tolist() == [[0, 0]]
    small = torch.tensor([[3e-43, -1e-43]])  # a scale among FP32's smallest numbers is off by much
    assert rounded(small, scales_of(small.abs().amax(dim=1, keepdim=True))).abs().max() <= 127


@pytest.mark.parametrize("which", [ALL, LINEAR])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_and_read_back(name: str, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK", 300)  # a tensor is made in several pieces
    monkeypatch.setattr(rows, "TRANSPOSED", 300)
    model = MODELS[name]
    parameters = weights(model)
    parameters[DOWN][3] = 0
    files = {tensor.name: tensor for tensor in format_of(model.family).tensors(model)}
    theirs = to_theirs(parameters, files.values())
    checkpoint = save_run(tmp_path / "run", model, parameters, (3, 2))
    done = export(checkpoint, tmp_path / "out", shard_bytes=4000, int8=which)
    found, wanted = held(tmp_path / "out"), {}
    for key, matrix in theirs.items():
        if not is_quantised(files[key], which):
            wanted[key] = matrix
            continue
        wanted[key], wanted[scale_name(key)] = quantised(matrix, 1 if files[key].transposed else 0)
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert found[key].dtype == wanted[key].dtype, key
        assert torch.equal(found[key], wanted[key]), key
    tokens = [key for key, file in files.items() if file.parts[0].name in TOKENS]
    assert all((found[key].dtype is torch.int8) is (which == ALL) for key in tokens)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    assert done.dtype == "int8"
    for one in done.errors:
        exact, made = theirs[one.name].double(), found[one.name].double() * found[scale_name(one.name)].double()
        assert one.rms == pytest.approx(((made - exact).norm() / exact.norm()).item(), rel=1e-3)
        assert 0 < one.worst < 1 / 254 + 1e-6

    source = open_source(str(tmp_path / "out"))
    assert source.model.family == model.family
    read = weights_of(source, model.vocab)
    back = {key: found[key] * found[scale_name(key)] if scale_name(key) in found else found[key] for key in theirs}
    for canonical, shape in parameter_shapes(model).items():
        values = read(whole_box(canonical, shape))
        assert values.dtype is torch.float32
        assert torch.equal(values, from_files(back, files, canonical, shape)), canonical
        if len(shape) == 2:
            part = tuple(slice(size // 3, size // 3 + size // 2) for size in shape)
            box = Box(canonical, shape, tuple(s.start for s in part), tuple(s.stop - s.start for s in part), part)
            assert torch.equal(read(box), values[part]), canonical


def from_files(back: dict, files: dict, canonical: str, shape: tuple[int, ...]) -> torch.Tensor:
    made = torch.full(shape, torch.nan)
    for key, file in files.items():
        oriented = back[key].T if file.transposed else back[key]
        for part in file.parts:
            if part.name == canonical:
                made[part.start : part.start + part.rows] = oriented[part.at : part.at + part.rows]
    return made


def test_at_most_27_hundredths_of_the_bytes(tmp_path: Path) -> None:
    """Of a model as wide as SmolLM2, tied; its norms and scales count."""
    model = ModelConfig(hidden=576, layers=1, heads=9, kv_heads=3, mlp=1536, vocab=4000, max_positions=64, tied=True)
    checkpoint = save_run(tmp_path / "run", model, weights(model))
    plain, small = export(checkpoint, tmp_path / "plain"), export(checkpoint, tmp_path / "small", int8=ALL)
    assert small.bytes <= 0.27 * plain.bytes


def test_the_command_prints_a_table_and_an_import_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_run(tmp_path / "run", LLAMA, weights(LLAMA))
    lines = list(export_hf("run", "out", None, None, ALL))
    assert any("parameters in int8, from float32" in line for line in lines)
    (row,) = [line for line in lines if line.lstrip().startswith(DOWN)]
    assert row.count("%") == 2
    said = "\n".join(import_directory("out", "made"))
    assert "matrices are int8" in said
    first, again = (weights_of(open_source(name), LLAMA.vocab) for name in ("out", "made"))
    box = whole_box(DOWN, parameter_shapes(LLAMA)[DOWN])
    assert torch.equal(first(box), again(box))


@pytest.mark.parametrize("which", [ALL, LINEAR])
def test_transformers_refuses_it(which: str, tmp_path: Path) -> None:
    """An unknown quant_method it would pass over with a warning, and load int8 values as weights."""
    transformers = pytest.importorskip("transformers")
    export(save_run(tmp_path / "run", LLAMA, weights(LLAMA)), tmp_path / "out", int8=which)
    with pytest.raises(ValueError, match="quant_method"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        found = load_file(path / "model.safetensors")
        change(found)
        save_file(found, path / "model.safetensors")

    return write


def config_without(path: Path) -> None:
    values = json.loads((path / "config.json").read_text())
    del values["quantization_config"]
    (path / "config.json").write_text(json.dumps(values))


SCALES = scale_name(DOWN)
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no scales": (changed(lambda found: found.pop(SCALES)), f"{DOWN} has no {SCALES}"),
    "scales of another shape": (
        changed(lambda found: found.update({SCALES: found[SCALES].flatten().clone()})),
        f"{SCALES} is float32 [16, 1]; it is float32 [16]",
    ),
    "scales of another dtype": (
        changed(lambda found: found.update({SCALES: found[SCALES].half()})),
        "it is float16 [16, 1]",
    ),
    "scales without a matrix": (
        changed(lambda found: found.update({DOWN: found[DOWN].float()})),
        f"no others; {SCALES}",
    ),
    "int8 norms": (
        changed(lambda found: found.update({"model.norm.weight": found["model.norm.weight"].to(torch.int8)})),
        "model.norm.weight has no model.norm.scale",
    ),
    "config.json does not say so": (config_without, "is int8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_directory_that_is_not_as_written_is_refused(case: str, tmp_path: Path) -> None:
    spoil, words = REFUSED[case]
    export(save_run(tmp_path / "run", LLAMA, weights(LLAMA)), tmp_path / "out", int8=ALL)
    spoil(tmp_path / "out")
    with pytest.raises(ConfigError) as raised:
        open_source(str(tmp_path / "out"))
    (problem,) = raised.value.problems
    assert problem.key == "model.init_from"
    assert words in problem.rule


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [DOWN, "model.norm.weight"])
def test_what_is_not_finite_is_refused_by_name(name: str, value: float, tmp_path: Path) -> None:
    parameters = weights(LLAMA)
    parameters[name].view(-1)[5] = value
    checkpoint = save_run(tmp_path / "run", LLAMA, parameters)
    with pytest.raises(ConfigError) as raised:
        export(checkpoint, tmp_path / "out", int8=ALL)
    (problem,) = raised.value.problems
    assert problem.key == "--int8"
    assert f"{name} holds {value:g}" in problem.rule
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_another_dtype_is_refused(tmp_path: Path) -> None:
    checkpoint = save_run(tmp_path / "run", LLAMA, weights(LLAMA))
    with pytest.raises(ConfigError, match="--int8"):
        export(checkpoint, tmp_path / "out", "bfloat16", int8=ALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
