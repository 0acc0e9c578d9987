"""Make a checkpoint of ours of a directory in Hugging Face's layout, once, for clusters (docs/weights.md).

python scripts/import_hf.py DIRECTORY CHECKPOINTS [--dtype float32|bfloat16]

CHECKPOINTS is made, with step-00000000 and the tokenizer in it: training begins with model.init_from=CHECKPOINTS.
exit 0: done; 3: the directory is refused, or CHECKPOINTS cannot be written
"""

from __future__ import annotations

import argparse
import sys

from trainer.errors import ExitCode, RunError
from trainer.run.output import outlive_readers


def main() -> int:
    outlive_readers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIRECTORY")
    parser.add_argument("checkpoints", metavar="CHECKPOINTS")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the checkpoint")
    try:
        options = parser.parse_args()
    except SystemExit as error:  # argparse has said what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    from trainer.commands.import_hf import import_directory  # brings torch

    try:
        for line in import_directory(options.directory, options.checkpoints, options.dtype):
            print(line, flush=True)
    except RunError as error:
        print(error.report(), file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt:
        return 130
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
