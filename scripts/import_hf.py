"""Make a checkpoint of ours of a Hugging Face directory or a GGUF file, once, for clusters (docs/weights.md).

python scripts/import_hf.py DIRECTORY CHECKPOINTS [--dtype float32|bfloat16]

CHECKPOINTS is made, with step-00000000 and the tokenizer in it: training begins with model.init_from=CHECKPOINTS.
exit 0: done; 3: the directory is refused, or CHECKPOINTS cannot be written
"""

from __future__ import annotations

import argparse
import sys

from trainer.commands.command_line import run


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("directory", metavar="DIRECTORY")
    made.add_argument("checkpoints", metavar="CHECKPOINTS")
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the checkpoint")
    return made


def act(options: argparse.Namespace) -> None:
    """Import, and say so."""
    from trainer.commands.import_hf import import_directory  # brings torch

    for line in import_directory(options.directory, options.checkpoints, options.dtype):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(run(parser(), act))
