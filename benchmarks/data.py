"""Our loader beside others', in turn: packed samples of 2,048 tokens, eight to a batch, in random order, one process.

    OMP_NUM_THREADS=1 python -m benchmarks.data [--rounds 9] [--batches 100] [--tokens 24e6]

Whoever is not installed is passed over: pip install --no-deps --target RIVALS litdata lightning-utilities
mosaicml-streaming megatron-core brotli python-snappy cramjam zstd catalogue, and RIVALS on PYTHONPATH. Ratios are of
tokens/s (ours / theirs), round by round, and their median. The others' rows are packed beforehand; megatron-core cuts
the same files as ours. Ours besides with the keys of dropout, which the others do not have.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data_rivals import rivals
from tests.unit.test_data_support import byte_tokenizer
from trainer.data.corpus import Corpus
from trainer.data.indexed import IndexedWriter
from trainer.data.loader import TrainLoader
from trainer.data.packing import PackedSamples
from trainer.data.packings import Packing
from trainer.data.stream import TokenStream

SEQ, BATCH, SEED, VOCAB, EOD = 2048, 8, 1, 50_000, 0


def write_tokens(prefix: Path, tokens: int) -> TokenStream:
    """Documents of 400 tokens in the median and of all lengths, each with an end."""
    drawn, written = np.random.default_rng(0), 0
    with IndexedWriter(prefix, VOCAB) as writer:
        while written < tokens:
            length = int(np.clip(drawn.lognormal(6, 1), 5, 20_000))
            writer.append([*drawn.integers(1, VOCAB, length - 1).tolist(), EOD])
            written += length
    return TokenStream.open(prefix, ids=VOCAB)


def ours(stream: TokenStream, packing: Packing, draws: bool = False) -> Iterator[Any]:
    """Batches of the training loader, made in this thread."""
    corpus = Corpus(byte_tokenizer(), ["tokens"], [1.0], [stream], stream, [], {})
    loader = TrainLoader(corpus, SEQ, True, SEED, BATCH, BATCH, 0, 1, None, prefetch=0, packing=packing, draws=draws)
    return (step.microbatches[0] for step in loader)


def contenders(folder: Path, tokens: int) -> dict[str, Callable[[], Iterator[Any]]]:
    stream = write_tokens(folder / "tokens", tokens)
    packed = PackedSamples(stream, SEQ, document_mask=True)
    print(f"{stream.total:,} tokens in {stream.documents:,} documents, {len(packed):,} samples")
    return {
        "ours": lambda: ours(stream, Packing()),
        "ours, with keys": lambda: ours(stream, Packing(), draws=True),
        "ours, best fit": lambda: ours(stream, Packing("best_fit")),
        **rivals(folder, packed, BATCH, SEED, stream.documents, EOD),
    }


def timed(batches: Iterator[Any], count: int) -> float:
    """Tokens per second of so many batches."""
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * BATCH * SEQ / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--tokens", type=float, default=24e6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        running = {}
        for name, make in contenders(Path(scratch).absolute(), int(options.tokens)).items():
            try:
                running[name] = make()
                timed(running[name], 8)  # the first batches open files
            except (ImportError, RuntimeError) as error:
                print(f"{name}: not here ({type(error).__name__}: {error})")
                running.pop(name, None)
        found: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(options.rounds):
            for name, batches in running.items():
                found[name].append(timed(batches, options.batches))
        print(f"{'':<22}{'M tokens/s':>12}{'ours / it':>12}  rounds")
        for name, speeds in found.items():
            ratios = [mine / its for mine, its in zip(found["ours"], speeds, strict=True)]
            each = " ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{name:<22}{statistics.median(speeds) / 1e6:>12.2f}{statistics.median(ratios):>11.2f}x  {each}")


if __name__ == "__main__":
    main()
