"""A base that is named: what a checkpoint says of it, what is refused, and weights that adapters are merged into."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import adapted, directories
from trainer.checkpoint.base import Base, without
from trainer.checkpoint.hashed_file import Written
from trainer.checkpoint.names import MANIFEST
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.strict_json import Unsound
from trainer.commands.export_hf import export_adapter
from trainer.config.groups.adapter import AdapterConfig
from trainer.errors import ConfigError
from trainer.parallel.boxes import Box, Placed, Store, whole_box
from trainer.pretrained.base import hashed, named, verify_base
from trainer.pretrained.composed import Composed
from trainer.pretrained.source import open_source
from trainer.pretrained.weights import weights_of

FILE = Written(3, "ab" * 32)
LORA = AdapterConfig(kind="lora", rank=3, alpha=6)


def state(**base: Any) -> dict[str, Any]:
    """As state.json has it."""
    said = {"path": "model", "files": {"config.json": {"size": 3, "sha256": "ab" * 32}}} | base
    return TrainState(step=1).to_json() | {"base": {key: value for key, value in said.items() if value is not None}}


def test_it_comes_back_as_it_was_said() -> None:
    for base in (None, Base("model", {"config.json": FILE}), Base("a/step-00000002", {MANIFEST: FILE}, "a", 2)):
        made = TrainState(step=1, base=base)
        written = json.loads(json.dumps(made.to_json()))
        assert ("base" in written) == (base is not None), "a checkpoint without one is as it was"
        assert TrainState.from_json(written, made.data_json()) == made


@pytest.mark.parametrize(
    "base",
    [
        {"path": ""},
        {"path": 3},
        {"path": "a\0b"},
        {"files": {}},
        {"files": None},
        {"files": {"../config.json": {"size": 3, "sha256": "ab" * 32}}},
        {"files": {"config.json": {"size": -1, "sha256": "ab" * 32}}},
        {"files": {"config.json": {"size": 3, "sha256": "AB" * 32}}},
        {"files": {"config.json": 3}},
        {"run": "a", "step": 2},
        {"run": 3},
    ],
)
def test_a_crafted_state_is_unsound(base: dict[str, Any]) -> None:
    with pytest.raises(Unsound):
        TrainState.from_json(state(**base), TrainState().data_json())


def test_a_store_without_the_bases_weights_keeps_the_moments() -> None:
    placed = Placed(torch.zeros(1), (whole_box("a", (1,)),), (1,))
    store = Store({"a": placed, "b": placed}, {"exp_avg.a": placed})
    assert without(store, {"b"}) == Store({"a": placed}, {"exp_avg.a": placed})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with adapters of everything beside a directory."""
    monkeypatch.chdir(tmp_path)
    base = Path("base")
    directories.write(base)
    paths = [*adapted.linears(base), "model.embed_tokens", "lm_head"]
    adapted.save(Path("run"), base, LORA, adapted.draw(base, LORA, paths))
    return Path("run")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda base: (base / "model.safetensors").rename(base / "x"), "holds model.safetensors"),
        (lambda base: (base / "config.json").write_text((base / "config.json").read_text() + " "), "bytes instead of"),
        (lambda base: base.rename("elsewhere"), "is there"),
    ],
)
def test_a_base_that_is_another_is_told_from_headers_alone(run: Path, change: Any, told: str) -> None:
    change(Path("base"))
    with pytest.raises(ConfigError, match=told) as raised:
        open_source(str(run), None, "--base says")
    assert len(raised.value.problems) == 1


def test_peft_is_told_where_the_base_is_now(run: Path) -> None:
    Path("base").rename("elsewhere")
    list(export_adapter("run", "out", "elsewhere"))
    assert json.loads(Path("out/adapter_config.json").read_text())["base_model_name_or_path"] == "elsewhere"
    directories.write(Path("other"), directories.CONFIG | {"rope_theta": 77.0})
    with pytest.raises(ConfigError, match=r"config\.json has"):
        list(export_adapter("run", "out2", "other"))
    assert not Path("out2").exists()


def test_options_about_weights_are_refused_beside_an_adapter(run: Path) -> None:
    others = {"--dtype": "bfloat16", "--shard-size": None, "--int8": "all"}
    with pytest.raises(ConfigError, match="not said together with --adapter") as raised:
        list(export_adapter("run", "out", None, others))
    assert [one.key for one in raised.value.problems] == ["--dtype", "--int8"]
    assert not Path("out").exists()


