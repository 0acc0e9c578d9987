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

case "$SLURM_ARRAY_TASK_ID" in
0) set -- recipe=llama3_8b optim.lr=0.001 'run.name="sweep-optim.lr=0.001"' ;;
1) set -- recipe=llama3_8b seed=2 run.name=b ;;
esac
exec python3 /tree/scripts/train.py "$@"
