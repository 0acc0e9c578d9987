"""Our loop against a hand-written one: the same model, precision and batches, step by step in turn, one process.

    OMP_NUM_THREADS=2 python benchmarks/loop.py [--pairs 20] [--precision bf16_mixed]

Prints the ratio of tokens/s (ours / plain), pair by pair and its median, and where a profiler says our step goes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from recipes.parts import make_backend
from trainer.batch import Batch
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.commands import entry
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.config.schema import Config
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.loader import TrainLoader
from trainer.models.decoder import CausalLM
from trainer.models.initialise import Initialiser
from trainer.models.sharding import sharding_plan
from trainer.observe.records import Record, StepRecord
from trainer.observe.sinks import JsonLines, Sink
from trainer.parallel.boxes import whole_box
from trainer.rules.derived import Derived, derive, effective
from trainer.run.world import World
from trainer.training.loop import Trainer
from trainer.training.saving import Saves
from trainer.training.watchdog import Watchdog


class Kept:
    """A sink that keeps step records."""

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []

    def write(self, record: Record) -> None:
        if isinstance(record, StepRecord):
            self.steps.append(record)

    def close(self) -> None:
        pass


def load_config(precision: str) -> tuple[Config, Derived, World]:
    """recipe=tiny as the command line would compose it."""
    entry.register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("train", overrides=["recipe=tiny", f"precision={precision}"])
    config, world = to_config(composed), World(cpu_bf16=World.from_environment().cpu_bf16)
    derived = derive(config, world)
    return effective(config, derived), derived, world


def loader(config: Config, derived: Derived, corpus: Corpus) -> TrainLoader:
    """The recipe's own batches."""
    data = config.data
    return TrainLoader(
        corpus, data.seq_len, data.document_mask, config.seed, derived.samples_per_step, config.train.microbatch,
        0, 1, None, data.prefetch,
    )  # fmt: skip


def our_trainer(config: Config, derived: Derived, world: World, corpus: Corpus, scratch: Path) -> tuple[Trainer, Kept]:
    """The Trainer as the recipe assembles it, metrics file included."""
    backend = make_backend(config, derived, world)
    backend.shard(lambda: CausalLM(config.model), sharding_plan(config.model), config.precision.mode)
    backend.load_initial(Initialiser(sharding_plan(config.model), config.seed))
    kept = Kept()
    saver = Saver(scratch, 1, "", {})
    sinks: list[Sink] = [JsonLines(scratch / "metrics.jsonl"), kept]
    watchdog = Watchdog.alone()
    saves = Saves(config.checkpoint, saver, backend, watchdog, newest=0)
    batches = loader(config, derived, corpus)
    return Trainer(config, derived, backend, batches, None, saves, sinks, TrainState(), watchdog), kept


def plain_step(config: Config, model: CausalLM) -> Callable[[list[Batch], float, float], float]:
    """What one would write by hand: BF16 weights with FP32 masters (or FP32), accumulate, clip, fused AdamW."""
    mixed = config.precision.mode == "bf16_mixed"
    weights = list(model.parameters())
    masters = [p.detach().float().requires_grad_() for p in weights] if mixed else weights
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in masters if p.dim() > 1], "weight_decay": config.optim.weight_decay},
            {"params": [p for p in masters if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=config.optim.lr, betas=(config.optim.beta1, config.optim.beta2), fused=True,
    )  # fmt: skip

    def step(batches: list[Batch], targets: float, lr: float) -> float:
        total = 0.0
        for group in optimizer.param_groups:
            group["lr"] = lr
        for batch in batches:
            loss = model(*batch)[0] / targets
            loss.backward()
            total += loss.item()
            if mixed:
                for weight, master in zip(weights, masters, strict=True):
                    assert weight.grad is not None
                    gradient = weight.grad.float()
                    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                    weight.grad = None
        torch.nn.utils.clip_grad_norm_(masters, config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if mixed:
            with torch.no_grad():
                for weight, master in zip(weights, masters, strict=True):
                    weight.copy_(master)
        return total

    return step


def plain_model(config: Config) -> CausalLM:
    """The same model with the same initial weights, without any of the framework around it."""
    model = CausalLM(config.model)
    model.materialised()
    draw = Initialiser(sharding_plan(config.model), config.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(draw(whole_box(name, tuple(parameter.shape))))
    model = model.to(torch.bfloat16 if config.precision.mode == "bf16_mixed" else torch.float32)
    model.materialised()
    return model


def outside_share(trainer: Trainer, run: Callable[[], object]) -> float:
    """Share of the wall time of ``run`` outside forward, backward and optimizer, by PyTorch's profiler."""
    backend: Any = trainer.backend
    plain = backend.forward_backward, backend.clip_and_apply

    def marked(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with torch.profiler.record_function("inside"):
                return call(*args, **kwargs)

        return wrapped

    backend.forward_backward, backend.clip_and_apply = map(marked, plain)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler, torch.profiler.record_function("whole"):
        run()
    backend.forward_backward, backend.clip_and_apply = plain
    spent = {event.key: event.cpu_time_total for event in profiler.key_averages()}
    return 1 - spent["inside"] / spent["whole"]


def measure(pairs: int, precision: str) -> None:
    """Alternate a step of ours and a step of theirs, and print what came out."""
    config, derived, world = load_config(precision)
    corpus = prepare_corpus(config.data, config.model.vocab, print)
    with tempfile.TemporaryDirectory() as scratch:
        trainer, kept = our_trainer(config, derived, world, corpus, Path(scratch))
        trainer.backend.facts()  # measures the peak once, before the clock runs
        theirs = plain_step(config, plain_model(config))
        ours, batches = trainer.steps(), iter(loader(config, derived, corpus))
        ratios, losses = [], []
        for pair in range(pairs + 2):
            start = time.perf_counter()
            next(ours)
            middle = time.perf_counter()
            batch = next(batches)
            loss = theirs(batch.microbatches, float(batch.target_tokens), kept.steps[-1].lr)
            end = time.perf_counter()
            losses.append(abs(loss - kept.steps[-1].loss) / loss)
            if pair >= 2:  # the first pairs warm caches up
                ratios.append((end - middle) / (middle - start))
        share = outside_share(trainer, lambda: [next(ours) for _ in range(5)])
        own = [(s.data_seconds + s.other_seconds) / s.step_seconds for s in kept.steps[2 : pairs + 2]]
        print(f"threads {torch.get_num_threads()}, {precision}, {config.train.tokens_per_step:,} tokens a step")
        print(f"tokens/s, ours / plain PyTorch, pair by pair: {' '.join(f'{r:.3f}' for r in ratios)}")
        print(f"median of {len(ratios)} pairs: {statistics.median(ratios):.3f}")
        print(f"largest relative difference of the losses: {max(losses):.1e}")
        print(f"outside forward, backward and optimizer: {100 * statistics.median(own):.2f} % by the run's own split,")
        print(f"  {100 * share:.2f} % by PyTorch's profiler")
        trainer.batches.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--precision", default="bf16_mixed", choices=["fp32", "bf16_mixed"])
    arguments = parser.parse_args()
    measure(arguments.pairs, arguments.precision)
