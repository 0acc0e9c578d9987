"""Run by test_zero_bubble.py: first moments after one bf16_mixed step of two layouts, each in forked ranks.

zero_bubble_worker.py OUT LAYOUT OTHER      writes OUT/worst.json: relative difference by parameter
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.distributed.forked import launch
from tests.distributed.layouts import parse
from tests.distributed.matrix_worker import bring_up, load, one_step
from trainer.data.corpus import prepare_corpus


def step(layout: str, out: Path) -> None:
    """What a rank does: one step, and its boxes of the first moments, copies apart."""
    torch.set_num_threads(1)
    backend, config, derived = bring_up(parse(layout), "bf16_mixed")
    batch = next(iter(load(backend, config, derived, prepare_corpus(config.data, config.model.vocab))))
    one_step(backend, config, derived, batch, 0)
    moments = {
        f"{box.name}@{','.join(map(str, box.offsets))}": box.of(placed.tensor).clone().contiguous()
        for name, placed in backend.store().optimizer.items()
        if name.startswith("exp_avg.")
        for box in placed.boxes
        if box.copy == 0
    }
    save_file(moments, out / f"{layout}-{backend.mesh.rank}.safetensors")
    backend.close()


def whole(layout: str, out: Path) -> dict[str, torch.Tensor]:
    """Each parameter's moment, its rows in order; both layouts cut rows only."""
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for rank in range(parse(layout).processes):
        for key, values in load_file(out / f"{layout}-{rank}.safetensors").items():
            name, _, offsets = key.partition("@")
            parts.setdefault(name, {})[int(offsets.partition(",")[0])] = values
    return {name: torch.cat([rows[first] for first in sorted(rows)]) for name, rows in parts.items()}


if __name__ == "__main__":
    out, layouts = Path(sys.argv[1]), sys.argv[2:]
    out.mkdir()
    for name in layouts:
        launch(out / f"log-{name}", parse(name).processes, partial(step, name, out))
    plain, other = (whole(name, out) for name in layouts)
    worst = {name: ((other[name] - plain[name]).norm() / plain[name].norm()).item() for name in plain}
    (out / "worst.json").write_text(json.dumps(worst))
