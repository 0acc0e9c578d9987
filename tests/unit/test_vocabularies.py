"""Vocabularies in other formats give the ids that their own libraries give."""

from __future__ import annotations

import base64
import io
import json
import random
import re
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import sentencepiece
import tiktoken
import tiktoken_ext.openai_public as published
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import models, pre_tokenizers, trainers

from trainer.config.groups.data import TokenizerConfig
from trainer.data import tokenizer_files
from trainer.data.tokenizer import BYTE_OF, Tokenizer
from trainer.data.vocabularies import tiktoken as ours
from trainer.errors import DataError

TEXT = [line for name in ("assignment", "strings", "if") for line in topics[name].split("\n") if line.strip()]
EVEN = [line for line in TEXT if not re.search(r"(\S+?)\1\1", line)]
"""Without runs such as *****: several cuts of these have one score in a Unigram model, and the two libraries round it
differently."""
HARD = [
    "",
    " ",
    "  two  spaces   and more    ",
    "a\tb\n\nc \r\n d",
    "na\u00efve \u4f60\u597d \U0001f469\u200d\U0001f680 \ufb01 \u00bd",
    "I'll say 12345678 times: DON'T!!!\n",
    "\u00a0\u3000wide",
    "a </s> b <s> <unk> c <pad>",
]


def load(path: Path, cache: Path) -> Tokenizer:
    return tokenizer_files.load(TokenizerConfig(kind="file", path=str(path)), cache)[0]


def refusal(path: Path, cache: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(path, cache)
    (problem,) = caught.value.problems
    assert problem.key == "data.tokenizer.path"
    return problem.rule


def sentencepiece_model(**options: object) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=600, minloglevel=2, **options
    )
    return model.getvalue()


KINDS = {
    "unigram": {},
    "bpe": {"model_type": "bpe"},
    "as Llama's": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
    },
    "as Gemma's": {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["<h1>", "\n\n"],
    },
    "unigram with bytes": {"byte_fallback": True, "user_defined_symbols": ["<mask>"]},
    "without an end": {"eos_id": -1, "pad_id": 2, "control_symbols": ["<|endoftext|>"]},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_sentencepiece(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(**options))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    found = load(tmp_path, tmp_path / "cache")
    assert found.size == theirs.vocab_size()
    lines = TEXT if options.get("model_type") == "bpe" else EVEN
    for text in [*lines, *HARD, "\n".join(lines)]:
        assert found.encode_batch([text])[0] == theirs.encode(text), text
    end = theirs.eos_id()
    assert found.eod_token == (theirs.id_to_piece(end) if end >= 0 else "<|endoftext|>")
    assert found.unknown == (None if options.get("byte_fallback") else theirs.unk_id())
    ids = theirs.encode(TEXT[0])
    assert found.decode(ids) == theirs.decode(ids)
    again = load(tmp_path, tmp_path / "cache")
    assert again.fingerprint == found.fingerprint == load(found.file or tmp_path, tmp_path).fingerprint


