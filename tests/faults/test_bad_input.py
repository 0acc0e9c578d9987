"""Bad input under scripts/launch.py: one report with its remedy, its code, no traceback, and nothing overwritten.

The launcher runs in this process, which has torch already; its workers are the real ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import bad_adapters, directories, harness
from tests.selection import in_ci
from trainer.commands.launch.launcher import launch
from trainer.run.signals import STOPPING

pytestmark = pytest.mark.slow

BASE = [*harness.SMALL, "precision=fp32", "data.sources=[{paths: [corpus]}]", "train.stop_after_steps=4"]
SECRET = "hf_neverwritethis"


class Bad(NamedTuple):
    """What is wrong, how a user may come to it, and what has to be answered."""

    overrides: list[str]
    words: str
    code: int = 3
    before: Callable[[Path], None] | None = None
    processes: int = 1


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Puts a file into the workspace."""

    def action(cwd: Path) -> None:
        (cwd / name).parent.mkdir(parents=True, exist_ok=True)
        (cwd / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return action


def damage(pattern: str) -> Callable[[Path], None]:
    """Replaces the content of files."""

    def action(cwd: Path) -> None:
        found = list(cwd.glob(pattern))
        assert found, pattern
        for path in found:
            path.write_bytes(b"x")

    return action


def data_set(cwd: Path) -> None:
    """A directory with a card and a split."""
    write("set/README.md", "---\nlicense: mit\n---\n")(cwd)
    write("set/train.jsonl", '{"text": "x"}\n')(cwd)


def adapter_of_another_kind(cwd: Path) -> None:
    """Beside a sound model."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 512}
    directories.write(cwd / "model", {**directories.CONFIG, **sizes})
    bad_adapters.write(cwd / "adapter", peft_type="IA3")


def sources(text: str) -> str:
    return f"data.sources=[{{{text}}}]"


TOKENIZER = "data.tokenizer.kind=file"
INDEXED = sources("kind: indexed, paths: [gone]")
WEIGHTS = "runs/done/checkpoints/*/model/*.safetensors"
CASES = {
    # the command line
    "unknown key": Bad(["optim.lrr=3"], "did you mean optim.lr?"),
    "unknown group": Bad(["nosuch=1"], "a key of the schema"),
    "word for a number": Bad(["optim.lr=fast"], "of type float"),
    "fraction for a count": Bad(["train.microbatch=2.5"], "of type int"),
    "unknown option": Bad(["schedule=wds"], "did you mean schedule=wsd?"),
    "unknown recipe": Bad(["recipe=tinny"], "did you mean recipe=tiny?"),
    "no option": Bad(["optim=null"], "adamw"),
    "unreadable override": Bad(["optim.lr=["], "key=value"),
    "value to be given": Bad(["optim.lr=???"], "still to be given"),
    "several values": Bad(["train.steps=1,2"], "--multirun"),
    "unknown key in a source": Bad([sources("kid: 3")], "did you mean data.sources.0.kind?"),
    # ranges
    "negative learning rate": Bad(["optim.lr=-1"], "above 0"),
    "learning rate not a number": Bad(["optim.lr=nan"], "finite"),
    "beta of one": Bad(["optim.beta2=1.0"], "beta < 1"),
    "no clipping norm": Bad(["optim.clip_norm=0"], "above 0"),
    "half and more held out": Bad(["data.heldout_fraction=0.9"], "between 0 and 0.5"),
    "unknown rotary scaling": Bad(["model.rope_scaling.kind=longrope"], "llama3"),
    "no grace": Bad(["reliability.grace_seconds=0"], "above 0"),
    # adapters
    "an adapter of another kind": Bad(
        ["model.init_from=model", "adapter=lora", "adapter.init_from=adapter"],
        "the adapter is LoRA, DoRA included; it says peft_type = 'IA3'",
        before=adapter_of_another_kind,
    ),
    # what has to divide or agree
    "heads and width": Bad(["model.heads=5"], "divides model.hidden"),
    "key-value heads": Bad(["model.kv_heads=3"], "divides model.heads"),
    "odd head": Bad(["model.head_dim=33"], "even"),
    "sequence too long": Bad(["data.seq_len=4096"], "model.max_positions"),
    "tokens of a step": Bad(["train.tokens_per_step=500"], "multiple of data.seq_len"),
    "microbatch": Bad(["train.microbatch=3"], "divides the 8 samples"),
    "two lengths": Bad(["train.tokens=1000"], "exactly one"),
    "warm-up too long": Bad(["schedule.warmup_steps=99"], "20 steps"),
    "name with a slash": Bad(["run.name=a/b"], "plain directory name"),
    "two sources of one name": Bad(["data.sources=[{paths: [corpus]}, {paths: [corpus]}]"], "unique"),
    "unknown key to allow": Bad(["resume.allow=[optim.lrr]"], "did you mean optim.lr?"),
    "a number without end": Bad(["optim.lr=" + "1" * 6000], "an override reads key=value"),
    "YAML in another encoding": Bad(
        ["--config-dir", "more", "recipe=latin"], "in UTF-8", 3, write("more/recipe/latin.yaml", b"# caf\xe9")
    ),
    # layout and machine
    "too few processes": Bad(["parallel.tp=2"], "--nproc_per_node 2"),
    "feed-forward that cannot be cut": Bad(["parallel.tp=2", "model.mlp=97"], "cuts the feed-forward", processes=2),
    "vocabulary that cannot be cut": Bad(["parallel.tp=2", "model.vocab=515"], "model.vocab=516", processes=2),
    "ZeRO 3 in a pipeline": Bad(["parallel.pp=2", "parallel.zero=3"], "parallel.zero=1", processes=2),
    "more stages than layers": Bad(["parallel.pp=3"], "every stage has a layer", processes=3),
    "no Trainium": Bad(["backend=neuron"], "needs Trainium"),
    "recipe for a node": Bad(["recipe=deepseek7b"], "torchrun --nproc_per_node 32"),
    "recipe for four nodes": Bad(["recipe=deepseek67b"], "--nnodes 4"),
    # data
    "missing files": Bad([sources("paths: [nothing/*.txt]")], "nothing", 4),
    "empty corpus": Bad([sources("paths: [empty.txt]")], "holds no text", 4, write("empty.txt", "")),
    "a picture": Bad([sources("paths: [p.txt]")], "binary", 4, write("p.txt", b"\x89PNG\0\0")),
    "another encoding": Bad([sources("paths: [l.txt]")], "UTF-8", 4, write("l.txt", "caf\xe9".encode("latin-1"))),
    "a pipe for a file": Bad([sources("paths: [p.txt]")], "no regular file", 4, lambda cwd: os.mkfifo(cwd / "p.txt")),
    "missing column": Bad([sources("paths: [c.jsonl]")], "no such column", 4, write("c.jsonl", '{"body": "x"}\n')),
    "broken JSON": Bad([sources("paths: [b.jsonl]")], "broken JSON (", 4, write("b.jsonl", '{"text": ')),
    "a line to stop at": Bad(
        [sources("paths: [b.jsonl]"), "data.bad_documents=stop"], "b.jsonl, line 2", 4,
        write("b.jsonl", '{"text": "x"}\n{"text": 7}\n')),
    "a suffix nobody knows": Bad([sources("paths: [b.weird]")], "the suffix .weird", 4, write("b.weird", "x")),
    "unknown format": Bad([sources("paths: [b], format: xml")], "one of: text, jsonl"),
    "unknown policy": Bad(["data.bad_documents=ignore"], "one of: skip, stop"),
    "a data set's card": Bad([sources("paths: [set]")], "kind: huggingface", 4, data_set),
    "a remote source": Bad([sources("paths: ['gs://bucket/x.txt']")], "remote paths are not read"),
    "a data set in S3": Bad([sources("kind: huggingface, paths: ['s3://bucket/x']")], "remote paths are not read"),
    "a remote cache": Bad(["data.cache_dir=s3://bucket/cache"], "a local or mounted directory"),
    "missing index": Bad([INDEXED, TOKENIZER, "data.tokenizer.path=t.json"], "gone", 4, write("t.json", "{}")),
    "tokenizer not named": Bad([TOKENIZER], "data.tokenizer.path"),
    "tokenizer missing": Bad([TOKENIZER, "data.tokenizer.path=no.json"], "no.json", 4),
    "tokenizer unreadable": Bad([TOKENIZER, "data.tokenizer.path=t.json"], "t.json", 4, write("t.json", "{]")),
    # the run's directory
    "no directory can be made": Bad(["run.root=corpus/000-assert.txt/x"], "run.root"),
    "changed learning rate": Bad(["run.name=done", "optim.lr=5e-4"], "resume.allow=[optim.lr]"),
    "changed precision": Bad(["run.name=done", "precision=bf16", "precision.cpu_fallback=null"], "precision.mode"),
    "changed sequence": Bad(["run.name=done", "data.seq_len=128", "resume.allow=[data]"], "samples of that length"),
    "changed text": Bad(["run.name=done"], "other content", 3, write("corpus/zzz.txt", "new text " * 50)),
    "shorter than trained": Bad(["run.name=done", "train.steps=2", "schedule.warmup_steps=1",
                                 "resume.allow=[train.steps,schedule.warmup_steps]"], "4 steps"),
    "no checkpoint verifies": Bad(["run.name=done"], "verif", 13, damage(WEIGHTS)),
    "broken saved configuration": Bad(["run.name=done"], "config.yaml", 3, damage("runs/done/config.yaml")),
    # secrets, trackers, plug-ins, arithmetic
    "a secret in a value": Bad([f"run.name={SECRET}"], "holds no secret"),
    "W&B without account": Bad(["logging.wandb.mode=online"], "WANDB_API_KEY"),
    "plug-in that is nowhere": Bad(["optim.name=nowhere:Lion"], "PYTHONPATH"),
    "not finite": Bad(["optim.lr=1e38", "schedule.warmup_steps=0", "train.stop_after_steps=9"], "not finite", 11),
}  # fmt: skip


def test_the_table_is_large_enough() -> None:
    assert len(CASES) >= 40


IN_CI = {
    *("unknown key", "word for a number", "unknown option", "unreadable override", "several values"),
    *("negative learning rate", "heads and width", "two lengths"),
    *("name with a slash", "too few processes", "ZeRO 3 in a pipeline", "no Trainium", "recipe for four nodes"),
    *("missing files", "broken JSON", "changed learning rate", "changed text"),
    *("no checkpoint verifies", "a secret in a value", "plug-in that is nowhere", "not finite"),
}
"""A mistake or a few of each family; their variants are long."""
UNCOMPOSED = {
    *("unknown key", "unknown group", "word for a number", "fraction for a count", "unknown option", "unknown recipe"),
    *("no option", "unreadable override", "value to be given", "several values", "unknown key in a source"),
    *("a number without end", "YAML in another encoding", "an adapter of another kind"),
}
"""Cases without a configuration: there is no run that exit.json could be of."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a corpus, a cache and the run ``done``, stopped at step 4 of 20."""
    cwd = tmp_path_factory.mktemp("bad-input")
    harness.write_corpus(cwd / "corpus")
    finished = harness.train(cwd, [*BASE, "run.name=done"])
    assert finished.code == 0, finished.output
    return cwd


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, as the current directory, in the environment of a run."""
    cwd = tmp_path / "workspace"
    shutil.copytree(prepared, cwd)
    monkeypatch.chdir(cwd)
    for name in ("WANDB_API_KEY", "TRAINER_LAUNCHER_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**harness.environment(), "HF_TOKEN": SECRET, "NETRC": "none"}.items():
        monkeypatch.setenv(name, value)
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    yield cwd
    for number, handler in handlers.items():
        signal.signal(number, handler)


def content(cwd: Path) -> dict[str, bytes]:
    """Every file but those that say how a launch ended, locks and caches."""
    left_out = ("exit.json", "exit.refused.json", ".lock")
    files = [path for path in cwd.rglob("*") if path.is_file() and path.name not in left_out]
    return {str(path): path.read_bytes() for path in files if ".cache" not in path.parts}


def start(overrides: list[str], processes: int = 1) -> int:
    script = str(harness.ROOT / "scripts" / "train.py")
    return launch(["--standalone", "--nproc_per_node", str(processes), script, *BASE, *overrides])


@pytest.mark.parametrize("name", in_ci(CASES, IN_CI))
def test_bad_input_is_answered(workspace: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    case = CASES[name]
    if case.before is not None:
        case.before(workspace)
    before = content(workspace)
    code = start(case.overrides, case.processes)
    output = "".join(capfd.readouterr())
    assert code == case.code, output
    assert case.words in output
    assert "Traceback" not in output
    assert len(re.findall(rf"problems? \(exit {case.code}\)", output)) == 1, output
    assert output.count("rule:") == output.count("remedy:") >= 1
    assert SECRET not in output
    after = content(workspace)
    assert {path: after.get(path) for path in before} == before, "nothing may be overwritten"
    if name in ("no directory can be made", "name with a slash"):
        return  # there is no place for exit.json either
    if name in UNCOMPOSED:
        assert not (workspace / "runs" / "tiny").exists(), "a command line that is refused makes no directory"
        return
    records = [json.loads(path.read_text()) for path in (workspace / "runs").glob("*/exit.json")]
    (record,) = [record for record in records if record["code"] != 0]
    assert record["code"] == case.code
    assert len(record["problems"]) == output.count("rule:")
    assert all(problem["rule"] and problem["remedy"] for problem in record["problems"])


def test_a_corrupted_cache_is_made_again(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The one bad input that costs nothing but time: the text is there, and the curve is the same."""
    damage(".cache/data/tokens-*/*.bin")(workspace)
    assert start(["run.name=again"]) == 0
    assert "is damaged; building it again" in "".join(capfd.readouterr())
    losses = [[s["loss"] for s in harness.records(workspace / "runs" / name)] for name in ("done", "again")]
    assert losses[0] == losses[1]


def test_two_live_runs_of_one_name(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = workspace / "runs" / "done"
    before = (run / "exit.json").read_text()
    with open(run / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert start(["run.name=done"]) == 3
    assert "no live run has this name" in "".join(capfd.readouterr())
    assert (run / "exit.json").read_text() == before, "that file is the live run's"
    assert json.loads((run / "exit.refused.json").read_text())["code"] == 3


def test_a_disk_without_room(workspace: Path) -> None:
    """A limit on the size of files stands for a full disk: the older checkpoint stays, and the code is 3."""
    script = f"ulimit -f 150; exec {sys.executable} {harness.ROOT}/scripts/launch.py --standalone --nproc_per_node 1"
    words = [str(harness.ROOT / "scripts" / "train.py"), *BASE, "run.name=done", "train.stop_after_steps=8"]
    before = content(workspace / "runs" / "done" / "checkpoints")
    done = subprocess.run(
        ["bash", "-c", f'{script} "$@"', "launch", *words], capture_output=True, text=True, timeout=90, check=False,
        env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    assert "takes a checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    after = content(workspace / "runs" / "done" / "checkpoints")
    assert {path: after.get(path) for path in before} == before
    assert json.loads((workspace / "runs" / "done" / "exit.json").read_text())["code"] == 3
