"""Trains a layout in a rank, and says what the layout contract asks for. tests/distributed/bench.py starts it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from recipes.parts import make_backend
from tests.distributed.faults import inject
from tests.distributed.layouts import configuration, parse
from trainer.backends.base import Backend
from trainer.backends.native.backend import NativeBackend
from trainer.batch import StepBatch
from trainer.config.schema import Config
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.cursor import Cursor
from trainer.data.heldout import HeldoutWindows
from trainer.data.loader import TrainLoader
from trainer.models.adapters.begin import Beginning
from trainer.models.family import family_of, shapes_of
from trainer.models.initialise import Initialiser
from trainer.optim.schedule import learning_rate
from trainer.parallel.boxes import Box
from trainer.rules.adapters import adapters
from trainer.rules.check import RULES, validate
from trainer.rules.derived import Derived, derive
from trainer.run.world import World
from trainer.training.step import Wish, agree, train_step

PROBES = (0, 3, 10, 20)
"""Steps after which the model is evaluated and asked for a next token; in the middle that must disturb nothing."""
PROMPT = tuple(range(7, 400, 17))
INITIAL, FIRST = "initial.safetensors", "first.safetensors"
"""What a reference leaves: its initial weights, and the moments after its first step."""
Weight = tuple[Box, torch.Tensor]


def bring_up(layout: str, precision: str, name: str = "native", fault: str = "") -> tuple[Any, Config, Derived]:
    """The backend of a layout, native or neuron, as the recipes make it, with initial weights. fault: a native one."""
    config, world = configuration(parse(layout), precision, name), World.from_environment()
    if name == "native":
        validate(config, world, [rule for rule in RULES if rule is not adapters])  # the base is drawn
    derived = inject(fault, derive(config, world))
    assert derived.dp == parse(layout).dp
    backend = make_backend(config, derived, world)
    assert isinstance(backend, NativeBackend) == (name == "native")
    backend.setup()
    family = family_of(config.model, config.adapter)
    backend.shard(family.build, family.plan, precision)
    drawn = Initialiser(family.plan, config.seed)
    backend.load_initial(Beginning.of(drawn, family.plan, config.seed, shapes_of(family)))
    return backend, config, derived


def train_layout(layout: str, precision: str, steps: int, reference: str, fault: str) -> dict[str, Any]:
    """This rank's findings on the native backend. reference: where one process of the same model leaves its weights."""
    backend, config, derived = bring_up(layout, precision, fault=fault)
    if backend.mesh.world == 1:
        Path(reference).mkdir(exist_ok=True)
        save_file(initial(backend), Path(reference) / INITIAL)
    return findings(backend, weights(backend), config, derived, steps, Path(reference))


def findings(
    backend: Backend, computed: Iterable[Weight], config: Config, derived: Derived, steps: int, reference: Path
) -> dict[str, Any]:
    """What the layout contract compares: initial weights, then the curve."""
    try:
        found = compare_initial(backend, computed, reference / INITIAL)
        return {**found, **train(backend, config, derived, steps, reference / FIRST)}
    finally:
        backend.close()


def initial(backend: NativeBackend) -> dict[str, torch.Tensor]:
    """The masters, and the weights that the model computes with, of one process."""
    masters = {f"master {name}": placed.tensor.clone() for name, placed in backend.store().model.items()}
    return masters | {f"weight {name}": p.detach().clone() for name, p in backend.model.named_parameters()}


def weights(backend: NativeBackend) -> Iterator[Weight]:
    """What the model computes with, but under ZeRO-3, which cuts it."""
    store = backend.store()
    for stage in backend._stages:
        for name, parameter in stage.model.named_parameters() if stage.sharded is None else ():
            for box in store.model[stage.names[name]].boxes:
                yield box, parameter.detach()


def compare_initial(backend: Backend, computed: Iterable[Weight], reference: Path) -> dict[str, int]:
    """Over all ranks: elements of any box that differ from the reference's, and elements that some rank is to write."""
    expected = load_file(reference)
    different = written = 0

    def unlike(kind: str, box: Box, tensor: torch.Tensor) -> int:
        return int((box.of(tensor.cpu()) != within(box, expected[f"{kind} {box.name}"])).sum())

    for placed in backend.store().model.values():
        different += sum(unlike("master", box, placed.tensor) for box in placed.boxes)
        written += sum(box.of(placed.tensor).numel() for box in placed.boxes if box.writer)
    different += sum(unlike("weight", box, tensor) for box, tensor in computed)
    different, written = backend.host.sum([different, written])
    total = sum(tensor.numel() for name, tensor in expected.items() if name.startswith("master "))
    return {"different": different, "written": written, "parameters": total}


