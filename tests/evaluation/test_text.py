"""Loss on text is transformers' on the same windows."""

from __future__ import annotations

import math
import re
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pandas
import pytest
import torch
import torch.nn.functional as F

from tests.end_to_end.test_smollm2_round_trip import from_gguf
from tests.families import tokenizers_of
from tests.families.cases import CLASSES, config
from tests.families.pairs import pair, randomise
from trainer.errors import DataError
from trainer.evaluation.files import Reading, Texts, read_texts
from trainer.evaluation.scoring import Row, score
from trainer.evaluation.text import encoded, score_text, windows
from trainer.generation.opened import opened_model

TEXT = "the cat sat on the mat. hello world, \u00fcber \u65e5\u672c\n" * 12


def write(path: Path, family: str, name: str, bos: bool = False, **more: Any) -> Any:
    """A small random model with a vocabulary for the byte-level tokenizer beside it; transformers' own."""
    described = config(family, name)
    described.vocab_size = 300
    for key, value in more.items():
        setattr(described, key, value)
    theirs = CLASSES[family][1](described)
    randomise(theirs)
    theirs.save_pretrained(path)
    tokenizers_of.by_hand(path, bos)
    return theirs.eval()


def expected(theirs: Any, ids: list[int], seq_len: int) -> tuple[float, int]:
    """Nats and targets, window for window, alone."""
    nats, targets = 0.0, 0
    for start in range(0, len(ids) - 1, seq_len):
        piece = torch.tensor(ids[start : start + seq_len + 1])
        with torch.no_grad():
            logits = theirs(input_ids=piece[:-1].unsqueeze(0), use_cache=False).logits[0].double()
        nats += float(F.cross_entropy(logits, piece[1:], reduction="sum"))
        targets += len(piece) - 1
    return nats, targets


@pytest.mark.parametrize(
    ("family", "name", "bos"), [("llama", "dynamic", False), ("gpt2", "gpt2", True), ("mistral", "window", False)]
)
def test_loss_is_transformers(family: str, name: str, bos: bool, tmp_path: Path) -> None:
    theirs = write(tmp_path, family, name, bos)
    with opened_model(str(tmp_path)) as opened:
        assert opened.words is not None
        documents = (TEXT, "hello world", "a")
        found = score_text(opened, opened.words, Texts("x", 1, documents, ""), 40, 40, batch=3)
        ids = [opened.words.encode(text) for text in documents]
    sums = [expected(theirs, one, 40) for one in ids]
    nats, targets = (sum(part) for part in zip(*sums, strict=True))
    assert (found.targets, found.tokens) == (targets, sum(map(len, ids)))
    assert found.loss == pytest.approx(nats / targets, abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(nats / targets), rel=1e-4)
    size = sum(len(text.encode()) for text in documents)
    first = 0 if bos else len("the") + 1 + 1  # first tokens have nothing before them
    assert size - 12 <= found.bytes <= size - first * (not bos)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / found.bytes, rel=1e-4)


def test_windows_predict_each_token_once() -> None:
    for size in (2, 3, 9, 10, 11, 31):
        for seq_len in (1, 4, 10):
            for stride in range(1, seq_len + 1):
                rows = list(windows(range(size), seq_len, stride))
                told = [token for row in rows for token in row.tokens[-row.targets :]]
                assert told == list(range(1, size))
                assert all(len(row.tokens) <= seq_len + 1 and 0 < row.targets < len(row.tokens) for row in rows)
                assert all(row.targets <= stride for row in rows[1:])


def test_a_stride_gives_more_context(tmp_path: Path) -> None:
    theirs = write(tmp_path, "llama", "grouped")
    with opened_model(str(tmp_path)) as opened:
        assert opened.words is not None
        found = score_text(opened, opened.words, Texts("x", 1, (TEXT,), ""), 32, 8)
        ids, _ = encoded(opened.words, TEXT)
    nats = 0.0
    for row in windows(ids, 32, 8):
        with torch.no_grad():
            logits = theirs(input_ids=torch.tensor([row.tokens[:-1]])).logits[0, -row.targets :].double()
        nats += float(F.cross_entropy(logits, torch.tensor(row.tokens[-row.targets :]), reduction="sum"))
    assert found.loss == pytest.approx(nats / (len(ids) - 1), abs=1e-4)


