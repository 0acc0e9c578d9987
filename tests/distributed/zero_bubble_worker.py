"""First moments after one bf16_mixed step of a layout, for test_zero_bubble.py."""

from __future__ import annotations

from safetensors.torch import save_file

from tests.distributed.matrix_worker import bring_up, load, one_step
from trainer.data.corpus import prepare_corpus


def step(layout: str) -> None:
    """What a rank does: one step, and its boxes of the first moments, copies apart, left in a file."""
    backend, config, derived = bring_up(layout, "bf16_mixed")
    batch = next(iter(load(backend, config, derived, prepare_corpus(config.data, config.model.vocab))))
    one_step(backend, config, derived, batch, 0)
    moments = {
        f"{box.name}@{','.join(map(str, box.offsets))}": box.of(placed.tensor).clone().contiguous()
        for name, placed in backend.store().optimizer.items()
        if name.startswith("exp_avg.")
        for box in placed.boxes
        if box.copy == 0
    }
    save_file(moments, f"{layout}-{backend.mesh.rank}.safetensors")
    backend.close()
