"""GGUF in: every type bitwise, rows permuted by architecture, dimensions from the metadata; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from tests import ggufs, harness, smollm2
from trainer.commands.import_hf import import_directory
from trainer.errors import ConfigError, ExitCode
from trainer.parallel.boxes import Box, whole_box
from trainer.pretrained import gguf_weights
from trainer.pretrained.gguf import shortest
from trainer.pretrained.gguf_header import read_header
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.source import Source, fingerprint, open_source
from trainer.pretrained.weights import Read, weights_of

EMBED, DOWN = "model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"


def opened(path: Path) -> tuple[Source, Read]:
    source = open_source(str(path))
    return source, weights_of(source, source.model.vocab)


def bits(values: torch.Tensor | np.ndarray) -> np.ndarray:
    """NaN, which random bytes may mean, is equal to itself like this."""
    return np.ascontiguousarray(np.asarray(values)).view(np.uint32)


@pytest.mark.parametrize("kind", ggufs.KINDS, ids=lambda kind: kind.name)
def test_every_type_is_dequantised_bitwise(
    kind: gguf.GGMLQuantizationType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and in parts that begin within a block."""
    monkeypatch.setattr(gguf_weights, "ELEMENTS", 2000)
    with np.errstate(all="ignore"):
        values = ggufs.write(tmp_path / "x.gguf", kind=kind)
        source, read = opened(tmp_path / "x.gguf")
        for name, theirs in ((EMBED, "token_embd.weight"), (DOWN, "blk.1.ffn_down.weight")):
            shape = parameter_shapes(source.model)[name]
            assert np.array_equal(bits(read(whole_box(name, shape))), bits(values[theirs]))
            part = (slice(5, 5 + shape[0] // 2), slice(37, 37 + shape[1] // 2))
            box = Box(name, shape, (5, 37), (shape[0] // 2, shape[1] // 2), part)
            assert np.array_equal(bits(read(box)), bits(values[theirs][part]))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ggufs.HEAD)
def test_the_model_is_transformers(architecture: str, tied: bool, tmp_path: Path) -> None:
    """Its reader of the same file: every tensor, and the dimensions in its config.json."""
    transformers = pytest.importorskip("transformers")
    ggufs.write(tmp_path / "x.gguf", architecture, gguf.GGMLQuantizationType.Q8_0, tied)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="x.gguf", dtype=torch.float32)
    same_model(tmp_path / "x.gguf", theirs)


@pytest.mark.slow
@pytest.mark.long
def test_the_real_one_is_transformers() -> None:
    """SmolLM2-135M in Q4_1 and Q8_0."""
    transformers = pytest.importorskip("transformers")
    file = smollm2.gguf_file()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    same_model(file, theirs)


def same_model(file: Path, theirs: Any) -> None:
    source, read = opened(file)
    config, model, state = theirs.config, source.model, theirs.state_dict()
    assert model.family == config.model_type
    assert (model.hidden, model.layers, model.mlp) == (
        config.hidden_size,
        config.num_hidden_layers,
        config.intermediate_size,
    )
    assert (model.heads, model.kv_heads, model.vocab) == (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size,
    )
    assert (model.tied, model.max_positions) == (config.tie_word_embeddings, config.max_position_embeddings)
    assert (model.rope_theta, model.norm_eps) == (config.rope_parameters["rope_theta"], 1e-5)
    shapes = parameter_shapes(model)
    assert state.keys() - shapes.keys() <= {"lm_head.weight"}
    for name, shape in shapes.items():
        assert torch.equal(read(whole_box(name, shape)), state[name]), name


def test_a_rank_reads_its_rows_of_permuted_heads(tmp_path: Path) -> None:
    ggufs.write(tmp_path / "x.gguf")
    source, read = opened(tmp_path / "x.gguf")
    name = "model.layers.0.self_attn.q_proj.weight"
    shape = parameter_shapes(source.model)[name]
    whole = read(whole_box(name, shape))
    part = (slice(100, 300), slice(3, 200))
    assert torch.equal(read(Box(name, shape, (100, 3), (200, 197), part)), whole[part])


@pytest.mark.parametrize("value", [1e-5, 1e-6, 10000.0, 500000.0, 8.0, 1.25e-05, 1e6])
def test_the_shortest_decimal(value: float) -> None:
    assert shortest(float(np.float32(value))) == value


def test_llama_3s_factors_and_linear_scaling(tmp_path: Path) -> None:
    """The factors as llama.cpp's converter writes them (conversion of LlamaForCausalLM: generate_extra_tensors)."""
    frequencies = 1.0 / (500000.0 ** (torch.arange(0, 128, 2, dtype=torch.float32) / 128))
    factors = []
    for frequency in frequencies:
        length = 2 * np.pi / frequency
        smooth = (8192 / length - 1.0) / (4.0 - 1.0)
        middle = 1 / ((1 - smooth) / 32.0 + smooth)
        factors.append(1.0 if length < 8192 / 4.0 else 32.0 if length > 8192 / 1.0 else float(middle))
    extra = {"rope_freqs.weight": np.array(factors, dtype=np.float32)}
    ggufs.write(tmp_path / "x.gguf", extra=extra)
    scaling = open_source(str(tmp_path / "x.gguf")).model.rope_scaling
    assert (scaling.kind, scaling.factor, scaling.original_max_positions) == ("llama3", 32.0, 8192)
    assert (scaling.low_freq_factor, scaling.high_freq_factor) == (1.0, 4.0)
    extra["rope_freqs.weight"][40] *= 1.5
    ggufs.write(tmp_path / "y.gguf", extra=extra)
    with pytest.raises(ConfigError, match="they are others"):
        open_source(str(tmp_path / "y.gguf"))
    ggufs.write(tmp_path / "z.gguf", change={"rope.scaling.type": "linear", "rope.scaling.factor": 2.5})
    scaling = open_source(str(tmp_path / "z.gguf")).model.rope_scaling
    assert (scaling.kind, scaling.factor) == ("linear", 2.5)


def patch(at: int, data: bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        ggufs.write(path)
        whole = bytearray(path.read_bytes())
        whole[at : at + len(data)] = data
        path.write_bytes(whole)

    return write


def cut(size: int) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        ggufs.write(path)
        with open(path, "r+b") as file:
            file.truncate(size if size >= 0 else path.stat().st_size + size)

    return write


def other_type(path: Path) -> None:
    """Of output_norm.weight: a number that no type has."""
    ggufs.write(path)
    whole = bytearray(path.read_bytes())
    at = whole.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    whole[at : at + 4] = (999).to_bytes(4, "little")
    path.write_bytes(whole)


def with_(**given: Any) -> Callable[[Path], object]:
    return lambda path: ggufs.write(path, **given)


REFUSED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "cut in its tensors": (cut(-40), "ends at byte", "again"),
    "cut in its header": (cut(300), "goes on past its end", "again"),
    "empty": (cut(0), "0 bytes", "again"),
    "no GGUF": (patch(0, b"GGML"), "does not begin with GGUF", "again"),
    "version 1": (patch(4, (1).to_bytes(4, "little")), "version 1", "again"),
    "version 9": (patch(4, (9).to_bytes(4, "little")), "version 9", "again"),
    "big-endian": (with_(endianess=gguf.GGUFEndian.BIG), "big-endian", "again"),
    "endless": (patch(8, b"\xff" * 8), "tensors", "again"),
    "an unknown type": (other_type, "type 999, which is unknown", "again"),
    "integers": (with_(extra={"x": np.ones(8, dtype=np.int32)}), "type I32", "again"),
    "another architecture": (with_(name="gemma2"), "says 'gemma2'", "directory"),
    "experts": (with_(change={"expert_count": 8}), "llama.expert_count", "directory"),
    "a window": (with_(change={"attention.sliding_window": 64}), "sliding_window", "directory"),
    "another rope": (with_(change={"rope.scaling.type": "yarn"}), "yarn", "directory"),
    "half heads turned": (with_(change={"attention.key_length": 64}), "whole heads", "directory"),
    "no width": (with_(change={"embedding_length": None}), "llama.embedding_length", "again"),
    "no heads": (with_(change={"attention.head_count": 0}), "num_attention_heads", "directory"),
    "a tensor is missing": (with_(without="blk.1.ffn_up.weight"), "blk.1.ffn_up.weight is missing", "again"),
    "no embedding": (with_(without="token_embd.weight"), "token_embd.weight", "again"),
    "a tensor too many": (with_(extra={"blk.0.attn_q.bias": np.ones(512, np.float32)}), "attn_q.bias", "directory"),
    "another shape": (with_(change={"feed_forward_length": 256}), "is [256, 256] by its metadata", "again"),
    "another vocabulary": (with_(change={"vocab_size": 47}), "vocab_size rows, 47; it has 48", "again"),
    "layers without end": (with_(change={"block_count": 2**31}), "2,147,483,648 layers", "again"),
    "split by its metadata": (with_(change={"split.count": 2}), "a part of several", "merge"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, rule, remedy = REFUSED[case]
    make(tmp_path / "x.gguf")
    with pytest.raises(ConfigError) as raised:
        open_source(str(tmp_path / "x.gguf"))
    (problem,) = raised.value.problems
    assert raised.value.code == ExitCode.CONFIG
    assert (problem.key, problem.value) == ("model.init_from", str(tmp_path / "x.gguf"))
    assert rule in problem.rule
    assert remedy in problem.remedy
    assert len(problem.rule) < 700


def test_any_damage_of_a_header_is_a_problem_or_none(tmp_path: Path) -> None:
    """Bytes of the header are replaced at random: no exception but ConfigError, and no memory without end."""
    path = tmp_path / "x.gguf"
    extra = {"rope_freqs.weight": np.ones(64, dtype=np.float32)}
    ggufs.write(path, kind=gguf.GGMLQuantizationType.Q4_0, extra=extra)
    good = path.read_bytes()
    with open(path, "r+b") as file:
        size, random = read_header(path).size, np.random.default_rng(1)
        refusals: list[ConfigError] = []
        for _ in range(1200):
            at = int(random.integers(0, size))
            length = int(random.choice([1, 2, 4, 8]))
            file.seek(at)
            file.write(random.choice([bytes(random.bytes(length)), b"\xff" * length, b"\x00" * length]))
            file.flush()
            try:
                open_source(str(path))
            except ConfigError as error:
                refusals.append(error)
            file.seek(at)
            file.write(good[at : at + length])
    assert len(refusals) > 500
    assert all(len(error.problems) == 1 for error in refusals)


def test_a_split_file_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x-00001-of-00002.gguf"
    ggufs.write(path)
    with pytest.raises(ConfigError, match="merge"):
        open_source(str(path))


def test_an_import_holds_the_values_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    ggufs.write(path, kind=gguf.GGMLQuantizationType.Q4_0)
    lines = list(import_directory(str(path), str(tmp_path / "made")))
    assert any("its tokenizer is not read" in line for line in lines)
    source, read = opened(path)
    _, again = opened(tmp_path / "made")
    for name, shape in parameter_shapes(source.model).items():
        assert torch.equal(read(whole_box(name, shape)), again(whole_box(name, shape))), name
    before = fingerprint(path)
    later = weights_of(source, source.model.vocab)
    ggufs.write(path)
    assert fingerprint(path) != before
    with pytest.raises(ConfigError, match="is what it was"):
        later(whole_box(EMBED, parameter_shapes(source.model)[EMBED]))


def test_no_torch_at_configuration_time_and_the_command_ends_with_code_3(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    ggufs.write(path)
    program = (
        "import sys; from trainer.pretrained.source import open_source, fingerprint; from pathlib import Path;"
        f"open_source({str(path)!r}); fingerprint(Path({str(path)!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=harness.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    line = [sys.executable, str(harness.ROOT / "scripts" / "train.py"), "recipe=tiny", f"model.init_from={path}"]
    done = subprocess.run(line, cwd=tmp_path, env=harness.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "data.tokenizer.kind=file" in done.stderr
    assert "1 problem" in done.stderr