def test_what_lies_beside_a_model_is_kept(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(user_defined_symbols=["<end>"]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>", "chat_template": "x"}))
    found = load(tmp_path, tmp_path / "cache")
    assert found.eod_token == "<end>"
    assert found.file is not None
    assert json.loads((found.file.parent / "tokenizer_config.json").read_text())["chat_template"] == "x"


def gpt2_pair(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(TEXT, trainer)
    inner.model.save(str(directory))
    return directory


def test_gpt2s_pair(tmp_path: Path) -> None:
    directory = gpt2_pair(tmp_path / "pair")
    theirs = transformers.GPT2Tokenizer.from_pretrained(directory)
    for path in (directory, directory / "merges.txt", directory / "vocab.json"):
        found = load(path, tmp_path / "cache")
        assert found.eod_token == "<|endoftext|>"
        for text in [*TEXT, *HARD]:
            assert found.encode_batch([text])[0] == theirs(text)["input_ids"], text
    (directory / "vocab.json").rename(directory / "encoder.json")
    (directory / "merges.txt").rename(directory / "vocab.bpe")
    assert load(directory, tmp_path / "cache").encode_batch(TEXT) == [theirs(text)["input_ids"] for text in TEXT]


def test_pairs_that_are_none_of_gpt2s_are_refused(tmp_path: Path) -> None:
    directory = gpt2_pair(tmp_path / "pair")
    ids = json.loads((directory / "vocab.json").read_text())
    for wrong, words in (({**ids, "cat</w>": len(ids)}, "</w>"), ({"a": 0}, "255 are not"), ([], "no object")):
        (directory / "vocab.json").write_text(json.dumps(wrong))
        assert words in refusal(directory, tmp_path / "cache")
    (directory / "vocab.json").write_text(json.dumps({text: n for n, text in enumerate(ids) if n < 600}))
    assert "lacks one" in refusal(directory, tmp_path / "cache")


@pytest.mark.parametrize("kept", [0, 0.5])
def test_merges_that_were_cut_off_are_refused(tmp_path: Path, kept: float) -> None:
    """At the end of a line nothing else tells: each token whose merge is gone would count as special."""
    directory = gpt2_pair(tmp_path / "pair")
    lines = (directory / "merges.txt").read_text().splitlines(keepends=True)
    (directory / "merges.txt").write_text("".join(lines[: int(kept * len(lines))]))
    assert "all but a few" in refusal(directory, tmp_path / "cache")


def test_damaged_models_of_sentencepiece_are_refused(tmp_path: Path) -> None:
    """The map of characters is the library's own format; the rest is protobuf."""
    file = tmp_path / "a.model"
    file.write_bytes(sentencepiece_model())
    proto = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
    for charsmap in (b"\xff", b"\xff" * 300, proto.normalizer_spec.precompiled_charsmap[:1000]):
        proto.normalizer_spec.precompiled_charsmap = charsmap
        file.write_bytes(proto.SerializeToString())
        assert "no model of SentencePiece" in refusal(file, tmp_path / "cache")


@pytest.mark.parametrize("score", [b"\x15\0\0\xc0\x7f", b"\x15\0\0\x80\xff", b"\x12\x01x", b"\x1a\x01x"])
def test_scores_and_kinds_that_are_no_numbers_are_refused(tmp_path: Path, score: bytes) -> None:
    """NaN, minus infinity, and text in the place of the score and of the kind."""
    message = b"\x0a\x01a" + score
    (tmp_path / "a.model").write_bytes(b"\x0a%c%b" % (len(message), message) + sentencepiece_model())
    assert "no model of SentencePiece" in refusal(tmp_path / "a.model", tmp_path / "cache")


def random_ranks(count: int) -> dict[bytes, int]:
    """Tokens that are made of earlier ones, as merging makes them."""
    chance = random.Random(count)
    tokens = [bytes([byte]) for byte in range(256)]
    words = [word.encode() for line in TEXT for word in line.split(" ")]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    pairs = [word[i : i + size] for word in words for size in (2, 3, 4) for i in range(len(word) - size + 1)]
    made = (chance.choice(tokens) + chance.choice(tokens) for _ in range(100 * count))
    for token in chain(sorted(set(pairs), key=len), made):
        if len(ranks) == count:
            return ranks
        cuts = range(1, len(token))
        if token not in ranks and len(token) < 24 and any(token[:c] in ranks and token[c:] in ranks for c in cuts):
            ranks[token] = len(ranks)
            tokens.append(token)
    raise AssertionError


def write_ranks(file: Path, ranks: dict[bytes, int]) -> Path:
    file.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return file


PUBLISHED = {50_256: "gpt2", 100_256: "cl100k_base", 128_000: "cl100k_base", 199_998: "o200k_base"}
"""Llama 3 cuts words as cl100k_base does (github.com/meta-llama/llama3, llama/tokenizer.py)."""


MORE = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("count", [50_256, *(pytest.param(count, marks=MORE) for count in list(PUBLISHED)[1:])])
def test_tiktoken(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published vocabularies are on a network; the schemes that stand beside them in the package are not."""
    monkeypatch.setattr(published, "load_tiktoken_bpe", lambda *_, **__: {})
    monkeypatch.setattr(published, "data_gym_to_mergeable_bpe_ranks", lambda **_: {})
    known = getattr(published, PUBLISHED[count])()
    special = known["special_tokens"] if count != 128_000 else ours.SCHEMES[count].special
    ranks = random_ranks(count)
    theirs = tiktoken.Encoding("test", pat_str=known["pat_str"], mergeable_ranks=ranks, special_tokens=special)
    found = load(write_ranks(tmp_path / "tokenizer.model", ranks), tmp_path / "cache")
    for text in [*TEXT, *HARD, "".join(HARD)]:
        assert found.encode_batch([text])[0] == theirs.encode_ordinary(text), text
    assert {text: found.inner.token_to_id(text) for text in special} == special
    assert found.eod_token == ("<|end_of_text|>" if count == 128_000 else "<|endoftext|>")
    assert found.size == theirs.n_vocab


def test_tiktoken_files_of_no_scheme_are_refused(tmp_path: Path) -> None:
    ranks = random_ranks(300)
    assert "300 ranks are no scheme" in refusal(write_ranks(tmp_path / "a.tiktoken", ranks), tmp_path / "cache")
    ranks.pop(b"a")
    assert "0, 1, 2" in refusal(write_ranks(tmp_path / "a.tiktoken", ranks), tmp_path / "cache")
    (tmp_path / "a.tiktoken").write_bytes(b"YQ== 0\nYg== x\n")
    assert "line 2" in refusal(tmp_path / "a.tiktoken", tmp_path / "cache")


def test_text_that_spells_a_special_token_stays_text() -> None:
    """Where the model itself would emit it: the tokenizers library keeps special tokens in a Unigram's vocabulary."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((character, -5.0) for character in "</s>ab")]
    inner = tokenizers.Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=0))
    inner.add_special_tokens(["</s>"])
    found = Tokenizer(inner, "</s>")
    ids = [inner.token_to_id(character) for character in "a</s>b"]
    assert found.encode_batch(["a</s>b", "ab"]) == [ids, [ids[0], ids[-1]]]
    assert inner.encode("a</s>b", add_special_tokens=False).ids != ids


assert len(BYTE_OF) == 256
