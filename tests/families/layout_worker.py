"""What a rank of a layout makes of transformers' directory: loss, gradients, a checkpoint. For test_layouts.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from recipes.parts import make_backend
from tests.distributed.layouts import configuration, parse
from tests.distributed.matrix_worker import one_step, within
from tests.families.pairs import SEQ
from trainer.batch import Batch, StepBatch
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.models.family import family_of
from trainer.parallel.boxes import Store
from trainer.pretrained.source import open_source
from trainer.pretrained.weights import weights_of
from trainer.rules.derived import derive
from trainer.run.directory import config_yaml
from trainer.run.world import World

FIRST_MOMENT = "exp_avg."


def through(layout: str, backend: str, directory: str) -> dict[str, float]:
    """Import directory/source, save it as directory/LAYOUT's checkpoint, then take one step.

    Returned: loss, and the worst difference of a gradient from directory/expected.safetensors on this rank, over the
    largest of its parameter.
    """
    here, world = Path(directory), World.from_environment()
    source = open_source(str(here / "source"))
    config = configuration(parse(layout), "fp32", backend)
    config = replace(
        config,
        model=source.model,
        data=replace(config.data, seq_len=SEQ),
        train=replace(config.train, tokens_per_step=2 * SEQ, microbatch=1),
        optim=replace(config.optim, clip_norm=1e9),  # a clipped gradient would not be transformers'
    )
    derived = derive(config, world)
    made = make_backend(config, derived, world)
    made.setup()
    family = family_of(config.model)
    made.shard(family.build, family.plan, "fp32")
    made.load_initial(weights_of(source, config.model.vocab))
    run = here / f"{layout}-{backend}"
    saver = Saver(run / "checkpoints", 0, config_yaml(config, run), {}, made.saving.group)
    saver.save(Store(dict(made.store().model), {}), TrainState(step=1))

    batch = load_file(here / "batch.safetensors")
    rows = range(2) if derived.dp == 1 else [made.mesh.coordinate("dp")]
    microbatches = [Batch(*(batch[field][row : row + 1] for field in Batch._fields)) for row in rows]
    targets = sum(int((one.labels >= 0).sum()) for one in microbatches)
    found = one_step(made, config, derived, StepBatch(microbatches, targets, {}), 0)
    expected, worst = load_file(here / "expected.safetensors"), 0.0
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    for name, placed in made.store().optimizer.items():
        if name.startswith(FIRST_MOMENT):
            whole = expected[name.removeprefix(FIRST_MOMENT)]
            own = float(whole.abs().max())
            for box in placed.boxes:
                gradient = box.of(placed.tensor).cpu() / (1 - config.optim.beta1)
                difference = float((gradient - within(box, whole)).abs().max())
                worst = max(worst, difference / (own if own > 1e-6 * largest else largest))
    made.close()
    return {"loss": found["loss"], "gradients": worst}
