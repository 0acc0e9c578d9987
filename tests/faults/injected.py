"""Launches in which one rank is not as the others: what tests/faults/test_disagreements.py calls in ranks.

Each rank runs the trainer's own entry point in a child, with a fault put into rank 1's; the store that torchrun's agent
would serve is rank 0's parent's.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import hydra
import torch
import torch.distributed as dist
from omegaconf import DictConfig

import recipes
from tests import harness
from tests.faults.patches import SIGNALLED, at, delayed, killed_in, patch, signal_in, stop_in, stuck_in
from trainer.backends.native.backend import NativeBackend
from trainer.commands import entry
from trainer.config.diagnose import CONF
from trainer.data import loader
from trainer.data.loader import TrainLoader
from trainer.models.decoder import CausalLM
from trainer.observe.sinks import JsonLines
from trainer.run import directory as run_directory
from trainer.training import evaluation, trust
from trainer.training.saving import Saves

STOPPED = "stopped"
"""Outcome of a child that had to be killed: a process that is stopped does not end by itself."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(composed: DictConfig) -> None:
    """scripts/train.py, in a process that has imported everything."""
    entry.run(composed, recipes.load)


def launch(kind: str, overrides: list[str], seconds: float, rank: int = 1, slow: float = 0) -> dict[str, Any]:
    """Run the trainer in a child, with the fault ``kind`` on a rank; its exit code, its output and its seconds.

    slow: seconds that every forward pass takes on top, on all ranks. since: seconds from a fault that is a signal.
    """
    mine = int(os.environ["RANK"])
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    store = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), None, True) if not mine else None
    start, log = time.monotonic(), Path(f"{kind}-{mine}.log")
    pid = os.fork()
    if pid == 0:
        if slow:
            patch(CausalLM, "forward", partial(delayed, seconds=slow))()
        os._exit(_child(FAULTS[kind] if mine == rank else (lambda: None), overrides, log))
    code = _wait(pid, seconds)
    now, signalled = time.monotonic(), Path(SIGNALLED)
    found = {"code": code, "output": log.read_text(errors="replace"), "seconds": now - start}
    found["since"] = now - float(signalled.read_text()) if signalled.exists() else None
    Path(f"{kind}-{mine}.done").touch()
    while store is not None and not all(
        Path(f"{kind}-{r}.done").exists() for r in range(int(os.environ["WORLD_SIZE"]))
    ):
        time.sleep(0.05)
    return found


def _child(inject: Callable[[], object], overrides: list[str], log: Path) -> int:
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    return enter(inject, overrides)


