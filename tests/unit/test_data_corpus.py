"""prepare_corpus end to end on small sources: split, figures, cache, and every way to get it wrong."""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_data_tokenizer import unknowing
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data import corpus as corpus_module
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.stream import TokenStream
from trainer.errors import DataError, Problem

FRACTION = 0.25


def make_texts(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    words = ["def", "return", "caf\u00e9", "\u4f60\u597d", "x", "\t", "import", "lambda", "\U0001f600"]
    texts = [" ".join(rng.choice(words, rng.integers(5, 60))) for _ in range(count)]
    return texts + texts[::3]  # duplicates


def config_for(root: Path, texts: list[str], **fields: object) -> DataConfig:
    root.mkdir(parents=True, exist_ok=True)
    file = root / "x.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return replace(
        DataConfig(
            sources=[SourceConfig(name="a", paths=[str(file)])],
            tokenizer=TokenizerConfig(vocab=280),
            seq_len=32,
            heldout_fraction=FRACTION,
            cache_dir=str(root / "cache"),
        ),
        **fields,  # type: ignore[arg-type]
    )


def texts_in(corpus: Corpus, tokens: TokenStream) -> list[str]:
    found = []
    for i in range(tokens.documents):
        *body, last = tokens.document(i).tolist()
        assert last == corpus.tokenizer.eod
        found.append(b"".join(corpus.tokenizer.token_bytes[token] for token in body).decode())
    return found


def expected_heldout(text: str) -> bool:
    place = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return place / 2**64 < FRACTION


def problems_of(config: DataConfig, vocab: int = 300) -> tuple[Problem, ...]:
    with pytest.raises(DataError) as caught:
        prepare_corpus(config, vocab)
    assert all(problem.rule and problem.remedy for problem in caught.value.problems)
    return caught.value.problems


def test_split_and_figures(tmp_path: Path) -> None:
    texts = make_texts(1, 60)
    corpus = prepare_corpus(config_for(tmp_path, texts), 300)
    train, held = texts_in(corpus, corpus.train[0]), texts_in(corpus, corpus.heldout)
    assert held == [text for text in texts if expected_heldout(text)]
    assert train == [text for text in texts if not expected_heldout(text)]
    assert not set(train) & set(held)
    assert len(set(held)) < len(held)  # there were duplicates to keep together
    assert (corpus.train_part.documents, corpus.heldout_part.documents) == (len(train), len(held))
    assert corpus.train_part.bytes == sum(len(text.encode()) for text in train)
    assert corpus.heldout_part.tokens == corpus.heldout.total
    raw = [text.encode() for text in held]
    bits = [
        8 * sum(map(len, packed)) / sum(map(len, raw))
        for packed in ([zlib.compress(text, 9) for text in raw], [lzma.compress(text, preset=6) for text in raw])
    ]
    assert [corpus.zlib_bits_per_byte, corpus.xz_bits_per_byte] == pytest.approx(bits, rel=1e-12)


def test_tokenizer_learns_from_the_training_part_only(tmp_path: Path) -> None:
    texts = make_texts(1, 60)
    held = [text for text in texts if expected_heldout(text)]
    secret = next(w for w in (f"qzx{i} " * 50 for i in range(1000)) if expected_heldout(w))
    with_secret = prepare_corpus(config_for(tmp_path / "a", [*texts, secret, *held]), 300)
    without = prepare_corpus(config_for(tmp_path / "b", texts), 300)
    assert with_secret.tokenizer.fingerprint == without.tokenizer.fingerprint


def test_warm_start_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for(tmp_path, make_texts(1, 60))
    cold = prepare_corpus(config, 300)

    def never(*_: object) -> None:
        raise AssertionError("must not build")

    monkeypatch.setattr(corpus_module, "tokenize_source", never)
    monkeypatch.setattr(corpus_module, "training_texts", never)
    said: list[str] = []
    warm = prepare_corpus(replace(config, seq_len=64), 999, said.append)
    assert said == []
    assert warm.figures == cold.figures
    assert warm.tokenizer.fingerprint == cold.tokenizer.fingerprint


@pytest.mark.parametrize("change", ["content", "fraction", "vocab", "unit"])
def test_what_alters_the_tokens_is_built_anew(tmp_path: Path, change: str) -> None:
    texts = make_texts(1, 60)
    config = config_for(tmp_path, texts)
    before = prepare_corpus(config, 300)
    if change == "content":
        config = config_for(tmp_path, [*texts[:-1], texts[-1] + "!"])
    elif change == "fraction":
        config = replace(config, heldout_fraction=0.5)
    elif change == "vocab":
        config = replace(config, tokenizer=TokenizerConfig(vocab=270))
    else:
        config = replace(config, sources=[replace(config.sources[0], text_field="missing")])
        assert problems_of(config)[0].key == "data.sources.0.text_field"
        return
    after = prepare_corpus(config, 300)
    assert after.figures != before.figures


def test_damaged_cache_is_repaired(tmp_path: Path) -> None:
    config = config_for(tmp_path, make_texts(1, 60))
    first = prepare_corpus(config, 300)
    expected = first.train[0].slice(0, first.train[0].total).tolist()
    (file,) = (tmp_path / "cache").glob("tokens-*/train.bin")
    with file.open("r+b") as handle:
        handle.truncate(100)
    said: list[str] = []
    again = prepare_corpus(config, 300, said.append)
    assert again.train[0].slice(0, again.train[0].total).tolist() == expected
    assert any("damaged" in line for line in said)


