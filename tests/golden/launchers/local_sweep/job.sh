#!/bin/bash
# it-s-100-0001-0a1b2c3d
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

# One run after the other. A signal ends bash's wait and not the run, which saves; no other begins then.
worst=0 asked=
trap 'asked=yes; kill -TERM "$child" 2>/dev/null' TERM INT HUP USR1 USR2
one() {
  [[ -z $asked ]] || exit 10
  "$@" & child=$!
  wait "$child"; code=$?
  while ((code > 128)) && kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  if ((code > 128)) && [[ -n $asked ]]; then  # it ended just when the signal came
    wait "$child"; last=$?
    ((last == 127)) || code=$last
  fi
  ((code > worst)) && worst=$code
  [[ -z $asked ]] || exit "$code"
}
one python3 /tree/scripts/train.py recipe=llama3_8b optim.lr=0.001 'run.name="sweep-optim.lr=0.001"'
one python3 /tree/scripts/train.py recipe=llama3_8b seed=2 run.name=b
exit $worst
