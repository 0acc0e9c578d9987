"""A .model of the SentencePiece library, BPE or Unigram, as a tokenizer that gives the same ids.

Field numbers and defaults: sentencepiece_model.proto of github.com/google/sentencepiece, release 0.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from trainer.data.vocabularies.protobuf import NotProtobuf, fields

PIECE, TRAINER, NORMALIZER = 1, 2, 3
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE = 1, 2
MODEL_TYPES = {3: "words", 4: "characters"}
MODEL_TYPE, WHITESPACE_AS_SUFFIX, BYTE_FALLBACK, EOS_ID, EOS_PIECE = 3, 24, 35, 42, 47
CHARSMAP, ADD_DUMMY_PREFIX, REMOVE_EXTRA_WHITESPACES, ESCAPE_WHITESPACES = 2, 3, 4, 5
SPACE = "\u2581"
NEVER = -1e6
"""Score of pieces that no text becomes: the library has them in the vocabulary that it takes the best cut from."""


class Unfit(ValueError):
    """A vocabulary that cannot be read into the same tokens; the words say why."""


@dataclass(frozen=True)
class Piece:
    """text, score, and one of the kinds above."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class Model:
    """What a .model says. trainer, normalizer: their fields by number, the last of each."""

    pieces: list[Piece]
    trainer: dict[int, Any]
    normalizer: dict[int, Any]

    @property
    def eos(self) -> str | None:
        """The piece that ends a text; None where training was told to have none."""
        index = _signed(self.trainer.get(EOS_ID, 2))
        return self.pieces[index].text if 0 <= index < len(self.pieces) else None


def is_model(data: bytes) -> bool:
    """Whether bytes begin as a .model does: with a piece, whose text comes first."""
    return data[:1] == b"\x0a" and b"\x0a" in data[1:4]


def read_model(data: bytes) -> Model:
    """Raises Unfit for what is no model of this library."""
    pieces: list[Piece] = []
    settings: dict[int, dict[int, Any]] = {TRAINER: {}, NORMALIZER: {}}
    try:
        for number, value in fields(data):
            if number == PIECE and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif number in settings and isinstance(value, bytes):
                settings[number] = dict(fields(value))
    except (NotProtobuf, TypeError, ValueError) as error:
        raise Unfit(f"it is no model of SentencePiece: {error}") from None
    if not pieces:
        raise Unfit("it is no model of SentencePiece: it has no pieces")
    if (odd := next((piece.text for piece in pieces if not math.isfinite(piece.score)), None)) is not None:
        raise Unfit(f"it is no model of SentencePiece: the score of {odd!r} is no finite number")
    return Model(pieces, settings[TRAINER], settings[NORMALIZER])


def from_sentencepiece(data: bytes) -> tuple[tokenizers.Tokenizer, str | None]:
    """The tokenizer, and the token that ends a text. Raises Unfit."""
    model = read_model(data)
    kind = model.trainer.get(MODEL_TYPE, UNIGRAM)
    if kind not in (UNIGRAM, BPE):
        raise Unfit(f"its tokens are {MODEL_TYPES.get(kind, f'of type {kind}')}; BPE and Unigram are read")
    if model.trainer.get(WHITESPACE_AS_SUFFIX, 0) or not model.normalizer.get(ESCAPE_WHITESPACES, 1):
        raise Unfit("its spaces do not stand before words as \u2581, and the tokenizers library has no such model")
    made = tokenizers.Tokenizer(_bpe(model) if kind == BPE else _unigram(model))
    prefixed = bool(model.normalizer.get(ADD_DUMMY_PREFIX, 1))
    made.normalizer = normalizers.Sequence(_normalizers(model, prefixed))
    if defined := _defined(model):
        # Each is one token wherever it stands. As added tokens they would begin a text of their own, with its prefix.
        pattern = Regex("|".join(re.escape(text) for text in sorted(defined, key=len, reverse=True)))
        made.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    ends = [decoders.Strip(" ", 1, 0)] if prefixed else []
    made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    special = [piece.text for piece in model.pieces if piece.kind in (UNKNOWN, CONTROL)]
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return made, model.eos


def _piece(message: bytes) -> Piece:
    found: dict[int, Any] = dict(fields(message))
    return Piece(bytes(found.get(1, b"")).decode(), float(found.get(2, 0.0)), int(found.get(3, NORMAL)))


def _signed(value: int) -> int:
    """An int32 that was written as a 64-bit varint."""
    return value - (1 << 64) if value >> 63 else value


def _defined(model: Model) -> list[str]:
    return [piece.text for piece in model.pieces if piece.kind == USER_DEFINED]


def _ids(model: Model) -> dict[str, int]:
    ids = {piece.text: index for index, piece in enumerate(model.pieces)}
    if len(ids) < len(model.pieces):
        raise Unfit("two of its pieces are one text")
    return ids


def _unknown(model: Model) -> int:
    found = [index for index, piece in enumerate(model.pieces) if piece.kind == UNKNOWN]
    if len(found) != 1:
        raise Unfit(f"one piece stands for unknown text; it has {len(found)}")
    return found[0]


def _unigram(model: Model) -> models.Unigram:
    _ids(model)
    fallback = bool(model.trainer.get(BYTE_FALLBACK, 0))
    pieces = [(piece.text, NEVER if piece.kind in (UNKNOWN, CONTROL) else piece.score) for piece in model.pieces]
    return models.Unigram(pieces, _unknown(model), fallback)


def _bpe(model: Model) -> models.BPE:
    """A merge for each way to make a piece of two others: the library joins whatever makes the best piece."""
    ids, unknown = _ids(model), model.pieces[_unknown(model)].text
    # Of two ways to the same piece the one whose left part is longer comes first: SentencePiece goes from the left.
    pieces = model.pieces
    ranked = sorted(_merges(model), key=lambda one: (-one[0], -len(pieces[one[1]].text)))
    return models.BPE(
        vocab=ids,
        merges=[(pieces[left].text, pieces[right].text) for _, left, right in ranked],
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=bool(model.trainer.get(BYTE_FALLBACK, 0)),
        ignore_merges=bool(_defined(model)),
    )


def _merges(model: Model) -> Iterator[tuple[float, int, int]]:
    """Score of the piece, and the ids of the two that it is made of."""
    normal = {piece.text: index for index, piece in enumerate(model.pieces) if piece.kind in (NORMAL, USER_DEFINED)}
    for text, index in normal.items():
        for cut in range(1, len(text)):
            left, right = normal.get(text[:cut]), normal.get(text[cut:])
            if left is not None and right is not None:
                yield model.pieces[index].score, left, right


def _precompiled(charsmap: Any) -> normalizers.Normalizer:
    """Raises Unfit for a map of characters that is damaged."""
    try:
        return normalizers.Precompiled(charsmap)
    except Exception as error:  # the library raises plain Exception for whatever it cannot parse
        raise Unfit(f"it is no model of SentencePiece: {error}") from None


def _normalizers(model: Model, prefixed: bool) -> list[normalizers.Normalizer]:
    made: list[normalizers.Normalizer] = []
    if charsmap := model.normalizer.get(CHARSMAP, b""):
        made.append(_precompiled(charsmap))
    if model.normalizer.get(REMOVE_EXTRA_WHITESPACES, 1):
        made += [normalizers.Strip(left=True, right=True), normalizers.Replace(Regex(" {2,}"), " ")]
    if prefixed:
        made.append(normalizers.Prepend(SPACE))
    return [*made, normalizers.Replace(" ", SPACE)]
