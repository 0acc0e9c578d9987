"""Score a model: a run, one of its checkpoints, or a directory in Hugging Face's layout (docs/evaluate.md).

python scripts/eval.py runs/tiny --data corpus/heldout.txt             loss, perplexity, bits per byte
python scripts/eval.py models/SmolLM2 --tasks quiz.jsonl --output result.json   multiple choice, exact match
python scripts/eval.py runs/mine --chat talk.jsonl                      loss over what the assistant says
torchrun --nproc_per_node 2 scripts/eval.py runs/tiny --data ...       cut over 2 tensor-parallel ranks

exit 0: done; 3: a mistake in the command, or the model is refused; 4: a file cannot be used
"""

from __future__ import annotations

import argparse
import sys

from trainer.commands.command_line import run
from trainer.commands.eval import Asked, evaluate
from trainer.config.groups.data import DataConfig
from trainer.rules.text import BAD_DOCUMENTS, CHAT, DOCUMENT_UNITS, FORMATS
from trainer.rules.values import CHOICES
from trainer.run.world import World


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("model", metavar="MODEL", help="a run's directory, a checkpoint's, or one that save_pretrained wrote")
    add("--data", nargs="+", action="extend", metavar="PATH", help="texts: files, or directories of them")
    add("--format", choices=FORMATS, help="of --data and --chat, whatever the suffixes say")
    field = "the column or field that holds the text, or of --chat the turns (text)"
    add("--text-field", default="text", metavar="NAME", help=field)
    add("--document-unit", default="file", choices=DOCUMENT_UNITS, help="of text files: what a document is (file)")
    add("--tasks", nargs="+", action="extend", metavar="FILE", help="JSONL: multiple choice, or exact match")
    _add_chat(made)
    add("--seq-len", type=int, metavar="N", help="tokens of a window (the model's, 2,048 at most)")
    add("--stride", type=int, metavar="N", help="targets of a window behind the first (all: windows do not overlap)")
    add("--batch", type=int, default=8, metavar="N", help="windows, choices or prompts that are read together (8)")
    add("--base", metavar="DIRECTORY", help="of a fine-tuned run: where the base is now; without: where it was")
    add("--dtype", choices=("float32", "bfloat16"), help="without: as the weights are stored")
    add("--output", metavar="FILE", help="the result, as JSON, beside the table")
    return made


def _add_chat(made: argparse.ArgumentParser) -> None:
    """The options of conversations; their defaults are training's, but for --bad-documents."""
    add, defaults = made.add_argument, DataConfig()
    add("--chat", nargs="+", action="extend", metavar="PATH", help="conversations: JSON, CSV, Parquet, Arrow")
    add("--shape", default="auto", choices=CHAT, help="of --chat: the shape of its rows (auto: by their columns)")
    add(
        "--train-on",
        default=defaults.train_on,
        choices=CHOICES["data.train_on"],
        help="what counts (assistant: all that it says)",
    )
    add("--chat-template", metavar="FILE", help="another than the model's, or the name of one of its templates")
    add("--chat-date", default=defaults.chat_date, metavar="DATE", help="what a template takes for today")
    add("--bad-documents", default="stop", choices=BAD_DOCUMENTS, help="rows that cannot be used (stop)")


def act(options: argparse.Namespace) -> None:
    """Score, and print the table."""
    for line in evaluate(Asked.of(vars(options)), World.from_environment()):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(run(parser(), act))
