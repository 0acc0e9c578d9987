"""scripts/generate.py: what it prints, and one problem for each mistake."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import directories
from tests.families.pairs import pair
from tests.launched import script
from trainer.commands import command_line
from trainer.commands.prompts import read_line, read_prompts
from trainer.errors import DataError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command") / "model"
    pair("llama", "grouped").theirs.save_pretrained(path)
    directories.write_tokenizer(path, 96)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: exit code, standard output, standard error."""
    module = script("generate")
    monkeypatch.setattr(command_line, "outlive_readers", lambda: None)

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["generate.py", *map(str, arguments)])
        given = io.BytesIO(stdin)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=given, isatty=lambda: False))
        code = command_line.run(module.parser(), module.act)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def with_template(model: Path, tmp_path: Path, template: str) -> Path:
    shutil.copytree(model, tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text(template)
    return tmp_path / "chat"


def test_a_prompt_is_continued_from_the_command_line_and_from_standard_input(model: Path, run: Run) -> None:
    code, out, err = run(model, "--prompt", "w5 w9", "--tokens", 6)
    assert code == 0
    assert out.endswith("\n")
    assert "6 tokens in" in err
    assert "as many tokens as asked for" in err
    assert run(model, "--tokens", 6, stdin=b"w5 w9\n")[:2] == (code, out)


def test_lines_are_prompts_and_json_is_a_line_for_each(model: Path, run: Run) -> None:
    code, out, _ = run(model, "--lines", "--json", "--batch", 2, "--tokens", 5, stdin=b"w5 w9\nw7\nw8 w8 w8\n")
    assert code == 0
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["prompt"] for answer in answers] == ["w5 w9", "w7", "w8 w8 w8"]
    for answer in answers:
        alone = run(model, "--prompt", answer["prompt"], "--tokens", 5)[1]
        assert alone.rstrip("\n") == answer["text"]
        assert (len(answer["tokens"]), answer["ended"]) == (5, "tokens")


def test_several_prompts_are_told_apart(model: Path, run: Run) -> None:
    code, out, _ = run(model, "--prompt", "w5", "--prompt", "w6", "--tokens", 2)
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("---")] == ["--- 1: w5", "--- 2: w6"]


def test_a_chat_is_the_template_around_what_is_said(model: Path, tmp_path: Path, run: Run) -> None:
    chat = with_template(model, tmp_path, "{% for m in messages %}w3 {{ m.content }} w4 {% endfor %}")
    plain = run(model, "--prompt", "w3 w60 w4 w3 w9 w4", "--tokens", 5)[1]
    assert run(chat, "--chat", "--system", "w60", "--prompt", "w9", "--tokens", 5)[:2] == (0, plain)
    code, out, _ = run(chat, "--chat", "--system", "w60", "--tokens", 5, stdin=b"w9\nw8\n")
    assert code == 0
    first, second = out.splitlines()
    assert f"{first}\n" == plain
    whole = f"w3 w60 w4 w3 w9 w4 w3 {first} w4 w3 w8 w4"
    assert run(model, "--prompt", whole, "--tokens", 5)[1] == f"{second}\n"


def test_a_stop_string_that_never_comes_is_said(model: Path, run: Run) -> None:
    code, _, err = run(model, "--prompt", "w5", "--tokens", 4, "--stop", "never")
    assert code == 0
    assert "no stop string came" in err


