"""What a template marks, and what is told without marks, down to the labels of batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.families.tokenizers_of import by_hand
from trainer.batch import IGNORED_LABEL
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data import decoded
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.heldout import HeldoutWindows, written_for_spoken
from trainer.data.indexed import IndexedWriter
from trainer.data.packings import Packing
from trainer.data.shard import IndexedShard
from trainer.data.stream import TokenStream
from trainer.errors import DataError

TURNS = [
    [("user", "the cat"), ("assistant", "sat on the mat")],
    [("system", "hello"), ("user", "the mat"), ("assistant", "the cat"), ("user", "world"), ("assistant", "hello .")],
    [("user", "on"), ("assistant", " the\n\ncat ")],
]
TAGGED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}"
)


def rows(count: int = 30) -> list[dict[str, Any]]:
    """Conversations, each of other words than the others."""
    found = []
    for number in range(count):
        turns = [{"role": role, "content": text} for role, text in TURNS[number % len(TURNS)]]
        turns[-2] = {**turns[-2], "content": f"{turns[-2]['content']} {number}"}
        found.append({"messages": turns})
    return found


def corpus_of(tmp_path: Path, every: list[dict[str, Any]], source: dict[str, Any] | None = None, **data: Any) -> Corpus:
    """Of one source of conversations and a small tokenizer with ChatML's template."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in every))
    config = DataConfig(
        sources=[SourceConfig(name="talk", paths=[str(file)], **{"chat": "auto", **(source or {})})],
        cache_dir=str(tmp_path / "cache"),
        **{
            "tokenizer": TokenizerConfig(kind="file", path=str(by_hand(tmp_path / "tokenizer"))),
            "heldout_fraction": 0.0,
            "seq_len": 16,
            **data,
        },
    )
    return prepare_corpus(config, 300)


def expected(corpus: Corpus, turns: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """Ids and targets of a conversation, put together turn by turn; no word of ours goes over a special token."""
    inner = corpus.tokenizer.inner
    start, end = (inner.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    ids, trained = [], []
    for turn in turns:
        said = inner.encode(turn["content"], add_special_tokens=False).ids
        head = [start, *inner.encode(turn["role"] + "\n", add_special_tokens=False).ids]
        tail = inner.encode("\n", add_special_tokens=False).ids
        mine = turn["role"] == "assistant"
        ids += [*head, *said, end, *tail]
        trained += [False] * len(head) + [mine] * (len(said) + 1) + [False] * len(tail)
    return ids, trained


@pytest.mark.parametrize("template", [None, TAGGED])
def test_each_token_is_trained_on_as_its_turn_says(tmp_path: Path, template: str | None) -> None:
    (tmp_path / "own.jinja").write_text(template or "")
    more = {"chat_template": str(tmp_path / "own.jinja")} if template else {}
    corpus = corpus_of(tmp_path, rows(), **more)
    (stream,) = corpus.train
    bos = [] if template else [corpus.tokenizer.inner.token_to_id("<bos>")]
    for number, row in enumerate(rows()):
        ids, trained = expected(corpus, row["messages"])
        begin, end = stream.start_of(number), stream.start_of(number + 1)
        assert stream.slice(begin, end).tolist() == bos + ids
        found = stream.trained(np.array([begin]), np.array([end - begin]))
        assert found.tolist() == [False] * len(bos) + trained


def test_a_picture_has_what_is_trained_on_in_marks(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, rows(2), seq_len=64)
    sample = Packing().samples(corpus.train[0], 64, True)[0]
    shown = [line.removeprefix("    | ") for line in decoded.turns(sample, corpus.tokenizer)]
    first = shown.index("<bos><|im_start|>user")
    count = len(corpus.tokenizer.inner.encode("sat on the mat").ids) + 1
    assert shown[first + 1 : first + 4] == [
        "the cat 0<|im_end|>",
        "<|im_start|>assistant",
        f"[[sat on the mat<|im_end|>]]  ({count} trained on)",
    ]
    total = len(expected(corpus, rows()[0]["messages"])[0]) + 1
    assert any(f"{total} tokens from its token 0 on, {count} trained on" in line for line in shown)
    coloured = "\n".join(decoded.turns(sample, corpus.tokenizer, decoded.COLOURS))
    assert "\x1b[1;32msat on the mat<|im_end|>\x1b[0m" in coloured


def test_a_template_may_be_one_of_several_by_name(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "{{ messages }}"}, {"name": "tagged", "template": TAGGED}]
    by_hand(tmp_path / "several", chat_template=named)
    more = {"tokenizer": TokenizerConfig(kind="file", path=str(tmp_path / "several")), "chat_template": "tagged"}
    corpus = corpus_of(tmp_path, rows(), **more)
    assert corpus.train[0].document(1).tolist() == expected(corpus, rows()[1]["messages"])[0]
    assert "the tokenizer's template tagged" in corpus.chats["talk"]


def test_a_mask_beside_token_files_holds_across_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 200, size) for size in rng.integers(2, 40, 60)]
    masks = [
        rng.random(len(one)) < 0.4 if number < 40 else np.ones(len(one), bool) for number, one in enumerate(documents)
    ]
    for name, part in (("a", slice(0, 20)), ("b", slice(20, 40)), ("c", slice(40, 60))):
        with IndexedWriter(tmp_path / name, 300, masked=name != "c") as writer:
            for ids, trained in zip(documents[part], masks[part], strict=True):
                writer.append(ids, trained)
    assert not (tmp_path / "c.mask").exists()
    stream = TokenStream.over([IndexedShard(tmp_path / name) for name in "abc"])
    ids, trained = np.concatenate(documents), np.concatenate(masks)
    packed = Packing().samples(stream, 16, False)
    every = packed.rows(np.arange(len(packed)))
    wanted = np.where(trained, ids, IGNORED_LABEL)[1:]
    padded = np.pad(wanted, (0, every.labels.size - len(wanted)), constant_values=IGNORED_LABEL)
    assert every.labels.ravel().tolist() == padded.tolist()


