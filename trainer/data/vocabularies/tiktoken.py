"""A file of tiktoken: a base64 token and its rank on each line. Its scheme, which the file lacks, goes by its length.

Patterns and special tokens: tiktoken 0.14, tiktoken_ext/openai_public.py (gpt2, cl100k_base, o200k_base);
github.com/meta-llama/llama3, llama/tokenizer.py; huggingface.co/Qwen/Qwen-7B, tokenization_qwen.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

import tokenizers

from trainer.data.vocabularies.byte_level import byte_level, spelt
from trainer.data.vocabularies.sentencepiece import Unfit

LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n?")
GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
CL100K = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDINGS}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDINGS}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
END = "<|endoftext|>"


@dataclass(frozen=True)
class Scheme:
    """special: tokens with their ids. end: the one behind a text."""

    name: str
    pattern: str
    special: dict[str, int]
    end: str


def _llama3() -> dict[str, int]:
    reserved = [f"<|reserved_special_token_{number}|>" for number in range(251)]
    named = ["<|begin_of_text|>", "<|end_of_text|>", *reserved[:4], "<|start_header_id|>", "<|end_header_id|>"]
    return {text: 128_000 + n for n, text in enumerate([*named, reserved[4], "<|eot_id|>", *reserved[5:]])}


def _qwen() -> dict[str, int]:
    named = [END, "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205))]
    return {text: 151_643 + n for n, text in enumerate(named)}


FILL = {name: 100_258 + n for n, name in enumerate(("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"))}
SCHEMES = {
    50_256: Scheme("gpt2", GPT2, {END: 50_256}, END),
    100_256: Scheme("cl100k_base", CL100K, {END: 100_257, **FILL, "<|endofprompt|>": 100_276}, END),
    128_000: Scheme("Llama 3", CL100K, _llama3(), "<|end_of_text|>"),
    151_643: Scheme("Qwen", CL100K.replace("{1,3}", ""), _qwen(), END),
    199_998: Scheme("o200k_base", O200K, {END: 199_999, "<|endofprompt|>": 200_018}, END),
}
"""By the number of ranks."""


def is_tiktoken(data: bytes) -> bool:
    """Whether bytes begin as such a file does."""
    return LINE.match(data[:1000]) is not None


def from_tiktoken(data: bytes) -> tuple[tokenizers.Tokenizer, str]:
    """The tokenizer, and the token that ends a text. Raises Unfit."""
    ranks = _ranks(data)
    scheme = SCHEMES.get(len(ranks))
    if scheme is None:
        known = ", ".join(f"{size:,} ({one.name})" for size, one in SCHEMES.items())
        raise Unfit(f"how text is cut into words is not in the file, and {len(ranks):,} ranks are no scheme of {known}")
    vocab = {spelt(token): rank for token, rank in ranks.items()}
    special = sorted(scheme.special, key=lambda text: scheme.special[text])
    # The library gives added tokens the next ids: those that the scheme leaves out get names that no text has.
    first, last = len(ranks), max(scheme.special.values())
    names = {rank: text for text, rank in scheme.special.items()}
    every = [names.get(rank, f"<|unused_{rank}|>") for rank in range(first, last + 1)]
    made = byte_level(vocab, _merges(ranks), every, scheme.pattern, whole=True)
    if any(made.token_to_id(text) != scheme.special[text] for text in special):
        raise Unfit(f"a special token of {scheme.name} is a token of the file")
    return made, scheme.end


def _ranks(data: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        token, _, rank = line.partition(b" ")
        try:
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (binascii.Error, ValueError):
            raise Unfit(f"line {number:,} is no base64 token and its rank") from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise Unfit("its ranks are not 0, 1, 2, ... each once")
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise Unfit("not every byte is one of its tokens")
    return ranks


def _merges(ranks: dict[bytes, int]) -> list[tuple[str, str]]:
    """For each token the two that it is merged of, by rank: what is left when its bytes are merged by lower ranks."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda one: one[1]):
        if len(token) > 1 and len(parts := _parts(ranks, token, rank)) == 2:
            merges.append((spelt(parts[0]), spelt(parts[1])))
    return merges


def _parts(ranks: dict[bytes, int], token: bytes, limit: int) -> list[bytes]:
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [(ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1)]
        rank, place = min(pairs)
        if rank >= limit:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts
