"""scripts/eval.py --chat: the loss over what the assistant says is transformers', by its own mask."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import adapted
from tests.evaluation.test_text import write
from tests.families import tokenizers_of
from tests.launched import Run
from trainer.config.groups.adapter import AdapterConfig

Talk = list[dict[str, str]]

ROLES = ("system", "user", "assistant", "user", "assistant")
SAID = ("hello", "the cat", "sat on the mat.", " world?", "hello \u00fcber\n\nthe mat")
SHORT = [{"role": role, "content": text} for role, text in zip(ROLES, SAID, strict=True)]
LONG = [
    {"role": ("user", "assistant")[number % 2], "content": f"the cat {number} " * (3 + number)} for number in range(8)
]
TALKS = [SHORT, SHORT[1:3], LONG]
TAGGED = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}"
)
WINDOW = 128
"""Tokens that the small model is meant for."""


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose template says what the assistant generates."""
    path = tmp_path_factory.mktemp("chat") / "model"
    write(path, "llama", "grouped")
    tokenizers_of.by_hand(path, chat_template=TAGGED)
    return path


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "talks.jsonl", [{"messages": talk} for talk in TALKS])


def masked(directory: Path, talk: Talk) -> tuple[list[int], list[int]]:
    """Ids of a conversation, and 1 for each that the assistant generates, by transformers."""
    found = AutoTokenizer.from_pretrained(directory).apply_chat_template(
        talk, return_dict=True, return_assistant_tokens_mask=True
    )
    return found["input_ids"], found["assistant_masks"]


def by_hand(
    theirs: Any, directory: Path, every: list[list[dict[str, str]]], seq_len: int = WINDOW
) -> tuple[float, int]:
    """Loss and targets, window for window, each alone."""
    nats, targets = 0.0, 0
    for ids, mask in (masked(directory, talk) for talk in every):
        labels = torch.tensor([one if counts else -100 for one, counts in zip(ids, mask, strict=True)])
        for start in range(0, len(ids) - 1, seq_len):
            piece, wanted = torch.tensor([ids[start : start + seq_len]]), labels[start + 1 : start + seq_len + 1]
            with torch.no_grad():
                logits = theirs(input_ids=piece[:, : len(wanted)]).logits[0].double()
            nats += float(F.cross_entropy(logits, wanted, reduction="sum", ignore_index=-100))
            targets += int((wanted != -100).sum())
    return nats / targets, targets


def scored(run: Run, *arguments: object, out: Path) -> dict[str, Any]:
    code, _, err = run(*arguments, "--output", out)
    assert code == 0, err
    (found,) = json.loads(out.read_text())["chats"]
    return found


def test_the_loss_is_transformers(model: Path, talks: Path, tmp_path: Path, run: Run) -> None:
    """Conversations of several turns, one of them longer than the window."""
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    assert [len(masked(model, talk)[0]) > WINDOW for talk in TALKS] == [False, False, True]
    out = tmp_path / "out.json"
    found = scored(run, model, "--chat", talks, "--batch", 3, out=out)
    loss, targets = by_hand(theirs, model, TALKS)
    assert (found["conversations"], found["files"], found["targets"]) == (3, 1, targets)
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert found["tokens"] == sum(len(masked(model, talk)[0]) for talk in TALKS)
    assert (found["skipped"], found["seq_len"], found["stride"]) == (0, WINDOW, WINDOW)
    short = scored(run, model, "--chat", talks, "--seq-len", 16, out=out)
    loss, again = by_hand(theirs, model, TALKS, 16)
    assert (short["targets"], again) == (targets, targets)
    assert short["loss"] == pytest.approx(loss, abs=1e-5)
    (tmp_path / "plain.jinja").write_text(tokenizers_of.TEMPLATE)  # the same text, and no word of what is generated
    plain = scored(run, model, "--chat", talks, "--chat-template", tmp_path / "plain.jinja", out=out)
    assert plain["targets"] == targets
    assert plain["loss"] == pytest.approx(found["loss"], abs=1e-5)
    assert plain["rendering"]["digest"] != found["rendering"]["digest"]


