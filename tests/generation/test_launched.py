"""scripts/generate.py cut over two ranks: the texts of one process, and one report of whatever a rank finds wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import directories, harness
from tests.families.checkpoints import parameters, save_run
from tests.families.pairs import pair
from tests.launched import assert_one_report, command
from tests.ranks import Outcomes, Task, attempt
from tests.selection import in_ci
from trainer.commands.export_hf import export_hf

pytestmark = pytest.mark.slow

WARM = ["--temperature", "0.9", "--top-k", "20", "--top-p", "0.9", "--seed", "7", "--tokens", "12", "--json"]
PROMPTS = ["--prompt", "w5 w9", "--prompt", "w7", "--prompt", "w8 w3 w8", "--batch", "2"]
TEMPLATE = "{% for m in messages %}w3 {{ m.content }} w4 {% endfor %}"
LONGEST = 60.0
"""Seconds until everybody has ended, on a busy machine."""


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories: a run and its export; one whose vocabulary two ranks cannot share evenly; some that are wrong."""
    path = tmp_path_factory.mktemp("launched")
    two = pair("llama", "grouped")
    save_run(path / "run", two.model, parameters(two.ours), cut=(3, 2))
    (path / "run" / "tokenizer").mkdir()
    directories.write_tokenizer(path / "run" / "tokenizer", 96)
    list(export_hf(str(path / "run"), str(path / "exported"), None, None))
    shutil.copytree(path / "exported", path / "chat")
    (path / "chat" / "chat_template.jinja").write_text(TEMPLATE)
    shutil.copytree(path / "exported", path / "raising")
    (path / "raising" / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    shutil.copytree(path / "exported", path / "other words")
    directories.write_tokenizer(path / "other words", 95)
    shutil.copytree(path / "exported", path / "no words")
    (path / "no words" / "tokenizer.json").unlink()
    shutil.copytree(path / "run", path / "damaged")
    for file in (path / "damaged").rglob("*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    for name, more in (("odd", {"vocab_size": 97}), ("uncuttable", {"intermediate_size": 25})):
        directories.write(path / name, {**directories.CONFIG, **more})
        directories.write_tokenizer(path / name, 40)
    return path


def alone(cwd: Path, name: str, *more: str) -> str:
    """What one process prints."""
    found = command("generate", [[str(cwd / name), *more]])
    assert found["code"] == 0, found["err"]
    text: str = found["out"]
    return text


def test_a_seed_is_the_same_text_however_it_is_started(cwd: Path) -> None:
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line += [str(harness.ROOT / "scripts" / "generate.py"), "run", *WARM, *PROMPTS]
    done = subprocess.run(
        line, cwd=cwd, env=harness.environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(answer) for answer in done.stdout.splitlines()]
    assert [len(answer["tokens"]) for answer in answers] == [12, 12, 12]
    assert len({answer["text"] for answer in answers}) == 3
    assert done.stdout == alone(cwd, "run", *WARM, *PROMPTS) == alone(cwd, "exported", *WARM, *PROMPTS)


Both = tuple[list[list[str]], str]
SAME: dict[str, Both] = {
    "a directory": ([["exported", *WARM, *PROMPTS]], ""),
    "a vocabulary of 97": ([["odd", *WARM, *PROMPTS]], ""),
    "lines": ([["run", *WARM, "--lines"]], "w5\r\nw9 w9\r\nw7"),
    "a conversation": ([["chat", "--chat", "--system", "w60", "--tokens", "5"]], "w9\nw8\n"),
    "greedy, as it comes": ([["exported", "--prompt", "w5", "--tokens", "7"]], ""),
}
SAME_IN_CI = ("a vocabulary of 97", "lines", "a conversation")
FINE = ["--prompt", "w5", "--tokens", "3"]
WRONG: dict[str, tuple[Both, int, int, str]] = {
    # what: (arguments by rank, standard input), exit code, the rank that tells it, what it says
    "no model on one": (([["run", *FINE], ["nowhere", *FINE]], ""), 3, 1, "MODEL = 'nowhere'"),
    "no model on any": (([["nowhere", *FINE]], ""), 3, 0, "MODEL = 'nowhere'"),
    "another model": (([["run", *FINE], ["odd", *FINE]], ""), 3, 0, "on ranks [1] it is not what rank 0 has"),
    "another tokenizer": (([["exported", *FINE], ["other words", *FINE]], ""), 3, 0, "tokenizer included"),
    "no tokenizer on one": (([["exported", *FINE], ["no words", *FINE]], ""), 3, 0, "tokenizer included"),
    "no tokenizer": (([["no words", *FINE]], ""), 3, 0, "has a tokenizer"),
    "damage in one share": (([["damaged", *FINE]], ""), 3, 1, "its SHA-256 is not the manifest's"),
    "other options": (([["run", *FINE], ["run", *FINE, "--seed", "3"]], ""), 3, 0, "--seed = 3"),
    "more tokens": (([["run", *FINE], ["run", "--prompt", "w5"]], ""), 3, 0, "--tokens = 128"),
    "too many ranks": (([["uncuttable", *FINE]], ""), 3, 0, "number of processes = 2"),
    "no prompt": (([["run"]], ""), 4, 0, "prompt 1 = ''"),
    "no text": (([["run"]], "w5 \xff"), 4, 0, "standard input = b'w5 \\xff'"),
    "no text in a conversation": (([["chat", "--chat", "--tokens", "2"]], "w5\n\xff\n"), 4, 0, "standard input = "),
    "a long prompt": (([["run", "--lines"]], "w5\n" + "w5 " * 200), 4, 0, "prompt 2 = '200 tokens'"),
    "a template that raises": (([["raising", "--chat", *FINE]], ""), 3, 0, "roles must alternate"),
    "no template": (([["run", "--chat", *FINE]], ""), 3, 0, "--chat = True"),
    "an option that is none": (([["run", "--top-p", "2", "--temperature", "1"]], ""), 3, 0, "--top-p = 2.0"),
}
WRONG_IN_CI = ("no model on one", "another tokenizer", "damage in one share", "other options", "no text", "no template")
"""A model, a tokenizer, weights, options, what is read and the template: one mistake of each."""


@pytest.fixture(scope="module")
def outcomes(selected: list[dict[str, str]], cwd: Path) -> Outcomes:
    """All launches that tests ask for, one after the other in forks of one process."""
    given = {**SAME, **{name: both for name, (both, *_) in WRONG.items()}}
    tasks = {}
    for name in (params["name"] for params in selected):
        arguments, stdin = given[name]
        options = {"name": "generate", "arguments": arguments, "stdin": stdin}
        tasks[name] = Task("tests.launched:command", 2, options, LONGEST)
    return attempt(tasks, cwd)


@pytest.mark.parametrize("name", in_ci(SAME, SAME_IN_CI))
def test_two_ranks_say_what_one_says(name: str, cwd: Path, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch) -> None:
    (arguments, stdin), ranks = SAME[name], outcomes[name]
    monkeypatch.chdir(cwd)
    one = command("generate", arguments, stdin)
    assert one["code"] == 0, one["err"]
    assert [(rank["code"], rank["out"]) for rank in ranks] == [(0, one["out"]), (0, "")]
    assert ranks[1]["err"] == ""


@pytest.mark.parametrize("name", in_ci(WRONG, WRONG_IN_CI))
def test_a_mistake_ends_all_ranks_with_one_report(name: str, outcomes: Outcomes) -> None:
    _, code, reporter, said = WRONG[name]
    assert_one_report(outcomes[name], code, reporter, said, LONGEST)
