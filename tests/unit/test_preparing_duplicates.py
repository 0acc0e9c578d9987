"""Equal documents over several sources, against a set of texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_preparing import FRACTION, documents_of, expected, files_of
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.preparing import duplicates, units
from trainer.data.preparing.groups import read_group, write_groups
from trainer.data.preparing.passes import Passes
from trainer.data.preparing.preparation import Options, Prepared, prepare
from trainer.data.tokenizer import train_bpe
from trainer.errors import DataError


def test_rows_of_a_group_are_those_that_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups, rows = rng.integers(0, 7, 500), rng.integers(0, 256, (500, 5)).astype(np.uint8)
    write_groups(tmp_path / "x", groups, rows, 9)
    for group in range(9):
        assert np.array_equal(read_group(tmp_path / "x", group, 9, 5), rows[groups == group])


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Three sources, cut into many units, that share texts with themselves and each other."""
    monkeypatch.setattr(units, "SMALLEST", 3000)
    monkeypatch.setattr(duplicates, "BUCKET_BYTES", 4000)
    rng = np.random.default_rng(1)
    sources = []
    for name in ("a", "b", "c"):
        texts = [f"text number {n} " * 3 for n in rng.integers(0, 400, 300)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        sources.append(SourceConfig(name=name, paths=[str(tmp_path / f"{name}.jsonl")]))
    (tmp_path / "tokenizer").mkdir()
    train_bpe(iter(["text number 0123456789"]), 270).save(tmp_path / "tokenizer" / "tokenizer.json")
    tokenizer = TokenizerConfig(kind="file", path=str(tmp_path / "tokenizer"))
    return DataConfig(sources=sources, tokenizer=tokenizer, heldout_fraction=FRACTION)


def run(config: DataConfig, output: Path, processes: int = 2) -> list[Prepared]:
    return prepare(config, Options(output, processes, 2000, "exact"), lambda line: None)


@pytest.mark.slow
def test_the_first_of_equal_documents_stays(config: DataConfig, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run(config, output)
    seen: set[str] = set()
    for one in done:
        lines = (tmp_path / f"{one.name}.jsonl").read_text().splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        kept = [text for text in texts if not (text in seen or seen.add(text))]  # type: ignore[func-returns-value]
        found: dict[str, list[list[int]]] = {"train": [], "heldout": []}
        for shard in one.manifest["shards"]:
            found[shard["part"]] += documents_of(output / one.name, shard["prefix"])
        assert found == expected(kept, tmp_path / "tokenizer")
        assert one.manifest["dedup"] == {"method": "exact", "threshold": None, "removed": len(texts) - len(kept)}
        assert one.manifest["dedup"]["removed"] > 50
    assert {path.name for path in output.iterdir()} == {"a", "b", "c", "tokenizer"}
    run(config, tmp_path / "one", processes=1)
    assert files_of(tmp_path / "one") == files_of(output)


@pytest.mark.slow
def test_a_pass_that_was_stopped_goes_on(config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise DataError([])

    run(config, tmp_path / "whole")
    for name in ("units", "shards"):
        with monkeypatch.context() as patch:
            patch.setattr(Passes, name, stop)
            with pytest.raises(DataError):
                run(config, tmp_path / "out")
    hashed = list((tmp_path / "out" / ".duplicates").glob("*.hashes"))
    assert len(hashed) > 10
    run(config, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_sources_are_added_behind_those_that_are_complete(config: DataConfig, tmp_path: Path) -> None:
    first, second, _ = config.sources
    run(replace(config, sources=[first, second]), tmp_path / "both")
    run(replace(config, sources=[first]), tmp_path / "out")
    with pytest.raises(DataError, match="a is complete, and was prepared without b"):
        run(replace(config, sources=[second, first]), tmp_path / "out")
    run(replace(config, sources=[first, second]), tmp_path / "out")
    assert files_of(tmp_path / "both") == files_of(tmp_path / "out")
