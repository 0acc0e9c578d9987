"""Characters come whole, and a stop string never shows, wherever tokens begin and end."""

from __future__ import annotations

import random

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from trainer.generation.text import StopStrings, TextStream
from trainer.generation.words import Words

TEXT = "naïve — 日本語 😀👩‍👧 e\u0301nd\n  two"


def bytes_only() -> Words:
    """A byte-level tokenizer without merges: a token is a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return Words(inner, (), {}, None)


def sentencepiece() -> Words:
    """Pieces whose space is in front, and bytes for what has none."""
    pieces = ["<unk>", "\u2581one", "\u2581two", "s", *(f"<0x{byte:02X}>" for byte in range(256))]
    inner = tokenizers.Tokenizer(
        models.BPE({piece: index for index, piece in enumerate(pieces)}, [], unk_token="<unk>")
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Words(inner, (), {}, None)


def test_every_piece_is_whole_and_together_they_are_the_text() -> None:
    words = bytes_only()
    ids = words.encode(TEXT)
    assert len(ids) == len(TEXT.encode())
    for cut in range(len(ids)):
        stream = TextStream(words, ids[:cut])
        pieces = [stream.push(token) for token in ids[cut:]]
        assert "".join(pieces) + stream.rest() == TEXT.encode()[cut:].decode(errors="ignore")[-len(TEXT) :]
        assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_character_are_told_once_they_can_be_none() -> None:
    words = bytes_only()
    byte = {value: words.encode(chr(value))[0] for value in range(128)}
    euro = words.encode("€")
    stream = TextStream(words, [byte[65]])
    pieces = [stream.push(token) for token in (euro[0], euro[1], byte[66], euro[0])]
    assert pieces[:2] == ["", ""]
    assert pieces[2].endswith("B")
    assert set(pieces[2][:-1]) == {"\ufffd"}
    assert pieces[3] == ""
    assert set(stream.rest()) == {"\ufffd"}


def test_an_answers_first_space_is_kept() -> None:
    words = sentencepiece()
    stream = TextStream(words, [1])
    snowman = [4 + byte for byte in "☃".encode()]
    assert [stream.push(token) for token in (2, 3, *snowman, 1)] == [" two", "s", "", "", "☃", " one"]


def test_a_stop_string_never_shows() -> None:
    """Against a search by prefixes, over random cuts of random texts of two letters."""
    chance = random.Random(5)
    for _ in range(3000):
        text = "".join(chance.choices("ab", k=chance.randint(0, 12)))
        stops = ["".join(chance.choices("ab", k=chance.randint(2, 4))) for _ in range(chance.randint(0, 3))]
        ends = ((text[:end], stop) for end in range(len(text) + 1) for stop in sorted(stops, key=len, reverse=True))
        complete = next((before.removesuffix(stop) for before, stop in ends if before.endswith(stop)), None)
        expected = text if complete is None else complete
        strings, shown, at = StopStrings(stops), "", 0
        while at < len(text):
            size = chance.randint(1, 4)
            shown += strings.push(text[at : at + size])
            at += size
            assert expected.startswith(shown)
        assert shown + strings.rest() == expected
        assert (strings.found is not None) == (complete is not None)