def test_a_stride_counts_each_target_once(model: Path, tmp_path: Path, run: Run) -> None:
    """From the last 24 tokens before it, or from more: by one pass a target."""
    talks = jsonl(tmp_path / "short.jsonl", [{"messages": talk} for talk in TALKS[:2]])
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    found = scored(run, model, "--chat", talks, "--seq-len", 32, "--stride", 8, out=tmp_path / "out.json")
    nats = []
    for ids, mask in (masked(model, talk) for talk in TALKS[:2]):
        for place in (index for index, counts in enumerate(mask) if counts):
            # The first window tells 32 targets, each later one the last 8 that it has.
            begin = 0 if place <= 32 else -(-(place - 32) // 8) * 8
            with torch.no_grad():
                logits = theirs(input_ids=torch.tensor([ids[begin:place]])).logits[0, -1:].double()
            nats.append(float(F.cross_entropy(logits, torch.tensor([ids[place]]))))
    assert found["targets"] == len(nats)
    assert found["loss"] == pytest.approx(math.fsum(nats) / len(nats), abs=1e-5)


def test_a_fine_tuned_run_is_scored_by_its_own_template(
    model: Path,
    talks: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    """Adapters on the head move the logits; the run keeps a tokenizer with a template, and its base has none."""
    base, lora = tmp_path / "base", AdapterConfig(kind="lora", rank=2)
    theirs = write(base, "llama", "grouped")
    tokenizers_of.by_hand(base, chat_template=None)
    tensors = adapted.draw(base, lora, ["lm_head"])
    adapted.save(tmp_path / "run", base, lora, tensors)
    tokenizers_of.by_hand(tmp_path / "run" / "tokenizer", chat_template=TAGGED)
    down, up = (next(one for name, one in tensors.items() if part in name) for part in ("lora_A", "lora_B"))
    with torch.no_grad():
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight + lora.alpha / lora.rank * up @ down)
    found = scored(run, tmp_path / "run", "--chat", talks, out=tmp_path / "out.json")
    loss, targets = by_hand(theirs, model, TALKS)
    assert found["targets"] == targets
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    assert run(base, "--chat", talks)[0] == 3


def test_a_digest_is_of_what_is_said(model: Path, talks: Path, tmp_path: Path, run: Run) -> None:
    """Not of the file: Parquet of ShareGPT's shape has the same conversations. Other words are other ones."""
    sharegpt = [[{"from": one["role"], "value": one["content"]} for one in talk] for talk in TALKS]
    pyarrow.parquet.write_table(pyarrow.table({"talk": sharegpt}), tmp_path / "talks.parquet")
    other = jsonl(tmp_path / "other.jsonl", [{"messages": talk} for talk in TALKS[:2]])
    out = tmp_path / "out.json"
    assert run(model, "--chat", talks, other, "--output", out)[0] == 0
    first, second = json.loads(out.read_text())["chats"]
    third = scored(
        run, model, "--chat", tmp_path / "talks.parquet", "--shape", "conversations", "--text-field", "talk", out=out
    )
    same = ("digest", "loss", "targets")
    assert [first[key] for key in same] == [third[key] for key in same]
    assert first["digest"] != second["digest"]
    assert first["rendering"]["digest"] == second["rendering"]["digest"]
    digest = hashlib.sha256()
    for talk in TALKS:
        text = json.dumps({"messages": talk}, ensure_ascii=False, separators=(",", ":")).encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    assert first["digest"] == digest.hexdigest()


def test_bad_rows_are_refused_or_counted(model: Path, tmp_path: Path, run: Run) -> None:
    bad = [{"role": "user", "content": "x"}, {"role": "narrator", "content": "y"}]
    file = jsonl(tmp_path / "bad.jsonl", [{"messages": talk} for talk in (SHORT, bad, SHORT, [])])
    code, out, err = run(model, "--chat", file)
    assert (code, out, err.count("rule:")) == (4, "", 1)
    assert f"1. --chat = '{file}, line 2'" in err
    assert "a turn of an unknown role, and --bad-documents is stop" in err
    code, shown, _ = run(model, "--chat", file, "--bad-documents", "skip", "--output", tmp_path / "out.json")
    (found,) = json.loads((tmp_path / "out.json").read_text())["chats"]
    assert (code, found["conversations"], found["skipped"]) == (0, 2, 2)
    assert found["reasons"]["bad"]["a turn of an unknown role"] == {"number": 1, "places": ["bad.jsonl, line 2"]}
    assert "skipped 1 document, a turn of an unknown role: bad.jsonl, line 2" in shown


WRONG: dict[str, tuple[str, list[object], int, str]] = {
    # what: the content of the file, more arguments, exit code, what the report says
    "nothing": ("", [], 4, "it is empty"),
    "no conversations": ('{"text": "hello"}\n', [], 4, "--shape = 'auto'"),
    "another shape": (json.dumps({"messages": SHORT}), ["--shape", "instruction"], 4, "set --shape to"),
    "no object": ("[1]\n", ["--shape", "messages"], 4, "talks.jsonl"),
    "as text": (json.dumps({"messages": SHORT}), ["--format", "text"], 4, "set --format"),
    "no template there": (json.dumps({"messages": SHORT}), ["--chat-template", "no.jinja"], 3, "--chat-template = 'no"),
    "no date": (json.dumps({"messages": SHORT}), ["--chat-date", "today"], 3, "--chat-date = 'today'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_is_one_problem(wrong: str, model: Path, tmp_path: Path, run: Run) -> None:
    content, more, code, said = WRONG[wrong]
    (tmp_path / "talks.jsonl").write_text(content)
    found, out, err = run(model, "--chat", tmp_path / "talks.jsonl", *more)
    assert (found, out, err.count("rule:")) == (code, "", 1)
    assert said in err
    assert "talks.jsonl" in err or code == 3
    assert "data." not in err
    assert "text_field" not in err


def test_a_model_without_a_template_names_the_remedy(talks: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "bare", "llama", "grouped")
    tokenizers_of.by_hand(tmp_path / "bare", chat_template=None)
    code, out, err = run(tmp_path / "bare", "--chat", talks)
    assert (code, out, err.count("rule:")) == (3, "", 1)
    assert "1. --chat-template = None" in err
    assert "name a file: --chat-template FILE" in err
    (tmp_path / "own.jinja").write_text(TAGGED)
    more = ("--chat-template", tmp_path / "own.jinja", "--train-on", "last")
    found = scored(run, tmp_path / "bare", "--chat", talks, *more, out=tmp_path / "out.json")
    assert found["rendering"]["template"] == "own.jinja"
    assert found["targets"] == sum(_last(masked_by(tmp_path / "bare", talk)) for talk in TALKS)
    assert run(tmp_path / "bare", "--tasks", talks, "--train-on", "last")[0] == 3


def masked_by(directory: Path, talk: Talk) -> list[int]:
    return AutoTokenizer.from_pretrained(directory).apply_chat_template(
        talk, chat_template=TAGGED, return_dict=True, return_assistant_tokens_mask=True
    )["assistant_masks"]


def _last(mask: list[int]) -> int:
    """Length of the last row of ones."""
    return len("".join(map(str, mask)).rstrip("0").rpartition("0")[2])
