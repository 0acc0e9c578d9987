"""Score a model: a run, one of its checkpoints, or a directory in Hugging Face's layout (docs/evaluate.md).

python scripts/eval.py runs/tiny --data corpus/heldout.txt             loss, perplexity, bits per byte
python scripts/eval.py models/SmolLM2 --tasks quiz.jsonl --output result.json   multiple choice, exact match
torchrun --nproc_per_node 2 scripts/eval.py runs/tiny --data ...       cut over 2 tensor-parallel ranks

exit 0: done; 3: a mistake in the command, or the model is refused; 4: a file cannot be used
"""

from __future__ import annotations

import argparse
import sys

from trainer.commands.command_line import run
from trainer.commands.eval import Asked, evaluate
from trainer.rules.text import DOCUMENT_UNITS, FORMATS
from trainer.run.world import World


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("model", metavar="MODEL", help="a run's directory, a checkpoint's, or one that save_pretrained wrote")
    add("--data", nargs="+", action="extend", metavar="PATH", help="texts: files, or directories of them")
    add("--format", choices=FORMATS, help="of --data, whatever the suffixes say")
    add(
        "--text-field", default="text", metavar="NAME", help="of --data: the column or field that holds the text (text)"
    )
    add("--document-unit", default="file", choices=DOCUMENT_UNITS, help="of text files: what a document is (file)")
    add("--tasks", nargs="+", action="extend", metavar="FILE", help="JSONL: multiple choice, or exact match")
    add("--seq-len", type=int, metavar="N", help="tokens of a window (the model's, 2,048 at most)")
    add("--stride", type=int, metavar="N", help="targets of a window behind the first (all: windows do not overlap)")
    add("--batch", type=int, default=8, metavar="N", help="windows, choices or prompts that are read together (8)")
    add("--base", metavar="DIRECTORY", help="of a fine-tuned run: where the base is now; without: where it was")
    add("--dtype", choices=("float32", "bfloat16"), help="without: as the weights are stored")
    add("--output", metavar="FILE", help="the result, as JSON, beside the table")
    return made


def act(options: argparse.Namespace) -> None:
    """Score, and print the table."""
    for line in evaluate(Asked.of(vars(options)), World.from_environment()):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(run(parser(), act))
