"""Helpers of the data tests; holds no test itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from trainer.data.corpus import Corpus
from trainer.data.indexed import IndexedWriter
from trainer.data.stream import TokenStream
from trainer.data.tokenizer import Tokenizer


def byte_tokenizer() -> Tokenizer:
    """One id per byte (in the alphabet's order) and <|endoftext|> as id 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(inner, "<|endoftext|>")


def write_documents(prefix: Path, documents: list[list[int]], vocab: int = 300) -> TokenStream:
    with IndexedWriter(prefix, vocab) as writer:
        for document in documents:
            writer.append(document)
    return TokenStream.open(prefix)


def random_documents(seed: int, count: int, longest: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[*rng.integers(0, 256, rng.integers(0, longest)).tolist(), 256] for _ in range(count)]


def make_corpus(directory: Path, sizes: list[int], weights: list[float], heldout: list[str]) -> Corpus:
    """A corpus of random sources (`sizes` documents each) and the given held-out texts, without prepare_corpus."""
    tokenizer = byte_tokenizer()
    train = [write_documents(directory / f"train{i}", random_documents(i, size, 40)) for i, size in enumerate(sizes)]
    held = [[*ids, tokenizer.eod] for ids in tokenizer.encode_batch(heldout)]
    names = [f"s{i}" for i in range(len(sizes))]
    return Corpus(tokenizer, names, weights, train, write_documents(directory / "heldout", held), [], {})