MISTAKES: dict[str, tuple[list[object], bytes, int, str]] = {
    "an unknown option": (["--tempature", 1], b"w1", 3, "unrecognized arguments"),
    "a word for a number": (["--tokens", "many"], b"w1", 3, "invalid int value"),
    "temperature below 0": (["--temperature", -1], b"w1", 3, "--temperature"),
    "temperature is no number": (["--temperature", "nan"], b"w1", 3, "--temperature"),
    "temperature of next to nothing": (["--temperature", 1e-30], b"w1", 3, "--temperature"),
    "temperature without end": (["--temperature", "inf"], b"w1", 3, "--temperature"),
    "top-p of 0": (["--temperature", 1, "--top-p", 0], b"w1", 3, "--top-p"),
    "top-p above 1": (["--temperature", 1, "--top-p", 1.5], b"w1", 3, "--top-p"),
    "top-k below 0": (["--temperature", 1, "--top-k", -5], b"w1", 3, "--top-k"),
    "min-p above 1": (["--temperature", 1, "--min-p", 2], b"w1", 3, "--min-p"),
    "top-k of a greedy choice": (["--top-k", 5], b"w1", 3, "--temperature"),
    "repetition penalty of 0": (["--repetition-penalty", 0], b"w1", 3, "--repetition-penalty"),
    "repetition penalty of next to nothing": (["--repetition-penalty", 1e-30], b"w1", 3, "--repetition-penalty"),
    "repetition penalty without end": (["--repetition-penalty", "inf"], b"w1", 3, "--repetition-penalty"),
    "a seed of a hundred bits": (["--seed", 1 << 100], b"w1", 3, "--seed"),
    "seed below 0": (["--seed", -1], b"w1", 3, "--seed"),
    "no tokens": (["--tokens", 0], b"w1", 3, "--tokens"),
    "an empty stop string": (["--stop", ""], b"w1", 3, "--stop"),
    "a batch of none": (["--batch", 0], b"w1", 3, "--batch"),
    "lines beside a prompt": (["--lines", "--prompt", "w1"], b"w1", 3, "--lines"),
    "a system prompt without a chat": (["--system", "w1"], b"w1", 3, "--system"),
    "a conversation in JSON": (["--chat", "--json"], b"w1", 3, "--json"),
    "no chat template": (["--chat"], b"w1", 3, "--chat"),
    "an empty prompt": (["--prompt", ""], b"", 4, "prompt 1"),
    "nothing on standard input": ([], b"", 4, "prompt 1"),
    "an empty line": (["--lines"], b"w1\n\nw2\n", 4, "prompt 2"),
    "a prompt longer than the window": ([], b"w1 " * 200, 4, "prompt 1"),
    "bytes that are no text": ([], b"w1 \xff\xfe", 4, "standard input"),
    "an argument that is no text": (["--prompt", "w1 \udcff"], b"", 4, "prompt 1"),
    "a stop string that is no text": (["--stop", "\udcff"], b"w1", 3, "--stop"),
    "a system prompt that is no text": (["--chat", "--system", "\udcff"], b"w1", 3, "--system"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_problem(name: str, model: Path, run: Run) -> None:
    arguments, stdin, expected, key = MISTAKES[name]
    code, out, err = run(model, *arguments, stdin=stdin)
    assert (code, out) == (expected, "")
    assert key in err
    assert "Traceback" not in err
    if "usage:" not in err:
        assert f"1 problem (exit {expected})" in err
        assert f"1. {key} = " in err


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("absent", "it does not exist"),
        ("hub", "hf download some/model"),
        ("file", "it is a file"),
        ("empty", "it has neither"),
        ("no tokenizer", "has a tokenizer"),
        ("another tokenizer", "each id of its tokenizer has a row"),
        ("damaged", "model.safetensors"),
        ("pickle", "pickle"),
    ],
)
def test_a_directory_that_is_none(kind: str, said: str, model: Path, tmp_path: Path, run: Run) -> None:
    given: object = tmp_path / "copy"
    if kind in ("no tokenizer", "another tokenizer", "damaged", "pickle"):
        shutil.copytree(model, tmp_path / "copy")
    if kind == "no tokenizer":
        (tmp_path / "copy" / "tokenizer.json").unlink()
    elif kind == "another tokenizer":
        directories.write_tokenizer(tmp_path / "copy", 200)
    elif kind == "damaged":
        file = tmp_path / "copy" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-8])
    elif kind == "pickle":
        (tmp_path / "copy" / "model.safetensors").rename(tmp_path / "copy" / "pytorch_model.bin")
    elif kind == "file":
        (tmp_path / "copy").write_text("")
    elif kind == "empty":
        (tmp_path / "copy").mkdir()
    elif kind == "hub":
        given = "some/model"
    code, out, err = run(given, "--prompt", "w5")
    assert (code, out) == (3, "")
    assert "1 problem (exit 3)" in err
    assert said in err
    assert "1. MODEL = " in err


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('roles must alternate') }}", "{% for m in messages %}", "{{ ''.__class__.__mro__ }}"],
)
def test_a_template_that_raises_is_one_problem(template: str, model: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run(with_template(model, tmp_path, template), "--chat", "--prompt", "w5")
    assert (code, out) == (3, "")
    assert "1. chat_template = " in err


def test_a_template_that_writes_nothing_is_an_empty_prompt(model: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run(with_template(model, tmp_path, "{# nothing #}"), "--chat", "--prompt", "w5")
    assert code == 4
    assert "1. prompt 1 = " in err


def test_a_model_without_a_name_is_not_the_current_directory(
    model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model)
    code, _, err = run("", "--prompt", "w5")
    assert code == 3
    assert "1. MODEL = ''" in err


def test_lines_may_end_as_on_windows_and_begin_with_a_mark(model: Path, run: Run) -> None:
    code, out, _ = run(model, "--lines", "--json", "--tokens", 2, stdin="\ufeffw5 w9\r\nw7\r\n".encode())
    assert code == 0
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["w5 w9", "w7"]
    assert run(model, "--json", "--tokens", 2, stdin=b"w5\r\nw9\r\n")[1].startswith('{"prompt": "w5\\r\\nw9"')


def test_standard_input_that_cannot_be_read_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    buffer = SimpleNamespace(read=read, readline=read)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=buffer, isatty=lambda: False))
    for reading in (lambda: list(read_prompts(True)), read_line):
        with pytest.raises(DataError, match=r"(?s)standard input = .*Input/output error"):
            reading()


@pytest.mark.parametrize("more", [[], ["--temperature", 1]])
def test_a_model_that_has_diverged_says_nothing(more: list[object], model: Path, tmp_path: Path, run: Run) -> None:
    theirs = pair("llama", "grouped").theirs
    theirs.model.norm.weight.data.fill_(float("nan"))
    theirs.save_pretrained(tmp_path / "broken")
    directories.write_tokenizer(tmp_path / "broken", 96)
    code, out, err = run(tmp_path / "broken", "--prompt", "w5", "--prompt", "w6 w7", "--json", *more)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(one["text"], one["tokens"], one["ended"]) for one in answers] == [("", [], "broken")] * 2
    assert "no finite logits" in err


def test_more_tokens_than_memory_is_one_problem(model: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(model, tmp_path / "wide")
    config = json.loads((model / "config.json").read_text())
    directories.write_json(tmp_path / "wide" / "config.json", {**config, "max_position_embeddings": 10**12})
    code, out, err = run(tmp_path / "wide", "--prompt", "w5", "--tokens", 10**12)
    assert (code, out) == (3, "")
    assert "1. memory = " in err
    assert "fewer --tokens" in err
