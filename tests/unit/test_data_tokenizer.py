"""The bytes behind ids add up to the text; training is repeatable; bad tokenizers say what is wrong."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from tests.unit.test_data_support import byte_tokenizer
from trainer.config.groups.data import TokenizerConfig
from trainer.data import tokenizer_files
from trainer.data.tokenizer import Tokenizer, train_bpe
from trainer.errors import DataError

TRAINING = [
    "def f(x):\n\treturn x + 1\n" * 20,
    "the cat sat on the mat. " * 30,
    "\u00e4\u00f6\u00fc \u4f60\u597d \U0001f600 " * 9,
]
HARD = [
    "",
    " ",
    "\t\n\r\n  x",
    "na\u00efve \u4f60\u597d \U0001f469\u200d\U0001f680 \ufffd",
    "\x00\x7f\u00a0",
    "<|endoftext|> a </s>",
]


def load(config: TokenizerConfig) -> Tokenizer:
    return tokenizer_files.load(config, Path("unused"))[0]


def bytes_of(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(tokenizer.token_bytes[i] for i in ids)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_bpe(iter(TRAINING), 280)


def test_token_bytes_are_the_text(trained: Tokenizer) -> None:
    for text, ids in zip(HARD, trained.encode_batch(HARD), strict=True):
        assert bytes_of(trained, ids) == text.encode()
        assert trained.eod not in ids  # text that spells a special token stays text
    assert trained.token_bytes[trained.eod] == b""
    assert trained.size == len(trained.token_bytes) == 280
    assert trained.decode(trained.encode_batch(["a \u4f60\n"])[0]) == "a \u4f60\n"


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_token_bytes_of_any_text(text: str) -> None:
    tokenizer = byte_tokenizer()
    assert bytes_of(tokenizer, tokenizer.encode_batch([text])[0]) == text.encode()


def test_sentencepiece_style() -> None:
    vocab = {"<unk>": 0, "</s>": 1, "\u2581a": 2, "b": 3, "\u2581": 4, "a": 5} | {
        f"<0x{i:02X}>": 6 + i for i in range(256)
    }
    inner = tokenizers.Tokenizer(models.BPE(vocab, [("\u2581", "a")], unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "\u2581")
    inner.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    inner.add_special_tokens(["</s>"])
    inner.add_tokens(["<think>"])
    tokenizer = Tokenizer(inner, "</s>")
    text = "b a\n\u00e4 <think>"
    assert bytes_of(tokenizer, tokenizer.encode_batch([text])[0]) == text.encode()


def test_training_is_repeatable_across_processes(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from trainer.data.tokenizer import train_bpe\n"
        "import random; r = random.Random(5)\n"
        "words = [''.join(r.choices('abcdefgh', k=r.randint(1, 9))) for _ in range(3000)]\n"
        "texts = [' '.join(r.choices(words, k=200)) for _ in range(300)]\n"
        "train_bpe(iter(texts), 2000).save(Path(sys.argv[1]))\n"
    )
    digests = set()
    for i in range(3):
        file = tmp_path / f"{i}.json"
        subprocess.run([sys.executable, "-c", script, str(file)], check=True, timeout=120)
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_save_and_load(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "tokenizer.json")
    for path in [tmp_path, tmp_path / "tokenizer.json"]:
        again = load(TokenizerConfig(kind="file", path=str(path)))
        assert (again.size, again.eod, again.fingerprint) == (trained.size, trained.eod, trained.fingerprint)
    other = train_bpe(iter(TRAINING), 279)
    assert other.fingerprint != trained.fingerprint


def test_truncation_and_padding_of_a_file_are_ignored(trained: Tokenizer, tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer.from_str(trained.inner.to_str())
    inner.enable_truncation(4)
    inner.enable_padding(length=6)
    inner.save(str(tmp_path / "tokenizer.json"))
    text = "the dog and the cat sat somewhere else"
    loaded = load(TokenizerConfig(kind="file", path=str(tmp_path)))
    assert loaded.encode_batch([text, "a"]) == trained.encode_batch([text, "a"])


def save_with(directory: Path, special: list[str]) -> TokenizerConfig:
    inner = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel()
    inner.add_special_tokens(special)
    inner.save(str(directory / "tokenizer.json"))
    return TokenizerConfig(kind="file", path=str(directory))


def test_eod_is_found_or_asked_for(tmp_path: Path) -> None:
    config = save_with(tmp_path, ["<pad>", "<|im_end|>", "</s>"])
    assert load(config).inner.id_to_token(load(config).eod) == "</s>"
    config = save_with(tmp_path, ["<pad>", "<fin>"])
    with pytest.raises(DataError, match="<fin>") as caught:
        load(config)
    assert caught.value.problems[0].key == "data.tokenizer.eod"
    assert "data.tokenizer.eod=" in caught.value.problems[0].remedy
    for value in ["<fin>", {"content": "<fin>"}]:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": value}), encoding="utf-8")
        assert load(config).eod == load(TokenizerConfig(kind="file", path=str(tmp_path), eod="<fin>")).eod == 3
    with pytest.raises(DataError, match="no such token"):
        load(TokenizerConfig(kind="file", path=str(tmp_path), eod="<nix>"))


def test_what_the_directory_declares_comes_before_usual_names(tmp_path: Path) -> None:
    """As in Gemma's directories, where </s> is HTML's; transformers takes the same token."""
    config = save_with(tmp_path, ["<pad>", "<eos>", "<bos>"])
    inner = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    inner.add_tokens(["<s>", "</s>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="<pad>, <eos>, <bos>"):
        load(config)  # </s> is no special token
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps({"eos_token": {"content": "<eos>"}}), encoding="utf-8")
        found, why = tokenizer_files.load(config, tmp_path)
        theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path, eos_token="<eos>")
        assert (found.eod_token, found.eod) == ("<eos>", theirs.eos_token_id)
        assert why == f"as {name} says"
    assert found.eod not in found.encode_batch(["a</s>b"])[0]
    named = load(replace(config, eod="</s>"))
    assert named.eod_token == "</s>"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("tokenizer.model", "SentencePiece"),
        ("qwen.tiktoken", "tiktoken"),
        ("merges.txt", "GPT-2's pair"),
        ("vocab.bpe", "GPT-2's pair"),
    ],
)
def test_other_formats_are_named_for_what_they_are(tmp_path: Path, name: str, rule: str) -> None:
    (tmp_path / name).write_text("x")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError) as caught:
            load(TokenizerConfig(kind="file", path=str(path)))
        (problem,) = caught.value.problems
        assert rule in problem.rule
        assert name in problem.rule
        assert "save_pretrained" in problem.remedy


def unknowing(model: str) -> tokenizers.Tokenizer:
    """A tokenizer of a few words, without a token for anything else."""
    if model == "WordLevel":
        inner = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    elif model == "Unigram":
        inner = tokenizers.Tokenizer(models.Unigram([("[UNK]", 0.0), ("the", -1.0), ("cat", -1.0)], unk_id=0))
    else:
        inner = tokenizers.Tokenizer(models.BPE({"[UNK]": 0, "the": 1, "cat": 2}, [], unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(["</s>"])
    return inner


@pytest.mark.parametrize("model", ["WordLevel", "Unigram", "BPE"])
def test_unknown_text_has_an_id(model: str) -> None:
    tokenizer = Tokenizer(unknowing(model), "</s>")
    assert tokenizer.unknown == 0
    if model != "BPE":
        assert tokenizer.encode_batch(["the dog"])[0].count(0) == 1


def test_a_fallback_on_bytes_leaves_nothing_unknown() -> None:
    vocab = {"<unk>": 0, "</s>": 1} | {f"<0x{byte:02X}>": 2 + byte for byte in range(256)}
    whole = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    assert Tokenizer(whole, "</s>").unknown is None
    del vocab["<0x41>"]
    partly = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    assert Tokenizer(partly, "</s>").unknown == 0
    assert byte_tokenizer().unknown is None


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    for path in [None, str(tmp_path), str(tmp_path / "broken.json"), str(tmp_path / "none")]:
        with pytest.raises(DataError) as caught:
            load(TokenizerConfig(kind="file", path=path))
        assert caught.value.problems[0].key == "data.tokenizer.path"
    with pytest.raises(DataError, match="257"):
        train_bpe(iter(["a"]), 256)
