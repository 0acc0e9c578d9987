"""A small double of the part of neuronx-distributed (NxD 0.17.0) that backends/neuron uses, for tests alone.

It runs the backend's own code where NxD's source is not at hand: over gloo in several processes (NXD_CPU_MODE=1), and
in one process on torch_xla's lazy tensors. Signatures are NxD's (tests/neuron/nxd_signatures.json); what it computes is
held against the original by tests/neuron/test_double_agrees.py. Where it differs, on purpose:

- ColumnParallelLinear reduces its input's gradient over TP whatever ``reduce_dtype`` is (NxD returns the local one
  where it differs from ``dtype``); ParallelEmbedding returns FP16 as FP16, heeds padding_idx=0 and device="meta".
- parallel_cross_entropy leaves its logits alone and works in FP32; it refuses label smoothing, which NxD gets wrong.
- reduce_from_tensor_model_parallel_region returns a new tensor; NxD overwrites its input as well.
- Without ZeRO-1 gradients are averaged over DP and CP; NxD's come out CP times too large.
- get_tensor_model_parallel_src_rank is right for TP 4.
- NxDPPModel runs all forwards, then all backwards; run_eval works with virtual stages, where NxD hangs; a batch of a
  new shape is an error, where NxD hangs; names of local modules are those of the original model.
- What the backend has no use for raises NotImplementedError: padding, master weights, SPMD ranks, experts, manual and
  automatic partitions, the pipeline on an XLA device.
"""

__version__ = "0.17.0+double"
