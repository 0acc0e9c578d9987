"""Decoding against transformers' generate at its best: SmolLM2-135M, or any directory, on this CPU.

    OMP_NUM_THREADS=1 python benchmarks/generate.py DIRECTORY [--dtype bfloat16] [--batch 1 8] [--rounds 5]

transformers runs with a dynamic and with a static cache, each as it is and with its forward pass compiled (--eager
leaves that out, which takes ten minutes); the fastest of them counts. In each round all take turns, after a warm-up of
each. What is timed is a token behind the first: greedy continuations of NEW tokens less those of one, so that the
prompt does not count. Printed are medians of rounds and of ratios within a round, and beside them 0.85 of what reading
the weights once a token would allow: memory's bandwidth, measured as a sum over 256 MB, over the bytes of the weights.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from trainer.generation.fast import quicken
from trainer.generation.generate import generate
from trainer.generation.opened import Opened, opened_model
from trainer.generation.settings import GREEDY, Limits

PROMPT, NEW = 64, 32
"""Tokens."""
SHARE = 0.85
Continue = Callable[[int], object]
"""Continues the prompts by so many tokens."""


def ours(opened: Opened, prompts: list[list[int]]) -> Continue:
    quicken(opened)
    return lambda count: generate(opened, prompts, GREEDY, Limits(count))


def theirs(model: Any, prompts: list[list[int]], static: bool) -> Continue:
    tokens = torch.tensor(prompts)
    settings: dict[str, Any] = {"cache_implementation": "static"} if static else {}

    def run(count: int) -> object:
        # As many tokens as ours: no end of text before them.
        return model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            min_new_tokens=count,
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            **settings,
        )

    return run


def variants(plain: Any, eager: bool) -> dict[str, tuple[Any, bool]]:
    """transformers' model, eager and compiled, and whether its cache is static."""
    found = {}
    for static in (False, True):
        cache = f"{'static' if static else 'dynamic'} cache"
        found[f"transformers, eager, {cache}"] = plain, static
        if not eager:
            compiled = copy.copy(plain)
            # For a cache that grows: compiled once for all lengths, and not for each anew until torch gives up.
            compiled.forward = torch.compile(plain.forward, dynamic=None if static else True)
            found[f"transformers, compiled, {cache}"] = compiled, static
    return found


def seconds(run: Continue) -> float:
    """Of a token of every row."""
    times = []
    for count in (1, NEW):
        start = time.perf_counter()
        run(count)
        times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / (NEW - 1)


def bandwidth() -> float:
    """Bytes a second that a sum reads, the best of 10."""
    block = torch.ones(1 << 26)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        block.sum()
        times.append(time.perf_counter() - start)
    return block.nbytes / min(times)


def compare(runs: dict[str, Continue], rounds: int) -> dict[str, list[float]]:
    """Seconds a token, by round. The order turns round by round: nobody always goes first."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        start = time.perf_counter()
        run(NEW)
        run(1)
        print(f"  warm: {name}, {time.perf_counter() - start:.0f} s", flush=True)
    for number in range(rounds):
        for name in sorted(runs, reverse=bool(number % 2)):
            found[name].append(seconds(runs[name]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--eager", action="store_true")
    options = parser.parse_args()
    plain = AutoModelForCausalLM.from_pretrained(options.directory, dtype=getattr(torch, options.dtype)).eval()
    plain.generation_config.eos_token_id = None
    their = variants(plain, options.eager)
    size = sum(parameter.nbytes for parameter in plain.parameters())
    most = SHARE * bandwidth() / size
    print(f"{torch.get_num_threads()} threads; weights {size / 1e6:.0f} MB; 0.85 of bandwidth: {most:.1f} steps/s")
    generator = torch.Generator().manual_seed(1)
    with opened_model(options.directory, options.dtype) as opened:
        for batch in options.batch:
            prompts = torch.randint(3, opened.model.vocab, (batch, PROMPT), generator=generator).tolist()
            runs = {name: theirs(model, prompts, static) for name, (model, static) in their.items()}
            found = compare({"ours": ours(opened, prompts), **runs}, options.rounds)
            for name, times in found.items():
                print(f"  batch {batch}: {batch / statistics.median(times):7.1f} tokens/s  {name}")
            best = [min(times) for times in zip(*(found[name] for name in runs), strict=True)]
            ratios = [other / mine for mine, other in zip(found["ours"], best, strict=True)]
            share = statistics.median(1 / mine for mine in found["ours"]) / most
            print(f"  batch {batch}: {statistics.median(ratios):.2f} x the best of them; {share:.2f} of that bound")


if __name__ == "__main__":
    main()
