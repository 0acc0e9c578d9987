"""Preparing a corpus with scripts/prepare.py, with datasets.map, and as Megatron's tools/preprocess_data.py does it.

    python -m benchmarks.prepare [--megabytes 100] [--rounds 3] [--processes 2] [--megatron-core DIRECTORY]

The text is the standard library of the running Python as JSON lines, repeated; the tokenizer a byte-level BPE of 16,384
ids learnt from it. Each contestant is a command of its own, timed from its start to its end, and as one that is at work
already: `inside` leaves out imports and, of datasets, the conversion of JSON. Rounds are paired: all contestants run
in each, and ratios are medians over rounds. CPU: seconds of all processes of a command, which other work on the
machine hardly changes. megatron-core: where that package lies, whose IndexedDatasetBuilder
then writes; else a writer of the same bytes stands in. Megatron's script is not part of that package: `megatron` here
runs as it does, a pool that maps lines in chunks of 32, a process that writes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
BATCHES = (100, 1000, 4000)
VOCAB = 16384
CHUNK = 32


def texts() -> Iterator[str]:
    """The standard library, file by file."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if "site-packages" not in path.parts:
            yield path.read_text(encoding="utf-8", errors="replace")


def write_corpus(cwd: Path, megabytes: float) -> float:
    """rows.jsonl and a directory with a tokenizer; megabytes of text."""
    from trainer.data.tokenizer import train_bpe

    every = [text for text in texts() if text]
    written = 0.0
    with open(cwd / "rows.jsonl", "w", encoding="utf-8") as rows:
        while written < megabytes:
            for text in every:
                written += len(text.encode()) / 1e6
                rows.write(json.dumps({"text": text}) + "\n")
                if written >= megabytes:
                    break
    (cwd / "tokenizer").mkdir()
    train_bpe(iter(every[::4]), VOCAB).save(cwd / "tokenizer" / "tokenizer.json")
    return written


def with_transformers() -> Any:
    """The tokenizer as users of these libraries have it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file="tokenizer/tokenizer.json", eos_token="<|endoftext|>")


def map_datasets(processes: int, batch: int) -> float:
    """datasets.map over JSON lines, with only input_ids kept; seconds in map alone."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = with_transformers()
    rows = datasets.load_dataset("json", data_files="rows.jsonl", split="train", cache_dir="out/cache")
    began = time.perf_counter()
    rows.map(
        lambda some: {"input_ids": tokenizer(some["text"], return_attention_mask=False)["input_ids"]},
        batched=True,
        batch_size=batch,
        num_proc=processes,
        remove_columns=rows.column_names,
    )
    return time.perf_counter() - began


class Encoder:
    """Megatron's: a tokenizer for each process of the pool, a document for each call."""

    tokenizer: Any = None

    @staticmethod
    def begin() -> None:
        Encoder.tokenizer = with_transformers()

    @staticmethod
    def encode(line: str) -> tuple[list[int], int]:
        ids = Encoder.tokenizer(json.loads(line)["text"]).input_ids
        return [*ids, Encoder.tokenizer.eos_token_id], len(line)


class PlainBuilder:
    """Writes the tokens as megatron-core does: a document at a time."""

    def __init__(self, path: str, dtype: Any) -> None:
        self.file, self.dtype, self.lengths = open(path, "wb"), dtype, []  # noqa: SIM115

    def add_document(self, tokens: Any, lengths: list[int]) -> None:
        import numpy as np

        self.file.write(np.array(tokens, self.dtype).tobytes(order="C"))
        self.lengths += lengths

    def finalize(self, path: str) -> None:
        self.file.close()
        Path(path).write_text(json.dumps(self.lengths))


def preprocess_megatron(processes: int, package: str | None) -> float:
    """Seconds from the pool's start to the last document."""
    import numpy as np

    if package is not None:
        sys.path.insert(0, package)
        import torch
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder as Builder
    else:
        Builder = PlainBuilder
    began = time.perf_counter()
    builder = Builder("out.bin", dtype=np.uint16)
    with open("rows.jsonl", encoding="utf-8") as lines, Pool(processes, initializer=Encoder.begin) as pool:
        for ids, _ in pool.imap(Encoder.encode, lines, CHUNK):
            builder.add_document(torch.IntTensor(ids) if package is not None else ids, [len(ids)])
    builder.finalize("out.idx")
    return time.perf_counter() - began


def ours(processes: int) -> list[str]:
    """The command."""
    words = [sys.executable, str(ROOT / "scripts" / "prepare.py"), "--source", "rows.jsonl", "--output", "out"]
    words += ["--processes", str(processes), "data.tokenizer.kind=file", "data.tokenizer.path=tokenizer"]
    return words


def contestants(processes: int, package: str | None) -> dict[str, list[str]]:
    """A command for each."""
    itself = [sys.executable, "-m", "benchmarks.prepare", "--processes", str(processes), "--contestant"]
    more = [] if package is None else ["--megatron-core", package]
    found = {"ours, 1 process": ours(1), f"ours, {processes} processes": ours(processes)}
    found |= {f"datasets, batch {size}": [*itself, f"datasets-{size}"] for size in BATCHES}
    return found | {"megatron": [*itself, "megatron", *more]}


class Timed(NamedTuple):
    """Seconds of a command; those it says it was at work (without: all); those of CPU, in all its processes."""

    whole: float
    inside: float
    cpu: float


def timed(command: list[str], cwd: Path) -> Timed:
    """Run a contestant, with nothing left of those before."""
    for left in ("out", "out.bin", "out.idx"):
        path = cwd / left
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    quiet = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    home = {"HF_HOME": str(cwd / "home"), "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=os.environ | quiet | home, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = done.stdout.strip().splitlines()[-1]
    inside = float(last.removeprefix("inside ")) if last.startswith("inside ") else seconds
    return Timed(seconds, inside, cpu)


def compete(name: str, options: argparse.Namespace) -> None:
    """One contestant, in a process of its own."""
    kind, _, size = name.partition("-")
    if kind == "datasets":
        seconds = map_datasets(options.processes, int(size))
    else:
        seconds = preprocess_megatron(options.processes, options.megatron_core)
    print(f"inside {seconds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--megatron-core")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant is not None:
        compete(options.contestant, options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        size = write_corpus(Path(scratch), options.megabytes)
        every = contestants(options.processes, options.megatron_core)
        rounds = [{name: timed(words, Path(scratch)) for name, words in every.items()} for _ in range(options.rounds)]
    report(size, rounds, f"ours, {options.processes} processes")


def report(size: float, rounds: list[dict[str, Timed]], mine: str) -> None:
    """A row for each contestant: seconds, and how many times ours. size: megabytes of text."""
    print(f"{size:.0f} MB of text, {len(rounds)} rounds; medians")
    print(
        f"{'':<22}" + "".join(f"{word:>9}" for word in ("seconds", "inside", "CPU", "MB/s", "ratio", "inside", "CPU"))
    )
    for name in rounds[0]:
        seconds = [statistics.median(one[name][which] for one in rounds) for which in range(3)]
        ours = ((0, 0), (1, 0), (2, 2))  # a measure of theirs, and what of ours it is set beside
        ratios = [statistics.median(one[name][theirs] / one[mine][us] for one in rounds) for theirs, us in ours]
        print(f"{name:<22}" + "".join(f"{value:>9.2f}" for value in (*seconds, size / seconds[0], *ratios)), flush=True)


if __name__ == "__main__":
    main()
