"""What is in a run's checkpoints (docs/checkpoints.md).

python scripts/ckpt.py ls runs/tiny                                 a row for each: step, time, size, sound?, layout
python scripts/ckpt.py verify runs/tiny                             read every byte of each; what is wrong with it
python scripts/ckpt.py inspect runs/tiny ['*.norm.weight']          tensors: shape, dtype, chunks, files
python scripts/ckpt.py diff runs/tiny runs/other                    how far two are apart, tensor by tensor
python scripts/ckpt.py prune runs/tiny --keep 2 [--keep-every 500]  what would go; --yes removes it

inspect and diff take a checkpoint (runs/tiny/checkpoints/step-00000360), or a run, whose newest it is.
exit 0: done; 3: a mistake in the command, or unreadable; 13: verify found an unsound one
"""

from __future__ import annotations

import argparse
import sys

from trainer.commands.command_line import run
from trainer.errors import ExitCode


def parser() -> argparse.ArgumentParser:
    """The five commands and what each takes."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="{ls,verify,inspect,diff,prune}")
    for name in ("ls", "verify", "prune"):
        made = commands.add_parser(name)
        made.add_argument("run", metavar="RUN")
        if name == "prune":
            made.add_argument("--keep", type=int, required=True, help="how many of the newest stay")
            made.add_argument("--keep-every", type=int, default=0, help="steps that this divides stay too")
            made.add_argument("--yes", action="store_true", help="remove; else only say what would go")
    one = commands.add_parser("inspect")
    one.add_argument("checkpoint", metavar="CHECKPOINT")
    one.add_argument("pattern", metavar="PATTERN", nargs="?", default="*", help="of the tensors' names")
    two = commands.add_parser("diff")
    two.add_argument("a", metavar="A")
    two.add_argument("b", metavar="B")
    return top


def act(options: argparse.Namespace) -> ExitCode:
    """Do what was asked; torch is imported for diff only."""
    if options.command == "verify":
        from trainer.commands.ckpt.listing import verify

        return verify(options.run, lambda line: print(line, flush=True))
    if options.command == "ls":
        from trainer.commands.ckpt.listing import ls

        lines = ls(options.run)
    elif options.command == "inspect":
        from trainer.commands.ckpt.inspection import inspect

        lines = inspect(options.checkpoint, options.pattern)
    elif options.command == "diff":
        from trainer.commands.ckpt.difference import diff

        lines = diff(options.a, options.b)
    else:
        from trainer.commands.ckpt.pruning import prune

        lines = prune(options.run, options.keep, options.keep_every, options.yes)
    for line in lines:
        print(line, flush=True)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(run(parser(), act))
