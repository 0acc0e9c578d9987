"""Evaluation sets as they are read: what is wrong with each is said under its key, before the model is built."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.config.groups.evaluation import EvaluationSetConfig as SetConfig
from trainer.config.schema import Config
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.errors import ConfigError, DataError
from trainer.training.scoring import Shape, _batch
from trainer.training.sets import ChoiceSet, ExactSet, TextSet, read_sets

TEXT = "the cat sat on the mat and said nothing at all\n" * 40


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Config, Corpus]:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text(TEXT)
    (tmp_path / "other.txt").write_text(TEXT[:90])
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": "the cat", "choices": ["sat", "mat"], "answer": 0}))
    (tmp_path / "exact.jsonl").write_text(json.dumps({"prompt": "the cat", "answer": "sat", "tokens": 4}))
    data = DataConfig(
        sources=[SourceConfig(paths=[str(tmp_path / "corpus")])],
        tokenizer=TokenizerConfig(vocab=300),
        seq_len=16,
        heldout_fraction=0.0,
        cache_dir=str(tmp_path / "cache"),
    )
    return Config(data=data), prepare_corpus(data, 512)


def with_sets(config: Config, *sets: SetConfig, best: str | None = None) -> Config:
    return replace(config, evaluation=EvaluationConfig(sets=list(sets), best=best))


def test_each_kind_is_read(prepared: tuple[Config, Corpus], tmp_path: Path) -> None:
    config, corpus = prepared
    sets = [SetConfig("other", paths=[str(tmp_path / "other.txt")])]
    sets += [SetConfig(name, "tasks", [str(tmp_path / f"{name}.jsonl")]) for name in ("quiz", "exact")]
    text, quiz, exact = read_sets(with_sets(config, *sets), corpus, False, None)
    assert isinstance(text, TextSet)
    assert text.tokens.documents == 1
    assert corpus.tokenizer.decode(text.tokens.document(0)[:-1]) == TEXT[:90]
    assert isinstance(quiz, ChoiceSet)
    assert [len(row.tokens) - row.targets for row in quiz.scored.rows] == [2, 2]
    assert isinstance(exact, ExactSet)
    assert corpus.tokenizer.decode(exact.prompts[0]) == "the cat"
    assert len({text.fingerprint, quiz.fingerprint, exact.fingerprint}) == 3
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": "a cat", "choices": ["sat", "mat"], "answer": 0}))
    assert read_sets(with_sets(config, sets[1]), corpus, False, None)[0].fingerprint != quiz.fingerprint


def test_the_problems_of_all_sets_are_said_together(prepared: tuple[Config, Corpus], tmp_path: Path) -> None:
    config, corpus = prepared
    (tmp_path / "bad.jsonl").write_text('{"question": "x", "choices": ["a", "b"], "answer": 2}\n{"x": 1}\n')
    sets = [
        SetConfig("gone", paths=[str(tmp_path / "nowhere.txt")]),
        SetConfig("bad", "tasks", [str(tmp_path / "bad.jsonl")]),
        SetConfig("fine", paths=[str(tmp_path / "other.txt")]),
    ]
    with pytest.raises(DataError) as raised:
        read_sets(with_sets(config, *sets), corpus, False, None)
    keys = [problem.key for problem in raised.value.problems]
    assert keys == ["evaluation.sets.0.paths", f"{tmp_path}/bad.jsonl:1", f"{tmp_path}/bad.jsonl:2"]
    assert "(set gone)" in raised.value.problems[0].rule
    assert "evaluation.sets.1, set bad" in raised.value.problems[1].rule


def test_what_a_backend_cannot_score_is_the_configurations_mistake(
    prepared: tuple[Config, Corpus], tmp_path: Path
) -> None:
    config, corpus = prepared
    exact = with_sets(config, SetConfig("exact", "tasks", [str(tmp_path / "exact.jsonl")]))
    with pytest.raises(ConfigError, match="logits"):
        read_sets(exact, corpus, True, None)
    assert len(
        read_sets(with_sets(config, SetConfig("q", "tasks", [str(tmp_path / "quiz.jsonl")])), corpus, True, None)
    )


@pytest.mark.parametrize(("name", "metric", "usual"), [("quiz", "exact_match", "acc"), ("exact", "acc", "exact_match")])
def test_best_is_a_metric_of_the_files_kind(
    name: str, metric: str, usual: str, prepared: tuple[Config, Corpus], tmp_path: Path
) -> None:
    config, corpus = prepared
    one = SetConfig(name, "tasks", [str(tmp_path / f"{name}.jsonl")])
    with pytest.raises(ConfigError, match=f"evaluation.best={name}/{usual}"):
        read_sets(with_sets(config, one, best=f"{name}/{metric}"), corpus, False, None)
    read_sets(with_sets(config, one, best=f"{name}/{usual}"), corpus, False, None)


def test_a_row_is_a_microbatch_of_the_shape_that_is_asked_for(prepared: tuple[Config, Corpus], tmp_path: Path) -> None:
    config, corpus = prepared
    (quiz,) = read_sets(with_sets(config, SetConfig("q", "tasks", [str(tmp_path / "quiz.jsonl")])), corpus, False, None)
    assert isinstance(quiz, ChoiceSet)
    row = quiz.scored.rows[0]
    size = len(row.tokens) - 1
    free, fixed = (_batch(row, Shape(2, 16, free)) for free in (True, False))
    assert free.tokens.shape == (1, size)
    assert fixed.tokens.shape == (2, 16)
    for batch in (free, fixed):
        targets = batch.labels[0, :size]
        assert targets[-row.targets :].tolist() == list(row.tokens[-row.targets :])
        assert (targets[: -row.targets] == -100).all()
        assert batch.positions[0, :size].tolist() == list(range(size))
    assert (fixed.labels[0, size:] == -100).all()
    assert (fixed.labels[1] == -100).all()
    assert (fixed.document_ids[1] == -1).all()
    assert (_batch(None, Shape(2, 16, True)).labels == -100).all()
