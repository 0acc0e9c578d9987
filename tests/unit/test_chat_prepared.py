"""Conversations that were prepared once are those that a run prepares itself; the mask goes along with the tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.families.tokenizers_of import TEMPLATE, by_hand
from tests.unit.test_chat_masks import rows
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.preparing.preparation import Options, prepare
from trainer.errors import DataError
from trainer.pretrained.tokenizer_files import tokenizer_files


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Conversations, two of which cannot be used, beside plain text."""
    every = [*rows(200), {"messages": [{"role": "user", "content": "x"}]}, {"messages": 3}]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in every))
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps({"text": f"the cat {n}"}) + "\n" for n in range(200)))
    return DataConfig(
        sources=[
            SourceConfig(name="talk", paths=[str(tmp_path / "talk.jsonl")], chat="auto"),
            SourceConfig(name="plain", paths=[str(tmp_path / "plain.jsonl")]),
        ],
        tokenizer=TokenizerConfig(kind="file", path=str(by_hand(tmp_path / "tokenizer"))),
        heldout_fraction=0.1,
        seq_len=16,
        cache_dir=str(tmp_path / "cache"),
    )


def all_of(corpus: Corpus) -> list[tuple[list[int], list[bool]]]:
    """Ids and mask of each stream."""
    found = []
    for stream in [*corpus.train, corpus.heldout]:
        whole = np.array([0]), np.array([stream.total])
        found.append((stream.slice(0, stream.total).tolist(), stream.trained(*whole).tolist()))
    return found


@pytest.mark.slow
def test_prepared_shards_have_the_tokens_and_the_masks_of_a_run(config: DataConfig, tmp_path: Path) -> None:
    direct = prepare_corpus(config, 300)
    assert {len(set(trained)) for _, trained in all_of(direct)} == {1, 2}, "plain text is trained on as a whole"
    done = prepare(config, Options(tmp_path / "out", 2, 700), lambda line: None)
    sources = [SourceConfig(name=one.name, kind="prepared", paths=[str(one.directory)]) for one in done]
    tokenizer = TokenizerConfig(kind="file", path=str(tmp_path / "out" / "tokenizer"))
    prepared = prepare_corpus(replace(config, sources=sources, tokenizer=tokenizer), 300)
    assert all_of(prepared) == all_of(direct)
    assert prepared.figures == direct.figures
    beside = tokenizer_files(tmp_path / "out" / "tokenizer")
    assert beside.templates == {"default": TEMPLATE}
    assert (beside.tokens["bos_token"], beside.tokens["eos_token"]) == ("<bos>", "<|im_end|>")
    manifest = json.loads((tmp_path / "out" / "talk" / "manifest.json").read_text())
    assert manifest["figures"]["train"]["untrained"] == sum(not one for one in all_of(direct)[0][1])
    assert len(manifest["shards"]) > 3
    assert all(shard["mask_bytes"] == shard["tokens"] for shard in manifest["shards"])
    assert not any(one.fresh for one in prepare(config, Options(tmp_path / "out", 2, 700), lambda line: None))
    other = replace(config, train_on="last")
    with pytest.raises(DataError, match="prepared otherwise: chat"):
        prepare(other, Options(tmp_path / "out", 2, 700), lambda line: None)


def test_a_mask_that_is_too_short_is_refused(config: DataConfig, tmp_path: Path) -> None:
    prepare(replace(config, sources=config.sources[:1]), Options(tmp_path / "out", 1), lambda line: None)
    (tmp_path / "out" / "talk" / "train-00000.mask").write_bytes(b"\1" * 10)
    source = SourceConfig(name="talk", kind="prepared", paths=[str(tmp_path / "out" / "talk")])
    tokenizer = TokenizerConfig(kind="file", path=str(tmp_path / "out" / "tokenizer"))
    with pytest.raises(DataError, match=r"mask[\s\S]*has 10 bytes where there are"):
        prepare_corpus(replace(config, sources=[source], tokenizer=tokenizer), 300)
