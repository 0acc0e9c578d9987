"""Long documents in pieces: the same ids as the tokenizers library gives the whole text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from trainer.data import cutting, encoding
from trainer.data.cutting import Cutter
from trainer.data.encoding import encoded
from trainer.data.tokenizer import Tokenizer, train_bpe

LLAMA3 = "|".join([
    *("(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*"),
    *(r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"),
])  # fmt: skip
DEEPSEEK = [
    "[\r\n]",
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u03ff\u0400-\u052f]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    "\\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
]
WORDS = [
    *("a", "the", "Zebra", "x9", "1234567", "don't", "\u4f60\u597d", "caf\u00e9", "e\u0301", "\U0001f600", "\u2581"),
    *(
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        " \n ",
        ".",
        "\u3002",
        "\uff0c",
        "--",
        "'s",
        "'",
        "_",
        "<b>",
        "<|endoftext|>",
    ),
]
SAMPLE = 3 * [
    *(" ".join(WORDS), "".join(WORDS), "the the zebra a a 12 34 1234 the. The, a\nthe\n"),
    *("don't you'll", "\u4f60\u597d\u3002\u4f60"),
]


def byte_level(pre: pre_tokenizers.PreTokenizer, vocab: int = 400, normalizer: object = None) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre
    inner.decoder = decoders.ByteLevel()
    if normalizer is not None:
        inner.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(SAMPLE, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False,
    ))  # fmt: skip
    return inner


def split(*patterns: str, digits: bool = False) -> pre_tokenizers.PreTokenizer:
    steps: list[object] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    steps += [pre_tokenizers.Digits(individual_digits=True)] * digits
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentencepiece(pre: pre_tokenizers.PreTokenizer | None, model: str = "BPE") -> tokenizers.Tokenizer:
    """Metaspace for words, or Llama 2's: a normalizer, and all of a text is one word."""
    learnt = tokenizers.Tokenizer(models.BPE(unk_token="<unk>") if model == "BPE" else models.Unigram())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<|endoftext|>"]
    if model == "BPE":
        trainer: object = trainers.BpeTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    else:
        trainer = trainers.UnigramTrainer(vocab_size=70, special_tokens=special, unk_token="<unk>", show_progress=False)
    learnt.train_from_iterator(SAMPLE, trainer)
    if pre is None:
        learnt.pre_tokenizer = None  # type: ignore[assignment]
        learnt.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        learnt.pre_tokenizer = pre
    return learnt


KINDS: dict[str, tuple[Callable[[], tokenizers.Tokenizer], bool]] = {
    "ours": (lambda: train_bpe(iter(SAMPLE), 400).inner, True),
    "gpt2 with a blank first": (lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), True),
    "llama3": (lambda: byte_level(split(LLAMA3)), True),
    "llama3 with NFC": (lambda: byte_level(split(LLAMA3), 400, normalizers.NFC()), True),
    "deepseek": (lambda: byte_level(split(*DEEPSEEK, digits=True)), True),
    "metaspace": (lambda: sentencepiece(pre_tokenizers.Metaspace()), True),
    "metaspace without a blank first": (lambda: sentencepiece(pre_tokenizers.Metaspace(prepend_scheme="never")), True),
    "unigram": (lambda: sentencepiece(pre_tokenizers.Metaspace(), "Unigram"), True),
    "llama2": (lambda: sentencepiece(None), True),
    "one word": (lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)), False),
    "metaspace that does not split": (lambda: sentencepiece(pre_tokenizers.Metaspace(split=False)), False),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Tokenizer, bool]:
    make, cut = KINDS[request.param]
    return Tokenizer(make(), "<|endoftext|>"), cut


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), min_size=8, max_size=120), window=st.sampled_from([2, 5, 128]))
def test_pieces_have_the_ids_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, kind: tuple[Tokenizer, bool], words: list[str], window: int
) -> None:
    monkeypatch.setattr(cutting, "WINDOW", window)
    for module in (cutting, encoding):
        monkeypatch.setattr(module, "PIECE", 5)
    tokenizer, _ = kind
    text = "".join(words)
    ((_, found),) = encoded([text], tokenizer)
    (whole,) = tokenizer.encode_batch([text])
    assert found.tolist() == [*whole, tokenizer.eod]


def test_plain_text_is_cut_where_that_is_safe(monkeypatch: pytest.MonkeyPatch, kind: tuple[Tokenizer, bool]) -> None:
    monkeypatch.setattr(cutting, "PIECE", 20)
    tokenizer, cut = kind
    pieces = list(Cutter(tokenizer.inner).pieces("the zebra is a zebra and " * 20))
    assert (len(pieces) > 10) == cut


@pytest.mark.parametrize("text", ["\u4f60\u597d\uff0c\u4f60\u597d\u3002" * 50, "1234\n" * 100, "f(x);g(y);" * 60])
def test_text_without_blanks_is_cut_too(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(cutting, "PIECE", 20)
    for name in ("ours", "llama3", "deepseek"):
        inner = KINDS[name][0]()
        pieces = list(Cutter(inner).pieces(text))
        assert "".join(pieces) == text
        if "(" not in text:
            assert len(pieces) > 3


def test_an_added_token_with_a_blank_forbids_cuts() -> None:
    inner = KINDS["ours"][0]()
    assert Cutter(inner).cuts
    inner.add_tokens(["two words"])
    assert not Cutter(inner).cuts
