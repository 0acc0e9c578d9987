"""A checkpoint of any layout, exported: the family's tensors bit for bit; and what is refused leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests import harness
from tests.families import tokenizers_of
from tests.families.checkpoints import save_run
from tests.families.mapping import to_theirs
from trainer.commands.export_hf import export_hf
from trainer.config.groups.model import ModelConfig
from trainer.errors import CheckpointError, ConfigError, RunError
from trainer.pretrained import rows
from trainer.pretrained.config_json import format_of
from trainer.pretrained.export import export
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.shards import parse_size
from trainer.pretrained.target import SUFFIX, clear_abandoned, new_directory
from trainer.pretrained.tokenizer_files import tokenizer_files

LLAMA = ModelConfig(hidden=16, layers=2, heads=4, kv_heads=2, mlp=24, vocab=40, max_positions=64)
PLAIN = {"norm": "layer", "qkv_bias": True, "o_bias": True, "mlp_bias": True}
MODELS = {
    "llama": LLAMA,
    "llama, tied": replace(LLAMA, tied=True),
    "gpt2": replace(LLAMA, family="gpt2", kv_heads=4, activation="gelu_tanh", position="learned", tied=True, **PLAIN),
    "falcon": replace(LLAMA, family="falcon", block="parallel", activation="gelu", **PLAIN),
}


def weights(model: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in parameter_shapes(model).items()}


def held(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("cut", [(1, 1), (3, 1), (1, 2), (4, 3)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_any_layout_gives_the_familys_tensors(
    name: str, cut: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK", 300)  # a tensor is made in several pieces
    monkeypatch.setattr(rows, "TRANSPOSED", 300)
    model = MODELS[name]
    parameters = weights(model)
    checkpoint = save_run(tmp_path / "run", model, parameters, cut)
    done = export(checkpoint, tmp_path / "out")
    wanted = to_theirs(parameters, list(format_of(model.family).tensors(model)))
    found = held(tmp_path / "out")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert (done.dtype, done.held, done.files) == ("float32", "float32", 1)
    assert done.parameters == sum(tensor.numel() for tensor in parameters.values())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is model.tied
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_and_their_index(tmp_path: Path) -> None:
    parameters = weights(LLAMA)
    checkpoint = save_run(tmp_path / "run", LLAMA, parameters, (2, 1))
    done = export(checkpoint, tmp_path / "out", shard_bytes=4000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [file.name for file in files] == [
        f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)
    ]
    assert done.files == len(files) > 1
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    sizes = [tensor.numel() for tensor in parameters.values()]
    assert index["metadata"] == {"total_parameters": sum(sizes), "total_size": 4 * sum(sizes)}
    assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}
    assert all(sum(t.nbytes for t in load_file(file).values()) <= 4000 for file in files)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_one_dtype_throughout_and_config_json_says_it(stored: torch.dtype, dtype: str, tmp_path: Path) -> None:
    parameters = weights(LLAMA, stored)
    checkpoint = save_run(tmp_path / "run", LLAMA, parameters)
    export(checkpoint, tmp_path / "out", dtype)
    found = held(tmp_path / "out")
    assert all(torch.equal(found[name], parameters[name].to(getattr(torch, dtype))) for name in parameters)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["dtype"] == said["torch_dtype"] == dtype


@pytest.mark.parametrize(("value", "shown"), [(70144.0, "70144"), (float("nan"), "nan"), (65520.0, "65520")])
def test_what_float16_does_not_reach_is_refused_by_name(value: float, shown: str, tmp_path: Path) -> None:
    parameters = weights(LLAMA)
    parameters["model.layers.1.mlp.up_proj.weight"][5, 3] = value
    checkpoint = save_run(tmp_path / "run", LLAMA, parameters)
    with pytest.raises(ConfigError) as raised:
        export(checkpoint, tmp_path / "deep" / "out", "float16")
    (problem,) = raised.value.problems
    assert problem.key == "--dtype"
    assert f"model.layers.1.mlp.up_proj.weight holds {shown}" in problem.rule
    assert "bfloat16" in problem.remedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def damaged(checkpoint: Path) -> None:
    file = checkpoint / "model" / "rank-00000.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def of_other_dimensions(checkpoint: Path) -> None:
    """Its manifest agrees: somebody knew what they did, and was wrong."""
    from trainer.checkpoint.hashed_file import Written
    from trainer.checkpoint.manifest import Manifest, read_manifest, write_manifest
    from trainer.files import sha256

    config = checkpoint / "config.yaml"
    config.write_text(config.read_text().replace("mlp: 24", "mlp: 32"))
    manifest = read_manifest(checkpoint)
    files = {**manifest.files, "config.yaml": Written(config.stat().st_size, sha256(config))}
    write_manifest(checkpoint, Manifest(manifest.step, manifest.topology, files))


SPOILT: dict[str, tuple[Callable[[Path], object], type[RunError], str]] = {
    "a flipped bit": (damaged, CheckpointError, "its SHA-256 is not the manifest's"),
    "without its manifest": (lambda path: (path / "manifest.json").unlink(), CheckpointError, "manifest.json"),
    "a file less": (lambda path: (path / "model" / "rank-00000.safetensors").unlink(), CheckpointError, "No such file"),
    "other dimensions": (of_other_dimensions, ConfigError, "has shape [24, 16]"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_an_unsound_checkpoint_leaves_nothing_behind(case: str, tmp_path: Path) -> None:
    spoil, kind, words = SPOILT[case]
    checkpoint = save_run(tmp_path / "run", LLAMA, weights(LLAMA))
    spoil(checkpoint)
    with pytest.raises(kind) as raised:
        export(checkpoint, tmp_path / "out")
    assert words in raised.value.report()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_an_id_without_a_row_of_the_embedding_is_refused(tmp_path: Path) -> None:
    ids = tokenizers_of.made().get_vocab_size()
    tokenizers_of.made().save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokenizer_files(tmp_path / "tokenizer.json")
    for vocab in (ids - 1, ids):
        model = replace(LLAMA, vocab=vocab)
        checkpoint = save_run(tmp_path / f"run-{vocab}", model, weights(model))
        if vocab == ids:
            export(checkpoint, tmp_path / "out", tokenizer=tokenizer)
            continue
        with pytest.raises(ConfigError) as raised:
            export(checkpoint, tmp_path / "out", tokenizer=tokenizer)
        (problem,) = raised.value.problems
        assert (problem.key, problem.value) == ("model.vocab", vocab)
        assert f"{ids:,} ids" in problem.rule
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("hashes", [False, True])
def test_a_checkpoint_that_a_run_removes_meanwhile_is_named(
    hashes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the target, which can be written."""
    checkpoint = save_run(tmp_path / "run", LLAMA, weights(LLAMA))

    def removed(*_: object) -> bool:
        for file in (checkpoint / "model").glob("*.safetensors"):
            file.unlink()
        return False

    monkeypatch.setattr("trainer.pretrained.export.refuse_other_tensors", removed)
    with pytest.raises(CheckpointError, match="No such file"):
        export(checkpoint, tmp_path / "out", hashes=hashes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def full(path: Path) -> str:
    (path / "full").mkdir()
    (path / "full" / "notes.txt").touch()
    return str(path / "full")


def a_file(path: Path) -> str:
    (path / "file").touch()
    return str(path / "file")


def circle(path: Path) -> str:
    (path / "one").symlink_to(path / "other")
    (path / "other").symlink_to(path / "one")
    return str(path / "one")


REFUSED: dict[str, tuple[Callable[[Path], tuple[str, str, str | None]], int, str]] = {
    "no such run": (lambda p: (str(p / "missing"), str(p / "out"), None), 3, "is a directory"),
    "a run without checkpoints": (lambda p: (str(p), str(p / "out"), None), 13, "has saved a checkpoint"),
    "a directory that holds something": (lambda p: (str(p / "run"), full(p), None), 3, "notes.txt"),
    "a file": (lambda p: (str(p / "run"), a_file(p), None), 3, "a file is there"),
    "below a file": (lambda p: (str(p / "run"), a_file(p) + "/out", None), 3, "Not a directory"),
    "inside a checkpoint": (
        lambda p: (str(p / "run"), str(p / "run/checkpoints/step-00000003/hf"), None),
        3,
        "inside a checkpoint",
    ),
    "among checkpoints": (
        lambda p: (str(p / "run"), str(p / "run/checkpoints/step-00000999"), None),
        3,
        "among checkpoints",
    ),
    "nobody's home": (lambda p: (str(p / "run"), "~nobody-of-this-name/out", None), 3, "nobody's"),
    "a name too long": (lambda p: (str(p / "run"), str(p / ("a" * 300)), None), 3, "File name too long"),
    "a run's name too long": (lambda p: (str(p / ("a" * 300)), str(p / "out"), None), 3, "is a directory"),
    "links in a circle": (lambda p: (str(p / "run"), circle(p), None), 3, "can be written"),
    "a size without end": (lambda p: (str(p / "run"), str(p / "out"), "9" * 400), 3, "a size, as 5GB"),
    "a size of nothing": (lambda p: (str(p / "run"), str(p / "out"), "0GB"), 3, "a size, as 5GB"),
    "a size in words": (lambda p: (str(p / "run"), str(p / "out"), "large"), 3, "a size, as 5GB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_command_is_one_problem_and_leaves_nothing_behind(case: str, tmp_path: Path) -> None:
    save_run(tmp_path / "run", LLAMA, weights(LLAMA))
    make, code, words = REFUSED[case]
    run, target, size = make(tmp_path)
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(RunError) as raised:
        list(export_hf(run, target, None, size))
    assert (len(raised.value.problems), int(raised.value.code)) == (1, code)
    assert words in raised.value.report()
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_the_command_says_what_it_did_and_ends_with_a_code(tmp_path: Path) -> None:
    save_run(tmp_path / "run", LLAMA, weights(LLAMA), (2, 2))

    def command(*arguments: str) -> tuple[int, str]:
        script = [sys.executable, str(harness.ROOT / "scripts" / "export_hf.py"), *arguments]
        done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    code, said = command("run", "out", "--dtype", "bfloat16", "--shard-size", "5kB")
    assert code == 0, said
    assert "parameters in bfloat16, from float32" in said
    assert "no tokenizer" in said
    code, said = command("run", "out")
    assert code == 3
    assert "config.json" in said
    assert "Traceback" not in said
    assert command("run", "out2", "--dtype", "int8")[0] == 3
    code, said = command("run", "out3", "--adapter", "--dtype", "bfloat16", "--int8")
    assert code == 3
    assert "2 problems" in said, "--dtype and --int8 would be passed over"
    assert not (tmp_path / "out3").exists()


def test_an_empty_directory_is_taken_and_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    checkpoint = save_run(tmp_path / "run", LLAMA, weights(LLAMA))
    (tmp_path / "out").mkdir()
    leftover = tmp_path / f".out{SUFFIX}"
    (leftover / "deep").mkdir(parents=True)
    (leftover / "model.safetensors").touch()
    export(checkpoint, tmp_path / "out")
    assert not leftover.exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_two_exports_into_one_directory_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_directory(target) as directory:
        (directory / "mine").touch()
        clear_abandoned(tmp_path)  # leaves alone what goes on
        with pytest.raises(ConfigError, match="no other export"), new_directory(target):
            pass
        assert (directory / "mine").exists()
    assert (target / "mine").exists()
    (tmp_path / f".other{SUFFIX}").mkdir()
    clear_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_sizes() -> None:
    sizes = {"5GB": 5 * 10**9, "500mb": 5 * 10**8, "4GiB": 4 << 30, "1.5 GB": 1500 * 10**6, "77": 77}
    assert {text: parse_size(text) for text in sizes} == sizes
    assert [parse_size(text) for text in ("", "GB", "-1GB", "5TB", "5 GB more", "nan")] == [None] * 6
