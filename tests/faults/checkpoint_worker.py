"""Ranks that save together and beside training, and what each of them is told when one of them cannot."""

from __future__ import annotations

import os
import pickle  # noqa: TID251 - to prove that nobody calls it
import random
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainer.checkpoint.background import Finished
from trainer.checkpoint.directory import newest_sound
from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.names import checkpoints, step_of
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.verify import fault
from trainer.errors import RunError
from trainer.parallel.boxes import Box, Placed, Store

ROWS, COLUMNS = 24, 6
DIRECTORY = Path("checkpoints")


def set_up(seconds: float = 60) -> tuple[int, int, Saver]:
    """Rank, ranks, and a saver with a group of its own for saves beside training."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    background = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))
    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        setattr(pickle, name, _refuse)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    saver = Saver(DIRECTORY, 2, "seed: 1\n", {"world": ranks}, None, background, keep_every=4)
    return rank, ranks, saver


def _refuse(*arguments: object, **more: object) -> None:
    raise AssertionError("pickle was used")


def whole(step: int) -> torch.Tensor:
    """The weight as it is at a step."""
    return torch.arange(ROWS * COLUMNS, dtype=torch.float32).view(ROWS, COLUMNS) + 1000 * step


def store(rank: int, ranks: int, step: int) -> Store:
    """This rank's rows of a weight and of its moment; a norm that all ranks hold and rank 1 writes."""
    rows = ROWS // ranks
    local = whole(step)[rank * rows : (rank + 1) * rows].clone()
    part = (slice(0, rows), slice(0, COLUMNS))

    def rows_of(name: str, tensor: torch.Tensor) -> Placed:
        box = Box(name, (ROWS, COLUMNS), (rank * rows, 0), (rows, COLUMNS), part)
        return Placed(tensor, (box,), (ROWS, COLUMNS))

    norm = Box("norm", (COLUMNS,), (0,), (COLUMNS,), (slice(0, COLUMNS),), copy=rank, writer=rank == 1 % ranks)
    return Store(
        {"w": rows_of("w", local), "norm": Placed(torch.full((COLUMNS,), float(step)), (norm,), (COLUMNS,))},
        {"exp_avg.w": rows_of("exp_avg.w", -local)},
    )


def state(step: int) -> TrainState:
    return TrainState(step=step, tokens=step, updates=step)


def told(finished: Finished | None) -> list[Any]:
    """A report, as JSON."""
    assert finished is not None
    return [finished.step, None if finished.error is None else [int(finished.error.code), str(finished.error)]]


def loads(rank: int, ranks: int, step: int) -> bool:
    """Whether the checkpoint of a step verifies and gives this rank what it had then."""
    path = DIRECTORY / f"step-{step:08d}"
    empty = store(rank, ranks, 0)
    if fault(path) is not None or load_checkpoint(path, empty).step != step:
        return False
    wanted = store(rank, ranks, step)
    pairs = [*zip(empty.model.values(), wanted.model.values(), strict=True)]
    pairs += zip(empty.optimizer.values(), wanted.optimizer.values(), strict=True)
    return all(torch.equal(a.tensor, b.tensor) for a, b in pairs)


def beside_training() -> dict[str, Any]:
    """Save by turns while waiting and beside training, which goes on meanwhile, collectives and weights included."""
    rank, ranks, saver = set_up()
    reports, sums = [], []
    for step in range(1, 7):
        live = store(rank, ranks, step)
        if step == 3:
            saver.save(live, state(step))
        else:
            saver.begin(live, state(step))
        live.model["w"].tensor.fill_(-1.0)  # the next update: what is written is the copy
        number = torch.tensor(float(rank))
        dist.all_reduce(number)
        sums.append(number.item())
        while (done := saver.finished()) is not None:
            reports.append(told(done))
    while (done := saver.wait()) is not None:
        reports.append(told(done))
    dist.barrier()
    left = [path.name for path in checkpoints(DIRECTORY)]
    return {"reports": reports, "sums": sums, "left": left, "loads": [loads(rank, ranks, step) for step in (4, 5, 6)]}


def disk_full_on_one(beside: bool) -> dict[str, Any]:
    """The last rank's disk is full in the second save of three; then there is room again."""
    rank, ranks, saver = set_up()
    real, outcomes = os.write, []
    for step in (1, 2, 3):
        full = step == 2 and rank == ranks - 1

        def write(descriptor: int, data: Any, full: bool = full) -> int:
            if full and len(data) > 20:
                raise OSError(28, "No space left on device")
            return real(descriptor, data)

        os.write = write  # type: ignore[assignment]
        try:
            if beside:
                saver.begin(store(rank, ranks, step), state(step))
                outcomes.append(told(saver.wait())[1])
            else:
                saver.save(store(rank, ranks, step), state(step))
                outcomes.append(None)
        except RunError as error:
            outcomes.append([int(error.code), str(error)])
        os.write = real
    dist.barrier()
    left = [path.name for path in checkpoints(DIRECTORY)]
    return {"outcomes": outcomes, "left": left, "loads": [loads(rank, ranks, step) for step in (1, 3)]}


def one_never_comes(seconds: float) -> dict[str, Any]:
    """The last rank does not take part in a save beside training; the others' threads end with the group's timeout."""
    rank, ranks, saver = set_up(seconds)
    saver.save(store(rank, ranks, 1), state(1))
    report, waited = None, 0.0
    if rank < ranks - 1:
        start = time.monotonic()
        saver.begin(store(rank, ranks, 2), state(2))
        report = told(saver.wait())
        waited = time.monotonic() - start
    number = torch.ones(())
    dist.all_reduce(number)  # what is left of the ranks can still speak to each other, and so stop in order
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("save-")]
    return {
        "report": report,
        "waited": waited,
        "sum": number.item(),
        "sound": loads(rank, ranks, 1),
        "threads": threads,
    }


def a_bug_on_one(beside: bool) -> dict[str, Any]:
    """Something that is nobody's fault but the code's raises on rank 1: there with its traceback, elsewhere named."""
    rank, ranks, saver = set_up()
    live = store(rank, ranks, 1)
    if rank == 1:
        broken = live.model["w"]
        live = Store({"w": Placed(broken.tensor.to(torch.complex64), broken.boxes, broken.shape)}, {})
    try:
        if beside:
            saver.begin(live, state(1))
            saver.wait()
        else:
            saver.save(live, state(1))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "left": len(checkpoints(DIRECTORY))}
    return {"error": "", "left": -1}


def killed(times: int, seed: int) -> list[dict[str, Any]]:
    """kill -9 at random instants of a process that does nothing but save beside training; what is left each time."""
    draw, found = random.Random(seed), []
    for _ in range(times):
        child = os.fork()
        if not child:
            save_for_ever()
        time.sleep(draw.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest, faults = newest_sound(DIRECTORY)
        step = step_of(newest) if newest is not None else 0
        left = [step_of(path) for path in checkpoints(DIRECTORY)]
        leftover = sorted(path.name.split("step")[0] for path in DIRECTORY.glob(".*"))
        whole_again = newest is None or loads(0, 1, step)
        found.append({"step": step, "faults": faults, "loads": whole_again, "left": left, "leftover": leftover})
    return found


def save_for_ever() -> None:
    """From the newest checkpoint on, each save begun as soon as the one before it has ended."""
    saver = Saver(DIRECTORY, 2, "seed: 1\n", {"world": 1}, keep_every=7)
    newest, _ = newest_sound(DIRECTORY)
    step = step_of(newest) if newest is not None else 0
    while True:
        step += 1
        saver.begin(store(0, 1, step), state(step))
