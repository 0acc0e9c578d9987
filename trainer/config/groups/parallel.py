"""Keys of `parallel`: how ranks share the work."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PipelineConfig:
    schedule: str = "1f1b"
    """1f1b | interleaved_1f1b | interleaved_zero_bubble."""
    virtual_stages: int = 1
    """Stages that each rank holds: 1 for 1f1b, 2 or more for the interleaved schedules."""
    cuts: list[int] = field(default_factory=list)
    """Decoder layers of each stage, first to last. Empty: balanced by cost, the head's included."""


@dataclass(frozen=True)
class ParallelConfig:
    tp: int = 1
    """Tensor-parallel size."""
    pp: int = 1
    """Pipeline-parallel size: ranks that share the layers."""
    cp: int = 1
    """Context-parallel size: ranks that share the positions of a sample."""
    sp: bool = False
    """Sequence parallelism: between the tensor-parallel blocks, each rank keeps a part of the sequence only."""
    zero: int = 0
    """Cut over the dp x cp ranks: 0 nothing | 1 masters and moments | 2 and gradients | 3 and weights."""
    recompute: str = "none"
    """Activations made again in the backward pass: none | selective (all but matrix products) | full."""
    recompute_every: int = 1
    """Recompute in every k-th layer only."""
    cores: int | None = None
    """NeuronCores that the recipe's batch is meant for: what command.py shows and a rehearsal pretends by default."""
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    """Stages and their schedule, where pp is above 1."""
