"""Run under torchrun by the tests beside it: one job on the backend that the recipe makes, its findings in a directory.

worker.py JOB CONFIG TP OUT [more]      CONFIG: a run's config.yaml; TP: the tensor-parallel size to use instead
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from recipes._assembly import make_backend
from trainer.backends.native.backend import NativeBackend
from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.save import Saver
from trainer.config import Config
from trainer.data.corpus import prepare_corpus
from trainer.data.loader import TrainLoader
from trainer.data.order import Cursor
from trainer.derive import Derived, derive
from trainer.models.decoder import CausalLM
from trainer.models.initialise import Initialiser
from trainer.models.sharding import sharding_plan
from trainer.parallel.boxes import Placed
from trainer.schema import to_config
from trainer.step import agree, train_step
from trainer.world import World


def boxes(tensors: Mapping[str, Placed], prefix: str) -> dict[str, torch.Tensor]:
    """Every box that this rank holds, copies included, by name and offsets."""
    return {
        f"{prefix}{name}@{','.join(map(str, box.offsets))}": box.of(placed.tensor).clone().contiguous()
        for name, placed in tensors.items()
        for box in placed.boxes
    }


def padding_is_zero(backend: NativeBackend) -> bool:
    """What no box covers, in weights and moments."""
    store = backend.store()
    for placed in [*store.model.values(), *store.optimizer.values()]:
        rest = placed.tensor.clone()
        for box in placed.boxes:
            box.of(rest).zero_()
        if rest.any():
            return False
    return True


def dump(backend: NativeBackend, path: Path) -> None:
    """This rank's weights (masters and what the model computes with) and moments."""
    store = backend.store()
    computed = {
        name: Placed(parameter.detach().float(), store.model[name].boxes, store.model[name].shape)
        for name, parameter in backend.model.named_parameters()
    }
    values = boxes(store.model, "master ") | boxes(computed, "model ") | boxes(store.optimizer, "moment ")
    save_file(values, path)


def initial(backend: NativeBackend, config: Config, derived: Derived, out: Path, more: list[str]) -> None:
    """Initial weights."""
    dump(backend, out / f"rank-{backend.mesh.rank}.safetensors")
    assert padding_is_zero(backend)


def reload(backend: NativeBackend, config: Config, derived: Derived, out: Path, more: list[str]) -> None:
    """Load each checkpoint given, save it again from this layout, train three steps on."""
    corpus = prepare_corpus(config.data, config.model.vocab)
    for index, source in enumerate(more):
        state = load_checkpoint(Path(source), backend.store())
        backend.loaded(state.updates)
        assert padding_is_zero(backend)
        saver = Saver(out / str(index), backend.mesh.rank, lead(backend), 1, "", {})
        saver.save(backend.store(), state)
        assert state.cursor is not None
        loader = TrainLoader(
            corpus,
            seq_len=config.data.seq_len,
            document_mask=config.data.document_mask,
            seed=config.seed,
            samples_per_step=derived.samples_per_step,
            microbatch=config.train.microbatch,
            dp_rank=backend.mesh.coordinate("dp"),
            dp_size=derived.dp,
            cursor=Cursor.from_json(state.cursor),
            prefetch=0,
        )
        lines = []
        for step in range(3):
            batch = next(iter(loader))
            agreed = agree(backend, batch, False)
            metrics = backend.fetch(train_step(backend, batch, agreed.target_tokens, config.optim.lr))
            lines.append({"step": state.step + step + 1, "loss": metrics[0], "grad_norm": metrics[1]})
        assert padding_is_zero(backend)
        if backend.mesh.rank == 0:
            (out / str(index) / "curve.json").write_text(json.dumps(lines))


def lead(backend: NativeBackend) -> Callable[[Callable[[], None]], object]:
    """Rank 0 acts, all wait."""

    def run(action: Callable[[], None]) -> None:
        if backend.mesh.rank == 0:
            action()
        backend.host_sum([0])

    return run


def poison(backend: NativeBackend, config: Config, derived: Derived, out: Path, more: list[str]) -> None:
    """A gradient that is not finite, on one rank, in each kind of parameter: no rank's weights or moments move."""
    everything = ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj", "input_layernorm")
    copies = ("self_attn.k_proj", "input_layernorm")  # of what the last rank holds, the norm counts another copy
    cases = [(backend.mesh.world - 2, name) for name in everything] + [
        (backend.mesh.world - 1, name) for name in copies
    ]
    for value in (float("nan"), float("inf")):
        for rank, name in cases:
            backend._optimizer.gradients.normal_()
            before = {**boxes(backend.store().model, ""), **boxes(backend.store().optimizer, "moment ")}
            if backend.mesh.rank == rank:
                backend._optimizer.gradient(f"model.layers.1.{name}.weight").view(-1)[0] = value
            metrics = backend.fetch(backend.clip_and_apply(1e-3))
            after = {**boxes(backend.store().model, ""), **boxes(backend.store().optimizer, "moment ")}
            assert not metrics[2], (name, value)
            assert all(torch.equal(before[key], after[key]) for key in before), (name, value)
    metrics = backend.fetch(backend.clip_and_apply(1e-3))
    assert metrics[2], "the next step is sound again"


JOBS = {"initial": initial, "reload": reload, "poison": poison}

if __name__ == "__main__":
    job, saved, tp, out, *more = sys.argv[1:]
    world = World.from_environment()
    config = to_config(yaml.safe_load(Path(saved).read_text()))
    config = replace(config, parallel=replace(config.parallel, tp=int(tp)))
    derived = derive(config, world)
    backend = make_backend(config, derived, world)
    assert isinstance(backend, NativeBackend)
    backend.setup()
    backend.shard(lambda: CausalLM(config.model), sharding_plan(config.model), config.precision.mode)
    backend.load_initial(Initialiser(config.model, seed=11))
    JOBS[job](backend, config, derived, Path(out), more)
    backend.close()
