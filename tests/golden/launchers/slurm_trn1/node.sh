#!/bin/bash
# it-s-100-0001-0a1b2c3d, on each node
cd '/shared/my work' || exit 3

# The tree that this was submitted from goes before an installed one.
export PYTHONPATH=/tree${PYTHONPATH:+:$PYTHONPATH}

# The environment; environment.json has the source of each line.
# open files: each rank keeps sockets to the others, and the memory-mapped shards of its text
ulimit -S -n "$(ulimit -H -n)"
# locked memory: EFA registers the buffers that it sends from, and they must stay in memory
ulimit -S -l "$(ulimit -H -l)"
# a line of the log is there when it is printed
export PYTHONUNBUFFERED=1
# a fault in a library's C code leaves the stack of Python in the log
export PYTHONFAULTHANDLER=1
# the device; nxd compares with exactly this word
export PJRT_DEVICE=NEURON
# 32 processes share the host's memory: glibc keeps fewer arenas in each (mallopt does it in the process)
export MALLOC_ARENA_MAX=64
# a decoder; every cast is the model's own, FP32 stays FP32; a failed compilation is tried again and not taken from the cache
export NEURON_CC_FLAGS='--model-type=transformer --auto-cast=none --retry_failed_compilation'
# compiled graphs, on this machine's own disk
export NEURON_COMPILE_CACHE_URL=/var/tmp/neuron-compile-cache
# softmax as one operation that the compiler knows
export NEURON_FUSE_SOFTMAX=1
# SiLU as one operation that the compiler knows
export NEURON_CUSTOM_SILU=1
# precision.mode=bf16_mixed: FP32 masters need none
export NEURON_RT_STOCHASTIC_ROUNDING_EN=0
# a rank waits for one that still compiles, which takes an hour or more; the documents disagree on the default
export NEURON_RT_EXEC_TIMEOUT=7200
# steps wait in a queue on the device; more than 3 can exhaust its memory; no longer read from 2.33 on
export NEURON_RT_ASYNC_EXEC_MAX_INFLIGHT_REQUESTS=3
# ZeRO's gatherings and reductions, MB: above 140 losses became NaN
export ALL_GATHER_REDUCE_SCATTER_BUCKET_CAP_MB=130
# sums of gradients, MB: the same limit; nxd's own default is 512
export ALLREDUCE_BUCKET_CAP_MB=130
# nodes exchange over EFA
export FI_PROVIDER=efa
# straight between the device memories of two nodes
export FI_EFA_USE_DEVICE_RDMA=1
# Linux before 5.15 refuses to exchange between nodes without it
export FI_EFA_FORK_SAFE=1
# yours: launcher.environment
export FI_LOG_LEVEL=warn

# launcher.setup
module load neuron

exec python3 /tree/scripts/launch.py --nnodes 4 --rdzv_backend c10d --rdzv_endpoint "$MEET" --rdzv_id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv_conf is_host=$((SLURM_NODEID == 0)) --nproc_per_node 32 /tree/scripts/train.py recipe=llama3_8b 'run.name="it'"'"'s 100%"'
