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

exec python3 /tree/scripts/launch.py --standalone --nproc_per_node 2 /tree/scripts/train.py recipe=llama3_8b 'run.name="it'"'"'s 100%"'