def within(box: Box, whole: torch.Tensor) -> torch.Tensor:
    """A box of a whole tensor."""
    return whole[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.sizes, strict=True))]


def compare_first_moments(backend: Backend, reference: Path) -> tuple[float, str]:
    """The worst difference of a first moment, which after one step is a part of the gradient, among this rank's boxes
    (copies included), relative to the parameter's largest, and whose it is.

    A norm over all parameters hides what is wrong with a few small ones. Where positions are learned a key's bias has
    no gradient, because softmax ignores what all keys share: what there is of it is rounding, and is held against the
    largest of all.
    """
    moments = {name: placed for name, placed in backend.store().optimizer.items() if name.startswith("exp_avg.")}
    if backend.mesh.world == 1 and not reference.exists():
        save_file({name: placed.tensor.clone() for name, placed in moments.items()}, reference)
    expected, worst = load_file(reference), (0.0, "")
    largest = max(float(moment.abs().max()) for moment in expected.values())
    for name, placed in moments.items():
        for box in placed.boxes:
            difference = (box.of(placed.tensor).float() - within(box, expected[name]).float()).abs().max()
            own = float(expected[name].abs().max())
            worst = max(worst, (float(difference) / (own if own > 1e-6 * largest else largest), name))
    return worst


def train(backend: Backend, config: Config, derived: Derived, steps: int, first: Path) -> dict[str, Any]:
    """The curve, and probes along it. first: the moments that a first step should give."""
    corpus, lines, probes = prepare_corpus(config.data, config.model.vocab), [], []
    loader = load(backend, config, derived, corpus)
    for step in range(steps + 1):
        if step in PROBES:
            probes.append({"step": step, **probe(backend, config, corpus, derived.dp)})
        if step == steps:
            break
        lines.append(one_step(backend, config, derived, next(loader), step))
        if step == 0:
            gradients = compare_first_moments(backend, first)
    return {"steps": lines, "probes": probes, "gradients": gradients}


def load(
    backend: Backend, config: Config, derived: Derived, corpus: Corpus, cursor: Cursor | None = None
) -> TrainLoader:
    """This rank's batches, from a cursor on."""
    return TrainLoader(
        corpus=corpus,
        seq_len=config.data.seq_len,
        document_mask=config.data.document_mask,
        seed=config.seed,
        samples_per_step=derived.samples_per_step,
        microbatch=config.train.microbatch,
        dp_rank=backend.mesh.coordinate("dp"),
        dp_size=derived.dp,
        cursor=cursor,
        prefetch=0,
    )


def one_step(backend: Backend, config: Config, derived: Derived, batch: StepBatch, step: int) -> dict[str, Any]:
    """Train the step after ``step`` others, as the loop does."""
    targets = agree(backend, batch, step, Wish()).target_tokens
    lr = learning_rate(config.schedule, config.optim.lr, step, derived.steps, derived.warmup_steps)
    metrics = train_step(backend, batch, targets, lr)
    assert metrics is not None
    loss, norm, finite = backend.fetch(metrics)
    return {"step": step + 1, "loss": loss, "grad_norm": norm, "finite": finite, "target_tokens": targets}


def probe(backend: Backend, config: Config, corpus: Corpus, dp: int) -> dict[str, Any]:
    """Held-out loss, that of each window, and the logits of a next token."""
    windows = HeldoutWindows(
        corpus.heldout,
        corpus.tokenizer.token_bytes,
        config.data.seq_len,
        config.data.document_mask,
        config.evaluation.windows,
    )
    batches = windows.batches(config.train.microbatch, backend.mesh.coordinate("dp"), dp)
    scored, each = backend.evaluate(batches), backend.losses(batches)
    assert scored is not None
    assert each is not None
    nats, targets = scored
    rows = config.train.microbatch
    found = {"nats": nats, "targets": targets, "rows": rows, "each": each[: -(-len(windows) // rows)]}
    if config.backend.name == "neuron" and config.parallel.pp > 1:
        return {**found, "logits": None}  # validation refuses samples there
    return {**found, "logits": backend.next_token_logits(PROMPT, config.data.seq_len).float().tolist()}
