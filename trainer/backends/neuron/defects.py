"""What neuronx-distributed 0.17 and 0.18 do wrong, by a name in words: what happens, and what we do instead.

tests/neuron/test_canaries.py runs each against the real source and fails once it is mended. docs/neuron.md has the
table for people.
"""

from __future__ import annotations

from typing import NamedTuple


class Defect(NamedTuple):
    """says: what NxD does. here: what this backend does instead. silent: it gives wrong results without an error."""

    says: str
    here: str
    silent: bool = True


DEFECTS = {
    "input_gradient_not_reduced": Defect(
        "a column-parallel layer whose dtype is not its reduce_dtype (FP32 by default) returns its own part of the"
        " input's gradient",
        "reduce_dtype is the layer's dtype (lowering/layers.py), and update/audit.py looks",
    ),
    "old_masters_over_loaded_weights": Defect(
        "a checkpoint without masters, the default, is loaded optimizer first: the next step restores the old weights",
        "checkpoints are ours, masters included (update/store.py)",
    ),
    "fused_weight_unmarked": Defect(
        "the grouped-query layer makes its fused weight again after it was marked: the norm counts one shard of it",
        "query, key and value are one column-parallel layer (lowering/lower.py), and update/audit.py looks",
    ),
    "clipping_norm_ignored": Defect(
        "ZeRO-1 clips to 1.0 whatever max_grad_norm says",
        "clipping is a factor that our optimizer gets (update/zero1.py)",
    ),
    "smoothed_loss_wrong": Defect(
        "label smoothing over a cut vocabulary: loss and gradient are wrong", "label smoothing is not offered"
    ),
    "adapter_gradient_partial": Defect(
        "the replicated half of a LoRA adapter keeps a partial gradient under sequence parallelism",
        "its LoRA is not used",
    ),
    "context_gradient_added_twice": Defect(
        "without ZeRO-1 gradients are summed over context parallelism, and again over a group that contains it",
        "without ZeRO-1 we sum over the data axes ourselves (update/reduction.py)",
    ),
    "manual_stage_stateless": Defect(
        "a pipeline stage that was cut by hand has an empty state_dict", "pipelines are traced (lowering/pipeline.py)"
    ),
    "strided_groups_of_four": Defect(
        "tensor parallelism of 4 takes ranks 0, 8, 16, 24, and fails beside a pipeline",
        "rules/trn1.py refuses it",
        silent=False,
    ),
    "source_rank_of_four": Defect(
        "get_tensor_model_parallel_src_rank names the rank itself in a group of 4", "it is not used"
    ),
    "grouped_query_bias_raises": Defect(
        "the grouped-query layer raises with a bias, its default", "it is not used", silent=False
    ),
    "same_draws_on_every_rank": Defect(
        "weights drawn on meta with one seed are the same shard on all tensor-parallel ranks",
        "weights come from models/initialise.py",
    ),
    "interleaved_evaluation_hangs": Defect(
        "the evaluation schedule hangs with several stages a rank",
        "training's schedule runs, and its gradients are dropped (lowering/pipeline.py)",
        silent=False,
    ),
}
