"""What model.init_from refuses of a directory: one problem, its rule and its remedy, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import bad_adapters, directories, harness
from tests.bad_directories import CASES, EMBED, HEAD, TENSORS
from trainer.errors import ConfigError, ExitCode, Problem
from trainer.pretrained.source import open_source


def problem_of(path: Path) -> Problem:
    with pytest.raises(ConfigError) as raised:
        open_source(str(path))
    (problem,) = raised.value.problems
    assert raised.value.code == ExitCode.CONFIG
    return problem


@pytest.mark.parametrize("case", CASES)
def test_a_bad_directory_is_refused_by_name(case: str, tmp_path: Path) -> None:
    change, rule, remedy = CASES[case]
    directories.write(tmp_path / "model")
    change(tmp_path / "model")
    problem = problem_of(tmp_path / "model")
    assert problem.key == "model.init_from"
    assert problem.value == str(tmp_path / "model")
    assert rule in problem.rule
    assert remedy in problem.remedy
    assert problem.remedy
    for line in (problem.rule, problem.remedy):
        assert "\n" not in line
        assert len(line) < 700


@pytest.mark.parametrize(
    ("given", "rule", "remedy"),
    [
        ("meta-llama/Llama-3.2-1B", "does not exist", "hf download meta-llama/Llama-3.2-1B"),
        ("models/Llama-3.2-1B", "does not exist", "hf download OWNER/Llama-3.2-1B --local-dir models/Llama-3.2-1B"),
        ("./nowhere", "does not exist", "correct the path"),
        ("model/model.safetensors", "it is a file", "name the directory that it is in: model"),
        ("empty", "it has neither", "save_pretrained"),
        ("cache", "it has neither", "such as cache/snapshots/1a2b"),
        ("adapter", "it holds an adapter, which is no model", "adapter.init_from=adapter"),
        ("run", "it has no checkpoint yet", "first save"),
    ],
)
def test_what_is_no_directory_of_a_model(
    given: str, rule: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directories.write(Path("model"))
    directories.write(Path("cache/snapshots/1a2b"))
    Path("empty").mkdir()
    bad_adapters.write(Path("adapter"))
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/config.yaml").write_text("seed: 1\n")
    problem = problem_of(Path(given))
    assert rule in problem.rule
    assert remedy in problem.remedy


def test_what_is_sound_is_taken(tmp_path: Path) -> None:
    """Shards; links as the hub's cache has them; ignored buffers; an equal tied pair; code, which is not executed."""
    model = tmp_path / "model"
    tensors = dict(TENSORS) | {
        HEAD: TENSORS[EMBED].clone(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2),
    }
    auto_map = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    directories.write(model, {**directories.CONFIG, "tie_word_embeddings": True, "auto_map": auto_map}, tensors)
    (model / "modeling_evil.py").write_text("raise SystemExit('executed')")
    directories.write_shards(model, tensors, 3)
    snapshot, blobs = tmp_path / "snapshots" / "0", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    source = open_source(str(snapshot))
    assert source.model.tied
    assert source.model.vocab == 40
    assert HEAD not in (source.directory.tensors if source.directory else ())
    assert source.notes == ("code in the directory (auto_map) is not executed: it is read as LlamaForCausalLM",)


def test_no_torch_is_imported_and_nothing_allocated(tmp_path: Path) -> None:
    directories.write(tmp_path)
    program = (
        "import sys; from trainer.pretrained.source import open_source, fingerprint; from pathlib import Path;"
        f"open_source({str(tmp_path)!r}); fingerprint(Path({str(tmp_path)!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=harness.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("case", ["pickled", "an unequal tied pair"])
def test_the_command_ends_with_code_3(case: str, tmp_path: Path) -> None:
    directories.write(tmp_path / "model")
    CASES[case][0](tmp_path / "model")
    for script, *arguments in (("train.py", "recipe=tiny", "model.init_from=model"), ("import_hf.py", "model", "to")):
        line = [sys.executable, str(harness.ROOT / "scripts" / script), *arguments]
        done = subprocess.run(
            line, cwd=tmp_path, env=harness.environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 3, done.stderr
        assert CASES[case][1] in done.stderr
        assert "1 problem" in done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