def test_several_sources(tmp_path: Path) -> None:
    one, two = config_for(tmp_path / "1", make_texts(1, 60)), config_for(tmp_path / "2", make_texts(2, 40))
    sources = [one.sources[0], replace(two.sources[0], name="b", weight=0.5)]
    corpus = prepare_corpus(replace(one, sources=sources), 300)
    assert (corpus.names, corpus.weights, len(corpus.train)) == (["a", "b"], [1.0, 0.5], 2)
    expected = [t for texts in (make_texts(1, 60), make_texts(2, 40)) for t in texts if expected_heldout(t)]
    assert texts_in(corpus, corpus.heldout) == expected
    assert corpus.heldout_part.documents == len(expected)


def test_unknown_tokens_are_told_and_too_many_refused(tmp_path: Path) -> None:
    """Counted at every start, from the cache too."""
    inner = unknowing("WordLevel")
    inner.save(str(tmp_path / "words.json"))
    texts = [*["the cat"] * 300, "the dog", *[f"cat {'the ' * n}" for n in range(1, 40)]]
    words = TokenizerConfig(kind="file", path=str(tmp_path / "words.json"), eod="</s>")
    config = config_for(tmp_path, texts, tokenizer=words, heldout_fraction=0.1)
    for _ in range(2):
        lines: list[str] = []
        corpus = prepare_corpus(config, 10, lines.append)
        assert [figures.unknown for figures in corpus.figures] == [1]
        total = corpus.train_part.tokens + corpus.heldout_part.tokens
        assert f"  a: {1 / total:.3%} of the tokens are unknown ([UNK]): their text is lost to the model" in lines
        assert "  documents end with </s> (id 3), as data.tokenizer.eod says" in lines
    with pytest.raises(DataError) as caught:
        prepare_corpus(replace(config, tokenizer=replace(words, max_unknown=0.5 / total)), 10)
    (problem,) = caught.value.problems
    assert problem.key == "data.tokenizer.path"
    assert "data.tokenizer.max_unknown" in problem.remedy


def test_bad_configurations(tmp_path: Path) -> None:
    config = config_for(tmp_path, make_texts(1, 60))

    def keys(vocab: int = 300, **fields: object) -> list[str]:
        return [problem.key for problem in problems_of(replace(config, **fields), vocab)]  # type: ignore[arg-type]

    assert keys(vocab=279) == ["model.vocab"]
    assert "model.vocab=280" in problems_of(config, 279)[0].remedy
    assert keys(seq_len=100_000) == ["data.sources.0.paths"]
    assert keys(heldout_fraction=1e-9) == ["data.heldout_fraction"]
    assert keys(heldout_fraction=1 - 1e-9) == ["data.sources.0.paths"]
    assert keys(tokenizer=TokenizerConfig(vocab=100)) == ["data.tokenizer.vocab"]
    assert keys(cache_dir=str(tmp_path / "x.jsonl")) == ["data.cache_dir"]
    assert prepare_corpus(replace(config, heldout_fraction=0.0), 300).heldout.total == 0


def test_documents_are_counted_before_anything_is_tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning and tokenising one long document takes minutes; that none is held out is known before."""

    def too_late(*arguments: object) -> None:
        raise AssertionError("begun")

    monkeypatch.setattr(corpus_module.tokenizers, "train_bpe", too_late)
    monkeypatch.setattr(corpus_module, "tokenize_source", too_late)
    held, kept = (next(t for t in make_texts(1, 60) if expected_heldout(t) is side) for side in (True, False))
    for texts, key, rule in [
        ([kept], "data.heldout_fraction", "none of 1 documents"),
        ([held, held], "data.sources.0.paths", "all 2 documents"),
    ]:
        (problem,) = problems_of(config_for(tmp_path, texts), 300)
        assert (problem.key, rule in problem.rule) == (key, True)
    other = SourceConfig(name="b", paths=[str(tmp_path / "b.txt")])
    (tmp_path / "b.txt").write_text(kept, encoding="utf-8")
    config = config_for(tmp_path, [held, kept])
    for whole in (replace(config, sources=[*config.sources, other]), replace(config, heldout_fraction=0.0)):
        with pytest.raises(AssertionError, match="begun"):  # a source of one document, beside another
            prepare_corpus(whole, 300)


def test_processes_share_the_work(tmp_path: Path) -> None:
    config = config_for(tmp_path, make_texts(1, 60))
    script = (
        "import sys; from trainer.config.groups.data import *; from trainer.data.corpus import prepare_corpus\n"
        f"config = {config!r}\n"
        "corpus = prepare_corpus(config, 300, print)\n"
        "print('total', corpus.train[0].total, corpus.tokenizer.fingerprint)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [process.communicate(timeout=120)[0].splitlines() for process in running]
    assert lines[0][-1] == lines[1][-1]
    assert lines[0][-1].startswith("total ")
    assert sum("learnt" in line for out in lines for line in out) == 1
    assert sum("tokenised" in line for out in lines for line in out) == 1
    assert not list((tmp_path / "cache").glob(".tmp-*"))