def enter(inject: Callable[[], object], overrides: list[str]) -> int:
    """The trainer's own way in, in this process and with a fault; its exit code."""
    sys.argv = [str(harness.ROOT / "scripts" / "train.py"), *overrides]
    try:
        inject()
        more = os.environ.pop("MORE", "")
        sys.argv += more.split()
        return int(entry.enter(main))
    except SystemExit as error:
        return int(error.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _wait(pid: int, seconds: float) -> int | str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return STOPPED


def _argument(text: str) -> Callable[[], None]:
    """Another override on this rank."""

    def inject() -> None:
        os.environ["MORE"] = text

    return inject


def _elsewhere() -> None:
    """Another working directory."""
    Path("elsewhere").mkdir(exist_ok=True)
    os.environ["MORE"] = f"data.sources=[{{name:c,paths:[{Path('corpus').resolve()}]}}]"
    os.chdir("elsewhere")


def _flip(kind: str, name: str, step: int = 4) -> Callable[[], None]:
    """One bit of what this rank holds, after the step before a save: an update may round it away."""

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        def flipping(self: NativeBackend, lr: float) -> Any:
            nonlocal calls
            calls += 1
            metrics = original(self, lr)
            if calls == step:
                tensor = self.copies()[kind][name].tensor
                tensor.view(-1)[:1].view(torch.int16 if tensor.element_size() == 2 else torch.int32).bitwise_xor_(1)
            return metrics

        return flipping

    return patch(NativeBackend, "clip_and_apply", around)


def _facts(key: str, value: object) -> Callable[[], None]:
    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: {**original(*args), key: value}

    return patch(sys.modules["recipes.pretrain"], "launch_facts", around)


def _skip_a_step() -> None:
    original = TrainLoader.__iter__

    def skipping(self: TrainLoader) -> Any:
        items = original(self)
        next(items)
        return items

    TrainLoader.__iter__ = skipping  # type: ignore[method-assign]


def _slow_text() -> None:
    """This rank's cache is cold, and takes longer to fill than ranks wait for each other in training."""
    at(TOGETHER, "prepare_corpus", 1, lambda: time.sleep(12))()


def _slow_setup() -> None:
    """This rank's disk is slow: it builds, and makes ready, for longer than ranks wait for each other in training."""
    at(NativeBackend, "shard", 1, lambda: time.sleep(8))()
    at(PRETRAIN, "make_loader", 1, lambda: time.sleep(8))()


def _another_clock() -> None:
    """An hour ahead, and every look at it another hour."""
    hours = count(1)
    Saves.__init__.__defaults__ = (lambda: time.monotonic() + 3600 * next(hours),)  # type: ignore[misc]


def _full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _no_room(original: Callable[..., Any]) -> Callable[..., Any]:
    """For the result of the run."""

    def full(path: Path, value: object) -> None:
        if path.name == run_directory.RESULT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        original(path, value)

    return full


def poisoned(step: int) -> Callable[[], None]:
    """A batch whose loss is NaN."""

    def inject() -> None:
        original = CausalLM.forward

        def poison() -> None:
            def forward(*args: Any, **kwargs: Any) -> Any:
                CausalLM.forward = original  # type: ignore[method-assign]
                loss, targets = original(*args, **kwargs)
                return loss * float("nan"), targets

            CausalLM.forward = forward  # type: ignore[method-assign]

        at(NativeBackend, "forward_backward", step, poison)()

    return inject


def slow(seconds: float) -> Callable[[], None]:
    """Every forward pass takes so much longer."""
    return patch(CausalLM, "forward", partial(delayed, seconds=seconds))


def stuck(step: int) -> Callable[[], None]:
    """Sleeps for ever in a step: alive, and its threads too."""
    return stuck_in(NativeBackend, "forward_backward", step)


def _never() -> None:
    time.sleep(3600)


recipes.load("pretrain")
PRETRAIN, TOGETHER = sys.modules["recipes.pretrain"], sys.modules["recipes.together"]
WEIGHT = "model.layers.0.mlp.up_proj.weight"

FAULTS: Mapping[str, Callable[[], None]] = {
    "none": lambda: None,
    # What a rank starts from.
    "lr": _argument("optim.lr=5e-2"),
    "seed": _argument("seed=7"),
    "precision": _argument("precision=bf16_mixed precision.cpu_fallback=null"),
    "steps": _argument("train.steps=7"),
    "layers": _argument("model.layers=2"),
    "layout": _argument("parallel.tp=2"),
    "code": patch(trust, "source_digest", lambda original: lambda *roots: "0" * 64),
    "torch version": _facts("version of torch", "2.8.0"),
    "device": _facts("kind of device", "neuron"),
    "text": _argument("data.sources=[{name:c,paths:[other]}]"),
    "shard": _argument("data.sources=[{name:c,kind:indexed,paths:[shard-0,shard-2]}]"),
    "tokenizer": _argument("data.tokenizer.vocab=400"),
    "run.root": _elsewhere,
    # What it holds.
    "weight": _flip("weights", WEIGHT),
    "mixed weight": _flip("weights", WEIGHT),
    "moment": _flip("moments", f"exp_avg.{WEIGHT}"),
    "norm": _flip("masters", "model.norm.weight"),
    "tied weight": _flip("weights", "model.embed_tokens.weight"),
    # Where it is.
    "order": _skip_a_step,
    "never starts": _never,
    "stopped in set-up": stop_in(NativeBackend, "shard"),
    "stopped in data": stop_in(TOGETHER, "prepare_corpus"),
    "stuck in data": stuck_in(TOGETHER, "prepare_corpus"),
    "stopped in a step": stop_in(NativeBackend, "forward_backward", 3),
    "stuck in a step": stuck_in(NativeBackend, "forward_backward", 3),
    "stuck in a batch": stuck_in(loader, "collate", 6),
    "stopped in evaluation": stop_in(evaluation.Evaluator, "evaluate"),
    "stopped in a save": stop_in(Saves, "save", 2),
    # A stop, 0.3 s into what it interrupts.
    "signal in a step": signal_in(NativeBackend, "forward_backward", 3, 0.3),
    "signal in set-up": signal_in(NativeBackend, "shard", 1, 0.0),
    "signal in data": signal_in(TOGETHER, "prepare_corpus", 1, 0.05),
    "signal in evaluation": signal_in(NativeBackend, "evaluate", 1, 0.3),
    "signal in a save": signal_in(Saves, "save", 1, 0.0),
    "slow text": _slow_text,
    "slow set-up": _slow_setup,
    "another clock": _another_clock,
    # What the disk does not take.
    "no room for records": at(JsonLines, "write", 3, _full),
    "no room for the result": patch(run_directory, "write_json", _no_room),
    "killed": killed_in(NativeBackend, "clip_and_apply", 3),
}