@pytest.mark.parametrize("kind", ["contiguous", "best_fit"])
def test_labels_are_the_tokens_that_are_trained_on(tmp_path: Path, kind: str) -> None:
    corpus = corpus_of(tmp_path, rows())
    (stream,) = corpus.train
    packed = Packing(kind).samples(stream, 16, True)
    bos, wanted = corpus.tokenizer.inner.token_to_id("<bos>"), []
    for row in rows():
        ids, trained = expected(corpus, row["messages"])
        before = [bos, *ids[:-1]]
        wanted += [(one, follows) for one, follows, kept in zip(before, ids, trained, strict=True) if kept]
    every = packed.rows(np.arange(len(packed)))
    kept = every.labels != IGNORED_LABEL
    found = list(zip(every.tokens[kept].tolist(), every.labels[kept].tolist(), strict=True))
    assert sorted(found) == sorted(wanted)
    assert corpus.train_part.trained == len(wanted)


def test_bits_per_byte_are_of_what_the_assistant_says(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, rows(), heldout_fraction=0.4, seq_len=64)
    held = corpus.heldout
    windows = HeldoutWindows(held, corpus.tokenizer.token_bytes, 64, True, 10_000, Packing("best_fit"))
    texts = {corpus.tokenizer.decode(held.document(number).tolist()) for number in range(held.documents)}
    size = 0
    for row in rows():
        shown = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in row["messages"])
        if f"<bos>{shown}" in texts:
            size += sum(len(turn["content"].encode()) for turn in row["messages"] if turn["role"] == "assistant")
    assert 0 < held.documents < 30
    assert windows.target_bytes == size
    assert written_for_spoken(held, corpus.tokenizer, corpus.heldout_part.bytes) == 1


def test_a_resume_with_another_template_is_another_text(tmp_path: Path) -> None:
    first = corpus_of(tmp_path, rows())
    (tmp_path / "own.jinja").write_text(TAGGED)
    second = corpus_of(tmp_path, rows(), chat_template=str(tmp_path / "own.jinja"))
    third = corpus_of(tmp_path, rows(), train_on="last")
    assert len({json.dumps(one.fingerprints, sort_keys=True) for one in (first, second, third)}) == 3
    assert first.fingerprints == corpus_of(tmp_path, rows()).fingerprints


def test_what_is_too_long_is_cut_or_left_out_where_nothing_is_trained(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, rows())
    (stream,) = corpus.train
    lengths = [stream.start_of(number + 1) - stream.start_of(number) for number in range(30)]
    targets = [expected(corpus, row["messages"])[1] for row in rows()]
    for room in (8, 16, 24):
        fit = Packing("best_fit", "truncate").samples(stream, room, True).fit  # type: ignore[union-attr]
        long = [number for number in range(30) if lengths[number] - 1 > room]
        kept = [number for number in long if any(targets[number][:room])]
        assert (fit.truncated, fit.untrained) == (len(kept), len(long) - len(kept))
        lost = sum(lengths[number] - 1 - room if number in kept else lengths[number] for number in long)
        assert fit.lost == lost
    with pytest.raises(DataError, match=r"used|shape"):
        corpus_of(tmp_path, [{"messages": [{"role": "system", "content": "x"}]}], {"chat": "messages"})
