"""Nearly equal documents, against the Jaccard index of sets of runs of five words."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_preparing import documents_of, expected, files_of
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.preparing import duplicates, units
from trainer.data.preparing.near import MINIMA, MinHash, band_length
from trainer.data.preparing.preparation import Options, Prepared, prepare
from trainer.data.tokenizer import train_bpe


def runs(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4))}


def jaccard(one: str, other: str) -> float:
    a, b = runs(one), runs(other)
    return len(a & b) / len(a | b)


def changed(words: list[str], count: int, draw: random.Random) -> str:
    """The text with some words replaced."""
    found = list(words)
    for at in draw.sample(range(len(words)), count):
        found[at] = f"other{draw.randrange(10**6)}"
    return " ".join(found)


@pytest.mark.parametrize("count", [0, 1, 5, 20, 60])
def test_minima_agree_in_the_share_that_sets_have_in_common(count: int) -> None:
    draw = random.Random(count)
    take = MinHash()
    shares, truths = [], []
    for _ in range(20):
        words = [f"word{draw.randrange(5000)}" for _ in range(300)]
        one, other = " ".join(words), changed(words, count, draw)
        shares.append((take(one) == take(other)).mean())
        truths.append(jaccard(one, other))
    assert np.mean(shares) == pytest.approx(np.mean(truths), abs=4 * 0.5 / np.sqrt(MINIMA * 20))
    assert max(abs(np.subtract(shares, truths))) < 5 * 0.5 / np.sqrt(MINIMA)


def test_bands_let_most_pairs_at_the_threshold_be_candidates() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9):
        length = band_length(threshold)
        assert 1 - (1 - threshold**length) ** (MINIMA // length) >= 0.95
        assert 1 - (1 - threshold ** (length + 1)) ** (MINIMA // (length + 1)) < 0.95


@pytest.mark.parametrize("text", ["", " \n ", "one", "a b c d", "a b c d e"])
def test_short_texts_have_minima_too(text: str) -> None:
    take = MinHash()
    assert (take(text) == take(f" {text.upper()}\n")).all()
    assert (take(text) == take(text + " more words than before")).mean() < 0.5


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Two sources of texts of which some are copies of others, closely or remotely."""
    monkeypatch.setattr(units, "SMALLEST", 80_000)
    monkeypatch.setattr(duplicates, "BUCKET_BYTES", 600_000)
    draw = random.Random(3)
    originals = [[f"word{draw.randrange(3000)}" for _ in range(draw.randint(200, 300))] for _ in range(60)]
    sources = []
    for name in ("a", "b"):
        texts = [changed(draw.choice(originals), draw.choice([0, 0, 1, 30, 40]), draw) for _ in range(150)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        sources.append(SourceConfig(name=name, paths=[str(tmp_path / f"{name}.jsonl")]))
    (tmp_path / "tokenizer").mkdir()
    train_bpe(iter(["word other 0123456789"]), 270).save(tmp_path / "tokenizer" / "tokenizer.json")
    tokenizer = TokenizerConfig(kind="file", path=str(tmp_path / "tokenizer"))
    return DataConfig(sources=sources, tokenizer=tokenizer, heldout_fraction=0.0)


def run(config: DataConfig, output: Path, processes: int) -> list[Prepared]:
    return prepare(config, Options(output, processes, 10**6, "near", 0.8), lambda line: None)


@pytest.mark.slow
def test_what_is_near_an_earlier_document_is_left_out(config: DataConfig, tmp_path: Path) -> None:
    done = run(config, tmp_path / "out", 2)
    texts = {
        name: [json.loads(line)["text"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("a", "b")
    }
    every = [*texts["a"], *texts["b"]]
    most = [max([0.0, *(jaccard(text, other) for other in every[:at])]) for at, text in enumerate(every)]
    assert not any(0.65 < one < 0.9 for one in most)  # no text on which an estimate may differ
    kept = {
        "a": [text for text, one in zip(texts["a"], most, strict=False) if one < 0.8],
        "b": [text for text, one in zip(texts["b"], most[len(texts["a"]) :], strict=True) if one < 0.8],
    }
    assert 60 < len(kept["a"]) < 140
    for one in done:
        found = documents_of(tmp_path / "out" / one.name, "train-00000")
        assert found == expected(kept[one.name], tmp_path / "tokenizer", 0.0)["train"]
        removed = len(texts[one.name]) - len(kept[one.name])
        assert one.manifest["dedup"] == {"method": "near", "threshold": 0.8, "removed": removed}
    run(config, tmp_path / "one", 1)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "out")
