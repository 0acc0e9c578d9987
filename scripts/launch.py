"""torchrun that returns the workers' exit code and waits for them to save.

python scripts/launch.py --standalone --nproc_per_node 2 scripts/train.py recipe=tiny
"""

from __future__ import annotations

import sys

from trainer.run.output import quiet_torch
from trainer.run.signals import leave_when_asked

if __name__ == "__main__":
    leave_when_asked()  # until workers run: importing torch takes seconds
    with quiet_torch():
        from trainer.commands.launch.launcher import launch

    sys.exit(launch(sys.argv[1:]))
