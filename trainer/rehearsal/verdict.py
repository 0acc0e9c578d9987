"""Whether a rank fits into a NeuronCore of trn1, by the neuron backend's formula: an estimate, shown with its terms.

Bytes a parameter: BF16 weights, FP32 gradient accumulators, FP32 masters and moments; ZeRO-1 cuts these over the data
ranks (AWS Neuron documentation, libraries/neuronx-distributed/standard_mixed_precision). Memory: 32 GiB a chip of two
cores (about-neuron/arch/neuron-hardware/trn1-arch). Bucket: neuronx-distributed's default of the environment variable
ALL_GATHER_REDUCE_SCATTER_BUCKET_CAP_MB, 130, by which its ZeRO-1 gathers weights. No term was measured on a device.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.rehearsal.scores import Scores, Strips
from trainer.trainium.environment import BUCKET_MB

GIB = 2**30
CORE_BYTES = 16 * GIB
USABLE_BYTES = 14 * GIB
"""Our margin, which nobody publishes: the rest is for the runtime, the compiled program and fragmentation."""
BUCKET_BYTES = BUCKET_MB * 2**20
BYTES = {"bf16_mixed": (2, 4, 12), "fp32": (4, 4, 8), "bf16": (2, 2, 4)}
"""By precision mode: weight, gradient accumulator, and what ZeRO-1 cuts: moments, and masters in bf16_mixed."""

ANSWERS = {True: "fits", False: "DOES NOT FIT", None: "CANNOT BE TOLD"}


@dataclass(frozen=True)
class Verdict:
    """Estimated bytes of a rank on trn1. parameters: held by its tensor and pipeline cut, before ZeRO. data: ranks that
    hold the same ones. activations: peak above the static state, of the native lowering. frozen: of the parameters,
    those that are not trained: they are a weight and nothing else. scores: of attention; None where it is the flash
    kernel, which keeps none.
    """

    precision: str
    parameters: int
    data: int
    activations: int
    frozen: int = 0
    scores: Scores | Strips | None = None

    @property
    def static(self) -> int:
        """Weights, gradients, and this rank's share of optimizer state, in bytes."""
        weight, gradient, optimizer = BYTES[self.precision]
        trained = self.parameters - self.frozen
        return self.parameters * weight + trained * gradient + -(-trained * optimizer // self.data)

    @property
    def total(self) -> int:
        """All of it but scores, in bytes. Without data parallelism nothing is gathered, and there is no bucket."""
        return self.static + self.activations + (BUCKET_BYTES if self.data > 1 else 0)

    @property
    def ends(self) -> tuple[int, int]:
        """All of it at least and at most, in bytes."""
        least, most = (0, 0) if self.scores is None else (self.scores.least, self.scores.most)
        return self.total + least, self.total + most

    @property
    def fits(self) -> bool | None:
        """Within what a core leaves; None where that depends on what the compiler keeps of the scores."""
        least, most = self.ends
        return None if least <= USABLE_BYTES < most else most <= USABLE_BYTES

    def __str__(self) -> str:
        weight, gradient, optimizer = BYTES[self.precision]
        bucket = f" + gather bucket {BUCKET_BYTES / GIB:.2f}" if self.data > 1 else ""
        each = f"{weight} + {gradient} + {optimizer}/{self.data}"
        frozen = f" and {self.frozen:,} frozen x {weight}" if self.frozen else ""
        trained = f"{self.parameters - self.frozen:,} parameters x ({each})"
        in_all = dict.fromkeys(f"{end / GIB:.2f}" for end in self.ends)
        scores = (
            "" if self.scores is None else f" + scores {self.scores.least / GIB:.2f} to {self.scores.most / GIB:.2f}"
        )
        return (
            f"{ANSWERS[self.fits]} (estimated): {trained}{frozen} bytes"
            f" = {self.static / GIB:.2f} + activations {self.activations / GIB:.2f}{bucket}{scores}"
            f" = {' to '.join(in_all)} GiB, of {USABLE_BYTES / GIB:.1f} usable of {CORE_BYTES // GIB} GiB a core"
        )
