"""neuronx-distributed's pipeline around the lowered model: cuts, microbatches, and a loss that means what ours does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from neuronx_distributed.pipeline import NxDPPModel
from torch import nn

from trainer.backends.neuron import device
from trainer.backends.neuron.lowering.model import INPUTS, LoweredLayer, LoweredLM
from trainer.batch import Batch

LEAVES = ("TokenLoss", "Embedding", "Dropout", "SequencePart")
"""Modules that FX must not look into, besides the layers, the final norm and NxD's own, by class name."""


class Pipeline:
    """This rank's stages. layers: of every stage, first to last; microbatches: that one rank trains on in a step."""

    def __init__(self, model: LoweredLM, layers: Sequence[range], pp: int, microbatches: int) -> None:
        self.virtual, self.microbatches = len(layers) // pp, microbatches
        self._engine = NxDPPModel(
            model,
            transformer_layer_cls=LoweredLayer,
            num_microbatches=microbatches,
            virtual_pipeline_size=self.virtual,
            output_loss_value_spec=True,
            use_zero1_optimizer=True,  # gradients meet in our optimizer, not in the schedule
            use_model_wrapper=True,  # parameters get memory from us, not from the engine
            use_optimizer_wrapper=True,
            pipeline_cuts=[f"model.layers.{stage.stop - 1}" for stage in layers[:-1]],
            input_names=list(INPUTS),
            leaf_module_cls=[*LEAVES, *["lm_head"] * model.adapted_head, type(model.model.norm).__name__],
            tracer_cls="torch",
            return_loss_on_cpu=False,
        )
        # Its graph cuts go our way: each graph's collectives are compared over the stage's ranks before it first runs.
        self._engine._mark_step = device.sync
        self._engine.model_moved_to_device = True  # it is there already, and its tied weights are equal
        self.last = self._engine.is_last_stage()

    def modules(self) -> list[nn.Module]:
        """This rank's stages."""
        return list(self._engine.local_stage_modules)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Of this rank, by the names that they have in the whole model."""
        yield from self._engine.local_named_parameters()

    def train(self, batches: Sequence[Batch], weight: torch.Tensor, where: torch.device) -> torch.Tensor:
        """Forward and backward of a step. weight: FP32 [1] on the host, of every microbatch's summed loss.

        Returns FP32 [1]: the weighted sum on the last stage's ranks, zero on the others. The engine divides by the
        number of microbatches, so the weight is multiplied by it here and the returned loss is a sum again.
        """
        loss = self._engine.run_train(**self._inputs(batches, weight * self.microbatches))
        return self._sum(loss, where)

    def loss(self, batches: Sequence[Batch], where: torch.device) -> torch.Tensor:
        """Summed loss of as many microbatches as in training, without gradients, as ``train`` returns it.

        With several stages a rank training's schedule runs, and the caller clears the gradients: the engine's own is
        one of its defects (interleaved_evaluation_hangs).
        """
        weight = torch.full((1,), float(self.microbatches))
        run: Any = self._engine.run_eval if self.virtual == 1 else self._engine.run_train
        return self._sum(run(**self._inputs(batches, weight)), where)

    def _sum(self, loss: torch.Tensor | None, where: torch.device) -> torch.Tensor:
        if not self.last or loss is None:
            return torch.zeros(1, dtype=torch.float32, device=where)
        return loss.detach().reshape(1)

    def _inputs(self, batches: Sequence[Batch], weight: torch.Tensor) -> dict[str, torch.Tensor]:
        fields = [torch.cat(parts) for parts in zip(*batches, strict=True)]
        weights = weight.expand(fields[0].shape[0]).contiguous()
        return dict(zip(INPUTS, [*fields, weights], strict=True))
