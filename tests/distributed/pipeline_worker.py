"""Run by test_pipeline.py: schedules on a small model, against the same model in one piece, by plain autograd."""

from __future__ import annotations

import copy
import gc

import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import StorageWeakRef

from trainer.backends.native.pipeline.engine import Pipeline
from trainer.backends.native.pipeline.stage import Stage
from trainer.batch import IGNORED_LABEL, Batch
from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM
from trainer.parallel.stages import cut_layers, local_stages

CONFIG = ModelConfig(hidden=32, layers=5, heads=4, kv_heads=2, mlp=48, vocab=96, loss_chunk_tokens=11)
BATCH, SEQ, SCALE = 2, 24, 1 / 37


def make_batch(seed: int) -> Batch:
    """Random tokens in documents of uneven length, the last of them padding."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, CONFIG.vocab, (BATCH, SEQ), generator=draw)
    document_ids, positions = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for row in range(BATCH):
        ends = [*sorted((1 + torch.randperm(SEQ - 1, generator=draw)[:3]).tolist()), SEQ]
        start = 0
        for number, end in enumerate(ends):
            document_ids[row, start:end] = -1 if end == SEQ else number
            positions[row, start:end] = torch.arange(end - start)
            start = end
    labels = tokens.roll(-1, dims=1)
    labels[(document_ids.roll(-1, dims=1) != document_ids) | (document_ids < 0)] = IGNORED_LABEL
    return Batch.undrawn(tokens, labels, positions, document_ids)


def whole_model() -> CausalLM:
    """The same weights on every rank."""
    torch.manual_seed(5)
    model = CausalLM(CONFIG)
    model.materialised()
    return model


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    largest = theirs.abs().max().item()
    assert largest > 0, "nothing to compare with"
    assert ours.isfinite().all()
    return (ours - theirs).abs().max().item() / largest


class Case:
    """One schedule with this rank's stages, their gradients in one flat buffer as the optimizer wrapper has them."""

    def __init__(self, kind: str, virtual_stages: int) -> None:
        pp, rank = dist.get_world_size(), dist.get_rank()
        self.reference = whole_model()
        cut = cut_layers(CONFIG, SEQ, pp * virtual_stages)
        self.modules = {stage: copy.deepcopy(self.reference) for stage in local_stages(rank, pp, virtual_stages)}
        for stage, module in self.modules.items():
            module.keep_stage(cut[stage])
        self.parameters = [item for module in self.modules.values() for item in module.named_parameters()]
        self.flat = torch.zeros(sum(p.numel() for _, p in self.parameters))
        offset = 0
        for _, parameter in self.parameters:
            parameter.grad = self.flat[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        self.folds = 0
        self.pipeline = Pipeline(
            self.modules, pp * virtual_stages, kind, dist.group.WORLD,
            lambda batch, seq: (batch, seq, CONFIG.hidden), torch.float32, self._fold,
        )  # fmt: skip

    def _fold(self) -> None:
        self.folds += 1

    def findings(self, microbatches: int) -> dict[str, float]:
        """Differences from the reference, and how often weight gradients came on their own."""
        self.folds = 0
        self.flat.zero_()
        self.reference.zero_grad()
        batches = [make_batch(seed) for seed in range(microbatches)]
        expected = torch.zeros(())
        for batch in batches:
            loss = self.reference(*batch)[0] * SCALE
            loss.backward()
            expected += loss.detach()
        loss = self.pipeline.train(batches, SCALE)
        last = len(self.modules) * dist.get_world_size() - 1 in self.modules
        theirs = dict(self.reference.named_parameters())
        offset, gradient = 0, 0.0
        for name, parameter in self.parameters:
            ours = self.flat[offset : offset + parameter.numel()].view_as(parameter)
            gradient = max(gradient, difference(ours, theirs[name].grad))
            offset += parameter.numel()
        batch = batches[0]
        with torch.no_grad():
            their_loss, their_count = self.reference(*batch)
            their_logits = self.reference.logits(batch.tokens, batch.positions, batch.document_ids)
        our_loss, our_count = self.pipeline.loss(batch)
        our_logits = self.pipeline.logits(batch.tokens, batch.positions, batch.document_ids)
        return {
            "loss": difference(loss, expected) if last else abs(loss.item()),
            "gradient": gradient,
            "evaluation": difference(our_loss, their_loss),
            "targets": float(our_count - their_count),
            "logits": difference(our_logits, their_logits),
            "folds": float(self.folds),
        }


class Buffers:
    """Bytes of receive buffers that are alive, and the most that ever were."""

    def __init__(self) -> None:
        self.made: list[tuple[StorageWeakRef, int]] = []
        self.peak = 0
        plain = Stage._allocate

        def allocate(stage: Stage, meta: torch.Tensor) -> torch.Tensor:
            tensor = plain(stage, meta)
            self.made.append((StorageWeakRef(tensor.untyped_storage()), tensor.nbytes))
            self.peak = max(self.peak, self.bytes())
            return tensor

        Stage._allocate = allocate  # type: ignore[method-assign]

    def bytes(self) -> int:
        """Of the buffers whose memory something still refers to."""
        self.made = [(storage, size) for storage, size in self.made if not storage.expired()]
        return sum(size for _, size in self.made)


def findings(cases: list[str]) -> dict[str, dict[str, float]]:
    """A rank's, by case (kind:virtual stages:microbatches), one after the other in one process group."""
    dist.init_process_group("gloo")
    buffers, found = Buffers(), {}
    gc.disable()  # a buffer that only a garbage collection frees is not freed in time
    for case in cases:
        kind, virtual_stages, microbatches = case.split(":")
        run = Case(kind, int(virtual_stages))
        buffers.peak = 0
        found[case] = run.findings(int(microbatches)) | {"peak": buffers.peak, "left": buffers.bytes()}
    return found