def test_a_batch_is_its_rows(tmp_path: Path) -> None:
    pair("llama", "dynamic").theirs.save_pretrained(tmp_path)
    rows = [Row([5] * size + [7, 9], 2) for size in (1, 30, 31, 40, 40, 60)]
    with opened_model(str(tmp_path)) as opened:
        together = score(opened, rows, 4)
        apart = [score(opened, [row], 1)[0] for row in rows]
    for one, other in zip(together, apart, strict=True):
        assert one.nats == pytest.approx(other.nats, abs=1e-5)
        assert one[1:] == other[1:]


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n\n{"text": "", "id": 4}\n{"text": "\\u00fc"}')
    (found,) = read_texts([str(tmp_path)])
    assert (found.files, found.documents) == (2, ("one\n", "two", "\u00fc"))


@pytest.mark.parametrize(
    ("name", "data", "key", "place"),
    [
        ("a.txt", b"", "--data", "a.txt"),
        ("a.txt", b"ab\xff", "a.txt", "ab"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}', "--text-field", "a.jsonl, line 2"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": 5}', "--text-field", "a.jsonl, line 3"),
        ("a.jsonl", b'{"txt": "b"}', "--text-field", "a.jsonl, line 1"),
        ("a.jsonl", b"[1]", "--data", "a.jsonl, row 0"),
        ("a.jsonl", b"not json", "--data", "a.jsonl, line 1"),
        ("a.jsonl", b'{"text": "\\ud800"}', "--data", "a.jsonl, line 1"),
        ("a.csv", b"id,body\n1,one\n", "--text-field", "text"),
        ("a.bin", b"one", "--data", "a.bin"),
    ],
)
def test_bad_files_are_named(name: str, data: bytes, key: str, place: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as raised:
        read_texts([str(tmp_path / name)])
    (problem,) = raised.value.problems
    assert problem.key.endswith(key)
    assert place in str(problem.value)


@pytest.mark.parametrize(
    ("name", "data", "option"),
    [("a.jsonl", b'{"txt": "b"}', "--text-field"), ("a.csv", b"id\n1\n", "--text-field"), ("a.bin", b"a", "--format")],
)
def test_remedies_name_options(name: str, data: bytes, option: str, tmp_path: Path) -> None:
    """The command has no keys that could be set as the remedies for sources say."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as raised:
        read_texts([str(tmp_path / name)])
    (problem,) = raised.value.problems
    assert option in problem.remedy
    assert not re.search(r"text_field|source", problem.remedy)


def test_tables_are_read_by_their_column(tmp_path: Path) -> None:
    """A table is no text: a .csv was scored with its commas and header."""
    texts = ["one, two", 'three "four"', "five\nsix"]
    pandas.DataFrame({"id": range(3), "body": texts}).to_csv(tmp_path / "a.csv", index=False)
    (found,) = read_texts([str(tmp_path / "a.csv")], Reading(text_field="body"))
    assert found.documents == tuple(texts)
    (tmp_path / "a.bin").write_text("one\ntwo\n")
    (found,) = read_texts([str(tmp_path / "a.bin")], Reading(format="text", document_unit="line"))
    assert found.documents == ("one", "two")


def test_every_missing_path_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        read_texts([str(tmp_path / "a"), str(tmp_path / "b"), "s3://bucket/c.txt"])
    assert [problem.key for problem in raised.value.problems] == ["--data", "--data", "--data"]
    assert "aws s3 cp s3://bucket/c.txt" in raised.value.problems[2].remedy


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1500)
def test_smollm2_has_transformers_perplexity(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from_gguf(tmp_path / "model")
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    text = "\n\n".join(topics[name] for name in sorted(topics))
    with opened_model(str(tmp_path / "model"), "float32") as opened:
        assert opened.words is not None
        ids = opened.words.encode(text)[: 16 * 1024 + 1]
        text = opened.words.decode(ids)
        assert opened.words.encode(text) == ids
        found = score_text(opened, opened.words, Texts("x", 1, (text,), ""), 1024, 1024, batch=2)
    nats, targets = expected(theirs, ids, 1024)
    assert (found.targets, targets) == (16 * 1024, 16 * 1024)
    assert found.loss == pytest.approx(nats / targets, abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(nats / targets), abs=1e-4)
