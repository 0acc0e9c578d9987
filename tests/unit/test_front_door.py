"""The command line as a user meets it: real processes, exit codes, messages without traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests import harness
from trainer.commands import entry
from trainer.config.compose import to_config
from trainer.config.homes import at_home


def run(cwd: Path, *overrides: str, world: int = 1, rank: int = 0) -> harness.Finished:
    variables = (
        {"WORLD_SIZE": str(world), "RANK": str(rank), "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
        if world > 1
        else {}
    )
    done = subprocess.run(
        [sys.executable, str(harness.ROOT / "scripts" / "train.py"), *overrides],
        cwd=cwd,
        env={**harness.environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return harness.Finished(done.returncode, done.stdout)


def test_without_a_recipe_the_recipes_are_listed(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.code == 3
    for path in (harness.ROOT / "conf" / "recipe").glob("*.yaml"):
        assert f"recipe={path.stem}" in done.output
    assert not list(tmp_path.iterdir()), "nothing may be written"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["recipe=tinny"], ["recipe = 'tinny'", "did you mean recipe=tiny?"]),
        (["recipe=tiny", "optim.lrr=3"], ["optim.lrr", "did you mean optim.lr?"]),
        (["recipe=tiny", "+optim.lrr=3"], ["optim.lrr", "did you mean optim.lr?"]),
        (["recipe=tiny", "lr=3"], ["did you mean optim.lr?"]),
        (["recipe=tiny", "data.seq_length=5"], ["did you mean data.seq_len?"]),
        (["recipe=tiny", "optim.lr=fast"], ["optim.lr = 'fast'", "float"]),
        (["recipe=tiny", "schedule=wds"], ["did you mean schedule=wsd?"]),
        (["recipe=tiny", "nosuchgroup=1"], ["nosuchgroup"]),
        (["recipe=tiny", "data.sources=[{kid: 3}]"], ["did you mean data.sources.0.kind?"]),
        (["recipe=tiny", "data.sources=[{paths: 3}]"], ["data.sources.0.paths"]),
        (["recipe=tiny", "optim.lr=["], ["key=value"]),
        (["recipe=tiny", "train.microbatch=2.5"], ["train.microbatch"]),
        (["recipe=tiny", "a=1", "b=2", "optim.lr=x"], ["3 problems", "1. a", "2. b", "3. optim.lr"]),
        (["recipe=null"], ["recipe"]),
        (["recipe=tiny", "optim=null"], ["optim", "adamw"]),
        (["recipe=tiny", "optim.lr=???"], ["optim.lr", "still to be given"]),
        (["recipe=tiny", 'model.frozen=["???"]'], ["model.frozen", "still to be given"]),
        (["recipe=tiny", "train.steps=1,2"], ["train.steps", "--multirun"]),
        (["recipe=tiny", "resume.allow=optim.lr"], ["write resume.allow=[optim.lr]"]),
        (["recipe=deepseek7b"], ["--nproc_per_node 32", "trn1.32xlarge", "recipe=tiny"]),
    ],
)
def test_mistakes_are_answered_with_their_remedy(tmp_path: Path, overrides: list[str], expected: list[str]) -> None:
    done = run(tmp_path, *overrides)
    assert done.code == 3
    for words in expected:
        assert words in done.output
    assert "Traceback" not in done.output
    assert "rule:" in done.output
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.name == "exit.json" for path in written), "nothing else may be written"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["run.root=~/runs"], """'run.root="~/runs"'"""),
        (["run.root=s3://bucket/runs"], "a local or mounted directory"),
        (["run.root='~nobody-of-this-name/runs'"], "the home of a user"),
        (["run.name=a=b"], """'run.name="a=b"'"""),
        (["run.name=a/b"], "plain directory name"),
        (["run.name=c10", "optim.lrr=1"], "did you mean optim.lr?"),
        (["run.name=c10", "--nope"], "usage:"),
    ],
)
def test_a_refused_root_or_command_line_leaves_nothing(tmp_path: Path, overrides: list[str], words: str) -> None:
    done = run(tmp_path, "recipe=tiny", *overrides)
    assert done.code == 3
    assert words in done.output
    assert not list(tmp_path.iterdir())


def test_a_refused_command_line_is_on_record_where_the_run_is(tmp_path: Path) -> None:
    (tmp_path / "runs" / "c10").mkdir(parents=True)
    assert run(tmp_path, "recipe=tiny", "run.name=c10", "optim.lrr=1").code == 3
    assert [path.name for path in (tmp_path / "runs" / "c10").iterdir()] == ["exit.json"]


def test_a_tilde_is_the_home_wherever_a_path_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's root, the cache, sources and the tokenizer; the run's directory is there."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    given = ["run.root='~/runs'", "data.cache_dir='~/cache'", "data.sources=[{paths: ['~/text/*.txt']}]"]
    entry.register_schema()
    with initialize_config_dir(str(harness.ROOT / "conf"), version_base="1.3"):
        config = at_home(to_config(compose("train", [*given, "data.tokenizer={kind: file, path: '~/t'}"])))
    home = str(tmp_path / "home")
    assert (config.run.root, config.data.cache_dir) == (f"{home}/runs", f"{home}/cache")
    assert (config.data.sources[0].paths, config.data.tokenizer.path) == ([f"{home}/text/*.txt"], f"{home}/t")
    refused = run(tmp_path, "recipe=tiny", "run.root='~/runs'", "optim.lr=-1")
    assert refused.code == 3
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("exit.json")] == ["home/runs/tiny/exit.json"]


def test_a_swept_key_is_checked_too(tmp_path: Path) -> None:
    done = run(tmp_path, "recipe=tiny", "-m", "model.hiden=32,64")
    assert done.code == 3
    assert "did you mean model.hidden?" in done.output


def test_other_ranks_say_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "recipe=tiny", "optim.lr=-1", "model.heads=3", world=2, rank=1)
    assert done.code == 3
    assert done.output.startswith("rank 1: ")
    assert len(done.output.splitlines()) == 1


def test_wrong_keys_inside_a_users_own_recipe_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "mine" / "recipe").mkdir(parents=True)
    (tmp_path / "mine" / "recipe" / "own.yaml").write_text(
        "# @package _global_\n# Mine.\ndefaults:\n  - override /schedule: wsdd\n"
        "recipe: own\noptim: {lrr: 1e-3}\ntrain: {stepz: 5}\n"
    )
    done = run(tmp_path, "--config-dir", str(tmp_path / "mine"), "recipe=own")
    assert done.code == 3
    for words in ("schedule (in", "optim.lrr (in", "train.stepz (in", "did you mean train.steps?"):
        assert words in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "words"),
    [("seq_len: [", "valid YAML"), ("optim: {lr: 1e-3}\n", "# @package _global_"), ("", "# @package _global_")],
)
def test_a_users_broken_recipe_is_explained(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine" / "recipe").mkdir(parents=True)
    (tmp_path / "mine" / "recipe" / "own.yaml").write_text(text)
    done = run(tmp_path, f"--config-dir={tmp_path / 'mine'}", "recipe=own")
    assert done.code == 3, done.output
    assert words in done.output
    assert "Traceback" not in done.output


def test_a_users_recipe_needs_no_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine" / "recipe").mkdir(parents=True)
    (tmp_path / "mine" / "recipe" / "own.yaml").write_text("# @package _global_\n# My recipe.\noptim: {lr: -1.0}\n")
    done = run(tmp_path, f"--config-dir={tmp_path / 'mine'}", "recipe=own")
    assert "optim.lr = -1.0" in done.output


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "abc"},
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"WORLD_SIZE": "0"},
        {"RANK": "5"},
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"},
    ],
)
def test_leftovers_of_another_launcher_are_named(tmp_path: Path, variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, str(harness.ROOT / "scripts" / "train.py"), "recipe=tiny"],
        cwd=tmp_path,
        env={**harness.environment(), **variables},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "unset WORLD_SIZE" in done.stderr


def test_cfg_and_help_work_as_a_hydra_user_expects(tmp_path: Path) -> None:
    done = run(tmp_path, "recipe=deepseek7b", "--cfg", "job")
    assert done.code == 0
    assert "hidden: 4096" in done.output
    assert "factor: 0.316" in done.output
    done = run(tmp_path, "--help")
    assert done.code == 0
    assert "recipe: deepseek67b, deepseek67b_lora, deepseek7b" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "mixed",
    [
        ["recipe=tiny", "--cfg", "job", "optim.lr=5e-4"],
        ["--cfg", "job", "recipe=tiny", "optim.lr=5e-4"],
        ["recipe=tiny", "optim.lr=5e-4", "--cfg=job"],
    ],
)
def test_flags_may_stand_anywhere(tmp_path: Path, mixed: list[str]) -> None:
    done = run(tmp_path, *mixed)
    assert done.code == 0, done.output
    assert "lr: 0.0005" in done.output


def test_an_unknown_flag_exits_3_with_the_usage(tmp_path: Path) -> None:
    done = run(tmp_path, "recipe=tiny", "--nope")
    assert done.code == 3
    assert "usage:" in done.output


def test_validation_needs_no_torch(tmp_path: Path) -> None:
    """A mistake is answered in a second because torch, datasets and numpy are not imported for it."""
    code = (
        "import sys; sys.argv = ['train.py', 'recipe=tiny', 'optim.lr=-1']; import runpy\n"
        "try: runpy.run_path(sys.argv.pop() and path, run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 3, e.code\n"
        "heavy = {'torch', 'numpy', 'datasets', 'tokenizers', 'torch_xla'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    ).replace("sys.argv.pop() and path", repr(str(harness.ROOT / "scripts" / "train.py")))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_a_rehearsal_prints_and_leaves_nothing(tmp_path: Path) -> None:
    overrides = [
        "recipe=tiny",
        "backend=fake",
        "rehearsal.world=2",
        "parallel.tp=2",
        "model.layers=1",
        "data.seq_len=64",
    ]
    done = run(tmp_path, *overrides)
    assert done.code == 0, done.output
    assert "rank 0 of 2 (tp 0 of 2): one step, 16 microbatches, scaled from 2 and 3" in done.output
    for words in ("peak activations", "all_reduce", "FLOPs a step", "fits (estimated)", "+ scores 0.0"):
        assert words in done.output
    assert "trn1: refuses" not in done.output
    warned = run(tmp_path, *overrides, "parallel.zero=0", "rehearsal.world=4", "parallel.tp=4")
    assert warned.code == 0
    assert "trn1: refuses this configuration: 2 problems" in warned.output
    assert "parallel.tp = 4" in warned.output
    assert "number of processes = 4" in warned.output
    refused = run(tmp_path, *overrides, "rehearsal.rank=2")
    assert refused.code == 3
    assert "rehearsal.rank = 2" in refused.output
    assert not list(tmp_path.iterdir())