@pytest.mark.parametrize("base", ["base/config.json", "empty", "run", "x" * 300, "base/config.json/x"])
def test_a_base_that_the_command_line_names_is_told_by_its_option(run: Path, base: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(ConfigError) as raised:
        open_source(str(run), base, "--base says")
    assert [(problem.key, problem.value) for problem in raised.value.problems] == [("--base", base)]


def test_one_bit_of_a_base_is_told_by_its_hash(run: Path) -> None:
    source = open_source(str(run))
    verify_base(source)
    data = bytearray(Path("base/model.safetensors").read_bytes())
    data[-1] ^= 1
    Path("base/model.safetensors").write_bytes(data)
    assert open_source(str(run)).base is not None
    with pytest.raises(ConfigError, match=r"model\.safetensors has another SHA-256"):
        verify_base(source)
    told = 0
    for rank in range(2):  # of two ranks one has the file
        try:
            verify_base(source, rank, 2)
        except ConfigError:
            told += 1
    assert told == 1


def test_a_base_may_be_a_run_that_stands_on_another(run: Path) -> None:
    """A chain: the run's own adapters are merged first."""
    source = open_source(str(run))
    middle = open_source(str(source.path))
    second = adapted.save(Path("second"), source.path, LORA, adapted.draw(Path("base"), LORA, ["lm_head"], seed=1))
    top = open_source(str(second))
    assert top.named is not None
    assert (top.named.run, top.named.step) == ("run", 3)
    verify_base(top)
    name, shape = "model.layers.0.mlp.up_proj.weight", (24, 16)
    below = weights_of(middle, 40)(whole_box(name, shape))
    assert torch.equal(weights_of(top, 40)(whole_box(name, shape)), below)
    assert not torch.equal(load_file("base/model.safetensors")[name], below)
    Path("base").rename("elsewhere")
    with pytest.raises(ConfigError, match="put it back, or a link to it, at base"):
        open_source(str(second))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_every_box_of_merged_weights_is_cut_from_the_same_values(
    tmp_path: Path, dora: bool, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitwise, whatever layout asks, over several blocks of rows; the values by the formula in FP64."""
    monkeypatch.setattr("trainer.pretrained.merge.BLOCK_ROWS", 7)
    base, config = tmp_path / "base", replace(LORA, dora=dora)
    tensors = directories.write(base, directories.CONFIG | {"tie_word_embeddings": tied})
    parts = adapted.draw(base, config, [*adapted.linears(base), "model.embed_tokens", "lm_head"])
    source = open_source(str(adapted.save(tmp_path / "run", base, config, parts)))
    assert not source.model.tied
    whole, draw = Composed(source), random.Random(1)
    for name, entry in whole.index.items():
        values = torch.empty(entry.shape)
        whole.read(name, [0] * len(entry.shape), values)
        torch.testing.assert_close(values.double(), _expected(name, tensors, parts, dora), rtol=1e-6, atol=1e-6)
        for _ in range(4):
            low = [draw.randrange(size) for size in entry.shape]
            sizes = tuple(draw.randint(1, size - first) for first, size in zip(low, entry.shape, strict=True))
            local = tuple(slice(0, size) for size in sizes)
            part = weights_of(source, 40)(Box(name, entry.shape, tuple(low), sizes, local))
            cut = tuple(slice(first, first + size) for first, size in zip(low, sizes, strict=True))
            assert torch.equal(part.float(), values[cut]), name


def _expected(name: str, base: dict[str, torch.Tensor], parts: dict[str, torch.Tensor], dora: bool) -> torch.Tensor:
    path = name.removesuffix(".weight")
    weight = base[name if name in base else "model.embed_tokens.weight"].double()
    own = {key.removeprefix(f"{path}."): one.double() for key, one in parts.items() if key.startswith(f"{path}.lora")}
    if not own:
        return weight
    table = "lora_embedding_A" in own
    a, b = (own[key] for key in (("lora_embedding_A", "lora_embedding_B") if table else ("lora_A", "lora_B")))
    summed = weight + 2 * ((b @ a).t() if table else b @ a)
    if not dora:
        return summed
    lengths = summed.norm(dim=0, keepdim=True) if table else summed.norm(dim=1, keepdim=True)
    magnitudes = own["lora_magnitude_vector"]
    return (magnitudes if table else magnitudes.unsqueeze(1)) * summed / lengths


def test_the_files_of_a_base_are_shared_over_processes(run: Path) -> None:
    source = open_source("base")
    shares = [hashed(source, rank, 2) for rank in range(2)]
    assert sorted(name for share in shares for name in share) == ["config.json", "model.safetensors"]
    assert named(source, shares[0] | shares[1]) == open_source(str(run)).named


def test_bases_that_stand_on_each_other_in_a_circle_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crafted: sizes are right, and the hash that would tell is looked at only once all is open."""
    monkeypatch.setattr("trainer.pretrained.source.DEEPEST", 3)
    source = open_source(str(run))
    second = adapted.save(Path("second"), source.path, LORA, adapted.draw(Path("base"), LORA, ["lm_head"], seed=1))
    state = json.loads((source.path / "state.json").read_text())
    state["base"] = named(open_source(str(second)), hashed(open_source(str(second)))).to_json()
    (source.path / "state.json").write_text(json.dumps(state))
    manifest = json.loads((source.path / MANIFEST).read_text())
    manifest["files"]["state.json"]["size"] = (source.path / "state.json").stat().st_size
    (source.path / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    state = json.loads((second / "state.json").read_text())
    state["base"]["files"][MANIFEST]["size"] = (source.path / MANIFEST).stat().st_size
    (second / "state.json").write_text(json.dumps(state, indent=2) + "\n")
    with pytest.raises(ConfigError, match="or in a circle"):
        open_source(str(run))
